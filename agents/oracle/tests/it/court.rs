//! A network whose every answer is audited, and what its miners and validators do, by hand: nobody runs a model here,
//! but roots, statistics, seals and openings are those of real audits.

use alloy::primitives::aliases::U40;
use alloy::primitives::{Address, B256, Bytes, U256};
use alloy::providers::{DynProvider, Provider, ProviderBuilder};
use alloy::rpc::types::{TransactionReceipt, TransactionRequest};
use alloy::sol_types::SolCall;
use assay_bindings::ProofOfInference::{
    Audit, Findings, Leaf, Party, ProofOfInferenceInstance, Testimony,
};
use assay_bindings::{
    COR, CorToken, DeployConfig, ModelRegistry, NodePool, ProofOfInference, RandomBeacon,
    SessionQueue,
};
use assay_devnet::Clock;
use assay_proof::{
    Audit as Found, Calibration, Contrasts, Finding, MAX_OPENED, Reasons, Record, SPOT_POSITIONS,
    Score, Tree, Width, block_window, draw_positions,
};
use assay_protocol::TaskRecord;
use assay_protocol::state::AuditState;
use assay_types::{AuditSeal, CommitScope, NodeId, ProofSeal, TaskId, position_seed};
use serde_json::{Value, json};

use crate::world::{World, class, model, node_of, until};

/// A miner, its validator, a panel, and the seven others of an appeal.
const OWNERS: u8 = 12;
/// Tokens of every answer: one block.
const TOKENS: u32 = 40;
const MINERS_SALT: B256 = B256::repeat_byte(0x51);
const VALIDATORS_SALT: B256 = B256::repeat_byte(0x52);
/// One of the owners' balances, wei.
const GAS_MONEY: u128 = 10 * COR;

/// What a node and whoever audits it record.
const CALIBRATION: Calibration = Calibration {
    tau: 10,
    spot_tau: 25,
    block_limit: 1,
    width: Width::Four,
    hard_margin: 13_107,
    margin_bar: 65_536,
    thr_base: 6_554,
    thr_slope: 4_294_967,
    thr_spread: 42_949_673,
    drift: 8_589_935,
    drift_limit: 655_360,
};

/// An answer that is being audited.
#[derive(Clone, Copy)]
pub struct Case {
    pub task: B256,
    pub miner: u32,
}

pub struct Court {
    pub world: World,
    /// Sends in the name of any account.
    provider: DynProvider,
    session: u64,
}

/// The development network, with an audit of every answer, and answers of one second to an epoch.
pub fn all_audited() -> DeployConfig {
    let mut config = DeployConfig::development();
    config.proof.min_probability_bps = 10_000;
    config.proof.epoch_length_s = 1;
    config
}

/// Node ids count from 1, in the order of registration.
fn owner_of(node: u32) -> Address {
    Address::repeat_byte(u8::try_from(node).unwrap())
}

/// What a run with these weights records: `shift` tells weights apart.
fn record(shift: i16) -> Record {
    let contrasts = |t: i16| Contrasts::new(&[t, -t, 3 * t, 7]).unwrap();
    let shifted = |t: i16| {
        let values: Vec<i16> = contrasts(t).values().iter().map(|value| value + shift).collect();
        Contrasts::new(&values).unwrap()
    };
    let ids = (1..=TOKENS).map(|t| t * 7).collect();
    Record::new(ids, (1..=TOKENS as i16).map(shifted).collect()).unwrap()
}

pub fn honest() -> Record {
    record(0)
}

/// Other weights: four nats off at every position.
pub fn forged() -> Record {
    record(1024)
}

/// What honest weights find of an answer's tokens.
fn found() -> Found {
    let of = |contrasts: &Contrasts| Score { margin: 0.0, contrasts: *contrasts };
    let scores: Vec<Score> = honest().contrasts().iter().map(of).collect();
    Found::new(TOKENS, honest().ids(), &scores, Width::Four, Reasons::default())
}

