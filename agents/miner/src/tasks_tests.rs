//! Blocks that are taken in, and taken back.

use alloy::primitives::{
    Address,
    aliases::{U40, U96},
};
use assay_bindings::{
    Session,
    SessionQueue::{
        self, Part, TaskCommitted, TaskMoved, TaskPrecommitted, TaskRefunded, TaskSettled,
        TaskSubmitted,
    },
};
use assay_chain::{BlockRef, Database, Event};
use proptest::prelude::*;

use super::*;
use crate::answers::{Beginning, MIGRATIONS};

const NODE: NodeId = NodeId(3);
const SCOPE: Scope = Scope { queue: QueueScope { chain_id: 1, queue: Address::ZERO }, node: NODE };

fn body(nonce: u64, nodes: &[u32], ticket: u64) -> Task {
    let part = |node: &u32| Part {
        nodeId: *node,
        state: 0,
        dedicated: false,
        fee: U96::ZERO,
        commitment: B256::ZERO,
    };
    Task {
        sessionId: 1,
        lane: 1,
        nonce,
        seedRound: 1,
        reservation: 1,
        maxPrompt: 1,
        maxOutput: 1,
        held: U96::from(10),
        finalBy: U40::from(100),
        attemptsLeft: 0,
        tried: 0,
        dispatch: u8::from(ticket != 0),
        ticket,
        callbackGas: 0,
        parts: nodes.iter().map(part).collect(),
    }
}

fn id(nonce: u64) -> TaskId {
    SCOPE.queue.task_id(&body(nonce, &[], 0))
}

fn submitted(nonce: u64, nodes: &[u32], ticket: u64) -> ProtocolEvent {
    ProtocolEvent::TaskSubmitted(TaskSubmitted {
        taskId: id(nonce).0,
        sessionId: 1,
        nodeId: nodes.first().copied().unwrap_or(0),
        requestDigest: B256::repeat_byte(1),
        deadline: 100,
        until: U40::from(100),
        task: body(nonce, nodes, ticket),
    })
}

fn precommitted(nonce: u64, node: u32) -> ProtocolEvent {
    let commitment = B256::repeat_byte(2);
    ProtocolEvent::TaskPrecommitted(TaskPrecommitted {
        taskId: id(nonce).0,
        nodeId: node,
        commitment,
    })
}

fn committed(nonce: u64, node: u32, settle_at: u64) -> ProtocolEvent {
    ProtocolEvent::TaskCommitted(TaskCommitted {
        taskId: id(nonce).0,
        sessionId: 1,
        nodeId: node,
        outputDigest: B256::repeat_byte(3),
        promptHash: B256::repeat_byte(4),
        promptTokens: 1,
        outputTokens: 1,
        numericClass: B256::ZERO,
        endReason: 1,
        salt: B256::ZERO,
        proofSeal: B256::ZERO,
        fee: U96::from(5),
        settleAt: U40::from(settle_at),
    })
}

fn moved(nonce: u64, nodes: &[u32], state: TaskState) -> ProtocolEvent {
    ProtocolEvent::TaskMoved(TaskMoved {
        taskId: id(nonce).0,
        state: state as u8,
        until: U40::from(200),
        task: body(nonce, nodes, 0),
    })
}

fn settled(nonce: u64, node: u32) -> ProtocolEvent {
    ProtocolEvent::TaskSettled(TaskSettled {
        taskId: id(nonce).0,
        sessionId: 1,
        nodeId: node,
        fee: U96::from(5),
        minerShare: U96::from(4),
        routerShare: U96::ZERO,
        royalty: U96::ZERO,
        tip: U96::ZERO,
        burnt: U96::from(1),
    })
}

fn refunded(nonce: u64) -> ProtocolEvent {
    let (refund, tip) = (U96::from(10), U96::ZERO);
    ProtocolEvent::TaskRefunded(TaskRefunded { taskId: id(nonce).0, sessionId: 1, refund, tip })
}

fn activated() -> ProtocolEvent {
    ProtocolEvent::SessionActivated(Session::SessionActivated {
        sessionId: 1,
        seedRound: 1,
        nodes: vec![1, NODE.0],
        dedicated: 0,
        previousUntil: U40::ZERO,
    })
}

fn closed() -> ProtocolEvent {
    ProtocolEvent::SessionClosed(Session::SessionClosed {
        sessionId: 1,
        returned: Default::default(),
    })
}

struct Chain {
    _folder: tempfile::TempDir,
    answers: Answers,
    blocks: Vec<Block>,
}

