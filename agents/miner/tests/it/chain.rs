//! A chain with the rules of `SessionQueue` that matter to a miner.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use alloy::{
    primitives::{
        aliases::{U40, U96},
        keccak256,
    },
    signers::local::PrivateKeySigner,
};
use assay_bindings::SessionQueue::{self, Answer, Part, Task, TaskSubmitted};
use assay_chain::{Block, BlockRef, ChainEvent, Event, ProtocolEvent};
use assay_miner::{
    Admission, Bond, Calibration, Call, Funds, Ledger, LedgerError, Odds, SendError, Stake,
    TaskStatus,
};
use assay_protocol::{PartState, QueueScope, TaskRecord, TaskState, commitment_of, digest};
use assay_types::{
    Address, B256, Dispatch, Lane, ModelId, NodeId, NumericClass, SessionId, Signature, Signed,
    TaskId, TaskRequest,
};
use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::world::*;

/// The reservation that requests name, and the round that seeds them.
pub const ROUND: u64 = 11;
/// The round of a claim.
pub const CLAIM_ROUND: u64 = 21;
pub const REVEAL_S: u64 = 60;

const SCOPE: QueueScope = QueueScope { chain_id: CHAIN_ID, queue: QUEUE };

/// What a miner sent to the chain.
#[derive(Clone, Debug)]
pub enum Sent {
    Commit(TaskId, Answer),
    Carry(TaskId, Answer),
    Precommit(TaskId, B256),
    CarryPrecommit(TaskId, B256),
    Claim(TaskId, usize),
    Decline(TaskId),
    Settle(Vec<TaskId>),
}

type Tasks = HashMap<TaskId, TaskRecord>;

#[derive(Default)]
struct ChainState {
    number: u64,
    hash: B256,
    time_s: u64,
    tasks: Tasks,
    /// As they were after each block.
    after: HashMap<u64, Tasks>,
    /// Answers to the next sends, instead of what the contract would say.
    refusals: Vec<SendError>,
    sent: Vec<Sent>,
    keys: Vec<String>,
    sessions: HashMap<u64, Admission>,
    /// Lanes of other routers.
    lanes: HashMap<u32, Address>,
    seeds: HashMap<u64, B256>,
    free: u128,
    /// Tickets given and passed.
    line: (u64, u64),
    /// What happens between a look and a send.
    race: Vec<Race>,
    blocks: Vec<Block>,
    /// Of every audit; `None`: nothing is proven.
    odds: Option<Odds>,
    /// What was asked of odds.
    stakes: Vec<Stake>,
    /// A contract that holds lanes, and the one hash that it has signed.
    contract_signed: Option<(Address, B256, Signature)>,
}

/// A change between a look and a send.
type Race = Box<dyn FnOnce(&mut Tasks) + Send>;

/// A chain with the rules of `SessionQueue` that matter to a miner.
pub struct FakeChain {
    state: Mutex<ChainState>,
    events: Mutex<Option<mpsc::Sender<ChainEvent>>>,
    pub holder: PrivateKeySigner,
}

