//! Reorganisations, and who hears of them.

use alloy::eips::BlockId;
use alloy::network::TransactionBuilder;
use alloy::primitives::{B256, U256, hex};
use alloy::providers::ext::AnvilApi;
use alloy::providers::{DynProvider, Provider};
use alloy::rpc::types::anvil::ReorgOptions;
use alloy::rpc::types::{Filter, Log};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::{STORE, World, deploy, message, send, store, transfer, word};

async fn reorg(provider: &DynProvider, depth: u64, pairs: Value) {
    let () = provider.raw_request("anvil_reorg".into(), (depth, pairs)).await.unwrap();
}

async fn hash(provider: &DynProvider, number: u64) -> B256 {
    provider.get_block_by_number(number.into()).await.unwrap().unwrap().header.hash
}

fn place(log: &Log) -> (Option<B256>, Option<u64>, bool) {
    (log.block_hash, log.log_index, log.removed)
}

#[tokio::test]
async fn the_last_blocks_are_replaced_and_their_transactions_are_gone() {
    let world = World::start().await;
    let provider = world.http();
    let contract = deploy(&provider, &STORE).await;
    let mut receipts = Vec::new();
    for value in [1, 2, 3] {
        receipts.push(send(&provider, store(contract, value)).await);
    }
    let kept = hash(&provider, 2).await;
    reorg(&provider, 2, json!([])).await;
    assert_eq!(provider.get_block_number().await.unwrap(), 4);
    assert_eq!(hash(&provider, 2).await, kept);
    for receipt in &receipts[1..] {
        let (number, old) = (receipt.block_number.unwrap(), receipt.block_hash.unwrap());
        assert_ne!(hash(&provider, number).await, old);
        assert!(provider.get_block_by_hash(old).await.unwrap().is_none());
        let tx = receipt.transaction_hash;
        assert!(provider.get_transaction_receipt(tx).await.unwrap().is_none());
        assert!(provider.get_transaction_by_hash(tx).await.unwrap().is_none());
        let at_old =
            provider.get_storage_at(contract, U256::ZERO).block_id(BlockId::hash(old)).await;
        assert_eq!(message(at_old).1, "header not found");
    }
    let slot = provider.get_storage_at(contract, U256::ZERO).await.unwrap();
    assert_eq!(slot, U256::ONE);
    // The first new block says which one it replaces.
    let block = provider.get_block_by_number(3.into()).await.unwrap().unwrap();
    let replaced = receipts[1].block_hash.unwrap();
    assert_eq!(block.header.extra_data.as_ref(), replaced.as_slice());
    let head = provider.get_block(BlockId::latest()).await.unwrap().unwrap();
    assert_eq!(head.header.parent_hash, block.header.hash);
    // The account's nonce went back with them, and the chain goes on.
    let nonce = provider.get_transaction_count(world.address()).await.unwrap();
    assert_eq!(nonce, 2);
    let raw = world.sign(transfer(nonce)).await;
    assert!(provider.send_raw_transaction_sync(&raw).await.unwrap().status());
    world.devnet.stop().await;
}

#[tokio::test]
async fn empty_blocks_are_replaced_by_others_as_often_as_it_is_asked_for() {
    let world = World::start().await;
    let provider = world.http();
    let () = provider.raw_request("anvil_mine".into(), (8,)).await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for depth in [1, 1, 8, 3, 8] {
        // alloy sends the same as an object.
        let options = ReorgOptions { depth, tx_block_pairs: Vec::new() };
        provider.anvil_reorg(options).await.unwrap();
        assert_eq!(provider.get_block_number().await.unwrap(), 8);
        for number in 9 - depth..=8 {
            assert!(seen.insert(hash(&provider, number).await), "an old block came back");
        }
    }
    world.devnet.stop().await;
}

