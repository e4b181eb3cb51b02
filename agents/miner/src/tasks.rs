//! The chain's tasks that concern this node: folded from events, undone exactly with their blocks.

use std::collections::BTreeMap;

use alloy::{primitives::B256, sol_types::SolValue};
use assay_bindings::SessionQueue::Task;
use assay_chain::{Block, ChainEvent, DatabaseError, KEPT_BLOCKS, ProtocolEvent, load_cursor};
use assay_protocol::{PartState, QueueScope, TaskRecord, TaskState};
use assay_types::{NodeId, SessionId, TaskId};
use rusqlite::{OptionalExtension, Row, Transaction, params};

use crate::answers::{Answers, failure};

/// A task as it stands on chain.
#[derive(Clone, Debug, PartialEq)]
pub struct ChainTask {
    /// The task.
    pub task: TaskId,
    /// sha-256 of the request block; zero if the task was submitted before this database began.
    pub request_digest: B256,
    /// The task and its state.
    pub record: TaskRecord,
    /// What this node earned by it, minor units.
    pub earned: Option<u128>,
}

/// How a task stands for one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It waits for whoever claims it.
    Queued,
    /// Not this node's, or no longer.
    Elsewhere,
    /// This node's answer, or its precommitment, is due.
    Due,
    /// The same, but this node has begun another request of this nonce, and signs nothing for a second one.
    Replaced,
    /// Precommitted; others are not yet.
    Promised,
    /// Its precommitment is to be opened.
    Opening,
    /// Answered; others are not yet.
    Answered,
    /// Answered by all; settles when its time is over.
    Committed,
    /// Settled or refunded.
    Over,
}

/// A task that a block changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The task.
    pub task: TaskId,
    /// Before; `None` if it was not there.
    pub before: Option<ChainTask>,
    /// Now; `None` if it is not there any more.
    pub now: Option<ChainTask>,
}

/// What a block did.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Taken {
    /// Tasks that it changed.
    pub changes: Vec<Change>,
    /// What this node did or did not do, by task: `PartEvent` of the contract.
    pub parts: Vec<(TaskId, u8)>,
}

impl ChainTask {
    /// How it stands for `node`, whatever that has begun: see [`Answers::standing`].
    pub fn standing(&self, node: NodeId) -> Standing {
        let part = self.record.part(node).map(|part| part.state);
        let is = |state: PartState| part == Some(state as u8);
        match self.record.state {
            TaskState::Queued => Standing::Queued,
            TaskState::Settled | TaskState::Refunded => Standing::Over,
            TaskState::Assigned if is(PartState::Waiting) => Standing::Due,
            TaskState::Assigned if is(PartState::Precommitted) => Standing::Promised,
            TaskState::Precommitted if is(PartState::Precommitted) => Standing::Opening,
            TaskState::Precommitted if is(PartState::Committed) => Standing::Answered,
            TaskState::Committed if is(PartState::Committed) => Standing::Committed,
            _ => Standing::Elsewhere,
        }
    }

    /// Its session.
    pub fn session(&self) -> SessionId {
        SessionId(self.record.task.sessionId)
    }

    fn encode(&self) -> Vec<u8> {
        let record = &self.record;
        let earned = (self.earned.is_some(), self.earned.unwrap_or(0));
        let state = u64::from(record.state as u8);
        (self.request_digest, state, record.until_s, earned, record.task.clone()).abi_encode()
    }

    fn decode(task: TaskId, body: &[u8]) -> rusqlite::Result<Self> {
        type Body = (B256, u64, u64, (bool, u128), Task);
        let (request_digest, state, until_s, (has_earned, earned), body) =
            Body::abi_decode_validate(body).map_err(failure)?;
        let state = u8::try_from(state).ok().and_then(|state| TaskState::try_from(state).ok());
        let record = TaskRecord { task: body, state: state.unwrap_or(TaskState::None), until_s };
        Ok(Self { task, request_digest, record, earned: has_earned.then_some(earned) })
    }
}

