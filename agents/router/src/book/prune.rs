//! Tasks that ended long ago leave the database; what they cost, and how far their nonces went, stays.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{OptionalExtension, Result, Transaction, params};

use super::{
    payers::{self, Leaving, Payer},
    sql::run,
};

/// What is kept of tasks that are gone, and the order in which they go.
pub const COLUMNS: &str = "
ALTER TABLE lanes ADD COLUMN spent TEXT NOT NULL DEFAULT '0';         -- decimal, minor units, by tasks that are gone
ALTER TABLE lanes ADD COLUMN next_on_chain INTEGER NOT NULL DEFAULT 0; -- one more than their largest nonce on chain
CREATE INDEX tasks_deadline ON tasks (deadline);
";

/// Tables with rows of tasks, besides their own.
const TABLES: [&str; 5] = ["answers", "timeline", "receipts", "proof_steps", "pins"];

#[derive(Default)]
struct Gone {
    spent: u128,
    next_on_chain: i64,
}

/// Removes at most `limit` tasks that have ended and whose deadline was before `before_s`; how many.
pub fn prune(tx: &Transaction<'_>, before_s: u64, limit: u32) -> Result<usize> {
    let mut query = tx.prepare(
        "SELECT number, session, nonce, chain_state, fee, tip, prompt_tokens, output_tokens, api_key, key_period FROM tasks
         WHERE deadline < ?1 AND chain_state IN ('none', 'settled', 'refunded') AND answer <> 'pending'
         ORDER BY deadline LIMIT ?2",
    )?;
    let before = i64::try_from(before_s).unwrap_or(i64::MAX);
    let mut rows = query.query(params![before, limit])?;
    let (mut tasks, mut sessions) = (Vec::new(), BTreeMap::<i64, Gone>::new());
    let mut keys = HashMap::new();
    while let Some(row) = rows.next()? {
        tasks.push(row.get::<_, i64>("number")?);
        let state: String = row.get("chain_state")?;
        let cost: Option<String> = match state.as_str() {
            "settled" => row.get("fee")?,
            "refunded" => row.get("tip")?,
            _ => None,
        };
        let cost: u128 = cost.and_then(|text| text.parse().ok()).unwrap_or_default();
        if let Some(payer) = Payer::read(row)? {
            let tokens = |column| {
                Ok::<i64, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.unwrap_or_default())
            };
            let leaving: &mut Leaving = keys.entry(payer).or_default();
            leaving.tasks += 1;
            leaving.prompt_tokens += tokens("prompt_tokens")?;
            leaving.output_tokens += tokens("output_tokens")?;
            leaving.spent = leaving.spent.saturating_add(cost);
        }
        if state == "none" {
            continue;
        }
        let gone = sessions.entry(row.get("session")?).or_default();
        gone.spent = gone.spent.saturating_add(cost);
        gone.next_on_chain = gone.next_on_chain.max(row.get::<_, i64>("nonce")?.saturating_add(1));
    }
    for (session, gone) in sessions {
        let spent: Option<String> = tx
            .query_row("SELECT spent FROM lanes WHERE session = ?1", [session], |row| row.get(0))
            .optional()?;
        let spent: u128 = spent.and_then(|text| text.parse().ok()).unwrap_or_default();
        run(
            tx,
            "INSERT INTO lanes (session, next_nonce, spent, next_on_chain) VALUES (?1, ?3, ?2, ?3)
             ON CONFLICT (session) DO UPDATE SET spent = excluded.spent,
                next_on_chain = max(next_on_chain, excluded.next_on_chain)",
            params![session, spent.saturating_add(gone.spent).to_string(), gone.next_on_chain],
        )?;
    }
    for (payer, leaving) in keys {
        payers::keep(tx, &payer, leaving)?;
    }
    for task in &tasks {
        for table in TABLES {
            run(tx, &format!("DELETE FROM {table} WHERE task = ?1"), [task])?;
        }
        run(tx, "DELETE FROM tasks WHERE number = ?1", [task])?;
    }
    Ok(tasks.len())
}
