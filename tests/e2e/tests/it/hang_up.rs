//! A client that wants no more of an answer stops the engine of a real miner behind a real router, and what it was shown
//! is committed: it hangs up in the router's own lane, and signs for it in one of its own.

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use alloy::{
    primitives::aliases::U96,
    signers::{SignerSync, local::PrivateKeySigner},
};
use assay_chain::{ChainEvent, Database};
use assay_client::{AnswerStream, ClientError, Question, Router, SignedRequest};
use assay_engine::{
    EchoEngine, EchoOptions, Engine, EngineError, EngineInfo, GenerateRequest, GenerateStream,
    Reading, Score, ScoreRequest,
};
use assay_miner::{MIGRATIONS, MinerConfig, MinerHandle, NodeParts, start_node};
use assay_router::{
    BlockUpdate, Journal, Parts, RouterConfig, RouterHandle, ServedModel, assemble,
    ports::ChainPort,
};
use assay_store::ContentStore;
use assay_types::{
    Address, B256, Cancellation, CommitScope, EndReason, Prompt, ResultBlock, Signed, TaskId,
    TaskRequest, link::SignedCancellation,
};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use serde_json::json;
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};

use super::link::{Chain, NODE, PATIENCE, ROUND, Store, tell_of_session};

/// Long enough for a client to hang up in the middle of an answer.
const TOKEN_DELAY: Duration = Duration::from_millis(10);
const WORDS: usize = 200;

/// An engine that tells when a generation ends, however it does.
struct Watched {
    engine: EchoEngine,
    ended: mpsc::UnboundedSender<Ended>,
}

/// The end of a generation.
struct Ended {
    at: Instant,
    events: usize,
}

/// Goes with a generation.
struct Guard {
    events: usize,
    ended: mpsc::UnboundedSender<Ended>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.ended.send(Ended { at: Instant::now(), events: self.events });
    }
}

#[async_trait]
impl Engine for Watched {
    fn info(&self) -> &EngineInfo {
        self.engine.info()
    }

    async fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, EngineError> {
        self.engine.tokenize(prompt).await
    }

    fn end_tokens(&self) -> &[u32] {
        self.engine.end_tokens()
    }

    async fn read(&self, ids: &[u32], stop: &[String]) -> Result<Reading, EngineError> {
        self.engine.read(ids, stop).await
    }

    async fn generate(&self, request: GenerateRequest) -> Result<GenerateStream, EngineError> {
        let events = self.engine.generate(request).await?;
        let guard = Guard { events: 0, ended: self.ended.clone() };
        let watched = stream::unfold((events, guard), |(mut events, mut guard)| async move {
            let event = events.next().await?;
            guard.events += 1;
            Some((event, (events, guard)))
        });
        Ok(GenerateStream::new(watched))
    }

    async fn score(&self, request: ScoreRequest) -> Result<Vec<Score>, EngineError> {
        self.engine.score(request).await
    }
}

/// A real router and a real miner on a chain that takes everything.
struct Scene {
    router: RouterHandle,
    miner: MinerHandle,
    chain: Arc<Chain>,
    store: Arc<Store>,
    endings: mpsc::UnboundedReceiver<Ended>,
    /// Whoever tells of blocks is there.
    _blocks: mpsc::Sender<BlockUpdate>,
    _events: mpsc::Sender<ChainEvent>,
    _folder: TempDir,
}

impl Scene {
    /// `signer` is the router's key, and `holder` holds the one lane.
    async fn start(signer: PrivateKeySigner, holder: Address) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let operator = PrivateKeySigner::random();
        let options = EchoOptions { token_delay: TOKEN_DELAY, ..EchoOptions::default() };
        let (ended, endings) = mpsc::unbounded_channel();
        let engine = Watched { engine: EchoEngine::new(options).unwrap(), ended };
        let model = engine.info().model_id;
        let (operator_address, commits) = (operator.address(), Mutex::default());
        let chain = Chain { model, operator: operator_address, holder, commits };
        let (chain, store) = (Arc::new(chain), Arc::new(Store::default()));

