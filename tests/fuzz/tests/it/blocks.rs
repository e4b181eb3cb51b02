//! Blocks of the content store, manifests, and words of the registry.

use alloy::primitives::{B256, U256};
use assay_engine::{MANIFEST_VERSION, Manifest, ManifestFile};
use assay_fuzz::Target;
use assay_proof::{Calibration, Contrasts, Record, Width};
use assay_types::{BLOCK_VERSION, EndReason, Message, Prompt, RequestBlock, ResultBlock, Sampling};

use crate::MANY;

#[test]
fn fuzz_request_blocks() {
    let block = |prompt| RequestBlock {
        max_output: 64,
        max_prompt: 128,
        prompt,
        salt: B256::repeat_byte(7),
        sampling: Sampling::default(),
        stop: vec!["\n".into()],
        top_logprobs: None,
        version: BLOCK_VERSION,
    };
    let message = Message { content: "hi \u{1}\"é".into(), role: "user".into() };
    let inputs = [Prompt::Messages(vec![message]), Prompt::Text("Once".into())]
        .map(|prompt| block(prompt).encode().unwrap().0);
    let target = Target::new("request-blocks", inputs.into(), MANY);
    target
        .run(|input| {
            if let Ok(block) = RequestBlock::decode(input) {
                assert_eq!(block.encode().unwrap().0, input, "two blocks of one digest");
            }
        })
        .unwrap();
}

#[test]
fn fuzz_result_blocks() {
    let block = ResultBlock {
        cancellation: None,
        end_reason: EndReason::Max,
        ids: vec![1, 2, u32::MAX],
        salt: B256::repeat_byte(1),
        stream_hash: B256::repeat_byte(2),
        text: "a \u{1f600}".into(),
        version: BLOCK_VERSION,
    };
    let cancelled = ResultBlock {
        cancellation: Some(vec![27; 65].into()),
        end_reason: EndReason::Cancelled,
        ..block.clone()
    };
    let seeds = [&block, &cancelled].map(|block| block.encode().unwrap().0).to_vec();
    let target = Target::new("result-blocks", seeds, MANY);
    target
        .run(|input| {
            if let Ok(block) = ResultBlock::decode(input) {
                assert_eq!(block.encode().unwrap().0, input, "two blocks of one digest");
            }
        })
        .unwrap();
}

#[test]
fn fuzz_proof_blocks() {
    let ids = vec![1, 2, 3];
    for width in [Width::Two, Width::Four] {
        let contrasts = Contrasts::new(&[i16::MIN, i16::MAX, 0, -1][..width.contrasts()]).unwrap();
        let record = Record::new(ids.clone(), vec![contrasts; ids.len()]).unwrap();
        let target = Target::new("proof-blocks", vec![record.encode()], MANY);
        target
            .run(|input| {
                if let Ok(record) = Record::decode(input, ids.clone(), width) {
                    assert_eq!(record.encode(), input);
                    record.tree().unwrap();
                }
                // A result block of as many ids as the proof may be of.
                let _ = Record::decode(input, vec![0; input.len() / width.bytes()], width);
            })
            .unwrap();
    }
}

#[test]
fn fuzz_manifests() {
    let manifest = Manifest {
        architecture: "LlamaForCausalLM".into(),
        chat_template_sha256: Some(B256::repeat_byte(1)),
        end_tokens: vec![2],
        engine: "mistralrs 0.8.1".into(),
        files: vec![ManifestFile::of("model.safetensors".into(), &b"weights"[..]).unwrap()],
        max_context: 512,
        numeric_classes: vec!["cpu-f32".parse().unwrap()],
        quantisation: "none".into(),
        sampler: 1,
        tokenizer_sha256: B256::repeat_byte(2),
        version: MANIFEST_VERSION,
        vocab_size: 1000,
    };
    let target = Target::new("manifests", vec![manifest.bytes().unwrap()], MANY);
    target
        .run(|input| {
            if let Ok(manifest) = Manifest::decode(input) {
                assert_eq!(manifest.bytes().unwrap(), input, "two manifests of one model");
            }
        })
        .unwrap();
}

#[test]
fn fuzz_calibrations() {
    let sound = Calibration {
        tau: 8,
        spot_tau: 16,
        block_limit: 2,
        width: Width::Four,
        hard_margin: 40_000,
        margin_bar: 100_000,
        thr_base: 60_000,
        thr_slope: 9_000,
        thr_spread: 4_000_000,
        drift: 20_000,
        drift_limit: 1_000_000,
    };
    let word = sound.pack().unwrap().to_be_bytes::<32>().to_vec();
    let target = Target::new("calibrations", vec![word], MANY);
    target
        .run(|input| {
            let word = U256::from_be_slice(input.get(..32).unwrap_or_default());
            if let Ok(calibration) = Calibration::unpack(word) {
                // What a calibration of these bounds says of the longest answers is a number.
                let _ = (calibration.thr(u32::MAX), calibration.limit(u32::MAX));
                let again = Calibration::unpack(calibration.pack().unwrap()).unwrap();
                assert_eq!(again, calibration);
            }
        })
        .unwrap();
}
