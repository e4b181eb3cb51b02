//! A real router and a real miner over a line that breaks again and again: clients notice nothing.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use alloy::{primitives::U256, signers::local::PrivateKeySigner};
use assay_chain::Database;
use assay_engine::{EchoEngine, EchoOptions, Engine};
use assay_miner::{
    Admission, Bond, Calibration, Call, Funds, Ledger, LedgerError, MIGRATIONS, MinerConfig,
    NodeParts, Odds, SendError, Stake, TaskStatus, start_node,
};
use assay_protocol::TaskState;
use assay_router::{
    BlockUpdate, Journal, Parts, RouterConfig, ServedModel, assemble,
    book::{
        service::BlockChange,
        state::{Fact, Observed},
    },
    ports::{ChainPort, Mined, PortError},
};
use assay_store::{Bytes, ContentStore, StoreError, cid_of};
use assay_types::{
    Address, B256, Lane, ModelId, ModelIndex, NodeId, NumericClass, SessionId, Signature, TaskId,
    TaskRequest, sha256,
};
use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

const CHAIN_ID: u64 = 31337;
const QUEUE: Address = Address::repeat_byte(0x42);
pub(super) const NODE: NodeId = NodeId(3);
/// The reservation's, and what the beacon says of it.
pub(super) const ROUND: u64 = 1;
const SEED: B256 = B256::repeat_byte(1);
const CLIENTS: usize = 8;
/// Below the router's bound for one task.
const CUTS: u32 = 10;
const NEVER_S: u64 = 1 << 40;
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A chain that takes everything: both sides see one session with one node and one lane.
pub(super) struct Chain {
    pub model: ModelId,
    pub operator: Address,
    pub holder: Address,
    pub commits: Mutex<HashMap<TaskId, Vec<B256>>>,
}

#[async_trait]
impl ChainPort for Chain {
    fn chain_id(&self) -> u64 {
        CHAIN_ID
    }

    fn queue(&self) -> Address {
        QUEUE
    }

    async fn operator_of(&self, node: NodeId) -> Result<Option<Address>, PortError> {
        Ok((node == NODE).then_some(self.operator))
    }

    async fn submit(&self, _: TaskId, _: TaskRequest) -> Result<Mined, PortError> {
        Ok(Mined { transaction: B256::ZERO, gas_used: 1 })
    }

    async fn gas_used(&self, _: B256) -> Result<Option<u64>, PortError> {
        Ok(Some(1))
    }
}

#[async_trait]
impl Ledger for Chain {
    async fn is_signed(&self, _: Address, _: (B256, &Signature)) -> Result<bool, LedgerError> {
        Ok(false)
    }

    fn chain_id(&self) -> u64 {
        CHAIN_ID
    }

    fn queue(&self) -> Address {
        QUEUE
    }

    async fn admission(
        &self,
        _: SessionId,
        _: Lane,
        _: u64,
    ) -> Result<Option<Admission>, LedgerError> {
        Ok(Some(Admission {
            model_id: self.model,
            takes_tasks: true,
            holder: Some(self.holder),
            ends_at_s: 0,
            seed_round: ROUND,
            nodes: vec![NODE],
            price_in: 1,
            price_out: 1,
            min_fee: 1,
            max_deadline_s: 3600,
            attempt_time_s: 60,
            reveal_time_s: 30,
            max_attempts: 3,
        }))
    }

    async fn model_of(&self, _: SessionId) -> Result<Option<ModelId>, LedgerError> {
        Ok(Some(self.model))
    }

    async fn funds(&self, _: SessionId, _: Lane) -> Result<Funds, LedgerError> {
        Ok(Funds { free: u128::MAX, nonce_limit: u64::MAX })
    }

    async fn seed(&self, _: u64) -> Result<B256, LedgerError> {
        Ok(SEED)
    }

    async fn status(&self, task: TaskId) -> Result<TaskStatus, LedgerError> {
        // Settling is not what is tested here: its time does not come.
        let known = self.commits.lock().unwrap().contains_key(&task);
        let state = if known { TaskState::Committed } else { TaskState::None };
        Ok(TaskStatus { state, until_s: NEVER_S, digest: B256::ZERO })
    }

