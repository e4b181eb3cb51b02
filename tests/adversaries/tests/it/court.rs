//! A network of some owners with a proven session, and audits that are played to their end.

use std::collections::{BTreeMap, BTreeSet};

use alloy::{
    primitives::{
        Address, B256, U256,
        aliases::{U80, U96},
    },
    sol_types::{SolCall, SolValue},
};
use assay_bindings::{
    COR, CorToken, ModelRegistry, NodePool, ProofOfInference,
    ProofOfInference::{Audit, Party},
    Session, SessionPayment, SessionQueue,
};
use assay_protocol::{ProtocolEvent, QueueScope, TaskRecord, TaskState, state::AuditState};
use assay_types::{NodeId, NumericClass, Sampling, TaskId, keccak256};

use crate::{
    answers::{MAX_PROMPT, OnDemand, Submission, Task},
    calibration::CALIBRATION,
    engine::class,
    evidence::{self, Sealed},
    network::{Network, account, keeper},
    outcome::{Outcome, Purses},
    validators::{Conduct, Duty, Role},
};

pub const MODEL_ID: B256 = B256::repeat_byte(0x11);
/// Minor units for a million tokens: a whole answer costs about one COR, a hundredth of its node's stake.
const PRICE_IN: u128 = 1_000_000_000_000_000_000_001;
const PRICE_OUT: u128 = 10_000_000_000_000_000_000_001;
const LANE: u32 = 0;
/// A lane takes no nonce that is further ahead; trials go back, so that each may use any.
const NONCES: u32 = 256;
/// Owners whose measurements make a pair of classes slashable.
const ATTESTATIONS: usize = 3;

pub fn client() -> Address {
    account("client")
}

pub fn publisher() -> Address {
    account("publisher")
}

/// One node, and the accounts behind it.
#[derive(Clone, Debug)]
pub struct Node {
    pub id: u32,
    pub owner: Address,
    pub operator: Address,
    pub payout: Address,
    pub class: NumericClass,
}

impl Node {
    fn new(id: u32, owner: &str, class: NumericClass) -> Self {
        let name = |what: &str| account(&format!("{what} of node {id}"));
        let (operator, payout) = (name("operator"), name("payout"));
        Self { id, owner: account(owner), operator, payout, class }
    }
}

/// What a network begins with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Owners of one node each.
    pub owners: usize,
    /// Owners that have measured the pair of classes.
    pub attested: usize,
}

impl Default for Options {
    /// Enough for a validator and a panel of others, twice.
    fn default() -> Self {
        Self { owners: 9, attested: ATTESTATIONS }
    }
}

pub struct Court {
    pub net: Network,
    pub nodes: BTreeMap<u32, Node>,
    pub session: u64,
    /// The session's node: whoever is tried.
    pub miner: u32,
    beginning: u64,
    began_s: u64,
}

impl Court {
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    pub fn with(options: Options) -> Self {
        let net = Network::deploy();
        let (nodes, session) = (BTreeMap::new(), 0);
        let mut court = Self { net, nodes, session, miner: 0, beginning: 0, began_s: 0 };
        court.endow(client());
        court.register_model();
        for number in 1..=options.owners {
            court.register(&format!("owner {number}"), class());
        }
        let ids: Vec<u32> = court.nodes.keys().copied().collect();
        for id in ids.into_iter().take(options.attested) {
            court.attest(id);
        }
        court.net.wait(200);
        court.session = court.open_session_with(&[]);
        court.miner = court.serving()[0];
        court.remember();
        court
    }

    /// Every trial goes back to what is now.
    pub fn remember(&mut self) {
        self.net.log.clear();
        self.beginning = self.net.chain.snapshot().unwrap();
        self.began_s = self.net.now_s;
    }

    pub fn go_back(&mut self) {
        self.net.chain.revert(self.beginning).unwrap();
        self.net.now_s = self.began_s;
        self.remember();
    }

    // ---------------------------------------------------------------- what there is

