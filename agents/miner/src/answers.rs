//! The miner's tables: answers, tasks that wait, tasks that are not served any more.

use std::sync::Arc;

use alloy::{
    primitives::{B256, U256},
    sol_types::SolValue,
};
use assay_bindings::SessionQueue;
use assay_chain::{Database, DatabaseError};
use assay_types::{Lane, Nonce, ProofSeal, SessionId, Signature, TaskId, TaskRequest};
use rusqlite::{OptionalExtension, Row, Transaction, params};

/// Tables of the miner; a new step is appended, an old one never changed.
pub const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];

/// How long a dropped task is remembered behind its deadline: longer than any reorganisation that
/// could show it again.
const DROPPED_KEEP_S: u64 = 3600;

/// One answer that the node stands by.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The task.
    pub task: TaskId,
    /// Request and signature with which the task can be submitted by us; `None` if it came from the
    /// chain.
    pub signed: Option<(TaskRequest, Signature)>,
    /// Unix seconds; the last in which a commit is taken.
    pub deadline_s: u64,
    /// What is committed: digest of the result block, H1's other fields and salt, and H2.
    pub commit: SessionQueue::Commit,
    /// What H2 seals.
    pub proof: ProofSeal,
}

/// An answer that is not at its end.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenAnswer {
    /// The answer.
    pub answer: Answer,
    /// Transactions tried so far.
    pub attempts: u32,
    /// When it settles, once it is committed (unix seconds).
    pub settle_at_s: Option<u64>,
}

/// A task that the chain gave to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainTask {
    /// The task.
    pub task: TaskId,
    /// Its session.
    pub session: SessionId,
    /// Its lane.
    pub lane: Lane,
    /// Its number in the lane.
    pub nonce: Nonce,
    /// sha-256 of the request block.
    pub request_digest: B256,
    /// Most tokens of the prompt.
    pub max_prompt: u32,
    /// Most tokens of the answer.
    pub max_output: u32,
    /// Unix seconds.
    pub deadline_s: u64,
}

/// What became of a task on chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Not committed (any more: its block was reverted).
    Answered,
    /// Committed.
    Committed {
        /// Unix seconds.
        settle_at_s: u64,
        /// Minor units of COR.
        fee: u128,
    },
    /// Settled.
    Settled {
        /// The node's share, minor units of COR.
        earned: u128,
    },
    /// Its settlement was reverted: it is committed again.
    Unsettled,
    /// Refunded.
    Refunded,
    /// Its deadline passed before it was committed.
    Missed,
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

/// The miner's tables. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Answers {
    db: Arc<Database>,
}

fn failure(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
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
    let state: String = row.get("state")?;
    let settle_at_s: Option<i64> = row.get("settle_at_s")?;
    Ok(OpenAnswer {
        answer: Answer {
            task: TaskId(word(row, "task_id")?),
            signed,
            deadline_s: number(row, "deadline_s")?,
            commit: SessionQueue::Commit::abi_decode_validate(&answer).map_err(failure)?,
            proof: ProofSeal { root: word(row, "proof_root")?, salt: word(row, "proof_salt")? },
        },
        attempts: small(row, "attempts")?,
        settle_at_s: settle_at_s
            .filter(|_| state == "committed")
            .and_then(|at| u64::try_from(at).ok()),
    })
}

/// Stores `fate` of a task in the caller's transaction; a task without an answer of ours is left alone.
pub(crate) fn set_fate(tx: &Transaction<'_>, task: TaskId, fate: Fate) -> rusqlite::Result<()> {
    let id = task.0.as_slice();
    match fate {
        Fate::Answered => tx.execute(
            "UPDATE answers SET state = 'answered', settle_at_s = NULL, fee = NULL WHERE task_id = ?",
            [id],
        ),
        Fate::Committed { settle_at_s, fee } => tx.execute(
            "UPDATE answers SET state = 'committed', settle_at_s = ?, fee = ? WHERE task_id = ? AND state <> 'settled'",
            params![seconds(settle_at_s), fee.to_string(), id],
        ),
        Fate::Settled { earned } => tx.execute(
            "UPDATE answers SET state = 'settled', earned = ? WHERE task_id = ?",
            params![earned.to_string(), id],
        ),
        Fate::Unsettled => tx.execute(
            "UPDATE answers SET state = 'committed', earned = NULL WHERE task_id = ?",
            [id],
        ),
        Fate::Refunded => {
            tx.execute("UPDATE answers SET state = 'refunded' WHERE task_id = ?", [id])
        }
        Fate::Missed => tx.execute(
            "UPDATE answers SET state = 'missed' WHERE task_id = ? AND state = 'answered'",
            [id],
        ),
    }?;
    Ok(())
}

