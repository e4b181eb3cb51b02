//! The outbox on anvil, behind a node that loses, repeats, refuses and lies.

use std::sync::Arc;
use std::time::Duration;

use alloy::consensus::{Transaction, TxEnvelope};
use alloy::eips::eip2718::Decodable2718;
use alloy::primitives::{Bytes, TxKind};
use alloy::providers::Provider;
use alloy::signers::local::PrivateKeySigner;
use assay_chain::{Database, Intent, Outbox, OutboxError, OutboxStatus};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::proxy::{Act, Call, Proxy};
use crate::world::{Kind, PATIENCE, World, succeeded};

pub const SEND: &str = "eth_sendRawTransaction";

struct Bench {
    world: World,
    proxy: Proxy,
    signer: PrivateKeySigner,
    db: Arc<Database>,
    outbox: Outbox,
}

impl Bench {
    async fn new() -> Self {
        let world = World::on(Kind::Anvil, true).await;
        let proxy = Proxy::start(world.node.http_url()).await;
        let signer = PrivateKeySigner::random();
        world.fund(signer.address()).await;
        let (chain, db) = (world.chain_at(&proxy.url).await, world.database("a"));
        let outbox = Outbox::new(chain, signer.clone(), db.clone()).await.unwrap();
        Self { world, proxy, signer, db, outbox }
    }

    /// Sends one effect; it must succeed, once, with the account's first nonce.
    async fn once(&self) {
        let send = self.outbox.send(self.world.emit(1));
        let receipt = tokio::time::timeout(PATIENCE, send).await.unwrap().unwrap();
        assert!(succeeded(&receipt));
        self.expect(1, 1).await;
    }

    async fn expect(&self, effects: usize, nonces: u64) {
        assert_eq!(self.world.effects(1).await, effects);
        let count = self.world.provider.get_transaction_count(self.signer.address());
        assert_eq!(count.await.unwrap(), nonces);
    }

    /// Largest fees of the signed versions, in the order in which they were signed.
    fn fees(&self) -> Vec<(u128, u128)> {
        let sql = "SELECT max_fee, max_tip FROM outbox_attempts ORDER BY number";
        let read = |row: &rusqlite::Row<'_>| {
            let fee = |column| row.get::<_, String>(column).map(|fee| fee.parse().unwrap());
            Ok((fee(0)?, fee(1)?))
        };
        self.db.transaction(|tx| tx.prepare(sql)?.query_map([], read)?.collect()).unwrap()
    }
}

/// The transaction in a call of [`SEND`].
pub fn sent(call: &Call) -> TxEnvelope {
    let raw: Bytes = serde_json::from_value(call.params[0].clone()).unwrap();
    TxEnvelope::decode_2718(&mut raw.as_ref()).unwrap()
}

fn acts_first(
    method: &'static str,
    act: impl Fn() -> Act + Send + 'static,
) -> impl FnMut(&Call) -> Act {
    move |call| if call.method == method && call.index == 0 { act() } else { Act::Forward }
}

#[tokio::test]
async fn already_known_counts_as_sent() {
    let bench = Bench::new().await;
    bench.proxy.set(acts_first(SEND, || Act::Twice));
    bench.once().await;
    // And where the node says so of what it has only just been given.
    let bench = Bench::new().await;
    bench.proxy.set(acts_first(SEND, || Act::ForwardButSay("already known")));
    bench.once().await;
    assert_eq!(bench.proxy.count(SEND), 1);
}

