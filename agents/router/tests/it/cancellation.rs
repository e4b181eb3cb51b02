//! The holder of a lane ends an answer to a request that it has signed: the node gets the holder's own word for that.

use alloy::signers::{SignerSync, local::PrivateKeySigner};
use assay_types::{
    Cancellation, Signature, Signed, TaskId,
    link::{CANCEL_SLACK_TOKENS, FromMiner, FromRouter, RECEIPT_EVERY_TOKENS, SignedCancellation},
};
use reqwest::Response;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};
use tokio::time::timeout;

use crate::{
    requests::{body, carry, connected, refusal, request, with_holder},
    world::{CHAIN_ID, Miner, PATIENCE, World, config, data_lines, queue},
};

fn signed(wallet: &PrivateKeySigner, task: TaskId, tokens: u32) -> Signature {
    let hash = Cancellation::new(task, tokens).signing_hash(CHAIN_ID, queue());
    wallet.sign_hash_sync(&hash).unwrap()
}

fn cancellation(tokens: u32, signature: Signature) -> Value {
    let signature = assay_types::Bytes::from(signature.as_bytes());
    json!({"tokens": tokens, "signature": signature})
}

async fn cancel(world: &World, task: impl std::fmt::Display, body: &Value) -> Response {
    let url = world.url(&format!("/v1/requests/{task}/cancel"));
    world.http.post(url).json(body).send().await.unwrap()
}

/// The node accepts what this body carries, and streams so many tokens.
async fn begin(world: &World, miner: &mut Miner, body: &Value, tokens: u32) -> (Response, TaskId) {
    let asking = tokio::spawn(carry(world, body));
    let (task, _) = miner.offer().await;
    miner.accept(task).await;
    stream(miner, task, tokens).await;
    (asking.await.unwrap(), task)
}

/// Streams so many tokens, with the receipts that are due between them.
async fn stream(miner: &mut Miner, task: TaskId, tokens: u32) {
    let key = miner.operator.clone();
    for seq in 0..tokens {
        if seq > 0 && seq.is_multiple_of(RECEIPT_EVERY_TOKENS) {
            let ids: Vec<u32> = (100..100 + seq).collect();
            miner.receipt(task, &ids, &key).await;
        }
        miner.token(task, seq, "x").await;
    }
}

/// Reads until the stream says that so many tokens have come.
async fn read_until(response: &mut Response, tokens: u32) {
    let (mut seen, wanted) = (String::new(), json!(tokens));
    let counts = |line: &&str| {
        let chunk: Value = serde_json::from_str(line).unwrap_or_default();
        chunk["usage"]["completion_tokens"] == wanted
    };
    while !(seen.ends_with("\n\n") && data_lines(&seen).iter().any(counts)) {
        let chunk = timeout(PATIENCE, response.chunk()).await.unwrap().unwrap();
        seen.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
    }
}

/// An answer whose client has read the first tokens. Should its node go away, there is time to come back.
struct UnderWay {
    wallet: PrivateKeySigner,
    world: World,
    miner: Miner,
    response: Response,
    task: TaskId,
    _data: TempDir,
}

impl UnderWay {
    async fn start(tokens: u32) -> Self {
        let (data, wallet) = (tempdir().unwrap(), PrivateKeySigner::random());
        let mut config = config(data.path());
        config.resume_timeout = PATIENCE;
        let world = with_holder(config, &wallet).await;
        let mut miner = connected(&world).await;
        let mut asked = body(&wallet, &request(1));
        asked["stream_options"] = json!({"include_usage": true});
        let (mut response, task) = begin(&world, &mut miner, &asked, tokens).await;
        read_until(&mut response, tokens).await;
        Self { wallet, world, miner, response, task, _data: data }
    }
}

