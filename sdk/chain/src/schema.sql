-- The newest blocks that the agent has taken in; the newest is the cursor.
CREATE TABLE chain_blocks (
    number INTEGER PRIMARY KEY,
    hash BLOB NOT NULL,
    parent BLOB NOT NULL,
    timestamp INTEGER NOT NULL,
    -- JSON: what is needed to undo the block when the node no longer knows it.
    events TEXT NOT NULL
) STRICT;

-- Facts about the whole database; 'genesis' is the hash of block 0.
CREATE TABLE chain_facts (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- One row per intended transaction.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY,
    account BLOB NOT NULL,
    -- The caller's idempotency key.
    key TEXT NOT NULL,
    recipient BLOB NOT NULL,
    data BLOB NOT NULL,
    value BLOB NOT NULL,
    gas_limit INTEGER NOT NULL,
    nonce INTEGER NOT NULL,
    -- signed: stored, not yet accepted by a node; sent: accepted; mined: has a receipt with success;
    -- failed: has a receipt with failure, or was given up and its nonce used by an empty transaction.
    state TEXT NOT NULL CHECK (state IN ('signed', 'sent', 'mined', 'failed')),
    -- JSON of the receipt once there is one.
    receipt TEXT,
    -- Why it failed.
    reason TEXT,
    UNIQUE (account, key)
) STRICT;

CREATE INDEX outbox_by_state ON outbox (account, state, nonce);

-- Every signed version of a transaction: any of them may be the one that is mined.
CREATE TABLE outbox_attempts (
    hash BLOB PRIMARY KEY,
    outbox_id INTEGER NOT NULL REFERENCES outbox (id) ON DELETE CASCADE,
    raw BLOB NOT NULL,
    nonce INTEGER NOT NULL,
    -- Decimal: may be more than 63 bits.
    max_fee TEXT NOT NULL,
    max_tip TEXT NOT NULL,
    -- Order in which they were signed, from 0.
    number INTEGER NOT NULL,
    -- 1 for the empty transaction that uses up the nonce of one that was given up.
    empty INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX outbox_attempts_by_row ON outbox_attempts (outbox_id, number);
