//! What the chain tells a router: its events, as far as they matter here.

use assay_types::{
    Address, B256, Lane, ModelId, ModelIndex, NodeId, Nonce, SessionId, TaskId, TaskRequest,
};

use super::proofs::ProofStep;

/// One event of the protocol, as far as a router needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are those of the contracts' events")]
pub enum Fact {
    ModelRegistered {
        index: ModelIndex,
        model: ModelId,
    },
    SessionOpened {
        session: SessionId,
        model: ModelIndex,
        price_in: u128,
        price_out: u128,
    },
    SessionOwned {
        session: SessionId,
        owner: Address,
    },
    LaneAdded {
        session: SessionId,
        lane: Lane,
        holder: Address,
        allotment: u128,
    },
    SessionActivated {
        session: SessionId,
        seed_round: u64,
        nodes: Vec<NodeId>,
        previous_until: u64,
    },
    RoundRevealed {
        round: u64,
        value: B256,
    },
    LaneReclaimed {
        session: SessionId,
        lane: Lane,
        reclaim_at: u64,
    },
    SessionDraining {
        session: SessionId,
        ends_at: u64,
    },
    SessionClosed {
        session: SessionId,
    },
    SessionToppedUp {
        session: SessionId,
        lane: Lane,
        amount: u128,
    },
    TaskSubmitted(Submitted),
    /// A part goes to another node than it was submitted for.
    PartTaken {
        task: TaskId,
        node: NodeId,
        part: u8,
    },
    /// A node is off a task without an answer.
    PartFailed {
        task: TaskId,
        node: NodeId,
        why: PartFailure,
    },
    TaskPrecommitted {
        task: TaskId,
        node: NodeId,
    },
    TaskCommitted {
        task: TaskId,
        node: NodeId,
        output_digest: B256,
        prompt_tokens: u32,
        output_tokens: u32,
        fee: u128,
    },
    /// Comes once for each answer, all of a task in one transaction.
    TaskSettled {
        task: TaskId,
        node: NodeId,
        fee: u128,
    },
    TaskRefunded {
        task: TaskId,
        refund: u128,
        tip: u128,
    },
    /// The proof of an answer goes on.
    Proof {
        task: TaskId,
        node: NodeId,
        step: ProofStep,
    },
}

/// Why a node is off a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartFailure {
    /// It handed the task back: no fault.
    Declined,
    /// It did not answer, or precommit, in time.
    Silent,
    /// It did not open its precommitment in time.
    Unrevealed,
}

/// A task that the chain has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are those of the contract's event")]
pub struct Submitted {
    pub task: TaskId,
    pub session: SessionId,
    pub lane: Lane,
    /// By part.
    pub nodes: Vec<NodeId>,
    pub nonce: Nonce,
    pub request_digest: B256,
    pub max_prompt: u32,
    pub max_output: u32,
    pub held: u128,
    pub deadline: u64,
}

impl Submitted {
    /// What a request says about its task before the chain knows it; `nodes` shall answer.
    pub fn planned(request: &TaskRequest, task: TaskId, nodes: Vec<NodeId>) -> Self {
        Self {
            task,
            session: SessionId(request.sessionId),
            lane: Lane(request.lane),
            nodes,
            nonce: Nonce(request.nonce),
            request_digest: request.requestDigest,
            max_prompt: request.maxPrompt,
            max_output: request.maxOutput,
            held: request.feeCap.to::<u128>().saturating_mul(request.redundancy.into()),
            deadline: request.deadline,
        }
    }
}

/// A canonical block and its facts, each with the hash of its transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// Unix seconds.
    pub timestamp: u64,
    /// In order.
    pub facts: Vec<(B256, Fact)>,
}