/// What the tables are of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    pub queue: QueueScope,
    pub node: NodeId,
}

fn read(row: &Row<'_>) -> rusqlite::Result<ChainTask> {
    let id: Vec<u8> = row.get("task_id")?;
    let body: Vec<u8> = row.get("body")?;
    ChainTask::decode(TaskId(B256::try_from(id.as_slice()).map_err(failure)?), &body)
}

fn get(tx: &Transaction<'_>, task: TaskId) -> rusqlite::Result<Option<(ChainTask, i64)>> {
    tx.prepare_cached("SELECT * FROM tasks WHERE task_id = ?")?
        .query_row([task.0.as_slice()], |row| Ok((read(row)?, row.get("changed_at")?)))
        .optional()
}

fn put(tx: &Transaction<'_>, task: &ChainTask, changed_at: i64) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO tasks (task_id, session_id, ticket, state, body, earned, changed_at)
               VALUES (?, ?, ?, ?, ?, ?, ?)";
    tx.prepare_cached(sql)?.execute(params![
        task.task.0.as_slice(),
        task.record.task.sessionId as i64,
        task.record.task.ticket as i64,
        task.record.state as u8,
        task.encode(),
        task.earned.map(|earned| earned.to_string()),
        changed_at,
    ])?;
    Ok(())
}

/// Takes a block in, or back, in the caller's transaction.
pub(crate) fn take(
    tx: &Transaction<'_>,
    scope: &Scope,
    event: &ChainEvent,
) -> rusqlite::Result<Taken> {
    match event {
        ChainEvent::Committed(block) => commit(tx, scope, block),
        ChainEvent::Reverted(block) => revert(tx, block),
    }
}

/// Rows that a block changed: what they were, and since which block.
type Touched = BTreeMap<TaskId, Option<(ChainTask, i64)>>;

fn commit(tx: &Transaction<'_>, scope: &Scope, block: &Block) -> rusqlite::Result<Taken> {
    let number = block.at.number as i64;
    let (mut touched, mut parts) = (Touched::new(), Vec::new());
    for event in &block.events {
        sessions(tx, scope, &event.body, number)?;
        if let ProtocolEvent::PartChanged(part) = &event.body
            && part.nodeId == scope.node.0
        {
            parts.push((TaskId(part.taskId), part.what));
        }
        let Some(task) = task_of(&event.body) else { continue };
        let old = get(tx, task)?;
        let known = old.as_ref().map(|(old, _)| old);
        let Some(new) = fold(tx, scope, known, task, &event.body)? else { continue };
        touched.entry(task).or_insert(old);
        put(tx, &new, number)?;
    }
    let mut changes = Vec::new();
    for (seq, (task, before)) in (0_i64..).zip(touched) {
        let (body, changed_at) = match &before {
            Some((before, changed_at)) => (Some(before.encode()), Some(*changed_at)),
            None => (None, None),
        };
        let sql =
            "INSERT INTO undo (number, seq, task_id, body, changed_at) VALUES (?, ?, ?, ?, ?)";
        tx.prepare_cached(sql)?.execute(params![
            number,
            seq,
            task.0.as_slice(),
            body,
            changed_at
        ])?;
        let now = get(tx, task)?.map(|(now, _)| now);
        changes.push(Change { task, before: before.map(|(before, _)| before), now });
    }
    prune(tx, number)?;
    Ok(Taken { changes, parts })
}

/// Forgets what no reorganisation can bring back and nobody asks for.
fn prune(tx: &Transaction<'_>, number: i64) -> rusqlite::Result<()> {
    let old = number - KEPT_BLOCKS as i64;
    for sql in [
        "DELETE FROM undo WHERE number <= ?",
        // A refunded task of a queue is brought along by whoever claims one behind it, whenever that is.
        "DELETE FROM tasks WHERE state >= 5 AND earned IS NULL AND changed_at <= ?
         AND task_id NOT IN (SELECT task_id FROM answers)
         AND (state = 5 OR ticket = 0 OR session_id NOT IN (SELECT session_id FROM sessions))",
        "DELETE FROM sessions WHERE closed_at IS NOT NULL AND closed_at <= ?",
    ] {
        tx.prepare_cached(sql)?.execute([old])?;
    }
    Ok(())
}

