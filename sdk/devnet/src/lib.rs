//! An Ethereum chain in this process, for development and tests: JSON-RPC over HTTP and WebSocket on
//! one port, over the block execution of `assay-evm`.
//!
//! It mines on a transaction, every interval, or when told to. What differs from a real node:
//! - The timestamp of a block is `max(parent, clock)`: several blocks in one second have the same one,
//!   so that the chain's time never runs ahead of the clock.
//! - There is no pending block: the tag `pending` means the head's state (and, for calls and estimates,
//!   the environment of the next block). `safe` and `finalized` are the head.
//! - A transaction whose fee is below the base fee of the next block is refused, not kept.
//! - The state can be read, called and proven [`assay_evm::STATE_HISTORY_BLOCKS`] blocks back; an older
//!   block gives an error.
//! - What `anvil_setBalance` and the like set is there at once under the tags, and part of the next
//!   block; the head, asked for by number or hash, stays as its `stateRoot` says.
//! - All blocks are in memory, for ever. With a data folder they are also in a file, and a restart goes
//!   on after the last one; what waited in the pool and snapshots are gone then.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod clock;
mod convert;
mod error;
mod node;
mod pool;
mod rpc;
mod server;
mod store;

pub use clock::{Clock, ManualClock};
pub use error::DevnetError;
pub use server::{Devnet, DevnetConfig};
pub use store::StoreError;
