//! What honest noise is between two numeric classes of a model: the thresholds of every verdict, as one
//! word of 256 bits that `ModelRegistry` keeps.
//!
//! | bit | bits | field | unit | bounds |
//! |--:|--:|---|---|---|
//! | 0 | 16 | `tau` | 1/256 nat | 1 to 1,024 |
//! | 16 | 16 | `spot_tau` | 1/256 nat | `tau` to 4,096 |
//! | 32 | 16 | `block_limit` | blocks | 1 to 2,048 |
//! | 48 | 8 | `width` | contrasts | 2 or 4 |
//! | 56 | 24 | `hard_margin` | 1/65536 nat | 1 to 8 nats |
//! | 80 | 24 | `margin_bar` | 1/65536 nat | 1 to 8 nats, 16 capped margins |
//! | 104 | 24 | `thr_base` | 1/65536 nat | 0 to 64 nats |
//! | 128 | 32 | `thr_slope` | 2^-32 nat a token | 0 to 1/4 nat |
//! | 160 | 32 | `thr_spread` | 2^-32 nat a root of tokens | 0 to 1 nat |
//! | 192 | 32 | `drift` | 2^-32 nat a token | `thr_slope` to 1/2 nat |
//! | 224 | 32 | `drift_limit` | 1/65536 nat | 1 to 65,536 nats |
//!
//! The word 0 is no calibration. Where the numbers come from: each is a bound that honest audits of the
//! pair of classes exceed no more often than the protocol bears, measured on the model itself.

use assay_types::U256;
use serde::{Deserialize, Serialize};

use crate::{Width, fingerprint::blocks};

/// A margin counts no more than this in a sum, so that one odd token is no verdict: half a nat.
pub const MARGIN_CAP: u32 = 1 << 15;

/// 4 nats; an honest median is far below 1.
const MAX_TAU: u16 = 1024;
/// 16 nats.
const MAX_SPOT_TAU: u16 = 4096;
/// Blocks of the longest answer.
const MAX_BLOCK_LIMIT: u16 = 2048;
/// 8 nats: a token that likely is off by e^8 is not noise, whatever a publisher measured.
const MAX_HARD_MARGIN: u32 = 8 << 16;
/// What sixteen capped margins can add up to.
const MAX_MARGIN_BAR: u32 = 16 * MARGIN_CAP;
/// 64 nats.
const MAX_THR_BASE: u32 = 64 << 16;
/// A quarter of a nat a token: half of what capped margins can reach.
const MAX_THR_SLOPE: u32 = 1 << 30;
/// Half a nat a token: what capped margins can reach.
const MAX_DRIFT: u32 = 1 << 31;

/// The thresholds of one pair of numeric classes of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Within it more than half of the contrasts of 16 positions or more lie; 1/256 nat.
    pub tau: u16,
    /// The same of 4 to 15 positions, whose median varies more; 1/256 nat.
    pub spot_tau: u16,
    /// So many failing blocks fail an answer, or all of its blocks if it has fewer.
    pub block_limit: u16,
    /// Contrasts of a position; the same for all pairs of a model.
    pub width: Width,
    /// No honest token has a larger margin; 1/65536 nat.
    pub hard_margin: u32,
    /// No sixteen honest capped margins of an answer add up to more; 1/65536 nat.
    pub margin_bar: u32,
    /// Of [`thr`](Self::thr), whatever the length; 1/65536 nat.
    pub thr_base: u32,
    /// Of [`thr`](Self::thr), for each token; 2^-32 nat.
    pub thr_slope: u32,
    /// Of [`thr`](Self::thr), for each root of tokens; 2^-32 nat.
    pub thr_spread: u32,
    /// What a node's CUSUM forgives for each token; 2^-32 nat.
    pub drift: u32,
    /// What a node's CUSUM may reach; 1/65536 nat.
    pub drift_limit: u32,
}

/// Why a word is no calibration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalibrationError {
    /// A field is outside its bounds.
    #[error("the calibration's {field} is {got}, allowed is {low} to {high}")]
    Bound {
        /// The field.
        field: &'static str,
        /// What it is.
        got: u32,
        /// Smallest value.
        low: u32,
        /// Largest value.
        high: u32,
    },
    /// Neither two nor four contrasts.
    #[error(transparent)]
    Width(#[from] crate::WidthError),
}

