//! Proven sessions: audits and a dispute that nothing is wrong with, and contracts with a fault in them.

use alloy::hex;
use alloy::primitives::{B256, Bytes, U256, aliases::U40, keccak256};
use alloy::rpc::types::TransactionReceipt;
use assay_bindings::ProofOfInference::{
    Answer, Audit as Proof, Chunk, Findings, Leaf, Party, Testimony, advanceAuditCall, appealCall,
    closeEpochCall, collectCall, commitAuditCall, commitPanelCall, conveneCall, demandDataCall,
    judgeCall, openProofCall, publishDataCall, reconveneCall, revealCall, testifyCall,
};
use assay_bindings::{ModelRegistry, SessionQueue};
use assay_harness::{Change, compile_changed};
use assay_proof::{
    Audit as Finding, Calibration, Contrasts, MAX_OPENED, Reasons, Record, SPOT_POSITIONS, Score,
    Width, block_window, compare, draw_positions,
};
use assay_protocol::{ProtocolEvent, QueueScope, commitment_of};
use assay_replay::{Audit, Divergence, Explainer, Options, Report, Rule, Subject};
use assay_types::{AuditSeal, NodeId, ProofSeal, TaskId, position_seed};

use crate::world::{CLASS, Faults, MODEL, World};

const CALIBRATION: Calibration = Calibration {
    tau: 10,
    spot_tau: 20,
    block_limit: 1,
    width: Width::Four,
    hard_margin: 1 << 16,
    margin_bar: 2 << 16,
    thr_base: 4 << 16,
    thr_slope: 1 << 24,
    thr_spread: 1 << 24,
    drift: 1 << 25,
    drift_limit: 1 << 16,
};
/// Contrasts of other weights are off by so much, 1/256 nat.
pub const OFF: i16 = 700;
const SALT: B256 = B256::repeat_byte(0x5a);

/// What the weights say at every position, or other weights.
fn rows(tokens: u32, off: i16) -> Vec<Contrasts> {
    let row = |t: i16| [1, 2, 3, 4].map(|j| (t * 31 % 500) * j + off);
    (0..tokens).map(|t| Contrasts::new(&row(t as i16)).unwrap()).collect()
}

fn record(tokens: u32, off: i16) -> Record {
    Record::new((0..tokens).collect(), rows(tokens, off)).unwrap()
}

/// What a validator finds, or says that it found.
fn finding(tokens: u32, off: i16) -> Finding {
    let scores: Vec<Score> =
        rows(tokens, off).into_iter().map(|contrasts| Score { margin: 0.0, contrasts }).collect();
    let ids: Vec<u32> = (0..tokens).collect();
    Finding::new(tokens, &ids, &scores, Width::Four, Reasons::default())
}

fn packed(contrasts: &Contrasts) -> u64 {
    contrasts.bytes().fold(0, |word, byte| word << 8 | u64::from(byte))
}

fn of_miner(record: &Record, positions: &[u32]) -> (Vec<Leaf>, Vec<B256>) {
    let leaf = |t: &u32| {
        let at = *t as usize - 1;
        Leaf { id: record.ids()[at], contrasts: packed(&record.contrasts()[at]), margin: 0 }
    };
    let nodes = record.tree().unwrap().prove(positions).unwrap();
    (positions.iter().map(leaf).collect(), nodes)
}

fn of_validator(finding: &Finding, positions: &[u32]) -> (Vec<Leaf>, Vec<B256>) {
    let leaf = |t: &u32| {
        let found = &finding.findings()[*t as usize - 1];
        Leaf { id: found.token, contrasts: packed(&found.contrasts), margin: found.margin }
    };
    let nodes = finding.tree().unwrap().prove(positions).unwrap();
    (positions.iter().map(leaf).collect(), nodes)
}

/// An audit that is followed by its events, like an agent's.
pub struct Followed {
    /// How far the miner's contrasts are off, and those that validators say they found.
    pub off: i16,
    pub said: i16,
    /// The same of the first one, who does not change its mind.
    accused: i16,
    pub task: B256,
    pub audit: Proof,
    pub parties: Vec<Party>,
}

