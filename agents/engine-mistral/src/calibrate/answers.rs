//! Answers of nodes: made here, or read from a file that another machine wrote.

use std::{fs, path::Path};

use assay_engine::{B256, Contrasts, Engine, EngineError, GenerateRequest, NumericClass, Sampling};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::questions::Question;
use crate::MistralEngine;

/// One answer, with everything that an auditor of it needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Number of the question.
    pub question: u32,
    pub prompt_ids: Vec<u32>,
    pub sampling: Sampling,
    pub seed: B256,
    pub ids: Vec<u32>,
    /// One entry a token.
    pub contrasts: Vec<Vec<i16>>,
}

/// The answers of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// Id of the model that it runs.
    pub model_id: B256,
    pub numeric_class: NumericClass,
    /// Engine and version.
    pub engine: String,
    /// What else matters of the machine, in words.
    pub machine: String,
    pub answers: Vec<Answer>,
}

impl Answer {
    /// Its fingerprint.
    ///
    /// # Errors
    /// If a position has a number of contrasts that does not exist, or there is not one a token.
    pub fn fingerprint(&self) -> Result<Vec<Contrasts>, EngineError> {
        let contrasts: Result<Vec<Contrasts>, _> =
            self.contrasts.iter().map(|values| Contrasts::new(values)).collect();
        let wrong =
            |what: String| EngineError::Internal(format!("an answer's fingerprint: {what}"));
        let contrasts = contrasts.map_err(|error| wrong(error.to_string()))?;
        if contrasts.len() != self.ids.len() {
            return Err(wrong("it does not have one entry a token".into()));
        }
        Ok(contrasts)
    }
}

impl Answers {
    /// Lets `engine` answer questions, as `node`: the name decides the seeds.
    ///
    /// # Errors
    /// The engine's.
    pub async fn make(
        engine: &MistralEngine,
        questions: impl Iterator<Item = Question>,
        node: &str,
        max_output: u32,
        mut tick: impl FnMut(),
    ) -> Result<Self, EngineError> {
        let one = |question: Question| async move {
            let prompt_ids = engine.tokenize(&question.prompt).await?;
            let request = GenerateRequest {
                prompt_ids: prompt_ids.clone(),
                sampling: question.setting.sampling,
                seed: question.seed(node),
                max_output,
                stop: Vec::new(),
                top_logprobs: None,
            };
            let (sampling, seed) = (request.sampling, request.seed);
            let made = engine.generate(request).await?.finish().await?;
            let contrasts = made.contrasts.iter().map(|c| c.values().to_vec()).collect();
            Ok::<_, EngineError>(Answer {
                question: question.number,
                prompt_ids,
                sampling,
                seed,
                ids: made.ids,
                contrasts,
            })
        };
        // In the order of the questions: the file is the same whichever lane is faster.
        let answers = stream::iter(questions)
            .map(one)
            .buffered(engine.lanes())
            .inspect_ok(|_| tick())
            .try_collect()
            .await?;
        Ok(Self { answers, ..Self::none(engine) })
    }

    /// The answers to the first of these questions that a file has, none if it is not there.
    ///
    /// # Errors
    /// If the file is something else, or of another model, node or set of questions.
    pub(crate) fn kept(
        path: &Path,
        engine: &MistralEngine,
        questions: &[Question],
        node: &str,
    ) -> Result<Self, EngineError> {
        let none = Self::none(engine);
        if !path.exists() {
            return Ok(none);
        }
        let mut kept = Self::load(path)?;
        kept.answers.truncate(questions.len());
        let is_of = |(answer, question): (&Answer, &Question)| {
            answer.question == question.number
                && answer.sampling == question.setting.sampling
                && answer.seed == question.seed(node)
        };
        let same_node = Self { answers: Vec::new(), ..kept.clone() } == none;
        if same_node && kept.answers.iter().zip(questions).all(is_of) {
            return Ok(kept);
        }
        Err(file(path, &"they are of another calibration; remove them"))
    }

    /// What is known of the node without any answer.
    fn none(engine: &MistralEngine) -> Self {
        let info = engine.info();
        Self {
            model_id: info.model_id.0,
            numeric_class: info.numeric_class,
            engine: info.engine_version.clone(),
            machine: machine(),
            answers: Vec::new(),
        }
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// If the file cannot be read or is something else.
    pub fn load(path: &Path) -> Result<Self, EngineError> {
        let text = fs::read(path).map_err(|error| file(path, &error))?;
        serde_json::from_slice(&text).map_err(|error| file(path, &error))
    }

    /// Writes all of it as JSON.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), EngineError> {
        let text = serde_json::to_vec(self).map_err(|error| file(path, &error))?;
        fs::write(path, text).map_err(|error| file(path, &error))
    }
}

fn file(path: &Path, error: &dyn std::fmt::Display) -> EngineError {
    EngineError::Internal(format!("the answers in {}: {error}", path.display()))
}

/// Processor and threads.
pub(crate) fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let threads = std::env::var("RAYON_NUM_THREADS").unwrap_or_else(|_| cores.to_string());
    format!("{}, {cores} cores, {threads} threads", model.unwrap_or("unknown processor").trim())
}
