//! The noise `g[t, v]` of step `t` and token id `v`.
//!
//! ```text
//! g[t, v] = -ln(-ln(u)),  u = (k + 0.5) / 2^53
//! k       = top 53 bits of the v-th little-endian u64 of ChaCha8(key = seedG, nonce = t)
//! ```
//!
//! ChaCha8 is Bernstein's form: the block counter is the 64-bit word pair 12 and 13 of the state and
//! starts at 0, the nonce is the pair 14 and 15, little-endian, and holds `t`. One block is 64 bytes,
//! so id `v` lies in block `v / 8`: any id's noise can be had without drawing the others.

use assay_types::B256;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Ids whose noise is drawn at once: four blocks of 64 bytes, what the generator makes in one go.
const GROUP: usize = 32;
/// 32-bit words of key stream that one id takes.
const WORDS_PER_ID: u128 = 2;
/// Bytes of it.
const BYTES_PER_ID: usize = 8;
const TWO_53: f64 = 9_007_199_254_740_992.0;
const HALF: u64 = 1 << 52;

/// The smallest noise there is, `gumbel(0)`, rounded down: -ln(54 ln 2) = -3.6226...
pub const GUMBEL_MIN: f64 = -3.623;
/// The largest noise there is, `gumbel(u64::MAX)`, rounded up: 54 ln 2 = 37.4299...
pub const GUMBEL_MAX: f64 = 37.430;

/// Gumbel noise of one 64-bit word.
///
/// For the upper half `k + 0.5` and `u` itself would round (`k = 2^53 - 1` to `u = 1` and an infinite
/// noise). There `1 - u` is exact, and `ln(u) = ln_1p(-(1 - u))`.
pub fn gumbel(word: u64) -> f64 {
    let k = word >> 11;
    let ln_u = if k < HALF {
        ((k as f64 + 0.5) / TWO_53).ln()
    } else {
        let complement = ((1_u64 << 53) - 1 - k) as f64 + 0.5;
        (-(complement / TWO_53)).ln_1p()
    };
    -(-ln_u).ln()
}

/// The noise of a whole generation.
#[derive(Clone)]
pub struct Noise {
    key: [u8; 32],
}

impl Noise {
    /// Noise that follows from `seedG`.
    pub fn new(seed: B256) -> Self {
        Self { key: seed.0 }
    }

    /// The noise of step `step`, counted from 1.
    pub fn row(&self, step: u64) -> NoiseRow {
        let mut generator = ChaCha8Rng::from_seed(self.key);
        generator.set_stream(step);
        NoiseRow { generator, group: None, stream: [[0; BYTES_PER_ID]; GROUP] }
    }
}

impl std::fmt::Debug for Noise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Noise").finish_non_exhaustive()
    }
}

/// The noise of one step, by token id. Cheapest when ids are asked for in ascending order.
pub struct NoiseRow {
    generator: ChaCha8Rng,
    group: Option<u32>,
    stream: [[u8; BYTES_PER_ID]; GROUP],
}

impl NoiseRow {
    /// The `id`-th little-endian u64 of the step's key stream.
    pub fn word(&mut self, id: u32) -> u64 {
        let group = id / GROUP as u32;
        if self.group != Some(group) {
            self.generator.set_word_pos(u128::from(group) * GROUP as u128 * WORDS_PER_ID);
            self.generator.fill_bytes(self.stream.as_flattened_mut());
            self.group = Some(group);
        }
        self.stream.get(id as usize % GROUP).map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// `g[t, id]`.
    pub fn get(&mut self, id: u32) -> f64 {
        gumbel(self.word(id))
    }

    /// `g[t, id]`, or nothing if it lies below `needed` for certain: the leading ones of the word bound
    /// it, `g <= -ln(1 - u) <= (ones + 1) ln 2`, at a small part of what two logarithms cost.
    pub fn reaching(&mut self, id: u32, needed: f64) -> Option<f64> {
        // Before the word: that alone may be the work of drawing it.
        if needed > GUMBEL_MAX {
            return None;
        }
        let word = self.word(id);
        let bound = f64::from(word.leading_ones() + 1) * std::f64::consts::LN_2;
        (bound >= needed).then(|| gumbel(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_stays_inside_its_bounds() {
        let lowest = gumbel(0);
        let highest = gumbel(u64::MAX);
        assert!((lowest - GUMBEL_MIN).abs() < 1e-3 && lowest >= GUMBEL_MIN, "{lowest}");
        assert!((highest - GUMBEL_MAX).abs() < 1e-3 && highest <= GUMBEL_MAX, "{highest}");
    }

    #[test]
    fn noise_rises_with_the_word_over_the_seam() {
        let seam = HALF << 11;
        let mut last = f64::NEG_INFINITY;
        for k in -1000_i64..1000 {
            let value = gumbel(seam.wrapping_add_signed(k << 11));
            assert!(value >= last, "{k}");
            last = value;
        }
        // u = 1/2 has the noise -ln(ln 2).
        assert!((gumbel(seam) + 2_f64.ln().ln()).abs() < 1e-12);
    }

    #[test]
    fn what_cannot_reach_is_not_computed_and_nothing_else() {
        let mut skipped = 0;
        for seed in 0..20 {
            let mut row = Noise::new(B256::repeat_byte(seed)).row(1);
            for id in 0..2000 {
                let value = row.get(id);
                assert_eq!(row.reaching(id, value), Some(value));
                assert_eq!(row.reaching(id, GUMBEL_MIN), Some(value));
                let above = row.reaching(id, value + 2.0);
                assert!(above.is_none_or(|found| found == value));
                skipped += usize::from(above.is_none());
            }
        }
        assert!(skipped > 30_000, "{skipped}");
        for ones in 0..=64 {
            let word = if ones == 0 { 0 } else { u64::MAX << (64 - ones) };
            let highest = word | u64::MAX.checked_shr(ones + 1).unwrap_or(0);
            assert!(gumbel(highest) <= f64::from(ones + 1) * std::f64::consts::LN_2, "{ones}");
        }
    }

    #[test]
    fn any_order_gives_the_same_words() {
        let noise = Noise::new(B256::repeat_byte(3));
        let forward: Vec<u64> = {
            let mut row = noise.row(7);
            (0..200).map(|id| row.word(id)).collect()
        };
        let mut row = noise.row(7);
        for id in (0..200_u32).rev() {
            assert_eq!(row.word(id), forward[id as usize]);
            assert_eq!(noise.row(7).word(id), forward[id as usize]);
        }
        assert_ne!(noise.row(8).word(0), forward[0]);
    }

    #[test]
    fn words_are_the_plain_key_stream() {
        let mut generator = ChaCha8Rng::from_seed([9; 32]);
        generator.set_stream(3);
        let mut row = Noise::new(B256::repeat_byte(9)).row(3);
        for id in 0..1000 {
            assert_eq!(row.word(id), generator.next_u64());
        }
    }
}
