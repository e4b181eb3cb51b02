//! The committer's decisions.

use alloy::primitives::{B256, Bytes};
use assay_bindings::SessionQueue;
use assay_types::{ProofSeal, Signature, TaskRequest};

use super::*;
use crate::answers::Answer;

const DEADLINE_S: u64 = 1000;

fn task(byte: u8) -> TaskId {
    TaskId(B256::repeat_byte(byte))
}

fn answered(byte: u8, carried: bool) -> Input {
    answer_of(byte, carried, 1)
}

fn answer_of(byte: u8, carried: bool, redundancy: u8) -> Input {
    let request = TaskRequest { deadline: DEADLINE_S, redundancy, ..TaskRequest::default() };
    let answer = SessionQueue::Answer {
        nodeId: 1,
        outputDigest: B256::ZERO,
        promptHash: B256::ZERO,
        promptTokens: 1,
        outputTokens: 1,
        numericClass: B256::ZERO,
        endReason: 1,
        salt: B256::ZERO,
        proofSeal: B256::ZERO,
        signature: Bytes::new(),
    };
    Input::Answered(Box::new(OpenAnswer {
        answer: Answer {
            task: task(byte),
            signed: carried.then(|| (request, Signature::test_signature())),
            redundancy,
            deadline_s: DEADLINE_S,
            answer,
            proof: ProofSeal { root: B256::ZERO, salt: B256::ZERO },
            proof_block: vec![1, 2],
        },
        attempts: 0,
    }))
}

fn at(now_s: u64) -> Now {
    Now { now_s, reached_s: now_s }
}

fn looked(byte: u8, seen: Seen) -> Input {
    Input::Looked { task: task(byte), seen: Some(seen) }
}

fn moved(byte: u8, standing: Standing, until_s: u64) -> Input {
    Input::Moved { task: task(byte), seen: Seen::On(standing, until_s) }
}

fn committed(byte: u8, settle_at_s: u64) -> Input {
    moved(byte, Standing::Committed, settle_at_s)
}

/// On chain, and due until its deadline.
const DUE: Seen = Seen::On(Standing::Due, DEADLINE_S);

/// A state with one task that is committed.
fn with_committed(bytes: &[u8], settle_at_s: u64) -> State {
    let mut state = State::new(1, 2);
    for byte in bytes {
        state.on(answered(*byte, true));
        state.on(committed(*byte, settle_at_s));
    }
    state
}

#[test]
fn the_way_follows_what_the_chain_knows() {
    for (seen, carried, way) in [
        (Seen::Absent, true, Some(Way::Carry)),
        (DUE, true, Some(Way::Commit)),
        (DUE, false, Some(Way::Commit)),
        // Not on chain, and nobody's signature to carry: it may come back.
        (Seen::Absent, false, None),
        (Seen::Ahead, true, None),
        (Seen::On(Standing::Over, 0), true, None),
        (Seen::On(Standing::Elsewhere, 0), true, None),
    ] {
        let mut state = State::new(1, 64);
        state.on(answered(1, carried));
        assert_eq!(state.tick(at(10)), [Action::Look { task: task(1) }]);
        assert!(state.tick(at(11)).is_empty(), "one look at a time");
        let sent: Vec<_> =
            way.map(|way| Action::Send { task: task(1), way, attempt: 0 }).into_iter().collect();
        assert_eq!(state.on(looked(1, seen)), sent, "{seen:?}");
    }
}

#[test]
fn a_refused_send_is_looked_up_at_once_and_numbered_anew() {
    let mut state = State::new(1, 64);
    state.on(answered(1, true));
    state.tick(at(10));
    state.on(looked(1, Seen::Absent));
    state.on(Input::Sent { task: task(1), ok: false });
    assert_eq!(state.tick(at(10)), [Action::Look { task: task(1) }]);
    let again = state.on(looked(1, DUE));
    assert_eq!(again, [Action::Send { task: task(1), way: Way::Commit, attempt: 1 }]);
    // The second refusal in a row waits.
    state.on(Input::Sent { task: task(1), ok: false });
    assert!(state.tick(at(10)).is_empty());
    assert_eq!(state.tick(at(20)), [Action::Look { task: task(1) }]);
}

