//! Log probabilities that are stated beside the tokens.

use assay_engine::{B256, EndReason, Engine, GenerateRequest, Sampling, TokenLogprobs, TokenName};
use futures::future::join_all;

use crate::support::{at, demo, request, run};

/// What batches and blocks of another size may change, in millionths of a nat.
const ROUNDING_MICRONATS: i64 = 100;

async fn wanted(engine: &dyn Engine, sampling: Sampling, top: u32) -> GenerateRequest {
    let base = request(engine, "How does a session end?").await;
    GenerateRequest { sampling, top_logprobs: Some(top), ..base }
}

fn settings() -> [Sampling; 4] {
    let penalties = Sampling { frequency_penalty_milli: 700, ..at(900) };
    [at(0), at(2000), Sampling { top_k: 5, top_p_milli: 800, ..at(1000) }, penalties]
}

fn mass(one: &TokenLogprobs) -> f64 {
    one.top.iter().map(|entry| (entry.logprob_micronats as f64 / 1e6).exp()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_parts_of_one_and_leave_the_answer_as_it_is() {
    let engine = demo().await;
    for sampling in settings() {
        let one = wanted(engine, sampling, 20).await;
        let made = run(engine, one.clone()).await;
        let plain = run(engine, GenerateRequest { top_logprobs: None, ..one }).await;
        assert_eq!((&made.ids, &made.contrasts), (&plain.ids, &plain.contrasts));
        assert!(plain.logprobs.is_empty());
        assert_eq!(made.logprobs.len(), made.ids.len());
        let mut bytes = Vec::new();
        for entry in &made.logprobs {
            assert_eq!(entry.check(20), Ok(()));
            let mass = mass(entry);
            assert!(mass > 0.01 && mass < 1.0 + 1e-4, "{mass}");
            let same = entry.top.iter().find(|other| other.token == entry.chosen.token);
            assert!(same.is_none_or(|same| same == &entry.chosen), "{entry:?}");
            bytes.extend_from_slice(entry.chosen.token.bytes().unwrap_or_default());
        }
        assert_eq!(String::from_utf8_lossy(&bytes), made.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greedy_choice_is_the_likeliest() {
    let engine = demo().await;
    let made = run(engine, wanted(engine, at(0), 2).await).await;
    for entry in &made.logprobs {
        assert_eq!(entry.chosen, entry.top[0]);
    }
}

/// Tokens that no text shows have theirs, too: the end token, and those of a stop sequence.
#[tokio::test(flavor = "multi_thread")]
async fn what_ends_an_answer_is_stated_as_well() {
    let engine = demo().await;
    let base = wanted(engine, at(0), 1).await;
    let whole = run(engine, GenerateRequest { max_output: 400, ..base.clone() }).await;
    assert_eq!((whole.end_reason, whole.logprobs.len()), (EndReason::Eos, whole.ids.len()));
    let last = &whole.logprobs.last().unwrap().chosen.token;
    assert!(matches!(last, TokenName::Special(name) if name == "<|im_end|>"), "{last:?}");

    let word = whole.text.split(' ').nth(3).unwrap();
    let stopped = run(engine, GenerateRequest { stop: vec![word.into()], ..base }).await;
    assert_eq!(stopped.end_reason, EndReason::Stop);
    assert_eq!(stopped.logprobs, whole.logprobs[..stopped.ids.len()]);
    let name = |entry: &TokenLogprobs| entry.chosen.token.bytes().unwrap_or_default().to_vec();
    let bytes: Vec<u8> = stopped.logprobs.iter().flat_map(name).collect();
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.starts_with(&stopped.text) && text.contains(word), "{text:?}");
}

/// Neither temperature nor penalties nor filters change what is stated.
#[tokio::test(flavor = "multi_thread")]
async fn they_are_the_models_before_sampling() {
    let engine = demo().await;
    let mut firsts = Vec::new();
    for sampling in settings() {
        firsts.push(run(engine, wanted(engine, sampling, 20).await).await.logprobs.remove(0).top);
    }
    assert!(firsts.iter().all(|top| *top == firsts[0]), "{firsts:#?}");
    assert_eq!(firsts[0].len(), 20, "though top_k is 5");
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_the_same_alone_and_beside_others() {
    let engine = demo().await;
    let base = wanted(engine, at(1000), 5).await;
    let many = (1..=4_u8).map(|byte| GenerateRequest {
        seed: B256::repeat_byte(byte),
        top_logprobs: (byte != 2).then_some(5),
        ..base.clone()
    });
    let many: Vec<GenerateRequest> = many.collect();
    let mut alone = Vec::new();
    for one in &many {
        alone.push(run(engine, one.clone()).await);
    }
    let together = join_all(many.into_iter().map(|one| run(engine, one))).await;
    for (one, other) in alone.iter().zip(&together) {
        assert_eq!((&one.ids, one.logprobs.len()), (&other.ids, other.logprobs.len()));
        for (one, other) in one.logprobs.iter().zip(&other.logprobs) {
            let values = |entry: &TokenLogprobs| {
                let top = entry.top.iter().map(|top| top.logprob_micronats);
                top.chain([entry.chosen.logprob_micronats]).collect::<Vec<_>>()
            };
            let (one, other) = (values(one), values(other));
            let far = one.iter().zip(&other).map(|(one, other)| (one - other).abs()).max();
            assert!(far.unwrap() <= ROUNDING_MICRONATS, "{one:?} {other:?}");
        }
    }
    assert!(together[1].logprobs.is_empty() && !together[0].logprobs.is_empty());
}
