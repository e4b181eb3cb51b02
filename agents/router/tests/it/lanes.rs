//! Lanes that a router is given in a session that is open already.

use alloy::signers::local::PrivateKeySigner;
use assay_router::book::{facts::Fact, service::BlockChange};
use assay_types::{Address, Lane, NodeId};
use serde_json::Value;
use tempfile::tempdir;

use crate::world::{LANE, MODEL_INDEX, PRICE_IN, PRICE_OUT, SEED, SESSION, World, hello, model_id};

fn lane_of(holder: Address, lane: Lane) -> Fact {
    Fact::LaneAdded { session: SESSION, lane, holder, allotment: u128::MAX }
}

/// A session of node 1, in which another router holds the only lane.
async fn session_of_others(world: &mut World) {
    let opened = Fact::SessionOpened {
        session: SESSION,
        model: MODEL_INDEX,
        price_in: PRICE_IN,
        price_out: PRICE_OUT,
    };
    let registered = Fact::ModelRegistered { index: MODEL_INDEX, model: model_id() };
    world.mine(vec![registered, opened, lane_of(Address::repeat_byte(7), LANE)]).await;
    let nodes = vec![NodeId(1)];
    let activated =
        Fact::SessionActivated { session: SESSION, seed_round: 9, nodes, previous_until: 0 };
    world.mine(vec![activated]).await;
    world.mine(vec![Fact::RoundRevealed { round: 9, value: SEED }]).await;
}

async fn code(world: &World) -> String {
    let body: Value = world.ask(hello(false)).await.json().await.unwrap();
    body["error"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_lane_of_a_session_that_is_open_already_is_served() {
    let data = tempdir().unwrap();
    let mut world = World::bare(data.path(), PrivateKeySigner::random()).await;
    session_of_others(&mut world).await;
    assert_eq!(code(&world).await, "no_session");
    let mine = Lane(2);
    let given = world.mine(vec![lane_of(world.key.address(), mine)]).await;
    let mut miner = world.miner(1).await;
    let (response, (_, offer)) = tokio::join!(world.ask(hello(false)), miner.serve(&["x"]));
    assert_eq!(response.status(), 200);
    assert_eq!((offer.request.lane, offer.request.seedRound), (mine.0, 9));
    // Its block is no longer canonical: the lane is not the router's any more.
    world.change(BlockChange::Reverted(given.clone())).await;
    assert_eq!(code(&world).await, "no_session");
    world.change(BlockChange::Committed(given)).await;
    let (response, _) = tokio::join!(world.ask(hello(false)), miner.serve(&["x"]));
    assert_eq!(response.status(), 200);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_session_of_others_is_remembered_over_a_restart_until_it_is_closed() {
    let data = tempdir().unwrap();
    let mut world = World::bare(data.path(), PrivateKeySigner::random()).await;
    session_of_others(&mut world).await;
    world.mine(Vec::new()).await;
    let key = world.key.clone();
    world.crash(data.path()).await;
    let mut world = World::bare(data.path(), key.clone()).await;
    world.mine(vec![lane_of(key.address(), Lane(2))]).await;
    let mut miner = world.miner(1).await;
    let (response, _) = tokio::join!(world.ask(hello(false)), miner.serve(&["x"]));
    assert_eq!(response.status(), 200);
    world.router.stop().await.unwrap();

    let data = tempdir().unwrap();
    let mut world = World::bare(data.path(), key.clone()).await;
    session_of_others(&mut world).await;
    world.mine(vec![Fact::SessionClosed { session: SESSION }]).await;
    world.mine(vec![lane_of(key.address(), Lane(2))]).await;
    assert_eq!(code(&world).await, "no_session");
    world.router.stop().await.unwrap();
}
