//! A checked connection to the chain.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::{Address, B256};
use alloy::providers::{DynProvider, Provider, ProviderBuilder};
use alloy::rpc::client::RpcClient;
use alloy::transports::{TransportError, TransportErrorKind};
use assay_bindings::Deployment;

use crate::cursor::bind_genesis;
use crate::rpc::Rpc;
use crate::{Database, DatabaseError};

/// Longest time that one call may take: more than the endpoints get together.
const RPC_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to one or several endpoints, known to lead to the deployment's chain and contracts.
/// Clones share it.
#[derive(Debug, Clone)]
pub struct Chain {
    /// Without fillers: what is sent is complete. Use it for reads.
    pub provider: DynProvider,
    /// Of the chain.
    pub chain_id: u64,
    /// Where the contracts are.
    pub deployment: Arc<Deployment>,
    /// What the provider calls.
    pub(crate) rpc: Rpc,
}

/// The chain cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The text is no URL, or of a scheme that is not understood.
    #[error("`{url}` is no RPC URL; write e.g. http://127.0.0.1:8545 or ws://127.0.0.1:8545")]
    BadUrl {
        /// Scheme and host, as far as there are any.
        url: String,
    },
    /// Nobody answers.
    #[error(
        "no chain answers at {url}: {source}; start it (`assay up` has one), or correct the RPC URL"
    )]
    Unreachable {
        /// Scheme and host.
        url: String,
        /// Why.
        source: TransportError,
    },
    /// Another chain answers.
    #[error(
        "{url} is chain {got}, but the deployment is on chain {expected}; \
         correct the RPC URL or name the deployment of chain {got}"
    )]
    WrongChain {
        /// Scheme and host.
        url: String,
        /// Chain of the deployment.
        expected: u64,
        /// Chain that answers.
        got: u64,
    },
    /// The chain has no code at an address of the deployment.
    #[error(
        "no contract `{contract}` at {address} on chain {chain_id}; deploy with `assay deploy`, or \
         name the right deployment file"
    )]
    NoContracts {
        /// Which one.
        contract: &'static str,
        /// Where it should be.
        address: Address,
        /// Chain that answers.
        chain_id: u64,
    },
    /// The database was made on another chain that has the same id.
    #[error(
        "the agent's database belongs to another chain: block 0 there was {stored}, here it is {got}; \
         give the agent a new data folder, or connect it to its old chain"
    )]
    OtherGenesis {
        /// As stored.
        stored: B256,
        /// As the chain says.
        got: B256,
    },
    /// More blocks were replaced than are kept.
    #[error(
        "the chain was reorganised deeper than the agent remembers, {kept} blocks at most (block {number} \
         is not canonical any more), so that it cannot undo what it learnt; make sure that the RPC node \
         is right, then start the agent with a new data folder: it reads the chain anew. Keep the old \
         folder: it holds its answers and transactions"
    )]
    ReorgTooDeep {
        /// How many blocks are kept.
        kept: u64,
        /// Oldest block that is known.
        number: u64,
    },
    /// A call failed, again and again.
    #[error("the chain at {url} did not answer {call}: {source}; check that it is up")]
    Rpc {
        /// Scheme and host.
        url: String,
        /// What was asked for.
        call: &'static str,
        /// Why.
        source: TransportError,
    },
    /// The node answered something impossible.
    #[error("the chain at {url} answered nonsense: {reason}; use another node")]
    BadAnswer {
        /// Scheme and host.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// Nobody takes the events any more.
    #[error("the receiver of the chain's events is gone")]
    ConsumerGone,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl ChainError {
    /// True if the same may work later without anybody doing anything here.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Rpc { .. } | Self::BadAnswer { .. })
    }
}