#[test]
fn a_mined_commit_waits_for_its_event_and_looks_if_it_does_not_come() {
    let mut state = State::new(1, 64);
    state.on(answered(1, true));
    state.tick(at(10));
    state.on(looked(1, Seen::Absent));
    state.on(Input::Sent { task: task(1), ok: true });
    assert!(state.tick(at(15)).is_empty());
    assert!(state.owes());
    assert_eq!(state.tick(at(40)), [Action::Look { task: task(1) }]);
    state.on(looked(1, Seen::On(Standing::Committed, 50)));
    assert!(!state.owes());
    assert!(state.tick(at(50)).is_empty());
    let settle = Action::Settle { tasks: vec![task(1)], round: 1 };
    assert_eq!(state.tick(at(51)), [settle]);
}

#[test]
fn an_event_before_the_receipt_costs_no_time() {
    let mut state = State::new(1, 64);
    state.on(answered(1, true));
    state.tick(at(10));
    state.on(looked(1, Seen::Absent));
    state.on(committed(1, 15));
    state.on(Input::Sent { task: task(1), ok: true });
    assert_eq!(state.tick(at(16)).len(), 1);
}

#[test]
fn what_is_due_is_settled_in_batches_one_at_a_time() {
    let mut state = with_committed(&[1, 2, 3], 20);
    assert!(state.tick(at(20)).is_empty());
    let first = state.tick(at(21));
    assert_eq!(first, [Action::Settle { tasks: vec![task(1), task(2)], round: 1 }]);
    assert!(state.tick(at(22)).is_empty());
    state.on(Input::SettleSent { tasks: vec![task(1), task(2)], ok: true });
    let second = state.tick(at(23));
    assert_eq!(second, [Action::Settle { tasks: vec![task(3)], round: 2 }]);
    for byte in [1, 2, 3] {
        state.on(moved(byte, Standing::Over, 0));
    }
    assert!(state.tick(at(500)).is_empty());
}

#[test]
fn a_settlement_without_its_event_is_looked_up_before_the_next() {
    let mut state = with_committed(&[1], 20);
    assert_eq!(state.tick(at(21)).len(), 1);
    state.on(Input::SettleSent { tasks: vec![task(1)], ok: false });
    assert!(state.tick(at(22)).is_empty());
    assert_eq!(state.tick(at(23)), [Action::Look { task: task(1) }]);
    state.on(looked(1, Seen::On(Standing::Committed, 20)));
    let again = Action::Settle { tasks: vec![task(1)], round: 2 };
    assert_eq!(state.tick(at(24)), [again]);
}

#[test]
fn a_passed_deadline_is_looked_up_once_more_and_then_missed() {
    let mut state = State::new(1, 64);
    state.on(answered(1, true));
    assert_eq!(state.tick(at(DEADLINE_S + 1)), [Action::Look { task: task(1) }]);
    let missed = state.on(looked(1, DUE));
    assert_eq!(missed, [Action::Missed { task: task(1) }]);
    assert!(!state.owes());
    // It was committed in time after all.
    state.on(answered(2, true));
    state.tick(at(DEADLINE_S + 1));
    assert!(state.on(looked(2, Seen::On(Standing::Committed, 1005))).is_empty());
}

#[test]
fn a_reverted_commit_is_owed_again() {
    let mut state = with_committed(&[1], 20);
    assert!(!state.owes());
    state.on(Input::Moved { task: task(1), seen: Seen::Absent });
    assert!(state.owes());
    assert_eq!(state.tick(at(10)), [Action::Look { task: task(1) }]);
}