impl Chain {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = Database::open(&folder.path().join("miner.db"), MIGRATIONS).unwrap();
        Self { _folder: folder, answers: Answers::new(db), blocks: vec![] }
    }

    fn take(&self, event: &ChainEvent) -> Taken {
        self.answers.database().transaction(|tx| take(tx, &SCOPE, event)).unwrap()
    }

    fn block(&mut self, events: Vec<ProtocolEvent>) -> Taken {
        let number = self.blocks.len() as u64 + 1;
        let events = (0..)
            .zip(events)
            .map(|(log_index, body)| Event { tx_hash: B256::ZERO, log_index, body })
            .collect();
        let at = BlockRef { number, hash: B256::repeat_byte(number as u8) };
        let block = Block { at, parent: B256::ZERO, timestamp: number, events };
        self.blocks.push(block.clone());
        self.take(&ChainEvent::Committed(block))
    }

    fn revert(&mut self) -> Taken {
        let block = self.blocks.pop().unwrap();
        self.take(&ChainEvent::Reverted(block))
    }

    fn standing(&self, nonce: u64) -> Option<Standing> {
        self.answers.chain_task(id(nonce)).unwrap().map(|task| task.standing(NODE))
    }

    /// Every row of the tables that follow the chain, as text.
    fn dump(&self) -> Vec<String> {
        let sqls = [
            "SELECT hex(task_id) || session_id || ' ' || ticket || ' ' || state || hex(body) || ifnull(earned, '-') || changed_at FROM tasks ORDER BY 1",
            "SELECT number || ' ' || seq || hex(task_id) || ifnull(hex(body), '-') || ifnull(changed_at, '-') FROM undo ORDER BY 1",
            "SELECT session_id || ' ' || since || ' ' || ifnull(closed_at, '-') FROM sessions ORDER BY 1",
        ];
        let read = |tx: &Transaction<'_>| {
            let mut rows = Vec::new();
            for sql in sqls {
                let mut statement = tx.prepare(sql)?;
                let found = statement.query_map([], |row| row.get::<_, String>(0))?;
                rows.extend(found.collect::<rusqlite::Result<Vec<_>>>()?);
            }
            Ok(rows)
        };
        self.answers.database().transaction(read).unwrap()
    }
}

#[test]
fn a_task_is_followed_from_its_submission_to_its_pay() {
    let mut chain = Chain::new();
    chain.block(vec![submitted(1, &[3], 0)]);
    assert_eq!(chain.standing(1), Some(Standing::Due));
    chain.block(vec![committed(1, 3, 50)]);
    assert_eq!(chain.standing(1), Some(Standing::Committed));
    assert_eq!(chain.answers.earned().unwrap(), (0, 0));
    chain.block(vec![settled(1, 3)]);
    assert_eq!(chain.standing(1), Some(Standing::Over));
    assert_eq!(chain.answers.earned().unwrap(), (4, 1));
    chain.revert();
    assert_eq!(chain.standing(1), Some(Standing::Committed));
    assert_eq!(chain.answers.earned().unwrap(), (0, 0));
}

#[test]
fn a_second_request_of_a_nonce_is_replaced_and_the_first_one_is_not() {
    let mut chain = Chain::new();
    chain.block(vec![submitted(1, &[3], 0)]);
    let first = chain.answers.chain_task(id(1)).unwrap().unwrap();
    let begin = |request_digest| Beginning {
        task: id(1),
        request_digest,
        session: SessionId(1),
        lane: assay_types::Lane(0),
        money: None,
        deadline_s: 90,
        now_s: 1,
    };
    let standing = |chain: &Chain| chain.answers.standing(&first, NODE).unwrap();
    assert_eq!(standing(&chain), Standing::Due);
    chain.answers.begin(&begin(first.request_digest)).unwrap();
    assert_eq!(standing(&chain), Standing::Due);
    let other = Chain::new();
    other.answers.begin(&begin(B256::repeat_byte(0xee))).unwrap();
    assert_eq!(standing(&other), Standing::Replaced);
}

#[test]
fn a_refunded_task_of_a_queue_is_kept_until_its_session_is_closed() {
    let mut chain = Chain::new();
    chain.block(vec![activated(), submitted(1, &[], 1), refunded(1)]);
    let kept = |chain: &Chain| chain.answers.queued_before(SessionId(1), 1, 2).unwrap().len();
    (0..KEPT_BLOCKS).for_each(|_| drop(chain.block(vec![])));
    assert_eq!(kept(&chain), 1);
    chain.block(vec![closed()]);
    (0..=KEPT_BLOCKS).for_each(|_| drop(chain.block(vec![])));
    assert_eq!(kept(&chain), 0);
}

#[test]
fn a_redundant_task_is_promised_opened_and_committed() {
    let mut chain = Chain::new();
    chain.block(vec![submitted(1, &[1, 3], 0), precommitted(1, 3)]);
    assert_eq!(chain.standing(1), Some(Standing::Promised));
    let mut all = body(1, &[1, 3], 0);
    for part in &mut all.parts {
        part.state = PartState::Precommitted as u8;
    }
    let event = TaskMoved {
        taskId: id(1).0,
        state: TaskState::Precommitted as u8,
        until: U40::from(90),
        task: all,
    };
    chain.block(vec![precommitted(1, 1), ProtocolEvent::TaskMoved(event)]);
    assert_eq!(chain.standing(1), Some(Standing::Opening));
    chain.block(vec![committed(1, 3, 0)]);
    assert_eq!(chain.standing(1), Some(Standing::Answered));
    chain.block(vec![committed(1, 1, 99)]);
    assert_eq!(chain.standing(1), Some(Standing::Committed));
}

