//! The router on a real chain with the real contracts: its events, its wallet, its reads.

use std::{sync::Arc, time::Duration};

use alloy::{
    network::EthereumWallet,
    primitives::{
        Address, B256, Bytes, U256,
        aliases::{U80, U96},
    },
    providers::{DynProvider, Provider, ProviderBuilder},
    signers::local::PrivateKeySigner,
};
use assay_bindings::{
    COR, CorToken, DeployConfig, Deployment, ModelRegistry, NodePool, RandomBeacon, Session,
    SessionQueue, deploy,
};
use assay_chain::Chain;
use assay_devnet::{Devnet, DevnetConfig};
use assay_protocol::{QueueScope, TaskRecord, TaskState, money::TOKENS_PER_PRICE};
use assay_router::{RouterDeps, start};
use assay_types::{NodeId, NumericClass, TaskId};
use serde_json::Value;
use tempfile::tempdir;

use crate::world::{MemoryStore, Miner, PATIENCE, config, events, hello, model_id};

/// Minor units for a token: a task's fee must be above the contracts' tip.
const PRICE: u128 = 100 * COR;

struct Actors {
    owner: PrivateKeySigner,
    router: PrivateKeySigner,
    operator: PrivateKeySigner,
}

struct LiveWorld {
    devnet: Devnet,
    deployment: Deployment,
    actors: Actors,
    owner: DynProvider,
}

fn wallet(url: &str, key: &PrivateKeySigner) -> DynProvider {
    let provider = ProviderBuilder::new().wallet(EthereumWallet::from(key.clone()));
    provider.connect_http(url.parse().unwrap()).erased()
}

fn class() -> B256 {
    "cpu-f32".parse::<NumericClass>().unwrap().0
}

/// Sends a call once the contract would take it: a failed sending would use up a nonce of the provider's.
macro_rules! until_mined {
    ($call:expr) => {
        tokio::time::timeout(PATIENCE, async {
            while $call.call().await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let receipt = $call.send().await.unwrap().get_receipt().await.unwrap();
            assert!(receipt.status(), "{} reverted", stringify!($call));
        })
        .await
        .expect(stringify!($call))
    };
}

impl LiveWorld {
    /// A chain with a model, a node and an open session with a lane for the router.
    async fn start() -> Self {
        let actors = Actors {
            owner: PrivateKeySigner::random(),
            router: PrivateKeySigner::random(),
            operator: PrivateKeySigner::random(),
        };
        let rich = U256::from(10).pow(U256::from(21));
        let devnet = Devnet::start(DevnetConfig {
            block_time: Some(Duration::from_millis(100)),
            accounts: [&actors.owner, &actors.router, &actors.operator]
                .map(|key| (key.address(), rich))
                .to_vec(),
            ..DevnetConfig::default()
        })
        .await
        .unwrap();
        let owner = wallet(&devnet.http_url(), &actors.owner);
        let me = actors.owner.address();
        let deployment = deploy(&owner, me, &DeployConfig::development()).await.unwrap();
        let world = Self { devnet, deployment, actors, owner };
        world.register(me).await;
        world.open_session().await;
        world
    }

    async fn register(&self, me: Address) {
        let at = &self.deployment;
        until_mined!(CorToken::new(at.token, &self.owner).approve(at.payment, U256::MAX));
        let models = ModelRegistry::new(at.models, &self.owner);
        let price = U80::from(PRICE);
        let model = ModelRegistry::ModelRegistration {
            modelId: model_id().0,
            manifestDigest: B256::repeat_byte(1),
            floors: vec![ModelRegistry::Floor { asset: 0, priceIn: price, priceOut: price }],
            ..Default::default()
        };
        until_mined!(models.register(model.clone()));
        let registration = NodePool::NodeRegistration {
            operator: self.actors.operator.address(),
            payout: me,
            numericClass: class(),
            offers: vec![NodePool::Offer { modelId: model_id().0, capacity: 1 }],
            ..Default::default()
        };
        let nodes = NodePool::new(at.nodes, &self.owner);
        until_mined!(nodes.register(registration.clone()));
    }

