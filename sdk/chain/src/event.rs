//! Blocks and the events of the protocol in them.

use alloy::primitives::B256;
pub use assay_protocol::ProtocolEvent;

/// A block by number and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockRef {
    /// Height.
    pub number: u64,
    /// Hash.
    pub hash: B256,
}

/// A canonical block with the protocol's events in their order; most blocks have none.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Number and hash.
    pub at: BlockRef,
    /// Hash of the parent.
    pub parent: B256,
    /// Unix seconds.
    pub timestamp: u64,
    /// Events of the deployment's contracts, in order.
    pub events: Vec<Event>,
}

/// One event of the protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Transaction that emitted it.
    pub tx_hash: B256,
    /// Index of the log in its block.
    pub log_index: u64,
    /// What happened.
    pub body: ProtocolEvent,
}

/// What became of the canonical chain.
#[derive(Debug, Clone, PartialEq)]
pub enum ChainEvent {
    /// The next block.
    Committed(Block),
    /// This block, the newest one committed so far, is no longer canonical: undo what it taught.
    Reverted(Block),
}

impl ChainEvent {
    /// The block that was committed or reverted.
    pub fn block(&self) -> &Block {
        match self {
            Self::Committed(block) | Self::Reverted(block) => block,
        }
    }
}
