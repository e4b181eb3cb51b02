//! Errors of the node, and how they look in JSON-RPC: with geth's codes and words.

use std::net::SocketAddr;

use alloy::primitives::Bytes;
use assay_evm::{CallError, ChainError, StateError, TxError};
use jsonrpsee::types::ErrorObjectOwned;

use crate::pool::PoolError;
use crate::store::StoreError;

/// Why a development chain does not start.
#[derive(Debug, thiserror::Error)]
pub enum DevnetError {
    /// The address cannot be listened on.
    #[error(
        "the chain's RPC cannot listen on {addr}: {source}; stop what uses this port or choose another address"
    )]
    Bind {
        /// The address that was asked for.
        addr: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The HTTP server cannot be set up.
    #[error("the chain's RPC server cannot be set up: {0}")]
    Server(#[source] std::io::Error),
    /// The chain in the data folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread that reads the stored chain ended.
    #[error("the stored chain was not read to its end: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
    /// Two methods of one name.
    #[error("the chain's RPC methods cannot be registered: {0}")]
    Methods(#[from] jsonrpsee::core::RegisterMethodError),
}

/// geth's code for everything that it has no code of its own for.
const CODE_SERVER: i32 = -32000;
/// A parameter that cannot be understood.
const CODE_PARAMS: i32 = -32602;
/// A fault of the node.
const CODE_INTERNAL: i32 = -32603;
/// Execution reverted; `data` holds the bytes.
const CODE_REVERT: i32 = 3;
/// A limit of this node.
const CODE_LIMIT: i32 = -32005;

/// An error as the caller sees it.
#[derive(Debug, Clone)]
pub(crate) struct RpcError {
    code: i32,
    message: String,
    data: Option<Bytes>,
}

impl RpcError {
    pub(crate) fn server(message: impl Into<String>) -> Self {
        Self { code: CODE_SERVER, message: message.into(), data: None }
    }

    pub(crate) fn params(message: impl Into<String>) -> Self {
        Self { code: CODE_PARAMS, message: message.into(), data: None }
    }

    pub(crate) fn limit(message: impl Into<String>) -> Self {
        Self { code: CODE_LIMIT, message: message.into(), data: None }
    }
}

impl From<RpcError> for ErrorObjectOwned {
    fn from(error: RpcError) -> Self {
        Self::owned(error.code, error.message, error.data)
    }
}

impl From<ErrorObjectOwned> for RpcError {
    fn from(error: ErrorObjectOwned) -> Self {
        Self { code: error.code(), message: error.message().to_owned(), data: None }
    }
}

impl From<TxError> for RpcError {
    fn from(error: TxError) -> Self {
        Self::server(error.to_string())
    }
}

impl From<PoolError> for RpcError {
    fn from(error: PoolError) -> Self {
        Self::server(error.to_string())
    }
}

impl From<StateError> for RpcError {
    fn from(error: StateError) -> Self {
        Self::server(error.to_string())
    }
}

impl From<ChainError> for RpcError {
    fn from(error: ChainError) -> Self {
        let code = match error {
            ChainError::Execution(_) | ChainError::NotOnHead { .. } | ChainError::Stored(_) => {
                CODE_INTERNAL
            }
            ChainError::Timestamp { .. } => CODE_PARAMS,
            ChainError::TooManySnapshots(_) => CODE_LIMIT,
        };
        Self { code, message: error.to_string(), data: None }
    }
}

impl From<StoreError> for RpcError {
    fn from(error: StoreError) -> Self {
        Self { code: CODE_INTERNAL, message: error.to_string(), data: None }
    }
}

impl From<CallError> for RpcError {
    fn from(error: CallError) -> Self {
        let message = error.to_string();
        match error {
            CallError::Revert(output) => Self { code: CODE_REVERT, message, data: Some(output) },
            CallError::Request(_) => Self::params(message),
            CallError::Chain(error) => error.into(),
            CallError::State(error) => error.into(),
            CallError::Invalid(error) => error.into(),
            CallError::Halt(_) | CallError::Allowance(_) => Self::server(message),
        }
    }
}
