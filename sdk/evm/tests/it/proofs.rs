//! State roots and proofs, against an independent construction of the tries.

use std::collections::{BTreeMap, VecDeque};

use alloy::consensus::TrieAccount;
use alloy::primitives::{Address, B256, Bytes, KECCAK256_EMPTY, TxKind, U256, keccak256};
use alloy_trie::proof::verify_proof;
use alloy_trie::root::{state_root_unhashed, storage_root_unhashed};
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles};
use assay_evm::{AccountProof, Block, Chain, ChainConfig, ChainError, State};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::{START_S, STORE, World, word};

/// Checks a proof of an account and its slots, as a client does that trusts the root alone.
fn check(root: B256, address: Address, slots: &[U256], proof: &AccountProof) {
    let account = TrieAccount {
        nonce: proof.basic.nonce,
        balance: proof.basic.balance,
        storage_root: proof.storage_root,
        code_hash: proof.basic.code_hash,
    };
    let exists = account != TrieAccount::default();
    let value = exists.then(|| alloy::rlp::encode(account));
    verify_proof(root, Nibbles::unpack(keccak256(address)), value, &proof.nodes).unwrap();
    for (slot, (value, nodes)) in slots.iter().zip(&proof.slots) {
        let key = Nibbles::unpack(keccak256(B256::from(*slot)));
        let value = (!value.is_zero()).then(|| alloy::rlp::encode(value));
        verify_proof(proof.storage_root, key, value, nodes).unwrap();
    }
}

/// Accounts and slots, few enough that they meet often.
fn address(index: u8) -> Address {
    Address::repeat_byte(index)
}

/// What a test does to the state: the value of a slot, or the balance of an account.
#[derive(Debug, Clone, Copy)]
enum Step {
    Slot(u8, u16, u64),
    Balance(u8, u64),
    Seal,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = prop_oneof![Just(0), 1_u64..300];
    let slot = (0_u8..4, 0_u16..60, value.clone()).prop_map(|(a, s, v)| Step::Slot(a, s, v));
    let balance = (0_u8..40, value).prop_map(|(a, v)| Step::Balance(a, v));
    proptest::collection::vec(prop_oneof![6 => slot, 3 => balance, 1 => Just(Step::Seal)], 1..200)
}

/// The same accounts as plain maps.
#[derive(Debug, Clone, Default)]
struct Model {
    balances: BTreeMap<u8, u64>,
    slots: BTreeMap<u8, BTreeMap<u16, u64>>,
}

impl Model {
    fn storage_root(&self, account: u8) -> B256 {
        let slots = self.slots.get(&account).into_iter().flatten();
        let set = slots.filter(|(_, value)| **value > 0);
        storage_root_unhashed(set.map(|(k, v)| (B256::from(U256::from(*k)), U256::from(*v))))
    }

    /// Root of these accounts and those of the genesis block.
    fn root(&self, genesis: &[(Address, TrieAccount)]) -> B256 {
        let accounts = (0..40).filter_map(|index| {
            let account = TrieAccount {
                balance: U256::from(self.balances.get(&index).copied().unwrap_or_default()),
                storage_root: self.storage_root(index),
                ..TrieAccount::default()
            };
            (account != TrieAccount::default()).then_some((address(index), account))
        });
        state_root_unhashed(accounts.chain(genesis.iter().cloned()))
    }
}

