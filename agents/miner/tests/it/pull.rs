//! Queues of sessions: claims, and tasks that are handed back.

use assay_engine::{EchoOptions, Failure};
use assay_store::ContentStore;
use assay_types::{B256, Dispatch, NodeId, link::Offer};

use crate::world::*;

fn queued(world: &World, nonce: u64) -> Offer {
    world.offer_with(nonce, "from the queue", |request, _| {
        (request.dispatch, request.nodeId) = (Dispatch::Pull as u8, 0);
    })
}

async fn submit(world: &World, offers: &[&Offer]) {
    let mut events = vec![world.chain.activated()];
    for offer in offers {
        world.store.put(offer.block.0.clone()).await.unwrap();
        events.push(world.chain.submit(&offer.request));
    }
    world.chain.mine(1, events).await;
}

async fn start(options: EchoOptions) -> World {
    let mut world = World::with_engine(options).await;
    world.config.router_urls.clear();
    world
}

#[tokio::test]
async fn heads_of_the_queue_are_claimed_and_answered_one_after_the_other() {
    let world = start(EchoOptions::default()).await;
    let miner = world.start();
    let offers = [queued(&world, 0), queued(&world, 1), queued(&world, 2)];
    submit(&world, &offers.each_ref()).await;
    until("two claims", || count(&miner, "claimed") == 2).await;
    assert_eq!(world.chain.sent().len(), 2, "two claims at most, and no answer before the seed");
    world.chain.set_seed(CLAIM_ROUND, B256::repeat_byte(1));
    until("three answers", || count(&miner, "committed") == 3).await;
    let mut claims = Vec::new();
    for sent in world.chain.sent() {
        if let Sent::Claim(task, gone) = sent {
            assert_eq!(gone, 0);
            claims.push(task);
        }
    }
    assert_eq!(claims, offers.each_ref().map(task_of));
    assert_eq!(miner.status().last_error, None);
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn what_was_cancelled_before_the_head_is_passed_with_the_claim() {
    let world = start(EchoOptions::default()).await;
    world.chain.set_seed(CLAIM_ROUND, B256::repeat_byte(1));
    let offers = [queued(&world, 0), queued(&world, 1)];
    let events = vec![
        world.chain.activated(),
        world.chain.submit(&offers[0].request),
        world.chain.submit(&offers[1].request),
    ];
    world.store.put(offers[1].block.0.clone()).await.unwrap();
    let miner = world.start();
    // Both in one block: nothing can be claimed in between.
    let cancelled = world.chain.cancelled(task_of(&offers[0]));
    world.chain.mine(1, events.into_iter().chain([cancelled]).collect()).await;
    until("its answer", || count(&miner, "committed") == 1).await;
    let sent = world.chain.sent();
    assert!(matches!(&sent[0], Sent::Claim(task, 1) if *task == task_of(&offers[1])), "{sent:?}");
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_faster_node_is_no_error() {
    let world = start(EchoOptions::default()).await;
    world.chain.set_seed(CLAIM_ROUND, B256::repeat_byte(1));
    let miner = world.start();
    let offers = [queued(&world, 0), queued(&world, 1)];
    let first = task_of(&offers[0]);
    world.chain.race(move |tasks| {
        let record = tasks.get_mut(&first).unwrap();
        record.state = assay_protocol::TaskState::Assigned;
        record.task.parts = vec![part(1)];
    });
    submit(&world, &offers.each_ref()).await;
    until("a refused claim", || world.chain.keys().len() == 1).await;
    world.chain.take_ticket().await;
    world.chain.pass_on(first, NodeId(1)).await;
    until("the next one's answer", || count(&miner, "committed") == 1).await;
    assert_eq!(miner.status().last_error, None);
    assert!(matches!(&world.chain.sent()[0], Sent::Claim(task, 0) if *task == task_of(&offers[1])));
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn queues_of_other_sessions_and_models_are_left_alone() {
    let world = start(EchoOptions::default()).await;
    world.chain.set_session(SESSION, |session| session.model_id.0 = B256::repeat_byte(1));
    let miner = world.start();
    let offer = queued(&world, 0);
    // A session that this node is not in.
    world.chain.mine(1, vec![world.chain.submit(&offer.request)]).await;
    // One that pays for another model.
    let other = queued(&world, 1);
    submit(&world, &[&other]).await;
    world.chain.mine(3, vec![]).await;
    let third = world.offer(2, "by name");
    world.chain.set_session(SESSION, |session| {
        session.model_id = assay_engine::Engine::info(&*world.engine).model_id;
    });
    submit(&world, &[&third]).await;
    until("the named one's answer", || count(&miner, "committed") == 1).await;
    let sent = world.chain.sent();
    assert!(!sent.iter().any(|sent| matches!(sent, Sent::Claim(..))), "{sent:?}");
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_served_is_handed_back_with_its_reason() {
    let world = start(EchoOptions::default()).await;
    let miner = world.start();
    let long = world.offer_with(0, "a long prompt", |r, b| (r.maxPrompt, b.max_prompt) = (4, 4));
    let mut wrong = world.offer(1, "x");
    wrong.request.requestDigest = B256::repeat_byte(1);
    // Its block never comes.
    let missing = world.offer_with(2, "x", |request, _| request.deadline = NOW_S + 10);
    let offers = [&long, &wrong, &missing];
    world.store.put(long.block.0.clone()).await.unwrap();
    let events = offers.map(|offer| world.chain.submit(&offer.request)).to_vec();
    world.chain.mine(1, events).await;
    until("two are handed back", || world.chain.sent().len() >= 2).await;
    // The third waits for its block as long as it can, and is handed back in good time.
    world.chain.mine(1, vec![]).await;
    until("the first and the third", || {
        let back = miner.status().handed_back;
        back.get("prompt_too_long") == Some(&1) && back.get("expired") == Some(&1)
    })
    .await;
    let sent = world.chain.sent();
    assert!(sent.iter().all(|sent| matches!(sent, Sent::Decline(_))), "{sent:?}");
    // The second still waits for its block: a stop would wait, too.
    miner.kill();
}

#[tokio::test]
async fn a_task_that_fails_is_handed_back_also_by_the_next_life() {
    let world =
        start(EchoOptions { failure: Some(Failure::Refuse), ..EchoOptions::default() }).await;
    let mut miner = world.start();
    for _ in 0..16 {
        world.chain.refuse(false);
    }
    let offer = world.offer(0, "fails");
    submit(&world, &[&offer]).await;
    until("a try to hand it back", || !world.chain.keys().is_empty()).await;
    miner.kill();
    let _ = miner.wait().await;
    drop(miner);
    world.released().await;
    world.chain.clear_refusals();
    world.engine.set_failure(None);
    let miner = world.start();
    until("it is handed back", || miner.status().handed_back.len() == 1).await;
    let sent = world.chain.sent();
    assert!(matches!(&sent[..], [Sent::Decline(task)] if *task == task_of(&offer)), "{sent:?}");
    miner.stop().await.unwrap();
}
