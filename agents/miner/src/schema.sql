-- Every answer that this node stands by. It is here before anything of it leaves the node.
CREATE TABLE answers (
    task_id       BLOB PRIMARY KEY CHECK (length(task_id) = 32),
    -- ABI encoding of the signed request and the signature's 65 bytes; NULL if the task came from the chain.
    request       BLOB,
    signature     BLOB CHECK (signature IS NULL OR length(signature) = 65),
    deadline_s    INTEGER NOT NULL,
    -- ABI encoding of the commit: digest of the result block, H1's other fields and salt, and H2.
    answer        BLOB NOT NULL,
    output_digest BLOB NOT NULL CHECK (length(output_digest) = 32),
    -- What H2 seals.
    proof_root    BLOB NOT NULL CHECK (length(proof_root) = 32),
    proof_salt    BLOB NOT NULL CHECK (length(proof_salt) = 32),
    state         TEXT NOT NULL DEFAULT 'answered'
                  CHECK (state IN ('answered', 'committed', 'settled', 'refunded', 'missed')),
    -- Transactions tried so far: part of the outbox's key.
    attempts      INTEGER NOT NULL DEFAULT 0,
    settle_at_s   INTEGER,
    -- Minor units of COR as decimal text: 128 bits.
    fee           TEXT,
    earned        TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX answers_open ON answers (state) WHERE state IN ('answered', 'committed');

-- Two answers to one task are slashable: no bug above this line can make the second.
CREATE TRIGGER answers_are_final
BEFORE UPDATE OF task_id, request, signature, deadline_s, answer, output_digest, proof_root, proof_salt
ON answers
BEGIN
    SELECT RAISE(ABORT, 'an answer is final: it cannot be changed');
END;
CREATE TRIGGER answers_are_kept
BEFORE DELETE ON answers
BEGIN
    SELECT RAISE(ABORT, 'an answer is final: it cannot be removed');
END;

-- Tasks that came from the chain and wait for a free place. A row goes once its task has begun.
CREATE TABLE waiting (
    task_id        BLOB PRIMARY KEY CHECK (length(task_id) = 32),
    session_id     INTEGER NOT NULL,
    lane           INTEGER NOT NULL,
    nonce          INTEGER NOT NULL,
    request_digest BLOB NOT NULL CHECK (length(request_digest) = 32),
    max_prompt     INTEGER NOT NULL,
    max_output     INTEGER NOT NULL,
    deadline_s     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Tasks that this node will not serve any more: declined, cancelled, failed or begun.
CREATE TABLE dropped (
    task_id    BLOB PRIMARY KEY CHECK (length(task_id) = 32),
    deadline_s INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX dropped_by_deadline ON dropped (deadline_s);
