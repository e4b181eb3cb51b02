//! Who may connect as a miner.

use alloy::signers::{SignerSync, local::PrivateKeySigner};
use assay_types::{
    NodeId,
    link::{DOMAIN_LINK_MINER, FromMiner, FromRouter, LINK_VERSION, challenge_hash},
};
use futures::{SinkExt, StreamExt};
use tempfile::tempdir;
use tokio_tungstenite::tungstenite::Message;

use crate::world::{Miner, World, hello};

#[tokio::test]
async fn only_a_nodes_operator_is_let_in() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let stranger = PrivateKeySigner::random();
    let refused = |node, key: PrivateKeySigner| {
        let (address, store) = (world.address(), world.store.clone());
        async move { Miner::connect(address, NodeId(node), &key, store).await.err().unwrap() }
    };
    let (code, message) = refused(1, stranger.clone()).await;
    assert_eq!(code, "wrong_signature");
    assert!(message.contains("operator of node 1"), "{message}");
    assert_eq!(refused(99, stranger).await.0, "unknown_node");
    // Another node's operator is a stranger too.
    let other = world.operators[&NodeId(2)].clone();
    assert_eq!(refused(1, other).await.0, "wrong_signature");
    let response = world.ask(hello(false)).await;
    assert_eq!(response.status(), 503);
    let body: serde_json::Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "no_miner");
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_hello_counts_for_one_challenge() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let url = format!("ws://{}/link", world.address());
    let operator = &world.operators[&NodeId(1)];
    let mut heard = None;
    for expected in ["welcome", "error"] {
        let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
        let Message::Text(text) = socket.next().await.unwrap().unwrap() else { panic!() };
        let FromRouter::Challenge { version, chain_id, queue, router, nonce } =
            serde_json::from_str(&text).unwrap()
        else {
            panic!("{text}")
        };
        // The second time, what was said the first time.
        let hello = heard.get_or_insert_with(|| {
            let node = NodeId(1);
            let hash = challenge_hash(DOMAIN_LINK_MINER, chain_id, queue, node, router, nonce);
            let signature = operator.sign_hash_sync(&hash).unwrap();
            let hello = FromMiner::Hello { version, node, signature, nonce, capacity: 1 };
            serde_json::to_string(&hello).unwrap()
        });
        socket.send(Message::text(hello.clone())).await.unwrap();
        let Message::Text(answer) = socket.next().await.unwrap().unwrap() else { panic!() };
        assert!(answer.contains(expected), "{answer}");
    }
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_miner_of_another_version_is_told_so() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let url = format!("ws://{}/link", world.address());
    let version = LINK_VERSION + 1;
    let cases = [
        (format!(r#"{{"type":"hello","version":{version},"new":1}}"#), "wrong_version"),
        (format!(r#"{{"type":"hello","version":{LINK_VERSION}}}"#), "bad_hello"),
        (r#"{"type":"ping","seq":1}"#.into(), "bad_hello"),
        ("hello".into(), "bad_hello"),
        ("x".repeat(5000), "bad_hello"),
    ];
    for (text, expected) in cases {
        let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
        socket.next().await.unwrap().unwrap();
        socket.send(Message::text(text)).await.unwrap();
        let Message::Text(answer) = socket.next().await.unwrap().unwrap() else { panic!() };
        let FromRouter::Error { code, .. } = serde_json::from_str(&answer).unwrap() else {
            panic!("{answer}")
        };
        assert_eq!(code, expected);
    }
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_newer_connection_replaces_the_older() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut older = world.miner(1).await;
    let mut newer = world.miner(1).await;
    match older.recv().await {
        Some(FromRouter::Error { code, .. }) => assert_eq!(code, "replaced"),
        other => panic!("{other:?}"),
    }
    assert_eq!(older.recv().await, None);
    let (response, _) = tokio::join!(world.ask(hello(false)), newer.serve(&["newer"]));
    assert_eq!(response.status(), 200);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_node_that_the_chain_dismisses_is_sent_away() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    // As of a node that was proven to lie.
    world.chain.operators.lock().unwrap().remove(&NodeId(1));
    let code = loop {
        match miner.recv().await {
            Some(FromRouter::Error { code, .. }) => break code,
            Some(_) => {}
            None => panic!("the connection ended without a word"),
        }
    };
    assert_eq!(code, "unknown_node");
    assert_eq!(miner.recv().await, None);
    let key = &world.operators[&NodeId(1)];
    let again = Miner::connect(world.address(), NodeId(1), key, world.store.clone()).await;
    assert_eq!(again.err().unwrap().0, "unknown_node");
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let data = tempdir().unwrap();
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = crate::world::config(data.path());
    config.http = taken.local_addr().unwrap();
    let parts = assay_router::Parts {
        chain: std::sync::Arc::new(crate::world::FakeChain::default()),
        signer: PrivateKeySigner::random(),
        store: std::sync::Arc::new(crate::world::MemoryStore::default()),
        journal: assay_router::Journal::open(data.path()).unwrap(),
        blocks: tokio::sync::mpsc::channel(1).1,
        services: Vec::new(),
        services_stop: Default::default(),
    };
    let address = config.http.to_string();
    let error = assay_router::assemble(config, parts).await.err().unwrap().to_string();
    assert!(error.contains(&address) && error.contains("--http"), "{error}");
}
