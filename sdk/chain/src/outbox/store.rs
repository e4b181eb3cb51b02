//! The outbox's tables.

use std::sync::Arc;

use alloy::primitives::{Address, B256, Bytes, U256};
use rusqlite::{OptionalExtension, Row as SqlRow, Transaction, params};

use super::Intent;
use super::fees::Fees;
use crate::{BlockRef, Database, DatabaseError};

/// How many transactions are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutboxStatus {
    /// Stored, not yet accepted by a node.
    pub signed: u64,
    /// Accepted, not yet mined.
    pub sent: u64,
    /// Mined with success.
    pub mined: u64,
    /// Mined with failure, or given up.
    pub failed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Signed,
    Sent,
    Mined,
    Failed,
}

impl State {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "signed" => Some(Self::Signed),
            "sent" => Some(Self::Sent),
            "mined" => Some(Self::Mined),
            "failed" => Some(Self::Failed),
            _ => None,
        }
    }
}

/// A signed version of a transaction.
#[derive(Debug, Clone)]
pub(super) struct NewAttempt {
    pub hash: B256,
    pub raw: Bytes,
    pub nonce: u64,
    pub fees: Fees,
    /// Uses up the nonce and nothing else.
    pub empty: bool,
}

pub(super) struct NewRow<'a> {
    pub intent: &'a Intent,
    pub gas_limit: u64,
    pub attempt: &'a NewAttempt,
}

/// Where a transaction was mined.
pub(super) struct Mined<'a> {
    pub block: BlockRef,
    /// JSON.
    pub receipt: &'a str,
}

/// A row with its attempts, newest first.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub id: i64,
    pub intent: Intent,
    pub gas_limit: u64,
    pub state: State,
    pub receipt: Option<String>,
    pub reason: Option<String>,
    pub attempts: Vec<NewAttempt>,
}

/// The rows of one account.
#[derive(Debug)]
pub(super) struct Store {
    db: Arc<Database>,
    account: Address,
}

type Sql<T> = rusqlite::Result<T>;

fn malformed(column: usize, what: &'static str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Null, what.into())
}

fn read_row(row: &SqlRow<'_>) -> Sql<Row> {
    let state: String = row.get("state")?;
    let to: Vec<u8> = row.get("recipient")?;
    let value: Vec<u8> = row.get("value")?;
    Ok(Row {
        id: row.get("id")?,
        intent: Intent {
            key: row.get("key")?,
            to: Address::try_from(to.as_slice()).map_err(|_| malformed(2, "recipient"))?,
            data: Bytes::from(row.get::<_, Vec<u8>>("data")?),
            value: U256::try_from_be_slice(&value).ok_or_else(|| malformed(4, "value"))?,
            // In the gas limit.
            spare_gas: 0,
        },
        gas_limit: row.get::<_, i64>("gas_limit")? as u64,
        state: State::parse(&state).ok_or_else(|| malformed(7, "state"))?,
        receipt: row.get("receipt")?,
        reason: row.get("reason")?,
        attempts: Vec::new(),
    })
}

fn read_attempt(row: &SqlRow<'_>) -> Sql<NewAttempt> {
    let hash: Vec<u8> = row.get("hash")?;
    let fee = |name: &str| -> Sql<u128> {
        row.get::<_, String>(name)?.parse().map_err(|_| malformed(3, "fee"))
    };
    Ok(NewAttempt {
        hash: B256::try_from(hash.as_slice()).map_err(|_| malformed(0, "hash"))?,
        raw: Bytes::from(row.get::<_, Vec<u8>>("raw")?),
        nonce: row.get::<_, i64>("nonce")? as u64,
        fees: Fees { max: fee("max_fee")?, tip: fee("max_tip")? },
        empty: row.get("empty")?,
    })
}

