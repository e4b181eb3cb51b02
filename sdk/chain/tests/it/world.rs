//! A chain, contracts that emit and refuse what a test wants, and an agent's folder.
//!
//! The chain is the embedded one unless a test asks for anvil; with `ASSAY_TEST_ANVIL=1` it is always anvil.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use alloy::network::{EthereumWallet, TransactionBuilder};
use alloy::primitives::{Address, B256, Bytes, U256, hex};
use alloy::providers::{DynProvider, Provider, ProviderBuilder};
use alloy::rpc::types::{Filter, TransactionReceipt, TransactionRequest};
use alloy::signers::local::PrivateKeySigner;
use alloy::sol_types::{SolError, SolEvent};
use assay_bindings::{Deployment, SessionQueue};
use assay_chain::{Block, Chain, ChainEvent, Database, EventSource, Intent, Outbox, save_cursor};
use assay_devnet::{Devnet, DevnetConfig};
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything; a test that needs it has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A contract that does what its call data says, by the first word:
/// 0 reverts with the rest; 1 works once and then reverts with the rest; anything else is the first of
/// four topics of a log whose data is what follows them.
fn contract() -> Vec<u8> {
    let revert = hex!("5b602036038060206000376000fd");
    let once = hex!("5b600054603a57600160005500");
    let log = hex!("60803603806080600037606035604035602035600035846000a400");
    let mut code = hex!("600035801560 3a 57 6001 14 60 2d 57").to_vec();
    let once_at = code.len() + log.len();
    let revert_at = once_at + once.len();
    code[6] = revert_at as u8;
    code[12] = once_at as u8;
    code.extend_from_slice(&log);
    code.extend_from_slice(&once);
    code[once_at + 5] = revert_at as u8;
    code.extend_from_slice(&revert);
    code
}

fn init_code() -> Bytes {
    let code = contract();
    // PUSH1 len, DUP1, PUSH1 11, PUSH1 0, CODECOPY, PUSH1 0, RETURN
    let mut init =
        vec![0x60, code.len() as u8, 0x80, 0x60, 0x0b, 0x60, 0x00, 0x39, 0x60, 0x00, 0xf3];
    init.extend_from_slice(&code);
    init.into()
}

/// Which chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Devnet,
    Anvil,
}

/// The program itself: npm's launcher around it would leave it running when it is killed.
fn anvil_program() -> PathBuf {
    let packages = concat!(env!("CARGO_MANIFEST_DIR"), "/../../node_modules/@foundry-rs");
    let hint = "anvil is not installed: run `npm ci` in the repository's root";
    let programs = std::fs::read_dir(packages).expect(hint);
    let programs = programs.map(|entry| entry.unwrap().path().join("bin/anvil"));
    programs.into_iter().find(|program| program.is_file()).expect(hint)
}

pub enum Node {
    Devnet(Devnet),
    Anvil { process: Child, port: u16 },
}

impl Node {
    async fn start(kind: Kind, faucet: Address) -> Self {
        let balance = U256::from(10).pow(U256::from(24));
        if kind == Kind::Devnet && std::env::var_os("ASSAY_TEST_ANVIL").is_none() {
            let config = DevnetConfig {
                block_time: None,
                accounts: vec![(faucet, balance)],
                ..DevnetConfig::default()
            };
            return Self::Devnet(Devnet::start(config).await.unwrap());
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = tokio::process::Command::new(anvil_program())
            .args(["--silent", "--hardfork", "prague", "--port", &port.to_string()])
            // Two chains that start in the same second would have the same block 0.
            .args(["--timestamp", &(1_700_000_000 + u64::from(port)).to_string()])
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let node = Self::Anvil { process, port };
        let provider = ProviderBuilder::new().connect_http(node.http_url().parse().unwrap());
        while provider.get_chain_id().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let set = provider.raw_request("anvil_setBalance".into(), (faucet, balance));
        let _: serde_json::Value = set.await.unwrap();
        node
    }

    pub fn http_url(&self) -> String {
        match self {
            Self::Devnet(devnet) => devnet.http_url(),
            Self::Anvil { port, .. } => format!("http://127.0.0.1:{port}"),
        }
    }

    pub fn ws_url(&self) -> String {
        self.http_url().replace("http", "ws")
    }

    pub async fn stop(self) {
        match self {
            Self::Devnet(devnet) => devnet.stop().await,
            Self::Anvil { mut process, .. } => process.kill().await.unwrap(),
        }
    }
}

pub struct World {
    pub node: Node,
    pub deployment: Deployment,
    /// Signs for a funded account that no outbox has.
    pub provider: DynProvider,
    folder: tempfile::TempDir,
}

impl World {
    /// A chain that mines on a transaction, or only on demand.
    pub async fn new(mine_on_transaction: bool) -> Self {
        Self::on(Kind::Devnet, mine_on_transaction).await
    }