    fn endow(&mut self, who: Address) {
        let (token, spender) = (self.net.at.token, self.net.at.payment);
        let value = U256::from(1_000_000 * COR);
        let (deployer, call) = (self.net.deployer, CorToken::transferCall { to: who, value });
        self.net.send(deployer, token, &call);
        self.net.send(who, token, &CorToken::approveCall { spender, value: U256::MAX });
    }

    fn register_model(&mut self) {
        let floor = ModelRegistry::Floor {
            asset: 0,
            priceIn: U80::from(PRICE_IN),
            priceOut: U80::from(PRICE_OUT),
        };
        let registration = ModelRegistry::ModelRegistration {
            modelId: MODEL_ID,
            manifestDigest: B256::repeat_byte(0x12),
            predecessor: B256::ZERO,
            royaltyBps: 200,
            floors: vec![floor],
        };
        let models = self.net.at.models;
        self.net.send(publisher(), models, &ModelRegistry::registerCall { registration });
        let word = CALIBRATION.pack().unwrap();
        let call = ModelRegistry::calibrateCall {
            modelId: MODEL_ID,
            minerClass: class().0,
            validatorClass: class().0,
            word,
        };
        self.net.send(publisher(), models, &call);
    }

    /// A node with one place.
    pub fn register(&mut self, owner: &str, class: NumericClass) -> u32 {
        self.register_to(Address::ZERO, owner, class)
    }

    /// The same, for this client alone.
    pub fn register_for_client(&mut self, owner: &str, class: NumericClass) -> u32 {
        self.register_to(client(), owner, class)
    }

    fn register_to(&mut self, dedicated_to: Address, owner: &str, class: NumericClass) -> u32 {
        let node = Node::new(self.nodes.len() as u32 + 1, owner, class);
        self.endow(node.owner);
        let registration = NodePool::NodeRegistration {
            operator: node.operator,
            payout: node.payout,
            dedicatedTo: dedicated_to,
            numericClass: class.0,
            offers: vec![NodePool::Offer { modelId: MODEL_ID, capacity: 1 }],
        };
        let call = NodePool::registerCall { registration };
        self.net.send(node.owner, self.net.at.nodes, &call);
        let id = node.id;
        self.nodes.insert(id, node);
        id
    }

    fn attest(&mut self, id: u32) {
        let word = CALIBRATION.pack().unwrap();
        let call = ModelRegistry::attestCall {
            modelId: MODEL_ID,
            minerClass: class().0,
            validatorClass: class().0,
            word,
            nodeId: id,
        };
        self.net.send(self.nodes[&id].operator, self.net.at.models, &call);
    }

    /// A session of the client with these nodes, or one drawn node if there are none; its seed is known.
    pub fn open_session_with(&mut self, dedicated: &[u32]) -> u64 {
        let drawn = u8::from(dedicated.is_empty());
        let terms = Session::OpenTerms {
            modelId: MODEL_ID,
            asset: 0,
            minNodes: drawn,
            maxNodes: drawn,
            dedicated: dedicated.to_vec(),
            maxPriceIn: U80::MAX,
            maxPriceOut: U80::MAX,
            deposit: U96::from(1000 * COR),
            lanes: Vec::new(),
        };
        let sessions = self.net.at.sessions;
        self.net.send(client(), sessions, &Session::openCall { terms });
        let session = self.net.view(sessions, &Session::sessionCountCall {});
        let info = self.info(session);
        assert!(info.isProven, "the session is not proven");
        if drawn == 1 {
            self.net.reveal(info.drawRound);
            self.net.send(keeper(), sessions, &Session::activateCall { sessionId: session });
        }
        let round = self.info(session).current.seedRound;
        self.net.reveal(round);
        session
    }

    fn info(&self, session: u64) -> Session::SessionInfo {
        self.net.view(self.net.at.sessions, &Session::sessionOfCall { sessionId: session })
    }

    fn serving(&self) -> Vec<u32> {
        self.info(self.session).current.nodes
    }

