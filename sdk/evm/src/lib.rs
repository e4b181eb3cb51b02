//! Block execution on revm: a chain in memory with real blocks.
//!
//! [`Chain`] holds the blocks and the state of the head. [`Chain::begin_block`] gives a [`BlockBuilder`]
//! that executes transactions and seals a block, [`Chain::push`] takes it in; [`Chain::call`] and
//! [`Chain::estimate_gas`] execute without a trace; [`Chain::state_at`] reads and proves the state of a
//! past block. [`Replay`] executes blocks that another node made, from headers and transactions alone.
//!
//! The hardfork is Prague everywhere. All fields of a block's header are what Ethereum demands, the
//! roots among them, but for two: the timestamp may equal that of the parent, and `prevRandao` is
//! derived from the parent's hash and can be predicted by anyone. This is a chain for development and
//! for audits.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod block;
mod builder;
mod call;
mod chain;
mod change;
mod error;
mod forks;
mod overlay;
mod replay;
mod state;
mod trie;
mod view;
mod witness;

pub use block::{BLOCK_GAS_LIMIT, Block, GENESIS_BASE_FEE, SignedTx, TxReceiptRecord, impersonate};
pub use builder::{BlockBuilder, ExecuteError, SealedBlock};
pub use call::{CALL_GAS_LIMIT, CallAt};
pub use chain::{Chain, ChainConfig, MAX_SNAPSHOTS, STATE_HISTORY_BLOCKS};
pub use change::AccountChange;
pub use error::{CallError, ChainError, StateError, TxError, revert_reason};
pub use forks::Forks;
pub use replay::{Entry, Executed, Replay, ReplayError};
pub use state::{AccountProof, Basic, State};
pub use view::StateView;
pub use witness::{Missing, ProofError};