impl World {
    fn events(&self, receipt: &TransactionReceipt) -> Vec<ProtocolEvent> {
        let logs = receipt.logs().iter();
        let decoded = logs.filter_map(|log| {
            ProtocolEvent::decode(&self.deployment, log.address(), log.data()).unwrap()
        });
        decoded.collect()
    }

    /// Calibrates the model, and three owners measure the same.
    pub async fn prove(&mut self) {
        let (models, deployer) = (self.deployment.models, self.deployer.clone());
        let word = CALIBRATION.pack().unwrap();
        let call = ModelRegistry::calibrateCall {
            modelId: MODEL,
            minerClass: CLASS,
            validatorClass: CLASS,
            word,
        };
        self.send(&deployer, models, &call).await;
        for node in 1..=3 {
            let call = ModelRegistry::attestCall {
                modelId: MODEL,
                minerClass: CLASS,
                validatorClass: CLASS,
                word,
                nodeId: node,
            };
            let operator = self.node_key(node);
            self.send(&operator, models, &call).await;
        }
        // Only answers that are committed later are audited with it.
        self.advance(1).await;
    }

    /// The answer of a miner whose contrasts are so much off.
    fn proven(&self, task: B256, node: u32, off: i16) -> SessionQueue::Answer {
        let mut answer = self.answer(task, node, false);
        let scope = QueueScope { chain_id: 31337, queue: self.deployment.queue };
        let scope = scope.commit_scope(TaskId(task), NodeId(node));
        let root = record(answer.outputTokens, off).tree().unwrap().root();
        answer.proofSeal = ProofSeal { root, salt: SALT }.hash(&scope);
        answer.signature = self.word(task, node, commitment_of(&scope, &answer)).signature;
        answer
    }

    /// A task that was answered and drawn for an audit: without a record every answer is.
    pub async fn audited(&mut self, session: u64, off: i16) -> Followed {
        let keeper = self.keeper.clone();
        let task = self.submit(session, 1).await;
        let stored = self.task(task);
        let answers = vec![self.proven(task, stored.parts[0].nodeId, off)];
        let call = SessionQueue::commitCall { task: stored, answers };
        let receipt = self.send(&keeper, self.deployment.queue, &call).await;
        let committed_at = self.events(&receipt).iter().find_map(|event| match event {
            ProtocolEvent::AnswerExposed(event) => Some(event.committedAt),
            _ => None,
        });
        self.advance(6).await;
        let epoch = committed_at.unwrap() / U40::from(5);
        let receipt = self.send(&keeper, self.deployment.proof, &closeEpochCall { epoch }).await;
        let ProtocolEvent::EpochClosed(closed) = self.events(&receipt).remove(0) else { panic!() };
        self.reveal(closed.round).await;
        let call = SessionQueue::settleCall { tasks: vec![self.task(task)] };
        let receipt = self.send(&keeper, self.deployment.queue, &call).await;
        let (audit, parties) = (Proof::default(), Vec::new());
        let mut followed = Followed { off, said: 0, accused: 0, task, audit, parties };
        self.follow(&mut followed, &receipt);
        followed
    }

    fn follow(&self, followed: &mut Followed, receipt: &TransactionReceipt) {
        for event in self.events(receipt) {
            match event {
                ProtocolEvent::AuditMoved(event) => followed.audit = event.audit,
                ProtocolEvent::PanelMoved(event) => followed.parties = event.parties,
                _ => {}
            }
        }
    }

    fn seal(&self, audit: &Proof, validator: u32, found: &Finding) -> B256 {
        let scope = QueueScope { chain_id: 31337, queue: self.deployment.queue };
        let seal = AuditSeal {
            miner: NodeId(audit.nodeId),
            root: found.tree().unwrap().root(),
            statistics: found.statistics().pack().unwrap(),
            salt: SALT,
        };
        seal.hash(&scope.commit_scope(TaskId(audit.taskId), NodeId(validator)))
    }

