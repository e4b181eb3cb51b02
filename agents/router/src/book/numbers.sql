-- A task's rows in other tables name it by its number. Its id is random: rows that are found by it lie anywhere in a table, and
-- what belongs to some tasks of the same time would touch a page for each of them, where numbers follow each other.
CREATE TABLE numbered (
    number INTEGER PRIMARY KEY,
    task TEXT NOT NULL UNIQUE,
    session INTEGER NOT NULL, lane INTEGER NOT NULL, nonce INTEGER NOT NULL, node INTEGER NOT NULL,
    request_digest TEXT NOT NULL, max_prompt INTEGER NOT NULL, max_output INTEGER NOT NULL,
    deadline INTEGER NOT NULL,
    hold TEXT NOT NULL,          -- decimal, minor units
    model TEXT,                  -- NULL for a task of an earlier database
    chain_state TEXT NOT NULL,   -- none, assigned, precommitted, committed, settled, refunded
    fee TEXT, tip TEXT,
    prompt_tokens INTEGER, output_tokens INTEGER, output_digest TEXT,
    answer TEXT NOT NULL,        -- pending, complete, declined, failed, cancelled, unknown
    error_code TEXT, error_message TEXT,
    request BLOB,                -- ABI encoding; NULL for a task of another life of the lane
    api_key TEXT,                -- id of the key that pays; NULL: none
    key_period INTEGER           -- of its budget, counted from 0
) STRICT;
INSERT INTO numbered (task, session, lane, nonce, node, request_digest, max_prompt, max_output, deadline, hold, model,
        chain_state, fee, tip, prompt_tokens, output_tokens, output_digest, answer, error_code, error_message, request, api_key,
        key_period)
    SELECT task, session, lane, nonce, node, request_digest, max_prompt, max_output, deadline, hold, model,
        chain_state, fee, tip, prompt_tokens, output_tokens, output_digest, answer, error_code, error_message, request, api_key,
        key_period FROM tasks ORDER BY rowid;
DROP TABLE tasks;
ALTER TABLE numbered RENAME TO tasks;
CREATE INDEX tasks_deadline ON tasks (deadline);

CREATE TABLE numbered (
    task INTEGER NOT NULL, event TEXT NOT NULL, node INTEGER NOT NULL DEFAULT 0, at_ms INTEGER NOT NULL,
    block_number INTEGER, block_hash TEXT, block_timestamp INTEGER, transaction_hash TEXT, gas_used INTEGER,
    detail TEXT,
    PRIMARY KEY (task, event, node)
) STRICT;
INSERT INTO numbered
    SELECT tasks.number, event, timeline.node, at_ms, block_number, block_hash, block_timestamp, transaction_hash, gas_used, detail
    FROM timeline JOIN tasks USING (task) ORDER BY timeline.rowid;
DROP TABLE timeline;
ALTER TABLE numbered RENAME TO timeline;
CREATE INDEX timeline_transaction ON timeline (transaction_hash) WHERE transaction_hash IS NOT NULL;

CREATE TABLE numbered (
    task INTEGER NOT NULL, part INTEGER NOT NULL, node INTEGER NOT NULL,
    -- planned (the chain does not have the task), waiting, precommitted, committed, settled,
    -- declined, silent, unrevealed
    state TEXT NOT NULL,
    fee TEXT, output_digest TEXT, prompt_tokens INTEGER, output_tokens INTEGER,
    PRIMARY KEY (task, node)
) STRICT;
INSERT INTO numbered
    SELECT tasks.number, part, answers.node, state, answers.fee, answers.output_digest, answers.prompt_tokens,
        answers.output_tokens
    FROM answers JOIN tasks USING (task) ORDER BY answers.rowid;
DROP TABLE answers;
ALTER TABLE numbered RENAME TO answers;

CREATE TABLE numbered (
    task INTEGER PRIMARY KEY,
    node INTEGER NOT NULL, seq INTEGER NOT NULL, stream_hash TEXT NOT NULL,
    signature BLOB NOT NULL -- by the node's operator
) STRICT;
INSERT INTO numbered
    SELECT tasks.number, receipts.node, seq, stream_hash, signature FROM receipts JOIN tasks USING (task);
DROP TABLE receipts;
ALTER TABLE numbered RENAME TO receipts;

CREATE TABLE numbered (
    task INTEGER NOT NULL, node INTEGER NOT NULL,
    step TEXT NOT NULL, -- JSON
    block_number INTEGER NOT NULL, block_hash TEXT NOT NULL, block_timestamp INTEGER NOT NULL,
    transaction_hash TEXT NOT NULL
) STRICT;
INSERT INTO numbered
    SELECT tasks.number, proof_steps.node, step, block_number, block_hash, block_timestamp, transaction_hash
    FROM proof_steps JOIN tasks USING (task) ORDER BY proof_steps.rowid;
DROP TABLE proof_steps;
ALTER TABLE numbered RENAME TO proof_steps;
CREATE INDEX proof_steps_task ON proof_steps (task);
CREATE INDEX proof_steps_block ON proof_steps (block_hash);

CREATE TABLE numbered (
    task INTEGER PRIMARY KEY,
    block BLOB NOT NULL,
    since_ms INTEGER NOT NULL
) STRICT;
INSERT INTO numbered SELECT tasks.number, block, since_ms FROM pins JOIN tasks USING (task);
DROP TABLE pins;
ALTER TABLE numbered RENAME TO pins;