fn add_attempt(tx: &Transaction<'_>, id: i64, attempt: &NewAttempt) -> Sql<()> {
    tx.prepare_cached(
        "INSERT INTO outbox_attempts (hash, outbox_id, raw, nonce, max_fee, max_tip, number, empty)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, COUNT(*), ?7 FROM outbox_attempts WHERE outbox_id = ?2",
    )?
    .execute(params![
        attempt.hash.as_slice(),
        id,
        attempt.raw.as_ref(),
        attempt.nonce as i64,
        attempt.fees.max.to_string(),
        attempt.fees.tip.to_string(),
        attempt.empty
    ])?;
    Ok(())
}

fn with_attempts(tx: &Transaction<'_>, row: Option<Row>) -> Sql<Option<Row>> {
    let Some(mut row) = row else { return Ok(None) };
    row.attempts = tx
        .prepare_cached("SELECT * FROM outbox_attempts WHERE outbox_id = ? ORDER BY number DESC")?
        .query_map([row.id], read_attempt)?
        .collect::<Sql<_>>()?;
    Ok(Some(row))
}

/// What was mined in a block that was reverted is open again.
pub(crate) fn reopen_reverted(tx: &Transaction<'_>, at: BlockRef) -> Sql<()> {
    tx.prepare_cached(
        "UPDATE outbox SET state = 'sent', receipt = NULL, block_number = NULL, block_hash = NULL
         WHERE block_number = ? AND block_hash = ?",
    )?
    .execute(params![at.number as i64, at.hash.as_slice()])
    .map(drop)
}

/// What was mined in another block of this height, which the agent never saw, is open again.
pub(crate) fn reopen_other(tx: &Transaction<'_>, at: BlockRef) -> Sql<()> {
    tx.prepare_cached(
        "UPDATE outbox SET state = 'sent', receipt = NULL, block_number = NULL, block_hash = NULL
         WHERE block_number = ? AND block_hash <> ?",
    )?
    .execute(params![at.number as i64, at.hash.as_slice()])
    .map(drop)
}

impl Store {
    pub(super) fn new(db: Arc<Database>, account: Address) -> Self {
        Self { db, account }
    }

    pub(super) fn find(&self, key: &str) -> Result<Option<Row>, DatabaseError> {
        self.db.transaction(|tx| {
            let row = tx
                .prepare_cached("SELECT * FROM outbox WHERE account = ? AND key = ?")?
                .query_row(params![self.account.as_slice(), key], read_row)
                .optional()?;
            with_attempts(tx, row)
        })
    }

    pub(super) fn load(&self, id: i64) -> Result<Option<Row>, DatabaseError> {
        self.db.transaction(|tx| {
            let row = tx
                .prepare_cached("SELECT * FROM outbox WHERE id = ?")?
                .query_row([id], read_row)
                .optional()?;
            with_attempts(tx, row)
        })
    }

    /// An open row that makes the same call.
    pub(super) fn open_equal(&self, intent: &Intent) -> Result<Option<i64>, DatabaseError> {
        self.db.transaction(|tx| {
            tx.prepare_cached(
                "SELECT id FROM outbox WHERE account = ? AND state IN ('signed', 'sent')
                 AND recipient = ? AND data = ? AND value = ? LIMIT 1",
            )?
            .query_row(
                params![
                    self.account.as_slice(),
                    intent.to.as_slice(),
                    intent.data.as_ref(),
                    intent.value.to_be_bytes::<32>()
                ],
                |row| row.get(0),
            )
            .optional()
        })
    }

    /// Stores a signed transaction; returns its row.
    pub(super) fn insert(&self, new: &NewRow<'_>) -> Result<i64, DatabaseError> {
        self.db.transaction(|tx| {
            tx.prepare_cached(
                "INSERT INTO outbox (account, key, recipient, data, value, gas_limit, nonce, state)
                 VALUES (?, ?, ?, ?, ?, ?, ?, 'signed')",
            )?
            .execute(params![
                self.account.as_slice(),
                new.intent.key,
                new.intent.to.as_slice(),
                new.intent.data.as_ref(),
                new.intent.value.to_be_bytes::<32>(),
                new.gas_limit as i64,
                new.attempt.nonce as i64
            ])?;
            let id = tx.last_insert_rowid();
            add_attempt(tx, id, new.attempt)?;
            Ok(id)
        })
    }