#[test]
fn a_stop_settles_nothing_and_commits_what_is_owed() {
    let mut state = with_committed(&[1], 20);
    state.on(answered(2, true));
    state.tick(at(5));
    state.on(looked(2, Seen::Absent));
    state.stop();
    state.on(Input::Sent { task: task(2), ok: true });
    assert_eq!(state.tick(at(30)), [Action::Look { task: task(2) }]);
    assert!(state.owes());
    state.on(looked(2, Seen::On(Standing::Committed, 40)));
    assert!(!state.owes());
    assert!(state.tick(at(100)).is_empty());
}

#[test]
fn a_chain_that_does_not_answer_is_asked_more_and_more_rarely() {
    let mut state = State::new(1, 64);
    state.on(answered(1, true));
    let mut asked = Vec::new();
    for now in 0..100 {
        if !state.tick(at(now)).is_empty() {
            asked.push(now);
            state.on(Input::Looked { task: task(1), seen: None });
        }
    }
    assert_eq!(asked, [0, 2, 6, 14, 30, 60, 90]);
}

fn sends(actions: &[Action]) -> Option<Way> {
    match actions {
        [Action::Send { way, .. }] => Some(*way),
        _ => None,
    }
}

#[test]
fn what_a_router_carries_is_left_to_it_until_it_would_be_late() {
    let mut state = State::new(1, 64);
    state.on(answer_of(1, true, 3));
    state.tick(at(10));
    assert!(state.on(looked(1, Seen::Absent)).is_empty());
    assert!(state.owes());
    // It has put the words of all nodes on chain: nothing was sent, and nothing is.
    state.on(moved(1, Standing::Promised, DEADLINE_S));
    assert!(state.tick(at(15)).is_empty());
    state.on(moved(1, Standing::Opening, 100));
    assert_eq!(state.tick(at(20)), [Action::Look { task: task(1) }]);
    let opening = Seen::On(Standing::Opening, 100);
    assert!(state.on(looked(1, opening)).is_empty());
    // It opens nothing: the node does.
    state.tick(at(40));
    assert!(state.on(looked(1, opening)).is_empty());
    state.tick(at(60));
    assert!(state.on(looked(1, opening)).is_empty());
    state.tick(at(85));
    assert_eq!(sends(&state.on(looked(1, opening))), Some(Way::Open));
}

#[test]
fn a_node_whose_router_does_not_carry_goes_all_the_way_itself() {
    let mut state = State::new(1, 64);
    state.on(answer_of(1, true, 3));
    state.tick(at(10));
    assert_eq!(sends(&state.on(looked(1, DUE))), Some(Way::Precommit));
    // The last precommitment: its event is here before the receipt.
    state.on(moved(1, Standing::Opening, 100));
    state.on(Input::Sent { task: task(1), ok: true });
    assert_eq!(state.tick(at(12)), [Action::Look { task: task(1) }]);
    let opening = Seen::On(Standing::Opening, 100);
    assert_eq!(sends(&state.on(looked(1, opening))), Some(Way::Open));
    state.on(moved(1, Standing::Answered, 100));
    state.on(Input::Sent { task: task(1), ok: true });
    assert!(!state.owes());
    state.on(committed(1, 20));
    let settle = Action::Settle { tasks: vec![task(1)], round: 1 };
    assert_eq!(state.tick(at(21)), [settle]);
}

#[test]
fn a_task_that_nobody_submits_is_submitted_with_the_precommitment_at_last() {
    let mut state = State::new(1, 64);
    state.on(answer_of(1, true, 2));
    let mut sent = None;
    for now in (0..DEADLINE_S).step_by(5) {
        if !state.tick(at(now)).is_empty() {
            let actions = state.on(looked(1, Seen::Absent));
            sent = sends(&actions).map(|way| (way, now));
            if sent.is_some() {
                break;
            }
        }
    }
    assert_eq!(sent, Some((Way::CarryPrecommit, DEADLINE_S - OWN_CARRY_S)));
    // One that is stopped does not wait for the router.
    let mut state = State::new(1, 64);
    state.on(answer_of(1, true, 2));
    state.stop();
    state.tick(at(10));
    assert_eq!(sends(&state.on(looked(1, Seen::Absent))), Some(Way::CarryPrecommit));
}

