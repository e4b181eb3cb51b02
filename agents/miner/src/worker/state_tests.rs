//! The worker's decisions.

use assay_bindings::SessionQueue::{Part, Task};
use assay_protocol::{TaskRecord, TaskState};
use assay_types::{Address, B256, Bytes, Signature, TaskRequest, link::FromMiner};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;

fn task(byte: u8) -> TaskId {
    TaskId(B256::repeat_byte(byte))
}

fn link() -> LinkRef {
    let (frames, _) = mpsc::channel::<FromMiner>(1);
    LinkRef::new(Address::ZERO, frames, CancellationToken::new())
}

fn offer(byte: u8) -> Input {
    let request = TaskRequest { nonce: u64::from(byte), ..TaskRequest::default() };
    let signature = Signature::test_signature();
    let offer = Box::new(Offer { request, signature, block: Bytes::new(), stream: true });
    Input::Offer { task: task(byte), link: link(), offer }
}

/// A task of a session's queue, or one that was given to this node.
fn chain_task(byte: u8, deadline_s: u64, (session, ticket): (u64, u64), due: bool) -> ChainTask {
    let part = Part {
        nodeId: 1,
        state: 0,
        dedicated: false,
        fee: Default::default(),
        commitment: B256::ZERO,
    };
    let dispatch = if ticket == 0 { Dispatch::Push } else { Dispatch::Pull };
    let body = Task {
        sessionId: session,
        lane: 0,
        nonce: u64::from(byte),
        seedRound: 1,
        reservation: 1,
        maxPrompt: 1,
        maxOutput: 1,
        held: Default::default(),
        finalBy: Default::default(),
        attemptsLeft: 0,
        tried: 0,
        dispatch: dispatch as u8,
        ticket,
        callbackGas: 0,
        parts: if due { vec![part] } else { vec![] },
    };
    let state = if due { TaskState::Assigned } else { TaskState::Queued };
    ChainTask {
        task: task(byte),
        request_digest: B256::ZERO,
        record: TaskRecord { task: body, state, until_s: deadline_s },
        earned: None,
    }
}

fn told(now: ChainTask) -> Input {
    let standing = now.standing(assay_types::NodeId(1));
    Input::Chain { task: now.task, now: Some(Box::new(now)), standing }
}

fn given(byte: u8, deadline_s: u64) -> Input {
    told(chain_task(byte, deadline_s, (1, 0), true))
}

fn queued(byte: u8, session: u64, ticket: u64) -> ChainTask {
    chain_task(byte, 100, (session, ticket), false)
}

fn claims(actions: &[Action]) -> Vec<TaskId> {
    let claim = |action: &Action| match action {
        Action::Claim { queued } => Some(queued.task),
        _ => None,
    };
    actions.iter().filter_map(claim).collect()
}

fn started(actions: &[Action]) -> Vec<TaskId> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::StartOffer { task, .. } => Some(*task),
            Action::StartGiven { given, .. } => Some(given.task),
            _ => None,
        })
        .collect()
}

fn code(actions: &[Action]) -> Option<&'static str> {
    match actions {
        [Action::Decline { code, .. }] => Some(code),
        _ => None,
    }
}

#[test]
fn no_more_than_capacity_runs_at_once() {
    let mut state = State::new(2);
    assert_eq!(started(&state.on(offer(1), false)), [task(1)]);
    assert_eq!(started(&state.on(offer(2), false)), [task(2)]);
    assert_eq!(code(&state.on(offer(3), false)), Some("busy"));
    assert!(state.ended(task(1), JobId(0)));
    assert!(!state.ended(task(1), JobId(0)));
    assert_eq!(started(&state.on(offer(3), false)), [task(3)]);
}

#[test]
fn a_task_by_both_ways_runs_once() {
    let mut state = State::new(2);
    state.on(offer(1), false);
    state.on(given(1, 100), false);
    assert!(state.fill(0).is_empty());

    state.on(given(2, 100), false);
    assert_eq!(started(&state.fill(0)), [task(2)]);
    assert!(matches!(state.on(offer(2), false)[..], [Action::Attach { job: JobId(1), .. }]));

    // Waits for a place, then its offer takes it.
    state.on(given(3, 100), false);
    assert!(state.fill(0).is_empty());
    state.ended(task(1), JobId(0));
    assert_eq!(started(&state.on(offer(3), false)), [task(3)]);
    assert!(state.fill(0).is_empty());
}

