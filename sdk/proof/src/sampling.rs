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
//! auditor who draws them all would then find another token.

use std::collections::HashMap;

use assay_types::{B256, Sampling};

use crate::{
    allowed::{Candidate, restrict},
    noise::{GUMBEL_MAX, GUMBEL_MIN, Noise},
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
        "a vocabulary of {0} tokens is outside 1 to {MAX_VOCABULARY}: check the tokenizer file"
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

/// Chooses the tokens of one generation, step by step.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    noise: Noise,
    vocabulary: u32,
    counts: HashMap<u32, u32>,
    step: u64,
    /// Buffers kept between steps, so that a step allocates nothing.
    candidates: Vec<Candidate>,
    penalised: Vec<f32>,
}

impl Sampler {
    /// A sampler whose noise follows from `seed`, over the first `vocabulary` ids: the size of the
    /// tokenizer, not of the model's padded output.
    pub fn new(sampling: Sampling, seed: B256, vocabulary: u32) -> Result<Self, SamplingError> {
        if vocabulary == 0 || vocabulary > MAX_VOCABULARY {
            return Err(SamplingError::Vocabulary(vocabulary));
        }
        sampling.check().map_err(|error| SamplingError::Parameters(error.to_string()))?;
        Ok(Self {
            sampling,
            noise: Noise::new(seed),
            vocabulary,
            counts: HashMap::new(),
            step: 0,
            candidates: Vec::new(),
            penalised: Vec::new(),
        })
    }

    /// Steps done so far.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Chooses the token of the next step and counts it for the penalties.
    pub fn next(&mut self, logits: &[f32]) -> Result<u32, SamplingError> {
        self.step += 1;
        let id = self.choose(logits)?;
        *self.counts.entry(id).or_insert(0) += 1;
        Ok(id)
    }

    fn choose(&mut self, logits: &[f32]) -> Result<u32, SamplingError> {
        let raw = logits
            .get(..self.vocabulary as usize)
            .ok_or(SamplingError::ShortRow { got: logits.len(), vocabulary: self.vocabulary })?;
        self.check(raw)?;
        self.penalise(raw);
        let row = if self.has_penalties() { &self.penalised } else { raw };
        let best = likeliest(row).ok_or(SamplingError::NothingAllowed { step: self.step })?;
        let t = temperature(&self.sampling);
        let mut noise = self.noise.row(self.step);

        // No noise lifts an id from below this line over the likeliest id, whatever its noise is; nor
        // has all that lies below it a mass that top_p could feel (less than V * e^-41).
        let floor = f64::from(best.logit) - t * (GUMBEL_MAX - GUMBEL_MIN);
        let near = (0_u32..).zip(row).map(|(id, logit)| Candidate { id, logit: *logit });
        self.candidates.clear();
        self.candidates.extend(near.filter(|c| f64::from(c.logit) >= floor));
        restrict(&mut self.candidates, &self.sampling, best.logit, t);

        let mut winner = best.id;
        let mut score = f64::from(best.logit) + t * noise.get(best.id);
        for Candidate { id, logit } in &self.candidates {
            if *id == best.id || f64::from(*logit) + t * GUMBEL_MAX < score {
                continue;
            }
            let other = f64::from(*logit) + t * noise.get(*id);
            if other > score || (other == score && *id < winner) {
                (winner, score) = (*id, other);
            }
        }
        Ok(winner)
    }

    fn check(&self, row: &[f32]) -> Result<(), SamplingError> {
        match row.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY) {
            None => Ok(()),
            Some(id) => Err(SamplingError::BadLogit {
                step: self.step,
                id: id as u32,
                value: row.get(id).map(f32::to_string).unwrap_or_default(),
            }),
        }
    }

    fn has_penalties(&self) -> bool {
        self.sampling.frequency_penalty_milli != 0 || self.sampling.presence_penalty_milli != 0
    }

    /// Writes `l - (frequency * count + presence * [count > 0])` into the buffer, counted over the
    /// generated tokens, computed in f64 and rounded once to f32.
    fn penalise(&mut self, row: &[f32]) {
        if !self.has_penalties() {
            return;
        }
        self.penalised.clear();
        self.penalised.extend_from_slice(row);
        let frequency = i64::from(self.sampling.frequency_penalty_milli);
        let presence = i64::from(self.sampling.presence_penalty_milli);
        for (id, count) in &self.counts {
            if let Some(logit) = self.penalised.get_mut(*id as usize) {
                let milli = frequency * i64::from(*count) + presence;
                *logit = (f64::from(*logit) - milli as f64 / 1000.0) as f32;
            }
        }
    }
}

/// The id with the largest logit, the lower one of equals; it is in every allowed set.
fn likeliest(row: &[f32]) -> Option<Candidate> {
    let mut best = Candidate { id: 0, logit: f32::NEG_INFINITY };
    for (id, logit) in (0_u32..).zip(row) {
        if *logit > best.logit {
            best = Candidate { id, logit: *logit };
        }
    }
    (best.logit > f32::NEG_INFINITY).then_some(best)
}
