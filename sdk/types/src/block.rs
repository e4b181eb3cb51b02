//! Request and result blocks: canonical JSON, each one raw IPFS block, so that its CID is the digest on chain.
//!
//! Canonical means RFC 8785 restricted to integers and strings: keys in order, no white space, and a
//! decoder that refuses any other spelling of the same value.

use alloy::primitives::{Address, B256, Bytes, Signature};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Cancellation, CommitScope, EndReason, MAX_LOGPROBS, MAX_TOP_LOGPROBS, Signed,
    commitment::sha256, count_logprobs,
};

/// Version written into every block.
pub const BLOCK_VERSION: u32 = 1;
/// One raw block is at most 1 MiB: the largest that every IPFS implementation exchanges.
pub const MAX_BLOCK_BYTES: usize = 1 << 20;
/// Messages of one request: far above any conversation, far below what parsing would feel.
pub const MAX_MESSAGES: usize = 1024;
/// Stop sequences of one request; OpenAI's own limit.
pub const MAX_STOPS: usize = 4;
/// Bytes of one stop sequence: it is held back while it may still complete.
pub const MAX_STOP_BYTES: usize = 256;
/// Bytes of a signature by a key: `r`, `s` and which of two points.
const SIGNATURE_BYTES: usize = 65;
/// Tokens of a prompt: the largest context that a manifest may declare.
pub const MAX_PROMPT_LIMIT: u32 = 1 << 20;
/// Tokens of an answer: keeps ids and text of any answer inside one block.
pub const MAX_OUTPUT_LIMIT: u32 = 1 << 16;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Its text.
    pub content: String,
    /// `system`, `user` or `assistant`.
    pub role: String,
}

/// What is asked: a conversation for the model's chat template, or plain text without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// Rendered with the manifest's chat template.
    Messages(Vec<Message>),
    /// Tokenised as it is.
    Text(String),
}

/// Sampling parameters in thousandths: nothing that is hashed is a float.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Added for each earlier occurrence of a token, subtracted from its logit; thousandths, −2000 to 2000.
    pub frequency_penalty_milli: i32,
    /// Tokens less likely than this share of the likeliest are out; thousandths, 0 is off.
    pub min_p_milli: u32,
    /// Subtracted once from the logit of a token that occurred; thousandths, −2000 to 2000.
    pub presence_penalty_milli: i32,
    /// Thousandths, 0 to 2000; 0 is greedy.
    pub temperature_milli: u32,
    /// Only the k likeliest tokens; 0 is off.
    pub top_k: u32,
    /// Only the likeliest tokens up to this mass; thousandths, 1 to 1000; 1000 is off.
    pub top_p_milli: u32,
}

impl Default for Sampling {
    /// OpenAI's defaults: temperature 1, nothing cut off, no penalties.
    fn default() -> Self {
        Self {
            frequency_penalty_milli: 0,
            min_p_milli: 0,
            presence_penalty_milli: 0,
            temperature_milli: 1000,
            top_k: 0,
            top_p_milli: 1000,
        }
    }
}

/// Everything that a miner needs to serve a request; `requestDigest` is the sha-256 of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestBlock {
    /// Most tokens that may be generated.
    pub max_output: u32,
    /// Most tokens that the prompt may have.
    pub max_prompt: u32,
    /// The conversation or text.
    pub prompt: Prompt,
    /// Random, so that equal prompts have different digests.
    pub salt: B256,
    /// Sampling parameters.
    pub sampling: Sampling,
    /// Stop sequences; none of them is part of the answer's text.
    pub stop: Vec<String>,
    /// Log probabilities are wanted beside the stream, with so many alternatives at each position. A block without
    /// the wish has no such member. A result block never has any: they are not part of what is proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u32>,
    /// [`BLOCK_VERSION`].
    pub version: u32,
}

/// What a miner answers; `outputDigest` is the sha-256 of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultBlock {
    /// Of an answer that was cancelled: the signature of the lane's holder over the [`Cancellation`] after exactly
    /// these ids; 65 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancellation: Option<Bytes>,
    /// Why the generation ended.
    pub end_reason: EndReason,
    /// Token ids in order, an end token included.
    pub ids: Vec<u32>,
    /// Random.
    pub salt: B256,
    /// [`StreamHash`](crate::StreamHash) over all ids.
    pub stream_hash: B256,
    /// Detokenisation of `ids`, up to a completed stop sequence.
    pub text: String,
    /// [`BLOCK_VERSION`].
    pub version: u32,
}

