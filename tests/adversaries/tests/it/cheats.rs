//! Miners that cheat, one kind after the other: each is caught, loses its stake by the rule that must catch it, and the
//! client has its money back.

use assay_proof::{Contrasts, Reasons, Step};
use assay_types::{EndReason, Sampling};

use crate::{
    answers::{MAX_OUTPUT, Submission, Task, decode, ids},
    calibration::CALIBRATION,
    court::Court,
    engine::MODEL,
    model::{END, Model, VOCABULARY},
    outcome::{Outcome, Rule},
    validators::Conduct,
};

/// Trials of each kind.
pub const TRIALS: u32 = 20;
/// Tasks that are asked until there are as many trials: some answers are too short for what is tried.
const MOST_TASKS: u32 = 1000;

/// So many trials of one kind before honest validators. `cheat` passes over tasks that are no use to it.
pub fn trials(cheat: impl Fn(&Task) -> Option<Submission>, check: impl Fn(&Outcome, &Submission)) {
    trials_of(Sampling::default(), cheat, check);
}

pub fn trials_of(
    sampling: Sampling,
    cheat: impl Fn(&Task) -> Option<Submission>,
    check: impl Fn(&Outcome, &Submission),
) {
    let mut court = Court::new();
    let mut done = 0;
    for number in 0..MOST_TASKS {
        court.go_back();
        let task = court.ask_with(Task::request(number, sampling), number);
        let Some(submission) = cheat(&task) else { continue };
        let outcome = court.play(&task, &submission, &Conduct::honest());
        check(&outcome, &submission);
        done += 1;
        if done == TRIALS {
            return;
        }
    }
    panic!("only {done} tasks were of use");
}

/// Whole blocks of it can be judged.
fn long(submission: Submission) -> Option<Submission> {
    (submission.tokens() >= 32).then_some(submission)
}

/// An honest answer of at least this many tokens.
pub fn honest_ids(task: &Task, least: usize) -> Option<Vec<u32>> {
    Some(Submission::honest(task).ids).filter(|ids| ids.len() >= least)
}

/// Tokens of `first` until `turn`, then of `second`; contrasts of whichever chose.
fn decode_by_two(task: &Task, first: &Model, second: &Model, turn: usize) -> Vec<Step> {
    let mut sampler = task.sampler();
    let mut steps = Vec::new();
    let prompt = task.prompt();
    while steps.len() < MAX_OUTPUT as usize {
        let model = if steps.len() < turn { first } else { second };
        // A run is replayed from its beginning where the weights change.
        let context = [&prompt[..], &ids(&steps)].concat();
        let step = sampler.step(&model.run(&context, task.seed()).logits()).unwrap();
        steps.push(step);
        if step.id == END {
            break;
        }
    }
    steps
}

#[test]
fn honest_answers_are_paid() {
    let plain = Sampling::default();
    let kinds = [
        plain,
        Sampling { temperature_milli: 0, ..plain },
        Sampling { temperature_milli: 700, top_p_milli: 900, ..plain },
        Sampling { top_k: 20, min_p_milli: 50, frequency_penalty_milli: 500, ..plain },
    ];
    for sampling in kinds {
        trials_of(
            sampling,
            |task| Some(Submission::honest(task)),
            |outcome, _| {
                outcome.passed();
                assert!(outcome.collected, "the validator was not paid");
            },
        );
    }
}

#[test]
fn four_bit_weights() {
    let quantised = Model::new(1).quantised(4);
    trials(
        |task| long(Submission::decoded(task, &quantised)),
        |outcome, _| {
            assert!(outcome.has(Reasons::FINGERPRINT));
            outcome.caught_by(Rule::Fingerprint);
        },
    );
}

#[test]
fn eight_bit_weights() {
    let quantised = Model::new(1).quantised(8);
    trials(
        |task| long(Submission::decoded(task, &quantised)),
        |outcome, _| outcome.caught_by(Rule::Fingerprint),
    );
}

#[test]
fn another_model() {
    let other = Model::new(2);
    trials(
        |task| long(Submission::decoded(task, &other)),
        |outcome, _| outcome.caught_by(Rule::Fingerprint),
    );
}

#[test]
fn half_an_answer_with_other_weights() {
    let quantised = Model::new(1).quantised(4);
    trials(
        |task| {
            let steps = decode_by_two(task, &MODEL, &quantised, 32);
            (steps.len() >= 64).then(|| Submission::of_steps(task, &steps))
        },
        |outcome, _| outcome.caught_by(Rule::Fingerprint),
    );
}

#[test]
fn decoding_with_a_small_model_and_prefilling_with_the_right_one() {
    for small in [Model::new(2), Model::new(1).quantised(4)] {
        trials(
            |task| {
                let steps = decode(task, &small, &mut task.sampler(), &task.prompt());
                (steps.len() >= 64).then(|| Submission::prefilled(task, ids(&steps)))
            },
            |outcome, _| {
                // The fingerprint is perfect.
                assert!(!outcome.has(Reasons::FINGERPRINT) && !outcome.has(Reasons::SPOT));
                outcome.caught_by(Rule::Sampling);
            },
        );
    }
}

