//! Seeds and commitments, as PROTOCOL.md defines them.
//!
//! Hashes of tuples are keccak-256 of `abi.encode` in the written order; domains are keccak-256 of
//! versioned strings; ids inside a hash are tight big-endian bytes.

use alloy::{
    primitives::{Address, B256, U256, keccak256},
    sol_types::SolValue,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Lane, NodeId, Nonce, NumericClass, SessionId, TaskId};

/// Domain of the sampling seed.
pub const DOMAIN_G: &str = "assay.seed.sampling.v1";
/// Domain of the fingerprint seed.
pub const DOMAIN_F: &str = "assay.seed.fingerprint.v1";
/// Domain of H1, the seal of the tokens.
pub const DOMAIN_TOKENS: &str = "assay.commit.tokens.v1";
/// Domain of H2, the seal of the proof.
pub const DOMAIN_PROOF: &str = "assay.commit.proof.v1";
/// Domain of H', what a validator commits to.
pub const DOMAIN_AUDIT: &str = "assay.commit.audit.v1";
/// Domain of the seed of positions that a beacon's round draws.
pub const DOMAIN_POSITIONS: &str = "assay.audit.positions.v1";
/// Domain of the rolling hash of a stream.
pub const DOMAIN_STREAM: &str = "assay.stream.v1";

fn domain_hash(domain: &str) -> B256 {
    keccak256(domain.as_bytes())
}

/// sha-256, the hash inside every CID that the protocol stores.
pub fn sha256(bytes: &[u8]) -> B256 {
    B256::from(<[u8; 32]>::from(Sha256::digest(bytes)))
}

/// Id of the request `nonce` in `lane` of a session. Needs no transaction.
pub fn task_id(queue: Address, session: SessionId, lane: Lane, nonce: Nonce) -> TaskId {
    TaskId(keccak256((queue, session.0, lane.0, nonce.0).abi_encode()))
}

/// keccak-256 of the prompt's token ids, four big-endian bytes each.
pub fn prompt_hash(ids: &[u32]) -> B256 {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_be_bytes()).collect();
    keccak256(bytes)
}

/// What the sampling seed of one task on one node is made of.
#[derive(Clone, Copy, Debug)]
pub struct SeedInput {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Address of `SessionQueue`.
    pub queue: Address,
    /// The task.
    pub task: TaskId,
    /// [`prompt_hash`] of the rendered prompt.
    pub prompt_hash: B256,
    /// The node that generates.
    pub node: NodeId,
    /// The session's beacon value.
    pub beacon: B256,
}

/// `seedG`: the noise that the miner samples with and cannot choose.
pub fn seed_g(input: &SeedInput) -> B256 {
    keccak256(
        (
            domain_hash(DOMAIN_G),
            U256::from(input.chain_id),
            input.queue,
            input.task.0,
            input.prompt_hash,
            input.node.0,
            input.beacon,
        )
            .abi_encode(),
    )
}

/// `seedF`: which contrasts the fingerprint records.
pub fn seed_f(seed_g: B256) -> B256 {
    keccak256((domain_hash(DOMAIN_F), seed_g).abi_encode())
}

/// Why a generation ended. The number is what stands in H1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum EndReason {
    /// The last id is an end token of the model.
    Eos = 1,
    /// A stop sequence of the request was completed.
    Stop = 2,
    /// `maxOutput` tokens were made.
    Max = 3,
    /// Whoever holds the task's lane cancelled, by signature.
    Cancelled = 4,
}

impl EndReason {
    /// What stands in H1. The contracts know no cancellation: whoever cancels after so many tokens asks for no more of
    /// them, so that the answer has as many as were asked for. The result block tells the truth, with the signature.
    pub fn sealed(self) -> Self {
        match self {
            Self::Cancelled => Self::Max,
            other => other,
        }
    }
}

impl TryFrom<u8> for EndReason {
    type Error = u8;

    fn try_from(code: u8) -> Result<Self, u8> {
        match code {
            1 => Ok(Self::Eos),
            2 => Ok(Self::Stop),
            3 => Ok(Self::Max),
            4 => Ok(Self::Cancelled),
            other => Err(other),
        }
    }
}

