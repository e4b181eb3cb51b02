//! The answers of a task, one for each of its nodes: how each stands on chain, and what that makes of the task.

use assay_types::{B256, NodeId, TaskId};
use rusqlite::{Result, Row, Transaction, params};
use serde::Serialize;

use super::{
    facts::{Fact, PartFailure, Submitted},
    sql::{digest, run},
};

/// The answers of each task.
pub const TABLE: &str = "
CREATE TABLE answers (
    task TEXT NOT NULL, part INTEGER NOT NULL, node INTEGER NOT NULL,
    -- planned (the chain does not have the task), waiting, precommitted, committed, settled,
    -- declined, silent, unrevealed
    state TEXT NOT NULL,
    fee TEXT, output_digest TEXT, prompt_tokens INTEGER, output_tokens INTEGER,
    PRIMARY KEY (task, node)
) STRICT;
";

/// One answer of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AnswerRow {
    /// Its place: of those that were committed, the lowest is the answer of record.
    pub part: u8,
    /// Who gives it.
    #[serde(rename = "node_id")]
    pub node: u32,
    /// How it stands, see [`TABLE`].
    pub state: String,
    /// Minor units, decimal; once committed.
    pub fee: Option<String>,
    /// sha-256 of its result block; once committed.
    pub output_digest: Option<B256>,
    /// Once committed.
    pub prompt_tokens: Option<u32>,
    /// Once committed.
    pub output_tokens: Option<u32>,
}

impl AnswerRow {
    fn read(row: &Row<'_>) -> Result<Self> {
        Ok(Self {
            part: row.get("part")?,
            node: row.get("node")?,
            state: row.get("state")?,
            fee: row.get("fee")?,
            output_digest: digest(row, "output_digest")?,
            prompt_tokens: row.get("prompt_tokens")?,
            output_tokens: row.get("output_tokens")?,
        })
    }

    /// Whether it stands on chain.
    pub fn is_committed(&self) -> bool {
        self.state == "committed" || self.state == "settled"
    }
}

/// The answers of a task by part; of one part, the first node first.
pub fn of(tx: &Transaction<'_>, task: &TaskId) -> Result<Vec<AnswerRow>> {
    let mut query =
        tx.prepare_cached("SELECT * FROM answers WHERE task = (SELECT number FROM tasks WHERE task = ?1) ORDER BY part, rowid")?;
    query.query_map([task.to_string()], AnswerRow::read)?.collect()
}

/// A task is offered, or the chain has it: who shall answer.
pub fn plan(tx: &Transaction<'_>, task: &Submitted) -> Result<()> {
    for (part, node) in task.nodes.iter().enumerate() {
        run(
            tx,
            "INSERT OR IGNORE INTO answers (task, part, node, state)
             SELECT number, ?2, ?3, 'planned' FROM tasks WHERE task = ?1",
            params![task.task.to_string(), i64::try_from(part).unwrap_or(i64::MAX), node.0],
        )?;
    }
    Ok(())
}

/// Takes in a fact; the task and the node that it is about, and the event's name, if it is about an answer.
pub fn apply(tx: &Transaction<'_>, fact: &Fact) -> Result<Option<(TaskId, NodeId, &'static str)>> {
    let (task, node, event) = match fact {
        Fact::PartTaken { task, node, part } => {
            run(
                tx,
                "INSERT OR REPLACE INTO answers (task, part, node, state)
                 SELECT number, ?2, ?3, 'waiting' FROM tasks WHERE task = ?1",
                params![task.to_string(), part, node.0],
            )?;
            (task, node, "taken_over")
        }
        Fact::PartFailed { task, node, why } => {
            let state = failed(*why).0;
            put(tx, task, *node, state)?;
            (task, node, state)
        }
        Fact::TaskPrecommitted { task, node } => {
            put(tx, task, *node, "precommitted")?;
            (task, node, "precommitted")
        }
        Fact::TaskCommitted { task, node, output_digest, prompt_tokens, output_tokens, fee } => {
            run(
                tx,
                "UPDATE answers SET state = 'committed', fee = ?3, output_digest = ?4,
                    prompt_tokens = ?5, output_tokens = ?6
                 WHERE task = (SELECT number FROM tasks WHERE task = ?1) AND node = ?2",
                params![
                    task.to_string(),
                    node.0,
                    fee.to_string(),
                    output_digest.to_string(),
                    prompt_tokens,
                    output_tokens
                ],
            )?;
            (task, node, "committed")
        }
        Fact::TaskSettled { task, node, fee } => {
            run(
                tx,
                "UPDATE answers SET state = 'settled', fee = ?3
                 WHERE task = (SELECT number FROM tasks WHERE task = ?1) AND node = ?2",
                params![task.to_string(), node.0, fee.to_string()],
            )?;
            (task, node, "settled")
        }
        _ => return Ok(None),
    };
    Ok(Some((*task, *node, event)))
}

