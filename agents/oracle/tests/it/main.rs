//! The oracle on the embedded chain, with the real contracts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audits;
mod court;
mod drand;
mod network;
mod world;
