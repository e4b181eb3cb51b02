//! Everything against vectors made by other programs, sampler and scorer against plain definitions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adversary;
mod distribution;
mod reference;
mod scoring;
mod shared;
mod vectors;
