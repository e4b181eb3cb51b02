//! Everybody who could lie, against the real contracts: each audit is played to its end in the EVM, with a small model of
//! random weights, and every test says who is paid, who loses stake by which rule, and what gets through.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod calibration;
mod cheats;
mod court;
mod disputes;
mod engine;
mod evidence;
#[path = "../../../../sdk/proof/tests/it/adversary/model.rs"]
mod model;
mod network;
mod outcome;
mod pool;
mod remains;
mod replays;
mod validators;