    async fn odds(&self, _: SessionId, _: Stake) -> Result<Odds, LedgerError> {
        Ok(Odds::Unproven)
    }

    async fn limits(
        &self,
        _: u32,
        _: NodeId,
        _: NumericClass,
    ) -> Result<Option<Calibration>, LedgerError> {
        Ok(None)
    }

    async fn bond(&self, _: NodeId) -> Result<Bond, LedgerError> {
        Err(LedgerError { call: "bond", reason: "nobody is audited here".into() })
    }

    async fn queue_head(&self, _: SessionId) -> Result<u64, LedgerError> {
        Ok(1)
    }

    async fn send(&self, _: String, call: Call) -> Result<(), SendError> {
        let Call::SubmitAndCommit(carried) = call else {
            return Err(SendError { reason: format!("not expected: {call:?}"), reverted: true });
        };
        let (request, _, answer) = *carried;
        let task = request.task_id(QUEUE);
        self.commits.lock().unwrap().entry(task).or_default().push(answer.outputDigest);
        Ok(())
    }
}

#[derive(Default)]
pub(super) struct Store(Mutex<HashMap<B256, Bytes>>);

#[async_trait]
impl ContentStore for Store {
    async fn put(&self, bytes: Bytes) -> Result<B256, StoreError> {
        let digest = sha256(&bytes);
        self.0.lock().unwrap().insert(digest, bytes);
        Ok(digest)
    }

    async fn get(&self, digest: B256) -> Result<Bytes, StoreError> {
        let found = self.0.lock().unwrap().get(&digest).cloned();
        found.ok_or_else(|| StoreError::NotFound { cid: cid_of(digest).to_string() })
    }

    async fn is_pinned(&self, digest: B256) -> Result<bool, StoreError> {
        Ok(self.0.lock().unwrap().contains_key(&digest))
    }

    async fn health(&self) -> Result<String, StoreError> {
        Ok("memory".into())
    }
}

