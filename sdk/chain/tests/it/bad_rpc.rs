//! The event source at nodes that answer nonsense: bounded, told, and nothing lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use assay_chain::ChainEvent;
use serde_json::{Value, json};

use crate::proxy::{Act, Call, Proxy};
use crate::world::{Follower, World, nonces};

/// Follows a chain through a node with this rule, which lies `lies` times; nothing but the truth may come
/// out, and all of it.
async fn follow(lies: usize, rule: impl Fn(&Call) -> Option<Act> + Send + 'static) {
    let world = World::new(true).await;
    let start = world.head().await + 1;
    let proxy = Proxy::start(world.node.http_url()).await;
    let chain = world.chain_at(&proxy.url).await;
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    proxy.set(move |call| {
        if count.load(Ordering::Relaxed) >= lies {
            return Act::Forward;
        }
        let Some(act) = rule(call) else { return Act::Forward };
        count.fetch_add(1, Ordering::Relaxed);
        act
    });
    let mut follower = Follower::start(chain, world.database("a"), start);
    for nonce in 0..3 {
        world.emit_block(nonce).await;
        match follower.next().await {
            ChainEvent::Committed(block) => assert_eq!(nonces(&block), [nonce]),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told.load(Ordering::Relaxed), lies);
}

/// Changes the logs of a block, if there are any.
fn logs(call: &Call, change: fn(&mut Vec<Value>)) -> Option<Act> {
    (call.method == "eth_getLogs").then(|| {
        Act::Change(Box::new(move |mut logs| {
            change(logs.as_array_mut().unwrap());
            logs
        }))
    })
}

#[tokio::test]
async fn removed_logs_are_refused() {
    follow(2, |call| {
        logs(call, |logs| logs.iter_mut().for_each(|log| log["removed"] = json!(true)))
    })
    .await;
}

#[tokio::test]
async fn the_same_log_twice_is_one_event() {
    follow(3, |call| logs(call, |logs| logs.extend(logs.clone()))).await;
}

#[tokio::test]
async fn two_logs_in_one_place_are_refused() {
    let change = |logs: &mut Vec<Value>| {
        let mut other = logs[0].clone();
        other["transactionHash"] = json!(alloy::primitives::B256::repeat_byte(9));
        logs.push(other);
    };
    follow(2, move |call| logs(call, change)).await;
}

#[tokio::test]
async fn logs_of_another_block_are_refused() {
    let change = |logs: &mut Vec<Value>| {
        logs[0]["blockHash"] = json!(alloy::primitives::B256::repeat_byte(9));
    };
    follow(2, move |call| logs(call, change)).await;
}

#[tokio::test]
async fn a_log_that_does_not_decode_is_refused() {
    follow(2, |call| logs(call, |logs| logs[0]["data"] = json!("0x01"))).await;
}

/// Load balancers send one call to a node that has the block and the next one to a node that does not.
#[tokio::test]
async fn no_logs_of_a_block_that_the_node_lacks_is_not_believed() {
    follow(4, |call| match call.method.as_str() {
        "eth_getLogs" => Some(Act::Answer(json!([]))),
        "eth_getBlockByHash" => Some(Act::Answer(Value::Null)),
        _ => None,
    })
    .await;
    // The node gets the block right after it said that there are no logs.
    follow(1, |call| (call.method == "eth_getLogs").then(|| Act::Answer(json!([])))).await;
}

/// Believed, it would be a reorganisation of one block, for ever.
#[tokio::test]
async fn a_parent_that_does_not_fit_reverts_nothing() {
    let world = World::new(true).await;
    let start = world.head().await + 1;
    let proxy = Proxy::start(world.node.http_url()).await;
    let mut follower =
        Follower::start(world.chain_at(&proxy.url).await, world.database("a"), start);
    world.emit_block(0).await;
    let first = follower.committed().await;
    let number = json!(format!("{:#x}", first.at.number + 1));
    let lies = Arc::new(AtomicUsize::new(0));
    let told = lies.clone();
    proxy.set(move |call| {
        let number = number.clone();
        if call.method != "eth_getBlockByNumber" || told.load(Ordering::Relaxed) > 3 {
            return Act::Forward;
        }
        let told = told.clone();
        Act::Change(Box::new(move |mut block| {
            if block["number"] == number {
                told.fetch_add(1, Ordering::Relaxed);
                block["parentHash"] = json!(alloy::primitives::B256::repeat_byte(9));
            }
            block
        }))
    });
    world.emit_block(1).await;
    let second = follower.committed().await;
    assert_eq!((second.parent, nonces(&second)), (first.at.hash, vec![1]));
    assert!(lies.load(Ordering::Relaxed) > 3);
}

#[tokio::test]
async fn answers_without_an_end_cut_off_or_of_another_kind_are_waited_out() {
    follow(1, |call| (call.method == "eth_getLogs").then_some(Act::Endless)).await;
    follow(3, |call| (call.method == "eth_getLogs").then_some(Act::Drop)).await;
    follow(3, |call| (call.method == "eth_getLogs").then(|| Act::Answer(json!({"logs": 7})))).await;
    follow(2, |call| (call.method == "eth_getBlockByNumber").then(|| Act::Answer(json!([])))).await;
    follow(2, |call| (call.method == "eth_getBlockByNumber").then(|| Act::Answer(Value::Null)))
        .await;
}

#[tokio::test]
async fn an_answer_that_never_comes_is_asked_for_again() {
    follow(1, |call| (call.method == "eth_getLogs").then_some(Act::Hang)).await;
}

#[tokio::test]
async fn a_node_that_limits_the_rate_is_followed_more_slowly() {
    follow(6, |_| Some(Act::Status(429, "too many requests"))).await;
}

#[tokio::test]
async fn a_block_of_another_height_is_refused() {
    let world = World::new(true).await;
    let start = world.head().await + 1;
    for nonce in 0..5 {
        world.emit_block(nonce).await;
    }
    let proxy = Proxy::start(world.node.http_url()).await;
    let chain = world.chain_at(&proxy.url).await;
    let second = json!(format!("{:#x}", start + 1));
    let lies = Arc::new(AtomicUsize::new(0));
    let told = lies.clone();
    proxy.set(move |call| {
        if call.method != "eth_getBlockByNumber"
            || call.params[0] != second
            || told.fetch_add(1, Ordering::Relaxed) >= 2
        {
            return Act::Forward;
        }
        Act::Change(Box::new(|mut block| {
            block["number"] = json!("0xffffffffffffffff");
            block
        }))
    });
    let mut follower = Follower::start(chain, world.database("a"), start);
    for nonce in 0..5 {
        assert_eq!(nonces(&follower.committed().await), [nonce]);
    }
    assert!(lies.load(Ordering::Relaxed) > 2);
}

/// A node whose chain has a hole is asked again with pauses, not as fast as it answers.
#[tokio::test]
async fn a_hole_below_the_head_is_waited_out() {
    const HOLE: std::time::Duration = std::time::Duration::from_millis(1500);
    // At once, and then after 250, 500 and 1000 ms: each look asks once.
    const MOST_LIES: usize = 6;
    let world = World::new(true).await;
    let start = world.head().await + 1;
    for nonce in 0..5 {
        world.emit_block(nonce).await;
    }
    let proxy = Proxy::start(world.node.http_url()).await;
    let chain = world.chain_at(&proxy.url).await;
    let second = json!(format!("{:#x}", start + 1));
    let lies = Arc::new(AtomicUsize::new(0));
    let (told, begun) = (lies.clone(), std::time::Instant::now());
    proxy.set(move |call| {
        if call.method != "eth_getBlockByNumber"
            || call.params[0] != second
            || begun.elapsed() > HOLE
        {
            return Act::Forward;
        }
        told.fetch_add(1, Ordering::Relaxed);
        Act::Answer(Value::Null)
    });
    let mut follower = Follower::start(chain, world.database("a"), start);
    for nonce in 0..5 {
        assert_eq!(nonces(&follower.committed().await), [nonce]);
    }
    let lies = lies.load(Ordering::Relaxed);
    assert!((2..=MOST_LIES).contains(&lies), "asked {lies} times");
}
