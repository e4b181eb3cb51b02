//! Networks on the embedded chain, sound ones and others, and what an audit finds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod contracts;
mod distant;
mod drand;
mod liar;
mod proofs;
mod resume;
mod sound;
mod world;