/// The field of `bits` bits at `offset`.
pub(crate) fn field(word: U256, offset: usize, bits: usize) -> u32 {
    let mask = (1_u64 << bits) - 1;
    let low: U256 = (word >> offset) & U256::from(mask);
    low.to::<u64>() as u32
}

impl Calibration {
    /// Checks every bound.
    ///
    /// # Errors
    /// The first field that is outside.
    pub fn check(&self) -> Result<(), CalibrationError> {
        let tau = u32::from(self.tau);
        let bounds = [
            ("tau", tau, 1, u32::from(MAX_TAU)),
            ("spot_tau", self.spot_tau.into(), tau, MAX_SPOT_TAU.into()),
            ("block_limit", self.block_limit.into(), 1, MAX_BLOCK_LIMIT.into()),
            ("hard_margin", self.hard_margin, 1, MAX_HARD_MARGIN),
            ("margin_bar", self.margin_bar, 1, MAX_MARGIN_BAR),
            ("thr_base", self.thr_base, 0, MAX_THR_BASE),
            ("thr_slope", self.thr_slope, 0, MAX_THR_SLOPE),
            ("drift", self.drift, self.thr_slope, MAX_DRIFT),
            ("drift_limit", self.drift_limit, 1, u32::MAX),
        ];
        match bounds.into_iter().find(|(_, got, low, high)| !(low..=high).contains(&got)) {
            Some((field, got, low, high)) => Err(CalibrationError::Bound { field, got, low, high }),
            None => Ok(()),
        }
    }

    /// The word that the contracts keep.
    ///
    /// # Errors
    /// If a field is outside its bounds.
    pub fn pack(&self) -> Result<U256, CalibrationError> {
        self.check()?;
        let fields = [
            (u32::from(self.tau), 0),
            (self.spot_tau.into(), 16),
            (self.block_limit.into(), 32),
            (u8::from(self.width).into(), 48),
            (self.hard_margin, 56),
            (self.margin_bar, 80),
            (self.thr_base, 104),
            (self.thr_slope, 128),
            (self.thr_spread, 160),
            (self.drift, 192),
            (self.drift_limit, 224),
        ];
        let shifted = fields.into_iter().map(|(value, offset)| U256::from(value) << offset);
        Ok(shifted.fold(U256::ZERO, |word, field| word | field))
    }

    /// Reads a word.
    ///
    /// # Errors
    /// If a field is outside its bounds; so is the word 0.
    pub fn unpack(word: U256) -> Result<Self, CalibrationError> {
        let calibration = Self {
            tau: field(word, 0, 16) as u16,
            spot_tau: field(word, 16, 16) as u16,
            block_limit: field(word, 32, 16) as u16,
            width: Width::try_from(field(word, 48, 8) as u8)?,
            hard_margin: field(word, 56, 24),
            margin_bar: field(word, 80, 24),
            thr_base: field(word, 104, 24),
            thr_slope: field(word, 128, 32),
            thr_spread: field(word, 160, 32),
            drift: field(word, 192, 32),
            drift_limit: field(word, 224, 32),
        };
        calibration.check()?;
        Ok(calibration)
    }

    /// What the capped margins of an honest answer of `tokens` tokens do not exceed, in 1/65536 nat:
    ///
    /// `thr_base + ((thr_slope * n + ((thr_spread * isqrt(n << 16)) >> 8)) >> 16)`
    pub fn thr(&self, tokens: u32) -> u64 {
        let n = u64::from(tokens);
        let spread = (u64::from(self.thr_spread) * (n << 16).isqrt()) >> 8;
        u64::from(self.thr_base) + ((u64::from(self.thr_slope) * n + spread) >> 16)
    }

    /// Within it more than half of the contrasts of so many positions lie, in 1/256 nat.
    pub fn limit(&self, positions: u32) -> u16 {
        if positions >= crate::fingerprint::FULL_BLOCK { self.tau } else { self.spot_tau }
    }