fn revert(tx: &Transaction<'_>, block: &Block) -> rusqlite::Result<Taken> {
    let number = block.at.number as i64;
    let mut statement = tx.prepare_cached("SELECT * FROM undo WHERE number = ? ORDER BY seq")?;
    let rows = statement.query_map([number], |row| {
        let id: Vec<u8> = row.get("task_id")?;
        let task = TaskId(B256::try_from(id.as_slice()).map_err(failure)?);
        let body: Option<Vec<u8>> = row.get("body")?;
        let changed_at: Option<i64> = row.get("changed_at")?;
        let old = body.map(|body| ChainTask::decode(task, &body)).transpose()?;
        Ok((task, old.zip(changed_at)))
    })?;
    let rows: Vec<_> = rows.collect::<rusqlite::Result<_>>()?;
    let mut changes = Vec::new();
    for (task, old) in rows {
        let before = get(tx, task)?.map(|(before, _)| before);
        match &old {
            Some((old, changed_at)) => put(tx, old, *changed_at)?,
            None => {
                tx.execute("DELETE FROM tasks WHERE task_id = ?", [task.0.as_slice()])?;
            }
        }
        changes.push(Change { task, before, now: old.map(|(old, _)| old) });
    }
    for sql in [
        "DELETE FROM undo WHERE number = ?",
        "DELETE FROM sessions WHERE since = ?",
        "UPDATE sessions SET closed_at = NULL WHERE closed_at = ?",
    ] {
        tx.execute(sql, [number])?;
    }
    Ok(Taken { changes, parts: Vec::new() })
}

/// Which sessions have this node: their tasks may come to it later.
fn sessions(
    tx: &Transaction<'_>,
    scope: &Scope,
    event: &ProtocolEvent,
    number: i64,
) -> rusqlite::Result<()> {
    match event {
        ProtocolEvent::SessionActivated(event) if event.nodes.contains(&scope.node.0) => {
            let sql = "INSERT OR IGNORE INTO sessions (session_id, since) VALUES (?, ?)";
            tx.execute(sql, params![event.sessionId as i64, number])?;
        }
        ProtocolEvent::SessionClosed(event) => {
            let sql =
                "UPDATE sessions SET closed_at = ? WHERE session_id = ? AND closed_at IS NULL";
            tx.execute(sql, params![number, event.sessionId as i64])?;
        }
        _ => {}
    }
    Ok(())
}

fn task_of(event: &ProtocolEvent) -> Option<TaskId> {
    Some(TaskId(match event {
        ProtocolEvent::TaskSubmitted(event) => event.taskId,
        ProtocolEvent::TaskPrecommitted(event) => event.taskId,
        ProtocolEvent::TaskCommitted(event) => event.taskId,
        ProtocolEvent::TaskMoved(event) => event.taskId,
        ProtocolEvent::TaskSettled(event) => event.taskId,
        ProtocolEvent::TaskRefunded(event) => event.taskId,
        _ => return None,
    }))
}

