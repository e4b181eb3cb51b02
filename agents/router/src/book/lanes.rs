//! What the lanes' tasks cost, and which nonces are taken.

use assay_types::{SessionId, TaskId};
use rusqlite::{Result, Transaction, params};

use super::{
    payers::{self, Payer},
    purse::Charge,
    sql::{amount, int, run, unsigned},
};
use crate::config::{NONCE_BATCH, NONCE_LAG, NONCE_WINDOW};

/// What the tasks of a lane cost.
#[derive(Clone, Debug, Default)]
pub struct Charges {
    /// Of those that have left the database.
    pub spent: Vec<(SessionId, u128)>,
    /// The same by the key that paid.
    pub spent_by_keys: Vec<(Payer, u128)>,
    /// Of the others.
    pub tasks: Vec<Charged>,
}

/// What one task costs.
#[derive(Clone, Debug)]
pub struct Charged {
    /// Its session.
    pub session: SessionId,
    /// The task.
    pub task: TaskId,
    /// What it takes.
    pub charge: Charge,
    /// Whether that will not change.
    pub is_final: bool,
    /// The key that pays, if one does.
    pub payer: Option<Payer>,
}

/// What the tasks of all lanes cost.
pub fn charges(tx: &Transaction<'_>) -> Result<Charges> {
    let mut query = tx.prepare("SELECT session, spent FROM lanes WHERE spent <> '0'")?;
    let spent = query.query_map([], |row| {
        Ok((SessionId(unsigned(row, "session")?), amount(row.get("spent")?)))
    })?;
    let spent = spent.collect::<Result<_>>()?;
    let mut query = tx.prepare(
        "SELECT task, session, deadline, hold, fee, tip, chain_state, api_key, key_period FROM tasks
         WHERE answer NOT IN ('declined') OR chain_state <> 'none'",
    )?;
    let tasks = query.query_map([], |row| {
        let state: String = row.get("chain_state")?;
        let amount = match state.as_str() {
            "settled" => amount(row.get("fee")?),
            "refunded" => amount(row.get("tip")?),
            _ => amount(row.get("hold")?),
        };
        let is_final = state == "settled" || state == "refunded";
        let task: String = row.get("task")?;
        let charge =
            Charge { amount, deadline: unsigned(row, "deadline")?, on_chain: state != "none" };
        let (task, session) = (task.parse().unwrap_or_default(), unsigned(row, "session")?);
        let (session, payer) = (SessionId(session), Payer::read(row)?);
        Ok(Charged { session, task, charge, is_final, payer })
    })?;
    let spent_by_keys = payers::spent(tx)?;
    Ok(Charges { spent, spent_by_keys, tasks: tasks.collect::<Result<_>>()? })
}

/// One more than the largest nonce that the chain has, of each session.
pub fn next_on_chain(tx: &Transaction<'_>) -> Result<Vec<(SessionId, u64)>> {
    let mut query = tx.prepare(
        "SELECT session, max(next) AS next FROM (
            SELECT session, nonce + 1 AS next FROM tasks WHERE chain_state <> 'none'
            UNION ALL SELECT session, next_on_chain FROM lanes
         ) GROUP BY session",
    )?;
    let rows = query
        .query_map([], |row| Ok((SessionId(unsigned(row, "session")?), unsigned(row, "next")?)))?;
    rows.collect()
}

/// Takes the next nonces of a session for this process, from the first up to before the second: a batch, fewer the
/// farther they are ahead of the chain, where a crash must not lose many, and none where the contract would not take them
/// yet.
pub fn take_nonces(
    tx: &Transaction<'_>,
    session: SessionId,
    next_on_chain: u64,
) -> Result<(u64, u64)> {
    run(
        tx,
        "INSERT OR IGNORE INTO lanes (session, next_nonce) VALUES (?1, 0)",
        params![int(session.0)],
    )?;
    let mut query = tx.prepare_cached("SELECT next_nonce FROM lanes WHERE session = ?1")?;
    let start = query.query_row(params![int(session.0)], |row| unsigned(row, "next_nonce"))?;
    let count = match start.saturating_sub(next_on_chain) {
        lead if lead >= NONCE_WINDOW => 0,
        lead => NONCE_LAG.saturating_sub(lead).clamp(1, NONCE_BATCH),
    };
    let end = start.saturating_add(count);
    run(
        tx,
        "UPDATE lanes SET next_nonce = ?2 WHERE session = ?1",
        params![int(session.0), int(end)],
    )?;
    Ok((start, end))
}

/// Gives back nonces from `first` on, if nobody took others after `end`.
pub fn return_nonces(tx: &Transaction<'_>, session: SessionId, first: u64, end: u64) -> Result<()> {
    run(
        tx,
        "UPDATE lanes SET next_nonce = ?2 WHERE session = ?1 AND next_nonce = ?3",
        params![int(session.0), int(first), int(end)],
    )?;
    Ok(())
}
