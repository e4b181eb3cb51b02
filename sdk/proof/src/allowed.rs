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
pub(crate) fn rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// Whether anything but the noise decides which ids can be chosen.
pub(crate) fn restricts(sampling: &Sampling) -> bool {
    sampling.top_k > 0 || sampling.top_p_milli < 1000 || sampling.min_p_milli > 0
}

/// The candidates of a row whose logit is at least `floor`, ascending by id.
pub(crate) fn near(row: &Row<'_>, floor: f64, candidates: &mut Vec<Candidate>) {
    candidates.clear();
    candidates.extend(row.candidates().filter(|c| f64::from(c.logit) >= floor));
}

/// First prefix that top_p looks at; it grows fourfold until the mass is reached. Most distributions
/// are concentrated, and sorting a whole vocabulary costs more than the rest of the sampler.
const FIRST_PREFIX: usize = 64;

/// Where the allowed set ends. A verifier's logits differ a little from the miner's, and so may their
/// borders: these say how much they would have to differ for an id to be on the other side.
///
/// The measure is a difference of two logits, in nats, as it is for scores: if no logit differs by more
/// than `e`, no id that is further than `2e` from a border changes its side. top_p has two: the id falls
/// behind the first one outside (or rises to the last one inside), or the mass before it crosses the
/// border, whose odds `C / (Z - C)` change by a factor of `exp(2e / T)` at most.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Borders {
    top_k: Option<Edge>,
    top_p: Option<MassEdge>,
    /// The smallest logit that min_p allows.
    min_p: Option<f64>,
}

/// The ids on both sides of a border between ranks.
#[derive(Clone, Copy, Debug)]
struct Edge {
    inside: f64,
    outside: f64,
}

#[derive(Clone, Copy, Debug)]
struct MassEdge {
    edge: Edge,
    /// Logarithm of the odds of the mass that is asked for.
    odds: f64,
    /// Mass of all that top_p looked at, and of those ranked before the claimed id.
    total: f64,
    before_claimed: f64,
    temperature: f64,
}

impl MassEdge {
    /// Logarithm of the odds of `before`: -infinity of nothing, infinity of all (or more, by rounding).
    fn odds_of(&self, before: f64) -> f64 {
        let after = self.total - before;
        if after > 0.0 { (before / after).ln() } else { f64::INFINITY }
    }
}

impl Borders {
    /// How far `candidate`, which is outside or inside, would have to rise to be inside; 0 if it is.
    pub(crate) fn outside_by(&self, candidate: &Candidate) -> f64 {
        let logit = f64::from(candidate.logit);
        let rank = self.top_k.map_or(0.0, |edge| edge.inside - logit);
        let mass = self.top_p.map_or(0.0, |border| {
            let by_mass =
                border.temperature * (border.odds_of(border.before_claimed) - border.odds);
            by_mass.min(border.edge.inside - logit)
        });
        let floor = self.min_p.map_or(0.0, |floor| floor - logit);
        rank.max(mass).max(floor).max(0.0)
    }

    /// How far `candidate`, which is inside, would have to fall to be outside. `before` is the mass of
    /// the ids ranked before it, in the units of [`weight`].
    pub(crate) fn inside_by(&self, candidate: &Candidate, before: f64) -> f64 {
        let logit = f64::from(candidate.logit);
        let rank = self.top_k.map_or(f64::INFINITY, |edge| logit - edge.outside);
        let mass = self.top_p.map_or(f64::INFINITY, |border| {
            let by_mass = border.temperature * (border.odds - border.odds_of(before));
            by_mass.min(logit - border.edge.outside)
        });
        let floor = self.min_p.map_or(f64::INFINITY, |floor| logit - floor);
        rank.min(mass).min(floor).max(0.0)
    }
}

/// Probability of a candidate over that of the likeliest, whose logit is `max`.
pub(crate) fn weight(candidate: &Candidate, max: f32, temperature: f64) -> f64 {
    ((f64::from(candidate.logit) - f64::from(max)) / temperature).exp()
}

/// Leaves only the allowed candidates, ascending by id, and says where the set ends. `best` is the
/// likeliest, `temperature` is in use, `claimed` an id whose distance from the border is wanted.
pub(crate) fn restrict(
    candidates: &mut Vec<Candidate>,
    sampling: &Sampling,
    best: &Candidate,
    temperature: f64,
    claimed: &Candidate,
) -> Borders {
    let mut borders = Borders::default();
    let top_k = sampling.top_k as usize;
    if top_k > 0 && top_k < candidates.len() {
        let (_, last, rest) = candidates.select_nth_unstable_by(top_k - 1, rank);
        let outside = first(rest).map_or(f64::NEG_INFINITY, |c| f64::from(c.logit));
        borders.top_k = Some(Edge { inside: f64::from(last.logit), outside });
        candidates.truncate(top_k);
    }
    if sampling.top_p_milli < 1000 {
        let mass = f64::from(sampling.top_p_milli) / 1000.0;
        borders.top_p = cut_top_p(candidates, mass, best.logit, temperature, claimed);
    }
    if sampling.min_p_milli > 0 {
        // p(v) >= min_p * p(max), in logarithms.
        let below = (f64::from(sampling.min_p_milli) / 1000.0).ln() * temperature;
        candidates.retain(|c| f64::from(c.logit) - f64::from(best.logit) >= below);
        borders.min_p = Some(f64::from(best.logit) + below);
    }
    candidates.sort_unstable_by_key(|c| c.id);
    borders
}

