//! Several answers of one request: who is asked, what is shown, what it costs.

use alloy::signers::local::PrivateKeySigner;
use assay_protocol::order::order;
use assay_router::book::{
    facts::{Fact, PartFailure},
    service::BlockChange,
};
use assay_types::{
    B256, NodeId, Nonce, TaskId,
    link::{FromMiner, FromRouter, Offer},
};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::world::{
    LANE, Miner, SEED, World, committed, config, data_lines, events, hello, settled, submitted,
};

fn asking_for(redundancy: u8, stream: bool) -> Value {
    let mut ask = hello(stream);
    ask["assay"] = json!({"redundancy": redundancy});
    ask
}

/// The nodes of a task by part, as the contract chooses them.
fn parts(nodes: &[u32], offer: &Offer) -> Vec<u32> {
    let nodes: Vec<NodeId> = nodes.iter().map(|node| NodeId(*node)).collect();
    let (leader, nonce) = (NodeId(offer.request.nodeId), Nonce(offer.request.nonce));
    let order = order(&nodes, Some(leader), SEED, LANE, nonce);
    order.iter().take(offer.request.redundancy.into()).map(|i| nodes[*i].0).collect()
}

/// The states of a task's answers by part, each with its node.
fn answers(task: &Value) -> Vec<(u64, String)> {
    let answers = task["answers"].as_array().unwrap().iter();
    answers
        .map(|a| (a["node_id"].as_u64().unwrap(), a["state"].as_str().unwrap().to_owned()))
        .collect()
}

/// Serves a task as its leader, and then takes its offers to the others; the task, the leader's offer and the
/// nodes by part.
async fn lead(miners: &mut [Miner], words: &[&str]) -> (TaskId, Box<Offer>, Vec<u32>) {
    let nodes: Vec<u32> = miners.iter().map(|miner| miner.node.0).collect();
    // All nodes are idle and had as many tasks: any may be chosen.
    let (first, others) = {
        let mut waiting: Vec<_> = miners.iter_mut().map(|miner| Box::pin(miner.recv())).collect();
        let (frame, index, rest) = futures::future::select_all(waiting.drain(..)).await;
        drop(rest);
        let Some(FromRouter::Offer(offer)) = frame else { panic!("no offer but {frame:?}") };
        (index, offer)
    };
    let offer = others;
    let task = offer.request.task_id(crate::world::queue());
    assert!(offer.stream);
    assert_eq!(offer.request.nodeId, nodes[first]);
    let parts = parts(&nodes, &offer);
    miners[first].accept(task).await;
    for node in &parts[1..] {
        let follower = miners.iter_mut().find(|miner| miner.node.0 == *node).unwrap();
        let (same, closed) = follower.offer().await;
        assert_eq!(same, task);
        // The same signed request, and nothing of the stream.
        assert!(!closed.stream);
        assert_eq!((&closed.request, &closed.block), (&offer.request, &offer.block));
        follower.accept(task).await;
        follower.send(FromMiner::Sealed { task }).await;
    }
    for (i, word) in words.iter().enumerate() {
        miners[first].token(task, u32::try_from(i).unwrap(), word).await;
    }
    let text = words.concat();
    miners[first].finish(task, words, &text).await;
    (task, offer, parts)
}

