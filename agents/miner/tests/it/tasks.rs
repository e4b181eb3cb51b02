//! Serving: offers, refusals, streams, cancels, failures, tasks of the chain.

use std::time::Duration;

use alloy::primitives::aliases::U96;

use assay_engine::{EchoOptions, Engine, Failure, ScoreRequest};
use assay_miner::{Ledger, Odds};
use assay_proof::{Contrasts, Record, Width};
use assay_store::ContentStore;
use assay_types::{
    B256, CommitScope, EndReason, NumericClass, ProofSeal, RequestBlock, ResultBlock, SeedInput,
    SessionId, Signature, Signed, StreamHash, TaskId, commitment,
    link::{FromMiner, FromRouter, Offer, StreamReceipt},
    prompt_hash, seed_g,
};

use crate::world::*;

fn boxed(offer: &Offer) -> FromRouter {
    FromRouter::Offer(Box::new(offer.clone()))
}

fn slow() -> EchoOptions {
    EchoOptions { token_delay: Duration::from_millis(20), ..EchoOptions::default() }
}

#[tokio::test]
async fn an_offer_is_streamed_pinned_and_committed_with_its_submission() {
    let world = World::new().await;
    let miner = world.start();
    let mut link = world.link().await;
    let text = "a text of more than sixty-four bytes, so that there are two receipts of thirty-two and one.";
    let offer = world.offer(0, text);
    let task = task_of(&offer);
    link.send(boxed(&offer)).await;
    let frames = link.task(task).await;

    assert_eq!(frames.text, text);
    assert_eq!(frames.ids.len(), text.len() + 1);
    let count = u32::try_from(frames.ids.len()).unwrap();
    for (due, receipt) in [32, 64, count].into_iter().zip(&frames.receipts) {
        let FromMiner::Receipt { seq, stream_hash, signature, .. } = receipt else { panic!() };
        assert_eq!(*seq, due);
        assert_eq!(*stream_hash, StreamHash::of(task, &frames.ids[..*seq as usize]));
        let receipt = StreamReceipt::new(task, NODE, *seq, *stream_hash);
        let signer = receipt.signer(CHAIN_ID, QUEUE, signature).unwrap();
        assert_eq!(signer, world.operator.address());
        assert!(!receipt.contradicts(&frames.ids));
    }
    assert_eq!(frames.receipts.len(), 3);

    let bytes = world.store.get(frames.output_digest()).await.unwrap();
    let result = ResultBlock::decode(&bytes).unwrap();
    assert_eq!((&result.ids, &result.text), (&frames.ids, &frames.text));
    assert_eq!(result.stream_hash, StreamHash::of(task, &frames.ids));
    assert_eq!(result.end_reason, EndReason::Eos);

    until("a commit", || !world.chain.sent().is_empty()).await;
    let Sent::Carry(carried, commit) = world.chain.sent().remove(0) else { panic!("no carry") };
    assert_eq!(carried, task);
    assert_eq!(commit.outputDigest, frames.output_digest());
    assert_eq!((commit.outputTokens as usize, commit.endReason), (frames.ids.len(), 1));
    assert_eq!(Some(commit.promptTokens), frames.prompt_tokens);
    let block = assay_types::RequestBlock::decode(&offer.block).unwrap();
    let prompt = world.engine.tokenize(&block.prompt).await.unwrap();
    assert_eq!(commit.promptHash, prompt_hash(&prompt));
    assert_eq!(commit.numericClass, "echo".parse::<NumericClass>().unwrap().0);
    assert_ne!(commit.salt, B256::ZERO);
    let status = miner.status();
    assert_eq!((status.served, status.tokens), (1, frames.ids.len() as u64));
    miner.stop().await.unwrap();
    // H2 seals the fingerprint of the database with the salt beside it.
    let parts = world.parts(world.folder.path());
    let (salt, proof): (Vec<u8>, Vec<u8>) = parts
        .database
        .transaction(|tx| {
            let sql = "SELECT proof_salt, proof_block FROM answers";
            tx.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
        })
        .unwrap();
    let record = Record::decode(&proof, frames.ids.clone(), Width::Four).unwrap();
    // They are what the model leaves when it is fed the answer.
    let beacon = world.chain.seed(ROUND).await.unwrap();
    let seed = seed_g(&SeedInput {
        chain_id: CHAIN_ID,
        queue: QUEUE,
        task,
        prompt_hash: commit.promptHash,
        node: NODE,
        beacon,
    });
    let sampling = block.sampling;
    let request =
        ScoreRequest { prompt_ids: prompt, claimed_ids: frames.ids.clone(), sampling, seed };
    let scores = world.engine.score(request).await.unwrap();
    let scored: Vec<Contrasts> = scores.iter().map(|score| score.contrasts).collect();
    assert_eq!(record.contrasts(), scored);
    let scope = CommitScope { chain_id: CHAIN_ID, queue: QUEUE, task, node: NODE };
    let seal = ProofSeal { root: record.tree().unwrap().root(), salt: B256::from_slice(&salt) };
    assert_eq!(commit.proofSeal, seal.hash(&scope));
    assert_ne!(commitment(commit.salt, commit.proofSeal), B256::ZERO);
}

