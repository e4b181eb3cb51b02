//! Claimed tokens under the model: honest answers agree with themselves, others do not, and no input
//! panics.

use assay_engine::{
    B256, Contrasts, Engine, EngineError, GenerateRequest, Generation, Prompt, Sampling, Score,
    ScoreRequest,
};
use assay_engine_mistral::{Dtype, LoadOptions, MistralEngine, ModelSource, Quantised};
use futures::future::{join, join_all};

use crate::support::{Folder, at, demo, demo_file, demo_folder, request, run};

/// What rounding can make of an honest contrast in F32, in 1/256 nat.
const ROUNDING: u16 = 1;
/// Nats, far above the difference between decoding and prefilling in F32 (5e-6).
const MARGIN: f64 = 1e-4;

fn score_of(request: &GenerateRequest, claimed_ids: &[u32]) -> ScoreRequest {
    ScoreRequest {
        prompt_ids: request.prompt_ids.clone(),
        claimed_ids: claimed_ids.to_vec(),
        sampling: request.sampling,
        seed: request.seed,
    }
}

fn distances(made: &[Contrasts], scores: &[Score]) -> Vec<u16> {
    made.iter().zip(scores).flat_map(|(made, score)| made.distances(&score.contrasts)).collect()
}

fn median(mut values: Vec<u16>) -> u16 {
    values.sort_unstable();
    values[values.len() / 2]
}

fn assert_honest(made: &Generation, scores: &[Score]) {
    assert_eq!(scores.len(), made.ids.len());
    assert_eq!(made.contrasts.len(), made.ids.len());
    let far = distances(&made.contrasts, scores).into_iter().max().unwrap();
    assert!(far <= ROUNDING, "a contrast differs by {far}");
    let margin = scores.iter().map(|score| score.margin).fold(0.0, f64::max);
    assert!(margin <= MARGIN, "a margin of {margin}");
}

/// Requests under all kinds of sampling.
async fn requests(engine: &dyn Engine) -> Vec<GenerateRequest> {
    let penalties =
        Sampling { frequency_penalty_milli: 700, presence_penalty_milli: -300, ..at(900) };
    let kinds = [
        at(0),
        at(1000),
        at(2000),
        Sampling { top_p_milli: 800, ..at(700) },
        Sampling { top_k: 5, min_p_milli: 100, ..at(1000) },
        penalties,
    ];
    let mut all = Vec::new();
    for (sampling, byte) in kinds.into_iter().zip(1..) {
        let base = request(engine, "How does a session end?").await;
        all.push(GenerateRequest { sampling, seed: B256::repeat_byte(byte), ..base });
    }
    all
}

