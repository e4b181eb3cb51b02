//! `/v1/requests`: a request that its lane's holder has signed, passed on as it stands. The answer is worded as OpenAI's
//! chat completions are. `/v1/requests/{task}/cancel`: the holder ends it.

use std::sync::Arc;

use alloy::primitives::aliases::U96;
use assay_types::{
    B256, Bytes, Dispatch, MAX_OUTPUT_LIMIT, RequestBlock, Signature, TaskId, TaskRequest,
    link::SignedCancellation, sha256,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ask::{self, Ask, Streaming},
    chat,
    error::ApiError,
    fields::{Fields, wrong},
    wording::Order,
};
use crate::{config::RouterConfig, tasks::carry::SignedAsk};

/// What is signed: the members of `TaskRequest`, named as EIP-712 hashes them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Members {
    session_id: u64,
    lane: u32,
    nonce: u64,
    seed_round: u64,
    request_digest: B256,
    max_prompt: u32,
    max_output: u32,
    /// Decimal: 96 bits do not survive JSON numbers.
    fee_cap: String,
    deadline: u64,
    node_id: u32,
    redundancy: u8,
    attempts: u8,
    dispatch: u8,
    callback_gas: u32,
}

/// Reads a request. Whether the signature is its holder's, and the money there, is for the node to see, which works for it.
///
/// # Errors
/// 400 that names the parameter, or 404 for a model that is not served.
pub fn read(fields: &mut Fields, config: &RouterConfig) -> Result<Order, ApiError> {
    let model = ask::model(fields, &config.models)?;
    let request = request(fields.need("request", "send the members of the TaskRequest")?)?;
    let signature = signature(fields)?;
    let Some(text) = fields.text("block")? else {
        return Err(wrong("block", "block is missing: send the request block's canonical text"));
    };
    let block = RequestBlock::decode(text.as_bytes())
        .map_err(|error| ApiError::invalid("block", "invalid_value", error.to_string()))?;
    if sha256(text.as_bytes()) != request.requestDigest {
        let message = "request.requestDigest is not the sha-256 of block: sign what you send";
        return Err(wrong("request.requestDigest", message));
    }
    if (block.max_prompt, block.max_output) != (request.maxPrompt, request.maxOutput) {
        let message = "request.maxPrompt and request.maxOutput differ from those of block";
        return Err(wrong("request", message));
    }
    let Streaming { stream, include_usage } = Streaming::take(fields)?;
    fields.end()?;
    let (max_prompt, max_output) = (request.maxPrompt, request.maxOutput);
    let signed = SignedAsk { request, signature, block: Bytes::from(text.into_bytes()) };
    let ask = Ask {
        model,
        prompt: block.prompt,
        sampling: block.sampling,
        stop: block.stop,
        top_logprobs: block.top_logprobs,
        max_output,
        max_prompt,
        redundancy: 1,
        key: None,
        signed: Some(Arc::new(signed)),
    };
    Ok(Order::new(vec![ask], stream, chat::counted(include_usage)))
}

/// Reads a cancellation of such a request.
///
/// # Errors
/// 400 that names the parameter.
pub fn read_cancellation(fields: &mut Fields) -> Result<SignedCancellation, ApiError> {
    let tokens = fields.count("tokens", 1, MAX_OUTPUT_LIMIT)?;
    let tokens = tokens.ok_or_else(|| {
        let message = "tokens is missing: send how many tokens the signature is for";
        ApiError::invalid("tokens", "missing_required_parameter", message)
    })?;
    let signature = signature(fields)?;
    fields.end()?;
    Ok(SignedCancellation { tokens, signature })
}

/// What is answered to one that its node was told of.
pub fn cancellation_json(task: TaskId, tokens: u32) -> Value {
    json!({"id": task, "object": "assay.cancellation", "tokens": tokens})
}

