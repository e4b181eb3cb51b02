//! Calls, estimates, and the state of the past.

use alloy::eips::BlockId;
use alloy::network::TransactionBuilder;
use alloy::primitives::{Address, B256, Bytes, U256};
use alloy::providers::Provider;
use alloy::rpc::types::TransactionRequest;
use alloy::rpc::types::state::{AccountOverride, StateOverride};
use alloy::sol_types::{Revert, SolError};

use crate::{LOOP, REVERTER, STORE, World, deploy, hex_data, message, send, store, word};

alloy::sol! {
    #[derive(Debug, PartialEq)]
    error Session_TooPoor(uint256 have, uint256 need);
}

#[tokio::test]
async fn a_revert_gives_its_reason_and_its_bytes() {
    let world = World::start().await;
    let provider = world.http();
    let contract = deploy(&provider, &REVERTER).await;
    let data = Revert::from("deposit too small").abi_encode();
    let request = TransactionRequest::default().with_to(contract).with_input(data.clone());
    for error in [
        provider.call(request.clone()).await.unwrap_err(),
        provider.estimate_gas(request.clone()).await.unwrap_err(),
    ] {
        let payload = error.as_error_resp().unwrap();
        assert_eq!(payload.code, 3);
        assert_eq!(payload.message, "execution reverted: deposit too small");
        assert_eq!(payload.as_revert_data().unwrap(), data);
        let raw = payload.data.as_ref().unwrap().get();
        assert_eq!(raw, format!("\"{}\"", hex_data(&data)));
    }
    world.devnet.stop().await;
}

#[tokio::test]
async fn a_custom_error_can_be_decoded_and_an_empty_revert_has_empty_data() {
    let world = World::start().await;
    let provider = world.http();
    let contract = deploy(&provider, &REVERTER).await;
    let custom = Session_TooPoor { have: U256::from(1), need: U256::from(2) };
    let request = TransactionRequest::default().with_to(contract).with_input(custom.abi_encode());
    let error = provider.call(request.clone()).await.unwrap_err();
    let payload = error.as_error_resp().unwrap();
    assert_eq!(payload.message, "execution reverted");
    assert_eq!(payload.as_decoded_error::<Session_TooPoor>().unwrap(), custom);

    let error = provider.call(request.with_input(Bytes::new())).await.unwrap_err();
    let payload = error.as_error_resp().unwrap();
    assert_eq!((payload.code, payload.as_revert_data()), (3, Some(Bytes::new())));
    world.devnet.stop().await;
}

#[tokio::test]
async fn a_reverting_transaction_is_mined_with_a_failed_receipt() {
    let world = World::start().await;
    let provider = world.http();
    let contract = deploy(&provider, &REVERTER).await;
    let request = TransactionRequest::default().with_to(contract).with_gas_limit(100_000);
    let receipt = send(&provider, request).await;
    assert!(!receipt.status());
    assert_eq!(provider.get_transaction_count(world.address()).await.unwrap(), 2);
    world.devnet.stop().await;
}

#[tokio::test]
async fn running_out_of_gas_is_said_so() {
    let world = World::start().await;
    let provider = world.http();
    let contract = deploy(&provider, &LOOP).await;
    let request = TransactionRequest::default().with_to(contract).with_gas_limit(50_000);
    let error = message(provider.call(request.clone()).await);
    assert_eq!(error, (-32000, "out of gas".to_owned()));
    let error = message(provider.estimate_gas(request).await);
    assert_eq!(error, (-32000, "gas required exceeds allowance (50000)".to_owned()));
    world.devnet.stop().await;
}

#[tokio::test]
async fn an_estimate_suffices_and_is_close() {
    let world = World::start().await;
    let provider = world.http();
    let contract = deploy(&provider, &STORE).await;
    let to_nobody = TransactionRequest::default().with_to(Address::repeat_byte(0x22));
    assert_eq!(provider.estimate_gas(to_nobody).await.unwrap(), 21_000);

    let request = store(contract, 7).with_from(world.address());
    let estimate = provider.estimate_gas(request.clone()).await.unwrap();
    let receipt = send(&provider, request.with_gas_limit(estimate)).await;
    assert!(receipt.status());
    assert!(estimate >= receipt.gas_used);
    assert!(estimate * 100 <= receipt.gas_used * 103);
    world.devnet.stop().await;
}

