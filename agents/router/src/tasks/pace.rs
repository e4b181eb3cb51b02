//! How fast the answers of each model came of late, as this router measured it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Answers that are remembered of a model: enough for a 95th percentile, few enough to follow a change.
const REMEMBERED: usize = 512;
/// First tokens that must have been measured before one can be called late.
const ENOUGH: usize = 20;
/// What is late is found out anew after so many first tokens: sorting them takes longer than all else here.
const RECOUNT: usize = 16;
/// A first token is late that comes after what so many of 100 stay below.
const LATE_PERCENT: usize = 95;
/// No first token is late before: a client hardly feels less, and asking a second node costs gas.
const SOONEST_LATE: Duration = Duration::from_millis(500);

/// The paces of all models.
#[derive(Debug, Default)]
pub struct Paces(Mutex<HashMap<String, Pace>>);

#[derive(Debug, Default)]
struct Pace {
    first_tokens: VecDeque<Duration>,
    tokens: VecDeque<Duration>,
    /// From the offer to the first token: without what the router and its queue took.
    starts: VecDeque<Duration>,
    /// Those that were counted since what is late was found out.
    uncounted: usize,
    late_after: Option<Duration>,
}

/// What was measured of one model; `None` where there is nothing yet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Answers that it was measured over.
    pub answers: usize,
    /// Time from a request to its first token: the median, and what 95 of 100 stay below.
    pub first_token: Option<(Duration, Duration)>,
    /// Tokens a second of one answer, the median.
    pub tokens_per_second: Option<f64>,
}

impl Paces {
    /// A first token came so long after its request.
    pub fn first_token(&self, model: &str, after: Duration) {
        self.with(model, |pace| remember(&mut pace.first_tokens, after));
    }

    /// A first token came so long after its offer, or did not come within so long.
    pub fn start(&self, model: &str, after: Duration) {
        self.with(model, |pace| {
            remember(&mut pace.starts, after);
            pace.uncounted += 1;
            let is_first = pace.late_after.is_none() && pace.starts.len() >= ENOUGH;
            if is_first || pace.uncounted >= RECOUNT {
                pace.uncounted = 0;
                let late = share(&pace.starts, LATE_PERCENT).map(|late| late.max(SOONEST_LATE));
                pace.late_after = late.filter(|_| pace.starts.len() >= ENOUGH);
            }
        });
    }

    /// The time after an offer from which on a first token is late; `None` while too few were measured.
    pub fn late_after(&self, model: &str) -> Option<Duration> {
        self.with(model, |pace| pace.late_after)
    }

    /// The further tokens of an answer took so long each.
    pub fn token(&self, model: &str, each: Duration) {
        self.with(model, |pace| remember(&mut pace.tokens, each));
    }

    /// What was measured.
    pub fn of(&self, model: &str) -> Measured {
        self.with(model, |pace| Measured {
            answers: pace.first_tokens.len(),
            first_token: share(&pace.first_tokens, 50).zip(share(&pace.first_tokens, 95)),
            tokens_per_second: share(&pace.tokens, 50)
                .map(|each| each.as_secs_f64())
                .filter(|each| *each > 0.0)
                .map(|each| 1.0 / each),
        })
    }

    fn with<T>(&self, model: &str, work: impl FnOnce(&mut Pace) -> T) -> T {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Only models that are served come here: the settings bound them.
        work(paces.entry(model.to_owned()).or_default())
    }
}

fn remember(times: &mut VecDeque<Duration>, time: Duration) {
    if times.len() == REMEMBERED {
        times.pop_front();
    }
    times.push_back(time);
}

/// The least time that `percent` of 100 do not exceed.
fn share(times: &VecDeque<Duration>, percent: usize) -> Option<Duration> {
    let mut sorted: Vec<Duration> = times.iter().copied().collect();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_what_was_measured_last() {
        let paces = Paces::default();
        assert_eq!(paces.of("a"), Measured::default());
        for ms in 1..=100 {
            paces.first_token("a", Duration::from_millis(ms));
        }
        paces.token("a", Duration::from_millis(20));
        let measured = paces.of("a");
        let ms = Duration::from_millis;
        assert_eq!((measured.answers, measured.first_token), (100, Some((ms(50), ms(95)))));
        assert!(measured.tokens_per_second.is_some_and(|rate| (rate - 50.0).abs() < 1e-9));
        assert_eq!(paces.of("b"), Measured::default());
        for _ in 0..REMEMBERED {
            paces.first_token("a", ms(7));
        }
        assert_eq!(paces.of("a").first_token, Some((ms(7), ms(7))), "the old ones are forgotten");
        assert_eq!(paces.of("a").answers, REMEMBERED);
    }

    #[test]
    fn late_is_what_few_first_tokens_take_and_a_client_feels() {
        let paces = Paces::default();
        let ms = Duration::from_millis;
        (1..ENOUGH).for_each(|_| paces.start("a", ms(10)));
        assert_eq!(paces.late_after("a"), None, "too few");
        paces.start("a", ms(10));
        assert_eq!(paces.late_after("a"), Some(SOONEST_LATE));
        for n in 0..REMEMBERED as u64 {
            paces.start("a", ms(1000 + n));
        }
        let late = paces.late_after("a").unwrap();
        assert!(late > ms(1400) && late < ms(1500), "{late:?}");
        assert_eq!(paces.late_after("b"), None);
    }
}
