//! The keeper's decisions, driven by fabricated blocks.

use alloy::primitives::aliases::{U24, U40, U96};
use alloy::primitives::{Address, B256};
use assay_bindings::SessionQueue::Part;
use assay_bindings::{Parameters, RandomBeacon, Session, SessionQueue};
use assay_chain::{Block, BlockRef, Event, ProtocolEvent};

use super::*;

#[path = "answers_tests.rs"]
mod answers;

const SCOPE: QueueScope = QueueScope { chain_id: 31337, queue: Address::ZERO };
const PROOF: ProofTerms =
    ProofTerms { epoch_length_s: 10, round_timeout_s: 30, audit_pay_bps: 2500 };
const TERMS: Terms =
    Terms { scope: SCOPE, beacon: Beacon::Blockhash, proof: PROOF, settle_grace_s: 5 };
/// Seconds that drawn nodes serve, and tasks of one lane.
const RESERVE_PERIOD: u64 = 1000;
const MAX_TASKS: u32 = 50;

fn keeper() -> Keeper {
    let mut keeper = Keeper::new(TERMS, BTreeMap::new(), VecDeque::new());
    take(&mut keeper, 1, vec![terms()]);
    keeper
}

fn terms() -> ProtocolEvent {
    let session = Parameters::SessionTerms {
        reservePeriod: U24::from(RESERVE_PERIOD),
        maxTasks: MAX_TASKS,
        ..Default::default()
    };
    ProtocolEvent::TermsProposed(Parameters::TermsProposed {
        version: 1,
        effectiveAt: U40::ZERO,
        terms: Parameters::Terms { session, ..Default::default() },
    })
}

/// Block `number` at time 1000 + number.
fn block(number: u64, events: Vec<ProtocolEvent>) -> Block {
    let hash = |number: u64| B256::from(alloy::primitives::U256::from(number + 1));
    let wrap = |(index, body): (usize, ProtocolEvent)| Event {
        tx_hash: B256::repeat_byte(9),
        log_index: index as u64,
        body,
    };
    Block {
        at: BlockRef { number, hash: hash(number) },
        parent: hash(number.wrapping_sub(1)),
        timestamp: 1000 + number,
        events: events.into_iter().enumerate().map(wrap).collect(),
    }
}

fn opened(session: u64) -> ProtocolEvent {
    ProtocolEvent::SessionOpened(Session::SessionOpened {
        sessionId: session,
        model: 1,
        termsVersion: 1,
        minNodes: 1,
        maxNodes: 2,
        ..Default::default()
    })
}

/// Waits for the draw with this ticket until 1070.
fn drawing(session: u64, draw_round: u64, ticket: u64) -> ProtocolEvent {
    ProtocolEvent::SessionDrawing(Session::SessionDrawing {
        sessionId: session,
        drawRound: draw_round,
        ticket: U40::from(ticket),
        drawUntil: U40::from(1070),
    })
}

fn revealed(round: u64) -> ProtocolEvent {
    ProtocolEvent::RoundRevealed(RandomBeacon::RoundRevealed { round, value: B256::repeat_byte(3) })
}

fn activated(session: u64, seed_round: u64) -> ProtocolEvent {
    ProtocolEvent::SessionActivated(Session::SessionActivated {
        sessionId: session,
        seedRound: seed_round,
        nodes: vec![1, 2],
        dedicated: 0,
        previousUntil: U40::ZERO,
    })
}

fn draining(session: u64, ends_at: u64) -> ProtocolEvent {
    let ends_at = U40::from(ends_at);
    ProtocolEvent::SessionDraining(Session::SessionDraining { sessionId: session, endsAt: ends_at })
}

fn closed(session: u64) -> ProtocolEvent {
    let returned = alloy::primitives::U256::ONE;
    ProtocolEvent::SessionClosed(Session::SessionClosed { sessionId: session, returned })
}

fn task(number: u8) -> B256 {
    B256::repeat_byte(number)
}

fn record(number: u8) -> SessionQueue::Task {
    let part = Part { nodeId: 1, ..Default::default() };
    SessionQueue::Task {
        sessionId: 1,
        lane: 1,
        nonce: u64::from(number),
        parts: vec![part],
        ..Default::default()
    }
}

