//! A network on the embedded chain that works: clients, a router, nodes, and everything that they sign.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use alloy::consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy::eips::BlockId;
use alloy::eips::eip2718::Encodable2718;
use alloy::network::TxSignerSync;
use alloy::primitives::aliases::{U24, U40, U80, U96};
use alloy::primitives::{Address, B256, Bytes, TxKind, U256, hex, keccak256};
use alloy::providers::{DynProvider, Provider, ProviderBuilder};
use alloy::rpc::types::TransactionReceipt;
use alloy::signers::SignerSync;
use alloy::signers::local::PrivateKeySigner;
use alloy::sol_types::{SolCall, SolConstructor};
use assay_bindings::SessionQueue::{Answer, Precommit, Task};
use assay_bindings::{
    BlockhashBeacon, COR, CorToken, Deployment, DrandBeacon, ModelRegistry, NodePool, NodeStats,
    Parameters, ProofOfInference, ProofOfInferenceJudgement, ProofOfInferencePanel, RandomBeacon,
    Session, SessionPayment, SessionQueue, proof_creations,
};
use assay_devnet::{Clock, Devnet, DevnetConfig, ManualClock};
use assay_harness::Anvil;
use assay_protocol::{ProtocolEvent, QueueScope, TaskRecord, commitment_of};
use assay_replay::{Audit, AuditError, Options, Report, Source};
use assay_types::{
    EndReason, NodeId, NumericClass, Precommit as SignedPrecommit, Signed, TaskId,
    TaskRequest as SignedRequest, TokenSeal,
};
use serde_json::json;

/// Time that the chain starts at.
pub const START_S: u64 = 1_800_000_000;
/// Gas limit of a transaction, unless many shall fit into a block.
const TX_GAS: u64 = 20_000_000;
pub const MODEL: B256 = B256::repeat_byte(0x11);
pub const CLASS: B256 = B256::repeat_byte(0xc1);
/// Stores each second word of its calldata in the slot that the word before it names.
const STRANGE_CODE: [u8; 25] = hex!("5f5b3681101560175780602001358135556040016001565b00");
/// Seconds in which answers share a draw.
pub const EPOCH_S: u64 = 5;
/// How often others do something before the network is there.
const STRANGE_TURNS: u64 = 6;
const ROUTER_LANE: u32 = 1;
const NODES: usize = 5;
/// With so many more there is a panel for an appeal.
const JURORS: usize = 9;
/// Odd, so that fees have something to round.
const FLOORS: (u128, u128) = (10_000_000_000_000_001, 30_000_000_000_000_001);

/// Deployer, client, router, keeper, and the owners of the nodes.
pub fn everybody() -> Vec<PrivateKeySigner> {
    let people = ["deployer", "client", "router", "keeper"].map(key);
    let nodes = (0..NODES).map(|number| key(&format!("node {number}")));
    people.into_iter().chain(nodes).collect()
}

/// Owners of nodes that only some networks have.
fn jurors() -> Vec<PrivateKeySigner> {
    (NODES..NODES + JURORS).map(|number| key(&format!("node {number}"))).collect()
}

pub fn key(name: &str) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&keccak256(name)).unwrap()
}

/// What the network runs on; it ends with this.
#[allow(dead_code, reason = "what runs is only held")]
enum Chain {
    Embedded(Devnet, ManualClock),
    Anvil(Anvil),
}

/// Where the network's rounds come from.
#[derive(Clone, Copy, PartialEq)]
pub enum Rounds {
    Blocks,
    /// Of a drand network whose secret everyone knows: see `script/beacon-vectors`.
    Drand,
}

/// The vectors have the first 64 rounds of the test network.
const VECTORS: &str = include_str!("../../../../contracts/test/vectors/beacon.json");
/// Seconds between rounds, and by which the chain's clock may trail: what waits for a round can have it within so many.
const DRAND_PERIOD_S: u64 = 10;

fn vectors() -> serde_json::Value {
    let vectors: serde_json::Value = serde_json::from_str(VECTORS).unwrap();
    vectors["test"].clone()
}

