//! Follows a chain with an audit that never ends, and challenges nodes that contradict themselves
//!
//! Every block is audited as it comes (`assay-replay`). Out of the data of calls the auditor collects what nodes signed:
//! the commitment of an answer. A node that signed two for one task has lied, and whoever brings both to
//! `SessionQueue.reportEquivocation` makes it lose stake. An auditor with a key does that; one without says what it
//! would bring.
//!
//! ```text
//!  chain ──► Audit ──calls, penalties──► Evidence (database) ──open cases──► Challenger ──Intent──► Outbox ──► chain
//! ```
//!
//! What anybody may move on and nobody has is told, too: a task or an audit whose time is over.
//!
//! A signature stays one, whatever becomes of the block or the transaction that it was seen in: evidence is never given
//! up, and a challenge that a reorganisation took back is sent again until its penalty stands.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod auditor;
mod challenger;
mod evidence;
mod overdue;
mod statement;

pub use auditor::{Auditor, AuditorConfig, AuditorError};
