//! Nobody needs an oracle: with none running, an account that has no part in anything moves everything on, with what the
//! events tell everybody.

use std::time::{Duration, Instant};

use alloy::{
    network::TransactionBuilder,
    primitives::{Address, B256, Bytes, U256, aliases::U40, aliases::U96},
    providers::Provider,
    rpc::types::{TransactionReceipt, TransactionRequest},
    sol_types::SolCall,
};
use assay_bindings::{ProofOfInference, RandomBeacon, Session, SessionPayment, SessionQueue};
use assay_harness::run_assay;
use assay_protocol::{TaskRecord, TaskState, state::AuditState};
use serde_json::{Value, json};

use crate::chaos::{agents::Agent, verdict::Chain, worlds::World};

/// Longest wait for anything; a test that needs it has failed.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);
const ACTIVE: u8 = 2;
const CLOSED: u8 = 4;
/// Seconds of development chains, and one more: the first attempt of a task that is submitted here, a further one, what
/// a settlement, a validator, a draw, an end and a rotation wait for.
const FIRST_ATTEMPT_S: &str = "30";
const DEADLINE_S: u64 = 31;
const ATTEMPT_S: u64 = 61;
const SETTLE_S: u64 = 3;
const SEAL_S: u64 = 61;
const DRAW_S: u64 = 61;
const NOTICE_S: u64 = 601;
const RESERVED_S: u64 = 86_401;
/// Enough for a settlement: it is not estimated, since the time for it comes with its block.
const SETTLE_GAS: u64 = 1_000_000;
/// Validators that are asked, one after the other.
const MAX_VALIDATORS: usize = 3;

struct Stranger {
    world: World,
    chain: Chain,
    account: Address,
}

impl Stranger {
    /// One of anvil's own accounts: no keystore of the network has it.
    async fn in_a_world_without_an_oracle() -> Self {
        let world = World::apart_on_anvil(false).await;
        let chain = world.chain().await;
        let accounts = chain.provider.get_accounts().await.unwrap();
        Self { world, chain, account: *accounts.last().unwrap() }
    }

    /// `assay <args> --json` of the session's owner, whose key is the default.
    fn owner(&self, args: &[&str]) -> Value {
        let args = [args, &["--json"]].concat();
        let output = run_assay(&self.world.data(), &args).unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "assay {args:?}: {complaint}\n{}", self.world.logs());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    async fn anvil(&self, method: &'static str, params: Value) {
        let _: Value = self.chain.provider.raw_request(method.into(), params).await.unwrap();
    }

    /// From here on blocks come with transactions alone: time stands still for everybody else.
    async fn stop_the_clock(&self) {
        self.anvil("evm_setIntervalMining", json!([0])).await;
        self.anvil("evm_setAutomine", json!([true])).await;
    }

    async fn pass(&self, seconds: u64) {
        self.anvil("evm_increaseTime", json!([seconds])).await;
        self.anvil("evm_mine", json!([])).await;
    }

    fn transaction(&self, to: Address, call: impl SolCall) -> TransactionRequest {
        TransactionRequest::default().from(self.account).to(to).input(call.abi_encode().into())
    }

    /// Calls until it goes through: blocks have to come first.
    async fn call(&self, to: Address, call: impl SolCall) -> TransactionReceipt {
        let begun = Instant::now();
        let transaction = self.transaction(to, call);
        loop {
            // The provider's own count goes wrong with the first call that is refused.
            let provider = &self.chain.provider;
            let nonce = provider.get_transaction_count(self.account).await.unwrap();
            let refused = match provider.send_transaction(transaction.clone().nonce(nonce)).await {
                Ok(pending) => {
                    let receipt = pending.get_receipt().await.unwrap();
                    assert!(receipt.status());
                    return receipt;
                }
                Err(error) => error,
            };
            assert!(begun.elapsed() < PATIENCE, "a call never went through: {refused}");
            self.anvil("evm_mine", json!([])).await;
            tokio::time::sleep(POLL).await;
        }
    }

    /// The same, and it earns a tip.
    async fn call_for_a_tip(&self, to: Address, call: impl SolCall) -> TransactionReceipt {
        let payment = SessionPayment::new(self.chain.deployment.payment, &self.chain.provider);
        let before = payment.balanceOf(self.account, 0).call().await.unwrap();
        let receipt = self.call(to, call).await;
        assert!(payment.balanceOf(self.account, 0).call().await.unwrap() > before, "no tip");
        receipt
    }

    async fn settle(&self, task: SessionQueue::Task) -> TransactionReceipt {
        let settle = SessionQueue::settleCall { tasks: vec![task] };
        let transaction = self.transaction(self.chain.deployment.queue, settle);
        let provider = &self.chain.provider;
        let nonce = provider.get_transaction_count(self.account).await.unwrap();
        let transaction = transaction.with_gas_limit(SETTLE_GAS).nonce(nonce);
        let sent = provider.send_transaction(transaction).await.unwrap();
        let receipt = sent.get_receipt().await.unwrap();
        assert!(receipt.status());
        receipt
    }

