//! Blocks executed on a state of which only what they need is known.

use std::collections::BTreeSet;

use alloy::eips::eip4895::Withdrawal;
use alloy::primitives::{Address, Bytes, TxKind, U256, bytes, keccak256};
use assay_evm::{Forks, Missing, ProofError, Replay, ReplayError, State, StateView};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::{World, word};

/// Stores the second word of its calldata in the slot that the first one names, the fourth in that of the third, and so on.
const TABLE: Bytes = bytes!("5f5b3681101560175780602001358135556040016001565b00");

fn pairs(writes: &[(u64, u64)]) -> Bytes {
    writes.iter().flat_map(|(slot, value)| [word(*slot), word(*value)]).flatten().collect()
}

/// Tells of what is missing, as an honest node does.
fn tell(
    replay: &mut Replay,
    missing: BTreeSet<Missing>,
    before: &StateView<'_>,
    after: &StateView<'_>,
) {
    for one in missing {
        let told = match one {
            Missing::Account(address) => replay.inform(|state| {
                state.reveal(&address, &[], &before.prove(&address, &[]).nodes)?;
                state.learn_code(&address, before.code(&address))
            }),
            Missing::Slot(address, slot) => {
                let proof = before.prove(&address, &[slot]);
                let nodes = [proof.nodes, proof.slots[0].1.clone()].concat();
                replay.inform(|state| state.reveal(&address, &[slot], &nodes))
            }
            Missing::BesideAccount(address) => {
                replay.inform(|state| state.adopt(&address, &[], &after.prove(&address, &[]).nodes))
            }
            Missing::BesideSlot(address, slot) => {
                let nodes = after.prove(&address, &[slot]).slots[0].1.clone();
                replay.inform(|state| state.adopt(&address, &[slot], &nodes))
            }
        };
        told.unwrap();
    }
}

/// Executes the blocks after one on a state that begins as a root; how often something was missing.
fn follow(world: &World, from: u64) -> usize {
    let chain = &world.chain;
    let first = chain.block(from).unwrap();
    let state = State::behind(first.header.state_root, false);
    let mut replay = Replay::new(31337, state, (from, first.hash));
    let mut rounds = 0;
    for number in from + 1..=chain.head().number() {
        let block = chain.block(number).unwrap();
        let (before, after) =
            (chain.state_at(number - 1).unwrap(), chain.state_at(number).unwrap());
        loop {
            match replay.block(&block.header, block.hash, &block.transactions, &[]) {
                Ok(executed) => {
                    assert_eq!(executed.receipts, block.receipts);
                    break;
                }
                Err(ReplayError::Missing(missing)) => tell(&mut replay, missing, &before, &after),
                Err(error) => panic!("{error}"),
            }
            rounds += 1;
        }
        assert_eq!(replay.state().root(), block.header.state_root, "block {number}");
    }
    rounds
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, rng_seed: RngSeed::Fixed(11), ..ProptestConfig::default() })]

    /// Slots that are set and cleared in several transactions of a block, at random.
    #[test]
    fn a_partial_state_goes_with_the_whole_one(
        blocks in proptest::collection::vec(
            proptest::collection::vec(
                proptest::collection::vec((0_u64..24, prop_oneof![Just(0), 1_u64..300]), 1..10), 0..4),
            2..8),
        from in 1_u64..4,
    ) {
        let mut world = World::new();
        let table = world.deploy(&TABLE);
        for block in blocks {
            let txs = block.iter().map(|writes| world.tx(TxKind::Call(table), 0, pairs(writes))).collect();
            world.seal(txs);
        }
        let from = from.min(world.chain.head().number());
        follow(&world, from);
    }
}

#[test]
fn creations_and_destructions_are_followed() {
    let mut world = World::new();
    let contract = world.deploy(&crate::STORE);
    world.mine(TxKind::Call(contract), 0, word(5));
    world.mine(TxKind::Call(Address::repeat_byte(7)), 9, Bytes::new());
    let created = world.deploy(&TABLE);
    world.mine(TxKind::Create, 3, crate::SUICIDE);
    world.mine(TxKind::Call(created), 0, pairs(&[(1, 1), (2, 2), (1, 0)]));
    assert!(follow(&world, 1) > 0);
    assert!(follow(&world, 0) > 0);
}

/// What is asked of a part that is not known is noted, and found once it is told.
#[test]
fn a_call_notes_what_is_missing() {
    let mut world = World::new();
    let contract = world.deploy(&crate::STORE);
    world.mine(TxKind::Call(contract), 0, word(5));
    let head = world.chain.head().clone();
    let state = State::behind(head.header.state_root, false);
    let mut replay = Replay::new(31337, state, (head.number(), head.hash));
    let view = world.chain.state();
    for _ in 0..4 {
        let answer = replay.call(&head.header, contract, Bytes::new());
        let missing = replay.take_missing();
        if missing.is_empty() {
            assert_eq!(answer.unwrap(), word(5));
            return;
        }
        tell(&mut replay, missing, &view, &view);
    }
    panic!("something is always missing");
}

#[test]
fn what_does_not_follow_from_the_root_is_refused() {
    let mut world = World::new();
    let contract = world.deploy(&crate::STORE);
    world.mine(TxKind::Call(contract), 0, word(5));
    let view = world.chain.state();
    let mut state = State::behind(view.root(), false);
    let honest = view.prove(&contract, &[U256::ZERO]);
    let other = view.prove(&world.signer.address(), &[]);
    assert!(matches!(state.reveal(&contract, &[], &other.nodes), Err(ProofError::Lacks { .. })));
    state.reveal(&contract, &[], &honest.nodes).unwrap();
    assert_eq!(state.lacks_code(&contract), Some(keccak256(&crate::STORE)));
    let wrong = state.learn_code(&contract, crate::REVERTER.clone());
    assert!(matches!(wrong, Err(ProofError::Code { .. })));
    state.learn_code(&contract, crate::STORE.clone()).unwrap();
    assert_eq!(state.lacks_code(&contract), None);
    assert!(matches!(state.reveal(&contract, &[U256::ZERO], &[]), Err(ProofError::Lacks { .. })));
    state.reveal(&contract, &[U256::ZERO], &honest.slots[0].1).unwrap();
    assert_eq!(state.root(), view.root());
}

/// On a public chain the consensus layer pays out, and the fork follows from the header.
#[test]
fn withdrawals_are_paid_and_unknown_rules_refused() {
    let mut world = World::new();
    world.mine(TxKind::Call(Address::repeat_byte(7)), 9, Bytes::new());
    let block = world.chain.block(1).unwrap();
    let mut replay = Replay::new(
        31337,
        world.chain.state_at(0).unwrap().into_state(),
        (0, block.header.parent_hash),
    );
    replay.follow(Forks::Public);
    let nobody = Address::repeat_byte(0x77);
    let withdrawal = Withdrawal { address: nobody, amount: 3, ..Withdrawal::default() };
    let mut older = block.header.clone();
    older.difficulty = U256::ONE;
    let refused = replay.block(&older, block.hash, &block.transactions, &[]);
    assert!(matches!(refused, Err(ReplayError::Rules)));
    replay
        .block(&block.header, block.hash, &block.transactions, &[withdrawal, withdrawal])
        .unwrap();
    assert_eq!(replay.account(&nobody, &[]).basic.balance, U256::from(6_000_000_000_u64));
}
