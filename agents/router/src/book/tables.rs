//! The router's tables, and how they came to be.

use super::{answers, owed, payers, proofs, prune, receipts};

/// The tables, oldest first; what stands here never changes.
pub const MIGRATIONS: &[&str] = &[
    FIRST,
    receipts::TABLE,
    MODELS,
    answers::TABLE,
    owed::TABLES,
    prune::COLUMNS,
    TIMELINE_BY_NODE,
    proofs::TABLE,
    payers::TABLES,
    WITHOUT_BLOCKS,
    NUMBERS,
];

/// All tables with rows of tasks as they are now.
const NUMBERS: &str = include_str!("numbers.sql");

/// A block's entries are found by its tasks.
const WITHOUT_BLOCKS: &str = "DROP INDEX timeline_block;";

/// The nodes of one task each precommit, commit and settle.
const TIMELINE_BY_NODE: &str = "
CREATE TABLE timeline_by_node (
    task TEXT NOT NULL, event TEXT NOT NULL, node INTEGER NOT NULL DEFAULT 0, at_ms INTEGER NOT NULL,
    block_number INTEGER, block_hash TEXT, block_timestamp INTEGER, transaction_hash TEXT, gas_used INTEGER,
    detail TEXT,
    PRIMARY KEY (task, event, node)
) STRICT;
INSERT INTO timeline_by_node (task, event, at_ms, block_number, block_hash, block_timestamp,
        transaction_hash, gas_used, detail)
    SELECT task, event, at_ms, block_number, block_hash, block_timestamp, transaction_hash, gas_used, detail
    FROM timeline ORDER BY rowid;
DROP TABLE timeline;
ALTER TABLE timeline_by_node RENAME TO timeline;
CREATE INDEX timeline_block ON timeline (block_hash) WHERE block_hash IS NOT NULL;
CREATE INDEX timeline_transaction ON timeline (transaction_hash) WHERE transaction_hash IS NOT NULL;
";

const MODELS: &str =
    "CREATE TABLE models (model_index INTEGER PRIMARY KEY, model TEXT NOT NULL) STRICT;";

