//! Proof of Inference on the embedded chain with the real contracts: six owners, one of them asked, the others its judges.
//! What an oracle does is done by the tests.

use std::{sync::Arc, time::Duration};

use alloy::{
    contract::{CallBuilder, CallDecoder},
    primitives::Bytes,
    providers::{DynProvider, Provider},
    rpc::types::Log,
    signers::local::PrivateKeySigner,
    sol_types::SolEvent,
};
use assay_bindings::{
    COR, DeployConfig, ModelRegistry, ProofOfInference, RandomBeacon, Session, SessionPayment,
    SessionQueue,
};
use assay_engine::{EchoEngine, EchoOptions, Engine};
use assay_miner::{Calibration, MinerError, MinerHandle};
use assay_proof::Width;
use assay_protocol::{QueueScope, Rule, TaskRecord, TaskState, state::AuditState};
use assay_store::ContentStore;
use assay_types::{NodeId, TaskId, TaskRequest};

use crate::{
    net::Net,
    world::{MemStore, PATIENCE, until},
};

/// One more than an audit, its panel and the miner are: too few for an appeal.
const OWNERS: usize = 6;
/// So many that the seven others of an appeal are found among them for certain.
const MANY: usize = 16;
/// Stake of a node of two places.
const STAKE: u128 = 200 * COR;

/// Of an engine whose honest noise is nothing.
fn strict() -> Calibration {
    Calibration {
        tau: 4,
        spot_tau: 8,
        block_limit: 1,
        width: Width::Four,
        hard_margin: 655,
        margin_bar: 6553,
        thr_base: 6553,
        thr_slope: 0,
        thr_spread: 0,
        drift: 1 << 20,
        drift_limit: 1 << 20,
    }
}

/// A proven model with six owners.
struct Court {
    net: Net,
    keys: Vec<PrivateKeySigner>,
    engines: Vec<Arc<EchoEngine>>,
    stores: Vec<Arc<MemStore>>,
    /// `None` while it is down.
    miners: Vec<Option<MinerHandle>>,
    nodes: Vec<NodeId>,
    session: u64,
    /// Whom the session has reserved.
    asked: usize,
    nonce: u64,
}

fn engine(weights: u8) -> Arc<EchoEngine> {
    Arc::new(EchoEngine::new(EchoOptions { weights, ..EchoOptions::default() }).unwrap())
}

impl Court {
    async fn new() -> Self {
        Self::of(OWNERS, &DeployConfig::development()).await
    }

    async fn of(owners: usize, terms: &DeployConfig) -> Self {
        let keys: Vec<_> = (0..owners).map(|_| PrivateKeySigner::random()).collect();
        let addresses: Vec<_> = keys.iter().map(PrivateKeySigner::address).collect();
        let net = Net::with_terms(&addresses, &keys, terms).await;
        let engines = (0..owners).map(|_| engine(0)).collect();
        let stores = vec![net.store.clone(); owners];
        let mut court = Self {
            net,
            keys,
            engines,
            stores,
            miners: (0..owners).map(|_| None).collect(),
            nodes: vec![],
            session: 0,
            asked: 0,
            nonce: 0,
        };
        for i in 0..owners {
            court.net.give(court.keys[i].address(), 250).await;
            court.start(i).await;
            court.nodes.push(court.miner(i).node_id());
        }
        court.calibrate().await;
        // Places count in draws a second after the registration.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        court.session = court.net.session(1).await;
        let sessions = Session::new(court.net.deployment.sessions, &court.net.provider);
        let reserved = sessions.sessionOf(court.session).call().await.unwrap().current.nodes[0];
        court.asked = court.nodes.iter().position(|node| node.0 == reserved).unwrap();
        court
    }

    async fn start(&mut self, i: usize) {
        let key = &self.keys[i];
        let own = (self.engines[i].clone(), self.stores[i].clone());
        self.miners[i] = Some(self.net.start_with(key, key, own).await.unwrap());
    }

