//! Two implementations of one thing get the same inputs, and must agree.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod contracts;
mod devnet;
