-- The contracts' second form: what the first one knew is of no use to it.
DROP TABLE answers;
DROP TABLE waiting;
DROP TABLE dropped;

-- Every answer that this node stands by. It is here before anything of it leaves the node. How it stands on chain is
-- told by `tasks`.
CREATE TABLE answers (
    task_id    BLOB PRIMARY KEY CHECK (length(task_id) = 32),
    -- ABI encoding of the signed request and the signature's 65 bytes; NULL if the task came from the chain.
    request    BLOB,
    signature  BLOB CHECK (signature IS NULL OR length(signature) = 65),
    redundancy INTEGER NOT NULL,
    deadline_s INTEGER NOT NULL,
    -- ABI encoding of the answer: digest of the result block, H1's other fields and salt, and H2.
    answer     BLOB NOT NULL,
    -- What H2 seals.
    proof_root BLOB NOT NULL CHECK (length(proof_root) = 32),
    proof_salt BLOB NOT NULL CHECK (length(proof_salt) = 32),
    -- Its time passed before it was on chain.
    missed     INTEGER NOT NULL DEFAULT 0 CHECK (missed IN (0, 1)),
    -- Transactions tried so far: part of the outbox's key.
    attempts   INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- Two answers to one task are slashable: no bug above this line can make the second.
CREATE TRIGGER answers_are_final
BEFORE UPDATE OF task_id, request, signature, redundancy, deadline_s, answer, proof_root, proof_salt
ON answers
BEGIN
    SELECT RAISE(ABORT, 'an answer is final: it cannot be changed');
END;
CREATE TRIGGER answers_are_kept
BEFORE DELETE ON answers
BEGIN
    SELECT RAISE(ABORT, 'an answer is final: it cannot be removed');
END;

-- Tasks that were begun: a row is here before any work, and stays until long after the deadline.
CREATE TABLE begun (
    task_id        BLOB PRIMARY KEY CHECK (length(task_id) = 32),
    request_digest BLOB NOT NULL CHECK (length(request_digest) = 32),
    session_id     INTEGER NOT NULL,
    lane           INTEGER NOT NULL,
    -- The largest fee of all answers of a task that only an offer told of: the lane must have it when the task lands.
    -- Minor units as decimal text; NULL if the chain holds it already.
    max_fee        TEXT,
    deadline_s     INTEGER NOT NULL,
    -- Times that it was begun: more than one if the miner ended in between.
    lives          INTEGER NOT NULL,
    -- The newest signed receipt: what is generated in another life must not contradict it.
    signed_seq     INTEGER NOT NULL DEFAULT 0,
    signed_hash    BLOB CHECK (signed_hash IS NULL OR length(signed_hash) = 32)
) STRICT, WITHOUT ROWID;
CREATE INDEX begun_by_deadline ON begun (deadline_s);
CREATE INDEX begun_by_lane ON begun (session_id, lane, deadline_s);

-- Tasks that this node will not serve (any more): declined, cancelled or failed.
CREATE TABLE dropped (
    task_id    BLOB PRIMARY KEY CHECK (length(task_id) = 32),
    -- Why.
    code       TEXT NOT NULL,
    deadline_s INTEGER NOT NULL,
    -- Transactions tried so far to hand it back on chain: part of the outbox's key.
    attempts   INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX dropped_by_deadline ON dropped (deadline_s);

-- Tasks of this node and of its sessions, as the chain's events tell them.
CREATE TABLE tasks (
    task_id    BLOB PRIMARY KEY CHECK (length(task_id) = 32),
    session_id INTEGER NOT NULL,
    -- Place in the session's queue; 0 for a task that was pushed.
    ticket     INTEGER NOT NULL,
    -- `TaskState` of the contract.
    state      INTEGER NOT NULL,
    -- ABI encoding of the whole row.
    body       BLOB NOT NULL,
    -- What this node earned by it, minor units as decimal text; 128 bits.
    earned     TEXT,
    -- Number of the block that changed it last.
    changed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tasks_by_ticket ON tasks (session_id, ticket) WHERE ticket <> 0;
CREATE INDEX tasks_open ON tasks (state) WHERE state < 5;
CREATE INDEX tasks_over ON tasks (changed_at) WHERE state >= 5 AND earned IS NULL;

-- Rows of `tasks` as they were before a block changed them, so that a block that is reverted is undone exactly.
CREATE TABLE undo (
    number     INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    task_id    BLOB NOT NULL CHECK (length(task_id) = 32),
    -- NULL if there was none.
    body       BLOB,
    changed_at INTEGER,
    PRIMARY KEY (number, seq)
) STRICT, WITHOUT ROWID;

-- Sessions that have reserved this node; `closed_at` is the block that closed it.
CREATE TABLE sessions (
    session_id INTEGER PRIMARY KEY,
    since      INTEGER NOT NULL,
    closed_at  INTEGER
) STRICT;
CREATE INDEX sessions_closed ON sessions (closed_at) WHERE closed_at IS NOT NULL;