#[test]
fn tasks_of_others_are_followed_in_its_own_sessions_alone() {
    let mut chain = Chain::new();
    chain.block(vec![submitted(1, &[1], 0)]);
    assert_eq!(chain.standing(1), None);
    chain.block(vec![activated(), submitted(2, &[1], 0), submitted(3, &[], 1)]);
    assert_eq!(chain.standing(2), Some(Standing::Elsewhere));
    assert_eq!(chain.standing(3), Some(Standing::Queued));
    chain.block(vec![moved(2, &[3], TaskState::Assigned)]);
    assert_eq!(chain.standing(2), Some(Standing::Due));
    // One that it never heard of comes without its request.
    chain.block(vec![moved(1, &[3], TaskState::Assigned)]);
    let found = chain.answers.chain_task(id(1)).unwrap().unwrap();
    assert_eq!((found.standing(NODE), found.request_digest), (Standing::Due, B256::ZERO));
    chain.block(vec![closed()]);
    chain.block(vec![submitted(4, &[1], 0)]);
    assert_eq!(chain.standing(4), None);
    let queue = |head, ticket| chain.answers.queued_before(SessionId(1), head, ticket).unwrap();
    assert_eq!(queue(1, 2).len(), 1);
    assert!(queue(2, 9).is_empty() && queue(1, 1).is_empty());
}

#[test]
fn what_is_over_is_forgotten_behind_every_reorganisation() {
    let mut chain = Chain::new();
    chain.block(vec![activated(), submitted(1, &[1], 0), submitted(2, &[3], 0), refunded(1)]);
    chain.block(vec![committed(2, 3, 5), settled(2, 3)]);
    for _ in 0..KEPT_BLOCKS {
        chain.block(vec![]);
    }
    assert_eq!((chain.standing(1), chain.standing(2)), (None, Some(Standing::Over)));
    assert_eq!(chain.answers.earned().unwrap(), (4, 1));
}

fn any_event() -> impl Strategy<Value = ProtocolEvent> {
    let nodes = prop::sample::select(vec![vec![3], vec![1], vec![1, 3], vec![3, 5], vec![]]);
    let state = prop::sample::select(vec![
        TaskState::Queued,
        TaskState::Assigned,
        TaskState::Precommitted,
        TaskState::Committed,
        TaskState::Refunded,
    ]);
    let node = prop::sample::select(vec![1_u32, 3, 5]);
    (0_u8..9, 1_u64..4, nodes, state, node, 0_u64..3).prop_map(
        |(kind, nonce, nodes, state, node, n)| match kind {
            0 | 1 => submitted(nonce, &nodes, if nodes.is_empty() { n } else { 0 }),
            2 => precommitted(nonce, node),
            3 => committed(nonce, node, n * 50),
            4 => moved(nonce, &nodes, state),
            5 => settled(nonce, node),
            6 => refunded(nonce),
            7 => activated(),
            _ => closed(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any blocks, in any order and of any sense: taken back, nothing of them is left.
    #[test]
    fn a_reverted_block_is_undone_exactly(
        blocks in prop::collection::vec(prop::collection::vec(any_event(), 0..5), 1..8), depth in 1_usize..8,
    ) {
        let mut chain = Chain::new();
        let mut dumps = vec![chain.dump()];
        let mut earned = vec![(0, 0)];
        for events in &blocks {
            chain.block(events.clone());
            dumps.push(chain.dump());
            earned.push(chain.answers.earned().unwrap());
        }
        let depth = depth.min(blocks.len());
        for _ in 0..depth {
            let taken = chain.revert();
            prop_assert!(taken.changes.iter().all(|change| change.before.is_some()));
            dumps.pop();
            earned.pop();
            prop_assert_eq!(&chain.dump(), dumps.last().unwrap());
            prop_assert_eq!(chain.answers.earned().unwrap(), *earned.last().unwrap());
        }
        // The same blocks again lead to the same.
        for events in &blocks[blocks.len() - depth..] {
            chain.block(events.clone());
        }
        let mut whole = Chain::new();
        for events in &blocks {
            whole.block(events.clone());
        }
        prop_assert_eq!(chain.dump(), whole.dump());
    }
}

#[test]
fn settlements_of_others_are_not_this_nodes_pay() {
    let mut chain = Chain::new();
    chain.block(vec![submitted(1, &[1, 3], 0), settled(1, 1)]);
    assert_eq!(chain.answers.earned().unwrap(), (0, 0));
    let event = SessionQueue::PartChanged { taskId: id(1).0, nodeId: 3, part: 0, what: 3 };
    let other = SessionQueue::PartChanged { nodeId: 1, ..event.clone() };
    let events = [event, other].map(ProtocolEvent::PartChanged).to_vec();
    assert_eq!(chain.block(events).parts, [(id(1), 3)]);
}