impl FakeChain {
    pub fn new(model: ModelId) -> Arc<Self> {
        let admission = Admission {
            model_id: model,
            takes_tasks: true,
            holder: None,
            ends_at_s: 0,
            seed_round: ROUND,
            nodes: vec![NodeId(1), NODE, NodeId(5)],
            price_in: 1_000_000,
            price_out: 2_000_000,
            min_fee: 3,
            max_deadline_s: 3600,
            attempt_time_s: 60,
            reveal_time_s: REVEAL_S,
            max_attempts: 3,
        };
        let state = ChainState {
            time_s: NOW_S,
            sessions: HashMap::from([(SESSION, admission)]),
            seeds: HashMap::from([(ROUND, B256::repeat_byte(0x5e))]),
            free: 1 << 60,
            ..ChainState::default()
        };
        Arc::new(Self {
            state: Mutex::new(state),
            events: Mutex::new(None),
            holder: PrivateKeySigner::random(),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, ChainState> {
        self.state.lock().unwrap()
    }

    pub fn set_seed(&self, round: u64, seed: B256) {
        self.state().seeds.insert(round, seed);
    }

    pub fn set_free(&self, free: u128) {
        self.state().free = free;
    }

    /// How likely every answer is audited from now on.
    pub fn set_odds(&self, odds: Odds) {
        self.state().odds = Some(odds);
    }

    /// The last stake that was asked about.
    pub fn last_stake(&self) -> Stake {
        self.state().stakes.last().cloned().unwrap()
    }

    pub fn set_session(&self, id: u64, change: impl FnOnce(&mut Admission)) {
        let mut state = self.state();
        let mut admission = state.sessions[&SESSION].clone();
        change(&mut admission);
        state.sessions.insert(id, admission);
    }

    pub fn set_lane(&self, lane: u32, holder: Address) {
        self.state().lanes.insert(lane, holder);
    }

    /// From now on this contract says that it has signed this.
    pub fn set_contract_signed(&self, holder: Address, hash: B256, signature: Signature) {
        self.state().contract_signed = Some((holder, hash, signature));
    }

    /// The next send is refused.
    pub fn refuse(&self, reverted: bool) {
        let reason = "refused by the test".into();
        self.state().refusals.push(SendError { reason, reverted });
    }

    /// This has happened by the time the next send arrives; its events come with the next block.
    pub fn race(&self, change: impl FnOnce(&mut Tasks) + Send + 'static) {
        self.state().race.push(Box::new(change));
    }

    pub fn sent(&self) -> Vec<Sent> {
        self.state().sent.clone()
    }

    pub fn keys(&self) -> Vec<String> {
        self.state().keys.clone()
    }

    pub fn task(&self, task: TaskId) -> Option<TaskRecord> {
        self.state().tasks.get(&task).cloned()
    }

    /// A block with these events, `seconds` later.
    pub async fn mine(&self, seconds: u64, events: Vec<ProtocolEvent>) -> Block {
        let block = {
            let mut state = self.state();
            let parent = state.hash;
            state.number += 1;
            state.time_s += seconds;
            state.hash = keccak256([parent.as_slice(), &state.time_s.to_be_bytes()].concat());
            let events = (0..)
                .zip(events)
                .map(|(log_index, body)| Event { tx_hash: B256::ZERO, log_index, body })
                .collect();
            let block = Block {
                at: BlockRef { number: state.number, hash: state.hash },
                parent,
                timestamp: state.time_s,
                events,
            };
            state.blocks.push(block.clone());
            let (number, tasks) = (state.number, state.tasks.clone());
            state.after.insert(number, tasks);
            block
        };
        let sender = self.events.lock().unwrap().clone();
        if let Some(sender) = sender {
            let _ = sender.send(ChainEvent::Committed(block.clone())).await;
        }
        block
    }

    /// The newest block.
    pub fn last_block(&self) -> Block {
        self.state().blocks.last().cloned().unwrap()
    }

    pub fn clear_refusals(&self) {
        self.state().refusals.clear();
    }

    /// The newest block is not canonical any more.
    pub async fn revert(&self, block: Block) {
        {
            let mut state = self.state();
            state.blocks.retain(|kept| kept.at != block.at);
            state.number = block.at.number - 1;
            state.hash = block.parent;
            let number = state.number;
            state.tasks = state.after.get(&number).cloned().unwrap_or_default();
        }
        let sender = self.events.lock().unwrap().clone().unwrap();
        sender.send(ChainEvent::Reverted(block)).await.unwrap();
    }

    /// Where the miner of this life reads.
    pub fn connect(&self) -> mpsc::Receiver<ChainEvent> {
        let (sender, events) = mpsc::channel(64);
        *self.events.lock().unwrap() = Some(sender);
        events
    }

    /// Every block again, for a miner whose database does not know them.
    pub async fn replay(&self) {
        let blocks = self.state().blocks.clone();
        let sender = self.events.lock().unwrap().clone().unwrap();
        for block in blocks {
            sender.send(ChainEvent::Committed(block)).await.unwrap();
        }
    }

    /// A router submits the request with the words of all its nodes.
    pub async fn carry(&self, request: &TaskRequest, commitment: B256) {
        let mut events = vec![self.submit(request)];
        let task = request.task_id(QUEUE);
        for part in self.task(task).unwrap().task.parts {
            let word = if part.nodeId == NODE.0 { commitment } else { B256::repeat_byte(7) };
            events.extend(precommitted(&mut self.state(), task, part.nodeId, word));
        }
        self.mine(1, events).await;
    }

    /// A router opens what this node precommitted.
    pub async fn open(&self, task: TaskId, answer: &Answer) {
        let events = answered(&mut self.state(), task, answer).unwrap();
        self.mine(1, events).await;
    }

    /// The event of a submission, for the named node and those behind it.
    pub fn submitted(&self, request: &TaskRequest) -> (TaskId, TaskSubmitted) {
        submission(&mut self.state(), request)
    }

    /// The same, and the task on chain.
    pub fn submit(&self, request: &TaskRequest) -> ProtocolEvent {
        let (task, event) = self.submitted(request);
        self.state().tasks.insert(task, TaskRecord::submitted(&event));
        ProtocolEvent::TaskSubmitted(event)
    }

    /// Where the task stands.
    pub fn state_of(&self, task: TaskId) -> TaskState {
        self.task(task).map_or(TaskState::None, |record| record.state)
    }

    /// Somebody settles a committed task.
    pub async fn settle(&self, task: TaskId) {
        self.state().tasks.get_mut(&task).unwrap().state = TaskState::Settled;
        self.mine(60, vec![settled_event(task)]).await;
    }

    /// The session has this node: its queue is the node's, too.
    pub fn activated(&self) -> ProtocolEvent {
        ProtocolEvent::SessionActivated(assay_bindings::Session::SessionActivated {
            sessionId: SESSION,
            seedRound: ROUND,
            nodes: vec![1, NODE.0, 5],
            dedicated: 0,
            previousUntil: U40::ZERO,
        })
    }

    /// The other nodes of a redundant task precommit.
    pub async fn others_precommit(&self, task: TaskId) {
        let nodes: Vec<u32> = {
            let record = self.task(task).unwrap();
            let due =
                |part: &&Part| part.nodeId != NODE.0 && part.state == PartState::Waiting as u8;
            record.task.parts.iter().filter(due).map(|part| part.nodeId).collect()
        };
        let mut events = Vec::new();
        for node in nodes {
            events.extend(precommitted(&mut self.state(), task, node, B256::repeat_byte(7)));
        }
        self.mine(1, events).await;
    }

    /// The other nodes of a redundant task never open.
    pub async fn others_fail(&self, task: TaskId) {
        let event = {
            let mut state = self.state();
            let time_s = state.time_s;
            let record = state.tasks.get_mut(&task).unwrap();
            for part in &mut record.task.parts {
                if part.nodeId != NODE.0 {
                    part.state = PartState::Failed as u8;
                }
            }
            (record.state, record.until_s) = (TaskState::Committed, time_s + SETTLE_DELAY_S);
            moved(task, record)
        };
        self.mine(1, vec![event]).await;
    }

    /// The task goes to another node, or comes to this one.
    pub async fn pass_on(&self, task: TaskId, to: NodeId) {
        let event = {
            let mut state = self.state();
            let record = state.tasks.get_mut(&task).unwrap();
            record.task.parts[0].nodeId = to.0;
            record.task.parts[0].state = PartState::Waiting as u8;
            moved(task, record)
        };
        self.mine(1, vec![event]).await;
    }

    /// The queued task is given back.
    pub fn cancelled(&self, task: TaskId) -> ProtocolEvent {
        self.state().tasks.get_mut(&task).unwrap().state = TaskState::Refunded;
        ProtocolEvent::TaskRefunded(SessionQueue::TaskRefunded {
            taskId: task.0,
            sessionId: SESSION,
            refund: U96::from(1),
            tip: U96::ZERO,
        })
    }

    /// The task was never submitted, and nobody remembers a transaction of it.
    pub fn forget(&self, task: TaskId) {
        let mut state = self.state();
        state.tasks.remove(&task);
        state.keys.clear();
    }

    /// Another node takes the head of the queue.
    pub async fn take_ticket(&self) {
        self.state().line.1 += 1;
    }

    /// What the contract makes of a call: events, or the name of an error.
    fn apply(
        state: &mut ChainState,
        call: Call,
    ) -> Result<(Sent, Vec<ProtocolEvent>), &'static str> {
        match call {
            Call::Audit(_) => Err("nothing is proven here"),
            Call::SubmitAndCommit(of) => {
                let (request, _, answer) = *of;
                let (task, event) = carried(state, &request)?;
                let mut events = vec![ProtocolEvent::TaskSubmitted(event)];
                events.extend(answered(state, task, &answer)?);
                Ok((Sent::Carry(task, answer), events))
            }
            Call::SubmitAndPrecommit(of) => {
                let (request, _, precommit) = *of;
                let (task, event) = carried(state, &request)?;
                let mut events = vec![ProtocolEvent::TaskSubmitted(event)];
                events.extend(precommitted(state, task, precommit.nodeId, precommit.commitment));
                Ok((Sent::CarryPrecommit(task, precommit.commitment), events))
            }
            Call::Commit(of) => {
                let (task, answer) = *of;
                let task = fresh(state, &task)?;
                let events = answered(state, task, &answer)?;
                Ok((Sent::Commit(task, answer), events))
            }
            Call::Precommit(of) => {
                let (task, precommit) = *of;
                let task = fresh(state, &task)?;
                if state.tasks[&task].state != TaskState::Assigned {
                    return Err("WrongState");
                }
                let events = precommitted(state, task, precommit.nodeId, precommit.commitment);
                Ok((Sent::Precommit(task, precommit.commitment), events))
            }
            Call::Claim(task, node, gone) => {
                let task = fresh(state, &task)?;
                let record = &state.tasks[&task];
                if record.state != TaskState::Queued {
                    return Err("WrongState");
                }
                if record.task.ticket != state.line.1 + gone.len() as u64 + 1 {
                    return Err("NotHead");
                }
                state.line.1 = record.task.ticket;
                let record = state.tasks.get_mut(&task).unwrap();
                record.state = TaskState::Assigned;
                record.task.seedRound = CLAIM_ROUND;
                record.task.parts = vec![part(node.0)];
                let events = vec![changed(task, node, 0), moved(task, record)];
                Ok((Sent::Claim(task, gone.len()), events))
            }
            Call::Decline(task, node) => {
                let task = fresh(state, &task)?;
                let record = state.tasks.get_mut(&task).unwrap();
                if record.state != TaskState::Assigned {
                    return Err("WrongState");
                }
                record.state = TaskState::Refunded;
                Ok((Sent::Decline(task), vec![changed(task, node, 2), moved(task, record)]))
            }
            Call::Settle(tasks) => {
                let (mut ids, mut events) = (Vec::new(), Vec::new());
                for task in tasks {
                    let task = fresh(state, &task)?;
                    ids.push(task);
                    let (record, time_s) = (state.tasks.get_mut(&task).unwrap(), state.time_s);
                    if record.state == TaskState::Committed && time_s >= record.until_s {
                        record.state = TaskState::Settled;
                        events.push(settled_event(task));
                    }
                }
                Ok((Sent::Settle(ids), events))
            }
        }
    }
}

/// A part that is due.
pub fn part(node: u32) -> Part {
    let (fee, commitment) = (U96::ZERO, B256::ZERO);
    Part { nodeId: node, state: 0, dedicated: false, fee, commitment }
}

fn submission(state: &mut ChainState, request: &TaskRequest) -> (TaskId, TaskSubmitted) {
    let pull = request.dispatch == Dispatch::Pull as u8;
    if pull {
        state.line.0 += 1;
    }
    let others = [1, 5, 7].into_iter().filter(|node| *node != request.nodeId);
    let nodes = [request.nodeId].into_iter().chain(others).take(usize::from(request.redundancy));
    let task = Task {
        sessionId: request.sessionId,
        lane: request.lane,
        nonce: request.nonce,
        seedRound: if pull { 0 } else { request.seedRound },
        reservation: request.seedRound,
        maxPrompt: request.maxPrompt,
        maxOutput: request.maxOutput,
        held: U96::from(1000),
        finalBy: U40::from(request.deadline),
        attemptsLeft: 0,
        tried: 0,
        dispatch: request.dispatch,
        ticket: if pull { state.line.0 } else { 0 },
        callbackGas: 0,
        parts: if pull { vec![] } else { nodes.map(part).collect() },
    };
    let id = request.task_id(QUEUE);
    let event = TaskSubmitted {
        taskId: id.0,
        sessionId: request.sessionId,
        nodeId: request.nodeId,
        requestDigest: request.requestDigest,
        deadline: request.deadline,
        until: U40::from(request.deadline),
        task,
    };
    (id, event)
}

fn carried(
    state: &mut ChainState,
    request: &TaskRequest,
) -> Result<(TaskId, TaskSubmitted), &'static str> {
    if state.tasks.contains_key(&request.task_id(QUEUE)) {
        return Err("NonceUsed");
    }
    let (task, event) = submission(state, request);
    state.tasks.insert(task, TaskRecord::submitted(&event));
    Ok((task, event))
}

/// The id of a task that is brought as it is stored.
fn fresh(state: &ChainState, task: &Task) -> Result<TaskId, &'static str> {
    let id = SCOPE.task_id(task);
    match state.tasks.get(&id) {
        None => Err("UnknownTask"),
        Some(stored) if digest(&stored.task) != digest(task) => Err("StaleTask"),
        Some(_) => Ok(id),
    }
}