#[tokio::test]
async fn an_answer_that_was_lost_sends_nothing_twice() {
    for lost in [Act::ForwardButSay as fn(&'static str) -> Act, Act::Refuse] {
        for text in ["internal error", "nonce too low", "replacement transaction underpriced"] {
            let bench = Bench::new().await;
            bench.proxy.set(acts_first(SEND, move || lost(text)));
            bench.once().await;
        }
    }
}

#[tokio::test]
async fn underpriced_pays_an_eighth_more_each_time() {
    let bench = Bench::new().await;
    bench.proxy.set(|call| match (call.method.as_str(), call.index) {
        (SEND, 0..3) => Act::Refuse("transaction underpriced"),
        _ => Act::Forward,
    });
    bench.once().await;
    let fees = bench.fees();
    assert!(fees.len() > 1);
    for pair in fees.windows(2) {
        assert!((pair[1].0 - pair[0].0) * 8 >= pair[0].0, "{fees:?}");
        assert!((pair[1].1 - pair[0].1) * 8 >= pair[0].1, "{fees:?}");
    }
}

#[tokio::test]
async fn a_node_that_calls_every_fee_too_little_is_not_followed() {
    let bench = Bench::new().await;
    bench.proxy.set(|call| match call.method.as_str() {
        SEND => Act::Refuse("transaction underpriced"),
        _ => Act::Forward,
    });
    let mut send = JoinSet::new();
    let (outbox, intent) = (bench.outbox.clone(), bench.world.emit(1));
    send.spawn(async move { outbox.send(intent).await });
    // The fees settle: the same offer three times.
    let mut last = (0, 0);
    while last.1 < 3 {
        let (versions, sends) = (bench.fees().len(), bench.proxy.count(SEND));
        tokio::time::sleep(Duration::from_millis(20)).await;
        if bench.fees().len() > versions {
            last.1 = 0;
        } else if bench.proxy.count(SEND) > sends {
            last.1 += 1;
        }
        last.0 += 1;
        assert!(last.0 < 1500);
    }
    let fees = bench.fees();
    assert!(fees.last().unwrap().0 <= 10 * fees[0].0, "{fees:?}");
    send.shutdown().await;
}

#[tokio::test]
async fn what_the_node_dropped_is_offered_again() {
    let bench = Bench::new().await;
    bench.proxy.set(|call| match (call.method.as_str(), call.index) {
        (SEND, 0) => Act::Answer(json!(sent(call).tx_hash())),
        _ => Act::Forward,
    });
    bench.once().await;
    assert_eq!(bench.fees().len(), 1);
}

#[tokio::test]
async fn what_is_not_mined_for_some_blocks_pays_more() {
    let bench = Bench::new().await;
    // The node takes the first price and never mines it.
    let mut first = None;
    bench.proxy.set(move |call| {
        if call.method != SEND {
            return Act::Forward;
        }
        let tx = sent(call);
        let fee = tx.max_fee_per_gas();
        if *first.get_or_insert(fee) == fee {
            Act::Answer(json!(tx.tx_hash()))
        } else {
            Act::Forward
        }
    });
    let mine = async {
        loop {
            bench.world.mine().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = bench.once() => {}
        () = mine => {}
    }
    let fees = bench.fees();
    assert_eq!(fees.len(), 2);
    assert!((fees[1].0 - fees[0].0) * 8 >= fees[0].0, "{fees:?}");
}

#[tokio::test]
async fn a_stuck_nonce_is_used_up_by_a_transfer_to_ourselves() {
    let bench = Bench::new().await;
    let ourselves = bench.signer.address();
    bench.proxy.set(move |call| match call.method.as_str() {
        SEND if sent(call).kind() != TxKind::Call(ourselves) => {
            Act::Refuse("intrinsic gas too low: gas 20000, minimum needed 21000")
        }
        _ => Act::Forward,
    });
    let send = bench.outbox.send(bench.world.emit(1));
    let error = tokio::time::timeout(PATIENCE, send).await.unwrap().unwrap_err();
    assert!(matches!(&error, OutboxError::Refused { .. }) && !error.is_retryable(), "{error}");
    bench.expect(0, 1).await;
    bench.proxy.set(|_| Act::Forward);
    assert!(succeeded(&bench.outbox.send(bench.world.emit(2)).await.unwrap()));
}

/// A node that is late with the receipt, or another one behind the same address, is not taken for a sign
/// that the nonce was used by somebody else.
#[tokio::test]
async fn a_receipt_that_is_late_sends_nothing_twice() {
    let bench = Bench::new().await;
    let mut asked = 0;
    bench.proxy.set(move |call| {
        if call.method == "eth_getBlockByNumber" && call.params[1] == json!(true) {
            asked += 1;
        }
        match call.method.as_str() {
            "eth_getTransactionReceipt" if asked < 2 => Act::Answer(Value::Null),
            _ => Act::Forward,
        }
    });
    bench.once().await;
    assert_eq!(bench.fees().len(), 1);
}

/// A transfer to ourselves that an agent wants is not mistaken for one that uses up a nonce.
#[tokio::test]
async fn an_intended_transfer_to_ourselves_succeeds() {
    let bench = Bench::new().await;
    let intent = Intent::call("self", bench.signer.address(), Bytes::new());
    assert!(succeeded(&bench.outbox.send(intent).await.unwrap()));
}

#[tokio::test]
async fn a_nonce_that_became_free_below_ours_is_used_up() {
    let bench = Bench::new().await;
    let chain = bench.world.chain().await;
    // Another program with the same key, whose transaction a reorganisation drops for good.
    let theirs = Outbox::new(chain, bench.signer.clone(), bench.world.database("b")).await.unwrap();
    let first = theirs.send(bench.world.emit(7)).await.unwrap().block_number.unwrap();
    bench.once_more_than(1).await;
    bench.world.reorg(bench.world.head().await - first + 1).await;
    bench.expect(0, 0).await;
    let (stop, mut service) = (CancellationToken::new(), JoinSet::new());
    service.spawn(bench.outbox.clone().run(stop.clone()));
    let again = async {
        while bench.world.effects(1).await == 0 || open(&bench.outbox) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
    bench.expect(1, 2).await;
    assert_eq!(bench.world.effects(7).await, 0);
    stop.cancel();
    service.join_next().await.unwrap().unwrap().unwrap();
}

impl Bench {
    /// Like [`Self::once`], where others have used nonces of the account.
    async fn once_more_than(&self, others: u64) {
        assert!(succeeded(&self.outbox.send(self.world.emit(1)).await.unwrap()));
        self.expect(1, others + 1).await;
    }
}

fn open(outbox: &Outbox) -> u64 {
    let OutboxStatus { signed, sent, .. } = outbox.status().unwrap();
    signed + sent
}

#[tokio::test]
async fn a_node_that_hangs_stores_nothing_and_says_so() {
    let bench = Bench::new().await;
    bench.proxy.set(|call| match call.method.as_str() {
        "eth_estimateGas" => Act::Hang,
        _ => Act::Forward,
    });
    let error = bench.outbox.send(bench.world.emit(1)).await.unwrap_err();
    assert!(matches!(&error, OutboxError::Rpc { .. }) && error.is_retryable(), "{error}");
    assert_eq!(bench.outbox.status().unwrap(), OutboxStatus::default());
    bench.proxy.set(|_| Act::Forward);
    bench.once().await;
}