/// The likeliest of these.
fn first(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates.iter().min_by(|a, b| rank(a, b))
}

/// The shortest ranked prefix whose probability reaches `mass`; never empty. No border if that is all.
fn cut_top_p(
    candidates: &mut Vec<Candidate>,
    mass: f64,
    max: f32,
    temperature: f64,
    claimed: &Candidate,
) -> Option<MassEdge> {
    let weight = |c: &Candidate| weight(c, max, temperature);
    // Summed in the order of ids: the same sum on every machine.
    candidates.sort_unstable_by_key(|c| c.id);
    let (mut total, mut before_claimed) = (0.0, 0.0);
    for candidate in candidates.iter() {
        let own = weight(candidate);
        total += own;
        before_claimed += if rank(candidate, claimed).is_lt() { own } else { 0.0 };
    }
    let target = mass * total;
    let mut prefix = FIRST_PREFIX;
    loop {
        let looked_at = prefix.min(candidates.len());
        if looked_at < candidates.len() {
            candidates.select_nth_unstable_by(looked_at, rank);
        }
        let (head, rest) = candidates.split_at_mut(looked_at);
        head.sort_unstable_by(rank);
        let mut sum = 0.0;
        let last = head.iter().position(|candidate| {
            sum += weight(candidate);
            sum >= target
        });
        if let Some(last) = last {
            let inside = head.get(last)?.logit;
            let outside = head.get(last + 1).or_else(|| first(rest)).map(|c| c.logit);
            candidates.truncate(last + 1);
            let edge = Edge { inside: f64::from(inside), outside: f64::from(outside?) };
            let odds = (mass / (1.0 - mass)).ln();
            return Some(MassEdge { edge, odds, total, before_claimed, temperature });
        }
        if looked_at == candidates.len() {
            return None;
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
        let best = *first(&set).unwrap();
        restrict(&mut set, &sampling, &best, crate::temperature(&sampling), &best);
        set.iter().map(|c| c.id).collect()
    }

    /// How far each id is inside the set, or outside of it as a negative number.
    fn depths(logits: &[f32], sampling: Sampling) -> Vec<f64> {
        let all = candidates(logits);
        let best = *first(&all).unwrap();
        let t = crate::temperature(&sampling);
        all.iter()
            .map(|claimed| {
                let mut set = all.clone();
                let borders = restrict(&mut set, &sampling, &best, t, claimed);
                if !set.contains(claimed) {
                    return -borders.outside_by(claimed);
                }
                assert_eq!(borders.outside_by(claimed), 0.0);
                let before = set.iter().filter(|c| rank(c, claimed).is_lt());
                borders.inside_by(claimed, before.map(|c| weight(c, best.logit, t)).sum())
            })
            .collect()
    }

    fn close(got: &[f64], want: &[f64]) {
        let near = |(a, b): (&f64, &f64)| a == b || (a - b).abs() < 1e-6;
        assert!(got.len() == want.len() && got.iter().zip(want).all(near), "{got:?}, not {want:?}");
    }

    #[test]
    fn distances_from_a_border_of_ranks_are_differences_of_logits() {
        let sampling = Sampling { top_k: 2, ..Sampling::default() };
        close(&depths(&[4.0, 1.0, 3.0, 2.5], sampling), &[1.5, -2.0, 0.5, -0.5]);
        close(&depths(&[1.0, 1.0, 1.0], sampling), &[0.0, 0.0, 0.0]);
    }

    #[test]
    fn distances_from_min_p_are_from_its_floor() {
        let sampling = Sampling { min_p_milli: 500, ..Sampling::default() };
        let half = 2_f64.ln();
        close(&depths(&[0.0, -0.5, -1.0], sampling), &[half, half - 0.5, half - 1.0]);
    }

    #[test]
    fn distances_from_top_p_are_the_smaller_of_rank_and_mass() {
        let odds = |p: f64| (p / (1.0 - p)).ln();
        let sampling = Sampling { top_p_milli: 600, ..Sampling::default() };
        // 0.5 and 0.25 are inside. The second falls behind the third by ln(0.25 / 0.15), or out when
        // what is before it, 0.5, becomes 0.6. The third has 0.75 before it.
        let got = depths(&[ln(0.1), ln(0.5), ln(0.25), ln(0.15)], sampling);
        let second = odds(0.6) - odds(0.5);
        let third = (0.25_f64 / 0.15).ln();
        close(&got, &[(0.1_f64 / 0.25).ln(), (0.5_f64 / 0.15).ln(), second, -third]);
        // The second is just outside: a little less before it, and it is inside.
        let sampling = Sampling { top_p_milli: 580, ..Sampling::default() };
        let got = depths(&[ln(0.59), ln(0.3), ln(0.11)], sampling);
        close(&got[1..2], &[odds(0.58) - odds(0.59)]);
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
