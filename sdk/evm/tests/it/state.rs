//! Snapshots, history, and what is set by hand.

use alloy::primitives::{Address, Bytes, TxKind, U256};
use assay_evm::{ChainError, MAX_SNAPSHOTS, STATE_HISTORY_BLOCKS, StateError};

use crate::{STORE, SUICIDE, World, word};

const NOBODY: Address = Address::repeat_byte(0x11);

#[test]
fn a_revert_brings_everything_back() {
    let mut world = World::new();
    let contract = world.deploy(&STORE);
    world.mine(TxKind::Call(contract), 0, word(1));
    let id = world.chain.snapshot().unwrap();
    let (head, nonce) = (world.chain.head().hash, world.nonce);
    let balance = world.chain.state().balance(&world.signer.address());
    world.mine(TxKind::Call(contract), 0, word(2));
    world.chain.set_balance(NOBODY, U256::from(9));
    let later = world.chain.snapshot().unwrap();

    let dropped = world.chain.revert(id).unwrap();
    assert_eq!(dropped.len(), 1);
    assert_eq!(world.chain.head().hash, head);
    let state = world.chain.state();
    assert_eq!(state.storage_at(&contract, &U256::ZERO), U256::ONE);
    assert_eq!(state.balance(&world.signer.address()), balance);
    assert_eq!(state.balance(&NOBODY), U256::ZERO);
    assert!(world.chain.transaction(dropped[0].transactions[0].tx_hash()).is_none());
    assert!(world.chain.block_by_hash(&dropped[0].hash).is_none());
    // Later snapshots are gone with what they remembered.
    assert!(world.chain.revert(later).is_none());
    assert!(world.chain.revert(id).is_none());
    // And the chain goes on.
    world.nonce = nonce;
    assert!(world.mine(TxKind::Call(contract), 0, word(3)).is_success());
    assert_eq!(world.chain.state_at(2).unwrap().storage_at(&contract, &U256::ZERO), U256::ONE);
}

#[test]
fn snapshots_are_bounded() {
    let mut world = World::new();
    for _ in 0..MAX_SNAPSHOTS {
        world.chain.snapshot().unwrap();
    }
    assert!(matches!(world.chain.snapshot(), Err(ChainError::TooManySnapshots(MAX_SNAPSHOTS))));
}

#[test]
fn history_is_kept_for_its_length_and_no_longer() {
    let mut world = World::new();
    world.mine(TxKind::Call(NOBODY), 5, Bytes::new());
    let last = STATE_HISTORY_BLOCKS as u64 + 1;
    for _ in 1..last {
        world.seal(Vec::new());
    }
    assert_eq!(world.chain.head().number(), last);
    assert_eq!(world.chain.state_at(1).unwrap().balance(&NOBODY), U256::from(5));
    let error = world.chain.state_at(0).unwrap_err();
    assert_eq!(error, StateError::Pruned { number: 0, oldest: 1 });
    assert_eq!(world.chain.rewind(0).unwrap_err(), error);
}

#[test]
fn what_is_set_by_hand_is_there_now_and_in_the_next_block() {
    let mut world = World::new();
    world.seal(Vec::new());
    world.chain.set_balance(NOBODY, U256::from(5));
    let at = |world: &World, n| world.chain.state_at(n).unwrap().balance(&NOBODY);
    assert_eq!(world.chain.state().balance(&NOBODY), U256::from(5));
    // A sealed block stays what its state root says.
    assert_eq!(at(&world, 1), U256::ZERO);
    world.seal(Vec::new());
    assert_eq!((at(&world, 1), at(&world, 2)), (U256::ZERO, U256::from(5)));
}

#[test]
fn a_rewind_takes_blocks_back_and_the_chain_goes_on() {
    let mut world = World::new();
    let contract = world.deploy(&STORE);
    let early = world.chain.snapshot().unwrap();
    for value in [1, 2, 3] {
        world.mine(TxKind::Call(contract), 0, word(value));
    }
    let late = world.chain.snapshot().unwrap();
    world.chain.set_balance(NOBODY, U256::from(5));
    let dropped = world.chain.rewind(2).unwrap();
    assert_eq!(dropped.iter().map(|block| block.number()).collect::<Vec<_>>(), [3, 4]);
    let slot = |world: &World| world.chain.state().storage_at(&contract, &U256::ZERO);
    assert_eq!((slot(&world), world.chain.head().number()), (U256::ONE, 2));
    assert_eq!(world.chain.state().balance(&NOBODY), U256::ZERO);
    assert_eq!(world.chain.state().root(), world.chain.head().header.state_root);
    assert_eq!(world.chain.state_at(3).unwrap_err(), StateError::UnknownBlock);
    // A snapshot of a block that is gone is gone; one of a block that stayed is not.
    assert!(world.chain.revert(late).is_none());
    world.nonce = 2;
    world.mine(TxKind::Call(contract), 0, word(9));
    assert_eq!((slot(&world), world.chain.head().number()), (U256::from(9), 3));
    assert_eq!(world.chain.rewind(4).unwrap_err(), StateError::UnknownBlock);
    assert_eq!(world.chain.revert(early).unwrap().len(), 2);
    assert_eq!(slot(&world), U256::ZERO);
}

#[test]
fn a_contract_that_destroys_itself_later_keeps_its_code() {
    let mut world = World::new();
    let contract = world.deploy(&SUICIDE);
    world.chain.set_balance(contract, U256::from(50));
    assert!(world.mine(TxKind::Call(contract), 0, Bytes::new()).is_success());
    assert_eq!(world.chain.state().code(&contract), SUICIDE);
    assert_eq!(world.chain.state().balance(&contract), U256::ZERO);
    // In the transaction that creates it, it disappears: init code of `CALLER SELFDESTRUCT`.
    let receipt = world.mine(TxKind::Create, 7, SUICIDE);
    let gone = receipt.contract_address.unwrap();
    assert!(receipt.is_success());
    assert_eq!(world.chain.state().nonce(&gone), 0);
    assert_eq!(world.chain.state().balance(&gone), U256::ZERO);
}

#[test]
fn slots_that_are_cleared_come_back_in_the_past() {
    let mut world = World::new();
    let contract = world.deploy(&STORE);
    for value in [7, 0, 8] {
        world.mine(TxKind::Call(contract), 0, word(value));
    }
    let at = |n| world.chain.state_at(n).unwrap().storage_at(&contract, &U256::ZERO);
    assert_eq!([at(1), at(2), at(3), at(4)], [0, 7, 0, 8].map(U256::from));
}
