//! mistral.rs behind the [`Engine`](assay_engine::Engine) trait, and the demo model: the only owner of
//! mistralrs.
//!
//! mistral.rs runs the model; every token is chosen by the project's own seeded sampler, which sits in
//! the engine as a logits processor, sees the whole row and leaves mistral.rs one id to pick.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod baseline;
pub mod calibrate;
mod check;
mod demo;
mod engine;
mod generation;
mod lanes;
mod load;
mod names;
mod random;
mod scoring;
mod source;
mod tap;

pub use demo::{DEMO_MODEL, unpack as unpack_demo};
pub use engine::MistralEngine;
pub use random::{Shape, write_random_model};
pub use source::{Dtype, LoadOptions, LoadStep, ModelSource, Progress, Quantised};
