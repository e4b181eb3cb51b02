//! Runs a model, streams, pins, commits and claims.
//!
//! ```text
//! chain events ─▶ intake ─▶ database (cursor, fates, waiting tasks)
//!                   ├─▶ worker ◀─offers, cancels─ links ◀═WebSocket═▶ routers
//!                   │     │  └─tokens, receipts, done─▶ links
//!                   │     └─▶ database (answer) ─▶ committer
//!                   └─fates─▶ committer ─▶ outbox (commit, submitAndCommit, settle)
//! ```
//!
//! The order that matters: a result is pinned, then the answer is stored, then `Done` is said and the
//! commit sent. The database refuses a second, different answer for a task. The link may drop, the
//! miner may be restarted: an answer that is stored gets committed and settled.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod answers;
mod clock;
mod committer;
mod config;
mod error;
mod intake;
mod ledger;
mod link;
mod registration;
mod status;
mod wiring;
mod worker;

pub use answers::MIGRATIONS;
pub use config::{MAX_CAPACITY, MAX_ROUTERS, MAX_SETTLE_BATCH, MinerConfig};
pub use error::MinerError;
pub use ledger::{Ledger, LedgerError, SendError, SessionView, TaskStatus};
pub use status::MinerStatus;
pub use wiring::{MinerDeps, MinerHandle, NodeParts, start, start_node};