/// Why bytes are not a block.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// Larger than one raw block.
    #[error(
        "a block of {bytes} bytes is larger than the {MAX_BLOCK_BYTES} that one raw IPFS block holds"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not JSON, or not the JSON of this block.
    #[error("the block cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// The same value spelt differently.
    #[error("the block is not canonical: keys in order, no white space, integers and strings only")]
    NotCanonical,
    /// Written by another version.
    #[error("the block has version {got}, this software reads version {BLOCK_VERSION}: update it")]
    Version {
        /// The version found.
        got: u32,
    },
    /// A field is outside its bounds.
    #[error("the block's {field} is {got}, allowed is {allowed}")]
    Bound {
        /// Name of the field.
        field: &'static str,
        /// What was found.
        got: String,
        /// What is allowed.
        allowed: String,
    },
}

fn bound(field: &'static str, got: impl ToString, allowed: impl ToString) -> BlockError {
    BlockError::Bound { field, got: got.to_string(), allowed: allowed.to_string() }
}

fn check_range<T: PartialOrd + ToString + Copy>(
    field: &'static str,
    got: T,
    low: T,
    high: T,
) -> Result<(), BlockError> {
    if got < low || got > high {
        return Err(bound(field, got, format!("{} to {}", low.to_string(), high.to_string())));
    }
    Ok(())
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, BlockError> {
    let bytes = serde_json::to_vec(value)?;
    if bytes.len() > MAX_BLOCK_BYTES {
        return Err(BlockError::TooLarge { bytes: bytes.len() });
    }
    Ok(bytes)
}

fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, BlockError> {
    if bytes.len() > MAX_BLOCK_BYTES {
        return Err(BlockError::TooLarge { bytes: bytes.len() });
    }
    let value: T = serde_json::from_slice(bytes)?;
    if serde_json::to_vec(&value)? != bytes {
        return Err(BlockError::NotCanonical);
    }
    Ok(value)
}

impl RequestBlock {
    /// The canonical bytes and their sha-256.
    pub fn encode(&self) -> Result<(Vec<u8>, B256), BlockError> {
        self.check()?;
        let bytes = encode(self)?;
        let digest = sha256(&bytes);
        Ok((bytes, digest))
    }

    /// Reads canonical bytes; anything else is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, BlockError> {
        let block: Self = decode(bytes)?;
        block.check()?;
        Ok(block)
    }

    /// Checks every bound of the block and of its sampling parameters.
    pub fn check(&self) -> Result<(), BlockError> {
        if self.version != BLOCK_VERSION {
            return Err(BlockError::Version { got: self.version });
        }
        check_range("max_output", self.max_output, 1, MAX_OUTPUT_LIMIT)?;
        check_range("max_prompt", self.max_prompt, 1, MAX_PROMPT_LIMIT)?;
        check_range("stop sequences", self.stop.len(), 0, MAX_STOPS)?;
        for stop in &self.stop {
            check_range("bytes of a stop sequence", stop.len(), 1, MAX_STOP_BYTES)?;
        }
        if let Some(top) = self.top_logprobs {
            check_range("top_logprobs", top, 0, MAX_TOP_LOGPROBS)?;
            let all = count_logprobs(self.max_output, top);
            let name = "log probabilities, (1 + top_logprobs) * max_output,";
            check_range(name, all, 0, MAX_LOGPROBS)?;
        }
        if let Prompt::Messages(messages) = &self.prompt {
            check_range("messages", messages.len(), 1, MAX_MESSAGES)?;
            for message in messages {
                if !["system", "user", "assistant"].contains(&message.role.as_str()) {
                    let role: String = message.role.chars().take(32).collect();
                    return Err(bound("role", role, "system, user or assistant"));
                }
            }
        }
        self.sampling.check()
    }
}

