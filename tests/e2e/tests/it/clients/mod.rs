//! The official clients, unchanged but for their base URL, against a whole network.

mod schemathesis;

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use assay_harness::{Network, root};
use serde_json::{Value, json};

fn script(name: &str) -> PathBuf {
    root().join("tests/e2e/clients").join(name)
}

/// The Python with the clients of requirements.txt.
fn python() -> Command {
    let python = std::env::var_os("ASSAY_TEST_PYTHON").expect(
        "ASSAY_TEST_PYTHON names no Python with the clients: run the tests with script/test",
    );
    Command::new(python)
}

/// Runs a client that prints what it saw.
fn seen(network: &Network, mut client: Command) -> Value {
    let Output { status, stdout, stderr } = client.output().unwrap();
    let complaint = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{client:?}: {complaint}\n{}", network.log());
    serde_json::from_slice(&stdout).unwrap()
}

fn run_python(network: &Network, name: &str) -> Value {
    let mut client = python();
    client.arg(script(name)).arg(network.http_url().unwrap());
    client.arg(network.described("/model/name").unwrap());
    seen(network, client)
}

/// What the model says of a session. The noise that breaks near-ties differs from task to task, so only the sense
/// is compared.
fn makes_sense(text: &Value) {
    let text = text.as_str().unwrap();
    assert!(text.to_lowercase().contains("session"), "{text:?}");
    assert!(!text.contains("<|"), "special tokens leak: {text:?}");
}

