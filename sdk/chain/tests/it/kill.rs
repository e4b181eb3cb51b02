//! Kills an agent at every step of a transaction, before and after the node has seen the step, and lets
//! its next life finish from a copy of the files as they were. Between two calls there is at most one
//! change of the database, which is atomic, so that this is every moment that differs from another.
//!
//! The contract would take every effect twice: that it does not happen is the outbox's work alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use alloy::consensus::Transaction;
use alloy::primitives::TxKind;
use alloy::providers::Provider;
use alloy::rpc::types::TransactionReceipt;
use alloy::signers::local::PrivateKeySigner;
use assay_chain::{Database, Intent, Outbox, OutboxError};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::proxy::{Act, Call, Proxy};
use crate::trouble::{SEND, sent};
use crate::world::{Kind, PATIENCE, World};

/// When the kill comes: at the call with this number, counted from 0, ...
#[derive(Debug, Clone, Copy)]
struct Moment {
    call: usize,
    /// ... after the node has done its part, or before.
    after: bool,
}

/// A node's behaviour in the first life; the second one meets an honest node.
type Trouble = fn(&Call) -> Act;

/// Moments that are tried at once.
const SIDE_BY_SIDE: usize = 8;

/// One account with one intent, which dies once.
struct Stage<'a> {
    world: &'a World,
    proxy: Proxy,
    signer: PrivateKeySigner,
    /// Of the effect, and of the files.
    number: u64,
    /// Nonces of the account that somebody else has used.
    others: u64,
}

impl<'a> Stage<'a> {
    async fn new(world: &'a World, number: u64, others: u64) -> Self {
        let proxy = Proxy::start(world.node.http_url()).await;
        let signer = PrivateKeySigner::random();
        world.fund(signer.address()).await;
        let stage = Self { world, proxy, signer, number, others };
        for other in 0..others {
            let (outbox, _db) = stage.outbox(&stage.path(&format!("other-{other}"))).await;
            let transfer = Intent::call("other", stage.signer.address(), vec![]);
            outbox.send(transfer).await.unwrap();
        }
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.path(&format!("{}-{name}", self.number))
    }

    async fn outbox(&self, path: &Path) -> (Outbox, Arc<Database>) {
        let chain = self.world.chain_at(&self.proxy.url).await;
        let db = Database::open(path, &[]).unwrap();
        (Outbox::new(chain, self.signer.clone(), db.clone()).await.unwrap(), db)
    }

    /// Lives, dies at the moment, and lives again. Returns false if the first life ended before.
    async fn die(&self, trouble: Trouble, moment: Moment) -> bool {
        let intent = self.world.emit(self.number);
        let (outbox, db) = self.outbox(&self.path("first")).await;
        let dead = Arc::new(Notify::new());
        self.proxy.set(killer(trouble, moment, dead.clone()));
        let mut life = JoinSet::new();
        let (sender, wanted) = (outbox.clone(), intent.clone());
        life.spawn(async move { drop(sender.send(wanted).await) });
        let died = tokio::select! {
            () = dead.notified() => true,
            _ = life.join_next() => false,
        };
        life.shutdown().await;
        // As the files are after `kill -9`: the log of the database is not yet taken in.
        copy(&self.path("first"), &self.path("second"));
        drop((outbox, db));
        self.proxy.set(|_| Act::Forward);
        let (outbox, _db) = self.outbox(&self.path("second")).await;
        let result = finish(&outbox, intent).await;
        self.expect_one(&result, moment).await;
        died
    }

    async fn expect_one(&self, result: &Result<TransactionReceipt, OutboxError>, moment: Moment) {
        let effects = self.world.effects(self.number).await;
        match result {
            Ok(receipt) => {
                assert_eq!(effects, 1, "{moment:?}");
                let logs = &receipt.inner.logs();
                assert_eq!(logs.len(), 1, "{moment:?}");
            }
            Err(OutboxError::Refused { .. }) => assert_eq!(effects, 0, "{moment:?}"),
            Err(error) => panic!("{moment:?}: {error}"),
        }
        // One nonce for one intent, whatever was tried in between.
        let count = self.world.provider.get_transaction_count(self.signer.address());
        assert_eq!(count.await.unwrap(), self.others + 1, "{moment:?}");
    }
}

