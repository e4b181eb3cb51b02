//! What stands in the router's tables: sessions, tasks and their timelines.

use std::collections::HashSet;

use alloy::sol_types::SolValue;
use assay_store::Bytes;
use assay_types::{B256, ModelId, ModelIndex, NodeId, SessionId, TaskId, TaskRequest};
use rusqlite::{OptionalExtension, Result, Transaction, params};
use serde::Serialize;

use super::{
    answers::{self, AnswerRow},
    owed,
    payers::Payer,
    proofs, receipts,
    sql::{digest, int, run, unsigned, unsigned_or_null},
    state::{Fact, Observed, SessionView, Submitted},
};
use crate::link::state::SignedReceipt;

/// Event of a task that no node took: nobody will ever ask for its request block.
pub const NOT_SUBMITTED: &str = "not_submitted";

/// What the router itself has to say about a task.
#[derive(Clone, Debug)]
pub enum Note {
    /// It exists.
    Received {
        /// What stands in its request.
        task: Box<Submitted>,
        /// Name of the model.
        model: String,
        /// What its lane's holder signed, and its request block.
        owed: Box<(TaskRequest, Bytes)>,
        /// The key that pays, if one does.
        payer: Option<Payer>,
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// Its request block is pinned, or never will be.
    Pinned {
        /// The task.
        task: TaskId,
        /// Why not.
        error: Option<String>,
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// Something happened.
    Happened {
        /// The task.
        task: TaskId,
        /// What.
        event: &'static str,
        /// Unix milliseconds.
        at_ms: u64,
        /// More about it.
        detail: Option<String>,
    },
    /// The answer is complete.
    Answered {
        /// The task.
        task: TaskId,
        /// Its result block.
        output_digest: B256,
        /// Tokens of prompt and answer.
        tokens: (u32, u32),
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// There is no answer for the client.
    Failed {
        /// The task.
        task: TaskId,
        /// `declined`, `failed` or `cancelled`.
        answer: &'static str,
        /// Stable code.
        code: String,
        /// What happened.
        message: String,
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// The node signed for what it has streamed.
    Signed {
        /// The task.
        task: TaskId,
        /// Its receipt; replaces an earlier one.
        receipt: Box<SignedReceipt>,
    },
    /// What a transaction used.
    Gas {
        /// The transaction.
        transaction: B256,
        /// Its gas.
        gas_used: u64,
    },
}

/// A task and its timeline, as `GET /v1/tasks/{id}` shows it.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns above")]
pub struct TaskRow {
    pub session: u64,
    pub lane: u32,
    pub nonce: u64,
    pub node: u32,
    pub request_digest: B256,
    pub max_prompt: u32,
    pub max_output: u32,
    pub deadline: u64,
    pub hold: String,
    pub model: Option<String>,
    pub chain_state: String,
    pub fee: Option<String>,
    pub prompt_tokens: Option<u32>,
    pub output_tokens: Option<u32>,
    pub output_digest: Option<B256>,
    pub answer: String,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    pub api_key: Option<String>,
    pub answers: Vec<AnswerRow>,
    pub receipt: Option<SignedReceipt>,
    pub timeline: Vec<Entry>,
}

/// One line of a timeline.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "columns above")]
pub struct Entry {
    pub event: String,
    /// Unix milliseconds by the router's clock.
    pub at_ms: u64,
    /// The node whose answer it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_number: Option<u64>,
    /// Unix seconds by the chain's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_timestamp: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction_hash: Option<String>,
    /// Gas of the whole transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gas_used: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// All sessions.
pub fn sessions(tx: &Transaction<'_>) -> Result<Vec<SessionView>> {
    let mut query = tx.prepare("SELECT body FROM sessions ORDER BY session")?;
    let bodies = query.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>>>()?;
    bodies.iter().map(|body| serde_json::from_str(body).map_err(from_json)).collect()
}

/// Models by their number.
pub fn models(tx: &Transaction<'_>) -> Result<Vec<(ModelIndex, ModelId)>> {
    let mut query = tx.prepare("SELECT model_index, model FROM models")?;
    let rows = query.query_map([], |row| {
        let model: String = row.get(1)?;
        Ok((ModelIndex(row.get(0)?), model.parse().unwrap_or_default()))
    })?;
    rows.collect()
}

pub(super) fn from_json(error: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
}

/// Answers that an earlier life of the router did not finish: their clients are gone.
pub fn fail_pending(tx: &Transaction<'_>) -> Result<()> {
    run(
            tx,
        "UPDATE tasks SET answer = 'failed', error_code = 'router_restarted',
            error_message = 'the router stopped before the answer was complete' WHERE answer = 'pending'",
        [],
    )?;
    Ok(())
}

/// Saves what changed in the book.
pub fn save_sessions(
    tx: &Transaction<'_>,
    changed: &[SessionView],
    gone: &[SessionId],
) -> Result<()> {
    for view in changed {
        let body = serde_json::to_string(view).map_err(from_json)?;
        run(
            tx,
            "INSERT OR REPLACE INTO sessions (session, body) VALUES (?1, ?2)",
            params![int(view.id.0), body],
        )?;
    }
    for id in gone {
        run(tx, "DELETE FROM sessions WHERE session = ?1", params![int(id.0)])?;
    }
    Ok(())
}

/// What the router itself knows of a task; nothing of one that another life of it signed.
struct Own<'a> {
    model: Option<&'a str>,
    answer: &'a str,
    request: Option<&'a TaskRequest>,
    payer: Option<&'a Payer>,
}

fn insert_task(tx: &Transaction<'_>, task: &Submitted, own: &Own<'_>) -> Result<()> {
    run(
            tx,
        "INSERT INTO tasks (task, session, lane, nonce, node, request_digest, max_prompt, max_output,
            deadline, hold, model, chain_state, answer, request, api_key, key_period)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 'none', ?12, ?13, ?14, ?15)
         ON CONFLICT (task) DO UPDATE SET model = coalesce(model, excluded.model),
            request = coalesce(request, excluded.request),
            api_key = coalesce(api_key, excluded.api_key),
            key_period = coalesce(key_period, excluded.key_period),
            hold = CASE excluded.answer WHEN 'unknown' THEN excluded.hold ELSE hold END,
            answer = CASE answer WHEN 'unknown' THEN excluded.answer ELSE answer END",
        params![
            task.task.to_string(),
            int(task.session.0),
            task.lane.0,
            int(task.nonce.0),
            task.nodes.first().map_or(0, |node| node.0),
            task.request_digest.to_string(),
            task.max_prompt,
            task.max_output,
            int(task.deadline),
            task.held.to_string(),
            own.model,
            own.answer,
            own.request.map(|request| request.abi_encode()),
            own.payer.map(|payer| &payer.key),
            own.payer.map(|payer| int(payer.period)),
        ],
    )?;
    answers::plan(tx, task)
}

/// Writes what the router says itself, in order, and gives way after each. The block of a task that is received and pinned
/// in one transaction is never stored.
pub fn write_notes(tx: &Transaction<'_>, notes: &[Note], give_way: impl Fn()) -> Result<()> {
    let pinned: HashSet<TaskId> = notes.iter().filter_map(Note::settles_pin).collect();
    let mut never_stored = HashSet::new();
    for note in notes {
        if let Note::Received { task, .. } = note
            && pinned.contains(&task.task)
        {
            never_stored.insert(task.task);
        }
        write_note(tx, note, |task| never_stored.contains(task))?;
        give_way();
    }
    Ok(())
}

impl Note {
    /// The task whose request block need not be kept any longer.
    fn settles_pin(&self) -> Option<TaskId> {
        match self {
            Self::Pinned { task, .. } => Some(*task),
            Self::Happened { task, event, .. } if *event == NOT_SUBMITTED => Some(*task),
            _ => None,
        }
    }
}

fn write_note(
    tx: &Transaction<'_>,
    note: &Note,
    is_pinned: impl Fn(&TaskId) -> bool,
) -> Result<()> {
    if let Some(task) = note.settles_pin().filter(|task| !is_pinned(task)) {
        owed::forget_pin(tx, &task)?;
    }
    match note {
        Note::Received { task, model, owed, payer, at_ms } => {
            let (request, block) = owed.as_ref();
            let (request, payer) = (Some(request), payer.as_ref());
            insert_task(tx, task, &Own { model: Some(model), answer: "pending", request, payer })?;
            if !is_pinned(&task.task) {
                owed::save(tx, &task.task, block, *at_ms)?;
            }
            happened(tx, &task.task, "received", *at_ms, None)
        }
        Note::Pinned { task, error, at_ms } => {
            let event = if error.is_none() { "request_pinned" } else { "request_not_pinned" };
            happened(tx, task, event, *at_ms, error.as_deref())
        }
        Note::Happened { task, event, at_ms, detail } => {
            happened(tx, task, event, *at_ms, detail.as_deref())
        }
        Note::Signed { task, receipt } => receipts::save(tx, task, receipt),
        Note::Answered { task, output_digest, tokens, at_ms } => {
            receipts::announced(tx, task, *output_digest, *at_ms)?;
            run(
            tx,
                "UPDATE tasks SET answer = 'complete', output_digest = ?2, prompt_tokens = ?3, output_tokens = ?4
                 WHERE task = ?1",
                params![task.to_string(), output_digest.to_string(), tokens.0, tokens.1],
            )?;
            happened(tx, task, "done", *at_ms, None)
        }
        Note::Failed { task, answer, code, message, at_ms } => {
            run(
                tx,
                "UPDATE tasks SET answer = ?2, error_code = ?3, error_message = ?4 WHERE task = ?1",
                params![task.to_string(), answer, code, message],
            )?;
            happened(tx, task, answer, *at_ms, Some(code))
        }
        Note::Gas { transaction, gas_used } => {
            run(
                tx,
                "UPDATE timeline SET gas_used = ?2 WHERE transaction_hash = ?1",
                params![transaction.to_string(), int(*gas_used)],
            )?;
            Ok(())
        }
    }
}

pub(super) fn happened(
    tx: &Transaction<'_>,
    task: &TaskId,
    event: &str,
    at_ms: u64,
    detail: Option<&str>,
) -> Result<()> {
    run(
        tx,
        // Nothing is kept of tasks that others pay for.
        "INSERT OR IGNORE INTO timeline (task, event, at_ms, detail)
         SELECT number, ?2, ?3, ?4 FROM tasks WHERE task = ?1",
        params![task.to_string(), event, int(at_ms), detail],
    )?;
    Ok(())
}

/// Writes a canonical block's tasks, and gives way before each of them; the transactions whose gas is wanted.
pub fn commit_block(
    tx: &Transaction<'_>,
    block: &Observed,
    is_mine: impl Fn(&Submitted) -> bool,
    at_ms: u64,
    give_way: impl Fn(),
) -> Result<Vec<B256>> {
    let (mut transactions, mut touched) = (Vec::new(), HashSet::new());
    for (hash, fact) in &block.facts {
        give_way();
        if let Fact::Proof { task, node, step } = fact {
            proofs::save(tx, block, *hash, (task, *node, step))?;
            continue;
        }
        let Some((task, node, event)) = write_fact(tx, fact, &is_mine, at_ms)? else { continue };
        let entries = run(
            tx,
            "INSERT OR REPLACE INTO timeline
                (task, event, node, at_ms, block_number, block_hash, block_timestamp, transaction_hash)
             SELECT number, ?2, ?3, ?4, ?5, ?6, ?7, ?8 FROM tasks WHERE task = ?1",
            params![
                task.to_string(),
                event,
                node.0,
                int(at_ms),
                int(block.number),
                block.hash.to_string(),
                int(block.timestamp),
                hash.to_string(),
            ],
        )?;
        if entries > 0 {
            touched.insert(task);
            transactions.push(*hash);
        }
    }
    for task in &touched {
        give_way();
        answers::refresh(tx, task)?;
    }
    transactions.dedup();
    Ok(transactions)
}

/// The node of events that are about a whole task.
const WHOLE_TASK: NodeId = NodeId(0);

/// Writes one fact about a task; which task, whose answer, and the event's name.
fn write_fact(
    tx: &Transaction<'_>,
    fact: &Fact,
    is_mine: impl Fn(&Submitted) -> bool,
    at_ms: u64,
) -> Result<Option<(TaskId, NodeId, &'static str)>> {
    let written = match fact {
        Fact::ModelRegistered { index, model } => {
            run(
                tx,
                "INSERT OR REPLACE INTO models (model_index, model) VALUES (?1, ?2)",
                params![index.0, model.to_string()],
            )?;
            return Ok(None);
        }
        Fact::TaskSubmitted(task) if is_mine(task) => {
            let own = Own { model: None, answer: "unknown", request: None, payer: None };
            insert_task(tx, task, &own)?;
            run(
            tx,
                "INSERT INTO lanes (session, next_nonce) VALUES (?1, ?2)
                 ON CONFLICT (session) DO UPDATE SET next_nonce = max(next_nonce, excluded.next_nonce)",
                params![int(task.session.0), int(task.nonce.0.saturating_add(1))],
            )?;
            answers::submitted(tx, &task.task, true)?;
            Some((task.task, WHOLE_TASK, "submitted"))
        }
        Fact::TaskRefunded { task, tip, .. } => {
            run(
                tx,
                "UPDATE tasks SET tip = ?2 WHERE task = ?1",
                params![task.to_string(), tip.to_string()],
            )?;
            Some((*task, WHOLE_TASK, "refunded"))
        }
        other => answers::apply(tx, other)?,
    };
    if let Fact::TaskCommitted { task, node, output_digest, .. } = fact {
        receipts::committed(tx, task, (*node, *output_digest), at_ms)?;
    }
    Ok(written)
}

/// Undoes a block that is no longer canonical.
pub fn revert_block(tx: &Transaction<'_>, block: &Observed) -> Result<()> {
    let mut touched = HashSet::new();
    for (_, fact) in block.facts.iter().rev() {
        let task = match fact {
            Fact::ModelRegistered { index, .. } => {
                run(tx, "DELETE FROM models WHERE model_index = ?1", params![index.0])?;
                continue;
            }
            Fact::TaskSubmitted(task) => {
                answers::submitted(tx, &task.task, false)?;
                Some(task.task)
            }
            Fact::TaskRefunded { task, .. } => {
                run(tx, "UPDATE tasks SET tip = NULL WHERE task = ?1", params![task.to_string()])?;
                Some(*task)
            }
            other => answers::undo(tx, other)?,
        };
        touched.extend(task);
    }
    for task in &touched {
        answers::refresh(tx, task)?;
        run(
            tx,
            "DELETE FROM timeline WHERE task = (SELECT number FROM tasks WHERE task = ?1) AND block_hash = ?2",
            params![task.to_string(), block.hash.to_string()],
        )?;
    }
    proofs::revert(tx, block.hash)
}

/// Transactions of timelines whose gas is not known yet: the router stopped before it asked.
pub fn without_gas(tx: &Transaction<'_>, limit: usize) -> Result<Vec<B256>> {
    let mut query = tx.prepare(
        "SELECT DISTINCT transaction_hash FROM timeline
         WHERE transaction_hash IS NOT NULL AND gas_used IS NULL LIMIT ?1",
    )?;
    let texts = query.query_map(params![int(limit as u64)], |row| row.get::<_, String>(0))?;
    texts.map(|text| text.map(|t| t.parse().unwrap_or_default())).collect()
}

/// A task and its timeline in the order of time.
pub fn task(tx: &Transaction<'_>, id: &TaskId) -> Result<Option<TaskRow>> {
    let row = tx
        .query_row("SELECT * FROM tasks WHERE task = ?1", params![id.to_string()], |row| {
            Ok(TaskRow {
                session: unsigned(row, "session")?,
                lane: row.get("lane")?,
                nonce: unsigned(row, "nonce")?,
                node: row.get("node")?,
                request_digest: digest(row, "request_digest")?.unwrap_or_default(),
                max_prompt: row.get("max_prompt")?,
                max_output: row.get("max_output")?,
                deadline: unsigned(row, "deadline")?,
                hold: row.get("hold")?,
                model: row.get("model")?,
                chain_state: row.get("chain_state")?,
                fee: row.get("fee")?,
                prompt_tokens: row.get("prompt_tokens")?,
                output_tokens: row.get("output_tokens")?,
                output_digest: digest(row, "output_digest")?,
                answer: row.get("answer")?,
                error_code: row.get("error_code")?,
                error_message: row.get("error_message")?,
                api_key: row.get("api_key")?,
                answers: Vec::new(),
                receipt: None,
                timeline: Vec::new(),
            })
        })
        .optional()?;
    let Some(mut row) = row else { return Ok(None) };
    row.answers = answers::of(tx, id)?;
    row.receipt = receipts::of(tx, id)?;
    row.timeline = timeline(tx, id)?;
    Ok(Some(row))
}

fn timeline(tx: &Transaction<'_>, id: &TaskId) -> Result<Vec<Entry>> {
    let mut query = tx.prepare(
        "SELECT * FROM timeline WHERE task = (SELECT number FROM tasks WHERE task = ?1) ORDER BY at_ms, rowid",
    )?;
    let rows = query.query_map(params![id.to_string()], |row| {
        Ok(Entry {
            event: row.get("event")?,
            node_id: Some(row.get("node")?).filter(|node| *node != 0),
            at_ms: unsigned(row, "at_ms")?,
            block_number: unsigned_or_null(row, "block_number")?,
            block_timestamp: unsigned_or_null(row, "block_timestamp")?,
            transaction_hash: row.get("transaction_hash")?,
            gas_used: unsigned_or_null(row, "gas_used")?,
            detail: row.get("detail")?,
        })
    })?;
    rows.collect()
}
