//! The allowed set: which ids top_k, top_p and min_p leave, from the logits alone.
//!
//! The order is fixed, so that a verifier finds the same set: temperature, then top_k, then top_p over
//! what top_k left (its mass counted as 1), then min_p. Ids are ranked by logit, equal ones by id.

use std::cmp::Ordering;

use assay_types::Sampling;

use crate::row::Row;

/// An id and its logit after penalties.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub id: u32,
    pub logit: f32,
}

/// Likelier first; equal ones by id.
fn rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// The candidates of a row whose logit is at least `floor`, ascending by id.
pub(crate) fn near(row: &Row<'_>, floor: f64, candidates: &mut Vec<Candidate>) {
    candidates.clear();
    let all = (0_u32..).zip(row.logits).map(|(id, logit)| Candidate { id, logit: *logit });
    candidates.extend(all.filter(|c| f64::from(c.logit) >= floor));
}

/// First prefix that top_p looks at; it grows fourfold until the mass is reached. Most distributions
/// are concentrated, and sorting a whole vocabulary costs more than the rest of the sampler.
const FIRST_PREFIX: usize = 64;

/// Leaves only the allowed candidates. `max` is the largest logit, `temperature` is in use.
pub(crate) fn restrict(
    candidates: &mut Vec<Candidate>,
    sampling: &Sampling,
    max: f32,
    temperature: f64,
) {
    let top_k = sampling.top_k as usize;
    if top_k > 0 && top_k < candidates.len() {
        candidates.select_nth_unstable_by(top_k - 1, rank);
        candidates.truncate(top_k);
    }
    if sampling.top_p_milli < 1000 {
        let mass = f64::from(sampling.top_p_milli) / 1000.0;
        cut_top_p(candidates, mass, max, temperature);
    }
    if sampling.min_p_milli > 0 {
        // p(v) >= min_p * p(max), in logarithms.
        let floor = (f64::from(sampling.min_p_milli) / 1000.0).ln() * temperature;
        candidates.retain(|c| f64::from(c.logit) - f64::from(max) >= floor);
    }
    candidates.sort_unstable_by_key(|c| c.id);
}

/// The shortest ranked prefix whose probability reaches `mass`; never empty.
fn cut_top_p(candidates: &mut Vec<Candidate>, mass: f64, max: f32, temperature: f64) {
    let weight = |c: &Candidate| ((f64::from(c.logit) - f64::from(max)) / temperature).exp();
    // Summed in the order of ids: the same sum on every machine.
    candidates.sort_unstable_by_key(|c| c.id);
    let target = mass * candidates.iter().map(weight).sum::<f64>();
    let mut prefix = FIRST_PREFIX;
    loop {
        let looked_at = prefix.min(candidates.len());
        if looked_at < candidates.len() {
            candidates.select_nth_unstable_by(looked_at, rank);
        }
        let Some(head) = candidates.get_mut(..looked_at) else { return };
        head.sort_unstable_by(rank);
        let mut sum = 0.0;
        for (index, candidate) in head.iter().enumerate() {
            sum += weight(candidate);
            if sum >= target {
                candidates.truncate(index + 1);
                return;
            }
        }
        if looked_at == candidates.len() {
            return;
        }
        prefix = prefix.saturating_mul(4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(logits: &[f32]) -> Vec<Candidate> {
        logits.iter().zip(0..).map(|(logit, id)| Candidate { id, logit: *logit }).collect()
    }

    fn allowed(logits: &[f32], sampling: Sampling) -> Vec<u32> {
        let mut set = candidates(logits);
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        restrict(&mut set, &sampling, max, crate::temperature(&sampling));
        set.iter().map(|c| c.id).collect()
    }

    fn ln(p: f32) -> f32 {
        p.ln()
    }

    #[test]
    fn top_k_takes_the_likeliest_and_the_lower_id_of_equals() {
        let sampling = Sampling { top_k: 2, ..Sampling::default() };
        assert_eq!(allowed(&[1.0, 3.0, 3.0, 3.0], sampling), [1, 2]);
        let sampling = Sampling { top_k: 9, ..Sampling::default() };
        assert_eq!(allowed(&[1.0, 3.0], sampling), [0, 1]);
    }

    #[test]
    fn top_p_takes_the_id_that_reaches_the_mass() {
        let logits = [ln(0.1), ln(0.5), ln(0.25), ln(0.15)];
        for (top_p_milli, want) in
            [(1, vec![1]), (500, vec![1]), (501, vec![1, 2]), (800, vec![1, 2, 3])]
        {
            let sampling = Sampling { top_p_milli, ..Sampling::default() };
            assert_eq!(allowed(&logits, sampling), want, "{top_p_milli}");
        }
    }

    #[test]
    fn top_p_counts_the_mass_that_top_k_left_as_one() {
        let logits = [ln(0.4), ln(0.3), ln(0.2), ln(0.1)];
        // 0.4 of 0.7 is 0.571.
        let sampling = Sampling { top_k: 2, top_p_milli: 570, ..Sampling::default() };
        assert_eq!(allowed(&logits, sampling), [0]);
        let sampling = Sampling { top_k: 2, top_p_milli: 572, ..Sampling::default() };
        assert_eq!(allowed(&logits, sampling), [0, 1]);
    }

    #[test]
    fn min_p_is_relative_to_the_likeliest() {
        let logits = [ln(0.5), ln(0.26), ln(0.24)];
        let sampling = Sampling { min_p_milli: 500, ..Sampling::default() };
        assert_eq!(allowed(&logits, sampling), [0, 1]);
        let sampling = Sampling { min_p_milli: 1000, ..Sampling::default() };
        assert_eq!(allowed(&logits, sampling), [0]);
    }

    #[test]
    fn temperature_widens_top_p() {
        let logits = [ln(0.6), ln(0.2), ln(0.2)];
        let one = Sampling { top_p_milli: 550, ..Sampling::default() };
        assert_eq!(allowed(&logits, one), [0]);
        let two = Sampling { temperature_milli: 2000, ..one };
        assert_eq!(allowed(&logits, two), [0, 1]);
    }

    proptest::proptest! {
        #[test]
        fn a_growing_prefix_finds_what_a_full_sort_finds(
            logits in proptest::collection::vec(-6.0_f32..6.0, 1..900),
            top_p_milli in 1_u32..1000,
        ) {
            let sampling = Sampling { top_p_milli, ..Sampling::default() };
            let mut sorted = candidates(&logits);
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weight = |c: &Candidate| (f64::from(c.logit) - f64::from(max)).exp();
            let total: f64 = sorted.iter().map(weight).sum();
            sorted.sort_by(rank);
            let mut sum = 0.0;
            let mut want = Vec::new();
            for candidate in sorted {
                want.push(candidate.id);
                sum += weight(&candidate);
                if sum >= f64::from(top_p_milli) / 1000.0 * total { break; }
            }
            want.sort_unstable();
            proptest::prop_assert_eq!(allowed(&logits, sampling), want);
        }
    }
}
