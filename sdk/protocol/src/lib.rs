//! The protocol as pure functions: no IO, no clock, no float.
//!
//! - [`State`] is the storage of all contracts, folded from their events.
//! - [`predict`] tells what a call of a contract does to a state: the events that it emits, or the error that it is
//!   refused with. It is written from the specification, so that the two check one another. [`enact`] does the same in place.
//! - [`money`], [`draw`], [`level`], [`order`], [`odds`], [`audit`], [`beacon`] and [`terms`] compute what the contracts
//!   compute, from the same inputs and with the same rounding; [`TaskRecord`] is what an agent keeps of a task to be able to move it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod audit;
pub mod beacon;
pub mod draw;
mod event;
mod hearing;
mod jury;
pub mod level;
mod model;
pub mod money;
mod num;
pub mod odds;
pub mod order;
mod refusal;
mod rule;
pub mod state;
mod task;
pub mod terms;

pub use event::ProtocolEvent;
pub use model::{At, Call, Outside, enact, predict};
pub use refusal::{Failure, Refusal};
pub use rule::Rule;
pub use state::{Gap, Network, State};
pub use task::{
    PartEvent, PartState, QueueScope, TaskRecord, TaskState, UnknownPart, commitment_of, digest,
    opened,
};
