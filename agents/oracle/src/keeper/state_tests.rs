//! The keeper's decisions, driven by fabricated blocks.

use alloy::primitives::aliases::U40;
use alloy::primitives::{Address, B256};
use assay_bindings::{RandomBeacon, Session, SessionQueue};
use assay_chain::{Block, BlockRef, Event, ProtocolEvent};

use super::*;

const TERMS: Terms = Terms { reservation_timeout_s: 60, settle_grace_s: 5 };

fn keeper() -> Keeper {
    Keeper::new(TERMS, BTreeMap::new(), VecDeque::new())
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

fn opened(session: u64, draw_round: u64) -> ProtocolEvent {
    ProtocolEvent::SessionOpened(Session::SessionOpened {
        sessionId: session,
        owner: Address::repeat_byte(1),
        modelId: B256::repeat_byte(2),
        minNodes: 1,
        maxNodes: 2,
        priceIn: Default::default(),
        priceOut: Default::default(),
        deposit: 5,
        drawRound: draw_round,
    })
}

fn captured(round: u64) -> ProtocolEvent {
    ProtocolEvent::RoundCaptured(RandomBeacon::RoundCaptured { round, value: B256::repeat_byte(3) })
}

fn activated(session: u64, seed_round: u64) -> ProtocolEvent {
    ProtocolEvent::SessionActivated(Session::SessionActivated {
        sessionId: session,
        seedRound: seed_round,
        nodes: vec![1, 2],
    })
}

fn draining(session: u64, ends_at: u64) -> ProtocolEvent {
    let ends_at = U40::from(ends_at);
    ProtocolEvent::SessionDraining(Session::SessionDraining { sessionId: session, endsAt: ends_at })
}

fn closed(session: u64) -> ProtocolEvent {
    ProtocolEvent::SessionClosed(Session::SessionClosed { sessionId: session, returned: 1 })
}

fn task(number: u8) -> B256 {
    B256::repeat_byte(number)
}

fn submitted(number: u8, deadline: u64) -> ProtocolEvent {
    ProtocolEvent::TaskSubmitted(SessionQueue::TaskSubmitted {
        taskId: task(number),
        sessionId: 1,
        nodeId: 1,
        lane: 1,
        nonce: u64::from(number),
        requestDigest: B256::repeat_byte(4),
        maxPrompt: 1,
        maxOutput: 1,
        held: 1,
        deadline,
    })
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
        fee: 1,
        settleAt: U40::from(settle_at),
    })
}

fn settled(number: u8) -> ProtocolEvent {
    ProtocolEvent::TaskSettled(SessionQueue::TaskSettled {
        taskId: task(number),
        sessionId: 1,
        nodeId: 1,
        fee: 1,
        minerShare: 1,
        routerShare: 0,
        royalty: 0,
        tip: 0,
        burnt: 0,
    })
}

fn take(keeper: &mut Keeper, number: u64, events: Vec<ProtocolEvent>) {
    let actions = keeper.on(Input::Block(&block(number, events)));
    // A block is stored, whatever else; it never acts by itself, so that history pushes nothing.
    assert!(matches!(actions.as_slice(), [Action::Store(_)]));
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
    take(&mut keeper, 10, vec![opened(1, 11)]);
    // The round's own block is not there yet.
    assert_eq!(tick(&mut keeper, 1010), []);
    take(&mut keeper, 11, vec![]);
    assert_eq!(tick(&mut keeper, 1011), [Push::Capture(11)]);
    // It is at work: not again.
    assert_eq!(tick(&mut keeper, 1500 - 460), []);
    take(&mut keeper, 12, vec![captured(11)]);
    assert_eq!(tick(&mut keeper, 1012), [Push::Activate(1)]);
    take(&mut keeper, 13, vec![activated(1, 14)]);
    assert_eq!(tick(&mut keeper, 1013), []);
    take(&mut keeper, 14, vec![]);
    assert_eq!(tick(&mut keeper, 1014), [Push::Capture(14)]);
    take(&mut keeper, 15, vec![captured(14)]);
    assert_eq!(tick(&mut keeper, 2000), []);
    assert_eq!(keeper.waiting(), (1, 0));
}

