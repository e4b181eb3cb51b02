//! What the chain's events tell of tasks and their audits, as it was told. A block that is reverted is taken out again.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{B256, LogData, U256};
use assay_bindings::{
    ProofOfInference::{Audit, AuditCollected, Party},
    SessionQueue::TaskCommitted,
};
use assay_chain::{Block, ChainEvent, DatabaseError, KEPT_BLOCKS, ProtocolEvent};
use assay_protocol::{
    audit::{earners_of, nodes_of},
    state::{AuditState, HAS_MEMBERS},
};
use assay_types::{Lane, NodeId, SessionId, TaskId};
use rusqlite::{Transaction, params};

use super::{duty::FIRST_MEMBER, published::Published};
use crate::answers::{Answers, failure};

/// Bytes of a topic.
const TOPIC: usize = 32;

/// The audit of one answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Audited {
    pub state: AuditState,
    /// Unix seconds; the last one of what is waited for.
    pub until_s: u64,
    /// What whoever moves it brings.
    pub audit: Audit,
    /// Those of a dispute; brought, too.
    pub parties: Vec<Party>,
    /// sha-256 of the miner's contrasts, once it has opened them.
    pub proof_digest: Option<B256>,
    /// Request and answer as far as the miner has published them; `None` if nobody demanded them.
    pub data: Option<Published>,
}

/// All that was told of a task.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Case {
    /// sha-256 of the request block; `None` if the task was submitted before this database began.
    pub request_digest: Option<B256>,
    /// Whose request it is; `None` like that.
    pub lane: Option<(SessionId, Lane)>,
    /// Beacon round that seeds the answers; 0 while that is open.
    pub seed_round: u64,
    /// Answers by node.
    pub answers: BTreeMap<u32, TaskCommitted>,
    /// Audits that are not over by node.
    pub audits: BTreeMap<u32, Audited>,
}

impl Case {
    fn take(&mut self, event: ProtocolEvent) {
        match event {
            ProtocolEvent::TaskSubmitted(event) => {
                self.request_digest = Some(event.requestDigest);
                self.lane = Some((SessionId(event.sessionId), Lane(event.task.lane)));
                self.seed_round = event.task.seedRound;
            }
            ProtocolEvent::TaskMoved(event) => self.seed_round = event.task.seedRound,
            ProtocolEvent::TaskCommitted(event) => drop(self.answers.insert(event.nodeId, event)),
            ProtocolEvent::AuditMoved(event) => {
                let Ok(state) = AuditState::try_from(event.state) else { return };
                let (until_s, audit) = (event.until.to::<u64>(), event.audit);
                let (parties, proof_digest, data) = match self.audits.remove(&event.nodeId) {
                    Some(old) => (old.parties, old.proof_digest, old.data),
                    None => Default::default(),
                };
                let now = Audited { state, until_s, audit, parties, proof_digest, data };
                self.audits.insert(event.nodeId, now);
            }
            ProtocolEvent::DataDemanded(event) => {
                if let Some(audited) = self.audits.get_mut(&event.nodeId) {
                    audited.data = Some(Published::default());
                }
            }
            ProtocolEvent::DataPublished(event) => {
                let audited = self.audits.get_mut(&event.nodeId);
                if let Some(data) = audited.and_then(|audited| audited.data.as_mut()) {
                    data.take(&event);
                }
            }
            ProtocolEvent::PanelMoved(event) => {
                if let Some(audited) = self.audits.get_mut(&event.nodeId) {
                    audited.parties = event.parties;
                }
            }
            ProtocolEvent::ProofOpened(event) => {
                if let Some(audited) = self.audits.get_mut(&event.nodeId) {
                    audited.proof_digest = Some(event.proofDigest);
                }
            }
            ProtocolEvent::TaskSettled(_) | ProtocolEvent::TaskRefunded(_) => {
                self.audits.retain(|_, audited| audited.owes());
                self.audits.values_mut().for_each(|audited| audited.state = AuditState::Closed);
            }
            ProtocolEvent::AuditCollected(event) => drop(self.audits.remove(&event.nodeId)),
            _ => {}
        }
    }
}

impl Audited {
    fn is_ours(&self, node: NodeId) -> bool {
        concerns(&self.audit, node) || self.members().any(|member| member == node)
    }

    /// Of an audit that is over: whether somebody is to be paid for it.
    fn owes(&self) -> bool {
        !earners_of(&self.audit).is_empty() || self.owes_members()
    }