/// Contrasts in one word, the first highest.
fn packed(contrasts: &Contrasts) -> u64 {
    contrasts.bytes().fold(0, |word, byte| word << 8 | u64::from(byte))
}

fn miners_leaves(record: &Record, positions: &[u32]) -> Vec<Leaf> {
    let leaf = |t: &u32| {
        let place = *t as usize - 1;
        let contrasts = packed(&record.contrasts()[place]);
        Leaf { id: record.ids()[place], contrasts, margin: 0 }
    };
    positions.iter().map(leaf).collect()
}

fn validators_leaves(positions: &[u32]) -> Vec<Leaf> {
    let found = found();
    let leaf = |t: &u32| {
        let Finding { token, contrasts, margin } = found.findings()[*t as usize - 1];
        Leaf { id: token, contrasts: packed(&contrasts), margin }
    };
    positions.iter().map(leaf).collect()
}

fn answer(miner: u32, proof_seal: B256) -> SessionQueue::Answer {
    SessionQueue::Answer {
        nodeId: miner,
        outputDigest: B256::repeat_byte(3),
        promptHash: B256::repeat_byte(4),
        promptTokens: 5,
        outputTokens: TOKENS,
        numericClass: class(),
        endReason: 1,
        salt: B256::repeat_byte(5),
        proofSeal: proof_seal,
        signature: Bytes::new(),
    }
}

impl Court {
    /// A proven session of one node, which `oracles` brought to its seed; they are returned.
    pub async fn new(oracles: usize) -> (Self, Vec<assay_oracle::OracleHandle>) {
        let world = World::with(all_audited(), Clock::System).await;
        let court = Self::with(world).await;
        // Every node can be drawn from the second after its registration on.
        court.pass(2).await;
        let mut running = Vec::new();
        for number in 1..=oracles {
            running.push(court.world.oracle(&format!("oracle-{number}")).await);
        }
        let session = court.world.open(1).await;
        until("the session has its node and a seed", || court.world.is_seeded(session)).await;
        (Self { session, ..court }, running)
    }

    /// Twelve owners with a node each, and a calibration that three of them vouch for.
    pub async fn with(world: World) -> Self {
        let provider = ProviderBuilder::new().connect_http(world.http_url.parse().unwrap());
        let court = Self { world, provider: provider.erased(), session: 0 };
        court.dev("anvil_autoImpersonateAccount", json!([true])).await;
        court.world.register_model().await;
        for node in 1..=u32::from(OWNERS) {
            court.register(node).await;
        }
        court.calibrate().await;
        court
    }

    async fn register(&self, node: u32) {
        let (at, owner) = (&self.world.deployment, owner_of(node));
        self.dev("anvil_setBalance", json!([owner, U256::from(GAS_MONEY)])).await;
        let stake = U256::from(1000 * COR);
        self.world.call(at.token, CorToken::transferCall { to: owner, value: stake }).await;
        let approve = CorToken::approveCall { spender: at.payment, value: U256::MAX };
        self.send(owner, at.token, approve).await;
        self.send(owner, at.nodes, NodePool::registerCall { registration: node_of(owner) }).await;
    }

    async fn calibrate(&self) {
        let models = self.world.deployment.models;
        let word = CALIBRATION.pack().unwrap();
        let calibrate = ModelRegistry::calibrateCall {
            modelId: model(),
            minerClass: class(),
            validatorClass: class(),
            word,
        };
        self.world.call(models, calibrate).await;
        for node in 1..=3 {
            let attest = ModelRegistry::attestCall {
                modelId: model(),
                minerClass: class(),
                validatorClass: class(),
                word,
                nodeId: node,
            };
            self.send(owner_of(node), models, attest).await;
        }
    }

    pub async fn dev(&self, method: &'static str, params: Value) {
        let _: Value = self.provider.raw_request(method.into(), params).await.unwrap();
    }

