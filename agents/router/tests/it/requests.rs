//! Requests that somebody else has signed: passed on as they stand, shown, and never the router's.

use alloy::{
    primitives::aliases::U96,
    signers::{SignerSync, local::PrivateKeySigner},
};
use assay_router::{RouterConfig, book::facts::Fact};
use assay_types::{
    B256, BLOCK_VERSION, Lane, NodeId, Prompt, RequestBlock, Sampling, Signed, TaskId, TaskRequest,
    TokenLogprob, TokenLogprobs, TokenName,
    link::{FromMiner, FromRouter},
};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::world::{
    CHAIN_ID, LANE, MODEL, MODEL_INDEX, Miner, PATIENCE, PRICE_IN, PRICE_OUT, SEED, SESSION, World,
    config, model_id, queue,
};

/// A router that holds no lane of the one session, which nodes 1 and 2 serve.
async fn without_a_lane(data: &std::path::Path, wallet: &PrivateKeySigner) -> World {
    with_holder(config(data), wallet).await
}

/// The same, with this configuration; the lane is this wallet's.
pub async fn with_holder(config: RouterConfig, wallet: &PrivateKeySigner) -> World {
    let mut world = World::with_config(config, PrivateKeySigner::random()).await;
    let holder = wallet.address();
    world
        .mine(vec![
            Fact::ModelRegistered { index: MODEL_INDEX, model: model_id() },
            Fact::SessionOpened {
                session: SESSION,
                model: MODEL_INDEX,
                price_in: PRICE_IN,
                price_out: PRICE_OUT,
            },
            Fact::LaneAdded { session: SESSION, lane: LANE, holder, allotment: u128::MAX },
        ])
        .await;
    let nodes = vec![NodeId(1), NodeId(2)];
    let activated =
        Fact::SessionActivated { session: SESSION, seed_round: 9, nodes, previous_until: 0 };
    world.mine(vec![activated]).await;
    world.mine(vec![Fact::RoundRevealed { round: 9, value: SEED }]).await;
    world
}

/// Node 1. A router without a lane is not ready to serve from one, and passes on what others sign all the same.
pub async fn connected(world: &World) -> Miner {
    let (node, store) = (NodeId(1), world.store.clone());
    Miner::connect(world.address(), node, &world.operators[&node], store).await.unwrap()
}

/// A request for node 1, and its block.
pub fn request(nonce: u64) -> (TaskRequest, RequestBlock) {
    let block = RequestBlock {
        max_output: 64,
        max_prompt: 128,
        prompt: Prompt::Text("hello".into()),
        salt: B256::repeat_byte(7),
        sampling: Sampling::default(),
        stop: vec![],
        top_logprobs: None,
        version: BLOCK_VERSION,
    };
    let request = TaskRequest {
        sessionId: SESSION.0,
        lane: LANE.0,
        nonce,
        seedRound: 9,
        requestDigest: block.encode().unwrap().1,
        maxPrompt: 128,
        maxOutput: 64,
        feeCap: U96::MAX,
        deadline: 1_900_000_000,
        nodeId: 1,
        redundancy: 1,
        attempts: 1,
        ..TaskRequest::default()
    };
    (request, block)
}

/// The body that carries it.
pub fn body(wallet: &PrivateKeySigner, (request, block): &(TaskRequest, RequestBlock)) -> Value {
    let signature = wallet.sign_hash_sync(&request.signing_hash(CHAIN_ID, queue())).unwrap();
    json!({
        "model": MODEL,
        "request": {
            "sessionId": request.sessionId, "lane": request.lane, "nonce": request.nonce,
            "seedRound": request.seedRound, "requestDigest": request.requestDigest,
            "maxPrompt": request.maxPrompt, "maxOutput": request.maxOutput,
            "feeCap": request.feeCap.to_string(), "deadline": request.deadline,
            "nodeId": request.nodeId, "redundancy": request.redundancy,
            "attempts": request.attempts, "dispatch": request.dispatch, "callbackGas": 0,
        },
        "signature": assay_types::Bytes::from(signature.as_bytes()),
        "block": String::from_utf8(block.encode().unwrap().0).unwrap(),
        "stream": true,
    })
}

pub fn carry(world: &World, body: &Value) -> impl Future<Output = reqwest::Response> + use<> {
    let request = world.http.post(world.url("/v1/requests")).json(body);
    async move { request.send().await.unwrap() }
}

pub async fn refusal(response: reqwest::Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, body["error"]["code"].as_str().unwrap().to_owned())
}

async fn decline(miner: &mut Miner, code: &str) -> TaskId {
    let (task, _) = miner.offer().await;
    let message = "as the test wants it".into();
    miner.send(FromMiner::Decline { task, code: code.into(), message }).await;
    task
}