impl Sampling {
    /// Checks every parameter's bounds.
    pub fn check(&self) -> Result<(), BlockError> {
        check_range("frequency_penalty_milli", self.frequency_penalty_milli, -2000, 2000)?;
        check_range("presence_penalty_milli", self.presence_penalty_milli, -2000, 2000)?;
        check_range("temperature_milli", self.temperature_milli, 0, 2000)?;
        check_range("top_p_milli", self.top_p_milli, 1, 1000)?;
        check_range("min_p_milli", self.min_p_milli, 0, 1000)
    }
}

impl ResultBlock {
    /// The canonical bytes and their sha-256.
    pub fn encode(&self) -> Result<(Vec<u8>, B256), BlockError> {
        let bytes = encode(self)?;
        let digest = sha256(&bytes);
        Ok((bytes, digest))
    }

    /// Reads canonical bytes; anything else is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, BlockError> {
        let block: Self = decode(bytes)?;
        if block.version != BLOCK_VERSION {
            return Err(BlockError::Version { got: block.version });
        }
        check_range("ids", block.ids.len(), 1, MAX_OUTPUT_LIMIT as usize)?;
        let signature = block.cancellation.as_ref().map_or(SIGNATURE_BYTES, |bytes| bytes.len());
        check_range("bytes of cancellation", signature, SIGNATURE_BYTES, SIGNATURE_BYTES)?;
        Ok(block)
    }

    /// Whether `holder`, who holds the lane of the task, signed that it ends after exactly these ids.
    pub fn is_cancelled_by(&self, scope: &CommitScope, holder: Address) -> bool {
        let Ok(tokens) = u32::try_from(self.ids.len()) else { return false };
        let signed = self.cancellation.as_ref().and_then(|bytes| Signature::from_raw(bytes).ok());
        let cancellation = Cancellation::new(scope.task, tokens);
        let signer =
            signed.and_then(|it| cancellation.signer(scope.chain_id, scope.queue, &it).ok());
        signer == Some(holder)
    }
}

#[cfg(test)]
mod tests {
    use alloy::signers::{SignerSync, local::PrivateKeySigner};

    use super::*;
    use crate::{NodeId, TaskId};

    fn request() -> RequestBlock {
        RequestBlock {
            max_output: 64,
            max_prompt: 128,
            prompt: Prompt::Messages(vec![Message {
                content: "hi \u{1}\"é".into(),
                role: "user".into(),
            }]),
            salt: B256::repeat_byte(7),
            sampling: Sampling::default(),
            stop: vec!["\n".into()],
            top_logprobs: None,
            version: BLOCK_VERSION,
        }
    }

    #[test]
    fn request_round_trip_and_keys_in_order() {
        let (bytes, digest) = request().encode().unwrap();
        assert_eq!(RequestBlock::decode(&bytes).unwrap(), request());
        assert_eq!(digest, sha256(&bytes));
        let text = String::from_utf8(bytes).unwrap();
        let keys = ["max_output", "max_prompt", "prompt", "salt", "sampling", "stop", "version"];
        let places: Vec<_> = keys.iter().map(|k| text.find(&format!("\"{k}\"")).unwrap()).collect();
        assert!(places.is_sorted(), "{text}");
        assert!(text.contains("\\u0001"), "{text}");
    }

    /// Requests without the wish stay what they were, byte for byte.
    #[test]
    fn a_wish_for_log_probabilities_is_absent_or_bounded() {
        let (bytes, _) = request().encode().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains("logprobs"), "{text}");
        let spelt = text.replace("\"version\"", "\"top_logprobs\":null,\"version\"");
        assert!(matches!(RequestBlock::decode(spelt.as_bytes()), Err(BlockError::NotCanonical)));

