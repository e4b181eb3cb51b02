//! Calls and estimates.

use alloy::primitives::{Address, Bytes, TxKind, U256};
use alloy::rpc::types::TransactionRequest;
use alloy::sol_types::{Panic, Revert, SolError};
use assay_evm::{CallAt, CallError, revert_reason};

use crate::{REVERTER, START_S, STORE, World, word};

const NEXT: CallAt = CallAt::Pending(START_S);

fn request(to: Address, input: impl Into<Bytes>) -> TransactionRequest {
    TransactionRequest::default().to(to).input(input.into().into())
}

#[test]
fn a_revert_gives_its_bytes_and_its_reason() {
    let mut world = World::new();
    let contract = world.deploy(&REVERTER);
    let data = Bytes::from(Revert::from("no").abi_encode());
    let error = world.chain.call(&request(contract, data.clone()), NEXT, None).unwrap_err();
    assert_eq!(error.to_string(), "execution reverted: no");
    assert!(matches!(error, CallError::Revert(output) if output == data));
    let error = world.chain.estimate_gas(&request(contract, data), NEXT, None).unwrap_err();
    assert_eq!(error.to_string(), "execution reverted: no");
}

#[test]
fn a_panic_is_put_into_words_and_other_bytes_are_not() {
    let overflow = Panic { code: U256::from(0x11) }.abi_encode();
    assert_eq!(revert_reason(&overflow).unwrap(), "arithmetic underflow or overflow");
    let unknown = Panic { code: U256::from(0x77) }.abi_encode();
    assert_eq!(revert_reason(&unknown).unwrap(), "unknown panic code: 0x77");
    for other in [&b""[..], &b"\x08"[..], &[0x08, 0xc3, 0x79, 0xa0, 1, 2][..]] {
        assert_eq!(revert_reason(other), None);
    }
}

#[test]
fn an_estimate_is_enough_and_a_little_less_than_the_gas_used_is_not() {
    let mut world = World::new();
    let contract = world.deploy(&STORE);
    let mut request = request(contract, word(5));
    request.from = Some(world.signer.address());
    let estimate = world.chain.estimate_gas(&request, NEXT, None).unwrap();
    let receipt = world.mine(TxKind::Call(contract), 0, word(5));
    assert!(estimate >= receipt.gas_used, "{estimate} < {}", receipt.gas_used);
    request.input = word(9).into();
    let low = TransactionRequest { gas: Some(21_500), ..request };
    assert!(matches!(
        world.chain.estimate_gas(&low, NEXT, None),
        Err(CallError::Allowance(21_500))
    ));
}

#[test]
fn an_estimate_covers_what_is_refunded_later() {
    let mut world = World::new();
    let contract = world.deploy(&STORE);
    world.mine(TxKind::Call(contract), 0, word(5));
    // Clearing a slot gives gas back only at the end: more is needed than is used.
    let estimate = world.chain.estimate_gas(&request(contract, word(0)), NEXT, None).unwrap();
    let receipt = world.mine(TxKind::Call(contract), 0, word(0));
    assert!(receipt.is_success());
    assert!(estimate > receipt.gas_used);
}

#[test]
fn an_estimate_respects_what_the_sender_can_pay() {
    let mut world = World::new();
    let contract = world.deploy(&STORE);
    let mut request = request(contract, word(5));
    let poor = Address::repeat_byte(0x77);
    world.chain.set_balance(poor, U256::from(30_000_u64) * U256::from(2_000_000_000_u64));
    request.from = Some(poor);
    request.max_fee_per_gas = Some(2_000_000_000);
    let error = world.chain.estimate_gas(&request, NEXT, None).unwrap_err();
    assert_eq!(error.to_string(), "gas required exceeds allowance (30000)");
}

#[test]
fn the_past_answers_as_it_was() {
    let mut world = World::new();
    let contract = world.deploy(&STORE);
    for value in [3, 4] {
        world.mine(TxKind::Call(contract), 0, word(value));
    }
    let read = |number| {
        world.chain.call(&request(contract, Bytes::new()), CallAt::Block(number), None).unwrap()
    };
    assert_eq!(read(1), word(0));
    assert_eq!(read(2), word(3));
    assert_eq!(read(3), word(4));
    let unknown = world.chain.call(&request(contract, Bytes::new()), CallAt::Block(9), None);
    assert_eq!(unknown.unwrap_err().to_string(), "header not found");
}
