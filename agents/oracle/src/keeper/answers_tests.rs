//! The keeper's decisions about proofs of answers.

use alloy::primitives::aliases::U96;
use assay_bindings::ProofOfInference::{
    AnswerCleared, AnswerExposed, AnswerUnverified, Audit, AuditCollected, AuditMoved, BookChanged,
    EpochClosed, PanelMoved, Party,
};
use assay_proof::Reasons;
use assay_protocol::PartEvent;
use assay_protocol::state::AuditState;

use super::*;

/// The node of `record`'s only part.
const NODE: u32 = 1;
/// Of every answer, minor units; an audit pays a quarter.
const FEE: u64 = 1000;
const MODEL: u32 = 3;
const ASSET: u8 = 0;

/// Committed at 1000 + the number of its block; epochs have ten seconds.
fn exposed_of(number: u8, node: u32, committed_at: u64) -> ProtocolEvent {
    ProtocolEvent::AnswerExposed(AnswerExposed {
        taskId: task(number),
        nodeId: node,
        committedAt: U40::from(committed_at),
        probabilityBps: 10_000,
        ..Default::default()
    })
}

/// A task that was answered in block 12, epoch 101, and could be settled at 1014 if nothing else was to wait for.
fn answered(number: u8) -> Vec<ProtocolEvent> {
    vec![submitted(number, 1100), exposed_of(number, NODE, 1012), committed(number, 1014)]
}

fn epoch_closed(epoch: u64, round: u64) -> ProtocolEvent {
    ProtocolEvent::EpochClosed(EpochClosed { epoch: U40::from(epoch), round })
}

fn cleared(number: u8, node: u32) -> ProtocolEvent {
    let (task, node) = (task(number), node);
    ProtocolEvent::AnswerCleared(AnswerCleared { taskId: task, nodeId: node, unaudited: false })
}

fn audit(number: u8, round: u64) -> Audit {
    Audit {
        taskId: task(number),
        nodeId: NODE,
        model: MODEL,
        asset: ASSET,
        fee: U96::from(FEE),
        round,
        ..Default::default()
    }
}

/// A validator and two of a panel.
fn three() -> alloy::primitives::U256 {
    alloy::primitives::U256::from_limbs([2 | 3 << 32, 4, 0, 0])
}

fn moved_to(state: AuditState, until: u64, audit: Audit) -> ProtocolEvent {
    ProtocolEvent::AuditMoved(AuditMoved {
        taskId: audit.taskId,
        nodeId: audit.nodeId,
        state: state as u8,
        until: U40::from(until),
        audit,
    })
}

fn panel(number: u8, parties: Vec<Party>) -> ProtocolEvent {
    ProtocolEvent::PanelMoved(PanelMoved { taskId: task(number), nodeId: NODE, parties })
}

/// Miner, accuser and three members, of which these have committed and opened.
fn parties(sealed: [bool; 5], open: [bool; 5]) -> Vec<Party> {
    let each = sealed.into_iter().zip(open).zip(1..);
    each.map(|((is_sealed, is_open), node)| Party {
        nodeId: node,
        isSealed: is_sealed,
        isOpen: is_open,
        ..Default::default()
    })
    .collect()
}

fn booked(amount: u64) -> ProtocolEvent {
    let amount = alloy::primitives::U256::from(amount);
    ProtocolEvent::BookChanged(BookChanged { model: MODEL, asset: ASSET, amount })
}

/// A keeper that has seen these events in block 12.
fn keeper_with(events: Vec<ProtocolEvent>) -> Keeper {
    let mut keeper = keeper();
    take(&mut keeper, 12, events);
    keeper
}

#[test]
fn the_round_of_an_epoch_with_answers_is_named_when_the_epoch_is_over() {
    let mut keeper = keeper_with([answered(1), answered(2)].concat());
    assert_eq!(tick(&mut keeper, 1019), []);
    // One for all of its answers.
    assert_eq!(tick(&mut keeper, 1020), [Push::CloseEpoch(101)]);
    assert_eq!(tick(&mut keeper, 1021), []);
    keeper.on(Input::Ended { push: Push::CloseEpoch(101), chain_time: 1021 });
    // Another oracle was faster: what it did is seen, and dropped.
    take(&mut keeper, 21, vec![epoch_closed(101, 22)]);
    assert_eq!(tick(&mut keeper, 1100), []);
}

