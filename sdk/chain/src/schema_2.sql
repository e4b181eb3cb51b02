-- The block of the receipt: when a block is reverted, what was mined in it is open again.
ALTER TABLE outbox ADD COLUMN block_number INTEGER;
ALTER TABLE outbox ADD COLUMN block_hash BLOB;

CREATE INDEX outbox_by_block ON outbox (block_number) WHERE block_number IS NOT NULL;