fn changed(task: TaskId, node: NodeId, what: u8) -> ProtocolEvent {
    let event = SessionQueue::PartChanged { taskId: task.0, nodeId: node.0, part: 0, what };
    ProtocolEvent::PartChanged(event)
}

fn moved(task: TaskId, record: &TaskRecord) -> ProtocolEvent {
    ProtocolEvent::TaskMoved(SessionQueue::TaskMoved {
        taskId: task.0,
        state: record.state as u8,
        until: U40::from(record.until_s),
        task: record.task.clone(),
    })
}

fn precommitted(
    state: &mut ChainState,
    task: TaskId,
    node: u32,
    commitment: B256,
) -> Vec<ProtocolEvent> {
    let time_s = state.time_s;
    let record = state.tasks.get_mut(&task).unwrap();
    let event = SessionQueue::TaskPrecommitted { taskId: task.0, nodeId: node, commitment };
    record.precommitted(&SCOPE, &event).unwrap();
    let mut events = vec![ProtocolEvent::TaskPrecommitted(event)];
    if record.task.parts.iter().all(|part| part.state != PartState::Waiting as u8) {
        (record.state, record.until_s) = (TaskState::Precommitted, time_s + REVEAL_S);
        events.push(moved(task, record));
    }
    events
}

fn answered(
    state: &mut ChainState,
    task: TaskId,
    answer: &Answer,
) -> Result<Vec<ProtocolEvent>, &'static str> {
    let settle_at = state.time_s + 1 + SETTLE_DELAY_S;
    let record = state.tasks.get_mut(&task).unwrap();
    let single = record.task.parts.len() == 1;
    let (wanted, due) = match single {
        true => (TaskState::Assigned, PartState::Waiting),
        false => (TaskState::Precommitted, PartState::Precommitted),
    };
    let part = record.part(NodeId(answer.nodeId)).ok_or("NotOnTask")?;
    if record.state != wanted || part.state != due as u8 {
        return Err("WrongState");
    }
    let scope = SCOPE.commit_scope(task, NodeId(answer.nodeId));
    if !single && part.commitment != commitment_of(&scope, answer) {
        return Err("WrongOpening");
    }
    let open = record.task.parts.iter().filter(|part| part.state == due as u8).count();
    let last = open == 1;
    let event = SessionQueue::TaskCommitted {
        taskId: task.0,
        sessionId: SESSION,
        nodeId: answer.nodeId,
        outputDigest: answer.outputDigest,
        promptHash: answer.promptHash,
        promptTokens: answer.promptTokens,
        outputTokens: answer.outputTokens,
        numericClass: answer.numericClass,
        endReason: answer.endReason,
        salt: answer.salt,
        proofSeal: answer.proofSeal,
        fee: U96::from(100),
        settleAt: U40::from(if last { settle_at } else { 0 }),
    };
    record.committed(&SCOPE, &event).unwrap();
    let mut events = vec![ProtocolEvent::TaskCommitted(event)];
    if last && !single {
        events.push(moved(task, record));
    }
    Ok(events)
}