#[test]
fn copied_answer() {
    trials(
        |task| {
            let other = honest_ids(&task.of(task.scope.node.0 + 1), 8)?;
            Some(Submission::prefilled(task, other))
        },
        |outcome, _| outcome.caught_by(Rule::Sampling),
    );
}

#[test]
fn copied_fingerprint() {
    // Another node's answer with its contrasts; and an answer of its own with another's contrasts.
    trials(
        |task| long(Submission::honest(&task.of(task.scope.node.0 + 1))),
        |outcome, _| outcome.caught_by(Rule::Fingerprint),
    );
    trials(
        |task| {
            let own = honest_ids(task, 32)?;
            let other = Submission::prefilled(&task.of(task.scope.node.0 + 1), own.clone());
            Some(Submission::new(task, own, other.contrasts))
        },
        |outcome, _| outcome.caught_by(Rule::Fingerprint),
    );
}

#[test]
fn invented_fingerprint() {
    for value in [0, i16::MIN, i16::MAX] {
        let invented = Contrasts::new(&[value; 4]).unwrap();
        trials(
            |task| {
                let own = honest_ids(task, 32)?;
                let contrasts = vec![invented; own.len()];
                Some(Submission::new(task, own, contrasts))
            },
            |outcome, _| outcome.caught_by(Rule::Fingerprint),
        );
    }
}

/// An id that ends nothing.
fn ordinary(task: &Task) -> u32 {
    3 + u32::from(task.seed()[0]) % (VOCABULARY - 3)
}

/// Caught if a margin is above the hard one; what is below it passes by design.
fn caught_above_the_hard_margin(outcome: &Outcome) {
    if outcome.has(Reasons::HARD_MARGIN) {
        outcome.caught_by(Rule::Sampling);
    } else {
        outcome.passed();
    }
}

#[test]
fn edited_token() {
    trials(
        |task| {
            let mut edited = honest_ids(task, 24)?;
            edited[10] = ordinary(task);
            Some(Submission::prefilled(task, edited))
        },
        |outcome, _| caught_above_the_hard_margin(outcome),
    );
}

#[test]
fn an_advertisement_among_the_tokens() {
    trials(
        |task| {
            let mut sold = honest_ids(task, 24)?;
            sold.splice(10..10, 100..105);
            sold.truncate(MAX_OUTPUT as usize);
            Some(Submission::prefilled(task, sold))
        },
        |outcome, _| outcome.caught_by(Rule::Sampling),
    );
}

#[test]
fn an_advertisement_in_the_text_alone() {
    trials(
        |task| {
            let mut submission = Submission::honest(task);
            submission.text.push_str(" Buy now!");
            Some(submission)
        },
        |outcome, _| {
            assert_eq!(outcome.reasons, Some(Reasons::TEXT));
            outcome.caught_by(Rule::Content);
        },
    );
}

#[test]
fn stopping_early() {
    for end_reason in [EndReason::Max, EndReason::Eos, EndReason::Stop] {
        trials(
            |task| {
                let cut = honest_ids(task, 24)?[..20].to_vec();
                Some(Submission { end_reason, ..Submission::prefilled(task, cut) })
            },
            |outcome, _| {
                assert_eq!(outcome.reasons, Some(Reasons::END));
                outcome.caught_by(Rule::Content);
            },
        );
    }
}

#[test]
fn stopping_early_in_somebody_elses_name() {
    let mut court = Court::new();
    let task = court.ask(0);
    let cut = Submission { end_reason: EndReason::Cancelled, ..Submission::honest(&task) };
    let refused = court.commit(&task, &cut).unwrap_err();
    assert!(refused.contains("SessionQueue_BadEndReason"), "{refused}");
}

#[test]
fn stopping_early_by_an_end_token_of_ones_own() {
    trials(
        |task| {
            let cut = [&honest_ids(task, 24)?[..20], &[END]].concat();
            Some(Submission::prefilled(task, cut))
        },
        |outcome, _| outcome.caught_by(Rule::Sampling),
    );
}

/// Honest answers that ended by themselves, with room to go on.
fn ended(task: &Task) -> Option<Vec<u32>> {
    let own = honest_ids(task, 16)?;
    (own.last() == Some(&END) && own.len() <= 80).then_some(own)
}

#[test]
fn padding_instead_of_the_end() {
    trials(
        |task| {
            let mut padded = ended(task)?;
            padded.pop();
            padded.extend([9; 10]);
            padded.push(END);
            Some(Submission::prefilled(task, padded))
        },
        |outcome, _| outcome.caught_by(Rule::Sampling),
    );
}

