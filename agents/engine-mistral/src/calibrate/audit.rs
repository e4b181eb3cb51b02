//! Audits: what an engine finds in somebody's answers, and what a calibration makes of it.

use assay_engine::{B256, Contrasts, EngineError, ScoreRequest};
use assay_proof::{
    Calibration, Failing, MARGIN_CAP, Reasons, SPOT_POSITIONS, Scorer, Statistics, agree, compare,
    draw_positions, margin_units, verdict,
};

use super::answers::{Answer, Answers};
use crate::MistralEngine;

/// What was found in one answer, position by position.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Number of the question.
    pub question: u32,
    /// The miner's fingerprint.
    pub made: Vec<Contrasts>,
    /// The validator's.
    pub own: Vec<Contrasts>,
    /// In 1/65536 nat.
    pub margins: Vec<u32>,
    /// Of the validator's distribution at temperature 1, in nats.
    pub entropies: Vec<f32>,
    /// Draws the positions that are spot-checked.
    seed: B256,
}

/// Audits all answers with `engine`.
///
/// # Errors
/// The engine's, or that a foreign answer does not belong to its model.
pub async fn audit_all(
    engine: &MistralEngine,
    answers: &Answers,
    mut tick: impl FnMut(),
) -> Result<Vec<Audit>, EngineError> {
    let mut audits = Vec::with_capacity(answers.answers.len());
    for answer in &answers.answers {
        audits.push(audit(engine, answer).await?);
        tick();
    }
    Ok(audits)
}

async fn audit(engine: &MistralEngine, answer: &Answer) -> Result<Audit, EngineError> {
    let request = ScoreRequest {
        prompt_ids: answer.prompt_ids.clone(),
        claimed_ids: answer.ids.clone(),
        sampling: answer.sampling,
        seed: answer.seed,
    };
    request.check(assay_engine::Engine::info(engine))?;
    let vocabulary = assay_engine::Engine::info(engine).vocab_size;
    let mut scorer = Scorer::new(request.sampling, request.seed, vocabulary)?;
    let reader = move |row: &[f32], id: u32| {
        let score = scorer.score(row, id)?;
        let entropy = entropy(row.get(..vocabulary as usize).unwrap_or(row));
        Ok((score.contrasts, margin_units(score.margin), entropy))
    };
    let notes = engine.read_rows(request.prompt_ids, request.claimed_ids, reader).await?;
    let mut made = answer.fingerprint()?;
    made.truncate(notes.len());
    let mut audit = Audit {
        question: answer.question,
        made,
        own: Vec::with_capacity(notes.len()),
        margins: Vec::with_capacity(notes.len()),
        entropies: Vec::with_capacity(notes.len()),
        seed: answer.seed,
    };
    for (contrasts, margin, entropy) in notes {
        audit.own.push(contrasts);
        audit.margins.push(margin);
        audit.entropies.push(entropy);
    }
    Ok(audit)
}

/// Of the softmax of these logits, in nats.
fn entropy(row: &[f32]) -> f32 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut weighted) = (0.0_f64, 0.0_f64);
    for logit in row {
        let below = f64::from(logit - max);
        // Smaller weights add nothing, and -infinity times zero is not a number.
        if below > -40.0 {
            let weight = below.exp();
            sum += weight;
            weighted += weight * below;
        }
    }
    (sum.ln() - weighted / sum) as f32
}

impl Audit {
    /// Tokens that were scored.
    pub fn tokens(&self) -> usize {
        self.margins.len()
    }

    /// The audit of only the first `tokens` tokens; of all if there are no more.
    pub fn first(&self, tokens: usize) -> Self {
        let keep = tokens.min(self.tokens());
        let mut part = self.clone();
        part.made.truncate(keep);
        part.own.truncate(keep);
        part.margins.truncate(keep);
        part.entropies.truncate(keep);
        part
    }

    /// Mean over the positions, in nats.
    pub fn mean_entropy(&self) -> f32 {
        self.entropies.iter().sum::<f32>() / self.entropies.len().max(1) as f32
    }

    /// All `|c - c'|`, in 1/256 nat.
    pub fn distances(&self) -> impl Iterator<Item = u16> {
        self.made.iter().zip(&self.own).flat_map(|(made, own)| made.distances(own))
    }

    /// The medians of its blocks, in 1/256 nat, each with the number of its positions.
    pub fn medians(&self) -> Vec<(u16, u32)> {
        compare(&self.made, &self.own).map_or_else(
            |_| Vec::new(),
            |comparison| comparison.blocks.iter().map(|b| (b.median, b.positions)).collect(),
        )
    }

    /// `|c - c'|` at four positions that a beacon of this number would draw; none if there are fewer.
    pub fn spot(&self, beacon: u8) -> Option<Vec<u16>> {
        let seed = B256::from(self.seed.0.map(|byte| byte ^ beacon));
        let tokens = u32::try_from(self.tokens()).unwrap_or(u32::MAX);
        let positions = draw_positions(seed, 1, tokens, SPOT_POSITIONS);
        if positions.len() < SPOT_POSITIONS as usize {
            return None;
        }
        let at = |t: u32| Some((self.made.get(t as usize - 1)?, self.own.get(t as usize - 1)?));
        Some(positions.into_iter().filter_map(at).flat_map(|(a, b)| a.distances(b)).collect())
    }

    /// Margins, each at most half a nat.
    pub fn capped(&self) -> impl Iterator<Item = u32> + '_ {
        self.margins.iter().map(|margin| (*margin).min(MARGIN_CAP))
    }

    /// Why it fails under a calibration, the answer's text and end apart.
    pub fn reasons(&self, calibration: &Calibration) -> Reasons {
        let statistics = Statistics::new(&self.margins, Reasons::default());
        let failing = compare(&self.made, &self.own).map(|found| found.failing(calibration));
        // What has not even the right length fails as a whole.
        let failing = failing.unwrap_or(Failing { blocks: u16::MAX, worst: 0 });
        let spot = self.spot(0).is_none_or(|distances| agree(distances, calibration.spot_tau));
        verdict(&statistics, failing, spot, calibration)
    }
}

/// F: the weights.
pub fn fails_f(reasons: Reasons) -> bool {
    reasons.contains(Reasons::FINGERPRINT) || reasons.contains(Reasons::SPOT)
}

/// G: the tokens.
pub fn fails_g(reasons: Reasons) -> bool {
    reasons.contains(Reasons::HARD_MARGIN) || reasons.contains(Reasons::MARGIN_SUM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropies() {
        assert!((entropy(&[0.0; 8]) - 8_f32.ln()).abs() < 1e-6);
        assert!(entropy(&[100.0, 0.0, f32::NEG_INFINITY]) < 1e-6);
        let two = entropy(&[0.0, 0.0, -50.0, f32::NEG_INFINITY]);
        assert!((two - 2_f32.ln()).abs() < 1e-6);
    }
}
