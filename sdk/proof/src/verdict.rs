//! What a validator says of an answer, and what follows from it: integers that a contract computes again.
//!
//! # Statistics
//! A validator commits to this word before it can know the miner's contrasts:
//!
//! | bit | bits | field |
//! |--:|--:|---|
//! | 0 | 32 | tokens, those of H1 |
//! | 32 | 32 | largest margin, 1/65536 nat |
//! | 64 | 32 | sum of the margins, each capped at half a nat |
//! | 96 | 8 | [`Reasons`] that the answer itself gives: `END`, `TEXT`, `PROMPT`, `IDS` |
//!
//! The number of failing blocks is not in it: it follows from the miner's proof block, which is published
//! after the commitment, and comes with the reveal ([`Failing`]).

use std::fmt;

use assay_types::{MAX_OUTPUT_LIMIT, U256};

use crate::{
    Calibration, Failing,
    calibration::{MARGIN_CAP, field},
    fingerprint::blocks,
};

/// Why an audit fails, as a set of bits. The empty set passes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Reasons(pub u8);

impl Reasons {
    /// Too many blocks do not agree: other weights made the answer, or a part of it.
    pub const FINGERPRINT: Self = Self(0x01);
    /// At the drawn positions ids differ, or the contrasts do not agree.
    pub const SPOT: Self = Self(0x02);
    /// A token has a margin that no honest one has.
    pub const HARD_MARGIN: Self = Self(0x04);
    /// The margins together are more than honest ones.
    pub const MARGIN_SUM: Self = Self(0x08);
    /// The end is not what the ids say.
    pub const END: Self = Self(0x10);
    /// The text is not that of the ids.
    pub const TEXT: Self = Self(0x20);
    /// The prompt is not that of the request.
    pub const PROMPT: Self = Self(0x40);
    /// The result block is none, has another number of ids, or one outside the vocabulary.
    pub const IDS: Self = Self(0x80);

    /// Those that a validator finds in the answer itself.
    pub const OF_THE_ANSWER: Self = Self(0xF0);

    const NAMES: [(Self, &str); 8] = [
        (Self::FINGERPRINT, "fingerprint"),
        (Self::SPOT, "spot"),
        (Self::HARD_MARGIN, "hard margin"),
        (Self::MARGIN_SUM, "margin sum"),
        (Self::END, "end"),
        (Self::TEXT, "text"),
        (Self::PROMPT, "prompt"),
        (Self::IDS, "ids"),
    ];

    /// Whether there are none: the audit passes.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` are among them.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// `self`, or nothing.
    pub fn when(self, holds: bool) -> Self {
        if holds { self } else { Self::default() }
    }
}

impl std::ops::BitOr for Reasons {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Reasons {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = Self::NAMES.iter().filter(|(reason, _)| self.contains(*reason));
        let names: Vec<&str> = held.map(|(_, name)| *name).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(", "))
    }
}

impl fmt::Debug for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reasons({self})")
    }
}

/// What a validator commits to, beside its root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Tokens of the answer.
    pub tokens: u32,
    /// The largest margin, in 1/65536 nat.
    pub max_margin: u32,
    /// Sum of the margins, each at most [`MARGIN_CAP`], in 1/65536 nat.
    pub margin_sum: u32,
    /// Those of [`Reasons::OF_THE_ANSWER`] that hold.
    pub faults: Reasons,
}

/// Why a word is no statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatisticsError {
    /// No tokens, or more than an answer has.
    #[error("statistics of {0} tokens: an answer has 1 to {MAX_OUTPUT_LIMIT}")]
    Tokens(u32),
    /// The sum is more than the tokens can have, or less than the largest margin.
    #[error("margins of {sum} in all do not go with a largest of {max} among {tokens} tokens")]
    Sum {
        /// Sum of the capped margins.
        sum: u32,
        /// Largest margin.
        max: u32,
        /// Tokens.
        tokens: u32,
    },
    /// Bits that mean nothing.
    #[error("the statistics have bits that mean nothing")]
    Bits,
}

impl Statistics {
    /// The statistics of these margins, in 1/65536 nat.
    pub fn new(margins: &[u32], faults: Reasons) -> Self {
        let capped = margins.iter().map(|margin| u64::from((*margin).min(MARGIN_CAP)));
        Self {
            tokens: u32::try_from(margins.len()).unwrap_or(u32::MAX),
            max_margin: margins.iter().copied().max().unwrap_or(0),
            margin_sum: u32::try_from(capped.sum::<u64>()).unwrap_or(u32::MAX),
            faults: Reasons(faults.0 & Reasons::OF_THE_ANSWER.0),
        }
    }

