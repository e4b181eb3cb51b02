//! The arithmetic of Proof of Inference: seeded noise and sampling, the fingerprint, margins and verdicts,
//! with no machine-learning dependency.
//!
//! A node samples with noise that follows from `seedG`, so that anyone who has the same weights can
//! recompute which token it had to choose. At each step it also records a few *contrasts*, differences of
//! logits between ids that follow from the seed, which only the right weights produce. A validator feeds
//! prompt and claimed tokens through the model once and checks both. Everything here is deterministic, and
//! what is hashed or decided is integer arithmetic that the contracts do again;
//! `contracts/test/vectors/proof.json` is read by the tests of both sides.
//!
//! 1. [`Sampler`] chooses tokens and records [`Contrasts`]; [`Record`] is what a miner keeps, its tree's
//!    root what H2 seals, its bytes the proof block.
//! 2. [`Scorer`] says what a validator's logits think of claimed tokens, [`faults`] what is wrong with an
//!    answer whatever the model is; [`Audit`] is what a validator keeps, with a root and [`Statistics`].
//! 3. [`compare`] holds the two fingerprints against one another, [`draw_positions`] says which leaves are
//!    opened and [`verify`] that they are those of a root; [`verdict`] judges by a [`Calibration`].
//! 4. [`cluster`], [`margins_convict`] and [`upheld`] are how a panel decides; [`Cusum`] is a node's record.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod allowed;
mod calibration;
mod contrasts;
mod fingerprint;
mod merkle;
mod noise;
mod panel;
mod positions;
mod record;
mod row;
mod rules;
mod sampling;
mod scoring;
mod verdict;

pub use calibration::{Calibration, CalibrationError, MARGIN_CAP};
pub use contrasts::{CONTRASTS_PER_NAT, Contrasts, MAX_WIDTH, Pairs, Width, WidthError, contrast};
pub use fingerprint::{
    BLOCK, Block, Comparison, FULL_BLOCK, Failing, LengthError, SPOT_POSITIONS, agree,
    block_window, blocks, compare,
};
pub use merkle::{MAX_OPENED, MerkleError, Tree, audit_leaf, leaf, root, verify};
pub use noise::{GUMBEL_MAX, GUMBEL_MIN, Noise, NoiseRow, gumbel};
pub use panel::{
    CLUSTER_QUORUM, MAX_MEMBERS, Member, Opened, PanelError, cluster, leaves_agree, lower_median,
    margins_convict, upheld,
};
pub use positions::draw_positions;
pub use record::{Audit, Finding, Record, RecordError};
pub use rules::{Claim, Fault, Found, check_ids, faults, reasons};
pub use sampling::{
    GREEDY_TEMPERATURE, MAX_VOCABULARY, SAMPLER_VERSION, Sampler, SamplingError, Step, temperature,
};
pub use scoring::{MARGINS_PER_NAT, Score, Scorer, margin_units};
pub use verdict::{Cusum, Reasons, Statistics, StatisticsError, failing_is_possible, verdict};