#[test]
fn two_sessions_that_wait_for_one_round_capture_it_once() {
    let mut keeper = keeper();
    take(&mut keeper, 10, vec![opened(1, 11), opened(2, 11)]);
    take(&mut keeper, 11, vec![]);
    assert_eq!(tick(&mut keeper, 1011), [Push::Capture(11)]);
    take(&mut keeper, 12, vec![captured(11)]);
    assert_eq!(tick(&mut keeper, 1012), [Push::Activate(1), Push::Activate(2)]);
}

#[test]
fn a_session_without_nodes_in_time_or_with_a_missed_round_is_expired() {
    let mut keeper = keeper();
    take(&mut keeper, 10, vec![opened(1, 11), captured(11)]);
    take(&mut keeper, 11, vec![]);
    // Opened at 1010, for 60 s: 1070 is the last second.
    assert_eq!(tick(&mut keeper, 1070), [Push::Activate(1)]);
    assert_eq!(tick(&mut keeper, 1071), [Push::Expire(1)]);

    let mut keeper = Keeper::new(
        Terms { reservation_timeout_s: 1_000_000, ..TERMS },
        BTreeMap::new(),
        VecDeque::new(),
    );
    take(&mut keeper, 10, vec![opened(1, 11), activated(2, 12)]);
    // Block 267 is the last that knows the hash of block 11, block 268 that of block 12.
    take(&mut keeper, 266, vec![]);
    assert_eq!(tick(&mut keeper, 1266), [Push::Capture(11), Push::Capture(12)]);
    take(&mut keeper, 267, vec![]);
    assert_eq!(tick(&mut keeper, 1267), [Push::Expire(1)]);
    take(&mut keeper, 268, vec![]);
    assert_eq!(tick(&mut keeper, 1268), [Push::Expire(2)]);
    take(&mut keeper, 269, vec![closed(1), closed(2)]);
    assert_eq!(tick(&mut keeper, 1269), []);
    assert_eq!(keeper.waiting(), (0, 0));
}

#[test]
fn a_task_past_its_deadline_is_refunded() {
    let mut keeper = keeper();
    take(&mut keeper, 10, vec![submitted(1, 1100), submitted(2, 1200)]);
    // The deadline's own second still takes an answer.
    assert_eq!(tick(&mut keeper, 1100), []);
    assert_eq!(tick(&mut keeper, 1101), [Push::Advance(task(1))]);
    take(&mut keeper, 11, vec![committed(2, 1150)]);
    assert_eq!(tick(&mut keeper, 1101), []);
}

#[test]
fn what_nobody_settles_within_the_grace_is_settled_in_batches() {
    let mut keeper = keeper();
    let tasks: Vec<ProtocolEvent> = (1..=70).map(|number| committed(number, 1100)).collect();
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
    assert_eq!(keeper.waiting(), (0, 1));
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
        assert_eq!(actions, [Action::Push { push: push.clone(), attempt }]);
        keeper.on(Input::Ended { push: push.clone(), chain_time: now });
        assert_eq!(tick(&mut keeper, now + pause - 1), []);
        now += pause;
    }
}

#[test]
fn a_drained_session_is_finished_once_no_task_of_it_is_open() {
    let mut keeper = keeper();
    take(&mut keeper, 10, vec![activated(1, 11), captured(11), committed(1, 3000)]);
    take(&mut keeper, 11, vec![draining(1, 1100)]);
    assert_eq!(tick(&mut keeper, 1100), []);
    assert_eq!(tick(&mut keeper, 1101), []);
    take(&mut keeper, 12, vec![settled(1)]);
    assert_eq!(tick(&mut keeper, 1101), [Push::Finish(1)]);
}

#[test]
fn a_reverted_block_is_undone_exactly() {
    let mut keeper = keeper();
    take(&mut keeper, 10, vec![opened(1, 11), submitted(1, 1100)]);
    let before = keeper.items().clone();
    let events =
        vec![captured(11), activated(1, 12), committed(1, 1050), submitted(2, 1100), settled(1)];
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
    let mut first = keeper();
    let mut journal = VecDeque::new();
    let mut items: BTreeMap<Key, Item> = BTreeMap::new();
    let blocks = [
        block(10, vec![opened(1, 11), submitted(1, 1100)]),
        block(11, vec![]),
        block(12, vec![captured(11), committed(1, 1050)]),
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
