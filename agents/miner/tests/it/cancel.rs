//! Answers that are cut short, and requests that their holder has another router pass on.

use std::time::Duration;

use alloy::signers::{SignerSync, local::PrivateKeySigner};
use assay_engine::{Answered, EchoOptions, examine};
use assay_miner::{Ledger, MinerHandle};
use assay_proof::{Reasons, Width};
use assay_store::ContentStore;
use assay_types::{
    Address, B256, Bytes, Cancellation, CommitScope, EndReason, Lane, NumericClass, RequestBlock,
    ResultBlock, Signed, TaskId, TokenSeal,
    link::{CANCEL_SLACK_TOKENS, FromMiner, FromRouter, Offer, SignedCancellation},
};

use crate::{chain::Sent, world::*};

/// Long enough for a cancellation to come in the middle of it.
fn slow() -> EchoOptions {
    EchoOptions { token_delay: Duration::from_millis(5), ..EchoOptions::default() }
}

fn boxed(offer: &Offer) -> FromRouter {
    FromRouter::Offer(Box::new(offer.clone()))
}

fn text() -> String {
    "x".repeat(400)
}

fn signed(task: TaskId, tokens: u32, by: &PrivateKeySigner) -> Option<SignedCancellation> {
    let hash = Cancellation::new(task, tokens).signing_hash(CHAIN_ID, QUEUE);
    Some(SignedCancellation { tokens, signature: by.sign_hash_sync(&hash).unwrap() })
}

/// A miner, and its link to the router that has just offered it a long answer.
async fn answering() -> (World, MinerHandle, RouterLink, Offer) {
    let world = World::with_engine(slow()).await;
    let miner = world.start();
    let mut link = world.link().await;
    let offer = world.offer(0, &text());
    link.send(boxed(&offer)).await;
    (world, miner, link, offer)
}

/// Reads until so many tokens of a task are there; the ids.
async fn read(link: &mut RouterLink, least: usize) -> Vec<u32> {
    let mut all = Vec::new();
    while all.len() < least {
        if let FromMiner::Token { ids, .. } = link.next().await {
            all.extend(ids);
        }
    }
    all
}

/// The end of a task whose stream is closed.
async fn end(link: &mut RouterLink) -> FromMiner {
    loop {
        match link.next().await {
            FromMiner::Token { .. } | FromMiner::Receipt { .. } => {}
            end => return end,
        }
    }
}

/// The one answer that was committed, and its block.
async fn committed(world: &World) -> (assay_bindings::SessionQueue::Answer, ResultBlock) {
    until("a commit", || !world.chain.sent().is_empty()).await;
    let sent = world.chain.sent();
    let [Sent::Carry(_, answer)] = &sent[..] else { panic!("{sent:?}") };
    let bytes = world.store.get(answer.outputDigest).await.unwrap();
    (answer.clone(), ResultBlock::decode(&bytes).unwrap())
}

