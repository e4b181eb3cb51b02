use std::time::Duration;

use assay_engine::{
    B256, EndReason, Engine, EngineError, GenerateEvent, GenerateRequest, Message, Prompt,
};
use assay_engine_mistral::{LoadOptions, MistralEngine, ModelSource};
use futures::{StreamExt, future::join_all};

use crate::support::{Folder, at, demo, demo_folder, demo_gguf, load, request, run, user};

const QUESTION: &str = "What is a session?";

#[tokio::test(flavor = "multi_thread")]
async fn greedy_answers_are_the_same_and_end() {
    let engine = demo().await;
    let base = request(engine, QUESTION).await;
    let one = run(engine, base.clone()).await;
    let two = run(engine, base.clone()).await;
    assert_eq!(one, two);
    println!("{:?}: {}", one.end_reason, one.text);
    assert!(!one.text.trim().is_empty());
    assert!(matches!(one.end_reason, EndReason::Eos | EndReason::Max));
    let ends = one.ids.iter().filter(|id| engine.end_tokens().contains(id)).count();
    assert_eq!(ends == 1, one.end_reason == EndReason::Eos);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seed_decides() {
    let engine = demo().await;
    let base = GenerateRequest { sampling: at(1500), ..request(engine, QUESTION).await };
    let one = run(engine, base.clone()).await;
    assert_eq!(run(engine, base.clone()).await, one);
    let seeds = 2..8_u8;
    let others =
        seeds.map(|byte| GenerateRequest { seed: B256::repeat_byte(byte), ..base.clone() });
    let others = join_all(others.map(|request| run(engine, request))).await;
    assert!(others.iter().any(|other| other.ids != one.ids));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_is_the_detokenisation() {
    let engine = demo().await;
    for seed in 1..6 {
        // Hot enough for odd bytes and special tokens.
        let base = GenerateRequest {
            sampling: at(2000),
            seed: B256::repeat_byte(seed),
            ..request(engine, QUESTION).await
        };
        let done = run(engine, base).await;
        assert_eq!(engine.read(&done.ids, &[]).await.unwrap().text, done.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_at_a_stop_sequence() {
    let engine = demo().await;
    let base = request(engine, QUESTION).await;
    let whole = run(engine, base.clone()).await;
    let middle: Vec<char> = whole.text.chars().skip(10).take(6).collect();
    let stop: String = middle.into_iter().collect();
    let cut = whole.text.find(&stop).unwrap();
    let done = run(engine, GenerateRequest { stop: vec![stop], ..base }).await;
    assert_eq!(done.end_reason, EndReason::Stop);
    assert_eq!(done.text, whole.text[..cut]);
    assert!(whole.ids.starts_with(&done.ids) && done.ids.len() < whole.ids.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_at_max_output() {
    let engine = demo().await;
    let base = request(engine, QUESTION).await;
    for max_output in [1, 3] {
        let done = run(engine, GenerateRequest { max_output, ..base.clone() }).await;
        assert_eq!((done.ids.len() as u32, done.end_reason), (max_output, EndReason::Max));
        assert_eq!(engine.read(&done.ids, &[]).await.unwrap().text, done.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stream_frees_the_engine() {
    let folder = Folder::new();
    // One at a time: a generation that was not cancelled would block the next.
    let options = LoadOptions { lanes: 1, ..LoadOptions::new(ModelSource::Demo, folder.path()) };
    let engine = MistralEngine::load(options).await.unwrap();
    let space = engine.info().max_context - 40;
    for _ in 0..4 {
        let long = GenerateRequest {
            sampling: at(2000),
            max_output: space,
            ..request(&engine, QUESTION).await
        };
        let mut stream = engine.generate(long).await.unwrap();
        assert!(matches!(stream.next().await, Some(Ok(GenerateEvent::Token { .. }))));
    }
    let short = GenerateRequest { max_output: 2, ..request(&engine, QUESTION).await };
    let done = tokio::time::timeout(Duration::from_secs(60), run(&engine, short)).await.unwrap();
    assert_eq!(done.ids.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_requests_are_refused_at_once() {
    let engine = demo().await;
    let base = request(engine, QUESTION).await;
    let context = engine.info().max_context;
    let long = GenerateRequest { max_output: context, ..base.clone() };
    let error = engine.generate(long).await.unwrap_err();
    assert!(
        matches!(error, EngineError::ContextExceeded { max_context, .. } if max_context == context)
    );
    let fits =
        GenerateRequest { prompt_ids: vec![5; context as usize], max_output: 1, ..base.clone() };
    assert_eq!(engine.generate(fits).await.unwrap_err().code(), "context_exceeded");
    let unknown = GenerateRequest { prompt_ids: vec![engine.info().vocab_size], ..base.clone() };
    assert_eq!(engine.generate(unknown).await.unwrap_err().code(), "unknown_token");
    let empty = GenerateRequest { prompt_ids: vec![], ..base };
    assert_eq!(engine.generate(empty).await.unwrap_err().code(), "empty_prompt");
    let nothing = Prompt::Messages(vec![]);
    assert_eq!(engine.tokenize(&nothing).await.unwrap_err().code(), "empty_prompt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_fills_the_context_is_answered() {
    let engine = demo().await;
    let context = engine.info().max_context as usize;
    let base = request(engine, QUESTION).await;
    let prompt_ids = base.prompt_ids.iter().copied().cycle().take(context - 2).collect();
    let done = run(engine, GenerateRequest { prompt_ids, max_output: 2, ..base }).await;
    assert!(!done.ids.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_generations_run_at_once() {
    let engine = demo().await;
    let questions = ["What is a session?", "Hello", "Who are you?", "What does a miner do?"];
    let mut alone = Vec::new();
    let mut requests = Vec::new();
    for n in 0..8 {
        let base = request(engine, questions[n % questions.len()]).await;
        let one = GenerateRequest {
            sampling: at(if n < 4 { 0 } else { 800 }),
            seed: B256::repeat_byte(n as u8),
            max_output: 24,
            ..base
        };
        alone.push(run(engine, one.clone()).await);
        requests.push(one);
    }
    let together = join_all(requests.into_iter().map(|one| run(engine, one))).await;
    assert_eq!(alone, together);
    for done in together {
        assert_eq!(engine.read(&done.ids, &[]).await.unwrap().text, done.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_and_conversations_become_different_prompts() {
    let engine = demo().await;
    let text = engine.tokenize(&Prompt::Text(QUESTION.into())).await.unwrap();
    let chat = engine.tokenize(&user(QUESTION)).await.unwrap();
    assert!(chat.len() > text.len());
    assert_eq!(engine.tokenize(&user(QUESTION)).await.unwrap(), chat);
    let message = |role: &str| Message { role: role.into(), content: "Hi".into() };
    let longer = Prompt::Messages(vec![message("user"), message("assistant"), message("user")]);
    assert!(engine.tokenize(&longer).await.unwrap().len() > chat.len() / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gguf_copy_answers() {
    let folder = Folder::new();
    let copy = folder.path().join("tiny.gguf");
    std::fs::copy(demo_gguf(), &copy).unwrap();
    let engine = load(ModelSource::Gguf(copy), folder.path()).await.unwrap();
    assert_eq!(engine.info().model, "tiny");
    assert_eq!(engine.manifest().quantisation, "Q8_0");
    assert_eq!(engine.info().vocab_size, demo().await.info().vocab_size);
    let base = request(&engine, QUESTION).await;
    assert_eq!(base.prompt_ids, request(demo().await, QUESTION).await.prompt_ids);
    let done = run(&engine, base).await;
    println!("{:?}: {}", done.end_reason, done.text);
    assert!(!done.text.trim().is_empty());
    assert_eq!(engine.read(&done.ids, &[]).await.unwrap().text, done.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifest_names_the_model() {
    let engine = demo().await;
    let manifest = engine.manifest();
    assert_eq!(engine.info().model, "assay-demo");
    assert_eq!(engine.info().model_id, manifest.model_id().unwrap());
    assert_eq!(manifest.architecture, "LlamaForCausalLM");
    assert_eq!(manifest.vocab_size, engine.info().vocab_size);
    assert_eq!(manifest.end_tokens, engine.end_tokens());
    assert!(
        manifest.files.iter().any(|file| file.name == "model.safetensors" && file.bytes > 1 << 20)
    );
    assert!(manifest.chat_template_sha256.is_some());
    // The same files elsewhere are the same model.
    let folder = Folder::new();
    let again = load(ModelSource::Directory(demo_folder()), folder.path()).await.unwrap();
    assert_eq!(again.info().model_id, engine.info().model_id);
}
