//! A router with a real HTTP server, a real link and a real database; chain, store and miner are fakes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api;
mod failures;
mod handshake;
mod ledger;
mod world;
