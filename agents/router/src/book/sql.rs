//! How values stand in the database, and how it is asked.

use assay_types::B256;
use rusqlite::{Params, Result, Row, Transaction};

/// SQLite's integers are signed; ours stay far below that. What does not is stored as the largest.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Executes a statement that is prepared once for each connection: to prepare costs several times what it does.
pub(super) fn run(tx: &Transaction<'_>, sql: &str, about: impl Params) -> Result<usize> {
    tx.prepare_cached(sql)?.execute(about)
}

pub(super) fn unsigned(row: &Row<'_>, column: &str) -> Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or_default())
}

pub(super) fn unsigned_or_null(row: &Row<'_>, column: &str) -> Result<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(column)?.and_then(|v| u64::try_from(v).ok()))
}

pub(super) fn amount(text: Option<String>) -> u128 {
    text.and_then(|t| t.parse().ok()).unwrap_or_default()
}

pub(super) fn digest(row: &Row<'_>, column: &str) -> Result<Option<B256>> {
    Ok(row.get::<_, Option<String>>(column)?.and_then(|text| text.parse().ok()))
}
