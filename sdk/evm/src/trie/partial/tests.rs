use std::collections::BTreeMap;

use alloy::primitives::U256;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

fn key(index: u16) -> B256 {
    keccak256(index.to_be_bytes())
}

fn opened(trie: &mut Trie<U256>, whole: &Trie<U256>, index: u16) {
    let proof = whole.prove(&key(index));
    trie.reveal(&key(index), &Nodes::new(&proof)).unwrap();
}

/// What a block does to a trie: values of keys, zero for none.
type Batch = BTreeMap<u16, u64>;

fn batches() -> impl Strategy<Value = Vec<Batch>> {
    let value = prop_oneof![2 => Just(0), 3 => 1_u64..u64::MAX];
    let batch = proptest::collection::btree_map(0_u16..40, value, 1..12);
    proptest::collection::vec(batch, 2..10)
}

/// The same on a trie of which everything is known.
fn changed(mut whole: Trie<U256>, batch: &Batch) -> Trie<U256> {
    for (index, value) in batch {
        match value {
            0 => whole.remove(&key(*index)),
            _ => whole.insert(&key(*index), U256::from(*value)),
        }
    }
    whole
}

/// Applies a batch to a trie of which only the keys of the batch are known; the number of orphans.
fn apply(part: &mut Trie<U256>, batch: &Batch, after: &Trie<U256>) -> usize {
    let mut orphans = 0;
    for (index, value) in batch.iter().filter(|(_, value)| **value > 0) {
        part.insert(&key(*index), U256::from(*value));
    }
    for (index, _) in batch.iter().filter(|(_, value)| **value == 0) {
        if part.orphan(&key(*index)).is_some() {
            orphans += 1;
            part.adopt(&key(*index), &Nodes::new(&after.prove(&key(*index)))).unwrap();
            assert_eq!(part.orphan(&key(*index)), None);
        }
        part.remove(&key(*index));
    }
    orphans
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, rng_seed: RngSeed::Fixed(5), ..ProptestConfig::default() })]

    /// A trie that knows only what proofs told of it has the root of the whole one after every change, and finds the same.
    #[test]
    fn a_partial_trie_goes_with_the_whole_one(batches in batches(), fresh in any::<bool>()) {
        let (first, rest) = batches.split_first().unwrap();
        let mut whole = changed(Trie::default(), first);
        let mut part = Trie::behind(whole.root());
        for batch in rest {
            let after = changed(whole.clone(), batch);
            if fresh {
                part = Trie::behind(whole.root());
            }
            let older = part.clone();
            for index in batch.keys() {
                opened(&mut part, &whole, *index);
                prop_assert_eq!(part.get(&key(*index)), whole.get(&key(*index)));
            }
            prop_assert_eq!(part.root(), whole.root());
            apply(&mut part, batch, &after);
            prop_assert_eq!(part.root(), after.root());
            prop_assert_eq!(older.root(), whole.root());
            for index in 0..40 {
                match part.find(&key(index)) {
                    Found::Hidden => prop_assert!(!batch.contains_key(&index)),
                    Found::Nothing => prop_assert_eq!(after.get(&key(index)), None),
                    Found::Value(value) => prop_assert_eq!(after.get(&key(index)), Some(value)),
                }
            }
            whole = after;
        }
    }

    /// A proof in which one byte is another one, or of which a node is missing, or that is of another key, tells nothing
    /// wrong: it is refused, or what it tells is true.
    #[test]
    fn no_proof_tells_what_is_not_there(batches in batches(), node: usize, byte: usize, bit in 0_u8..8) {
        let whole = changed(Trie::default(), &batches[0]);
        for index in 0..40 {
            let proof = whole.prove(&key(index));
            if proof.is_empty() {
                continue;
            }
            let mut bad = proof.clone();
            let place = node % bad.len();
            let mut bytes = bad[place].to_vec();
            let at = byte % bytes.len();
            bytes[at] ^= 1 << bit;
            bad[place] = bytes.into();
            let mut part = Trie::<U256>::behind(whole.root());
            prop_assert!(part.reveal(&key(index), &Nodes::new(&bad)).is_err());
            bad.remove(place);
            prop_assert!(part.reveal(&key(index), &Nodes::new(&bad)).is_err());
            prop_assert_eq!(part.root(), whole.root());
            let other = key(index + 1);
            if let Ok(found) = part.reveal(&other, &Nodes::new(&proof)) {
                prop_assert_eq!(found.map(|value| *value), whole.get(&other).copied());
            }
        }
    }
}

/// The cases that the random ones must have had: leaves, extensions and branches that are left alone.
#[test]
fn every_kind_of_orphan_is_adopted() {
    let mut orphans = 0;
    for seed in 0_u16..200 {
        let values = |index: u16| (seed * 40 + index, u64::from(index) + 1);
        let whole = changed(Trie::default(), &(0..3 + seed % 5).map(values).collect());
        for gone in 0..3 + seed % 5 {
            let batch = Batch::from([(seed * 40 + gone, 0)]);
            let after = changed(whole.clone(), &batch);
            let mut part = Trie::behind(whole.root());
            opened(&mut part, &whole, seed * 40 + gone);
            orphans += apply(&mut part, &batch, &after);
            assert_eq!(part.root(), after.root());
        }
    }
    assert!(orphans > 100, "{orphans}");
}

/// Nodes that hash to what is asked for, and that no trie of 32-byte keys has.
#[test]
fn a_node_that_cannot_be_is_refused() {
    use alloy_trie::nodes::{ExtensionNodeRef, LeafNodeRef};
    let path = |nibbles: usize| Nibbles::unpack(B256::ZERO).slice(..nibbles);
    let one = alloy::rlp::encode(U256::ONE);
    let encoded = |node: &dyn alloy::rlp::Encodable| {
        let mut out = Vec::new();
        node.encode(&mut out);
        Bytes::from(out)
    };
    let word = RlpNode::word_rlp(&B256::repeat_byte(1));
    let nodes = [
        encoded(&LeafNodeRef::new(&path(63), &one)),
        encoded(&LeafNodeRef::new(&path(64), &[0x82, 0, 1])),
        encoded(&LeafNodeRef::new(&path(64), &[1, 1])),
        encoded(&ExtensionNodeRef::new(&path(64), &word)),
        encoded(&ExtensionNodeRef::new(&path(0), &word)),
        Bytes::from_static(&[0xc0]),
    ];
    for node in nodes {
        let hash = keccak256(&node);
        let mut trie = Trie::<U256>::behind(hash);
        let told = trie.reveal(&B256::ZERO, &Nodes::new([&node]));
        assert_eq!(told, Err(ProofError::NoNode { hash }), "{node}");
    }
}
