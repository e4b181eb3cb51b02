//! Which API key pays for which task.

use assay_types::TaskId;
use rusqlite::{Result, Row, Transaction, params};

use super::sql::{amount, int, run, unsigned_or_null};

/// Who pays for each task, and what the tasks that have left the database took.
pub const TABLES: &str = "
ALTER TABLE tasks ADD COLUMN api_key TEXT;       -- id of the key that pays; NULL: none
ALTER TABLE tasks ADD COLUMN key_period INTEGER; -- of its budget, counted from 0
CREATE TABLE key_totals (
    api_key TEXT NOT NULL, period INTEGER NOT NULL,
    tasks INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    spent TEXT NOT NULL, -- decimal, minor units
    PRIMARY KEY (api_key, period)
) STRICT;
";

/// An API key, in one period of its budget. A task belongs to the period of its deadline, so that the database and
/// whoever asks before it is written agree.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Payer {
    /// Id of the key.
    pub key: String,
    /// Counted from 0.
    pub period: u64,
}

impl Payer {
    /// Who pays for the task of a row.
    pub(super) fn read(row: &Row<'_>) -> Result<Option<Self>> {
        let key: Option<String> = row.get("api_key")?;
        let period = unsigned_or_null(row, "key_period")?.unwrap_or_default();
        Ok(key.map(|key| Self { key, period }))
    }
}

/// The key that pays for a task, or none.
pub(super) fn key_of(tx: &Transaction<'_>, task: &TaskId) -> Result<Option<String>> {
    let mut query = tx.prepare_cached("SELECT api_key FROM tasks WHERE task = ?1")?;
    query.query_row([task.to_string()], |row| row.get(0))
}

/// What the keys paid for tasks that have left the database.
pub(super) fn spent(tx: &Transaction<'_>) -> Result<Vec<(Payer, u128)>> {
    let mut query = tx.prepare("SELECT api_key, period AS key_period, spent FROM key_totals")?;
    let rows = query.query_map([], |row| {
        let payer = Payer::read(row)?;
        Ok(payer.zip(Some(amount(row.get("spent")?))))
    })?;
    rows.filter_map(Result::transpose).collect()
}

/// Tasks that are about to leave the database.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Leaving {
    pub tasks: i64,
    pub prompt_tokens: i64,
    pub output_tokens: i64,
    pub spent: u128,
}

/// Keeps what tasks took that leave the database.
pub(super) fn keep(tx: &Transaction<'_>, payer: &Payer, gone: Leaving) -> Result<()> {
    let about = params![payer.key, int(payer.period)];
    let mut query =
        tx.prepare("SELECT spent FROM key_totals WHERE api_key = ?1 AND period = ?2")?;
    let before: Option<String> = query.query_map(about, |row| row.get(0))?.next().transpose()?;
    run(
        tx,
        "INSERT INTO key_totals VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (api_key, period) DO UPDATE SET tasks = tasks + excluded.tasks,
            prompt_tokens = prompt_tokens + excluded.prompt_tokens,
            output_tokens = output_tokens + excluded.output_tokens, spent = excluded.spent",
        params![
            payer.key,
            int(payer.period),
            gone.tasks,
            gone.prompt_tokens,
            gone.output_tokens,
            amount(before).saturating_add(gone.spent).to_string(),
        ],
    )?;
    Ok(())
}