/// Carries connections to `target`, and cuts each in the middle of a frame, until it has cut enough.
async fn cutting_proxy(listener: TcpListener, target: SocketAddr, cuts: Arc<AtomicU32>) {
    let mut seed = 7_u64;
    while let Ok((miner, _)) = listener.accept().await {
        let router = TcpStream::connect(target).await.unwrap();
        for stream in [&miner, &router] {
            stream.set_nodelay(true).unwrap();
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // Past the handshake; what a few dozen tokens take.
        let limit = match cuts.load(Ordering::SeqCst) {
            done if done < CUTS => 2_000 + usize::try_from(seed >> 50).unwrap(),
            _ => usize::MAX,
        };
        let (mut from_miner, mut to_miner) = miner.into_split();
        let (mut from_router, mut to_router) = router.into_split();
        let up = async {
            let (mut passed, mut buffer) = (0, [0; 1024]);
            while passed < limit {
                let Ok(count @ 1..) = from_miner.read(&mut buffer).await else { return };
                let count = count.min(limit - passed);
                passed += count;
                if to_router.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
            cuts.fetch_add(1, Ordering::SeqCst);
        };
        tokio::select! {
            () = up => {}
            _ = tokio::io::copy(&mut from_router, &mut to_miner) => {}
        }
    }
}

/// The text of a streamed answer; panics if it is not whole.
fn text_of(body: &str) -> String {
    let mut text = String::new();
    let mut done = false;
    for line in body.lines().filter_map(|line| line.strip_prefix("data: ")) {
        assert!(!done, "something comes after the end: {line}");
        if line == "[DONE]" {
            done = true;
            continue;
        }
        let chunk: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(chunk["error"].is_null(), "{chunk}");
        text.push_str(chunk["choices"][0]["delta"]["content"].as_str().unwrap_or(""));
    }
    assert!(done, "{body}");
    text
}

/// What the router has to know of the chain.
pub(super) async fn tell_of_session(blocks: &mpsc::Sender<BlockUpdate>, chain: &Chain) {
    let (session, index, holder) = (SessionId(1), ModelIndex(1), chain.holder);
    let facts = [
        vec![
            Fact::ModelRegistered { index, model: chain.model },
            Fact::SessionOpened { session, model: index, price_in: 1, price_out: 1 },
            Fact::LaneAdded { session, lane: Lane(1), holder, allotment: u128::MAX },
        ],
        vec![Fact::SessionActivated {
            session,
            seed_round: ROUND,
            nodes: vec![NODE],
            previous_until: 0,
        }],
        vec![Fact::RoundRevealed { round: ROUND, value: SEED }],
    ];
    for (number, facts) in (1..).zip(facts) {
        let hash = B256::from(U256::from(number));
        let facts = facts.into_iter().map(|fact| (hash, fact)).collect();
        let block = Observed { number, hash, timestamp: 1, facts };
        let change = BlockChange::Committed(block);
        blocks.send(BlockUpdate { change, cursor: Box::new(|_| Ok(())) }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_notice_nothing_of_a_line_that_breaks_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let (operator, holder) = (PrivateKeySigner::random(), PrivateKeySigner::random());
    let token_delay = Duration::from_millis(4);
    let engine = EchoEngine::new(EchoOptions { token_delay, ..EchoOptions::default() }).unwrap();
    let model = engine.info().model_id;
    let (commits, lane) = (Mutex::default(), holder.address());
    let chain = Chain { model, operator: operator.address(), holder: lane, commits };
    let chain = Arc::new(chain);
    let store = Arc::new(Store::default());

    let served = ServedModel { name: "echo".into(), model_id: model, max_context: 4096 };
    let data = folder.path().join("router");
    let config = RouterConfig {
        resume_timeout: PATIENCE,
        ..RouterConfig::new("127.0.0.1:0".parse().unwrap(), data.clone(), vec![served])
    };
    let (blocks, updates) = mpsc::channel(8);
    let parts = Parts {
        chain: chain.clone(),
        signer: holder,
        store: store.clone(),
        journal: Journal::open(&data).unwrap(),
        blocks: updates,
        services: Vec::new(),
        services_stop: Default::default(),
    };
    let router = assemble(config, parts).await.unwrap();
    tell_of_session(&blocks, &chain).await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let line = listener.local_addr().unwrap();
    let cuts = Arc::new(AtomicU32::new(0));
    let proxy = tokio::spawn(cutting_proxy(listener, router.local_addr(), cuts.clone()));
    let data = folder.path().join("miner");
    let config = MinerConfig {
        router_urls: vec![format!("ws://{line}/link")],
        capacity: u8::try_from(CLIENTS).unwrap(),
        data: data.clone(),
        ..MinerConfig::default()
    };
    let (_events, seen) = mpsc::channel(1);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let miner = start_node(
        &config,
        NodeParts {
            node: NODE,
            operator,
            ledger: chain.clone(),
            events: seen,
            database: Database::open(&data.join("miner.db"), MIGRATIONS).unwrap(),
            store,
            engine: Arc::new(engine),
            head: 0,
            block_time_s: now,
        },
    )
    .unwrap();
    tokio::time::timeout(PATIENCE, router.health().wait_ready()).await.unwrap();

    let url = format!("http://{}/v1/chat/completions", router.local_addr());
    let ask = |n: usize| {
        let said: String = (0..120).map(|word| format!("{n}:{word} ")).collect();
        let body = serde_json::json!({
            "model": "echo", "stream": true, "max_tokens": 1500,
            "messages": [{"role": "user", "content": said}],
        });
        let request = reqwest::Client::new().post(&url).json(&body).send();
        async move {
            let response = request.await.unwrap();
            assert_eq!(response.status(), 200);
            (text_of(&response.text().await.unwrap()), said)
        }
    };
    let answers = tokio::time::timeout(PATIENCE, futures::future::join_all((0..CLIENTS).map(ask)));
    for (answer, said) in answers.await.unwrap() {
        assert_eq!(answer, said);
    }
    assert!(cuts.load(Ordering::SeqCst) >= 3, "the line hardly broke");

    miner.stop().await.unwrap();
    router.stop().await.unwrap();
    proxy.abort();
    let commits = chain.commits.lock().unwrap();
    assert_eq!(commits.len(), CLIENTS);
    assert!(commits.values().all(|digests| digests.len() == 1), "an answer was committed twice");
}