    pub fn scope(&self) -> QueueScope {
        QueueScope { chain_id: self.net.at.chain_id, queue: self.net.at.queue }
    }

    /// Everybody's money.
    pub fn purses(&self) -> Purses {
        let payment = self.net.at.payment;
        let balance = |account| {
            let call = SessionPayment::balanceOfCall { account, asset: 0 };
            self.net.view(payment, &call).to::<u128>()
        };
        let stake = |node| self.net.view(payment, &SessionPayment::stakeOfCall(node)).to::<u128>();
        let sessions = self.net.view(self.net.at.sessions, &Session::sessionCountCall {});
        let funds = |session| {
            let lane = self
                .net
                .view(payment, &SessionPayment::fundsOfCall { sessionId: session, lane: LANE });
            lane.free.to::<u128>() + lane.held.to::<u128>()
        };
        let token = self.net.at.token;
        let wallet =
            |account| self.net.view(token, &CorToken::balanceOfCall { account }).to::<u128>();
        let owners: BTreeSet<Address> = self.nodes.values().map(|node| node.owner).collect();
        Purses {
            owners: owners.iter().map(|owner| (*owner, balance(*owner) + wallet(*owner))).collect(),
            wallets: owners.iter().map(|owner| wallet(*owner)).sum(),
            client: balance(client()) + (1..=sessions).map(funds).sum::<u128>(),
            keeper: balance(keeper()),
            publisher: balance(publisher()),
            book: balance(self.net.at.proof),
            stakes: self.nodes.keys().map(|id| (*id, stake(*id))).collect(),
            payouts: self.nodes.values().map(|node| (node.id, balance(node.payout))).collect(),
            vault: wallet(payment),
            supply: self.net.view(token, &CorToken::totalSupplyCall {}).to(),
        }
    }

    /// Hundredths of a percent; above 10,000 the answer would be refused.
    pub fn probability(&self, node: u32, fee: u128) -> u64 {
        let call = ProofOfInference::probabilityOfCall {
            nodeId: node,
            model: self.info(self.session).model,
            asset: 0,
            fee: U96::from(fee),
        };
        self.net.view(self.net.at.proof, &call).to()
    }

    // ---------------------------------------------------------------- tasks

    /// A task that the client asks of the session's node.
    pub fn ask(&mut self, number: u32) -> Task {
        self.ask_with(Task::request(number, Sampling::default()), number)
    }

    pub fn ask_with(&mut self, request: assay_types::RequestBlock, number: u32) -> Task {
        let wanted = SessionQueue::TaskRequest {
            sessionId: self.session,
            lane: LANE,
            nonce: u64::from(number % NONCES),
            seedRound: 0,
            requestDigest: request.encode().unwrap().1,
            maxPrompt: MAX_PROMPT,
            maxOutput: request.max_output,
            feeCap: U96::MAX,
            deadline: self.net.now_s + 50,
            nodeId: self.miner,
            redundancy: 1,
            attempts: 1,
            dispatch: 0,
            callbackGas: 0,
        };
        let id = assay_types::TaskRequest::from(wanted.clone()).task_id(self.net.at.queue);
        let queue = self.net.at.queue;
        self.net.send(client(), queue, &SessionQueue::submitCall { request: wanted });
        let round = self.info(self.session).current.seedRound;
        let beacon = self.net.reveal(round);
        Task { number, scope: self.scope().commit_scope(id, NodeId(self.miner)), request, beacon }
    }

    /// The answer as the contract takes it, from the operator itself.
    pub fn answer(&self, task: &Task, submission: &Submission) -> SessionQueue::Answer {
        let seal = submission.seal(task);
        SessionQueue::Answer::new(task.scope.node, &seal, submission.proof_seal(task))
    }

    pub fn commit(&mut self, task: &Task, submission: &Submission) -> Result<(), String> {
        let answers = vec![self.answer(task, submission)];
        let call = SessionQueue::commitCall { task: self.record(task.scope.task).task, answers };
        self.net.try_send(self.nodes[&task.scope.node.0].operator, self.net.at.queue, &call)
    }

