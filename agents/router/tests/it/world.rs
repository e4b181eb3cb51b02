//! The fakes, and what every test starts with.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use alloy::signers::{SignerSync, local::PrivateKeySigner};
use assay_protocol::money::TOKENS_PER_PRICE;
use assay_router::{
    BlockUpdate, Journal, Parts, RouterConfig, RouterHandle, ServedModel, assemble,
    book::{
        facts::{Fact, Observed, Submitted},
        service::BlockChange,
    },
    ports::{ChainPort, Mined, PortError},
};
use assay_store::{Bytes, ContentStore, StoreError};
use assay_types::{
    Address, B256, Cancellation, EndReason, Lane, ModelId, ModelIndex, NodeId, Nonce, ResultBlock,
    SessionId, Signed, StreamHash, TaskId, TaskRequest, TokenLogprobs,
    link::{
        DOMAIN_LINK_MINER, DOMAIN_LINK_ROUTER, FromMiner, FromRouter, LINK_VERSION, Offer,
        SignedCancellation, StreamReceipt, challenge_hash,
    },
    sha256,
};
use async_trait::async_trait;
use futures::{SinkExt, StreamExt};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config, tungstenite::Message as Ws,
};

pub const CHAIN_ID: u64 = 31337;
pub const SESSION: SessionId = SessionId(1);
pub const MODEL_INDEX: ModelIndex = ModelIndex(1);
/// Minor units a token.
pub const PRICE_IN: u128 = 2;
pub const PRICE_OUT: u128 = 3;
/// The beacon's value for the reservation's round.
pub const SEED: B256 = B256::repeat_byte(0x99);
pub const LANE: Lane = Lane(1);
pub const MODEL: &str = "assay-demo";
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn queue() -> Address {
    Address::repeat_byte(0x42)
}

pub fn model_id() -> ModelId {
    ModelId(B256::repeat_byte(0x11))
}

#[derive(Default)]
pub struct FakeChain {
    pub operators: Mutex<HashMap<NodeId, Address>>,
    pub submitted: Mutex<Vec<TaskRequest>>,
    pub refusal: Mutex<Option<String>>,
    /// Submissions never end, as those of a chain that does not answer.
    pub is_stuck: AtomicBool,
}

#[async_trait]
impl ChainPort for FakeChain {
    fn chain_id(&self) -> u64 {
        CHAIN_ID
    }

    fn queue(&self) -> Address {
        queue()
    }

    async fn operator_of(&self, node: NodeId) -> Result<Option<Address>, PortError> {
        Ok(self.operators.lock().unwrap().get(&node).copied())
    }

    async fn submit(&self, _task: TaskId, request: TaskRequest) -> Result<Mined, PortError> {
        if self.is_stuck.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        self.submitted.lock().unwrap().push(request);
        match self.refusal.lock().unwrap().clone() {
            Some(reason) => Err(PortError::Refused { reason }),
            None => Ok(Mined { transaction: B256::repeat_byte(0x77), gas_used: 123_456 }),
        }
    }

    async fn gas_used(&self, _transaction: B256) -> Result<Option<u64>, PortError> {
        Ok(Some(123_456))
    }
}

#[derive(Default)]
pub struct MemoryStore {
    blocks: Mutex<HashMap<B256, Bytes>>,
    /// Nothing can be put, as into a daemon that is down.
    pub is_away: AtomicBool,
}

#[async_trait]
impl ContentStore for MemoryStore {
    async fn put(&self, bytes: Bytes) -> Result<B256, StoreError> {
        if self.is_away.load(SeqCst) {
            return Err(StoreError::Timeout { url: "fake".into(), after: Duration::ZERO });
        }
        let digest = sha256(&bytes);
        self.blocks.lock().unwrap().insert(digest, bytes);
        Ok(digest)
    }

    async fn get(&self, digest: B256) -> Result<Bytes, StoreError> {
        let found = self.blocks.lock().unwrap().get(&digest).cloned();
        found.ok_or(StoreError::NotFound { cid: assay_store::cid_of(digest).to_string() })
    }

    async fn is_pinned(&self, digest: B256) -> Result<bool, StoreError> {
        Ok(self.blocks.lock().unwrap().contains_key(&digest))
    }

    async fn health(&self) -> Result<String, StoreError> {
        Ok("fake".into())
    }
}

pub struct World {
    pub router: RouterHandle,
    pub chain: Arc<FakeChain>,
    pub store: Arc<MemoryStore>,
    pub key: PrivateKeySigner,
    pub blocks: mpsc::Sender<BlockUpdate>,
    pub http: reqwest::Client,
    pub operators: HashMap<NodeId, PrivateKeySigner>,
    next_block: u64,
    /// Unix seconds of the block before the first.
    genesis_s: u64,
}

