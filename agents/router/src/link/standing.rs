//! How a node has done of late: how soon its first token comes, how fast the others follow, and whether it fails.
//! [`super::score`] says what follows from it.
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
/// In this time half of what was measured is forgotten: a node that was slow once is tried again, and so found out to be
/// fast.
const HALF_LIFE: Duration = Duration::from_secs(60);

/// What became of a task that a node took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its first token came so long after it was offered.
    Began(Duration),
    /// Its first token did not come within so long, and is not waited for any more. No fault: it may have had more to do.
    Late(Duration),
    /// Its answer is complete and checked; each further token took so long, if there was one.
    Completed(Option<Duration>),
    /// The node is at fault.
    Failed,
}

/// How fast a node is expected to be while it has nothing else to do. 0 where nothing was measured of late: a node that
/// is not known is expected to be fast, so that it is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Expected {
    /// Seconds from the offer to the first token.
    pub first_token_s: f64,
    /// Seconds of each further token.
    pub token_s: f64,
}

/// One node's record.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// Averages, as of `measured_at`.
    first_token_s: Option<f64>,
    token_s: Option<f64>,
    measured_at: Option<Instant>,
    /// Its level on chain.
    pub(super) level: u8,
    /// In a row.
    failures: u32,
    rests_until: Option<Instant>,
}

fn average(so_far: &mut Option<f64>, newest: Duration) {
    let newest = newest.as_secs_f64();
    let before = so_far.unwrap_or(newest);
    *so_far = Some(before + NEWEST * (newest - before));
}

impl Standing {
    pub(super) fn note(&mut self, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Began(after) | Outcome::Late(after) => {
                average(&mut self.first_token_s, after);
                self.measured_at = Some(now);
            }
            Outcome::Completed(each) => {
                if let Some(each) = each {
                    average(&mut self.token_s, each);
                }
                (self.failures, self.rests_until) = (0, None);
            }
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

    /// How fast it is expected to be.
    pub(super) fn expected(&self, now: Instant) -> Expected {
        let age = self.measured_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let left = 0.5_f64.powf(age.as_secs_f64() / HALF_LIFE.as_secs_f64());
        let of = |average: Option<f64>| average.unwrap_or_default() * left;
        Expected { first_token_s: of(self.first_token_s), token_s: of(self.token_s) }
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
        standing.note(Outcome::Completed(None), now);
        assert!(standing.takes(9, now));
        standing.note(Outcome::Failed, now);
        assert!(standing.takes(9, now), "it begins anew");
    }

    #[test]
    fn what_is_expected_follows_what_was_measured_of_late() {
        let ms = Duration::from_millis;
        let now = Instant::now();
        let mut standing = Standing::default();
        assert_eq!(standing.expected(now), Expected::default());
        standing.note(Outcome::Began(ms(500)), now);
        standing.note(Outcome::Completed(Some(ms(40))), now);
        let first = Expected { first_token_s: 0.5, token_s: 0.04 };
        assert_eq!(standing.expected(now), first);
        standing.note(Outcome::Late(ms(1000)), now);
        assert!(standing.expected(now).first_token_s > 0.55, "so slow at least");
        for _ in 0..30 {
            standing.note(Outcome::Began(ms(10)), now);
        }
        assert!(standing.expected(now).first_token_s < 0.02, "it is fast again");
        standing.note(Outcome::Failed, now);
        assert!(standing.takes(9, now), "late is no fault");
    }

    #[test]
    fn what_was_measured_long_ago_is_forgotten() {
        let now = Instant::now();
        let mut standing = Standing::default();
        standing.note(Outcome::Began(Duration::from_secs(8)), now);
        assert_eq!(standing.expected(now + HALF_LIFE).first_token_s, 4.0);
        assert!(standing.expected(now + 10 * HALF_LIFE).first_token_s < 0.01);
        // A new measure counts as much as ever.
        standing.note(Outcome::Began(Duration::from_secs(8)), now + 10 * HALF_LIFE);
        assert_eq!(standing.expected(now + 10 * HALF_LIFE).first_token_s, 8.0);
    }
}