#[test]
fn padding_after_the_end() {
    // What is behind the end is not scored: it fails the spot check if it is drawn, and the panel's comparison only if
    // most of a block is. It is false for its end, or its tokens, all the same.
    trials(
        |task| {
            let padded = [&ended(task)?[..], &[9; 10]].concat();
            Some(Submission::prefilled(task, padded))
        },
        |outcome, _| {
            assert!(outcome.has(Reasons::END | Reasons::HARD_MARGIN));
            let rule = outcome.slashes[0].1;
            assert!(matches!(rule, Rule::Fingerprint | Rule::Sampling), "{rule:?}");
            outcome.caught_by(rule);
        },
    );
}

/// Contrasts that are wrong at so many of sixteen positions: fewer than half, so that no block fails, and enough to fail
/// many a spot check.
const DOUBTFUL: usize = 7;

/// The same answer with a fingerprint that is only mostly right.
fn doubtful(submission: Submission) -> Submission {
    let far = Contrasts::new(&[9999; 4]).unwrap();
    let mut contrasts = submission.contrasts;
    let wrong = contrasts.iter_mut().enumerate().filter(|(place, _)| place * 7 % 16 < DOUBTFUL);
    wrong.for_each(|(_, contrasts)| *contrasts = far);
    Submission { contrasts, ..submission }
}

#[test]
fn a_doubtful_fingerprint_hides_nothing() {
    // A panel that clears the weights does not clear the text.
    let cleared = std::cell::Cell::new(0);
    trials(
        |task| {
            let mut submission = long(doubtful(Submission::honest(task)))?;
            submission.text.push_str(" Buy now!");
            Some(submission)
        },
        |outcome, _| {
            let rule = outcome.slashes[0].1;
            let asked_weights = outcome.has(Reasons::SPOT);
            cleared.set(cleared.get() + u32::from(asked_weights && rule == Rule::Content));
            assert!(matches!(rule, Rule::Fingerprint | Rule::Content), "{rule:?}");
            outcome.caught_by(rule);
        },
    );
    assert!(cleared.get() >= 3, "{cleared:?} were cleared of other weights");
}

#[test]
fn the_best_of_several_seeds() {
    // Eight seeds that the miner would like: of another salt, beacon or key. The one that counts is none of them.
    let best = |task: &Task| {
        let seeds = (0..8_u8).map(|n| assay_types::keccak256([n]));
        let answers = seeds.map(|seed| {
            let mut sampler = task.sampler_with(task.request.sampling, seed);
            decode(task, &MODEL, &mut sampler, &task.prompt())
        });
        answers.max_by_key(Vec::len).filter(|steps| steps.len() >= 32)
    };
    trials(
        |task| Some(Submission::prefilled(task, ids(&best(task)?))),
        |outcome, _| outcome.caught_by(Rule::Sampling),
    );
    // With its own fingerprint as well: the pairs are others.
    trials(
        |task| Some(Submission::of_steps(task, &best(task)?)),
        |outcome, _| outcome.caught_by(Rule::Fingerprint),
    );
}

#[test]
fn other_sampling_than_asked_for() {
    let plain = Sampling::default();
    for (asked, used) in [
        (plain, Sampling { temperature_milli: 700, ..plain }),
        (plain, Sampling { temperature_milli: 0, ..plain }),
        (Sampling { temperature_milli: 0, ..plain }, plain),
        (plain, Sampling { top_p_milli: 500, ..plain }),
    ] {
        trials_of(
            asked,
            |task| {
                let mut sampler = task.sampler_with(used, task.seed());
                let steps = decode(task, &MODEL, &mut sampler, &task.prompt());
                (steps.len() >= 48).then(|| Submission::prefilled(task, ids(&steps)))
            },
            |outcome, _| outcome.caught_by(Rule::Sampling),
        );
    }
}

#[test]
fn a_hidden_system_prompt() {
    let hidden = |task: &Task| [&[400, 401, 402], &task.prompt()[..]].concat();
    trials(
        |task| {
            let steps = decode(task, &MODEL, &mut task.sampler(), &hidden(task));
            long(Submission::of_steps(task, &steps))
        },
        |outcome, _| outcome.caught_by(Rule::Fingerprint),
    );
    // Recorded by a prefill without it.
    trials(
        |task| {
            let steps = decode(task, &MODEL, &mut task.sampler(), &hidden(task));
            (steps.len() >= 64).then(|| Submission::prefilled(task, ids(&steps)))
        },
        |outcome, _| outcome.caught_by(Rule::Sampling),
    );
    // Said openly, it is not the request's.
    trials(
        |task| Some(Submission { prompt: hidden(task), ..Submission::honest(task) }),
        |outcome, _| {
            assert_eq!(outcome.reasons, Some(Reasons::PROMPT));
            outcome.caught_by(Rule::Content);
        },
    );
}

#[test]
fn the_calibration_is_one_that_a_registry_takes() {
    assert!(CALIBRATION.check().is_ok(), "{:?}", *CALIBRATION);
}
