//! What is owed when the router is killed, or when the store or the chain is away.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use alloy::signers::local::PrivateKeySigner;
use assay_router::config::{NONCE_BATCH, NONCE_WINDOW};
use assay_store::{ContentStore, cid_of};
use assay_types::{
    TaskId,
    link::{FromMiner, Offer},
};
use serde_json::Value;
use tempfile::tempdir;

use crate::world::{Miner, World, committed, config, events, hello, settled, submitted};

/// Takes a task, and says nothing more.
async fn accept(miner: &mut Miner) -> (TaskId, Box<Offer>) {
    let (task, offer) = miner.offer().await;
    miner.accept(task).await;
    (task, offer)
}

async fn until(condition: impl AsyncFn() -> bool) {
    let until = tokio::time::Instant::now() + crate::world::PATIENCE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < until, "never");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_request_block_is_pinned_once_the_store_is_back() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    world.store.is_away.store(true, SeqCst);
    let asking = tokio::spawn(world.ask(hello(false)));
    let (task, offer) = accept(&mut miner).await;
    world.task_until(&task.to_string(), |t| events(t).contains(&"accepted")).await;
    world.store.is_away.store(false, SeqCst);
    let id = task.to_string();
    let shown = world.task_until(&id, |t| events(t).contains(&"request_pinned")).await;
    assert!(!events(&shown).contains(&"request_not_pinned"), "{shown:#}");
    assert!(world.store.is_pinned(offer.request.requestDigest).await.unwrap());
    asking.abort();
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_request_block_is_pinned_by_the_next_life() {
    let data = tempdir().unwrap();
    let key = PrivateKeySigner::random();
    let mut world = World::bare(data.path(), key.clone()).await;
    world.open_session(&[1], u128::MAX).await;
    let mut miner = world.miner(1).await;
    world.store.is_away.store(true, SeqCst);
    let asking = tokio::spawn(world.ask(hello(false)));
    let (task, offer) = accept(&mut miner).await;
    world.task_until(&task.to_string(), |t| events(t).contains(&"accepted")).await;
    let (chain, store) = world.crash(data.path()).await;
    asking.abort();
    store.is_away.store(false, SeqCst);
    let world = World::around(config(data.path()), key, chain, store).await;
    let shown =
        world.task_until(&task.to_string(), |t| events(t).contains(&"request_pinned")).await;
    assert_eq!(shown["request_cid"], cid_of(offer.request.requestDigest).to_string());
    assert!(world.store.is_pinned(offer.request.requestDigest).await.unwrap());
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_request_that_no_node_took_is_not_pinned_later() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    world.store.is_away.store(true, SeqCst);
    let (_, (task, digest)) = tokio::join!(world.ask(hello(false)), async {
        let (task, offer) = miner.offer().await;
        let (code, message) = ("busy".to_owned(), "full".to_owned());
        miner.send(FromMiner::Decline { task, code, message }).await;
        (task, offer.request.requestDigest)
    });
    world.task_until(&task.to_string(), |t| events(t).contains(&"not_submitted")).await;
    world.store.is_away.store(false, SeqCst);
    // A block that came later is: by then the first would have been, too.
    let (_, (next, _)) = tokio::join!(world.ask(hello(false)), miner.serve(&["x"]));
    world.task_until(&next.to_string(), |t| events(t).contains(&"request_pinned")).await;
    assert!(!world.store.is_pinned(digest).await.unwrap());
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn what_a_node_accepted_is_submitted_by_the_next_life() {
    let data = tempdir().unwrap();
    let key = PrivateKeySigner::random();
    let mut world = World::bare(data.path(), key.clone()).await;
    world.open_session(&[1], u128::MAX).await;
    let mut miner = world.miner(1).await;
    world.chain.is_stuck.store(true, SeqCst);
    let asking = tokio::spawn(world.ask(hello(false)));
    let (task, offer) = accept(&mut miner).await;
    world.task_until(&task.to_string(), |t| events(t).contains(&"accepted")).await;
    let (chain, store) = world.crash(data.path()).await;
    asking.abort();
    drop(miner);
    assert!(chain.submitted.lock().unwrap().is_empty());
    chain.is_stuck.store(false, SeqCst);
    let mut world = World::around(config(data.path()), key.clone(), chain, store).await;
    until(async || world.chain.submitted.lock().unwrap().len() == 1).await;
    assert_eq!(world.chain.submitted.lock().unwrap()[0], offer.request);
    // Once it is on chain, no later life submits it again.
    world.mine(vec![submitted(task, &offer, &[1])]).await;
    let (chain, store) = world.crash(data.path()).await;
    let mut world = World::around(config(data.path()), key, chain, store).await;
    world.mine(vec![committed(task, 1, 5)]).await;
    world.mine(vec![settled(task, 1, 5)]).await;
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_kill_loses_few_nonces_and_none_is_used_twice() {
    let data = tempdir().unwrap();
    let key = PrivateKeySigner::random();
    let mut world = World::bare(data.path(), key.clone()).await;
    world.open_session(&[1], u128::MAX).await;
    let mut used = Vec::new();
    for life in 0..30 {
        let mut miner = world.miner(1).await;
        let (response, (_, offer)) = tokio::join!(world.ask(hello(false)), miner.serve(&["x"]));
        assert_eq!(response.status(), 200, "life {life}");
        used.push(offer.request.nonce);
        drop(miner);
        let (chain, store) = world.crash(data.path()).await;
        world = World::around(config(data.path()), key.clone(), chain, store).await;
    }
    assert!(used.is_sorted_by(|one, next| one < next), "{used:?}");
    // Each life could lose a batch; near the window's end they take one at a time.
    assert!(used[1] - used[0] <= NONCE_BATCH);
    assert!(*used.last().unwrap() < NONCE_WINDOW, "{used:?}");
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_nonce_that_the_contract_would_not_take_is_not_given_out() {
    let data = tempdir().unwrap();
    let key = PrivateKeySigner::random();
    let mut world = World::bare(data.path(), key.clone()).await;
    world.open_session(&[1], u128::MAX).await;
    let (chain, store) = world.crash(data.path()).await;
    // Lives that were killed before the chain had anything.
    let database = rusqlite::Connection::open(data.path().join("router.sqlite")).unwrap();
    let last = i64::try_from(NONCE_WINDOW - 1).unwrap();
    database
        .execute("INSERT OR REPLACE INTO lanes (session, next_nonce) VALUES (1, ?1)", [last])
        .unwrap();
    drop(database);
    let mut world = World::around(config(data.path()), key, chain, store).await;
    let mut miner = world.miner(1).await;
    let (_, (task, offer)) = tokio::join!(world.ask(hello(false)), miner.serve(&["x"]));
    assert_eq!(offer.request.nonce, NONCE_WINDOW - 1);
    let refused = world.ask(hello(false)).await;
    assert_eq!(refused.status(), 429);
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "too_many_open", "{body}");
    world.mine(vec![submitted(task, &offer, &[1])]).await;
    let (_, (_, offer)) = tokio::join!(world.ask(hello(false)), miner.serve(&["x"]));
    assert_eq!(offer.request.nonce, NONCE_WINDOW);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn tasks_that_ended_long_ago_leave_and_what_they_cost_stays() {
    let data = tempdir().unwrap();
    let key = PrivateKeySigner::random();
    // By the wall's clock, as the age is.
    let mut config = config(data.path());
    config.deadline_s = 1;
    let mut world = World::with_config(config.clone(), key.clone()).await;
    world.use_wall_clock();
    world.open_session(&[1], 3200).await;
    let mut miner = world.miner(1).await;
    let mut tasks = Vec::new();
    for _ in 0..3 {
        let (response, (task, offer)) = tokio::join!(world.ask(hello(false)), miner.serve(&["x"]));
        assert_eq!(response.status(), 200);
        world.mine(vec![submitted(task, &offer, &[1])]).await;
        tasks.push((task, offer.request.nonce, offer.request.deadline));
        // The last one is never answered.
        if tasks.len() < 3 {
            world.mine(vec![committed(task, 1, 900)]).await;
            world.mine(vec![settled(task, 1, 900)]).await;
        }
    }
    world.router.stop().await.unwrap();
    let deadline = Duration::from_secs(tasks[2].2);
    while std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap() <= deadline + Duration::from_secs(1)
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let status = async |world: &World, task: TaskId| {
        let url = world.url(&format!("/v1/tasks/{task}"));
        world.http.get(url).send().await.unwrap().status().as_u16()
    };
    // They are kept for long.
    let world = World::with_config(config.clone(), key.clone()).await;
    assert_eq!(status(&world, tasks[0].0).await, 200);
    world.router.stop().await.unwrap();
    config.keep_tasks = Duration::ZERO;
    config.deadline_s = 60;
    for _ in 0..2 {
        let world = World::with_config(config.clone(), key.clone()).await;
        until(async || status(&world, tasks[0].0).await == 404).await;
        assert_eq!(status(&world, tasks[1].0).await, 404);
        // It has not ended: its money is still held.
        assert_eq!(status(&world, tasks[2].0).await, 200);
        let _miner = world.miner(1).await;
        let body: Value = world.ask(hello(false)).await.json().await.unwrap();
        assert_eq!(body["error"]["code"], "insufficient_quota", "{body}");
        world.router.stop().await.unwrap();
    }
}