#[tokio::test]
async fn a_signed_request_is_offered_as_it_stands_and_its_answer_shown() {
    let (data, wallet) = (tempdir().unwrap(), PrivateKeySigner::random());
    let world = without_a_lane(data.path(), &wallet).await;
    let mut miner = connected(&world).await;
    let signed = request(4);
    let (response, (task, offer)) =
        tokio::join!(carry(&world, &body(&wallet, &signed)), miner.serve(&["my", " own"]));
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-assay-task"].to_str().unwrap(), task.to_string());
    let text = response.text().await.unwrap();
    assert!(text.contains("my") && text.contains("[DONE]"), "{text}");
    assert_eq!(offer.request, signed.0);
    let hash = signed.0.signing_hash(CHAIN_ID, queue());
    assert_eq!(offer.signature, wallet.sign_hash_sync(&hash).unwrap());
    assert_eq!(offer.block.to_vec(), signed.1.encode().unwrap().0);
    assert!(offer.stream);
    // Its node carries it to the chain. The router submits nothing, and keeps nothing but what was asked, for auditors.
    let pinned = signed.0.requestDigest;
    let until = tokio::time::Instant::now() + PATIENCE;
    while !assay_store::ContentStore::is_pinned(&*world.store, pinned).await.unwrap() {
        assert!(tokio::time::Instant::now() < until, "the request is not pinned");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(world.chain.submitted.lock().unwrap().is_empty());
    let page = world.http.get(world.url(&format!("/v1/tasks/{task}"))).send().await.unwrap();
    assert_eq!(page.status(), 404);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn log_probabilities_are_shown_where_the_signed_block_asks_for_them() {
    let (data, wallet) = (tempdir().unwrap(), PrivateKeySigner::random());
    let world = without_a_lane(data.path(), &wallet).await;
    let mut miner = connected(&world).await;
    let (mut request, mut block) = request(5);
    block.top_logprobs = Some(0);
    request.requestDigest = block.encode().unwrap().1;
    let (token, logprob_micronats) = (TokenName::Text("my".into()), -500_000);
    let chosen = TokenLogprob { token, logprob_micronats };
    let serve = async {
        let (task, _) = miner.offer().await;
        miner.accept(task).await;
        miner.stated(task, 0, "my", vec![TokenLogprobs { chosen, top: vec![] }]).await;
        miner.finish(task, &["my"], "my").await;
    };
    let mut body = body(&wallet, &(request, block));
    body["stream"] = json!(false);
    let (response, ()) = tokio::join!(carry(&world, &body), serve);
    let answer: Value = response.json().await.unwrap();
    let entry = json!({"token": "my", "logprob": -0.5, "bytes": [109, 121], "top_logprobs": []});
    assert_eq!(answer["choices"][0]["logprobs"]["content"], json!([entry]));
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn what_the_node_says_of_the_signature_is_passed_on() {
    let (data, wallet) = (tempdir().unwrap(), PrivateKeySigner::random());
    let world = without_a_lane(data.path(), &wallet).await;
    let mut miner = connected(&world).await;
    for (code, status, shown) in [
        ("bad_signature", 400, "bad_signature"),
        ("expired", 400, "expired"),
        ("no_funds", 400, "no_funds"),
        ("not_on_chain", 400, "not_on_chain"),
        ("prompt_too_long", 400, "context_length_exceeded"),
        ("busy", 503, "node_declined"),
    ] {
        let body = body(&wallet, &request(1));
        let (response, _) = tokio::join!(carry(&world, &body), decline(&mut miner, code));
        assert_eq!(refusal(response).await, (status, shown.to_owned()));
    }
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn what_no_node_would_take_is_refused_before_any_is_asked() {
    let (data, wallet) = (tempdir().unwrap(), PrivateKeySigner::random());
    let world = without_a_lane(data.path(), &wallet).await;
    let mut miner = connected(&world).await;
    let with = |change: fn(&mut TaskRequest)| {
        let mut signed = request(1);
        change(&mut signed.0);
        body(&wallet, &signed)
    };
    for (body, status, code) in [
        (with(|request| request.sessionId = 99), 400, "unknown_session"),
        (with(|request| request.seedRound = 8), 400, "unknown_session"),
        (with(|request| request.nodeId = 3), 400, "not_reserved"),
        // Another node's, which is not connected.
        (with(|request| request.nodeId = 2), 503, "no_miner"),
    ] {
        assert_eq!(refusal(carry(&world, &body).await).await, (status, code.to_owned()));
    }
    // The only one that it was offered.
    let good = body(&wallet, &request(1));
    let (response, _) = tokio::join!(carry(&world, &good), miner.serve(&["x"]));
    assert_eq!(response.status(), 200);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_request_that_is_sent_twice_takes_nothing_from_the_first() {
    let (data, wallet) = (tempdir().unwrap(), PrivateKeySigner::random());
    let world = without_a_lane(data.path(), &wallet).await;
    let mut miner = connected(&world).await;
    let body = body(&wallet, &request(1));
    let first = tokio::spawn(carry(&world, &body));
    let (task, _) = miner.offer().await;
    miner.accept(task).await;
    miner.token(task, 0, "mine").await;
    let first = first.await.unwrap();
    assert_eq!(refusal(carry(&world, &body).await).await, (409, "already_running".into()));
    miner.finish(task, &["mine"], "mine").await;
    assert!(first.text().await.unwrap().contains("[DONE]"));
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_router_cannot_cancel_what_another_has_signed() {
    let (data, wallet) = (tempdir().unwrap(), PrivateKeySigner::random());
    let world = without_a_lane(data.path(), &wallet).await;
    let mut miner = connected(&world).await;
    let asking = tokio::spawn(carry(&world, &body(&wallet, &request(1))));
    let (task, offer) = miner.offer().await;
    assert_eq!(offer.request.lane, Lane(LANE.0).0);
    miner.accept(task).await;
    miner.token(task, 0, "x").await;
    drop(asking.await.unwrap());
    // The node learns that nobody looks. The signature beside it is the router's, which does not hold the lane.
    match miner.recv().await {
        Some(FromRouter::Cancel { task: of, signed: Some(signed) }) => {
            assert_eq!(of, task);
            let cancellation = assay_types::Cancellation::new(task, signed.tokens);
            let signer = cancellation.signer(CHAIN_ID, queue(), &signed.signature).unwrap();
            assert_ne!(signer, wallet.address());
        }
        other => panic!("no cancel but {other:?}"),
    }
    world.router.stop().await.unwrap();
}
