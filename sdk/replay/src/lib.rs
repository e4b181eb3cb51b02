//! An audit of a network: nobody is trusted, everything is computed again.
//!
//! - [`Source`] reads blocks from an RPC, bounded in number and size, and checks what can be checked of a block alone.
//! - [`Audit`] executes every transaction on the state before it and compares what came out with headers and receipts;
//!   it foretells, from the rules of `assay-protocol`, every event of every call of the contracts, folds the events, and
//!   compares what they say with storage.
//! - [`Report`] says what was checked and what diverges. A divergence is data: an audit goes on after it as far as it
//!   can.
//! - [`Explainer`] watches an audit, and tells how what became of a task or a node came about.
//! - [`probes`] are the values that the contracts must store, as calls of their views: the tests of `assay-protocol`
//!   against the contracts use them, too.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod audit;
mod code;
mod compare;
mod error;
mod explain;
mod facts;
mod genesis;
mod html;
mod journal;
mod ledger;
mod network;
mod probe;
mod relay;
mod report;
mod source;
mod text;

pub use audit::{Audit, Observer, Options};
pub use error::AuditError;
pub use explain::{Explainer, Line, MAX_LINES, Subject};
pub use genesis::Genesis;
pub use journal::forget;
pub use probe::{About, Probe, Touched, owed, probes};
pub use report::{Counts, Divergence, MAX_DIVERGENCES, Report, Rerun, Rule, Scored, Verdict};
pub use source::{Fetched, Source};