/// The fake chain's clock: after that of any machine that runs the tests for years.
const GENESIS_S: u64 = 1_800_000_000;

pub fn config(data: &Path) -> RouterConfig {
    let models = vec![ServedModel { name: MODEL.into(), model_id: model_id(), max_context: 4096 }];
    let mut config = RouterConfig::new("127.0.0.1:0".parse().unwrap(), data.to_path_buf(), models);
    // Most tests have no miner that comes back.
    config.resume_timeout = Duration::from_millis(50);
    config
}

impl World {
    /// A router that knows of no session.
    pub async fn bare(data: &Path, key: PrivateKeySigner) -> Self {
        Self::with_config(config(data), key).await
    }

    pub async fn with_config(config: RouterConfig, key: PrivateKeySigner) -> Self {
        Self::around(config, key, Default::default(), Default::default()).await
    }

    /// A router beside a chain and a store that are there already.
    pub async fn around(
        config: RouterConfig,
        key: PrivateKeySigner,
        chain: Arc<FakeChain>,
        store: Arc<MemoryStore>,
    ) -> Self {
        let (blocks, updates) = mpsc::channel(16);
        let parts = Parts {
            chain: chain.clone(),
            signer: key.clone(),
            store: store.clone(),
            journal: Journal::open(&config.data).unwrap(),
            blocks: updates,
            services: Vec::new(),
            services_stop: Default::default(),
        };
        let router = assemble(config, parts).await.unwrap();
        let operators: HashMap<NodeId, PrivateKeySigner> =
            (1..=4).map(|n| (NodeId(n), PrivateKeySigner::random())).collect();
        for (node, operator) in &operators {
            chain.operators.lock().unwrap().insert(*node, operator.address());
        }
        let http = reqwest::Client::new();
        Self {
            router,
            chain,
            store,
            key,
            blocks,
            http,
            operators,
            next_block: 1,
            genesis_s: GENESIS_S,
        }
    }

    /// A router with one session of these nodes.
    pub async fn with_nodes(data: &Path, nodes: &[u32]) -> Self {
        let mut world = Self::bare(data, PrivateKeySigner::random()).await;
        world.open_session(nodes, u128::MAX).await;
        world
    }

    pub async fn open_session(&mut self, nodes: &[u32], allotment: u128) {
        let holder = self.key.address();
        let nodes = nodes.iter().map(|n| NodeId(*n)).collect();
        self.mine(vec![
            Fact::ModelRegistered { index: MODEL_INDEX, model: model_id() },
            Fact::SessionOpened {
                session: SESSION,
                model: MODEL_INDEX,
                price_in: PRICE_IN * TOKENS_PER_PRICE,
                price_out: PRICE_OUT * TOKENS_PER_PRICE,
            },
            Fact::LaneAdded { session: SESSION, lane: LANE, holder, allotment },
        ])
        .await;
        let activated =
            Fact::SessionActivated { session: SESSION, seed_round: 9, nodes, previous_until: 0 };
        self.mine(vec![activated]).await;
        self.mine(vec![Fact::RoundRevealed { round: 9, value: SEED }]).await;
    }

    /// The chain's clock shows hardly more than the wall's; before the first block.
    pub fn use_wall_clock(&mut self) {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        self.genesis_s = now.as_secs() - 100;
    }

    /// Ends the router by force, as a crash does: its chain and its store, once its database is free.
    pub async fn crash(self, data: &Path) -> (Arc<FakeChain>, Arc<MemoryStore>) {
        let (chain, store) = (self.chain.clone(), self.store.clone());
        drop(self);
        while Journal::open(data).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        (chain, store)
    }

    /// A block with these facts; returns when it was taken from the channel.
    pub async fn mine(&mut self, facts: Vec<Fact>) -> Observed {
        let number = self.next_block;
        self.next_block += 1;
        let block = Observed {
            number,
            hash: B256::from(alloy::primitives::U256::from(number + 1000)),
            timestamp: self.genesis_s + number,
            facts: facts
                .into_iter()
                .map(|f| (B256::from(alloy::primitives::U256::from(number)), f))
                .collect(),
        };
        self.change(BlockChange::Committed(block.clone())).await;
        block
    }

