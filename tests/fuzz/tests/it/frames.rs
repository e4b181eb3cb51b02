//! Frames of the link between router and miner.

use alloy::primitives::{Address, B256, Bytes, Signature, aliases::U96};
use assay_fuzz::Target;
use assay_types::{
    NodeId, TaskId, TaskRequest, TokenLogprob, TokenLogprobs, TokenName,
    link::{FromMiner, FromRouter, LINK_VERSION, Offer, version_of},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::MANY;

fn text(frame: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(frame).unwrap()
}

/// A frame that is taken says the same when it is written again.
fn read<F: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else { return };
    let _ = version_of(input);
    if let Ok(frame) = serde_json::from_str::<F>(input) {
        assert_eq!(serde_json::from_slice::<F>(&text(&frame)).unwrap(), frame);
    }
}

#[test]
fn fuzz_frames_of_a_router() {
    let request = TaskRequest {
        sessionId: 1,
        lane: 1,
        nonce: 2,
        requestDigest: B256::repeat_byte(3),
        maxPrompt: 4,
        maxOutput: 5,
        feeCap: U96::MAX,
        deadline: 6,
        nodeId: 7,
        seedRound: 8,
        redundancy: 1,
        attempts: 1,
        dispatch: 0,
        callbackGas: 0,
    };
    let (signature, block) = (Signature::test_signature(), Bytes::from_static(b"{}"));
    let task = TaskId(B256::repeat_byte(9));
    let frames = [
        FromRouter::Challenge {
            version: LINK_VERSION,
            chain_id: 31337,
            queue: Address::repeat_byte(1),
            router: Address::repeat_byte(2),
            nonce: B256::repeat_byte(3),
        },
        FromRouter::Offer(Box::new(Offer { request, signature, block, stream: true })),
        FromRouter::Resume { task, seq: 32 },
        FromRouter::Error { task: Some(task), code: "busy".into(), message: "later".into() },
        FromRouter::Ping { seq: u64::MAX },
    ];
    let inputs = frames.iter().map(text).collect();
    Target::new("frames-of-a-router", inputs, MANY).run(read::<FromRouter>).unwrap();
}

#[test]
fn fuzz_frames_of_a_miner() {
    let task = TaskId(B256::repeat_byte(9));
    let (hash, signature) = (B256::repeat_byte(4), Signature::test_signature());
    let entry = |token, logprob_micronats| TokenLogprob { token, logprob_micronats };
    let chosen = entry(TokenName::Bytes(vec![0xE2].into()), -5);
    let top =
        vec![entry(TokenName::Special("<end>".into()), 0), entry(TokenName::Text("é".into()), -1)];
    let logprobs = vec![TokenLogprobs { chosen, top }];
    let frames = [
        FromMiner::Hello {
            version: LINK_VERSION,
            node: NodeId(1),
            signature,
            nonce: hash,
            capacity: 8,
        },
        FromMiner::Token {
            task,
            seq: 3,
            ids: vec![1, 2, u32::MAX],
            text: "é\u{1}".into(),
            logprobs,
        },
        FromMiner::Receipt { task, seq: 32, stream_hash: hash, signature },
        FromMiner::Precommit { task, commitment: hash, signature },
        FromMiner::Sealed { task },
        FromMiner::Drain,
    ];
    let inputs = frames.iter().map(text).collect();
    Target::new("frames-of-a-miner", inputs, MANY).run(read::<FromMiner>).unwrap();
}
