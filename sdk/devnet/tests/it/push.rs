//! News: subscriptions over WebSocket, and filters that are polled.

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::{Address, B256, U256};
use alloy::providers::Provider;
use alloy::rpc::types::{Filter, FilterChanges};
use futures::StreamExt;

use crate::{STORE, World, deploy, send, store, transfer, word};

fn topic(number: u64) -> B256 {
    U256::from(number).into()
}

#[tokio::test]
async fn heads_are_pushed() {
    let world = World::start().await;
    let provider = world.ws().await;
    let mut heads = provider.subscribe_blocks().await.unwrap().into_stream();
    send(&provider, transfer(0)).await;
    let head = heads.next().await.unwrap();
    let block = provider.get_block_by_number(BlockNumberOrTag::Latest).await.unwrap().unwrap();
    assert_eq!(head, block.header);
    assert_eq!(head.hash, head.inner.hash_slow());
    world.devnet.stop().await;
}

#[tokio::test]
async fn logs_are_pushed_when_they_match() {
    let world = World::start().await;
    let provider = world.ws().await;
    let contract = deploy(&provider, &STORE).await;
    let other = deploy(&provider, &STORE).await;
    let filter = Filter::new().address(contract).event_signature(vec![topic(41), topic(42)]);
    let mut logs = provider.subscribe_logs(&filter).await.unwrap().into_stream();
    let wrong = Filter::new().address(contract).event_signature(topic(43));
    let mut none = provider.subscribe_logs(&wrong).await.unwrap().into_stream();
    send(&provider, store(other, 1)).await;
    let receipt = send(&provider, store(contract, 2)).await;
    let log = logs.next().await.unwrap();
    assert_eq!(Some(&log), receipt.logs().first());
    assert_eq!(log.data().data, word(2));
    assert_eq!(log.log_index, Some(0));
    assert!(!log.removed);
    assert!(futures::poll!(none.next()).is_pending());
    world.devnet.stop().await;
}

#[tokio::test]
async fn logs_that_are_reverted_are_taken_back() {
    let world = World::start().await;
    let provider = world.ws().await;
    let contract = deploy(&provider, &STORE).await;
    let id: U256 = provider.raw_request("evm_snapshot".into(), ()).await.unwrap();
    let mut logs = provider.subscribe_logs(&Filter::new()).await.unwrap().into_stream();
    send(&provider, store(contract, 2)).await;
    let log = logs.next().await.unwrap();
    let reverted: bool = provider.raw_request("evm_revert".into(), (id,)).await.unwrap();
    assert!(reverted);
    let back = logs.next().await.unwrap();
    assert!(back.removed);
    assert_eq!((back.block_hash, back.log_index), (log.block_hash, log.log_index));
    world.devnet.stop().await;
}

#[tokio::test]
async fn pending_transactions_are_pushed_before_they_are_mined() {
    let world = World::with(|config| config.mine_on_transaction = false).await;
    let provider = world.ws().await;
    let mut hashes = provider.subscribe_pending_transactions().await.unwrap().into_stream();
    let mut full = provider.subscribe_full_pending_transactions().await.unwrap().into_stream();
    let raw = world.sign(transfer(0)).await;
    let hash = *provider.send_raw_transaction(&raw).await.unwrap().tx_hash();
    assert_eq!(hashes.next().await, Some(hash));
    let tx = full.next().await.unwrap();
    assert_eq!(tx.inner.signer(), world.address());
    world.devnet.stop().await;
}

#[tokio::test]
async fn get_logs_finds_by_range_hash_address_and_topic() {
    let world = World::start().await;
    let provider = world.http();
    let (a, b) = (deploy(&provider, &STORE).await, deploy(&provider, &STORE).await);
    let first = send(&provider, store(a, 1)).await;
    let second = send(&provider, store(b, 2)).await;
    let ask = |filter: Filter| {
        let provider = provider.clone();
        async move {
            let logs = provider.get_logs(&filter).await.unwrap();
            logs.iter().map(|log| U256::from_be_slice(&log.data().data).to()).collect::<Vec<u64>>()
        }
    };
    let all = Filter::new().from_block(0);
    assert_eq!(ask(all.clone()).await, vec![1, 2]);
    assert_eq!(ask(all.clone().address(a)).await, vec![1]);
    assert_eq!(ask(all.clone().address(vec![a, b])).await, vec![1, 2]);
    assert_eq!(ask(all.clone().address(Address::ZERO)).await, Vec::<u64>::new());
    assert_eq!(ask(all.clone().event_signature(topic(42))).await, vec![1, 2]);
    assert_eq!(ask(all.clone().event_signature(topic(1))).await, Vec::<u64>::new());
    assert_eq!(ask(all.clone().topic1(topic(1))).await, Vec::<u64>::new());
    assert_eq!(ask(all.to_block(first.block_number.unwrap())).await, vec![1]);
    let hash = second.block_hash.unwrap();
    assert_eq!(ask(Filter::new().at_block_hash(hash)).await, vec![2]);
    assert_eq!(ask(Filter::new().from_block(1000)).await, Vec::<u64>::new());
    world.devnet.stop().await;
}

#[tokio::test]
async fn polled_filters_tell_only_what_is_new() {
    let world = World::start().await;
    let provider = world.http();
    let contract = deploy(&provider, &STORE).await;
    let logs = provider.new_filter(&Filter::new().address(contract)).await.unwrap();
    let blocks = provider.new_block_filter().await.unwrap();
    let pending = provider.new_pending_transactions_filter(false).await.unwrap();
    let receipt = send(&provider, store(contract, 2)).await;

    let changes = provider.get_filter_changes_dyn(logs).await.unwrap();
    assert_eq!(changes.as_logs().unwrap(), receipt.logs());
    let changes = provider.get_filter_changes_dyn(blocks).await.unwrap();
    assert_eq!(changes.as_hashes().unwrap(), [receipt.block_hash.unwrap()]);
    let changes = provider.get_filter_changes_dyn(pending).await.unwrap();
    assert_eq!(changes.as_hashes().unwrap(), [receipt.transaction_hash]);
    for id in [logs, blocks, pending] {
        let changes = provider.get_filter_changes_dyn(id).await.unwrap();
        assert!(matches!(changes, FilterChanges::Empty), "{changes:?}");
        assert!(provider.uninstall_filter(id).await.unwrap());
        assert!(!provider.uninstall_filter(id).await.unwrap());
    }
    world.devnet.stop().await;
}

#[tokio::test]
async fn unsubscribing_ends_a_subscription_and_stop_ends_them_all() {
    let world = World::start().await;
    let provider = world.ws().await;
    let contract = deploy(&provider, &STORE).await;
    let mut logs = provider.subscribe_logs(&Filter::new()).await.unwrap();
    let mut heads = provider.subscribe_blocks().await.unwrap().into_stream();
    send(&provider, store(contract, 1)).await;
    assert_eq!(logs.recv().await.unwrap().data().data, word(1));
    provider.unsubscribe(*logs.local_id()).await.unwrap();
    send(&provider, store(contract, 2)).await;
    assert_eq!(heads.next().await.unwrap().number, 2);
    assert_eq!(heads.next().await.unwrap().number, 3);
    assert!(logs.recv().await.is_err());
    let http = world.http();
    world.devnet.stop().await;
    assert!(http.get_block_number().await.is_err());
}
