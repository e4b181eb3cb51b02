//! The sampler against a slow one that draws all noise and sorts all logits.

use std::collections::HashMap;

use assay_proof::{Noise, Sampler, SamplingError, temperature};
use assay_types::{B256, Sampling};
use proptest::prelude::*;

/// proof.md word by word, without any shortcut.
struct Slow {
    sampling: Sampling,
    noise: Noise,
    counts: HashMap<usize, i64>,
    step: u64,
}

impl Slow {
    fn next(&mut self, raw: &[f32]) -> u32 {
        self.step += 1;
        let logits: Vec<f32> = raw
            .iter()
            .enumerate()
            .map(|(id, logit)| match self.counts.get(&id) {
                None => *logit,
                Some(count) => {
                    let milli = i64::from(self.sampling.frequency_penalty_milli) * count
                        + i64::from(self.sampling.presence_penalty_milli);
                    (f64::from(*logit) - milli as f64 / 1000.0) as f32
                }
            })
            .collect();
        let t = temperature(&self.sampling);
        let mut noise = self.noise.row(self.step);
        let scores = self
            .allowed(&logits, t)
            .into_iter()
            .map(|id| (f64::from(logits[id]) + t * noise.get(id as u32), id));
        let (_, id) = scores.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1))).unwrap();
        *self.counts.entry(id).or_insert(0) += 1;
        id as u32
    }

    fn allowed(&self, logits: &[f32], t: f64) -> Vec<usize> {
        let mut ids: Vec<usize> = (0..logits.len()).collect();
        ids.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
        let max = f64::from(logits[ids[0]]);
        if self.sampling.top_k > 0 {
            ids.truncate(self.sampling.top_k as usize);
        }
        let weight = |id: &usize| ((f64::from(logits[*id]) - max) / t).exp();
        if self.sampling.top_p_milli < 1000 {
            let mut by_id = ids.clone();
            by_id.sort_unstable();
            let target = f64::from(self.sampling.top_p_milli) / 1000.0
                * by_id.iter().map(weight).sum::<f64>();
            let mut sum = 0.0;
            let enough = ids.iter().position(|id| {
                sum += weight(id);
                sum >= target
            });
            ids.truncate(enough.map_or(ids.len(), |at| at + 1));
        }
        if self.sampling.min_p_milli > 0 {
            let floor = (f64::from(self.sampling.min_p_milli) / 1000.0).ln() * t;
            ids.retain(|id| f64::from(logits[*id]) - max >= floor);
        }
        ids
    }
}

