//! Canonical event stream with a durable cursor, and a transaction outbox
//!
//! - [`Chain`]: a connection to one or several endpoints, checked to be the chain and the contracts of a
//!   [`Deployment`].
//! - [`Database`]: an agent's one SQLite file; cursor, outbox and the agent's own tables in it, so that
//!   what a block taught, the cursor and what follows from it are stored in one transaction.
//! - [`EventSource`]: canonical blocks in order, each checked against its parent; reorganisations come as
//!   [`ChainEvent::Reverted`], newest first, also those that happened while the agent was down.
//! - [`Outbox`]: transactions with nonces of our own, stored signed before they are sent.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod cursor;
mod database;
mod event;
mod outbox;
mod provider;
mod rpc;
mod source;

pub use assay_bindings::Deployment;
pub use cursor::{CursorError, KEPT_BLOCKS, load_cursor, save_cursor};
pub use database::{Database, DatabaseError};
pub use event::{Block, BlockRef, ChainEvent, Event, ProtocolEvent};
pub use outbox::{Intent, Outbox, OutboxError, OutboxStatus};
pub use provider::{Chain, ChainError};
pub use rpc::redact;
pub use source::EventSource;