    fn owes_members(&self) -> bool {
        self.until_s & HAS_MEMBERS != 0
    }

    /// Members of an appeal's panel that are paid, at most: those that have opened.
    fn members(&self) -> impl Iterator<Item = NodeId> {
        let parties = self.parties.iter().filter(|_| self.owes_members());
        let members = parties.skip(FIRST_MEMBER).filter(|party| party.isOpen);
        members.map(|party| NodeId(party.nodeId))
    }
}

/// Whether a node is paid for an audit that is over.
pub(crate) fn earned(audited: &Audited, node: NodeId) -> bool {
    earners_of(&audited.audit).contains(&node.0) || audited.members().any(|member| member == node)
}

/// The place of a node in a set.
pub(crate) fn place_of(set: U256, node: NodeId) -> Option<usize> {
    nodes_of(set).into_iter().position(|other| other == node.0)
}

/// Whether the node answered, or was drawn for it.
pub(crate) fn concerns(audit: &Audit, node: NodeId) -> bool {
    audit.nodeId == node.0 || place_of(audit.drawn, node).is_some()
}

/// Whether the event tells that this node answered, or is to look at the answer.
fn is_ours(event: &ProtocolEvent, node: NodeId) -> bool {
    match event {
        ProtocolEvent::AuditMoved(event) => concerns(&event.audit, node),
        // Those of an appeal stand in no audit.
        ProtocolEvent::PanelMoved(event) => {
            event.parties.iter().any(|party| party.nodeId == node.0)
        }
        _ => false,
    }
}

fn task_of(event: &ProtocolEvent) -> Option<B256> {
    Some(match event {
        ProtocolEvent::TaskSubmitted(event) => event.taskId,
        ProtocolEvent::TaskMoved(event) => event.taskId,
        ProtocolEvent::TaskCommitted(event) => event.taskId,
        ProtocolEvent::TaskSettled(event) => event.taskId,
        ProtocolEvent::TaskRefunded(event) => event.taskId,
        ProtocolEvent::AuditMoved(event) => event.taskId,
        ProtocolEvent::PanelMoved(event) => event.taskId,
        ProtocolEvent::ProofOpened(event) => event.taskId,
        ProtocolEvent::DataDemanded(event) => event.taskId,
        ProtocolEvent::DataPublished(event) => event.taskId,
        ProtocolEvent::AuditCollected(event) => event.taskId,
        _ => return None,
    })
}

/// What a block told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Tasks with audits that this node is a party of, of which it told something.
    pub tasks: BTreeSet<TaskId>,
    /// What this node was paid for audits; minor units.
    pub pay: u128,
}

/// Takes a block in, or back, in the caller's transaction.
pub(crate) fn take(
    tx: &Transaction<'_>,
    node: NodeId,
    event: &ChainEvent,
) -> rusqlite::Result<Told> {
    match event {
        ChainEvent::Committed(block) => commit(tx, node, block),
        ChainEvent::Reverted(block) => revert(tx, block.at.number as i64),
    }
}

fn commit(tx: &Transaction<'_>, node: NodeId, block: &Block) -> rusqlite::Result<Told> {
    let number = block.at.number as i64;
    let mut told = Told::default();
    for (seq, event) in (0_i64..).zip(&block.events) {
        let Some(task) = task_of(&event.body) else { continue };
        if let ProtocolEvent::AuditCollected(event) = &event.body {
            told.pay += pay(&case(tx, TaskId(task))?, node, event);
        }
        let log = event.body.encode();
        let topics: Vec<u8> = log.topics().iter().flat_map(|topic| topic.0).collect();
        let ours = is_ours(&event.body, node);
        tx.prepare_cached(
            "INSERT INTO told (number, seq, task_id, topics, data, ours) VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            number,
            seq,
            task.as_slice(),
            topics,
            log.data.as_ref(),
            ours
        ])?;
        let ends = matches!(
            event.body,
            ProtocolEvent::TaskSettled(_)
                | ProtocolEvent::TaskRefunded(_)
                | ProtocolEvent::AuditCollected(_)
        );
        if ends {
            let sql = "INSERT OR IGNORE INTO told_ends (number, task_id) VALUES (?, ?)";
            tx.prepare_cached(sql)?.execute(params![number, task.as_slice()])?;
        }
    }
    told.tasks = ours_in(tx, number)?;
    prune(tx, node, number)?;
    Ok(told)
}