/// drand's signature of a round.
pub fn signature(round: u64) -> Bytes {
    let (vectors, number) = (vectors(), round.to_string());
    let mut rounds = vectors["rounds"].as_array().unwrap().iter();
    let told = rounds.find(|told| told["round"] == number.as_str()).unwrap();
    told["signature"].as_str().unwrap().parse().unwrap()
}

/// A network and everybody's keys.
pub struct World {
    chain: Chain,
    rounds: Rounds,
    pub url: String,
    pub provider: DynProvider,
    pub deployment: Deployment,
    pub deployer: PrivateKeySigner,
    pub client: PrivateKeySigner,
    pub router: PrivateKeySigner,
    pub keeper: PrivateKeySigner,
    pub nodes: Vec<PrivateKeySigner>,
    pub tasks: BTreeMap<B256, TaskRecord>,
    nonces: HashMap<Address, u64>,
    lane_nonces: BTreeMap<u64, u64>,
    /// A contract that has nothing to do with the network.
    strange: Option<Address>,
    /// Gas limit of transactions.
    pub gas_limit: u64,
}

/// Creation codes that stand in for those of the artifacts, by contract.
pub type Faults = BTreeMap<&'static str, Bytes>;

impl World {
    /// A chain with the contracts, a model and its nodes.
    pub async fn start(faults: &Faults) -> Self {
        Self::start_with(Rounds::Blocks, faults).await
    }

    pub async fn start_with(rounds: Rounds, faults: &Faults) -> Self {
        Self::embedded(rounds, faults, 0).await
    }

    /// The same on a chain on which others were before.
    pub async fn start_among_others() -> Self {
        Self::embedded(Rounds::Blocks, &Faults::new(), STRANGE_TURNS).await
    }

    async fn embedded(rounds: Rounds, faults: &Faults, turns: u64) -> Self {
        let people: Vec<_> = everybody().into_iter().chain(jurors()).collect();
        let wealth = U256::from(10).pow(U256::from(24));
        let clock = ManualClock::new(START_S);
        let devnet = Devnet::start(DevnetConfig {
            block_time: None,
            accounts: people.iter().map(|key| (key.address(), wealth)).collect(),
            clock: Clock::Manual(clock.clone()),
            ..DevnetConfig::default()
        })
        .await
        .unwrap();
        let url = devnet.http_url();
        Self::on((Chain::Embedded(devnet, clock), rounds), url, faults, turns).await
    }

    /// The same on anvil, whose own accounts give everybody their gas.
    pub async fn start_on_anvil() -> Self {
        Self::anvil(&[], 0).await
    }

    /// anvil with another beginning than its own, and others on the chain.
    pub async fn start_on_anvil_among_others(genesis: &Path) -> Self {
        Self::anvil(&["--init", genesis.to_str().unwrap()], STRANGE_TURNS).await
    }

    async fn anvil(flags: &[&str], turns: u64) -> Self {
        let anvil = Anvil::start_with(flags).await.unwrap();
        let url = anvil.url().to_owned();
        let provider = ProviderBuilder::new().connect_http(url.parse().unwrap());
        let rich = provider.get_accounts().await.unwrap()[0];
        for key in everybody() {
            let value = U256::from(10).pow(U256::from(20));
            let payment = json!([{ "from": rich, "to": key.address(), "value": value }]);
            let _: B256 =
                provider.raw_request("eth_sendTransaction".into(), payment).await.unwrap();
        }
        Self::on((Chain::Anvil(anvil), Rounds::Blocks), url, &Faults::new(), turns).await
    }

    async fn on(
        (chain, rounds): (Chain, Rounds),
        url: String,
        faults: &Faults,
        turns: u64,
    ) -> Self {
        let provider = ProviderBuilder::new()
            .disable_recommended_fillers()
            .connect_http(url.parse().unwrap())
            .erased();
        let mut people = everybody();
        let nodes = people.split_off(4);
        let people: [PrivateKeySigner; 4] = people.try_into().unwrap();
        let [deployer, client, router, keeper] = people;
        let at = |nonce: u64| deployer.address().create(nonce);
        let deployment = Deployment {
            chain_id: 31337,
            token: at(0),
            beacon: at(1),
            parameters: at(2),
            models: at(3),
            payment: at(4),
            stats: at(5),
            nodes: at(6),
            sessions: at(7),
            queue: at(8),
            panel: at(9),
            judgement: at(10),
            proof: at(11),
        };
        let mut world = Self {
            chain,
            rounds,
            url,
            provider,
            deployment,
            deployer,
            client,
            router,
            keeper,
            nodes,
            tasks: BTreeMap::new(),
            nonces: HashMap::new(),
            lane_nonces: BTreeMap::new(),
            strange: None,
            gas_limit: TX_GAS,
        };
        for turn in 0..turns {
            world.strangers(turn).await;
        }
        world.deploy(faults).await;
        world.populate().await;
        world
    }