fn submitted_as(number: u8, until: u64, task: SessionQueue::Task) -> ProtocolEvent {
    ProtocolEvent::TaskSubmitted(SessionQueue::TaskSubmitted {
        taskId: self::task(number),
        sessionId: 1,
        nodeId: 1,
        requestDigest: B256::repeat_byte(4),
        deadline: until,
        until: U40::from(until),
        task,
    })
}

fn submitted(number: u8, until: u64) -> ProtocolEvent {
    submitted_as(number, until, record(number))
}

fn committed(number: u8, settle_at: u64) -> ProtocolEvent {
    ProtocolEvent::TaskCommitted(SessionQueue::TaskCommitted {
        taskId: task(number),
        sessionId: 1,
        nodeId: 1,
        outputDigest: B256::repeat_byte(5),
        promptHash: B256::repeat_byte(6),
        promptTokens: 1,
        outputTokens: 1,
        numericClass: B256::repeat_byte(7),
        endReason: 1,
        salt: B256::ZERO,
        proofSeal: B256::repeat_byte(8),
        fee: U96::ONE,
        settleAt: U40::from(settle_at),
    })
}

fn settled(number: u8) -> ProtocolEvent {
    ProtocolEvent::TaskSettled(SessionQueue::TaskSettled {
        taskId: task(number),
        sessionId: 1,
        nodeId: 1,
        ..Default::default()
    })
}

fn take(keeper: &mut Keeper, number: u64, events: Vec<ProtocolEvent>) {
    let actions = keeper.on(Input::Block(&block(number, events)));
    // A block is stored, whatever else; it never acts by itself, so that history pushes nothing.
    assert!(matches!(actions.as_slice(), [Action::Store(_)]), "{actions:?}");
}

fn tick(keeper: &mut Keeper, chain_time: u64) -> Vec<Push> {
    keeper
        .on(Input::Tick { chain_time })
        .into_iter()
        .map(|action| match action {
            Action::Push { push, .. } => push,
            Action::Store(_) => panic!("a tick stores nothing"),
        })
        .collect()
}

#[test]
fn a_session_is_brought_from_its_opening_to_its_seed() {
    let mut keeper = keeper();
    take(&mut keeper, 10, vec![opened(1), drawing(1, 11, 7)]);
    // The round's own block is not there yet.
    assert_eq!(tick(&mut keeper, 1010), []);
    take(&mut keeper, 11, vec![]);
    assert_eq!(tick(&mut keeper, 1011), [Push::Reveal(11)]);
    // It is at work: not again.
    assert_eq!(tick(&mut keeper, 1040), []);
    take(&mut keeper, 12, vec![revealed(11)]);
    assert_eq!(tick(&mut keeper, 1012), [Push::Activate(1)]);
    take(&mut keeper, 13, vec![activated(1, 14)]);
    assert_eq!(tick(&mut keeper, 1013), []);
    take(&mut keeper, 14, vec![]);
    assert_eq!(tick(&mut keeper, 1014), [Push::Reveal(14)]);
    take(&mut keeper, 15, vec![revealed(14)]);
    assert_eq!(tick(&mut keeper, 2000), []);
    assert_eq!(keeper.waiting(), (1, 0, 0));
}

#[test]
fn draws_of_a_model_happen_in_the_order_of_their_tickets() {
    let mut keeper = keeper();
    let events = vec![opened(1), drawing(1, 11, 8), opened(2), drawing(2, 11, 7)];
    take(&mut keeper, 10, events);
    take(&mut keeper, 11, vec![]);
    // One round for both.
    assert_eq!(tick(&mut keeper, 1011), [Push::Reveal(11)]);
    take(&mut keeper, 12, vec![revealed(11)]);
    assert_eq!(tick(&mut keeper, 1012), [Push::Activate(2)]);
    // Too few were found: it draws again, behind the other.
    take(&mut keeper, 13, vec![drawing(2, 14, 9)]);
    assert_eq!(tick(&mut keeper, 1013), [Push::Activate(1)]);
}

