//! Transactions that wait, and their order.

use alloy::eips::BlockId;
use alloy::network::TransactionBuilder;
use alloy::primitives::U256;
use alloy::providers::Provider;
use alloy::signers::local::PrivateKeySigner;

use crate::{World, ether, sign_with, transfer};

#[tokio::test]
async fn a_gap_waits_and_then_all_are_mined_in_order() {
    let world = World::start().await;
    let provider = world.http();
    let mut hashes = Vec::new();
    for nonce in [2, 1] {
        let raw = world.sign(transfer(nonce)).await;
        hashes.push(*provider.send_raw_transaction(&raw).await.unwrap().tx_hash());
    }
    assert_eq!(provider.get_block_number().await.unwrap(), 0);
    let waiting = provider.get_transaction_by_hash(hashes[0]).await.unwrap().unwrap();
    assert_eq!(waiting.block_hash, None);
    let raw = world.sign(transfer(0)).await;
    hashes.push(*provider.send_raw_transaction(&raw).await.unwrap().tx_hash());
    let block = provider.get_block(BlockId::latest()).await.unwrap().unwrap();
    assert_eq!(block.header.number, 1);
    hashes.reverse();
    assert_eq!(block.transactions.hashes().collect::<Vec<_>>(), hashes);
    world.devnet.stop().await;
}

#[tokio::test]
async fn without_mining_transactions_wait_and_count_as_pending() {
    let world = World::with(|config| config.mine_on_transaction = false).await;
    let provider = world.http();
    for nonce in [0, 1, 5] {
        let raw = world.sign(transfer(nonce)).await;
        let _ = provider.send_raw_transaction(&raw).await.unwrap();
    }
    let count = provider.get_transaction_count(world.address());
    assert_eq!(count.await.unwrap(), 0);
    let pending = provider.get_transaction_count(world.address()).pending().await.unwrap();
    assert_eq!(pending, 2);
    let () = provider.raw_request("anvil_mine".into(), (1,)).await.unwrap();
    assert_eq!(provider.get_transaction_count(world.address()).await.unwrap(), 2);
    world.devnet.stop().await;
}

#[tokio::test]
async fn a_replacement_that_pays_a_tenth_more_takes_the_place() {
    let world = World::with(|config| config.mine_on_transaction = false).await;
    let provider = world.http();
    let first = world.sign(transfer(0)).await;
    let first = *provider.send_raw_transaction(&first).await.unwrap().tx_hash();
    let better = transfer(0)
        .with_max_fee_per_gas(11_000_000_000)
        .with_max_priority_fee_per_gas(1_100_000_000);
    let better = world.sign(better).await;
    let better = *provider.send_raw_transaction(&better).await.unwrap().tx_hash();
    let () = provider.raw_request("anvil_mine".into(), (1,)).await.unwrap();
    assert!(provider.get_transaction_by_hash(first).await.unwrap().is_none());
    assert!(provider.get_transaction_receipt(better).await.unwrap().unwrap().status());
    world.devnet.stop().await;
}

#[tokio::test]
async fn the_higher_tip_goes_first() {
    let other = PrivateKeySigner::random();
    let address = other.address();
    let world = World::with(|config| {
        config.mine_on_transaction = false;
        config.accounts.push((address, ether(1)));
    })
    .await;
    let provider = world.http();
    let low = world.sign(transfer(0)).await;
    let low = *provider.send_raw_transaction(&low).await.unwrap().tx_hash();
    let high = transfer(0).with_max_priority_fee_per_gas(2_000_000_000);
    let high = sign_with(&other, high).await;
    let high = *provider.send_raw_transaction(&high).await.unwrap().tx_hash();
    let () = provider.raw_request("anvil_mine".into(), (1,)).await.unwrap();
    let block = provider.get_block(BlockId::latest()).await.unwrap().unwrap();
    assert_eq!(block.transactions.hashes().collect::<Vec<_>>(), vec![high, low]);
    world.devnet.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_into_a_block_goes_into_the_next() {
    let world = World::with(|config| config.mine_on_transaction = false).await;
    let provider = world.http();
    for nonce in 0..3 {
        let raw = world.sign(transfer(nonce).with_gas_limit(29_990_000)).await;
        let _ = provider.send_raw_transaction(&raw).await.unwrap();
    }
    let count = || async { provider.get_transaction_count(world.address()).await.unwrap() };
    let () = provider.raw_request("anvil_mine".into(), (1,)).await.unwrap();
    // The first leaves less gas in the block than the second asks for.
    assert_eq!(count().await, 1);
    let () = provider.raw_request("anvil_mine".into(), (2,)).await.unwrap();
    assert_eq!(count().await, 3);
    world.devnet.stop().await;
}

#[tokio::test]
async fn a_waiting_transaction_that_cannot_be_paid_any_more_is_dropped() {
    let world = World::with(|config| config.mine_on_transaction = false).await;
    let provider = world.http();
    let rest = ether(1000) - ether(1);
    let mut hashes = Vec::new();
    for nonce in 0..2 {
        let raw = world.sign(transfer(nonce).with_value(rest)).await;
        hashes.push(*provider.send_raw_transaction(&raw).await.unwrap().tx_hash());
    }
    let () = provider.raw_request("anvil_mine".into(), (1,)).await.unwrap();
    assert!(provider.get_transaction_receipt(hashes[0]).await.unwrap().is_some());
    assert!(provider.get_transaction_by_hash(hashes[1]).await.unwrap().is_none());
    assert!(provider.get_balance(world.address()).await.unwrap() < ether(1));
    assert!(provider.get_balance(world.address()).await.unwrap() > U256::ZERO);
    world.devnet.stop().await;
}

#[tokio::test]
async fn sending_can_wait_for_the_receipt() {
    let world = World::start().await;
    let provider = world.http();
    let raw = world.sign(transfer(0)).await;
    let receipt = provider.send_raw_transaction_sync(&raw).await.unwrap();
    assert!(receipt.status());
    assert_eq!(receipt.block_number, Some(1));
    world.devnet.stop().await;
}
