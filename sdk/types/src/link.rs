//! Frames between router and miner: JSON text messages of a WebSocket that the miner opens.
//!
//! The router sends [`FromRouter`], the miner [`FromMiner`]. Both begin with a signed challenge:
//! `Challenge` → `Hello` → `Welcome` (or `Error`), each side signing the other's nonce.
//!
//! A stream is cut at every multiple of [`RECEIPT_EVERY_TOKENS`]: no `Token` frame reaches across one,
//! and the [`StreamReceipt`] over the tokens so far comes before anything else of the task. `Done` comes
//! after a receipt over all tokens. So whatever a router has shown, it holds the node's signature over
//! all of it but the last few tokens.
//!
//! A node of a redundant task sends `Precommit` before its end, `Done` or `Sealed`, and `Opening` once the chain
//! has the commitments of all its nodes: so one transaction can carry those of all, and another all openings. A
//! node whose commitment or opening is not carried in good time sends it itself.
//!
//! Where the request block asks for log probabilities, every `Token` frame has those of all its ids, and it ends at a
//! token that has text, unless none of its tokens has.
//!
//! When a connection drops, the task goes on. The miner connects again, the router asks with `Resume` for
//! the stream from the first token that it does not have.

use alloy::{
    primitives::{Address, B256, Bytes, Signature, keccak256},
    sol_types::SolValue,
};
use serde::{Deserialize, Serialize};

use crate::{EndReason, NodeId, Signed, StreamHash, TaskId, TaskRequest, TokenLogprobs, TokenSeal};

/// Version of the frames; both sides must speak the same.
pub const LINK_VERSION: u32 = 3;
/// Largest frame: a request block of 1 MiB as hex, and its envelope.
pub const MAX_FRAME_BYTES: usize = (2 << 20) + (64 << 10);
/// A receipt is signed after this many tokens: little enough to lose, rare enough to sign.
pub const RECEIPT_EVERY_TOKENS: u32 = 32;
/// A cancellation may leave out so many of the tokens that were sent: they are on their way, and no receipt covers
/// them. One that leaves out more comes too late: the answer goes on, and is paid whole.
pub const CANCEL_SLACK_TOKENS: u32 = RECEIPT_EVERY_TOKENS;
/// Seconds between pings: far below what a proxy or a NAT lets a connection be silent.
pub const PING_INTERVAL_S: u64 = 5;
/// A peer that says nothing for so many ping intervals is gone.
pub const MISSED_PINGS: u32 = 3;
/// Domain of the challenge that a router signs.
pub const DOMAIN_LINK_ROUTER: &str = "assay.link.router.v1";
/// Domain of the challenge that a miner signs.
pub const DOMAIN_LINK_MINER: &str = "assay.link.miner.v1";
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

alloy::sol! {
    /// What a node signs (EIP-712, the domain of requests) over the tokens that it has streamed so far. One
    /// that contradicts the committed answer proves that the node showed something else.
    #[derive(Debug, PartialEq, Eq)]
    struct StreamReceipt {
        bytes32 taskId;
        uint32 nodeId;
        uint32 seq;
        bytes32 streamHash;
    }
}

impl Signed for StreamReceipt {}

impl StreamReceipt {
    /// The receipt of `node` over the first `seq` tokens of a stream.
    pub fn new(task: TaskId, node: NodeId, seq: u32, stream_hash: B256) -> Self {
        Self { taskId: task.0, nodeId: node.0, seq, streamHash: stream_hash }
    }

    /// Whether an answer of these ids is another one than the one that was streamed.
    pub fn contradicts(&self, ids: &[u32]) -> bool {
        let streamed = usize::try_from(self.seq).ok().and_then(|seq| ids.get(..seq));
        streamed.is_none_or(|ids| StreamHash::of(TaskId(self.taskId), ids) != self.streamHash)
    }
}

/// The version that a first frame names, also if the rest of it cannot be read: so that the older side is
/// told to update.
pub fn version_of(text: &str) -> Option<u32> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    serde_json::from_str::<Versioned>(text).ok().map(|frame| frame.version)
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
    /// Whether tokens are streamed. Of the nodes of one redundant task only the leader's are: the others
    /// say `Sealed` at the end, so that nothing can be copied before their commits.
    pub stream: bool,
}