    /// Adds a signed version; it may have another nonce than the one before.
    pub(super) fn add_attempt(&self, id: i64, attempt: &NewAttempt) -> Result<(), DatabaseError> {
        self.db.transaction(|tx| {
            tx.execute(
                "UPDATE outbox SET nonce = ?, state = 'signed' WHERE id = ?",
                params![attempt.nonce as i64, id],
            )?;
            add_attempt(tx, id, attempt)
        })
    }

    /// Says why a transaction is given up; its state changes when its nonce is used up.
    pub(super) fn give_up(&self, id: i64, reason: &str) -> Result<(), DatabaseError> {
        self.db.transaction(|tx| {
            tx.execute("UPDATE outbox SET reason = ? WHERE id = ?", params![reason, id]).map(drop)
        })
    }

    pub(super) fn mark_sent(&self, id: i64) -> Result<(), DatabaseError> {
        self.db.transaction(|tx| {
            tx.execute("UPDATE outbox SET state = 'sent' WHERE id = ? AND state = 'signed'", [id])
                .map(drop)
        })
    }

    pub(super) fn mark_mined(
        &self,
        id: i64,
        nonce: u64,
        mined: &Mined<'_>,
    ) -> Result<(), DatabaseError> {
        let (number, hash) = (mined.block.number as i64, mined.block.hash);
        self.db.transaction(|tx| {
            tx.execute(
                "UPDATE outbox SET state = 'mined', nonce = ?, receipt = ?, reason = NULL,
                 block_number = ?, block_hash = ? WHERE id = ?",
                params![nonce as i64, mined.receipt, number, hash.as_slice(), id],
            )
            .map(drop)
        })
    }

    /// `mined` is `None` if the transaction itself was never mined.
    pub(super) fn mark_failed(
        &self,
        id: i64,
        nonce: u64,
        mined: Option<&Mined<'_>>,
        reason: &str,
    ) -> Result<(), DatabaseError> {
        let (receipt, number) = mined.map(|at| (at.receipt, at.block.number as i64)).unzip();
        let hash = mined.map(|at| at.block.hash.to_vec());
        self.db.transaction(|tx| {
            tx.execute(
                "UPDATE outbox SET state = 'failed', nonce = ?, receipt = ?, reason = ?,
                 block_number = ?, block_hash = ? WHERE id = ?",
                params![nonce as i64, receipt, reason, number, hash, id],
            )
            .map(drop)
        })
    }

    /// Rows that are not finished, by nonce.
    pub(super) fn open_rows(&self) -> Result<Vec<i64>, DatabaseError> {
        self.db.transaction(|tx| {
            tx.prepare_cached(
                "SELECT id FROM outbox WHERE account = ? AND state IN ('signed', 'sent') ORDER BY nonce",
            )?
            .query_map([self.account.as_slice()], |row| row.get(0))?
            .collect()
        })
    }

    /// First nonce that no row has.
    pub(super) fn next_nonce(&self) -> Result<u64, DatabaseError> {
        self.db.transaction(|tx| self.next_nonce_in(tx))
    }

    fn next_nonce_in(&self, tx: &Transaction<'_>) -> Sql<u64> {
        let highest: Option<i64> = tx
            .prepare_cached("SELECT MAX(nonce) FROM outbox WHERE account = ?")?
            .query_row([self.account.as_slice()], |row| row.get(0))?;
        Ok(highest.map_or(0, |nonce| nonce as u64 + 1))
    }

