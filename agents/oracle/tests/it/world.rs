//! A chain with the contracts, one model, one node, and somebody who opens sessions.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alloy::network::EthereumWallet;
use alloy::primitives::{
    Address, B256, Bytes, U256,
    aliases::{U80, U96},
};
use alloy::providers::{DynProvider, Provider, ProviderBuilder};
use alloy::rpc::types::TransactionReceipt;
use alloy::signers::local::PrivateKeySigner;
use alloy::sol_types::{SolCall, SolEvent};
use assay_bindings::{
    COR, CorToken, DeployConfig, Deployment, ModelRegistry, NodePool, RandomBeacon, Session,
    SessionQueue, deploy,
};
use assay_chain::{Chain, Database, Intent, Outbox};
use assay_devnet::{Clock, Devnet, DevnetConfig};
use assay_oracle::{OracleConfig, OracleHandle, start};
use assay_protocol::{TaskRecord, TaskState};

/// Longest wait for anything; a test that needs it has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Price of a million tokens.
const PRICE: u128 = 1000 * COR;
/// Seconds that the draw of a session's nodes may take.
pub const RESERVATION_TIMEOUT_S: u32 = 30;

pub struct World {
    _devnet: Devnet,
    pub url: String,
    pub http_url: String,
    pub deployment: Deployment,
    pub provider: DynProvider,
    pub user: Outbox,
    /// Relays of drand that its oracles ask.
    pub drand_urls: Vec<String>,
    calls: AtomicU64,
    folder: tempfile::TempDir,
}

pub fn model() -> B256 {
    B256::repeat_byte(0x42)
}

pub fn class() -> B256 {
    let mut class = B256::ZERO;
    class[..7].copy_from_slice(b"cpu-f32");
    class
}

