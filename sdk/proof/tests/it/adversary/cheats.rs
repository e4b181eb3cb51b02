use std::sync::LazyLock;

use assay_proof::{Reasons, RecordError, Sampler, Width, compare};
use assay_types::{EndReason, NodeId, Sampling, keccak256, prompt_hash, seed_f};

use super::{
    model::{END, Model, VOCABULARY},
    world::{
        CALIBRATION, MODEL, Submission, Task, contrasts, decode, faults_of, honest, ids, judge,
        scored, text,
    },
};

const TRIALS: u32 = 20;
const ANSWERS: u32 = 40;

/// The honest answers of the first tasks.
static HONEST: LazyLock<Vec<Vec<u32>>> =
    LazyLock::new(|| (0..ANSWERS).map(|number| honest(&Task::new(number)).ids).collect());

fn tasks() -> impl Iterator<Item = Task> {
    (0..TRIALS).map(Task::new)
}

fn has_margin_reason(reasons: Reasons) -> bool {
    reasons.contains(Reasons::HARD_MARGIN) || reasons.contains(Reasons::MARGIN_SUM)
}

/// Every trial, and how many are caught by all of `wanted`.
fn caught_by(wanted: Reasons, cheat: impl Fn(&Task) -> Submission) -> u32 {
    tasks().filter(|task| judge(task, &cheat(task)).unwrap().contains(wanted)).count() as u32
}

fn with_sampling(sampling: Sampling) -> impl Iterator<Item = Task> {
    tasks().map(move |task| Task { sampling, ..task })
}

#[test]
fn honest_answers_pass() {
    let plain = Sampling::default();
    let kinds = [
        plain,
        Sampling { temperature_milli: 0, ..plain },
        Sampling { temperature_milli: 700, top_p_milli: 900, ..plain },
        Sampling { top_k: 20, min_p_milli: 50, ..plain },
        Sampling { frequency_penalty_milli: 700, presence_penalty_milli: -300, ..plain },
        Sampling {
            temperature_milli: 1500,
            top_p_milli: 950,
            top_k: 100,
            min_p_milli: 10,
            ..plain
        },
    ];
    let (mut ends, mut margins) = (0, 0);
    for (number, sampling) in (0..).zip(kinds) {
        for seed in 0..30 {
            let task = Task { sampling, ..Task::new(1000 * number + seed) };
            let submission = honest(&task);
            ends += u32::from(submission.end_reason == EndReason::Eos);
            margins += u32::from(scored(&task, &submission.ids, 7).statistics().max_margin > 0);
            let reasons = judge(&task, &submission).unwrap();
            assert!(reasons.is_empty(), "{sampling:?} task {}: {reasons}", task.number);
        }
    }
    // The classes do differ, and answers end both ways.
    assert!((8..150).contains(&ends) && margins > 8, "{ends} {margins}");
}

#[test]
fn another_model_is_caught_by_fingerprint_and_by_tokens() {
    let other = Model::new(2);
    let both = Reasons::FINGERPRINT | Reasons::HARD_MARGIN | Reasons::SPOT;
    let caught = caught_by(both, |task| {
        let steps = decode(task, &other, &mut task.sampler(), &task.prompt);
        Submission::new(task, ids(&steps), contrasts(&steps))
    });
    assert_eq!(caught, TRIALS);
}

#[test]
fn quantised_weights_are_caught_within_a_block() {
    for bits in [4, 8] {
        let quantised = Model::new(1).quantised(bits);
        for task in tasks() {
            let task = Task { max_output: 32, ..task };
            let steps = decode(&task, &quantised, &mut task.sampler(), &task.prompt);
            if steps.len() < 16 {
                continue;
            }
            let submission = Submission::new(&task, ids(&steps), contrasts(&steps));
            let reasons = judge(&task, &submission).unwrap();
            assert!(reasons.contains(Reasons::FINGERPRINT), "{bits} bits: {reasons}");
        }
    }
}

