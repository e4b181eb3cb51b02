//! What is known of one endpoint, and when it may be asked. Pure: the time comes from the caller.

use std::time::Duration;

use tokio::time::Instant;

/// First rest of an endpoint that failed, if another one can be asked meanwhile; doubles.
const FIRST_REST: Duration = Duration::from_secs(1);
/// Longest rest: after it an endpoint that works again is found.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// Rest of an endpoint of another chain: only its operator can mend that.
const FOREIGN_REST: Duration = Duration::from_secs(60);
/// An endpoint that has not failed for this long is sound again, and its next failure news.
const STEADY_AFTER: Duration = Duration::from_secs(30);
/// First pause between calls to an endpoint that limits our rate; doubles with each refusal.
const FIRST_GAP: Duration = Duration::from_millis(50);
/// Longest pause between calls.
const LONGEST_GAP: Duration = Duration::from_secs(2);
/// Most that an endpoint's own word is believed on how long to wait: less than a call may take.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Why an endpoint did not answer a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// No answer, or none that can be used.
    Failed(String),
    /// We ask too much; it may have said how long to wait.
    Limited { text: String, wait: Option<Duration> },
    /// It is of another chain.
    Foreign { got: u64, expected: u64 },
}

/// How an endpoint compares with others; lower is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Ask it.
    Ready,
    /// It answers, but is behind the others.
    Lagging,
    /// It failed; ask it if no other is left.
    Resting(Instant),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(text) | Self::Limited { text, .. } => f.write_str(text),
            Self::Foreign { got, expected } => {
                write!(f, "it is chain {got}, not {expected}; correct the RPC URL")
            }
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Health {
    /// Since it was last steady.
    failures: u32,
    failed_at: Option<Instant>,
    rests_until: Option<Instant>,
    foreign: bool,
    lagging: bool,
    /// Its chain was checked since it last failed: behind an address another node may come back.
    verified: bool,
    /// Pause between calls, while it limits our rate.
    gap: Duration,
    /// When the next call may begin.
    next_slot: Option<Instant>,
}

impl Health {
    /// `None` if it must not be asked now.
    pub(super) fn rank(&self, now: Instant) -> Option<Rank> {
        match self.rests_until.filter(|until| *until > now) {
            Some(_) if self.foreign => None,
            Some(until) => Some(Rank::Resting(until)),
            None if self.lagging => Some(Rank::Lagging),
            None => Some(Rank::Ready),
        }
    }

    pub(super) fn is_verified(&self) -> bool {
        self.verified
    }

    pub(super) fn set_verified(&mut self) {
        self.verified = true;
        self.foreign = false;
    }

    /// Returns true if that is news.
    pub(super) fn set_lagging(&mut self, lagging: bool) -> bool {
        std::mem::replace(&mut self.lagging, lagging) != lagging
    }

    /// When a call may begin, if that is before `limit`; the slot is taken.
    pub(super) fn take_slot(&mut self, now: Instant, limit: Instant) -> Option<Instant> {
        let slot = self.next_slot.map_or(now, |slot| slot.max(now));
        if slot >= limit {
            return None;
        }
        self.next_slot = Some(slot + self.gap);
        Some(slot)
    }

    /// Returns true if it is the first success after trouble that has ended.
    pub(super) fn succeeded(&mut self, now: Instant) -> bool {
        self.rests_until = None;
        // A quarter faster with each success: slower than it slows down, and over within seconds.
        self.gap = self.gap * 3 / 4;
        if self.gap < FIRST_GAP / 2 {
            self.gap = Duration::ZERO;
        }
        let steady = self.failed_at.is_some_and(|at| now >= at + STEADY_AFTER);
        if steady {
            (self.failures, self.failed_at) = (0, None);
        }
        steady
    }

