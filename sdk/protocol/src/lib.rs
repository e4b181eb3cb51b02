//! The protocol as pure functions: no IO, no clock, no float.
//!
//! [`TaskRecord`] is what an agent keeps of a task to be able to move it; `money`, `order`, `draw` and `level` compute
//! what the contracts compute, from the same inputs and with the same rounding.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod money;
pub mod order;
mod task;

pub use task::{
    PartState, QueueScope, TaskRecord, TaskState, UnknownPart, commitment_of, digest, opened,
};
