//! Auditors that follow a chain on which nodes lie.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod challenges;
#[allow(dead_code, reason = "shared with the tests of the audit")]
#[path = "../../../../sdk/replay/tests/it/world.rs"]
mod world;
