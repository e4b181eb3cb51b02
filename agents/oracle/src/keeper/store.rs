//! Where the keeper's items and the journal of their changes are kept.

use std::collections::VecDeque;

use assay_chain::{ChainEvent, Database, DatabaseError, KEPT_BLOCKS, save_cursor};
use rusqlite::{Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::state::{Change, Items};

/// Tables of the keeper, see [`Database::open`].
pub(crate) const MIGRATIONS: [&str; 1] = ["
    -- Sessions and tasks that are not in their final state; JSON.
    CREATE TABLE keeper_items (key TEXT PRIMARY KEY, item TEXT NOT NULL) STRICT, WITHOUT ROWID;
    -- What the newest blocks changed, to undo it; JSON.
    CREATE TABLE keeper_journal (number INTEGER PRIMARY KEY, changes TEXT NOT NULL) STRICT;
"];

type Sql<T> = rusqlite::Result<T>;
pub(crate) type Stored = (Items, VecDeque<(u64, Vec<Change>)>);

fn to_json(value: &impl Serialize) -> Sql<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn from_json<T: DeserializeOwned>(row: &rusqlite::Row<'_>, column: usize) -> Sql<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            rusqlite::types::Type::Text,
            Box::new(error),
        )
    })
}

/// What an earlier life stored.
pub(crate) fn load(db: &Database) -> Result<Stored, DatabaseError> {
    db.transaction(|tx| {
        let mut statement = tx.prepare("SELECT key, item FROM keeper_items")?;
        let items = statement
            .query_map([], |row| Ok((from_json(row, 0)?, from_json(row, 1)?)))?
            .collect::<Sql<_>>()?;
        let mut statement =
            tx.prepare("SELECT number, changes FROM keeper_journal ORDER BY number")?;
        let journal = statement
            .query_map([], |row| Ok((row.get::<_, i64>(0)? as u64, from_json(row, 1)?)))?
            .collect::<Sql<_>>()?;
        Ok((items, journal))
    })
}

/// Stores what a block changed, or what taking it back changed, together with the cursor.
pub(crate) fn save(
    db: &Database,
    event: &ChainEvent,
    changes: &[Change],
) -> Result<(), DatabaseError> {
    db.transaction(|tx| {
        for change in changes {
            save_item(tx, change)?;
        }
        let number = event.block().at.number as i64;
        match event {
            ChainEvent::Committed(_) if !changes.is_empty() => {
                tx.execute(
                    "INSERT INTO keeper_journal (number, changes) VALUES (?, ?)",
                    params![number, to_json(&changes)?],
                )?;
                tx.execute(
                    "DELETE FROM keeper_journal WHERE number <= ?",
                    [number.saturating_sub(KEPT_BLOCKS as i64)],
                )?;
            }
            ChainEvent::Committed(_) => {}
            ChainEvent::Reverted(_) => {
                tx.execute("DELETE FROM keeper_journal WHERE number = ?", [number])?;
            }
        }
        save_cursor(tx, event.block())
    })
}

fn save_item(tx: &Transaction<'_>, change: &Change) -> Sql<()> {
    let key = to_json(&change.key)?;
    match &change.after {
        Some(item) => tx.execute(
            "INSERT OR REPLACE INTO keeper_items (key, item) VALUES (?, ?)",
            params![key, to_json(item)?],
        )?,
        None => tx.execute("DELETE FROM keeper_items WHERE key = ?", [key])?,
    };
    Ok(())
}