    async fn reveal(&self, round: u64) {
        let call = RandomBeacon::revealCall { round, proof: Bytes::new() };
        self.call(self.chain.deployment.beacon, call).await;
    }

    async fn session(&self, session: u64) -> Session::SessionInfo {
        let sessions = Session::new(self.chain.deployment.sessions, &self.chain.provider);
        sessions.sessionOf(session).call().await.unwrap()
    }

    /// Gives a session that waits for a draw its nodes, and their reservation its seed.
    async fn draw(&self, session: u64) {
        self.reveal(self.session(session).await.drawRound).await;
        let activate = Session::activateCall { sessionId: session };
        self.call_for_a_tip(self.chain.deployment.sessions, activate).await;
        let info = self.session(session).await;
        assert_eq!(info.state, ACTIVE);
        self.reveal(info.current.seedRound).await;
    }

    fn open(&self) -> u64 {
        let nodes = ["--min-nodes", "2", "--max-nodes", "2"];
        let open = [&["session", "open", "--deposit", "5"][..], &nodes].concat();
        self.owner(&open)["session"].as_u64().unwrap()
    }

    fn submit(&self, session: u64, flags: &[&str]) -> B256 {
        let session = session.to_string();
        let submit = ["task", "submit", "--session", &session, "--no-wait", "--max-tokens", "64"];
        let flags = [&submit[..], &["--deadline-s", FIRST_ATTEMPT_S], flags, &["hello"]].concat();
        self.owner(&flags)["task"].as_str().unwrap().parse().unwrap()
    }

    async fn task(&self, task: B256) -> TaskRecord {
        self.chain.record(task).await.unwrap()
    }

    async fn wait_for(&self, task: B256, state: TaskState) -> TaskRecord {
        let begun = Instant::now();
        loop {
            let record = self.task(task).await;
            if record.state == state {
                return record;
            }
            assert!(begun.elapsed() < PATIENCE, "{record:?}\n{}", self.world.logs());
            tokio::time::sleep(POLL).await;
        }
    }

    async fn take_over(&self, task: B256) {
        let call = SessionQueue::advanceCall { task: self.task(task).await.task };
        self.call(self.chain.deployment.queue, call).await;
    }

    async fn refund(&self, task: B256) {
        let call = SessionQueue::advanceCall { task: self.task(task).await.task };
        self.call_for_a_tip(self.chain.deployment.queue, call).await;
        assert_eq!(self.task(task).await.state, TaskState::Refunded);
    }
}

/// A task is served by its node, and then everybody is gone: the stranger has it drawn, moves on those who should audit it
/// and settles it.
async fn settles(stranger: &mut Stranger, session: u64) {
    let task = stranger.submit(session, &[]);
    let record = stranger.wait_for(task, TaskState::Committed).await;
    stranger.world.agents.iter_mut().for_each(Agent::kill);
    let mut audit = is_drawn(stranger, task, &record).await;
    for count in 1.. {
        assert!(count <= MAX_VALIDATORS, "one validator too many: {audit:?}");
        stranger.pass(SEAL_S).await;
        let advance = ProofOfInference::advanceAuditCall(audit);
        let receipt = stranger.call_for_a_tip(stranger.chain.deployment.proof, advance).await;
        let moved = receipt.decoded_log::<ProofOfInference::AuditMoved>().unwrap().data;
        if moved.state == AuditState::Unverified as u8 {
            break;
        }
        assert_eq!(moved.state, AuditState::Drawn as u8);
        audit = moved.audit;
    }
    let receipt = stranger.settle(record.task).await;
    assert_eq!(receipt.decoded_log::<SessionQueue::TaskSettled>().unwrap().taskId, task);
}

/// The answer of a new node is audited for certain: the stranger names the round of its epoch, reveals it, and draws.
async fn is_drawn(stranger: &Stranger, task: B256, record: &TaskRecord) -> ProofOfInference::Audit {
    let at = stranger.chain.deployment.proof;
    let proof = ProofOfInference::new(at, &stranger.chain.provider);
    let node = record.task.parts[0].nodeId;
    let committed_at = proof.exposureOf(task, node).call().await.unwrap()._1;
    let length = proof.config().call().await.unwrap().epochLength;
    let epoch = committed_at / length;
    stranger.pass(length.to::<u64>() + SETTLE_S).await;
    stranger.call(at, ProofOfInference::closeEpochCall { epoch }).await;
    stranger.reveal(proof.roundOf(epoch).call().await.unwrap()._0).await;
    let receipt = stranger.settle(record.task.clone()).await;
    let moved = receipt.decoded_log::<ProofOfInference::AuditMoved>().unwrap().data;
    assert_eq!(moved.state, AuditState::Drawn as u8);
    moved.audit
}

/// A silent node is followed by another one; when attempts run out, the client has its money again.
async fn reassigns_and_refunds(stranger: &Stranger, session: u64) {
    let task = stranger.submit(session, &["--attempts", "2"]);
    let first = stranger.task(task).await.task.parts[0].nodeId;
    stranger.pass(DEADLINE_S).await;
    stranger.take_over(task).await;
    let moved = stranger.task(task).await;
    assert_eq!(moved.state, TaskState::Assigned);
    assert_ne!(moved.task.parts[0].nodeId, first, "the silent node was asked again");
    stranger.pass(ATTEMPT_S).await;
    stranger.refund(task).await;
}

