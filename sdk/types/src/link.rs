//! Frames between router and miner: JSON text messages of a WebSocket that the miner opens.
//!
//! The router sends [`FromRouter`], the miner [`FromMiner`]. Both begin with a signed challenge:
//! `Challenge` → `Hello` → `Welcome` (or `Error`), each side signing the other's nonce.

use alloy::{
    primitives::{Address, B256, Bytes, Signature, keccak256},
    sol_types::SolValue,
};
use serde::{Deserialize, Serialize};

use crate::{EndReason, NodeId, TaskId, TaskRequest};

/// Version of the frames; both sides must speak the same.
pub const LINK_VERSION: u32 = 1;
/// Largest frame: a request block of 1 MiB as hex, and its envelope.
pub const MAX_FRAME_BYTES: usize = (2 << 20) + (64 << 10);
/// A receipt is signed after this many tokens: little enough to lose, rare enough to sign.
pub const RECEIPT_EVERY_TOKENS: u32 = 32;
/// Seconds between pings; a peer that is silent for three of them is gone.
pub const PING_INTERVAL_S: u64 = 5;
/// Domain of the challenge that a router signs.
pub const DOMAIN_LINK_ROUTER: &str = "assay.link.router.v1";
/// Domain of the challenge that a miner signs.
pub const DOMAIN_LINK_MINER: &str = "assay.link.miner.v1";
/// Domain of a receipt.
pub const DOMAIN_RECEIPT: &str = "assay.link.receipt.v1";

/// What one side of the link signs: the other side's nonce, bound to chain, queue and both parties.
pub fn challenge_hash(
    domain: &str,
    chain_id: u64,
    queue: Address,
    node: NodeId,
    router: Address,
    nonce: B256,
) -> B256 {
    keccak256((keccak256(domain.as_bytes()), chain_id, queue, node.0, router, nonce).abi_encode())
}

/// What a miner signs after every [`RECEIPT_EVERY_TOKENS`] tokens.
pub fn receipt_hash(chain_id: u64, queue: Address, task: TaskId, seq: u32, stream: B256) -> B256 {
    keccak256(
        (keccak256(DOMAIN_RECEIPT.as_bytes()), chain_id, queue, task.0, seq, stream).abi_encode(),
    )
}

/// Carries a request as its ABI encoding in hex: 128-bit amounts do not survive JSON numbers.
mod abi_hex {
    use alloy::{primitives::Bytes, sol_types::SolValue};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::TaskRequest;

    pub fn serialize<S: Serializer>(request: &TaskRequest, to: S) -> Result<S::Ok, S::Error> {
        Bytes::from(request.abi_encode()).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<TaskRequest, D::Error> {
        TaskRequest::abi_decode_validate(&Bytes::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// A task offered to a miner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The request for this node.
    #[serde(with = "abi_hex")]
    pub request: TaskRequest,
    /// The lane holder's signature over the request.
    pub signature: Signature,
    /// Canonical bytes of the request block; their sha-256 is the request's digest.
    pub block: Bytes,
}

/// Frames that a router sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromRouter {
    /// First frame of a connection.
    Challenge {
        /// [`LINK_VERSION`].
        version: u32,
        /// EIP-155 chain id of the router's deployment.
        chain_id: u64,
        /// `SessionQueue` of the router's deployment.
        queue: Address,
        /// The router's key.
        router: Address,
        /// Random.
        nonce: B256,
    },
    /// The miner's key is the operator of its node; here is the router's own signature.
    Welcome {
        /// Over the miner's nonce, with [`DOMAIN_LINK_ROUTER`].
        signature: Signature,
    },
    /// Serve this.
    Offer(Box<Offer>),
    /// Stop this task: its client is gone.
    Cancel {
        /// The task.
        task: TaskId,
    },
    /// No new offers will come.
    Drain,
    /// Refused, and why.
    Error {
        /// The task that it is about, if any.
        task: Option<TaskId>,
        /// Stable code.
        code: String,
        /// What happened and what to do.
        message: String,
    },
    /// Is the peer there?
    Ping {
        /// Echoed.
        seq: u64,
    },
    /// Yes.
    Pong {
        /// From the ping.
        seq: u64,
    },
}

/// Frames that a miner sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromMiner {
    /// Answers the challenge.
    Hello {
        /// [`LINK_VERSION`].
        version: u32,
        /// The node.
        node: NodeId,
        /// Over the router's nonce, with [`DOMAIN_LINK_MINER`], by the node's operator key.
        signature: Signature,
        /// Random; the router signs it.
        nonce: B256,
        /// How many tasks the node runs at once.
        capacity: u32,
    },
    /// The offer is taken; tokens follow.
    Accept {
        /// The task.
        task: TaskId,
        /// Tokens of the rendered prompt.
        prompt_tokens: u32,
    },
    /// The offer is not taken; without fault.
    Decline {
        /// The task.
        task: TaskId,
        /// Stable code, e.g. `busy`, `prompt_too_long`, `unknown_session`.
        code: String,
        /// What happened and what to do.
        message: String,
    },
    /// Tokens in order.
    Token {
        /// The task.
        task: TaskId,
        /// Index of the first id of this frame, from 0.
        seq: u32,
        /// The ids.
        ids: Vec<u32>,
        /// Their text; may be empty while a character or a stop sequence is incomplete.
        text: String,
    },
    /// Signed proof of what was streamed so far.
    Receipt {
        /// The task.
        task: TaskId,
        /// Tokens covered.
        seq: u32,
        /// [`StreamHash`](crate::StreamHash) over them.
        stream_hash: B256,
        /// By the node's operator key, over [`receipt_hash`].
        signature: Signature,
    },
    /// The answer is complete and pinned; the commit follows on chain.
    Done {
        /// The task.
        task: TaskId,
        /// Why it ended.
        end_reason: EndReason,
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// Tokens generated.
        output_tokens: u32,
        /// sha-256 of the result block.
        output_digest: B256,
        /// Stream hash of the whole answer.
        stream_hash: B256,
    },
    /// The task failed after it was accepted.
    Error {
        /// The task that it is about, if any.
        task: Option<TaskId>,
        /// Stable code.
        code: String,
        /// What happened and what to do.
        message: String,
    },
    /// The node finishes what it has and takes no more.
    Drain,
    /// Is the peer there?
    Ping {
        /// Echoed.
        seq: u64,
    },
    /// Yes.
    Pong {
        /// From the ping.
        seq: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip_as_tagged_json() {
        let frame = FromMiner::Token {
            task: TaskId(B256::ZERO),
            seq: 3,
            ids: vec![1, 2],
            text: "hi".into(),
        };
        let text = serde_json::to_string(&frame).unwrap();
        assert!(text.starts_with("{\"type\":\"token\""), "{text}");
        assert_eq!(serde_json::from_str::<FromMiner>(&text).unwrap(), frame);

        let offer = FromRouter::Offer(Box::new(Offer {
            request: TaskRequest {
                sessionId: 1,
                lane: 1,
                nonce: 0,
                requestDigest: B256::ZERO,
                maxPrompt: 1,
                maxOutput: 1,
                feeCap: u128::MAX,
                deadline: 1,
                nodeId: 1,
            },
            signature: Signature::test_signature(),
            block: Bytes::from_static(b"{}"),
        }));
        let text = serde_json::to_string(&offer).unwrap();
        assert_eq!(serde_json::from_str::<FromRouter>(&text).unwrap(), offer, "{text}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_never_panics(text: String) {
            let _ = serde_json::from_str::<FromMiner>(&text);
            let _ = serde_json::from_str::<FromRouter>(&text);
        }
    }
}