    /// Takes in why a call that `began` then did not succeed. Returns true if that is news: calls that
    /// ran side by side are one failure, and an endpoint that comes and goes is told of once.
    pub(super) fn failed(&mut self, began: Instant, now: Instant, trouble: &Trouble) -> bool {
        if let Trouble::Limited { wait, .. } = trouble {
            self.slow_down(now, *wait);
        }
        if self.failed_at.is_some_and(|at| at > began) {
            return false;
        }
        if self.failed_at.is_some_and(|at| now >= at + STEADY_AFTER) && self.rests_until.is_none() {
            self.failures = 0;
        }
        let rest = FIRST_REST * 2u32.saturating_pow(self.failures.min(8));
        self.failures = self.failures.saturating_add(1);
        self.failed_at = Some(now);
        let foreign = matches!(trouble, Trouble::Foreign { .. });
        let rest = if foreign { FOREIGN_REST } else { rest.min(LONGEST_REST) };
        self.rests_until = Some(now + rest);
        if !matches!(trouble, Trouble::Limited { .. }) {
            self.verified = false;
        }
        let was_foreign = std::mem::replace(&mut self.foreign, foreign);
        self.failures == 1 || foreign && !was_foreign
    }

    fn slow_down(&mut self, now: Instant, wait: Option<Duration>) {
        self.gap = (self.gap * 2).clamp(FIRST_GAP, LONGEST_GAP);
        let wait = wait.unwrap_or(self.gap).min(LONGEST_WAIT);
        let slot = self.next_slot.map_or(now + wait, |slot| slot.max(now + wait));
        self.next_slot = Some(slot.min(now + LONGEST_WAIT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Trouble {
        Trouble::Failed("no answer".into())
    }

    fn limited() -> Trouble {
        Trouble::Limited { text: "429".into(), wait: None }
    }

    #[test]
    fn failures_side_by_side_count_once_and_are_told_of_once() {
        let (mut health, start) = (Health::default(), Instant::now());
        let mut now = start + Duration::from_secs(1);
        assert!(health.failed(start, now, &failed()));
        for _ in 0..16 {
            assert!(!health.failed(start, now, &failed()));
        }
        assert_eq!(health.rank(now), Some(Rank::Resting(now + FIRST_REST)));
        // Rests double up to the longest, and nothing of it is news.
        for doublings in 1..10 {
            now += LONGEST_REST;
            assert_eq!(health.rank(now), Some(Rank::Ready));
            assert!(!health.failed(now, now, &failed()));
            let rest = (FIRST_REST * (1 << doublings)).min(LONGEST_REST);
            assert_eq!(health.rank(now), Some(Rank::Resting(now + rest)));
        }
        // Told of when it is over, and again when it comes back.
        assert!(!health.succeeded(now));
        assert!(health.succeeded(now + STEADY_AFTER));
        assert!(health.failed(now + STEADY_AFTER, now + STEADY_AFTER, &failed()));
    }

    fn far(now: Instant) -> Instant {
        now + Duration::from_secs(3600)
    }

    #[test]
    fn another_chain_is_not_asked_while_it_rests_and_checked_again_after() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.set_verified();
        assert!(health.failed(now, now, &Trouble::Foreign { got: 5, expected: 1 }));
        assert_eq!(health.rank(now), None);
        assert_eq!(health.rank(now + FOREIGN_REST), Some(Rank::Ready));
        assert!(!health.is_verified());
    }

    #[test]
    fn a_limited_rate_is_found_and_left_again() {
        let (mut health, now) = (Health::default(), Instant::now());
        assert_eq!(health.take_slot(now, far(now)), Some(now));
        assert_eq!(health.take_slot(now, far(now)), Some(now));
        for _ in 0..20 {
            health.failed(now, now, &limited());
        }
        assert_eq!(health.gap, LONGEST_GAP);
        let first = health.take_slot(now, far(now)).unwrap();
        assert!(first > now && first <= now + LONGEST_GAP);
        // What would wait too long takes no slot from the others.
        assert_eq!(health.take_slot(now, first), None);
        assert_eq!(health.take_slot(now, far(now)), Some(first + LONGEST_GAP));
        for _ in 0..100 {
            health.succeeded(now);
        }
        assert_eq!(health.gap, Duration::ZERO);
        // An endpoint that asks for years is asked again sooner.
        let wait = Some(Duration::from_secs(1 << 40));
        let mut health = Health::default();
        health.failed(now, now, &Trouble::Limited { text: String::new(), wait });
        assert!(health.take_slot(now, far(now)).unwrap() <= now + LONGEST_WAIT);
    }

    #[test]
    fn who_lags_comes_before_who_rests() {
        let now = Instant::now();
        let mut health = Health::default();
        assert!(health.set_lagging(true) && !health.set_lagging(true));
        assert!(Rank::Ready < health.rank(now).unwrap());
        assert!(health.rank(now).unwrap() < Rank::Resting(now));
    }
}
