//! The durable cursor: the newest blocks that the agent has taken in.

use alloy::primitives::{B256, Bytes, LogData};
use rusqlite::{OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};

use crate::event::{Block, BlockRef, Event, ProtocolEvent};
use crate::outbox::{reopen_other, reopen_reverted};

/// How many blocks are kept for walking back. Ethereum finalises within 96 blocks; rollups do not
/// reorganise except in disasters.
pub const KEPT_BLOCKS: u64 = 256;

/// The consumer's calls do not follow the chain: a defect of the agent.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// Neither the next block nor the newest one.
    #[error(
        "block {number} ({hash}) is neither the child of the cursor at {cursor} nor the cursor \
         itself; save every block once, in the order in which it came"
    )]
    OutOfOrder {
        /// Number of the block.
        number: u64,
        /// Hash of the block.
        hash: B256,
        /// Number of the cursor.
        cursor: u64,
    },
    /// A row of the table cannot be read.
    #[error("stored block {number} cannot be read: {reason}; restore the database from a backup")]
    Corrupt {
        /// Number of the block.
        number: u64,
        /// What is wrong.
        reason: String,
    },
}

/// An event as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredEvent {
    tx_hash: B256,
    log_index: u64,
    topics: Vec<B256>,
    data: Bytes,
}

fn failure(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

/// Moves the cursor in the consumer's transaction, so that what a block taught and the cursor are stored
/// together or not at all: onto a block that was committed, or, if the block is the cursor itself and was
/// therefore reverted, back to its parent. What the outbox saw mined in a block that is not canonical is
/// open again with it.
///
/// # Errors
/// From SQLite, or a [`CursorError`] if the block does not follow.
pub fn save_cursor(tx: &Transaction<'_>, at: &Block) -> rusqlite::Result<()> {
    match cursor_at(tx)? {
        Some(tip) if tip == at.at => step_back(tx, at),
        Some(tip) if tip.hash == at.parent && tip.number.checked_add(1) == Some(at.at.number) => {
            step_on(tx, at)
        }
        None => step_on(tx, at),
        Some(tip) => Err(failure(CursorError::OutOfOrder {
            number: at.at.number,
            hash: at.at.hash,
            cursor: tip.number,
        })),
    }
}

fn step_on(tx: &Transaction<'_>, at: &Block) -> rusqlite::Result<()> {
    let events: Vec<StoredEvent> = at.events.iter().map(StoredEvent::from).collect();
    let events = serde_json::to_string(&events).map_err(failure)?;
    tx.prepare_cached(
        "INSERT INTO chain_blocks (number, hash, parent, timestamp, events) VALUES (?, ?, ?, ?, ?)",
    )?
    .execute(params![
        at.at.number as i64,
        at.at.hash.as_slice(),
        at.parent.as_slice(),
        at.timestamp as i64,
        events
    ])?;
    // Signed on purpose: below zero there is nothing to delete.
    tx.prepare_cached("DELETE FROM chain_blocks WHERE number <= ?")?
        .execute([at.at.number as i64 - KEPT_BLOCKS as i64])?;
    reopen_other(tx, at.at)
}

fn step_back(tx: &Transaction<'_>, at: &Block) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM chain_blocks WHERE number = ?", [at.at.number as i64])?;
    reopen_reverted(tx, at.at)
}

/// Where the agent stands; `None` if it has taken in no block yet.
///
/// # Errors
/// From SQLite.
pub fn load_cursor(tx: &Transaction<'_>) -> rusqlite::Result<Option<BlockRef>> {
    cursor_at(tx)
}

impl From<&Event> for StoredEvent {
    fn from(event: &Event) -> Self {
        let log = event.body.encode();
        Self {
            tx_hash: event.tx_hash,
            log_index: event.log_index,
            topics: log.topics().to_vec(),
            data: log.data,
        }
    }
}

impl StoredEvent {
    fn restore(self) -> Result<Event, String> {
        let log = LogData::new(self.topics, self.data).ok_or("a log with more than four topics")?;
        let body = ProtocolEvent::from_log(&log)
            .map_err(|error| error.to_string())?
            .ok_or("an event that this program does not know")?;
        Ok(Event { tx_hash: self.tx_hash, log_index: self.log_index, body })
    }
}

fn cursor_at(tx: &Transaction<'_>) -> rusqlite::Result<Option<BlockRef>> {
    tx.prepare_cached("SELECT number, hash FROM chain_blocks ORDER BY number DESC LIMIT 1")?
        .query_row([], |row| {
            Ok(BlockRef { number: row.get::<_, i64>(0)? as u64, hash: hash_of(row, 1)? })
        })
        .optional()
}

fn hash_of(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<B256> {
    let bytes: Vec<u8> = row.get(column)?;
    B256::try_from(bytes.as_slice()).map_err(failure)
}

/// The kept blocks, oldest first.
pub(crate) fn load_blocks(tx: &Transaction<'_>) -> rusqlite::Result<Vec<Block>> {
    let mut statement = tx.prepare(
        "SELECT number, hash, parent, timestamp, events FROM chain_blocks ORDER BY number",
    )?;
    let rows = statement.query_map([], |row| {
        let number = row.get::<_, i64>(0)? as u64;
        let corrupt = |reason: String| failure(CursorError::Corrupt { number, reason });
        let events: String = row.get(4)?;
        let events: Vec<StoredEvent> =
            serde_json::from_str(&events).map_err(|error| corrupt(error.to_string()))?;
        Ok(Block {
            at: BlockRef { number, hash: hash_of(row, 1)? },
            parent: hash_of(row, 2)?,
            timestamp: row.get::<_, i64>(3)? as u64,
            events: events
                .into_iter()
                .map(StoredEvent::restore)
                .collect::<Result<_, _>>()
                .map_err(corrupt)?,
        })
    })?;
    rows.collect()
}

/// Binds the database to one chain: the hash of block 0 is stored once and compared ever after.
/// Returns the stored hash.
pub(crate) fn bind_genesis(tx: &Transaction<'_>, genesis: B256) -> rusqlite::Result<B256> {
    tx.execute(
        "INSERT OR IGNORE INTO chain_facts (name, value) VALUES ('genesis', ?)",
        [genesis.as_slice()],
    )?;
    tx.query_row("SELECT value FROM chain_facts WHERE name = 'genesis'", [], |row| hash_of(row, 0))
}