/// This node's part of what was paid together.
fn pay(case: &Case, node: NodeId, event: &AuditCollected) -> u128 {
    let Some(audited) = case.audits.get(&event.nodeId) else { return 0 };
    if !earned(audited, node) {
        return 0;
    }
    let earners = earners_of(&audited.audit).len() + audited.members().count();
    event.amount.saturating_to::<u128>() / earners as u128
}

fn revert(tx: &Transaction<'_>, number: i64) -> rusqlite::Result<Told> {
    let tasks = ours_in(tx, number)?;
    tx.execute("DELETE FROM told WHERE number = ?", [number])?;
    tx.execute("DELETE FROM told_ends WHERE number = ?", [number])?;
    Ok(Told { tasks, pay: 0 })
}

/// Tasks of this node's audits that a block told of.
fn ours_in(tx: &Transaction<'_>, number: i64) -> rusqlite::Result<BTreeSet<TaskId>> {
    let sql = "SELECT DISTINCT task_id FROM told WHERE number = ?
               AND task_id IN (SELECT task_id FROM told WHERE ours = 1)";
    tasks(&mut *tx.prepare_cached(sql)?, [number])
}

fn tasks(
    statement: &mut rusqlite::Statement<'_>,
    of: impl rusqlite::Params,
) -> rusqlite::Result<BTreeSet<TaskId>> {
    let rows = statement.query_map(of, |row| {
        let id: Vec<u8> = row.get(0)?;
        Ok(TaskId(B256::try_from(id.as_slice()).map_err(failure)?))
    })?;
    rows.collect()
}

/// Forgets what no reorganisation can bring back, unless this node is still to be paid for it.
fn prune(tx: &Transaction<'_>, node: NodeId, number: i64) -> rusqlite::Result<()> {
    let old = number - KEPT_BLOCKS as i64;
    let mut statement = tx.prepare_cached("SELECT task_id FROM told_ends WHERE number <= ?")?;
    for task in tasks(&mut statement, [old])? {
        let open = case(tx, task)?.audits;
        if open.values().any(|audited| audited.is_ours(node)) {
            continue;
        }
        for sql in ["DELETE FROM told WHERE task_id = ?", "DELETE FROM findings WHERE task_id = ?"]
        {
            tx.prepare_cached(sql)?.execute([task.0.as_slice()])?;
        }
    }
    tx.prepare_cached("DELETE FROM told_ends WHERE number <= ?")?.execute([old])?;
    Ok(())
}

/// All that was told of a task.
pub(crate) fn case(tx: &Transaction<'_>, task: TaskId) -> rusqlite::Result<Case> {
    let sql = "SELECT topics, data FROM told WHERE task_id = ? ORDER BY number, seq";
    let mut statement = tx.prepare_cached(sql)?;
    let rows = statement.query_map([task.0.as_slice()], |row| {
        let (topics, data): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let topics = topics.chunks(TOPIC).map(B256::try_from).collect::<Result<_, _>>();
        Ok(LogData::new_unchecked(topics.map_err(failure)?, data.into()))
    })?;
    let mut case = Case::default();
    for log in rows {
        if let Some(event) = ProtocolEvent::from_log(&log?).map_err(failure)? {
            case.take(event);
        }
    }
    Ok(case)
}

impl Answers {
    /// All that was told of a task.
    pub(crate) fn case(&self, task: TaskId) -> Result<Case, DatabaseError> {
        self.database().transaction(|tx| case(tx, task))
    }

    /// Whether a task waits for the end of an audit of whatever node: until then nobody can settle it.
    pub(crate) fn is_being_audited(&self, task: TaskId) -> Result<bool, DatabaseError> {
        let open = AuditState::Drawn..AuditState::Passed;
        Ok(self.case(task)?.audits.values().any(|audited| open.contains(&audited.state)))
    }

    /// Tasks with audits that this node is, or was, a party of.
    pub(crate) fn audited_tasks(&self) -> Result<BTreeSet<TaskId>, DatabaseError> {
        self.database().transaction(|tx| {
            tasks(&mut tx.prepare("SELECT DISTINCT task_id FROM told WHERE ours = 1")?, [])
        })
    }
}

#[cfg(test)]
#[path = "told_tests.rs"]
mod tests;