    async fn deploy(&mut self, faults: &Faults) {
        let deployer = self.deployer.clone();
        let mut creations = creations(&self.deployment, deployer.address());
        if self.rounds == Rounds::Drand {
            creations[1] = drand();
        }
        for (name, code, arguments) in creations {
            let code = faults.get(name).unwrap_or(&code);
            let input = [code.as_ref(), &arguments].concat();
            let receipt = self.transact(&deployer, TxKind::Create, input.into()).await;
            assert!(receipt.status(), "{name} was not created");
        }
    }

    /// What others do meanwhile: a contract of theirs is created, and one is used that sets and clears slots.
    pub async fn strangers(&mut self, turn: u64) {
        let stranger = self.keeper.clone();
        let runtime = &STRANGE_CODE;
        let creation = [
            &[0x60, runtime.len() as u8, 0x60, 12, 0x5f, 0x39, 0x60],
            &[runtime.len() as u8][..],
            &[0x60, 0, 0xf3, 0],
            runtime,
        ]
        .concat();
        let receipt = self.transact(&stranger, TxKind::Create, creation.into()).await;
        let created = receipt.contract_address.unwrap();
        let words = |pairs: &[(u64, u64)]| -> Bytes {
            let words =
                pairs.iter().flat_map(|(slot, value)| [U256::from(*slot), U256::from(*value)]);
            words.flat_map(|word| word.to_be_bytes::<32>()).collect()
        };
        let contract = *self.strange.get_or_insert(created);
        let pairs: Vec<_> = (0..24).map(|slot| (slot, (slot * 7 + turn) % 3)).collect();
        self.transact(&stranger, contract.into(), words(&pairs)).await;
        self.transact(&stranger, created.into(), words(&[(1, turn + 1), (2, 2), (1, 0)])).await;
        let newcomer = Address::from_word(keccak256(turn.to_be_bytes()));
        self.transact(&stranger, newcomer.into(), Bytes::new()).await;
    }

    /// Money, a model, nodes of different owners.
    async fn populate(&mut self) {
        let deployer = self.deployer.clone();
        let everybody: Vec<_> = self.nodes.iter().chain([&self.client]).cloned().collect();
        self.enrich(&everybody).await;
        let price = |units: u128| U80::from(units);
        let registration = ModelRegistry::ModelRegistration {
            modelId: MODEL,
            manifestDigest: B256::repeat_byte(0x12),
            predecessor: B256::ZERO,
            royaltyBps: 200,
            floors: vec![ModelRegistry::Floor {
                asset: 0,
                priceIn: price(FLOORS.0),
                priceOut: price(FLOORS.1),
            }],
        };
        let call = ModelRegistry::registerCall { registration };
        self.send(&deployer, self.deployment.models, &call).await;
        self.register(&self.nodes.clone()).await;
        self.advance(200).await;
    }

    /// More nodes, each of an owner of its own.
    pub async fn swear_in(&mut self) {
        let jurors = jurors();
        self.enrich(&jurors).await;
        self.register(&jurors).await;
        self.nodes.extend(jurors);
        self.advance(5).await;
    }

    /// Gives tokens, which the contracts may take.
    async fn enrich(&mut self, people: &[PrivateKeySigner]) {
        let (token, payment) = (self.deployment.token, self.deployment.payment);
        let deployer = self.deployer.clone();
        for person in people {
            let value = U256::from(10_000_000 * COR);
            let call = CorToken::transferCall { to: person.address(), value };
            self.send(&deployer, token, &call).await;
            let call = CorToken::approveCall { spender: payment, value: U256::MAX };
            self.send(person, token, &call).await;
        }
    }

