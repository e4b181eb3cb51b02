//! The miner's own tables: answers, tasks that were begun, tasks that are not served any more.

use std::sync::Arc;

use alloy::{primitives::B256, sol_types::SolValue};
use assay_bindings::SessionQueue;
use assay_chain::{Database, DatabaseError};
use assay_types::{Lane, ProofSeal, SessionId, Signature, TaskId, TaskRequest};
use rusqlite::{OptionalExtension, Row, Transaction, params};

/// Tables of the miner; a new step is appended, an old one never changed.
pub const MIGRATIONS: &[&str] = &[
    include_str!("schema.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
];

/// How long a begun or dropped task is remembered behind its deadline: longer than any reorganisation
/// that could show it again.
const KEEP_S: u64 = 3600;
/// Times that a task is begun: a task that ends the process must not end it for ever.
const MAX_LIVES: u32 = 2;

/// One answer that the node stands by.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The task.
    pub task: TaskId,
    /// Request and signature with which the task can be submitted by us; `None` if it came from the
    /// chain.
    pub signed: Option<(TaskRequest, Signature)>,
    /// Answers that the task wants: with more than one, each is precommitted first.
    pub redundancy: u8,
    /// Unix seconds; the last in which a commit, or a precommitment, is taken.
    pub deadline_s: u64,
    /// What is committed: digest of the result block, H1's other fields and salt, and H2.
    pub answer: SessionQueue::Answer,
    /// What H2 seals.
    pub proof: ProofSeal,
    /// The contrasts whose root that is, see [`Record`](assay_proof::Record); empty if they were not recorded.
    pub proof_block: Vec<u8>,
}

/// An answer that is not at its end.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenAnswer {
    /// The answer.
    pub answer: Answer,
    /// Transactions tried so far.
    pub attempts: u32,
}

/// A task that is about to be begun.
#[derive(Clone, Copy, Debug)]
pub struct Beginning {
    /// The task.
    pub task: TaskId,
    /// sha-256 of the request block.
    pub request_digest: B256,
    /// Its session.
    pub session: SessionId,
    /// Its lane.
    pub lane: Lane,
    /// Of a task that only an offer told of: what the lane has free, and what the task may hold, minor units.
    pub money: Option<(u128, u128)>,
    /// Unix seconds.
    pub deadline_s: u64,
    /// Chain's time, unix seconds.
    pub now_s: u64,
}

/// The newest receipt that was signed for a task: tokens, and their stream hash.
pub type SignedReceipt = (u32, B256);

/// Why a task must not be begun.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// It has an answer, or was dropped.
    #[error("this node has served or given up the task before: sign a new request")]
    Spent,
    /// It was begun with another request.
    #[error("this node has begun another request of this nonce: sign a new one with its own nonce")]
    Different,
    /// It was begun before as often as is allowed.
    #[error("the node ended while it served the task, {MAX_LIVES} times: offer it to another one")]
    GivenUp,
    /// The lane's free money is promised to tasks that were begun before.
    #[error(
        "the lane has {free} free, of which {promised} are promised to tasks that are not on chain yet, and \
         this one may hold {wanted}: top the lane up"
    )]
    NoFunds {
        /// Minor units.
        free: u128,
        /// Minor units.
        promised: u128,
        /// Minor units.
        wanted: u128,
    },
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// The answer was not stored.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// There is another answer for this task.
    #[error(
        "task {0} already has a different answer, which stands: a second one would cost the node's \
         stake"
    )]
    Different(TaskId),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// A task that is not served (any more).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Why, as a stable code.
    pub code: String,
    /// Transactions tried so far to hand it back.
    pub attempts: u32,
}

/// The miner's tables. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Answers {
    db: Arc<Database>,
}