#[tokio::test]
async fn what_was_streamed_is_committed_with_the_holders_cancellation() {
    let (world, miner, mut link, offer) = answering().await;
    let task = task_of(&offer);
    let ids = read(&mut link, 40).await;
    let tokens = u32::try_from(ids.len()).unwrap();
    let holder = &world.chain.holder;
    link.send(FromRouter::Cancel { task, signed: signed(task, tokens, holder) }).await;
    assert_eq!(end(&mut link).await, FromMiner::Sealed { task });

    let (answer, block) = committed(&world).await;
    assert_eq!((answer.outputTokens, answer.endReason), (tokens, EndReason::Max as u8));
    assert_eq!((&block.ids, block.end_reason), (&ids, EndReason::Cancelled));
    let scope = CommitScope { chain_id: CHAIN_ID, queue: QUEUE, task, node: NODE };
    assert!(block.is_cancelled_by(&scope, holder.address()));
    // A validator finds nothing wrong with it.
    let request = RequestBlock::decode(&offer.block).unwrap();
    let seal = TokenSeal {
        output_digest: answer.outputDigest,
        prompt_hash: answer.promptHash,
        prompt_tokens: answer.promptTokens,
        output_tokens: answer.outputTokens,
        class: NumericClass(answer.numericClass),
        end_reason: EndReason::Max,
        salt: answer.salt,
    };
    let beacon = world.chain.seed(ROUND).await.unwrap();
    for (cancel_is_signed, faults) in [(true, Reasons::default()), (false, Reasons::END)] {
        let answered = Answered {
            scope,
            beacon,
            seal: &seal,
            request: &request,
            result: Some(&block),
            cancel_is_signed,
        };
        let seen = examine(world.engine.as_ref(), &answered, Width::Four).await.unwrap();
        assert_eq!(seen.audit.statistics().faults, faults);
    }
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_cancellation_of_tokens_to_come_ends_the_answer_there() {
    let (world, miner, mut link, offer) = answering().await;
    let task = task_of(&offer);
    read(&mut link, 1).await;
    link.send(FromRouter::Cancel { task, signed: signed(task, 100, &world.chain.holder) }).await;
    assert_eq!(end(&mut link).await, FromMiner::Sealed { task });
    let (answer, block) = committed(&world).await;
    assert_eq!((answer.outputTokens, block.end_reason), (100, EndReason::Cancelled));
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn what_nobody_signs_for_is_answered_and_paid_whole() {
    let whole = text().len() + 1;
    for case in 0..4_u8 {
        let (world, miner, mut link, offer) = answering().await;
        let task = task_of(&offer);
        let shown = read(&mut link, CANCEL_SLACK_TOKENS as usize + 5).await;
        let tokens = u32::try_from(shown.len()).unwrap();
        let holder = &world.chain.holder;
        let signed = match case {
            0 => None,
            1 => signed(task, tokens, &PrivateKeySigner::random()),
            2 => signed(TaskId(B256::repeat_byte(1)), tokens, holder),
            // Another number of tokens than was signed.
            _ => signed(task, 1, holder).map(|cut| SignedCancellation { tokens, ..cut }),
        };
        link.send(FromRouter::Cancel { task, signed }).await;
        assert_eq!(end(&mut link).await, FromMiner::Sealed { task });
        let (answer, block) = committed(&world).await;
        assert_eq!((answer.outputTokens as usize, block.ids.len()), (whole, whole), "case {case}");
        assert_eq!((block.end_reason, block.cancellation), (EndReason::Eos, None));
        miner.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_cancellation_that_leaves_out_what_was_shown_comes_too_late() {
    let (world, miner, mut link, offer) = answering().await;
    let task = task_of(&offer);
    read(&mut link, CANCEL_SLACK_TOKENS as usize + 10).await;
    link.send(FromRouter::Cancel { task, signed: signed(task, 1, &world.chain.holder) }).await;
    assert_eq!(end(&mut link).await, FromMiner::Sealed { task });
    assert_eq!(committed(&world).await.0.outputTokens as usize, text().len() + 1);
    miner.stop().await.unwrap();
}

/// A world whose miner knows a second router, which holds no lane, and the miner's link to it.
async fn with_stranger(options: EchoOptions) -> (World, MinerHandle, RouterLink) {
    let mut world = World::with_engine(options).await;
    let stranger = FakeRouter::start(PrivateKeySigner::random()).await;
    world.config.router_urls = vec![stranger.url()];
    let miner = world.start();
    let link = stranger.accept(world.operator.address()).await;
    (world, miner, link)
}

#[tokio::test]
async fn a_request_is_served_whichever_router_passes_it_on() {
    let (world, miner, mut link) = with_stranger(EchoOptions::default()).await;
    let offer = world.offer(0, "signed by the holder's own wallet");
    link.send(boxed(&offer)).await;
    assert_eq!(link.task(task_of(&offer)).await.text, "signed by the holder's own wallet");
    let (answer, _) = committed(&world).await;
    assert_eq!(answer.endReason, EndReason::Eos as u8);
    // The same request again is not answered twice.
    link.send(boxed(&offer)).await;
    assert_eq!(link.task(task_of(&offer)).await.code(), "bad_request");
    assert_eq!(world.chain.sent().len(), 1);
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_router_without_the_lane_changes_nothing_of_the_request() {
    let (world, miner, mut link) = with_stranger(EchoOptions::default()).await;
    let good = world.offer(0, "good");
    let altered = |change: fn(&mut assay_types::TaskRequest)| {
        let mut offer = good.clone();
        change(&mut offer.request);
        offer
    };
    let hash = good.request.signing_hash(CHAIN_ID + 1, QUEUE);
    let other_chain = world.chain.holder.sign_hash_sync(&hash).unwrap();
    let hash = good.request.signing_hash(CHAIN_ID, QUEUE);
    let other_key = PrivateKeySigner::random().sign_hash_sync(&hash).unwrap();
    let others = Bytes::from(world.offer(0, "something else").block.to_vec());
    let redundant = world.offer_with(1, "r", |request, _| request.redundancy = 2);
    let expired = world.offer_with(2, "e", |request, _| request.deadline = NOW_S + 1);
    let far = world.offer_with(5000, "f", |_, _| {});
    let owners = world.offer_with(3, "o", |request, _| request.lane = 0);
    for (offer, code) in [
        (Offer { signature: other_chain, ..good.clone() }, "bad_signature"),
        (Offer { signature: other_key, ..good.clone() }, "bad_signature"),
        (altered(|request| request.maxOutput += 1), "bad_signature"),
        (altered(|request| request.feeCap = alloy::primitives::aliases::U96::MAX), "bad_signature"),
        (altered(|request| request.deadline += 1), "bad_signature"),
        (altered(|request| request.nonce = 7), "bad_signature"),
        (Offer { block: others, ..good.clone() }, "bad_request"),
        (redundant, "wrong_router"),
        (expired, "expired"),
        (far, "bad_request"),
        (owners, "not_on_chain"),
    ] {
        link.send(boxed(&offer)).await;
        assert_eq!(link.task(task_of(&offer)).await.code(), code);
    }
    assert!(world.chain.sent().is_empty());
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_router_without_the_lane_takes_nothing_back() {
    let (world, miner, mut link) = with_stranger(slow()).await;
    let offer = world.offer(0, &text());
    let task = task_of(&offer);
    link.send(boxed(&offer)).await;
    let first = read(&mut link, 1).await;
    assert!(!first.is_empty());
    link.send(FromRouter::Cancel { task, signed: None }).await;
    assert_eq!(end(&mut link).await, FromMiner::Sealed { task });
    assert_eq!(committed(&world).await.0.outputTokens as usize, text().len() + 1);
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_contract_signs_by_eip_1271() {
    const LANE_OF_A_CONTRACT: Lane = Lane(4);
    let (world, miner, mut link) = with_stranger(EchoOptions::default()).await;
    let wallet = Address::repeat_byte(0x71);
    world.chain.set_lane(LANE_OF_A_CONTRACT.0, wallet);
    let offer = world.offer_with(0, "a safe", |request, _| request.lane = LANE_OF_A_CONTRACT.0);
    link.send(boxed(&offer)).await;
    assert_eq!(link.task(task_of(&offer)).await.code(), "bad_signature");
    let hash = offer.request.signing_hash(CHAIN_ID, QUEUE);
    world.chain.set_contract_signed(wallet, hash, offer.signature);
    link.send(boxed(&offer)).await;
    assert_eq!(link.task(task_of(&offer)).await.text, "a safe");
    committed(&world).await;
    miner.stop().await.unwrap();
}
