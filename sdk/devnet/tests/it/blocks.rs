//! Blocks, receipts, fees.

use alloy::consensus::{TxReceipt, proofs};
use alloy::eips::{BlockId, BlockNumberOrTag};
use alloy::network::TransactionBuilder;
use alloy::primitives::{B256, U256, keccak256};
use alloy::providers::Provider;
use alloy::rpc::types::TransactionRequest;

use crate::{BLOCKHASH, STORE, World, deploy, send, store, transfer};

#[tokio::test]
async fn hash_is_that_of_the_encoded_header_and_chains() {
    let world = World::start().await;
    let provider = world.http();
    let contract = deploy(&provider, &STORE).await;
    send(&provider, store(contract, 7)).await;
    let mut parent = B256::ZERO;
    for number in 0..=provider.get_block_number().await.unwrap() {
        let block = provider.get_block_by_number(number.into()).await.unwrap().unwrap();
        assert_eq!(block.header.hash, keccak256(alloy::rlp::encode(&block.header.inner)));
        assert_eq!(block.header.hash, block.header.inner.hash_slow());
        assert_eq!(block.header.parent_hash, parent);
        let same = provider.get_block_by_hash(block.header.hash).await.unwrap().unwrap();
        assert_eq!(same, block);
        parent = block.header.hash;
    }
    world.devnet.stop().await;
}

#[tokio::test]
async fn roots_and_bloom_follow_from_the_transactions() {
    let world = World::start().await;
    let provider = world.http();
    let contract = deploy(&provider, &STORE).await;
    let receipt = send(&provider, store(contract, 7)).await;
    let block = provider.get_block(BlockId::latest()).full().await.unwrap().unwrap();
    let txs: Vec<_> =
        block.transactions.as_transactions().unwrap().iter().map(|tx| tx.inner.inner()).collect();
    assert_eq!(block.header.transactions_root, proofs::calculate_transaction_root(&txs));
    let receipts = provider.get_block_receipts(BlockId::latest()).await.unwrap().unwrap();
    assert_eq!(receipts, vec![receipt.clone()]);
    let consensus: Vec<_> =
        receipts.into_iter().map(|r| r.inner.map_logs(|log| log.inner)).collect();
    assert_eq!(block.header.receipts_root, proofs::calculate_receipt_root(&consensus));
    assert_eq!(block.header.logs_bloom, consensus[0].bloom());
    assert_eq!(block.header.gas_used, receipt.gas_used);
    assert_eq!(receipt.logs().len(), 1);
    world.devnet.stop().await;
}

#[tokio::test]
async fn a_block_size_is_that_of_its_encoding() {
    let world = World::start().await;
    let provider = world.http();
    send(&provider, TransactionRequest::default().with_to(world.address())).await;
    let block = provider.get_block(BlockId::latest()).full().await.unwrap().unwrap();
    let size = block.header.size.unwrap();
    let consensus = block.into_consensus().map_transactions(|tx| tx.into_inner());
    assert_eq!(size, U256::from(alloy::rlp::encode(&consensus).len()));
    world.devnet.stop().await;
}

#[tokio::test]
async fn blockhash_returns_the_last_256_real_hashes() {
    let world = World::start().await;
    let provider = world.http();
    let contract = deploy(&provider, &BLOCKHASH).await;
    let () = provider.raw_request("anvil_mine".into(), (300,)).await.unwrap();
    let head = provider.get_block_number().await.unwrap();
    let ask = |number: u64| {
        let request =
            TransactionRequest::default().with_to(contract).with_input(crate::word(number));
        let provider = provider.clone();
        async move { B256::from_slice(&provider.call(request).block(head.into()).await.unwrap()) }
    };
    for number in [head - 1, head - 100, head - 256] {
        let block = provider.get_block_by_number(number.into()).await.unwrap().unwrap();
        assert_eq!(ask(number).await, block.header.hash);
    }
    assert_eq!(ask(head).await, B256::ZERO);
    assert_eq!(ask(head - 257).await, B256::ZERO);
    world.devnet.stop().await;
}

