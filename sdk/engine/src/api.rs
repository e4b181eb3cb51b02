//! The Engine trait and what goes in and out of it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use assay_proof::{Contrasts, Score};
use assay_types::{
    B256, EndReason, MAX_STOP_BYTES, MAX_STOPS, MAX_TOP_LOGPROBS, ModelId, NumericClass, Prompt,
    Sampling, TokenLogprobs,
};
use async_trait::async_trait;
use futures::{Stream, StreamExt, stream::BoxStream};
use serde::Serialize;

use crate::{EngineError, Reading};

/// What an engine serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EngineInfo {
    /// Name under which the model is served, e.g. `assay-demo`.
    pub model: String,
    /// keccak-256 of the model manifest's bytes.
    pub model_id: ModelId,
    /// Tokens of the tokenizer; padding of the model's output is not counted.
    pub vocab_size: u32,
    /// Most tokens of prompt and answer together.
    pub max_context: u32,
    /// Backend and data type, e.g. `cpu-f32`.
    pub numeric_class: NumericClass,
    /// Name and version of the inference engine, e.g. `mistralrs 0.8.1`.
    pub engine_version: String,
}

/// One generation.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// Ids of the rendered prompt.
    pub prompt_ids: Vec<u32>,
    /// Sampling parameters.
    pub sampling: Sampling,
    /// `seedG`: the noise that tokens are chosen with.
    pub seed: B256,
    /// Most tokens to generate, the end token included.
    pub max_output: u32,
    /// Stop sequences; none of them becomes part of the text.
    pub stop: Vec<String>,
    /// Log probabilities are wanted, with so many alternatives at each position.
    pub top_logprobs: Option<u32>,
}

impl GenerateRequest {
    /// Checks everything that can be checked without running the model.
    pub fn check(&self, info: &EngineInfo) -> Result<(), EngineError> {
        if self.max_output == 0 {
            return Err(EngineError::ZeroOutput);
        }
        check_ids(&self.prompt_ids, &[], self.max_output, info)?;
        self.sampling.check()?;
        if let Some(top) = self.top_logprobs
            && top > MAX_TOP_LOGPROBS
        {
            return Err(EngineError::Logprobs { top, max: MAX_TOP_LOGPROBS });
        }
        self.check_stops()
    }

    fn check_stops(&self) -> Result<(), EngineError> {
        let wrong = |what: String| EngineError::StopSequences {
            what,
            max: MAX_STOPS,
            max_bytes: MAX_STOP_BYTES,
        };
        if self.stop.len() > MAX_STOPS {
            return Err(wrong(format!("there are {} stop sequences", self.stop.len())));
        }
        match self.stop.iter().find(|s| s.is_empty() || s.len() > MAX_STOP_BYTES) {
            Some(stop) => Err(wrong(format!("a stop sequence has {} bytes", stop.len()))),
            None => Ok(()),
        }
    }
}

/// What a prompt and an answer of at most `max_output` tokens must satisfy before a model sees them.
fn check_ids(
    prompt_ids: &[u32],
    answer_ids: &[u32],
    max_output: u32,
    info: &EngineInfo,
) -> Result<(), EngineError> {
    if prompt_ids.is_empty() {
        return Err(EngineError::EmptyPrompt);
    }
    let prompt = u32::try_from(prompt_ids.len()).unwrap_or(u32::MAX);
    if prompt.saturating_add(max_output) > info.max_context {
        let max_context = info.max_context;
        return Err(EngineError::ContextExceeded { prompt, max_output, max_context });
    }
    match prompt_ids.iter().chain(answer_ids).find(|id| **id >= info.vocab_size) {
        Some(id) => Err(EngineError::UnknownToken { id: *id, vocab_size: info.vocab_size }),
        None => Ok(()),
    }
}

/// An answer to be scored: would this model, with this seed, have chosen these tokens?
#[derive(Clone, Debug)]
pub struct ScoreRequest {
    /// Ids of the rendered prompt.
    pub prompt_ids: Vec<u32>,
    /// The tokens that the miner claims to have generated, the end token included.
    pub claimed_ids: Vec<u32>,
    /// Sampling parameters of the request.
    pub sampling: Sampling,
    /// `seedG` of the miner's generation.
    pub seed: B256,
}