#[tokio::test]
async fn a_call_may_come_from_a_contract_and_leaves_no_trace() {
    let world = World::start().await;
    let provider = world.http();
    let contract = deploy(&provider, &STORE).await;
    provider.call(store(contract, 5).with_from(contract)).await.unwrap();
    assert_eq!(provider.get_storage_at(contract, U256::ZERO).await.unwrap(), U256::ZERO);
    world.devnet.stop().await;
}

#[tokio::test]
async fn a_call_with_more_value_than_the_balance_fails() {
    let world = World::start().await;
    let request = TransactionRequest::default()
        .with_from(Address::repeat_byte(0x33))
        .with_to(Address::repeat_byte(0x22))
        .with_value(U256::from(5));
    let (code, text) = message(world.http().call(request).await);
    assert_eq!(code, -32000);
    assert!(text.starts_with("insufficient funds for gas * price + value: balance 0"), "{text}");
    world.devnet.stop().await;
}

#[tokio::test]
async fn the_past_can_be_read_and_called() {
    let world = World::start().await;
    let provider = world.http();
    let contract = deploy(&provider, &STORE).await;
    let mut written = Vec::new();
    for value in [7, 8, 0, 9] {
        let receipt = send(&provider, store(contract, value)).await;
        written.push((receipt.block_number.unwrap(), receipt.block_hash.unwrap(), value));
        let () = provider.raw_request("anvil_mine".into(), (10,)).await.unwrap();
    }
    for (nonce, (number, hash, value)) in (2..).zip(written) {
        for id in [BlockId::number(number), BlockId::hash(hash)] {
            let slot = provider.get_storage_at(contract, U256::ZERO).block_id(id).await.unwrap();
            assert_eq!(slot, U256::from(value));
            let read = TransactionRequest::default().with_to(contract);
            assert_eq!(provider.call(read).block(id).await.unwrap(), word(value));
            let count = provider.get_transaction_count(world.address()).block_id(id).await;
            assert_eq!(count.unwrap(), nonce);
        }
    }
    let code = provider.get_code_at(contract).block_id(BlockId::number(0)).await.unwrap();
    assert!(code.is_empty());
    let balance = provider.get_balance(world.address()).block_id(BlockId::number(0)).await;
    assert_eq!(balance.unwrap(), crate::ether(1000));
    world.devnet.stop().await;
}

#[tokio::test]
async fn state_that_is_gone_or_never_was_is_an_error() {
    let world = World::start().await;
    let provider = world.http();
    let () = provider.raw_request("anvil_mine".into(), (4100,)).await.unwrap();
    let ask = |id: BlockId| {
        let provider = provider.clone();
        let address = world.address();
        async move { message(provider.get_balance(address).block_id(id).await) }
    };
    let (code, text) = ask(BlockId::number(3)).await;
    assert_eq!(code, -32000);
    assert!(text.contains("the oldest block with state is 4"), "{text}");
    assert_eq!(ask(BlockId::number(5000)).await, (-32000, "header not found".to_owned()));
    assert_eq!(ask(BlockId::hash(B256::ZERO)).await, (-32000, "header not found".to_owned()));
    let balance = provider.get_balance(world.address()).block_id(BlockId::number(4)).await;
    assert_eq!(balance.unwrap(), crate::ether(1000));
    world.devnet.stop().await;
}

#[tokio::test]
async fn overrides_change_what_a_call_sees() {
    let world = World::start().await;
    let provider = world.http();
    let contract = deploy(&provider, &STORE).await;
    send(&provider, store(contract, 7)).await;
    let elsewhere = Address::repeat_byte(0x44);
    let slot = B256::from(U256::from(77));
    let diff = AccountOverride::default().with_state_diff([(B256::ZERO, slot)]);
    let empty = AccountOverride {
        code: Some(STORE),
        state: Some(Default::default()),
        ..AccountOverride::default()
    };
    let overrides = StateOverride::from_iter([(contract, diff), (elsewhere, empty)]);
    for (to, expected) in [(contract, 77), (elsewhere, 0)] {
        let read = TransactionRequest::default().with_to(to);
        let output = provider.call(read).overrides(overrides.clone()).await.unwrap();
        assert_eq!(output, word(expected));
    }
    world.devnet.stop().await;
}
