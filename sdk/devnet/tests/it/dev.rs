//! The methods that only a development chain has.

use alloy::eips::BlockId;
use alloy::primitives::{Address, B256, U256};
use alloy::providers::{DynProvider, Provider};
use serde_json::{Value, json};

use crate::{START_S, STORE, World, deploy, ether, message, send, store, transfer, word};

async fn ask(provider: &DynProvider, method: &'static str, params: Value) -> Value {
    provider.raw_request(method.into(), params).await.unwrap()
}

async fn head_time(provider: &DynProvider) -> u64 {
    provider.get_block(BlockId::latest()).await.unwrap().unwrap().header.timestamp
}

#[tokio::test]
async fn time_moves_with_the_clock_and_when_it_is_pushed() {
    let world = World::start().await;
    let provider = world.http();
    ask(&provider, "evm_mine", json!([])).await;
    assert_eq!(head_time(&provider).await, START_S);
    world.clock.advance(5);
    ask(&provider, "evm_mine", json!([])).await;
    assert_eq!(head_time(&provider).await, START_S + 5);
    assert_eq!(ask(&provider, "evm_increaseTime", json!([60])).await, json!(60));
    assert_eq!(ask(&provider, "evm_increaseTime", json!(["0x28"])).await, json!(100));
    ask(&provider, "evm_mine", json!([])).await;
    assert_eq!(head_time(&provider).await, START_S + 105);
    world.clock.advance(1);
    send(&provider, transfer(0)).await;
    assert_eq!(head_time(&provider).await, START_S + 106);
    world.devnet.stop().await;
}

#[tokio::test]
async fn the_next_timestamp_can_be_set_but_not_into_the_past() {
    let world = World::start().await;
    let provider = world.http();
    ask(&provider, "evm_setNextBlockTimestamp", json!([START_S + 500])).await;
    ask(&provider, "evm_mine", json!([])).await;
    assert_eq!(head_time(&provider).await, START_S + 500);
    world.clock.advance(3);
    ask(&provider, "evm_mine", json!([])).await;
    assert_eq!(head_time(&provider).await, START_S + 503);
    let past: Result<Value, _> =
        provider.raw_request("evm_setNextBlockTimestamp".into(), (START_S,)).await;
    assert_eq!(message(past).0, -32602);
    ask(&provider, "evm_mine", json!([START_S + 600])).await;
    assert_eq!(head_time(&provider).await, START_S + 600);
    ask(&provider, "evm_mine", json!([{"blocks": 3}])).await;
    assert_eq!(provider.get_block_number().await.unwrap(), 6);
    world.devnet.stop().await;
}

#[tokio::test]
async fn balances_code_and_storage_can_be_set() {
    let world = World::start().await;
    let provider = world.http();
    let (rich, contract) = (Address::repeat_byte(0x51), Address::repeat_byte(0x52));
    ask(&provider, "anvil_setBalance", json!([rich, ether(5)])).await;
    ask(&provider, "anvil_setCode", json!([contract, STORE])).await;
    ask(&provider, "anvil_setNonce", json!([rich, "0x9"])).await;
    let value = B256::from(U256::from(33));
    ask(&provider, "anvil_setStorageAt", json!([contract, "0x0", value])).await;
    // Before and after a block is made on it.
    for _ in 0..2 {
        assert_eq!(provider.get_balance(rich).await.unwrap(), ether(5));
        assert_eq!(provider.get_transaction_count(rich).await.unwrap(), 9);
        let read = alloy::rpc::types::TransactionRequest::default().to(contract);
        assert_eq!(provider.call(read).await.unwrap(), word(33));
        ask(&provider, "evm_mine", json!([])).await;
    }
    world.devnet.stop().await;
}