        let served = ServedModel { name: "echo".into(), model_id: model, max_context: 4096 };
        let data = folder.path().join("router");
        let (blocks, updates) = mpsc::channel(8);
        let parts = Parts {
            chain: chain.clone(),
            signer,
            store: store.clone(),
            journal: Journal::open(&data).unwrap(),
            blocks: updates,
            services: Vec::new(),
            services_stop: Default::default(),
        };
        let config = RouterConfig::new("127.0.0.1:0".parse().unwrap(), data, vec![served]);
        let router = assemble(config, parts).await.unwrap();
        tell_of_session(&blocks, &chain).await;
        let data = folder.path().join("miner");
        let config = MinerConfig {
            router_urls: vec![format!("ws://{}/link", router.local_addr())],
            data: data.clone(),
            ..MinerConfig::default()
        };
        let (events, seen) = mpsc::channel(1);
        let node = NodeParts {
            node: NODE,
            operator,
            ledger: chain.clone(),
            events: seen,
            database: Database::open(&data.join("miner.db"), MIGRATIONS).unwrap(),
            store: store.clone(),
            engine: Arc::new(engine),
            head: 0,
            block_time_s: now_s(),
        };
        let miner = start_node(&config, node).unwrap();
        Self {
            router,
            miner,
            chain,
            store,
            endings,
            _blocks: blocks,
            _events: events,
            _folder: folder,
        }
    }

    fn base(&self) -> String {
        format!("http://{}", self.router.local_addr())
    }

    /// The engine's generation ends before its answer is whole, `since` the client wanted no more.
    async fn stopped(&mut self, since: Instant) -> usize {
        let ended = timeout(PATIENCE, self.endings.recv()).await.unwrap().unwrap();
        assert!(ended.events < WORDS, "the engine went on to the end: {} events", ended.events);
        // For whoever runs this by hand: no test depends on a clock.
        let took = ended.at.saturating_duration_since(since);
        let mut told = std::io::stderr();
        writeln!(told, "the engine stopped {took:?} after its client had enough").unwrap();
        ended.events
    }

    /// The one answer that was committed, which ends with the word of the lane's holder.
    async fn committed(self) -> (TaskId, ResultBlock) {
        // Stopped, the miner has no answer left to commit.
        self.miner.stop().await.unwrap();
        self.router.stop().await.unwrap();
        let commits: Vec<(TaskId, Vec<B256>)> =
            self.chain.commits.lock().unwrap().drain().collect();
        let [(task, digests)] = &commits[..] else { panic!("{commits:?}") };
        let [digest] = digests[..] else { panic!("{digests:?}") };
        let block = ResultBlock::decode(&self.store.get(digest).await.unwrap()).unwrap();
        assert_eq!(block.end_reason, EndReason::Cancelled);
        // Whoever audits it finds that word.
        let (chain_id, queue) = (ChainPort::chain_id(&*self.chain), ChainPort::queue(&*self.chain));
        let scope = CommitScope { chain_id, queue, task: *task, node: NODE };
        assert!(block.is_cancelled_by(&scope, self.chain.holder));
        (*task, block)
    }
}

fn now_s() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

fn words() -> String {
    (0..WORDS).map(|word| format!("{word} ")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_stops_the_engine_and_pays_for_what_it_was_shown() {
    let router = PrivateKeySigner::random();
    let holder = router.address();
    let mut scene = Scene::start(router, holder).await;
    timeout(PATIENCE, scene.router.health().wait_ready()).await.unwrap();
    let question = json!({
        "model": "echo", "stream": true, "max_tokens": 1500,
        "messages": [{"role": "user", "content": words()}],
    });
    let url = format!("{}/v1/chat/completions", scene.base());
    let mut response = reqwest::Client::new().post(&url).json(&question).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let mut seen = String::new();
    while !seen.contains("\"content\":\"0") {
        let piece = timeout(PATIENCE, response.chunk()).await.unwrap().unwrap().unwrap();
        seen.push_str(std::str::from_utf8(&piece).unwrap());
    }
    let hung_up = Instant::now();
    drop(response);
    let made = scene.stopped(hung_up).await;
    let (_, block) = scene.committed().await;
    assert!((1..=made).contains(&block.ids.len()), "{} tokens", block.ids.len());
}

/// What the holder of the lane signs for node and session of the scene.
fn signed(holder: &PrivateKeySigner, chain: &Chain) -> SignedRequest {
    let question = Question { max_output: 1500, ..Question::new(words()) };
    let block = question.block().unwrap();
    let (bytes, digest) = block.encode().unwrap();
    let request = TaskRequest {
        sessionId: 1,
        lane: 1,
        seedRound: ROUND,
        requestDigest: digest,
        maxPrompt: block.max_prompt,
        maxOutput: block.max_output,
        feeCap: U96::MAX,
        deadline: now_s() + 60,
        redundancy: 1,
        attempts: 1,
        ..TaskRequest::default()
    };
    let (chain_id, queue) = (ChainPort::chain_id(chain), ChainPort::queue(chain));
    let signature = holder.sign_hash_sync(&request.signing_hash(chain_id, queue)).unwrap();
    SignedRequest { task: request.task_id(queue), request, signature, block: bytes.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_holder_of_a_lane_signs_for_what_it_was_shown_and_pays_no_more() {
    let holder = PrivateKeySigner::random();
    let mut scene = Scene::start(PrivateKeySigner::random(), holder.address()).await;
    let signed = signed(&holder, &scene.chain);
    let router = Router::new(&scene.base(), None).unwrap();
    let mut stream = carried(&router, &signed).await;
    let mut shown = String::new();
    while stream.tokens() < 3 {
        shown.push_str(&stream.next().await.unwrap().unwrap().text);
    }
    let tokens = stream.tokens();
    let (chain_id, queue) = (ChainPort::chain_id(&*scene.chain), ChainPort::queue(&*scene.chain));
    let hash = Cancellation::new(signed.task, tokens).signing_hash(chain_id, queue);
    let word = SignedCancellation { tokens, signature: holder.sign_hash_sync(&hash).unwrap() };
    let enough = Instant::now();
    router.cancel(signed.task, &word).await.unwrap();
    scene.stopped(enough).await;
    // What was on its way is shown, and then the end.
    let ended = loop {
        if let Err(error) = stream.next().await {
            break error;
        }
    };
    assert!(
        matches!(&ended, ClientError::Router { code: Some(code), .. } if code == "cancelled"),
        "{ended}"
    );
    let (task, block) = scene.committed().await;
    assert_eq!((task, block.ids.len()), (signed.task, tokens as usize));
    assert_eq!(block.text, shown);
}

/// The stream of an answer, once the node is there.
async fn carried(router: &Router, signed: &SignedRequest) -> AnswerStream {
    let until = Instant::now() + PATIENCE;
    loop {
        match router.carry("echo", signed).await {
            Ok(stream) => return stream,
            // A router without a lane is never ready, and this one may not know of session or node yet.
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(TOKEN_DELAY).await;
    }
}
