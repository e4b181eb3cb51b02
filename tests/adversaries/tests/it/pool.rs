//! Who is drawn, how likely, and for which answer: pools that are rearranged, classes that are invented, keys that are
//! rotated, records that are farmed.

use std::collections::BTreeSet;

use assay_bindings::{ModelRegistry, NodePool};
use assay_protocol::TaskState;
use assay_types::Sampling;

use crate::{
    answers::{MAX_OUTPUT, Submission, Task},
    calibration::CALIBRATION,
    cheats::TRIALS,
    court::{Court, MODEL_ID, publisher},
    engine::class,
    model::Model,
    network::account,
    outcome::Rule,
    validators::Conduct,
};

/// Nodes that somebody brings along.
const MANY: u32 = 12;
/// Seconds after which new nodes count in draws.
const ACTIVATION_S: u64 = 10;

fn other_weights(task: &Task) -> Option<Submission> {
    Some(Submission::decoded(task, &Model::new(2))).filter(|answer| answer.tokens() >= 32)
}

/// Cheats that are caught although `rearrange` is done between their commit and their draw, with the nodes that it names
/// on the miner's side.
fn caught_despite(court: &mut Court, rearrange: impl Fn(&mut Court) -> BTreeSet<u32>) {
    let mut done = 0;
    for number in 0.. {
        court.go_back();
        let honest = court.nodes.clone();
        let task = court.ask(number);
        let Some(submission) = other_weights(&task) else { continue };
        court.commit(&task, &submission).unwrap();
        let friends = rearrange(court);
        let conduct = Conduct { friends: friends.clone(), ..Conduct::honest() };
        let outcome = court.try_answer(&task, &submission, &conduct);
        outcome.caught_by(Rule::Fingerprint);
        let drawn = outcome.validators.iter().chain(&outcome.panel);
        assert!(drawn.clone().all(|node| !friends.contains(node)), "{drawn:?}");
        court.nodes = honest;
        done += 1;
        if done == TRIALS {
            return;
        }
    }
}

#[test]
fn who_joins_after_the_commit_is_not_drawn() {
    let mut court = Court::new();
    caught_despite(&mut court, |court| {
        let joined = (0..MANY).map(|n| court.register(&format!("friend {n}"), class()));
        let joined = joined.collect();
        court.net.wait(ACTIVATION_S);
        joined
    });
}

#[test]
fn who_leaves_after_the_commit_is_drawn_all_the_same() {
    let mut court = Court::new();
    caught_despite(&mut court, |court| {
        let nodes: Vec<_> = court.nodes.values().cloned().collect();
        for node in nodes.into_iter().filter(|node| node.id != court.miner) {
            let call = NodePool::drainCall { nodeId: node.id };
            court.net.send(node.owner, court.net.at.nodes, &call);
        }
        BTreeSet::new()
    });
}

#[test]
fn nodes_of_the_miners_owner_are_not_drawn() {
    let mut court = Court::new();
    let owner = format!("owner {}", court.miner);
    for _ in 0..MANY {
        court.register(&owner, class());
    }
    court.net.wait(ACTIVATION_S);
    court.remember();
    let miner = court.miner;
    let own: BTreeSet<u32> =
        court.nodes.keys().copied().filter(|node| *node > 9 || *node == miner).collect();
    caught_despite(&mut court, |_| own.clone());
}

#[test]
fn nodes_of_an_invented_class_judge_nobody() {
    let mut court = Court::new();
    let invented = "friends-f64".parse().unwrap();
    let friends: BTreeSet<u32> =
        (0..MANY).map(|n| court.register(&format!("friend {n}"), invented)).collect();
    court.net.wait(ACTIVATION_S);
    court.remember();
    caught_despite(&mut court, |_| friends.clone());
}

#[test]
fn a_pair_that_is_calibrated_later_judges_no_earlier_answer() {
    let mut court = Court::new();
    let invented: assay_types::NumericClass = "friends-f64".parse().unwrap();
    let friends: BTreeSet<u32> =
        (0..MANY).map(|n| court.register(&format!("friend {n}"), invented)).collect();
    court.net.wait(ACTIVATION_S);
    court.remember();
    caught_despite(&mut court, |court| {
        let call = ModelRegistry::calibrateCall {
            modelId: MODEL_ID,
            minerClass: class().0,
            validatorClass: invented.0,
            word: CALIBRATION.pack().unwrap(),
        };
        court.net.send(publisher(), court.net.at.models, &call);
        friends.clone()
    });
}

#[test]
fn an_invented_class_answers_nothing_and_calibrates_nothing() {
    let mut court = Court::new();
    let friend = court.register_for_client("friend", "friends-f64".parse().unwrap());
    let operator = court.nodes[&friend].operator;
    (court.session, court.miner) = (court.open_session_with(&[friend]), friend);
    let task = court.ask(0);
    let invented = court.nodes[&friend].class;
    let submission = Submission { class: invented, ..Submission::honest(&task) };
    let refused = court.commit(&task, &submission).unwrap_err();
    assert!(refused.contains("ProofOfInference_NotCalibrated"), "{refused}");
    assert_eq!(court.record(task.scope.task).state, TaskState::Assigned);
    let word = CALIBRATION.pack().unwrap();
    let call = ModelRegistry::calibrateCall {
        modelId: MODEL_ID,
        minerClass: invented.0,
        validatorClass: invented.0,
        word,
    };
    let refused = court.net.try_send(operator, court.net.at.models, &call).unwrap_err();
    assert!(refused.contains("ModelRegistry_NotPublisher"), "{refused}");
}

#[test]
fn a_new_key_gives_no_new_seed() {
    let mut court = Court::new();
    let task = court.ask(0);
    let (seed, honest) = (task.seed(), Submission::honest(&task));
    let node = court.nodes[&court.miner].clone();
    let operator = account("another key");
    let call = NodePool::setOperatorCall { nodeId: node.id, operator };
    court.net.send(node.owner, court.net.at.nodes, &call);
    court.nodes.get_mut(&node.id).unwrap().operator = operator;
    // Nothing of the seed has changed: what was honest before is now.
    assert_eq!(task.seed(), seed);
    court.play(&task, &honest, &Conduct::honest()).passed();
}

/// Tokens of an answer whose fee vouches for next to nothing.
const TINY: u32 = 4;

#[test]
fn tiny_answers_do_not_vouch_for_large_ones() {
    let mut court = Court::new();
    let mut tiny_fee = 0;
    for number in 0..2 * TRIALS {
        let mut request = Task::request(number, Sampling::default());
        request.max_output = TINY;
        let task = court.ask_with(request, number);
        let outcome = court.play(&task, &Submission::honest(&task), &Conduct::honest());
        outcome.paid_with(&[]);
        tiny_fee = tiny_fee.max(outcome.fee);
    }
    let large_fee = tiny_fee * u128::from(MAX_OUTPUT / TINY);
    let (tiny, large) =
        (court.probability(court.miner, tiny_fee), court.probability(court.miner, large_fee));
    assert!(tiny < 5000, "they vouch for one of their size: {tiny}");
    assert!(large > 7500, "and for no larger one: {large}");
}
