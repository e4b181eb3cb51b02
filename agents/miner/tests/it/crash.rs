//! Ends at any moment, lost databases, and money that is not there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use assay_engine::{
    EchoEngine, EchoOptions, Engine, EngineError, EngineInfo, Failure, GenerateEvent,
    GenerateRequest, GenerateStream, Reading, Score, ScoreRequest,
};
use assay_miner::{MinerHandle, start_node};
use assay_protocol::TaskState;
use assay_store::ContentStore;
use assay_types::{
    Prompt, TaskId,
    link::{FromMiner, FromRouter, Offer},
};
use async_trait::async_trait;
use futures::StreamExt;

use crate::world::*;

fn boxed(offer: &Offer) -> FromRouter {
    FromRouter::Offer(Box::new(offer.clone()))
}

fn slow() -> EchoOptions {
    EchoOptions { token_delay: Duration::from_millis(2), ..EchoOptions::default() }
}

/// Ends a life as `kill -9` would.
async fn kill(world: &World, mut miner: MinerHandle) {
    miner.kill();
    let _ = miner.wait().await;
    drop(miner);
    world.released().await;
}

fn answers(world: &World, task: TaskId) -> usize {
    let of = |sent: &Sent| match sent {
        Sent::Commit(of, _) | Sent::Carry(of, _) => *of == task,
        _ => false,
    };
    world.chain.sent().iter().filter(|sent| of(sent)).count()
}

/// After every so many frames of a stream, and before and after its end: a router that offers the task again to the next
/// life gets all of it, and the chain gets it once.
#[tokio::test]
async fn a_task_ends_once_wherever_its_node_is_killed() {
    let world = World::with_engine(slow()).await;
    let text = "an answer of some more than sixty-four tokens, to be cut wherever it hurts";
    for (nonce, cut) in (0..).zip([0, 1, 2, 20, 33, 34, 60, 66, 75, 78]) {
        let offer = world.offer(nonce, text);
        let task = task_of(&offer);
        let miner = world.start();
        let mut link = world.link().await;
        link.send(boxed(&offer)).await;
        let mut over = false;
        for _ in 0..cut {
            over |= matches!(link.next().await, FromMiner::Done { .. });
            if over {
                break;
            }
        }
        kill(&world, miner).await;
        drop(link);
        let miner = world.start();
        let mut link = world.link().await;
        if !over {
            link.send(boxed(&offer)).await;
            let frames = link.task(task).await;
            // It may have been at its end without having said so.
            let ended = matches!(frames.end, Some(FromMiner::Done { .. }));
            assert!(ended && frames.text == text || frames.code() == "bad_request", "{frames:?}");
        }
        until("the answer is on chain", || answers(&world, task) == 1).await;
        until("it is committed", || world.chain.state_of(task) == TaskState::Committed).await;
        // The next life of the loop settles, too.
        kill(&world, miner).await;
        assert_eq!(answers(&world, task), 1, "cut after {cut} frames");
    }
}

#[tokio::test]
async fn a_task_of_the_chain_is_begun_again_once_and_then_handed_back() {
    let mut world = World::with_engine(EchoOptions {
        failure: Some(Failure::HangAfter(3)),
        ..EchoOptions::default()
    })
    .await;
    world.config.router_urls.clear();
    let offer = world.offer(0, "ends the process");
    world.store.put(offer.block.0.clone()).await.unwrap();
    let miner = world.start();
    world.chain.mine(1, vec![world.chain.submit(&offer.request)]).await;
    until("three tokens", || miner.status().tokens == 3).await;
    kill(&world, miner).await;
    let second = world.start();
    until("three tokens again", || second.status().tokens == 3).await;
    kill(&world, second).await;
    let third = world.start();
    until("it is handed back", || third.status().handed_back.get("given_up") == Some(&1)).await;
    assert!(matches!(&world.chain.sent()[..], [Sent::Decline(_)]));
    third.stop().await.unwrap();
}

/// Says something else in its second life.
struct Fickle {
    inner: Arc<EchoEngine>,
    other: AtomicBool,
}

#[async_trait]
impl Engine for Fickle {
    fn info(&self) -> &EngineInfo {
        self.inner.info()
    }

    async fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, EngineError> {
        self.inner.tokenize(prompt).await
    }

    fn end_tokens(&self) -> &[u32] {
        self.inner.end_tokens()
    }

    async fn read(&self, ids: &[u32], stop: &[String]) -> Result<Reading, EngineError> {
        self.inner.read(ids, stop).await
    }

    async fn generate(&self, request: GenerateRequest) -> Result<GenerateStream, EngineError> {
        let other = self.other.load(Ordering::SeqCst);
        let stream = self.inner.generate(request).await?;
        Ok(GenerateStream::new(stream.map(move |event| match event? {
            GenerateEvent::Token { id, contrasts, text, logprobs } if other && id < 256 => {
                Ok(GenerateEvent::Token { id: id ^ 1, contrasts, text, logprobs })
            }
            event => Ok(event),
        })))
    }

    async fn score(&self, request: ScoreRequest) -> Result<Vec<Score>, EngineError> {
        self.inner.score(request).await
    }
}

