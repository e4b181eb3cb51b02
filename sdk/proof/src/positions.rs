//! Positions that a beacon draws: `k` distinct ones of a range, ascending, without any rejection.
//!
//! ```text
//! seed     = keccak256(abi.encode(DOMAIN_POSITIONS, round value, taskId, minerId))
//! word j   = the j % 4-th uint64, from the most significant, of keccak256(abi.encode(seed, uint256 j / 4))
//! r        = (word j * (count - j)) >> 64;  for each drawn x, ascending: if x <= r then r += 1, else stop
//! position = first + r
//! ```

use assay_types::{B256, U256, keccak256};

/// Words of 64 bits in one hash.
const WORDS: usize = 4;

/// `wanted` distinct positions of `first` to `first + count - 1`, ascending; all of them if there are no
/// more.
pub fn draw_positions(seed: B256, first: u32, count: u32, wanted: u32) -> Vec<u32> {
    if count <= wanted {
        return (0..count).map(|r| first.saturating_add(r)).collect();
    }
    let mut drawn: Vec<u32> = Vec::with_capacity(wanted as usize);
    for j in 0..wanted {
        let left = u128::from(count - j);
        let mut r = ((u128::from(word(seed, j as usize)) * left) >> 64) as u32;
        let mut place = 0;
        while drawn.get(place).is_some_and(|x| *x <= r) {
            r += 1;
            place += 1;
        }
        drawn.insert(place, r);
    }
    drawn.into_iter().map(|r| first.saturating_add(r)).collect()
}

fn word(seed: B256, number: usize) -> u64 {
    let mut bytes = [0_u8; 64];
    bytes[..32].copy_from_slice(seed.as_slice());
    bytes[32..].copy_from_slice(&U256::from(number / WORDS).to_be_bytes::<32>());
    let hash = keccak256(bytes);
    let start = number % WORDS * 8;
    hash.iter().skip(start).take(8).fold(0, |word, byte| (word << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ranges_are_taken_whole() {
        assert_eq!(draw_positions(B256::ZERO, 1, 3, 4), [1, 2, 3]);
        assert_eq!(draw_positions(B256::ZERO, 33, 4, 4), [33, 34, 35, 36]);
        assert!(draw_positions(B256::ZERO, 1, 0, 4).is_empty());
        assert!(draw_positions(B256::ZERO, 1, 9, 0).is_empty());
    }

    #[test]
    fn every_position_is_drawn_as_often() {
        const DRAWS: u32 = 6000;
        let mut counts = [0_u32; 12];
        for n in 0..DRAWS {
            for at in draw_positions(keccak256(n.to_be_bytes()), 1, 12, 4) {
                counts[at as usize - 1] += 1;
            }
        }
        // 2,000 each, with a deviation of 37.
        assert!(counts.iter().all(|count| (1830..2170).contains(count)), "{counts:?}");
    }

    proptest::proptest! {
        #[test]
        fn they_are_distinct_ascending_and_inside(
            seed: [u8; 32], first in 1_u32..70_000, count in 0_u32..70_000, wanted in 0_u32..20,
        ) {
            let drawn = draw_positions(B256::from(seed), first, count, wanted);
            proptest::prop_assert_eq!(drawn.len() as u32, wanted.min(count));
            proptest::prop_assert!(drawn.is_sorted_by(|a, b| a < b));
            proptest::prop_assert!(drawn.iter().all(|at| (first..first + count).contains(at)));
        }
    }
}