    async fn positions(&mut self, audit: &Proof, window: (u32, u32), wanted: u32) -> Vec<u32> {
        self.reveal(audit.round).await;
        let beacon = assay_bindings::RandomBeacon::new(self.deployment.beacon, &self.provider);
        let value = beacon.valueOf(audit.round).call().await.unwrap();
        let seed = position_seed(value, TaskId(audit.taskId), NodeId(audit.nodeId));
        draw_positions(seed, window.0, window.1, wanted)
    }

    /// The validator commits, the miner opens, the validator reveals.
    pub async fn revealed(&mut self, it: &mut Followed) {
        it.accused = it.said;
        let (keeper, proof) = (self.keeper.clone(), self.deployment.proof);
        let answer = self.proven(it.task, it.audit.nodeId, it.off);
        let tokens = answer.outputTokens;
        let (record, found) = (record(tokens, it.off), finding(tokens, it.said));
        let sealed_ = self.seal(&it.audit, it.audit.validator, &found);
        let call = commitAuditCall { brought: it.audit.clone(), sealed_ };
        let operator = self.node_key(it.audit.validator);
        let receipt = self.send(&operator, proof, &call).await;
        self.follow(it, &receipt);
        let call = openProofCall {
            brought: it.audit.clone(),
            answer: Answer { signature: Bytes::new(), ..answer.into() },
            root: record.tree().unwrap().root(),
            salt: SALT,
            proofDigest: keccak256(record.encode()),
        };
        let receipt = self.send(&keeper, proof, &call).await;
        self.follow(it, &receipt);
        let failing = compare(record.contrasts(), &found.contrasts()).unwrap();
        let failing = failing.failing(&CALIBRATION);
        let positions = self.positions(&it.audit, (1, tokens), SPOT_POSITIONS).await;
        let (miner_leaves, miner_nodes) = of_miner(&record, &positions);
        let (leaves, nodes) = of_validator(&found, &positions);
        let findings = Findings {
            root: found.tree().unwrap().root(),
            statistics: found.statistics().pack().unwrap(),
            salt: SALT,
            failingBlocks: failing.blocks,
            worstBlock: failing.worst,
            named: U256::ZERO,
            alsoNamed: U256::ZERO,
            minerLeaves: miner_leaves,
            minerNodes: miner_nodes,
            leaves,
            nodes,
        };
        let operator = self.node_key(it.audit.validator);
        let call = revealCall { brought: it.audit.clone(), findings };
        let receipt = self.send(&operator, proof, &call).await;
        self.follow(it, &receipt);
    }

    /// A panel is drawn, commits, opens and judges.
    pub async fn judged(&mut self, it: &mut Followed) {
        let (keeper, proof) = (self.keeper.clone(), self.deployment.proof);
        self.reveal(it.audit.round).await;
        let receipt = self.send(&keeper, proof, &conveneCall(it.audit.clone())).await;
        self.follow(it, &receipt);
        self.heard(it).await;
    }

    /// Those who are to judge commit, all open, and the first judgement is made.
    async fn heard(&mut self, it: &mut Followed) {
        let (keeper, proof) = (self.keeper.clone(), self.deployment.proof);
        let tokens = it.audit.outputTokens;
        let found = finding(tokens, it.said);
        for party in it.parties.clone().iter().skip(2) {
            let node = party.nodeId;
            let call = commitPanelCall {
                _0: it.audit.clone(),
                _1: it.parties.clone(),
                _2: node,
                _3: self.seal(&it.audit, node, &found),
            };
            let operator = self.node_key(node);
            let receipt = self.send(&operator, proof, &call).await;
            self.follow(it, &receipt);
        }
        let window = block_window(tokens, it.audit.named.to()).unwrap();
        let positions = self.positions(&it.audit, window, MAX_OPENED as u32).await;
        for (at, party) in it.parties.clone().iter().enumerate() {
            let (leaves, nodes) = match at {
                0 => of_miner(&record(tokens, it.off), &positions),
                1 => of_validator(&finding(tokens, it.accused), &positions),
                _ => of_validator(&found, &positions),
            };
            let testimony = Testimony {
                root: found.tree().unwrap().root(),
                statistics: found.statistics().pack().unwrap(),
                salt: SALT,
                leaves,
                nodes,
            };
            let (audit, parties) = (it.audit.clone(), it.parties.clone());
            let call = testifyCall { _0: audit, _1: parties, _2: party.nodeId, _3: testimony };
            let receipt = self.send(&keeper, proof, &call).await;
            self.follow(it, &receipt);
        }
        let call = judgeCall { _0: it.audit.clone(), _1: it.parties.clone() };
        let receipt = self.send(&keeper, proof, &call).await;
        self.follow(it, &receipt);
    }

