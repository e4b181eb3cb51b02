//! One task, as its events tell it: what whoever moves it must bring.

use alloy::{
    primitives::{Address, B256, U256, keccak256},
    sol_types::SolValue,
};
use assay_bindings::SessionQueue::{
    Answer, Part, PartChanged, Task, TaskCommitted, TaskMoved, TaskPrecommitted, TaskSubmitted,
};
use assay_types::{CommitScope, Lane, NodeId, Nonce, SessionId, TaskId, commitment, task_id};

/// Where a task stands: `TaskState` of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TaskState {
    /// Unknown.
    None = 0,
    /// Any node of its reservation may claim it.
    Queued = 1,
    /// Answers, or precommitments, are due.
    Assigned = 2,
    /// Commitments are to be opened.
    Precommitted = 3,
    /// Answered; settles.
    Committed = 4,
    /// Paid.
    Settled = 5,
    /// Ended without an answer.
    Refunded = 6,
}

impl TryFrom<u8> for TaskState {
    type Error = u8;

    fn try_from(code: u8) -> Result<Self, u8> {
        Ok(match code {
            0 => Self::None,
            1 => Self::Queued,
            2 => Self::Assigned,
            3 => Self::Precommitted,
            4 => Self::Committed,
            5 => Self::Settled,
            6 => Self::Refunded,
            other => return Err(other),
        })
    }
}

/// Where one answer of a task stands: `PartState` of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PartState {
    /// Its answer, or its precommitment, is due.
    Waiting = 0,
    /// Precommitted.
    Precommitted = 1,
    /// Answered.
    Committed = 2,
    /// Silent or never opened.
    Failed = 3,
}

/// Why a node is no longer, or not yet, on a task: `PartEvent` of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PartEvent {
    /// Took the task from the queue.
    Claimed = 0,
    /// Follows one that was silent or declined.
    TookOver = 1,
    /// Handed the task back.
    Declined = 2,
    /// Did not answer, or precommit, in time.
    Silent = 3,
    /// Did not open its precommitment in time.
    Unrevealed = 4,
    /// Its answer did not come from the model, or nobody could tell: it is not paid.
    Disproved = 5,
}

impl TryFrom<u8> for PartEvent {
    type Error = u8;

    fn try_from(code: u8) -> Result<Self, u8> {
        Ok(match code {
            0 => Self::Claimed,
            1 => Self::TookOver,
            2 => Self::Declined,
            3 => Self::Silent,
            4 => Self::Unrevealed,
            5 => Self::Disproved,
            other => return Err(other),
        })
    }
}

/// A task with its state, folded from its events.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskRecord {
    /// What the queue has the hash of.
    pub task: Task,
    /// Where it stands.
    pub state: TaskState,
    /// Unix seconds; when the state's time is over.
    pub until_s: u64,
}

/// The chain and the queue that a task is of: its commitments are bound to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueScope {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Address of `SessionQueue`.
    pub queue: Address,
}

impl QueueScope {
    /// Of one task on one node.
    pub fn commit_scope(&self, task: TaskId, node: NodeId) -> CommitScope {
        CommitScope { chain_id: self.chain_id, queue: self.queue, task, node }
    }

    /// Id of a task of this queue.
    pub fn task_id(&self, task: &Task) -> TaskId {
        task_id(self.queue, SessionId(task.sessionId), Lane(task.lane), Nonce(task.nonce))
    }
}

/// What the queue stores of a task beside its state and time: `keccak256(abi.encode(task))` with its last 48 bits
/// cleared.
pub fn digest(task: &Task) -> B256 {
    const CLEARED_BITS: usize = 48;
    let hash = U256::from_be_bytes(keccak256(task.abi_encode()).0);
    B256::from(hash >> CLEARED_BITS << CLEARED_BITS)
}

fn until(value: impl TryInto<u64>) -> u64 {
    // A uint40 always fits.
    value.try_into().unwrap_or(u64::MAX)
}

/// The event does not fit what was folded before it: events are missing, or they are another contract's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of task {task} names node {node}, which is on no part of it: events are missing")]
pub struct UnknownPart {
    /// The task.
    pub task: TaskId,
    /// The node.
    pub node: NodeId,
}

impl TaskRecord {
    /// A task that was just submitted.
    pub fn submitted(event: &TaskSubmitted) -> Self {
        let task = event.task.clone();
        let state = if task.parts.is_empty() { TaskState::Queued } else { TaskState::Assigned };
        Self { task, state, until_s: until(event.until) }
    }

    /// Parts of `node`: a node is on a task at most once.
    pub fn part(&self, node: NodeId) -> Option<&Part> {
        self.task.parts.iter().find(|part| part.nodeId == node.0)
    }

    fn part_mut(&mut self, scope: &QueueScope, node: u32) -> Result<&mut Part, UnknownPart> {
        let task = scope.task_id(&self.task);
        let found = self.task.parts.iter_mut().find(|part| part.nodeId == node);
        found.ok_or(UnknownPart { task, node: NodeId(node) })
    }

    /// Takes in a precommitment.
    ///
    /// # Errors
    /// If the node has no part of the task.
    pub fn precommitted(
        &mut self,
        scope: &QueueScope,
        event: &TaskPrecommitted,
    ) -> Result<(), UnknownPart> {
        let part = self.part_mut(scope, event.nodeId)?;
        part.state = PartState::Precommitted as u8;
        part.commitment = event.commitment;
        Ok(())
    }

    /// Takes in an answer.
    ///
    /// # Errors
    /// If the node has no part of the task.
    pub fn committed(
        &mut self,
        scope: &QueueScope,
        event: &TaskCommitted,
    ) -> Result<(), UnknownPart> {
        let commit_scope = scope.commit_scope(TaskId(event.taskId), NodeId(event.nodeId));
        let commitment = commitment_of(&commit_scope, &opened(event));
        let part = self.part_mut(scope, event.nodeId)?;
        part.state = PartState::Committed as u8;
        part.fee = event.fee;
        part.commitment = commitment;
        if !event.settleAt.is_zero() {
            self.state = TaskState::Committed;
            self.until_s = until(event.settleAt);
        }
        Ok(())
    }

    /// Takes in that an answer is not paid, because it was not proven.
    ///
    /// # Errors
    /// If the node has no part of the task.
    pub fn disproved(
        &mut self,
        scope: &QueueScope,
        event: &PartChanged,
    ) -> Result<(), UnknownPart> {
        self.part_mut(scope, event.nodeId)?.state = PartState::Failed as u8;
        Ok(())
    }

    /// Takes in the task as it stands after a move.
    pub fn moved(&mut self, event: &TaskMoved) {
        self.task = event.task.clone();
        self.state = TaskState::try_from(event.state).unwrap_or(TaskState::None);
        self.until_s = until(event.until);
    }
}

/// The answer that an event opened; its signature is not told.
pub fn opened(event: &TaskCommitted) -> Answer {
    Answer {
        nodeId: event.nodeId,
        outputDigest: event.outputDigest,
        promptHash: event.promptHash,
        promptTokens: event.promptTokens,
        outputTokens: event.outputTokens,
        numericClass: event.numericClass,
        endReason: event.endReason,
        salt: event.salt,
        proofSeal: event.proofSeal,
        signature: alloy::primitives::Bytes::new(),
    }
}

/// `keccak256(abi.encode(H1, H2))` of an answer.
pub fn commitment_of(scope: &CommitScope, answer: &Answer) -> B256 {
    commitment(answer.seal().hash(scope), answer.proofSeal)
}