impl Chain {
    /// Connects by http(s) or ws(s), and checks the chain's id and that there is code at every address
    /// of the deployment. A WebSocket also wakes the [`crate::EventSource`] at each new block.
    ///
    /// `rpc_urls` is one URL or several with `,` between them, the preferred one first: one that fails,
    /// limits our rate, lags or is of another chain is left alone while another one answers.
    ///
    /// # Errors
    /// [`ChainError::BadUrl`], [`ChainError::Unreachable`] if none answers, [`ChainError::WrongChain`] if
    /// none is of the deployment's chain, [`ChainError::NoContracts`].
    pub async fn connect(rpc_urls: &str, deployment: Deployment) -> Result<Self, ChainError> {
        let chain_id = deployment.chain_id;
        let rpc = Rpc::connect(rpc_urls, chain_id).await?;
        let provider = ProviderBuilder::new()
            .disable_recommended_fillers()
            .connect_client(rpc.client())
            .erased();
        let chain = Self { provider, chain_id, deployment: Arc::new(deployment), rpc };
        chain.check_contracts().await?;
        Ok(chain)
    }

    /// The same endpoints for a provider of the caller's, e.g. one with a wallet:
    /// `ProviderBuilder::new().wallet(signer).connect_client(chain.client())`.
    pub fn client(&self) -> RpcClient {
        self.rpc.client()
    }

    async fn check_contracts(&self) -> Result<(), ChainError> {
        let deployment = &self.deployment;
        let contracts = [
            ("CorToken", deployment.token),
            ("Parameters", deployment.parameters),
            ("ModelRegistry", deployment.models),
            ("NodeStats", deployment.stats),
            ("NodePool", deployment.nodes),
            ("Session", deployment.sessions),
            ("SessionQueue", deployment.queue),
            ("SessionPayment", deployment.payment),
            ("RandomBeacon", deployment.beacon),
            ("ProofOfInference", deployment.proof),
        ];
        let codes = futures::future::try_join_all(contracts.map(|(_, address)| {
            self.call("eth_getCode", self.provider.get_code_at(address).into_future())
        }))
        .await?;
        for ((contract, address), code) in contracts.into_iter().zip(codes) {
            if code.is_empty() {
                let chain_id = self.chain_id;
                return Err(ChainError::NoContracts { contract, address, chain_id });
            }
        }
        Ok(())
    }

    /// Binds a database to this chain at the first call, and refuses one that belongs to another chain,
    /// such as a development chain that was started anew: its cursor and nonces would do harm here.
    ///
    /// # Errors
    /// [`ChainError::OtherGenesis`]; from the chain or the database.
    pub async fn bind(&self, db: &Database) -> Result<(), ChainError> {
        let genesis = self.provider.get_block_by_number(BlockNumberOrTag::Earliest).into_future();
        let Some(genesis) = self.call("eth_getBlockByNumber", genesis).await? else {
            return Err(self.bad_answer("there is no block 0"));
        };
        let got = genesis.header.hash;
        let stored = db.transaction(|tx| bind_genesis(tx, got))?;
        if stored != got {
            return Err(ChainError::OtherGenesis { stored, got });
        }
        Ok(())
    }

    /// One call, bounded in time.
    pub(crate) async fn call<T>(
        &self,
        call: &'static str,
        future: impl Future<Output = Result<T, TransportError>>,
    ) -> Result<T, ChainError> {
        timed(future).await.map_err(|source| self.rpc_error(call, source))
    }

    pub(crate) fn rpc_error(&self, call: &'static str, source: TransportError) -> ChainError {
        ChainError::Rpc { url: self.rpc.names(), call, source }
    }

    /// An answer that cannot be; another endpoint is asked from now on, if there is one.
    pub(crate) fn bad_answer(&self, reason: &str) -> ChainError {
        self.rpc.distrust(reason);
        ChainError::BadAnswer { url: self.rpc.names(), reason: reason.to_string() }
    }
}

/// Bounds a call in time; running out of it counts as an error of the transport.
pub(crate) async fn timed<T>(
    future: impl Future<Output = Result<T, TransportError>>,
) -> Result<T, TransportError> {
    match tokio::time::timeout(RPC_TIMEOUT, future).await {
        Ok(result) => result,
        Err(_) => {
            let text = format!("no answer within {} s", RPC_TIMEOUT.as_secs());
            Err(TransportErrorKind::custom_str(&text))
        }
    }
}