pub fn sampling() -> impl Strategy<Value = Sampling> {
    (
        prop_oneof![Just(0_u32), Just(1), Just(1000), 2_u32..2000],
        prop_oneof![Just(1000_u32), 1_u32..1000],
        prop_oneof![Just(0_u32), 1_u32..100],
        prop_oneof![Just(0_u32), 1_u32..=1000],
        prop_oneof![Just(0_i32), -2000_i32..=2000],
        prop_oneof![Just(0_i32), -2000_i32..=2000],
    )
        .prop_map(|(t, p, k, m, frequency, presence)| Sampling {
            temperature_milli: t,
            top_p_milli: p,
            top_k: k,
            min_p_milli: m,
            frequency_penalty_milli: frequency,
            presence_penalty_milli: presence,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn drawing_only_what_can_win_changes_nothing(
        seed: [u8; 32],
        sampling in sampling(),
        // Flat, peaked and far-apart distributions.
        scale in prop_oneof![Just(0.01_f32), Just(1.0), Just(10.0), Just(60.0)],
        rows in prop::collection::vec(prop::collection::vec(-1.0_f32..1.0, 257), 1..5),
    ) {
        let mut fast = Sampler::new(sampling, B256::from(seed), 257).unwrap();
        let mut slow =
            Slow { sampling, noise: Noise::new(B256::from(seed)), counts: HashMap::new(), step: 0 };
        for row in rows {
            let mut row: Vec<f32> = row.iter().map(|l| l * scale).collect();
            let want = slow.next(&row);
            // Padding of the model's output is not looked at.
            row.extend([f32::NAN, 1e30]);
            prop_assert_eq!(fast.next(&row).unwrap(), want);
        }
    }

    #[test]
    fn any_row_gives_a_possible_id_or_an_error(
        seed: [u8; 32],
        sampling in sampling(),
        row in prop::collection::vec(any::<f32>(), 1..40),
    ) {
        let mut sampler = Sampler::new(sampling, B256::from(seed), 20).unwrap();
        if let Ok(id) = sampler.next(&row) {
            prop_assert!(id < 20 && row[id as usize] > f32::NEG_INFINITY);
        }
    }
}

/// The luckiest id of two million beats the likeliest from more than 15 T below: cutting the window of
/// candidates short changes tokens.
#[test]
fn an_id_far_below_the_maximum_can_win() {
    let mut found = 0;
    for step in 1..=4_u64 {
        let mut row = Noise::new(B256::ZERO).row(step);
        let best = (0..2_000_000_u32)
            .map(|id| (row.get(id), id))
            .fold((0.0, 0), |a, b| if b.0 > a.0 { b } else { a });
        // The likeliest id of its own, with the least lucky noise among the first thousand.
        let worst = (0..1000_u32)
            .map(|id| (row.get(id), id))
            .fold((9.0, 0), |a, b| if b.0 < a.0 { b } else { a });
        let gap = ((best.0 - worst.0) * 0.99) as f32;
        let mut logits = vec![-1000.0_f32; 2_000_000];
        logits[worst.1 as usize] = 0.0;
        logits[best.1 as usize] = -gap;
        let mut sampler = Sampler::new(Sampling::default(), B256::ZERO, 2_000_000).unwrap();
        for _ in 1..step {
            sampler.next(&logits).unwrap();
        }
        assert_eq!(sampler.next(&logits).unwrap(), best.1);
        found = found.max((gap * 1000.0) as u32);
    }
    assert!(found > 15_000, "{found}");
}

#[test]
fn bad_rows_are_errors() {
    let sampler = || Sampler::new(Sampling::default(), B256::ZERO, 3).unwrap();
    let error = sampler().next(&[0.0, f32::NAN, 0.0]).unwrap_err();
    assert!(matches!(error, SamplingError::BadLogit { id: 1, step: 1, .. }), "{error}");
    let error = sampler().next(&[0.0, f32::INFINITY, 0.0]).unwrap_err();
    assert!(matches!(error, SamplingError::BadLogit { id: 1, .. }), "{error}");
    let error = sampler().next(&[f32::NEG_INFINITY; 3]).unwrap_err();
    assert_eq!(error, SamplingError::NothingAllowed { step: 1 });
    let error = sampler().next(&[0.0, 0.0]).unwrap_err();
    assert_eq!(error, SamplingError::ShortRow { got: 2, vocabulary: 3 });
    assert!(Sampler::new(Sampling::default(), B256::ZERO, 0).is_err());
    assert!(Sampler::new(Sampling::default(), B256::ZERO, u32::MAX).is_err());
    let hot = Sampling { temperature_milli: 2001, ..Sampling::default() };
    assert!(matches!(Sampler::new(hot, B256::ZERO, 3), Err(SamplingError::Parameters(_))));
    assert_eq!(sampler().next(&[f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY]), Ok(1));
}

#[test]
fn the_seed_decides() {
    let run = |byte: u8| -> Vec<u32> {
        let mut sampler = Sampler::new(Sampling::default(), B256::repeat_byte(byte), 1000).unwrap();
        (0..20).map(|_| sampler.next(&[0.0; 1000]).unwrap()).collect()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    let steps: std::collections::HashSet<u32> = run(1).into_iter().collect();
    assert!(steps.len() > 10, "each step has noise of its own");
}

#[test]
fn greedy_takes_the_maximum_and_breaks_near_ties_by_noise() {
    let greedy = Sampling { temperature_milli: 0, ..Sampling::default() };
    let pick = |byte: u8, row: &[f32]| {
        Sampler::new(greedy, B256::repeat_byte(byte), row.len() as u32).unwrap().next(row).unwrap()
    };
    assert!((0..=255).all(|byte| pick(byte, &[0.0, 2.0, 1.0]) == 1));
    let first = (0..=255).filter(|byte| pick(*byte, &[1.0, 1.0]) == 0).count();
    assert!((80..176).contains(&first), "{first}");
}
