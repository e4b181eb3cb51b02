//! Levels of nodes: how work raises them, and faults and time lower them.

use crate::num::{int, u40};
use assay_bindings::NodeStats;

/// The highest level.
pub const MAX_LEVEL: u8 = 10;
/// Levels that one fault costs.
pub const FAULT_LEVELS: u64 = 2;

/// Which work counts together: `Series` of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Series {
    /// Of sessions that drew the node: weighs in draws.
    Drawn = 0,
    /// Of sessions that named the node.
    Dedicated = 1,
}

impl Series {
    /// The series of a part.
    pub const fn of(dedicated: bool) -> Self {
        if dedicated { Self::Dedicated } else { Self::Drawn }
    }
}

/// How a task ended for a node: `Outcome` of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// Answered and paid.
    Settled = 0,
    /// Handed back in time.
    Declined = 1,
    /// No answer, or no precommitment, in time.
    Silent = 2,
    /// Precommitted and not opened in time.
    Unrevealed = 3,
}

/// Counters and level of one node in one series: `Record` of the contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Tasks that were paid.
    pub settled: u32,
    /// Tasks that were handed back.
    pub declined: u32,
    /// Tasks that were not answered.
    pub silent: u32,
    /// Precommitments that were not opened.
    pub unrevealed: u32,
    /// Successes since the level last changed.
    pub streak: u16,
    /// As of `updated_at_s`.
    pub level: u8,
    /// At the start of the epoch of `updated_at_s`.
    pub level_at_epoch: u8,
    /// At the start of the epoch before that one.
    pub level_before: u8,
    /// Unix seconds of the last success or fault.
    pub updated_at_s: u64,
}

/// The clock that levels go by, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelClock {
    /// Without work, so long costs a level.
    pub period_s: u64,
    /// Draws look at the level as it was when such an epoch began.
    pub epoch_s: u64,
}

impl Record {
    /// The level at a time after the last change.
    pub fn level_at(&self, clock: LevelClock, time_s: u64) -> u8 {
        let lost = time_s.saturating_sub(self.updated_at_s) / clock.period_s.max(1);
        u8::try_from(u64::from(self.level).saturating_sub(lost)).unwrap_or(MAX_LEVEL)
    }

    /// The level that a draw of that time goes by: as it stood when the time's epoch began.
    pub fn draw_level(&self, clock: LevelClock, as_of_s: u64) -> u8 {
        let length = clock.epoch_s.max(1);
        let (epoch, last) = (as_of_s / length, self.updated_at_s / length);
        match epoch.cmp(&last) {
            std::cmp::Ordering::Greater => self.level_at(clock, epoch * length),
            std::cmp::Ordering::Equal => self.level_at_epoch,
            std::cmp::Ordering::Less => self.level_before,
        }
    }

    /// The record after `times` tasks ended alike. Declining changes no level and does not stop its decay.
    #[must_use]
    pub fn after(mut self, clock: LevelClock, outcome: Outcome, times: u32, time_s: u64) -> Self {
        let counter = match outcome {
            Outcome::Settled => &mut self.settled,
            Outcome::Declined => &mut self.declined,
            Outcome::Silent => &mut self.silent,
            Outcome::Unrevealed => &mut self.unrevealed,
        };
        *counter = counter.saturating_add(times);
        if outcome == Outcome::Declined {
            return self;
        }
        let before = time_s.saturating_sub(clock.epoch_s);
        let starts = (self.draw_level(clock, time_s), self.draw_level(clock, before));
        if time_s / clock.epoch_s.max(1) > self.updated_at_s / clock.epoch_s.max(1) {
            (self.level_at_epoch, self.level_before) = starts;
        }
        let level = self.level_at(clock, time_s);
        if level != self.level {
            self.streak = 0;
        }
        (self.level, self.updated_at_s) = (level, time_s);
        if outcome == Outcome::Settled {
            self.rise(times)
        } else {
            self.fall(times)
        }
        self
    }

    /// A level more after 2^level successes in a row.
    fn rise(&mut self, times: u32) {
        let mut streak = u64::from(self.streak) + u64::from(times);
        while self.level < MAX_LEVEL && streak >= 1 << self.level {
            streak -= 1 << self.level;
            self.level += 1;
        }
        self.streak = u16::try_from(streak).unwrap_or(u16::MAX);
    }

    fn fall(&mut self, times: u32) {
        let lost = FAULT_LEVELS * u64::from(times);
        self.level = u8::try_from(u64::from(self.level).saturating_sub(lost)).unwrap_or(MAX_LEVEL);
        self.streak = 0;
    }
}

impl From<Record> for NodeStats::Record {
    fn from(record: Record) -> Self {
        Self {
            settled: record.settled,
            declined: record.declined,
            silent: record.silent,
            unrevealed: record.unrevealed,
            streak: record.streak,
            level: record.level,
            levelAtEpoch: record.level_at_epoch,
            levelBefore: record.level_before,
            updatedAt: u40(record.updated_at_s),
        }
    }
}

impl From<&NodeStats::Record> for Record {
    fn from(record: &NodeStats::Record) -> Self {
        Self {
            settled: record.settled,
            declined: record.declined,
            silent: record.silent,
            unrevealed: record.unrevealed,
            streak: record.streak,
            level: record.level,
            level_at_epoch: record.levelAtEpoch,
            level_before: record.levelBefore,
            updated_at_s: int(record.updatedAt),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: LevelClock = LevelClock { period_s: 1000, epoch_s: 100 };

    #[test]
    fn a_level_takes_twice_as_many_successes_as_the_one_before() {
        let mut record = Record::default();
        let mut needed = Vec::new();
        for level in 1..=MAX_LEVEL {
            let mut tasks = 0;
            while record.level < level {
                record = record.after(CLOCK, Outcome::Settled, 1, 5);
                tasks += 1;
            }
            needed.push(tasks);
        }
        assert_eq!(needed, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
        assert_eq!(record.after(CLOCK, Outcome::Settled, 9, 5).level, MAX_LEVEL);
    }

    #[test]
    fn faults_and_idleness_lower_it_and_declining_does_not() {
        let record = Record::default().after(CLOCK, Outcome::Settled, 7, 50);
        assert_eq!((record.level, record.streak), (3, 0));
        assert_eq!(record.after(CLOCK, Outcome::Silent, 1, 60).level, 1);
        assert_eq!(record.after(CLOCK, Outcome::Unrevealed, 2, 60).level, 0);
        assert_eq!(record.after(CLOCK, Outcome::Declined, 1, 2060).level, 3);
        assert_eq!((record.level_at(CLOCK, 1049), record.level_at(CLOCK, 1050)), (3, 2));
        assert_eq!(record.level_at(CLOCK, 90_000), 0);
    }

    #[test]
    fn draws_see_the_level_of_their_epochs_start() {
        let record = Record::default().after(CLOCK, Outcome::Settled, 1, 250);
        assert_eq!((record.draw_level(CLOCK, 299), record.draw_level(CLOCK, 300)), (0, 1));
        let later = record.after(CLOCK, Outcome::Settled, 2, 310);
        assert_eq!(
            [299, 300, 399, 400].map(|time_s| later.draw_level(CLOCK, time_s)),
            [0, 1, 1, 2]
        );
    }
}
