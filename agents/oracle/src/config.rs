//! What an oracle is started with, and why it cannot start.

use std::net::SocketAddr;
use std::path::PathBuf;

use assay_bindings::Deployment;

/// How long others may settle a task before this oracle does, unless told otherwise: the miner, who has
/// its share in it, comes first.
const DEFAULT_SETTLE_GRACE_S: u64 = 5;

/// An oracle's settings.
#[derive(Debug, Clone)]
pub struct OracleConfig {
    /// Name in logs and metrics.
    pub name: String,
    /// http(s) or ws(s) URL of the chain.
    pub rpc_url: String,
    /// Where the contracts are.
    pub deployment: Deployment,
    /// First block that can hold an event of theirs; read from there at the first start.
    pub start_block: u64,
    /// Folder of the database; nobody else's.
    pub data_dir: PathBuf,
    /// Base URLs of drand's relays, where the deployment's beacon is drand; its own if there are none.
    pub drand_urls: Vec<String>,
    /// Seconds after which a task that could be drawn or settled and was not is drawn or settled by this oracle.
    pub settle_grace_s: u64,
    /// Where to serve `/metrics`, `/health` and `/ready`; port 0 takes a free one; `None` does not.
    pub observe: Option<SocketAddr>,
}

impl OracleConfig {
    /// The usual settings for a chain, its contracts and a folder.
    pub fn new(
        rpc_url: impl Into<String>,
        deployment: Deployment,
        data_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            name: "oracle".into(),
            rpc_url: rpc_url.into(),
            deployment,
            start_block: 0,
            data_dir: data_dir.into(),
            drand_urls: Vec::new(),
            settle_grace_s: DEFAULT_SETTLE_GRACE_S,
            observe: None,
        }
    }
}

/// Why an oracle cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OracleError {
    /// The chain cannot be used.
    #[error(transparent)]
    Chain(#[from] assay_chain::ChainError),
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] assay_chain::DatabaseError),
    /// The account cannot be used.
    #[error(transparent)]
    Outbox(#[from] assay_chain::OutboxError),
    /// The address for `/metrics` cannot be listened on.
    #[error("cannot listen on {addr}: {source}; free the port or give another address")]
    Listen {
        /// As configured.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The deployment's beacon does not tell what it is.
    #[error(
        "the contract `RandomBeacon` does not tell what it is: {source}; is the deployment the right one?"
    )]
    Beacon {
        /// Why.
        source: Box<alloy::contract::Error>,
    },
    /// The deployment's proof does not tell its times.
    #[error(
        "the contract `ProofOfInference` does not tell its times: {source}; is the deployment the right one?"
    )]
    Proof {
        /// Why.
        source: Box<alloy::contract::Error>,
    },
    /// A relay of drand is no URL.
    #[error(transparent)]
    Drand(#[from] crate::drand::DrandError),
    /// Metrics cannot be set up.
    #[error(transparent)]
    Metrics(#[from] assay_runtime::MetricsError),
}