    /// The time to appeal passes, and what was judged is executed.
    pub async fn executed(&mut self, it: &mut Followed) {
        self.advance(6).await;
        let (keeper, proof) = (self.keeper.clone(), self.deployment.proof);
        let call = judgeCall { _0: it.audit.clone(), _1: it.parties.clone() };
        let receipt = self.send(&keeper, proof, &call).await;
        self.follow(it, &receipt);
    }

    /// The miner's owner appeals.
    async fn contested(&mut self, it: &mut Followed) {
        let owner = self.node_key(it.audit.nodeId);
        let call = appealCall { _0: it.audit.clone(), _1: it.parties.clone() };
        let receipt = self.send(&owner, self.deployment.proof, &call).await;
        self.follow(it, &receipt);
    }

    /// The miner's owner appeals, and seven others judge.
    async fn appealed(&mut self, it: &mut Followed) {
        let (keeper, proof) = (self.keeper.clone(), self.deployment.proof);
        self.contested(it).await;
        self.reveal(it.audit.round).await;
        let call = reconveneCall { _0: it.audit.clone(), _1: it.parties.clone() };
        let receipt = self.send(&keeper, proof, &call).await;
        self.follow(it, &receipt);
        assert_eq!(it.parties.len(), 9, "nobody is left to judge");
        self.heard(it).await;
    }

    /// The validator cannot read the answer.
    async fn demanded(&mut self, it: &mut Followed) {
        let call = demandDataCall { _0: it.audit.clone(), _1: Vec::new(), _2: it.audit.validator };
        let operator = self.node_key(it.audit.validator);
        let receipt = self.send(&operator, self.deployment.proof, &call).await;
        self.follow(it, &receipt);
    }

    /// The miner publishes its answer in two pieces.
    async fn published(&mut self, it: &mut Followed) {
        let operator = self.node_key(it.audit.nodeId);
        for (offset, data) in [(0, vec![1_u8; 10]), (10, vec![2; 5])] {
            let chunk = Chunk { requestBytes: 6, totalBytes: 15, offset, data: data.into() };
            let call = publishDataCall { _0: it.audit.clone(), _1: chunk };
            let receipt = self.send(&operator, self.deployment.proof, &call).await;
            self.follow(it, &receipt);
        }
    }

    pub async fn collect(&mut self, it: &Followed) {
        let keeper = self.keeper.clone();
        self.settle(&[it.task]).await;
        self.send(&keeper, self.deployment.proof, &collectCall(it.audit.clone())).await;
    }
}

pub async fn explained(world: &World, subject: Subject) -> (Report, String) {
    let (source, deployment) = (world.source(), world.deployment.clone());
    let mut explainer = Explainer::new(subject);
    let options = Options { deployment, from: 1, to: world.head().await };
    let report = Audit::run(&source, options, &mut explainer).await.unwrap();
    let lines: Vec<String> = explainer.lines().map(|line| line.text.clone()).collect();
    (report, lines.join("\n"))
}

