//! The chain client against the embedded development chain.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod connect;
mod database;
mod outbox;
mod source;
mod world;
