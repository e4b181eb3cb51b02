//! What can go wrong with a transaction.

use alloy::primitives::{Address, B256, U256};

use crate::{ChainError, DatabaseError};

/// A transaction did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The contract refuses.
    #[error("`{key}` is refused by the contract: {reason}{}", hash_text(.tx_hash.as_ref()))]
    Reverted {
        /// Of the intent.
        key: String,
        /// Decoded: the error's name with its values.
        reason: String,
        /// `None` if it was found while estimating: nothing was sent, no nonce used.
        tx_hash: Option<B256>,
    },
    /// The account cannot pay.
    #[error(
        "account {address} has {balance} wei but needs {needed}: send it at least {} wei for gas",
        .needed.saturating_sub(*.balance)
    )]
    Unfunded {
        /// To be funded.
        address: Address,
        /// Wei.
        needed: U256,
        /// Wei.
        balance: U256,
    },
    /// The node refuses it for good.
    #[error("`{key}` was refused by the node and given up: {reason}")]
    Refused {
        /// Of the intent.
        key: String,
        /// As the node worded it.
        reason: String,
    },
    /// Gas is dearer than anything sensible.
    #[error(
        "gas costs {wei} wei, more than the limit of {limit}; wait until it is cheaper, or use another \
         node if that is not true"
    )]
    FeeTooHigh {
        /// Wei for a unit of gas.
        wei: u128,
        /// Largest that is signed.
        limit: u128,
    },
    /// One key, two different transactions: a defect of the agent.
    #[error("key `{key}` names another transaction already; use one key for each call")]
    KeyReused {
        /// Of the intent.
        key: String,
    },
    /// A key that is empty or too long: a defect of the agent.
    #[error("a key has {bytes} bytes; it needs 1 to {limit}")]
    BadKey {
        /// Its length.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// The chain does not answer.
    #[error(transparent)]
    Rpc {
        /// Which call, and why.
        #[from]
        source: ChainError,
    },
    /// The database failed.
    #[error(transparent)]
    Database {
        /// Why.
        #[from]
        source: DatabaseError,
    },
    /// The key does not sign.
    #[error("the account's key does not sign: {source}")]
    Sign {
        /// Why.
        #[from]
        source: alloy::signers::Error,
    },
}

impl OutboxError {
    /// True if the same intent may succeed later: after funding, when the chain answers again, or when the
    /// disk has room.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unfunded { .. } | Self::FeeTooHigh { .. } => true,
            Self::Rpc { source } => source.is_retryable(),
            Self::Database { source } => source.is_retryable(),
            Self::Reverted { .. }
            | Self::Refused { .. }
            | Self::KeyReused { .. }
            | Self::BadKey { .. }
            | Self::Sign { .. } => false,
        }
    }
}

fn hash_text(hash: Option<&B256>) -> String {
    hash.map(|hash| format!(" (transaction {hash})")).unwrap_or_default()
}
