//! Miners that fail, lie or decline, and clients that leave.

use alloy::signers::local::PrivateKeySigner;
use assay_router::book::state::Fact;
use assay_types::{
    B256, Bytes, NodeId, Signature, Signed, TaskId,
    link::{FromMiner, FromRouter, StreamReceipt},
};
use serde_json::Value;
use tempfile::tempdir;

use crate::world::{CHAIN_ID, World, data_lines, events, hello};

async fn error_of(response: reqwest::Response) -> (u16, String, Value) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, body["error"]["code"].as_str().unwrap().to_owned(), body)
}

fn last_error(body: &str) -> Value {
    let lines = data_lines(body);
    assert!(!lines.contains(&"[DONE]"), "{body}");
    serde_json::from_str::<Value>(lines.last().unwrap()).unwrap()["error"].clone()
}

#[tokio::test]
async fn a_miner_that_dies_before_its_first_token_is_a_502() {
    for stream in [false, true] {
        let data = tempdir().unwrap();
        let world = World::with_nodes(data.path(), &[1]).await;
        let mut miner = world.miner(1).await;
        let (response, task) = tokio::join!(world.ask(hello(stream)), async {
            let (task, _) = miner.offer().await;
            miner.accept(task).await;
            drop(miner);
            task
        });
        assert_eq!(response.headers()["x-assay-task"], task.to_string());
        let (status, code, _) = error_of(response).await;
        assert_eq!((status, code.as_str()), (502, "node_gone"));
        let task = world.task_until(&task.to_string(), |t| t["answer"] == "failed").await;
        assert_eq!(task["error"]["code"], "node_gone");
        // It was accepted: the chain has it, and refunds it at its deadline.
        world
            .task_until(task["id"].as_str().unwrap(), |_| {
                world.chain.submitted.lock().unwrap().len() == 1
            })
            .await;
        world.router.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_miner_that_dies_before_its_first_token_is_replaced_unseen() {
    for stream in [false, true] {
        let data = tempdir().unwrap();
        let world = World::with_nodes(data.path(), &[1, 2]).await;
        let (mut one, mut two) = (world.miner(1).await, world.miner(2).await);
        let (response, (dead, task)) = tokio::join!(world.ask(hello(stream)), async {
            // Whichever is asked first accepts and dies; the other one serves.
            tokio::select! {
                (dead, _) = one.offer() => {
                    one.accept(dead).await;
                    drop(one);
                    (dead, two.serve(&["well"]).await.0)
                }
                (dead, _) = two.offer() => {
                    two.accept(dead).await;
                    drop(two);
                    (dead, one.serve(&["well"]).await.0)
                }
            }
        });
        assert_eq!(response.status(), 200);
        let body = response.text().await.unwrap();
        assert!(body.contains("well") && !body.contains("node_gone"), "{body}");
        world.task_until(&task.to_string(), |t| t["answer"] == "complete").await;
        let dead = world.task_until(&dead.to_string(), |t| events(t).contains(&"replaced")).await;
        assert_eq!(dead["answer"], "failed");
        let mut timeline = dead["timeline"].as_array().unwrap().iter();
        let replaced = timeline.find(|entry| entry["event"] == "replaced").unwrap();
        assert_eq!(replaced["detail"], task.to_string());
        world.router.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_miner_that_dies_in_the_middle_ends_the_stream_with_an_error() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    for stream in [true, false] {
        let mut miner = world.miner(1).await;
        let serve = async {
            let (task, _) = miner.offer().await;
            miner.accept(task).await;
            miner.token(task, 0, "half").await;
            drop(miner);
        };
        let (response, ()) = tokio::join!(world.ask(hello(stream)), serve);
        if stream {
            assert_eq!(response.status(), 200);
            let body = response.text().await.unwrap();
            assert!(body.contains("half"), "{body}");
            assert_eq!(last_error(&body)["code"], "node_gone");
        } else {
            let (status, code, _) = error_of(response).await;
            assert_eq!((status, code.as_str()), (502, "node_gone"));
        }
    }
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_result_that_differs_from_the_stream_is_an_error() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    for stream in [true, false] {
        let serve = async {
            let (task, _) = miner.offer().await;
            miner.accept(task).await;
            miner.token(task, 0, "shown").await;
            miner.finish(task, &["shown"], "pinned").await;
            task
        };
        let (response, task) = tokio::join!(world.ask(hello(stream)), serve);
        if stream {
            let body = response.text().await.unwrap();
            assert_eq!(last_error(&body)["code"], "result_mismatch");
        } else {
            let (status, code, _) = error_of(response).await;
            assert_eq!((status, code.as_str()), (502, "result_mismatch"));
        }
        let task = world.task(&task.to_string()).await;
        assert_eq!(task["answer"], "failed");
    }
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_miner_that_pins_other_tokens_than_it_signed_for_is_caught() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    // The text is the same: only the ids, which it is paid for, are others.
    let serve = async {
        let (task, _) = miner.offer().await;
        miner.accept(task).await;
        miner.token(task, 0, "shown").await;
        miner.finish_with(task, 1, vec![100, 101, 102], "shown").await;
        task
    };
    let (response, task) = tokio::join!(world.ask(hello(false)), serve);
    let (status, code, _) = error_of(response).await;
    assert_eq!((status, code.as_str()), (502, "result_mismatch"));
    let task = world.task(&task.to_string()).await;
    assert_eq!(task["answer"], "failed");
    // The cheat is over other ids, beside the receipt; whoever looks sees both.
    assert_eq!(task["receipt"]["seq"], 1);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_miner_that_swaps_a_token_contradicts_its_receipt() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    let serve = async {
        let (task, _) = miner.offer().await;
        miner.accept(task).await;
        miner.token(task, 0, "shown").await;
        miner.finish_with(task, 1, vec![7], "shown").await;
        task
    };
    let (response, task) = tokio::join!(world.ask(hello(true)), serve);
    let body = response.text().await.unwrap();
    assert_eq!(last_error(&body)["code"], "result_mismatch");
    let task = world.task(&task.to_string()).await;
    assert!(events(&task).contains(&"contradicted"), "{task:#}");
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_miner_that_commits_another_answer_than_it_announced_is_caught() {
    let data = tempdir().unwrap();
    let mut world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    let mut tasks = Vec::new();
    for word in ["honest", "cheat"] {
        let words = [word];
        let (response, (task, _)) = tokio::join!(world.ask(hello(false)), miner.serve(&words));
        assert_eq!(response.status(), 200);
        let shown = world.task_until(&task.to_string(), |t| t["answer"] == "complete").await;
        let honest = shown["output_digest"].as_str().unwrap().parse().unwrap();
        let output_digest = if word == "honest" { honest } else { B256::repeat_byte(9) };
        let commit = Fact::TaskCommitted {
            task,
            node: NodeId(1),
            output_digest,
            prompt_tokens: 7,
            output_tokens: 1,
            fee: 1,
        };
        world.mine(vec![commit]).await;
        tasks.push(world.task(&task.to_string()).await);
    }
    assert!(!events(&tasks[0]).contains(&"contradicted"), "{:#}", tasks[0]);
    assert!(events(&tasks[1]).contains(&"contradicted"), "{:#}", tasks[1]);
    // The evidence: what the node signed for, beside the digest that it committed.
    let receipt = &tasks[1]["receipt"];
    let task: TaskId = tasks[1]["id"].as_str().unwrap().parse().unwrap();
    let hash: B256 = receipt["stream_hash"].as_str().unwrap().parse().unwrap();
    let bytes: Bytes = receipt["signature"].as_str().unwrap().parse().unwrap();
    let signature = Signature::from_raw(&bytes).unwrap();
    let signed = StreamReceipt::new(task, NodeId(1), 1, hash);
    let signer = signed.signer(CHAIN_ID, crate::world::queue(), &signature).unwrap();
    assert_eq!(signer, miner.operator.address());
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_prompt_over_the_context_is_the_clients_fault_and_costs_no_gas() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    let (response, task) = tokio::join!(world.ask(hello(true)), async {
        let (task, _) = miner.offer().await;
        let message = "the prompt has 5000 tokens, the context 4096".to_owned();
        miner.send(FromMiner::Decline { task, code: "prompt_too_long".into(), message }).await;
        task
    });
    let (status, code, body) = error_of(response).await;
    assert_eq!((status, code.as_str()), (400, "context_length_exceeded"));
    assert!(body["error"]["message"].as_str().unwrap().contains("5000"));
    world.task_until(&task.to_string(), |t| events(t).contains(&"not_submitted")).await;
    assert!(world.chain.submitted.lock().unwrap().is_empty());
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_busy_node_is_passed_over() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1, 2]).await;
    let (mut one, mut two) = (world.miner(1).await, world.miner(2).await);
    let decline = |task| FromMiner::Decline { task, code: "busy".into(), message: "full".into() };
    let (response, ()) = tokio::join!(world.ask(hello(false)), async {
        // Whichever is asked first declines; the other one serves.
        tokio::select! {
            (task, _) = one.offer() => {
                one.send(decline(task)).await;
                two.serve(&["two"]).await;
            }
            (task, _) = two.offer() => {
                two.send(decline(task)).await;
                one.serve(&["one"]).await;
            }
        }
    });
    assert_eq!(response.status(), 200);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_task() {
    for stream in [true, false] {
        let data = tempdir().unwrap();
        let world = World::with_nodes(data.path(), &[1]).await;
        let mut miner = world.miner(1).await;
        let asking = tokio::spawn(world.ask(hello(stream)));
        let (task, _) = miner.offer().await;
        miner.accept(task).await;
        miner.token(task, 0, "x").await;
        let response = if stream {
            Some(asking.await.unwrap())
        } else {
            asking.abort();
            None
        };
        drop(response);
        assert_eq!(miner.cancelled().await.0, task);
        // What the miner says until it has stopped is no violation: the connection serves the next client.
        miner.token(task, 1, "y").await;
        miner
            .send(FromMiner::Error {
                task: Some(task),
                code: "cancelled".into(),
                message: "ok".into(),
            })
            .await;
        let cancelled = world.task_until(&task.to_string(), |t| t["answer"] == "cancelled").await;
        assert_eq!(cancelled["error"]["code"], "client_gone");
        let (next, _) = tokio::join!(world.ask(hello(false)), miner.serve(&["z"]));
        assert_eq!(next.status(), 200);
        world.router.stop().await.unwrap();
    }
}

/// Sends what breaks the protocol; the router closes the connection and the client gets a clear error.
async fn violation(frames: impl AsyncFnOnce(&mut crate::world::Miner, TaskId)) -> Value {
    let (error, told) = broken_off(frames).await;
    assert!(["violation", "bad_frame"].contains(&told.unwrap().as_str()));
    error
}

/// The client's error, and the code that the miner was told before the connection was closed, if any
/// arrived: a frame over the limit is not read to its end.
async fn broken_off(
    frames: impl AsyncFnOnce(&mut crate::world::Miner, TaskId),
) -> (Value, Option<String>) {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    let (response, told) = tokio::join!(world.ask(hello(false)), async {
        let (task, _) = miner.offer().await;
        frames(&mut miner, task).await;
        match miner.recv().await {
            Some(FromRouter::Error { code, .. }) => {
                assert_eq!(miner.recv().await, None, "the connection is closed");
                Some(code)
            }
            None => None,
            other => panic!("{other:?}"),
        }
    });
    let (status, _, body) = error_of(response).await;
    assert_eq!(status, 502);
    // It serves the next client, and the same node.
    let mut miner = world.miner(1).await;
    let (next, _) = tokio::join!(world.ask(hello(false)), miner.serve(&["next"]));
    assert_eq!(next.status(), 200);
    world.router.stop().await.unwrap();
    (body["error"].clone(), told)
}

#[tokio::test]
async fn frames_that_break_the_protocol_close_the_connection() {
    let error = violation(async |miner, task| {
        miner.accept(task).await;
        miner.token(task, 1, "skipped one").await;
    });
    assert_eq!(error.await["code"], "node_violation");
    let error = violation(async |miner, task| miner.token(task, 0, "before accept").await);
    assert_eq!(error.await["code"], "node_violation");
    let error = violation(async |miner, task| {
        miner.accept(task).await;
        miner.token(TaskId(alloy::primitives::B256::ZERO), 0, "whose?").await;
    });
    assert_eq!(error.await["code"], "node_gone");
    let error = violation(async |miner, task| {
        miner.accept(task).await;
        miner.token(task, 0, "a").await;
        miner.finish(task, &["a", "b"], "ab").await;
    });
    assert_eq!(error.await["code"], "node_violation");
    let error = violation(async |miner, task| {
        miner.accept(task).await;
        miner.send_text("{\"type\":\"token\"}".into()).await;
    });
    assert_eq!(error.await["code"], "node_gone");
}

#[tokio::test]
async fn receipts_are_checked() {
    let error = violation(async |miner, task| {
        miner.accept(task).await;
        miner.token(task, 0, "a").await;
        let key = miner.operator.clone();
        miner.receipt(task, &[100], &key).await;
        miner.token(task, 1, "b").await;
        miner.receipt(task, &[100, 101], &PrivateKeySigner::random()).await;
    });
    let error = error.await;
    assert_eq!(error["code"], "node_violation");
    assert!(error["message"].as_str().unwrap().contains("operator"), "{error}");
    let error = violation(async |miner, task| {
        miner.accept(task).await;
        miner.token(task, 0, "a").await;
        let key = miner.operator.clone();
        miner.receipt(task, &[101], &key).await;
    });
    assert!(error.await["message"].as_str().unwrap().contains("receipt"));
    // None at all.
    let error = violation(async |miner, task| {
        miner.accept(task).await;
        for seq in 0..33 {
            miner.token(task, seq, "a").await;
        }
    });
    assert!(error.await["message"].as_str().unwrap().contains("without its receipt"));
}

#[tokio::test]
async fn a_frame_over_the_limit_ends_the_link_and_not_the_router() {
    let broken = broken_off(async |miner, task| {
        miner.accept(task).await;
        let text = "x".repeat(assay_types::link::MAX_FRAME_BYTES);
        miner.send(FromMiner::Token { task, seq: 0, ids: vec![1], text, logprobs: vec![] }).await;
    });
    assert_eq!(broken.await.0["code"], "node_gone");
}

#[tokio::test]
async fn a_silent_node_times_out() {
    let data = tempdir().unwrap();
    let mut config = crate::world::config(data.path());
    config.first_token_timeout = std::time::Duration::from_millis(50);
    let mut world = World::with_config(config, PrivateKeySigner::random()).await;
    world.open_session(&[1], u128::MAX).await;
    let mut miner = world.miner(1).await;
    let (response, task) = tokio::join!(world.ask(hello(false)), async {
        let (task, _) = miner.offer().await;
        miner.accept(task).await;
        task
    });
    let (status, code, _) = error_of(response).await;
    assert_eq!((status, code.as_str()), (502, "node_timeout"));
    assert_eq!(miner.cancelled().await.0, task);
    world.router.stop().await.unwrap();
}