#[tokio::test]
async fn new_blocks_hold_the_transactions_that_are_named() {
    let world = World::start().await;
    let provider = world.http();
    send(&provider, transfer(0)).await;
    send(&provider, transfer(1)).await;
    let first = hex::encode_prefixed(world.sign(transfer(0)).await);
    let second = hex::encode_prefixed(world.sign(transfer(1).with_gas_limit(30_000)).await);
    reorg(&provider, 2, json!([[first, 1], [second, 1]])).await;
    let count = |number: u64| {
        let provider = provider.clone();
        async move {
            let block = provider.get_block_by_number(number.into()).await.unwrap().unwrap();
            block.transactions.len()
        }
    };
    assert_eq!((count(1).await, count(2).await), (0, 2));
    assert_eq!(provider.get_transaction_count(world.address()).await.unwrap(), 2);
    // A block that does not exist, a chain that is too short, a transaction that nobody signed.
    for (options, words) in [
        (json!([1, [[second, 1]]]), "must not exceed (depth-1)"),
        (json!([3, []]), "must not exceed current chain height"),
        (json!([1, [[{"value": "0x1"}, 0]]]), "signed transactions only"),
        (json!([]), "invalid argument"),
    ] {
        let refused: Result<Value, _> = provider.raw_request("anvil_reorg".into(), options).await;
        let (code, text) = message(refused);
        assert_eq!(code, -32602);
        assert!(text.contains(words), "{text}");
    }
    assert_eq!(provider.get_block_number().await.unwrap(), 2);
    world.devnet.stop().await;
}

#[tokio::test]
async fn subscribers_hear_of_removed_logs_and_of_the_new_heads() {
    let world = World::start().await;
    let provider = world.ws().await;
    let contract = deploy(&provider, &STORE).await;
    let mut logs = provider.subscribe_logs(&Filter::new()).await.unwrap().into_stream();
    let mut heads = provider.subscribe_blocks().await.unwrap().into_stream();
    let mut told = Vec::new();
    for value in [1, 2, 3] {
        send(&provider, store(contract, value)).await;
        told.push(logs.next().await.unwrap());
        heads.next().await.unwrap();
    }
    reorg(&provider, 2, json!([])).await;
    for log in told[1..].iter().rev() {
        let back = logs.next().await.unwrap();
        assert_eq!(place(&back), (log.block_hash, log.log_index, true));
    }
    for number in [3, 4] {
        assert_eq!(heads.next().await.unwrap().hash, hash(&provider, number).await);
    }
    world.devnet.stop().await;
}

#[tokio::test]
async fn polled_filters_tell_what_they_told_and_what_is_new() {
    let world = World::start().await;
    let provider = world.http();
    let contract = deploy(&provider, &STORE).await;
    let logs = provider.new_filter(&Filter::new().address(contract)).await.unwrap();
    let late = provider.new_filter(&Filter::new().address(contract)).await.unwrap();
    let blocks = provider.new_block_filter().await.unwrap();
    let poll = |id: U256| {
        let provider = provider.clone();
        async move { provider.get_filter_changes_dyn(id).await.unwrap() }
    };
    let kept = send(&provider, store(contract, 1)).await;
    let told = send(&provider, store(contract, 2)).await;
    assert_eq!(poll(logs).await.as_logs().unwrap().len(), 2);
    assert_eq!(poll(blocks).await.as_hashes().unwrap().len(), 2);
    send(&provider, store(contract, 3)).await;
    reorg(&provider, 2, json!([])).await;
    let nonce = provider.get_transaction_count(world.address()).await.unwrap();
    let request = transfer(nonce).with_to(contract).with_input(word(4)).with_gas_limit(100_000);
    let raw = world.sign(request).await;
    let new = provider.send_raw_transaction_sync(&raw).await.unwrap();
    // What was told and is gone comes back as removed; what was never told is not mentioned.
    let changes = poll(logs).await;
    let expected = [
        (told.block_hash, told.logs()[0].log_index, true),
        (new.block_hash, new.logs()[0].log_index, false),
    ];
    assert_eq!(changes.as_logs().unwrap().iter().map(place).collect::<Vec<_>>(), expected);
    let changes = poll(late).await;
    let expected = [
        (kept.block_hash, kept.logs()[0].log_index, false),
        (new.block_hash, new.logs()[0].log_index, false),
    ];
    assert_eq!(changes.as_logs().unwrap().iter().map(place).collect::<Vec<_>>(), expected);
    let changes = poll(blocks).await;
    let mut expected = Vec::new();
    for number in 3..=5 {
        expected.push(hash(&provider, number).await);
    }
    assert_eq!(changes.as_hashes().unwrap(), expected);
    world.devnet.stop().await;
}
