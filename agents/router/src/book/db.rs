//! The router's tables: sessions, nonces, tasks and their timelines.

use assay_types::{B256, ModelId, ModelIndex, NodeId, SessionId, TaskId};
use rusqlite::{OptionalExtension, Result, Row, Transaction, params};
use serde::Serialize;

use super::{
    receipts,
    state::{Charge, Fact, Observed, SessionView, Submitted},
};
use crate::link::state::SignedReceipt;

/// The tables, oldest first; what stands here never changes.
pub const MIGRATIONS: &[&str] = &[FIRST, receipts::TABLE, MODELS];

const MODELS: &str =
    "CREATE TABLE models (model_index INTEGER PRIMARY KEY, model TEXT NOT NULL) STRICT;";

const FIRST: &str = "
CREATE TABLE sessions (session INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TABLE lanes (
    session INTEGER PRIMARY KEY,
    next_nonce INTEGER NOT NULL -- below it every nonce may have been used
) STRICT;
CREATE TABLE tasks (
    task TEXT PRIMARY KEY,
    session INTEGER NOT NULL, lane INTEGER NOT NULL, nonce INTEGER NOT NULL, node INTEGER NOT NULL,
    request_digest TEXT NOT NULL, max_prompt INTEGER NOT NULL, max_output INTEGER NOT NULL,
    deadline INTEGER NOT NULL,
    hold TEXT NOT NULL,          -- decimal, minor units
    model TEXT,                  -- NULL for a task of an earlier database
    chain_state TEXT NOT NULL,   -- none, assigned, committed, settled, refunded
    fee TEXT, tip TEXT,
    prompt_tokens INTEGER, output_tokens INTEGER, output_digest TEXT,
    answer TEXT NOT NULL,        -- pending, complete, declined, failed, cancelled, unknown
    error_code TEXT, error_message TEXT
) STRICT;
CREATE TABLE timeline (
    task TEXT NOT NULL, event TEXT NOT NULL, at_ms INTEGER NOT NULL,
    block_number INTEGER, block_hash TEXT, block_timestamp INTEGER, transaction_hash TEXT, gas_used INTEGER,
    detail TEXT,
    PRIMARY KEY (task, event)
) STRICT;
CREATE INDEX timeline_block ON timeline (block_hash) WHERE block_hash IS NOT NULL;
CREATE INDEX timeline_transaction ON timeline (transaction_hash) WHERE transaction_hash IS NOT NULL;
";

/// What the router itself has to say about a task.
#[derive(Clone, Debug)]
pub enum Note {
    /// It exists.
    Received {
        /// What stands in its request.
        task: Box<Submitted>,
        /// Name of the model.
        model: String,
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

/// SQLite's integers are signed; ours stay far below that. What does not is stored as the largest.
fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(row: &Row<'_>, column: &str) -> Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or_default())
}

fn unsigned_or_null(row: &Row<'_>, column: &str) -> Result<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(column)?.and_then(|v| u64::try_from(v).ok()))
}

fn amount(text: Option<String>) -> u128 {
    text.and_then(|t| t.parse().ok()).unwrap_or_default()
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

fn from_json(error: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
}

/// What the tasks of all lanes cost, and whether each is final.
pub fn charges(tx: &Transaction<'_>) -> Result<Vec<(SessionId, TaskId, Charge, bool)>> {
    let mut query = tx.prepare(
        "SELECT task, session, deadline, hold, fee, tip, chain_state FROM tasks
         WHERE answer NOT IN ('declined') OR chain_state <> 'none'",
    )?;
    let rows = query.query_map([], |row| {
        let state: String = row.get("chain_state")?;
        let amount = match state.as_str() {
            "settled" => amount(row.get("fee")?),
            "refunded" => amount(row.get("tip")?),
            _ => amount(row.get("hold")?),
        };
        let finished = state == "settled" || state == "refunded";
        let task: String = row.get("task")?;
        let charge =
            Charge { amount, deadline: unsigned(row, "deadline")?, on_chain: state != "none" };
        let task: TaskId = task.parse().unwrap_or_default();
        Ok((SessionId(unsigned(row, "session")?), task, charge, finished))
    })?;
    rows.collect()
}

/// Answers that an earlier life of the router did not finish: their clients are gone.
pub fn fail_pending(tx: &Transaction<'_>) -> Result<()> {
    tx.execute(
        "UPDATE tasks SET answer = 'failed', error_code = 'router_restarted',
            error_message = 'the router stopped before the answer was complete' WHERE answer = 'pending'",
        [],
    )?;
    Ok(())
}

/// One more than the largest nonce that the chain has, of each session.
pub fn next_on_chain(tx: &Transaction<'_>) -> Result<Vec<(SessionId, u64)>> {
    let mut query = tx.prepare(
        "SELECT session, max(nonce) + 1 AS next FROM tasks WHERE chain_state <> 'none' GROUP BY session",
    )?;
    let rows = query
        .query_map([], |row| Ok((SessionId(unsigned(row, "session")?), unsigned(row, "next")?)))?;
    rows.collect()
}

/// Saves what changed in the book.
pub fn save_sessions(
    tx: &Transaction<'_>,
    changed: &[SessionView],
    gone: &[SessionId],
) -> Result<()> {
    for view in changed {
        let body = serde_json::to_string(view).map_err(from_json)?;
        tx.execute(
            "INSERT OR REPLACE INTO sessions (session, body) VALUES (?1, ?2)",
            params![int(view.id.0), body],
        )?;
    }
    for id in gone {
        tx.execute("DELETE FROM sessions WHERE session = ?1", params![int(id.0)])?;
    }
    Ok(())
}

/// Takes the next `count` nonces of a session for this process: from the first up to before the second.
pub fn take_nonces(tx: &Transaction<'_>, session: SessionId, count: u64) -> Result<(u64, u64)> {
    tx.execute(
        "INSERT OR IGNORE INTO lanes (session, next_nonce) VALUES (?1, 0)",
        params![int(session.0)],
    )?;
    let end: i64 = tx.query_row(
        "UPDATE lanes SET next_nonce = next_nonce + ?2 WHERE session = ?1 RETURNING next_nonce",
        params![int(session.0), int(count)],
        |row| row.get(0),
    )?;
    let end = u64::try_from(end).unwrap_or_default();
    Ok((end.saturating_sub(count), end))
}

/// Gives back nonces from `first` on, if nobody took others after `end`.
pub fn return_nonces(tx: &Transaction<'_>, session: SessionId, first: u64, end: u64) -> Result<()> {
    tx.execute(
        "UPDATE lanes SET next_nonce = ?2 WHERE session = ?1 AND next_nonce = ?3",
        params![int(session.0), int(first), int(end)],
    )?;
    Ok(())
}

fn insert_task(
    tx: &Transaction<'_>,
    task: &Submitted,
    model: Option<&str>,
    answer: &str,
) -> Result<()> {
    tx.execute(
        "INSERT INTO tasks (task, session, lane, nonce, node, request_digest, max_prompt, max_output,
            deadline, hold, model, chain_state, answer)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 'none', ?12)
         ON CONFLICT (task) DO UPDATE SET model = coalesce(model, excluded.model),
            answer = CASE answer WHEN 'unknown' THEN excluded.answer ELSE answer END",
        params![
            task.task.to_string(),
            int(task.session.0),
            task.lane.0,
            int(task.nonce.0),
            task.node.0,
            task.request_digest.to_string(),
            task.max_prompt,
            task.max_output,
            int(task.deadline),
            task.held.to_string(),
            model,
            answer,
        ],
    )?;
    Ok(())
}

/// Writes what the router says itself.
pub fn write_note(tx: &Transaction<'_>, note: &Note) -> Result<()> {
    match note {
        Note::Received { task, model, at_ms } => {
            insert_task(tx, task, Some(model), "pending")?;
            happened(tx, &task.task, "received", *at_ms, None)
        }
        Note::Happened { task, event, at_ms, detail } => {
            happened(tx, task, event, *at_ms, detail.as_deref())
        }
        Note::Signed { task, receipt } => receipts::save(tx, task, receipt),
        Note::Answered { task, output_digest, tokens, at_ms } => {
            receipts::announced(tx, task, *output_digest, *at_ms)?;
            tx.execute(
                "UPDATE tasks SET answer = 'complete', output_digest = ?2, prompt_tokens = ?3, output_tokens = ?4
                 WHERE task = ?1",
                params![task.to_string(), output_digest.to_string(), tokens.0, tokens.1],
            )?;
            happened(tx, task, "done", *at_ms, None)
        }
        Note::Failed { task, answer, code, message, at_ms } => {
            tx.execute(
                "UPDATE tasks SET answer = ?2, error_code = ?3, error_message = ?4 WHERE task = ?1",
                params![task.to_string(), answer, code, message],
            )?;
            happened(tx, task, answer, *at_ms, Some(code))
        }
        Note::Gas { transaction, gas_used } => {
            tx.execute(
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
    tx.execute(
        "INSERT OR IGNORE INTO timeline (task, event, at_ms, detail) VALUES (?1, ?2, ?3, ?4)",
        params![task.to_string(), event, int(at_ms), detail],
    )?;
    Ok(())
}

/// Writes a canonical block's tasks; the transactions whose gas is wanted.
pub fn commit_block(
    tx: &Transaction<'_>,
    block: &Observed,
    is_mine: impl Fn(&Submitted) -> bool,
    at_ms: u64,
) -> Result<Vec<B256>> {
    let mut transactions = Vec::new();
    for (hash, fact) in &block.facts {
        let Some((task, event)) = write_fact(tx, fact, &is_mine, at_ms)? else { continue };
        tx.execute(
            "INSERT OR REPLACE INTO timeline
                (task, event, at_ms, block_number, block_hash, block_timestamp, transaction_hash)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                task.to_string(),
                event,
                int(at_ms),
                int(block.number),
                block.hash.to_string(),
                int(block.timestamp),
                hash.to_string(),
            ],
        )?;
        transactions.push(*hash);
    }
    transactions.dedup();
    Ok(transactions)
}

/// Writes one fact about a task of ours; which task, and the event's name.
fn write_fact(
    tx: &Transaction<'_>,
    fact: &Fact,
    is_mine: impl Fn(&Submitted) -> bool,
    at_ms: u64,
) -> Result<Option<(TaskId, &'static str)>> {
    let (task, event, rows) = match fact {
        Fact::ModelRegistered { index, model } => {
            tx.execute(
                "INSERT OR REPLACE INTO models (model_index, model) VALUES (?1, ?2)",
                params![index.0, model.to_string()],
            )?;
            return Ok(None);
        }
        Fact::TaskSubmitted(task) if is_mine(task) => {
            insert_task(tx, task, None, "unknown")?;
            tx.execute(
                "INSERT INTO lanes (session, next_nonce) VALUES (?1, ?2)
                 ON CONFLICT (session) DO UPDATE SET next_nonce = max(next_nonce, excluded.next_nonce)",
                params![int(task.session.0), int(task.nonce.0.saturating_add(1))],
            )?;
            let rows = tx.execute(
                "UPDATE tasks SET chain_state = 'assigned', hold = ?2 WHERE task = ?1",
                params![task.task.to_string(), task.held.to_string()],
            )?;
            (task.task, "submitted", rows)
        }
        Fact::TaskCommitted { task, output_digest, prompt_tokens, output_tokens, fee } => {
            receipts::committed(tx, task, *output_digest, at_ms)?;
            let rows = tx.execute(
                "UPDATE tasks SET chain_state = 'committed', fee = ?2, prompt_tokens = ?3, output_tokens = ?4,
                    output_digest = ?5 WHERE task = ?1",
                params![task.to_string(), fee.to_string(), prompt_tokens, output_tokens, output_digest.to_string()],
            )?;
            (*task, "committed", rows)
        }
        Fact::TaskSettled { task, fee } => {
            let rows = tx.execute(
                "UPDATE tasks SET chain_state = 'settled', fee = ?2 WHERE task = ?1",
                params![task.to_string(), fee.to_string()],
            )?;
            (*task, "settled", rows)
        }
        Fact::TaskRefunded { task, tip, .. } => {
            let rows = tx.execute(
                "UPDATE tasks SET chain_state = 'refunded', fee = NULL, tip = ?2 WHERE task = ?1",
                params![task.to_string(), tip.to_string()],
            )?;
            (*task, "refunded", rows)
        }
        _ => return Ok(None),
    };
    Ok((rows > 0).then_some((task, event)))
}

/// Undoes a block that is no longer canonical.
pub fn revert_block(tx: &Transaction<'_>, block: &Observed) -> Result<()> {
    for (_, fact) in block.facts.iter().rev() {
        if let Fact::ModelRegistered { index, .. } = fact {
            tx.execute("DELETE FROM models WHERE model_index = ?1", params![index.0])?;
        }
        let (task, change) = match fact {
            Fact::TaskSubmitted(task) => (task.task, "chain_state = 'none'"),
            Fact::TaskCommitted { task, .. } => (*task, "chain_state = 'assigned', fee = NULL"),
            Fact::TaskSettled { task, .. } => (*task, "chain_state = 'committed'"),
            Fact::TaskRefunded { task, .. } => (*task, "chain_state = 'assigned', tip = NULL"),
            _ => continue,
        };
        tx.execute(
            &format!("UPDATE tasks SET {change} WHERE task = ?1"),
            params![task.to_string()],
        )?;
    }
    tx.execute("DELETE FROM timeline WHERE block_hash = ?1", params![block.hash.to_string()])?;
    Ok(())
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
                receipt: None,
                timeline: Vec::new(),
            })
        })
        .optional()?;
    let Some(mut row) = row else { return Ok(None) };
    row.receipt = receipts::of(tx, id)?;
    row.timeline = timeline(tx, id)?;
    Ok(Some(row))
}

pub(super) fn digest(row: &Row<'_>, column: &str) -> Result<Option<B256>> {
    Ok(row.get::<_, Option<String>>(column)?.and_then(|text| text.parse().ok()))
}

fn timeline(tx: &Transaction<'_>, id: &TaskId) -> Result<Vec<Entry>> {
    let mut query = tx.prepare("SELECT * FROM timeline WHERE task = ?1 ORDER BY at_ms, rowid")?;
    let rows = query.query_map(params![id.to_string()], |row| {
        Ok(Entry {
            event: row.get("event")?,
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

/// What a request says about its task before the chain knows it.
pub fn planned(request: &assay_types::TaskRequest, task: TaskId) -> Submitted {
    Submitted {
        task,
        session: SessionId(request.sessionId),
        lane: assay_types::Lane(request.lane),
        node: NodeId(request.nodeId),
        nonce: assay_types::Nonce(request.nonce),
        request_digest: request.requestDigest,
        max_prompt: request.maxPrompt,
        max_output: request.maxOutput,
        held: request.feeCap.to::<u128>(),
        deadline: request.deadline,
    }
}