#[test]
fn an_opening_that_is_late_is_missed() {
    let mut state = State::new(1, 64);
    state.on(answer_of(1, false, 2));
    state.tick(at(10));
    let missed = state.on(looked(1, Seen::On(Standing::Opening, 9)));
    assert_eq!(missed, [Action::Missed { task: task(1) }]);
}

#[test]
fn a_task_is_handed_back_once_and_only_while_it_is_due() {
    let mut state = State::new(1, 64);
    state.on(Input::Decline { task: task(1), until_s: 50 });
    assert_eq!(state.tick(at(10)), [Action::Look { task: task(1) }]);
    let due = Seen::On(Standing::Due, 50);
    assert_eq!(sends(&state.on(looked(1, due))), Some(Way::Decline));
    state.on(Input::Sent { task: task(1), ok: true });
    state.on(moved(1, Standing::Elsewhere, 90));
    assert!(state.tick(at(30)).is_empty() && !state.owes());
    for seen in [Seen::On(Standing::Promised, 50), Seen::On(Standing::Over, 50)] {
        state.on(Input::Decline { task: task(1), until_s: 50 });
        state.tick(at(31));
        assert!(state.on(looked(1, seen)).is_empty());
        assert!(!state.owes());
    }
    state.on(Input::Decline { task: task(1), until_s: 50 });
    state.tick(at(51));
    assert!(state.on(looked(1, due)).is_empty() && !state.owes());
}

#[test]
fn an_answer_to_another_request_of_the_nonce_is_never_sent_and_the_task_handed_back() {
    let mut state = State::new(1, 64);
    let replaced = Seen::On(Standing::Replaced, 50);
    // A look, an event, and an event before the worker's word: the answer goes.
    state.on(answered(1, false));
    state.tick(at(10));
    assert!(state.on(looked(1, replaced)).is_empty() && !state.owes());
    state.on(answered(1, false));
    state.on(moved(1, Standing::Replaced, 50));
    assert!(!state.owes());
    state.on(answered(1, false));
    state.on(Input::Decline { task: task(1), until_s: 50 });
    state.on(moved(1, Standing::Replaced, 50));
    assert_eq!(state.tick(at(10)), [Action::Look { task: task(1) }]);
    assert_eq!(sends(&state.on(looked(1, replaced))), Some(Way::Decline));
}

#[test]
fn a_task_that_moved_away_is_forgotten() {
    let mut state = State::new(1, 64);
    state.on(answered(1, true));
    state.on(moved(1, Standing::Elsewhere, DEADLINE_S));
    assert!(state.tick(at(10)).is_empty() && !state.owes());
}

#[test]
fn what_is_being_audited_is_settled_when_the_audit_is_over() {
    let mut state = State::new(1, 8);
    state.on(answered(1, false));
    state.on(committed(1, 20));
    let settle = [Action::Settle { tasks: vec![task(1)], round: 1 }];
    assert_eq!(state.tick(at(21)), settle);
    state.on(Input::SettleSent { tasks: vec![task(1)], ok: true });
    // That drew it: nothing is sent until an event tells more, and it is looked up now and then.
    state.on(Input::Moved { task: task(1), seen: Seen::Audited });
    assert!(!state.owes());
    assert_eq!(state.tick(at(40)), []);
    assert_eq!(state.tick(at(41)), [Action::Look { task: task(1) }]);
    assert_eq!(state.on(looked(1, Seen::Audited)), []);
    assert_eq!(state.tick(at(60)), []);
    state.on(committed(1, 20));
    assert_eq!(state.tick(at(60)), [Action::Look { task: task(1) }]);
    state.on(looked(1, Seen::On(Standing::Committed, 20)));
    assert_eq!(state.tick(at(60)), [Action::Settle { tasks: vec![task(1)], round: 2 }]);
}