/// The task after the event; `None` if it does not concern this node.
fn fold(
    tx: &Transaction<'_>,
    scope: &Scope,
    known: Option<&ChainTask>,
    task: TaskId,
    event: &ProtocolEvent,
) -> rusqlite::Result<Option<ChainTask>> {
    let fresh = |request_digest, record| ChainTask { task, request_digest, record, earned: None };
    if let ProtocolEvent::TaskSubmitted(event) = event {
        let new = fresh(event.requestDigest, TaskRecord::submitted(event));
        let ours = new.record.part(scope.node).is_some() || in_session(tx, event.sessionId)?;
        return Ok(ours.then_some(new));
    }
    let Some(mut new) = known.cloned() else {
        let ProtocolEvent::TaskMoved(event) = event else { return Ok(None) };
        let (body, state) = (event.task.clone(), TaskState::None);
        let mut new = fresh(B256::ZERO, TaskRecord { task: body, state, until_s: 0 });
        new.record.moved(event);
        return Ok(new.record.part(scope.node).is_some().then_some(new));
    };
    let folded = match event {
        ProtocolEvent::TaskPrecommitted(event) => new.record.precommitted(&scope.queue, event),
        ProtocolEvent::TaskCommitted(event) => new.record.committed(&scope.queue, event),
        ProtocolEvent::TaskMoved(event) => {
            new.record.moved(event);
            Ok(())
        }
        ProtocolEvent::TaskSettled(event) => {
            new.record.state = TaskState::Settled;
            if event.nodeId == scope.node.0 {
                new.earned = Some(event.minerShare.to::<u128>());
            }
            Ok(())
        }
        ProtocolEvent::TaskRefunded(_) => {
            new.record.state = TaskState::Refunded;
            Ok(())
        }
        _ => return Ok(None),
    };
    if let Err(error) = folded {
        // The chain's word on the whole task comes with its next move.
        tracing::error!(%task, %error, "an event does not fit its task");
        return Ok(None);
    }
    Ok(Some(new))
}

fn in_session(tx: &Transaction<'_>, session: u64) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM sessions WHERE session_id = ? AND closed_at IS NULL";
    let found = tx.prepare_cached(sql)?.query_row([session as i64], |_| Ok(())).optional()?;
    Ok(found.is_some())
}

impl Answers {
    /// A task as the chain's events tell it.
    pub fn chain_task(&self, task: TaskId) -> Result<Option<ChainTask>, DatabaseError> {
        self.database().transaction(|tx| Ok(get(tx, task)?.map(|(found, _)| found)))
    }

    /// How a task of the chain stands for `node`.
    pub fn standing(&self, task: &ChainTask, node: NodeId) -> Result<Standing, DatabaseError> {
        let standing = task.standing(node);
        let known = !task.request_digest.is_zero();
        let replaced = standing == Standing::Due
            && known
            && self.has_begun_other(task.task, task.request_digest)?;
        Ok(if replaced { Standing::Replaced } else { standing })
    }

    /// Tasks that are not at their end.
    pub fn open_tasks(&self) -> Result<Vec<ChainTask>, DatabaseError> {
        self.database().transaction(|tx| {
            let mut statement = tx.prepare("SELECT * FROM tasks WHERE state < 5")?;
            statement.query_map([], read)?.collect()
        })
    }

    /// Tasks of a session's queue with tickets from `head` up to but without `ticket`, in their order.
    pub fn queued_before(
        &self,
        session: SessionId,
        head: u64,
        ticket: u64,
    ) -> Result<Vec<ChainTask>, DatabaseError> {
        self.database().transaction(|tx| {
            let mut statement = tx.prepare_cached(
                "SELECT * FROM tasks WHERE session_id = ? AND ticket >= ? AND ticket < ? AND ticket <> 0
                 ORDER BY ticket",
            )?;
            let range = params![session.0 as i64, head as i64, ticket as i64];
            statement.query_map(range, read)?.collect()
        })
    }

    /// Sum of what settled tasks earned, and how many they are.
    pub fn earned(&self) -> Result<(u128, u64), DatabaseError> {
        self.database().transaction(|tx| {
            let mut statement = tx.prepare("SELECT earned FROM tasks WHERE earned IS NOT NULL")?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            let (mut sum, mut count) = (0_u128, 0);
            for row in rows {
                sum = sum.saturating_add(row?.parse().unwrap_or(0));
                count += 1;
            }
            Ok((sum, count))
        })
    }

    /// Number of the newest block that was taken in; 0 if none was.
    pub fn cursor(&self) -> Result<u64, DatabaseError> {
        self.database().transaction(|tx| Ok(load_cursor(tx)?.map_or(0, |at| at.number)))
    }
}

#[cfg(test)]
#[path = "tasks_tests.rs"]
mod tests;
