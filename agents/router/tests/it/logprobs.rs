//! Log probabilities: each API words what the node states, where it was asked for, and a node that does not state it is
//! at fault.

use assay_types::{
    RequestBlock, TaskId, TokenLogprob, TokenLogprobs, TokenName,
    link::{FromMiner, Offer},
};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::tempdir;
use tokio_tungstenite::{connect_async, tungstenite::Message as Ws};

use crate::world::{MODEL, Miner, World, data_lines, events, hello};

/// "a€" in three tokens, the second of which has no text yet, and the end token.
const TEXTS: [&str; 4] = ["a", "", "€", ""];

fn name(place: usize) -> TokenName {
    match place {
        0 => TokenName::Text("a".into()),
        1 => TokenName::Bytes(vec![0xE2].into()),
        2 => TokenName::Bytes(vec![0x82, 0xAC].into()),
        _ => TokenName::Special("<end>".into()),
    }
}

/// What is stated of a token with `top` alternatives, the first of which it is itself.
fn stated(place: usize, top: u32) -> TokenLogprobs {
    let chosen = TokenLogprob { token: name(place), logprob_micronats: -250_000 };
    let other = |n: u32| TokenLogprob {
        token: TokenName::Text(format!("{n}")),
        logprob_micronats: -1_000_000 * i64::from(n),
    };
    let top = (0..top).map(|n| if n == 0 { chosen.clone() } else { other(n) }).collect();
    TokenLogprobs { chosen, top }
}

/// Serves one offer as its request block wants it, which is returned.
async fn serve(miner: &mut Miner) -> Box<Offer> {
    let (task, offer) = miner.offer().await;
    answer(miner, task, wish(&offer)).await;
    offer
}

fn wish(offer: &Offer) -> Option<u32> {
    RequestBlock::decode(&offer.block).unwrap().top_logprobs
}

async fn answer(miner: &mut Miner, task: TaskId, top: Option<u32>) {
    miner.accept(task).await;
    for (place, text) in TEXTS.into_iter().enumerate() {
        let logprobs = top.into_iter().map(|top| stated(place, top)).collect();
        miner.stated(task, u32::try_from(place).unwrap(), text, logprobs).await;
    }
    miner.finish(task, &TEXTS, "a€").await;
}

async fn whole(world: &World, miner: &mut Miner, path: &str, body: Value) -> (Value, Box<Offer>) {
    let request = world.http.post(world.url(path)).json(&body).send();
    let (response, offer) = tokio::join!(request, serve(miner));
    let response = response.unwrap();
    assert_eq!(response.status(), 200);
    (response.json().await.unwrap(), offer)
}

/// The chunks of a stream.
async fn streamed(world: &World, miner: &mut Miner, path: &str, mut body: Value) -> Vec<Value> {
    body["stream"] = json!(true);
    let request = world.http.post(world.url(path)).json(&body).send();
    let (response, _) = tokio::join!(request, serve(miner));
    let text = response.unwrap().text().await.unwrap();
    let chunks = data_lines(&text).into_iter().filter(|line| *line != "[DONE]");
    chunks.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn names<'a>(content: impl IntoIterator<Item = &'a Value>) -> Vec<&'a str> {
    content.into_iter().map(|entry| entry["token"].as_str().unwrap()).collect()
}

const NAMES: [&str; 4] = ["a", "\\xe2", "\\x82\\xac", "<end>"];

