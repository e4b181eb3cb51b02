//! A client that hangs up stops the engine of a real miner behind a real router, and what it was shown is committed.

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use alloy::signers::local::PrivateKeySigner;
use assay_chain::Database;
use assay_engine::{
    EchoEngine, EchoOptions, Engine, EngineError, EngineInfo, GenerateRequest, GenerateStream,
    Reading, Score, ScoreRequest,
};
use assay_miner::{MIGRATIONS, MinerConfig, NodeParts, start_node};
use assay_router::{Journal, Parts, RouterConfig, ServedModel, assemble, ports::ChainPort};
use assay_store::ContentStore;
use assay_types::{B256, CommitScope, EndReason, Prompt, ResultBlock, TaskId};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};

use super::link::{Chain, NODE, PATIENCE, Store, tell_of_session};

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

fn question() -> Value {
    let said: String = (0..WORDS).map(|word| format!("{word} ")).collect();
    json!({
        "model": "echo", "stream": true, "max_tokens": 1500,
        "messages": [{"role": "user", "content": said}],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_stops_the_engine_and_pays_for_what_it_was_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (operator, holder) = (PrivateKeySigner::random(), PrivateKeySigner::random());
    let options = EchoOptions { token_delay: TOKEN_DELAY, ..EchoOptions::default() };
    let (ended, mut endings) = mpsc::unbounded_channel();
    let engine = Watched { engine: EchoEngine::new(options).unwrap(), ended };
    let model = engine.info().model_id;
    let (operator_address, router) = (operator.address(), holder.address());
    let commits = Mutex::default();
    let chain = Arc::new(Chain { model, operator: operator_address, router, commits });
    let store = Arc::new(Store::default());

    let served = ServedModel { name: "echo".into(), model_id: model, max_context: 4096 };
    let data = folder.path().join("router");
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
    let config = RouterConfig::new("127.0.0.1:0".parse().unwrap(), data, vec![served]);
    let router = assemble(config, parts).await.unwrap();
    tell_of_session(&blocks, &chain).await;
    let data = folder.path().join("miner");
    let config = MinerConfig {
        router_urls: vec![format!("ws://{}/link", router.local_addr())],
        data: data.clone(),
        ..MinerConfig::default()
    };
    let (_events, seen) = mpsc::channel(1);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let node = NodeParts {
        node: NODE,
        operator,
        ledger: chain.clone(),
        events: seen,
        database: Database::open(&data.join("miner.db"), MIGRATIONS).unwrap(),
        store: store.clone(),
        engine: Arc::new(engine),
        head: 0,
        block_time_s: now,
    };
    let miner = start_node(&config, node).unwrap();
    timeout(PATIENCE, router.health().wait_ready()).await.unwrap();

    let url = format!("http://{}/v1/chat/completions", router.local_addr());
    let asked = reqwest::Client::new().post(&url).json(&question()).send();
    let mut response = asked.await.unwrap();
    assert_eq!(response.status(), 200);
    let mut seen = String::new();
    while !seen.contains("\"content\":\"0") {
        let piece = timeout(PATIENCE, response.chunk()).await.unwrap().unwrap().unwrap();
        seen.push_str(std::str::from_utf8(&piece).unwrap());
    }
    let hung_up = Instant::now();
    drop(response);
    let ended = timeout(PATIENCE, endings.recv()).await.unwrap().unwrap();
    assert!(ended.events < WORDS, "the engine went on to the end: {} events", ended.events);
    // For whoever runs this by hand: no test depends on a clock.
    let took = ended.at.saturating_duration_since(hung_up);
    writeln!(std::io::stderr(), "the engine stopped {took:?} after its client hung up").unwrap();

    // Stopped, the miner has no answer left to commit.
    miner.stop().await.unwrap();
    router.stop().await.unwrap();
    let commits: Vec<(TaskId, Vec<B256>)> = chain.commits.lock().unwrap().drain().collect();
    let [(task, digests)] = &commits[..] else { panic!("{commits:?}") };
    let [digest] = digests[..] else { panic!("{digests:?}") };
    let block = ResultBlock::decode(&store.get(digest).await.unwrap()).unwrap();
    assert_eq!(block.end_reason, EndReason::Cancelled);
    assert!((1..=ended.events).contains(&block.ids.len()), "{} tokens", block.ids.len());
    // Whoever audits it finds the router's word for that.
    let (chain_id, queue) = (ChainPort::chain_id(&*chain), ChainPort::queue(&*chain));
    let scope = CommitScope { chain_id, queue, task: *task, node: NODE };
    assert!(block.is_cancelled_by(&scope, chain.router));
}