    fn miner(&self, i: usize) -> &MinerHandle {
        self.miners[i].as_ref().unwrap()
    }

    /// As kill -9.
    async fn kill(&mut self, i: usize) {
        let mut miner = self.miners[i].take().unwrap();
        miner.kill();
        let _ = miner.wait().await;
        drop(miner);
        let path = self.net.folder.path().join(self.keys[i].address().to_string());
        let path = path.join("miner.db");
        let free = || assay_chain::Database::open(&path, assay_miner::MIGRATIONS).is_ok();
        until("the database is free", free).await;
    }

    /// From now on it has other weights.
    async fn cheat(&mut self, i: usize) {
        self.kill(i).await;
        self.engines[i] = engine(1);
        self.start(i).await;
    }

    /// From now on its blocks are found by a daemon of its own, whatever the others' finds.
    async fn move_out(&mut self, i: usize) {
        self.kill(i).await;
        self.stores[i] = self.net.store.beside();
        self.start(i).await;
    }

    async fn kill_and_start_all(&mut self) {
        for i in 0..self.keys.len() {
            self.kill(i).await;
            self.start(i).await;
        }
    }

    async fn calibrate(&self) {
        let models = ModelRegistry::new(self.net.deployment.models, &self.net.provider);
        let info = self.net.engine.info();
        let (model, class) = (info.model_id.0, info.numeric_class.0);
        let word = strict().pack().unwrap();
        let call = models.calibrate(model, class, class, word);
        self.net.mined(call.from(self.net.admin.address()).send().await).await;
        for (key, node) in self.keys.iter().zip(&self.nodes).take(3) {
            let call = models.attest(model, class, class, word, node.0);
            self.net.mined(call.from(key.address()).send().await).await;
        }
    }