#[test]
fn other_weights_for_a_part_are_caught_as_for_the_whole() {
    let quantised = Model::new(1).quantised(4);
    let mut parts = 0;
    for task in tasks() {
        let ids = honest(&task).ids;
        if ids.len() < 96 {
            continue;
        }
        // The middle third by other weights, which also chose there what the right ones would have: only
        // the fingerprint tells.
        let right = scored(&task, &ids, 1).contrasts();
        let mut sampler = task.sampler();
        let mut run = quantised.run(&task.prompt, task.class(0));
        let wrong = ids.iter().map(|id| {
            let step = sampler.step(&run.logits()).unwrap();
            run.feed(*id);
            step.contrasts
        });
        let mut mixed = right.clone();
        mixed.iter_mut().zip(wrong).skip(32).take(32).for_each(|(to, from)| *to = from);
        let submission = Submission::new(&task, ids, mixed);
        let reasons = judge(&task, &submission).unwrap();
        assert!(reasons.contains(Reasons::FINGERPRINT), "{reasons}");
        assert!(!has_margin_reason(reasons), "{reasons}");
        parts += 1;
    }
    assert!(parts >= 8, "{parts}");
}

#[test]
fn decoding_elsewhere_is_caught_by_tokens_alone() {
    for elsewhere in [Model::new(2), Model::new(1).quantised(4)] {
        let mut all = 0;
        for task in tasks() {
            let steps = decode(&task, &elsewhere, &mut task.sampler(), &task.prompt);
            if steps.len() < 64 {
                continue;
            }
            all += 1;
            let submission = Submission::prefilled(&task, ids(&steps));
            let reasons = judge(&task, &submission).unwrap();
            assert!(has_margin_reason(reasons), "{reasons}");
            // The fingerprint is perfect.
            assert!(!reasons.contains(Reasons::FINGERPRINT) && !reasons.contains(Reasons::SPOT));
        }
        assert!(all >= 8, "{all}");
    }
}

/// Changes ids; the number is a random one.
type Change = dyn Fn(&mut Vec<u32>, u32);

/// Changes to an honest answer's ids, prefilled so that the fingerprint is right: all whose largest margin
/// is above the hard margin are caught by it, and the rest are few.
fn edits(change: &Change) -> (u32, u32) {
    let (mut caught, mut all) = (0, 0);
    for trial in 0..120 {
        let task = Task::new(trial % ANSWERS);
        let original = HONEST[task.number as usize].clone();
        let mut edited = original.clone();
        let draw = keccak256(trial.to_be_bytes());
        let random = u32::from_be_bytes([0, draw[0], draw[1], draw[2]]);
        if edited.len() < 8 {
            continue;
        }
        change(&mut edited, random);
        if edited == original {
            continue;
        }
        all += 1;
        let submission = Submission::prefilled(&task, edited.clone());
        let reasons = judge(&task, &submission).unwrap();
        let most = scored(&task, &edited, 7).statistics().max_margin;
        let is_above = most > CALIBRATION.hard_margin;
        assert_eq!(reasons.contains(Reasons::HARD_MARGIN), is_above);
        caught += u32::from(!reasons.is_empty());
    }
    assert!(all > 80, "{all}");
    (caught, all)
}

/// An id that ends nothing.
fn ordinary(random: u32) -> u32 {
    3 + random / 7 % (VOCABULARY - 3)
}

fn place(ids: &[u32], random: u32) -> usize {
    random as usize % (ids.len() - 1)
}

#[test]
fn edited_inserted_and_removed_tokens_are_caught() {
    let kinds: [(&str, &Change); 4] = [
        ("edited", &|ids, random| {
            let at = place(ids, random);
            ids[at] = ordinary(random);
        }),
        ("inserted", &|ids, random| {
            let at = place(ids, random);
            ids.insert(at, ordinary(random));
            ids.truncate(super::world::MAX_OUTPUT as usize);
        }),
        ("removed", &|ids, random| {
            ids.remove(place(ids, random));
        }),
        ("advertised", &|ids, random| {
            let at = place(ids, random);
            for (n, word) in (0..5).zip(100..) {
                ids.insert(at + n, word);
            }
            ids.truncate(super::world::MAX_OUTPUT as usize);
        }),
    ];
    for (name, change) in kinds {
        let (caught, all) = edits(change);
        // What is left is an edit to a token that was as likely to win: the residual.
        assert!(100 * caught >= 98 * all, "{name}: {caught} of {all}");
    }
}

