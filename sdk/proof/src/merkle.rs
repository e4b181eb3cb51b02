//! Leaves, the Merkle root over them, and proofs of several leaves at once.
//!
//! ```text
//! leaf(t, y, c)          = keccak256(0x00, uint32 t, uint32 y, int16[m] c)              the miner's
//! auditLeaf(t, y, c', g) = keccak256(0x02, uint32 t, uint32 y, int16[m] c', uint32 g)   a validator's
//! node(left, right)      = keccak256(0x01, left, right)
//! ```
//!
//! Everything is tight and big-endian. Leaf `t` (from 1) is the `t - 1`-th of the lowest level; a last node
//! without a partner moves up as it is. A validator's leaf has its [margin](crate::Score) beside its
//! contrasts: its root commits to the margins of all positions before anybody names one.
//!
//! # Multiproof
//! Level by level from the leaves, known nodes from left to right: a partner that is known is combined, one
//! that does not exist lets the node move up, any other is the next of the proof. At the top the whole proof
//! is used up and one node is left, the root. The number of leaves is known from elsewhere (H1).

use assay_types::{B256, MAX_OUTPUT_LIMIT, keccak256};

use crate::Contrasts;

/// Positions of one proof: those of a panel.
pub const MAX_OPENED: usize = 16;

const LEAF: u8 = 0;
const NODE: u8 = 1;
const AUDIT_LEAF: u8 = 2;
/// The prefix, two 32-bit integers, four contrasts, a margin.
const LONGEST_LEAF: usize = 1 + 4 + 4 + 8 + 4;

/// Why leaves are not those of a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MerkleError {
    /// A tree of no leaves, or of more than an answer has.
    #[error("a tree has 1 to {MAX_OUTPUT_LIMIT} leaves, not {0}")]
    Leaves(u64),
    /// None, or too many to prove at once.
    #[error("1 to {MAX_OPENED} positions are opened at once, not {0}")]
    Opened(usize),
    /// A position is outside the tree, or the positions do not ascend.
    #[error("position {0} is outside the answer, or not after the one before it")]
    Position(u32),
    /// A node is missing.
    #[error("the proof ends too early")]
    Short,
    /// A node too many.
    #[error("the proof has {0} nodes too many")]
    Long(usize),
    /// The leaves are not those of the root.
    #[error("the leaves give the root {got}, not {want}")]
    Root {
        /// Root that the leaves and the proof give.
        got: B256,
        /// Root that was asked for.
        want: B256,
    },
}

fn hash_leaf(prefix: u8, t: u32, token: u32, contrasts: &Contrasts, margin: Option<u32>) -> B256 {
    let mut bytes = Vec::with_capacity(LONGEST_LEAF);
    bytes.push(prefix);
    bytes.extend(t.to_be_bytes());
    bytes.extend(token.to_be_bytes());
    bytes.extend(contrasts.bytes());
    bytes.extend(margin.into_iter().flat_map(u32::to_be_bytes));
    keccak256(bytes)
}

/// The miner's leaf of position `t`, counted from 1.
pub fn leaf(t: u32, token: u32, contrasts: &Contrasts) -> B256 {
    hash_leaf(LEAF, t, token, contrasts, None)
}

/// A validator's leaf of position `t`, counted from 1, with its margin in units of 1/65536 nat.
pub fn audit_leaf(t: u32, token: u32, contrasts: &Contrasts, margin: u32) -> B256 {
    hash_leaf(AUDIT_LEAF, t, token, contrasts, Some(margin))
}

fn node(left: &B256, right: &B256) -> B256 {
    let mut bytes = [0_u8; 65];
    bytes[0] = NODE;
    bytes[1..33].copy_from_slice(left.as_slice());
    bytes[33..].copy_from_slice(right.as_slice());
    keccak256(bytes)
}

/// The root of these leaves, in order; `None` of none or of more than an answer has.
pub fn root(leaves: &[B256]) -> Option<B256> {
    Tree::new(leaves.to_vec()).ok().map(|tree| tree.root())
}

/// All nodes over the leaves of one answer.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The leaves first, the root last.
    levels: Vec<Vec<B256>>,
}

impl Tree {
    /// The tree over `leaves`, in order.
    ///
    /// # Errors
    /// [`MerkleError::Leaves`] if there are none, or more than [`MAX_OUTPUT_LIMIT`].
    pub fn new(leaves: Vec<B256>) -> Result<Self, MerkleError> {
        if leaves.is_empty() || leaves.len() > MAX_OUTPUT_LIMIT as usize {
            return Err(MerkleError::Leaves(leaves.len() as u64));
        }
        let mut levels = vec![leaves];
        while let Some(last) = levels.last().filter(|level| level.len() > 1) {
            let next = last.chunks(2).map(|pair| match pair {
                [left, right] => node(left, right),
                // A last node without a partner.
                other => other.first().copied().unwrap_or_default(),
            });
            let next = next.collect();
            levels.push(next);
        }
        Ok(Self { levels })
    }

