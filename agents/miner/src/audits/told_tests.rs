use alloy::primitives::{U256, aliases::U40};
use assay_bindings::{
    ProofOfInference::{AuditMoved, PanelMoved, ProofOpened},
    SessionQueue::{TaskRefunded, TaskSettled, TaskSubmitted},
};
use assay_chain::{BlockRef, Database, Event, save_cursor};

use super::*;
use crate::MIGRATIONS;

/// Drawn to audit node 3.
const NODE: NodeId = NodeId(4);
const TASK: TaskId = TaskId(B256::repeat_byte(1));

struct Chain {
    answers: Answers,
    blocks: Vec<Block>,
    _folder: tempfile::TempDir,
}

impl Chain {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = Database::open(&folder.path().join("miner.db"), MIGRATIONS).unwrap();
        Self { answers: Answers::new(db), blocks: vec![], _folder: folder }
    }

    fn take(&self, event: &ChainEvent) -> Told {
        let database = self.answers.database();
        database
            .transaction(|tx| {
                let told = take(tx, NODE, event)?;
                save_cursor(tx, event.block())?;
                Ok(told)
            })
            .unwrap()
    }

    fn mine(&mut self, events: Vec<ProtocolEvent>) -> Told {
        let number = self.blocks.len() as u64 + 1;
        let hash = |number: u64| B256::from(U256::from(number));
        let event = |(log_index, body)| Event { tx_hash: B256::ZERO, log_index, body };
        let block = Block {
            at: BlockRef { number, hash: hash(number) },
            parent: hash(number - 1),
            timestamp: number,
            events: (0..).zip(events).map(event).collect(),
        };
        self.blocks.push(block.clone());
        self.take(&ChainEvent::Committed(block))
    }

    fn revert(&mut self) -> Told {
        let block = self.blocks.pop().unwrap();
        self.take(&ChainEvent::Reverted(block))
    }

    fn rows(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        self.answers.database().transaction(|tx| tx.query_row(&sql, [], |row| row.get(0))).unwrap()
    }
}

fn submitted(task: TaskId) -> ProtocolEvent {
    let mut event = TaskSubmitted { taskId: task.0, ..Default::default() };
    (event.requestDigest, event.task.seedRound) = (B256::repeat_byte(9), 11);
    event.into()
}

fn committed(node: u32) -> ProtocolEvent {
    TaskCommitted { taskId: TASK.0, nodeId: node, outputTokens: 5, ..Default::default() }.into()
}

fn moved(state: AuditState, validator: u32, earners: u16) -> ProtocolEvent {
    let drawn = U256::from(validator);
    let audit = Audit { nodeId: 3, validator, drawn, earners, ..Audit::default() };
    let (state, until) = (state as u8, U40::from(60));
    AuditMoved { taskId: TASK.0, nodeId: 3, state, until, audit }.into()
}

fn settled() -> ProtocolEvent {
    TaskSettled { taskId: TASK.0, ..Default::default() }.into()
}

#[test]
fn a_validator_knows_all_of_a_task_that_it_had_nothing_to_do_with() {
    let mut chain = Chain::new();
    assert_eq!(chain.mine(vec![submitted(TASK), committed(3)]), Told::default());
    let told = chain.mine(vec![moved(AuditState::Drawn, NODE.0, 0)]);
    assert_eq!(told.tasks, BTreeSet::from([TASK]));
    let case = chain.answers.case(TASK).unwrap();
    assert_eq!((case.request_digest, case.seed_round), (Some(B256::repeat_byte(9)), 11));
    assert_eq!(case.answers[&3].outputTokens, 5);
    assert_eq!((case.audits[&3].state, case.audits[&3].until_s), (AuditState::Drawn, 60));
    assert!(chain.answers.is_being_audited(TASK).unwrap());
    let digest = B256::repeat_byte(5);
    let opened =
        ProofOpened { taskId: TASK.0, nodeId: 3, proofDigest: digest, ..Default::default() };
    let parties = vec![Party { nodeId: 3, ..Party::default() }];
    let panel = PanelMoved { taskId: TASK.0, nodeId: 3, parties: parties.clone() };
    chain.mine(vec![opened.into(), panel.into(), moved(AuditState::Hearing, NODE.0, 0)]);
    let audited = chain.answers.case(TASK).unwrap().audits.remove(&3).unwrap();
    assert_eq!((audited.proof_digest, audited.parties), (Some(digest), parties));
    assert_eq!(chain.answers.audited_tasks().unwrap(), BTreeSet::from([TASK]));
}

#[test]
fn what_is_reverted_was_never_told() {
    let mut chain = Chain::new();
    chain.mine(vec![submitted(TASK), committed(3)]);
    chain.mine(vec![moved(AuditState::Drawn, NODE.0, 0)]);
    let before = chain.answers.case(TASK).unwrap();
    chain.mine(vec![moved(AuditState::Passed, NODE.0, 1), settled()]);
    assert_eq!(chain.answers.case(TASK).unwrap().audits[&3].state, AuditState::Closed);
    assert_eq!(chain.revert().tasks, BTreeSet::from([TASK]));
    assert_eq!((chain.answers.case(TASK).unwrap(), chain.rows("told_ends")), (before, 0));
    // The task is named once more, so that the duty ends with its audit.
    assert_eq!(chain.revert().tasks, BTreeSet::from([TASK]));
    assert!(chain.answers.case(TASK).unwrap().audits.is_empty());
    assert!(!chain.answers.is_being_audited(TASK).unwrap());
    assert!(chain.answers.audited_tasks().unwrap().is_empty());
}

#[test]
fn what_is_over_is_forgotten_behind_every_reorganisation_once_it_is_paid() {
    let mut chain = Chain::new();
    let other = TaskId(B256::repeat_byte(2));
    chain.mine(vec![submitted(TASK), committed(3), submitted(other)]);
    chain.mine(vec![moved(AuditState::Passed, NODE.0, 1), settled()]);
    let refunded = TaskRefunded { taskId: other.0, ..Default::default() };
    chain.mine(vec![refunded.into()]);
    for _ in 0..=KEPT_BLOCKS {
        chain.mine(vec![]);
    }
    // The other is gone, this one has its pay to come.
    assert!(chain.answers.case(other).unwrap().request_digest.is_none());
    assert_eq!(chain.answers.case(TASK).unwrap().audits[&3].state, AuditState::Closed);
    let amount = U256::from(70);
    let paid = AuditCollected { taskId: TASK.0, nodeId: 3, amount };
    assert_eq!(chain.mine(vec![paid.into()]), Told { tasks: BTreeSet::from([TASK]), pay: 70 });
    assert!(chain.answers.case(TASK).unwrap().audits.is_empty());
    for _ in 0..=KEPT_BLOCKS {
        chain.mine(vec![]);
    }
    assert_eq!((chain.rows("told"), chain.rows("told_ends")), (0, 0));
}