    /// Lets time go by, seconds.
    pub async fn pass(&self, seconds: u64) {
        self.dev("evm_increaseTime", json!([seconds])).await;
    }

    pub async fn send(&self, from: Address, to: Address, call: impl SolCall) -> TransactionReceipt {
        let call = TransactionRequest::default().from(from).to(to).input(call.abi_encode().into());
        let nonce = self.provider.get_transaction_count(from).await.unwrap();
        let sent = self.provider.send_transaction(call.nonce(nonce)).await.unwrap();
        let receipt = sent.get_receipt().await.unwrap();
        assert!(receipt.status(), "a move of {from} was refused");
        receipt
    }

    fn proof(&self) -> ProofOfInferenceInstance<&DynProvider> {
        ProofOfInference::new(self.world.deployment.proof, &self.provider)
    }

    fn scope(&self, task: B256, node: u32) -> CommitScope {
        let at = &self.world.deployment;
        let (task, node) = (TaskId(task), NodeId(node));
        CommitScope { chain_id: at.chain_id, queue: at.queue, task, node }
    }

    // ---------------------------------------------------------------- the miner

    fn sealed(&self, case: Case, record: &Record) -> SessionQueue::Answer {
        let seal = ProofSeal { root: record.tree().unwrap().root(), salt: MINERS_SALT };
        answer(case.miner, seal.hash(&self.scope(case.task, case.miner)))
    }

    /// A task that was answered with what `record` says; the first of its session, and so on.
    pub async fn answered(&self, nonce: u64, record: &Record) -> Case {
        let task = self.world.submit(self.session, nonce, 60).await;
        self.answer(task, record).await
    }

    /// Answers a task as the node that it was given to.
    pub async fn answer(&self, task: B256, record: &Record) -> Case {
        let told: TaskRecord = self.world.record(task).await;
        let case = Case { task, miner: told.task.parts[0].nodeId };
        let answers = vec![self.sealed(case, record)];
        let commit = SessionQueue::commitCall { task: told.task, answers };
        self.send(owner_of(case.miner), self.world.deployment.queue, commit).await;
        case
    }

    pub async fn open_proof(&self, case: Case, record: &Record) {
        let (audit, _) = self.reaches(case, AuditState::Sealed).await;
        let given = self.sealed(case, record);
        // The same struct of another interface.
        let answer = ProofOfInference::Answer {
            nodeId: given.nodeId,
            outputDigest: given.outputDigest,
            promptHash: given.promptHash,
            promptTokens: given.promptTokens,
            outputTokens: given.outputTokens,
            numericClass: given.numericClass,
            endReason: given.endReason,
            salt: given.salt,
            proofSeal: given.proofSeal,
            signature: given.signature,
        };
        let call = ProofOfInference::openProofCall {
            brought: audit,
            answer,
            root: record.tree().unwrap().root(),
            salt: MINERS_SALT,
            proofDigest: B256::repeat_byte(6),
        };
        self.send(owner_of(case.miner), self.world.deployment.proof, call).await;
    }

    // ---------------------------------------------------------------- validators

    /// H' of what honest weights find.
    fn seal(&self, case: Case, validator: u32) -> B256 {
        let seal = AuditSeal {
            miner: NodeId(case.miner),
            root: found().tree().unwrap().root(),
            statistics: found().statistics().pack().unwrap(),
            salt: VALIDATORS_SALT,
        };
        seal.hash(&self.scope(case.task, validator))
    }

    pub async fn commit_audit(&self, case: Case) {
        let (audit, _) = self.reaches(case, AuditState::Drawn).await;
        let (from, sealed) = (owner_of(audit.validator), self.seal(case, audit.validator));
        let call = ProofOfInference::commitAuditCall { brought: audit, sealed_: sealed };
        self.send(from, self.world.deployment.proof, call).await;
    }

