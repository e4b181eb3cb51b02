//! The fingerprint of one step: differences of logits between pairs of ids that nobody can choose.
//!
//! ```text
//! c[t, j] = clamp_i16(round(256 * (l[a_j] - l[b_j]))),  j = 1..m
//! a_j, b_j: words of ChaCha8(key = seedF, nonce = t), little-endian u64, in order;
//!           id = floor(word * V / 2^64); b_j is drawn again while it equals a_j
//! ```
//!
//! `l` are the logits after penalties, in f32; the difference is taken in f64 and rounded half away from
//! zero. NaN and +infinity never get here: [`SamplingError::BadLogit`](crate::SamplingError). A masked
//! logit is -infinity: against another one the contrast is 0, against a finite one it saturates.
//! [`i16::MIN`] and [`i16::MAX`], 128 nats apart from 0, are *saturated*: they say no more than "far".

use assay_types::B256;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Contrasts of one nat.
pub const CONTRASTS_PER_NAT: f64 = 256.0;
/// Most contrasts of a position.
pub const MAX_WIDTH: usize = 4;

/// How many contrasts a position has: a part of a model's calibration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Width {
    /// Two: 4 bytes a token.
    Two,
    /// Four: 8 bytes a token.
    #[default]
    Four,
}

/// A number of contrasts that no model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} contrasts a position: only 2 and 4 exist")]
pub struct WidthError(pub u8);

impl Width {
    /// Contrasts of a position.
    pub fn contrasts(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// Bytes that a position takes in a proof block.
    pub fn bytes(self) -> usize {
        2 * self.contrasts()
    }
}

impl TryFrom<u8> for Width {
    type Error = WidthError;

    fn try_from(contrasts: u8) -> Result<Self, WidthError> {
        match contrasts {
            2 => Ok(Self::Two),
            4 => Ok(Self::Four),
            other => Err(WidthError(other)),
        }
    }
}

impl From<Width> for u8 {
    fn from(width: Width) -> Self {
        width.contrasts() as u8
    }
}

/// The contrasts of one position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Contrasts {
    width: Width,
    /// Those beyond the width are 0.
    values: [i16; MAX_WIDTH],
}

impl Contrasts {
    /// All of them 0: what stands for a position that could not be computed.
    pub fn zero(width: Width) -> Self {
        Self { width, values: [0; MAX_WIDTH] }
    }

    /// Contrasts of these values.
    ///
    /// # Errors
    /// [`WidthError`] if there are neither two nor four.
    pub fn new(contrasts: &[i16]) -> Result<Self, WidthError> {
        let count = u8::try_from(contrasts.len()).unwrap_or(u8::MAX);
        let width = Width::try_from(count)?;
        let mut values = [0; MAX_WIDTH];
        values.iter_mut().zip(contrasts).for_each(|(to, from)| *to = *from);
        Ok(Self { width, values })
    }

    /// How many there are.
    pub fn width(&self) -> Width {
        self.width
    }

    /// Their values, in units of 1/256 nat.
    pub fn values(&self) -> &[i16] {
        self.values.get(..self.width.contrasts()).unwrap_or_default()
    }

    /// Two big-endian bytes each, as in leaves and proof blocks.
    pub fn bytes(&self) -> impl Iterator<Item = u8> + '_ {
        self.values().iter().flat_map(|value| value.to_be_bytes())
    }

    /// How far these are from `other`, contrast by contrast, in units of 1/256 nat. Contrasts that the
    /// other side lacks are as far as can be.
    pub fn distances(&self, other: &Self) -> impl Iterator<Item = u16> {
        let theirs = *other;
        let ours = *self;
        (0..ours.width.contrasts().max(theirs.width.contrasts())).map(move |j| {
            match (ours.values().get(j), theirs.values().get(j)) {
                (Some(a), Some(b)) => a.abs_diff(*b),
                _ => u16::MAX,
            }
        })
    }

    /// How many say no more than "far".
    pub fn saturated(&self) -> usize {
        self.values().iter().filter(|value| [i16::MIN, i16::MAX].contains(value)).count()
    }
}

/// One contrast of two logits, neither of them NaN or +infinity.
pub fn contrast(a: f32, b: f32) -> i16 {
    if a == b {
        // Two masked logits: their difference would be NaN.
        return 0;
    }
    let scaled = (CONTRASTS_PER_NAT * (f64::from(a) - f64::from(b))).round();
    // A cast of a float saturates.
    scaled as i16
}

/// The pairs of ids that are contrasted, step by step.
#[derive(Clone)]
pub struct Pairs {
    key: [u8; 32],
    vocabulary: u32,
    width: Width,
}

impl std::fmt::Debug for Pairs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pairs").field("width", &self.width).finish_non_exhaustive()
    }
}

