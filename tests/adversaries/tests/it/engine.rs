//! The small model behind the trait that validators examine answers with.

use std::sync::LazyLock;

use assay_engine::{
    Engine, EngineError, EngineInfo, GenerateRequest, GenerateStream, ModelId, NumericClass,
    Prompt, Reading, Score, ScoreRequest,
};
use assay_proof::Scorer;
use assay_types::B256;
use async_trait::async_trait;

use crate::model::{END, Model, VOCABULARY};

/// The model that is paid for.
pub static MODEL: LazyLock<Model> = LazyLock::new(|| Model::new(1));
/// Ids of a prompt's bytes follow those that end something.
const FIRST_BYTE: u32 = 3;

/// The numeric class of everybody's backend.
pub fn class() -> NumericClass {
    "toy-f32".parse().unwrap()
}

/// The ids of a prompt: its bytes.
pub fn prompt_ids(text: &str) -> Vec<u32> {
    text.bytes().map(|byte| FIRST_BYTE + u32::from(byte)).collect()
}

/// The text of ids: a word each, the end token none.
pub fn text(ids: &[u32]) -> String {
    ids.iter().filter(|id| **id != END).map(|id| format!(" w{id}")).collect()
}

/// A model on somebody's machine.
pub struct Machine {
    model: &'static Model,
    /// What its arithmetic is off by.
    noise: B256,
    info: EngineInfo,
}

impl Machine {
    pub fn new(noise: B256) -> Self {
        let info = EngineInfo {
            model: "toy".into(),
            model_id: ModelId(B256::ZERO),
            vocab_size: VOCABULARY,
            max_context: 1 << 16,
            numeric_class: class(),
            engine_version: "toy".into(),
        };
        Self { model: &MODEL, noise, info }
    }
}

#[async_trait]
impl Engine for Machine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    async fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, EngineError> {
        match prompt {
            Prompt::Text(text) => Ok(prompt_ids(text)),
            other => Err(EngineError::Internal(format!("{other:?} is no plain text"))),
        }
    }

    fn end_tokens(&self) -> &[u32] {
        &[END]
    }

    async fn read(&self, ids: &[u32], _stop: &[String]) -> Result<Reading, EngineError> {
        Ok(Reading { text: text(ids), stopped_at: None })
    }

    async fn generate(&self, _: GenerateRequest) -> Result<GenerateStream, EngineError> {
        Err(EngineError::Internal("validators generate nothing".into()))
    }

    async fn score(&self, request: ScoreRequest) -> Result<Vec<Score>, EngineError> {
        request.check(&self.info)?;
        let broken = |error: assay_proof::SamplingError| EngineError::Internal(error.to_string());
        let mut scorer = Scorer::new(request.sampling, request.seed, VOCABULARY).map_err(broken)?;
        let mut run = self.model.run(&request.prompt_ids, self.noise);
        let mut scores = Vec::with_capacity(request.claimed_ids.len());
        for id in request.claimed_ids {
            scores.push(scorer.score(&run.logits(), id).map_err(broken)?);
            // What is claimed after the end is not scored.
            if id == END {
                break;
            }
            run.feed(id);
        }
        Ok(scores)
    }
}
