//! The server: one port for HTTP and WebSocket, and the task that mines every interval.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alloy::primitives::{Address, U256};
use assay_evm::ChainConfig;
use jsonrpsee::core::traits::IdProvider;
use jsonrpsee::server::{BatchRequestConfig, Server, ServerConfig, ServerHandle};
use jsonrpsee::types::SubscriptionId;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::clock::Clock;
use crate::error::DevnetError;
use crate::node::Node;
use crate::rpc::module;

/// Bytes of a request: the largest transaction that fits into a block (30 M gas pay for 1.9 MB of
/// zero bytes, twice as much in hex), with room for a batch.
const MAX_REQUEST_BYTES: u32 = 8 * 1024 * 1024;

/// Bytes of an answer: twenty thousand logs of the usual size.
const MAX_RESPONSE_BYTES: u32 = 64 * 1024 * 1024;

/// Calls in one batch: geth's limit.
const MAX_BATCH: u32 = 1000;

/// Connections at once: every agent of one machine needs two or three.
const MAX_CONNECTIONS: u32 = 1024;

/// Subscriptions of one connection: an agent needs about five, `assay up` shares none.
const MAX_SUBSCRIPTIONS: u32 = 256;

/// Messages that wait for a slow reader of one connection.
const MESSAGE_BUFFER: u32 = 1024;

/// What a development chain is started with.
#[derive(Debug, Clone)]
pub struct DevnetConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Chain id (EIP-155).
    pub chain_id: u64,
    /// Mine a block so often, also an empty one. `None`: only on transactions and on demand.
    pub block_time: Option<Duration>,
    /// Mine a block at once when a transaction comes in.
    pub mine_on_transaction: bool,
    /// Who has how much wei at the start. A chain that is resumed keeps what it has.
    pub accounts: Vec<(Address, U256)>,
    /// Where the chain takes its time from.
    pub clock: Clock,
    /// Folder that the chain is kept in: a block is there before its sender hears of it, and the next
    /// start with this folder goes on after the last block. `None`: in memory alone.
    pub data: Option<PathBuf>,
}

impl Default for DevnetConfig {
    /// A free port of this machine, chain 31337, a block on every transaction and every second.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            chain_id: 31337,
            block_time: Some(Duration::from_secs(1)),
            mine_on_transaction: true,
            accounts: Vec::new(),
            clock: Clock::System,
            data: None,
        }
    }
}

/// A running chain. It ends with [`Devnet::stop`], or when this is dropped.
#[derive(Debug)]
pub struct Devnet {
    addr: SocketAddr,
    node: Arc<Node>,
    handle: ServerHandle,
    tasks: JoinSet<()>,
}

impl Devnet {
    /// Makes the genesis block, or reads the stored chain, and listens.
    ///
    /// # Errors
    /// [`DevnetError::Bind`] when the address is in use or not this machine's, [`DevnetError::Store`]
    /// when the data folder is in use, of a newer version, or damaged.
    pub async fn start(config: DevnetConfig) -> Result<Self, DevnetError> {
        let bind = |source| DevnetError::Bind { addr: config.listen, source };
        let listener = tokio::net::TcpListener::bind(config.listen).await.map_err(bind)?;
        let addr = listener.local_addr().map_err(bind)?;
        let listener = listener.into_std().map_err(DevnetError::Server)?;
        let chain = ChainConfig {
            chain_id: config.chain_id,
            accounts: config.accounts,
            ..ChainConfig::default()
        };
        let open = move || {
            let (folder, mine) = (config.data.as_deref(), config.mine_on_transaction);
            Node::open(chain, folder, config.clock, mine)
        };
        let node = Arc::new(tokio::task::spawn_blocking(open).await??);
        let methods = module(Arc::clone(&node))?;
        let server = Server::builder()
            .set_config(server_config())
            .build_from_tcp(listener)
            .map_err(DevnetError::Server)?;
        let handle = server.start(methods);
        let mut tasks = JoinSet::new();
        if let Some(period) = config.block_time.filter(|period| !period.is_zero()) {
            tasks.spawn(mine_every(Arc::clone(&node), period));
        }
        let head = node.read().chain.head().number();
        tracing::info!(%addr, chain_id = config.chain_id, head, "development chain listens");
        Ok(Self { addr, node, handle, tasks })
    }

    /// Where it listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// URL for HTTP.
    pub fn http_url(&self) -> String {
        format!("http://{}", self.reachable())
    }

    /// URL for WebSocket.
    pub fn ws_url(&self) -> String {
        format!("ws://{}", self.reachable())
    }

    /// An address to connect to: that of this machine if it listens on all.
    fn reachable(&self) -> SocketAddr {
        let mut addr = self.addr;
        if addr.ip().is_unspecified() {
            addr.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        addr
    }

    /// Stops mining, closes all connections, waits until the server has ended, and gives the data
    /// folder free.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        // An error here means that the server has ended already.
        let _ = self.handle.stop();
        self.handle.clone().stopped().await;
        self.node.close();
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        let _ = self.handle.stop();
        self.node.close();
    }
}

fn server_config() -> ServerConfig {
    ServerConfig::builder()
        .max_request_body_size(MAX_REQUEST_BYTES)
        .max_response_body_size(MAX_RESPONSE_BYTES)
        .max_connections(MAX_CONNECTIONS)
        .max_subscriptions_per_connection(MAX_SUBSCRIPTIONS)
        .set_batch_request_config(BatchRequestConfig::Limit(MAX_BATCH))
        .set_message_buffer_capacity(MESSAGE_BUFFER)
        .set_id_provider(HexIds::default())
        .set_tcp_no_delay(true)
        .build()
}

/// Subscription ids as Ethereum clients expect them: hex numbers.
#[derive(Debug, Default)]
struct HexIds(AtomicU64);

impl IdProvider for HexIds {
    fn next_id(&self) -> SubscriptionId<'static> {
        let id = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        SubscriptionId::Str(format!("{id:#x}").into())
    }
}

async fn mine_every(node: Arc<Node>, period: Duration) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once; the genesis block is there already.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let node = Arc::clone(&node);
        // A full block takes long to execute: not on a thread that serves requests.
        match tokio::task::spawn_blocking(move || node.mine()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!(?error, "the interval block failed"),
            Err(error) => tracing::error!(%error, "the interval block failed"),
        }
    }
}