impl Pairs {
    /// The pairs that follow from `seed_f`, of the first `vocabulary` ids. A vocabulary of fewer than
    /// two ids has no pairs; it is treated as one of two.
    pub fn new(seed_f: B256, vocabulary: u32, width: Width) -> Self {
        Self { key: seed_f.0, vocabulary: vocabulary.max(2), width }
    }

    /// The first pairs of the same, or more of them.
    pub(crate) fn with_width(self, width: Width) -> Self {
        Self { width, ..self }
    }

    /// The pairs of step `step`, counted from 1.
    pub fn at(&self, step: u64) -> impl Iterator<Item = (u32, u32)> + use<> {
        let mut generator = ChaCha8Rng::from_seed(self.key);
        generator.set_stream(step);
        let vocabulary = u128::from(self.vocabulary);
        let mut draw = move || ((u128::from(generator.next_u64()) * vocabulary) >> 64) as u32;
        (0..self.width.contrasts()).map(move |_| {
            let a = draw();
            loop {
                let b = draw();
                if b != a {
                    return (a, b);
                }
            }
        })
    }

    /// The contrasts of step `step`; `row` are the logits after penalties, at least the vocabulary's.
    pub(crate) fn contrasts(&self, step: u64, row: &[f32]) -> Contrasts {
        let logit = |id: u32| row.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let mut result = Contrasts::zero(self.width);
        for (value, (a, b)) in result.values.iter_mut().zip(self.at(step)) {
            *value = contrast(logit(a), logit(b));
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contrasts_round_and_saturate() {
        assert_eq!(contrast(1.5, 0.5), 256);
        assert_eq!(contrast(0.0, 1.0 / 512.0), -1);
        assert_eq!(contrast(1.0 / 512.0, 0.0), 1);
        assert_eq!(contrast(1.0 / 513.0, 0.0), 0);
        assert_eq!(contrast(127.99, 0.0), 32765);
        assert_eq!(contrast(128.0, 0.0), i16::MAX);
        assert_eq!(contrast(-128.0, 0.0), i16::MIN);
        assert_eq!(contrast(-3e38, 3e38), i16::MIN);
    }

    #[test]
    fn masked_logits_have_contrasts() {
        let masked = f32::NEG_INFINITY;
        assert_eq!(contrast(masked, masked), 0);
        assert_eq!(contrast(masked, -1e30), i16::MIN);
        assert_eq!(contrast(-1e30, masked), i16::MAX);
        let some = Contrasts::new(&[0, i16::MIN, i16::MAX, -32767]).unwrap();
        assert_eq!(some.saturated(), 2);
    }

    #[test]
    fn pairs_are_of_two_ids_of_the_vocabulary_and_of_their_own_at_each_step() {
        for (vocabulary, width) in [(2, Width::Four), (3, Width::Two), (151_936, Width::Four)] {
            let pairs = Pairs::new(B256::repeat_byte(7), vocabulary, width);
            let mut all = Vec::new();
            for step in 1..300 {
                let here: Vec<_> = pairs.at(step).collect();
                assert_eq!(here.len(), width.contrasts());
                assert!(here.iter().all(|(a, b)| a != b && *a < vocabulary && *b < vocabulary));
                all.extend(here);
            }
            if vocabulary > 3 {
                let highest = all.iter().map(|(a, b)| *a.max(b)).max().unwrap();
                assert!(highest > vocabulary * 99 / 100, "{highest}");
                all.sort_unstable();
                all.dedup();
                assert!(all.len() > 1190, "pairs repeat: {}", all.len());
            }
        }
    }

    #[test]
    fn two_contrasts_are_the_first_of_four() {
        let row: Vec<f32> = (0..100).map(|id| (id * 37 % 91) as f32 / 7.0).collect();
        let of = |width| Pairs::new(B256::repeat_byte(1), 100, width).contrasts(5, &row);
        assert_eq!(of(Width::Two).values(), &of(Width::Four).values()[..2]);
        assert_eq!(of(Width::Two).width(), Width::Two);
    }

    #[test]
    fn what_one_side_lacks_is_far() {
        let two = Contrasts::new(&[5, -5]).unwrap();
        let four = Contrasts::new(&[7, i16::MAX, 0, 0]).unwrap();
        assert_eq!(two.distances(&two).collect::<Vec<_>>(), [0, 0]);
        assert_eq!(two.distances(&four).collect::<Vec<_>>(), [2, 32772, u16::MAX, u16::MAX]);
        let (low, high) = ([i16::MIN; 2], [i16::MAX; 2]);
        let far = Contrasts::new(&low).unwrap().distances(&Contrasts::new(&high).unwrap()).max();
        assert_eq!(far, Some(u16::MAX));
        assert_eq!(Contrasts::new(&[0; 3]), Err(WidthError(3)));
    }
}
