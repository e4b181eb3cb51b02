//! Measures what a token costs: `cargo run --release -p assay-proof --example token_cost`.
//!
//! Logits are normal with a deviation of 2.5 over a vocabulary of 151,936 and a few likely ids above them,
//! about what a language model gives; each row is another.
#![allow(clippy::print_stdout)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use assay_proof::{Sampler, SamplingError, Scorer};
use assay_types::{B256, Sampling};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const VOCABULARY: usize = 151_936;
const ROWS: usize = 8;
const ROUNDS: usize = 100;

/// A sum of uniforms is normal enough.
fn normal(generator: &mut ChaCha8Rng) -> f32 {
    (0..12).map(|_| generator.random::<f32>()).sum::<f32>() - 6.0
}

fn rows() -> Vec<Vec<f32>> {
    let mut generator = ChaCha8Rng::from_seed([7; 32]);
    (0..ROWS)
        .map(|_| {
            let mut row: Vec<f32> = (0..VOCABULARY).map(|_| 2.5 * normal(&mut generator)).collect();
            for rank in 0..20_u8 {
                let id = generator.random_range(0..VOCABULARY);
                if let Some(logit) = row.get_mut(id) {
                    *logit = 18.0 - 0.7 * f32::from(rank) + normal(&mut generator);
                }
            }
            row
        })
        .collect()
}

/// The mean over rows of the fastest of several rounds: what else runs on the machine does not count.
/// `prepare` makes what serves one round, row by row.
fn fastest<F: FnMut(usize, &[f32]) -> Result<(), SamplingError>>(
    rows: &[Vec<f32>],
    prepare: impl Fn() -> Result<F, SamplingError>,
) -> Result<String, SamplingError> {
    let mut best = [Duration::MAX; ROWS];
    for _ in 0..ROUNDS {
        let mut serve = prepare()?;
        for ((number, row), best) in rows.iter().enumerate().zip(&mut best) {
            let start = Instant::now();
            serve(number, row)?;
            *best = (*best).min(start.elapsed());
        }
    }
    let mean = best.iter().sum::<Duration>().as_secs_f64() / ROWS as f64;
    Ok(format!("{:8.1} us", mean * 1e6))
}

fn main() -> Result<(), SamplingError> {
    let rows = rows();
    let plain = Sampling::default();
    let kinds = [
        ("temperature 1", plain),
        ("temperature 0", Sampling { temperature_milli: 0, ..plain }),
        ("temperature 2", Sampling { temperature_milli: 2000, ..plain }),
        ("0.7, top_p 0.95", Sampling { temperature_milli: 700, top_p_milli: 950, ..plain }),
        ("0.7, top_k 40", Sampling { temperature_milli: 700, top_k: 40, ..plain }),
        ("1, penalties", Sampling { frequency_penalty_milli: 500, ..plain }),
    ];
    println!("{:16} {:>11} {:>11}", "a token", "sampled", "scored");
    for (name, sampling) in kinds {
        let sampler = || Sampler::new(sampling, B256::repeat_byte(1), VOCABULARY as u32);
        let mut once = sampler()?;
        let ids = rows.iter().map(|row| once.next(row)).collect::<Result<Vec<_>, _>>()?;
        let sampled = fastest(&rows, || {
            let mut sampler = sampler()?;
            Ok(move |_, row: &[f32]| sampler.next(row).map(|id| _ = black_box(id)))
        })?;
        let scored = fastest(&rows, || {
            let mut scorer = Scorer::new(sampling, B256::repeat_byte(1), VOCABULARY as u32)?;
            let ids = &ids;
            Ok(move |number: usize, row: &[f32]| {
                let id = ids.get(number).copied().unwrap_or_default();
                scorer.score(row, id).map(|score| _ = black_box(score))
            })
        })?;
        println!("{name:16} {sampled} {scored}");
    }
    Ok(())
}
