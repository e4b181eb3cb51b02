//! The model manifest: what a model is, byte for byte. `modelId` is the keccak-256 of its bytes.
//!
//! Canonical JSON as in the protocol's blocks: keys in order, no white space, integers and strings only.

use std::{io::Read, path::Path};

use alloy::primitives::keccak256;
use assay_types::{B256, ModelId, NumericClass};
use serde::{Deserialize, Serialize};

use crate::unixfs::{FileDigest, digest};

/// Version of the manifest's form.
pub const MANIFEST_VERSION: u32 = 1;
/// Largest manifest that is read: one IPFS block.
const MAX_MANIFEST_BYTES: usize = 1 << 20;

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// Its size.
    pub bytes: u64,
    /// Its IPFS CID, as `ipfs add --cid-version=1 --chunker=size-262144 --max-file-links=174` gives it.
    pub cid: String,
    /// Its name in the model's folder.
    pub name: String,
    /// sha-256 of the whole file.
    pub sha256: B256,
}

/// A model: its files and everything else that decides which token comes next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Architecture as the model's own files name it, e.g. `LlamaForCausalLM` or `llama`.
    pub architecture: String,
    /// sha-256 of the chat template's text; absent if the model has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template_sha256: Option<B256>,
    /// Ids that end an answer, ascending.
    pub end_tokens: Vec<u32>,
    /// Inference engine and its version.
    pub engine: String,
    /// Every file that the model is loaded from, by name: weights, configuration, tokenizer.
    pub files: Vec<ManifestFile>,
    /// Most tokens of prompt and answer together.
    pub max_context: u32,
    /// Numeric classes that the model may be run in.
    pub numeric_classes: Vec<NumericClass>,
    /// `none`, or the scheme of the weights, e.g. `Q4_K`.
    pub quantisation: String,
    /// Version of the sampling arithmetic.
    pub sampler: u32,
    /// sha-256 of the file that holds the tokenizer: `tokenizer.json`, or the GGUF file.
    pub tokenizer_sha256: B256,
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    /// Tokens of the tokenizer, without padding.
    pub vocab_size: u32,
}

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or not a manifest.
    #[error("the model manifest cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// Too large.
    #[error("a model manifest of {0} bytes is larger than one IPFS block of {MAX_MANIFEST_BYTES}")]
    TooLarge(usize),
    /// Another spelling of the same value.
    #[error("the model manifest is not canonical: keys in order, no white space")]
    NotCanonical,
    /// Written by another version.
    #[error(
        "the model manifest has version {0}, this software reads version {MANIFEST_VERSION}: update it"
    )]
    Version(u32),
    /// A file cannot be read.
    #[error("the model file {path} cannot be read: {source}; check that it exists and may be read")]
    Io {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Manifest {
    /// The canonical bytes.
    pub fn bytes(&self) -> Result<Vec<u8>, ManifestError> {
        let bytes = serde_json::to_vec(self)?;
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        Ok(bytes)
    }

    /// keccak-256 of the canonical bytes.
    pub fn model_id(&self) -> Result<ModelId, ManifestError> {
        Ok(ModelId(keccak256(self.bytes()?)))
    }

    /// Reads canonical bytes; anything else is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        let manifest: Self = serde_json::from_slice(bytes)?;
        if manifest.version != MANIFEST_VERSION {
            return Err(ManifestError::Version(manifest.version));
        }
        if serde_json::to_vec(&manifest)? != bytes {
            return Err(ManifestError::NotCanonical);
        }
        Ok(manifest)
    }
}

impl ManifestFile {
    /// Reads and hashes a file once. Blocks: a large model takes seconds per gigabyte.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        let io = |source| ManifestError::Io { path: path.display().to_string(), source };
        let file = std::fs::File::open(path).map_err(io)?;
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Self::of(name, file).map_err(io)
    }

    /// Hashes what `content` gives until its end.
    pub fn of(name: String, content: impl Read) -> std::io::Result<Self> {
        let FileDigest { bytes, sha256, cid } = digest(content)?;
        Ok(Self { bytes, cid: cid.to_string(), name, sha256 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            architecture: "LlamaForCausalLM".into(),
            chat_template_sha256: Some(B256::repeat_byte(1)),
            end_tokens: vec![2],
            engine: "mistralrs 0.8.1".into(),
            files: vec![ManifestFile::of("model.safetensors".into(), &b"weights"[..]).unwrap()],
            max_context: 512,
            numeric_classes: vec!["cpu-f32".parse().unwrap()],
            quantisation: "none".into(),
            sampler: 1,
            tokenizer_sha256: B256::repeat_byte(2),
            version: MANIFEST_VERSION,
            vocab_size: 1000,
        }
    }

    #[test]
    fn bytes_are_canonical_and_name_the_model() {
        let bytes = manifest().bytes().unwrap();
        assert_eq!(Manifest::decode(&bytes).unwrap(), manifest());
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert!(keys.is_sorted(), "{keys:?}");
        let other = Manifest { vocab_size: 1001, ..manifest() };
        assert_ne!(other.model_id().unwrap(), manifest().model_id().unwrap());
    }

    #[test]
    fn other_spellings_are_refused() {
        let text = String::from_utf8(manifest().bytes().unwrap()).unwrap();
        let spaced = text.replacen(':', ": ", 1);
        let newer = text.replace("\"version\":1", "\"version\":2");
        let unknown = text.replacen('{', "{\"a\":1,", 1);
        assert!(matches!(Manifest::decode(spaced.as_bytes()), Err(ManifestError::NotCanonical)));
        assert!(matches!(Manifest::decode(newer.as_bytes()), Err(ManifestError::Version(2))));
        assert!(matches!(Manifest::decode(unknown.as_bytes()), Err(ManifestError::Json(_))));
    }
}