pub fn settled_event(task: TaskId) -> ProtocolEvent {
    ProtocolEvent::TaskSettled(SessionQueue::TaskSettled {
        taskId: task.0,
        sessionId: SESSION,
        nodeId: NODE.0,
        fee: U96::from(100),
        minerShare: U96::from(80),
        routerShare: U96::from(10),
        royalty: U96::from(5),
        tip: U96::from(1),
        burnt: U96::from(4),
    })
}

#[async_trait]
impl Ledger for FakeChain {
    async fn is_signed(&self, by: Address, of: (B256, &Signature)) -> Result<bool, LedgerError> {
        Ok(self.state().contract_signed == Some((by, of.0, *of.1)))
    }

    fn chain_id(&self) -> u64 {
        CHAIN_ID
    }

    fn queue(&self) -> Address {
        QUEUE
    }

    async fn admission(
        &self,
        session: SessionId,
        lane: Lane,
        seed_round: u64,
    ) -> Result<Option<Admission>, LedgerError> {
        let state = self.state();
        let Some(mut found) = state.sessions.get(&session.0).cloned() else { return Ok(None) };
        let other = state.lanes.get(&lane.0).copied();
        found.holder = other.or_else(|| (lane.0 <= LANE).then(|| self.holder.address()));
        if seed_round != 0 && seed_round != found.seed_round {
            (found.seed_round, found.nodes) = (0, vec![]);
        }
        Ok(Some(found))
    }

