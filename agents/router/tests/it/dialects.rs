//! The APIs beside chat completions: what a client of each sees.

use assay_types::{Prompt, RequestBlock};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::tempdir;
use tokio_tungstenite::{connect_async, tungstenite::Message as Ws};

use crate::world::{MODEL, Miner, PATIENCE, PRICE_IN, PRICE_OUT, World, data_lines, hello};

/// The events of a stream that names them: each name is also its data's type.
fn named_events(body: &str) -> Vec<Value> {
    let lines: Vec<&str> = body.lines().filter(|line| !line.is_empty()).collect();
    let pairs = lines.chunks(2).map(|pair| {
        let name = pair[0].strip_prefix("event: ").unwrap_or_else(|| panic!("{body}"));
        let data: Value = serde_json::from_str(pair[1].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data["type"], name);
        data
    });
    pairs.collect()
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

/// Serves offers as they come, each with a word of its own.
async fn serve_each(miner: &mut Miner, words: &[&str]) {
    for word in words {
        miner.serve(&[word]).await;
    }
}

#[tokio::test]
async fn several_answers_are_several_tasks() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    let mut ask = hello(false);
    ask["n"] = json!(2);
    let (response, ()) = tokio::join!(world.ask(ask.clone()), serve_each(&mut miner, &["a", "b"]));
    assert_eq!(response.status(), 200);
    let header = response.headers()["x-assay-task"].to_str().unwrap().to_owned();
    let tasks: Vec<&str> = header.split(',').collect();
    assert_eq!(tasks.len(), 2, "{header}");
    let body: Value = response.json().await.unwrap();
    let mut texts = Vec::new();
    for (i, choice) in body["choices"].as_array().unwrap().iter().enumerate() {
        assert_eq!(choice["index"], i);
        texts.push(choice["message"]["content"].as_str().unwrap().to_owned());
    }
    texts.sort();
    assert_eq!(texts, ["a", "b"]);
    // Each prompt is paid, so each is counted.
    let usage = json!({"prompt_tokens": 14, "completion_tokens": 2, "total_tokens": 16});
    assert_eq!(body["usage"], usage);
    for task in tasks {
        assert_eq!(world.task(task).await["answer"], "complete");
    }

    ask["stream"] = json!(true);
    let (response, ()) = tokio::join!(world.ask(ask), serve_each(&mut miner, &["a", "b"]));
    let body = response.text().await.unwrap();
    let lines = data_lines(&body);
    assert_eq!(*lines.last().unwrap(), "[DONE]");
    let mut finished = Vec::new();
    for line in &lines[..lines.len() - 1] {
        let chunk: Value = serde_json::from_str(line).unwrap();
        let choice = &chunk["choices"][0];
        if choice["finish_reason"] == "stop" {
            finished.push(choice["index"].as_u64().unwrap());
        }
    }
    finished.sort_unstable();
    assert_eq!(finished, [0, 1]);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn one_answer_that_fails_ends_the_others() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1, 2]).await;
    let (mut one, mut two) = (world.miner(1).await, world.miner(2).await);
    let mut ask = hello(false);
    ask["n"] = json!(2);
    let serve = async {
        let (task, _) = one.offer().await;
        one.accept(task).await;
        let (lost, _) = two.offer().await;
        two.accept(lost).await;
        // Before its first token it would be replaced.
        two.token(lost, 0, "x").await;
        drop(two);
        // The one that works is told to stop.
        assert_eq!(one.cancelled().await.0, task);
    };
    let (response, ()) = tokio::join!(world.ask(ask), serve);
    assert_eq!(response.status(), 502);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "node_gone");
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_text_goes_on_without_a_template() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    let url = world.url("/v1/completions");
    let body = json!({"model": MODEL, "prompt": "Once", "max_tokens": 9});
    let (response, (_, offer)) =
        tokio::join!(world.http.post(&url).json(&body).send(), miner.serve(&[" upon", " a"]));
    let answer: Value = response.unwrap().json().await.unwrap();
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["choices"][0]["text"], " upon a");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["total_tokens"], 9);
    let block = RequestBlock::decode(&offer.block).unwrap();
    assert_eq!((block.prompt, block.max_output), (Prompt::Text("Once".into()), 9));

    let body = json!({
        "model": MODEL, "prompt": "Once", "stream": true, "stream_options": {"include_usage": true},
    });
    let (response, _) =
        tokio::join!(world.http.post(&url).json(&body).send(), miner.serve(&[" upon", " a"]));
    let body = response.unwrap().text().await.unwrap();
    let lines = data_lines(&body);
    let chunks: Vec<Value> =
        lines[..lines.len() - 1].iter().map(|l| serde_json::from_str(l).unwrap()).collect();
    let texts: Vec<&str> = chunks.iter().filter_map(|c| c["choices"][0]["text"].as_str()).collect();
    assert_eq!(texts, [" upon", " a", ""]);
    assert_eq!(chunks[3]["usage"]["completion_tokens"], 2);
    assert_eq!(*lines.last().unwrap(), "[DONE]");
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn anthropics_messages_have_its_words() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    let url = world.url("/v1/messages");
    let mut body = json!({
        "model": MODEL, "max_tokens": 9, "system": "Be brief.",
        "messages": [{"role": "user", "content": "Hi"}],
    });
    let (response, (task, _)) =
        tokio::join!(world.http.post(&url).json(&body).send(), miner.serve(&["Good", " day"]));
    let response = response.unwrap();
    assert_eq!(response.headers()["x-assay-task"], task.to_string());
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["content"], json!([{"type": "text", "text": "Good day"}]));
    assert_eq!(
        (&answer["stop_reason"], &answer["role"]),
        (&json!("end_turn"), &json!("assistant"))
    );
    assert_eq!(
        (&answer["usage"]["input_tokens"], &answer["usage"]["output_tokens"]),
        (&json!(7), &json!(2))
    );

    body["stream"] = json!(true);
    let (response, _) =
        tokio::join!(world.http.post(&url).json(&body).send(), miner.serve(&["Good", " day"]));
    let events = named_events(&response.unwrap().text().await.unwrap());
    let expected = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(types(&events), expected);
    assert_eq!(events[0]["message"]["usage"]["input_tokens"], 7);
    assert_eq!(events[3]["delta"], json!({"type": "text_delta", "text": " day"}));
    assert_eq!(events[5]["delta"]["stop_reason"], "end_turn");
    assert_eq!(events[5]["usage"]["output_tokens"], 2);

    // In the middle of a stream, too.
    let serve = async {
        let (task, _) = miner.offer().await;
        miner.accept(task).await;
        miner.token(task, 0, "half").await;
        drop(miner);
    };
    let (response, ()) = tokio::join!(world.http.post(&url).json(&body).send(), serve);
    let events = named_events(&response.unwrap().text().await.unwrap());
    let last = events.last().unwrap();
    assert_eq!((&last["type"], &last["error"]["type"]), (&json!("error"), &json!("api_error")));
    assert_eq!(last["error"]["code"], "node_gone");
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn anthropics_errors_have_its_shape() {
    let data = tempdir().unwrap();
    let world = World::bare(data.path(), alloy::signers::local::PrivateKeySigner::random()).await;
    let url = world.url("/v1/messages");
    let good =
        json!({"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]});
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body.to_string()
    };
    for (body, status, kind) in [
        (with("model", json!("claude")), 404, "not_found_error"),
        (with("tools", json!([{}])), 400, "invalid_request_error"),
        ("{".into(), 400, "invalid_request_error"),
        (" ".repeat(assay_router::config::MAX_BODY_BYTES + 1), 413, "request_too_large"),
        (good.to_string(), 503, "overloaded_error"),
    ] {
        let response = world.http.post(&url).body(body).send().await.unwrap();
        assert_eq!(response.status(), status, "{kind}");
        assert_eq!(response.headers().contains_key("retry-after"), status == 503);
        let body: Value = response.json().await.unwrap();
        assert_eq!((&body["type"], &body["error"]["type"]), (&json!("error"), &json!(kind)));
        assert!(body["error"]["message"].as_str().unwrap().len() > 20, "{body}");
        assert!(body["error"]["code"].is_string(), "{body}");
    }
    let response = world.http.get(&url).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["allow"].to_str().unwrap()),
        (405, "POST")
    );
    assert_eq!(response.json::<Value>().await.unwrap()["type"], "error");
    let response = world.http.post(&url).header("origin", "https://evil.example");
    let response = response.body("{}").send().await.unwrap();
    assert_eq!(response.status(), 403);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["type"], "permission_error");
    world.router.stop().await.unwrap();
}