    /// Lowest nonce that, as far as we know, is not used on the chain: of the open rows, or the next one.
    /// The chain's own count can only be lower if it lost blocks. `None` without any row.
    pub(super) fn lowest_unsettled(&self) -> Result<Option<u64>, DatabaseError> {
        self.db.transaction(|tx| match self.lowest_open_in(tx)? {
            Some(nonce) => Ok(Some(nonce)),
            None => Ok(Some(self.next_nonce_in(tx)?).filter(|next| *next > 0)),
        })
    }

    /// Lowest nonce of the open rows.
    pub(super) fn lowest_open(&self) -> Result<Option<u64>, DatabaseError> {
        self.db.transaction(|tx| self.lowest_open_in(tx))
    }

    fn lowest_open_in(&self, tx: &Transaction<'_>) -> Sql<Option<u64>> {
        let open: Option<i64> = tx
            .prepare_cached(
                "SELECT MIN(nonce) FROM outbox WHERE account = ? AND state IN ('signed', 'sent')",
            )?
            .query_row([self.account.as_slice()], |row| row.get(0))?;
        Ok(open.map(|nonce| nonce as u64))
    }

    /// Finished rows whose nonce is free on the chain are open again; returns how many.
    pub(super) fn reopen_from(&self, count: u64) -> Result<usize, DatabaseError> {
        self.db.transaction(|tx| {
            tx.execute(
                "UPDATE outbox SET state = 'signed', receipt = NULL, block_number = NULL, block_hash = NULL
                 WHERE account = ? AND nonce >= ? AND state IN ('mined', 'failed')
                   AND receipt IS NOT NULL",
                params![self.account.as_slice(), count as i64],
            )
        })
    }

    /// Blocks that the agent has taken in at heights where a receipt is of another block.
    pub(super) fn contradicted(&self) -> Result<Vec<BlockRef>, DatabaseError> {
        self.db.transaction(|tx| {
            tx.prepare_cached(
                "SELECT DISTINCT number, hash FROM outbox JOIN chain_blocks ON number = block_number
                 WHERE account = ? AND block_hash <> hash",
            )?
            .query_map([self.account.as_slice()], |row| {
                let hash: Vec<u8> = row.get(1)?;
                let hash = B256::try_from(hash.as_slice()).map_err(|_| malformed(1, "hash"))?;
                Ok(BlockRef { number: row.get::<_, i64>(0)? as u64, hash })
            })?
            .collect()
        })
    }

    /// See [`reopen_other`].
    pub(super) fn reopen_other(&self, at: BlockRef) -> Result<(), DatabaseError> {
        self.db.transaction(|tx| reopen_other(tx, at))
    }

    /// Forgets all but the newest finished rows.
    pub(super) fn prune(&self, keep: u64) -> Result<(), DatabaseError> {
        self.db.transaction(|tx| {
            tx.execute(
                "DELETE FROM outbox WHERE account = ?1 AND state IN ('mined', 'failed') AND id <= (
                     SELECT id FROM outbox WHERE account = ?1 AND state IN ('mined', 'failed')
                     ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                params![self.account.as_slice(), keep as i64],
            )
            .map(drop)
        })
    }

    pub(super) fn status(&self) -> Result<OutboxStatus, DatabaseError> {
        self.db.transaction(|tx| {
            let mut status = OutboxStatus::default();
            let mut statement = tx.prepare_cached(
                "SELECT state, COUNT(*) FROM outbox WHERE account = ? GROUP BY state",
            )?;
            let rows = statement.query_map([self.account.as_slice()], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)? as u64))
            })?;
            for row in rows {
                let (state, count) = row?;
                match State::parse(&state) {
                    Some(State::Signed) => status.signed = count,
                    Some(State::Sent) => status.sent = count,
                    Some(State::Mined) => status.mined = count,
                    Some(State::Failed) => status.failed = count,
                    None => return Err(malformed(0, "state")),
                }
            }
            Ok(status)
        })
    }
}
