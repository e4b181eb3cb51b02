//! What nodes signed for their streams, and the answers that contradict it.

use assay_types::{B256, NodeId, Signature, TaskId, link::StreamReceipt};
use rusqlite::{OptionalExtension, Result, Transaction, params};

use super::{
    db::happened,
    sql::{digest, run},
};
use crate::link::state::SignedReceipt;

/// The newest receipt of each task: it covers the earlier ones.
pub const TABLE: &str = "
CREATE TABLE receipts (
    task TEXT PRIMARY KEY,
    node INTEGER NOT NULL, seq INTEGER NOT NULL, stream_hash TEXT NOT NULL,
    signature BLOB NOT NULL -- by the node's operator
) STRICT;
";

/// Event of a task whose node streamed one thing, and pinned or committed another.
pub const CONTRADICTED: &str = "contradicted";

/// Stores a receipt instead of an earlier one.
pub fn save(tx: &Transaction<'_>, task: &TaskId, signed: &SignedReceipt) -> Result<()> {
    let SignedReceipt { receipt, signature } = signed;
    run(
        tx,
        // Nothing is kept of tasks that others pay for.
        "INSERT INTO receipts SELECT number, ?2, ?3, ?4, ?5 FROM tasks WHERE task = ?1
         ON CONFLICT (task) DO UPDATE SET node = ?2, seq = ?3, stream_hash = ?4, signature = ?5
            WHERE excluded.seq > seq",
        params![
            task.to_string(),
            receipt.nodeId,
            receipt.seq,
            receipt.streamHash.to_string(),
            signature.as_bytes().as_slice(),
        ],
    )?;
    Ok(())
}

/// The newest receipt of a task.
pub fn of(tx: &Transaction<'_>, task: &TaskId) -> Result<Option<SignedReceipt>> {
    let query = "SELECT receipts.* FROM receipts JOIN tasks ON number = receipts.task WHERE tasks.task = ?1";
    tx.query_row(query, [task.to_string()], |row| {
        let signature: Vec<u8> = row.get("signature")?;
        let signature = Signature::from_raw(&signature)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        let hash = digest(row, "stream_hash")?.unwrap_or_default();
        let (node, seq) = (NodeId(row.get("node")?), row.get("seq")?);
        Ok(SignedReceipt { receipt: StreamReceipt::new(*task, node, seq, hash), signature })
    })
    .optional()
}

/// The router has shown an answer: is another one of the same node committed already?
pub fn announced(tx: &Transaction<'_>, task: &TaskId, shown: B256, at_ms: u64) -> Result<()> {
    let committed = known_digest(
        tx,
        "SELECT a.output_digest FROM tasks t JOIN answers a ON a.task = t.number AND a.node = t.node
         WHERE t.task = ?1",
        params![task.to_string()],
    )?;
    compare(tx, task, shown, committed, at_ms)
}

/// A node committed an answer: if the router has shown one of it, is it the same?
pub fn committed(
    tx: &Transaction<'_>,
    task: &TaskId,
    (node, digest): (NodeId, B256),
    at_ms: u64,
) -> Result<()> {
    let shown = known_digest(
        tx,
        "SELECT output_digest FROM tasks WHERE task = ?1 AND node = ?2 AND answer = 'complete'",
        params![task.to_string(), node.0],
    )?;
    compare(tx, task, digest, shown, at_ms)
}

fn known_digest(
    tx: &Transaction<'_>,
    query: &str,
    about: impl rusqlite::Params,
) -> Result<Option<B256>> {
    let mut query = tx.prepare_cached(query)?;
    Ok(query.query_row(about, |row| digest(row, "output_digest")).optional()?.flatten())
}

fn compare(
    tx: &Transaction<'_>,
    task: &TaskId,
    one: B256,
    other: Option<B256>,
    at_ms: u64,
) -> Result<()> {
    let Some(other) = other.filter(|other| *other != one) else { return Ok(()) };
    tracing::warn!(%task, %one, %other, "a node committed another answer than it announced");
    let detail = format!("the node announced one answer and committed another: {one}, {other}");
    happened(tx, task, CONTRADICTED, at_ms, Some(&detail))
}