#[tokio::test]
async fn log_probabilities_come_beside_the_tokens_if_the_block_asks_for_them() {
    let world = World::new().await;
    let miner = world.start();
    let mut link = world.link().await;
    let text = "more than thirty-two bytes, and an é at its end: é";
    let wish = |block: &mut RequestBlock, top| block.top_logprobs = top;
    for (nonce, top) in [(0, None), (1, Some(0)), (2, Some(20))] {
        let offer = world.offer_with(nonce, text, |_, block| wish(block, top));
        let task = task_of(&offer);
        link.send(boxed(&offer)).await;
        let (mut shown, mut bytes, mut count) = (String::new(), Vec::new(), 0);
        loop {
            match link.next().await {
                FromMiner::Token { ids, text, logprobs, .. } => {
                    shown.push_str(&text);
                    count += ids.len();
                    assert_eq!(logprobs.len(), if top.is_some() { ids.len() } else { 0 });
                    for one in logprobs {
                        assert_eq!(one.check(top.unwrap()), Ok(()));
                        bytes.extend_from_slice(one.chosen.token.bytes().unwrap_or_default());
                    }
                }
                FromMiner::Done { task: done, output_tokens, output_digest, .. } => {
                    assert_eq!((done, output_tokens as usize), (task, count));
                    // The result block is as it always was.
                    let block = world.store.get(output_digest).await.unwrap();
                    assert!(!String::from_utf8_lossy(&block).contains("logprob"));
                    break;
                }
                FromMiner::Accept { .. } | FromMiner::Receipt { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(shown, text);
        assert_eq!(bytes, if top.is_some() { text.as_bytes() } else { &[] });
    }
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn every_bad_offer_is_declined_with_its_code() {
    let world = World::new().await;
    world.chain.set_session(2, |session| session.nodes.retain(|node| *node != NODE));
    world.chain.set_session(3, |session| session.model_id.0 = B256::repeat_byte(1));
    world.chain.set_session(4, |session| session.takes_tasks = false);
    let miner = world.start();
    let mut link = world.link().await;
    let forged = Offer { signature: Signature::test_signature(), ..world.offer(0, "x") };
    let mut other_block = world.offer(1, "x");
    other_block.block = world.offer(1, "y").block;
    let mut no_block = world.offer(2, "x");
    no_block.block = Default::default();
    let cases = [
        ("bad_signature", forged),
        ("bad_request", other_block),
        ("bad_request", no_block),
        ("unknown_session", world.offer_with(3, "x", |r, _| r.sessionId = 99)),
        ("unknown_session", world.offer_with(4, "x", |r, _| r.lane = 9)),
        ("unknown_session", world.offer_with(5, "x", |r, _| r.sessionId = 4)),
        ("not_reserved", world.offer_with(6, "x", |r, _| r.nodeId = 1)),
        ("not_reserved", world.offer_with(7, "x", |r, _| r.sessionId = 2)),
        ("wrong_model", world.offer_with(8, "x", |r, _| r.sessionId = 3)),
        ("expired", world.offer_with(9, "x", |r, _| r.deadline = NOW_S + 2)),
        ("expired", world.offer_with(10, "x", |r, _| r.deadline = 0)),
        ("bad_request", world.offer_with(16, "x", |r, _| r.deadline = u64::MAX)),
        ("bad_request", world.offer_with(11, "x", |r, _| r.maxOutput = 513)),
        ("bad_request", world.offer_with(12, "x", |r, _| r.feeCap = U96::from(1))),
        (
            "bad_request",
            world.offer_with(15, "x", |r, b| {
                (r.maxPrompt, b.max_prompt, r.maxOutput, b.max_output) = (0, 1, 1, 1);
            }),
        ),
        (
            "prompt_too_long",
            world.offer_with(13, "a long prompt", |r, b| (r.maxPrompt, b.max_prompt) = (4, 4)),
        ),
        (
            "prompt_too_long",
            world.offer_with(14, "x", |r, b| (r.maxOutput, b.max_output) = (4096, 4096)),
        ),
    ];
    for (n, (code, offer)) in cases.iter().enumerate() {
        link.send(boxed(offer)).await;
        let frames = link.task(task_of(offer)).await;
        assert_eq!((n, frames.code()), (n, *code), "{:?}", frames.end);
        assert!(matches!(frames.end, Some(FromMiner::Decline { .. })));
    }
    assert_eq!(miner.status().declined.values().sum::<u64>(), cases.len() as u64);
    assert!(world.chain.sent().is_empty());
    // A forgery says nothing about the task: its genuine offer is served.
    let offer = world.offer(0, "x");
    link.send(boxed(&offer)).await;
    assert_eq!(link.task(task_of(&offer)).await.text, "x");
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_session_without_its_seed_is_asked_again_later() {
    let world = World::new().await;
    world.chain.set_seed(ROUND, B256::ZERO);
    let miner = world.start();
    let mut link = world.link().await;
    let offer = world.offer(0, "x");
    link.send(boxed(&offer)).await;
    assert_eq!(link.task(task_of(&offer)).await.code(), "unknown_session");
    world.chain.set_seed(ROUND, B256::repeat_byte(1));
    let offer = world.offer(1, "x");
    link.send(boxed(&offer)).await;
    assert_eq!(link.task(task_of(&offer)).await.text, "x");
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_full_node_is_busy_and_does_not_serve_what_it_declined() {
    let world = World::with_engine(EchoOptions {
        failure: Some(Failure::HangAfter(1)),
        ..EchoOptions::default()
    })
    .await;
    let miner = world.start();
    let mut link = world.link().await;
    for nonce in 0..2 {
        link.send(boxed(&world.offer(nonce, "hang"))).await;
        while !matches!(link.next().await, FromMiner::Token { .. }) {}
    }
    let third = world.offer(2, "third");
    link.send(boxed(&third)).await;
    assert_eq!(link.task(task_of(&third)).await.code(), "busy");
    assert_eq!(miner.status().running, 2);

    // Its router goes elsewhere, so its submission is not served when a place is free.
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.engine.set_failure(None);
    world.chain.mine(1, vec![world.chain.submit(&third.request)]).await;
    world.store.put(third.block.0.clone()).await.unwrap();
    link.send(FromRouter::Cancel { task: task_of(&world.offer(0, "hang")), signed: None }).await;
    let fourth = world.offer(3, "fourth");
    until("a free place", || miner.status().running == 1).await;
    link.send(boxed(&fourth)).await;
    assert_eq!(link.task(task_of(&fourth)).await.text, "fourth");
    link.send(FromRouter::Cancel { task: task_of(&world.offer(1, "hang")), signed: None }).await;
    until("all is idle", || miner.status().running == 0).await;
    // What was declined is handed back at once, and never served.
    until("both ends", || world.chain.sent().len() == 2).await;
    let sent = world.chain.sent();
    assert!(matches!(&sent[0], Sent::Decline(task) if *task == task_of(&third)), "{sent:?}");
    assert!(matches!(&sent[1], Sent::Carry(task, _) if *task == task_of(&fourth)), "{sent:?}");
    assert_eq!(miner.status().handed_back.get("busy"), Some(&1));
    assert_eq!(miner.status().served, 1);
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_cancel_stops_its_task_and_no_other() {
    let world = World::with_engine(slow()).await;
    let miner = world.start();
    let mut link = world.link().await;
    let (one, two) = (world.offer(0, &"x".repeat(400)), world.offer(1, "the other one"));
    let (first, second) = (task_of(&one), task_of(&two));
    link.send(boxed(&one)).await;
    link.send(boxed(&two)).await;
    let mut text = String::new();
    let mut cancelled = false;
    loop {
        match link.next().await {
            FromMiner::Token { task, .. } if task == first && !cancelled => {
                link.send(FromRouter::Cancel { task, signed: None }).await;
                cancelled = true;
            }
            FromMiner::Token { task, text: piece, .. } if task == second => text.push_str(&piece),
            FromMiner::Done { task, .. } => {
                assert_eq!(task, second);
                break;
            }
            _ => {}
        }
    }
    assert_eq!(text, "the other one");
    until("the second commit", || !world.chain.sent().is_empty()).await;
    assert!(matches!(&world.chain.sent()[..], [Sent::Carry(task, _)] if *task == second));
    assert_eq!(miner.status().failed.get("cancelled"), Some(&1));
    // The chain's copy of the request is not served either, but handed back.
    world.chain.mine(1, vec![world.chain.submit(&one.request)]).await;
    until("the task is handed back", || world.chain.sent().len() == 2).await;
    assert!(matches!(&world.chain.sent()[1], Sent::Decline(task) if *task == first));
    assert_eq!(miner.status().running, 0);
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn engine_failures_are_told_and_nothing_is_committed() {
    let mut world = World::new().await;
    world.config.stall_timeout_ms = 200;
    let miner = world.start();
    let mut link = world.link().await;
    let cases = [
        (Failure::Refuse, "engine", 0),
        (Failure::AfterTokens(0), "engine_internal", 0),
        (Failure::AfterTokens(5), "engine_internal", 5),
        (Failure::HangAfter(0), "engine_stalled", 0),
        (Failure::HangAfter(3), "engine_stalled", 3),
    ];
    for (nonce, (failure, code, tokens)) in (0..).zip(cases) {
        world.engine.set_failure(Some(failure.clone()));
        let offer = world.offer(nonce, "a prompt");
        link.send(boxed(&offer)).await;
        let frames = link.task(task_of(&offer)).await;
        assert!(frames.code().starts_with(code), "{failure:?}: {}", frames.code());
        assert!(matches!(frames.end, Some(FromMiner::Error { .. })));
        assert_eq!(frames.ids.len(), tokens);
    }
    world.engine.set_failure(None);
    let offer = world.offer(9, "well again");
    link.send(boxed(&offer)).await;
    assert_eq!(link.task(task_of(&offer)).await.text, "well again");
    until("its commit", || !world.chain.sent().is_empty()).await;
    assert_eq!(world.chain.sent().len(), 1);
    assert_eq!(miner.status().failed.values().sum::<u64>(), 5);
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_task_whose_link_drops_is_finished_and_committed() {
    let world = World::with_engine(slow()).await;
    let miner = world.start();
    let mut link = world.link().await;
    let offer = world.offer(0, "nobody hears the end of this");
    link.send(boxed(&offer)).await;
    while !matches!(link.next().await, FromMiner::Token { .. }) {}
    drop(link);
    until("a commit", || !world.chain.sent().is_empty()).await;
    assert_eq!(miner.status().served, 1);
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_router_that_comes_back_hears_its_task_from_the_beginning() {
    let world = World::with_engine(slow()).await;
    let miner = world.start();
    let mut link = world.link().await;
    let text = "long enough that the link can drop and come back in the middle of it, after some \
                time, and the rest is still to come";
    let offer = world.offer(0, text);
    link.send(boxed(&offer)).await;
    while !matches!(link.next().await, FromMiner::Token { .. }) {}
    drop(link);
    let mut link = world.link().await;
    // Somebody else's idea of the same request is not heard.
    let forged = Offer { signature: Signature::test_signature(), ..offer.clone() };
    link.send(boxed(&forged)).await;
    assert_eq!(link.task(task_of(&offer)).await.code(), "bad_signature");
    link.send(boxed(&offer)).await;
    let frames = link.task(task_of(&offer)).await;
    assert_eq!(frames.text, text);
    assert!(frames.prompt_tokens.is_some());
    until("a commit", || !world.chain.sent().is_empty()).await;
    assert_eq!((world.chain.sent().len(), miner.status().served), (1, 1));
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_task_of_the_chain_is_fetched_and_committed() {
    let mut world = World::new().await;
    world.config.router_urls.clear();
    let miner = world.start();
    let offer = world.offer(0, "by transaction");
    world.chain.mine(1, vec![world.chain.submit(&offer.request)]).await;
    // The block comes later than the event.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(miner.status().running, 1);
    world.store.put(offer.block.0.clone()).await.unwrap();
    until("a commit", || !world.chain.sent().is_empty()).await;
    let Sent::Commit(task, commit) = world.chain.sent().remove(0) else { panic!("no commit") };
    assert_eq!(task, task_of(&offer));
    let result = world.store.get(commit.outputDigest).await.unwrap();
    assert_eq!(ResultBlock::decode(&result).unwrap().text, "by transaction");
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_task_by_both_ways_runs_once() {
    let world = World::with_engine(slow()).await;
    let miner = world.start();
    let mut link = world.link().await;
    // Event first: the offer brings the block, and its router hears all.
    let offer = world.offer(0, "both ways");
    world.chain.mine(1, vec![world.chain.submit(&offer.request)]).await;
    until("the task runs", || miner.status().running == 1).await;
    link.send(boxed(&offer)).await;
    assert_eq!(link.task(task_of(&offer)).await.text, "both ways");
    // Offer first.
    let offer = world.offer(1, "the other order");
    link.send(boxed(&offer)).await;
    while !matches!(link.next().await, FromMiner::Token { .. }) {}
    world.chain.mine(1, vec![world.chain.submit(&offer.request)]).await;
    while !matches!(link.next().await, FromMiner::Done { .. }) {}
    // Long after.
    link.send(boxed(&offer)).await;
    assert_eq!(link.task(task_of(&offer)).await.code(), "bad_request");
    until("two commits", || world.chain.sent().len() >= 2).await;
    assert_eq!((world.chain.sent().len(), miner.status().served), (2, 2));
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn two_miners_share_an_engine() {
    let world = World::new().await;
    let other = World::new().await;
    let mut parts = other.parts(other.folder.path());
    parts.engine = world.engine.clone();
    let second = assay_miner::start_node(&other.config, parts).unwrap();
    let first = world.start();
    let (mut a, mut b) = tokio::join!(world.link(), other.link());
    let (one, two) = (world.offer(0, "one"), other.offer(0, "two"));
    a.send(boxed(&one)).await;
    b.send(boxed(&two)).await;
    let (one, two) = tokio::join!(a.task(task_of(&one)), b.task(task_of(&two)));
    assert_eq!((one.text.as_str(), two.text.as_str()), ("one", "two"));
    first.stop().await.unwrap();
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_store_that_fails_for_a_while_delays_the_answer_only() {
    let world = World::new().await;
    world.store.fail(2);
    let miner = world.start();
    let mut link = world.link().await;
    let offer = world.offer(0, "pinned at last");
    link.send(boxed(&offer)).await;
    let frames = link.task(task_of(&offer)).await;
    assert!(world.store.is_pinned(frames.output_digest()).await.unwrap());
    miner.stop().await.unwrap();
}

#[tokio::test]
async fn a_stop_finishes_what_runs_and_takes_nothing_new() {
    let world = World::with_engine(slow()).await;
    let miner = world.start();
    let mut link = world.link().await;
    let offer = world.offer(0, "the last answer");
    link.send(boxed(&offer)).await;
    while !matches!(link.next().await, FromMiner::Token { .. }) {}
    let stopped = tokio::spawn(miner.stop());
    while link.next().await != FromMiner::Drain {}
    let late = world.offer(1, "too late");
    link.send(boxed(&late)).await;
    let mut ends: Vec<(TaskId, bool)> = Vec::new();
    while let Some(frame) = link.try_next().await {
        match frame {
            FromMiner::Done { task, .. } => ends.push((task, true)),
            FromMiner::Decline { task, code, .. } => {
                assert_eq!(code, "busy");
                ends.push((task, false));
            }
            _ => {}
        }
    }
    ends.sort_by_key(|(_, done)| *done);
    assert_eq!(ends, [(task_of(&late), false), (task_of(&offer), true)]);
    stopped.await.unwrap().unwrap();
    assert_eq!(world.chain.sent().len(), 1);
}

#[tokio::test]
async fn an_answer_that_the_stake_does_not_cover_is_declined_before_any_work() {
    let world = World::with_engine(EchoOptions {
        failure: Some(Failure::HangAfter(1)),
        ..EchoOptions::default()
    })
    .await;
    let miner = world.start();
    let mut link = world.link().await;
    world.chain.set_odds(Odds::Bps(10_001));
    let offer = world.offer(0, "too dear");
    link.send(boxed(&offer)).await;
    assert_eq!(link.task(task_of(&offer)).await.code(), "stake_too_small");
    world.chain.set_odds(Odds::Uncalibrated);
    link.send(boxed(&offer)).await;
    assert_eq!(link.task(task_of(&offer)).await.code(), "not_calibrated");
    // 512 tokens at 1, and 512 at 2.
    const FEE: u128 = 512 + 2 * 512;
    assert_eq!((world.chain.last_stake().fee, world.chain.last_stake().promised), (FEE, vec![]));

    // What is being worked at counts with the next one; what was given up does not.
    world.chain.set_odds(Odds::Bps(10_000));
    link.send(boxed(&offer)).await;
    while !matches!(link.next().await, FromMiner::Token { .. }) {}
    let second = world.offer(1, "another");
    link.send(boxed(&second)).await;
    while !matches!(link.next().await, FromMiner::Token { .. }) {}
    assert_eq!(world.chain.last_stake().promised, [(SessionId(SESSION), FEE)]);
    for offer in [&offer, &second] {
        link.send(FromRouter::Cancel { task: task_of(offer), signed: None }).await;
        assert_eq!(link.task(task_of(offer)).await.code(), "cancelled");
    }
    // The router need not keep what was asked: a validator finds it all the same.
    for offer in [&offer, &second] {
        assert!(world.store.is_pinned(offer.request.requestDigest).await.unwrap());
    }
    miner.stop().await.unwrap();
}