/// What every chain has from its start.
fn genesis(chain: &Chain) -> Vec<(Address, TrieAccount)> {
    let history = alloy::eips::eip2935::HISTORY_STORAGE_ADDRESS;
    let factory = alloy::primitives::address!("4e59b44847b379578588920ca78fbf26c0b4956c");
    let account = |address| {
        let proof = chain.state().prove(&address, &[]);
        let account = TrieAccount {
            nonce: 1,
            storage_root: proof.storage_root,
            code_hash: proof.basic.code_hash,
            ..TrieAccount::default()
        };
        (address, account)
    };
    vec![account(history), account(factory)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, rng_seed: RngSeed::Fixed(3), ..ProptestConfig::default() })]

    /// Every version of the state has the root that an independent builder computes from plain maps,
    /// every proof holds, also for what is not there, and what differs between two versions is enough
    /// to make one of the other.
    #[test]
    fn roots_proofs_and_changes_are_right(steps in steps()) {
        let config = ChainConfig { genesis_timestamp: START_S, ..ChainConfig::default() };
        let mut chain = Chain::new(config.clone());
        let mut model = Model::default();
        let mut sealed = vec![(chain.head_state().clone(), model.clone())];
        for step in steps {
            match step {
                Step::Slot(account, slot, value) => {
                    let slot_value = (U256::from(slot), U256::from(value));
                    chain.set_storage(address(account), slot_value.0, slot_value.1);
                    model.slots.entry(account).or_default().insert(slot, value);
                }
                Step::Balance(account, value) => {
                    chain.set_balance(address(account), U256::from(value));
                    model.balances.insert(account, value);
                }
                Step::Seal => {
                    let block = chain.begin_block(START_S).unwrap().seal();
                    chain.push(block).unwrap();
                    sealed.push((chain.head_state().clone(), model.clone()));
                }
            }
        }
        prop_assert_eq!(chain.state().root(), model.root(&genesis(&chain)));
        for account in 0..42 {
            let slots: Vec<U256> = (0..70).map(U256::from).collect();
            let proof = chain.state().prove(&address(account), &slots);
            check(chain.state().root(), address(account), &slots, &proof);
            prop_assert_eq!(proof.storage_root, model.storage_root(account));
        }
        let mut rebuilt = State::default();
        let mut older = State::default();
        let mut blocks = Vec::new();
        for (number, (state, _)) in sealed.iter().enumerate() {
            let changes = state.changes_since(&older);
            let stored = alloy::rlp::encode(&changes);
            let read: Vec<assay_evm::AccountChange> =
                alloy::rlp::Decodable::decode(&mut stored.as_slice()).unwrap();
            prop_assert_eq!(&read, &changes);
            for change in read {
                rebuilt.apply(change);
            }
            prop_assert_eq!(rebuilt.root(), state.root());
            prop_assert_eq!(chain.state_at(number as u64).unwrap().root(), state.root());
            prop_assert!(state.changes_since(&rebuilt).is_empty());
            older = state.clone();
            blocks.push((**chain.block(number as u64).unwrap()).clone());
        }
        let history: VecDeque<State> = sealed.into_iter().map(|(state, _)| state).collect();
        let resumed = Chain::resume(config, blocks, State::default(), history).unwrap();
        prop_assert_eq!(resumed.head().hash, chain.head().hash);
    }
}

#[test]
fn every_block_has_the_root_of_its_state_and_proves_it() {
    let mut world = World::new();
    let contract = world.deploy(&STORE);
    for value in [7, 0, 8] {
        world.mine(TxKind::Call(contract), 0, word(value));
    }
    let sender = world.signer.address();
    for number in 0..=4 {
        let state = world.chain.state_at(number).unwrap();
        let root = world.chain.block(number).unwrap().header.state_root;
        assert_eq!(state.root(), root);
        for address in [contract, sender, Address::ZERO, Address::repeat_byte(0x99)] {
            let slots = [U256::ZERO, U256::ONE];
            let proof = state.prove(&address, &slots);
            check(root, address, &slots, &proof);
            assert_eq!(proof.basic.balance, state.balance(&address));
            assert_eq!(proof.slots[0].0, state.storage_at(&address, &U256::ZERO));
        }
    }
    let absent = world.chain.state().prove(&Address::repeat_byte(0x99), &[U256::ZERO]);
    assert_eq!((absent.storage_root, absent.basic.code_hash), (EMPTY_ROOT_HASH, KECCAK256_EMPTY));
    assert!(absent.slots[0].1.is_empty());
}

#[test]
fn a_stored_chain_that_does_not_fit_together_is_refused() {
    let mut world = World::new();
    world.mine(TxKind::Call(Address::repeat_byte(1)), 1, Bytes::new());
    world.mine(TxKind::Call(Address::repeat_byte(1)), 1, Bytes::new());
    let blocks: Vec<Block> = (0..3).map(|n| (**world.chain.block(n).unwrap()).clone()).collect();
    let head = world.chain.head_state().clone();
    let resume = |blocks: Vec<Block>, state: State| {
        Chain::resume(ChainConfig::default(), blocks, State::default(), VecDeque::from([state]))
    };
    assert_eq!(resume(blocks.clone(), head.clone()).unwrap().head().number(), 2);
    for (blocks, state) in [
        (blocks.clone(), State::default()),
        (blocks[..2].to_vec(), head.clone()),
        (vec![blocks[0].clone(), blocks[2].clone()], head.clone()),
        (Vec::new(), head),
    ] {
        assert!(matches!(resume(blocks, state), Err(ChainError::Stored(_))));
    }
}
