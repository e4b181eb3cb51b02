//! What each key has used, out of the router's database, also while the router runs.

use std::{collections::BTreeMap, path::Path};

use rusqlite::{Connection, OpenFlags, Row};
use serde::Serialize;

use super::file::KeysError;
use crate::{clock::now_s, journal::DATABASE_FILE};

/// What a key has used in one period of its budget, or in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Answers that were asked for.
    pub tasks: u64,
    /// Tokens of the prompts of those that are complete.
    pub prompt_tokens: u64,
    /// Tokens of complete answers.
    pub output_tokens: u64,
    /// Fees of settled answers and tips of refunded ones, minor units.
    pub spent: u128,
    /// Held by open ones, minor units.
    pub held: u128,
}

/// By key, and by period counted from 0.
pub type Usages = BTreeMap<String, BTreeMap<u64, Usage>>;

/// Reads what the keys of a router have used; nothing if it never ran.
///
/// # Errors
/// If the database cannot be read.
pub fn usages(folder: &Path) -> Result<Usages, KeysError> {
    let path = folder.join(DATABASE_FILE);
    if !path.exists() {
        return Ok(Usages::new());
    }
    read(&path).map_err(|source| KeysError::Sqlite { path, source })
}

fn read(path: &Path) -> rusqlite::Result<Usages> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut usages = Usages::new();
    let mut query = connection.prepare("SELECT * FROM key_totals")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let usage = of(&mut usages, row.get("api_key")?, row.get("period")?);
        usage.tasks += count(row, "tasks")?;
        usage.prompt_tokens += count(row, "prompt_tokens")?;
        usage.output_tokens += count(row, "output_tokens")?;
        usage.spent = usage.spent.saturating_add(amount(row, "spent")?);
    }
    let mut query = connection.prepare("SELECT * FROM tasks WHERE api_key IS NOT NULL")?;
    let mut rows = query.query([])?;
    let now_s = now_s();
    while let Some(row) = rows.next()? {
        let usage = of(&mut usages, row.get("api_key")?, row.get("key_period")?);
        usage.tasks += 1;
        usage.prompt_tokens += count(row, "prompt_tokens")?;
        usage.output_tokens += count(row, "output_tokens")?;
        let (state, answer): (String, String) = (row.get("chain_state")?, row.get("answer")?);
        let gone = answer == "declined" || count(row, "deadline")? < now_s;
        match state.as_str() {
            "settled" => usage.spent = usage.spent.saturating_add(amount(row, "fee")?),
            "refunded" => usage.spent = usage.spent.saturating_add(amount(row, "tip")?),
            "none" if gone => {}
            _ => usage.held = usage.held.saturating_add(amount(row, "hold")?),
        }
    }
    Ok(usages)
}

fn of(usages: &mut Usages, key: String, period: i64) -> &mut Usage {
    usages.entry(key).or_default().entry(u64::try_from(period).unwrap_or_default()).or_default()
}

fn count(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    Ok(row.get::<_, Option<i64>>(column)?.and_then(|n| u64::try_from(n).ok()).unwrap_or_default())
}

fn amount(row: &Row<'_>, column: &str) -> rusqlite::Result<u128> {
    let text: Option<String> = row.get(column)?;
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or_default())
}