/// Nobody claims a task, and its owner takes it back.
async fn is_taken_back(stranger: &Stranger, session: u64) {
    let task = stranger.submit(session, &["--pull"]);
    assert_eq!(stranger.task(task).await.state, TaskState::Queued);
    let shown = stranger.owner(&["task", "cancel", &task.to_string()]);
    assert_eq!(shown["state"], "refunded", "{shown}");
    assert_eq!(stranger.task(task).await.state, TaskState::Refunded);
}

/// A task whose owner wants to be called ends, and the stranger makes the call.
async fn delivers(stranger: &Stranger, session: u64) {
    let (at, provider) = (&stranger.chain.deployment, &stranger.chain.provider);
    let payment = SessionPayment::new(at.payment, provider);
    let head = provider.get_block(Default::default()).await.unwrap().unwrap().header.timestamp;
    let request = SessionQueue::TaskRequest {
        sessionId: session,
        lane: 0,
        nonce: payment.fundsOf(session, 0).call().await.unwrap().nextNonce,
        seedRound: 0,
        requestDigest: B256::repeat_byte(1),
        maxPrompt: 8,
        maxOutput: 64,
        feeCap: U96::MAX,
        deadline: head + DEADLINE_S,
        nodeId: 0,
        redundancy: 1,
        attempts: 1,
        dispatch: 0,
        callbackGas: 50_000,
    };
    let owner = stranger.session(session).await.owner;
    stranger.anvil("anvil_impersonateAccount", json!([owner])).await;
    let submit = SessionQueue::submitCall { request };
    let submit = stranger.transaction(at.queue, submit).from(owner);
    let sent = provider.send_transaction(submit).await.unwrap().get_receipt().await.unwrap();
    let task = sent.decoded_log::<SessionQueue::TaskSubmitted>().unwrap().taskId;
    stranger.pass(DEADLINE_S + 1).await;
    stranger.refund(task).await;
    let none = SessionQueue::Answer {
        nodeId: 0,
        outputDigest: B256::ZERO,
        promptHash: B256::ZERO,
        promptTokens: 0,
        outputTokens: 0,
        numericClass: B256::ZERO,
        endReason: 0,
        salt: B256::ZERO,
        proofSeal: B256::ZERO,
        signature: Bytes::new(),
    };
    let deliver = SessionQueue::deliverCall { task: stranger.task(task).await.task, answer: none };
    stranger.call_for_a_tip(at.queue, deliver).await;
}

/// New nodes after a day, a router's money back, and the end.
async fn rotates_and_ends(stranger: &Stranger, session: u64) {
    let at = stranger.chain.deployment.sessions;
    stranger.pass(RESERVED_S).await;
    stranger.call(at, Session::rotateCall { sessionId: session, lane: 0 }).await;
    stranger.draw(session).await;
    assert_eq!(stranger.session(session).await.reservations, 2);

    let id = session.to_string();
    let lane = format!("{}:1", stranger.account);
    stranger.owner(&["session", "lane", "add", &id, &lane]);
    stranger.owner(&["session", "lane", "reclaim", &id, "1"]);
    stranger.pass(NOTICE_S).await;
    stranger.call(at, Session::finishReclaimCall { sessionId: session, lane: 1 }).await;
    let shown = stranger.owner(&["session", "show", &id]);
    assert_eq!(shown["lanes"][1]["free"], "0", "{shown}");

    stranger.owner(&["session", "close", &id]);
    stranger.pass(NOTICE_S).await;
    stranger.call_for_a_tip(at, Session::finishCall { sessionId: session }).await;
    assert_eq!(stranger.session(session).await.state, CLOSED);
    let claimed = stranger.owner(&["claim"]);
    let amount = claimed["claimed"][0]["amount"].as_str().unwrap().parse::<U256>().unwrap();
    assert!(!amount.is_zero(), "{claimed}");
}

/// A session that nobody drew in time is paid back.
async fn expires(stranger: &Stranger) {
    let session = stranger.open();
    stranger.pass(DRAW_S).await;
    let expire = Session::expireCall { sessionId: session };
    stranger.call_for_a_tip(stranger.chain.deployment.sessions, expire).await;
    let info = stranger.session(session).await;
    assert_eq!((info.state, info.reservations), (CLOSED, 0));
    assert_ne!(info.endsAt, U40::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_does_what_no_oracle_does() {
    let mut stranger = Stranger::in_a_world_without_an_oracle().await;
    let session = stranger.open();
    stranger.draw(session).await;
    stranger.stop_the_clock().await;
    settles(&mut stranger, session).await;
    reassigns_and_refunds(&stranger, session).await;
    is_taken_back(&stranger, session).await;
    delivers(&stranger, session).await;
    rotates_and_ends(&stranger, session).await;
    expires(&stranger).await;
    stranger.chain.assert_conserved().await;
}