/// An honest answer that is audited and paid, and one of other weights that costs its miner the stake: nothing diverges,
/// and both are told in words.
#[tokio::test(flavor = "multi_thread")]
async fn audits_and_verdicts_are_predicted_and_explained() {
    let mut world = World::start(&Faults::new()).await;
    world.prove().await;
    let session = world.session().await;
    let mut honest = world.audited(session, 0).await;
    world.revealed(&mut honest).await;
    world.collect(&honest).await;
    let mut forged = world.audited(session, OFF).await;
    world.revealed(&mut forged).await;
    world.judged(&mut forged).await;
    world.executed(&mut forged).await;
    world.settle(&[forged.task]).await;
    let (report, told) = explained(&world, Subject::Task(forged.task)).await;
    assert!(report.is_clean(), "{:?}", report.divergences);
    assert!(report.checked.draws >= 3 && report.checked.penalties >= 2);
    for words in [
        "is audited with",
        "gave it the number",
        "as validator",
        "opened its proof",
        "It is false (fingerprint, spot)",
        "The panel are the nodes",
        "and that costs its stake unless its owner appeals",
        "whether it came from other weights",
        "and that costs the stake",
        "of its stake of 200 COR",
        "its fee goes back to the client",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let (report, told) = explained(&world, Subject::Task(honest.task)).await;
    assert!(report.is_clean());
    for words in ["It is true.", "is true.", "put aside for audits of the model", "were paid"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let (_, told) = explained(&world, Subject::Node(honest.audit.validator)).await;
    assert!(told.contains("as validator") && told.contains("about the answer of node"), "{told}");
    let (_, told) = explained(&world, Subject::Node(forged.audit.nodeId)).await;
    assert!(told.contains("from other weights: 4 say so, and 3 are enough"), "{told}");
}

/// Who is silent loses, too, and that is predicted.
#[tokio::test(flavor = "multi_thread")]
async fn silence_is_predicted_and_explained() {
    let mut world = World::start(&Faults::new()).await;
    world.prove().await;
    let session = world.session().await;
    let it = world.audited(session, 0).await;
    world.advance(30).await;
    let keeper = world.keeper.clone();
    let call = assay_bindings::ProofOfInference::advanceAuditCall(it.audit.clone());
    world.send(&keeper, world.deployment.proof, &call).await;
    let (report, told) = explained(&world, Subject::Node(it.audit.validator)).await;
    assert!(report.is_clean(), "{:?}", report.divergences);
    assert!(told.contains("drawn as validator and was silent"), "{told}");
}

/// Proven, with enough owners for an appeal.
async fn with_jurors(faults: &Faults) -> (World, u64) {
    let mut world = World::start(faults).await;
    world.swear_in().await;
    world.prove().await;
    let session = world.session().await;
    (world, session)
}

/// An appeal of one that lied, which seven others lose for it.
async fn lost(world: &mut World, session: u64) -> Followed {
    let mut it = world.audited(session, OFF).await;
    world.revealed(&mut it).await;
    world.judged(&mut it).await;
    world.appealed(&mut it).await;
    it
}

/// An appeal of an honest one, against four that accused it falsely.
async fn won(world: &mut World, session: u64) -> Followed {
    let mut it = world.audited(session, 0).await;
    it.said = OFF;
    world.revealed(&mut it).await;
    world.judged(&mut it).await;
    it.said = 0;
    world.appealed(&mut it).await;
    it
}

#[tokio::test(flavor = "multi_thread")]
async fn an_appeal_that_is_lost_is_predicted_and_explained() {
    let (mut world, session) = with_jurors(&Faults::new()).await;
    let it = lost(&mut world, session).await;
    world.settle(&[it.task]).await;
    let (report, told) = explained(&world, Subject::Task(it.task)).await;
    assert!(report.is_clean(), "{:?}", report.divergences);
    for words in [
        "appeals against what nodes",
        "The bond is 20 COR, 10 % of what the node would lose",
        "draws seven others",
        "The appeal goes to the nodes",
        "The appeal is lost: the nodes",
        "get equal parts, and the client the rest",
        "It loses 200 COR",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_appeal_that_is_won_is_predicted_and_explained() {
    let (mut world, session) = with_jurors(&Faults::new()).await;
    let it = won(&mut world, session).await;
    world.settle(&[it.task]).await;
    let (report, told) = explained(&world, Subject::Task(it.task)).await;
    assert!(report.is_clean(), "{:?}", report.divergences);
    // The accuser and the three that found with it.
    assert_eq!(report.checked.penalties, 4);
    for words in [
        "It was not found false. The appeal has saved the stake",
        "its bond of 20 COR goes back",
        "a quorum contradicts what it said of the answer: 7 say so, and 3 are enough",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

/// Proven, with an answer whose validator demands to see it.
async fn with_demand() -> (World, Followed) {
    let mut world = World::start(&Faults::new()).await;
    world.prove().await;
    let session = world.session().await;
    let mut it = world.audited(session, 0).await;
    world.demanded(&mut it).await;
    (world, it)
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_are_published_are_predicted_and_explained() {
    let (mut world, mut it) = with_demand().await;
    world.published(&mut it).await;
    world.revealed(&mut it).await;
    world.settle(&[it.task]).await;
    let (report, told) = explained(&world, Subject::Task(it.task)).await;
    assert!(report.is_clean(), "{:?}", report.divergences);
    for words in [
        "and demanded both: it is not paid for this audit",
        "to publish request and answer",
        "published the bytes 10 to 15 of 15, of which the request has the first 6",
        "All that was demanded is published",
        "It is true.",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_are_withheld_are_predicted_and_explained() {
    let (mut world, it) = with_demand().await;
    world.advance(6).await;
    let (keeper, call) = (world.keeper.clone(), advanceAuditCall(it.audit.clone()));
    world.send(&keeper, world.deployment.proof, &call).await;
    let (report, told) = explained(&world, Subject::Node(it.audit.nodeId)).await;
    assert!(report.is_clean(), "{:?}", report.divergences);
    assert!(told.contains("or published what was demanded"), "{told}");
}

// -------------------------------------------------------------------- planted faults

/// A proven network in which one of the proof's contracts is compiled with some text changed.
async fn with_fault(contract: &'static str, change: Change) -> (World, u64) {
    let compiled =
        tokio::task::spawn_blocking(move || compile_changed(contract, &[change])).await.unwrap();
    let code = hex::decode(compiled.unwrap().bytecode).unwrap();
    let mut world = World::start(&Faults::from([(contract, code.into())])).await;
    world.prove().await;
    let session = world.session().await;
    (world, session)
}

/// The first divergence beside the one that tells of the other code.
pub async fn found(world: &World, contract: &str) -> Divergence {
    let report = world.audit().await;
    let (code, mut others): (Vec<_>, Vec<_>) =
        report.divergences.into_iter().partition(|found| found.rule == Rule::Code);
    assert!(code.iter().any(|found| found.contract.as_ref().unwrap().0 == contract));
    assert!(!others.is_empty(), "the fault was not found");
    others.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_probability_that_is_too_low_is_found() {
    let change = Change {
        file: "ProofOfInference.sol",
        from: "if (byRecord > probability) probability = byRecord;",
        to: "if (byRecord > BPS) probability = byRecord;",
    };
    let (mut world, session) = with_fault("ProofOfInference", change).await;
    let task = world.submit(session, 1).await;
    let (stored, keeper) = (world.task(task), world.keeper.clone());
    let node = stored.parts[0].nodeId;
    let answers = vec![world.proven(task, node, 0)];
    let call = SessionQueue::commitCall { task: stored, answers };
    world.send(&keeper, world.deployment.queue, &call).await;
    let found = found(&world, "ProofOfInference").await;
    assert_eq!(found.what, "AnswerExposed with other values");
    assert_eq!((found.rule, found.task, found.node), (Rule::Rules, Some(task), Some(node)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_draw_of_a_validator_is_found() {
    let change = Change {
        file: "libraries/Jury.sol",
        from: "uint32(uint256(hash) % audit.slots)",
        to: "uint32((uint256(hash) % audit.slots + 3) % audit.slots)",
    };
    let (mut world, session) = with_fault("ProofOfInference", change).await;
    let it = world.audited(session, 0).await;
    let found = found(&world, "ProofOfInference").await;
    assert_eq!(found.what, "AuditMoved with other values");
    let about = (found.rule, found.task, found.node);
    assert_eq!(about, (Rule::Rules, Some(it.task), Some(it.audit.nodeId)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_that_ignores_the_opened_numbers_is_found() {
    let change = Change {
        file: "ProofOfInference.sol",
        from: "if (findings.minerLeaves.length == 0) return reasons | Verdicts.SPOT;",
        to: "if (findings.minerLeaves.length != 0) return 0;",
    };
    let (mut world, session) = with_fault("ProofOfInference", change).await;
    let mut it = world.audited(session, OFF).await;
    world.revealed(&mut it).await;
    let found = found(&world, "ProofOfInference").await;
    assert_eq!(found.what, "Verdict with other values");
    let about = (found.rule, found.task, found.node);
    assert_eq!(about, (Rule::Rules, Some(it.task), Some(it.audit.nodeId)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_that_slashes_nobody_is_found() {
    let change = Change {
        file: "ProofOfInferenceBase.sol",
        from: "if (amount != 0) INodePool(_pool).jail(nodeId);",
        to: "if (amount != 0) return INodePool(_pool).jail(nodeId);",
    };
    let (mut world, session) = with_fault("ProofOfInferenceJudgement", change).await;
    let mut it = world.audited(session, OFF).await;
    world.revealed(&mut it).await;
    world.judged(&mut it).await;
    world.executed(&mut it).await;
    let found = found(&world, "ProofOfInferenceJudgement").await;
    assert_eq!(found.what, "Slashed is missing");
    let about = (found.rule, found.task, found.node);
    assert_eq!(about, (Rule::Rules, Some(it.task), Some(it.audit.nodeId)));
    // All of the stake of two places.
    assert_eq!(found.amount.as_deref(), Some("-200000000000000000000"), "{found}");
}

/// A network with enough owners in which the code that judges is compiled with some text changed.
async fn with_faulty_judges(change: Change) -> (World, u64) {
    let compile = move || compile_changed("ProofOfInferenceJudgement", &[change]);
    let compiled = tokio::task::spawn_blocking(compile).await.unwrap();
    let code = hex::decode(compiled.unwrap().bytecode).unwrap();
    with_jurors(&Faults::from([("ProofOfInferenceJudgement", code.into())])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bond_that_is_given_back_twice_is_found() {
    let change = Change {
        file: "ProofOfInferenceJudgement.sol",
        from: "if (appealed.members != 0) _settleBond(audit, appealed, slashed);",
        to: "if (appealed.members != 0) _settleBond(audit, appealed, slashed);\n        \
             if (appealed.members != 0) _settleBond(audit, appealed, slashed);",
    };
    let (mut world, session) = with_faulty_judges(change).await;
    // Another's bond is there to be taken.
    let mut other = world.audited(session, OFF).await;
    world.revealed(&mut other).await;
    world.judged(&mut other).await;
    world.contested(&mut other).await;
    let it = won(&mut world, session).await;
    let found = found(&world, "ProofOfInferenceJudgement").await;
    assert_eq!((found.rule, found.task), (Rule::Rules, Some(it.task)), "{found}");
    assert_eq!(found.block, Some(world.head().await));
    // Where the first accuser had to be punished, the bond is given once more.
    assert!(found.expected.contains("NodeStateChanged"), "{found}");
    let twice = found.found.contains("Credited") && found.found.contains("20000000000000000000");
    assert!(twice, "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_appeal_that_slashes_nobody_is_found() {
    let change = Change {
        file: "ProofOfInferenceJudgement.sol",
        from: "if (slashed) _slashLiar(audit, audit.nodeId, evidence, sentence.provers);",
        to: "",
    };
    let (mut world, session) = with_faulty_judges(change).await;
    let it = lost(&mut world, session).await;
    let found = found(&world, "ProofOfInferenceJudgement").await;
    let about = (found.rule, found.task, found.node);
    assert_eq!(about, (Rule::Rules, Some(it.task), Some(it.audit.nodeId)), "{found}");
    assert!(found.expected.contains("NodeStateChanged"), "{found}");
}