impl ScoreRequest {
    /// Checks everything that can be checked without running the model. All of it is hostile input.
    pub fn check(&self, info: &EngineInfo) -> Result<(), EngineError> {
        if self.claimed_ids.is_empty() {
            return Err(EngineError::EmptyAnswer);
        }
        let answer = u32::try_from(self.claimed_ids.len()).unwrap_or(u32::MAX);
        check_ids(&self.prompt_ids, &self.claimed_ids, answer, info)?;
        Ok(self.sampling.check()?)
    }
}

/// What happens in a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GenerateEvent {
    /// A token was chosen.
    Token {
        /// Its id.
        id: u32,
        /// The fingerprint of the logits that it was chosen from.
        contrasts: Contrasts,
        /// The text that it completes; empty while a character or a possible stop sequence is held
        /// back. The last token brings what was held back to the end; an end token has no text itself.
        text: String,
        /// How likely it was, and what else was likely, if that was asked for.
        logprobs: Option<TokenLogprobs>,
    },
    /// The last event of a generation that did not fail.
    Done {
        /// Why it ended.
        end_reason: EndReason,
    },
}

/// The events of one generation. Dropping it cancels the generation.
pub struct GenerateStream(BoxStream<'static, Result<GenerateEvent, EngineError>>);

impl GenerateStream {
    /// Wraps the events of an engine.
    pub fn new(
        events: impl Stream<Item = Result<GenerateEvent, EngineError>> + Send + 'static,
    ) -> Self {
        Self(events.boxed())
    }

    /// Waits for the end of the generation.
    ///
    /// # Errors
    /// The generation's own, or [`EngineError::Internal`] if the stream ends without `Done`.
    pub async fn finish(mut self) -> Result<Generation, EngineError> {
        let (mut ids, mut fingerprint, mut whole) = (Vec::new(), Vec::new(), String::new());
        let mut all_logprobs = Vec::new();
        while let Some(event) = self.next().await {
            match event? {
                GenerateEvent::Token { id, contrasts, text, logprobs } => {
                    ids.push(id);
                    fingerprint.push(contrasts);
                    whole.push_str(&text);
                    all_logprobs.extend(logprobs);
                }
                GenerateEvent::Done { end_reason } => {
                    let (contrasts, text, logprobs) = (fingerprint, whole, all_logprobs);
                    return Ok(Generation { ids, contrasts, text, logprobs, end_reason });
                }
            }
        }
        Err(EngineError::Internal("the generation ended without saying why".into()))
    }
}

impl Stream for GenerateStream {
    type Item = Result<GenerateEvent, EngineError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

impl std::fmt::Debug for GenerateStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GenerateStream").finish_non_exhaustive()
    }
}

/// A whole generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// All ids, the end token included.
    pub ids: Vec<u32>,
    /// The fingerprint, one entry a token.
    pub contrasts: Vec<Contrasts>,
    /// The text, up to a completed stop sequence.
    pub text: String,
    /// One entry a token if log probabilities were asked for, else none.
    pub logprobs: Vec<TokenLogprobs>,
    /// Why it ended.
    pub end_reason: EndReason,
}

/// A model that can be asked. Many generations may run at once.
#[async_trait]
pub trait Engine: Send + Sync {
    /// What is served.
    fn info(&self) -> &EngineInfo;

    /// The ids of a prompt: messages rendered with the model's chat template (without a clock), text as
    /// it is.
    async fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, EngineError>;

    /// Ids that end an answer, ascending.
    fn end_tokens(&self) -> &[u32];

    /// The text of generated ids: what a generation of exactly these ids streams with these stop
    /// sequences. The end token and other special tokens have none.
    async fn read(&self, ids: &[u32], stop: &[String]) -> Result<Reading, EngineError>;

    /// Starts a generation.
    ///
    /// # Errors
    /// At once if the request cannot be served ([`GenerateRequest::check`]) or the engine has stopped;
    /// later ones are items of the stream, and end it.
    async fn generate(&self, request: GenerateRequest) -> Result<GenerateStream, EngineError>;

    /// Feeds prompt and claimed tokens through the model, without generating, and says at each position
    /// which fingerprint it leaves there and how far the claimed token is from the chosen one.
    ///
    /// An answer ends at its first end token: what is claimed after it is not scored, so there may be
    /// fewer entries than claimed tokens. Whether an end token may stand there is not the model's question.
    ///
    /// # Errors
    /// If the request cannot be served ([`ScoreRequest::check`]) or the engine fails or has stopped.
    async fn score(&self, request: ScoreRequest) -> Result<Vec<Score>, EngineError>;
}
