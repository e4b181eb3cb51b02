//! Why a miner cannot work.

use alloy::primitives::{Address, U256, utils::format_ether};
use assay_chain::{ChainError, DatabaseError, OutboxError};
use assay_runtime::RuntimeError;
use assay_types::{ModelId, NodeId};

use crate::ledger::LedgerError;

/// Why a miner did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum MinerError {
    /// A setting is out of bounds.
    #[error("{0}")]
    Config(String),
    /// The engine serves another model than the node shall.
    #[error(
        "the engine serves model {engine} ({name}), but the miner shall serve {wanted}: load the \
         model whose manifest has that id, or name the loaded one"
    )]
    WrongEngine {
        /// What the engine serves.
        engine: ModelId,
        /// Its name.
        name: String,
        /// What was asked for.
        wanted: ModelId,
    },
    /// Nobody registered the model.
    #[error(
        "model {0} is not in the ModelRegistry of this chain: register it first, or load a \
         registered one"
    )]
    UnknownModel(ModelId),
    /// The operator's node serves something else.
    #[error(
        "node {node} of operator {operator} is registered for {what} {registered}, but the engine \
         has {engine}: load what the node is registered for, or use another operator key"
    )]
    NodeMismatch {
        /// The node.
        node: NodeId,
        /// Its operator.
        operator: Address,
        /// `model` or `numeric class`.
        what: &'static str,
        /// As registered.
        registered: String,
        /// As the engine says.
        engine: String,
    },
    /// The node has left or is leaving.
    #[error(
        "node {node} of operator {operator} is leaving the pool and takes no tasks: start with \
         another operator key to register a new node"
    )]
    NodeLeft {
        /// The node.
        node: NodeId,
        /// Its operator.
        operator: Address,
    },
    /// The node was proven to have lied, or hid what it had sealed.
    #[error(
        "node {node} of operator {operator} was jailed: it lost its stake in the audit of an answer, for the reason that \
         the chain's `Slashed` event of the node gives; no draw finds it any more. Mend what made it answer so, then start \
         with another operator key to register a new node"
    )]
    NodeJailed {
        /// The node.
        node: NodeId,
        /// Its operator.
        operator: Address,
    },
    /// No money for gas.
    #[error(
        "the {role} account {account} has no ether for gas: send it some (0.1 is plenty), then \
         start the miner again"
    )]
    NoGas {
        /// `owner` or `operator`.
        role: &'static str,
        /// The account to fund.
        account: Address,
    },
    /// Too little COR for the stake.
    #[error(
        "the owner account {account} has {} COR, but a node of capacity {capacity} stakes {} COR: \
         send it the missing {} COR, or lower the capacity",
        format_ether(*balance), format_ether(*stake), format_ether(stake.saturating_sub(*balance))
    )]
    NoStake {
        /// The account to fund.
        account: Address,
        /// What it has.
        balance: U256,
        /// What the node stakes.
        stake: U256,
        /// Slots.
        capacity: u8,
    },
    /// A transaction of the registration failed.
    #[error("the node could not be registered: {0}")]
    Registration(#[source] OutboxError),
    /// The chain cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The chain's events cannot be read.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The outbox cannot work.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A service failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}
