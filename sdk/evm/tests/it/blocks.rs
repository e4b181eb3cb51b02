//! Building and sealing blocks.

use alloy::consensus::{TxEip1559, TxLegacy};
use alloy::primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use alloy::signers::local::PrivateKeySigner;
use assay_evm::{Block, ChainError, ExecuteError, TxError};

use crate::{RANDAO, START_S, STORE, World, ether, init_code, sign, word};

const NOBODY: Address = Address::repeat_byte(0x11);

#[test]
fn a_transfer_moves_value_and_pays_gas() {
    let mut world = World::new();
    let receipt = world.mine(TxKind::Call(NOBODY), 5, Bytes::new());
    assert!(receipt.is_success());
    assert_eq!(receipt.gas_used, 21_000);
    let state = world.chain.state();
    assert_eq!(state.balance(&NOBODY), U256::from(5));
    assert_eq!(state.nonce(&world.signer.address()), 1);
    let fee = U256::from(21_000) * U256::from(receipt.effective_gas_price);
    assert_eq!(state.balance(&world.signer.address()), ether(10) - fee - U256::from(5));
    // The tip goes to the beneficiary, the base fee to nobody.
    let tip = U256::from(21_000) * U256::from(1_000_000_000);
    assert_eq!(state.balance(&Address::ZERO), tip);
}

#[test]
fn a_contract_is_created_where_it_should_be() {
    let mut world = World::new();
    let contract = world.deploy(&STORE);
    assert_eq!(contract, world.signer.address().create(0));
    assert_eq!(world.chain.state().code(&contract), STORE);
    assert_eq!(world.chain.state().code_hash(&contract), keccak256(&STORE));
    assert_eq!(world.chain.state().nonce(&contract), 1);
}

#[test]
fn hashes_chain_and_are_those_of_the_headers() {
    let mut world = World::new();
    for _ in 0..3 {
        world.mine(TxKind::Call(NOBODY), 1, Bytes::new());
    }
    let mut parent = B256::ZERO;
    for number in 0..=3 {
        let block = world.chain.block(number).unwrap();
        assert_eq!(block.hash, block.header.hash_slow());
        assert_eq!(block.header.parent_hash, parent);
        assert_eq!(world.chain.block_by_hash(&block.hash).unwrap().number(), number);
        parent = block.hash;
    }
    assert!(world.chain.block(4).is_none());
}

#[test]
fn several_transactions_share_a_block() {
    let mut world = World::new();
    let txs: Vec<_> = (0..3).map(|_| world.tx(TxKind::Call(NOBODY), 1, Bytes::new())).collect();
    let hashes: Vec<_> = txs.iter().map(|tx| *tx.tx_hash()).collect();
    let block = world.seal(txs);
    assert_eq!(block.header.gas_used, 63_000);
    let cumulative: Vec<_> =
        block.receipts.iter().map(|r| r.envelope.cumulative_gas_used()).collect();
    assert_eq!(cumulative, [21_000, 42_000, 63_000]);
    assert_eq!(block.transaction_hashes().collect::<Vec<_>>(), hashes);
    let (found, index) = world.chain.transaction(&hashes[2]).unwrap();
    assert_eq!((found.number(), index), (1, 2));
}

#[test]
fn an_invalid_transaction_changes_nothing_and_the_block_goes_on() {
    let mut world = World::new();
    let first = world.tx(TxKind::Call(NOBODY), 1, Bytes::new());
    world.nonce = 7;
    let gap = world.tx(TxKind::Call(NOBODY), 1, Bytes::new());
    let mut builder = world.chain.begin_block(START_S).unwrap();
    let error = builder.execute(gap).unwrap_err();
    let expected = TxError::NonceTooHigh { next: 0, tx: 7 };
    assert!(matches!(error, ExecuteError::Invalid(error) if error == expected));
    builder.execute(first.clone()).unwrap();
    let error = builder.execute(first).unwrap_err();
    assert_eq!(error.to_string(), "nonce too low: next nonce 1, tx nonce 0");
    let block = builder.seal().block;
    assert_eq!((block.transactions.len(), block.header.gas_used), (1, 21_000));
}

#[test]
fn a_block_that_is_not_pushed_leaves_no_trace() {
    let mut world = World::new();
    let contract = world.deploy(&STORE);
    let before = world.chain.state().balance(&world.signer.address());
    let head = world.chain.head().hash;
    let tx = world.tx(TxKind::Call(contract), 0, word(5));
    let mut builder = world.chain.begin_block(START_S).unwrap();
    builder.execute(tx).unwrap();
    let sealed = builder.seal();
    let state = world.chain.state();
    assert_eq!(state.balance(&world.signer.address()), before);
    assert_eq!(state.storage_at(&contract, &U256::ZERO), U256::ZERO);
    assert_eq!(world.chain.head().hash, head);
    // And on another head it has no place any more.
    world.seal(Vec::new());
    assert!(matches!(world.chain.push(sealed), Err(ChainError::NotOnHead { .. })));
}

