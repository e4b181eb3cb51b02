//! The chain client against the embedded development chain and anvil.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bad_rpc;
mod connect;
mod database;
mod failover;
mod kill;
mod outbox;
mod proxy;
mod reorg;
mod source;
mod trouble;
mod world;
