//! Connections that drop in the middle of answers, and nodes that drain.

use alloy::signers::local::PrivateKeySigner;
use assay_types::link::{FromMiner, FromRouter};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::world::{PATIENCE, World, config, data_lines, hello};

/// A router that waits for nodes to come back.
async fn patient(nodes: &[u32]) -> (TempDir, World) {
    let data = tempdir().unwrap();
    let mut config = config(data.path());
    config.resume_timeout = PATIENCE;
    let mut world = World::with_config(config, PrivateKeySigner::random()).await;
    world.open_session(nodes, u128::MAX).await;
    (data, world)
}

fn streamed_text(body: &str) -> String {
    let lines = data_lines(body);
    assert_eq!(lines.last(), Some(&"[DONE]"), "{body}");
    let piece = |line: &&str| {
        let chunk: Value = serde_json::from_str(line).ok()?;
        Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned())
    };
    lines.iter().filter_map(piece).collect()
}

#[tokio::test]
async fn a_client_sees_neither_gap_nor_duplicate_when_its_nodes_connection_drops() {
    // With the old connection gone, and with one that the router still believes in.
    for half_open in [false, true] {
        for stream in [true, false] {
            let (_data, world) = patient(&[1]).await;
            let mut miner = world.miner(1).await;
            let serve = async {
                let (task, _) = miner.offer().await;
                miner.accept(task).await;
                miner.token(task, 0, "a").await;
                miner.token(task, 1, "b").await;
                // The pong says that the router has read everything before.
                miner.send(FromMiner::Ping { seq: 9 }).await;
                assert_eq!(miner.recv().await, Some(FromRouter::Pong { seq: 9 }));
                if half_open {
                    // Lost on its way.
                    miner.token(task, 2, "").await;
                }
                let older = half_open.then_some(miner);
                let mut miner = world.miner(1).await;
                let Some(FromRouter::Resume { task: resumed, seq }) = miner.recv().await else {
                    panic!("not resumed")
                };
                assert_eq!(resumed, task);
                assert!(seq == 2 || (half_open && seq == 3), "{seq}");
                if seq == 2 {
                    miner.token(task, 2, "").await;
                }
                miner.token(task, 3, "c").await;
                miner.finish(task, &["a", "b", "", "c"], "abc").await;
                drop(older);
            };
            let (response, ()) = tokio::join!(world.ask(hello(stream)), serve);
            assert_eq!(response.status(), 200);
            if stream {
                assert_eq!(streamed_text(&response.text().await.unwrap()), "abc");
            } else {
                let body: Value = response.json().await.unwrap();
                assert_eq!(body["choices"][0]["message"]["content"], "abc");
            }
            world.router.stop().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_node_that_lost_the_task_ends_it() {
    let (_data, world) = patient(&[1]).await;
    let mut miner = world.miner(1).await;
    let (response, ()) = tokio::join!(world.ask(hello(false)), async {
        let (task, _) = miner.offer().await;
        miner.accept(task).await;
        drop(miner);
        let mut miner = world.miner(1).await;
        assert_eq!(miner.recv().await, Some(FromRouter::Resume { task, seq: 0 }));
        let (code, message) = ("unknown_task".into(), "the node was restarted".into());
        miner.send(FromMiner::Error { task: Some(task), code, message }).await;
        // The connection is as good as new.
        let (next, _) = tokio::join!(world.ask(hello(false)), miner.serve(&["x"]));
        assert_eq!(next.status(), 200);
    });
    assert_eq!(response.status(), 502);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "unknown_task");
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn an_offer_that_was_not_answered_goes_to_another_node_at_once() {
    let (_data, world) = patient(&[1, 2]).await;
    let (mut one, mut two) = (world.miner(1).await, world.miner(2).await);
    let (response, (task, node)) = tokio::join!(world.ask(hello(false)), async {
        tokio::select! {
            (task, _) = one.offer() => { drop(one); two.serve(&["two"]).await; (task, 1) }
            (task, _) = two.offer() => { drop(two); one.serve(&["one"]).await; (task, 2) }
        }
    });
    assert_eq!(response.status(), 200);
    // The one that left may be at work on it.
    let mut back = world.miner(node).await;
    assert_eq!(back.cancelled().await, (task, 0));
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_while_the_node_is_away_cancels_its_task_and_pays_what_came() {
    let (_data, world) = patient(&[1]).await;
    let mut miner = world.miner(1).await;
    let asking = tokio::spawn(world.ask(hello(true)));
    let (task, _) = miner.offer().await;
    miner.accept(task).await;
    miner.token(task, 0, "x").await;
    let response = asking.await.unwrap();
    drop(miner);
    drop(response);
    world.task_until(&task.to_string(), |t| t["answer"] == "cancelled").await;
    let mut miner = world.miner(1).await;
    assert_eq!(miner.cancelled().await, (task, 1));
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_draining_node_gets_no_new_offer_and_finishes_what_it_has() {
    let (_data, world) = patient(&[1, 2]).await;
    let mut draining = world.miner(1).await;
    let (response, ()) = tokio::join!(world.ask(hello(false)), async {
        let (task, _) = draining.offer().await;
        draining.accept(task).await;
        draining.send(FromMiner::Drain).await;
        draining.send(FromMiner::Ping { seq: 1 }).await;
        assert_eq!(draining.recv().await, Some(FromRouter::Pong { seq: 1 }));
        // Were it not draining, it would be the next: as loaded as the other one, and it comes first.
        let mut other = world.miner(2).await;
        let (held, ()) = tokio::join!(world.ask(hello(false)), async {
            let (held, _) = other.offer().await;
            other.accept(held).await;
            for _ in 0..2 {
                let (next, _) = tokio::join!(world.ask(hello(false)), other.serve(&["other"]));
                assert_eq!(next.status(), 200);
            }
            other.token(held, 0, "held").await;
            other.finish(held, &["held"], "held").await;
        });
        assert_eq!(held.status(), 200);
        draining.send(FromMiner::Ping { seq: 2 }).await;
        assert_eq!(draining.recv().await, Some(FromRouter::Pong { seq: 2 }), "no offer");
        draining.token(task, 0, "finished").await;
        draining.finish(task, &["finished"], "finished").await;
    });
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["choices"][0]["message"]["content"], "finished");
    world.router.stop().await.unwrap();
}