#[tokio::test]
async fn the_leader_is_shown_and_the_others_follow_closed() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1, 2, 3, 4]).await;
    let mut miners = Vec::new();
    for node in 1..=4 {
        miners.push(world.miner(node).await);
    }
    for round in 0..4 {
        let (response, (task, offer, parts)) =
            tokio::join!(world.ask(asking_for(3, true)), lead(&mut miners, &["a", "b"]));
        assert_eq!(response.status(), 200);
        let body = response.text().await.unwrap();
        assert_eq!(data_lines(&body).last(), Some(&"[DONE]"), "{body}");
        assert_eq!(offer.request.redundancy, 3);
        let shown = world.task(&task.to_string()).await;
        let nodes: Vec<u64> = parts.iter().map(|node| u64::from(*node)).collect();
        let planned: Vec<(u64, String)> = nodes.iter().map(|n| (*n, "planned".into())).collect();
        assert_eq!((parts.len(), answers(&shown)), (3, planned), "{shown:#}");
        let cap = offer.request.feeCap.to::<u128>();
        assert_eq!(shown["held"], (3 * cap).to_string());
        // It is on chain at once: the others cannot answer before.
        world
            .task_until(&task.to_string(), |_| {
                world.chain.submitted.lock().unwrap().len() == round + 1
            })
            .await;
        let submitted = world.chain.submitted.lock().unwrap()[round].clone();
        assert_eq!(submitted, offer.request);
    }
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_node_that_is_away_does_not_hold_up_the_others() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1, 2]).await;
    let mut miner = world.miner(1).await;
    let (response, (task, offer)) =
        tokio::join!(world.ask(asking_for(2, false)), miner.serve(&["x"]));
    assert_eq!(response.status(), 200);
    assert_eq!(offer.request.redundancy, 2);
    let shown = world.task(&task.to_string()).await;
    assert_eq!(answers(&shown), [(1, "planned".into()), (2, "planned".into())]);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn more_answers_than_nodes_are_refused() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1, 2]).await;
    let _miner = world.miner(1).await;
    let response = world.ask(asking_for(3, false)).await;
    assert_eq!(response.status(), 400);
    let body: Value = response.json().await.unwrap();
    assert_eq!(
        (&body["error"]["code"], &body["error"]["param"]),
        (&json!("redundancy_too_high"), &json!("assay.redundancy"))
    );
    assert!(body["error"]["message"].as_str().unwrap().contains("at most 2 nodes"), "{body}");
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_router_may_ask_for_several_answers_by_itself() {
    let data = tempdir().unwrap();
    let mut config = config(data.path());
    config.default_redundancy = 2;
    let mut world = World::with_config(config, PrivateKeySigner::random()).await;
    world.open_session(&[1, 2], u128::MAX).await;
    let mut miner = world.miner(1).await;
    let (_, (_, offer)) = tokio::join!(world.ask(hello(false)), miner.serve(&["x"]));
    assert_eq!(offer.request.redundancy, 2);
    let (_, (_, offer)) = tokio::join!(world.ask(asking_for(1, false)), miner.serve(&["x"]));
    assert_eq!(offer.request.redundancy, 1);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn every_answer_is_held_for_and_paid() {
    let data = tempdir().unwrap();
    let mut world = World::bare(data.path(), PrivateKeySigner::random()).await;
    // Enough for two of these answers, not for three.
    world.open_session(&[1, 2, 3], 5000).await;
    let mut miner = world.miner(1).await;
    let ask = |redundancy| {
        let mut ask = asking_for(redundancy, false);
        ask["max_tokens"] = json!(500);
        ask
    };
    let refused = async |world: &World, redundancy| {
        let response = world.ask(ask(redundancy)).await;
        assert_eq!(response.status(), 503);
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["code"], "insufficient_quota", "{body}");
    };
    refused(&world, 3).await;
    let (first, (task, offer)) = tokio::join!(world.ask(ask(2)), miner.serve(&["x"]));
    assert_eq!(first.status(), 200);
    let largest = offer.request.feeCap.to::<u128>();
    assert!(2 * largest <= 5000 && 3 * largest > 5000, "{largest}");
    refused(&world, 1).await;
    let other = parts(&[1, 2, 3], &offer)[1];
    world.mine(vec![submitted(task, &offer, &[1, other])]).await;
    refused(&world, 1).await;
    world.mine(vec![committed(task, 1, 900), committed(task, other, 800)]).await;
    refused(&world, 1).await;
    // 5000 less both fees: what one more answer may cost is there, two are not.
    world.mine(vec![settled(task, 1, 900), settled(task, other, 800)]).await;
    assert!(5000 - 1700 >= largest && 5000 - 900 < 2 * largest, "{largest}");
    refused(&world, 2).await;
    let shown = world.task(&task.to_string()).await;
    assert_eq!((&shown["state"], &shown["fee"]), (&json!("settled"), &json!("1700")));
    let (third, _) = tokio::join!(world.ask(ask(1)), miner.serve(&["x"]));
    assert_eq!(third.status(), 200);
    world.router.stop().await.unwrap();
}

/// What the task's page says that comes from the chain.
async fn page(world: &World, task: TaskId) -> Value {
    let mut page = world.task(&task.to_string()).await;
    // When the router saw an event is no part of what it saw; its gas comes later.
    for entry in page["timeline"].as_array_mut().unwrap() {
        let entry = entry.as_object_mut().unwrap();
        entry.shift_remove("at_ms");
        entry.shift_remove("gas_used");
    }
    page
}