#[test]
fn the_chains_tasks_wait_for_places_by_deadline() {
    let mut state = State::new(1);
    for (byte, deadline) in [(1, 300), (2, 200), (3, 100), (4, 50)] {
        state.on(given(byte, deadline), false);
    }
    let actions = state.fill(60);
    assert!(matches!(&actions[0], Action::Drop { given } if given.task == task(4)));
    assert_eq!(started(&actions), [task(3)]);
    assert!(state.fill(60).is_empty());
    state.ended(task(3), JobId(0));
    assert_eq!(started(&state.fill(60)), [task(2)]);
}

#[test]
fn what_has_an_end_never_runs_again_and_a_draining_node_takes_nothing() {
    let mut state = State::new(2);
    assert_eq!(code(&state.on(offer(1), true)), Some("bad_request"));
    state.on(given(1, 100), true);
    assert!(state.fill(0).is_empty());
    state.on(given(2, 100), false);
    state.drain();
    state.on(given(3, 100), false);
    assert!(state.fill(0).is_empty());
    assert_eq!(code(&state.on(offer(4), false)), Some("busy"));
}

#[test]
fn a_cancel_meets_its_task_alone() {
    let mut state = State::new(2);
    state.on(offer(1), false);
    state.on(offer(2), false);
    let cancel = |byte| Input::Cancel { task: task(byte), signed: None, link: link() };
    assert!(matches!(state.on(cancel(2), false)[..], [Action::Cancel { job: JobId(1), .. }]));
    assert!(state.on(cancel(9), false).is_empty());
    assert_eq!(state.running(), 2);
}

#[test]
fn a_task_that_waits_too_long_is_handed_back_in_time() {
    let mut state = State::new(1);
    state.on(offer(1), false);
    state.on(given(2, 100), false);
    assert!(state.fill(90).is_empty());
    assert!(matches!(&state.fill(95)[..], [Action::Drop { given }] if given.task == task(2)));
}

#[test]
fn a_task_that_moves_away_is_not_begun_and_not_gone_on_with() {
    let mut state = State::new(1);
    state.on(given(1, 100), false);
    assert_eq!(started(&state.fill(0)), [task(1)]);
    state.on(given(2, 100), false);
    for byte in [1, 2] {
        let mut moved = chain_task(byte, 100, (1, 0), true);
        moved.record.task.parts[0].nodeId = 9;
        let actions = state.on(told(moved), false);
        assert_eq!(matches!(actions[..], [Action::Stop { job: JobId(0) }]), byte == 1);
    }
    state.ended(task(1), JobId(0));
    assert!(state.fill(0).is_empty());
    // One whose submission was reverted is gone on with: it usually comes back.
    state.on(given(3, 100), false);
    assert_eq!(started(&state.fill(0)), [task(3)]);
    let gone = Input::Chain { task: task(3), now: None, standing: Standing::Elsewhere };
    assert!(state.on(gone, false).is_empty());
}

#[test]
fn heads_of_queues_are_claimed_two_at_a_time_as_far_as_there_are_places() {
    let mut state = State::new(4);
    for (byte, session, ticket) in [(1, 1, 1), (2, 1, 2), (3, 2, 7), (4, 3, 9)] {
        state.on(told(queued(byte, session, ticket)), false);
    }
    assert_eq!(claims(&state.fill(0)), [task(1), task(3)]);
    assert!(state.fill(0).is_empty());
    // The first is ours: it counts until it is answered, and the next one's turn has come only then.
    state.claim_ended(&queued(1, 1, 1), Claim::Done, 0);
    let mut due = chain_task(1, 100, (1, 1), true);
    due.record.task.ticket = 1;
    state.on(told(due), false);
    let actions = state.fill(0);
    assert_eq!((started(&actions), claims(&actions)), (vec![task(1)], vec![]));
    // Somebody else was faster with the third: there is a place, and the next queue.
    state.claim_ended(&queued(3, 2, 7), Claim::Later, 0);
    assert_eq!(claims(&state.fill(0)), [task(2)]);
    state.claim_ended(&queued(2, 1, 2), Claim::Later, 0);
    assert_eq!(claims(&state.fill(1)), [task(4)]);
    state.claim_ended(&queued(4, 3, 9), Claim::Never, 1);
    assert!(claims(&state.fill(1)).is_empty(), "both queues are paused");
    assert_eq!(claims(&state.fill(2)), [task(2)]);
}

#[test]
fn nothing_is_claimed_without_a_place_or_without_time() {
    let mut state = State::new(1);
    state.on(told(queued(1, 1, 1)), false);
    assert!(state.fill(95).is_empty());
    state.on(offer(2), false);
    assert!(state.fill(0).is_empty());
    state.ended(task(2), JobId(0));
    assert_eq!(claims(&state.fill(0)), [task(1)]);
    assert_eq!(code(&state.on(offer(3), false)), Some("busy"));
}