    /// The value of the round that an audit waits for, once somebody has revealed it, and the positions that it draws.
    async fn positions(
        &self,
        case: Case,
        round: u64,
        (first, count): (u32, u32),
        wanted: u32,
    ) -> Vec<u32> {
        let beacon = RandomBeacon::new(self.world.deployment.beacon, &self.provider);
        let value = || async { beacon.valueOf(round).call().await.unwrap() };
        until("the audit's round has its value", || async { value().await != B256::ZERO }).await;
        let seed = position_seed(value().await, TaskId(case.task), NodeId(case.miner));
        draw_positions(seed, first, count, wanted)
    }

    /// The drawn validator opens what it found of an answer with these records.
    pub async fn reveal(&self, case: Case, record: &Record) {
        let (audit, _) = self.reaches(case, AuditState::Opened).await;
        let spots = self.positions(case, audit.round, (1, TOKENS), SPOT_POSITIONS).await;
        let tree = found().tree().unwrap();
        let findings = Findings {
            root: tree.root(),
            statistics: found().statistics().pack().unwrap(),
            salt: VALIDATORS_SALT,
            failingBlocks: u16::from(*record != honest()),
            worstBlock: 0,
            named: U256::ZERO,
            alsoNamed: U256::ZERO,
            minerLeaves: miners_leaves(record, &spots),
            minerNodes: record.tree().unwrap().prove(&spots).unwrap(),
            leaves: validators_leaves(&spots),
            nodes: tree.prove(&spots).unwrap(),
        };
        let from = owner_of(audit.validator);
        let call = ProofOfInference::revealCall { brought: audit, findings };
        self.send(from, self.world.deployment.proof, call).await;
    }

    // ---------------------------------------------------------------- a panel

    pub async fn commit_panel(&self, case: Case) {
        let (_, parties) = self.reaches(case, AuditState::Convened).await;
        for party in parties.iter().skip(2).filter(|party| !party.isSealed) {
            let (audit, parties) = self.told(case).await;
            let node = party.nodeId;
            let sealed = self.seal(case, node);
            let call =
                ProofOfInference::commitPanelCall { _0: audit, _1: parties, _2: node, _3: sealed };
            self.send(owner_of(node), self.world.deployment.proof, call).await;
        }
    }

    /// All parties of a dispute over weights open, the miner what `record` says.
    pub async fn testify(&self, case: Case, record: &Record) {
        let (audit, parties) = self.reaches(case, AuditState::Hearing).await;
        let window = block_window(TOKENS, 0).unwrap();
        let positions = self.positions(case, audit.round, window, MAX_OPENED as u32).await;
        for party in parties {
            let (audit, parties) = self.told(case).await;
            let is_miner = party.nodeId == case.miner;
            let tree: Tree = if is_miner { record.tree() } else { found().tree() }.unwrap();
            let leaves = match is_miner {
                true => miners_leaves(record, &positions),
                false => validators_leaves(&positions),
            };
            let testimony = Testimony {
                root: tree.root(),
                statistics: found().statistics().pack().unwrap(),
                salt: VALIDATORS_SALT,
                leaves,
                nodes: tree.prove(&positions).unwrap(),
            };
            let node = party.nodeId;
            let call =
                ProofOfInference::testifyCall { _0: audit, _1: parties, _2: node, _3: testimony };
            self.send(owner_of(node), self.world.deployment.proof, call).await;
        }
    }

    /// The drawn validator cannot read the answer.
    pub async fn demand(&self, case: Case) {
        let (audit, _) = self.reaches(case, AuditState::Drawn).await;
        let (from, node) = (owner_of(audit.validator), audit.validator);
        let call = ProofOfInference::demandDataCall { _0: audit, _1: vec![], _2: node };
        self.send(from, self.world.deployment.proof, call).await;
    }