/// Undoes a fact; the task that it is about, if it is about an answer.
pub fn undo(tx: &Transaction<'_>, fact: &Fact) -> Result<Option<TaskId>> {
    let task = match fact {
        Fact::PartTaken { task, node, .. } => {
            run(
                tx,
                "DELETE FROM answers WHERE task = (SELECT number FROM tasks WHERE task = ?1) AND node = ?2",
                params![task.to_string(), node.0],
            )?;
            task
        }
        Fact::PartFailed { task, node, why } => {
            put(tx, task, *node, failed(*why).1)?;
            task
        }
        Fact::TaskPrecommitted { task, node } => {
            put(tx, task, *node, "waiting")?;
            task
        }
        Fact::TaskCommitted { task, node, .. } => {
            // An answer that stands alone is committed at once.
            run(
                tx,
                "UPDATE answers SET fee = NULL, output_digest = NULL, prompt_tokens = NULL,
                    output_tokens = NULL, state = CASE
                        WHEN (SELECT max(part) FROM answers other WHERE other.task = answers.task) = 0 THEN 'waiting'
                        ELSE 'precommitted' END
                 WHERE task = (SELECT number FROM tasks WHERE task = ?1) AND node = ?2",
                params![task.to_string(), node.0],
            )?;
            task
        }
        Fact::TaskSettled { task, node, .. } => {
            put(tx, task, *node, "committed")?;
            task
        }
        _ => return Ok(None),
    };
    Ok(Some(*task))
}

/// The state of a part whose node is off the task, and the one before.
fn failed(why: PartFailure) -> (&'static str, &'static str) {
    match why {
        PartFailure::Declined => ("declined", "waiting"),
        PartFailure::Silent => ("silent", "waiting"),
        PartFailure::Unrevealed => ("unrevealed", "precommitted"),
    }
}

fn put(tx: &Transaction<'_>, task: &TaskId, node: NodeId, state: &str) -> Result<()> {
    run(
        tx,
        "UPDATE answers SET state = ?3 WHERE task = (SELECT number FROM tasks WHERE task = ?1) AND node = ?2",
        params![task.to_string(), node.0, state],
    )?;
    Ok(())
}

/// The chain has the task, or has it no more.
pub fn submitted(tx: &Transaction<'_>, task: &TaskId, on_chain: bool) -> Result<()> {
    let state = if on_chain { "waiting" } else { "planned" };
    run(
        tx,
        "UPDATE answers SET state = ?2 WHERE task = (SELECT number FROM tasks WHERE task = ?1)",
        params![task.to_string(), state],
    )?;
    Ok(())
}

/// Brings the task's own state and its fee, the sum of its answers', up to date.
pub fn refresh(tx: &Transaction<'_>, task: &TaskId) -> Result<()> {
    let answers = of(tx, task)?;
    let any = |state: &str| answers.iter().any(|answer| answer.state == state);
    let state = if any("settled") {
        "settled"
    } else if any("waiting") {
        "assigned"
    } else if any("precommitted") {
        "precommitted"
    } else if any("committed") {
        "committed"
    } else if answers.iter().all(|answer| answer.state == "planned") {
        "none"
    } else {
        "assigned"
    };
    let fees = answers.iter().filter(|answer| answer.is_committed());
    let fees: Vec<u128> = fees.filter_map(|answer| answer.fee.as_ref()?.parse().ok()).collect();
    let fee =
        (!fees.is_empty()).then(|| fees.into_iter().fold(0, u128::saturating_add).to_string());
    run(
        tx,
        "UPDATE tasks SET chain_state = CASE WHEN tip IS NULL THEN ?2 ELSE 'refunded' END, fee = ?3
         WHERE task = ?1",
        params![task.to_string(), state, fee],
    )?;
    Ok(())
}
