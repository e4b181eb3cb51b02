//! What remains possible, by design or because so few take part: each of these gets through, and the documents say so.

use std::collections::BTreeSet;

use assay_bindings::ModelRegistry;
use assay_proof::{Calibration, Noise, margin_units, temperature};
use assay_protocol::state::AuditState;
use assay_types::NumericClass;

use crate::{
    answers::{Submission, Task},
    calibration::CALIBRATION,
    cheats::trials,
    court::{Court, MODEL_ID, Options, publisher},
    disputes::{FEW, other_tokens, other_weights, trials_in},
    engine::MODEL,
    model::{END, Model},
    outcome::Rule,
    validators::{Conduct, Duty},
};

/// Seconds after which new nodes count in draws.
const ACTIVATION_S: u64 = 10;

/// An honest answer but for the first token that nearly lost against another: it is that other one.
fn nudged(task: &Task) -> Option<Submission> {
    let (mut run, mut sampler) = (MODEL.run(&task.prompt(), task.seed()), task.sampler());
    let (noise, t) = (Noise::new(task.seed()), temperature(&task.request.sampling));
    let (mut ids, mut contrasts, mut is_nudged) = (Vec::new(), Vec::new(), false);
    while ids.len() < task.request.max_output as usize && ids.last() != Some(&END) {
        let logits = run.logits();
        let step = sampler.step(&logits).unwrap();
        let mut row = noise.row(ids.len() as u64 + 1);
        let mut scores: Vec<(f64, u32)> =
            (0..).zip(&logits).map(|(id, l)| (f64::from(*l) + t * row.get(id), id)).collect();
        scores.sort_by(|a, b| b.0.total_cmp(&a.0));
        let [(best, _), (next, other)] = [scores[0], scores[1]];
        let nearly = margin_units(best - next) < CALIBRATION.hard_margin / 2;
        let id = if nearly && !is_nudged && other != END { other } else { step.id };
        is_nudged |= id != step.id;
        ids.push(id);
        contrasts.push(step.contrasts);
        run.feed(id);
    }
    is_nudged.then(|| Submission::new(task, ids, contrasts))
}

#[test]
fn a_token_that_nearly_won_may_stand_for_the_one_that_did() {
    trials(nudged, |outcome, _| outcome.passed());
}

#[test]
fn four_friends_that_are_all_drawn_slash_an_honest_miner() {
    // Beside them and the miner four owners are left: too few for an appeal.
    let mut court = Court::new();
    for (duty, rule) in [
        (Duty::AccusesWithInvented, Rule::Fingerprint),
        (Duty::AccusesTheSampling, Rule::Sampling),
        (Duty::AccusesTheEnd, Rule::Content),
        (Duty::CannotRead, Rule::Fingerprint),
    ] {
        let conduct = Conduct { panel: [duty; 3], ..Conduct::validator(duty) };
        let answers = |task: &Task| Submission { appeals: true, ..Submission::honest(task) };
        trials_in(&mut court, FEW, &answers, &conduct, |outcome| {
            outcome.caught_by(rule);
        });
    }
}

#[test]
fn four_friends_among_seven_overturn_a_true_judgement() {
    let mut court = Court::with(Options { owners: 20, ..Options::default() });
    let friend = Duty::Vouches;
    let honest = Duty::Honest;
    let appeal = [friend, friend, friend, friend, honest, honest, honest];
    let conduct = Conduct { appeal, ..Conduct::honest() };
    let answers = |task: &Task| Submission { appeals: true, ..other_weights(task) };
    trials_in(&mut court, FEW, &answers, &conduct, |outcome| {
        assert_eq!(outcome.state, Some(AuditState::Passed));
        let found_it = outcome.validators.iter().chain(&outcome.panel).chain(&outcome.appeal[4..]);
        let stakes: Vec<_> = found_it.map(|node| (*node, Rule::Contradicted)).collect();
        outcome.paid_with(&stakes);
    });
}

#[test]
fn two_friends_on_a_panel_of_three_decide_over_tokens() {
    let mut court = Court::new();
    let conduct = Conduct::panel([Duty::Vouches, Duty::Honest, Duty::Vouches]);
    trials_in(&mut court, FEW, &other_tokens, &conduct, |outcome| outcome.passed());
}

#[test]
fn three_silent_friends_leave_an_answer_unverified() {
    let mut court = Court::new();
    let conduct = Conduct::validator(Duty::Silent);
    trials_in(&mut court, FEW, &other_weights, &conduct, |outcome| {
        assert_eq!(outcome.state, Some(AuditState::Unverified));
        // Each of them loses a hundredth of its stake.
        let idle: Vec<_> = outcome.validators.iter().map(|node| (*node, Rule::Idle)).collect();
        assert_eq!(idle.len(), 3);
        outcome.paid_with(&idle);
    });
}

#[test]
fn a_false_accusation_with_true_leaves_costs_the_accuser_its_pay_alone() {
    let mut court = Court::new();
    let conduct = Conduct::validator(Duty::AccusesWithItsOwn);
    trials_in(&mut court, FEW, &Submission::honest, &conduct, |outcome| {
        assert!(!outcome.panel.is_empty());
        outcome.passed();
        let accuser = outcome.validators[0];
        assert_eq!(outcome.after.payouts[&accuser], outcome.before.payouts[&accuser]);
    });
}

#[test]
fn a_young_book_cannot_pay_for_a_dispute() {
    let mut court = Court::new();
    trials_in(&mut court, FEW, &other_weights, &Conduct::honest(), |outcome| {
        // The provers have their share of the stake; nobody paid for the audit of an answer that was not paid.
        assert!(!outcome.collected);
        outcome.caught_by(Rule::Fingerprint);
    });
}

#[test]
fn where_one_owner_is_alone_nobody_looks() {
    let mut court = Court::with(Options { owners: 1, attested: 1 });
    trials_in(&mut court, FEW, &other_weights, &Conduct::honest(), |outcome| {
        assert!(outcome.unverified && outcome.state.is_none());
        outcome.paid_with(&[]);
    });
}

#[test]
fn a_publisher_makes_its_friends_the_judges_of_a_class() {
    let mut court = Court::new();
    let own: NumericClass = "friends-f64".parse().unwrap();
    let widest = Calibration { tau: 1024, spot_tau: 4096, ..*CALIBRATION };
    let call = ModelRegistry::calibrateCall {
        modelId: MODEL_ID,
        minerClass: own.0,
        validatorClass: own.0,
        word: widest.pack().unwrap(),
    };
    court.net.send(publisher(), court.net.at.models, &call);
    let friends: BTreeSet<u32> =
        (0..4).map(|n| court.register(&format!("friend {n}"), own)).collect();
    let miner = court.register_for_client("friend", own);
    court.net.wait(ACTIVATION_S);
    (court.session, court.miner) = (court.open_session_with(&[miner]), miner);
    court.remember();
    let conduct = Conduct { friends, ..Conduct::honest() };
    let small = Model::new(2);
    let cheat = |task: &Task| {
        let submission = Submission::decoded(task, &small);
        Submission { class: own, ..submission }
    };
    trials_in(&mut court, FEW, &cheat, &conduct, |outcome| {
        assert!(conduct.friends.contains(&outcome.validators[0]));
        outcome.passed();
    });
}