    async fn model_of(&self, session: SessionId) -> Result<Option<ModelId>, LedgerError> {
        Ok(self.state().sessions.get(&session.0).map(|found| found.model_id))
    }

    async fn funds(&self, _: SessionId, _: Lane) -> Result<Funds, LedgerError> {
        Ok(Funds { free: self.state().free, nonce_limit: 1000 })
    }

    async fn seed(&self, round: u64) -> Result<B256, LedgerError> {
        Ok(self.state().seeds.get(&round).copied().unwrap_or_default())
    }

    async fn status(&self, task: TaskId) -> Result<TaskStatus, LedgerError> {
        let state = self.state();
        Ok(match state.tasks.get(&task) {
            None => TaskStatus { state: TaskState::None, until_s: 0, digest: B256::ZERO },
            Some(record) => TaskStatus {
                state: record.state,
                until_s: record.until_s,
                digest: digest(&record.task),
            },
        })
    }

    async fn odds(&self, _: SessionId, stake: Stake) -> Result<Odds, LedgerError> {
        assert_eq!(stake.node, NODE);
        let mut state = self.state();
        state.stakes.push(stake);
        Ok(state.odds.unwrap_or(Odds::Unproven))
    }

    async fn limits(
        &self,
        _: u32,
        _: NodeId,
        _: NumericClass,
    ) -> Result<Option<Calibration>, LedgerError> {
        Ok(None)
    }

