//! From the plain values of `assay-types` to what the contracts take.

use alloy::primitives::{B256, Bytes};
use assay_types::{EndReason, NodeId, NumericClass, TaskRequest, TokenSeal};

use crate::{ProofOfInference, SessionQueue};

impl From<TaskRequest> for SessionQueue::TaskRequest {
    fn from(request: TaskRequest) -> Self {
        Self {
            sessionId: request.sessionId,
            lane: request.lane,
            nonce: request.nonce,
            seedRound: request.seedRound,
            requestDigest: request.requestDigest,
            maxPrompt: request.maxPrompt,
            maxOutput: request.maxOutput,
            feeCap: request.feeCap,
            deadline: request.deadline,
            nodeId: request.nodeId,
            redundancy: request.redundancy,
            attempts: request.attempts,
            dispatch: request.dispatch,
            callbackGas: request.callbackGas,
        }
    }
}

impl From<SessionQueue::TaskRequest> for TaskRequest {
    fn from(request: SessionQueue::TaskRequest) -> Self {
        Self {
            sessionId: request.sessionId,
            lane: request.lane,
            nonce: request.nonce,
            seedRound: request.seedRound,
            requestDigest: request.requestDigest,
            maxPrompt: request.maxPrompt,
            maxOutput: request.maxOutput,
            feeCap: request.feeCap,
            deadline: request.deadline,
            nodeId: request.nodeId,
            redundancy: request.redundancy,
            attempts: request.attempts,
            dispatch: request.dispatch,
            callbackGas: request.callbackGas,
        }
    }
}

impl SessionQueue::Answer {
    /// `node` opens H1 = `seal` and leaves H2 = `proof_seal` sealed. Without a signature: the operator sends it, or
    /// the commitment stands on chain already.
    pub fn new(node: NodeId, seal: &TokenSeal, proof_seal: B256) -> Self {
        Self {
            nodeId: node.0,
            outputDigest: seal.output_digest,
            promptHash: seal.prompt_hash,
            promptTokens: seal.prompt_tokens,
            outputTokens: seal.output_tokens,
            numericClass: seal.class.0,
            endReason: seal.end_reason as u8,
            salt: seal.salt,
            proofSeal: proof_seal,
            signature: Bytes::new(),
        }
    }

    /// What H1 seals. The contract takes no end reason that is not known.
    pub fn seal(&self) -> TokenSeal {
        TokenSeal {
            output_digest: self.outputDigest,
            prompt_hash: self.promptHash,
            prompt_tokens: self.promptTokens,
            output_tokens: self.outputTokens,
            class: NumericClass(self.numericClass),
            end_reason: EndReason::try_from(self.endReason).unwrap_or(EndReason::Cancelled),
            salt: self.salt,
        }
    }
}

/// The same answer, as the contract of proofs has it opened again.
impl From<SessionQueue::Answer> for ProofOfInference::Answer {
    fn from(answer: SessionQueue::Answer) -> Self {
        Self {
            nodeId: answer.nodeId,
            outputDigest: answer.outputDigest,
            promptHash: answer.promptHash,
            promptTokens: answer.promptTokens,
            outputTokens: answer.outputTokens,
            numericClass: answer.numericClass,
            endReason: answer.endReason,
            salt: answer.salt,
            proofSeal: answer.proofSeal,
            signature: answer.signature,
        }
    }
}
