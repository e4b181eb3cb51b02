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
    SessionPayment, SessionQueue, deploy,
};
use assay_chain::Chain;
use assay_devnet::{Devnet, DevnetConfig};
use assay_protocol::{QueueScope, TaskRecord, TaskState, commitment_of, money::TOKENS_PER_PRICE};
use assay_router::{RouterDeps, RouterHandle, ServedModel, start, treasury::OwnSessions};
use assay_types::{ModelId, NodeId, NumericClass, TaskId, link::FromRouter};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::world::{MemoryStore, Miner, PATIENCE, config, events, hello, model_id};

/// Minor units for a token: a task's fee must be above the contracts' tip.
const PRICE: u128 = 100 * COR;

/// What a router's lane has.
const ALLOTMENT: u128 = 5 * COR;
const SECOND_MODEL: &str = "assay-second";

fn second_model() -> ModelId {
    ModelId(B256::repeat_byte(0x22))
}

struct Actors {
    owner: PrivateKeySigner,
    router: PrivateKeySigner,
    /// Another router.
    rival: PrivateKeySigner,
    operator: PrivateKeySigner,
    /// Of nodes 2 and 3, where there are any.
    others: [PrivateKeySigner; 2],
}

impl Actors {
    fn operator_of(&self, node: u32) -> &PrivateKeySigner {
        match node {
            1 => &self.operator,
            node => &self.others[node as usize - 2],
        }
    }
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

/// Waits until something holds.
macro_rules! until {
    ($holds:expr) => {
        tokio::time::timeout(PATIENCE, async {
            while !$holds {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .expect(stringify!($holds))
    };
}

impl LiveWorld {
    /// A chain with a model, a node and an open session with a lane for the router.
    async fn start() -> Self {
        let world = Self::bare().await;
        world.register_model(model_id()).await;
        world.register_node(1, Address::ZERO, &[model_id()]).await;
        world.open_session().await;
        world
    }

    /// A chain with two models, three nodes of the owner's own, and a session of each model: the first has lanes
    /// for both routers.
    async fn dedicated() -> Self {
        let world = Self::bare().await;
        for model in [model_id(), second_model()] {
            world.register_model(model).await;
        }
        for node in 1..=3 {
            let me = world.actors.owner.address();
            world.register_node(node, me, &[model_id(), second_model()]).await;
        }
        // A node serves from a second after its registration on.
        tokio::time::sleep(Duration::from_millis(2100)).await;
        let Actors { router, rival, .. } = &world.actors;
        world.open_dedicated(1, model_id(), &[router.address(), rival.address()]).await;
        world.open_dedicated(2, second_model(), &[router.address()]).await;
        world
    }

    async fn bare() -> Self {
        let actors = Actors {
            owner: PrivateKeySigner::random(),
            router: PrivateKeySigner::random(),
            rival: PrivateKeySigner::random(),
            operator: PrivateKeySigner::random(),
            others: [PrivateKeySigner::random(), PrivateKeySigner::random()],
        };
        let [two, three] = &actors.others;
        let rich = U256::from(10).pow(U256::from(21));
        let devnet = Devnet::start(DevnetConfig {
            block_time: Some(Duration::from_millis(100)),
            accounts: [&actors.owner, &actors.router, &actors.rival, &actors.operator, two, three]
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
        let at = &world.deployment;
        until_mined!(CorToken::new(at.token, &world.owner).approve(at.payment, U256::MAX));
        world
    }

    async fn register_model(&self, id: ModelId) {
        let at = &self.deployment;
        let models = ModelRegistry::new(at.models, &self.owner);
        let price = U80::from(PRICE);
        let model = ModelRegistry::ModelRegistration {
            modelId: id.0,
            manifestDigest: B256::repeat_byte(1),
            floors: vec![ModelRegistry::Floor { asset: 0, priceIn: price, priceOut: price }],
            ..Default::default()
        };
        until_mined!(models.register(model.clone()));
    }

    async fn register_node(&self, node: u32, dedicated_to: Address, models: &[ModelId]) {
        let registration = NodePool::NodeRegistration {
            operator: self.actors.operator_of(node).address(),
            payout: self.actors.owner.address(),
            dedicatedTo: dedicated_to,
            numericClass: class(),
            offers: models.iter().map(|m| NodePool::Offer { modelId: m.0, capacity: 1 }).collect(),
        };
        let nodes = NodePool::new(self.deployment.nodes, &self.owner);
        until_mined!(nodes.register(registration.clone()));
    }

    async fn open_dedicated(&self, id: u64, model: ModelId, holders: &[Address]) {
        let lane = |holder: &Address| Session::LaneTerms {
            holder: *holder,
            allotment: U96::from(ALLOTMENT),
        };
        let terms = Session::OpenTerms {
            modelId: model.0,
            dedicated: vec![1, 2, 3],
            maxPriceIn: U80::MAX,
            maxPriceOut: U80::MAX,
            deposit: U96::from(20 * COR),
            lanes: holders.iter().map(lane).collect(),
            ..Default::default()
        };
        let sessions = Session::new(self.deployment.sessions, &self.owner);
        until_mined!(sessions.open(terms.clone()));
        let round = sessions.sessionOf(id).call().await.unwrap().current.seedRound;
        let beacon = RandomBeacon::new(self.deployment.beacon, &self.owner);
        until_mined!(beacon.reveal(round, Bytes::new()));
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
                allotment: U96::from(ALLOTMENT),
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

    fn answer(&self, node: u32) -> SessionQueue::Answer {
        SessionQueue::Answer {
            nodeId: node,
            outputDigest: B256::repeat_byte(2),
            promptHash: B256::repeat_byte(3),
            promptTokens: 7,
            outputTokens: 1,
            numericClass: class(),
            endReason: 1,
            salt: B256::repeat_byte(4),
            proofSeal: B256::repeat_byte(5),
            signature: Bytes::new(),
        }
    }

    fn scope(&self) -> QueueScope {
        QueueScope { chain_id: 31337, queue: self.deployment.queue }
    }

    fn queue_of(&self, node: u32) -> SessionQueue::SessionQueueInstance<DynProvider> {
        let operator = wallet(&self.devnet.http_url(), self.actors.operator_of(node));
        SessionQueue::new(self.deployment.queue, operator)
    }

    /// The task as its events tell it.
    async fn record(&self, task: TaskId) -> TaskRecord {
        let queue = self.queue_of(1);
        let events = queue.TaskSubmitted_filter().topic1(task.0).from_block(0).query().await;
        let mut record = TaskRecord::submitted(&events.unwrap()[0].0);
        let events = queue.TaskPrecommitted_filter().topic1(task.0).from_block(0).query().await;
        for (event, _) in events.unwrap() {
            record.precommitted(&self.scope(), &event).unwrap();
        }
        let events = queue.TaskCommitted_filter().topic1(task.0).from_block(0).query().await;
        for (event, _) in events.unwrap() {
            record.committed(&self.scope(), &event).unwrap();
        }
        record
    }

    /// The fake miners' answers on chain, and their settlement.
    async fn commit_and_settle(&self, task: TaskId) {
        let nodes: Vec<u32> = self.record(task).await.task.parts.iter().map(|p| p.nodeId).collect();
        if nodes.len() > 1 {
            for node in &nodes {
                let record = self.record(task).await;
                let scope = self.scope().commit_scope(task, NodeId(*node));
                let precommit = SessionQueue::Precommit {
                    nodeId: *node,
                    commitment: commitment_of(&scope, &self.answer(*node)),
                    signature: Bytes::new(),
                };
                let queue = self.queue_of(*node);
                until_mined!(queue.precommit(record.task.clone(), vec![precommit.clone()]));
            }
        }
        let answers: Vec<_> = nodes.iter().map(|node| self.answer(*node)).collect();
        let record = self.record(task).await;
        let queue = self.queue_of(nodes[0]);
        until_mined!(queue.commit(record.task.clone(), answers.clone()));
        let record = self.record(task).await;
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

    /// A router of this key on this chain, and its database.
    async fn router(&self, signer: &PrivateKeySigner, store: &Arc<MemoryStore>) -> Router {
        let data = tempdir().unwrap();
        let chain = Chain::connect(&self.devnet.ws_url(), self.deployment.clone()).await.unwrap();
        let deps = RouterDeps { chain, signer: signer.clone(), store: store.clone() };
        let mut config = config(data.path());
        config.models.push(ServedModel {
            name: SECOND_MODEL.into(),
            model_id: second_model(),
            max_context: 4096,
        });
        let handle = start(config, deps).await.unwrap();
        let mut miners = Vec::new();
        for node in 1..=3 {
            let operator = self.actors.operator_of(node);
            let address = handle.local_addr();
            let miner = Miner::connect(address, NodeId(node), operator, store.clone()).await;
            miners.push(miner.unwrap());
        }
        tokio::time::timeout(PATIENCE, handle.health().wait_ready()).await.unwrap();
        Router { handle, miners, _data: data }
    }
}

struct Router {
    handle: RouterHandle,
    miners: Vec<Miner>,
    _data: tempfile::TempDir,
}

impl Router {
    /// Asks, and the node that is chosen serves; the task.
    async fn serve(&mut self, body: &Value) -> TaskId {
        let address = self.handle.local_addr();
        let url = format!("http://{address}/v1/chat/completions");
        let ask = reqwest::Client::new().post(url).json(body).send();
        let serve = async {
            let waiting = self.miners.iter_mut().map(|miner| Box::pin(miner.recv()));
            let (frame, chosen, rest) = futures::future::select_all(waiting).await;
            drop(rest);
            let Some(FromRouter::Offer(offer)) = frame else { panic!("no offer but {frame:?}") };
            let miner = &mut self.miners[chosen];
            let task = miner.task_of(&offer);
            miner.answer(task, &["ok"]).await;
            task
        };
        let (response, task) = tokio::join!(ask, serve);
        assert_eq!(response.unwrap().status(), 200);
        task
    }

    fn url(&self, task: TaskId) -> String {
        format!("http://{}/v1/tasks/{task}", self.handle.local_addr())
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

/// Fee of one answer of the fake miners.
const FEE: u128 = 8 * PRICE / TOKENS_PER_PRICE;

#[tokio::test]
async fn three_nodes_answer_one_request_on_the_real_contracts() {
    let world = LiveWorld::dedicated().await;
    let store = Arc::new(MemoryStore::default());
    let mut router = world.router(&world.actors.router, &store).await;
    let mut ask = hello(false);
    ask["assay"] = json!({"redundancy": 3});
    let task = router.serve(&ask).await;
    let shown = task_until(&router.url(task), |t| t["state"] == "assigned").await;
    // The router knew before the chain who answers, and in which order.
    let record = world.record(task).await;
    let parts: Vec<u32> = record.task.parts.iter().map(|part| part.nodeId).collect();
    let answers = shown["answers"].as_array().unwrap();
    assert_eq!(answers.iter().map(|a| a["node_id"].clone()).collect::<Vec<_>>(), parts);
    assert!(answers.iter().all(|answer| answer["state"] == "waiting"), "{shown:#}");

    world.commit_and_settle(task).await;
    let shown = task_until(&router.url(task), |t| t["state"] == "settled").await;
    assert_eq!(shown["fee"], (3 * FEE).to_string());
    for answer in shown["answers"].as_array().unwrap() {
        assert_eq!(
            (&answer["state"], &answer["fee"]),
            (&json!("settled"), &json!(FEE.to_string()))
        );
    }
    let payment = SessionPayment::new(world.deployment.payment, &world.owner);
    let funds = payment.fundsOf(1, 1).call().await.unwrap();
    assert_eq!(funds.held, U96::ZERO);
    assert_eq!(funds.free, U96::from(ALLOTMENT - 3 * FEE), "what was held beyond the fees is back");
    router.handle.stop().await.unwrap();
    world.devnet.stop().await;
}

#[tokio::test]
async fn routers_share_a_session_and_one_serves_two_models() {
    let world = LiveWorld::dedicated().await;
    let store = Arc::new(MemoryStore::default());
    let mut one = world.router(&world.actors.router, &store).await;
    let mut two = world.router(&world.actors.rival, &store).await;
    let mut other_model = hello(false);
    other_model["model"] = json!(SECOND_MODEL);
    let at = [one.handle.local_addr(), two.handle.local_addr()];
    let tasks = [
        (one.serve(&hello(false)).await, at[0], (1, 1)),
        (two.serve(&hello(false)).await, at[1], (1, 2)),
        (one.serve(&other_model).await, at[0], (2, 1)),
    ];
    for (task, address, (session, lane)) in tasks {
        let url = format!("http://{address}/v1/tasks/{task}");
        task_until(&url, |t| t["state"] == "assigned").await;
        world.commit_and_settle(task).await;
        let shown = task_until(&url, |t| t["state"] == "settled").await;
        assert_eq!((&shown["session_id"], &shown["lane"]), (&json!(session), &json!(lane)));
        assert_eq!((&shown["nonce"], &shown["fee"]), (&json!(0), &json!(FEE.to_string())));
    }
    // Neither knows the other's tasks, and the second has no lane for the other model.
    let stranger = format!("http://{}/v1/tasks/{}", at[1], tasks[0].0);
    assert_eq!(reqwest::get(stranger).await.unwrap().status(), 404);
    let url = format!("http://{}/v1/chat/completions", at[1]);
    let refused = reqwest::Client::new().post(url).json(&other_model).send().await.unwrap();
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "no_session", "{body}");
    one.handle.stop().await.unwrap();
    two.handle.stop().await.unwrap();
    world.devnet.stop().await;
}

#[tokio::test]
async fn a_router_opens_and_fills_a_session_of_its_own() {
    let data = tempdir().unwrap();
    let world = LiveWorld::bare().await;
    world.register_model(model_id()).await;
    world.register_node(1, Address::ZERO, &[model_id()]).await;
    // A node counts in draws from a second after its registration on.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let (at, signer) = (&world.deployment, world.actors.router.clone());
    let token = CorToken::new(at.token, &world.owner);
    until_mined!(token.transfer(signer.address(), U256::from(100 * COR)));
    let balance = || async { token.balanceOf(signer.address()).call().await.unwrap() };

    let mut config = config(data.path());
    let mut terms = OwnSessions::new(10 * COR);
    // As soon as an answer holds something, too little is left.
    terms.top_up_below = terms.allotment();
    config.own_sessions = Some(terms);
    let chain = Chain::connect(&world.devnet.ws_url(), world.deployment.clone()).await.unwrap();
    let store = Arc::new(MemoryStore::default());
    let deps = RouterDeps { chain, signer: signer.clone(), store: store.clone() };
    let router = start(config, deps).await.unwrap();

    // What an oracle does for every session.
    let sessions = Session::new(at.sessions, &world.owner);
    until!(sessions.sessionCount().call().await.unwrap() == 1);
    assert_eq!(balance().await, U256::from(90 * COR));
    let beacon = RandomBeacon::new(at.beacon, &world.owner);
    let round = sessions.sessionOf(1).call().await.unwrap().drawRound;
    until_mined!(beacon.reveal(round, Bytes::new()));
    until_mined!(sessions.activate(1));
    let round = sessions.sessionOf(1).call().await.unwrap().current.seedRound;
    until_mined!(beacon.reveal(round, Bytes::new()));

    let operator = &world.actors.operator;
    let address = router.local_addr();
    let mut miner = Miner::connect(address, NodeId(1), operator, store).await.unwrap();
    tokio::time::timeout(PATIENCE, router.health().wait_ready()).await.unwrap();
    for _ in 0..2 {
        let url = format!("http://{address}/v1/chat/completions");
        let ask = reqwest::Client::new().post(url).json(&hello(false)).send();
        let (response, _) = tokio::join!(ask, miner.serve(&["x"]));
        assert_eq!(response.unwrap().status(), 200);
        // Once: then more is left than the first allotment.
        until!(balance().await == U256::from(80 * COR));
    }
    router.stop().await.unwrap();
    assert_eq!(sessions.sessionCount().call().await.unwrap(), 1);
    assert_eq!(balance().await, U256::from(80 * COR));
}