    async fn register(&mut self, nodes: &[PrivateKeySigner]) {
        for node in nodes {
            let registration = NodePool::NodeRegistration {
                operator: node.address(),
                payout: node.address(),
                dedicatedTo: Address::ZERO,
                numericClass: CLASS,
                offers: vec![NodePool::Offer { modelId: MODEL, capacity: 2 }],
            };
            let call = NodePool::registerCall { registration };
            self.send(node, self.deployment.nodes, &call).await;
        }
    }

    pub async fn send<C: SolCall>(
        &mut self,
        from: &PrivateKeySigner,
        to: Address,
        call: &C,
    ) -> TransactionReceipt {
        let receipt = self.transact(from, to.into(), call.abi_encode().into()).await;
        assert!(receipt.status(), "{} reverted", C::SIGNATURE);
        receipt
    }

    /// A signed transaction in a block of its own; what became of it.
    pub async fn transact(
        &mut self,
        from: &PrivateKeySigner,
        to: TxKind,
        input: Bytes,
    ) -> TransactionReceipt {
        let hash = self.offer(from, to, input).await;
        // anvil mines a moment after it has answered.
        let receipt = loop {
            match self.provider.get_transaction_receipt(hash).await.unwrap() {
                Some(receipt) => break receipt,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        self.take_in(&receipt);
        receipt
    }

    /// A signed transaction, sent.
    pub async fn offer(&mut self, from: &PrivateKeySigner, to: TxKind, input: Bytes) -> B256 {
        let gas_limit = self.gas_limit;
        let nonce = self.nonces.entry(from.address()).or_default();
        let mut tx = TxEip1559 {
            chain_id: self.deployment.chain_id,
            nonce: *nonce,
            gas_limit,
            max_fee_per_gas: 100_000_000_000,
            max_priority_fee_per_gas: 1,
            to,
            value: U256::ZERO,
            access_list: Default::default(),
            input,
        };
        *nonce += 1;
        let signature = from.sign_transaction_sync(&mut tx).unwrap();
        let raw = TxEnvelope::from(tx.into_signed(signature)).encoded_2718();
        *self.provider.send_raw_transaction(&raw).await.unwrap().tx_hash()
    }

    /// What the events of a transaction say of tasks.
    pub fn take_in(&mut self, receipt: &TransactionReceipt) {
        let scope = QueueScope { chain_id: 31337, queue: self.deployment.queue };
        for log in receipt.logs() {
            let event = ProtocolEvent::decode(&self.deployment, log.address(), log.data());
            match event.unwrap() {
                Some(ProtocolEvent::TaskSubmitted(event)) => {
                    self.tasks.insert(event.taskId, TaskRecord::submitted(&event));
                }
                Some(ProtocolEvent::TaskPrecommitted(event)) => {
                    let task = self.tasks.get_mut(&event.taskId).unwrap();
                    task.precommitted(&scope, &event).unwrap();
                }
                Some(ProtocolEvent::TaskCommitted(event)) => {
                    let task = self.tasks.get_mut(&event.taskId).unwrap();
                    task.committed(&scope, &event).unwrap();
                }
                Some(ProtocolEvent::TaskMoved(event)) => {
                    self.tasks.get_mut(&event.taskId).unwrap().moved(&event);
                }
                _ => {}
            }
        }
    }

    pub fn task(&self, id: B256) -> Task {
        self.tasks[&id].task.clone()
    }

    pub async fn advance(&self, seconds: u64) {
        match &self.chain {
            Chain::Embedded(_, clock) => clock.advance(seconds),
            Chain::Anvil(_) => {
                let _: serde_json::Value =
                    self.provider.raw_request("evm_increaseTime".into(), [seconds]).await.unwrap();
                self.mine(1).await;
            }
        }
    }

    async fn now_s(&self) -> u64 {
        match &self.chain {
            Chain::Embedded(_, clock) => clock.now_s(),
            Chain::Anvil(_) => {
                let head = self.provider.get_block(BlockId::latest()).await.unwrap().unwrap();
                head.header.timestamp
            }
        }
    }

    pub async fn mine(&self, blocks: u64) {
        let _: serde_json::Value =
            self.provider.raw_request("anvil_mine".into(), [blocks]).await.unwrap();
    }

    pub async fn head(&self) -> u64 {
        self.provider.get_block_number().await.unwrap()
    }

    pub async fn reveal(&mut self, round: u64) {
        let proof = match self.rounds {
            Rounds::Blocks => Bytes::new(),
            Rounds::Drand => signature(round),
        };
        self.wait_for(round).await;
        self.relay(round, proof).await;
    }

    /// Until the beacon takes a round.
    pub async fn wait_for(&mut self, round: u64) {
        match self.rounds {
            Rounds::Blocks => {
                while self.head().await < round + 1 {
                    self.mine(1).await;
                }
            }
            Rounds::Drand => {
                let accepted_s = START_S + (round - 2) * DRAND_PERIOD_S;
                self.advance(accepted_s.saturating_sub(self.now_s().await)).await;
            }
        }
    }

    /// Tells the beacon a round.
    pub async fn relay(&mut self, round: u64, proof: Bytes) {
        let keeper = self.keeper.clone();
        let call = RandomBeacon::revealCall { round, proof };
        self.send(&keeper, self.deployment.beacon, &call).await;
    }

    async fn info(&self, session: u64) -> Session::SessionInfo {
        let sessions = Session::new(self.deployment.sessions, &self.provider);
        sessions.sessionOf(session).call().await.unwrap()
    }

    /// A session of the client with nodes and a seed; the router has a lane.
    pub async fn session(&mut self) -> u64 {
        let (client, keeper) = (self.client.clone(), self.keeper.clone());
        let deposit = 1_000_000 * COR;
        let terms = Session::OpenTerms {
            modelId: MODEL,
            asset: 0,
            minNodes: 1,
            maxNodes: 3,
            dedicated: Vec::new(),
            maxPriceIn: U80::MAX,
            maxPriceOut: U80::MAX,
            deposit: U96::from(deposit),
            lanes: vec![Session::LaneTerms {
                holder: self.router.address(),
                allotment: U96::from(deposit / 2),
            }],
        };
        let sessions = self.deployment.sessions;
        self.send(&client, sessions, &Session::openCall { terms }).await;
        let contract = Session::new(sessions, &self.provider);
        let id = contract.sessionCount().call().await.unwrap();
        loop {
            let round = self.info(id).await.drawRound;
            self.reveal(round).await;
            self.send(&keeper, sessions, &Session::activateCall { sessionId: id }).await;
            let info = self.info(id).await;
            if !info.current.nodes.is_empty() {
                self.reveal(info.current.seedRound).await;
                return id;
            }
        }
    }

    /// A request in the router's lane, signed.
    pub async fn request(&mut self, session: u64, redundancy: u8) -> (SignedRequest, Bytes) {
        let now_s = self.now_s().await;
        let nonce = self.lane_nonces.entry(session).or_default();
        let request = SignedRequest {
            sessionId: session,
            lane: ROUTER_LANE,
            nonce: *nonce,
            seedRound: 0,
            requestDigest: keccak256(nonce.to_be_bytes()),
            maxPrompt: 1000,
            maxOutput: 2000,
            feeCap: U96::MAX,
            deadline: now_s + 50,
            nodeId: 0,
            redundancy,
            attempts: 1,
            dispatch: 0,
            callbackGas: 0,
        };
        *nonce += 1;
        let hash = request.signing_hash(31337, self.deployment.queue);
        let signature = self.router.sign_hash_sync(&hash).unwrap();
        (request, signature.as_bytes().to_vec().into())
    }

    pub fn node_key(&self, node: u32) -> PrivateKeySigner {
        self.nodes[node as usize - 1].clone()
    }

    /// What a node answers to a task, signed or not.
    pub fn answer(&self, task: B256, node: u32, signed: bool) -> Answer {
        let seal = TokenSeal {
            output_digest: keccak256(task),
            prompt_hash: B256::repeat_byte(0x0b),
            prompt_tokens: 33,
            output_tokens: 77 + u32::from(task[0]),
            class: NumericClass(CLASS),
            end_reason: EndReason::Eos,
            salt: B256::repeat_byte(node as u8),
        };
        let mut answer = Answer::new(NodeId(node), &seal, B256::repeat_byte(0x0f));
        if signed {
            let scope = QueueScope { chain_id: 31337, queue: self.deployment.queue };
            let commitment =
                commitment_of(&scope.commit_scope(TaskId(task), NodeId(node)), &answer);
            answer.signature = self.word(task, node, commitment).signature;
        }
        answer
    }

    /// A node's signature of a commitment.
    pub fn word(&self, task: B256, node: u32, commitment: B256) -> Precommit {
        let signed = SignedPrecommit { taskId: task, nodeId: node, commitment };
        let hash = signed.signing_hash(31337, self.deployment.queue);
        let signature = self.node_key(node).sign_hash_sync(&hash).unwrap();
        Precommit { nodeId: node, commitment, signature: signature.as_bytes().to_vec().into() }
    }

    /// A task that is submitted and not answered.
    pub async fn submit(&mut self, session: u64, redundancy: u8) -> B256 {
        let (request, signature) = self.request(session, redundancy).await;
        let id = request.task_id(self.deployment.queue).0;
        let keeper = self.keeper.clone();
        let call = SessionQueue::submitSignedCall { request: request.into(), signature };
        self.send(&keeper, self.deployment.queue, &call).await;
        id
    }

    /// A task of one node, in two transactions.
    pub async fn answered(&mut self, session: u64) -> B256 {
        let id = self.submit(session, 1).await;
        let task = self.task(id);
        let answers = vec![self.answer(id, task.parts[0].nodeId, true)];
        let keeper = self.keeper.clone();
        let call = SessionQueue::commitCall { task, answers };
        self.send(&keeper, self.deployment.queue, &call).await;
        id
    }

    /// Request and answer in one call, to be sent by anyone. The named node must be one of the session's.
    pub async fn carried_call(
        &mut self,
        session: u64,
        node: u32,
    ) -> (B256, SessionQueue::submitAndCommitCall) {
        let (mut request, _) = self.request(session, 1).await;
        request.nodeId = node;
        let hash = request.signing_hash(31337, self.deployment.queue);
        let signature = self.router.sign_hash_sync(&hash).unwrap().as_bytes().to_vec().into();
        let id = request.task_id(self.deployment.queue).0;
        let answer = self.answer(id, node, true);
        (id, SessionQueue::submitAndCommitCall { request: request.into(), signature, answer })
    }

    /// The nodes that serve a session now.
    pub async fn serving(&self, session: u64) -> Vec<u32> {
        self.info(session).await.current.nodes
    }

    /// A task of several nodes, precommitted and opened.
    pub async fn redundant(&mut self, session: u64) -> B256 {
        let wanted = self.serving(session).await.len() as u8;
        let id = self.submit(session, wanted).await;
        let keeper = self.keeper.clone();
        let nodes: Vec<u32> = self.task(id).parts.iter().map(|part| part.nodeId).collect();
        let answers: Vec<Answer> =
            nodes.iter().map(|node| self.answer(id, *node, wanted == 1)).collect();
        if wanted > 1 {
            let scope = QueueScope { chain_id: 31337, queue: self.deployment.queue };
            let word = |answer: &Answer| {
                let scope = scope.commit_scope(TaskId(id), NodeId(answer.nodeId));
                self.word(id, answer.nodeId, commitment_of(&scope, answer))
            };
            let precommits = answers.iter().map(word).collect();
            let call = SessionQueue::precommitCall { task: self.task(id), precommits };
            self.send(&keeper, self.deployment.queue, &call).await;
        }
        let call = SessionQueue::commitCall { task: self.task(id), answers };
        self.send(&keeper, self.deployment.queue, &call).await;
        id
    }

    pub async fn settle(&mut self, ids: &[B256]) -> B256 {
        self.advance(5).await;
        let keeper = self.keeper.clone();
        let tasks = ids.iter().map(|id| self.task(*id)).collect();
        let call = SessionQueue::settleCall { tasks };
        self.send(&keeper, self.deployment.queue, &call).await.transaction_hash
    }

    /// A task whose node stays silent, and is refunded.
    pub async fn silent(&mut self, session: u64) -> B256 {
        let id = self.submit(session, 1).await;
        self.advance(60).await;
        let keeper = self.keeper.clone();
        let call = SessionQueue::advanceCall { task: self.task(id) };
        self.send(&keeper, self.deployment.queue, &call).await;
        id
    }

    /// The node of a task signs two answers, and is punished: the node.
    pub async fn lie(&mut self, task: B256) -> u32 {
        let node = self.task(task).parts[0].nodeId;
        let keeper = self.keeper.clone();
        let call = SessionQueue::reportEquivocationCall {
            taskId: task,
            one: self.word(task, node, B256::repeat_byte(1)),
            other: self.word(task, node, B256::repeat_byte(2)),
        };
        self.send(&keeper, self.deployment.queue, &call).await;
        node
    }

    /// Somebody collects what a contract owes him.
    pub async fn withdraw(&mut self, who: &PrivateKeySigner) {
        let payment = SessionPayment::new(self.deployment.payment, &self.provider);
        let amount = payment.balanceOf(who.address(), 0).call().await.unwrap();
        let amount = U256::from(amount);
        let call = SessionPayment::withdrawCall { asset: 0, to: who.address(), amount };
        self.send(who, self.deployment.payment, &call).await;
    }

    /// One of everything that a network does.
    pub async fn live(&mut self) -> u64 {
        let session = self.session().await;
        let one = self.answered(session).await;
        let several = self.redundant(session).await;
        self.settle(&[one, several]).await;
        self.silent(session).await;
        let node = self.serving(session).await[0];
        let (id, call) = self.carried_call(session, node).await;
        let keeper = self.keeper.clone();
        self.send(&keeper, self.deployment.queue, &call).await;
        self.settle(&[id]).await;
        self.withdraw(&keeper).await;
        session
    }

    pub fn source(&self) -> Source {
        Source::new(self.provider.clone())
    }

    pub async fn audit(&self) -> Report {
        self.try_audit(&self.source()).await.unwrap()
    }

    pub async fn try_audit(&self, source: &Source) -> Result<Report, AuditError> {
        let to = source.head().await?;
        let options = Options { deployment: self.deployment.clone(), from: 1, to };
        Audit::run(source, options, &mut ()).await
    }
}

/// Name, creation code and constructor's arguments of every contract, in the order of its address.
fn creations(to: &Deployment, owner: Address) -> Vec<(&'static str, Bytes, Vec<u8>)> {
    let supply = U256::from(10_u128.pow(27));
    let token = CorToken::constructorCall { holder: owner, supply };
    let parameters = Parameters::constructorCall {
        config: Parameters::Config {
            governor: owner,
            delay: U40::from(3600),
            drawWindow: U40::from(120),
            longestAudit: U40::from(130),
            maxRoyaltyBps: 300,
        },
        first: terms(),
    };
    let models = ModelRegistry::constructorCall {
        wiring: ModelRegistry::Wiring { parameters: to.parameters, pool: to.nodes },
    };
    let payment = SessionPayment::constructorCall {
        wiring: SessionPayment::Wiring {
            pool: to.nodes,
            proof: to.proof,
            queue: to.queue,
            session: to.sessions,
        },
        assets: vec![to.token],
    };
    let stats = NodeStats::constructorCall {
        wiring: NodeStats::Wiring { queue: to.queue },
        config: NodeStats::Config { epochLength: U40::from(600), levelPeriod: U40::from(20_000) },
    };
    let nodes = NodePool::constructorCall {
        wiring: NodePool::Wiring {
            session: to.sessions,
            queue: to.queue,
            models: to.models,
            payment: to.payment,
            stats: to.stats,
            parameters: to.parameters,
            proof: to.proof,
        },
    };
    let sessions = Session::constructorCall {
        wiring: Session::Wiring {
            beacon: to.beacon,
            models: to.models,
            parameters: to.parameters,
            payment: to.payment,
            pool: to.nodes,
        },
    };
    let queue = SessionQueue::constructorCall {
        wiring: SessionQueue::Wiring {
            beacon: to.beacon,
            models: to.models,
            parameters: to.parameters,
            payment: to.payment,
            pool: to.nodes,
            proof: to.proof,
            session: to.sessions,
            stats: to.stats,
        },
    };
    let [panel, judgement, proof] = proof_creations(to, proof_config());
    // Code and arguments apart, so that other code can stand in.
    let (panel_code, proof_code) = (&ProofOfInferencePanel::BYTECODE, &ProofOfInference::BYTECODE);
    let judgement_code = &ProofOfInferenceJudgement::BYTECODE;
    vec![
        ("CorToken", CorToken::BYTECODE.clone(), token.abi_encode()),
        ("BlockhashBeacon", BlockhashBeacon::BYTECODE.clone(), Vec::new()),
        ("Parameters", Parameters::BYTECODE.clone(), parameters.abi_encode()),
        ("ModelRegistry", ModelRegistry::BYTECODE.clone(), models.abi_encode()),
        ("SessionPayment", SessionPayment::BYTECODE.clone(), payment.abi_encode()),
        ("NodeStats", NodeStats::BYTECODE.clone(), stats.abi_encode()),
        ("NodePool", NodePool::BYTECODE.clone(), nodes.abi_encode()),
        ("Session", Session::BYTECODE.clone(), sessions.abi_encode()),
        ("SessionQueue", SessionQueue::BYTECODE.clone(), queue.abi_encode()),
        ("ProofOfInferencePanel", panel_code.clone(), panel[panel_code.len()..].to_vec()),
        (
            "ProofOfInferenceJudgement",
            judgement_code.clone(),
            judgement[judgement_code.len()..].to_vec(),
        ),
        ("ProofOfInference", proof_code.clone(), proof[proof_code.len()..].to_vec()),
    ]
}

/// The beacon of the test network, whose first round is out when the chain begins.
fn drand() -> (&'static str, Bytes, Vec<u8>) {
    let key: Bytes = vectors()["publicKey"].as_str().unwrap().parse().unwrap();
    let word = |place: usize| U256::from_be_slice(&key[32 * place..32 * (place + 1)]);
    let network_ = DrandBeacon::DrandNetwork {
        publicKey: [word(0), word(1), word(2), word(3)],
        genesis: START_S,
        period: DRAND_PERIOD_S,
    };
    let arguments = DrandBeacon::constructorCall { network_, maxDrift_: DRAND_PERIOD_S };
    ("DrandBeacon", DrandBeacon::BYTECODE.clone(), arguments.abi_encode())
}

fn proof_config() -> ProofOfInference::ProofConfig {
    let seconds = |seconds: u64| U40::from(seconds);
    ProofOfInference::ProofConfig {
        epochLength: seconds(EPOCH_S),
        roundTimeout: seconds(12),
        sealTime: seconds(5),
        openTime: seconds(5),
        revealTime: seconds(12),
        appealTime: seconds(5),
        minProbabilityBps: 500,
        gainBps: 6000,
        powerBps: 9500,
        auditShareBps: 200,
        auditPayBps: 2500,
        slashBps: 10_000,
        dutyBps: 100,
        proverBps: 5000,
        clientBps: 2000,
        appealBps: 1000,
    }
}

fn terms() -> Parameters::Terms {
    let seconds = |seconds: u64| U24::from(seconds);
    Parameters::Terms {
        session: Parameters::SessionTerms {
            minerBps: 9000,
            routerBps: 500,
            maxDeadline: seconds(300),
            attemptTime: seconds(60),
            revealTime: seconds(30),
            settleDelay: seconds(2),
            maxAttempts: 3,
            noticePeriod: seconds(600),
            reservationTimeout: seconds(110),
            reservePeriod: seconds(86_400),
            maxTasks: 1_000_000_000,
        },
        node: Parameters::NodeTerms {
            activationDelay: 1,
            unbondingPeriod: 730,
            collateralPerSlot: 100 * COR,
            slashBps: 5000,
            reporterBps: 1000,
        },
        assets: vec![Parameters::AssetTerms {
            tip: U96::from(10_u64.pow(9)),
            minDeposit: U96::from(COR),
        }],
    }
}
