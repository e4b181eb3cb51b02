use alloy::primitives::B256;
use alloy::providers::Provider;
use assay_chain::{Block, Chain, ChainError, Database, load_cursor, save_cursor};

use crate::world::{Follower, World, nonces};

async fn head(world: &World) -> u64 {
    world.provider.get_block_number().await.unwrap()
}

#[tokio::test]
async fn every_block_comes_in_order_with_its_events() {
    let world = World::new(true).await;
    world.emit_by_faucet(1).await;
    let emitted = head(&world).await;
    world.mine().await;
    let mut follower = Follower::start(world.chain().await, world.database("a"), 0);
    let mut parent: Option<Block> = None;
    for number in 0..=head(&world).await {
        let block = follower.committed().await;
        assert_eq!(block.at.number, number);
        if let Some(parent) = parent {
            assert_eq!(block.parent, parent.at.hash);
        }
        let expected: &[u64] = if number == emitted { &[1] } else { &[] };
        assert_eq!(nonces(&block), expected, "block {number}");
        parent = Some(block);
    }
    // And what comes while we watch.
    world.emit_by_faucet(2).await;
    let block = follower.committed().await;
    assert_eq!(nonces(&block), [2]);
    assert_eq!(block.events[0].body.name(), "TaskSubmitted");
    assert_ne!(block.events[0].tx_hash, B256::ZERO);
}

#[tokio::test]
async fn polling_over_http_sees_the_same() {
    let world = World::new(true).await;
    let chain = Chain::connect(&world.node.http_url(), world.deployment.clone()).await.unwrap();
    let start = head(&world).await + 1;
    let mut follower = Follower::start(chain, world.database("a"), start);
    world.emit_by_faucet(5).await;
    let block = follower.committed().await;
    assert_eq!((block.at.number, nonces(&block)), (start, vec![5]));
}

#[tokio::test]
async fn a_restart_goes_on_behind_the_cursor_and_not_behind_what_was_only_sent() {
    let world = World::new(true).await;
    let start = head(&world).await + 1;
    for nonce in 0..5 {
        world.emit_by_faucet(nonce).await;
    }
    let mut follower = Follower::start(world.chain().await, world.database("a"), start);
    assert_eq!(nonces(&follower.committed().await), [0]);
    assert_eq!(nonces(&follower.committed().await), [1]);
    // More is in the channel already; nobody stored it.
    let db = follower.stop().await;
    assert_eq!(db.transaction(load_cursor).unwrap().unwrap().number, start + 1);
    let mut follower = Follower::start(world.chain().await, db, start);
    for nonce in 2..5 {
        assert_eq!(nonces(&follower.committed().await), [nonce]);
    }
}

#[tokio::test]
async fn a_reorganisation_is_undone_newest_first() {
    let world = World::new(true).await;
    let start = head(&world).await + 1;
    let mut follower = Follower::start(world.chain().await, world.database("a"), start);
    world.emit_by_faucet(0).await;
    let kept = follower.committed().await;
    let snapshot: String = world.rpc("evm_snapshot", ()).await;
    world.emit_by_faucet(1).await;
    world.emit_by_faucet(2).await;
    let (one, two) = (follower.committed().await, follower.committed().await);
    world.go_back(snapshot).await;
    world.emit_by_faucet(3).await;
    world.emit_by_faucet(4).await;
    world.emit_by_faucet(5).await;
    assert_eq!(follower.reverted().await, two);
    assert_eq!(follower.reverted().await, one);
    let three = follower.committed().await;
    assert_eq!((three.parent, nonces(&three)), (kept.at.hash, vec![3]));
    assert_eq!(nonces(&follower.committed().await), [4]);
    assert_eq!(nonces(&follower.committed().await), [5]);
}

#[tokio::test]
async fn a_reorganisation_while_down_is_undone_with_its_events() {
    let world = World::new(true).await;
    let start = head(&world).await + 1;
    let mut follower = Follower::start(world.chain().await, world.database("a"), start);
    let snapshot: String = world.rpc("evm_snapshot", ()).await;
    world.emit_by_faucet(1).await;
    world.emit_by_faucet(2).await;
    let (one, two) = (follower.committed().await, follower.committed().await);
    let db = follower.stop().await;
    world.go_back(snapshot).await;
    // The new chain is longer, so that only hashes tell.
    for nonce in 3..7 {
        world.emit_by_faucet(nonce).await;
    }
    let mut follower = Follower::start(world.chain().await, db, start);
    // The node no longer knows these blocks: they come from the table, events and all.
    assert_eq!(follower.reverted().await, two);
    // Even the first block ever taken can go.
    assert_eq!(follower.reverted().await, one);
    assert_eq!(nonces(&follower.committed().await), [3]);
}

#[tokio::test]
async fn another_chain_with_the_same_id_is_refused() {
    let (world, other) = (World::new(true).await, World::new(true).await);
    let mut follower = Follower::start(world.chain().await, world.database("a"), 0);
    follower.committed().await;
    let db = follower.stop().await;
    let error = Follower::start(other.chain().await, db, 0).failure().await;
    assert!(matches!(error, ChainError::OtherGenesis { .. }), "{error}");
    assert!(error.to_string().contains("data folder"));
}

#[tokio::test]
async fn the_cursor_refuses_blocks_out_of_order() {
    let world = World::new(true).await;
    let mut follower = Follower::start(world.chain().await, world.database("a"), 0);
    let (zero, one) = (follower.committed().await, follower.committed().await);
    let db = follower.stop().await;
    let save = |db: &Database, block: &Block| db.transaction(|tx| save_cursor(tx, block));
    let error = save(&db, &zero).unwrap_err();
    assert!(error.to_string().contains("in the order"), "{error}");
    // Back to block 0, and on again.
    save(&db, &one).unwrap();
    assert_eq!(db.transaction(load_cursor).unwrap(), Some(zero.at));
    save(&db, &one).unwrap();
    assert_eq!(db.transaction(load_cursor).unwrap(), Some(one.at));
}

#[tokio::test]
async fn without_a_receiver_the_source_ends_with_an_error() {
    let world = World::new(true).await;
    let (out, events) = tokio::sync::mpsc::channel(1);
    drop(events);
    let source = assay_chain::EventSource::new(world.chain().await, world.database("a"), 0);
    let error = source.run(out, Default::default()).await.unwrap_err();
    assert!(matches!(error, ChainError::ConsumerGone));
}