    /// Sends a change, and returns when the router has written it.
    pub async fn change(&self, change: BlockChange) {
        let (done, written) = tokio::sync::oneshot::channel();
        let cursor = Box::new(move |_: &rusqlite::Transaction<'_>| {
            let _ = done.send(());
            Ok(())
        });
        self.blocks.send(BlockUpdate { change, cursor }).await.unwrap();
        written.await.unwrap();
    }

    pub fn address(&self) -> SocketAddr {
        self.router.local_addr()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    pub async fn miner(&self, node: u32) -> Miner {
        let miner = Miner::connect(
            self.address(),
            NodeId(node),
            &self.operators[&NodeId(node)],
            self.store.clone(),
        );
        let miner = miner.await.unwrap();
        self.until_ready().await;
        miner
    }

    pub async fn until_ready(&self) {
        tokio::time::timeout(PATIENCE, self.router.health().wait_ready()).await.unwrap();
    }

    pub fn ask(&self, body: serde_json::Value) -> impl Future<Output = reqwest::Response> + use<> {
        let request = self.http.post(self.url("/v1/chat/completions")).json(&body);
        async move { request.send().await.unwrap() }
    }

    pub async fn task(&self, id: &str) -> serde_json::Value {
        let response = self.http.get(self.url(&format!("/v1/tasks/{id}"))).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    }

    /// The task, once `done` says so.
    pub async fn task_until(
        &self,
        id: &str,
        done: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let task = self.task(id).await;
            if done(&task) {
                return task;
            }
            assert!(tokio::time::Instant::now() < until, "never: {task:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The chain has the task, on these nodes.
pub fn submitted(task: TaskId, offer: &Offer, nodes: &[u32]) -> Fact {
    let request = &offer.request;
    Fact::TaskSubmitted(Submitted {
        task,
        session: SessionId(request.sessionId),
        lane: Lane(request.lane),
        nodes: nodes.iter().map(|node| NodeId(*node)).collect(),
        nonce: Nonce(request.nonce),
        request_digest: request.requestDigest,
        max_prompt: request.maxPrompt,
        max_output: request.maxOutput,
        held: request.feeCap.to::<u128>() * u128::from(request.redundancy),
        deadline: request.deadline,
    })
}

/// A node's answer is on chain.
pub fn committed(task: TaskId, node: u32, fee: u128) -> Fact {
    let output_digest = B256::repeat_byte(u8::try_from(node).unwrap());
    let node = NodeId(node);
    Fact::TaskCommitted { task, node, output_digest, prompt_tokens: 7, output_tokens: 1, fee }
}

/// A node's answer is paid.
pub fn settled(task: TaskId, node: u32, fee: u128) -> Fact {
    Fact::TaskSettled { task, node: NodeId(node), fee }
}

/// The data lines of a streamed answer.
pub fn data_lines(body: &str) -> Vec<&str> {
    body.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
}

pub fn events(task: &serde_json::Value) -> Vec<&str> {
    task["timeline"].as_array().unwrap().iter().map(|e| e["event"].as_str().unwrap()).collect()
}

pub fn hello(stream: bool) -> serde_json::Value {
    serde_json::json!({
        "model": MODEL, "stream": stream, "messages": [{"role": "user", "content": "Hello"}],
    })
}

pub struct Miner {
    pub node: NodeId,
    pub operator: PrivateKeySigner,
    pub store: Arc<MemoryStore>,
    /// `SessionQueue`, as the router's challenge names it.
    queue: Address,
    /// The router's key, as the challenge names it.
    router: Address,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Miner {
    /// Connects and proves the key; `Err` is the router's refusal.
    pub async fn connect(
        address: SocketAddr,
        node: NodeId,
        operator: &PrivateKeySigner,
        store: Arc<MemoryStore>,
    ) -> Result<Self, (String, String)> {
        // Without Nagle's delay, as a real miner connects.
        let url = format!("ws://{address}/link");
        let (socket, _) = connect_async_with_config(url, None, true).await.unwrap();
        let (operator, unknown) = (operator.clone(), Address::ZERO);
        let (queue, router) = (unknown, unknown);
        let mut miner = Self { node, operator, store, queue, router, socket };
        let Some(FromRouter::Challenge { version, chain_id, queue: q, router, nonce }) =
            miner.recv().await
        else {
            panic!("no challenge")
        };
        assert_eq!((version, chain_id), (LINK_VERSION, CHAIN_ID));
        (miner.queue, miner.router) = (q, router);
        let hash = challenge_hash(DOMAIN_LINK_MINER, chain_id, q, node, router, nonce);
        let signature = miner.operator.sign_hash_sync(&hash).unwrap();
        let mine = B256::repeat_byte(0x55);
        miner.send(FromMiner::Hello { version, node, signature, nonce: mine, capacity: 2 }).await;
        match miner.recv().await {
            Some(FromRouter::Welcome { signature }) => {
                let hash = challenge_hash(DOMAIN_LINK_ROUTER, chain_id, q, node, router, mine);
                assert_eq!(signature.recover_address_from_prehash(&hash).unwrap(), router);
                Ok(miner)
            }
            Some(FromRouter::Error { code, message, .. }) => Err((code, message)),
            other => panic!("{other:?}"),
        }
    }

    /// The next frame; pings are answered. `None` when the router has closed.
    pub async fn recv(&mut self) -> Option<FromRouter> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await.unwrap()?;
            match message {
                Ok(Ws::Text(text)) => match serde_json::from_str(&text).unwrap() {
                    FromRouter::Ping { seq } => self.send(FromMiner::Pong { seq }).await,
                    frame => return Some(frame),
                },
                Ok(Ws::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The task that is to be stopped, and how many of its tokens the router has signed for.
    pub async fn cancelled(&mut self) -> (TaskId, u32) {
        match self.recv().await {
            Some(FromRouter::Cancel { task, signed: None }) => (task, 0),
            Some(FromRouter::Cancel {
                task,
                signed: Some(SignedCancellation { tokens, signature }),
            }) => {
                let cancellation = Cancellation::new(task, tokens);
                assert_eq!(
                    cancellation.signer(CHAIN_ID, self.queue, &signature).unwrap(),
                    self.router
                );
                (task, tokens)
            }
            other => panic!("no cancel but {other:?}"),
        }
    }

    pub async fn send(&mut self, frame: FromMiner) {
        self.send_text(serde_json::to_string(&frame).unwrap()).await;
    }

    pub async fn send_text(&mut self, text: String) {
        let _ = self.socket.send(Ws::Text(text.into())).await;
    }

    pub async fn offer(&mut self) -> (TaskId, Box<Offer>) {
        match self.recv().await {
            Some(FromRouter::Offer(offer)) => (self.task_of(&offer), offer),
            other => panic!("no offer but {other:?}"),
        }
    }

    pub async fn accept(&mut self, task: TaskId) {
        self.send(FromMiner::Accept { task, prompt_tokens: 7 }).await;
    }

    pub async fn token(&mut self, task: TaskId, seq: u32, text: &str) {
        self.stated(task, seq, text, vec![]).await;
    }

    /// A token with what is stated of it.
    pub async fn stated(
        &mut self,
        task: TaskId,
        seq: u32,
        text: &str,
        logprobs: Vec<TokenLogprobs>,
    ) {
        let (ids, text) = (vec![seq + 100], text.into());
        self.send(FromMiner::Token { task, seq, ids, text, logprobs }).await;
    }

    pub async fn receipt(&mut self, task: TaskId, ids: &[u32], key: &PrivateKeySigner) {
        let stream_hash = StreamHash::of(task, ids);
        let seq = u32::try_from(ids.len()).unwrap();
        let receipt = StreamReceipt::new(task, self.node, seq, stream_hash);
        let hash = receipt.signing_hash(CHAIN_ID, self.queue);
        let signature = key.sign_hash_sync(&hash).unwrap();
        self.send(FromMiner::Receipt { task, seq, stream_hash, signature }).await;
    }

    /// Pins a result of these words, one token each, and says that it is done. `pinned` is the text that
    /// stands in the block.
    pub async fn finish(&mut self, task: TaskId, words: &[&str], pinned: &str) {
        let ids: Vec<u32> = (0..words.len()).map(|i| i as u32 + 100).collect();
        self.finish_with(task, words.len(), ids, pinned).await;
    }

    /// The same; `pinned_ids` and `pinned` stand in the block.
    pub async fn finish_with(
        &mut self,
        task: TaskId,
        streamed: usize,
        pinned_ids: Vec<u32>,
        pinned: &str,
    ) {
        let ids: Vec<u32> = (0..streamed).map(|i| i as u32 + 100).collect();
        let key = self.operator.clone();
        self.receipt(task, &ids, &key).await;
        let stream_hash = StreamHash::of(task, &ids);
        let output_tokens = ids.len() as u32;
        let end_reason = EndReason::Eos;
        let block = ResultBlock {
            cancellation: None,
            end_reason,
            stream_hash: StreamHash::of(task, &pinned_ids),
            ids: pinned_ids,
            salt: B256::repeat_byte(3),
            text: pinned.into(),
            version: 1,
        };
        let output_digest = self.store.put(block.encode().unwrap().0.into()).await.unwrap();
        self.send(FromMiner::Done {
            task,
            end_reason,
            prompt_tokens: 7,
            output_tokens,
            output_digest,
            stream_hash,
        })
        .await;
    }

    /// The task of an offer.
    pub fn task_of(&self, offer: &Offer) -> TaskId {
        offer.request.task_id(self.queue)
    }

    /// Serves one offer honestly.
    pub async fn serve(&mut self, words: &[&str]) -> (TaskId, Box<Offer>) {
        let (task, offer) = self.offer().await;
        self.answer(task, words).await;
        (task, offer)
    }

    /// Answers a task that was offered.
    pub async fn answer(&mut self, task: TaskId, words: &[&str]) {
        self.accept(task).await;
        for (seq, word) in words.iter().enumerate() {
            self.token(task, seq as u32, word).await;
        }
        self.finish(task, words, &words.concat()).await;
    }
}
