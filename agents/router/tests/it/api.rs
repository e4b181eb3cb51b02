//! Answers and refusals, as a client sees them.

use assay_types::{Prompt, RequestBlock, Signed, sha256};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::world::{CHAIN_ID, MODEL, PRICE_IN, PRICE_OUT, World, data_lines, events, hello, queue};

#[tokio::test]
async fn a_plain_answer_has_text_usage_and_task() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    let (response, (task, offer)) =
        tokio::join!(world.ask(hello(false)), miner.serve(&["Hi", " there", ""]));
    assert_eq!(response.status(), 200);
    let id = response.headers()["x-assay-task"].to_str().unwrap().to_owned();
    assert_eq!(id, task.to_string());
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], MODEL);
    assert_eq!(body["choices"][0]["message"]["role"], "assistant");
    assert_eq!(body["choices"][0]["message"]["content"], "Hi there");
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    assert_eq!(
        body["usage"],
        json!({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10})
    );

    // What the miner was sent is signed by the router's key, and its digest is that of the block.
    let request = &offer.request;
    let signer = request.signer(CHAIN_ID, queue(), &offer.signature).unwrap();
    assert_eq!(signer, world.key.address());
    assert_eq!(request.requestDigest, sha256(&offer.block));
    assert_eq!((request.sessionId, request.lane, request.nonce, request.nodeId), (1, 1, 0, 1));
    let fee = PRICE_IN * u128::from(request.maxPrompt) + PRICE_OUT * u128::from(request.maxOutput);
    assert_eq!(request.feeCap.to::<u128>(), fee);
    assert_eq!((request.seedRound, request.redundancy, request.attempts), (9, 1, 1));
    let block = RequestBlock::decode(&offer.block).unwrap();
    let Prompt::Messages(messages) = block.prompt else { panic!() };
    assert_eq!((messages[0].role.as_str(), messages[0].content.as_str()), ("user", "Hello"));

    let submitted = world.task_until(&id, |t| events(t).contains(&"request_pinned")).await;
    assert_eq!(world.chain.submitted.lock().unwrap().as_slice(), std::slice::from_ref(request));
    assert_eq!(submitted["answer"], "complete");
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_streamed_answer_has_openais_chunks() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    let mut ask = hello(true);
    ask["stream_options"] = json!({"include_usage": true});
    let (response, (task, _)) = tokio::join!(world.ask(ask), miner.serve(&["a", "", "b"]));
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-assay-task"], task.to_string());
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let body = response.text().await.unwrap();
    let lines = data_lines(&body);
    assert_eq!(*lines.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> =
        lines[..lines.len() - 1].iter().map(|l| serde_json::from_str(l).unwrap()).collect();
    let deltas: Vec<&Value> = chunks.iter().map(|c| &c["choices"][0]["delta"]).collect();
    assert_eq!(*deltas[0], json!({"role": "assistant", "content": ""}));
    assert_eq!(*deltas[1], json!({"content": "a"}));
    assert_eq!(*deltas[2], json!({"content": "b"}));
    assert_eq!(*deltas[3], json!({}));
    assert_eq!(chunks[3]["choices"][0]["finish_reason"], "stop");
    assert_eq!(chunks[4]["choices"], json!([]));
    assert_eq!(chunks[4]["usage"]["total_tokens"], 10);
    assert!(chunks[..4].iter().all(|c| c["usage"].is_null() && c["id"] == chunks[0]["id"]));
    assert_eq!(chunks.len(), 5);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn tokens_are_forwarded_as_they_come() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    let (mut response, task) = tokio::join!(world.ask(hello(true)), async {
        let (task, _) = miner.offer().await;
        miner.accept(task).await;
        miner.token(task, 0, "first").await;
        task
    });
    // The second token is sent only after the first one has arrived at the client.
    let mut seen = String::new();
    while !seen.contains("first") {
        seen.push_str(&String::from_utf8_lossy(&response.chunk().await.unwrap().unwrap()));
    }
    assert!(!seen.contains("second"));
    miner.token(task, 1, "second").await;
    miner.finish(task, &["first", "second"], "firstsecond").await;
    let rest = response.text().await.unwrap();
    assert!(rest.contains("second") && rest.contains("[DONE]"), "{rest}");
    assert!(!rest.contains("\"usage\""), "usage was not asked for: {rest}");
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn two_clients_at_once_get_their_own_answers() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1, 2]).await;
    let (mut one, mut two) = (world.miner(1).await, world.miner(2).await);
    let (a, b, (_, offer_one), (_, offer_two)) = tokio::join!(
        world.ask(hello(false)),
        world.ask(hello(false)),
        one.serve(&["from one"]),
        two.serve(&["from two"]),
    );
    let mut texts = Vec::new();
    for response in [a, b] {
        let body: Value = response.json().await.unwrap();
        texts.push(body["choices"][0]["message"]["content"].as_str().unwrap().to_owned());
    }
    texts.sort();
    assert_eq!(texts, ["from one", "from two"]);
    let mut nonces = [offer_one.request.nonce, offer_two.request.nonce];
    nonces.sort_unstable();
    assert_eq!(nonces, [0, 1]);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_full_node_makes_requests_wait() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    // The fake miner runs two tasks at once: the third offer comes when the first is done.
    let asks = futures::future::join_all((0..3).map(|_| world.ask(hello(false))));
    let serve = async {
        let (first, _) = miner.offer().await;
        let (second, _) = miner.offer().await;
        for task in [first, second] {
            miner.accept(task).await;
            miner.token(task, 0, "x").await;
        }
        miner.finish(first, &["x"], "x").await;
        miner.serve(&["x"]).await;
        miner.finish(second, &["x"], "x").await;
    };
    let (responses, ()) = tokio::join!(asks, serve);
    assert!(responses.iter().all(|r| r.status() == 200), "{responses:?}");
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn bad_requests_are_refused_by_name() {
    let data = tempdir().unwrap();
    let world = World::bare(data.path(), alloy::signers::local::PrivateKeySigner::random()).await;
    let with = |name: &str, value: Value| {
        let mut body = hello(false);
        body[name] = value;
        body
    };
    for (body, status, code, param) in [
        (with("model", json!("gpt-4o")), 404, "model_not_found", json!("model")),
        (with("seed", json!(7)), 400, "unsupported_parameter", json!("seed")),
        (with("tools", json!([])), 400, "unsupported_parameter", json!("tools")),
        (with("n", json!(9)), 400, "invalid_value", json!("n")),
        (with("top_logprobs", json!(2)), 400, "invalid_value", json!("top_logprobs")),
        (with("nonsense", json!(1)), 400, "unsupported_parameter", json!("nonsense")),
        (with("temperature", json!(0.12345)), 400, "invalid_value", json!("temperature")),
        (with("max_tokens", json!(1_000_000)), 400, "context_length_exceeded", json!("max_tokens")),
        (hello(false), 503, "no_session", Value::Null),
    ] {
        let response = world.ask(body.clone()).await;
        assert_eq!(response.status(), status, "{body}");
        assert_eq!(response.headers().contains_key("retry-after"), status == 503);
        let error: Value = response.json().await.unwrap();
        assert_eq!(error["error"]["code"], code, "{body}: {error}");
        assert_eq!(error["error"]["param"], param, "{body}: {error}");
        assert!(error["error"]["message"].as_str().unwrap().contains(' '));
        assert!(error["error"]["type"].is_string());
    }
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn bodies_paths_and_pages_are_checked() {
    let data = tempdir().unwrap();
    let world = World::bare(data.path(), alloy::signers::local::PrivateKeySigner::random()).await;
    let chat = world.url("/v1/chat/completions");
    let send = |body: Vec<u8>| world.http.post(&chat).body(body).send();
    for (body, status, code) in [
        (b"{\"model\": ".to_vec(), 400, "invalid_json"),
        (b"[]".to_vec(), 400, "invalid_json"),
        (vec![0xff, 0xfe], 400, "invalid_json"),
        (vec![b' '; assay_router::config::MAX_BODY_BYTES + 1], 413, "request_too_large"),
    ] {
        let response = send(body).await.unwrap();
        assert_eq!(response.status(), status);
        let error: Value = response.json().await.unwrap();
        assert_eq!(error["error"]["code"], code);
    }
    for (path, status) in
        [("/v1/nothing", 404), ("/v1/chat/completions", 405), ("/v1/models/x", 404)]
    {
        let response = world.http.get(world.url(path)).send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert!(response.json::<Value>().await.unwrap()["error"]["code"].is_string());
    }
    let page = world.http.get(world.url("/v1/models")).header("origin", "https://evil.example");
    assert_eq!(page.send().await.unwrap().status(), 403);
    let models: Value =
        world.http.get(world.url("/v1/models")).send().await.unwrap().json().await.unwrap();
    assert_eq!(models["data"][0]["id"], MODEL);
    assert_eq!(models["data"][0]["object"], "model");
    let ready = world.http.get(world.url("/ready")).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains("lane"));
    assert_eq!(world.http.get(world.url("/health")).send().await.unwrap().status(), 200);
    let task = world.http.get(world.url(&format!("/v1/tasks/0x{}", "ab".repeat(32)))).send().await;
    assert_eq!(task.unwrap().status(), 404);
    assert_eq!(world.http.get(world.url("/v1/tasks/7")).send().await.unwrap().status(), 400);
    world.router.stop().await.unwrap();
}