const RESPONSE_EVENTS: [&str; 10] = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
];

/// The events of one response of the words `a` and `b`.
fn check_response_events(events: &[Value]) {
    assert_eq!(types(events), RESPONSE_EVENTS);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    assert_eq!(events[6]["text"], "ab");
    let response = &events[9]["response"];
    assert_eq!(response["status"], "completed");
    assert_eq!(response["output"][0]["content"][0]["text"], "ab");
    assert_eq!(response["usage"]["total_tokens"], 9);
}

#[tokio::test]
async fn responses_come_whole_and_as_events() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    let url = world.url("/v1/responses");
    let mut body = json!({"model": MODEL, "input": "Hi", "metadata": {"a": "b"}});
    let (response, (_, offer)) =
        tokio::join!(world.http.post(&url).json(&body).send(), miner.serve(&["a", "b"]));
    let answer: Value = response.unwrap().json().await.unwrap();
    assert_eq!((&answer["object"], &answer["status"]), (&json!("response"), &json!("completed")));
    assert_eq!(answer["output"][0]["content"][0]["text"], "ab");
    assert_eq!((&answer["metadata"]["a"], &answer["store"]), (&json!("b"), &json!(false)));
    let Prompt::Messages(messages) = RequestBlock::decode(&offer.block).unwrap().prompt else {
        panic!()
    };
    assert_eq!((messages[0].role.as_str(), messages[0].content.as_str()), ("user", "Hi"));

    body["stream"] = json!(true);
    let (response, _) =
        tokio::join!(world.http.post(&url).json(&body).send(), miner.serve(&["a", "b"]));
    check_response_events(&named_events(&response.unwrap().text().await.unwrap()));

    let serve = async {
        let (task, _) = miner.offer().await;
        miner.accept(task).await;
        miner.token(task, 0, "half").await;
        drop(miner);
    };
    let (response, ()) = tokio::join!(world.http.post(&url).json(&body).send(), serve);
    let events = named_events(&response.unwrap().text().await.unwrap());
    let [.., failed, last] = events.as_slice() else { panic!() };
    assert_eq!(failed["response"]["status"], "failed");
    assert_eq!((&last["type"], &last["code"]), (&json!("error"), &json!("node_gone")));
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_websocket_has_one_response_after_the_other() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    let (mut socket, _) =
        connect_async(format!("ws://{}/v1/responses", world.address())).await.unwrap();
    let create = json!({"type": "response.create", "model": MODEL, "input": "Hi"});
    let next = async |socket: &mut tokio_tungstenite::WebSocketStream<_>| -> Value {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
        serde_json::from_str(message.unwrap().unwrap().to_text().unwrap()).unwrap()
    };
    for _ in 0..2 {
        socket.send(Ws::text(create.to_string())).await.unwrap();
        miner.serve(&["a", "b"]).await;
        let mut events = Vec::new();
        while events.len() < RESPONSE_EVENTS.len() {
            events.push(next(&mut socket).await);
        }
        check_response_events(&events);
    }
    // What is wrong is said, and the connection goes on.
    for (wrong, status, code) in [
        (json!({"type": "response.cancel"}).to_string(), 400, "invalid_value"),
        ("{".into(), 400, "invalid_json"),
        (json!({"type": "response.create", "model": "x", "input": "y"}).to_string(), 404, "model_not_found"),
        (
            json!({"type": "response.create", "model": MODEL, "input": "y", "previous_response_id": "r"})
                .to_string(),
            400,
            "unsupported_parameter",
        ),
    ] {
        socket.send(Ws::text(wrong)).await.unwrap();
        let error = next(&mut socket).await;
        assert_eq!((&error["type"], &error["status"]), (&json!("error"), &json!(status)));
        assert_eq!(error["error"]["code"], code);
    }
    // A second one at once is refused; hanging up cancels the first.
    socket.send(Ws::text(create.to_string())).await.unwrap();
    let (task, _) = miner.offer().await;
    miner.accept(task).await;
    for expected in &RESPONSE_EVENTS[..4] {
        assert_eq!(next(&mut socket).await["type"], *expected);
    }
    socket.send(Ws::text(create.to_string())).await.unwrap();
    assert_eq!(next(&mut socket).await["error"]["code"], "response_in_progress");
    drop(socket);
    assert_eq!(miner.cancelled().await.0, task);
    world.task_until(&task.to_string(), |t| t["answer"] == "cancelled").await;
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn models_have_prices_miners_and_speeds() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1, 2]).await;
    let url = world.url(&format!("/v1/models/{MODEL}"));
    let shown =
        async || -> Value { world.http.get(&url).send().await.unwrap().json().await.unwrap() };
    let before = shown().await;
    assert_eq!((&before["id"], &before["context_length"]), (&json!(MODEL), &json!(4096)));
    assert_eq!(
        (&before["assay"]["miners_online"], &before["assay"]["sessions"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(before["assay"]["time_to_first_token_ms"], Value::Null);
    let mut miner = world.miner(1).await;
    let (response, _) = tokio::join!(world.ask(hello(false)), miner.serve(&["a", "b", "c"]));
    assert_eq!(response.status(), 200);
    let after = shown().await;
    assert_eq!(
        (&after["assay"]["miners_online"], &after["assay"]["measured_answers"]),
        (&json!(1), &json!(1))
    );
    let first = &after["assay"]["time_to_first_token_ms"];
    assert!(first["p50"].as_f64().unwrap() >= 0.0 && first["p95"] == first["p50"], "{first}");
    assert!(after["assay"]["tokens_per_second"].as_f64().unwrap() > 0.0, "{after}");
    let price = |minor: u128| json!((minor * 1_000_000).to_string());
    assert_eq!(after["assay"]["price_per_million_prompt_tokens"], price(PRICE_IN));
    assert_eq!(after["assay"]["price_per_million_answer_tokens"], price(PRICE_OUT));
    let list: Value =
        world.http.get(world.url("/v1/models")).send().await.unwrap().json().await.unwrap();
    assert_eq!(list["data"][0]["id"], MODEL);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn the_api_describes_itself_and_refuses_embeddings_clearly() {
    let data = tempdir().unwrap();
    let world = World::bare(data.path(), alloy::signers::local::PrivateKeySigner::random()).await;
    let document: Value =
        world.http.get(world.url("/openapi.json")).send().await.unwrap().json().await.unwrap();
    // Everything that it describes is there.
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let url = world.url(&path.replace("{name}", MODEL).replace("{id}", "0x00"));
            let method = method.to_uppercase().parse().unwrap();
            let response = world.http.request(method, url).body("{}").send().await.unwrap();
            let body: Value = response.json().await.unwrap();
            assert_ne!(body["error"]["code"], "unknown_url", "{path}: {operation}");
            assert_ne!(body["error"]["code"], "method_not_allowed", "{path}: {operation}");
        }
    }
    let page = world.http.get(world.url("/docs")).send().await.unwrap();
    assert!(
        page.headers()["content-security-policy"]
            .to_str()
            .unwrap()
            .starts_with("default-src 'none'")
    );
    let page = page.text().await.unwrap();
    // It loads nothing of others.
    assert!(
        !page.contains("http://") && !page.contains("https://") && page.contains("openapi.json")
    );
    let body = json!({"model": "text-embedding-3-small", "input": "x"});
    let refused = world.http.post(world.url("/v1/embeddings")).json(&body).send().await.unwrap();
    assert_eq!(refused.status(), 404);
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "no_embedding_model");
    let upgrade = world.http.get(world.url("/v1/responses")).send().await.unwrap();
    assert_eq!(upgrade.status(), 426);
    world.router.stop().await.unwrap();
}
