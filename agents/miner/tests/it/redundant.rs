//! Tasks of several nodes: precommitted, then opened, by the node itself or by its router.

use assay_bindings::SessionQueue::Answer;
use assay_protocol::{QueueScope, TaskState, commitment_of};
use assay_store::ContentStore;
use assay_types::{
    B256, CommitScope, NodeId, Precommit, Signed, TaskId,
    link::{FromMiner, FromRouter, Offer},
};

use crate::world::*;

fn boxed(offer: &Offer) -> FromRouter {
    FromRouter::Offer(Box::new(offer.clone()))
}

fn scope(task: TaskId) -> CommitScope {
    QueueScope { chain_id: CHAIN_ID, queue: QUEUE }.commit_scope(task, NODE)
}

fn of_three(world: &World, nonce: u64, text: &str) -> Offer {
    world.offer_with(nonce, text, |request, _| request.redundancy = 3)
}

/// The commitment and the signer that stand in a frame.
fn word(frame: &FromMiner, task: TaskId) -> (B256, assay_types::Address) {
    let FromMiner::Precommit { task: of, commitment, signature } = frame else {
        panic!("no precommitment: {frame:?}")
    };
    assert_eq!(*of, task);
    let signed = Precommit::new(&scope(task), *commitment);
    (*commitment, signed.signer(CHAIN_ID, QUEUE, signature).unwrap())
}

