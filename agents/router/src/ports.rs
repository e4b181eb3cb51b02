//! What a router asks of a chain besides its events.

use assay_types::{Address, B256, Lane, NodeId, SessionId, TaskId, TaskRequest};
use async_trait::async_trait;

use crate::treasury::Opening;

/// A transaction that is in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mined {
    /// Its hash.
    pub transaction: B256,
    /// Its gas.
    pub gas_used: u64,
}

/// Why the chain did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PortError {
    /// The contract refused.
    #[error("the contract refused: {reason}")]
    Refused {
        /// Name of the contract's error, and its values.
        reason: String,
    },
    /// Anything else: node down, wallet empty.
    #[error("{0}")]
    Failed(String),
}

impl PortError {
    /// Whether the session or the lane has no money left.
    pub fn is_unpaid(&self) -> bool {
        let money = ["InsufficientDeposit", "AllotmentExceeded"];
        matches!(self, Self::Refused { reason } if money.iter().any(|m| reason.contains(m)))
    }

    /// Whether the task is on chain already: the miner carried the request with its answer.
    pub fn is_already_there(&self) -> bool {
        matches!(self, Self::Refused { reason } if reason.contains("NonceUsed"))
    }
}

/// The chain, as far as a router asks and acts.
#[async_trait]
pub trait ChainPort: Send + Sync {
    /// EIP-155 chain id.
    fn chain_id(&self) -> u64;

    /// Address of `SessionQueue`.
    fn queue(&self) -> Address;

    /// The operator key of a node; `None` if there is no such node, or it was proven to lie.
    ///
    /// # Errors
    /// If the chain cannot be asked.
    async fn operator_of(&self, node: NodeId) -> Result<Option<Address>, PortError>;

    /// The level of a node in draws, 0 to 10.
    ///
    /// # Errors
    /// If the chain cannot be asked.
    async fn level_of(&self, _node: NodeId) -> Result<u8, PortError> {
        Ok(0)
    }

    /// Submits a task from the router's own wallet and waits until it is in a block. Durable: asked once,
    /// it is also done after a restart.
    ///
    /// # Errors
    /// If the contract refuses, or the wallet or the chain fails.
    async fn submit(&self, task: TaskId, request: TaskRequest) -> Result<Mined, PortError>;

    /// Opens a session out of the router's own wallet, with a lane for the router. Durable: asked again with the same key,
    /// also after a restart, it is done once.
    ///
    /// # Errors
    /// If the wallet has too little, the contract refuses, or the chain fails.
    async fn open_session(&self, _key: String, _opening: Opening) -> Result<(), PortError> {
        Err(PortError::Failed("this chain opens no sessions for a router".into()))
    }

    /// Adds to a lane out of the router's own wallet, minor units. Durable like [`Self::open_session`].
    ///
    /// # Errors
    /// If the wallet has too little, the contract refuses, or the chain fails.
    async fn top_up(
        &self,
        _key: String,
        _lane: (SessionId, Lane),
        _amount: u128,
    ) -> Result<(), PortError> {
        Err(PortError::Failed("this chain fills no lanes for a router".into()))
    }

    /// Gas that a transaction in a block used; `None` if it is in none.
    ///
    /// # Errors
    /// If the chain cannot be asked.
    async fn gas_used(&self, transaction: B256) -> Result<Option<u64>, PortError>;
}
