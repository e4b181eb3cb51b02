//! The logits of one step as everything here uses them: checked, without padding, after penalties.

use std::collections::HashMap;

use assay_types::Sampling;

use crate::{MAX_VOCABULARY, SamplingError, allowed::Candidate};

/// Makes the rows of one answer ready, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    sampling: Sampling,
    vocabulary: u32,
    counts: HashMap<u32, u32>,
    step: u64,
    /// Kept between steps, so that a step allocates nothing.
    penalised: Vec<f32>,
}

/// The row of one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    /// Step, from 1.
    pub step: u64,
    /// One logit for each id, none of them NaN or +infinity.
    pub logits: &'a [f32],
    /// The id with the largest logit, the lower one of equals; it is in every allowed set.
    pub best: Candidate,
}

impl Row<'_> {
    /// All ids, ascending.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = Candidate> {
        (0_u32..).zip(self.logits).map(|(id, logit)| Candidate { id, logit: *logit })
    }
}

impl Rows {
    pub(crate) fn new(sampling: Sampling, vocabulary: u32) -> Result<Self, SamplingError> {
        if !(2..=MAX_VOCABULARY).contains(&vocabulary) {
            return Err(SamplingError::Vocabulary(vocabulary));
        }
        sampling.check().map_err(|error| SamplingError::Parameters(error.to_string()))?;
        Ok(Self { sampling, vocabulary, counts: HashMap::new(), step: 0, penalised: Vec::new() })
    }

    /// Steps begun so far.
    pub(crate) fn steps(&self) -> u64 {
        self.step
    }

    /// The row of the next step.
    pub(crate) fn next<'a>(&'a mut self, logits: &'a [f32]) -> Result<Row<'a>, SamplingError> {
        self.step += 1;
        let step = self.step;
        let raw = logits
            .get(..self.vocabulary as usize)
            .ok_or(SamplingError::ShortRow { got: logits.len(), vocabulary: self.vocabulary })?;
        self.check(raw)?;
        let logits = self.penalise(raw);
        let best = likeliest(logits).ok_or(SamplingError::NothingAllowed { step })?;
        Ok(Row { step, logits, best })
    }

    /// Counts the token of this step for the penalties of later ones.
    pub(crate) fn count(&mut self, id: u32) {
        *self.counts.entry(id).or_insert(0) += 1;
    }

    fn check(&self, row: &[f32]) -> Result<(), SamplingError> {
        let bad = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
        // All of it, without leaving early: a loop that the compiler does in wide steps.
        if !row.iter().fold(false, |any, logit| any | bad(logit)) {
            return Ok(());
        }
        match row.iter().position(bad) {
            None => Ok(()),
            Some(id) => Err(SamplingError::BadLogit {
                step: self.step,
                id: id as u32,
                value: row.get(id).map(f32::to_string).unwrap_or_default(),
            }),
        }
    }

    /// `l - (frequency * count + presence * [count > 0])`, counted over the tokens of the answer,
    /// computed in f64 and rounded once to f32.
    fn penalise<'a>(&'a mut self, row: &'a [f32]) -> &'a [f32] {
        let frequency = i64::from(self.sampling.frequency_penalty_milli);
        let presence = i64::from(self.sampling.presence_penalty_milli);
        if frequency == 0 && presence == 0 {
            return row;
        }
        self.penalised.clear();
        self.penalised.extend_from_slice(row);
        for (id, count) in &self.counts {
            if let Some(logit) = self.penalised.get_mut(*id as usize) {
                let milli = frequency * i64::from(*count) + presence;
                *logit = (f64::from(*logit) - milli as f64 / 1000.0) as f32;
            }
        }
        &self.penalised
    }
}

fn likeliest(row: &[f32]) -> Option<Candidate> {
    // The compiler does a maximum in wide steps, not one with its place.
    let max =
        row.iter().fold(f32::NEG_INFINITY, |max, logit| if *logit > max { *logit } else { max });
    let place = row.iter().position(|logit| *logit == max)?;
    let best = Candidate { id: u32::try_from(place).ok()?, logit: max };
    (max > f32::NEG_INFINITY).then_some(best)
}