/// The signed members, as far as a router can serve them: one answer, of a node that the queue chooses.
fn request(value: Value) -> Result<TaskRequest, ApiError> {
    let members: Members = serde_json::from_value(value).map_err(|error| {
        wrong("request", format!("request is not a TaskRequest: {error}; see /docs"))
    })?;
    let fee_cap: U96 = members.fee_cap.parse().map_err(|_| {
        wrong("request.feeCap", "request.feeCap must be a decimal string of minor units")
    })?;
    for (name, is_served, remedy) in [
        ("request.redundancy", members.redundancy == 1, "sign for one answer"),
        ("request.dispatch", members.dispatch == Dispatch::Push as u8, "sign for push, 0"),
        ("request.callbackGas", members.callback_gas == 0, "sign for no callback, 0"),
        ("request.seedRound", members.seed_round != 0, "sign for the session's reservation"),
    ] {
        if !is_served {
            return Err(wrong(name, format!("{name} cannot be served through a router: {remedy}")));
        }
    }
    Ok(TaskRequest {
        sessionId: members.session_id,
        lane: members.lane,
        nonce: members.nonce,
        seedRound: members.seed_round,
        requestDigest: members.request_digest,
        maxPrompt: members.max_prompt,
        maxOutput: members.max_output,
        feeCap: fee_cap,
        deadline: members.deadline,
        nodeId: members.node_id,
        redundancy: members.redundancy,
        attempts: members.attempts,
        dispatch: members.dispatch,
        callbackGas: members.callback_gas,
    })
}

fn signature(fields: &mut Fields) -> Result<Signature, ApiError> {
    let wanted = "signature must be 0x and the 130 hex digits of r, s and v";
    let text = fields.text("signature")?.ok_or_else(|| wrong("signature", wanted))?;
    let bytes: Bytes = text.parse().map_err(|_| wrong("signature", wanted))?;
    Signature::from_raw(&bytes).map_err(|_| wrong("signature", wanted))
}

#[cfg(test)]
mod tests {
    use assay_types::{BLOCK_VERSION, Prompt, Sampling};

    use super::*;
    use crate::http::ask::tests::{order_of, refused};

    fn body() -> Value {
        let block = RequestBlock {
            max_output: 64,
            max_prompt: 128,
            prompt: Prompt::Text("hello".into()),
            salt: B256::repeat_byte(7),
            sampling: Sampling::default(),
            stop: vec![],
            top_logprobs: None,
            version: BLOCK_VERSION,
        };
        let (bytes, digest) = block.encode().unwrap();
        json!({
            "model": "assay-demo",
            "request": {
                "sessionId": 3, "lane": 1, "nonce": 9, "seedRound": 11, "requestDigest": digest,
                "maxPrompt": 128, "maxOutput": 64, "feeCap": "79228162514264337593543950335",
                "deadline": 1_800_000_000_u64, "nodeId": 2, "redundancy": 1, "attempts": 1,
                "dispatch": 0, "callbackGas": 0,
            },
            "signature": format!("0x{}1b", "11".repeat(64)),
            "block": String::from_utf8(bytes).unwrap(),
            "stream": true,
        })
    }

    #[test]
    fn what_was_signed_is_read_as_it_stands() {
        let order = order_of(read, &body()).unwrap();
        assert!(order.stream);
        let signed = order.asks[0].signed.clone().unwrap();
        assert_eq!((signed.request.sessionId, signed.request.nonce), (3, 9));
        assert_eq!(signed.request.feeCap, U96::MAX);
        assert_eq!(sha256(&signed.block), signed.request.requestDigest);
        assert_eq!((order.asks[0].max_prompt, order.asks[0].max_output), (128, 64));
    }

    #[test]
    fn what_cannot_be_passed_on_is_refused_by_name() {
        let with = |name: &str, value: Value| {
            let mut request = body()["request"].clone();
            request[name] = value;
            json!({"request": request})
        };
        let mut short = body()["request"].clone();
        short.as_object_mut().unwrap().remove("nonce");
        refused(
            read,
            &body(),
            &[
                (with("requestDigest", json!(B256::ZERO)), "request.requestDigest"),
                (with("maxOutput", json!(65)), "request"),
                (with("feeCap", json!("1e9")), "request.feeCap"),
                (with("feeCap", json!("79228162514264337593543950336")), "request.feeCap"),
                (with("redundancy", json!(2)), "request.redundancy"),
                (with("dispatch", json!(1)), "request.dispatch"),
                (with("callbackGas", json!(5)), "request.callbackGas"),
                (with("seedRound", json!(0)), "request.seedRound"),
                (with("nonce", json!(-1)), "request"),
                (with("color", json!(1)), "request"),
                (json!({"request": short}), "request"),
                (json!({"request": 5}), "request"),
                (json!({"signature": "0x11"}), "signature"),
                (json!({"signature": "hello"}), "signature"),
                (json!({"block": "{}"}), "block"),
                (json!({"temperature": 1}), "temperature"),
            ],
        );
    }
}