    async fn open_session(&self) {
        let at = &self.deployment;
        let terms = Session::OpenTerms {
            modelId: model_id().0,
            minNodes: 1,
            maxNodes: 1,
            maxPriceIn: U80::MAX,
            maxPriceOut: U80::MAX,
            deposit: U96::from(10 * COR),
            lanes: vec![Session::LaneTerms {
                holder: self.actors.router.address(),
                allotment: U96::from(5 * COR),
            }],
            ..Default::default()
        };
        let sessions = Session::new(at.sessions, &self.owner);
        // A node counts in draws from a second after its registration on.
        tokio::time::sleep(Duration::from_millis(2100)).await;
        until_mined!(sessions.open(terms.clone()));
        let beacon = RandomBeacon::new(at.beacon, &self.owner);
        let round = sessions.sessionOf(1).call().await.unwrap().drawRound;
        until_mined!(beacon.reveal(round, Bytes::new()));
        until_mined!(sessions.activate(1));
        let round = sessions.sessionOf(1).call().await.unwrap().current.seedRound;
        until_mined!(beacon.reveal(round, Bytes::new()));
    }

    /// The fake miner's answer on chain, and its settlement.
    async fn commit_and_settle(&self, task: TaskId) {
        let answer = SessionQueue::Answer {
            nodeId: 1,
            outputDigest: B256::repeat_byte(2),
            promptHash: B256::repeat_byte(3),
            promptTokens: 7,
            outputTokens: 1,
            numericClass: class(),
            endReason: 1,
            salt: B256::repeat_byte(4),
            proofSeal: B256::repeat_byte(5),
            signature: Bytes::new(),
        };
        let operator = wallet(&self.devnet.http_url(), &self.actors.operator);
        let queue = SessionQueue::new(self.deployment.queue, &operator);
        let events = queue.TaskSubmitted_filter().topic1(task.0).from_block(0).query().await;
        let mut record = TaskRecord::submitted(&events.unwrap()[0].0);
        until_mined!(queue.commit(record.task.clone(), vec![answer.clone()]));
        let events = queue.TaskCommitted_filter().topic1(task.0).from_block(0).query().await;
        let scope = QueueScope { chain_id: 31337, queue: self.deployment.queue };
        record.committed(&scope, &events.unwrap()[0].0).unwrap();
        let settled = async || {
            let settle = queue.settle(vec![record.task.clone()]);
            let _ = settle.send().await.unwrap().get_receipt().await;
            queue.statusOf(task.0).call().await.unwrap().state == TaskState::Settled as u8
        };
        let until = tokio::time::Instant::now() + PATIENCE;
        while !settled().await {
            assert!(tokio::time::Instant::now() < until, "never settled");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn task_until(url: &str, done: impl Fn(&Value) -> bool) -> Value {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let task: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        if done(&task) {
            return task;
        }
        assert!(tokio::time::Instant::now() < until, "never: {task:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_task_goes_through_the_real_contracts() {
    let data = tempdir().unwrap();
    let world = LiveWorld::start().await;
    let chain = Chain::connect(&world.devnet.ws_url(), world.deployment.clone()).await.unwrap();
    let store = Arc::new(MemoryStore::default());
    let signer = world.actors.router.clone();
    let deps = RouterDeps { chain, signer, store: store.clone() };
    let router = start(config(data.path()), deps).await.unwrap();
    let address = router.local_addr();

    // Node 2 does not exist; node 1 is another operator's.
    let stranger = PrivateKeySigner::random();
    let refused = Miner::connect(address, NodeId(2), &stranger, store.clone()).await.err().unwrap();
    assert_eq!(refused.0, "unknown_node");
    let refused = Miner::connect(address, NodeId(1), &stranger, store.clone()).await.err().unwrap();
    assert_eq!(refused.0, "wrong_signature");
    let operator = &world.actors.operator;
    let mut miner = Miner::connect(address, NodeId(1), operator, store).await.unwrap();
    tokio::time::timeout(PATIENCE, router.health().wait_ready()).await.unwrap();

    let ask = reqwest::Client::new()
        .post(format!("http://{address}/v1/chat/completions"))
        .json(&hello(false))
        .send();
    let (response, (task, _)) = tokio::join!(ask, miner.serve(&["ok"]));
    assert_eq!(response.unwrap().status(), 200);
    let url = format!("http://{address}/v1/tasks/{task}");
    let shown = task_until(&url, |t| t["state"] == "assigned").await;
    assert!(events(&shown).contains(&"submitted"));

    world.commit_and_settle(task).await;
    let has_gas = |e: &Value| e["transaction_hash"].is_null() || e["gas_used"].is_u64();
    let settled = |t: &Value| {
        t["state"] == "settled" && t["timeline"].as_array().unwrap().iter().all(has_gas)
    };
    let shown = task_until(&url, settled).await;
    assert_eq!(shown["fee"], (8 * PRICE / TOKENS_PER_PRICE).to_string());
    for event in ["received", "accepted", "done", "submitted", "committed", "settled"] {
        assert!(events(&shown).contains(&event), "{event}: {shown:#}");
    }
    router.stop().await.unwrap();
    world.devnet.stop().await;
}
