//! What a verifier's logits say about a token that somebody claims to have sampled: the margin of "G",
//! and the verifier's own contrasts for "F".
//!
//! ```text
//! m_t = max over the allowed v of  (l'[v] + T * g[t, v])  -  (l'[y_t] + T * g[t, y_t])
//! ```
//!
//! `l'` are the verifier's logits after penalties, which are replayed on the claimed ids. The margin is 0
//! where the verifier would have chosen the same token, and small where its logits differ a little from
//! the miner's: with no logit off by more than `e` no honest margin exceeds `2e`. An id that no seed could
//! choose has an infinite one.
//!
//! # The border of the allowed set
//! top_k, top_p and min_p end the set at a border, which the miner may have seen a little elsewhere. There
//! is no slack to set apart from the thresholds: the border is judged in the same measure as the scores,
//! by how much two logits would have to differ.
//!
//! - A claimed id outside the set has a margin of at least its distance from the border.
//! - Another id counts no more than its own distance from the border: the miner may not have had it.
//!
//! So an honest id beyond the border has a small margin like any near-tie, `hardMargin` of the calibration
//! is the slack at the border, and one measurement of honest margins sets both.

use assay_types::{B256, Sampling, seed_f};

use crate::{
    SamplingError,
    allowed::{Candidate, near, rank, restrict, restricts, weight},
    contrasts::{Contrasts, Pairs, Width},
    noise::{GUMBEL_MAX, GUMBEL_MIN, Noise},
    row::{Row, Rows},
    temperature,
};

/// One nat in the units of margins that are hashed and compared: 1/65536 nat.
pub const MARGINS_PER_NAT: f64 = 65536.0;

/// What a verifier finds at one position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// How far the claimed token is from the chosen one, in nats: 0 or more, infinite if it is impossible.
    pub margin: f64,
    /// The verifier's contrasts.
    pub contrasts: Contrasts,
}

/// A margin in units of 1/65536 nat, rounded; the largest value for all that is larger, and for what is no
/// number.
pub fn margin_units(nats: f64) -> u32 {
    let units = (nats * MARGINS_PER_NAT).round();
    // Written so that NaN is not below.
    if units < f64::from(u32::MAX) { units as u32 } else { u32::MAX }
}

/// Scores the claimed tokens of one answer, position by position.
#[derive(Clone, Debug)]
pub struct Scorer {
    sampling: Sampling,
    rows: Rows,
    noise: Noise,
    pairs: Pairs,
    /// Kept between steps, so that a step allocates nothing.
    candidates: Vec<Candidate>,
    /// The allowed ids, and how far each is inside the set.
    reachable: Vec<(Candidate, f64)>,
}

impl Scorer {
    /// A verifier of an answer that was sampled with `seed`, which is `seedG`, over the first `vocabulary`
    /// ids.
    ///
    /// # Errors
    /// If the vocabulary's size or a sampling parameter is impossible.
    pub fn new(sampling: Sampling, seed: B256, vocabulary: u32) -> Result<Self, SamplingError> {
        Ok(Self {
            sampling,
            rows: Rows::new(sampling, vocabulary)?,
            noise: Noise::new(seed),
            pairs: Pairs::new(seed_f(seed), vocabulary, Width::default()),
            candidates: Vec::new(),
            reachable: Vec::new(),
        })
    }

    /// The same scorer, with this many contrasts a position.
    pub fn with_width(self, width: Width) -> Self {
        Self { pairs: self.pairs.with_width(width), ..self }
    }

    /// Scores the token claimed at the next position, from the logits that precede it. An id outside the
    /// vocabulary is impossible, not an error.
    ///
    /// # Errors
    /// If the row is too short, has no possible token, or has a logit that is NaN or +infinity: then the
    /// verifier's own engine is broken, and nothing is said about the claim.
    pub fn score(&mut self, logits: &[f32], claimed: u32) -> Result<Score, SamplingError> {
        let row = self.rows.next(logits)?;
        let contrasts = self.pairs.contrasts(row.step, row.logits);
        let possible = row.logits.get(claimed as usize).filter(|l| l.is_finite());
        let Some(logit) = possible.copied() else {
            return Ok(Score { margin: f64::INFINITY, contrasts });
        };
        let claim = Candidate { id: claimed, logit };
        let t = temperature(&self.sampling);
        let mut noise = self.noise.row(row.step);
        let own = f64::from(logit) + t * noise.get(claimed);
        let mut margin: f64 = 0.0;
        let mut consider = |Candidate { id, logit }, inside_by: f64| {
            if inside_by > margin
                && let Some(drawn) = noise.reaching(id, (own + margin - f64::from(logit)) / t)
            {
                let ahead = f64::from(logit) + t * drawn - own;
                margin = margin.max(ahead.min(inside_by));
            }
        };
        if restricts(&self.sampling) {
            let (borders, reachable) = (&mut self.candidates, &mut self.reachable);
            let outside_by = measure(&row, &self.sampling, &claim, borders, reachable);
            self.reachable
                .iter()
                .for_each(|(candidate, inside_by)| consider(*candidate, *inside_by));
            margin = margin.max(outside_by);
        } else {
            row.candidates().for_each(|candidate| consider(candidate, f64::INFINITY));
        }
        self.rows.count(claimed);
        Ok(Score { margin, contrasts })
    }
}

/// Finds the allowed ids, ascending, each with how far it is inside the set, and how far the claimed one is
/// outside.
fn measure(
    row: &Row<'_>,
    sampling: &Sampling,
    claim: &Candidate,
    candidates: &mut Vec<Candidate>,
    reachable: &mut Vec<(Candidate, f64)>,
) -> f64 {
    let (best, t) = (row.best, temperature(sampling));
    // As in the sampler: what lies below this line could win in no one's eyes.
    near(row, f64::from(best.logit) - t * (GUMBEL_MAX - GUMBEL_MIN), candidates);
    let borders = restrict(candidates, sampling, &best, t, claim);
    candidates.sort_unstable_by(rank);
    reachable.clear();
    let mut before = 0.0;
    for candidate in candidates.iter() {
        reachable.push((*candidate, borders.inside_by(candidate, before)));
        before += weight(candidate, best.logit, t);
    }
    // Noise is cheapest in the order of ids.
    reachable.sort_unstable_by_key(|(candidate, _)| candidate.id);
    borders.outside_by(claim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_round_and_saturate() {
        assert_eq!(margin_units(0.0), 0);
        assert_eq!(margin_units(0.5), 32768);
        assert_eq!(margin_units(0.4 / 65536.0), 0);
        assert_eq!(margin_units(0.6 / 65536.0), 1);
        assert_eq!(margin_units(65_535.999_999), u32::MAX);
        assert_eq!(margin_units(f64::INFINITY), u32::MAX);
        assert_eq!(margin_units(f64::NAN), u32::MAX);
    }
}
