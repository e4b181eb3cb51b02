//! The link: handshake, reconnecting, bad frames, two routers.

use alloy::signers::{SignerSync, local::PrivateKeySigner};
use assay_types::{
    B256, Signature, Signed, TaskId,
    link::{FromMiner, FromRouter, LINK_VERSION, MAX_FRAME_BYTES},
};

use crate::world::*;

#[tokio::test]
async fn a_miner_proves_its_operator_key_and_tells_its_capacity() {
    let world = World::new().await;
    let miner = world.start();
    assert!(miner.health().readiness().reasons.contains_key("links"));
    let link = world.link().await;
    assert_eq!(link.capacity, 2);
    until("the link is counted", || miner.status().links == 1).await;
    assert!(miner.health().is_ready());
    assert_eq!(miner.node_id(), NODE);
    drop(link);
    until("the loss is told", || !miner.health().is_ready()).await;
    assert_eq!(miner.status().links, 0);
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn an_impostor_is_refused_and_the_miner_comes_back() {
    let world = World::new().await;
    let miner = world.start();
    let mut link = world.router.accept_raw().await;
    link.send(world.router.challenge(B256::ZERO)).await;
    let FromMiner::Hello { .. } = link.next().await else { panic!("no hello") };
    link.send(FromRouter::Welcome { signature: Signature::test_signature() }).await;
    assert_eq!(link.try_next().await, None);
    until("the reason is told", || {
        miner.status().last_error.is_some_and(|error| error.contains("does not hold the key"))
    })
    .await;
    world.link().await;
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_router_of_another_chain_is_refused_by_name() {
    let mut world = World::new().await;
    world.router.chain_id = 1;
    let miner = world.start();
    let mut link = world.router.accept_raw().await;
    link.send(world.router.challenge(B256::ZERO)).await;
    assert_eq!(link.try_next().await, None);
    until("the reason is told", || {
        miner.status().last_error.is_some_and(|error| error.contains("on chain 1,"))
    })
    .await;
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_router_of_another_version_is_refused_by_name() {
    let world = World::new().await;
    let miner = world.start();
    let mut link = world.router.accept_raw().await;
    let version = LINK_VERSION + 1;
    link.send_text(format!(r#"{{"type":"challenge","version":{version},"new":true}}"#)).await;
    assert_eq!(link.try_next().await, None);
    until("the reason is told", || {
        let named = format!("link version {version},");
        miner.status().last_error.is_some_and(|error| error.contains(&named))
    })
    .await;
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn frames_out_of_turn_end_the_link() {
    let world = World::new().await;
    let miner = world.start();
    let early = [
        FromRouter::Offer(Box::new(world.offer(0, "early"))),
        FromRouter::Resume { task: TaskId(B256::ZERO), seq: 0 },
        FromRouter::Cancel { task: TaskId(B256::ZERO), signed: None },
        FromRouter::Welcome { signature: Signature::test_signature() },
    ];
    for frame in early {
        let mut link = world.router.accept_raw().await;
        link.send(frame).await;
        assert_eq!(link.try_next().await, None);
    }
    // A handshake cannot be played again on an open link.
    for again in [
        world.router.challenge(B256::ZERO),
        FromRouter::Welcome { signature: Signature::test_signature() },
    ] {
        let mut link = world.link().await;
        link.send(again).await;
        assert_eq!(link.try_next().await, None);
    }
    assert_eq!(miner.status().running, 0);
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn bad_frames_are_answered_and_cost_no_other_task() {
    let world = World::new().await;
    let miner = world.start();
    let mut link = world.link().await;
    for text in
        ["{", "[]", "null", "{\"type\":\"offer\"}", "{\"type\":\"offer\",\"request\":\"0x00\"}"]
    {
        link.send_text(text.into()).await;
        let FromMiner::Error { task: None, code, .. } = link.next().await else {
            panic!("no error for {text}")
        };
        assert_eq!(code, "bad_frame");
    }
    link.send(FromRouter::Ping { seq: 5 }).await;
    assert_eq!(link.next().await, FromMiner::Pong { seq: 5 });
    let offer = world.offer(0, "hello");
    let task = task_of(&offer);
    link.send(FromRouter::Offer(Box::new(offer))).await;
    assert_eq!(link.task(task).await.text, "hello");
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_frame_over_the_limit_ends_the_link_and_not_the_miner() {
    let world = World::new().await;
    let miner = world.start();
    let mut link = world.link().await;
    link.send_text("x".repeat(MAX_FRAME_BYTES + 1)).await;
    assert_eq!(link.try_next().await, None);
    let mut link = world.link().await;
    link.send(FromRouter::Ping { seq: 1 }).await;
    assert_eq!(link.next().await, FromMiner::Pong { seq: 1 });
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_miner_serves_two_routers_at_once() {
    let mut world = World::new().await;
    let second = FakeRouter::start(PrivateKeySigner::random()).await;
    world.config.router_urls.push(second.url());
    let miner = world.start();
    world.chain.set_lane(2, second.key.address());
    let (mut a, mut b) = tokio::join!(world.link(), second.accept(world.operator.address()));
    let one = world.offer(0, "first");
    let mut two = world.offer_with(0, "second", |request, _| request.lane = 2);
    two.signature = second.key.sign_hash_sync(&two.request.signing_hash(CHAIN_ID, QUEUE)).unwrap();
    let (first, other) = (task_of(&one), task_of(&two));
    a.send(FromRouter::Offer(Box::new(one))).await;
    b.send(FromRouter::Offer(Box::new(two))).await;
    assert_eq!(a.task(first).await.text, "first");
    assert_eq!(b.task(other).await.text, "second");
    assert_eq!(miner.status().links, 2);
    miner.stop().await.unwrap();
}
