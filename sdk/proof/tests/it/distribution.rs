//! Over many seeds the chosen tokens are distributed as the softmax says.

use assay_proof::{Sampler, temperature};
use assay_types::{B256, Sampling};

const DRAWS: u32 = 20_000;
/// Chi-square, 7 degrees of freedom: exceeded by chance once in 10,000. The seeds are fixed, so the
/// test passes always or never.
const LIMIT_7: f64 = 29.88;

fn seed(n: u32) -> B256 {
    let mut bytes = [0x5E; 32];
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    B256::from(bytes)
}

fn chi_square(sampling: Sampling, logits: &[f32], allowed: &[usize]) -> f64 {
    let t = temperature(&sampling);
    let mut counts = vec![0_u32; logits.len()];
    // Some seeds with many steps: both dimensions of the noise count.
    for n in 0..DRAWS / 20 {
        let mut sampler = Sampler::new(sampling, seed(n), logits.len() as u32).unwrap();
        for _ in 0..20 {
            counts[sampler.next(logits).unwrap() as usize] += 1;
        }
    }
    let weights: Vec<f64> = allowed.iter().map(|id| (f64::from(logits[*id]) / t).exp()).collect();
    let total: f64 = weights.iter().sum();
    let inside: u32 = allowed.iter().map(|id| counts[*id]).sum();
    assert_eq!(inside, DRAWS, "an id outside the allowed set was chosen");
    allowed
        .iter()
        .zip(&weights)
        .map(|(id, weight)| {
            let expected = f64::from(DRAWS) * weight / total;
            (f64::from(counts[*id]) - expected).powi(2) / expected
        })
        .sum()
}

const LOGITS: [f32; 8] = [1.0, 0.5, 0.0, -0.5, -1.0, 1.5, -2.0, 0.25];

#[test]
fn gumbel_max_is_the_softmax() {
    for milli in [500, 1000, 2000] {
        let sampling = Sampling { temperature_milli: milli, ..Sampling::default() };
        let value = chi_square(sampling, &LOGITS, &[0, 1, 2, 3, 4, 5, 6, 7]);
        assert!(value < LIMIT_7, "{value} at {milli}");
    }
}

#[test]
fn a_restricted_set_is_the_softmax_over_it() {
    let sampling = Sampling { top_k: 4, ..Sampling::default() };
    assert!(chi_square(sampling, &LOGITS, &[0, 1, 5, 7]) < LIMIT_7);
}

#[test]
fn the_test_would_notice_a_wrong_temperature() {
    // Draws at 1.1, expectation at 1.0.
    let drawn = Sampling { temperature_milli: 1100, ..Sampling::default() };
    let logits: Vec<f32> = LOGITS.iter().map(|l| l * 1.1).collect();
    assert!(chi_square(drawn, &logits, &[0, 1, 2, 3, 4, 5, 6, 7]) < LIMIT_7);
    let hotter: Vec<f32> = LOGITS.to_vec();
    let mut counts = [0_u32; 8];
    for n in 0..DRAWS {
        let mut sampler = Sampler::new(drawn, seed(n), 8).unwrap();
        counts[sampler.next(&hotter).unwrap() as usize] += 1;
    }
    let total: f64 = LOGITS.iter().map(|l| f64::from(*l).exp()).sum();
    let value: f64 = (0..8)
        .map(|id| {
            let expected = f64::from(DRAWS) * f64::from(LOGITS[id]).exp() / total;
            (f64::from(counts[id]) - expected).powi(2) / expected
        })
        .sum();
    assert!(value > LIMIT_7, "{value}");
}
