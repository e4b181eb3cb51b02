//! The scorer against a slow one that follows its definition, and against the sampler.

use assay_proof::{Noise, Sampler, SamplingError, Scorer, Width, margin_units, temperature};
use assay_types::{B256, Sampling};
use proptest::prelude::*;

use crate::reference::sampling;

const VOCABULARY: u32 = 257;

fn rows() -> impl Strategy<Value = Vec<Vec<f32>>> {
    let scale = prop_oneof![Just(0.01_f32), Just(1.0), Just(10.0), Just(60.0)];
    let row = prop::collection::vec(-1.0_f32..1.0, VOCABULARY as usize);
    (prop::collection::vec(row, 1..5), scale).prop_map(|(mut rows, scale)| {
        rows.iter_mut().flatten().for_each(|logit| *logit *= scale);
        rows
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_the_sampler_chose_has_no_margin(seed: [u8; 32], sampling in sampling(), rows in rows()) {
        let mut sampler = Sampler::new(sampling, B256::from(seed), VOCABULARY).unwrap();
        let mut scorer = Scorer::new(sampling, B256::from(seed), VOCABULARY).unwrap();
        for mut row in rows {
            let step = sampler.step(&row).unwrap();
            // Padding of the model's output is not looked at.
            row.extend([f32::NAN, 1e30]);
            let score = scorer.score(&row, step.id).unwrap();
            prop_assert_eq!(score.margin, 0.0);
            prop_assert_eq!(score.contrasts, step.contrasts);
        }
    }

    /// The margin of an honest token is at most twice the difference of any logit, wherever the borders are.
    #[test]
    fn honest_margins_are_bounded_by_the_noise(
        seed: [u8; 32],
        sampling in sampling(),
        rows in rows(),
        noise in prop::collection::vec(-1.0_f32..1.0, VOCABULARY as usize),
        size in prop_oneof![Just(1e-5_f32), Just(1e-3), Just(0.03)],
    ) {
        let mut sampler = Sampler::new(sampling, B256::from(seed), VOCABULARY).unwrap();
        let mut scorer = Scorer::new(sampling, B256::from(seed), VOCABULARY).unwrap();
        for row in rows {
            let id = sampler.next(&row).unwrap();
            let other: Vec<f32> = row.iter().zip(&noise).map(|(l, n)| l + n * size).collect();
            let most = row.iter().zip(&other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let margin = scorer.score(&other, id).unwrap().margin;
            // Rounding of penalties and of sums aside.
            prop_assert!(margin <= 2.0 * f64::from(most) * 1.000_01 + 1e-4, "{margin} of {most}");
        }
    }

    /// Without a border the margin is the plain difference of scores.
    #[test]
    fn margins_are_differences_of_scores(
        seed: [u8; 32],
        milli in prop_oneof![Just(0_u32), Just(500), Just(1000), Just(2000)],
        rows in rows(),
        claimed in 0..VOCABULARY,
    ) {
        let sampling = Sampling { temperature_milli: milli, ..Sampling::default() };
        let t = temperature(&sampling);
        let mut scorer = Scorer::new(sampling, B256::from(seed), VOCABULARY).unwrap();
        for (step, row) in (1_u64..).zip(rows) {
            let mut noise = Noise::new(B256::from(seed)).row(step);
            let scores: Vec<f64> =
                (0..VOCABULARY).map(|id| f64::from(row[id as usize]) + t * noise.get(id)).collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let margin = scorer.score(&row, claimed).unwrap().margin;
            prop_assert!((margin - (most - scores[claimed as usize])).abs() < 1e-9);
        }
    }

    #[test]
    fn any_row_and_any_claim_give_a_margin_or_an_error(
        seed: [u8; 32],
        sampling in sampling(),
        row in prop::collection::vec(any::<f32>(), 1..40),
        claimed in prop_oneof![0_u32..30, any::<u32>()],
    ) {
        let mut scorer = Scorer::new(sampling, B256::from(seed), 20).unwrap();
        if let Ok(score) = scorer.score(&row, claimed) {
            prop_assert!(score.margin >= 0.0);
            prop_assert!(claimed < 20 || score.margin == f64::INFINITY);
        }
    }
}

fn scorer(sampling: Sampling) -> Scorer {
    Scorer::new(sampling, B256::repeat_byte(3), 4).unwrap()
}

#[test]
fn impossible_tokens_have_infinite_margins() {
    let masked = [f32::NEG_INFINITY, 1.0, 0.0, 0.5];
    for claimed in [0, 4, u32::MAX] {
        let score = scorer(Sampling::default()).score(&masked, claimed).unwrap();
        assert_eq!(margin_units(score.margin), u32::MAX);
    }
}

#[test]
fn a_token_outside_the_set_has_its_distance_from_the_border() {
    let row = [5.0, 4.0, 1.0, 0.0];
    let top_k = Sampling { top_k: 2, ..Sampling::default() };
    // Over many seeds the token outside sometimes has the best score, and still its distance counts.
    let mut least = f64::INFINITY;
    for byte in 0..=255 {
        let mut scorer = Scorer::new(top_k, B256::repeat_byte(byte), 4).unwrap();
        least = least.min(scorer.score(&row, 2).unwrap().margin);
    }
    assert_eq!(least, 3.0);
}

#[test]
fn a_token_that_the_other_side_may_not_have_counts_by_its_depth() {
    // The second and the third are nearly equal, only one of them is in the set.
    let row = [0.0, -0.001, -0.002, -9.0];
    let top_k = Sampling { top_k: 2, ..Sampling::default() };
    for byte in 0..=255 {
        let mut mine = Sampler::new(top_k, B256::repeat_byte(byte), 4).unwrap();
        let id = mine.next(&[0.0, -0.002, -0.001, -9.0]).unwrap();
        let mut theirs = Scorer::new(top_k, B256::repeat_byte(byte), 4).unwrap();
        let margin = theirs.score(&row, id).unwrap().margin;
        assert!(margin <= 0.002_001, "{margin}");
    }
}

#[test]
fn penalties_are_replayed_on_the_claimed_ids() {
    let sampling =
        Sampling { temperature_milli: 0, presence_penalty_milli: 2000, ..Sampling::default() };
    let row = [5.0, 4.0, 0.0, 0.0];
    let mut scorer = scorer(sampling);
    let margins: Vec<f64> =
        [0, 1, 0].iter().map(|id| scorer.score(&row, *id).unwrap().margin).collect();
    // First 5 against 4; then 3 against 4; then 3 against 2.
    assert_eq!(margins, [0.0; 3]);
    assert!(scorer.score(&row, 1).unwrap().margin > 0.8);
}

#[test]
fn a_broken_row_says_nothing_about_the_claim() {
    let error = scorer(Sampling::default()).score(&[0.0, f32::NAN, 0.0, 0.0], 0).unwrap_err();
    assert!(matches!(error, SamplingError::BadLogit { id: 1, step: 1, .. }), "{error}");
    let error = scorer(Sampling::default()).score(&[0.0; 3], 0).unwrap_err();
    assert_eq!(error, SamplingError::ShortRow { got: 3, vocabulary: 4 });
}

#[test]
fn the_width_is_that_of_the_model() {
    let mut scorer = scorer(Sampling::default()).with_width(Width::Two);
    assert_eq!(scorer.score(&[0.0; 4], 0).unwrap().contrasts.values().len(), 2);
}
