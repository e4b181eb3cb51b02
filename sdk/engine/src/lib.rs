//! The Engine trait, its requests, and a deterministic echo engine for tests.
//!
//! An engine turns a prompt into token ids and generates from ids; it knows nothing of chains, sessions
//! or networks. Whoever needs a model takes an `Arc<dyn Engine>`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod api;
mod echo;
mod error;
mod examine;
mod logprobs;
mod manifest;
mod text;
mod unixfs;

pub use api::{
    Engine, EngineInfo, GenerateEvent, GenerateRequest, GenerateStream, Generation, ScoreRequest,
};
pub use echo::{EchoEngine, EchoOptions, Failure};
pub use error::EngineError;
pub use examine::{Answered, Examination, examine};
pub use logprobs::RowLogprobs;
pub use manifest::{MANIFEST_VERSION, Manifest, ManifestError, ManifestFile};
pub use text::{Detokenize, Piece, Reading, TextAssembler};

pub use assay_proof::{Contrasts, Score};
pub use assay_types::{
    B256, EndReason, Message, ModelId, NumericClass, Prompt, Sampling, TokenLogprob, TokenLogprobs,
    TokenName, prompt_hash,
};
