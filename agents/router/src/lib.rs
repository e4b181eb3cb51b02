//! Serves clients over HTTP and schedules their tasks on miners.
//!
//! ```text
//! client ─HTTP→ http::routes → tasks::dispatch ─Slot→ link::hub → link::service ─WebSocket→ miner
//!    ↑                            │     │                              │
//!    └── tasks::running ←─TaskEvent─────│──────────────────────────────┘
//!                                 │     ├─Chore→ tasks::chores → content store, SessionQueue
//!                                 │     └─Entry→ book::service (recorder) → database
//!                            book::state ←─blocks── events of the chain
//! ```
//!
//! A request is answered by a task: signed with the router's key for its lane of a session, offered over
//! the link to one node, submitted on chain beside that, and reported as complete only after the result
//! block that the miner pinned was read back and compared with what was streamed.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod book;
mod clock;
pub mod config;
pub mod http;
mod journal;
pub mod keys;
pub mod link;
mod live;
pub mod ports;
pub mod tasks;
pub mod traces;
pub mod treasury;
mod wiring;

pub use config::{RouterConfig, ServedModel};
pub use journal::{Journal, JournalError};
pub use live::{RouterDeps, start};
pub use wiring::{BlockUpdate, Parts, RouterError, RouterHandle, assemble};