    /// The root.
    pub fn root(&self) -> B256 {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or_default()
    }

    /// The nodes that prove the leaves of `positions`, which ascend and are counted from 1.
    ///
    /// # Errors
    /// If there are none or more than [`MAX_OPENED`], or one is outside the tree or out of order.
    pub fn prove(&self, positions: &[u32]) -> Result<Vec<B256>, MerkleError> {
        let leaves = self.levels.first().map_or(0, Vec::len) as u32;
        let mut known = indices(leaves, positions)?;
        let mut proof = Vec::new();
        for level in &self.levels {
            let mut above = Vec::with_capacity(known.len());
            for (place, index) in known.iter().enumerate() {
                let partner = index ^ 1;
                let before = place.checked_sub(1).and_then(|last| known.get(last));
                let is_known = known.get(place + 1) == Some(&partner) || before == Some(&partner);
                if let Some(hash) = level.get(partner as usize).filter(|_| !is_known) {
                    proof.push(*hash);
                }
                above.push(index / 2);
            }
            above.dedup();
            known = above;
        }
        Ok(proof)
    }
}

/// Positions, checked, as places in the lowest level.
fn indices(leaves: u32, positions: &[u32]) -> Result<Vec<u32>, MerkleError> {
    if positions.is_empty() || positions.len() > MAX_OPENED {
        return Err(MerkleError::Opened(positions.len()));
    }
    let mut last = 0;
    for t in positions {
        if *t <= last || *t > leaves {
            return Err(MerkleError::Position(*t));
        }
        last = *t;
    }
    Ok(positions.iter().map(|t| t - 1).collect())
}

