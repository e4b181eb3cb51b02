//! Sessions, nonces, money and timelines: what is durable, and what a reorganisation undoes.

use alloy::signers::local::PrivateKeySigner;
use assay_router::book::{facts::Fact, service::BlockChange};
use assay_types::{B256, NodeId, TaskId};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::world::{
    LANE, MODEL_INDEX, SEED, SESSION, World, committed, events, hello, settled, submitted,
};

#[tokio::test]
async fn the_timeline_follows_the_chain_and_its_reorganisations() {
    let data = tempdir().unwrap();
    let mut world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    let (response, (task, offer)) = tokio::join!(world.ask(hello(false)), miner.serve(&["x"]));
    assert_eq!(response.status(), 200);
    let id = task.to_string();
    world.mine(vec![submitted(task, &offer, &[1])]).await;
    let block = world.mine(vec![committed(task, 1, 17)]).await;
    let shown = world.task(&id).await;
    assert_eq!((&shown["state"], &shown["fee"]), (&json!("committed"), &json!("17")));
    world.change(BlockChange::Reverted(block)).await;
    let shown = world.task(&id).await;
    assert_eq!((&shown["state"], &shown["fee"]), (&json!("assigned"), &Value::Null));
    world.mine(vec![committed(task, 1, 17)]).await;
    world.mine(vec![settled(task, 1, 17)]).await;
    let has_gas = |t: &Value| {
        let on_chain = |e: &&Value| e["transaction_hash"].is_string();
        t["timeline"].as_array().unwrap().iter().filter(on_chain).all(|e| e["gas_used"] == 123_456)
    };
    let shown = world.task_until(&id, has_gas).await;
    assert_eq!(shown["state"], "settled");
    for event in [
        "received",
        "offered",
        "accepted",
        "first_token",
        "done",
        "submitted",
        "committed",
        "settled",
    ] {
        assert!(events(&shown).contains(&event), "{event}: {shown:#}");
    }
    let settled = shown["timeline"].as_array().unwrap().last().unwrap();
    assert!(settled["block_number"].is_u64() && settled["at_ms"].is_u64(), "{settled}");
    assert!(shown["request_cid"].as_str().unwrap().starts_with('b'));
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn nonces_are_never_used_twice_and_go_on_after_a_restart() {
    let data = tempdir().unwrap();
    let key = PrivateKeySigner::random();
    let mut world = World::bare(data.path(), key.clone()).await;
    world.open_session(&[1], u128::MAX).await;
    let mut miner = world.miner(1).await;
    for nonce in 0..20 {
        let (_, (_, offer)) = tokio::join!(world.ask(hello(false)), miner.serve(&["x"]));
        assert_eq!(offer.request.nonce, nonce);
    }
    world.router.stop().await.unwrap();
    // The session is known again without any block.
    let mut world = World::bare(data.path(), key).await;
    let mut miner = world.miner(1).await;
    let (response, (_, offer)) = tokio::join!(world.ask(hello(false)), miner.serve(&["x"]));
    assert_eq!(response.status(), 200);
    assert_eq!(offer.request.nonce, 20);
    // Another router with the same key was at work: its nonces are skipped.
    let mut other = (*offer).clone();
    other.request.nonce = 50;
    world.mine(vec![submitted(TaskId(B256::repeat_byte(5)), &other, &[1])]).await;
    let (_, (_, offer)) = tokio::join!(world.ask(hello(false)), miner.serve(&["x"]));
    assert_eq!(offer.request.nonce, 51);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_lane_is_not_overspent() {
    let data = tempdir().unwrap();
    let mut world = World::bare(data.path(), PrivateKeySigner::random()).await;
    // Enough for one task's largest fee, not for two.
    world.open_session(&[1], 2500).await;
    let mut miner = world.miner(1).await;
    let mut ask = hello(false);
    ask["max_tokens"] = json!(500);
    let (first, (task, offer)) = tokio::join!(world.ask(ask.clone()), miner.serve(&["x"]));
    assert_eq!(first.status(), 200);
    let second = world.ask(ask.clone()).await;
    assert_eq!(second.status(), 503);
    let body: Value = second.json().await.unwrap();
    assert_eq!(body["error"]["code"], "insufficient_quota", "{body}");
    // Settled for what it really cost, the lane has room again.
    world.mine(vec![submitted(task, &offer, &[1])]).await;
    world.mine(vec![committed(task, 1, 17)]).await;
    world.mine(vec![settled(task, 1, 17)]).await;
    let (third, _) = tokio::join!(world.ask(ask), miner.serve(&["x"]));
    assert_eq!(third.status(), 200);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_session_is_used_only_while_it_can_be() {
    let data = tempdir().unwrap();
    let mut world = World::bare(data.path(), PrivateKeySigner::random()).await;
    let holder = world.key.address();
    let model = crate::world::model_id();
    let named = Fact::ModelRegistered { index: MODEL_INDEX, model };
    let (price_in, price_out) = (1, 1);
    let opened = Fact::SessionOpened { session: SESSION, model: MODEL_INDEX, price_in, price_out };
    let lane = Fact::LaneAdded { session: SESSION, lane: LANE, holder, allotment: u128::MAX };
    world.mine(vec![named, opened, lane]).await;
    let code = async |world: &World| {
        let body: Value = world.ask(hello(false)).await.json().await.unwrap();
        body["error"]["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(code(&world).await, "session_not_ready");
    let nodes = vec![NodeId(1)];
    world
        .mine(vec![Fact::SessionActivated {
            session: SESSION,
            seed_round: 4,
            nodes,
            previous_until: 0,
        }])
        .await;
    assert_eq!(code(&world).await, "session_not_ready");
    let seeded = world.mine(vec![Fact::RoundRevealed { round: 4, value: SEED }]).await;
    assert_eq!(code(&world).await, "no_miner");
    world.change(BlockChange::Reverted(seeded)).await;
    assert_eq!(code(&world).await, "session_not_ready");
    world.mine(vec![Fact::RoundRevealed { round: 4, value: SEED }]).await;
    world.mine(vec![Fact::SessionDraining { session: SESSION, ends_at: 1 }]).await;
    assert_eq!(code(&world).await, "session_not_ready");
    world.mine(vec![Fact::SessionClosed { session: SESSION }]).await;
    assert_eq!(code(&world).await, "no_session");
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_refused_submission_for_lack_of_money_pauses_the_session() {
    let data = tempdir().unwrap();
    let mut world = World::with_nodes(data.path(), &[1]).await;
    *world.chain.refusal.lock().unwrap() =
        Some("SessionPayment_InsufficientDeposit(1, 2, 3)".into());
    let mut miner = world.miner(1).await;
    let (first, (task, _)) = tokio::join!(world.ask(hello(false)), miner.serve(&["x"]));
    assert_eq!(first.status(), 200);
    world.task_until(&task.to_string(), |t| events(t).contains(&"submission_failed")).await;
    let body: Value = world.ask(hello(false)).await.json().await.unwrap();
    assert_eq!(body["error"]["code"], "insufficient_quota", "{body}");
    world.mine(vec![Fact::SessionToppedUp { session: SESSION, lane: LANE, amount: 0 }]).await;
    let (third, _) = tokio::join!(world.ask(hello(false)), miner.serve(&["x"]));
    assert_eq!(third.status(), 200);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn an_answer_that_a_stop_cut_off_is_shown_as_failed() {
    let data = tempdir().unwrap();
    let key = PrivateKeySigner::random();
    let mut world = World::bare(data.path(), key.clone()).await;
    world.open_session(&[1], u128::MAX).await;
    let mut miner = world.miner(1).await;
    let asking = tokio::spawn(world.ask(hello(false)));
    let (task, _) = miner.offer().await;
    miner.accept(task).await;
    world.task_until(&task.to_string(), |t| events(t).contains(&"accepted")).await;
    // The client gets an error, the database still says "pending".
    world.crash(data.path()).await;
    assert_eq!(asking.await.unwrap().status(), 502);
    drop(miner);
    let world = World::bare(data.path(), key).await;
    let shown = world.task(&task.to_string()).await;
    assert_eq!(
        (&shown["answer"], &shown["error"]["code"]),
        (&json!("failed"), &json!("router_restarted"))
    );
    world.router.stop().await.unwrap();
}
