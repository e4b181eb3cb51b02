//! "F": did the weights that were paid for make these logits?
//!
//! Contrasts of miner and validator are compared in blocks of 32 positions. A number of contrasts *agree*
//! within a limit if more than half of them lie within it: a median forgives odd positions, and blocks
//! leave no room for serving a part of the answer with other weights.
//!
//! # Blocks
//! Block `i`, from 0, has the positions `32 i + 1` to `32 i + 32`. What is left over at the end is a block
//! of its own from 16 positions on and otherwise belongs to the block before, so that a block has 16 to 47
//! positions. An answer of 4 to 15 tokens is one block, judged within the wider `spot_tau`. One of fewer
//! than 4 has none: four contrasts of each say too little, and only its margins are judged.

use std::cmp::Reverse;

use crate::{Calibration, Contrasts};

/// Positions of a block.
pub const BLOCK: u32 = 32;
/// Fewer positions than this make no block of their own, and are judged within `spot_tau`.
pub const FULL_BLOCK: u32 = BLOCK / 2;
/// Positions that are spot-checked on chain, and the fewest that contrasts are judged of.
pub const SPOT_POSITIONS: u32 = 4;

/// Blocks of an answer of `tokens` tokens: 0 below 4, otherwise `max(1, (n + 16) / 32)`.
pub fn blocks(tokens: u32) -> u32 {
    if tokens < SPOT_POSITIONS { 0 } else { (tokens.saturating_add(FULL_BLOCK) / BLOCK).max(1) }
}

/// First position of block `block` of an answer of `tokens` tokens, and how many it has; `None` if there
/// is no such block.
pub fn block_window(tokens: u32, block: u32) -> Option<(u32, u32)> {
    let last = blocks(tokens).checked_sub(1)?;
    if block > last {
        return None;
    }
    let before = block * BLOCK;
    Some((before + 1, if block == last { tokens - before } else { BLOCK }))
}

/// Whether more than half of `distances` lie within `limit`; never of none.
pub fn agree(distances: impl IntoIterator<Item = u16>, limit: u16) -> bool {
    let (mut all, mut within) = (0_usize, 0_usize);
    for distance in distances {
        all += 1;
        within += usize::from(distance <= limit);
    }
    2 * within > all
}

/// What one block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The upper median of `|c - c'|`, in 1/256 nat: the block agrees within every limit from it on.
    pub median: u16,
    /// Positions.
    pub positions: u32,
    /// More than half of the contrasts are saturated on both sides. They agree whatever the weights are, so
    /// that the block proves nothing: no model with such contrasts can be calibrated.
    pub saturated: bool,
}

/// The fingerprints of one answer, compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// In the order of positions.
    pub blocks: Vec<Block>,
}

/// What a validator says of a comparison when it reveals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failing {
    /// Blocks that do not agree.
    pub blocks: u16,
    /// The block with the largest median, the first of equals: a panel looks there.
    pub worst: u16,
}

/// The fingerprints have different lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the fingerprints have {0} and {1} positions")]
pub struct LengthError(pub usize, pub usize);

/// Compares the miner's fingerprint with a verifier's own.
///
/// # Errors
/// If they are not of the same number of positions.
pub fn compare(miner: &[Contrasts], own: &[Contrasts]) -> Result<Comparison, LengthError> {
    if miner.len() != own.len() {
        return Err(LengthError(miner.len(), own.len()));
    }
    let tokens = u32::try_from(own.len()).unwrap_or(u32::MAX);
    let windows = (0..blocks(tokens)).filter_map(|block| block_window(tokens, block));
    let pairs = |(first, count): (u32, u32)| {
        miner.iter().zip(own).skip(first as usize - 1).take(count as usize)
    };
    let blocks = windows.map(|window| {
        let mut distances: Vec<u16> = pairs(window).flat_map(|(a, b)| a.distances(b)).collect();
        let all = distances.len();
        let both: usize = pairs(window).map(|(a, b)| a.saturated().min(b.saturated())).sum();
        // An upper median: more than half are no larger.
        let (_, median, _) = distances.select_nth_unstable(all / 2);
        Block { median: *median, positions: window.1, saturated: 2 * both > all }
    });
    Ok(Comparison { blocks: blocks.collect() })
}