    /// So many failing blocks fail an answer of `tokens` tokens; `None` if it is too short to be judged.
    pub fn failing_blocks_limit(&self, tokens: u32) -> Option<u16> {
        // An answer has at most 2,048 blocks.
        let blocks = u16::try_from(blocks(tokens)).unwrap_or(u16::MAX);
        (blocks > 0).then(|| self.block_limit.min(blocks))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn ordinary() -> Calibration {
        Calibration {
            tau: 10,
            spot_tau: 25,
            block_limit: 2,
            width: Width::Four,
            hard_margin: 13_107,
            margin_bar: 65_536,
            thr_base: 6_554,
            thr_slope: 4_294_967,
            thr_spread: 42_949_673,
            drift: 8_589_935,
            drift_limit: 655_360,
        }
    }

    fn any_calibration() -> impl Strategy<Value = Calibration> {
        let f = (1..=MAX_TAU, 0..=MAX_SPOT_TAU, 1..=MAX_BLOCK_LIMIT, any::<bool>());
        let g = (1..=MAX_HARD_MARGIN, 1..=MAX_MARGIN_BAR, 0..=MAX_THR_BASE, 0..=MAX_THR_SLOPE);
        (f, g, any::<u32>(), 0..=MAX_DRIFT, 1..=u32::MAX).prop_map(
            |(
                (tau, spot, block_limit, four),
                (hard_margin, margin_bar, thr_base, thr_slope),
                thr_spread,
                drift,
                drift_limit,
            )| Calibration {
                tau,
                spot_tau: spot.max(tau),
                block_limit,
                width: if four { Width::Four } else { Width::Two },
                hard_margin,
                margin_bar,
                thr_base,
                thr_slope,
                thr_spread,
                drift: drift.max(thr_slope),
                drift_limit,
            },
        )
    }

    proptest! {
        #[test]
        fn words_come_back(calibration in any_calibration()) {
            let word = calibration.pack().unwrap();
            prop_assert_eq!(Calibration::unpack(word), Ok(calibration));
        }

        #[test]
        fn any_word_is_refused_or_comes_back(limbs: [u64; 4]) {
            let word = U256::from_limbs(limbs);
            if let Ok(calibration) = Calibration::unpack(word) {
                prop_assert_eq!(calibration.pack(), Ok(word));
            }
        }

        #[test]
        fn a_longer_answer_may_have_more_margin(calibration in any_calibration(), n in 1_u32..65_536) {
            prop_assert!(calibration.thr(n) <= calibration.thr(n + 1));
        }
    }

    #[test]
    fn bounds_are_named() {
        assert!(matches!(Calibration::unpack(U256::ZERO), Err(CalibrationError::Width(_))));
        let bad = [
            ("tau", Calibration { tau: 0, ..ordinary() }),
            ("tau", Calibration { tau: 1025, spot_tau: 2000, ..ordinary() }),
            ("spot_tau", Calibration { spot_tau: 9, ..ordinary() }),
            ("block_limit", Calibration { block_limit: 0, ..ordinary() }),
            ("hard_margin", Calibration { hard_margin: MAX_HARD_MARGIN + 1, ..ordinary() }),
            ("margin_bar", Calibration { margin_bar: 0, ..ordinary() }),
            ("thr_base", Calibration { thr_base: MAX_THR_BASE + 1, ..ordinary() }),
            ("thr_slope", Calibration { thr_slope: MAX_THR_SLOPE + 1, ..ordinary() }),
            ("drift", Calibration { drift: ordinary().thr_slope - 1, ..ordinary() }),
            ("drift_limit", Calibration { drift_limit: 0, ..ordinary() }),
        ];
        for (name, calibration) in bad {
            let error = calibration.pack().unwrap_err();
            assert!(
                matches!(&error, CalibrationError::Bound { field, .. } if *field == name),
                "{error}"
            );
        }
    }

    #[test]
    fn the_threshold_is_a_line_and_a_root() {
        let flat = Calibration { thr_base: 7, thr_slope: 0, thr_spread: 0, ..ordinary() };
        assert_eq!(flat.thr(65_536), 7);
        let line = Calibration { thr_slope: 1 << 16, ..flat };
        assert_eq!(line.thr(100), 107);
        let root = Calibration { thr_spread: 1 << 16, ..flat };
        assert_eq!((root.thr(100), root.thr(2)), (17, 8));
        let most = Calibration {
            thr_base: MAX_THR_BASE,
            thr_slope: MAX_THR_SLOPE,
            thr_spread: u32::MAX,
            ..flat
        };
        assert_eq!(most.thr(65_536), (64 << 16) + (1 << 30) + (1 << 24) - 1);
    }

    #[test]
    fn short_answers_have_wider_limits() {
        let calibration = ordinary();
        assert_eq!([4, 15, 16, 47].map(|n| calibration.limit(n)), [25, 25, 10, 10]);
        let limits = [1, 3, 4, 47, 48, 65_536].map(|n| calibration.failing_blocks_limit(n));
        assert_eq!(limits, [None, None, Some(1), Some(1), Some(2), Some(2)]);
    }
}
