//! How a node has done of late: how soon its first token comes, and whether it fails.
//!
//! A node that fails again and again rests. What a client does never counts: a request that no node could serve, or a
//! client that hangs up, says nothing about the node. An answer counts when it is complete, not when it begins.

use std::time::Duration;

use tokio::time::Instant;

/// Share of the newest time in the average: the last ten or so count.
const NEWEST: f64 = 0.2;
/// Failures in a row after which a node rests: one may be chance.
const PATIENCE: u32 = 3;
/// Its first rest; each further failure doubles it.
const FIRST_REST: Duration = Duration::from_secs(2);
/// Its longest: a node that is well again is found out within this time.
const LONGEST_REST: Duration = Duration::from_secs(120);
/// First tokens that come sooner are all the same to a client, seconds.
const FAST_S: f64 = 0.05;
/// A node is slower than another if its first token takes so many times as long: less may be chance.
const STEP: f64 = 1.5;

/// What became of a task that a node took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its first token came so long after it was offered.
    Began(Duration),
    /// Its answer is complete and checked.
    Completed,
    /// The node is at fault.
    Failed,
}

/// One node's record.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// Average time to the first token, seconds.
    first_token_s: Option<f64>,
    /// In a row.
    failures: u32,
    rests_until: Option<Instant>,
}

impl Standing {
    pub(super) fn note(&mut self, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Began(after) => {
                let newest = after.as_secs_f64();
                let average = self.first_token_s.unwrap_or(newest);
                self.first_token_s = Some(average + NEWEST * (newest - average));
            }
            Outcome::Completed => (self.failures, self.rests_until) = (0, None),
            Outcome::Failed => {
                self.failures = self.failures.saturating_add(1);
                if let Some(more) = self.failures.checked_sub(PATIENCE) {
                    let rest = FIRST_REST.saturating_mul(1 << more.min(16)).min(LONGEST_REST);
                    self.rests_until = Some(now + rest);
                }
            }
        }
    }

    /// Whether it is given a task while it has `load` others: after a rest, one at a time until one is complete.
    pub(super) fn takes(&self, load: u32, now: Instant) -> bool {
        match self.rests_until {
            Some(until) => now >= until && load == 0,
            None => true,
        }
    }

    /// How slow a first token is expected to be on a node of which `share` thousandths are in use, in steps that a
    /// client feels. A node that was never measured is expected to be fast, so that it is measured.
    pub(super) fn slowness(&self, share: u32) -> u32 {
        let expected_s = self.first_token_s.unwrap_or_default() * (1.0 + f64::from(share) / 1000.0);
        // Below nothing, and above the longest that a task may take, the steps end.
        (expected_s / FAST_S).max(1.0).log(STEP).min(64.0) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_fails_again_and_again_rests_longer_and_longer() {
        let mut now = Instant::now();
        let mut standing = Standing::default();
        for _ in 1..PATIENCE {
            standing.note(Outcome::Failed, now);
            assert!(standing.takes(9, now));
        }
        let mut rest = FIRST_REST;
        for _ in 0..10 {
            standing.note(Outcome::Failed, now);
            assert!(!standing.takes(0, now + rest - Duration::from_millis(1)));
            now += rest;
            assert!(standing.takes(0, now) && !standing.takes(1, now), "one at a time");
            rest = (rest * 2).min(LONGEST_REST);
        }
        // A stream that begins says nothing about its end.
        standing.note(Outcome::Began(Duration::ZERO), now);
        assert!(!standing.takes(1, now));
        standing.note(Outcome::Completed, now);
        assert!(standing.takes(9, now));
        standing.note(Outcome::Failed, now);
        assert!(standing.takes(9, now), "it begins anew");
    }

    #[test]
    fn what_is_expected_follows_what_was_measured_and_the_load() {
        let now = Instant::now();
        let mut standing = Standing::default();
        assert_eq!(standing.slowness(500), 0);
        standing.note(Outcome::Began(Duration::from_millis(500)), now);
        let (idle, busy) = (standing.slowness(0), standing.slowness(900));
        assert!(0 < idle && idle < busy, "{idle} {busy}");
        for _ in 0..30 {
            standing.note(Outcome::Began(Duration::from_millis(10)), now);
        }
        assert_eq!(standing.slowness(1000), 0, "it is fast again");
    }
}
