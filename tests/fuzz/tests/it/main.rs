//! What others send, damaged: nothing panics, and what is accepted is what was meant.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod blocks;
mod chain;
mod content;
mod frames;
mod keystores;

/// Inputs for parsers that take microseconds.
const MANY: u32 = 6_000;
/// For those that cost a request or a derivation of a key.
const FEW: u32 = 120;