/// A node for the model that this account operates, and is paid for.
pub fn node_of(operator: Address) -> NodePool::NodeRegistration {
    NodePool::NodeRegistration {
        operator,
        payout: operator,
        numericClass: class(),
        offers: vec![NodePool::Offer { modelId: model(), capacity: 2 }],
        ..Default::default()
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(DeployConfig::development(), Clock::System).await
    }

    pub async fn with(mut deployed: DeployConfig, clock: Clock) -> Self {
        deployed.session.reservation_timeout_s = RESERVATION_TIMEOUT_S;
        let signer = PrivateKeySigner::random();
        let address = signer.address();
        let config = DevnetConfig {
            block_time: Some(Duration::from_millis(100)),
            accounts: vec![(address, U256::from(10).pow(U256::from(24)))],
            clock,
            ..DevnetConfig::default()
        };
        let devnet = Devnet::start(config).await.unwrap();
        let provider = ProviderBuilder::new()
            .wallet(EthereumWallet::from(signer.clone()))
            .connect_http(devnet.http_url().parse().unwrap())
            .erased();
        let deployment = deploy(&provider, address, &deployed).await.unwrap();
        let (url, http_url) = (devnet.ws_url(), devnet.http_url());
        let folder = tempfile::tempdir().unwrap();
        let chain = Chain::connect(&url, deployment.clone()).await.unwrap();
        let db = Database::open(&folder.path().join("user.db"), &[]).unwrap();
        let user = Outbox::new(chain, signer, db).await.unwrap();
        let calls = AtomicU64::new(0);
        let drand_urls = Vec::new();
        Self {
            _devnet: devnet,
            url,
            http_url,
            deployment,
            provider,
            user,
            drand_urls,
            calls,
            folder,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub async fn call(&self, to: Address, call: impl SolCall) -> TransactionReceipt {
        let key = format!("call:{}", self.calls.fetch_add(1, Ordering::Relaxed));
        self.user.send(Intent::call(key, to, call.abi_encode())).await.unwrap()
    }

    /// Registers the model and one node for it, and waits until a draw can find it.
    pub async fn register(&self) {
        let at = &self.deployment;
        self.register_model().await;
        self.call(at.nodes, NodePool::registerCall { registration: node_of(self.user.address()) })
            .await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    /// Registers the model; the user, who publishes it, can pay deposits and stakes.
    pub async fn register_model(&self) {
        let at = &self.deployment;
        let approve = CorToken::approveCall { spender: at.payment, value: U256::MAX };
        self.call(at.token, approve).await;
        let price = U80::from(PRICE);
        let registration = ModelRegistry::ModelRegistration {
            modelId: model(),
            manifestDigest: B256::repeat_byte(1),
            floors: vec![ModelRegistry::Floor { asset: 0, priceIn: price, priceOut: price }],
            ..Default::default()
        };
        self.call(at.models, ModelRegistry::registerCall { registration }).await;
    }

    /// Opens a session of this many nodes; returns its id.
    pub async fn open(&self, nodes: u8) -> u64 {
        let terms = Session::OpenTerms {
            modelId: model(),
            minNodes: nodes,
            maxNodes: nodes,
            maxPriceIn: U80::MAX,
            maxPriceOut: U80::MAX,
            deposit: U96::from(10 * COR),
            ..Default::default()
        };
        let receipt = self.call(self.deployment.sessions, Session::openCall { terms }).await;
        receipt
            .logs()
            .iter()
            .find_map(|log| Session::SessionOpened::decode_log(&log.inner).ok())
            .unwrap()
            .sessionId
    }

    /// Submits a task that may be answered for `seconds`.
    pub async fn submit(&self, session: u64, nonce: u64, seconds: u64) -> B256 {
        self.submit_to(session, nonce, seconds, 0).await
    }

    /// The same for a node; 0 leaves that to the session's seed.
    pub async fn submit_to(&self, session: u64, nonce: u64, seconds: u64, node: u32) -> B256 {
        let head = self.provider.get_block(Default::default()).await.unwrap().unwrap();
        let request = SessionQueue::TaskRequest {
            sessionId: session,
            lane: 0,
            nonce,
            requestDigest: B256::repeat_byte(2),
            maxPrompt: 10,
            maxOutput: 64,
            feeCap: U96::MAX,
            deadline: head.header.timestamp + seconds,
            nodeId: node,
            redundancy: 1,
            attempts: 1,
            ..Default::default()
        };
        self.call(self.deployment.queue, SessionQueue::submitCall { request }).await;
        let queue = SessionQueue::new(self.deployment.queue, &self.provider);
        queue.taskIdOf(session, 0, nonce).call().await.unwrap()
    }

    /// Answers a task as its node.
    pub async fn commit(&self, task: B256) {
        let answer = SessionQueue::Answer {
            nodeId: 1,
            outputDigest: B256::repeat_byte(3),
            promptHash: B256::repeat_byte(4),
            promptTokens: 5,
            outputTokens: 5,
            numericClass: class(),
            endReason: 1,
            salt: B256::repeat_byte(5),
            proofSeal: B256::repeat_byte(6),
            signature: Bytes::new(),
        };
        let task = self.record(task).await.task;
        let call = SessionQueue::commitCall { task, answers: vec![answer] };
        self.call(self.deployment.queue, call).await;
    }

    /// A task as its submission told it.
    pub async fn record(&self, task: B256) -> TaskRecord {
        let queue = SessionQueue::new(self.deployment.queue, &self.provider);
        let events = queue.TaskSubmitted_filter().topic1(task).from_block(0).query().await;
        TaskRecord::submitted(&events.unwrap()[0].0)
    }

    pub async fn task_state(&self, task: B256) -> TaskState {
        let queue = SessionQueue::new(self.deployment.queue, &self.provider);
        TaskState::try_from(queue.statusOf(task).call().await.unwrap().state).unwrap()
    }

    /// How often these tasks were settled or refunded, all together.
    pub async fn ended(&self, tasks: &[B256]) -> usize {
        let queue = SessionQueue::new(self.deployment.queue, &self.provider);
        let settled = queue.TaskSettled_filter().from_block(0).query().await.unwrap();
        let refunded = queue.TaskRefunded_filter().from_block(0).query().await.unwrap();
        let ids = settled.iter().map(|(event, _)| event.taskId);
        let ids = ids.chain(refunded.iter().map(|(event, _)| event.taskId));
        ids.filter(|id| tasks.contains(id)).count()
    }

    pub async fn session_state(&self, session: u64) -> u8 {
        let sessions = Session::new(self.deployment.sessions, &self.provider);
        sessions.sessionOf(session).call().await.unwrap().state
    }

    pub async fn is_seeded(&self, session: u64) -> bool {
        let sessions = Session::new(self.deployment.sessions, &self.provider);
        let round = sessions.sessionOf(session).call().await.unwrap().current.seedRound;
        let beacon = RandomBeacon::new(self.deployment.beacon, &self.provider);
        round != 0 && beacon.valueOf(round).call().await.unwrap() != B256::ZERO
    }

    /// An oracle with a funded account of its own.
    pub async fn oracle(&self, name: &str) -> OracleHandle {
        self.oracle_of(name, PrivateKeySigner::random()).await
    }

    pub async fn oracle_of(&self, name: &str, signer: PrivateKeySigner) -> OracleHandle {
        let balance = U256::from(10).pow(U256::from(20));
        let _: serde_json::Value = self
            .provider
            .raw_request("anvil_setBalance".into(), (signer.address(), balance))
            .await
            .unwrap();
        let mut config = OracleConfig::new(&self.url, self.deployment.clone(), self.path(name));
        config.name = name.into();
        config.settle_grace_s = 0;
        config.drand_urls = self.drand_urls.clone();
        config.observe = Some("127.0.0.1:0".parse().unwrap());
        start(config, signer).await.unwrap()
    }
}

/// Waits until `condition` holds.
pub async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{what}");
}