    /// The word that is committed.
    ///
    /// # Errors
    /// If there are no such statistics.
    pub fn pack(&self) -> Result<U256, StatisticsError> {
        self.check()?;
        let margins = U256::from(self.max_margin) << 32 | U256::from(self.margin_sum) << 64;
        Ok(U256::from(self.tokens) | margins | U256::from(self.faults.0) << 96)
    }

    /// Reads a word.
    ///
    /// # Errors
    /// If there are no such statistics.
    pub fn unpack(word: U256) -> Result<Self, StatisticsError> {
        if word.bit_len() > 104 {
            return Err(StatisticsError::Bits);
        }
        let statistics = Self {
            tokens: field(word, 0, 32),
            max_margin: field(word, 32, 32),
            margin_sum: field(word, 64, 32),
            faults: Reasons(field(word, 96, 8) as u8),
        };
        statistics.check()?;
        Ok(statistics)
    }

    fn check(&self) -> Result<(), StatisticsError> {
        let Self { tokens, max_margin: max, margin_sum: sum, faults } = *self;
        if !(1..=MAX_OUTPUT_LIMIT).contains(&tokens) {
            return Err(StatisticsError::Tokens(tokens));
        }
        let most = u64::from(max.min(MARGIN_CAP)) * u64::from(tokens);
        if u64::from(sum) > most || sum < max.min(MARGIN_CAP) {
            return Err(StatisticsError::Sum { sum, max, tokens });
        }
        match Reasons::OF_THE_ANSWER.contains(faults) {
            true => Ok(()),
            false => Err(StatisticsError::Bits),
        }
    }
}

/// Why an audit fails: from what the validator committed to, what it found when it could compare, and
/// whether the positions that were drawn agree.
pub fn verdict(
    statistics: &Statistics,
    failing: Failing,
    spot_agrees: bool,
    calibration: &Calibration,
) -> Reasons {
    let limit = calibration.failing_blocks_limit(statistics.tokens);
    let too_many = limit.is_some_and(|limit| failing.blocks >= limit);
    let sum = u64::from(statistics.margin_sum);
    statistics.faults
        | Reasons::FINGERPRINT.when(too_many)
        | Reasons::SPOT.when(!spot_agrees)
        | Reasons::HARD_MARGIN.when(statistics.max_margin > calibration.hard_margin)
        | Reasons::MARGIN_SUM.when(sum > calibration.thr(statistics.tokens))
}

/// Whether what a validator says at its reveal can be: no more failing blocks than there are, and the worst
/// is one of them.
pub fn failing_is_possible(failing: Failing, tokens: u32) -> bool {
    let blocks = blocks(tokens);
    u32::from(failing.blocks) <= blocks && u32::from(failing.worst) < blocks.max(1)
}

/// A node's record with a model over audited tokens, in 1/65536 nat: it rises by the margins of an answer
/// and falls by what [`Calibration::drift`] forgives, never below 0. It catches what no single task shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cusum(pub u32);

impl Cusum {
    /// The record after an audit.
    pub fn after(self, statistics: &Statistics, calibration: &Calibration) -> Self {
        let forgiven = (u64::from(calibration.drift) * u64::from(statistics.tokens)) >> 16;
        let risen = u64::from(self.0.saturating_add(statistics.margin_sum));
        Self(risen.saturating_sub(forgiven) as u32)
    }