#[tokio::test]
async fn a_snapshot_brings_back_state_blocks_and_time() {
    let world = World::start().await;
    let provider = world.http();
    let contract = deploy(&provider, &STORE).await;
    send(&provider, store(contract, 1)).await;
    let before = provider.get_block(BlockId::latest()).await.unwrap().unwrap();
    let balance = provider.get_balance(world.address()).await.unwrap();
    let id = ask(&provider, "evm_snapshot", json!([])).await;
    ask(&provider, "evm_increaseTime", json!([1000])).await;
    let gone = send(&provider, store(contract, 2)).await;

    assert_eq!(ask(&provider, "evm_revert", json!([id])).await, json!(true));
    let after = provider.get_block(BlockId::latest()).await.unwrap().unwrap();
    assert_eq!(after, before);
    assert_eq!(provider.get_balance(world.address()).await.unwrap(), balance);
    let slot = provider.get_storage_at(contract, U256::ZERO).await.unwrap();
    assert_eq!(slot, U256::ONE);
    let receipt = provider.get_transaction_receipt(gone.transaction_hash).await.unwrap();
    assert!(receipt.is_none());
    ask(&provider, "evm_mine", json!([])).await;
    assert_eq!(head_time(&provider).await, START_S);
    // A snapshot serves once.
    assert_eq!(ask(&provider, "evm_revert", json!([id])).await, json!(false));
    world.devnet.stop().await;
}

#[tokio::test]
async fn mining_on_transactions_can_be_switched() {
    let world = World::start().await;
    let provider = world.http();
    ask(&provider, "evm_setAutomine", json!([false])).await;
    let raw = world.sign(transfer(0)).await;
    let _ = provider.send_raw_transaction(&raw).await.unwrap();
    assert_eq!(provider.get_block_number().await.unwrap(), 0);
    ask(&provider, "evm_mine", json!([])).await;
    assert_eq!(provider.get_transaction_count(world.address()).await.unwrap(), 1);
    world.devnet.stop().await;
}

#[tokio::test]
async fn any_account_can_be_impersonated_while_it_is_asked_for() {
    let world = World::start().await;
    let provider = world.http();
    let contract = deploy(&provider, &STORE).await;
    let poor = Address::repeat_byte(0x61);
    ask(&provider, "anvil_setBalance", json!([contract, ether(2)])).await;
    let payment = json!([{"from": contract, "to": poor, "value": "0x5"}]);
    let refused: Result<B256, _> =
        provider.raw_request("eth_sendTransaction".into(), payment.clone()).await;
    let (code, text) = message(refused);
    assert!(code == -32000 && text.contains("no key of"), "{text}");
    ask(&provider, "anvil_impersonateAccount", json!([contract])).await;
    let hash: B256 =
        provider.raw_request("eth_sendTransaction".into(), payment.clone()).await.unwrap();
    let receipt = provider.get_transaction_receipt(hash).await.unwrap().unwrap();
    assert!(receipt.status());
    assert_eq!(receipt.from, contract);
    assert_eq!(provider.get_balance(poor).await.unwrap(), U256::from(5));
    let tx = provider.get_transaction_by_hash(hash).await.unwrap().unwrap();
    assert_eq!((tx.inner.signer(), *tx.inner.tx_hash()), (contract, hash));
    // Its code still runs, and what was sent in its name is no transaction for anyone else.
    let raw: alloy::primitives::Bytes =
        provider.raw_request("eth_getRawTransactionByHash".into(), (hash,)).await.unwrap();
    let (_, text) = message(provider.send_raw_transaction(&raw).await);
    assert_eq!(text, "invalid sender");
    ask(&provider, "anvil_stopImpersonatingAccount", json!([contract])).await;
    let refused: Result<B256, _> =
        provider.raw_request("eth_sendTransaction".into(), payment.clone()).await;
    assert_eq!(message(refused).0, -32000);
    ask(&provider, "anvil_autoImpersonateAccount", json!([true])).await;
    let _: B256 = provider.raw_request("eth_sendTransaction".into(), payment).await.unwrap();
    assert_eq!(provider.get_balance(poor).await.unwrap(), U256::from(10));
    world.devnet.stop().await;
}

#[tokio::test]
async fn a_waiting_transaction_can_be_dropped() {
    let world = World::with(|config| config.mine_on_transaction = false).await;
    let provider = world.http();
    let raw = world.sign(transfer(0)).await;
    let hash = *provider.send_raw_transaction(&raw).await.unwrap().tx_hash();
    assert_eq!(ask(&provider, "anvil_dropTransaction", json!([hash])).await, json!(hash));
    assert_eq!(ask(&provider, "anvil_dropTransaction", json!([hash])).await, json!(null));
    ask(&provider, "evm_mine", json!([])).await;
    assert!(provider.get_transaction_by_hash(hash).await.unwrap().is_none());
    assert_eq!(provider.get_transaction_count(world.address()).await.unwrap(), 0);
    world.devnet.stop().await;
}
