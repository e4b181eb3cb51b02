//! Fakes of what is around a miner: store, router; the chain is in `chain`.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use alloy::{
    primitives::aliases::U96,
    signers::{SignerSync, local::PrivateKeySigner},
};
use assay_chain::Database;
use assay_engine::{EchoEngine, EchoOptions, Engine};
use assay_miner::{MIGRATIONS, MinerConfig, MinerHandle, NodeParts, start_node};
use assay_store::{Bytes as StoreBytes, ContentStore, StoreError, cid_of};
use assay_types::{
    Address, B256, BLOCK_VERSION, Bytes, Message as ChatMessage, NodeId, Prompt, RequestBlock,
    Sampling, Signed, TaskId, TaskRequest,
    link::{
        DOMAIN_LINK_MINER, DOMAIN_LINK_ROUTER, FromMiner, FromRouter, LINK_VERSION, Offer,
        challenge_hash,
    },
    sha256,
};
use async_trait::async_trait;
use futures::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};

pub use crate::chain::*;

pub const CHAIN_ID: u64 = 31337;
pub const QUEUE: Address = Address::repeat_byte(0x0a);
pub const NODE: NodeId = NodeId(3);
pub const SESSION: u64 = 1;
pub const LANE: u32 = 1;
pub const NOW_S: u64 = 1_800_000_000;
pub const DEADLINE_S: u64 = NOW_S + 600;
pub const SETTLE_DELAY_S: u64 = 30;
/// Above any wait of a test that passes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A content store in memory.
#[derive(Default)]
pub struct MemStore {
    blocks: Arc<Mutex<HashMap<B256, StoreBytes>>>,
    /// What is not found here.
    hidden: Mutex<HashSet<B256>>,
    failures: AtomicU64,
    gets_fail: AtomicBool,
    puts_fail: AtomicBool,
}

impl MemStore {
    /// The next `n` calls fail.
    pub fn fail(&self, n: u64) {
        self.failures.store(n, Ordering::SeqCst);
    }

    /// From now on nothing is found, or everything is again.
    pub fn fail_gets(&self, fail: bool) {
        self.gets_fail.store(fail, Ordering::SeqCst);
    }

    /// From now on nothing is taken, or everything is again.
    pub fn fail_puts(&self, fail: bool) {
        self.puts_fail.store(fail, Ordering::SeqCst);
    }

    /// Another daemon with the same blocks.
    pub fn beside(&self) -> Arc<Self> {
        Arc::new(Self { blocks: self.blocks.clone(), ..Self::default() })
    }

    /// The block is not found here; other daemons have it.
    pub fn hide(&self, digest: B256) {
        self.hidden.lock().unwrap().insert(digest);
    }

    /// Nobody has the block any more.
    pub fn forget(&self, digest: B256) {
        self.blocks.lock().unwrap().remove(&digest);
    }

    fn closed(&self, gate: &AtomicBool) -> Result<(), StoreError> {
        match gate.load(Ordering::SeqCst) {
            true => Err(StoreError::Daemon { message: "closed by the test".into() }),
            false => self.check(),
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        let failed =
            self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        match failed {
            Ok(_) => Err(StoreError::Daemon { message: "failure of the test".into() }),
            Err(_) => Ok(()),
        }
    }
}

#[async_trait]
impl ContentStore for MemStore {
    async fn put(&self, bytes: StoreBytes) -> Result<B256, StoreError> {
        self.closed(&self.puts_fail)?;
        let digest = sha256(&bytes);
        self.blocks.lock().unwrap().insert(digest, bytes);
        Ok(digest)
    }

    async fn get(&self, digest: B256) -> Result<StoreBytes, StoreError> {
        self.closed(&self.gets_fail)?;
        let is_hidden = self.hidden.lock().unwrap().contains(&digest);
        let found = self.blocks.lock().unwrap().get(&digest).cloned().filter(|_| !is_hidden);
        found.ok_or_else(|| StoreError::NotFound { cid: cid_of(digest).to_string() })
    }

    async fn is_pinned(&self, digest: B256) -> Result<bool, StoreError> {
        Ok(self.blocks.lock().unwrap().contains_key(&digest))
    }

