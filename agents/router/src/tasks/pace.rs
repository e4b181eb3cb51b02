//! How fast the answers of each model came of late, as this router measured it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Answers that are remembered of a model: enough for a 95th percentile, few enough to follow a change.
const REMEMBERED: usize = 512;

/// The paces of all models.
#[derive(Debug, Default)]
pub struct Paces(Mutex<HashMap<String, Pace>>);

#[derive(Debug, Default)]
struct Pace {
    first_tokens: VecDeque<Duration>,
    tokens: VecDeque<Duration>,
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
}
