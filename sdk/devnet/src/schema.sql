-- One row: which chain this is.
CREATE TABLE chain (
    chain_id INTEGER NOT NULL
) STRICT;

-- One row per block from genesis on, so that a block is stored with its state, or not at all.
CREATE TABLE block (
    number INTEGER PRIMARY KEY,
    -- Header, transactions with their senders, receipts.
    block BLOB NOT NULL,
    -- How the state after it differs from that after its parent: an RLP list of account changes.
    changes BLOB NOT NULL
) STRICT;
