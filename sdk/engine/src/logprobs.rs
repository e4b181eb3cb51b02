//! How likely tokens are by one row of logits: what an engine states beside a token, if it is asked.

use assay_types::{MIN_LOGPROB_MICRONATS, TokenLogprob, TokenLogprobs, TokenName};

use crate::EngineError;

/// Log probabilities of one row, by id: the logarithm of the softmax of the logits as the model gave them, before
/// temperature, penalties and filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowLogprobs {
    /// The token that was chosen, and its log probability in millionths of a nat.
    pub chosen: (u32, i64),
    /// The likeliest ones, the lower id first of equals.
    pub top: Vec<(u32, i64)>,
}

impl RowLogprobs {
    /// Of a row that a token could be chosen from: without NaN, and one logit for each id of the vocabulary.
    pub fn new(logits: &[f32], chosen: u32, top: u32) -> Self {
        let max = logits.iter().fold(f32::NEG_INFINITY, |max, logit| max.max(*logit));
        let mass: f64 = logits.iter().map(|logit| f64::from((logit - max).exp())).sum();
        let log_mass = f64::from(max) + mass.ln();
        let micronats = |logit: f32| {
            let nats = f64::from(logit) - log_mass;
            // What F32 gives no probability at all has none here.
            TokenLogprob::micronats(nats).clamp(MIN_LOGPROB_MICRONATS, 0)
        };
        let logit = logits.get(chosen as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let top = likeliest(logits, top as usize).into_iter();
        Self {
            chosen: (chosen, micronats(logit)),
            top: top.map(|(id, logit)| (id, micronats(logit))).collect(),
        }
    }

    /// The same with what the tokens are called.
    ///
    /// # Errors
    /// That of `name`.
    pub fn named(
        self,
        name: impl Fn(u32) -> Result<TokenName, EngineError>,
    ) -> Result<TokenLogprobs, EngineError> {
        let named = |(id, logprob_micronats)| {
            Ok::<_, EngineError>(TokenLogprob { token: name(id)?, logprob_micronats })
        };
        let top = self.top.into_iter().map(named).collect::<Result<_, _>>()?;
        Ok(TokenLogprobs { chosen: named(self.chosen)?, top })
    }
}

fn likeliest(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(count + 1);
    for (id, logit) in (0_u32..).zip(logits.iter().copied()) {
        if best.len() == count && best.last().is_none_or(|(_, least)| logit <= *least) {
            continue;
        }
        let place = best.partition_point(|(_, other)| *other >= logit);
        best.insert(place, (id, logit));
        best.truncate(count);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_a_softmax() {
        // e^0 : e^ln(3) : e^0 is 1 : 3 : 1.
        let row = [0.0, 3.0_f32.ln(), 0.0, f32::NEG_INFINITY];
        let found = RowLogprobs::new(&row, 2, 4);
        let (fifth, most) = (-1_609_438, -510_826);
        assert_eq!(found.chosen, (2, fifth));
        assert_eq!(found.top, [(1, most), (0, fifth), (2, fifth), (3, MIN_LOGPROB_MICRONATS)]);
        // Large logits neither overflow nor lose their differences.
        let high: Vec<f32> = row.iter().map(|logit| logit + 1000.0).collect();
        assert!((RowLogprobs::new(&high, 1, 0).chosen.1 - most).abs() < 100);
        assert!(RowLogprobs::new(&row, 1, 0).top.is_empty());
        let certain = RowLogprobs::new(&[100.0, -4.0], 1, 1);
        assert_eq!((certain.chosen.1, certain.top[0]), (-104_000_000, (0, 0)));
    }

    proptest::proptest! {
        #[test]
        fn the_top_is_what_sorting_finds(row in proptest::collection::vec(-9_i8..9, 1..60), count in 0_usize..25) {
            let row: Vec<f32> = row.into_iter().map(f32::from).collect();
            let mut sorted: Vec<(u32, f32)> = (0..).zip(row.iter().copied()).collect();
            sorted.sort_by(|one, other| other.1.total_cmp(&one.1));
            sorted.truncate(count);
            proptest::prop_assert_eq!(likeliest(&row, count), sorted);
        }
    }
}