async fn load(source: ModelSource, change: impl FnOnce(&mut LoadOptions)) -> MistralEngine {
    let folder = Folder::new();
    let mut options = LoadOptions { lanes: 1, ..LoadOptions::new(source, folder.path()) };
    change(&mut options);
    MistralEngine::load(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_answer_scores_as_it_was_made() {
    let engine = demo().await;
    for one in requests(engine).await {
        let made = run(engine, one.clone()).await;
        let scores = engine.score(score_of(&one, &made.ids)).await.unwrap();
        assert_honest(&made, &scores);
        assert!(made.contrasts.iter().any(|c| c.values().iter().any(|v| v.abs() > 100)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_by_row_gives_the_same() {
    let source = ModelSource::Directory(demo_folder());
    let engine = load(source, |options| options.score_bytes = 0).await;
    for one in requests(&engine).await {
        let made = run(&engine, one.clone()).await;
        assert_honest(&made, &engine.score(score_of(&one, &made.ids)).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_precision_leaves_another_fingerprint() {
    let engine = demo().await;
    let half = load(ModelSource::Directory(demo_folder()), |o| o.dtype = Dtype::F16).await;
    let eight = load(ModelSource::Gguf(demo_file("assay-demo-q8_0.gguf")), |_| {}).await;
    let four = load(ModelSource::Gguf(demo_file("assay-demo-q4_k.gguf")), |_| {}).await;
    let mut medians = Vec::new();
    for other in [&half, &eight, &four] {
        let mut all = Vec::new();
        for one in requests(engine).await {
            let made = run(other, one.clone()).await;
            let own = other.score(score_of(&one, &made.ids)).await.unwrap();
            let ours = engine.score(score_of(&one, &made.ids)).await.unwrap();
            assert!(median(distances(&made.contrasts, &own)) <= 2);
            all.extend(distances(&made.contrasts, &ours));
        }
        medians.push(median(all));
    }
    println!("median distances of F16, Q8_0 and Q4_K to F32: {medians:?}");
    assert!(medians[0] < medians[1] && medians[1] < medians[2], "{medians:?}");
    assert!(medians[2] > 20, "{medians:?}");
}

#[tokio::test]
async fn quantising_one_model_leaves_the_next_as_it_is() {
    let source = || ModelSource::Directory(demo_folder());
    let plain = load(source(), |_| {}).await;
    let four = load(source(), |o| o.quantised = Some(Quantised::Q4K)).await;
    // The one thread that blocks here is the one that has just quantised.
    let again = load(source(), |_| {}).await;
    assert_eq!(four.manifest().quantisation, "Q4_K");
    assert_ne!(four.info().model_id, plain.info().model_id);
    assert_eq!(again.info().model_id, plain.info().model_id);
    let one = GenerateRequest { sampling: at(1000), ..request(&plain, "What is a miner?").await };
    let made = run(&plain, one.clone()).await;
    assert_eq!(run(&again, one.clone()).await, made);
    let scores = four.score(score_of(&one, &made.ids)).await.unwrap();
    assert!(median(distances(&made.contrasts, &scores)) > 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_not_chosen_has_a_margin() {
    let engine = demo().await;
    let one = GenerateRequest { sampling: at(1000), ..request(engine, "What is a miner?").await };
    let made = run(engine, one.clone()).await;
    let place = made.ids.len() / 2;
    let mut edited = made.ids.clone();
    edited[place] = (edited[place] + 100) % engine.info().vocab_size;
    let scores = engine.score(score_of(&one, &edited)).await.unwrap();
    assert!(scores[..place].iter().all(|score| score.margin <= MARGIN));
    assert!(scores[place].margin > 1.0, "{:?}", scores[place]);
    // What follows was made after another token.
    let after = median(distances(&made.contrasts[place + 1..], &scores[place + 1..]));
    assert!(after > 20, "{after}");

    // Another seed would have chosen other tokens, out of the same weights.
    let other = GenerateRequest { seed: B256::repeat_byte(99), sampling: at(2000), ..one.clone() };
    let hot = run(engine, GenerateRequest { sampling: at(2000), ..one }).await;
    let scores = engine.score(score_of(&other, &hot.ids)).await.unwrap();
    assert!(scores.iter().any(|score| score.margin > 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_claims_are_refused_or_scored_and_never_panic() {
    let engine = demo().await;
    let info = engine.info().clone();
    let prompt_ids = engine.tokenize(&Prompt::Text("Hello".into())).await.unwrap();
    let base = ScoreRequest {
        prompt_ids,
        claimed_ids: vec![5, 6, 7],
        sampling: at(1000),
        seed: B256::ZERO,
    };
    let code = |request: ScoreRequest| async move {
        let error: EngineError = engine.score(request).await.unwrap_err();
        assert!(error.is_client_fault() && !error.is_retryable());
        error.code()
    };
    assert_eq!(code(ScoreRequest { claimed_ids: vec![], ..base.clone() }).await, "empty_answer");
    assert_eq!(code(ScoreRequest { prompt_ids: vec![], ..base.clone() }).await, "empty_prompt");
    for id in [info.vocab_size, u32::MAX] {
        let claim = ScoreRequest { claimed_ids: vec![5, id], ..base.clone() };
        assert_eq!(code(claim).await, "unknown_token");
        let claim = ScoreRequest { prompt_ids: vec![id], ..base.clone() };
        assert_eq!(code(claim).await, "unknown_token");
    }
    let long = vec![5; info.max_context as usize];
    assert_eq!(code(ScoreRequest { claimed_ids: long, ..base.clone() }).await, "context_exceeded");
    let sampling = at(9999);
    assert_eq!(code(ScoreRequest { sampling, ..base.clone() }).await, "bad_parameter");

    // Nothing follows an end token.
    let end = engine.end_tokens()[0];
    let claim = ScoreRequest { claimed_ids: vec![5, end, 6, 7], ..base.clone() };
    assert_eq!(engine.score(claim).await.unwrap().len(), 2);
    // A token outside the allowed set.
    let sampling = Sampling { top_k: 1, ..at(0) };
    let claim = ScoreRequest { claimed_ids: vec![999], sampling, ..base.clone() };
    assert!(engine.score(claim).await.unwrap()[0].margin > 1.0);
    // The whole context, and then the engine still answers.
    let full = info.max_context as usize - base.prompt_ids.len();
    let claim = ScoreRequest { claimed_ids: vec![5; full], ..base.clone() };
    assert_eq!(engine.score(claim).await.unwrap().len(), full);
    for _ in 0..engine.lanes() {
        assert_eq!(engine.score(base.clone()).await.unwrap().len(), 3);
        assert!(!run(engine, request(engine, "Hello").await).await.ids.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scoring_and_generating_do_not_disturb_each_other() {
    let engine = demo().await;
    let requests = requests(engine).await;
    let mut made = Vec::new();
    for one in &requests {
        made.push(run(engine, one.clone()).await);
    }
    let generations = join_all(requests.iter().map(|one| run(engine, one.clone())));
    let scores = join_all(
        requests
            .iter()
            .zip(&made)
            .map(|(one, made)| async { engine.score(score_of(one, &made.ids)).await.unwrap() }),
    );
    let (again, scores) = join(generations, scores).await;
    assert_eq!(again, made);
    for (made, scores) in made.iter().zip(&scores) {
        assert_honest(made, scores);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_score_that_nobody_waits_for_gives_its_lane_back() {
    for score_bytes in [0, 1 << 30] {
        let source = ModelSource::Directory(demo_folder());
        let engine = load(source, |options| options.score_bytes = score_bytes).await;
        let one = request(&engine, "What is a session?").await;
        let made = run(&engine, one.clone()).await;
        for wait in [0, 1, 3] {
            let waited = std::time::Duration::from_millis(wait);
            let score = engine.score(score_of(&one, &made.ids));
            let _ = tokio::time::timeout(waited, score).await;
        }
        assert_honest(&made, &engine.score(score_of(&one, &made.ids)).await.unwrap());
        assert_eq!(run(&engine, one).await, made);
    }
}