#[tokio::test]
async fn the_holders_word_reaches_the_node_and_ends_the_answer() {
    let UnderWay { wallet, world, mut miner, response, task, _data } = UnderWay::start(3).await;
    let signature = signed(&wallet, task, 3);
    let taken = cancel(&world, task, &cancellation(3, signature)).await;
    assert_eq!(taken.status(), 202);
    let taken: Value = taken.json().await.unwrap();
    assert_eq!(taken, json!({"id": task, "object": "assay.cancellation", "tokens": 3}));
    let word = SignedCancellation { tokens: 3, signature };
    assert_eq!(miner.recv().await, Some(FromRouter::Cancel { task, signed: Some(word) }));
    // One that crossed it is shown to nobody.
    miner.token(task, 3, "unpaid").await;

    let rest = response.text().await.unwrap();
    let [end] = data_lines(&rest)[..] else { panic!("{rest}") };
    let end: Value = serde_json::from_str(end).unwrap();
    assert_eq!(end["error"]["code"], "cancelled");
    assert!(end["error"]["message"].as_str().unwrap().contains("3 tokens"), "{end}");
    let again = cancel(&world, task, &cancellation(3, signature)).await;
    assert_eq!(refusal(again).await, (404, "task_not_found".into()), "it is over");

    // The node has done nothing wrong: it is asked again, over the same connection.
    miner.send(FromMiner::Sealed { task }).await;
    let next = body(&wallet, &request(2));
    let (response, _) = tokio::join!(carry(&world, &next), miner.serve(&["y"]));
    assert_eq!(response.status(), 200);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_not_streamed_is_refused_as_cancelled() {
    let (data, wallet) = (tempdir().unwrap(), PrivateKeySigner::random());
    let world = with_holder(config(data.path()), &wallet).await;
    let mut miner = connected(&world).await;
    let mut asked = body(&wallet, &request(1));
    asked["stream"] = json!(false);
    let asking = tokio::spawn(carry(&world, &asked));
    let (task, _) = miner.offer().await;
    let word = cancellation(1, signed(&wallet, task, 1));
    let early = cancel(&world, task, &word).await;
    assert_eq!(refusal(early).await, (409, "too_many_tokens".into()), "no token has come");
    miner.accept(task).await;
    miner.token(task, 0, "x").await;
    // The router reads on until it has it.
    miner.send(FromMiner::Ping { seq: 1 }).await;
    assert_eq!(miner.recv().await, Some(FromRouter::Pong { seq: 1 }));
    assert_eq!(cancel(&world, task, &word).await.status(), 202);
    assert_eq!(refusal(asking.await.unwrap()).await, (409, "cancelled".into()));
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_not_the_holders_word_for_what_was_sent_ends_nothing() {
    let sent = CANCEL_SLACK_TOKENS + 2;
    let UnderWay { wallet, world, mut miner, response, task, _data } = UnderWay::start(sent).await;
    let other = TaskId(assay_types::B256::repeat_byte(9));
    let good = signed(&wallet, task, sent);
    let bytes = |signature: &Signature| assay_types::Bytes::from(signature.as_bytes());
    let with = |change: Value| {
        let mut body = cancellation(sent, good);
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        body
    };
    for (task, body, status, code) in [
        (other, cancellation(sent, signed(&wallet, other, sent)), 404, "task_not_found"),
        (task, cancellation(sent, signed(&world.key, task, sent)), 403, "wrong_signer"),
        (task, cancellation(sent, signed(&wallet, other, sent)), 403, "wrong_signer"),
        (task, cancellation(sent - 1, good), 403, "wrong_signer"),
        (task, cancellation(sent + 1, signed(&wallet, task, sent + 1)), 409, "too_many_tokens"),
        (task, cancellation(1, signed(&wallet, task, 1)), 409, "too_few_tokens"),
        (task, cancellation(0, signed(&wallet, task, 0)), 400, "invalid_value"),
        (task, with(json!({"tokens": -1})), 400, "invalid_value"),
        (task, with(json!({"tokens": 1.5})), 400, "invalid_value"),
        (task, with(json!({"tokens": "3"})), 400, "invalid_value"),
        (task, with(json!({"tokens": 1_u64 << 40})), 400, "invalid_value"),
        (task, with(json!({"tokens": null})), 400, "missing_required_parameter"),
        (task, with(json!({"signature": null})), 400, "invalid_value"),
        (task, with(json!({"signature": 5})), 400, "invalid_value"),
        (task, with(json!({"signature": "0x11"})), 400, "invalid_value"),
        (task, with(json!({"signature": format!("0x{}", "ff".repeat(65))})), 403, "wrong_signer"),
        (
            task,
            with(json!({"signature": format!("0x{}02", "11".repeat(64))})),
            400,
            "invalid_value",
        ),
        (task, with(json!({"reason": "bored"})), 400, "unsupported_parameter"),
        (task, json!([bytes(&good)]), 400, "invalid_json"),
        (task, json!({"tokens": "9".repeat(5000)}), 413, "request_too_large"),
    ] {
        let refused = cancel(&world, task, &body).await;
        assert_eq!(refusal(refused).await, (status, code.to_owned()), "{body}");
    }
    let refused = cancel(&world, "7", &cancellation(sent, good)).await;
    assert_eq!(refusal(refused).await, (400, "invalid_value".into()));
    let url = world.url(&format!("/v1/requests/{task}/cancel"));
    assert_eq!(world.http.get(url).send().await.unwrap().status(), 405);

    // The node was told nothing, and the answer goes on to its end.
    let words = vec!["x"; sent as usize];
    miner.finish(task, &words, &words.concat()).await;
    let rest = response.text().await.unwrap();
    assert!(rest.contains("[DONE]"), "{rest}");
    miner.send(FromMiner::Ping { seq: 1 }).await;
    assert_eq!(miner.recv().await, Some(FromRouter::Pong { seq: 1 }));
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_node_that_is_away_is_told_when_it_is_back() {
    // Its client hangs up only at the end.
    let UnderWay { wallet, world, miner, response: _held, task, _data } = UnderWay::start(2).await;
    let word = SignedCancellation { tokens: 2, signature: signed(&wallet, task, 2) };
    let taken = cancel(&world, task, &cancellation(2, word.signature)).await;
    assert_eq!(taken.status(), 202);
    // Its connection is gone before it can say that it has heard of it.
    drop(miner);
    let mut miner = connected(&world).await;
    assert_eq!(miner.recv().await, Some(FromRouter::Cancel { task, signed: Some(word) }));
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn nothing_is_ended_while_its_node_is_away() {
    // Its client hangs up only at the end.
    let UnderWay { wallet, world, mut miner, response: _held, task, _data } =
        UnderWay::start(2).await;
    let (held, other) = begin(&world, &mut miner, &body(&wallet, &request(2)), 1).await;
    // As long as the router believes in the connection, the node is full.
    drop(miner);
    let until = tokio::time::Instant::now() + PATIENCE;
    while refusal(carry(&world, &body(&wallet, &request(3))).await).await.1 != "no_miner" {
        assert!(tokio::time::Instant::now() < until, "the node is still there");
    }
    let word = SignedCancellation { tokens: 2, signature: signed(&wallet, task, 2) };
    let refused = cancel(&world, task, &cancellation(2, word.signature)).await;
    assert_eq!(refusal(refused).await, (503, "node_away".into()));
    let mut miner = connected(&world).await;
    let mut resumed = [miner.recv().await.unwrap(), miner.recv().await.unwrap()];
    resumed.sort_by_key(|frame| *frame != FromRouter::Resume { task, seq: 2 });
    let [ours, theirs] = [(task, 2), (other, 1)];
    let resume = |(task, seq)| FromRouter::Resume { task, seq };
    assert_eq!(resumed, [resume(ours), resume(theirs)]);
    let taken = cancel(&world, task, &cancellation(2, word.signature)).await;
    assert_eq!(taken.status(), 202);
    assert_eq!(miner.recv().await, Some(FromRouter::Cancel { task, signed: Some(word) }));
    miner.finish(other, &["x"], "x").await;
    assert!(held.text().await.unwrap().contains("[DONE]"), "the other one goes on");
    world.router.stop().await.unwrap();
}