impl Comparison {
    /// Blocks that do not agree within the calibration's limits.
    pub fn failing(&self, calibration: &Calibration) -> Failing {
        let fails = |block: &&Block| block.median > calibration.limit(block.positions);
        let failing = self.blocks.iter().filter(fails).count();
        let worst = (0_u16..).zip(&self.blocks).min_by_key(|(_, block)| Reverse(block.median));
        Failing {
            blocks: u16::try_from(failing).unwrap_or(u16::MAX),
            worst: worst.map_or(0, |(index, _)| index),
        }
    }

    /// Blocks that prove nothing, because their contrasts are saturated.
    pub fn saturated(&self) -> usize {
        self.blocks.iter().filter(|block| block.saturated).count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Width, calibration::tests::ordinary};

    fn all(count: usize, value: i16) -> Vec<Contrasts> {
        vec![Contrasts::new(&[value; 4]).unwrap(); count]
    }

    #[test]
    fn blocks_cover_an_answer() {
        let counts = [0, 3, 4, 15, 16, 32, 47, 48, 63, 64, 79, 80, 65_536].map(blocks);
        assert_eq!(counts, [0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 2048]);
        assert_eq!(block_window(47, 0), Some((1, 47)));
        assert_eq!((block_window(48, 0), block_window(48, 1)), (Some((1, 32)), Some((33, 16))));
        assert_eq!((block_window(48, 2), block_window(3, 0)), (None, None));
        assert_eq!(block_window(7, 0), Some((1, 7)));
        assert_eq!(blocks(u32::MAX), u32::MAX / 32);
    }

    #[test]
    fn more_than_half_must_lie_within() {
        assert!(!agree([], 9));
        assert!(!agree([9, 10], 9));
        assert!(agree([9, 10, 3], 9));
        assert!(!agree([9, 10, 10], 9));
    }

    #[test]
    fn each_part_of_an_answer_is_judged() {
        let own = all(100, 50);
        let mut miner = all(100, 53);
        assert_eq!(compare(&miner, &own).unwrap().failing(&ordinary()), Failing::default());
        // Other weights from position 33 to 64.
        miner[32..64].fill(Contrasts::new(&[70; 4]).unwrap());
        let failing = compare(&miner, &own).unwrap().failing(&ordinary());
        assert_eq!(failing, Failing { blocks: 1, worst: 1 });
        // Half a block is enough, and the end belongs to the last block.
        let mut miner = all(100, 50);
        miner[80..].fill(Contrasts::new(&[70; 4]).unwrap());
        assert_eq!(
            compare(&miner, &own).unwrap().failing(&ordinary()),
            Failing { blocks: 1, worst: 2 }
        );
        miner[80] = own[0];
        miner[81] = own[0];
        miner[82] = own[0];
        assert_eq!(compare(&miner, &own).unwrap().failing(&ordinary()).blocks, 0);
    }

    #[test]
    fn lengths_and_widths_must_be_the_same() {
        assert_eq!(compare(&all(3, 0), &all(4, 0)), Err(LengthError(3, 4)));
        let narrow = vec![Contrasts::zero(Width::Two); 32];
        let failing = compare(&narrow, &all(32, 0)).unwrap().failing(&ordinary());
        assert_eq!(failing.blocks, 1);
    }

    #[test]
    fn saturated_blocks_are_told() {
        let (far, near) = (all(64, i16::MAX), all(64, 0));
        let both = compare(&far, &far).unwrap();
        assert_eq!((both.saturated(), both.failing(&ordinary()).blocks), (2, 0));
        // A miner cannot saturate alone.
        let alone = compare(&far, &near).unwrap();
        assert_eq!((alone.saturated(), alone.failing(&ordinary()).blocks), (0, 2));
    }

    proptest! {
        #[test]
        fn windows_are_without_gap_or_overlap(tokens in 4_u32..5000) {
            let mut next = 1;
            for block in 0..blocks(tokens) {
                let (first, count) = block_window(tokens, block).unwrap();
                prop_assert_eq!(first, next);
                prop_assert!(count >= FULL_BLOCK.min(tokens) && count < BLOCK + FULL_BLOCK);
                next += count;
            }
            prop_assert_eq!(next, tokens + 1);
            prop_assert!(block_window(tokens, blocks(tokens)).is_none());
        }

        #[test]
        fn a_median_agrees_from_itself_on(distances in prop::collection::vec(0_u16..100, 1..200)) {
            let mut sorted = distances.clone();
            sorted.sort_unstable();
            let median = sorted[sorted.len() / 2];
            prop_assert!(agree(distances.iter().copied(), median));
            prop_assert!(median == 0 || !agree(distances.iter().copied(), median - 1));
        }
    }
}