/// The second life: what the first left is finished without anybody asking, and asking gives the result.
async fn finish(outbox: &Outbox, intent: Intent) -> Result<TransactionReceipt, OutboxError> {
    let (stop, mut service) = (CancellationToken::new(), JoinSet::new());
    service.spawn(outbox.clone().run(stop.clone()));
    let left = async {
        loop {
            let status = outbox.status().unwrap();
            if status.signed + status.sent == 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, left).await.unwrap();
    let result = tokio::time::timeout(PATIENCE, outbox.send(intent)).await.unwrap();
    stop.cancel();
    service.join_next().await.unwrap().unwrap().unwrap();
    result
}

fn killer(trouble: Trouble, moment: Moment, dead: Arc<Notify>) -> impl FnMut(&Call) -> Act {
    let mut calls = 0;
    move |call| {
        calls += 1;
        if calls <= moment.call {
            return trouble(call);
        }
        dead.notify_one();
        // What the node would have done with this call, it still does; nothing after it.
        match (calls == moment.call + 1 && moment.after, trouble(call)) {
            (true, Act::Forward | Act::ForwardButSay(_) | Act::Twice) => Act::ForwardAndHang,
            _ => Act::Hang,
        }
    }
}

fn copy(from: &Path, to: &Path) {
    for suffix in ["", "-wal"] {
        let name = |path: &Path| format!("{}{suffix}", path.display());
        std::fs::copy(name(from), name(to)).unwrap();
    }
}

async fn at_every_step(trouble: Trouble) {
    at_every_step_with(0, trouble).await;
}

async fn at_every_step_with(others: u64, trouble: Trouble) {
    let world = World::on(Kind::Anvil, true).await;
    let mut steps = 0;
    loop {
        // Many lives wait side by side.
        let died = futures::future::join_all((steps..steps + SIDE_BY_SIDE).map(async |call| {
            let number = 2 * call as u64;
            let before = Stage::new(&world, number, others).await;
            let after = Stage::new(&world, number + 1, others).await;
            let (before, after) = futures::join!(
                before.die(trouble, Moment { call, after: false }),
                after.die(trouble, Moment { call, after: true }),
            );
            before || after
        }))
        .await;
        steps += died.iter().filter(|died| **died).count();
        if died.contains(&false) {
            break;
        }
        assert!(steps < 100, "the first life never ends");
    }
    // Estimate, fees, balance, nonce, broadcast and receipt at least.
    assert!(steps >= 6, "{steps} steps");
}

#[tokio::test]
async fn with_an_honest_node() {
    at_every_step(|_| Act::Forward).await;
}

#[tokio::test]
async fn when_the_node_knows_the_transaction_already() {
    at_every_step(|call| if call.method == SEND { Act::Twice } else { Act::Forward }).await;
}

#[tokio::test]
async fn when_answers_to_broadcasts_are_lost() {
    at_every_step(|call| match (call.method.as_str(), call.index) {
        (SEND, 0) => Act::ForwardButSay("internal error"),
        _ => Act::Forward,
    })
    .await;
}

#[tokio::test]
async fn when_fees_must_be_raised() {
    at_every_step(|call| match (call.method.as_str(), call.index) {
        (SEND, 0..2) => Act::Refuse("transaction underpriced"),
        _ => Act::Forward,
    })
    .await;
}

#[tokio::test]
async fn when_a_replacement_is_called_underpriced_although_the_first_was_mined() {
    at_every_step(|call| match (call.method.as_str(), call.index) {
        (SEND, 0) => Act::ForwardButSay("replacement transaction underpriced"),
        _ => Act::Forward,
    })
    .await;
}

#[tokio::test]
async fn when_the_node_says_that_the_nonce_is_too_low() {
    at_every_step(|call| match (call.method.as_str(), call.index) {
        (SEND, 0) => Act::Refuse("nonce too low"),
        _ => Act::Forward,
    })
    .await;
}

#[tokio::test]
async fn when_the_node_drops_the_transaction() {
    at_every_step(|call| match (call.method.as_str(), call.index) {
        (SEND, 0) => Act::Answer(json!(sent(call).tx_hash())),
        _ => Act::Forward,
    })
    .await;
}

#[tokio::test]
async fn when_somebody_else_used_the_nonce() {
    // The node was late to tell, so that a nonce was chosen that is gone.
    at_every_step_with(1, |call| match (call.method.as_str(), call.index) {
        ("eth_getTransactionCount", 0) => Act::Answer(json!("0x0")),
        _ => Act::Forward,
    })
    .await;
}

#[tokio::test]
async fn when_the_transaction_is_given_up() {
    at_every_step(|call| match call.method.as_str() {
        // The transaction that uses up the nonce is one to ourselves, with less data than any call.
        SEND if !matches!(sent(call).kind(), TxKind::Call(_) if sent(call).input().is_empty()) => {
            Act::Refuse("intrinsic gas too low")
        }
        _ => Act::Forward,
    })
    .await;
}
