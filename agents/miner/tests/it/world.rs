//! Fakes of everything around a miner: chain, store, router.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use alloy::{
    primitives::{aliases::U40, keccak256},
    signers::{SignerSync, local::PrivateKeySigner},
};
use assay_bindings::SessionQueue;
use assay_chain::{Block, BlockRef, ChainEvent, Database, Event, ProtocolEvent};
use assay_engine::{EchoEngine, EchoOptions, Engine};
use assay_miner::{
    Ledger, LedgerError, MIGRATIONS, MinerConfig, MinerHandle, NodeParts, SendError, SessionView,
    TaskStatus, start_node,
};
use assay_store::{Bytes as StoreBytes, ContentStore, StoreError, cid_of};
use assay_types::{
    Address, B256, BLOCK_VERSION, Bytes, Lane, Message as ChatMessage, ModelId, NodeId, Prompt,
    RequestBlock, Sampling, SessionId, Signature, TaskId, TaskRequest,
    link::{
        DOMAIN_LINK_MINER, DOMAIN_LINK_ROUTER, FromMiner, FromRouter, LINK_VERSION, Offer,
        challenge_hash,
    },
    sha256,
};
use async_trait::async_trait;
use futures::{SinkExt, StreamExt};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};

pub const CHAIN_ID: u64 = 31337;
pub const QUEUE: Address = Address::repeat_byte(0x0a);
pub const NODE: NodeId = NodeId(3);
pub const SESSION: u64 = 1;
pub const LANE: u32 = 1;
pub const NOW_S: u64 = 1_800_000_000;
pub const DEADLINE_S: u64 = NOW_S + 600;
pub const SETTLE_DELAY_S: u64 = 5;
/// Above any wait of a test that passes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a miner sent to the chain.
#[derive(Clone, Debug)]
pub enum Sent {
    Commit(TaskId, SessionQueue::Commit),
    Carry(TaskId, SessionQueue::Commit),
    Settle(Vec<TaskId>),
}

#[derive(Default)]
struct ChainState {
    number: u64,
    hash: B256,
    time_s: u64,
    tasks: HashMap<TaskId, TaskStatus>,
    /// Answers to the next sends, instead of what the contract would say.
    refusals: Vec<SendError>,
    sent: Vec<Sent>,
    keys: Vec<String>,
    sessions: HashMap<u64, SessionView>,
    /// Lanes of other routers.
    lanes: HashMap<u32, Address>,
    seed: B256,
    /// A submission that lands between a look and a send.
    race: Vec<(TaskId, TaskStatus)>,
    last: Option<Block>,
}

/// A chain with the rules of `SessionQueue` that matter to a miner.
pub struct FakeChain {
    state: Mutex<ChainState>,
    events: Mutex<Option<mpsc::Sender<ChainEvent>>>,
    pub holder: PrivateKeySigner,
}