/// Whether `opened`, leaves by position in ascending order, are those of the tree of `leaves` leaves under
/// `root`. All of it is hostile input; the work is bounded by [`MAX_OPENED`].
///
/// # Errors
/// What does not fit.
pub fn verify(
    root: B256,
    leaves: u32,
    opened: &[(u32, B256)],
    proof: &[B256],
) -> Result<(), MerkleError> {
    if leaves == 0 || leaves > MAX_OUTPUT_LIMIT {
        return Err(MerkleError::Leaves(u64::from(leaves)));
    }
    // Checked before anything is copied: there may be too many.
    if opened.is_empty() || opened.len() > MAX_OPENED {
        return Err(MerkleError::Opened(opened.len()));
    }
    let positions: Vec<u32> = opened.iter().map(|(t, _)| *t).collect();
    let places = indices(leaves, &positions)?;
    let mut known: Vec<(u32, B256)> =
        places.into_iter().zip(opened.iter().map(|(_, hash)| *hash)).collect();
    let mut proof = proof.iter();
    let mut width = leaves;
    while width > 1 {
        let mut above = Vec::with_capacity(known.len());
        let mut here = known.into_iter().peekable();
        while let Some((index, hash)) = here.next() {
            let partner = index ^ 1;
            let combined = if partner >= width {
                hash
            } else if let Some((_, right)) = here.next_if(|(next, _)| *next == partner) {
                node(&hash, &right)
            } else {
                let other = proof.next().ok_or(MerkleError::Short)?;
                if index % 2 == 0 { node(&hash, other) } else { node(other, &hash) }
            };
            above.push((index / 2, combined));
        }
        known = above;
        width = width.div_ceil(2);
    }
    match (proof.len(), known.first()) {
        (0, Some((_, got))) if *got == root => Ok(()),
        (0, got) => Err(MerkleError::Root {
            got: got.map(|(_, hash)| *hash).unwrap_or_default(),
            want: root,
        }),
        (extra, _) => Err(MerkleError::Long(extra)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaves(count: u32) -> Vec<B256> {
        let contrasts = Contrasts::new(&[1, -2, 3, -4]).unwrap();
        (1..=count).map(|t| leaf(t, t * 7, &contrasts)).collect()
    }

    #[test]
    fn small_trees_are_what_their_definition_says() {
        let l = leaves(5);
        assert_eq!(root(&l[..1]).unwrap(), l[0]);
        assert_eq!(root(&l[..2]).unwrap(), node(&l[0], &l[1]));
        assert_eq!(root(&l[..3]).unwrap(), node(&node(&l[0], &l[1]), &l[2]));
        let four = node(&node(&l[0], &l[1]), &node(&l[2], &l[3]));
        assert_eq!(root(&l).unwrap(), node(&four, &l[4]));
        assert_eq!(root(&[]), None);
    }

    #[test]
    fn a_leaf_says_who_made_it_and_of_what() {
        let four = Contrasts::new(&[1, 2, 0, 0]).unwrap();
        let two = Contrasts::new(&[1, 2]).unwrap();
        let all = [
            leaf(1, 2, &four),
            leaf(2, 1, &four),
            leaf(1, 2, &two),
            audit_leaf(1, 2, &two, 0),
            audit_leaf(1, 2, &four, 0),
            audit_leaf(1, 2, &four, 1),
        ];
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        let bytes = [0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0, 2, 0, 0, 0, 0];
        assert_eq!(all[0], keccak256(bytes));
    }

    #[test]
    fn too_large_trees_are_refused() {
        let many = vec![B256::ZERO; MAX_OUTPUT_LIMIT as usize + 1];
        assert_eq!(root(&many), None);
        assert!(root(&many[1..]).is_some());
        let opened = [(1, B256::ZERO)];
        for count in [0, MAX_OUTPUT_LIMIT + 1, u32::MAX] {
            let error = verify(B256::ZERO, count, &opened, &[]).unwrap_err();
            assert_eq!(error, MerkleError::Leaves(count.into()));
        }
    }

    #[test]
    fn opened_positions_are_checked() {
        let l = leaves(20);
        let tree = Tree::new(l.clone()).unwrap();
        for (bad, at) in [(vec![0], 0), (vec![21], 21), (vec![3, 3], 3), (vec![4, 3], 3)] {
            assert_eq!(tree.prove(&bad), Err(MerkleError::Position(at)));
            let opened: Vec<_> = bad.iter().map(|t| (*t, l[0])).collect();
            assert_eq!(verify(tree.root(), 20, &opened, &[]), Err(MerkleError::Position(at)));
        }
        let all: Vec<u32> = (1..=17).collect();
        assert_eq!(tree.prove(&all), Err(MerkleError::Opened(17)));
        assert_eq!(tree.prove(&[]), Err(MerkleError::Opened(0)));
        let opened: Vec<_> = all.iter().map(|t| (*t, l[0])).collect();
        assert_eq!(verify(tree.root(), 20, &opened, &[]), Err(MerkleError::Opened(17)));
        assert_eq!(verify(tree.root(), 20, &[], &[]), Err(MerkleError::Opened(0)));
    }

    /// A tree, and positions in it.
    fn opening() -> impl Strategy<Value = (u32, Vec<u32>)> {
        (1_u32..200).prop_flat_map(|count| {
            let most = (count as usize).min(MAX_OPENED);
            let places: Vec<u32> = (1..=count).collect();
            (Just(count), proptest::sample::subsequence(places, 1..=most))
        })
    }

    proptest! {
        #[test]
        fn what_is_proven_verifies_and_nothing_else((count, positions) in opening(), at: prop::sample::Index) {
            let l = leaves(count);
            let tree = Tree::new(l.clone()).unwrap();
            let proof = tree.prove(&positions).unwrap();
            let mut opened: Vec<_> = positions.iter().map(|t| (*t, l[*t as usize - 1])).collect();
            prop_assert_eq!(verify(tree.root(), count, &opened, &proof), Ok(()));

            let mut longer = proof.clone();
            longer.push(B256::ZERO);
            prop_assert_eq!(verify(tree.root(), count, &opened, &longer), Err(MerkleError::Long(1)));
            if !proof.is_empty() {
                let shorter = &proof[1..];
                prop_assert!(verify(tree.root(), count, &opened, shorter).is_err());
                let mut other = proof.clone();
                other[at.index(proof.len())].0[5] ^= 1;
                let other = verify(tree.root(), count, &opened, &other);
                let refused = matches!(other, Err(MerkleError::Root { .. }));
                prop_assert!(refused);
            }
            let changed = at.index(opened.len());
            opened[changed].1.0[31] ^= 1;
            let other = verify(tree.root(), count, &opened, &proof);
            let refused = matches!(other, Err(MerkleError::Root { .. }));
            prop_assert!(refused);
        }

        #[test]
        fn a_leaf_proves_only_its_own_position((count, positions) in opening(), wrong in 1_u32..200) {
            let l = leaves(count);
            let tree = Tree::new(l.clone()).unwrap();
            let first = positions[0];
            prop_assume!(wrong != first && wrong <= count);
            let proof = tree.prove(&[wrong]).unwrap();
            let opened = [(wrong, l[first as usize - 1])];
            prop_assert!(verify(tree.root(), count, &opened, &proof).is_err());
        }

        #[test]
        fn hostile_proofs_never_panic(
            count: u32,
            opened in prop::collection::vec((any::<u32>(), any::<[u8; 32]>()), 0..20),
            proof in prop::collection::vec(any::<[u8; 32]>(), 0..300),
            ascending: bool,
        ) {
            let mut opened: Vec<_> = opened.into_iter().map(|(t, h)| (t % 70_000, B256::from(h))).collect();
            if ascending {
                opened.sort_unstable();
                opened.dedup_by_key(|(t, _)| *t);
            }
            let proof: Vec<_> = proof.into_iter().map(B256::from).collect();
            for count in [count, count % 70_000] {
                prop_assert!(verify(B256::ZERO, count, &opened, &proof).is_err());
            }
        }
    }
}
