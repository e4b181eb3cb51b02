//! Links that drop, routers that come back, streams that stay closed.

use std::time::Duration;

use alloy::signers::local::PrivateKeySigner;
use assay_engine::EchoOptions;
use assay_types::{
    B256, Signed, StreamHash, TaskId,
    link::{FromMiner, FromRouter, Offer, StreamReceipt},
};

use crate::world::*;

fn boxed(offer: &Offer) -> FromRouter {
    FromRouter::Offer(Box::new(offer.clone()))
}

fn slow() -> EchoOptions {
    EchoOptions { token_delay: Duration::from_millis(5), ..EchoOptions::default() }
}

/// What a router has of a stream; panics on a gap, a duplicate or a wrong receipt.
#[derive(Default)]
struct Stream {
    ids: Vec<u32>,
    text: String,
    done: bool,
}

impl Stream {
    fn take(&mut self, world: &World, task: TaskId, frame: &FromMiner) {
        match frame {
            FromMiner::Token { task: of, seq, ids, text, .. } => {
                assert_eq!((*of, *seq as usize), (task, self.ids.len()));
                self.ids.extend(ids);
                self.text.push_str(text);
            }
            FromMiner::Receipt { task: of, seq, stream_hash, signature } => {
                assert_eq!((*of, *seq as usize), (task, self.ids.len()));
                assert_eq!(*stream_hash, StreamHash::of(task, &self.ids));
                let receipt = StreamReceipt::new(task, NODE, *seq, *stream_hash);
                let signer = receipt.signer(CHAIN_ID, QUEUE, signature).unwrap();
                assert_eq!(signer, world.operator.address());
            }
            FromMiner::Done { task: of, stream_hash, .. } => {
                assert_eq!((*of, *stream_hash), (task, StreamHash::of(task, &self.ids)));
                self.done = true;
            }
            FromMiner::Accept { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_stream_goes_on_where_it_was_whenever_the_link_drops() {
    let world = World::with_engine(slow()).await;
    let miner = world.start();
    let text = "a text of some length, so that the connection can drop many times in its middle, \
                here, and here, and here, and still nothing of it is missing or there twice.";
    let offer = world.offer(0, text);
    let task = task_of(&offer);
    let mut link = world.link().await;
    link.send(boxed(&offer)).await;
    let mut stream = Stream::default();
    // Once in the middle of tokens, once right before a receipt, and in between.
    for cut in [1, 5, 32, 33, 64, 100] {
        while stream.ids.len() < cut {
            let frame = link.next().await;
            stream.take(&world, task, &frame);
        }
        drop(link);
        link = world.link().await;
        let seq = u32::try_from(stream.ids.len()).unwrap();
        link.send(FromRouter::Resume { task, seq }).await;
    }
    while !stream.done {
        let frame = link.next().await;
        stream.take(&world, task, &frame);
    }
    assert_eq!(stream.text, text);
    until("one commit", || world.chain.sent().len() == 1).await;
    assert_eq!(miner.status().served, 1);
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_router_that_missed_the_end_still_gets_it() {
    let world = World::new().await;
    let miner = world.start();
    let mut link = world.link().await;
    let offer = world.offer(0, "an answer of more than thirty-two tokens");
    let task = task_of(&offer);
    link.send(boxed(&offer)).await;
    while !matches!(link.next().await, FromMiner::Accept { .. }) {}
    drop(link);
    until("the answer", || miner.status().served == 1).await;
    // As often as it likes, from wherever it is.
    for seq in [0, 7, 32] {
        let mut link = world.link().await;
        link.send(FromRouter::Resume { task, seq }).await;
        let mut stream = Stream::default();
        let whole = echoed("an answer of more than thirty-two tokens");
        stream.ids.extend(&whole[..seq as usize]);
        while !stream.done {
            let frame = link.next().await;
            stream.take(&world, task, &frame);
        }
        assert_eq!(stream.ids, whole);
    }
    miner.stop().await.unwrap();
}

/// The ids that the echo engine answers with: its bytes, and an end.
fn echoed(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).chain([257]).collect()
}

#[tokio::test]
async fn what_cannot_be_resumed_is_refused_and_costs_nothing_else() {
    let mut world = World::with_engine(slow()).await;
    let second = FakeRouter::start(PrivateKeySigner::random()).await;
    world.config.router_urls.push(second.url());
    let miner = world.start();
    let (mut a, mut b) = tokio::join!(world.link(), second.accept(world.operator.address()));
    let offer = world.offer(0, "a task of the first router, which the second has seen on chain");
    let task = task_of(&offer);
    a.send(boxed(&offer)).await;
    let mut stream = Stream::default();
    while stream.ids.len() < 3 {
        let frame = a.next().await;
        stream.take(&world, task, &frame);
    }
    for (task, seq) in [(task, 0), (task, 3), (TaskId(B256::repeat_byte(1)), 0)] {
        b.send(FromRouter::Resume { task, seq }).await;
        let FromMiner::Error { task: Some(of), code, .. } = b.next().await else { panic!() };
        assert_eq!((of, code.as_str()), (task, "unknown_task"));
    }
    b.send(FromRouter::Cancel { task, signed: None }).await;
    let FromMiner::Error { task: Some(of), code, .. } = b.next().await else { panic!() };
    assert_eq!((of, code.as_str()), (task, "unknown_task"));
    // Tokens that were never made.
    a.send(FromRouter::Resume { task, seq: 100_000 }).await;
    let mut refused = false;
    while !stream.done {
        match a.next().await {
            FromMiner::Error { task: Some(of), code, .. } => {
                assert_eq!((of, code.as_str()), (task, "bad_seq"));
                refused = true;
            }
            frame => stream.take(&world, task, &frame),
        }
    }
    assert!(refused);
    assert_eq!(miner.status().served, 1);
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_closed_stream_shows_nothing_before_its_commit() {
    let world = World::new().await;
    let miner = world.start();
    let mut link = world.link().await;
    let offer =
        Offer { stream: false, ..world.offer(0, "a secret of more than thirty-two tokens") };
    let task = task_of(&offer);
    link.send(boxed(&offer)).await;
    assert!(matches!(link.next().await, FromMiner::Accept { .. }));
    assert_eq!(link.next().await, FromMiner::Sealed { task });
    until("a commit", || world.chain.sent().len() == 1).await;
    // Its router may miss that, too, and learns no more by asking.
    drop(link);
    let mut link = world.link().await;
    link.send(FromRouter::Resume { task, seq: 0 }).await;
    assert_eq!(link.next().await, FromMiner::Sealed { task });
    link.send(FromRouter::Resume { task, seq: 1 }).await;
    let FromMiner::Error { code, .. } = link.next().await else { panic!("a token of it") };
    assert_eq!(code, "bad_seq");
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn the_end_of_a_cancelled_task_is_told_on_the_link_that_cancelled_it() {
    let world = World::with_engine(slow()).await;
    let miner = world.start();
    let mut link = world.link().await;
    let offer = world.offer(0, &"x".repeat(400));
    let task = task_of(&offer);
    link.send(boxed(&offer)).await;
    while !matches!(link.next().await, FromMiner::Token { .. }) {}
    drop(link);
    let mut link = world.link().await;
    link.send(FromRouter::Cancel { task, signed: None }).await;
    let FromMiner::Error { task: Some(of), code, .. } = link.next().await else { panic!() };
    assert_eq!((of, code.as_str()), (task, "cancelled"));
    assert!(world.chain.sent().is_empty());
    miner.stop().await.unwrap();
}