#[tokio::test]
async fn a_chat_has_them_whole_and_with_the_text_of_their_tokens() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    let mut ask = hello(false);
    let path = "/v1/chat/completions";
    let (plain, offer) = whole(&world, &mut miner, path, ask.clone()).await;
    assert_eq!((wish(&offer), &plain["choices"][0]["logprobs"]), (None, &Value::Null));
    assert!(!String::from_utf8_lossy(&offer.block).contains("logprobs"));

    ask["logprobs"] = json!(true);
    let (body, offer) = whole(&world, &mut miner, path, ask.clone()).await;
    assert_eq!(wish(&offer), Some(0));
    let content = body["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(names(content), NAMES);
    assert_eq!(body["usage"]["completion_tokens"], content.len());
    assert_eq!((&content[0]["top_logprobs"], &content[3]["bytes"]), (&json!([]), &Value::Null));

    ask["top_logprobs"] = json!(2);
    let (body, _) = whole(&world, &mut miner, path, ask.clone()).await;
    let entry = json!({
        "token": "\\xe2", "logprob": -0.25, "bytes": [0xE2],
        "top_logprobs": [
            {"token": "\\xe2", "logprob": -0.25, "bytes": [0xE2]},
            {"token": "1", "logprob": -1.0, "bytes": [0x31]},
        ],
    });
    assert_eq!(body["choices"][0]["logprobs"]["content"][1], entry);

    let chunks = streamed(&world, &mut miner, path, ask).await;
    let mut parts = Vec::new();
    for chunk in &chunks {
        let choice = &chunk["choices"][0];
        let content = choice["logprobs"]["content"].as_array();
        let text = choice["delta"]["content"].as_str().unwrap_or_default().to_owned();
        parts.push((text, names(content.into_iter().flatten())));
    }
    let expected = [("", &[][..]), ("a", &NAMES[..1]), ("€", &NAMES[1..3]), ("", &NAMES[3..])];
    assert_eq!(parts, expected.map(|(text, names)| (text.to_owned(), names.to_vec())));
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn several_answers_have_their_own() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    let mut ask = hello(false);
    (ask["n"], ask["logprobs"], ask["top_logprobs"]) = (json!(2), json!(true), json!(1));
    let both = async {
        serve(&mut miner).await;
        serve(&mut miner).await;
    };
    let (response, ()) = tokio::join!(world.ask(ask), both);
    let body: Value = response.json().await.unwrap();
    for choice in body["choices"].as_array().unwrap() {
        assert_eq!(names(choice["logprobs"]["content"].as_array().unwrap()), NAMES);
    }
    assert_eq!(body["choices"].as_array().unwrap().len(), 2);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_completion_has_four_lists() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    let ask = json!({"model": MODEL, "prompt": "Once", "logprobs": 2});
    let path = "/v1/completions";
    let (body, offer) = whole(&world, &mut miner, path, ask.clone()).await;
    assert_eq!(wish(&offer), Some(2));
    let expected = json!({
        "tokens": ["a", "bytes:\\xe2", "bytes:\\x82\\xac", "<end>"],
        "token_logprobs": [-0.25, -0.25, -0.25, -0.25],
        "top_logprobs": [
            {"a": -0.25, "1": -1.0}, {"bytes:\\xe2": -0.25, "1": -1.0},
            {"bytes:\\x82\\xac": -0.25, "1": -1.0}, {"<end>": -0.25, "1": -1.0},
        ],
        "text_offset": [0, 1, 1, 2],
    });
    assert_eq!(body["choices"][0]["logprobs"], expected);

    let chunks = streamed(&world, &mut miner, path, ask).await;
    for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        let parts = chunks.iter().filter_map(|c| c["choices"][0]["logprobs"][list].as_array());
        let joined: Vec<&Value> = parts.flatten().collect();
        assert_eq!(json!(joined), expected[list], "{list}");
    }
    world.router.stop().await.unwrap();
}

fn ask_for_a_response() -> Value {
    json!({
        "model": MODEL, "input": "Hi", "include": ["message.output_text.logprobs"],
        "top_logprobs": 1,
    })
}

/// The events of a response.
fn check_events(events: &[Value]) {
    let of = |kind: &'static str| events.iter().filter(move |event| event["type"] == kind);
    let deltas: Vec<&Value> = of("response.output_text.delta").collect();
    let stated = |value: &Value| value["logprobs"].as_array().unwrap().clone();
    assert_eq!(names(&stated(deltas[0])), NAMES[..1]);
    assert_eq!(names(&stated(deltas[1])), NAMES[1..3]);
    assert_eq!(names(&stated(of("response.output_text.done").next().unwrap())), NAMES);
    let done = of("response.completed").next().unwrap();
    assert_eq!(names(&stated(&done["response"]["output"][0]["content"][0])), NAMES);
}

