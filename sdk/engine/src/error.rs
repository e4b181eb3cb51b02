//! What goes wrong in an engine, and whose fault it is.

use std::sync::Arc;

use assay_proof::SamplingError;
use assay_types::BlockError;

/// Any failure of an engine. Cheap to clone: one death of an engine ends many generations.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// The prompt has no tokens.
    #[error("the prompt has no tokens: send at least one message or a text that is not empty")]
    EmptyPrompt,
    /// No token may be generated.
    #[error("max_output is 0: ask for at least one token")]
    ZeroOutput,
    /// There is nothing to score.
    #[error("the answer has no tokens: there is nothing to score")]
    EmptyAnswer,
    /// Prompt and answer do not fit.
    #[error(
        "the prompt has {prompt} tokens and the answer may have {max_output}, together more than the model's context of {max_context}: shorten the prompt or ask for fewer tokens"
    )]
    ContextExceeded {
        /// Tokens of the prompt.
        prompt: u32,
        /// Most tokens of the answer.
        max_output: u32,
        /// The model's context.
        max_context: u32,
    },
    /// A token id that the model does not have.
    #[error(
        "token id {id} is outside the vocabulary of {vocab_size}: tokenise with the same model that generates"
    )]
    UnknownToken {
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab_size: u32,
    },
    /// A parameter is out of bounds.
    #[error("{0}")]
    Parameter(#[from] Arc<BlockError>),
    /// Too many or impossible stop sequences.
    #[error("{what}: send at most {max} stop sequences of 1 to {max_bytes} bytes")]
    StopSequences {
        /// What is wrong.
        what: String,
        /// Most stop sequences.
        max: usize,
        /// Most bytes of one.
        max_bytes: usize,
    },
    /// Too many alternatives.
    #[error("{top} alternatives at each position are too many: ask for at most {max}")]
    Logprobs {
        /// How many were asked for.
        top: u32,
        /// Most alternatives.
        max: u32,
    },
    /// The chat template cannot render these messages.
    #[error(
        "the model's chat template cannot render these messages: {0}; check the roles and their order, or send plain text"
    )]
    Template(String),
    /// The tokenizer failed.
    #[error("the model's tokenizer failed: {0}; check the text, or the model's tokenizer.json")]
    Tokenizer(String),
    /// The model's files cannot be used.
    #[error("the model {model} cannot be used: {reason}; {remedy}")]
    BadModel {
        /// Path or id.
        model: String,
        /// What is wrong.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// Something that this engine does not do.
    #[error("{what} is not supported by this engine: {instead}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// What to do instead.
        instead: String,
    },
    /// No token could be chosen.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The generation was cancelled.
    #[error(
        "the generation was cancelled before its end; send the request again if it is still wanted"
    )]
    Cancelled,
    /// The engine has died or is shutting down.
    #[error(
        "the inference engine has stopped: {0}; restart the miner, and send the request to another node"
    )]
    Stopped(String),
    /// Anything else inside the engine.
    #[error(
        "the inference engine failed: {0}; try again, and look at the miner's log if it happens twice"
    )]
    Internal(String),
}

impl EngineError {
    /// Stable code for logs, metrics and frames.
    pub fn code(&self) -> &'static str {
        match self {
            Self::EmptyPrompt => "empty_prompt",
            Self::ZeroOutput => "zero_output",
            Self::EmptyAnswer => "empty_answer",
            Self::ContextExceeded { .. } => "context_exceeded",
            Self::UnknownToken { .. } => "unknown_token",
            Self::Parameter(_) | Self::Logprobs { .. } => "bad_parameter",
            Self::StopSequences { .. } => "bad_stop_sequences",
            Self::Template(_) => "template",
            Self::Tokenizer(_) => "tokenizer",
            Self::BadModel { .. } => "bad_model",
            Self::Unsupported { .. } => "unsupported",
            Self::Sampling(_) => "sampling",
            Self::Cancelled => "cancelled",
            Self::Stopped(_) => "engine_stopped",
            Self::Internal(_) => "engine_internal",
        }
    }

    /// Whether the request is at fault: no other node with this model could serve it.
    pub fn is_client_fault(&self) -> bool {
        matches!(
            self,
            Self::EmptyPrompt
                | Self::ZeroOutput
                | Self::EmptyAnswer
                | Self::ContextExceeded { .. }
                | Self::UnknownToken { .. }
                | Self::Parameter(_)
                | Self::Logprobs { .. }
                | Self::StopSequences { .. }
                | Self::Template(_)
                | Self::Unsupported { .. }
        )
    }

    /// Whether the same request may succeed on another node or later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Stopped(_) | Self::Internal(_) | Self::Cancelled)
    }
}

impl From<BlockError> for EngineError {
    fn from(error: BlockError) -> Self {
        Self::Parameter(Arc::new(error))
    }
}