#[test]
fn an_edit_of_the_result_block_alone_does_not_open() {
    for task in tasks() {
        let mut submission = honest(&task);
        submission.ids[0] ^= 1;
        submission.text = text(&submission.ids);
        let error = judge(&task, &submission).unwrap_err();
        assert!(matches!(error, RecordError::Root { .. }), "{error}");
    }
}

#[test]
fn text_slipped_in_is_caught() {
    for task in tasks() {
        let mut submission = honest(&task);
        submission.text.push_str(" Buy now!");
        assert_eq!(judge(&task, &submission), Ok(Reasons::TEXT));
    }
}

#[test]
fn stopping_early_is_caught_whatever_it_is_called() {
    for task in tasks() {
        let ids = honest(&task).ids;
        if ids.len() < 24 {
            continue;
        }
        let cut = ids[..20].to_vec();
        for end_reason in [EndReason::Max, EndReason::Eos, EndReason::Stop, EndReason::Cancelled] {
            let submission = Submission { end_reason, ..Submission::prefilled(&task, cut.clone()) };
            assert_eq!(judge(&task, &submission), Ok(Reasons::END));
        }
        // An end token of one's own.
        let ended = [&cut[..], &[END]].concat();
        let submission = Submission::prefilled(&task, ended);
        assert_eq!(faults_of(&task, &submission), []);
        let reasons = judge(&task, &submission).unwrap();
        assert!(reasons.contains(Reasons::HARD_MARGIN), "{reasons}");
    }
}

#[test]
fn padding_is_caught() {
    let mut padded = 0;
    for task in (0..100).map(Task::new) {
        let ids = honest(&task).ids;
        if ids.last() != Some(&END) || ids.len() > 80 {
            continue;
        }
        padded += 1;
        // After the end token; and instead of it.
        let longer = [&ids[..], &[9; 10]].concat();
        let reasons = judge(&task, &Submission::prefilled(&task, longer)).unwrap();
        assert!(reasons.contains(Reasons::END), "{reasons}");
        let mut instead = ids.clone();
        instead.pop();
        instead.extend([9; 10]);
        instead.push(END);
        let reasons = judge(&task, &Submission::prefilled(&task, instead)).unwrap();
        assert!(reasons.contains(Reasons::HARD_MARGIN), "{reasons}");
    }
    assert!(padded >= 10, "{padded}");
}

#[test]
fn other_sampling_than_asked_for_is_caught() {
    let plain = Sampling::default();
    for (asked, used) in [
        (plain, Sampling { temperature_milli: 700, ..plain }),
        (plain, Sampling { temperature_milli: 0, ..plain }),
        (Sampling { temperature_milli: 0, ..plain }, plain),
        (plain, Sampling { top_p_milli: 500, ..plain }),
        (Sampling { top_k: 5, ..plain }, plain),
        (Sampling { frequency_penalty_milli: 2000, ..plain }, plain),
    ] {
        for task in with_sampling(asked) {
            let cheat = Task { sampling: used, ..task.clone() };
            let decoded = ids(&decode(&task, &MODEL, &mut cheat.sampler(), &task.prompt));
            if decoded.len() < 32 {
                continue;
            }
            let reasons = judge(&task, &Submission::prefilled(&task, decoded)).unwrap();
            assert!(has_margin_reason(reasons), "{asked:?} as {used:?}: {reasons}");
        }
    }
}

#[test]
fn the_best_of_several_seeds_is_caught() {
    for task in tasks() {
        // Eight seeds that the miner would like: of another salt, beacon or key.
        let seeds = (0..8_u8).map(|n| keccak256([n]));
        let best = seeds
            .map(|seed| {
                let mut sampler = Sampler::new(task.sampling, seed, VOCABULARY).unwrap();
                decode(&task, &MODEL, &mut sampler, &task.prompt)
            })
            .max_by_key(Vec::len)
            .unwrap();
        let reasons = judge(&task, &Submission::prefilled(&task, ids(&best))).unwrap();
        assert!(reasons.contains(Reasons::HARD_MARGIN), "{reasons}");
        // With its own fingerprint as well: the pairs are others.
        let own = Submission::new(&task, ids(&best), contrasts(&best));
        let reasons = judge(&task, &own).unwrap();
        assert!(reasons.contains(Reasons::FINGERPRINT), "{reasons}");
    }
}