/// Lets a task of the chain wait, in the caller's transaction. False if it is not to be served: it has
/// an answer, waits already or was dropped.
pub(crate) fn add_waiting(tx: &Transaction<'_>, task: &ChainTask) -> rusqlite::Result<bool> {
    let id = task.task.0.as_slice();
    let known = "SELECT 1 FROM answers WHERE task_id = ?1 UNION ALL SELECT 1 FROM dropped WHERE task_id = ?1";
    if tx.query_row(known, [id], |_| Ok(())).optional()?.is_some() {
        return Ok(false);
    }
    let added = tx.execute(
        "INSERT OR IGNORE INTO waiting VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            id,
            task.session.0 as i64,
            task.lane.0,
            task.nonce.0 as i64,
            task.request_digest.as_slice(),
            task.max_prompt,
            task.max_output,
            seconds(task.deadline_s),
        ],
    )?;
    Ok(added == 1)
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

    /// Stores the answer that this node stands by.
    ///
    /// # Errors
    /// [`AnswerError::Different`] if there is another one for the task, which stays.
    pub fn store(&self, answer: &Answer) -> Result<(), AnswerError> {
        let encoded = answer.commit.abi_encode();
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
                "INSERT INTO answers (task_id, request, signature, deadline_s, answer, output_digest, proof_root, proof_salt)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                params![
                    id,
                    request,
                    signature,
                    seconds(answer.deadline_s),
                    encoded,
                    answer.commit.outputDigest.as_slice(),
                    answer.proof.root.as_slice(),
                    answer.proof.salt.as_slice(),
                ],
            )?;
            tx.execute("DELETE FROM waiting WHERE task_id = ?", [id])?;
            Ok(true)
        })?;
        if stored { Ok(()) } else { Err(AnswerError::Different(answer.task)) }
    }

    /// Whether this node must not begin the task: it has an answer or was dropped.
    pub fn is_spent(&self, task: TaskId) -> Result<bool, DatabaseError> {
        let known = "SELECT 1 FROM answers WHERE task_id = ?1 UNION ALL SELECT 1 FROM dropped WHERE task_id = ?1";
        self.db.transaction(|tx| {
            Ok(tx.query_row(known, [task.0.as_slice()], |_| Ok(())).optional()?.is_some())
        })
    }

    /// Whether the task has an answer.
    pub fn is_answered(&self, task: TaskId) -> Result<bool, DatabaseError> {
        let known = "SELECT 1 FROM answers WHERE task_id = ?";
        self.db.transaction(|tx| {
            Ok(tx.query_row(known, [task.0.as_slice()], |_| Ok(())).optional()?.is_some())
        })
    }

    /// Every answer that is not at its end.
    pub fn open(&self) -> Result<Vec<OpenAnswer>, DatabaseError> {
        self.db.transaction(|tx| {
            let mut statement =
                tx.prepare("SELECT * FROM answers WHERE state IN ('answered', 'committed')")?;
            statement.query_map([], read_open)?.collect()
        })
    }

    /// One answer that is not at its end.
    pub fn open_one(&self, task: TaskId) -> Result<Option<OpenAnswer>, DatabaseError> {
        self.db.transaction(|tx| {
            tx.query_row(
                "SELECT * FROM answers WHERE task_id = ? AND state IN ('answered', 'committed')",
                [task.0.as_slice()],
                read_open,
            )
            .optional()
        })
    }

    /// Counts one more transaction for the task, before it is sent.
    pub fn count_attempt(&self, task: TaskId) -> Result<(), DatabaseError> {
        self.db.transaction(|tx| {
            let id = task.0.as_slice();
            tx.execute("UPDATE answers SET attempts = attempts + 1 WHERE task_id = ?", [id])?;
            Ok(())
        })
    }

    /// Stores what became of a task.
    pub fn set_fate(&self, task: TaskId, fate: Fate) -> Result<(), DatabaseError> {
        self.db.transaction(|tx| set_fate(tx, task, fate))
    }

    /// Sum of what settled tasks earned, and how many they are.
    pub fn earned(&self) -> Result<(U256, u64), DatabaseError> {
        self.db.transaction(|tx| {
            let mut statement = tx.prepare("SELECT earned FROM answers WHERE state = 'settled'")?;
            let rows = statement.query_map([], |row| row.get::<_, Option<String>>(0))?;
            let (mut sum, mut count) = (U256::ZERO, 0);
            for row in rows {
                let part = row?.and_then(|text| text.parse::<u128>().ok()).unwrap_or(0);
                sum = sum.saturating_add(U256::from(part));
                count += 1;
            }
            Ok((sum, count))
        })
    }

    /// Remembers that the task is not served (again), and forgets those whose deadline is long over.
    pub fn drop_task(
        &self,
        task: TaskId,
        deadline_s: u64,
        now_s: u64,
    ) -> Result<(), DatabaseError> {
        self.db.transaction(|tx| {
            let id = task.0.as_slice();
            tx.execute(
                "INSERT OR IGNORE INTO dropped VALUES (?, ?)",
                params![id, seconds(deadline_s)],
            )?;
            tx.execute("DELETE FROM waiting WHERE task_id = ?", [id])?;
            let old = seconds(now_s.saturating_sub(DROPPED_KEEP_S));
            tx.execute("DELETE FROM dropped WHERE deadline_s < ?", [old])?;
            Ok(())
        })
    }

    /// Tasks of the chain that wait, by deadline.
    pub fn waiting(&self) -> Result<Vec<ChainTask>, DatabaseError> {
        self.db.transaction(|tx| {
            let mut statement = tx.prepare("SELECT * FROM waiting ORDER BY deadline_s")?;
            let rows = statement.query_map([], |row| {
                Ok(ChainTask {
                    task: TaskId(word(row, "task_id")?),
                    session: SessionId(number(row, "session_id")?),
                    lane: Lane(small(row, "lane")?),
                    nonce: Nonce(number(row, "nonce")?),
                    request_digest: word(row, "request_digest")?,
                    max_prompt: small(row, "max_prompt")?,
                    max_output: small(row, "max_output")?,
                    deadline_s: number(row, "deadline_s")?,
                })
            })?;
            rows.collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &tempfile::TempDir) -> Answers {
        Answers::new(Database::open(&folder.path().join("miner.db"), MIGRATIONS).unwrap())
    }

    fn answer(task: u8, digest: u8) -> Answer {
        Answer {
            task: TaskId(B256::repeat_byte(task)),
            signed: Some((
                TaskRequest {
                    sessionId: 1,
                    lane: 1,
                    nonce: 7,
                    requestDigest: B256::repeat_byte(9),
                    maxPrompt: 10,
                    maxOutput: 20,
                    feeCap: u128::MAX,
                    deadline: 1_900_000_000,
                    nodeId: 3,
                },
                Signature::test_signature(),
            )),
            deadline_s: 1_900_000_000,
            commit: SessionQueue::Commit {
                outputDigest: B256::repeat_byte(digest),
                promptHash: B256::repeat_byte(2),
                promptTokens: 3,
                outputTokens: 4,
                numericClass: B256::repeat_byte(5),
                endReason: 1,
                salt: B256::repeat_byte(6),
                proofSeal: B256::repeat_byte(7),
            },
            proof: ProofSeal { root: B256::ZERO, salt: B256::repeat_byte(8) },
        }
    }

    #[test]
    fn an_answer_comes_back_whole_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let answers = open(&folder);
        answers.store(&answer(1, 1)).unwrap();
        let mut direct = answer(2, 2);
        direct.signed = None;
        answers.store(&direct).unwrap();
        drop(answers);
        let found: Vec<_> = open(&folder).open().unwrap().into_iter().map(|o| o.answer).collect();
        assert_eq!(found, [answer(1, 1), direct]);
    }

    #[test]
    fn a_second_different_answer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let answers = open(&folder);
        answers.store(&answer(1, 1)).unwrap();
        answers.store(&answer(1, 1)).unwrap();
        let error = answers.store(&answer(1, 2)).unwrap_err();
        assert!(matches!(error, AnswerError::Different(_)), "{error}");
        // Another salt is another answer too.
        let mut salted = answer(1, 1);
        salted.commit.salt = B256::ZERO;
        assert!(matches!(answers.store(&salted), Err(AnswerError::Different(_))));
        assert_eq!(answers.open().unwrap()[0].answer, answer(1, 1));
    }

    #[test]
    fn the_database_itself_refuses_to_change_an_answer() {
        let folder = tempfile::tempdir().unwrap();
        let answers = open(&folder);
        answers.store(&answer(1, 1)).unwrap();
        for sql in [
            "UPDATE answers SET output_digest = zeroblob(32)",
            "UPDATE answers SET answer = zeroblob(1)",
            "DELETE FROM answers",
        ] {
            let error = answers.db.transaction(|tx| tx.execute(sql, [])).unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let text = format!("{error} {source:?}");
            assert!(text.contains("an answer is final"), "{text}");
        }
        let again = "INSERT INTO answers SELECT task_id, request, signature, deadline_s, zeroblob(1),
            output_digest, proof_root, proof_salt, state, attempts, settle_at_s, fee, earned FROM answers";
        assert!(answers.db.transaction(|tx| tx.execute(again, [])).is_err());
    }

    #[test]
    fn fates_follow_the_chain_and_its_reorganisations() {
        let folder = tempfile::tempdir().unwrap();
        let answers = open(&folder);
        let task = TaskId(B256::repeat_byte(1));
        answers.store(&answer(1, 1)).unwrap();
        let settle_at = |answers: &Answers| answers.open_one(task).unwrap().map(|o| o.settle_at_s);
        assert_eq!(settle_at(&answers), Some(None));
        let committed = Fate::Committed { settle_at_s: 99, fee: u128::MAX };
        answers.set_fate(task, committed).unwrap();
        assert_eq!(settle_at(&answers), Some(Some(99)));
        answers.set_fate(task, Fate::Answered).unwrap();
        assert_eq!(settle_at(&answers), Some(None));
        answers.set_fate(task, committed).unwrap();
        answers.set_fate(task, Fate::Settled { earned: u128::MAX }).unwrap();
        assert_eq!(settle_at(&answers), None);
        assert_eq!(answers.earned().unwrap(), (U256::from(u128::MAX), 1));
        answers.set_fate(task, Fate::Unsettled).unwrap();
        assert_eq!(settle_at(&answers), Some(Some(99)));
        assert_eq!(answers.earned().unwrap(), (U256::ZERO, 0));
    }

    #[test]
    fn a_task_waits_once_and_never_after_it_was_dropped_or_answered() {
        let folder = tempfile::tempdir().unwrap();
        let answers = open(&folder);
        let task = |byte: u8| ChainTask {
            task: TaskId(B256::repeat_byte(byte)),
            session: SessionId(1),
            lane: Lane(0),
            nonce: Nonce(u64::from(byte)),
            request_digest: B256::ZERO,
            max_prompt: 1,
            max_output: 2,
            deadline_s: 100,
        };
        let add = |byte: u8| answers.db.transaction(|tx| add_waiting(tx, &task(byte))).unwrap();
        assert!(add(1));
        assert!(!add(1));
        assert_eq!(answers.waiting().unwrap(), [task(1)]);
        answers.drop_task(task(1).task, 100, 50).unwrap();
        assert!(!add(1));
        assert!(answers.waiting().unwrap().is_empty());
        answers.store(&answer(2, 2)).unwrap();
        assert!(!add(2));
        assert!(answers.is_spent(task(2).task).unwrap());
        assert!(answers.is_spent(task(1).task).unwrap());
        // Forgotten long after its deadline.
        answers.drop_task(task(3).task, 20_000, 10_000).unwrap();
        assert!(!answers.is_spent(task(1).task).unwrap());
    }
}