        let wish = |top, max_output| {
            RequestBlock { top_logprobs: Some(top), max_output, ..request() }.encode()
        };
        for top in [0, MAX_TOP_LOGPROBS] {
            let (bytes, _) = wish(top, 64).unwrap();
            assert_eq!(RequestBlock::decode(&bytes).unwrap().top_logprobs, Some(top));
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.ends_with(&format!("\"top_logprobs\":{top},\"version\":1}}")), "{text}");
        }
        assert!(wish(21, 1).unwrap_err().to_string().contains("top_logprobs is 21"));
        assert!(wish(20, 6241).is_ok() && wish(0, MAX_OUTPUT_LIMIT).is_ok());
        assert!(wish(20, 6242).unwrap_err().to_string().contains("131082"));
    }

    #[test]
    fn other_spellings_are_refused() {
        let (bytes, _) = request().encode().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let spaced = text.replacen(':', ": ", 1);
        assert!(matches!(RequestBlock::decode(spaced.as_bytes()), Err(BlockError::NotCanonical)));
        let extra = text.replacen('{', "{\"a\":1,", 1);
        assert!(matches!(RequestBlock::decode(extra.as_bytes()), Err(BlockError::Json(_))));
        let version = text.replace("\"version\":1", "\"version\":2");
        assert!(matches!(
            RequestBlock::decode(version.as_bytes()),
            Err(BlockError::Version { got: 2 })
        ));
    }

    #[test]
    fn bounds_are_named() {
        let mut block = request();
        block.max_output = 0;
        assert!(block.encode().unwrap_err().to_string().contains("max_output is 0"));
        let mut block = request();
        block.sampling.top_p_milli = 0;
        assert!(block.encode().unwrap_err().to_string().contains("top_p_milli"));
        let mut block = request();
        block.prompt = Prompt::Messages(vec![]);
        assert!(block.encode().unwrap_err().to_string().contains("messages"));
        let mut block = request();
        block.prompt = Prompt::Text("x".repeat(MAX_BLOCK_BYTES));
        assert!(matches!(block.encode(), Err(BlockError::TooLarge { .. })));
    }

    #[test]
    fn a_cancellation_is_of_its_holder_task_and_length_alone() {
        let key = PrivateKeySigner::random();
        let scope = CommitScope {
            chain_id: 31337,
            queue: Address::repeat_byte(9),
            task: TaskId(B256::repeat_byte(1)),
            node: NodeId(1),
        };
        let hash = Cancellation::new(scope.task, 2).signing_hash(scope.chain_id, scope.queue);
        let signature = key.sign_hash_sync(&hash).unwrap();
        let block = ResultBlock {
            cancellation: Some(signature.as_bytes().into()),
            end_reason: EndReason::Cancelled,
            ids: vec![7, 8],
            salt: B256::ZERO,
            stream_hash: B256::ZERO,
            text: "two".into(),
            version: BLOCK_VERSION,
        };
        let (bytes, _) = block.encode().unwrap();
        assert_eq!(ResultBlock::decode(&bytes).unwrap(), block);
        let holder = key.address();
        assert!(block.is_cancelled_by(&scope, holder));
        assert!(!block.is_cancelled_by(&scope, Address::repeat_byte(3)));
        for ids in [vec![7], vec![7, 8, 9]] {
            assert!(!ResultBlock { ids, ..block.clone() }.is_cancelled_by(&scope, holder));
        }
        for other in [
            CommitScope { task: TaskId(B256::repeat_byte(2)), ..scope },
            CommitScope { chain_id: 1, ..scope },
            CommitScope { queue: Address::ZERO, ..scope },
        ] {
            assert!(!block.is_cancelled_by(&other, holder));
        }
        assert!(
            !ResultBlock { cancellation: None, ..block.clone() }.is_cancelled_by(&scope, holder)
        );
        let long = ResultBlock { cancellation: Some(vec![1; 66].into()), ..block };
        let (bytes, _) = long.encode().unwrap();
        assert!(matches!(ResultBlock::decode(&bytes), Err(BlockError::Bound { .. })));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>) {
            let _ = RequestBlock::decode(&bytes);
            let _ = ResultBlock::decode(&bytes);
        }

        #[test]
        fn any_result_round_trips(ids in proptest::collection::vec(0u32..151_936, 1..64), text: String) {
            let block = ResultBlock {
                cancellation: None, end_reason: EndReason::Max, ids, salt: B256::ZERO, stream_hash: B256::ZERO, text,
                version: BLOCK_VERSION,
            };
            let (bytes, _) = block.encode().unwrap();
            assert_eq!(ResultBlock::decode(&bytes).unwrap(), block);
        }
    }
}