fn is_counted(usage: &Value, names: [&str; 2]) {
    for name in names {
        assert!(usage[name].as_u64().unwrap() > 0, "{usage}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn official_clients_work_with_only_a_base_url() {
    let network = Network::start(Default::default()).await.unwrap();
    openai_for_python(&run_python(&network, "openai_apis.py"));
    anthropic_for_python(&run_python(&network, "anthropic_messages.py"));
    langchain(&run_python(&network, "langchain_chat.py"));
    let mut node = Command::new("node");
    node.arg(script("openai_node.mjs")).arg(network.http_url().unwrap());
    openai_for_node(&seen(&network, node));
    network.interrupt().await.unwrap();
}

fn openai_for_python(seen: &Value) {
    let several = seen["several"].as_array().unwrap();
    assert_eq!(several.len(), 2);
    several.iter().for_each(makes_sense);
    let (stopped, reason) = (seen["stopped"][0].as_str().unwrap(), &seen["stopped"][1]);
    assert!(!stopped.contains("session") && reason == "stop", "{seen}");
    assert!(!seen["completion"][0].as_str().unwrap().is_empty(), "{seen}");
    assert!(!seen["completion_streamed"].as_str().unwrap().is_empty(), "{seen}");
    makes_sense(&seen["response"][0]);
    let ends = ["completed", "incomplete"];
    assert!(ends.contains(&seen["response"][1].as_str().unwrap()), "{seen}");
    let streamed = &seen["response_streamed"];
    makes_sense(&streamed[0]);
    assert_eq!(streamed[0], streamed[1], "the deltas are not the response");
    assert!(streamed[3].as_u64().unwrap() > 0, "no piece came: {streamed}");
    makes_sense(&seen["websocket"][0]);
    assert!(seen["websocket"][1].as_str().unwrap().starts_with("response."), "{seen}");
    has_logprobs(seen);
    let model = &seen["model"];
    assert!(model["miners_online"].as_u64().unwrap() > 0, "{model}");
    assert!(model["price_per_million_answer_tokens"].as_str().unwrap().len() > 3, "{model}");
    assert!(model["time_to_first_token_ms"]["p95"].as_f64().unwrap() > 0.0, "{model}");
    assert!(model["tokens_per_second"].as_f64().unwrap() > 0.0, "{model}");
    for (name, class, code, param) in [
        ("model", "NotFoundError", "model_not_found", "model"),
        ("seed", "BadRequestError", "unsupported_parameter", "seed"),
        ("logprobs", "BadRequestError", "invalid_value", "top_logprobs"),
        ("previous", "BadRequestError", "unsupported_parameter", "previous_response_id"),
        ("embeddings", "NotFoundError", "no_embedding_model", "model"),
        ("long", "BadRequestError", "context_length_exceeded", "messages"),
    ] {
        let error = &seen["errors"][name];
        let shown = json!([error["class"], error["code"], error["param"]]);
        assert_eq!(shown, json!([class, code, param]), "{name}: {error}");
    }
}

/// What a client reads of the tokens' log probabilities is the text that it is shown, and likely.
fn has_logprobs(seen: &Value) {
    for (kind, top) in [("logprobs", 3), ("logprobs_streamed", 3), ("logprobs_included", 2)] {
        let stated = &seen[kind];
        assert_eq!(stated["text"], stated["shown"], "{kind}: {stated}");
        makes_sense(&stated["text"]);
        let values = stated["logprobs"].as_array().unwrap();
        let values: Vec<f64> = values.iter().map(|value| value.as_f64().unwrap()).collect();
        assert!(values.iter().all(|value| (-20.0..=0.0).contains(value)), "{kind}: {stated}");
        assert_eq!(stated["tops"], json!(vec![top; values.len()]), "{kind}");
        // The noise that breaks near-ties may prefer another one here and there.
        let greedy = stated["greedy"].as_array().unwrap();
        let greedy = greedy.iter().filter(|is_top| **is_top == true).count();
        assert!(greedy * 10 >= values.len() * 9, "{kind}: {stated}");
        if let Some(tokens) = stated["tokens"].as_u64() {
            assert_eq!(tokens as usize, values.len(), "{kind}");
        }
    }
    let together = seen["logprobs_streamed"]["together"].as_array().unwrap();
    assert!(together.iter().all(|chunk| chunk == true), "{}", seen["logprobs_streamed"]);
    let listed = &seen["logprobs_listed"];
    let lists = ["tokens", "token_logprobs", "top_logprobs", "text_offset"];
    let lengths = lists.map(|list| listed[list].as_array().unwrap().len());
    assert!(lengths[0] > 0 && lengths.iter().all(|length| *length == lengths[0]), "{listed}");
    assert_eq!(
        (&listed["text_offset"][0], listed["token_logprobs"][0].is_f64()),
        (&json!(0), true)
    );
}

fn anthropic_for_python(seen: &Value) {
    makes_sense(&seen["plain"][0]);
    is_counted(&seen["plain"][2], ["input_tokens", "output_tokens"]);
    assert_eq!(seen["cut"], json!(["max_tokens", 2]));
    let stopped = &seen["stopped"];
    assert!(!stopped[0].as_str().unwrap().contains("session"), "{stopped}");
    assert_eq!((&stopped[1], &stopped[2]), (&json!("stop_sequence"), &json!("session")));
    let streamed = &seen["streamed"];
    makes_sense(&streamed[0]);
    assert_eq!(streamed[0], streamed[1], "the deltas are not the message");
    assert!(streamed[3].as_u64().unwrap() > 0, "no piece came: {streamed}");
    is_counted(&seen["streamed_usage"], ["input_tokens", "output_tokens"]);
    for (name, class, kind) in [
        ("model", "NotFoundError", "not_found_error"),
        ("tools", "BadRequestError", "invalid_request_error"),
        ("streamed", "BadRequestError", "invalid_request_error"),
    ] {
        let error = &seen["errors"][name];
        assert_eq!(error["class"], class, "{name}: {error}");
        assert_eq!(error["body"]["error"]["type"], kind, "{name}: {error}");
    }
}

fn langchain(seen: &Value) {
    makes_sense(&seen["plain"][0]);
    is_counted(&seen["plain"][2], ["input_tokens", "output_tokens"]);
    makes_sense(&seen["streamed"][0]);
    is_counted(&seen["streamed"][1], ["input_tokens", "output_tokens"]);
    assert!(seen["streamed"][2].as_u64().unwrap() > 0, "{seen}");
    seen["batch"].as_array().unwrap().iter().for_each(makes_sense);
    makes_sense(&seen["responses"]);
    let errors = json!({
        "model": ["OpenAIModelNotFoundError", "model_not_found"],
        "seed": ["OpenAIInvalidRequestError", "unsupported_parameter"],
        "stream": ["OpenAIModelNotFoundError", "model_not_found"],
    });
    assert_eq!(seen["errors"], errors);
}

fn openai_for_node(seen: &Value) {
    assert!(seen["task"].as_str().unwrap().starts_with("0x"), "{seen}");
    for kind in ["plain", "streamed"] {
        makes_sense(&seen[kind][0]);
        is_counted(&seen[kind][2], ["prompt_tokens", "completion_tokens"]);
    }
    assert!(seen["streamed"][3].as_u64().unwrap() > 0, "{seen}");
    makes_sense(&seen["helper"]);
    makes_sense(&seen["response"][0]);
    makes_sense(&seen["response_streamed"][0]);
    let ends = ["response.completed", "response.incomplete"];
    assert!(ends.contains(&seen["response_streamed"][1].as_str().unwrap()), "{seen}");
    let errors = json!({
        "model": ["NotFoundError", 404, "model_not_found", "model"],
        "tools": ["BadRequestError", 400, "unsupported_parameter", "tools"],
        "streamed": ["BadRequestError", 400, "invalid_value", "top_p"],
    });
    assert_eq!(seen["errors"], errors);
}