/// What H1 seals: the tokens and where they came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenSeal {
    /// sha-256 of the result block.
    pub output_digest: B256,
    /// [`prompt_hash`] of the rendered prompt.
    pub prompt_hash: B256,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated, the end token included.
    pub output_tokens: u32,
    /// Numeric class that made them.
    pub class: NumericClass,
    /// Why the generation ended.
    pub end_reason: EndReason,
    /// Random; keeps the seal blind until it is opened.
    pub salt: B256,
}

/// What H2 seals: the Merkle root over the proof's leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofSeal {
    /// Root over the leaves.
    pub root: B256,
    /// Random.
    pub salt: B256,
}

/// Where a commitment counts: a copy of it elsewhere is worthless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitScope {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Address of `SessionQueue`.
    pub queue: Address,
    /// The task.
    pub task: TaskId,
    /// The node that commits.
    pub node: NodeId,
}

impl TokenSeal {
    /// H1.
    pub fn hash(&self, scope: &CommitScope) -> B256 {
        keccak256(
            (
                domain_hash(DOMAIN_TOKENS),
                U256::from(scope.chain_id),
                scope.queue,
                scope.task.0,
                scope.node.0,
                self.output_digest,
                self.prompt_hash,
                self.prompt_tokens,
                self.output_tokens,
                self.class.0,
                // A u8 is a padded word like any other integer.
                u32::from(self.end_reason as u8),
                self.salt,
            )
                .abi_encode(),
        )
    }
}

impl ProofSeal {
    /// H2.
    pub fn hash(&self, scope: &CommitScope) -> B256 {
        keccak256(
            (
                domain_hash(DOMAIN_PROOF),
                U256::from(scope.chain_id),
                scope.queue,
                scope.task.0,
                scope.node.0,
                self.root,
                self.salt,
            )
                .abi_encode(),
        )
    }
}

/// What H' seals: what a validator found, before it can know what the miner recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditSeal {
    /// The node whose answer was audited.
    pub miner: NodeId,
    /// Root over the validator's leaves.
    pub root: B256,
    /// Its statistics, as one word.
    pub statistics: U256,
    /// Random.
    pub salt: B256,
}

impl AuditSeal {
    /// H' = (DOMAIN_AUDIT, chainId, queue, taskId, validatorId, minerId, root', statistics, salt'); the
    /// scope's node is the validator.
    pub fn hash(&self, scope: &CommitScope) -> B256 {
        keccak256(
            (
                domain_hash(DOMAIN_AUDIT),
                U256::from(scope.chain_id),
                scope.queue,
                scope.task.0,
                scope.node.0,
                self.miner.0,
                self.root,
                self.statistics,
                self.salt,
            )
                .abi_encode(),
        )
    }
}

/// The seed of the positions that a round's value draws in the answer of `miner`.
pub fn position_seed(round: B256, task: TaskId, miner: NodeId) -> B256 {
    keccak256((domain_hash(DOMAIN_POSITIONS), round, task.0, miner.0).abi_encode())
}

/// The precommitment `keccak256(abi.encode(H1, H2))`.
pub fn commitment(h1: B256, h2: B256) -> B256 {
    keccak256((h1, h2).abi_encode())
}

/// Rolling hash over the ids of a stream: `s0 = keccak256(abi.encode(DOMAIN_STREAM, taskId))`,
/// `s(i) = keccak256(s(i-1) ‖ id as four big-endian bytes)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHash(B256);

impl StreamHash {
    /// The hash of an empty stream of `task`.
    pub fn new(task: TaskId) -> Self {
        Self(keccak256((domain_hash(DOMAIN_STREAM), task.0).abi_encode()))
    }

    /// Takes in the next id.
    pub fn push(&mut self, id: u32) {
        let mut bytes = [0_u8; 36];
        bytes[..32].copy_from_slice(self.0.as_slice());
        bytes[32..].copy_from_slice(&id.to_be_bytes());
        self.0 = keccak256(bytes);
    }

    /// The hash so far.
    pub fn value(&self) -> B256 {
        self.0
    }

    /// The hash of a whole stream.
    pub fn of(task: TaskId, ids: &[u32]) -> B256 {
        let mut hash = Self::new(task);
        ids.iter().for_each(|id| hash.push(*id));
        hash.value()
    }
}
