//! Rounds of public randomness: which one is named in a block, and whether its value can still be had.

/// Blocks whose hash the EVM knows.
const BLOCKHASH_WINDOW: u64 = 256;

/// Where rounds come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beacon {
    /// A round is a block, its value the block's hash: on development chains.
    Blockhash,
    /// Rounds of a drand network.
    Drand(Drand),
}

/// A drand network, and how a chain's clock may stand to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drand {
    /// Unix seconds at which round 1 is published.
    pub genesis_s: u64,
    /// Seconds between two rounds.
    pub period_s: u64,
    /// Seconds by which the chain's clock may trail the time.
    pub max_drift_s: u64,
}

impl Beacon {
    /// The first round that nobody can know in a block of that number and time (unix seconds).
    pub fn next_round(&self, block: u64, time_s: u64) -> u64 {
        match self {
            Self::Blockhash => block + 1,
            Self::Drand(drand) => drand.round_at(time_s.saturating_add(drand.max_drift_s)) + 1,
        }
    }

    /// Whether in that block it is too late for a round that was not revealed. drand keeps every round.
    pub fn is_missed(&self, round: u64, block: u64) -> bool {
        match self {
            Self::Blockhash => u128::from(block) > last_block(round),
            Self::Drand(_) => false,
        }
    }
}

/// The last block in which the hash that is a round can be read.
pub(crate) fn last_block(round: u64) -> u128 {
    u128::from(round) + u128::from(BLOCKHASH_WINDOW)
}

impl Drand {
    /// The latest round that is published at a time (unix seconds); 0 before the first one.
    pub fn round_at(&self, time_s: u64) -> u64 {
        match time_s.checked_sub(self.genesis_s) {
            Some(since_s) => since_s / self.period_s.max(1) + 1,
            None => 0,
        }
    }

    /// Unix seconds at which a round is published; `None` of round 0, which does not exist. Beyond 64 bits for the last
    /// ones.
    pub fn ready_at_s(&self, round: u64) -> Option<u128> {
        let periods = u128::from(round.checked_sub(1)?);
        Some(u128::from(self.genesis_s) + periods * u128::from(self.period_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVMNET: Drand = Drand { genesis_s: 1_727_521_075, period_s: 3, max_drift_s: 60 };

    /// The round that a block names is not out at its time nor `max_drift_s` later, and the one before it is.
    #[test]
    fn a_block_names_the_first_round_that_nobody_can_know() {
        let beacon = Beacon::Drand(EVMNET);
        for time_s in EVMNET.genesis_s - 70..EVMNET.genesis_s + 70 {
            let round = beacon.next_round(1, time_s);
            let (latest_s, at) =
                (u128::from(time_s + EVMNET.max_drift_s), |r| EVMNET.ready_at_s(r));
            assert!(at(round).unwrap() > latest_s, "{time_s}");
            assert!(at(round - 1).is_none_or(|at_s| at_s <= latest_s), "{time_s}");
            assert_eq!(beacon.next_round(2, time_s), round);
        }
        assert_eq!(Beacon::Blockhash.next_round(7, 0), 8);
    }

    /// Rounds and their times as drand's own formula gives them.
    #[test]
    fn rounds_have_their_times() {
        assert_eq!(EVMNET.ready_at_s(0), None);
        assert_eq!(EVMNET.ready_at_s(1), Some(1_727_521_075));
        assert_eq!(EVMNET.ready_at_s(513), Some(1_727_522_611));
        assert_eq!(EVMNET.round_at(1_727_522_611), 513);
        assert_eq!(EVMNET.round_at(1_727_522_610), 512);
        assert_eq!(EVMNET.round_at(0), 0);
        assert!(EVMNET.ready_at_s(u64::MAX).unwrap() > u128::from(u64::MAX));
    }

    #[test]
    fn only_hashes_of_blocks_are_missed() {
        assert!(!Beacon::Blockhash.is_missed(5, 261) && Beacon::Blockhash.is_missed(5, 262));
        assert!(!Beacon::Drand(EVMNET).is_missed(1, u64::MAX));
    }
}
