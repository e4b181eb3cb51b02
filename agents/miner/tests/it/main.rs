//! The miner against routers, a chain and a store that the tests own, and on the embedded chain.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audits;
mod cancel;
mod chain;
mod committing;
mod crash;
mod links;
mod net;
mod onchain;
mod pull;
mod redundant;
mod resume;
mod tasks;
mod world;