    pub async fn on(kind: Kind, mine_on_transaction: bool) -> Self {
        let faucet = PrivateKeySigner::random();
        let node = Node::start(kind, faucet.address()).await;
        // The usual nonces are remembered, and wrong after a reorganisation.
        let provider = ProviderBuilder::new()
            .disable_recommended_fillers()
            .with_gas_estimation()
            .with_simple_nonce_management()
            .fetch_chain_id()
            .wallet(EthereumWallet::from(faucet.clone()))
            .connect_http(node.http_url().parse().unwrap())
            .erased();
        let mut at = Vec::new();
        for _ in 0..12 {
            let request = TransactionRequest::default().with_deploy_code(init_code());
            let receipt =
                provider.send_transaction(request).await.unwrap().get_receipt().await.unwrap();
            at.push(receipt.contract_address.unwrap());
        }
        let deployment = Deployment {
            chain_id: 31337,
            token: at[0],
            models: at[1],
            nodes: at[2],
            sessions: at[3],
            queue: at[4],
            payment: at[5],
            beacon: at[6],
            parameters: at[7],
            stats: at[8],
            panel: at[9],
            judgement: at[10],
            proof: at[11],
        };
        let world = Self { node, deployment, provider, folder: tempfile::tempdir().unwrap() };
        if !mine_on_transaction {
            let _: serde_json::Value = world.rpc("evm_setAutomine", (false,)).await;
        }
        world
    }

