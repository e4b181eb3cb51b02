//! The tables of the miner's own knowledge.

use alloy::primitives::Bytes;

use super::*;

fn open(folder: &tempfile::TempDir) -> Answers {
    Answers::new(Database::open(&folder.path().join("miner.db"), MIGRATIONS).unwrap())
}

fn task(byte: u8) -> TaskId {
    TaskId(B256::repeat_byte(byte))
}

fn answer(byte: u8, digest: u8) -> Answer {
    let request = TaskRequest { sessionId: 1, lane: 1, nonce: 7, ..TaskRequest::default() };
    Answer {
        task: task(byte),
        signed: Some((request, Signature::test_signature())),
        redundancy: 1,
        deadline_s: 1000,
        answer: SessionQueue::Answer {
            nodeId: 3,
            outputDigest: B256::repeat_byte(digest),
            promptHash: B256::repeat_byte(2),
            promptTokens: 10,
            outputTokens: 20,
            numericClass: B256::repeat_byte(3),
            endReason: 1,
            salt: B256::repeat_byte(4),
            proofSeal: B256::repeat_byte(5),
            signature: Bytes::new(),
        },
        proof: ProofSeal { root: B256::ZERO, salt: B256::repeat_byte(6) },
        proof_block: vec![1, 2],
    }
}

fn beginning(byte: u8, digest: u8, money: Option<(u128, u128)>) -> Beginning {
    Beginning {
        task: task(byte),
        request_digest: B256::repeat_byte(digest),
        session: SessionId(1),
        lane: Lane(1),
        money,
        deadline_s: 1000,
        now_s: 500,
    }
}

#[test]
fn answers_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let answers = open(&folder);
    answers.store(&answer(1, 1)).unwrap();
    let mut direct = answer(2, 2);
    (direct.signed, direct.redundancy) = (None, 3);
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
    salted.answer.salt = B256::ZERO;
    assert!(matches!(answers.store(&salted), Err(AnswerError::Different(_))));
    assert_eq!(answers.open().unwrap()[0].answer, answer(1, 1));
}

#[test]
fn the_database_itself_refuses_to_change_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let answers = open(&folder);
    answers.store(&answer(1, 1)).unwrap();
    for sql in [
        "UPDATE answers SET redundancy = 2",
        "UPDATE answers SET answer = zeroblob(1)",
        "DELETE FROM answers",
    ] {
        let error = answers.db.transaction(|tx| tx.execute(sql, [])).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let text = format!("{error} {source:?}");
        assert!(text.contains("an answer is final"), "{text}");
    }
    let again = "INSERT INTO answers SELECT task_id, request, signature, redundancy, deadline_s, zeroblob(1),
        proof_root, proof_salt, missed, attempts FROM answers";
    assert!(answers.db.transaction(|tx| tx.execute(again, [])).is_err());
}

#[test]
fn a_task_is_begun_twice_at_most_with_one_request_and_never_after_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let answers = open(&folder);
    assert_eq!(answers.begin(&beginning(1, 1, None)).unwrap(), None);
    answers.note_receipt(task(1), (64, B256::repeat_byte(9))).unwrap();
    let other = answers.begin(&beginning(1, 2, None));
    assert!(matches!(other, Err(BeginError::Different)), "{other:?}");
    drop(answers);
    let answers = open(&folder);
    let earlier = answers.begin(&beginning(1, 1, None)).unwrap();
    assert_eq!(earlier, Some((64, B256::repeat_byte(9))));
    assert!(matches!(answers.begin(&beginning(1, 1, None)), Err(BeginError::GivenUp)));

    answers.store(&answer(2, 1)).unwrap();
    answers.drop_task(task(3), "busy", (1000, 500)).unwrap();
    for byte in [2, 3] {
        assert!(matches!(answers.begin(&beginning(byte, 1, None)), Err(BeginError::Spent)));
    }
    let dropped = answers.dropped(task(3)).unwrap();
    assert_eq!(dropped, Some(Dropped { code: "busy".into(), attempts: 0 }));
    // Forgotten long after the deadlines.
    answers.drop_task(task(4), "busy", (20_000, 10_000)).unwrap();
    assert!(!answers.is_spent(task(3)).unwrap());
    assert_eq!(answers.begin(&beginning(1, 2, None)).unwrap(), None);
}

#[test]
fn a_lanes_money_is_promised_once() {
    let folder = tempfile::tempdir().unwrap();
    let answers = open(&folder);
    answers.begin(&beginning(1, 1, Some((100, 60)))).unwrap();
    let error = answers.begin(&beginning(2, 1, Some((100, 60)))).unwrap_err();
    assert!(
        matches!(error, BeginError::NoFunds { free: 100, promised: 60, wanted: 60 }),
        "{error}"
    );
    answers.begin(&beginning(2, 1, Some((100, 40)))).unwrap();
    // The same task again, another lane, and what is on chain, are nobody else's.
    answers.begin(&beginning(2, 1, Some((100, 40)))).unwrap();
    answers.begin(&beginning(3, 1, None)).unwrap();
    let other = Beginning { lane: Lane(2), ..beginning(4, 1, Some((100, 100))) };
    answers.begin(&other).unwrap();
    // What was given up needs no money, nor what is over.
    answers.drop_task(task(1), "cancelled", (1000, 500)).unwrap();
    answers.begin(&beginning(5, 1, Some((100, 60)))).unwrap();
    let late = Beginning { now_s: 1001, ..beginning(6, 1, Some((100, 100))) };
    answers.begin(&late).unwrap();
}

#[test]
fn what_was_missed_is_not_open_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let answers = open(&folder);
    answers.store(&answer(1, 1)).unwrap();
    answers.count_attempt(task(1)).unwrap();
    assert_eq!(answers.open_one(task(1)).unwrap().map(|open| open.attempts), Some(1));
    answers.miss(task(1)).unwrap();
    assert_eq!((answers.open().unwrap(), answers.open_one(task(1)).unwrap()), (vec![], None));
    assert!(answers.is_answered(task(1)).unwrap(), "it still stands");
}

#[test]
fn a_database_of_the_first_contracts_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("miner.db");
    let old = Database::open(&path, &MIGRATIONS[..1]).unwrap();
    old.transaction(|tx| {
        tx.execute(
            "INSERT INTO answers (task_id, deadline_s, answer, output_digest, proof_root, proof_salt)
             VALUES (randomblob(32), 1, zeroblob(1), randomblob(32), randomblob(32), randomblob(32))",
            [],
        )
    })
    .unwrap();
    drop(old);
    let answers = open(&folder);
    assert_eq!(answers.open().unwrap(), []);
    answers.store(&answer(1, 1)).unwrap();
    drop(answers);
    // The program of before does not touch what it does not know.
    let refused = Database::open(&path, &MIGRATIONS[..1]);
    assert!(matches!(refused, Err(DatabaseError::NewerSchema { .. })), "{refused:?}");
}
