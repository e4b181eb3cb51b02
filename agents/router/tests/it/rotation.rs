//! Sessions whose nodes change: who serves while a new seed is unknown, nodes that leave, lanes that are taken
//! back or filled up.

use alloy::signers::local::PrivateKeySigner;
use assay_router::book::{facts::Fact, service::BlockChange};
use assay_types::{B256, NodeId};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::world::{LANE, SESSION, World, hello};

/// Of the first reservation of [`World::open_session`].
const FIRST_ROUND: u64 = 9;
const SECOND_ROUND: u64 = 14;
/// Far after every deadline of these tests.
const LATE: u64 = 1_900_000_000;

fn rotated(nodes: &[u32], previous_until: u64) -> Fact {
    let nodes = nodes.iter().map(|node| NodeId(*node)).collect();
    Fact::SessionActivated { session: SESSION, seed_round: SECOND_ROUND, nodes, previous_until }
}

fn revealed() -> Fact {
    Fact::RoundRevealed { round: SECOND_ROUND, value: B256::repeat_byte(0x14) }
}

async fn code(world: &World) -> String {
    let body: Value = world.ask(hello(false)).await.json().await.unwrap();
    body["error"]["code"].as_str().unwrap().to_owned()
}

/// Asks, and which reservation and node served.
macro_rules! served {
    ($world:expr, $miner:expr) => {{
        let (response, (_, offer)) = tokio::join!($world.ask(hello(false)), $miner.serve(&["x"]));
        assert_eq!(response.status(), 200);
        (offer.request.seedRound, offer.request.nodeId)
    }};
}

#[tokio::test]
async fn the_nodes_before_serve_until_the_seed_of_the_new_ones_is_known() {
    let data = tempdir().unwrap();
    let mut world = World::with_nodes(data.path(), &[1]).await;
    let (mut one, mut two) = (world.miner(1).await, world.miner(2).await);
    assert_eq!(served!(world, one), (FIRST_ROUND, 1));
    world.mine(vec![rotated(&[2], LATE)]).await;
    assert_eq!(served!(world, one), (FIRST_ROUND, 1));
    let seed = world.mine(vec![revealed()]).await;
    assert_eq!(served!(world, two), (SECOND_ROUND, 2));
    // Undone, the new seed is unknown again.
    world.change(BlockChange::Reverted(seed)).await;
    assert_eq!(served!(world, one), (FIRST_ROUND, 1));
    // So it is after a restart.
    let key = world.key.clone();
    drop((one, two));
    world.crash(data.path()).await;
    let mut world = World::bare(data.path(), key).await;
    let (mut one, mut two) = (world.miner(1).await, world.miner(2).await);
    assert_eq!(served!(world, one), (FIRST_ROUND, 1));
    world.mine(vec![revealed()]).await;
    assert_eq!(served!(world, two), (SECOND_ROUND, 2));
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn the_nodes_before_serve_no_longer_than_the_contract_lets_them() {
    let data = tempdir().unwrap();
    let mut world = World::with_nodes(data.path(), &[1]).await;
    let mut one = world.miner(1).await;
    // A request of now would end after it.
    let rotation = world.mine(vec![rotated(&[1], 1_800_000_030)]).await;
    assert_eq!(code(&world).await, "session_not_ready");
    world.change(BlockChange::Reverted(rotation)).await;
    assert_eq!(served!(world, one), (FIRST_ROUND, 1));
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_node_that_left_the_session_is_asked_no_more() {
    let data = tempdir().unwrap();
    let mut world = World::with_nodes(data.path(), &[1, 2]).await;
    let (one, mut two) = (world.miner(1).await, world.miner(2).await);
    world.mine(vec![rotated(&[2], LATE)]).await;
    world.mine(vec![revealed()]).await;
    for _ in 0..3 {
        assert_eq!(served!(world, two), (SECOND_ROUND, 2));
    }
    drop(two);
    // Node 1 is connected, but not of this session.
    let mut refused = code(&world).await;
    while refused != "no_miner" {
        // The connection's end was not seen yet.
        assert_eq!(refused, "node_gone");
        refused = code(&world).await;
    }
    drop(one);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_lane_that_is_taken_back_gets_no_task_that_it_would_outlive() {
    let data = tempdir().unwrap();
    let mut world = World::with_nodes(data.path(), &[1]).await;
    let mut one = world.miner(1).await;
    let reclaimed = |lane, reclaim_at| Fact::LaneReclaimed { session: SESSION, lane, reclaim_at };
    // Another router's lane.
    world.mine(vec![reclaimed(assay_types::Lane(2), 1)]).await;
    assert_eq!(served!(world, one), (FIRST_ROUND, 1));
    world.mine(vec![reclaimed(LANE, LATE)]).await;
    assert_eq!(served!(world, one), (FIRST_ROUND, 1));
    let block = world.mine(vec![reclaimed(LANE, 1_800_000_100)]).await;
    assert_eq!(code(&world).await, "session_not_ready");
    world.change(BlockChange::Reverted(block)).await;
    assert_eq!(served!(world, one), (FIRST_ROUND, 1));
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_lane_that_is_filled_up_serves_again() {
    let data = tempdir().unwrap();
    let mut world = World::bare(data.path(), PrivateKeySigner::random()).await;
    world.open_session(&[1], 100).await;
    let mut one = world.miner(1).await;
    assert_eq!(code(&world).await, "insufficient_quota");
    let more = |lane| Fact::SessionToppedUp { session: SESSION, lane, amount: 100_000 };
    world.mine(vec![more(assay_types::Lane(2))]).await;
    assert_eq!(code(&world).await, "insufficient_quota");
    let block = world.mine(vec![more(LANE)]).await;
    assert_eq!(served!(world, one), (FIRST_ROUND, 1));
    world.change(BlockChange::Reverted(block)).await;
    assert_eq!(code(&world).await, "insufficient_quota");
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn several_sessions_of_a_model_share_its_requests_by_their_money() {
    let data = tempdir().unwrap();
    let mut world = World::with_nodes(data.path(), &[1]).await;
    let (mut one, mut two) = (world.miner(1).await, world.miner(2).await);
    let (other, holder) = (assay_types::SessionId(2), world.key.address());
    let model = crate::world::MODEL_INDEX;
    world
        .mine(vec![
            Fact::SessionOpened { session: other, model, price_in: 1, price_out: 1 },
            Fact::LaneAdded { session: other, lane: LANE, holder, allotment: 1_000_000 },
            Fact::SessionActivated {
                session: other,
                seed_round: FIRST_ROUND + 1,
                nodes: vec![NodeId(2)],
                previous_until: 0,
            },
            Fact::RoundRevealed { round: FIRST_ROUND + 1, value: B256::repeat_byte(1) },
        ])
        .await;
    // The fullest purse first; where its nodes are away or it is closed, the other one.
    let (response, (_, offer)) = tokio::join!(world.ask(hello(false)), one.serve(&["x"]));
    assert_eq!((response.status().as_u16(), offer.request.sessionId), (200, 1));
    world.mine(vec![Fact::SessionClosed { session: SESSION }]).await;
    let (response, (_, offer)) = tokio::join!(world.ask(hello(false)), two.serve(&["x"]));
    assert_eq!((response.status().as_u16(), offer.request.sessionId), (200, 2));
    assert_eq!(offer.request.nonce, 0, "nonces are a lane's own");
    assert_eq!(json!(offer.request.feeCap.to::<u128>()), json!(1));
    world.router.stop().await.unwrap();
}