#[tokio::test]
async fn the_record_is_the_lowest_answer_and_every_block_can_be_undone() {
    let data = tempdir().unwrap();
    let mut world = World::with_nodes(data.path(), &[1, 2, 3]).await;
    let mut miner = world.miner(1).await;
    let (_, (task, offer)) = tokio::join!(world.ask(asking_for(3, false)), miner.serve(&["x"]));
    let parts = parts(&[1, 2, 3], &offer);
    let (two, three) = (parts[1], parts[2]);
    world.task_until(&task.to_string(), |t| events(t).contains(&"request_pinned")).await;
    let precommitted = |node: u32| Fact::TaskPrecommitted { task, node: NodeId(node) };
    let failed = |node: u32, why| Fact::PartFailed { task, node: NodeId(node), why };
    let steps: Vec<(Vec<Fact>, &str, [&str; 3])> = vec![
        (vec![submitted(task, &offer, &parts)], "assigned", ["waiting"; 3]),
        (vec![precommitted(two)], "assigned", ["waiting", "precommitted", "waiting"]),
        (
            vec![failed(1, PartFailure::Silent), precommitted(three)],
            "precommitted",
            ["silent", "precommitted", "precommitted"],
        ),
        (vec![committed(task, three, 5)], "precommitted", ["silent", "precommitted", "committed"]),
        (vec![committed(task, two, 7)], "committed", ["silent", "committed", "committed"]),
        (
            vec![settled(task, two, 7), settled(task, three, 5)],
            "settled",
            ["silent", "settled", "settled"],
        ),
    ];
    let mut undo = Vec::new();
    for (facts, state, states) in steps {
        let before = page(&world, task).await;
        let block = world.mine(facts).await;
        let after = page(&world, task).await;
        assert_eq!(after["state"], state);
        let shown: Vec<String> = answers(&after).into_iter().map(|(_, state)| state).collect();
        assert_eq!(shown, states);
        undo.push((block, before, after));
    }
    let last = &undo.last().unwrap().2;
    // The leader has failed: the answer of record is the next one's, and all that were paid are counted.
    assert_eq!(last["output_digest"], json!(B256::repeat_byte(u8::try_from(two).unwrap())));
    assert_eq!(last["fee"], "12");
    assert_eq!(last["answers"][2]["fee"], "5");
    assert_eq!(events(last).iter().filter(|event| **event == "settled").count(), 2);
    assert!(!events(last).contains(&"contradicted"), "another node's answer is another answer");
    for (block, before, after) in undo.iter().rev() {
        assert_eq!(page(&world, task).await, *after);
        world.change(BlockChange::Reverted(block.clone())).await;
        assert_eq!(page(&world, task).await, *before);
    }
    // And again, as the other branch may have the same transactions.
    for (block, _, after) in &undo {
        world.change(BlockChange::Committed(block.clone())).await;
        assert_eq!(page(&world, task).await, *after);
    }
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_redundant_task_that_nobody_answers_is_refunded() {
    let data = tempdir().unwrap();
    let mut world = World::with_nodes(data.path(), &[1, 2]).await;
    let mut miner = world.miner(1).await;
    let (_, (task, offer)) = tokio::join!(world.ask(asking_for(2, false)), miner.serve(&["x"]));
    world.mine(vec![submitted(task, &offer, &[1, 2])]).await;
    let one = Fact::PartFailed { task, node: NodeId(1), why: PartFailure::Declined };
    let two = Fact::TaskPrecommitted { task, node: NodeId(2) };
    world.mine(vec![one, two]).await;
    let before = page(&world, task).await;
    let unopened = Fact::PartFailed { task, node: NodeId(2), why: PartFailure::Unrevealed };
    let refunded = Fact::TaskRefunded { task, refund: 40, tip: 1 };
    let block = world.mine(vec![unopened, refunded]).await;
    let shown = page(&world, task).await;
    assert_eq!((&shown["state"], &shown["fee"]), (&json!("refunded"), &Value::Null));
    assert_eq!(answers(&shown), [(1, "declined".into()), (2, "unrevealed".into())]);
    world.change(BlockChange::Reverted(block)).await;
    assert_eq!(page(&world, task).await, before);
    world.router.stop().await.unwrap();
}
