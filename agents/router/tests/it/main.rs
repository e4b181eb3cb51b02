//! A router with a real HTTP server, a real link and a real database; miner and store are fakes, and so is
//! the chain except in `live`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod abuse;
mod api;
mod cancellation;
mod crash;
mod dialects;
mod failures;
mod handshake;
mod keys;
mod lanes;
mod ledger;
mod live;
mod logprobs;
mod proof;
mod redundancy;
mod requests;
mod resume;
mod rotation;
mod scheduling;
mod traces;
mod world;