#[tokio::test]
async fn a_response_has_them_also_as_a_websocket() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    let (path, mut ask) = ("/v1/responses", ask_for_a_response());
    let (body, offer) = whole(&world, &mut miner, path, ask.clone()).await;
    assert_eq!((wish(&offer), &body["top_logprobs"]), (Some(1), &json!(1)));
    let content = body["output"][0]["content"][0]["logprobs"].as_array().unwrap();
    assert_eq!((names(content), &content[3]["bytes"]), (NAMES.to_vec(), &json!([])));
    check_events(&streamed(&world, &mut miner, path, ask.clone()).await);

    let url = format!("ws://{}/v1/responses", world.address());
    let (mut socket, _) = connect_async(url).await.unwrap();
    ask["type"] = json!("response.create");
    socket.send(Ws::text(ask.to_string())).await.unwrap();
    serve(&mut miner).await;
    let mut events: Vec<Value> = Vec::new();
    while events.last().is_none_or(|event| event["type"] != "response.completed") {
        let message = socket.next().await.unwrap().unwrap();
        events.push(serde_json::from_str(message.to_text().unwrap()).unwrap());
    }
    check_events(&events);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_node_that_states_none_is_replaced() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1, 2]).await;
    let (mut one, mut two) = (world.miner(1).await, world.miner(2).await);
    let mut ask = hello(false);
    ask["logprobs"] = json!(true);
    let both = async {
        // Whichever is asked first leaves them out; then the other one answers.
        let ((task, _), first, second) = tokio::select! {
            offered = one.offer() => (offered, &mut one, &mut two),
            offered = two.offer() => (offered, &mut two, &mut one),
        };
        first.accept(task).await;
        first.token(task, 0, "a").await;
        serve(second).await;
        task
    };
    let (response, late) = tokio::join!(world.ask(ask), both);
    assert_eq!(response.status(), 200);
    let body: Value = response.json().await.unwrap();
    assert_eq!(names(body["choices"][0]["logprobs"]["content"].as_array().unwrap()), NAMES);
    let task = world.task_until(&late.to_string(), |task| events(task).contains(&"replaced")).await;
    assert_eq!(task["error"]["code"], "node_violation");
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn what_was_not_asked_for_or_cannot_be_is_a_violation() {
    for (wish, logprobs, what) in [
        (json!({}), vec![stated(0, 0)], "1 tokens instead of 0"),
        (json!({"logprobs": true}), vec![], "0 tokens instead of 1"),
        (json!({"logprobs": true}), vec![stated(0, 0), stated(1, 0)], "2 tokens instead of 1"),
        (json!({"logprobs": true}), vec![stated(0, 1)], "1 alternatives, where 0"),
        (json!({"logprobs": true, "top_logprobs": 3}), vec![stated(0, 2)], "2 alternatives"),
    ] {
        let data = tempdir().unwrap();
        let world = World::with_nodes(data.path(), &[1]).await;
        let mut miner = world.miner(1).await;
        let mut ask = hello(false);
        for (name, value) in wish.as_object().unwrap() {
            ask[name] = value.clone();
        }
        let lie = async {
            let (task, _) = miner.offer().await;
            miner.accept(task).await;
            let (ids, text) = (vec![100], "a".into());
            miner.send(FromMiner::Token { task, seq: 0, ids, text, logprobs }).await;
        };
        let (response, ()) = tokio::join!(world.ask(ask), lie);
        assert_eq!(response.status(), 502);
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["code"], "node_violation");
        assert!(body["error"]["message"].as_str().unwrap().contains(what), "{body}");
        world.router.stop().await.unwrap();
    }
}
