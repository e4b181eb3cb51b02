//! From the plain values of `assay-types` to what the contracts take.

use alloy::primitives::B256;
use assay_types::{TaskRequest, TokenSeal};

use crate::SessionQueue;

impl From<TaskRequest> for SessionQueue::TaskRequest {
    fn from(request: TaskRequest) -> Self {
        Self {
            sessionId: request.sessionId,
            lane: request.lane,
            nonce: request.nonce,
            requestDigest: request.requestDigest,
            maxPrompt: request.maxPrompt,
            maxOutput: request.maxOutput,
            feeCap: request.feeCap,
            deadline: request.deadline,
            nodeId: request.nodeId,
        }
    }
}

impl From<SessionQueue::TaskRequest> for TaskRequest {
    fn from(request: SessionQueue::TaskRequest) -> Self {
        Self {
            sessionId: request.sessionId,
            lane: request.lane,
            nonce: request.nonce,
            requestDigest: request.requestDigest,
            maxPrompt: request.maxPrompt,
            maxOutput: request.maxOutput,
            feeCap: request.feeCap,
            deadline: request.deadline,
            nodeId: request.nodeId,
        }
    }
}

impl SessionQueue::Commit {
    /// Opens H1 = `seal` and leaves H2 = `proof_seal` sealed.
    pub fn new(seal: &TokenSeal, proof_seal: B256) -> Self {
        Self {
            outputDigest: seal.output_digest,
            promptHash: seal.prompt_hash,
            promptTokens: seal.prompt_tokens,
            outputTokens: seal.output_tokens,
            numericClass: seal.class.0,
            endReason: seal.end_reason as u8,
            salt: seal.salt,
            proofSeal: proof_seal,
        }
    }
}
