//! The choice of a token: `y_t = argmax over the allowed set of  l[v] + T * g[t, v]`.
//!
//! `l` are the model's logits after penalties, in f32 and without the ids that only pad the model's
//! output; scores are f64. Temperature 0 uses [`GREEDY_TEMPERATURE`]: a greedy choice whose near-ties
//! break differently on every node. Of equal scores the lower id wins.
//!
//! # What is drawn
//! Noise lies between [`GUMBEL_MIN`] and [`GUMBEL_MAX`], 41 apart. The likeliest id's noise is drawn
//! first; from then on an id is skipped only if even the largest noise would leave it below the best
//! score so far. That is exact. A fixed window of `20 T` below the maximum is not: in a vocabulary of
//! 150,000 the ids below it win about once in 3,000 steps in the worst case (`V * e^-20`), and an
//! auditor who draws them all would then find another token. Of the noise that is drawn, most is not
//! computed: the leading bits of its word already bound it ([`NoiseRow::reaching`](crate::NoiseRow)).

use assay_types::{B256, Sampling, seed_f};

use crate::{
    allowed::{Candidate, near, restrict, restricts},
    contrasts::{Contrasts, Pairs, Width},
    noise::{GUMBEL_MAX, GUMBEL_MIN, Noise},
    row::Rows,
};

/// Version of this arithmetic, part of a model manifest: any change that can change a token changes it.
pub const SAMPLER_VERSION: u32 = 1;
/// The temperature in use when 0 is asked for.
pub const GREEDY_TEMPERATURE: f64 = 0.02;
/// Largest vocabulary: several times that of any published model, and a bound on the work of one step.
pub const MAX_VOCABULARY: u32 = 1 << 21;

/// Why no token can be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SamplingError {
    /// A logit is NaN or +infinity: the engine computed something wrong.
    #[error(
        "the logit of token {id} at step {step} is {value}: the model's weights or its arithmetic are broken; check the model files, and use f32 if a half-precision type overflows"
    )]
    BadLogit {
        /// Step, from 1.
        step: u64,
        /// Token id.
        id: u32,
        /// What was found.
        value: String,
    },
    /// Every logit is -infinity.
    #[error("no token is possible at step {step}: every logit is -infinity; check the model files")]
    NothingAllowed {
        /// Step, from 1.
        step: u64,
    },
    /// The row is shorter than the vocabulary.
    #[error(
        "the model gives {got} logits, its tokenizer has {vocabulary} tokens: model and tokenizer do not belong together"
    )]
    ShortRow {
        /// Logits in the row.
        got: usize,
        /// Tokens of the tokenizer.
        vocabulary: u32,
    },
    /// The vocabulary's size is impossible.
    #[error(
        "a vocabulary of {0} tokens is outside 2 to {MAX_VOCABULARY}: check the tokenizer file"
    )]
    Vocabulary(u32),
    /// A sampling parameter is out of bounds.
    #[error("{0}")]
    Parameters(String),
}

/// The temperature in use, as a factor of the noise.
pub fn temperature(sampling: &Sampling) -> f64 {
    match sampling.temperature_milli {
        0 => GREEDY_TEMPERATURE,
        milli => f64::from(milli) / 1000.0,
    }
}

/// A token, and the fingerprint of the logits that it was chosen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The token.
    pub id: u32,
    /// The contrasts of this position.
    pub contrasts: Contrasts,
}

/// Chooses the tokens of one generation, step by step, and records their contrasts.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    rows: Rows,
    noise: Noise,
    pairs: Pairs,
    /// Kept between steps, so that a step allocates nothing.
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler whose noise follows from `seed`, which is `seedG`, over the first `vocabulary` ids: the
    /// size of the tokenizer, not of the model's padded output. It records four contrasts a position.
    ///
    /// # Errors
    /// If the vocabulary's size or a sampling parameter is impossible.
    pub fn new(sampling: Sampling, seed: B256, vocabulary: u32) -> Result<Self, SamplingError> {
        let rows = Rows::new(sampling, vocabulary)?;
        let pairs = Pairs::new(seed_f(seed), vocabulary, Width::default());
        Ok(Self { sampling, rows, noise: Noise::new(seed), pairs, candidates: Vec::new() })
    }

    /// The same sampler, recording this many contrasts a position.
    pub fn with_width(self, width: Width) -> Self {
        Self { pairs: self.pairs.with_width(width), ..self }
    }

    /// Steps done so far.
    pub fn steps(&self) -> u64 {
        self.rows.steps()
    }

    /// Chooses the token of the next step and counts it for the penalties.
    ///
    /// # Errors
    /// If the row is too short, has no possible token, or has a logit that is NaN or +infinity.
    pub fn next(&mut self, logits: &[f32]) -> Result<u32, SamplingError> {
        Ok(self.step(logits)?.id)
    }

    /// As [`next`](Self::next), with the fingerprint.
    ///
    /// # Errors
    /// The same.
    pub fn step(&mut self, logits: &[f32]) -> Result<Step, SamplingError> {
        let row = self.rows.next(logits)?;
        let t = temperature(&self.sampling);
        let mut noise = self.noise.row(row.step);
        let contrasts = self.pairs.contrasts(row.step, row.logits);
        let best = row.best;

        let mut winner = best.id;
        let mut score = f64::from(best.logit) + t * noise.get(best.id);
        let mut consider = |Candidate { id, logit }| {
            if let Some(drawn) = noise.reaching(id, (score - f64::from(logit)) / t) {
                let other = f64::from(logit) + t * drawn;
                if other > score || (other == score && id < winner) {
                    (winner, score) = (id, other);
                }
            }
        };
        if restricts(&self.sampling) {
            // No noise lifts an id from below this line over the likeliest id, whatever its noise is;
            // nor has all that lies below it a mass that top_p could feel (less than V * e^-41).
            let floor = f64::from(best.logit) - t * (GUMBEL_MAX - GUMBEL_MIN);
            near(&row, floor, &mut self.candidates);
            restrict(&mut self.candidates, &self.sampling, &best, t, &best);
            self.candidates.iter().copied().for_each(consider);
        } else {
            row.candidates().for_each(&mut consider);
        }
        self.rows.count(winner);
        Ok(Step { id: winner, contrasts })
    }
}