#[tokio::test]
async fn a_task_of_the_chain_is_precommitted_opened_and_settled() {
    let mut world = World::new().await;
    world.config.router_urls.clear();
    let miner = world.start();
    let offer = of_three(&world, 0, "one of three");
    let task = task_of(&offer);
    world.store.put(offer.block.0.clone()).await.unwrap();
    world.chain.mine(1, vec![world.chain.submit(&offer.request)]).await;
    until("a precommitment", || world.chain.sent().len() == 1).await;
    let Sent::Precommit(of, commitment) = world.chain.sent().remove(0) else { panic!() };
    assert_eq!(of, task);
    until("it is counted", || count(&miner, "precommitted") == 1).await;

    world.chain.others_precommit(task).await;
    until("its opening", || world.chain.sent().len() == 2).await;
    let Sent::Commit(of, answer) = world.chain.sent().remove(1) else { panic!() };
    assert_eq!((of, commitment_of(&scope(task), &answer)), (task, commitment));
    until("it is counted", || count(&miner, "opened") == 1).await;
    assert_eq!(world.chain.state_of(task), TaskState::Precommitted);

    // The others never open: the task is settled without them.
    world.chain.others_fail(task).await;
    world.chain.mine(60, vec![]).await;
    until("it is settled", || miner.status().settled == 1).await;
    assert_eq!(count(&miner, "committed"), 0);
    assert_eq!(world.chain.sent().len(), 3);
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_router_gets_the_nodes_word_and_its_opening_and_carries_both() {
    let world = World::new().await;
    let miner = world.start();
    let mut link = world.link().await;
    let offer =
        Offer { stream: false, ..of_three(&world, 0, "a secret of more than thirty-two tokens") };
    let task = task_of(&offer);
    link.send(boxed(&offer)).await;
    assert!(matches!(link.next().await, FromMiner::Accept { .. }));
    let (commitment, signer) = word(&link.next().await, task);
    assert_eq!(signer, world.operator.address());
    assert_eq!(link.next().await, FromMiner::Sealed { task });

    world.chain.carry(&offer.request, commitment).await;
    let FromMiner::Opening { task: of, seal, proof_seal } = link.next().await else { panic!() };
    let answer = Answer::new(NODE, &seal, proof_seal);
    assert_eq!((of, commitment_of(&scope(task), &answer)), (task, commitment));
    // All of it again for a router that lost its connection.
    drop(link);
    let mut link = world.link().await;
    link.send(FromRouter::Resume { task, seq: 0 }).await;
    assert_eq!(word(&link.next().await, task).0, commitment);
    assert_eq!(link.next().await, FromMiner::Sealed { task });
    assert!(matches!(link.next().await, FromMiner::Opening { .. }));

    world.chain.open(task, &answer).await;
    world.chain.others_fail(task).await;
    world.chain.mine(60, vec![]).await;
    until("it is settled", || miner.status().settled == 1).await;
    let sent = world.chain.sent();
    assert!(matches!(&sent[..], [Sent::Settle(_)]), "the router carried all: {sent:?}");
    assert_eq!((count(&miner, "precommitted"), count(&miner, "opened")), (1, 1));
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn the_leaders_stream_is_shown_and_what_its_router_only_submits_it_precommits_itself() {
    let world = World::new().await;
    let miner = world.start();
    let mut link = world.link().await;
    let offer = of_three(&world, 0, "shown to all");
    let task = task_of(&offer);
    link.send(boxed(&offer)).await;
    let (mut text, mut commitment) = (String::new(), None);
    loop {
        match link.next().await {
            FromMiner::Token { text: piece, .. } => text.push_str(&piece),
            frame @ FromMiner::Precommit { .. } => commitment = Some(word(&frame, task).0),
            FromMiner::Done { .. } => break,
            _ => {}
        }
    }
    assert_eq!(text, "shown to all");
    assert!(world.chain.sent().is_empty(), "it is the router's to submit");
    world.chain.mine(1, vec![world.chain.submit(&offer.request)]).await;
    until("its precommitment", || world.chain.sent().len() == 1).await;
    let Sent::Precommit(_, sent) = world.chain.sent().remove(0) else { panic!() };
    assert_eq!(Some(sent), commitment);
    // A router that did not carry the word does not carry the opening.
    world.chain.others_precommit(task).await;
    until("its opening", || world.chain.sent().len() == 2).await;
    assert!(matches!(world.chain.sent()[1], Sent::Commit(..)));
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_task_that_its_router_forgets_is_submitted_in_time() {
    let world = World::new().await;
    let miner = world.start();
    let mut link = world.link().await;
    let offer = world.offer_with(0, "forgotten", |request, _| {
        (request.redundancy, request.deadline) = (3, NOW_S + 25);
    });
    let task = task_of(&offer);
    link.send(boxed(&offer)).await;
    let mut commitment = B256::ZERO;
    loop {
        match link.next().await {
            frame @ FromMiner::Precommit { .. } => commitment = word(&frame, task).0,
            FromMiner::Done { .. } => break,
            _ => {}
        }
    }
    assert!(world.chain.sent().is_empty());
    world.chain.mine(15, vec![]).await;
    until("its submission", || !world.chain.sent().is_empty()).await;
    let Sent::CarryPrecommit(of, sent) = world.chain.sent().remove(0) else { panic!() };
    assert_eq!((of, sent), (task, commitment));
    // The other nodes never precommit: a stop would wait for them.
    miner.kill();
}

#[tokio::test]
async fn a_node_that_is_not_asked_refuses() {
    let world = World::new().await;
    let miner = world.start();
    let mut link = world.link().await;
    // Of three nodes, two are asked; the seed leaves this one out of some.
    let (mut served, mut refused) = (0, 0);
    for nonce in 0..12 {
        let offer = world.offer_with(nonce, "x", |request, _| {
            (request.redundancy, request.nodeId) = (2, 1);
        });
        link.send(boxed(&offer)).await;
        let frames = link.task(task_of(&offer)).await;
        match frames.end {
            Some(FromMiner::Done { .. }) => served += 1,
            _ => {
                assert_eq!(frames.code(), "not_reserved");
                refused += 1;
            }
        }
    }
    assert!(served > 0 && refused > 0, "{served} and {refused}");
    let alone = world.offer_with(50, "x", |request, _| request.redundancy = 4);
    link.send(boxed(&alone)).await;
    assert_eq!(link.task(task_of(&alone)).await.code(), "bad_request");
    // The other nodes never precommit: a stop would wait for them.
    miner.kill();
}

#[tokio::test]
async fn a_promise_survives_a_crash_and_is_opened_once() {
    let mut world = World::new().await;
    world.config.router_urls.clear();
    let mut miner = world.start();
    let offer = of_three(&world, 0, "one of three");
    let task = task_of(&offer);
    world.store.put(offer.block.0.clone()).await.unwrap();
    world.chain.mine(1, vec![world.chain.submit(&offer.request)]).await;
    until("a precommitment", || count(&miner, "precommitted") == 1).await;
    miner.kill();
    let _ = miner.wait().await;
    drop(miner);
    world.released().await;
    let miner = world.start();
    world.chain.others_precommit(task).await;
    until("its opening", || count(&miner, "opened") == 1).await;
    // Its block is reverted: the opening is the same again.
    let block = world.chain.last_block();
    world.chain.revert(block).await;
    world.chain.mine(3, vec![]).await;
    until("its opening again", || count(&miner, "opened") == 2).await;
    let sent = world.chain.sent();
    let [Sent::Precommit(..), Sent::Commit(_, one), Sent::Commit(_, two)] = &sent[..] else {
        panic!("{sent:?}")
    };
    assert_eq!(one, two);
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_task_that_another_node_took_over_is_dropped() {
    let mut world = World::with_engine(assay_engine::EchoOptions {
        failure: Some(assay_engine::Failure::HangAfter(1)),
        ..Default::default()
    })
    .await;
    world.config.router_urls.clear();
    let miner = world.start();
    let offer = world.offer(0, "hangs");
    world.store.put(offer.block.0.clone()).await.unwrap();
    world.chain.mine(1, vec![world.chain.submit(&offer.request)]).await;
    until("it runs", || miner.status().running == 1).await;
    world.chain.pass_on(task_of(&offer), NodeId(1)).await;
    until("it is dropped", || miner.status().running == 0).await;
    assert_eq!(miner.status().failed.get("moved"), Some(&1));
    assert!(world.chain.sent().is_empty());
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_task_that_another_node_left_is_taken_over() {
    let mut world = World::new().await;
    world.config.router_urls.clear();
    let miner = world.start();
    let offer = world.offer_with(0, "left by the first", |request, _| request.nodeId = 1);
    let task = task_of(&offer);
    world.store.put(offer.block.0.clone()).await.unwrap();
    let submitted = world.chain.submit(&offer.request);
    world.chain.mine(1, vec![world.chain.activated(), submitted]).await;
    world.chain.pass_on(task, NODE).await;
    until("its answer", || world.chain.sent().len() == 1).await;
    assert!(matches!(&world.chain.sent()[0], Sent::Commit(of, _) if *of == task));
    miner.stop().await.unwrap();
}