    pub async fn rpc<P, T>(&self, method: &'static str, params: P) -> T
    where
        P: serde::Serialize + Clone + std::fmt::Debug + Send + Sync + Unpin + 'static,
        T: serde::de::DeserializeOwned + std::fmt::Debug + Send + Sync + Unpin + 'static,
    {
        self.provider.raw_request(method.into(), params).await.unwrap()
    }

    /// Goes back to a snapshot; the node forgets the transactions that wait, too.
    pub async fn go_back(&self, snapshot: String) {
        let back: bool = self.rpc("evm_revert", (snapshot,)).await;
        assert!(back);
        if let Node::Anvil { .. } = self.node {
            let _: serde_json::Value = self.rpc("anvil_dropAllTransactions", ()).await;
        }
    }

    pub async fn mine(&self) {
        let _: serde_json::Value = self.rpc("evm_mine", ()).await;
    }

    pub async fn chain(&self) -> Chain {
        self.chain_at(&self.node.ws_url()).await
    }

    pub async fn chain_at(&self, urls: &str) -> Chain {
        Chain::connect(urls, self.deployment.clone()).await.unwrap()
    }

    /// Replaces the newest blocks by as many empty ones.
    pub async fn reorg(&self, depth: u64) {
        let _: serde_json::Value = self.rpc("anvil_reorg", (depth, [(); 0])).await;
    }

    pub async fn head(&self) -> u64 {
        self.provider.get_block_number().await.unwrap()
    }

    /// How often [`Self::emit`] with this nonce took effect on the canonical chain.
    pub async fn effects(&self, nonce: u64) -> usize {
        let filter = Filter::new().address(self.deployment.queue).from_block(0u64);
        let logs = self.provider.get_logs(&filter).await.unwrap();
        let emitted = logs.iter().filter_map(|log| {
            SessionQueue::TaskSubmitted::decode_log_data(log.data())
                .ok()
                .map(|event| event.task.nonce)
        });
        emitted.filter(|emitted| *emitted == nonce).count()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn database(&self, name: &str) -> Arc<Database> {
        Database::open(&self.path(name), &[]).unwrap()
    }

    pub async fn fund(&self, address: Address) {
        let _: serde_json::Value =
            self.rpc("anvil_setBalance", (address, U256::from(10).pow(U256::from(20)))).await;
    }

    /// A funded account with an outbox of its own.
    pub async fn outbox(&self, name: &str) -> Outbox {
        let signer = PrivateKeySigner::random();
        self.fund(signer.address()).await;
        Outbox::new(self.chain().await, signer, self.database(name)).await.unwrap()
    }

    /// Emits `TaskSubmitted` with this nonce from the queue.
    pub fn emit(&self, nonce: u64) -> Intent {
        Intent::call(format!("emit:{nonce}"), self.deployment.queue, log_data(nonce))
    }

    /// Is refused with `SessionQueue_UnknownTask`.
    pub fn refused(&self, key: &str) -> Intent {
        let mut data = vec![0; 32];
        data.extend_from_slice(&unknown_task());
        Intent::call(key, self.deployment.queue, data)
    }

    /// Succeeds for the first caller, and is refused with `SessionQueue_UnknownTask` ever after.
    pub fn once(&self, key: &str) -> Intent {
        let mut data = B256::with_last_byte(1).to_vec();
        data.extend_from_slice(&unknown_task());
        Intent::call(key, self.deployment.queue, data)
    }

    /// A transaction of the faucet's in a block of its own, on a chain that mines on transactions.
    pub async fn emit_block(&self, nonce: u64) {
        // anvil answers before it has mined.
        let before = self.head().await;
        self.emit_by_faucet(nonce).await;
        while self.head().await == before {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// A transaction of the faucet's, mined if the chain does that by itself.
    pub async fn emit_by_faucet(&self, nonce: u64) {
        let request = TransactionRequest::default()
            .to(self.deployment.queue)
            .with_input(log_data(nonce))
            .with_gas_limit(200_000);
        let _ = self.provider.send_transaction(request).await.unwrap();
    }
}

fn unknown_task() -> Vec<u8> {
    SessionQueue::SessionQueue_UnknownTask { taskId: B256::repeat_byte(7) }.abi_encode()
}

pub fn submitted(nonce: u64) -> SessionQueue::TaskSubmitted {
    SessionQueue::TaskSubmitted {
        taskId: B256::repeat_byte(1),
        sessionId: 2,
        nodeId: 3,
        requestDigest: B256::repeat_byte(4),
        deadline: 8,
        task: SessionQueue::Task { nonce, ..Default::default() },
        ..Default::default()
    }
}

fn log_data(nonce: u64) -> Vec<u8> {
    let log = submitted(nonce).encode_log_data();
    let mut data: Vec<u8> = log.topics().iter().flat_map(|topic| topic.0).collect();
    assert_eq!(data.len(), 128);
    data.extend_from_slice(&log.data);
    data
}

/// Nonces of the `TaskSubmitted` events of a block.
pub fn nonces(block: &Block) -> Vec<u64> {
    block
        .events
        .iter()
        .map(|event| match &event.body {
            assay_chain::ProtocolEvent::TaskSubmitted(event) => event.task.nonce,
            other => panic!("{other:?}"),
        })
        .collect()
}

pub fn succeeded(receipt: &TransactionReceipt) -> bool {
    receipt.status() && receipt.block_number.is_some()
}

/// A consumer that stores what it takes, as an agent does.
pub struct Follower {
    db: Arc<Database>,
    events: mpsc::Receiver<ChainEvent>,
    stop: CancellationToken,
    source: JoinSet<Result<(), assay_chain::ChainError>>,
}

impl Follower {
    pub fn start(chain: Chain, db: Arc<Database>, start_block: u64) -> Self {
        let (out, events) = mpsc::channel(4);
        let stop = CancellationToken::new();
        let mut source = JoinSet::new();
        source.spawn(EventSource::new(chain, Arc::clone(&db), start_block).run(out, stop.clone()));
        Self { db, events, stop, source }
    }

    /// The next event, stored with the cursor.
    pub async fn next(&mut self) -> ChainEvent {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await.unwrap().unwrap();
        self.db.transaction(|tx| save_cursor(tx, event.block())).unwrap();
        event
    }

    /// The next event's block, which must be committed.
    pub async fn committed(&mut self) -> Block {
        match self.next().await {
            ChainEvent::Committed(block) => block,
            ChainEvent::Reverted(block) => panic!("reverted {block:?}"),
        }
    }

    /// The next event's block, which must be reverted.
    pub async fn reverted(&mut self) -> Block {
        match self.next().await {
            ChainEvent::Reverted(block) => block,
            ChainEvent::Committed(block) => panic!("committed {block:?}"),
        }
    }

    /// Stops the source; what it had sent and nobody took is lost, as in a crash.
    pub async fn stop(mut self) -> Arc<Database> {
        self.stop.cancel();
        self.source.join_next().await.unwrap().unwrap().unwrap();
        self.db
    }

    /// The error that ends the source.
    pub async fn failure(mut self) -> assay_chain::ChainError {
        let ended = tokio::time::timeout(PATIENCE, self.source.join_next()).await.unwrap();
        ended.unwrap().unwrap().unwrap_err()
    }
}