#[test]
fn answers_are_drawn_once_their_round_has_its_value_and_the_miner_had_its_time() {
    let mut keeper = keeper_with([answered(1), answered(2)].concat());
    take(&mut keeper, 21, vec![epoch_closed(101, 22)]);
    take(&mut keeper, 22, vec![]);
    assert_eq!(tick(&mut keeper, 1022), [Push::Reveal(22)]);
    take(&mut keeper, 23, vec![revealed(22)]);
    // A draw that comes too early is no error, and does nothing: the chain's own time counts.
    assert_eq!(tick(&mut keeper, 1028), []);
    take(&mut keeper, 27, vec![]);
    assert_eq!(tick(&mut keeper, 1028), []);
    take(&mut keeper, 28, vec![]);
    let actions = keeper.on(Input::Tick { chain_time: 1028 });
    let [Action::Push { push, brought, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(*push, Push::Draw(vec![task(1), task(2)]));
    assert_eq!((brought.tasks.len(), brought.exposed.len()), (2, 2));
    // One is not drawn and the task ends; the other one is to be audited.
    let drawn = moved_to(AuditState::Drawn, 1100, audit(2, 0));
    take(&mut keeper, 29, vec![cleared(1, NODE), settled(1), drawn]);
    assert_eq!(tick(&mut keeper, 1060), []);
    assert_eq!(keeper.waiting(), (0, 1, 1));
}

#[test]
fn a_draw_whose_round_never_comes_leaves_answers_unaudited() {
    // Nobody revealed block 22 in time: block 279 is the first that knows it is gone.
    let mut keeper = keeper_with(answered(1));
    let far = u64::MAX / 2;
    let patient = ProofTerms { round_timeout_s: far, ..PROOF };
    keeper.terms.proof = patient;
    take(&mut keeper, 21, vec![epoch_closed(101, 22)]);
    take(&mut keeper, 277, vec![]);
    assert_eq!(tick(&mut keeper, 1277), [Push::Reveal(22)]);
    take(&mut keeper, 278, vec![]);
    assert_eq!(tick(&mut keeper, 1278), []);
    take(&mut keeper, 279, vec![]);
    assert_eq!(tick(&mut keeper, 1279), [Push::Draw(vec![task(1)])]);

    // Of drand, which misses none, 1021 + 30 is the last second that is waited for.
    let beacon = Beacon::Drand { genesis_s: 0, period_s: 1_000_000 };
    let mut keeper = Keeper::new(Terms { beacon, ..TERMS }, BTreeMap::new(), VecDeque::new());
    take(&mut keeper, 12, answered(1));
    take(&mut keeper, 21, vec![epoch_closed(101, 22)]);
    take(&mut keeper, 56, vec![]);
    assert_eq!(tick(&mut keeper, 1056), []);
    take(&mut keeper, 57, vec![]);
    assert_eq!(tick(&mut keeper, 1057), [Push::Draw(vec![task(1)])]);
}

#[test]
fn a_task_is_drawn_as_a_whole_and_settled_when_all_of_its_audits_have_ended() {
    let parts = [1, 2].map(|node| Part { nodeId: node, ..Default::default() });
    let both = SessionQueue::Task { parts: parts.to_vec(), ..record(1) };
    // The second answer is of the next epoch.
    let events = vec![submitted_as(1, 1100, both), exposed_of(1, 1, 1012), committed(1, 1014)];
    let mut keeper = keeper_with(events);
    take(&mut keeper, 20, vec![exposed_of(1, 2, 1020), epoch_closed(101, 21)]);
    take(&mut keeper, 26, vec![revealed(21)]);
    take(&mut keeper, 29, vec![]);
    assert_eq!(tick(&mut keeper, 1029), []);
    take(&mut keeper, 31, vec![epoch_closed(102, 31), revealed(31)]);
    take(&mut keeper, 36, vec![]);
    assert_eq!(tick(&mut keeper, 1036), [Push::Draw(vec![task(1)])]);
    let drawn = moved_to(AuditState::Drawn, 1100, audit(1, 0));
    take(&mut keeper, 37, vec![drawn, cleared(1, 2)]);
    assert_eq!(tick(&mut keeper, 1100), []);
    take(&mut keeper, 90, vec![moved_to(AuditState::Passed, 0, audit(1, 0))]);
    assert_eq!(tick(&mut keeper, 1094), []);
    assert_eq!(tick(&mut keeper, 1095), [Push::Settle(vec![task(1)])]);
    take(&mut keeper, 96, vec![settled(1)]);
    assert_eq!(keeper.waiting(), (0, 0, 0));
}

#[test]
fn whoever_is_silent_is_moved_on_after_the_last_second() {
    let silent = [
        (AuditState::Drawn, Push::AdvanceAudit(task(1), NODE)),
        (AuditState::Sealed, Push::AdvanceAudit(task(1), NODE)),
        (AuditState::Opened, Push::AdvanceAudit(task(1), NODE)),
        (AuditState::Accused, Push::AdvanceAudit(task(1), NODE)),
        (AuditState::Convened, Push::AdvancePanel(task(1), NODE)),
        (AuditState::Hearing, Push::Judge(task(1), NODE)),
        (AuditState::Demanded, Push::AdvanceAudit(task(1), NODE)),
        (AuditState::Condemned, Push::Judge(task(1), NODE)),
        (AuditState::Appealed, Push::AdvanceAudit(task(1), NODE)),
    ];
    for (state, push) in silent {
        let mut keeper = keeper_with(answered(1));
        let audit = audit(1, 9000);
        // Somebody of the panel is missing in a hearing.
        let members = parties([true; 5], [true, true, false, true, true]);
        take(&mut keeper, 13, vec![moved_to(AuditState::Accused, 1080, audit.clone())]);
        take(
            &mut keeper,
            14,
            vec![panel(1, members.clone()), moved_to(state, 1080, audit.clone())],
        );
        assert_eq!(tick(&mut keeper, 1080), [], "{state:?}");
        let actions = keeper.on(Input::Tick { chain_time: 1081 });
        let [Action::Push { push: pushed, brought, .. }] = actions.as_slice() else {
            panic!("{state:?}: {actions:?}")
        };
        assert_eq!(*pushed, push, "{state:?}");
        assert_eq!(brought.audit.as_deref(), Some(&audit), "{state:?}");
        assert_eq!(brought.parties, members, "{state:?}");
        // What was judged, and is executed, is the same audit in another state.
        assert_eq!(brought.audit_state, state as u8);
    }
}

#[test]
fn a_second_panel_is_drawn_as_soon_as_that_can_be_and_its_members_are_paid() {
    let all = [true; 5];
    let mut keeper = keeper_with(answered(1));
    take(&mut keeper, 13, vec![moved_to(AuditState::Hearing, 1080, audit(1, 12))]);
    let first =
        vec![panel(1, parties(all, all)), moved_to(AuditState::Condemned, 1080, audit(1, 12))];
    take(&mut keeper, 14, first);
    assert_eq!(tick(&mut keeper, 1080), []);
    take(&mut keeper, 15, vec![moved_to(AuditState::Appealed, 1100, audit(1, 15))]);
    take(&mut keeper, 16, vec![]);
    assert_eq!(tick(&mut keeper, 1081), [Push::Reveal(15)]);
    take(&mut keeper, 17, vec![revealed(15)]);
    assert_eq!(tick(&mut keeper, 1082), [Push::Reconvene(task(1), NODE)]);
    let mut seven = parties(all, all);
    seven.extend((6..=9).map(|node| Party {
        nodeId: node,
        isOpen: node < 8,
        ..Default::default()
    }));
    let convened = vec![panel(1, seven), moved_to(AuditState::Convened, 1090, audit(1, 15))];
    take(&mut keeper, 18, convened);
    assert_eq!(tick(&mut keeper, 1090), []);
    // Two of the first panel, one of whom waived its pay, and five of the second that have opened: a quarter of the fee each.
    let passed = Audit { earners: 0b0100_0000_0011, drawn: three(), ..audit(1, 15) };
    let owes = 777 | assay_protocol::state::HAS_MEMBERS;
    take(&mut keeper, 20, vec![booked(1749), moved_to(AuditState::Passed, owes, passed)]);
    take(&mut keeper, 30, vec![settled(1)]);
    assert_eq!(tick(&mut keeper, 1090), []);
    take(&mut keeper, 31, vec![booked(1750)]);
    assert_eq!(tick(&mut keeper, 1091), [Push::Collect(task(1), NODE)]);
}

#[test]
fn what_an_audit_waits_for_is_revealed_but_not_when_it_would_blame_the_innocent() {
    let (reveal, advance) = (Push::Reveal(14), Push::AdvanceAudit(task(1), NODE));
    let late = [
        (AuditState::Opened, advance.clone()),
        (AuditState::Accused, advance.clone()),
        (AuditState::Appealed, advance),
        (AuditState::Hearing, Push::Judge(task(1), NODE)),
    ];
    for (state, after) in late {
        let mut keeper = keeper_with(answered(1));
        take(&mut keeper, 13, vec![moved_to(state, 1080, audit(1, 14))]);
        assert_eq!(tick(&mut keeper, 1013), [], "{state:?}");
        take(&mut keeper, 14, vec![]);
        assert_eq!(tick(&mut keeper, 1080), std::slice::from_ref(&reveal), "{state:?}");
        keeper.on(Input::Ended { push: reveal.clone(), chain_time: 1080 });
        // Now nobody could open any more what the value asks for.
        assert_eq!(tick(&mut keeper, 1081), [after], "{state:?}");
    }
}

#[test]
fn rounds_of_audits_are_drands_where_the_beacon_is() {
    // Round 27 is out at 1000 + 26 * 3.
    let beacon = Beacon::Drand { genesis_s: 1000, period_s: 3 };
    for (state, after) in
        [(AuditState::Opened, None), (AuditState::Accused, Some(Push::Convene(task(1), NODE)))]
    {
        let mut keeper = Keeper::new(Terms { beacon, ..TERMS }, BTreeMap::new(), VecDeque::new());
        take(&mut keeper, 12, answered(1));
        take(&mut keeper, 70, vec![moved_to(state, 1400, audit(1, 27))]);
        take(&mut keeper, 77, vec![]);
        assert_eq!(tick(&mut keeper, 1077), [], "{state:?}");
        take(&mut keeper, 78, vec![]);
        assert_eq!(tick(&mut keeper, 1078), [Push::Reveal(27)], "{state:?}");
        // No round of drand is ever too old.
        take(&mut keeper, 390, vec![revealed(27)]);
        assert_eq!(tick(&mut keeper, 1390), Vec::from_iter(after), "{state:?}");
    }
}

#[test]
fn a_panel_is_convened_and_judged_as_soon_as_that_can_be() {
    let weights = Audit { reasons: Reasons::SPOT.0, ..audit(1, 14) };
    let mut keeper = keeper_with(answered(1));
    take(&mut keeper, 14, vec![moved_to(AuditState::Accused, 1080, weights.clone())]);
    take(&mut keeper, 15, vec![revealed(14)]);
    assert_eq!(tick(&mut keeper, 1015), [Push::Convene(task(1), NODE)]);
    let all = [true; 5];
    let first_two = [true, true, false, false, false];
    let convened = parties(first_two, [false; 5]);
    let events = vec![panel(1, convened), moved_to(AuditState::Convened, 1090, weights)];
    take(&mut keeper, 16, events);
    assert_eq!(tick(&mut keeper, 1017), []);
    let weights = Audit { reasons: Reasons::SPOT.0, ..audit(1, 18) };
    let hearing = moved_to(AuditState::Hearing, 1090, weights);
    take(&mut keeper, 17, vec![panel(1, parties(all, [false; 5])), hearing.clone()]);
    take(&mut keeper, 18, vec![]);
    assert_eq!(tick(&mut keeper, 1018), [Push::Reveal(18)]);
    take(&mut keeper, 19, vec![revealed(18)]);
    // The round's value stays known while the parties open one by one.
    let opened = parties(all, [false, true, true, true, true]);
    take(&mut keeper, 20, vec![panel(1, opened), hearing.clone()]);
    assert_eq!(tick(&mut keeper, 1050), []);
    take(&mut keeper, 21, vec![panel(1, parties(all, all)), hearing]);
    assert_eq!(tick(&mut keeper, 1050), [Push::Judge(task(1), NODE)]);
    let void = moved_to(AuditState::Void, 0, audit(1, 18));
    take(&mut keeper, 22, vec![void]);
    assert_eq!(tick(&mut keeper, 1050), [Push::Settle(vec![task(1)])]);
}

#[test]
fn miner_and_accuser_are_waited_for_only_where_weights_are_compared() {
    let members = [true, true, true, true, false];
    // The last member never committed, and has nothing to open; the first two have not.
    let opened = parties(members, [false, false, true, true, false]);
    for (reasons, heard) in [
        (Reasons::TEXT, true),
        (Reasons::HARD_MARGIN, true),
        (Reasons::HARD_MARGIN | Reasons::FINGERPRINT, false),
    ] {
        let audit = Audit { reasons: reasons.0, ..audit(1, 9000) };
        let mut keeper = keeper_with(answered(1));
        take(&mut keeper, 13, vec![moved_to(AuditState::Convened, 1080, audit.clone())]);
        let hearing = moved_to(AuditState::Hearing, 1080, audit);
        take(&mut keeper, 14, vec![panel(1, opened.clone()), hearing]);
        let pushes = if heard { vec![Push::Judge(task(1), NODE)] } else { vec![] };
        assert_eq!(tick(&mut keeper, 1015), pushes, "{reasons}");
    }
}

#[test]
fn validators_who_do_not_collect_are_paid_once_the_book_has_it() {
    let mut keeper = keeper_with(answered(1));
    // Two of the validators have done their duty: a quarter of the fee each.
    let passed = Audit { earners: 0b101, drawn: three(), ..audit(1, 14) };
    take(&mut keeper, 20, vec![booked(499), moved_to(AuditState::Passed, 777, passed.clone())]);
    take(&mut keeper, 30, vec![settled(1), settled(1)]);
    assert_eq!(keeper.waiting(), (0, 0, 1));
    assert_eq!(tick(&mut keeper, 1090), []);
    take(&mut keeper, 31, vec![booked(500)]);
    // They come first themselves.
    assert_eq!(tick(&mut keeper, 1089), []);
    let actions = keeper.on(Input::Tick { chain_time: 1090 });
    let [Action::Push { push: Push::Collect(..), brought, .. }] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    assert_eq!(brought.audit.as_deref(), Some(&passed));
    let collected = AuditCollected { taskId: task(1), nodeId: NODE, ..Default::default() };
    take(&mut keeper, 32, vec![ProtocolEvent::AuditCollected(collected)]);
    assert_eq!(keeper.waiting(), (0, 0, 0));
    assert_eq!(tick(&mut keeper, 9000), []);
}

#[test]
fn an_answer_that_nobody_looked_at_or_that_was_false_leaves_nothing_behind() {
    let unverified = AnswerUnverified { taskId: task(1), nodeId: NODE };
    let ends = [
        ProtocolEvent::AnswerUnverified(unverified),
        moved_to(AuditState::Unverified, 0, audit(1, 0)),
        moved_to(AuditState::Disproved, 0, audit(1, 0)),
    ];
    for end in ends {
        let mut keeper = keeper_with(answered(1));
        take(&mut keeper, 20, vec![end]);
        assert_eq!(tick(&mut keeper, 1025), [Push::Settle(vec![task(1)])]);
        let refunded = SessionQueue::TaskRefunded { taskId: task(1), ..Default::default() };
        take(&mut keeper, 26, vec![ProtocolEvent::TaskRefunded(refunded)]);
        assert_eq!(keeper.waiting(), (0, 0, 0));
    }
}

#[test]
fn a_client_is_told_the_first_answer_that_was_not_false() {
    let parts = [1, 2].map(|node| Part { nodeId: node, ..Default::default() });
    let asked = SessionQueue::Task { parts: parts.to_vec(), callbackGas: 100_000, ..record(1) };
    let ProtocolEvent::TaskCommitted(first) = committed(1, 1014) else { panic!() };
    let second = SessionQueue::TaskCommitted { nodeId: 2, ..first.clone() };
    let commits = [first, second].map(ProtocolEvent::TaskCommitted);
    let mut keeper = keeper_with([vec![submitted_as(1, 1100, asked)], commits.to_vec()].concat());
    let disproved = SessionQueue::PartChanged {
        taskId: task(1),
        nodeId: 1,
        part: 0,
        what: PartEvent::Disproved as u8,
    };
    take(&mut keeper, 20, vec![ProtocolEvent::PartChanged(disproved), settled(1)]);
    let actions = keeper.on(Input::Tick { chain_time: 1021 });
    let [Action::Push { push: Push::Deliver(_), brought, .. }] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    assert_eq!(brought.answer.as_ref().unwrap().nodeId, 2);
    // The task as it is stored now: one of its parts has failed.
    let states: Vec<u8> = brought.tasks[0].parts.iter().map(|part| part.state).collect();
    use assay_protocol::PartState::{Committed, Failed};
    assert_eq!(states, [Failed as u8, Committed as u8]);
}

#[test]
fn what_blocks_said_of_proofs_is_undone_with_them() {
    let mut keeper = keeper_with(answered(1));
    let mut seen = vec![keeper.items().clone()];
    let accused = Audit { reasons: Reasons::TEXT.0, earners: 1, drawn: three(), ..audit(1, 24) };
    let hearing = parties([true; 5], [false; 5]);
    let blocks = [
        block(21, vec![epoch_closed(101, 22)]),
        block(23, vec![revealed(22)]),
        block(24, vec![moved_to(AuditState::Accused, 1080, accused.clone())]),
        block(25, vec![panel(1, hearing), moved_to(AuditState::Hearing, 1090, accused.clone())]),
        block(26, vec![booked(9), moved_to(AuditState::Void, 0, accused)]),
        block(27, vec![settled(1)]),
    ];
    for block in &blocks {
        keeper.on(Input::Block(block));
        seen.push(keeper.items().clone());
    }
    assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "a block said nothing");
    // What is stored reads back.
    for item in seen.iter().flat_map(|items| items.values()) {
        let text = serde_json::to_string(item).unwrap();
        assert_eq!(serde_json::from_str::<Item>(&text).unwrap(), *item);
    }
    for block in blocks.iter().rev() {
        seen.pop();
        keeper.on(Input::Reverted(block));
        assert_eq!(keeper.items(), seen.last().unwrap());
    }
}

#[test]
fn settlements_at_work_leave_room_for_what_has_an_end() {
    let mut keeper = keeper();
    let tasks = (1..=70).flat_map(|number| [submitted(number, 1100), committed(number, 1100)]);
    take(&mut keeper, 12, tasks.collect());
    assert_eq!(tick(&mut keeper, 1105).len(), 2);
    take(&mut keeper, 13, answered(71));
    take(&mut keeper, 14, vec![moved_to(AuditState::Accused, 1200, audit(71, 14))]);
    take(&mut keeper, 15, vec![]);
    assert_eq!(tick(&mut keeper, 1106), [Push::Reveal(14)]);
}