#[tokio::test]
async fn the_history_contract_knows_older_hashes() {
    let world = World::start().await;
    let provider = world.http();
    let () = provider.raw_request("anvil_mine".into(), (300,)).await.unwrap();
    let block = provider.get_block_by_number(2.into()).await.unwrap().unwrap();
    let request = TransactionRequest::default()
        .with_to(alloy::eips::eip2935::HISTORY_STORAGE_ADDRESS)
        .with_input(crate::word(2));
    let output = provider.call(request).await.unwrap();
    assert_eq!(B256::from_slice(&output), block.header.hash);
    world.devnet.stop().await;
}

#[tokio::test]
async fn base_fee_falls_with_empty_blocks_by_an_eighth() {
    let world = World::start().await;
    let provider = world.http();
    let () = provider.raw_request("anvil_mine".into(), (2,)).await.unwrap();
    let fees = |number: u64| {
        let provider = provider.clone();
        async move {
            let block = provider.get_block_by_number(number.into()).await.unwrap().unwrap();
            block.header.base_fee_per_gas.unwrap()
        }
    };
    assert_eq!(fees(0).await, 1_000_000_000);
    assert_eq!(fees(1).await, 875_000_000);
    assert_eq!(fees(2).await, 765_625_000);
    let history =
        provider.get_fee_history(3, BlockNumberOrTag::Latest, &[10.0, 50.0]).await.unwrap();
    assert_eq!(history.oldest_block, 0);
    let expected = vec![1_000_000_000, 875_000_000, 765_625_000, 669_921_875];
    assert_eq!(history.base_fee_per_gas, expected);
    assert_eq!(history.reward, Some(vec![vec![0, 0]; 3]));
    assert_eq!(provider.get_gas_price().await.unwrap(), 669_921_875 + 1_000_000_000);
    world.devnet.stop().await;
}

#[tokio::test]
async fn a_transaction_costs_its_gas_at_the_effective_price() {
    let world = World::start().await;
    let provider = world.http();
    let before = provider.get_balance(world.address()).await.unwrap();
    let receipt = send(&provider, transfer(0)).await;
    let after = provider.get_balance(world.address()).await.unwrap();
    assert_eq!(receipt.effective_gas_price, 875_000_000 + 1_000_000_000);
    let cost = U256::from(receipt.effective_gas_price) * U256::from(receipt.gas_used) + U256::ONE;
    assert_eq!(before - after, cost);
    let tx = provider.get_transaction_by_hash(receipt.transaction_hash).await.unwrap().unwrap();
    assert_eq!(tx.effective_gas_price, Some(receipt.effective_gas_price));
    assert_eq!(tx.block_hash, receipt.block_hash);
    assert_eq!(provider.get_transaction_count(world.address()).await.unwrap(), 1);
    world.devnet.stop().await;
}

#[tokio::test]
async fn interval_blocks_come_without_transactions() {
    let world = World::with(|config| {
        config.block_time = Some(std::time::Duration::from_millis(20));
    })
    .await;
    let provider = world.http();
    while provider.get_block_number().await.unwrap() < 3 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let block = provider.get_block(BlockId::latest()).await.unwrap().unwrap();
    assert!(block.transactions.is_empty());
    // The clock stands still: the blocks of one second share its time.
    assert_eq!(block.header.timestamp, crate::START_S);
    world.devnet.stop().await;
}

#[tokio::test]
async fn what_a_node_says_about_itself() {
    let world = World::with(|config| config.chain_id = 777).await;
    let provider = world.http();
    assert_eq!(provider.get_chain_id().await.unwrap(), 777);
    assert_eq!(provider.get_net_version().await.unwrap(), 777);
    assert!(provider.get_client_version().await.unwrap().starts_with("assay-devnet/"));
    assert!(provider.get_accounts().await.unwrap().is_empty());
    for tag in [BlockNumberOrTag::Safe, BlockNumberOrTag::Finalized, BlockNumberOrTag::Earliest] {
        assert_eq!(provider.get_block_by_number(tag).await.unwrap().unwrap().header.number, 0);
    }
    assert!(provider.get_block_by_number(99.into()).await.unwrap().is_none());
    assert!(provider.get_transaction_receipt(B256::ZERO).await.unwrap().is_none());
    world.devnet.stop().await;
}