impl FakeChain {
    pub fn new(model: ModelId) -> Arc<Self> {
        let view = SessionView {
            model_id: model,
            nodes: vec![NodeId(1), NODE],
            takes_tasks: true,
            price_in: 1,
            price_out: 2,
            min_fee: 3,
            max_deadline_s: 3600,
        };
        let state = ChainState {
            time_s: NOW_S,
            sessions: HashMap::from([(SESSION, view)]),
            seed: B256::repeat_byte(0x5e),
            ..ChainState::default()
        };
        Arc::new(Self {
            state: Mutex::new(state),
            events: Mutex::new(None),
            holder: PrivateKeySigner::random(),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, ChainState> {
        self.state.lock().unwrap()
    }

    pub fn set_seed(&self, seed: B256) {
        self.state().seed = seed;
    }

    pub fn set_session(&self, id: u64, change: impl FnOnce(&mut SessionView)) {
        let mut state = self.state();
        let mut view = state.sessions[&SESSION].clone();
        change(&mut view);
        state.sessions.insert(id, view);
    }

    pub fn set_lane(&self, lane: u32, holder: Address) {
        self.state().lanes.insert(lane, holder);
    }

    pub fn set_task(&self, task: TaskId, status: TaskStatus) {
        self.state().tasks.insert(task, status);
    }

    /// The next send is refused.
    pub fn refuse(&self, reverted: bool) {
        let reason = "refused by the test".into();
        self.state().refusals.push(SendError { reason, reverted });
    }

    /// The task is in this state by the time the next send arrives.
    pub fn race(&self, task: TaskId, status: TaskStatus) {
        self.state().race.push((task, status));
    }

    pub fn sent(&self) -> Vec<Sent> {
        self.state().sent.clone()
    }

    pub fn keys(&self) -> Vec<String> {
        self.state().keys.clone()
    }

    pub fn task_status(&self, task: TaskId) -> TaskStatus {
        self.state().tasks.get(&task).copied().unwrap_or(TaskStatus::None)
    }

    /// A block with these events, `seconds` later.
    pub async fn mine(&self, seconds: u64, events: Vec<ProtocolEvent>) -> Block {
        let block = {
            let mut state = self.state();
            let parent = state.hash;
            state.number += 1;
            state.time_s += seconds;
            state.hash = keccak256((parent, state.number).abi());
            let events = (0..)
                .zip(events)
                .map(|(log_index, body)| Event { tx_hash: B256::ZERO, log_index, body })
                .collect();
            let block = Block {
                at: BlockRef { number: state.number, hash: state.hash },
                parent,
                timestamp: state.time_s,
                events,
            };
            state.last = Some(block.clone());
            block
        };
        let sender = self.events.lock().unwrap().clone();
        if let Some(sender) = sender {
            let _ = sender.send(ChainEvent::Committed(block.clone())).await;
        }
        block
    }

    /// The newest block.
    pub fn last_block(&self) -> Block {
        self.state().last.clone().unwrap()
    }

    pub fn clear_refusals(&self) {
        self.state().refusals.clear();
    }

    /// The newest block is not canonical any more.
    pub async fn revert(&self, block: Block) {
        {
            let mut state = self.state();
            state.number = block.at.number - 1;
            state.hash = block.parent;
        }
        let sender = self.events.lock().unwrap().clone().unwrap();
        sender.send(ChainEvent::Reverted(block)).await.unwrap();
    }

    /// Where the miner of this life reads.
    pub fn connect(&self) -> mpsc::Receiver<ChainEvent> {
        let (sender, events) = mpsc::channel(64);
        *self.events.lock().unwrap() = Some(sender);
        events
    }

    /// The event of a submission for our node, and the task on chain.
    pub fn submit(&self, request: &TaskRequest) -> ProtocolEvent {
        let task = request.task_id(QUEUE);
        self.set_task(task, TaskStatus::Assigned);
        ProtocolEvent::TaskSubmitted(SessionQueue::TaskSubmitted {
            taskId: task.0,
            sessionId: request.sessionId,
            nodeId: request.nodeId,
            lane: request.lane,
            nonce: request.nonce,
            requestDigest: request.requestDigest,
            maxPrompt: request.maxPrompt,
            maxOutput: request.maxOutput,
            held: 1000,
            deadline: request.deadline,
        })
    }

    fn begin(&self, key: String, sent: Sent) -> Result<(), SendError> {
        let mut state = self.state();
        assert!(!state.keys.contains(&key), "{key} was sent twice");
        state.keys.push(key);
        let races = std::mem::take(&mut state.race);
        state.tasks.extend(races);
        if let Some(error) = state.refusals.pop() {
            return Err(error);
        }
        let wrong = |reason: &str| Err(SendError { reason: reason.into(), reverted: true });
        let status = |task: &TaskId| state.tasks.get(task).copied().unwrap_or(TaskStatus::None);
        match &sent {
            Sent::Commit(task, _) if status(task) == TaskStatus::None => {
                return wrong("UnknownTask");
            }
            Sent::Commit(task, _) if status(task) != TaskStatus::Assigned => {
                return wrong("WrongState");
            }
            Sent::Carry(task, _) if status(task) != TaskStatus::None => return wrong("NonceUsed"),
            _ => {}
        }
        state.sent.push(sent);
        Ok(())
    }

    async fn committed(&self, task: TaskId, answer: SessionQueue::Commit) {
        let settle_at_s = {
            let mut state = self.state();
            let settle_at_s = state.time_s + 1 + SETTLE_DELAY_S;
            state.tasks.insert(task, TaskStatus::Committed { settle_at_s });
            settle_at_s
        };
        let event = ProtocolEvent::TaskCommitted(SessionQueue::TaskCommitted {
            taskId: task.0,
            sessionId: SESSION,
            nodeId: NODE.0,
            outputDigest: answer.outputDigest,
            promptHash: answer.promptHash,
            promptTokens: answer.promptTokens,
            outputTokens: answer.outputTokens,
            numericClass: answer.numericClass,
            endReason: answer.endReason,
            salt: answer.salt,
            proofSeal: answer.proofSeal,
            fee: 100,
            settleAt: U40::from(settle_at_s),
        });
        self.mine(1, vec![event]).await;
    }
}

/// ABI encoding of a hash and a number, for block hashes of this fake.
trait Abi {
    fn abi(self) -> Vec<u8>;
}

impl Abi for (B256, u64) {
    fn abi(self) -> Vec<u8> {
        [self.0.as_slice(), &self.1.to_be_bytes()].concat()
    }
}

pub fn settled_event(task: TaskId) -> ProtocolEvent {
    ProtocolEvent::TaskSettled(SessionQueue::TaskSettled {
        taskId: task.0,
        sessionId: SESSION,
        nodeId: NODE.0,
        fee: 100,
        minerShare: 80,
        routerShare: 10,
        royalty: 5,
        tip: 1,
        burnt: 4,
    })
}

#[async_trait]
impl Ledger for FakeChain {
    fn chain_id(&self) -> u64 {
        CHAIN_ID
    }

    fn queue(&self) -> Address {
        QUEUE
    }

    async fn session(&self, session: SessionId) -> Result<Option<SessionView>, LedgerError> {
        Ok(self.state().sessions.get(&session.0).cloned())
    }

    async fn lane_holder(
        &self,
        session: SessionId,
        lane: Lane,
    ) -> Result<Option<Address>, LedgerError> {
        let state = self.state();
        let known = state.sessions.contains_key(&session.0) && lane.0 <= LANE;
        let other = state.lanes.get(&lane.0).copied();
        Ok(other.or_else(|| known.then(|| self.holder.address())))
    }

    async fn seed(&self, _: SessionId) -> Result<B256, LedgerError> {
        Ok(self.state().seed)
    }

    async fn task(&self, task: TaskId) -> Result<TaskStatus, LedgerError> {
        Ok(self.task_status(task))
    }

    async fn commit(
        &self,
        key: String,
        task: TaskId,
        answer: SessionQueue::Commit,
    ) -> Result<(), SendError> {
        self.begin(key, Sent::Commit(task, answer.clone()))?;
        self.committed(task, answer).await;
        Ok(())
    }

    async fn submit_and_commit(
        &self,
        key: String,
        request: TaskRequest,
        signature: Signature,
        answer: SessionQueue::Commit,
    ) -> Result<(), SendError> {
        let signer = request.signer(CHAIN_ID, QUEUE, &signature).unwrap();
        let lane = (SessionId(request.sessionId), Lane(request.lane));
        assert_eq!(self.lane_holder(lane.0, lane.1).await.unwrap(), Some(signer));
        let task = request.task_id(QUEUE);
        self.begin(key, Sent::Carry(task, answer.clone()))?;
        self.committed(task, answer).await;
        Ok(())
    }

    async fn settle(&self, key: String, tasks: Vec<TaskId>) -> Result<(), SendError> {
        self.begin(key, Sent::Settle(tasks.clone()))?;
        let mut events = Vec::new();
        for task in tasks {
            let mut state = self.state();
            let time_s = state.time_s;
            if let Some(TaskStatus::Committed { settle_at_s }) = state.tasks.get(&task)
                && time_s >= *settle_at_s
            {
                state.tasks.insert(task, TaskStatus::Settled);
                events.push(settled_event(task));
            }
        }
        self.mine(1, events).await;
        Ok(())
    }
}

/// A content store in memory.
#[derive(Default)]
pub struct MemStore {
    blocks: Mutex<HashMap<B256, StoreBytes>>,
    failures: AtomicU64,
}

impl MemStore {
    /// The next `n` calls fail.
    pub fn fail(&self, n: u64) {
        self.failures.store(n, Ordering::SeqCst);
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
        self.check()?;
        let digest = sha256(&bytes);
        self.blocks.lock().unwrap().insert(digest, bytes);
        Ok(digest)
    }

    async fn get(&self, digest: B256) -> Result<StoreBytes, StoreError> {
        self.check()?;
        let found = self.blocks.lock().unwrap().get(&digest).cloned();
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
                FromMiner::Token { task: t, seq, ids, text } if *t == task => {
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
            version: BLOCK_VERSION,
        };
        let mut request = TaskRequest {
            sessionId: SESSION,
            lane: LANE,
            nonce,
            requestDigest: B256::ZERO,
            maxPrompt: 512,
            maxOutput: 512,
            feeCap: 1 << 40,
            deadline: DEADLINE_S,
            nodeId: NODE.0,
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

pub fn task_of(offer: &Offer) -> TaskId {
    offer.request.task_id(QUEUE)
}
