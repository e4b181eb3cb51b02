//! What the chain tells of the proofs of answers: every step, as its event said it. Where a proof stands is told by
//! its steps together.

use assay_types::{B256, NodeId, TaskId, U256};
use rusqlite::{OptionalExtension, Result, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::{
    answers,
    facts::Observed,
    payers,
    sql::{int, run, unsigned},
};

/// The steps of each proof, in the order of the chain: that in which they were written.
pub const TABLE: &str = "
CREATE TABLE proof_steps (
    task TEXT NOT NULL, node INTEGER NOT NULL,
    step TEXT NOT NULL, -- JSON
    block_number INTEGER NOT NULL, block_hash TEXT NOT NULL, block_timestamp INTEGER NOT NULL,
    transaction_hash TEXT NOT NULL
) STRICT;
CREATE INDEX proof_steps_task ON proof_steps (task);
CREATE INDEX proof_steps_block ON proof_steps (block_hash);
";

/// One step of the proof of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
#[allow(missing_docs, reason = "fields are those of the contract's events")]
pub enum ProofStep {
    /// The answer is audited with this probability.
    Exposed { value: String, probability_bps: u16 },
    /// It was not drawn, or the draw had no randomness.
    Cleared { unaudited: bool },
    /// No validator could be drawn.
    Unverified,
    /// The audit is in a state, by its number in the contract, and waits until then (unix seconds).
    Moved { state: u8, until_s: u64, validator: NodeId },
    /// Who has a word in the dispute.
    Panel { parties: Vec<PanelParty> },
    /// The miner published its proof.
    Opened { root: B256, proof_digest: B256 },
    /// What a validator, or a member of the panel, found.
    Verdict { validator: NodeId, reasons: u8, statistics: U256, failing_blocks: u16 },
    /// How the dispute ended. `failing` has one bit for each party.
    Judged { question: u8, failing: U256, guilty: bool, slashed: bool },
    /// The validators were paid so much together.
    Collected { amount: String },
}

/// One who has a word in a dispute. The first two are the miner and the validator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "fields are those of the contract's struct")]
pub struct PanelParty {
    pub node_id: NodeId,
    pub is_sealed: bool,
    pub is_open: bool,
}

/// What the chain told of the proofs of a task's answers.
#[derive(Clone, Debug)]
pub struct TaskProof {
    /// The key that pays for the task, if one does.
    pub api_key: Option<String>,
    /// Who answers, by part.
    pub nodes: Vec<NodeId>,
    /// The first first.
    pub steps: Vec<ProofRow>,
}

/// A step, and where the chain has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofRow {
    /// Whose answer it is about.
    pub node: NodeId,
    /// What happened.
    pub step: ProofStep,
    /// Height.
    pub block_number: u64,
    /// Unix seconds by the chain's clock.
    pub block_timestamp: u64,
    /// The transaction.
    pub transaction_hash: String,
}

impl ProofRow {
    fn read(row: &Row<'_>) -> Result<Self> {
        let step: String = row.get("step")?;
        Ok(Self {
            node: NodeId(row.get("node")?),
            step: serde_json::from_str(&step).map_err(super::db::from_json)?,
            block_number: unsigned(row, "block_number")?,
            block_timestamp: unsigned(row, "block_timestamp")?,
            transaction_hash: row.get("transaction_hash")?,
        })
    }
}

/// A canonical block has a step; one of a task that is not the router's is left out.
pub(super) fn save(
    tx: &Transaction<'_>,
    block: &Observed,
    transaction: B256,
    (task, node, step): (&TaskId, NodeId, &ProofStep),
) -> Result<()> {
    let step = serde_json::to_string(step).map_err(super::db::from_json)?;
    run(
        tx,
        "INSERT INTO proof_steps
            (task, node, step, block_number, block_hash, block_timestamp, transaction_hash)
         SELECT number, ?2, ?3, ?4, ?5, ?6, ?7 FROM tasks WHERE task = ?1",
        params![
            task.to_string(),
            node.0,
            step,
            int(block.number),
            block.hash.to_string(),
            int(block.timestamp),
            transaction.to_string(),
        ],
    )?;
    Ok(())
}

/// A block is no longer canonical.
pub(super) fn revert(tx: &Transaction<'_>, block: B256) -> Result<()> {
    run(tx, "DELETE FROM proof_steps WHERE block_hash = ?1", [block.to_string()])?;
    Ok(())
}

/// What is known of the proofs of a task; `None` if there is no such task.
pub fn of(tx: &Transaction<'_>, id: &TaskId) -> Result<Option<TaskProof>> {
    let mut task = tx.prepare_cached("SELECT number FROM tasks WHERE task = ?1")?;
    let Some(number) = task.query_row([id.to_string()], |row| row.get::<_, i64>(0)).optional()?
    else {
        return Ok(None);
    };
    let nodes = answers::of(tx, id)?.iter().map(|answer| NodeId(answer.node)).collect();
    let mut query =
        tx.prepare_cached("SELECT * FROM proof_steps WHERE task = ?1 ORDER BY rowid")?;
    let steps = query.query_map([number], ProofRow::read)?.collect::<Result<_>>()?;
    Ok(Some(TaskProof { api_key: payers::key_of(tx, id)?, nodes, steps }))
}
