//! Block execution on revm: a chain in memory with real blocks.
//!
//! [`Chain`] holds the blocks and the state of the head. [`Chain::begin_block`] gives a [`BlockBuilder`]
//! that executes transactions and seals a block; [`Chain::call`] and [`Chain::estimate_gas`] execute
//! without a trace; [`Chain::state_at`] reads the state of a past block.
//!
//! The hardfork is Prague everywhere. Of a block's header, all fields are what Ethereum demands, and
//! the hash is that of the RLP encoding, with two exceptions: `stateRoot` is **not** a Merkle root. It is
//! `keccak256(stateRoot of the parent, values that the block wrote in order of address and slot)`: it
//! commits to the state, but nothing can be proven against it (so there is no `eth_getProof`). And the
//! timestamp may equal that of the parent. `prevRandao` is derived from the parent's hash and can
//! be predicted by anyone: this is a chain for development and for audits.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod block;
mod builder;
mod call;
mod chain;
mod error;
mod view;
mod world;

pub use block::{BLOCK_GAS_LIMIT, Block, GENESIS_BASE_FEE, SignedTx, TxReceiptRecord};
pub use builder::{BlockBuilder, ExecuteError};
pub use call::{CALL_GAS_LIMIT, CallAt};
pub use chain::{Chain, ChainConfig, MAX_SNAPSHOTS, STATE_HISTORY_BLOCKS};
pub use error::{CallError, ChainError, StateError, TxError, revert_reason};
pub use view::StateView;