    /// The task as its events tell it.
    pub fn record(&self, id: TaskId) -> TaskRecord {
        let mut found = None;
        for event in &self.net.log {
            match (event, &mut found) {
                (ProtocolEvent::TaskSubmitted(event), _) if event.taskId == id.0 => {
                    found = Some(TaskRecord::submitted(event));
                }
                (ProtocolEvent::TaskCommitted(event), Some(record)) if event.taskId == id.0 => {
                    record.committed(&self.scope(), event).unwrap();
                }
                (ProtocolEvent::TaskSettled(event), Some(record)) if event.taskId == id.0 => {
                    record.state = TaskState::Settled;
                }
                (ProtocolEvent::TaskRefunded(event), Some(record)) if event.taskId == id.0 => {
                    record.state = TaskState::Refunded;
                }
                _ => {}
            }
        }
        found.expect("the task was submitted")
    }

    /// Until the answer is through: draws it if it is to be drawn.
    pub fn draw(&mut self, task: &Task) {
        let length_s =
            self.net.view(self.net.at.proof, &ProofOfInference::configCall {}).epochLength;
        let committed_s = self.net.log.iter().find_map(|event| match event {
            ProtocolEvent::AnswerExposed(event) if event.taskId == task.scope.task.0 => {
                Some(event.committedAt.to::<u64>())
            }
            _ => None,
        });
        let epoch = committed_s.expect("the answer was committed") / length_s.to::<u64>();
        self.net.pass((epoch + 1) * length_s.to::<u64>());
        let call = ProofOfInference::closeEpochCall { epoch: epoch.try_into().unwrap() };
        self.net.send(keeper(), self.net.at.proof, &call);
        let round = self.net.log.iter().rev().find_map(|event| match event {
            ProtocolEvent::EpochClosed(event) => Some(event.round),
            _ => None,
        });
        self.net.reveal(round.unwrap());
        self.settle(task.scope.task);
    }

    pub fn settle(&mut self, id: TaskId) {
        let tasks = vec![self.record(id).task];
        self.net.send(keeper(), self.net.at.queue, &SessionQueue::settleCall { tasks });
    }

    /// A whole trial of one answer.
    pub fn play(&mut self, task: &Task, submission: &Submission, conduct: &Conduct) -> Outcome {
        self.commit(task, submission).expect("the answer is taken");
        self.try_answer(task, submission, conduct)
    }

    /// What becomes of an answer that was committed.
    pub fn try_answer(
        &mut self,
        task: &Task,
        submission: &Submission,
        conduct: &Conduct,
    ) -> Outcome {
        let before = self.purses();
        self.draw(task);
        let mut trial = Trial { task, submission, conduct, sealed: BTreeMap::new(), court: self };
        trial.run();
        let refusals = trial.court.end(task);
        let after = self.purses();
        let mut outcome = Outcome::of(&self.net.log, task, before, after);
        outcome.state_of_task = self.record(task.scope.task).state;
        outcome.collected = refusals.is_none();
        outcome.check_conservation();
        outcome
    }

    /// Settlement, and the validators' pay, if there is any: why it is not paid.
    fn end(&mut self, task: &Task) -> Option<String> {
        if self.record(task.scope.task).state == TaskState::Committed {
            self.settle(task.scope.task);
        }
        let (_, _, audit) = self.stage(task)?;
        if self.net.view(self.net.at.proof, &status(task)).state != AuditState::Closed as u8 {
            return None;
        }
        let call = ProofOfInference::collectCall(audit);
        self.net.try_send(keeper(), self.net.at.proof, &call).err()
    }

