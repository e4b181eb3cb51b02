//! The Engine trait and what goes in and out of it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use assay_types::{
    B256, EndReason, MAX_STOP_BYTES, MAX_STOPS, ModelId, NumericClass, Prompt, Sampling,
};
use async_trait::async_trait;
use futures::{Stream, StreamExt, stream::BoxStream};
use serde::Serialize;

use crate::EngineError;

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
}

impl GenerateRequest {
    /// Checks everything that can be checked without running the model.
    pub fn check(&self, info: &EngineInfo) -> Result<(), EngineError> {
        if self.prompt_ids.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        if self.max_output == 0 {
            return Err(EngineError::ZeroOutput);
        }
        let prompt = u32::try_from(self.prompt_ids.len()).unwrap_or(u32::MAX);
        if prompt.saturating_add(self.max_output) > info.max_context {
            return Err(EngineError::ContextExceeded {
                prompt,
                max_output: self.max_output,
                max_context: info.max_context,
            });
        }
        if let Some(id) = self.prompt_ids.iter().find(|id| **id >= info.vocab_size) {
            return Err(EngineError::UnknownToken { id: *id, vocab_size: info.vocab_size });
        }
        self.sampling.check()?;
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

/// What happens in a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GenerateEvent {
    /// A token was chosen.
    Token {
        /// Its id.
        id: u32,
        /// The text that it completes; empty while a character or a possible stop sequence is held
        /// back. The last token brings what was held back to the end; an end token has no text itself.
        text: String,
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
        let (mut ids, mut whole) = (Vec::new(), String::new());
        while let Some(event) = self.next().await {
            match event? {
                GenerateEvent::Token { id, text } => {
                    ids.push(id);
                    whole.push_str(&text);
                }
                GenerateEvent::Done { end_reason } => {
                    return Ok(Generation { ids, text: whole, end_reason });
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
    /// The text, up to a completed stop sequence.
    pub text: String,
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

    /// The text of generated ids: what a generation of exactly these ids streams if no stop sequence is
    /// set. The end token and other special tokens have none.
    async fn detokenize(&self, ids: &[u32]) -> Result<String, EngineError>;

    /// Starts a generation.
    ///
    /// # Errors
    /// At once if the request cannot be served ([`GenerateRequest::check`]) or the engine has stopped;
    /// later ones are items of the stream, and end it.
    async fn generate(&self, request: GenerateRequest) -> Result<GenerateStream, EngineError>;
}