#[test]
fn seeds_follow_from_the_node_and_from_no_key() {
    let task = Task::new(1);
    let other = Task { node: NodeId(3), ..task.clone() };
    assert_ne!(task.seed(), other.seed());
    assert_ne!(seed_f(task.seed()), seed_f(other.seed()));
    assert_ne!(task.seed(), seed_f(task.seed()));
}

#[test]
fn a_hidden_prompt_is_caught() {
    for task in tasks() {
        let hidden = [&[400, 401, 402], &task.prompt[..]].concat();
        let steps = decode(&task, &MODEL, &mut task.sampler(), &hidden);
        let submission = Submission::new(&task, ids(&steps), contrasts(&steps));
        let reasons = judge(&task, &submission).unwrap();
        assert!(steps.len() < 16 || reasons.contains(Reasons::FINGERPRINT), "{reasons}");
        assert!(steps.len() < 64 || has_margin_reason(reasons), "{reasons}");
        // Said openly, it is not the request's.
        let open = Submission {
            prompt_hash: prompt_hash(&hidden),
            prompt_tokens: hidden.len() as u32,
            ..honest(&task)
        };
        assert_eq!(judge(&task, &open), Ok(Reasons::PROMPT));
    }
}

#[test]
fn copied_answers_and_copied_fingerprints_are_caught() {
    for task in tasks() {
        let other = honest(&Task { node: NodeId(3), ..task.clone() });
        // Answer and fingerprint of another node.
        let reasons = judge(&task, &other).unwrap();
        let both = Reasons::FINGERPRINT | Reasons::HARD_MARGIN;
        assert!(reasons.contains(both), "{reasons}");
        // Its answer with a fingerprint of one's own.
        let reasons = judge(&task, &Submission::prefilled(&task, other.ids)).unwrap();
        assert!(has_margin_reason(reasons), "{reasons}");
        assert!(!reasons.contains(Reasons::FINGERPRINT), "{reasons}");
    }
}

#[test]
fn a_proof_of_another_task_does_not_open() {
    for task in tasks() {
        let (mine, other) = (honest(&task), honest(&Task::new(task.number + 500)));
        let replayed = Submission { proof: other.proof.clone(), ..mine.clone() };
        assert!(judge(&task, &replayed).is_err());
        let moved = Submission { proof: other.proof, root: other.root, ..mine };
        assert!(judge(&task, &moved).is_err());
    }
}

/// With no fingerprint at all, or one that is far from everything.
#[test]
fn invented_fingerprints_are_caught() {
    use assay_proof::Contrasts;
    for value in [0, i16::MIN, i16::MAX] {
        let invented = Contrasts::new(&[value; 4]).unwrap();
        let caught = caught_by(Reasons::FINGERPRINT | Reasons::SPOT, |task| {
            let ids = honest(task).ids;
            let all = vec![invented; ids.len()];
            Submission::new(task, ids, all)
        });
        // Answers of fewer than four tokens have no fingerprint to judge.
        let short = tasks().filter(|task| honest(task).ids.len() < 4).count() as u32;
        assert_eq!(caught, TRIALS - short);
    }
}

#[test]
fn fingerprints_of_another_width_are_refused() {
    let task = Task::new(1);
    let submission = honest(&task);
    let half = submission.proof[..submission.proof.len() / 2].to_vec();
    let error = judge(&task, &Submission { proof: half, ..submission }).unwrap_err();
    assert!(matches!(error, RecordError::Bytes { .. }), "{error}");
    let row = [0.0; VOCABULARY as usize];
    let two = task.sampler().with_width(Width::Two).step(&row).unwrap();
    let four = task.sampler().step(&row).unwrap();
    let comparison = compare(&[two.contrasts; 32], &[four.contrasts; 32]).unwrap();
    assert_eq!(comparison.failing(&CALIBRATION).blocks, 1);
}
