//! Audits, as far as anyone may move them.

use alloy::primitives::{Address, U256};
use alloy::signers::local::PrivateKeySigner;
use assay_bindings::{COR, SessionPayment};
use assay_protocol::TaskState;
use assay_protocol::state::AuditState as State;
use serde_json::json;

use crate::court::{Case, Court, forged, honest};
use crate::world::until;

/// Of a node with two places on the development network.
const STAKE: u128 = 200 * COR;
/// Seconds of the development network, and one more.
const SEAL_TIME_S: u64 = 61;
const OPEN_TIME_S: u64 = 31;
const APPEAL_TIME_S: u64 = 6;
/// What validators have to collect their pay themselves.
const COLLECT_TIME_S: u64 = 61;
/// Blocks after which a block's hash can no longer be had.
const WINDOW: u64 = 257;

async fn ends(court: &Court, case: Case, state: TaskState) {
    let what = format!("the task is {state:?}");
    until(&what, || async { court.world.task_state(case.task).await == state }).await;
}

/// What an account may withdraw.
async fn earned(court: &Court, account: Address) -> U256 {
    let at = &court.world.deployment;
    let payment = SessionPayment::new(at.payment, &court.world.provider);
    payment.balanceOf(account, 0).call().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_that_passes_is_drawn_settled_and_paid_once_by_three_oracles() {
    let (court, oracles) = Court::new(3).await;
    let case = court.answered(0, &honest()).await;
    court.commit_audit(case).await;
    court.open_proof(case, &honest()).await;
    court.reveal(case, &honest()).await;
    ends(&court, case, TaskState::Settled).await;
    court.pass(COLLECT_TIME_S).await;
    until("the validator is paid", || async { court.collected(case).await.is_some() }).await;
    assert!(court.collected(case).await > Some(U256::ZERO));
    let path = court.path(case).await;
    assert_eq!(path, [State::Drawn, State::Sealed, State::Opened, State::Passed]);
    assert_eq!(court.world.ended(&[case.task]).await, 1);
    for oracle in oracles {
        oracle.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_whose_validators_are_silent_stays_unverified_and_is_paid() {
    let (court, oracles) = Court::new(1).await;
    let case = court.answered(0, &honest()).await;
    let mut asked = Vec::new();
    for count in 1..=3 {
        until("another validator is drawn", || async { court.path(case).await.len() == count })
            .await;
        let (audit, _) = court.reaches(case, State::Drawn).await;
        asked.push(audit.validator);
        court.pass(SEAL_TIME_S).await;
    }
    ends(&court, case, TaskState::Settled).await;
    let path = court.path(case).await;
    assert_eq!(path, [State::Drawn, State::Drawn, State::Drawn, State::Unverified]);
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked.len(), 3, "a silent validator was asked again");
    // A tenth of the hundredth that each of them lost; and nothing is owed to anybody.
    let idle = 3 * STAKE / 1000;
    assert!(earned(&court, oracles[0].address()).await >= U256::from(idle));
    assert_eq!(court.collected(case).await, None);
    court.assert_nothing_in_vain(oracles[0].address()).await;
    for oracle in oracles {
        oracle.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miner_that_does_not_open_is_disproved_and_its_client_paid_back() {
    let (court, oracles) = Court::new(1).await;
    let case = court.answered(0, &honest()).await;
    court.commit_audit(case).await;
    court.reaches(case, State::Sealed).await;
    court.pass(OPEN_TIME_S).await;
    ends(&court, case, TaskState::Refunded).await;
    let path = court.path(case).await;
    assert_eq!(path, [State::Drawn, State::Sealed, State::Disproved]);
    court.assert_nothing_in_vain(oracles[0].address()).await;
    for oracle in oracles {
        oracle.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accused_miner_is_judged_by_an_oracle_that_is_killed_at_every_step() {
    let (court, oracles) = Court::new(1).await;
    let signer = PrivateKeySigner::random();
    for oracle in oracles {
        oracle.stop().await.unwrap();
    }
    let mut oracle = court.world.oracle_of("killed", signer.clone()).await;
    let case = court.answered(0, &forged()).await;
    for state in [State::Drawn, State::Opened, State::Convened, State::Hearing] {
        // Each of these was reached with the oracle's help, or needs it to go on.
        match state {
            State::Drawn => {}
            State::Opened => {
                court.commit_audit(case).await;
                court.open_proof(case, &forged()).await;
            }
            State::Convened => court.reveal(case, &forged()).await,
            _ => court.commit_panel(case).await,
        }
        court.reaches(case, state).await;
        oracle.kill();
        assert!(oracle.wait().await.is_err());
        drop(oracle);
        oracle = court.world.oracle_of("killed", signer.clone()).await;
    }
    court.testify(case, &forged()).await;
    court.reaches(case, State::Condemned).await;
    oracle.kill();
    assert!(oracle.wait().await.is_err());
    drop(oracle);
    let oracle = court.world.oracle_of("killed", signer).await;
    court.pass(APPEAL_TIME_S).await;
    ends(&court, case, TaskState::Refunded).await;
    let mut path = court.path(case).await;
    path.dedup();
    let wanted = [
        State::Drawn,
        State::Sealed,
        State::Opened,
        State::Accused,
        State::Convened,
        State::Hearing,
        State::Condemned,
        State::Disproved,
    ];
    assert_eq!(path, wanted);
    oracle.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demand_that_nobody_answers_is_the_end_of_it() {
    let (court, oracles) = Court::new(1).await;
    let case = court.answered(0, &honest()).await;
    court.demand(case).await;
    court.reaches(case, State::Demanded).await;
    court.pass(OPEN_TIME_S).await;
    ends(&court, case, TaskState::Refunded).await;
    assert_eq!(court.path(case).await, [State::Drawn, State::Demanded, State::Disproved]);
    court.assert_nothing_in_vain(oracles[0].address()).await;
    for oracle in oracles {
        oracle.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_appeal_is_heard_by_a_second_panel() {
    let (court, oracles) = Court::new(1).await;
    let case = court.answered(0, &forged()).await;
    court.commit_audit(case).await;
    court.open_proof(case, &forged()).await;
    court.reveal(case, &forged()).await;
    court.commit_panel(case).await;
    court.testify(case, &forged()).await;
    court.appeal(case).await;
    let (_, parties) = court.reaches(case, State::Convened).await;
    assert_eq!(parties.len(), 9, "miner, accuser and seven others");
    court.commit_panel(case).await;
    court.testify(case, &forged()).await;
    ends(&court, case, TaskState::Refunded).await;
    let mut path = court.path(case).await;
    path.dedup();
    let end =
        [State::Condemned, State::Appealed, State::Convened, State::Hearing, State::Disproved];
    assert_eq!(path[path.len() - end.len()..], end);
    court.assert_nothing_in_vain(oracles[0].address()).await;
    for oracle in oracles {
        oracle.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_whose_round_never_comes_are_paid_unaudited() {
    let (court, oracles) = Court::new(1).await;
    // Nobody is there while the round can be had.
    for oracle in oracles {
        oracle.stop().await.unwrap();
    }
    let case = court.answered(0, &honest()).await;
    assert_ne!(court.close_epoch(case).await, 0);
    court.dev("anvil_mine", json!([WINDOW])).await;
    let oracle = court.world.oracle("late").await;
    ends(&court, case, TaskState::Settled).await;
    assert_eq!(court.cleared(case).await, [true]);
    assert_eq!(court.path(case).await, []);
    court.assert_nothing_in_vain(oracle.address()).await;
    oracle.stop().await.unwrap();
}