    async fn health(&self) -> Result<String, StoreError> {
        Ok("memory".into())
    }
}

/// A router that says what the test says.
pub struct FakeRouter {
    listener: TcpListener,
    pub key: PrivateKeySigner,
    pub chain_id: u64,
    pub queue: Address,
    pub node: NodeId,
}

/// A router's side of a link.
pub struct RouterLink {
    socket: WebSocketStream<TcpStream>,
    pub capacity: u32,
}

impl FakeRouter {
    pub async fn start(key: PrivateKeySigner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, key, chain_id: CHAIN_ID, queue: QUEUE, node: NODE }
    }

    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub fn url(&self) -> String {
        format!("ws://{}/link", self.addr())
    }

    /// A connection before its handshake.
    pub async fn accept_raw(&self) -> RouterLink {
        let accepted = tokio::time::timeout(PATIENCE, self.listener.accept()).await;
        let (stream, _) = accepted.expect("no miner connects").unwrap();
        RouterLink { socket: accept_async(stream).await.unwrap(), capacity: 0 }
    }

    pub fn challenge(&self, nonce: B256) -> FromRouter {
        FromRouter::Challenge {
            version: LINK_VERSION,
            chain_id: self.chain_id,
            queue: self.queue,
            router: self.key.address(),
            nonce,
        }
    }

    /// A connection with both keys proven; `operator` is who must answer.
    pub async fn accept(&self, operator: Address) -> RouterLink {
        let mut link = self.accept_raw().await;
        let nonce = B256::repeat_byte(0x77);
        link.send(self.challenge(nonce)).await;
        let FromMiner::Hello { version, node, signature, nonce: theirs, capacity } =
            link.next().await
        else {
            panic!("no hello")
        };
        assert_eq!((version, node), (LINK_VERSION, self.node));
        let hash = |domain, nonce| {
            challenge_hash(domain, CHAIN_ID, self.queue, node, self.key.address(), nonce)
        };
        let signer =
            signature.recover_address_from_prehash(&hash(DOMAIN_LINK_MINER, nonce)).unwrap();
        assert_eq!(signer, operator);
        let signature = self.key.sign_hash_sync(&hash(DOMAIN_LINK_ROUTER, theirs)).unwrap();
        link.send(FromRouter::Welcome { signature }).await;
        link.capacity = capacity;
        link
    }
}

impl RouterLink {
    pub async fn send(&mut self, frame: FromRouter) {
        self.send_text(serde_json::to_string(&frame).unwrap()).await;
    }

    pub async fn send_text(&mut self, text: String) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The next frame that is no ping.
    pub async fn next(&mut self) -> FromMiner {
        self.try_next().await.expect("the miner closed the link")
    }

    /// The same; `None` if the miner closed.
    pub async fn try_next(&mut self) -> Option<FromMiner> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next());
            match message.await.expect("the miner is silent") {
                Some(Ok(Message::Text(text))) => match serde_json::from_str(&text).unwrap() {
                    FromMiner::Ping { seq } => self.send(FromRouter::Pong { seq }).await,
                    frame => return Some(frame),
                },
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Frames of one task up to its end.
    pub async fn task(&mut self, task: TaskId) -> TaskFrames {
        let mut frames = TaskFrames::default();
        loop {
            let frame = self.next().await;
            match &frame {
                FromMiner::Accept { task: t, prompt_tokens } if *t == task => {
                    assert!(frames.ids.is_empty());
                    frames.prompt_tokens = Some(*prompt_tokens);
                }
                FromMiner::Token { task: t, seq, ids, text, .. } if *t == task => {
                    assert_eq!(*seq as usize, frames.ids.len(), "tokens out of order");
                    frames.ids.extend(ids);
                    frames.text.push_str(text);
                }
                FromMiner::Receipt { task: t, .. } if *t == task => frames.receipts.push(frame),
                FromMiner::Done { task: t, .. } | FromMiner::Decline { task: t, .. }
                    if *t == task =>
                {
                    frames.end = Some(frame);
                    return frames;
                }
                FromMiner::Error { task: Some(t), .. } if *t == task => {
                    frames.end = Some(frame);
                    return frames;
                }
                _ => {}
            }
        }
    }
}

/// What a router heard of one task.
#[derive(Debug, Default)]
pub struct TaskFrames {
    pub prompt_tokens: Option<u32>,
    pub ids: Vec<u32>,
    pub text: String,
    pub receipts: Vec<FromMiner>,
    pub end: Option<FromMiner>,
}