/// The lane's holder pays for the first tokens of an answer, and wants no more of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedCancellation {
    /// How many.
    pub tokens: u32,
    /// By the lane's holder, over the [`crate::Cancellation`].
    pub signature: Signature,
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
    /// The connection was lost after the task was accepted: go on here.
    Resume {
        /// The task.
        task: TaskId,
        /// Tokens that the router has: the first one that it wants.
        seq: u32,
    },
    /// Stop this task: its client is gone.
    Cancel {
        /// The task.
        task: TaskId,
        /// What is paid for; nothing if no token came.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signed: Option<SignedCancellation>,
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
    /// Tokens in order, at most up to the next multiple of [`RECEIPT_EVERY_TOKENS`].
    Token {
        /// The task.
        task: TaskId,
        /// Index of the first id of this frame, from 0.
        seq: u32,
        /// The ids.
        ids: Vec<u32>,
        /// Their text; may be empty while a character or a stop sequence is incomplete.
        text: String,
        /// One for each id if the request asks for them, else none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        logprobs: Vec<TokenLogprobs>,
    },
    /// Signed proof of what was streamed so far.
    Receipt {
        /// The task.
        task: TaskId,
        /// Tokens covered.
        seq: u32,
        /// [`StreamHash`] over them.
        stream_hash: B256,
        /// By the node's operator key, over the [`StreamReceipt`].
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
    /// The answer of a task without a stream is complete; its commit will show it.
    Sealed {
        /// The task.
        task: TaskId,
    },
    /// The node's word for its answer of a redundant task, for whoever carries those of all its nodes.
    Precommit {
        /// The task.
        task: TaskId,
        /// `keccak256(abi.encode(H1, H2))`.
        commitment: B256,
        /// By the node's operator key, over the [`crate::Precommit`].
        signature: Signature,
    },
    /// What the precommitment was made of: the task's nodes have all given theirs, and anyone may open them.
    Opening {
        /// The task.
        task: TaskId,
        /// H1, opened.
        seal: TokenSeal,
        /// H2, still sealed.
        proof_seal: B256,
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
    use alloy::primitives::aliases::U96;

    use crate::{SignatureError, TokenLogprob, TokenName};
    use alloy::signers::{SignerSync, local::PrivateKeySigner};

    use super::*;

    #[test]
    fn frames_round_trip_as_tagged_json() {
        let frame = FromMiner::Token {
            task: TaskId(B256::ZERO),
            seq: 3,
            ids: vec![1, 2],
            text: "hi".into(),
            logprobs: Vec::new(),
        };
        let text = serde_json::to_string(&frame).unwrap();
        assert!(text.starts_with("{\"type\":\"token\""), "{text}");
        assert!(!text.contains("logprobs"), "{text}");
        assert_eq!(serde_json::from_str::<FromMiner>(&text).unwrap(), frame);

        let end = TokenName::Special("<end>".into());
        let chosen = TokenLogprob { token: end, logprob_micronats: -5 };
        let logprobs = vec![TokenLogprobs { chosen: chosen.clone(), top: vec![chosen] }];
        let task = TaskId(B256::ZERO);
        let frame = FromMiner::Token { task, seq: 0, ids: vec![1], text: String::new(), logprobs };
        let text = serde_json::to_string(&frame).unwrap();
        assert_eq!(serde_json::from_str::<FromMiner>(&text).unwrap(), frame, "{text}");

        let offer = FromRouter::Offer(Box::new(Offer {
            request: TaskRequest {
                sessionId: 1,
                lane: 1,
                nonce: 0,
                requestDigest: B256::ZERO,
                maxPrompt: 1,
                maxOutput: 1,
                feeCap: U96::MAX,
                deadline: 1,
                nodeId: 1,
                seedRound: 11,
                redundancy: 1,
                attempts: 1,
                dispatch: 0,
                callbackGas: 0,
            },
            signature: Signature::test_signature(),
            block: Bytes::from_static(b"{}"),
            stream: true,
        }));
        let text = serde_json::to_string(&offer).unwrap();
        assert_eq!(serde_json::from_str::<FromRouter>(&text).unwrap(), offer, "{text}");
    }

    /// Written out word by word, as a contract would hash it.
    #[test]
    fn a_receipt_is_hashed_as_eip712_says() {
        let (chain_id, queue) = (31337_u64, Address::repeat_byte(0x42));
        let (task, hash) = (TaskId(B256::repeat_byte(7)), B256::repeat_byte(8));
        let receipt = StreamReceipt::new(task, NodeId(3), 64, hash);
        let text = |text: &str| keccak256(text.as_bytes());
        let kind =
            text("StreamReceipt(bytes32 taskId,uint32 nodeId,uint32 seq,bytes32 streamHash)");
        let struct_hash = keccak256((kind, task.0, 3_u32, 64_u32, hash).abi_encode());
        let domain = text(
            "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)",
        );
        let domain = (domain, text("Assay"), text("1"), chain_id, queue).abi_encode();
        let digest = [&[0x19, 0x01], keccak256(domain).as_slice(), struct_hash.as_slice()].concat();
        assert_eq!(receipt.signing_hash(chain_id, queue), keccak256(digest));
    }

    #[test]
    fn a_receipt_speaks_for_its_signer_chain_queue_and_node_alone() {
        let key = PrivateKeySigner::random();
        let queue = Address::repeat_byte(0x42);
        let task = TaskId(B256::repeat_byte(7));
        let receipt = StreamReceipt::new(task, NodeId(3), 2, StreamHash::of(task, &[5, 6]));
        let signature = key.sign_hash_sync(&receipt.signing_hash(1, queue)).unwrap();
        assert_eq!(receipt.signer(1, queue, &signature).unwrap(), key.address());
        assert_ne!(receipt.signer(2, queue, &signature).unwrap(), key.address());
        assert_ne!(receipt.signer(1, Address::ZERO, &signature).unwrap(), key.address());
        let other = StreamReceipt { nodeId: 4, ..receipt.clone() };
        assert_ne!(other.signer(1, queue, &signature).unwrap(), key.address());
        let order = alloy::primitives::uint!(
            0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141_U256
        );
        let high = Signature::new(signature.r(), order - signature.s(), !signature.v());
        let refused = receipt.signer(1, queue, &high);
        assert!(matches!(refused, Err(SignatureError::Malleable)), "{refused:?}");

        assert!(!receipt.contradicts(&[5, 6]) && !receipt.contradicts(&[5, 6, 7]));
        assert!(receipt.contradicts(&[5]) && receipt.contradicts(&[5, 7]));
    }

    #[test]
    fn a_version_is_read_from_frames_of_another_version() {
        let text = r#"{"type":"challenge","version":9,"something":"new"}"#;
        assert!(serde_json::from_str::<FromRouter>(text).is_err());
        assert_eq!(version_of(text), Some(9));
        assert_eq!(version_of("{\"version\":-1}"), None);
        assert_eq!(version_of("[]"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_never_panics(text: String) {
            let _ = serde_json::from_str::<FromMiner>(&text);
            let _ = serde_json::from_str::<FromRouter>(&text);
            let _ = version_of(&text);
        }
    }
}