    /// The miner's owner contests what a panel found.
    pub async fn appeal(&self, case: Case) {
        let (audit, parties) = self.reaches(case, AuditState::Condemned).await;
        let call = ProofOfInference::appealCall { _0: audit, _1: parties };
        self.send(owner_of(case.miner), self.world.deployment.proof, call).await;
    }

    // ---------------------------------------------------------------- what is seen

    pub async fn state(&self, case: Case) -> u8 {
        self.proof().statusOf(case.task, case.miner).call().await.unwrap().state
    }

    /// What the chain told of an audit last.
    async fn told(&self, case: Case) -> (Audit, Vec<Party>) {
        let proof = self.proof();
        let moved = proof.AuditMoved_filter().topic1(case.task).from_block(0).query().await;
        let panels = proof.PanelMoved_filter().topic1(case.task).from_block(0).query().await;
        let parties = panels.unwrap().pop().map(|(event, _)| event.parties);
        (moved.unwrap().pop().unwrap().0.audit, parties.unwrap_or_default())
    }

    /// Waits until an audit stands so; returns what whoever moves it brings.
    pub async fn reaches(&self, case: Case, state: AuditState) -> (Audit, Vec<Party>) {
        let what = format!("the audit is {state:?}");
        until(&what, || async { self.state(case).await == state as u8 }).await;
        self.told(case).await
    }

    /// States that the audit of an answer was in, in their order.
    pub async fn path(&self, case: Case) -> Vec<AuditState> {
        let proof = self.proof();
        let moved = proof.AuditMoved_filter().topic1(case.task).from_block(0).query().await;
        let state = |event: &ProofOfInference::AuditMoved| event.state.try_into().unwrap();
        moved.unwrap().iter().map(|(event, _)| state(event)).collect()
    }

    /// How often the answers of this task were not drawn; and whether for want of randomness.
    pub async fn cleared(&self, case: Case) -> Vec<bool> {
        let proof = self.proof();
        let cleared = proof.AnswerCleared_filter().topic1(case.task).from_block(0).query().await;
        cleared.unwrap().iter().map(|(event, _)| event.unaudited).collect()
    }

    /// What was paid to the validators of an answer, if it was.
    pub async fn collected(&self, case: Case) -> Option<U256> {
        let proof = self.proof();
        let told = proof.AuditCollected_filter().topic1(case.task).from_block(0).query().await;
        told.unwrap().first().map(|(event, _)| event.amount)
    }

    /// Whether every transaction of this account had an effect: each move of the protocol tells an event.
    pub async fn assert_nothing_in_vain(&self, account: Address) {
        let head = self.provider.get_block_number().await.unwrap();
        let mut sent = 0;
        for number in 0..=head {
            let receipts = self.provider.get_block_receipts(number.into()).await.unwrap().unwrap();
            for receipt in receipts.iter().filter(|receipt| receipt.from == account) {
                assert!(receipt.status() && !receipt.logs().is_empty(), "{receipt:?}");
                sent += 1;
            }
        }
        assert!(sent > 0, "it sent nothing");
    }

    /// The round of the epoch that an answer was committed in, once it is named.
    pub async fn round(&self, case: Case) -> u64 {
        let epoch = self.epoch(case).await;
        let proof = self.proof();
        let round = || async { proof.roundOf(epoch).call().await.unwrap()._0 };
        until("the epoch's round is named", || async { round().await != 0 }).await;
        round().await
    }

    /// Epochs have one second.
    async fn epoch(&self, case: Case) -> U40 {
        self.proof().exposureOf(case.task, case.miner).call().await.unwrap()._1
    }

    /// Names the round of the epoch that an answer was committed in.
    pub async fn close_epoch(&self, case: Case) -> u64 {
        let epoch = self.epoch(case).await;
        self.pass(2).await;
        self.dev("evm_mine", json!([])).await;
        let call = ProofOfInference::closeEpochCall { epoch };
        self.send(owner_of(1), self.world.deployment.proof, call).await;
        self.proof().roundOf(epoch).call().await.unwrap()._0
    }
}