#[tokio::test]
async fn an_engine_that_contradicts_what_was_signed_commits_nothing() {
    let world = World::with_engine(slow()).await;
    let engine = Arc::new(Fickle { inner: world.engine.clone(), other: AtomicBool::new(false) });
    let start = || {
        let mut parts = world.parts(world.folder.path());
        parts.engine = engine.clone();
        start_node(&world.config, parts).unwrap()
    };
    let offers = [world.offer(0, &"x".repeat(200)), world.offer(1, &"y".repeat(200))];
    let miner = start();
    let mut link = world.link().await;
    // The first is killed behind a receipt, the second before.
    link.send(boxed(&offers[0])).await;
    while !matches!(link.next().await, FromMiner::Receipt { .. }) {}
    kill(&world, miner).await;
    drop(link);
    engine.other.store(true, Ordering::SeqCst);
    let miner = start();
    let mut link = world.link().await;
    link.send(boxed(&offers[0])).await;
    let frames = link.task(task_of(&offers[0])).await;
    assert_eq!(frames.code(), "engine_internal");
    assert!(frames.ids.is_empty() && frames.receipts.is_empty(), "nothing contradicts the receipt");
    link.send(boxed(&offers[1])).await;
    assert_eq!(link.task(task_of(&offers[1])).await.ids.len(), 201);
    until("the second's answer", || answers(&world, task_of(&offers[1])) == 1).await;
    assert_eq!(answers(&world, task_of(&offers[0])), 0);
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn the_same_tokens_make_the_same_commitment_without_the_database() {
    let world = World::new().await;
    let offer = world.offer(0, "twice the same");
    for life in 1..=2 {
        let folder = tempfile::tempdir().unwrap();
        world.chain.forget(task_of(&offer));
        let miner = start_node(&world.config, world.parts(folder.path())).unwrap();
        let mut link = world.link().await;
        link.send(boxed(&offer)).await;
        until("an answer", || answers(&world, task_of(&offer)) == life).await;
        miner.stop().await.unwrap();
    }
    let sent = world.chain.sent();
    let [Sent::Carry(_, one), Sent::Carry(_, two)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(one, two);
}

#[tokio::test]
async fn what_the_chain_shows_and_the_database_does_not_is_said_and_not_done_again() {
    let mut world = World::new().await;
    let miner = world.start();
    let mut link = world.link().await;
    // One that is precommitted, and one that is committed.
    let promised = world.offer_with(0, "one of three", |request, _| request.redundancy = 3);
    let done = world.offer(1, "done");
    world.chain.mine(1, vec![world.chain.submit(&promised.request)]).await;
    world.store.put(promised.block.0.clone()).await.unwrap();
    until("a precommitment", || count(&miner, "precommitted") == 1).await;
    link.send(boxed(&done)).await;
    until("a commit", || count(&miner, "committed") == 1).await;
    drop(link);
    kill(&world, miner).await;
    let sent = world.chain.sent().len();

    // Restored from a backup that is older than both.
    let folder = tempfile::tempdir().unwrap();
    world.config.data = folder.path().to_path_buf();
    let mut parts = world.parts(folder.path());
    parts.head = world.chain.last_block().at.number;
    let miner = start_node(&world.config, parts).unwrap();
    let mut link = world.link().await;
    // Offered before the events are there: it waits for them.
    link.send(boxed(&done)).await;
    link.send(boxed(&promised)).await;
    world.chain.replay().await;
    for offer in [&done, &promised] {
        assert_eq!(link.task(task_of(offer)).await.code(), "bad_request");
    }
    until("it is said", || count(&miner, "unknown_answers") == 2).await;
    let said = miner.status().last_error.unwrap();
    assert!(said.contains("its database does not know"), "{said}");
    world.chain.others_precommit(task_of(&promised)).await;
    world.chain.mine(60, vec![]).await;
    // A new task is served as ever.
    let fresh = world.offer(2, "fresh");
    link.send(boxed(&fresh)).await;
    until("its answer", || answers(&world, task_of(&fresh)) == 1).await;
    assert_eq!(world.chain.sent().len(), sent + 1);
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn nobody_works_for_an_empty_lane() {
    let world = World::with_engine(EchoOptions {
        failure: Some(Failure::HangAfter(1)),
        ..EchoOptions::default()
    })
    .await;
    let miner = world.start();
    let mut link = world.link().await;
    // 512 tokens at 1, and 512 at 2.
    const FEE: u128 = 512 + 2 * 512;
    world.chain.set_free(FEE - 1);
    let offer = world.offer(0, "x");
    link.send(boxed(&offer)).await;
    assert_eq!(link.task(task_of(&offer)).await.code(), "no_funds");
    world.chain.set_free(2 * FEE - 1);
    link.send(boxed(&offer)).await;
    while !matches!(link.next().await, FromMiner::Token { .. }) {}
    // What is left is promised.
    let second = world.offer(1, "x");
    link.send(boxed(&second)).await;
    assert_eq!(link.task(task_of(&second)).await.code(), "no_funds");
    let far = world.offer(1000, "x");
    link.send(boxed(&far)).await;
    assert_eq!(link.task(task_of(&far)).await.code(), "bad_request");
    // On chain, the money is held.
    world.chain.mine(1, vec![world.chain.submit(&offer.request)]).await;
    world.chain.set_free(FEE);
    world.engine.set_failure(None);
    until("the second is served", || world.chain.task(task_of(&offer)).is_some()).await;
    link.send(FromRouter::Cancel { task: task_of(&offer), signed: None }).await;
    assert_eq!(link.task(task_of(&offer)).await.code(), "cancelled");
    link.send(boxed(&second)).await;
    assert_eq!(link.task(task_of(&second)).await.text, "x");
    miner.stop().await.unwrap();
}
