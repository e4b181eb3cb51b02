//! Noise against vectors made by another program, and the sampler against plain definitions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod distribution;
mod reference;
mod scoring;
mod vectors;