    /// Asks the one that is asked, and waits for its answer.
    async fn ask(&mut self, text: &str) -> TaskId {
        let node = self.nodes[self.asked].0;
        let (request, bytes) = self.net.request(self.session, 0, node, text).await;
        let request = TaskRequest { nonce: self.nonce, ..request };
        self.nonce += 1;
        let task = request.task_id(self.net.deployment.queue);
        self.net.store.put(bytes.into()).await.unwrap();
        let queue = SessionQueue::new(self.net.deployment.queue, &self.net.provider);
        let call = queue.submit(request.into());
        self.net.mined(call.from(self.net.client.address()).send().await).await;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.net.task_state(task).await != TaskState::Committed as u8 {
            assert!(tokio::time::Instant::now() < deadline, "no answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        task
    }

    async fn events<E: SolEvent>(&self, task: TaskId) -> Vec<E> {
        let at = &self.net.deployment;
        let filter = alloy::rpc::types::Filter::new()
            .from_block(0)
            .address(vec![at.queue, at.proof, at.payment])
            .event_signature(E::SIGNATURE_HASH);
        let logs = self.net.provider.get_logs(&filter).await.unwrap();
        let of_task = |log: &Log| log.topics().contains(&task.0);
        let decode = |log: &Log| log.log_decode::<E>().unwrap().inner.data;
        logs.iter().filter(|log| of_task(log)).map(decode).collect()
    }

    fn proof(&self) -> ProofOfInference::ProofOfInferenceInstance<&DynProvider> {
        ProofOfInference::new(self.net.deployment.proof, &self.net.provider)
    }

    async fn state(&self, task: TaskId) -> Option<AuditState> {
        let status = self.proof().statusOf(task.0, self.nodes[self.asked].0).call().await.unwrap();
        AuditState::try_from(status.state).ok()
    }

    /// What an oracle would do for the task now, but for `settle` while `draws` is false.
    async fn keep(&self, task: TaskId) {
        let proof = self.proof();
        let audit = self.events::<ProofOfInference::AuditMoved>(task).await.pop();
        let parties = self.events::<ProofOfInference::PanelMoved>(task).await.pop();
        let parties = parties.map_or(vec![], |event| event.parties);
        match (self.state(task).await, audit) {
            (Some(AuditState::Opened), Some(event)) => self.reveal(event.audit.round).await,
            (Some(AuditState::Accused), Some(event)) => {
                self.reveal(event.audit.round).await;
                self.sent(proof.convene(event.audit)).await;
            }
            (Some(AuditState::Hearing), Some(event)) => {
                self.reveal(event.audit.round).await;
                self.sent(proof.judge(event.audit, parties)).await;
            }
            (Some(AuditState::Condemned), Some(event)) => {
                self.sent(proof.judge(event.audit, parties)).await;
            }
            (Some(AuditState::Appealed), Some(event)) => {
                self.reveal(event.audit.round).await;
                self.sent(proof.reconvene(event.audit, parties)).await;
            }
            (Some(AuditState::Exposed), _) => self.draw(task).await,
            (Some(state), _) if state >= AuditState::Passed => self.settle(task).await,
            _ => {}
        }
    }

    /// Names the round of the answer's epoch, reveals it, and settles.
    async fn draw(&self, task: TaskId) {
        let node = self.nodes[self.asked].0;
        let proof = self.proof();
        let exposed = proof.exposureOf(task.0, node).call().await.unwrap();
        let epoch = exposed._1 / proof.config().call().await.unwrap().epochLength;
        let round = proof.roundOf(epoch).call().await.unwrap()._0;
        if round == 0 {
            return self.sent(proof.closeEpoch(epoch)).await;
        }
        self.reveal(round).await;
        self.settle(task).await;
    }

    async fn settle(&self, task: TaskId) {
        let at = &self.net.deployment;
        let submitted = self.events::<SessionQueue::TaskSubmitted>(task).await.pop().unwrap();
        let mut record = TaskRecord::submitted(&submitted);
        let scope = QueueScope { chain_id: at.chain_id, queue: at.queue };
        for event in self.events::<SessionQueue::TaskCommitted>(task).await {
            record.committed(&scope, &event).unwrap();
        }
        let queue = SessionQueue::new(at.queue, &self.net.provider);
        self.sent(queue.settle(vec![record.task])).await;
    }

    /// A transaction that may be too early, or too late: asked before it is sent, since the provider counts its nonces itself.
    async fn sent<P: Provider, D: CallDecoder>(&self, call: CallBuilder<P, D>) {
        let call = call.from(self.net.admin.address());
        if call.call().await.is_ok() {
            let pending = call.send().await.unwrap();
            pending.get_receipt().await.unwrap();
        }
    }

    async fn reveal(&self, round: u64) {
        let beacon = RandomBeacon::new(self.net.deployment.beacon, &self.net.provider);
        if self.net.provider.get_block_number().await.unwrap() > round
            && beacon.valueOf(round).call().await.unwrap().is_zero()
        {
            self.sent(beacon.reveal(round, Bytes::new())).await;
        }
    }

    /// Keeps the task until its audit has stood so.
    async fn keep_until(&self, task: TaskId, wanted: AuditState) {
        let deadline = tokio::time::Instant::now() + 2 * PATIENCE;
        loop {
            let moves = self.events::<ProofOfInference::AuditMoved>(task).await;
            if moves.iter().any(|event| event.state == wanted as u8) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{wanted:?} never comes");
            self.keep(task).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Keeps the task until it is settled or refunded.
    async fn keep_until_over(&self, task: TaskId) -> u8 {
        let deadline = tokio::time::Instant::now() + 3 * PATIENCE;
        let over = [TaskState::Settled as u8, TaskState::Refunded as u8];
        loop {
            let state = self.net.task_state(task).await;
            if over.contains(&state) {
                return state;
            }
            let (now, audit) = (tokio::time::Instant::now(), self.state(task).await);
            assert!(now < deadline, "the task is in state {state}, its audit {audit:?}");
            self.keep(task).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Which of the owners the answer's validator is.
    async fn validator(&self, task: TaskId) -> usize {
        let event = self.events::<ProofOfInference::AuditMoved>(task).await.pop().unwrap();
        self.nodes.iter().position(|node| node.0 == event.audit.validator).unwrap()
    }

    async fn stake(&self, i: usize) -> u128 {
        let payment = SessionPayment::new(self.net.deployment.payment, &self.net.provider);
        payment.stakeOf(self.nodes[i].0).call().await.unwrap().to()
    }

    /// Those that have lost stake.
    async fn slashed(&self) -> Vec<usize> {
        let mut slashed = Vec::new();
        for i in 0..self.keys.len() {
            if self.stake(i).await < STAKE {
                slashed.push(i);
            }
        }
        slashed
    }

    fn count(&self, i: usize, what: &str) -> u64 {
        self.miner(i).status().audits.get(what).copied().unwrap_or(0)
    }

    /// Seconds of the chain's time.
    async fn pass(&self, seconds: u64) {
        let provider = &self.net.provider;
        let _: serde_json::Value =
            provider.raw_request("evm_increaseTime".into(), (seconds,)).await.unwrap();
        self.mine().await;
    }

    /// A block.
    async fn mine(&self) {
        let _: serde_json::Value =
            self.net.provider.raw_request("evm_mine".into(), ()).await.unwrap();
    }

    async fn close(self) {
        self.net.check_conservation().await;
        for miner in self.miners.into_iter().flatten() {
            miner.stop().await.unwrap();
        }
        self.net.devnet.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_answer_is_audited_passes_and_pays_its_validator() {
    let mut court = Court::new().await;
    let task = court.ask("an answer that somebody will look at").await;
    court.keep_until(task, AuditState::Drawn).await;
    let validator = court.validator(task).await;
    assert_ne!(validator, court.asked);
    assert_eq!(court.keep_until_over(task).await, TaskState::Settled as u8);
    until("the miner is paid", || court.miner(court.asked).status().settled == 1).await;
    until("the validator is paid", || court.miner(validator).status().audit_pay > 0).await;
    for what in ["exposed", "audited", "passed"] {
        assert_eq!(court.count(court.asked, what), 1, "{what}");
    }
    assert_eq!((court.count(validator, "drawn"), court.count(validator, "found_true")), (1, 1));
    let collected = court.events::<ProofOfInference::AuditCollected>(task).await;
    let pay: Vec<u128> = collected.iter().map(|event| event.amount.to()).collect();
    assert_eq!(pay, [court.miner(validator).status().audit_pay]);
    let said = court.miner(validator).status().last_audit.unwrap();
    assert!(said.contains("true"), "{said}");
    assert!(court.slashed().await.is_empty());
    // What was audited vouches for it.
    let model = court.events::<ProofOfInference::AuditMoved>(task).await.pop().unwrap().audit.model;
    let record = court.proof().recordOf(court.nodes[court.asked].0, model).call().await.unwrap();
    assert!(record._0.to::<u128>() > 0);
    for i in 0..OWNERS {
        until("no duty is left", || court.miner(i).status().duties == 0).await;
        assert_eq!(court.miner(i).status().last_error, None);
    }
    court.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_killed_between_all_steps_do_their_duties() {
    // Nobody loses its patience while all of them are started again.
    let mut terms = DeployConfig::development();
    terms.proof.seal_time_s = 1000;
    (terms.longest_audit_s, terms.node.unbonding_period_s) = (20_000, 40_000);
    let mut court = Court::of(OWNERS, &terms).await;
    let task = court.ask("an answer of nodes that die").await;
    court.kill_and_start_all().await;
    // The validator finds nothing that it needs.
    court.net.store.fail_gets(true);
    court.keep_until(task, AuditState::Drawn).await;
    court.kill_and_start_all().await;
    court.net.store.fail_puts(true);
    court.net.store.fail_gets(false);
    // The miner cannot publish what it recorded.
    court.keep_until(task, AuditState::Sealed).await;
    court.kill_and_start_all().await;
    court.net.store.fail_gets(true);
    court.net.store.fail_puts(false);
    // The validator cannot fetch that.
    court.keep_until(task, AuditState::Opened).await;
    court.kill_and_start_all().await;
    court.net.store.fail_gets(false);
    court.keep_until(task, AuditState::Passed).await;
    court.kill_and_start_all().await;
    assert_eq!(court.keep_until_over(task).await, TaskState::Settled as u8);
    let moves = court.events::<ProofOfInference::AuditMoved>(task).await;
    let states: Vec<u8> = moves.iter().map(|event| event.state).collect();
    let wanted = [AuditState::Drawn, AuditState::Sealed, AuditState::Opened, AuditState::Passed];
    assert_eq!(states, wanted.map(|state| state as u8), "each step once");
    assert!(court.slashed().await.is_empty());
    court.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_weights_are_accused_tried_and_slashed() {
    let mut court = Court::new().await;
    court.cheat(court.asked).await;
    let task = court.ask("an answer that another model made").await;
    court.keep_until(task, AuditState::Convened).await;
    court.kill_and_start_all().await;
    assert_eq!(court.keep_until_over(task).await, TaskState::Refunded as u8);
    assert_eq!(court.slashed().await, [court.asked]);
    let slashes = court.events::<SessionPayment::Slashed>(task).await;
    let rules: Vec<u8> = slashes.iter().map(|event| event.rule).collect();
    assert_eq!(rules, [Rule::Fingerprint as u8]);
    let told = || court.miner(court.asked).status();
    until("it is told", || told().events.get("disproved") == Some(&1)).await;
    // Its own model bears it out, so it appealed; of six owners no second panel can be drawn.
    for what in ["condemned", "appealed", "convicted", "slashed"] {
        assert_eq!(court.count(court.asked, what), 1, "{what}");
    }
    assert_eq!(told().slashed, STAKE);
    // The validator and three of a panel share in what was taken; a refunded task gives nothing for audits.
    let payment = SessionPayment::new(court.net.deployment.payment, &court.net.provider);
    let mut rewarded = 0;
    for key in &court.keys {
        let balance: u128 = payment.balanceOf(key.address(), 0).call().await.unwrap().to();
        rewarded += u32::from(balance == STAKE / 2 / 4);
    }
    assert_eq!(rewarded, 4);
    // Proven, and their pay is the only duty left.
    assert_eq!(court.state(task).await, Some(AuditState::Closed));
    court.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validator_that_accuses_falsely_is_outvoted_and_slashed() {
    let mut court = Court::new().await;
    let task = court.ask("an answer that is true all the same").await;
    court.net.store.fail_gets(true);
    court.keep_until(task, AuditState::Drawn).await;
    let liar = court.validator(task).await;
    court.cheat(liar).await;
    court.net.store.fail_gets(false);
    assert_eq!(court.keep_until_over(task).await, TaskState::Settled as u8);
    assert_eq!(court.slashed().await, [liar]);
    let slashes = court.events::<SessionPayment::Slashed>(task).await;
    let rules: Vec<u8> = slashes.iter().map(|event| event.rule).collect();
    assert_eq!(rules, [Rule::Contradicted as u8]);
    until("the miner is paid", || court.miner(court.asked).status().settled == 1).await;
    assert_eq!(
        (court.count(court.asked, "accused"), court.count(court.asked, "acquitted")),
        (1, 1)
    );
    until("the liar knows", || court.count(liar, "slashed") == 1).await;
    court.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miner_that_does_not_open_loses() {
    let mut court = Court::new().await;
    let task = court.ask("an answer that nobody vouches for").await;
    court.kill(court.asked).await;
    court.keep_until(task, AuditState::Sealed).await;
    let config = court.proof().config().call().await.unwrap();
    court.pass(config.openTime.to::<u64>() + 1).await;
    let event = court.events::<ProofOfInference::AuditMoved>(task).await.pop().unwrap();
    let call = court.proof().advanceAudit(event.audit).from(court.net.admin.address()).send().await;
    court.net.mined(call).await;
    assert_eq!(court.keep_until_over(task).await, TaskState::Refunded as u8);
    assert_eq!(court.slashed().await, [court.asked]);
    // It comes back, and is told why nobody asks it any more.
    let key = &court.keys[court.asked];
    let error = court.net.start(key, key).await.err().unwrap();
    assert!(matches!(error, MinerError::NodeJailed { .. }), "{error}");
    assert_eq!(court.events::<ProofOfInference::ProofOpened>(task).await.len(), 0);
    court.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_that_nobody_can_fetch_is_shown_to_the_panel() {
    let mut court = Court::new().await;
    let task = court.ask("an answer whose proof got lost").await;
    court.net.store.fail_puts(true);
    court.keep_until(task, AuditState::Sealed).await;
    court.net.store.fail_gets(true);
    court.net.store.fail_puts(false);
    court.keep_until(task, AuditState::Opened).await;
    let opened = court.events::<ProofOfInference::ProofOpened>(task).await.pop().unwrap();
    court.net.store.forget(opened.proofDigest);
    court.net.store.fail_gets(false);
    // The validator waits for it as long as it can.
    let config = court.proof().config().call().await.unwrap();
    court.pass(config.revealTime.to::<u64>() / 2 + 5).await;
    assert_eq!(court.keep_until_over(task).await, TaskState::Settled as u8);
    assert!(court.slashed().await.is_empty());
    until("it is told", || court.count(court.asked, "acquitted") == 1).await;
    assert_eq!(court.count(court.asked, "accused"), 1);
    until("the miner is paid", || court.miner(court.asked).status().settled == 1).await;
    court.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_its_miner_alone_can_show_is_demanded_and_published() {
    let mut court = Court::new().await;
    let asked = court.asked;
    court.move_out(asked).await;
    let task = court.ask("an answer that its miner alone can show").await;
    let committed = court.events::<SessionQueue::TaskCommitted>(task).await.pop().unwrap();
    court.net.store.hide(committed.outputDigest);
    court.stores[asked].fail_gets(true);
    court.keep_until(task, AuditState::Drawn).await;
    let validator = court.validator(task).await;
    // Longer than what is only late is waited for.
    let config = court.proof().config().call().await.unwrap();
    court.pass(config.sealTime.to::<u64>() / 4).await;
    court.keep_until(task, AuditState::Demanded).await;
    until("the miner knows", || court.count(asked, "demanded") == 1).await;
    // It goes on where it was.
    court.kill(asked).await;
    court.stores[asked].fail_gets(false);
    court.start(asked).await;
    assert_eq!(court.keep_until_over(task).await, TaskState::Settled as u8);
    let published = court.events::<ProofOfInference::DataPublished>(task).await;
    let [piece] = &published[..] else { panic!("{} pieces", published.len()) };
    assert_eq!(piece.totalBytes as usize, piece.data.len());
    let result = court.stores[asked].get(committed.outputDigest).await.unwrap();
    assert_eq!(piece.data[piece.requestBytes as usize..], result);
    assert!(court.slashed().await.is_empty());
    // Whoever demands is not paid.
    assert!(court.events::<ProofOfInference::AuditCollected>(task).await.is_empty());
    assert_eq!(court.count(validator, "found_true"), 1);
    court.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miner_that_does_not_publish_loses() {
    let mut court = Court::new().await;
    let task = court.ask("an answer that nobody shows").await;
    let submitted = court.events::<SessionQueue::TaskSubmitted>(task).await.pop().unwrap();
    // Whoever cannot read the question demands as well.
    court.net.store.forget(submitted.requestDigest);
    court.keep_until(task, AuditState::Drawn).await;
    let config = court.proof().config().call().await.unwrap();
    court.pass(config.sealTime.to::<u64>() / 4).await;
    court.keep_until(task, AuditState::Demanded).await;
    let (demander, asked) = (court.validator(task).await, court.asked);
    court.pass(config.openTime.to::<u64>() + 1).await;
    let event = court.events::<ProofOfInference::AuditMoved>(task).await.pop().unwrap();
    let call = court.proof().advanceAudit(event.audit).from(court.net.admin.address()).send().await;
    court.net.mined(call).await;
    assert_eq!(court.keep_until_over(task).await, TaskState::Refunded as u8);
    assert_eq!(court.slashed().await, [asked]);
    // Its one prover is the one that demanded.
    let payment = SessionPayment::new(court.net.deployment.payment, &court.net.provider);
    let balance = payment.balanceOf(court.keys[demander].address(), 0).call().await.unwrap();
    assert_eq!(balance.to::<u128>(), STAKE / 2);
    until("it says why", || {
        let error = court.miner(asked).status().last_error;
        error.is_some_and(|error| error.contains("publish"))
    })
    .await;
    court.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_condemned_by_liars_appeals_and_is_cleared() {
    let mut court = Court::of(MANY, &DeployConfig::development()).await;
    let task = court.ask("an answer that four liars call false").await;
    court.net.store.fail_gets(true);
    court.keep_until(task, AuditState::Drawn).await;
    let mut liars = vec![court.validator(task).await];
    court.cheat(liars[0]).await;
    court.net.store.fail_gets(false);
    court.keep_until(task, AuditState::Accused).await;
    court.net.store.fail_gets(true);
    court.keep_until(task, AuditState::Convened).await;
    let panel = court.events::<ProofOfInference::PanelMoved>(task).await.pop().unwrap();
    for party in &panel.parties[2..] {
        let member = court.nodes.iter().position(|node| node.0 == party.nodeId).unwrap();
        court.cheat(member).await;
        liars.push(member);
    }
    court.net.store.fail_gets(false);
    court.keep_until(task, AuditState::Appealed).await;
    assert_eq!(court.keep_until_over(task).await, TaskState::Settled as u8);
    liars.sort_unstable();
    assert_eq!(court.slashed().await, liars);
    let asked = court.asked;
    until("the miner is paid", || court.miner(asked).status().settled == 1).await;
    for what in ["condemned", "appealed", "acquitted"] {
        assert_eq!(court.count(asked, what), 1, "{what}");
    }
    // Its bond is its own again.
    let payment = SessionPayment::new(court.net.deployment.payment, &court.net.provider);
    let appealed = court.events::<ProofOfInference::Appealed>(task).await.pop().unwrap();
    assert_eq!(appealed.bond.to::<u128>(), STAKE / 10);
    let balance = payment.balanceOf(court.keys[asked].address(), 0).call().await.unwrap();
    assert!(balance.to::<u128>() >= STAKE / 10, "{balance}");
    court.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_its_own_answer_false_does_not_appeal() {
    let mut court = Court::new().await;
    let asked = court.asked;
    court.cheat(asked).await;
    let task = court.ask("an answer of a model that is mended later").await;
    court.kill(asked).await;
    court.engines[asked] = engine(0);
    court.start(asked).await;
    court.keep_until(task, AuditState::Condemned).await;
    until("it says why", || {
        let error = court.miner(asked).status().last_error;
        error.is_some_and(|error| error.contains("finds the answer false, too"))
    })
    .await;
    let config = court.proof().config().call().await.unwrap();
    court.pass(config.appealTime.to::<u64>() + 1).await;
    assert_eq!(court.keep_until_over(task).await, TaskState::Refunded as u8);
    assert_eq!(court.slashed().await, [asked]);
    assert!(court.events::<ProofOfInference::Appealed>(task).await.is_empty());
    court.close().await;
}