    async fn bond(&self, _: NodeId) -> Result<Bond, LedgerError> {
        Err(LedgerError { call: "bond", reason: "nobody is audited here".into() })
    }

    async fn queue_head(&self, _: SessionId) -> Result<u64, LedgerError> {
        Ok(self.state().line.1 + 1)
    }

    async fn send(&self, key: String, call: Call) -> Result<(), SendError> {
        if let Call::SubmitAndCommit(of) = &call {
            let (request, signature, _) = &**of;
            let signer = request.signer(CHAIN_ID, QUEUE, signature).unwrap();
            let lane = (SessionId(request.sessionId), Lane(request.lane));
            let holder = self.admission(lane.0, lane.1, 0).await.unwrap().unwrap().holder.unwrap();
            let hash = request.signing_hash(CHAIN_ID, QUEUE);
            let by_contract = self.is_signed(holder, (hash, signature)).await.unwrap();
            assert!(holder == signer || by_contract);
        }
        let events = {
            let mut state = self.state();
            assert!(!state.keys.contains(&key), "{key} was sent twice");
            state.keys.push(key);
            for race in std::mem::take(&mut state.race) {
                race(&mut state.tasks);
            }
            if let Some(error) = state.refusals.pop() {
                return Err(error);
            }
            let applied = Self::apply(&mut state, call);
            let (sent, events) =
                applied.map_err(|reason| SendError { reason: reason.into(), reverted: true })?;
            state.sent.push(sent);
            events
        };
        self.mine(1, events).await;
        Ok(())
    }
}