    /// State, time limit and the whole of the audit, as last told.
    pub fn stage(&self, task: &Task) -> Option<(AuditState, u64, Audit)> {
        self.net.log.iter().rev().find_map(|event| match event {
            ProtocolEvent::AuditMoved(event) if event.taskId == task.scope.task.0 => {
                let state = AuditState::try_from(event.state).unwrap();
                Some((state, event.until.to(), event.audit.clone()))
            }
            _ => None,
        })
    }

    fn parties(&self, task: &Task) -> Vec<Party> {
        let told = self.net.log.iter().rev().find_map(|event| match event {
            ProtocolEvent::PanelMoved(event) if event.taskId == task.scope.task.0 => {
                Some(event.parties.clone())
            }
            _ => None,
        });
        told.unwrap_or_default()
    }
}

/// Pieces in which data are published.
const PIECES: usize = 3;
/// Members of a first panel.
const PANEL: usize = 3;

fn status(task: &Task) -> ProofOfInference::statusOfCall {
    ProofOfInference::statusOfCall { taskId: task.scope.task.0, nodeId: task.scope.node.0 }
}

fn demand(task: &Task) -> ProofOfInference::demandOfCall {
    ProofOfInference::demandOfCall { taskId: task.scope.task.0, nodeId: task.scope.node.0 }
}

/// One audit, with everybody's conduct in it.
struct Trial<'a> {
    court: &'a mut Court,
    task: &'a Task,
    submission: &'a Submission,
    conduct: &'a Conduct,
    /// What validators committed to.
    sealed: BTreeMap<u32, Sealed>,
}

