-- The contrasts under `proof_root`: 8 bytes for each token. Of answers from before they were recorded there are none.
ALTER TABLE answers ADD COLUMN proof_block BLOB NOT NULL DEFAULT x'';

CREATE TRIGGER proofs_are_final BEFORE UPDATE OF proof_block ON answers
BEGIN
    SELECT RAISE(ABORT, 'an answer is final: it cannot be changed');
END;