impl TaskFrames {
    /// Code of the decline or the error.
    pub fn code(&self) -> &str {
        match self.end.as_ref().unwrap() {
            FromMiner::Decline { code, message, .. } | FromMiner::Error { code, message, .. } => {
                assert!(message.len() > 10, "{message}");
                code
            }
            other => panic!("no refusal: {other:?}"),
        }
    }

    pub fn output_digest(&self) -> B256 {
        match self.end.as_ref().unwrap() {
            FromMiner::Done { output_digest, .. } => *output_digest,
            other => panic!("no answer: {other:?}"),
        }
    }
}

/// Everything of one test.
pub struct World {
    pub folder: tempfile::TempDir,
    pub chain: Arc<FakeChain>,
    pub store: Arc<MemStore>,
    pub engine: Arc<EchoEngine>,
    pub operator: PrivateKeySigner,
    pub router: FakeRouter,
    pub config: MinerConfig,
}

impl World {
    pub async fn new() -> Self {
        Self::with_engine(EchoOptions::default()).await
    }

    pub async fn with_engine(options: EchoOptions) -> Self {
        let engine = Arc::new(EchoEngine::new(options).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let chain = FakeChain::new(engine.info().model_id);
        let router = FakeRouter::start(chain.holder.clone()).await;
        let config = MinerConfig {
            router_urls: vec![router.url()],
            capacity: 2,
            data: folder.path().to_path_buf(),
            ..MinerConfig::default()
        };
        Self {
            folder,
            chain,
            store: Arc::new(MemStore::default()),
            engine,
            operator: PrivateKeySigner::random(),
            router,
            config,
        }
    }

    /// A life of the miner.
    pub fn start(&self) -> MinerHandle {
        start_node(&self.config, self.parts(self.folder.path())).unwrap()
    }

    pub fn parts(&self, folder: &Path) -> NodeParts {
        NodeParts {
            node: NODE,
            operator: self.operator.clone(),
            ledger: self.chain.clone(),
            events: self.chain.connect(),
            database: Database::open(&folder.join("miner.db"), MIGRATIONS).unwrap(),
            store: self.store.clone(),
            engine: self.engine.clone(),
            head: 0,
            block_time_s: NOW_S,
        }
    }

    /// Waits until the life that was killed has let its database go.
    pub async fn released(&self) {
        let path = self.folder.path().join("miner.db");
        until("the database is free", || Database::open(&path, MIGRATIONS).is_ok()).await;
    }

    pub async fn link(&self) -> RouterLink {
        self.router.accept(self.operator.address()).await
    }

    pub fn offer(&self, nonce: u64, text: &str) -> Offer {
        self.offer_with(nonce, text, |_, _| {})
    }

    /// An offer of a changed request; signed after the change.
    pub fn offer_with(
        &self,
        nonce: u64,
        text: &str,
        change: impl FnOnce(&mut TaskRequest, &mut RequestBlock),
    ) -> Offer {
        let content = text.into();
        let mut block = RequestBlock {
            max_output: 512,
            max_prompt: 512,
            prompt: Prompt::Messages(vec![ChatMessage { content, role: "user".into() }]),
            salt: B256::repeat_byte(9),
            sampling: Sampling::default(),
            stop: vec![],
            top_logprobs: None,
            version: BLOCK_VERSION,
        };
        let mut request = TaskRequest {
            sessionId: SESSION,
            lane: LANE,
            nonce,
            requestDigest: B256::ZERO,
            maxPrompt: 512,
            maxOutput: 512,
            feeCap: U96::from(1_u64 << 40),
            deadline: DEADLINE_S,
            nodeId: NODE.0,
            seedRound: ROUND,
            redundancy: 1,
            attempts: 1,
            ..TaskRequest::default()
        };
        change(&mut request, &mut block);
        let (bytes, digest) = block.encode().unwrap();
        if request.requestDigest.is_zero() {
            request.requestDigest = digest;
        }
        let hash = request.signing_hash(CHAIN_ID, QUEUE);
        let signature = self.chain.holder.sign_hash_sync(&hash).unwrap();
        Offer { request, signature, block: Bytes::from(bytes), stream: true }
    }
}

/// Waits for what must come.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How often the chain's events told this of the node.
pub fn count(miner: &MinerHandle, event: &str) -> u64 {
    miner.status().events.get(event).copied().unwrap_or(0)
}

pub fn task_of(offer: &Offer) -> TaskId {
    offer.request.task_id(QUEUE)
}
