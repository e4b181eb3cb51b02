//! Ids, units, EIP-712 structs, commitment hashes, content blocks and frames of the link.
//!
//! Everything here is a value: no IO, no clock, no float. What is hashed here is hashed the same way by
//! the contracts; `vectors/commitments.json` is read by the tests of both sides.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod block;
mod commitment;
mod ids;
pub mod link;
mod logprob;
mod request;
mod signature;

pub use block::{
    BLOCK_VERSION, BlockError, MAX_BLOCK_BYTES, MAX_MESSAGES, MAX_OUTPUT_LIMIT, MAX_PROMPT_LIMIT,
    MAX_STOP_BYTES, MAX_STOPS, Message, Prompt, RequestBlock, ResultBlock, Sampling,
};
pub use commitment::{
    AuditSeal, CommitScope, DOMAIN_AUDIT, DOMAIN_F, DOMAIN_G, DOMAIN_POSITIONS, DOMAIN_PROOF,
    DOMAIN_STREAM, DOMAIN_TOKENS, EndReason, ProofSeal, SeedInput, StreamHash, TokenSeal,
    commitment, position_seed, prompt_hash, seed_f, seed_g, sha256, task_id,
};
pub use ids::{
    AssetId, Lane, ModelId, ModelIndex, NodeId, Nonce, NumericClass, NumericClassError, SessionId,
    TaskId,
};
pub use logprob::{
    MAX_LOGPROBS, MAX_TOKEN_BYTES, MAX_TOP_LOGPROBS, MIN_LOGPROB_MICRONATS, TokenLogprob,
    TokenLogprobs, TokenName, count_logprobs,
};
pub use request::{
    Cancellation, Decline, Dispatch, Precommit, SignatureError, Signed, TaskRequest, domain,
};
pub use signature::{BadKey, SigningKey};

pub use alloy::primitives::{Address, B256, Bytes, Signature, U256, keccak256};
