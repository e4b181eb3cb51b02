//! Reorganisations by `anvil_reorg`, on anvil and on the embedded chain.

use std::sync::Arc;

use alloy::providers::Provider;
use assay_chain::{
    Block, Chain, ChainError, Database, EventSource, KEPT_BLOCKS, Outbox, save_cursor,
};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::proxy::{Act, Proxy};
use crate::world::{Follower, Kind, PATIENCE, World, nonces, succeeded};

/// Takes everything up to the head; returns the blocks, oldest first.
async fn catch_up(world: &World, follower: &mut Follower) -> Vec<Block> {
    let head = world.head().await;
    let mut blocks = Vec::new();
    loop {
        let block = follower.committed().await;
        let number = block.at.number;
        blocks.push(block);
        if number == head {
            return blocks;
        }
    }
}

/// What a follower must see of a reorganisation: the old blocks newest first, with their events, then new
/// blocks that fit.
async fn expect_reorg(follower: &mut Follower, known: &mut Vec<Block>, depth: u64) {
    for _ in 0..depth {
        assert_eq!(follower.reverted().await, known.pop().unwrap());
    }
    for _ in 0..depth {
        let block = follower.committed().await;
        assert_eq!(block.parent, known.last().unwrap().at.hash);
        assert!(block.events.is_empty());
        known.push(block);
    }
}

async fn every_depth(kind: Kind) {
    let world = World::on(kind, true).await;
    let start = world.head().await + 1;
    let mut follower = Follower::start(world.chain().await, world.database("a"), start);
    world.emit_block(100).await;
    let mut known = catch_up(&world, &mut follower).await;
    for depth in 1..=8 {
        // Live.
        for nonce in 0..depth {
            world.emit_block(nonce).await;
        }
        known.extend(catch_up(&world, &mut follower).await);
        world.reorg(depth).await;
        expect_reorg(&mut follower, &mut known, depth).await;
        // While down: once at the same height, once with a longer chain, so that only hashes tell.
        for longer in 0..2 {
            for nonce in 0..depth {
                world.emit_block(nonce).await;
            }
            known.extend(catch_up(&world, &mut follower).await);
            let db = follower.stop().await;
            world.reorg(depth).await;
            for nonce in 0..longer {
                world.emit_block(nonce).await;
            }
            follower = Follower::start(world.chain().await, db, start);
            expect_reorg(&mut follower, &mut known, depth).await;
            for nonce in 0..longer {
                let block = follower.committed().await;
                assert_eq!(nonces(&block), [nonce]);
                known.push(block);
            }
        }
    }
    // What was followed is the chain.
    for block in known {
        let header = world.provider.get_block_by_number(block.at.number.into()).await.unwrap();
        assert_eq!(header.unwrap().header.hash, block.at.hash);
    }
}

#[tokio::test]
async fn every_depth_to_8_live_and_while_down_on_anvil() {
    every_depth(Kind::Anvil).await;
}

#[tokio::test]
async fn every_depth_to_8_live_and_while_down_on_the_embedded_chain() {
    every_depth(Kind::Devnet).await;
}

/// Kills the follower after each step of a reorganisation: what is stored is always one chain.
#[tokio::test]
async fn a_kill_in_the_middle_of_a_reorganisation_loses_nothing() {
    let world = World::on(Kind::Anvil, true).await;
    let start = world.head().await + 1;
    let mut db = world.database("a");
    let mut follower = Follower::start(world.chain().await, db, start);
    for nonce in 0..5 {
        world.emit_block(nonce).await;
    }
    let mut known = catch_up(&world, &mut follower).await;
    world.reorg(4).await;
    for reverted in (0..8).map(|step| step < 4) {
        let event = follower.next().await;
        if reverted {
            assert_eq!(event, assay_chain::ChainEvent::Reverted(known.pop().unwrap()));
        } else {
            assert_eq!(event.block().parent, known.last().unwrap().at.hash);
            known.push(event.block().clone());
        }
        db = follower.stop().await;
        follower = Follower::start(world.chain().await, db, start);
    }
    world.emit_block(9).await;
    assert_eq!(nonces(&follower.committed().await), [9]);
}

#[tokio::test]
async fn deeper_than_remembered_is_an_error_with_a_way_on() {
    let world = World::on(Kind::Anvil, true).await;
    let depth = KEPT_BLOCKS + 4;
    let start = world.head().await + 1;
    let _: serde_json::Value = world.rpc("anvil_mine", (depth + 10,)).await;
    let mut follower = Follower::start(world.chain().await, world.database("a"), start);
    catch_up(&world, &mut follower).await;
    let db = follower.stop().await;
    world.reorg(depth).await;
    // Everything that is remembered is undone, and then nobody knows where to go on.
    let mut follower = Follower::start(world.chain().await, db, start);
    for _ in 1..KEPT_BLOCKS {
        follower.reverted().await;
    }
    let error = follower.failure().await;
    assert!(matches!(error, ChainError::ReorgTooDeep { .. }), "{error}");
    assert!(error.to_string().contains("new data folder") && !error.is_retryable(), "{error}");
    // That way works.
    let mut follower = Follower::start(world.chain().await, world.database("b"), start);
    assert_eq!(follower.committed().await.at.number, start);
}

