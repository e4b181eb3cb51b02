//! What participants sign (EIP-712): the request of a task and its cancellation, a node's commitment, a node's refusal.

use std::{borrow::Cow, cell::Cell};

use alloy::{
    primitives::{Address, B256, Signature, U256, keccak256},
    sol_types::{Eip712Domain, SolStruct},
};

use crate::{CommitScope, Lane, Nonce, SessionId, TaskId, signature::recover, task_id};

alloy::sol! {
    /// A request for one task. Whoever holds the lane signs it or sends it.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct TaskRequest {
        uint64 sessionId;
        uint32 lane;
        uint64 nonce;
        uint64 seedRound;
        bytes32 requestDigest;
        uint32 maxPrompt;
        uint32 maxOutput;
        uint96 feeCap;
        uint64 deadline;
        uint32 nodeId;
        uint8 redundancy;
        uint8 attempts;
        uint8 dispatch;
        uint32 callbackGas;
    }

    /// A node's word for one commitment on one task; its operator signs it.
    #[derive(Debug, PartialEq, Eq)]
    struct Precommit {
        bytes32 taskId;
        uint32 nodeId;
        bytes32 commitment;
    }

    /// A node hands its part of a task back; its operator signs it.
    #[derive(Debug, PartialEq, Eq)]
    struct Decline {
        bytes32 taskId;
        uint32 nodeId;
    }

    /// The holder of a task's lane wants no more than so many tokens of its answer, and pays for them.
    #[derive(Debug, PartialEq, Eq)]
    struct Cancellation {
        bytes32 taskId;
        uint32 tokens;
    }
}

/// How a task finds its node: what `TaskRequest.dispatch` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Dispatch {
    /// Nodes are assigned at submission.
    #[default]
    Push = 0,
    /// Nodes claim from the head of the session's queue.
    Pull = 1,
}

/// EIP-712 domain of everything that is signed: name, version, chain and the `SessionQueue` that reads them.
pub fn domain(chain_id: u64, queue: Address) -> Eip712Domain {
    Eip712Domain {
        name: Some(Cow::Borrowed("Assay")),
        version: Some(Cow::Borrowed("1")),
        chain_id: Some(U256::from(chain_id)),
        verifying_contract: Some(queue),
        salt: None,
    }
}

/// The hash of a domain. An agent signs and checks for one: each thread remembers the last, which takes most of the time
/// of hashing a message.
fn separator(chain_id: u64, queue: Address) -> B256 {
    thread_local! {
        static LAST: Cell<Option<(u64, Address, B256)>> = const { Cell::new(None) };
    }
    LAST.with(|last| match last.get() {
        Some((chain, contract, hash)) if (chain, contract) == (chain_id, queue) => hash,
        _ => {
            let hash = domain(chain_id, queue).separator();
            last.set(Some((chain_id, queue, hash)));
            hash
        }
    })
}

/// Why a signature does not speak for anybody.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// Not a signature over this message.
    #[error("the signature is nobody's over this message")]
    Malformed,
    /// A second signature can be made from one with a high `s`; contracts refuse it.
    #[error("the signature's s is in the upper half of the curve order: sign again with a low s")]
    Malleable,
}

/// A message that has one meaning on one chain and for one `SessionQueue`.
pub trait Signed: SolStruct {
    /// The hash to sign.
    fn signing_hash(&self, chain_id: u64, queue: Address) -> B256 {
        let domain = separator(chain_id, queue);
        keccak256([&[0x19, 0x01], domain.as_slice(), self.eip712_hash_struct().as_slice()].concat())
    }

    /// Who signed.
    fn signer(
        &self,
        chain_id: u64,
        queue: Address,
        signature: &Signature,
    ) -> Result<Address, SignatureError> {
        if signature.normalize_s().is_some() {
            return Err(SignatureError::Malleable);
        }
        recover(&self.signing_hash(chain_id, queue), signature).ok_or(SignatureError::Malformed)
    }
}

impl Signed for TaskRequest {}
impl Signed for Precommit {}
impl Signed for Decline {}
impl Signed for Cancellation {}

impl TaskRequest {
    /// Id of the task that this request asks for.
    pub fn task_id(&self, queue: Address) -> TaskId {
        task_id(queue, SessionId(self.sessionId), Lane(self.lane), Nonce(self.nonce))
    }
}

impl Cancellation {
    /// A task's end after its first `tokens` tokens.
    pub fn new(task: TaskId, tokens: u32) -> Self {
        Self { taskId: task.0, tokens }
    }
}

impl Precommit {
    /// What the node of `scope` signs for `commitment`.
    pub fn new(scope: &CommitScope, commitment: B256) -> Self {
        Self { taskId: scope.task.0, nodeId: scope.node.0, commitment }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::{
        primitives::aliases::U96,
        signers::{SignerSync, local::PrivateKeySigner},
    };

    fn request() -> TaskRequest {
        TaskRequest {
            sessionId: 1,
            lane: 1,
            nonce: 7,
            requestDigest: B256::repeat_byte(3),
            maxPrompt: 100,
            maxOutput: 64,
            seedRound: 11,
            feeCap: U96::from(10_000),
            deadline: 1_800_000_000,
            nodeId: 2,
            redundancy: 1,
            attempts: 1,
            dispatch: Dispatch::Push as u8,
            callbackGas: 0,
        }
    }

    #[test]
    fn every_domain_has_its_own_hashes() {
        let scopes = [(1, 7), (2, 7), (2, 8), (1, 7)].map(|(id, b)| (id, Address::repeat_byte(b)));
        for (chain_id, queue) in scopes {
            let theirs = request().eip712_signing_hash(&domain(chain_id, queue));
            assert_eq!(request().signing_hash(chain_id, queue), theirs);
        }
    }

    #[test]
    fn signer_is_recovered_and_bound_to_chain_and_queue() {
        let key = PrivateKeySigner::random();
        let queue = Address::repeat_byte(9);
        let signature = key.sign_hash_sync(&request().signing_hash(31337, queue)).unwrap();
        assert_eq!(request().signer(31337, queue, &signature).unwrap(), key.address());
        assert_ne!(request().signer(1, queue, &signature).unwrap(), key.address());
        let other = Address::repeat_byte(8);
        assert_ne!(request().signer(31337, other, &signature).unwrap(), key.address());
    }
}
