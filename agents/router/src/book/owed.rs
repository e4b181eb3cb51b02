//! What the router still owes when it stops or is killed: request blocks that are not pinned, and tasks that a
//! node accepted and that the chain does not have.

use alloy::sol_types::SolValue;
use assay_store::Bytes;
use assay_types::{TaskId, TaskRequest};
use rusqlite::{Result, Transaction, params};

use super::sql::run;

/// Request blocks until they are pinned, and the requests of tasks.
pub const TABLES: &str = "
CREATE TABLE pins (
    task TEXT PRIMARY KEY,
    block BLOB NOT NULL,
    since_ms INTEGER NOT NULL
) STRICT;
ALTER TABLE tasks ADD COLUMN request BLOB; -- ABI encoding; NULL for a task of another life of the lane
";

/// A task is offered: its request block is kept until it is pinned.
pub fn save(tx: &Transaction<'_>, task: &TaskId, block: &Bytes, at_ms: u64) -> Result<()> {
    run(
        tx,
        "INSERT OR IGNORE INTO pins (task, block, since_ms)
         SELECT number, ?2, ?3 FROM tasks WHERE task = ?1",
        params![task.to_string(), block.as_ref(), i64::try_from(at_ms).unwrap_or(i64::MAX)],
    )?;
    Ok(())
}

/// A block is pinned, or never will be.
pub fn forget_pin(tx: &Transaction<'_>, task: &TaskId) -> Result<()> {
    run(
        tx,
        "DELETE FROM pins WHERE task = (SELECT number FROM tasks WHERE task = ?1)",
        [task.to_string()],
    )?;
    Ok(())
}

/// A request block that is not pinned.
#[derive(Clone, Debug)]
pub struct Unpinned {
    /// Its task.
    pub task: TaskId,
    /// The block.
    pub block: Bytes,
    /// Unix milliseconds.
    pub since_ms: u64,
}

/// Blocks that wait since `before_ms` or longer, the oldest first.
pub fn unpinned(tx: &Transaction<'_>, before_ms: u64, limit: u32) -> Result<Vec<Unpinned>> {
    let mut query = tx.prepare(
        "SELECT tasks.task, block, since_ms FROM pins JOIN tasks ON number = pins.task
             WHERE since_ms <= ?1 ORDER BY since_ms LIMIT ?2",
    )?;
    let before = i64::try_from(before_ms).unwrap_or(i64::MAX);
    let rows = query.query_map(params![before, limit], |row| {
        let task: String = row.get("task")?;
        let block: Vec<u8> = row.get("block")?;
        let since_ms = u64::try_from(row.get::<_, i64>("since_ms")?).unwrap_or_default();
        Ok(Unpinned { task: task.parse().unwrap_or_default(), block: block.into(), since_ms })
    })?;
    rows.collect()
}

/// Tasks that a node accepted, that the chain does not have, and that it still takes at `now_s`.
pub fn unsubmitted(tx: &Transaction<'_>, now_s: u64) -> Result<Vec<(TaskId, TaskRequest)>> {
    let mut query = tx.prepare(
        "SELECT task, request FROM tasks
         WHERE chain_state = 'none' AND request IS NOT NULL AND deadline > ?1
            AND EXISTS (SELECT 1 FROM timeline t WHERE t.task = tasks.number AND t.event = 'accepted')
            AND NOT EXISTS (
                SELECT 1 FROM timeline t WHERE t.task = tasks.number AND t.event = 'submission_failed')
         ORDER BY nonce",
    )?;
    let now = i64::try_from(now_s).unwrap_or(i64::MAX);
    let rows = query.query_map([now], |row| {
        let task: String = row.get("task")?;
        let request: Vec<u8> = row.get("request")?;
        let request = TaskRequest::abi_decode(&request)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        Ok((task.parse().unwrap_or_default(), request))
    })?;
    rows.collect()
}