#[test]
fn a_draw_whose_time_is_over_or_whose_round_was_missed_is_expired_in_its_turn() {
    let mut keeper = keeper();
    take(&mut keeper, 10, vec![opened(1), drawing(1, 11, 1), opened(2), drawing(2, 11, 2)]);
    take(&mut keeper, 11, vec![revealed(11)]);
    // 1070 is the last second.
    assert_eq!(tick(&mut keeper, 1070), [Push::Activate(1)]);
    assert_eq!(tick(&mut keeper, 1071), [Push::Expire(1)]);
    take(&mut keeper, 12, vec![closed(1)]);
    assert_eq!(tick(&mut keeper, 1072), [Push::Expire(2)]);
    take(&mut keeper, 13, vec![closed(2)]);
    assert_eq!(keeper.waiting(), (0, 0, 0));

    // Block 267 is the last that knows the hash of block 11.
    let mut keeper = self::keeper();
    take(&mut keeper, 10, vec![opened(1), drawing(1, 11, 1)]);
    take(&mut keeper, 266, vec![]);
    assert_eq!(tick(&mut keeper, 1066), [Push::Reveal(11)]);
    take(&mut keeper, 267, vec![]);
    assert_eq!(tick(&mut keeper, 1067), [Push::Expire(1)]);
}

#[test]
fn nodes_are_replaced_after_their_period_their_tasks_or_a_missed_seed() {
    let activated_at = 1012;
    let mut keeper = keeper();
    let events = vec![opened(1), drawing(1, 9, 1), activated(1, 12), revealed(12)];
    take(&mut keeper, 12, events);
    assert_eq!(tick(&mut keeper, activated_at + RESERVE_PERIOD - 1), []);
    assert_eq!(tick(&mut keeper, activated_at + RESERVE_PERIOD), [Push::Rotate(1, 0)]);
    // It has been asked for: now the draw is waited for.
    take(&mut keeper, 13, vec![drawing(1, 14, 2)]);
    assert_eq!(tick(&mut keeper, 1060), []);

    let mut keeper = self::keeper();
    let last = u8::try_from(MAX_TASKS - 1).unwrap();
    let events = vec![opened(1), activated(1, 12), revealed(12), submitted(last - 1, 9000)];
    take(&mut keeper, 12, events);
    assert_eq!(tick(&mut keeper, 1013), []);
    take(&mut keeper, 13, vec![submitted(last, 9000)]);
    assert_eq!(tick(&mut keeper, 1013), [Push::Rotate(1, 1)]);

    let mut keeper = self::keeper();
    take(&mut keeper, 12, vec![opened(1), activated(1, 12)]);
    take(&mut keeper, 268, vec![]);
    assert_eq!(tick(&mut keeper, 1268), [Push::Rotate(1, 0)]);
}

#[test]
fn a_lane_is_given_back_after_its_notice() {
    let mut keeper = keeper();
    let reclaim_at = U40::from(1100);
    let reclaimed = Session::LaneReclaimed { sessionId: 1, lane: 2, reclaimAt: reclaim_at };
    take(&mut keeper, 10, vec![ProtocolEvent::LaneReclaimed(reclaimed)]);
    assert_eq!(tick(&mut keeper, 1100), []);
    assert_eq!(tick(&mut keeper, 1101), [Push::FinishReclaim(1, 2)]);
    let moved = ProtocolEvent::FundsMoved(assay_bindings::SessionPayment::FundsMoved {
        sessionId: 1,
        from: 2,
        to: 0,
        amount: Default::default(),
    });
    take(&mut keeper, 11, vec![moved]);
    assert_eq!(tick(&mut keeper, 1200), []);
}