    /// Whether the node's answers are worse than honest noise. It proves nothing about one task.
    pub fn alarms(self, calibration: &Calibration) -> bool {
        self.0 > calibration.drift_limit
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::calibration::tests::ordinary;

    fn clean(tokens: usize) -> Statistics {
        Statistics::new(&vec![0; tokens], Reasons::default())
    }

    fn judged(statistics: &Statistics) -> Reasons {
        verdict(statistics, Failing::default(), true, &ordinary())
    }

    #[test]
    fn each_reason_has_its_cause() {
        let calibration = ordinary();
        assert!(judged(&clean(100)).is_empty());
        let failing = |blocks| Failing { blocks, worst: 0 };
        let of = |tokens, count| verdict(&clean(tokens), failing(count), true, &calibration);
        assert_eq!((of(100, 1), of(100, 2)), (Reasons::default(), Reasons::FINGERPRINT));
        // A short answer fails by the one block that it has.
        assert_eq!((of(20, 0), of(20, 1)), (Reasons::default(), Reasons::FINGERPRINT));
        // Too short to have one.
        assert_eq!(of(3, 1), Reasons::default());
        let spot = verdict(&clean(100), failing(0), false, &calibration);
        assert_eq!(spot, Reasons::SPOT);

        let mut margins = vec![0; 100];
        margins[7] = calibration.hard_margin;
        assert!(judged(&Statistics::new(&margins, Reasons::default())).is_empty());
        margins[7] += 1;
        let one = Statistics::new(&margins, Reasons::default());
        assert_eq!(judged(&one), Reasons::HARD_MARGIN);
        let many = Statistics::new(&[300; 100], Reasons::default());
        assert_eq!(judged(&many), Reasons::MARGIN_SUM);
        for fault in [Reasons::END, Reasons::TEXT, Reasons::PROMPT, Reasons::IDS] {
            assert_eq!(judged(&Statistics::new(&[0; 9], fault)), fault);
        }
    }

    #[test]
    fn the_sum_may_reach_the_threshold() {
        let calibration = ordinary();
        let at = calibration.thr(64) as u32;
        let mut statistics = Statistics { margin_sum: at, ..clean(64) };
        assert!(judged(&statistics).is_empty());
        statistics.margin_sum += 1;
        assert_eq!(judged(&statistics), Reasons::MARGIN_SUM);
    }

    #[test]
    fn one_odd_token_counts_half_a_nat() {
        let statistics = Statistics::new(&[u32::MAX, 5], Reasons::default());
        assert_eq!((statistics.max_margin, statistics.margin_sum), (u32::MAX, MARGIN_CAP + 5));
    }

    #[test]
    fn impossible_words_are_refused() {
        let error = |statistics: Statistics| statistics.pack().unwrap_err();
        let good = Statistics::new(&[10, 20], Reasons::END);
        assert_eq!(error(Statistics { tokens: 0, ..good }), StatisticsError::Tokens(0));
        assert_eq!(error(Statistics { tokens: 65_537, ..good }), StatisticsError::Tokens(65_537));
        for sum in [41, 19] {
            let error = error(Statistics { margin_sum: sum, ..good });
            assert_eq!(error, StatisticsError::Sum { sum, max: 20, tokens: 2 });
        }
        assert_eq!(error(Statistics { faults: Reasons::SPOT, ..good }), StatisticsError::Bits);
        let word = good.pack().unwrap();
        assert_eq!(Statistics::unpack(word), Ok(good));
        assert_eq!(Statistics::unpack(word | U256::from(1) << 104), Err(StatisticsError::Bits));
    }

    #[test]
    fn a_reveal_names_a_block_of_the_answer() {
        let of = |blocks, worst, tokens| failing_is_possible(Failing { blocks, worst }, tokens);
        assert!(of(2, 1, 48) && !of(3, 1, 48) && !of(2, 2, 48));
        assert!(of(0, 0, 3) && !of(1, 0, 3) && !of(0, 1, 3));
    }

    #[test]
    fn a_record_rises_with_margins_and_forgets_with_tokens() {
        let calibration = ordinary();
        // 0.002 nat a token are forgiven.
        let worse = Statistics { margin_sum: 20 * 655, max_margin: 655, ..clean(1000) };
        let mut record = Cusum::default();
        assert_eq!(record.after(&clean(1000), &calibration), record);
        for _ in 0..1000 {
            record = record.after(&worse, &calibration);
        }
        assert_eq!(record, Cusum::default());
        let cheat = Statistics { margin_sum: 1000 * 655, max_margin: 655, ..clean(1000) };
        record = record.after(&cheat, &calibration);
        assert!(!record.alarms(&calibration));
        assert!(record.after(&cheat, &calibration).alarms(&calibration));
        let full = Cusum(u32::MAX).after(&cheat, &calibration);
        assert_eq!(full.0, u32::MAX - 131_072);
    }

    #[test]
    fn reasons_are_readable() {
        let two = Reasons::HARD_MARGIN | Reasons::TEXT;
        assert_eq!(two.to_string(), "hard margin, text");
        assert_eq!(Reasons::default().to_string(), "none");
    }

    proptest! {
        #[test]
        fn any_margins_pack(margins in prop::collection::vec(any::<u32>(), 1..200), faults: u8) {
            let statistics = Statistics::new(&margins, Reasons(faults));
            prop_assert_eq!(Statistics::unpack(statistics.pack().unwrap()), Ok(statistics));
        }

        #[test]
        fn any_word_is_refused_or_comes_back(limbs: [u64; 2]) {
            let word = U256::from_limbs([limbs[0], limbs[1] >> 20, 0, 0]);
            if let Ok(statistics) = Statistics::unpack(word) {
                prop_assert_eq!(statistics.pack(), Ok(word));
            }
        }
    }
}
