//! Proofs of something else, withheld data, and aborting when audited.

use assay_proof::Reasons;
use assay_types::{Address, CommitScope, NodeId, SessionId, TaskId, keccak256};

use crate::{
    answers::{OnDemand, Submission, Task},
    cheats::{honest_ids, trials},
    engine::MODEL,
    outcome::Rule,
};

/// An honest answer whose sealed proof is bound to something else: it cannot be opened.
fn sealed_for(other: impl Fn(&CommitScope) -> CommitScope) {
    trials(
        |task| {
            let own = Submission::honest(task);
            let elsewhere = own.proof().hash(&other(&task.scope));
            Some(Submission { other_seal: Some(elsewhere), ..own })
        },
        |outcome, _| outcome.caught_by(Rule::Unopened),
    );
}

#[test]
fn a_proof_of_another_task() {
    sealed_for(|scope| CommitScope { task: TaskId(keccak256("another task")), ..*scope });
}

#[test]
fn a_proof_of_another_session() {
    sealed_for(|scope| {
        let lane = assay_types::Lane(0);
        let task = assay_types::task_id(scope.queue, SessionId(99), lane, assay_types::Nonce(0));
        CommitScope { task, ..*scope }
    });
}

#[test]
fn a_proof_of_another_node() {
    sealed_for(|scope| CommitScope { node: NodeId(scope.node.0 + 1), ..*scope });
}

#[test]
fn a_proof_of_another_chain() {
    sealed_for(|scope| CommitScope { chain_id: 1, ..*scope });
}

#[test]
fn a_proof_of_another_network() {
    sealed_for(|scope| CommitScope { queue: Address::repeat_byte(7), ..*scope });
}

/// The record of another task, sealed anew for this one: the tokens' contrasts are those of other positions.
#[test]
fn a_record_of_another_task() {
    trials(
        |task| {
            let own = honest_ids(task, 32)?;
            let other = Task::imagined(task.number + 1000, task.request.sampling);
            let recorded = Submission::decoded(&other, &MODEL);
            (recorded.tokens() >= own.len() as u32).then(|| {
                let contrasts = recorded.contrasts[..own.len()].to_vec();
                Submission::new(task, own, contrasts)
            })
        },
        |outcome, _| outcome.caught_by(Rule::Fingerprint),
    );
}

#[test]
fn aborting_when_audited() {
    // Whatever it hides, and if it has nothing to hide.
    trials(
        |task| Some(Submission { opens: false, ..Submission::honest(task) }),
        |outcome, _| {
            outcome.caught_by(Rule::Unopened);
            assert_eq!(outcome.reasons, None);
        },
    );
}

#[test]
fn a_proof_that_is_not_published_is_shown_in_a_hearing() {
    // An honest miner whose contrasts cannot be had opens its leaves itself, and is paid.
    trials(
        |task| Some(Submission { publishes_proof: false, ..Submission::honest(task) }),
        |outcome, _| {
            assert_eq!(outcome.reasons, Some(Reasons::SPOT));
            outcome.passed();
        },
    );
}

#[test]
fn a_proof_that_is_never_shown() {
    trials(
        |task| {
            let own = Submission::honest(task);
            Some(Submission { publishes_proof: false, testifies: false, ..own })
        },
        |outcome, _| outcome.caught_by(Rule::Unopened),
    );
}

#[test]
fn an_answer_that_only_its_miner_has_is_published() {
    // Whoever cannot read it demands it, and is not paid for that.
    trials(
        |task| Some(Submission { publishes_answer: false, ..Submission::honest(task) }),
        |outcome, _| {
            assert_eq!(outcome.demander, Some(outcome.validators[0]));
            outcome.passed();
            let validator = outcome.validators[0];
            assert_eq!(outcome.gain(validator), 0);
        },
    );
    // What is published shows a lie as well as what is stored.
    trials(
        |task| {
            let answer = Submission::decoded(task, &crate::model::Model::new(2));
            let answer = Submission { publishes_answer: false, ..answer };
            (answer.tokens() >= 32).then_some(answer)
        },
        |outcome, _| outcome.caught_by(Rule::Fingerprint),
    );
}

#[test]
fn an_answer_that_is_never_published() {
    for on_demand in [OnDemand::Nothing, OnDemand::InPart] {
        trials(
            |task| {
                let own = Submission::honest(task);
                Some(Submission { publishes_answer: false, on_demand, ..own })
            },
            |outcome, _| {
                outcome.caught_by(Rule::Unopened);
                assert_eq!(outcome.reasons, None);
            },
        );
    }
}

#[test]
fn an_answer_that_is_published_otherwise_than_committed() {
    // Everybody sees alike that it is not what the digest names.
    trials(
        |task| {
            let own = Submission::honest(task);
            let on_demand = OnDemand::SomethingElse;
            Some(Submission { publishes_answer: false, on_demand, ..own })
        },
        |outcome, _| {
            assert!(outcome.has(Reasons::IDS | Reasons::SPOT));
            outcome.caught_by(Rule::Fingerprint);
        },
    );
}