/// An agent: outbox and events in one database.
struct Agent {
    outbox: Outbox,
    services: JoinSet<()>,
    stop: CancellationToken,
}

impl Agent {
    async fn start(
        world: &World,
        signer: &alloy::signers::local::PrivateKeySigner,
        db: &Arc<Database>,
        start: u64,
    ) -> Self {
        Self::start_at(world.chain().await, signer, db, start).await
    }

    async fn start_at(
        chain: Chain,
        signer: &alloy::signers::local::PrivateKeySigner,
        db: &Arc<Database>,
        start: u64,
    ) -> Self {
        let outbox = Outbox::new(chain.clone(), signer.clone(), db.clone()).await.unwrap();
        let (stop, mut services) = (CancellationToken::new(), JoinSet::new());
        let (out, mut events) = tokio::sync::mpsc::channel(4);
        let source = EventSource::new(chain, db.clone(), start).run(out, stop.clone());
        services.spawn(async move { source.await.unwrap() });
        let run = outbox.clone().run(stop.clone());
        services.spawn(async move { run.await.unwrap() });
        let db = db.clone();
        services.spawn(async move {
            while let Some(event) = events.recv().await {
                db.transaction(|tx| save_cursor(tx, event.block())).unwrap();
            }
        });
        Self { outbox, services, stop }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.services.join_all().await;
    }
}

/// Waits until an effect is on the canonical chain, and the outbox knows.
async fn until_mined(world: &World, outbox: &Outbox, nonce: u64) {
    let seen = async {
        while world.effects(nonce).await == 0 || outbox.status().unwrap().mined == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap();
}

async fn sent_again(kind: Kind) {
    let world = World::on(kind, true).await;
    let signer = alloy::signers::local::PrivateKeySigner::random();
    world.fund(signer.address()).await;
    // So that the account is still funded after the reorganisation.
    world.mine().await;
    let start = world.head().await + 1;
    let db = world.database("a");
    let agent = Agent::start(&world, &signer, &db, start).await;
    let receipt = agent.outbox.send(world.emit(1)).await.unwrap();
    assert!(succeeded(&receipt));
    // Live.
    world.reorg(1).await;
    until_mined(&world, &agent.outbox, 1).await;
    // While down, and without anything that would change the account's nonce in between.
    agent.stop().await;
    let depth = world.head().await - receipt.block_number.unwrap() + 1;
    world.reorg(depth).await;
    assert_eq!(world.effects(1).await, 0);
    let agent = Agent::start(&world, &signer, &db, start).await;
    until_mined(&world, &agent.outbox, 1).await;
    // The same intent is the same transaction, with the receipt of the block that it is in now.
    let again = agent.outbox.send(world.emit(1)).await.unwrap();
    assert_eq!(again.transaction_hash, receipt.transaction_hash);
    assert_eq!(world.effects(1).await, 1);
    agent.stop().await;
}

#[tokio::test]
async fn what_was_mined_in_a_reverted_block_is_sent_again_on_anvil() {
    sent_again(Kind::Anvil).await;
}

#[tokio::test]
async fn what_was_mined_in_a_reverted_block_is_sent_again_on_the_embedded_chain() {
    sent_again(Kind::Devnet).await;
}

/// One endpoint follows another branch than the one before it.
#[tokio::test]
async fn a_receipt_of_a_block_that_never_was_canonical_is_not_kept() {
    let world = World::on(Kind::Anvil, true).await;
    let proxy = Proxy::start(world.node.http_url()).await;
    let signer = alloy::signers::local::PrivateKeySigner::random();
    world.fund(signer.address()).await;
    let (db, start) = (world.database("a"), world.head().await + 1);
    let agent = Agent::start_at(world.chain_at(&proxy.url).await, &signer, &db, start).await;
    proxy.set(move |call| {
        if call.method != "eth_getTransactionReceipt" {
            return Act::Forward;
        }
        Act::Change(Box::new(|mut receipt| {
            if receipt.is_object() {
                receipt["blockHash"] = json!(alloy::primitives::B256::repeat_byte(9));
            }
            receipt
        }))
    });
    let receipt = agent.outbox.send(world.emit(1)).await.unwrap();
    assert_eq!(receipt.block_hash, Some(alloy::primitives::B256::repeat_byte(9)));
    proxy.set(|_| Act::Forward);
    let number = receipt.block_number.unwrap();
    let canonical = world.provider.get_block_by_number(number.into()).await.unwrap().unwrap();
    let corrected = async {
        loop {
            let receipt = agent.outbox.send(world.emit(1)).await.unwrap();
            if receipt.block_hash == Some(canonical.header.hash) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, corrected).await.unwrap();
    assert_eq!(world.effects(1).await, 1);
    agent.stop().await;
}