#[test]
fn a_block_is_the_same_after_it_was_stored() {
    let mut world = World::new();
    let contract = world.deploy(&STORE);
    let (deployed, called) =
        (world.chain.head().clone(), world.tx(TxKind::Call(contract), 0, word(5)));
    let unsigned = TxEip1559 {
        chain_id: 31337,
        gas_limit: 21_000,
        to: TxKind::Call(NOBODY),
        max_fee_per_gas: 2_000_000_000,
        ..TxEip1559::default()
    };
    let unsigned = assay_evm::impersonate(unsigned.into(), contract);
    let legacy = TxLegacy {
        chain_id: Some(31337),
        nonce: 1,
        gas_price: 2_000_000_000,
        gas_limit: 21_000,
        to: TxKind::Call(NOBODY),
        ..TxLegacy::default()
    };
    let legacy = assay_evm::impersonate(legacy.into(), contract);
    world.chain.set_nonce(contract, 0);
    world.chain.set_balance(contract, ether(1));
    let mixed = world.seal(vec![called, unsigned, legacy]);
    for block in [deployed, mixed] {
        assert_eq!(Block::decode(&block.encode()).unwrap(), *block);
    }
    assert!(Block::decode(&[0xc0]).is_err());
}

#[test]
fn gas_is_bounded_by_the_block() {
    let world = World::new();
    let signer = world.signer.clone();
    let tx = |nonce, gas_limit| {
        let tx = TxEip1559 {
            chain_id: 31337,
            nonce,
            gas_limit,
            max_fee_per_gas: 2_000_000_000,
            to: TxKind::Call(NOBODY),
            ..TxEip1559::default()
        };
        sign(&signer, tx)
    };
    assert_eq!(world.chain.validate(&tx(0, 30_000_001)), Err(TxError::ExceedsBlockGas));
    assert_eq!(world.chain.validate(&tx(0, 30_000_000)), Ok(()));
    let mut builder = world.chain.begin_block(START_S).unwrap();
    builder.execute(tx(0, 30_000_000)).unwrap();
    let error = builder.execute(tx(1, 29_979_001)).unwrap_err();
    assert!(matches!(error, ExecuteError::Invalid(TxError::BlockFull)));
    assert_eq!(builder.gas_left(), 29_979_000);
}

#[test]
fn base_fee_follows_the_gas_of_the_parent() {
    let mut world = World::new();
    assert_eq!(world.chain.head().header.base_fee_per_gas, Some(1_000_000_000));
    // An empty block lowers it by an eighth.
    assert_eq!(world.chain.next_base_fee(), 875_000_000);
    world.mine(TxKind::Call(NOBODY), 1, Bytes::new());
    // 21 000 of 15 000 000: 875 000 000 - 875 000 000 * (15 000 000 - 21 000) / 15 000 000 / 8.
    assert_eq!(world.chain.next_base_fee(), 765_778_125);
}

#[test]
fn time_may_stand_still_but_not_run_back() {
    let mut world = World::new();
    world.seal_at(START_S, Vec::new());
    world.seal_at(START_S + 3, Vec::new());
    let error = world.chain.begin_block(START_S + 2).unwrap_err();
    assert!(matches!(error, ChainError::Timestamp { timestamp, parent }
        if timestamp == START_S + 2 && parent == START_S + 3));
}

#[test]
fn randomness_follows_from_the_parent_hash() {
    let mut world = World::new();
    let contract = world.deploy(&RANDAO);
    let at = assay_evm::CallAt::Block(1);
    let request = alloy::rpc::types::TransactionRequest::default().to(contract);
    let output = world.chain.call(&request, at, None).unwrap();
    let parent = world.chain.head().header.parent_hash;
    let expected = keccak256([b"prevrandao".as_slice(), parent.as_slice()].concat());
    assert_eq!(B256::from_slice(&output), expected);
    assert_eq!(world.chain.head().header.mix_hash, expected);
}

#[test]
fn a_pool_check_names_the_first_rule_that_is_broken() {
    let mut world = World::new();
    let poor = PrivateKeySigner::random();
    let tx = TxEip1559 {
        chain_id: 31337,
        gas_limit: 21_000,
        max_fee_per_gas: 1_000_000_000,
        to: TxKind::Call(NOBODY),
        ..TxEip1559::default()
    };
    let cost = U256::from(21_000_000_000_000_u64);
    let check = |tx: TxEip1559| world.chain.validate(&sign(&poor, tx)).unwrap_err();
    assert_eq!(check(tx.clone()), TxError::InsufficientFunds { balance: U256::ZERO, cost });
    let wrong_chain = TxEip1559 { chain_id: 1, gas_limit: 1, ..tx.clone() };
    assert_eq!(check(wrong_chain), TxError::ChainId { have: 1, want: 31337 });
    let little_gas = TxEip1559 { gas_limit: 20_999, ..tx.clone() };
    assert_eq!(check(little_gas), TxError::IntrinsicGas { gas: 20_999, needed: 21_000 });
    let tip = TxEip1559 { max_priority_fee_per_gas: 2_000_000_000, ..tx.clone() };
    assert_eq!(check(tip), TxError::TipAboveFee);
    let create = TxEip1559 { to: TxKind::Create, input: init_code(&STORE), ..tx };
    assert!(matches!(check(create), TxError::IntrinsicGas { needed, .. } if needed > 53_000));
    // A sender with code is no account of a person.
    let code = STORE;
    world.chain.set_code(poor.address(), code);
    world.chain.set_balance(poor.address(), ether(1));
    let tx = TxEip1559 {
        chain_id: 31337,
        gas_limit: 21_000,
        max_fee_per_gas: 1_000_000_000,
        to: TxKind::Call(NOBODY),
        ..TxEip1559::default()
    };
    let error = world.chain.validate(&sign(&poor, tx)).unwrap_err();
    assert!(matches!(error, TxError::SenderNotEoa { sender, .. } if sender == poor.address()));
}
