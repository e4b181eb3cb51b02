-- What nodes signed: each commitment once. Nothing is ever removed: a lie can be proven for ever.
CREATE TABLE statement (
    task BLOB NOT NULL,
    node INTEGER NOT NULL,
    commitment BLOB NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (task, node, commitment)
) STRICT, WITHOUT ROWID;

-- Nodes that signed two commitments of one task.
CREATE TABLE contradiction (
    task BLOB NOT NULL,
    node INTEGER NOT NULL,
    one BLOB NOT NULL,
    other BLOB NOT NULL,
    -- Why it could not be challenged, at the last attempt.
    trouble TEXT,
    PRIMARY KEY (task, node)
) STRICT, WITHOUT ROWID;

-- Penalties for contradictions on the chain as it stands, by whomever.
CREATE TABLE penalty (
    task BLOB NOT NULL,
    node INTEGER NOT NULL,
    block INTEGER NOT NULL,
    tx BLOB NOT NULL,
    -- Who brought the evidence.
    reporter BLOB NOT NULL,
    PRIMARY KEY (task, node)
) STRICT, WITHOUT ROWID;