pub(crate) fn failure(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

fn word(row: &Row<'_>, column: &str) -> rusqlite::Result<B256> {
    let bytes: Vec<u8> = row.get(column)?;
    B256::try_from(bytes.as_slice()).map_err(failure)
}

fn seconds(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn number(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

fn small(row: &Row<'_>, column: &str) -> rusqlite::Result<u32> {
    Ok(u32::try_from(row.get::<_, i64>(column)?).unwrap_or(u32::MAX))
}

fn read_open(row: &Row<'_>) -> rusqlite::Result<OpenAnswer> {
    let request: Option<Vec<u8>> = row.get("request")?;
    let signature: Option<Vec<u8>> = row.get("signature")?;
    let signed = match (request, signature) {
        (Some(request), Some(signature)) => Some((
            TaskRequest::abi_decode_validate(&request).map_err(failure)?,
            Signature::from_raw(&signature).map_err(failure)?,
        )),
        _ => None,
    };
    let answer: Vec<u8> = row.get("answer")?;
    Ok(OpenAnswer {
        answer: Answer {
            task: TaskId(word(row, "task_id")?),
            signed,
            redundancy: row.get("redundancy")?,
            deadline_s: number(row, "deadline_s")?,
            answer: SessionQueue::Answer::abi_decode_validate(&answer).map_err(failure)?,
            proof: ProofSeal { root: word(row, "proof_root")?, salt: word(row, "proof_salt")? },
            proof_block: row.get("proof_block")?,
        },
        attempts: small(row, "attempts")?,
    })
}

fn exists(tx: &Transaction<'_>, sql: &str, task: TaskId) -> rusqlite::Result<bool> {
    let found = tx.prepare_cached(sql)?.query_row([task.0.as_slice()], |_| Ok(())).optional()?;
    Ok(found.is_some())
}

fn is_answered(tx: &Transaction<'_>, task: TaskId) -> rusqlite::Result<bool> {
    exists(tx, "SELECT 1 FROM answers WHERE task_id = ?", task)
}

fn is_spent(tx: &Transaction<'_>, task: TaskId) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM answers WHERE task_id = ?1 UNION ALL SELECT 1 FROM dropped WHERE task_id = ?1";
    exists(tx, sql, task)
}

/// What tasks of the lane that were begun on an offer may hold once they are on chain.
fn promised(tx: &Transaction<'_>, begin: &Beginning) -> rusqlite::Result<u128> {
    let sql = "SELECT max_fee FROM begun WHERE session_id = ? AND lane = ? AND deadline_s >= ?
               AND max_fee IS NOT NULL AND task_id <> ?
               AND task_id NOT IN (SELECT task_id FROM tasks)
               AND task_id NOT IN (SELECT task_id FROM dropped)";
    let mut statement = tx.prepare_cached(sql)?;
    let of = params![
        begin.session.0 as i64,
        begin.lane.0,
        seconds(begin.now_s),
        begin.task.0.as_slice()
    ];
    let fees = statement.query_map(of, |row| row.get::<_, String>(0))?;
    fees.map(|fee| Ok(fee?.parse::<u128>().unwrap_or(0))).sum()
}

/// What stands in the way of beginning a task, or the receipt that its earlier life signed.
fn begin(
    tx: &Transaction<'_>,
    begin: &Beginning,
) -> rusqlite::Result<Result<Option<SignedReceipt>, BeginError>> {
    let id = begin.task.0.as_slice();
    if is_spent(tx, begin.task)? {
        return Ok(Err(BeginError::Spent));
    }
    let earlier = tx
        .prepare_cached("SELECT * FROM begun WHERE task_id = ?")?
        .query_row([id], |row| {
            let hash: Option<Vec<u8>> = row.get("signed_hash")?;
            let hash = hash.map(|hash| B256::try_from(hash.as_slice()).map_err(failure));
            let receipt = hash
                .transpose()?
                .map(|hash| Ok::<_, rusqlite::Error>((small(row, "signed_seq")?, hash)));
            Ok((word(row, "request_digest")?, small(row, "lives")?, receipt.transpose()?))
        })
        .optional()?;
    if let Some((digest, lives, _)) = earlier {
        if digest != begin.request_digest {
            return Ok(Err(BeginError::Different));
        }
        if lives >= MAX_LIVES {
            return Ok(Err(BeginError::GivenUp));
        }
    }
    if let Some((free, wanted)) = begin.money {
        let promised = promised(tx, begin)?;
        if promised.saturating_add(wanted) > free {
            return Ok(Err(BeginError::NoFunds { free, promised, wanted }));
        }
    }
    let sql =
        "INSERT INTO begun (task_id, request_digest, session_id, lane, max_fee, deadline_s, lives)
               VALUES (?, ?, ?, ?, ?, ?, 1)
               ON CONFLICT (task_id) DO UPDATE SET lives = lives + 1, max_fee = excluded.max_fee";
    tx.prepare_cached(sql)?.execute(params![
        id,
        begin.request_digest.as_slice(),
        begin.session.0 as i64,
        begin.lane.0,
        begin.money.map(|(_, wanted)| wanted.to_string()),
        seconds(begin.deadline_s),
    ])?;
    Ok(Ok(earlier.and_then(|(_, _, receipt)| receipt)))
}

impl Answers {
    /// The tables in a database that was opened with [`MIGRATIONS`].
    pub fn new(db: Arc<Database>) -> Self {
        Self { db }
    }

    /// The database.
    pub fn database(&self) -> &Arc<Database> {
        &self.db
    }

    /// Remembers that a task is begun, before any work. Returns the newest receipt that an earlier life signed.
    ///
    /// # Errors
    /// [`BeginError`], which says why it must not be begun.
    pub fn begin(&self, task: &Beginning) -> Result<Option<SignedReceipt>, BeginError> {
        self.db.transaction(|tx| begin(tx, task))?
    }

    /// Whether another request of this task's nonce was begun: one that a reorganisation took off the chain, and whose
    /// client asked for something else with the nonce that had become free.
    pub(crate) fn has_begun_other(
        &self,
        task: TaskId,
        digest: B256,
    ) -> Result<bool, DatabaseError> {
        self.db.transaction(|tx| {
            let sql = "SELECT 1 FROM begun WHERE task_id = ? AND request_digest <> ?";
            let of = params![task.0.as_slice(), digest.as_slice()];
            let found = tx.prepare_cached(sql)?.query_row(of, |_| Ok(())).optional()?;
            Ok(found.is_some())
        })
    }

    /// Remembers a receipt, before it is signed.
    pub fn note_receipt(&self, task: TaskId, receipt: SignedReceipt) -> Result<(), DatabaseError> {
        self.db.transaction(|tx| {
            let sql = "UPDATE begun SET signed_seq = ?, signed_hash = ? WHERE task_id = ?";
            tx.prepare_cached(sql)?.execute(params![
                receipt.0,
                receipt.1.as_slice(),
                task.0.as_slice()
            ])?;
            Ok(())
        })
    }

    /// Stores the answer that this node stands by.
    ///
    /// # Errors
    /// [`AnswerError::Different`] if there is another one for the task, which stays.
    pub fn store(&self, answer: &Answer) -> Result<(), AnswerError> {
        let encoded = answer.answer.abi_encode();
        let stored = self.db.transaction(|tx| {
            let id = answer.task.0.as_slice();
            let old: Option<Vec<u8>> = tx
                .query_row("SELECT answer FROM answers WHERE task_id = ?", [id], |row| row.get(0))
                .optional()?;
            if let Some(old) = old {
                return Ok(old == encoded);
            }
            let (request, signature) = match &answer.signed {
                Some((request, signature)) => {
                    (Some(request.abi_encode()), Some(signature.as_bytes().to_vec()))
                }
                None => (None, None),
            };
            tx.execute(
                "INSERT INTO answers (task_id, request, signature, redundancy, deadline_s, answer, proof_root, proof_salt, proof_block)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                params![
                    id,
                    request,
                    signature,
                    answer.redundancy,
                    seconds(answer.deadline_s),
                    encoded,
                    answer.proof.root.as_slice(),
                    answer.proof.salt.as_slice(),
                    answer.proof_block,
                ],
            )?;
            Ok(true)
        })?;
        if stored { Ok(()) } else { Err(AnswerError::Different(answer.task)) }
    }

    /// Whether this node must not begin the task: it has an answer or was dropped.
    pub fn is_spent(&self, task: TaskId) -> Result<bool, DatabaseError> {
        self.db.transaction(|tx| is_spent(tx, task))
    }

    /// Whether the task has an answer.
    pub fn is_answered(&self, task: TaskId) -> Result<bool, DatabaseError> {
        self.db.transaction(|tx| is_answered(tx, task))
    }

    /// Every answer that may still have to be sent or settled: of tasks that are not over.
    pub fn open(&self) -> Result<Vec<OpenAnswer>, DatabaseError> {
        self.db.transaction(|tx| {
            let mut statement = tx.prepare(
                "SELECT * FROM answers WHERE missed = 0
                 AND task_id NOT IN (SELECT task_id FROM tasks WHERE state >= 5)",
            )?;
            statement.query_map([], read_open)?.collect()
        })
    }

    /// One answer, unless it was missed.
    pub fn open_one(&self, task: TaskId) -> Result<Option<OpenAnswer>, DatabaseError> {
        self.db.transaction(|tx| {
            tx.query_row(
                "SELECT * FROM answers WHERE task_id = ? AND missed = 0",
                [task.0.as_slice()],
                read_open,
            )
            .optional()
        })
    }

    /// The answer that this node stands by, however it got to the chain.
    pub fn answer(&self, task: TaskId) -> Result<Option<Answer>, DatabaseError> {
        self.db.transaction(|tx| {
            tx.prepare_cached("SELECT * FROM answers WHERE task_id = ?")?
                .query_row([task.0.as_slice()], |row| Ok(read_open(row)?.answer))
                .optional()
        })
    }

    /// Counts one more transaction for the task, before it is sent.
    pub fn count_attempt(&self, task: TaskId) -> Result<(), DatabaseError> {
        self.db.transaction(|tx| {
            let id = task.0.as_slice();
            tx.execute("UPDATE answers SET attempts = attempts + 1 WHERE task_id = ?", [id])?;
            tx.execute("UPDATE dropped SET attempts = attempts + 1 WHERE task_id = ?", [id])?;
            Ok(())
        })
    }

    /// Remembers that the answer came too late.
    pub fn miss(&self, task: TaskId) -> Result<(), DatabaseError> {
        self.db.transaction(|tx| {
            tx.execute("UPDATE answers SET missed = 1 WHERE task_id = ?", [task.0.as_slice()])?;
            Ok(())
        })
    }

    /// Remembers that the task is not served (again), and forgets those whose deadline is long over.
    pub fn drop_task(
        &self,
        task: TaskId,
        code: &str,
        (deadline_s, now_s): (u64, u64),
    ) -> Result<(), DatabaseError> {
        self.db.transaction(|tx| {
            tx.execute(
                "INSERT OR IGNORE INTO dropped (task_id, code, deadline_s) VALUES (?, ?, ?)",
                params![task.0.as_slice(), code, seconds(deadline_s)],
            )?;
            let old = seconds(now_s.saturating_sub(KEEP_S));
            tx.execute("DELETE FROM dropped WHERE deadline_s < ?", [old])?;
            tx.execute("DELETE FROM begun WHERE deadline_s < ?", [old])?;
            Ok(())
        })
    }

    /// Whether the task is not served any more, and why.
    pub fn dropped(&self, task: TaskId) -> Result<Option<Dropped>, DatabaseError> {
        self.db.transaction(|tx| {
            tx.prepare_cached("SELECT * FROM dropped WHERE task_id = ?")?
                .query_row([task.0.as_slice()], |row| {
                    Ok(Dropped { code: row.get("code")?, attempts: small(row, "attempts")? })
                })
                .optional()
        })
    }
}

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
