-- What the chain's events tell of tasks that are not over, of whatever node, and of their audits: a validator is drawn
-- for a task that it had nothing to do with, and must know all of it at once. In the order of the chain.
CREATE TABLE told (
    number  INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    task_id BLOB NOT NULL CHECK (length(task_id) = 32),
    -- The event as the chain has it: topics of 32 bytes each, and its data.
    topics  BLOB NOT NULL,
    data    BLOB NOT NULL,
    -- A move of an audit that this node is a party of.
    ours    INTEGER NOT NULL CHECK (ours IN (0, 1)),
    PRIMARY KEY (number, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX told_by_task ON told (task_id, number, seq);
CREATE INDEX told_ours ON told (task_id) WHERE ours = 1;

-- Tasks that a block ended, or whose validators it paid: what was told of them goes when no reorganisation can bring
-- them back.
CREATE TABLE told_ends (
    number  INTEGER NOT NULL,
    task_id BLOB NOT NULL CHECK (length(task_id) = 32),
    PRIMARY KEY (number, task_id)
) STRICT, WITHOUT ROWID;

-- What this node found when it examined an answer. It is here before the chain sees its seal.
CREATE TABLE findings (
    task_id    BLOB NOT NULL CHECK (length(task_id) = 32),
    miner      INTEGER NOT NULL,
    salt       BLOB NOT NULL CHECK (length(salt) = 32),
    -- The word that H' seals.
    statistics BLOB NOT NULL CHECK (length(statistics) = 32),
    -- For each position: id, contrasts, margin; big-endian.
    leaves     BLOB NOT NULL,
    PRIMARY KEY (task_id, miner)
) STRICT, WITHOUT ROWID;

-- Two seals of one audit cannot both be opened: no bug above this line can make the second.
CREATE TRIGGER findings_are_final BEFORE UPDATE ON findings
BEGIN
    SELECT RAISE(ABORT, 'findings are final: they cannot be changed');
END;