impl Trial<'_> {
    fn run(&mut self) {
        while let Some((state, until_s, audit)) = self.court.stage(self.task) {
            match state {
                AuditState::Drawn => self.seal(audit, until_s),
                AuditState::Sealed => self.open(audit, until_s),
                AuditState::Opened => self.reveal(audit, until_s),
                AuditState::Accused => {
                    self.court.net.reveal(audit.round);
                    self.send(keeper(), &ProofOfInference::conveneCall(audit));
                }
                AuditState::Convened => self.seal_panel(audit, until_s),
                AuditState::Hearing => self.hear(audit, until_s),
                AuditState::Demanded => self.publish(audit, until_s),
                AuditState::Condemned => self.appeal(audit, until_s),
                AuditState::Appealed => {
                    self.court.net.reveal(audit.round);
                    let parties = self.court.parties(self.task);
                    self.send(
                        keeper(),
                        &ProofOfInference::reconveneCall { _0: audit, _1: parties },
                    );
                }
                _ => return,
            }
        }
    }

    /// The miner publishes what was demanded, as far as it does.
    fn publish(&mut self, audit: Audit, until_s: u64) {
        let (request, result) = self.submission.published(self.task);
        let all = [request.clone(), result].concat();
        let pieces: Vec<&[u8]> = all.chunks(all.len().div_ceil(PIECES)).collect();
        let told = match self.submission.on_demand {
            OnDemand::Nothing => 0,
            OnDemand::InPart => PIECES - 1,
            OnDemand::Everything | OnDemand::SomethingElse => PIECES,
        };
        let mut offset = 0;
        for piece in pieces.into_iter().take(told) {
            let chunk = ProofOfInference::Chunk {
                requestBytes: request.len() as u32,
                totalBytes: all.len() as u32,
                offset,
                data: piece.to_vec().into(),
            };
            offset += piece.len() as u32;
            let call = ProofOfInference::publishDataCall { _0: audit.clone(), _1: chunk };
            // In whatever order anybody else would like it.
            assert!(self.try_send(keeper(), &call).unwrap_err().contains("NotOperator"));
            self.send(self.operator(self.task.scope.node.0), &call);
        }
        if told < PIECES {
            self.court.net.pass(until_s);
            self.send(keeper(), &ProofOfInference::advanceAuditCall(audit));
        }
    }

    /// The miner's owner contests the judgement, or it is executed.
    fn appeal(&mut self, audit: Audit, until_s: u64) {
        let parties = self.court.parties(self.task);
        let owner = self.court.nodes[&self.task.scope.node.0].owner;
        let judge = ProofOfInference::judgeCall { _0: audit.clone(), _1: parties.clone() };
        assert!(self.try_send(keeper(), &judge).unwrap_err().contains("TooEarly"));
        if self.submission.appeals {
            let call = ProofOfInference::appealCall { _0: audit, _1: parties };
            assert!(self.try_send(keeper(), &call).unwrap_err().contains("NotOwner"));
            return self.send(owner, &call);
        }
        self.court.net.pass(until_s);
        self.send(keeper(), &judge);
    }

    /// Has the miner publish request and answer, if that is this one's conduct; whether it did.
    fn demands(&mut self, node: u32, duty: Duty, audit: &Audit) -> bool {
        let told = self.court.net.view(self.court.net.at.proof, &demand(self.task));
        let reads = self.submission.publishes_answer || !duty.reads();
        if told.resumes != 0 || (reads && !duty.demands()) {
            return false;
        }
        let parties = self.court.parties(self.task);
        let call = ProofOfInference::demandDataCall { _0: audit.clone(), _1: parties, _2: node };
        self.send(self.operator(node), &call);
        true
    }

    fn send<C: SolCall>(&mut self, from: Address, call: &C) {
        let proof = self.court.net.at.proof;
        self.court.net.send(from, proof, call);
    }

    fn try_send<C: SolCall>(&mut self, from: Address, call: &C) -> Result<(), String> {
        let proof = self.court.net.at.proof;
        self.court.net.try_send(from, proof, call)
    }

    fn operator(&self, node: u32) -> Address {
        self.court.nodes[&node].operator
    }

    fn role(&self, place: usize, members: usize) -> Role {
        if members == PANEL { Role::Member(place) } else { Role::OfAppeal(place) }
    }

    /// What a validator commits to; nothing if it is silent.
    fn findings_of(&mut self, node: u32, role: Role, audit: &Audit) -> Option<B256> {
        let duty = self.conduct.duty(node, role);
        let peers = self.court.parties(self.task);
        let sealed = Sealed::by(duty, node, self.task, self.submission, (audit, &peers))?;
        let word = sealed.word;
        self.sealed.insert(node, sealed);
        Some(word)
    }

    fn seal(&mut self, audit: Audit, until_s: u64) {
        let node = audit.validator;
        let tried = (0..8).filter(|place| audit.drawn >> (32 * place) != U256::ZERO).count();
        if self.demands(node, self.conduct.duty(node, Role::Validator(tried - 1)), &audit) {
            return;
        }
        match self.findings_of(node, Role::Validator(tried - 1), &audit) {
            Some(sealed_) => {
                let call = ProofOfInference::commitAuditCall { brought: audit, sealed_ };
                self.send(self.operator(node), &call);
            }
            None => {
                self.court.net.pass(until_s);
                self.send(keeper(), &ProofOfInference::advanceAuditCall(audit));
            }
        }
    }

    fn open(&mut self, audit: Audit, until_s: u64) {
        if self.submission.opens {
            let answer = self.court.answer(self.task, self.submission);
            let proof = self.submission.proof();
            let call = ProofOfInference::openProofCall {
                brought: audit.clone(),
                answer: SolValue::abi_decode(&answer.abi_encode()).unwrap(),
                root: proof.root,
                salt: proof.salt,
                proofDigest: keccak256(self.submission.record().encode()),
            };
            let opened = self.try_send(self.operator(self.task.scope.node.0), &call);
            // Only what was sealed opens.
            assert_eq!(opened.is_ok(), self.submission.other_seal.is_none(), "{opened:?}");
            if let Err(reason) = &opened {
                assert!(reason.contains("WrongOpening"), "{reason}");
            } else {
                return;
            }
        }
        self.court.net.pass(until_s);
        self.send(keeper(), &ProofOfInference::advanceAuditCall(audit));
    }

    fn reveal(&mut self, audit: Audit, until_s: u64) {
        let value = self.court.net.reveal(audit.round);
        let sealed = &self.sealed[&audit.validator];
        if sealed.duty != Duty::Hides {
            let findings = sealed.findings(self.task, self.submission, value);
            let call = ProofOfInference::revealCall { brought: audit.clone(), findings };
            let demanded = self.court.net.view(self.court.net.at.proof, &demand(self.task));
            if sealed.is_unread() && demanded.resumes == 0 {
                let refused = self.try_send(self.operator(audit.validator), &call).unwrap_err();
                assert!(refused.contains("ProofOfInference_NotDemanded"), "{refused}");
                self.court.net.pass(until_s);
                return self.send(keeper(), &ProofOfInference::advanceAuditCall(audit));
            }
            // Which blocks fail, and where a panel looks, is nobody else's to say.
            let refused = self.try_send(keeper(), &call).unwrap_err();
            assert!(refused.contains("ProofOfInference_NotOperator"), "{refused}");
            let revealed = self.try_send(self.operator(audit.validator), &call);
            let can = self.sealed[&audit.validator].duty.can_open();
            assert_eq!(revealed.is_ok(), can, "{revealed:?}");
            if can {
                return;
            }
        }
        self.court.net.pass(until_s);
        self.send(keeper(), &ProofOfInference::advanceAuditCall(audit));
    }

    fn seal_panel(&mut self, audit: Audit, until_s: u64) {
        let (mut audit, members) = (audit, self.court.parties(self.task).split_off(2));
        for (place, member) in members.iter().enumerate().filter(|(_, member)| !member.isSealed) {
            let node = member.nodeId;
            let role = self.role(place, members.len());
            if self.demands(node, self.conduct.duty(node, role), &audit) {
                return;
            }
            let Some(sealed_) = self.findings_of(node, role, &audit) else {
                continue;
            };
            let parties = self.court.parties(self.task);
            let call =
                ProofOfInference::commitPanelCall { _0: audit, _1: parties, _2: node, _3: sealed_ };
            self.send(self.operator(node), &call);
            audit = self.court.stage(self.task).unwrap().2;
        }
        let (state, _, audit) = self.court.stage(self.task).unwrap();
        if state == AuditState::Convened {
            self.court.net.pass(until_s);
            let parties = self.court.parties(self.task);
            self.send(keeper(), &ProofOfInference::advancePanelCall { _0: audit, _1: parties });
        }
    }

    fn hear(&mut self, audit: Audit, until_s: u64) {
        let value = self.court.net.reveal(audit.round);
        let positions = evidence::compared(&audit, value);
        let parties = self.court.parties(self.task);
        let mut all_opened = true;
        for (place, party) in parties.iter().enumerate().filter(|(_, party)| party.isSealed) {
            let node = party.nodeId;
            let testimony = match place {
                0 | 1 if !evidence::is_of_weights(&audit) => continue,
                0 => Some(evidence::miners(self.submission, &positions)),
                _ => Some(self.sealed[&node].testimony(&positions)),
            };
            let (may, can) = match place {
                0 => (self.submission.testifies, true),
                _ => (self.sealed[&node].duty != Duty::Hides, self.sealed[&node].duty.can_open()),
            };
            let Some(testimony) = testimony.filter(|_| may) else {
                all_opened = false;
                continue;
            };
            let (_, _, audit) = self.court.stage(self.task).unwrap();
            let parties = self.court.parties(self.task);
            let call =
                ProofOfInference::testifyCall { _0: audit, _1: parties, _2: node, _3: testimony };
            let opened = self.try_send(keeper(), &call);
            assert_eq!(opened.is_ok(), can, "{opened:?}");
            all_opened &= can;
        }
        if !all_opened {
            self.court.net.pass(until_s);
        }
        let (_, _, audit) = self.court.stage(self.task).unwrap();
        let parties = self.court.parties(self.task);
        self.send(keeper(), &ProofOfInference::judgeCall { _0: audit, _1: parties });
    }
}