const FIRST: &str = "
CREATE TABLE sessions (session INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TABLE lanes (
    session INTEGER PRIMARY KEY,
    next_nonce INTEGER NOT NULL -- below it every nonce may have been used
) STRICT;
CREATE TABLE tasks (
    task TEXT PRIMARY KEY,
    session INTEGER NOT NULL, lane INTEGER NOT NULL, nonce INTEGER NOT NULL, node INTEGER NOT NULL,
    request_digest TEXT NOT NULL, max_prompt INTEGER NOT NULL, max_output INTEGER NOT NULL,
    deadline INTEGER NOT NULL,
    hold TEXT NOT NULL,          -- decimal, minor units
    model TEXT,                  -- NULL for a task of an earlier database
    chain_state TEXT NOT NULL,   -- none, assigned, committed, settled, refunded
    fee TEXT, tip TEXT,
    prompt_tokens INTEGER, output_tokens INTEGER, output_digest TEXT,
    answer TEXT NOT NULL,        -- pending, complete, declined, failed, cancelled, unknown
    error_code TEXT, error_message TEXT
) STRICT;
CREATE TABLE timeline (
    task TEXT NOT NULL, event TEXT NOT NULL, at_ms INTEGER NOT NULL,
    block_number INTEGER, block_hash TEXT, block_timestamp INTEGER, transaction_hash TEXT, gas_used INTEGER,
    detail TEXT,
    PRIMARY KEY (task, event)
) STRICT;
CREATE INDEX timeline_block ON timeline (block_hash) WHERE block_hash IS NOT NULL;
CREATE INDEX timeline_transaction ON timeline (transaction_hash) WHERE transaction_hash IS NOT NULL;
";

#[cfg(test)]
mod tests {
    use assay_types::{B256, Signature, TaskId};
    use rusqlite::{Connection, params};

    use super::{
        super::db::{Entry, happened, task},
        *,
    };

    #[test]
    fn tasks_of_a_database_from_before_they_had_numbers_keep_everything() {
        let mut connection = Connection::open_in_memory().unwrap();
        let before = MIGRATIONS.iter().position(|step| *step == NUMBERS).unwrap();
        MIGRATIONS.iter().take(before).for_each(|step| connection.execute_batch(step).unwrap());
        // The later one stands first, and their rows are mixed.
        let ids = [TaskId(B256::repeat_byte(9)), TaskId(B256::repeat_byte(2))];
        let signature = Signature::test_signature();
        let tx = connection.transaction().unwrap();
        for (nonce, id) in ids.iter().enumerate() {
            let about = params![id.to_string(), i64::try_from(nonce).unwrap()];
            tx.execute(
                "INSERT INTO tasks (task, session, lane, nonce, node, request_digest, max_prompt, max_output, deadline, hold, model,
                    chain_state, fee, answer, request, api_key, key_period)
                 VALUES (?1, 7, 1, ?2, 3, 'd', 10, 20, 99, '5', 'm', 'settled', '4', 'complete', x'01', 'k', ?2)",
                about,
            )
            .unwrap();
        }
        for event in ["received", "offered", "accepted"] {
            for id in &ids {
                let sql =
                    "INSERT INTO timeline (task, event, at_ms, detail) VALUES (?1, ?2, 1, ?1)";
                tx.execute(sql, params![id.to_string(), event]).unwrap();
            }
        }
        for id in ids.iter().map(ToString::to_string) {
            tx.execute("INSERT INTO answers VALUES (?1, 0, 3, 'settled', '4', NULL, 8, 9)", [&id])
                .unwrap();
            tx.execute(
                "INSERT INTO receipts VALUES (?1, 3, 9, ?2, ?3)",
                params![id, B256::ZERO.to_string(), signature.as_bytes().as_slice()],
            )
            .unwrap();
            tx.execute("INSERT INTO pins VALUES (?1, x'aa', 5)", [&id]).unwrap();
            let step = "{\"event\":\"unverified\"}";
            let sql = "INSERT INTO proof_steps VALUES (?1, 3, ?2, 6, 'b', 7, 't')";
            tx.execute(sql, [id.as_str(), step]).unwrap();
        }
        tx.execute_batch(NUMBERS).unwrap();

        for (nonce, id) in ids.iter().enumerate() {
            let row = task(&tx, id).unwrap().unwrap();
            assert_eq!((row.session, row.nonce, row.hold.as_str()), (7, nonce as u64, "5"));
            assert_eq!((row.fee.as_deref(), row.api_key.as_deref()), (Some("4"), Some("k")));
            let events: Vec<&str> = row.timeline.iter().map(|entry| entry.event.as_str()).collect();
            assert_eq!(events, ["received", "offered", "accepted"], "in the order of then");
            let own = |entry: &Entry| entry.detail == Some(id.to_string());
            assert!(row.timeline.iter().all(own), "{:?}", row.timeline);
            assert_eq!(row.answers.len(), 1);
            assert_eq!((row.answers[0].node, row.answers[0].output_tokens), (3, Some(9)));
            assert_eq!(row.receipt.unwrap().signature, signature);
            assert_eq!(proofs::of(&tx, id).unwrap().unwrap().steps.len(), 1);
            happened(&tx, id, "done", 2, None).unwrap();
            assert_eq!(task(&tx, id).unwrap().unwrap().timeline.len(), 4);
        }
        let unpinned = owed::unpinned(&tx, 9, 10).unwrap();
        assert_eq!(unpinned.iter().map(|pin| pin.task).collect::<Vec<_>>(), ids);
        assert_eq!(prune::prune(&tx, 100, 10).unwrap(), 2);
        for table in ["tasks", "timeline", "answers", "receipts", "pins", "proof_steps"] {
            let sql = format!("SELECT count(*) FROM {table}");
            let rows: i64 = tx.query_row(&sql, [], |row| row.get(0)).unwrap();
            assert_eq!(rows, 0, "{table}");
        }
    }
}
