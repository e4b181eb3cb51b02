//! Runs a model, streams, pins, commits and claims.
//!
//! ```text
//! chain events ─▶ intake ─▶ database (cursor, tasks of this node and of its sessions)
//!                   ├─▶ worker ◀─offers, cancels─ links ◀═WebSocket═▶ routers
//!                   │     │  ├─tokens, receipts, precommitments, openings─▶ links
//!                   │     │  ├─claims─▶ outbox
//!                   │     │  └─▶ database (begun, answer, dropped) ─▶ committer
//!                   ├─moves─▶ committer ─▶ outbox (commit, precommit, open, decline, settle)
//!                   └─audits─▶ audits ─▶ outbox (proofs, seals, findings, testimonies, demands, appeals, pay)
//! ```
//!
//! The order that matters: a task is written down, then begun; a result is pinned, then the answer is stored,
//! then the end is said and the commit sent. The database refuses a second, different answer for a task, salts come
//! from the operator's key, and nothing is begun before the chain's events are taken in. The link may drop, the miner may
//! be killed: an answer that is stored gets committed and settled, and a task that was begun is begun again, once.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod answers;
mod audits;
mod clock;
mod committer;
mod config;
mod eip1271;
mod error;
mod intake;
mod ledger;
mod link;
mod registration;
mod salts;
mod status;
mod tasks;
mod wiring;
mod worker;

pub use answers::MIGRATIONS;
pub use assay_proof::Calibration;
pub use config::{MAX_AUDITS, MAX_CAPACITY, MAX_ROUTERS, MAX_SETTLE_BATCH, MinerConfig};
pub use error::MinerError;
pub use ledger::{
    Admission, AuditCall, Bond, Call, Funds, Ledger, LedgerError, Odds, SendError, Stake,
    TaskStatus, appeal_bond,
};
pub use status::MinerStatus;
pub use wiring::{MinerDeps, MinerHandle, NodeParts, start, start_node};
