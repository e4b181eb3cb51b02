//! The arithmetic of Proof of Inference: seeded noise and sampling, with no machine-learning dependency.
//!
//! A node samples with noise that follows from `seedG`, so that anyone who has the same weights can
//! recompute which token it had to choose. Everything here is deterministic: logits in, an id out.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod allowed;
mod contrasts;
mod merkle;
mod noise;
mod row;
mod sampling;
mod scoring;

pub use contrasts::{CONTRASTS_PER_NAT, Contrasts, MAX_WIDTH, Pairs, Width, WidthError, contrast};
pub use merkle::{MAX_OPENED, MerkleError, Tree, audit_leaf, leaf, root, verify};
pub use noise::{GUMBEL_MAX, GUMBEL_MIN, Noise, NoiseRow, gumbel};
pub use sampling::{
    GREEDY_TEMPERATURE, MAX_VOCABULARY, SAMPLER_VERSION, Sampler, SamplingError, Step, temperature,
};
pub use scoring::{MARGINS_PER_NAT, Score, Scorer, margin_units};
