//! Checks of model files before mistral.rs sees them: it panics on much of what is wrong with them.

mod directory;
#[cfg(test)]
mod fuzz_tests;
mod gguf;
mod safetensors;

use std::path::{Path, PathBuf};

use assay_engine::EngineError;

pub(crate) use directory::directory;
pub(crate) use gguf::gguf;

/// What the files say about the model.
#[derive(Clone, Debug)]
pub(crate) struct ModelFacts {
    /// `LlamaForCausalLM`, or GGUF's `llama`.
    pub architecture: String,
    /// Text of the chat template.
    pub chat_template: Option<String>,
    /// `none`, or the scheme of most weights.
    pub quantisation: String,
    /// All files that the model is made of, sorted by name.
    pub files: Vec<PathBuf>,
    /// The file that holds the tokenizer, one of `files`.
    pub tokenizer: PathBuf,
}

/// The error for a file that cannot be used.
pub(crate) fn bad(path: &Path, reason: impl Into<String>, remedy: &str) -> EngineError {
    EngineError::BadModel {
        model: path.display().to_string(),
        reason: reason.into(),
        remedy: remedy.into(),
    }
}

/// The remedy for files whose bytes are wrong.
pub(crate) const DOWNLOAD_AGAIN: &str =
    "download or export the file again; it is damaged or incomplete";
