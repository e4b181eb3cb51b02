//! From the stored answer to its pay: races, restarts, reorganisations, settlements.

use assay_chain::ProtocolEvent;
use assay_protocol::{TaskRecord, TaskState};
use assay_types::{
    TaskId,
    link::{FromRouter, Offer},
};

use crate::world::*;

fn boxed(offer: &Offer) -> FromRouter {
    FromRouter::Offer(Box::new(offer.clone()))
}

/// Serves one offer and waits until it is committed.
async fn served(world: &World, link: &mut RouterLink, nonce: u64) -> TaskId {
    let offer = world.offer(nonce, "work");
    link.send(boxed(&offer)).await;
    link.task(task_of(&offer)).await.output_digest();
    until("its commit", || world.chain.state_of(task_of(&offer)) == TaskState::Committed).await;
    task_of(&offer)
}

#[tokio::test]
async fn what_is_due_is_settled_once_and_earns() {
    let world = World::new().await;
    let miner = world.start();
    let mut link = world.link().await;
    let mut tasks = vec![served(&world, &mut link, 0).await, served(&world, &mut link, 1).await];
    until("both commits are counted", || count(&miner, "committed") == 2).await;
    assert!(!world.chain.sent().iter().any(|sent| matches!(sent, Sent::Settle(_))));
    world.chain.mine(60, vec![]).await;
    until("both are settled", || miner.status().settled == 2).await;
    assert_eq!(miner.status().earned, 160);
    let settled: Vec<_> = world
        .chain
        .sent()
        .into_iter()
        .filter_map(|sent| match sent {
            Sent::Settle(tasks) => Some(tasks),
            _ => None,
        })
        .collect();
    tasks.sort();
    let mut settled = settled.concat();
    settled.sort();
    assert_eq!(settled, tasks, "each once");
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_task_that_somebody_else_settled_is_done() {
    let world = World::new().await;
    let miner = world.start();
    let mut link = world.link().await;
    let task = served(&world, &mut link, 0).await;
    until("the commit is counted", || count(&miner, "committed") == 1).await;
    world.chain.settle(task).await;
    until("it is paid", || miner.status().settled == 1).await;
    served(&world, &mut link, 1).await;
    assert!(!world.chain.sent().iter().any(|sent| matches!(sent, Sent::Settle(_))));
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_task_that_was_submitted_by_its_router_is_committed_only() {
    let world = World::new().await;
    let miner = world.start();
    let mut link = world.link().await;
    let offer = world.offer(0, "submitted");
    world.chain.mine(1, vec![world.chain.submit(&offer.request)]).await;
    link.send(boxed(&offer)).await;
    until("a commit", || !world.chain.sent().is_empty()).await;
    assert!(matches!(world.chain.sent()[0], Sent::Commit(..)));
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn whoever_is_faster_the_answer_gets_on_chain_once() {
    let world = World::new().await;
    let miner = world.start();
    let mut link = world.link().await;
    // Its submission lands while we carry it.
    let offer = world.offer(0, "race");
    let (task, event) = world.chain.submitted(&offer.request);
    let record = TaskRecord::submitted(&event);
    world.chain.race(move |tasks| drop(tasks.insert(task, record)));
    link.send(boxed(&offer)).await;
    until("a refused carry", || world.chain.keys().len() == 1).await;
    world.chain.mine(3, vec![ProtocolEvent::TaskSubmitted(event)]).await;
    until("a commit", || !world.chain.sent().is_empty()).await;
    assert!(matches!(world.chain.sent()[0], Sent::Commit(..)));
    assert_eq!(world.chain.keys().len(), 2);
    // Its submission is reverted while we commit.
    let offer = world.offer(1, "race");
    let task = task_of(&offer);
    let event = world.chain.submit(&offer.request);
    link.send(boxed(&offer)).await;
    link.task(task).await.output_digest();
    world.chain.refuse(false);
    world.chain.refuse(false);
    let block = world.chain.mine(1, vec![event]).await;
    until("two refused commits", || world.chain.keys().len() == 4).await;
    world.chain.revert(block).await;
    world.chain.mine(3, vec![]).await;
    until("a carry", || world.chain.sent().len() == 2).await;
    assert!(matches!(world.chain.sent()[1], Sent::Carry(..)));
    // A send that fails is tried again under another key.
    world.chain.refuse(false);
    let offer = world.offer(2, "again");
    link.send(boxed(&offer)).await;
    until("a carry", || world.chain.sent().len() == 3).await;
    assert_eq!(world.chain.keys().len(), 7);
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn an_answer_survives_a_crash_and_is_committed_once() {
    let mut world = World::new().await;
    let mut miner = world.start();
    let mut link = world.link().await;
    let offer = world.offer(0, "before the crash");
    // No way to the chain: the first life cannot commit.
    for _ in 0..16 {
        world.chain.refuse(false);
    }
    link.send(boxed(&offer)).await;
    let digest = link.task(task_of(&offer)).await.output_digest();
    until("an attempt", || !world.chain.keys().is_empty()).await;
    assert!(world.chain.sent().is_empty());
    miner.kill();
    let _ = miner.wait().await;
    drop((miner, link));
    world.released().await;
    world.chain.clear_refusals();

    world.config.router_urls.clear();
    let miner = world.start();
    until("a commit", || !world.chain.sent().is_empty()).await;
    let Sent::Carry(task, commit) = world.chain.sent().remove(0) else { panic!("no carry") };
    assert_eq!((task, commit.outputDigest), (task_of(&offer), digest));
    until("the event", || count(&miner, "committed") == 1).await;
    miner.stop().await.unwrap();

    // A third life has nothing to commit, and settles.
    let miner = world.start();
    world.chain.mine(60, vec![]).await;
    until("it is settled", || miner.status().settled == 1).await;
    miner.stop().await.unwrap();
    let commits = world.chain.sent().iter().filter(|s| !matches!(s, Sent::Settle(_))).count();
    assert_eq!(commits, 1);
}

#[tokio::test]
async fn an_answer_whose_deadline_passed_is_given_up() {
    let world = World::new().await;
    let miner = world.start();
    let mut link = world.link().await;
    for _ in 0..64 {
        world.chain.refuse(false);
    }
    let offer = world.offer(0, "too late");
    link.send(boxed(&offer)).await;
    link.task(task_of(&offer)).await.output_digest();
    until("an attempt", || !world.chain.keys().is_empty()).await;
    world.chain.mine(DEADLINE_S - NOW_S + 1, vec![]).await;
    until("it is told", || {
        miner.status().last_error.is_some_and(|error| error.contains("deadline passed"))
    })
    .await;
    let tries = world.chain.keys().len();
    world.chain.mine(60, vec![]).await;
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    assert_eq!(world.chain.keys().len(), tries);
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_commit_that_is_reverted_with_its_block_is_sent_again() {
    let world = World::new().await;
    let miner = world.start();
    let mut link = world.link().await;
    served(&world, &mut link, 0).await;
    until("the commit is counted", || count(&miner, "committed") == 1).await;
    let block = world.chain.last_block();
    assert!(matches!(block.events[1].body, ProtocolEvent::TaskCommitted(_)));
    world.chain.revert(block).await;
    world.chain.mine(3, vec![]).await;
    until("it is committed again", || count(&miner, "committed") == 2).await;
    assert_eq!(world.chain.keys().len(), 2);
    miner.stop().await.unwrap();
}