#[test]
fn a_task_that_is_claimed_waits_for_a_round_of_its_own() {
    let mut keeper = keeper();
    let queued = SessionQueue::Task { parts: Vec::new(), ..record(1) };
    take(&mut keeper, 10, vec![submitted_as(1, 1100, queued)]);
    let claimed = SessionQueue::Task { seedRound: 12, ..record(1) };
    let moved = SessionQueue::TaskMoved {
        taskId: task(1),
        state: TaskState::Assigned as u8,
        until: U40::from(1200),
        task: claimed.clone(),
    };
    take(&mut keeper, 11, vec![ProtocolEvent::TaskMoved(moved)]);
    assert_eq!(tick(&mut keeper, 1101), []);
    take(&mut keeper, 12, vec![]);
    assert_eq!(tick(&mut keeper, 1101), [Push::Reveal(12)]);
    take(&mut keeper, 13, vec![revealed(12)]);
    let actions = keeper.on(Input::Tick { chain_time: 1201 });
    let [Action::Push { push: Push::Advance(_), brought, .. }] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    // The call brings the task as it stands now.
    assert_eq!(brought.tasks, [claimed]);
}

#[test]
fn a_client_that_asked_for_it_is_told_its_answer() {
    let mut keeper = keeper();
    let asked = SessionQueue::Task { callbackGas: 100_000, ..record(1) };
    let events = vec![submitted_as(1, 1100, asked), committed(1, 1020), settled(1)];
    take(&mut keeper, 10, events);
    let actions = keeper.on(Input::Tick { chain_time: 1021 });
    let [Action::Push { push, brought, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!((push, brought.tasks.len()), (&Push::Deliver(task(1)), 1));
    assert_eq!(brought.answer.as_ref().unwrap().outputDigest, B256::repeat_byte(5));
    let delivered =
        SessionQueue::AnswerDelivered { taskId: task(1), consumer: Address::ZERO, success: true };
    take(&mut keeper, 11, vec![ProtocolEvent::AnswerDelivered(delivered)]);
    assert_eq!(keeper.waiting(), (0, 0, 0));
}

#[test]
fn drand_rounds_are_revealed_from_their_time_on() {
    let beacon = Beacon::Drand { genesis_s: 1000, period_s: 3 };
    let mut keeper = Keeper::new(Terms { beacon, ..TERMS }, BTreeMap::new(), VecDeque::new());
    take(&mut keeper, 10, vec![opened(1), drawing(1, 6, 1)]);
    take(&mut keeper, 14, vec![]);
    assert_eq!(tick(&mut keeper, 1014), []);
    take(&mut keeper, 15, vec![]);
    assert_eq!(tick(&mut keeper, 1015), [Push::Reveal(6)]);
}

#[test]
fn a_task_past_its_deadline_is_refunded() {
    let mut keeper = keeper();
    take(&mut keeper, 10, vec![submitted(1, 1100), submitted(2, 1200)]);
    // The deadline's own second still takes an answer.
    assert_eq!(tick(&mut keeper, 1100), []);
    assert_eq!(tick(&mut keeper, 1101), [Push::Advance(task(1))]);
    take(&mut keeper, 11, vec![committed(2, 1250)]);
    assert_eq!(tick(&mut keeper, 1201), []);
}

#[test]
fn what_nobody_settles_within_the_grace_is_settled_in_batches() {
    let mut keeper = keeper();
    let tasks = (1..=70).flat_map(|number| [submitted(number, 1100), committed(number, 1100)]);
    let tasks: Vec<ProtocolEvent> = tasks.collect();
    take(&mut keeper, 10, tasks);
    assert_eq!(tick(&mut keeper, 1104), []);
    let pushes = tick(&mut keeper, 1105);
    let sizes: Vec<usize> = pushes
        .iter()
        .map(|push| match push {
            Push::Settle(tasks) => tasks.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sizes, [64, 6]);
    // What the miner settled meanwhile is not tried again.
    take(&mut keeper, 11, (1..=69).map(settled).collect());
    for push in pushes {
        keeper.on(Input::Ended { push, chain_time: 1105 });
    }
    assert_eq!(tick(&mut keeper, 1200), [Push::Settle(vec![task(70)])]);
    assert_eq!(keeper.waiting(), (0, 1, 0));
}

#[test]
fn what_was_refused_is_tried_again_later_and_later() {
    let mut keeper = keeper();
    take(&mut keeper, 10, vec![submitted(1, 1100)]);
    let push = Push::Advance(task(1));
    let mut now = 1101;
    for (count, pause) in [2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
        let attempt = count as u32;
        let actions = keeper.on(Input::Tick { chain_time: now });
        let [Action::Push { push: pushed, attempt: counted, .. }] = actions.as_slice() else {
            panic!("{actions:?}")
        };
        assert_eq!((pushed, *counted), (&push, attempt));
        keeper.on(Input::Ended { push: push.clone(), chain_time: now });
        assert_eq!(tick(&mut keeper, now + pause - 1), []);
        now += pause;
    }
}

#[test]
fn a_drained_session_is_finished_once_no_task_of_it_is_open() {
    let mut keeper = keeper();
    let events =
        vec![opened(1), activated(1, 11), revealed(11), submitted(1, 1100), committed(1, 3000)];
    take(&mut keeper, 10, events);
    take(&mut keeper, 11, vec![draining(1, 1100)]);
    assert_eq!(tick(&mut keeper, 1100), []);
    assert_eq!(tick(&mut keeper, 1101), []);
    take(&mut keeper, 12, vec![settled(1)]);
    assert_eq!(tick(&mut keeper, 1101), [Push::Finish(1)]);
}

#[test]
fn a_reverted_block_is_undone_exactly() {
    let mut keeper = keeper();
    take(&mut keeper, 10, vec![opened(1), drawing(1, 11, 1), submitted(1, 1100)]);
    let before = keeper.items().clone();
    let events =
        vec![revealed(11), activated(1, 12), committed(1, 1050), submitted(2, 1100), settled(1)];
    let second = block(11, events);
    keeper.on(Input::Block(&second));
    assert_ne!(*keeper.items(), before);
    let actions = keeper.on(Input::Reverted(&second));
    assert_eq!(*keeper.items(), before);
    // What is stored leads to the same: the changes are told backwards.
    let [Action::Store(changes)] = actions.as_slice() else { panic!("{actions:?}") };
    let last: BTreeMap<Key, Option<Item>> =
        changes.iter().map(|change| (change.key, change.after.clone())).collect();
    for (key, after) in last {
        assert_eq!(before.get(&key).cloned(), after);
    }
    // An empty block has nothing to undo, and takes nothing of its neighbour.
    let empty = block(11, vec![]);
    keeper.on(Input::Block(&empty));
    keeper.on(Input::Reverted(&empty));
    assert_eq!(*keeper.items(), before);
}

#[test]
fn a_keeper_from_the_store_goes_on_as_the_one_before() {
    let mut first = Keeper::new(TERMS, BTreeMap::new(), VecDeque::new());
    let mut journal = VecDeque::new();
    let mut items: BTreeMap<Key, Item> = BTreeMap::new();
    let blocks = [
        block(10, vec![terms(), opened(1), drawing(1, 11, 1), submitted(1, 1100)]),
        block(11, vec![]),
        block(12, vec![revealed(11), committed(1, 1050)]),
    ];
    for block in &blocks {
        let actions = first.on(Input::Block(block));
        let [Action::Store(changes)] = actions.as_slice() else { panic!("{actions:?}") };
        for change in changes {
            match &change.after {
                Some(item) => items.insert(change.key, item.clone()),
                None => items.remove(&change.key),
            };
        }
        if !changes.is_empty() {
            journal.push_back((block.at.number, changes.clone()));
        }
    }
    let mut second = Keeper::new(TERMS, items, journal);
    assert_eq!(second.items(), first.items());
    // Also back, past what it saw itself.
    for block in blocks.iter().rev() {
        first.on(Input::Reverted(block));
        second.on(Input::Reverted(block));
        assert_eq!(second.items(), first.items());
    }
    assert!(second.items().is_empty());
}

#[test]
fn a_backlog_does_not_flood_the_node() {
    let mut keeper = keeper();
    take(&mut keeper, 10, (1..=200).map(|number| submitted(number, 1100)).collect());
    assert_eq!(tick(&mut keeper, 1101).len(), MAX_PENDING);
    assert_eq!(tick(&mut keeper, 1101).len(), 0);
    keeper.on(Input::Ended { push: Push::Advance(task(1)), chain_time: 1101 });
    assert_eq!(tick(&mut keeper, 1101).len(), 1);
}
