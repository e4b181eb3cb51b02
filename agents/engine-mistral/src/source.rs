//! Where a model comes from, and how it is loaded.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::demo::DEMO_MODEL;

/// Copies of the demo model: it is small, and several miners share it.
const DEMO_LANES: usize = 4;
/// 1,766 positions of a vocabulary of 151,936; less than the weights of such a model take.
const SCORE_BYTES: usize = 1 << 30;

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// The demo model inside this program.
    Demo,
    /// A folder with `config.json`, `tokenizer.json` and safetensors files.
    Directory(PathBuf),
    /// One GGUF file.
    Gguf(PathBuf),
    /// A model on the Hugging Face hub, `owner/name`; downloaded once.
    Hub(String),
}

impl ModelSource {
    /// Reads `assay-demo`, a folder, a `.gguf` file or a hub id. What exists on disk is never taken for
    /// a hub id; whether the rest can be had is found out when it is loaded.
    pub fn parse(text: &str) -> Self {
        let path = Path::new(text);
        let is_gguf = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
        if text == DEMO_MODEL && !path.exists() {
            Self::Demo
        } else if is_gguf {
            Self::Gguf(path.to_owned())
        } else if !path.exists() && is_hub_id(text) {
            Self::Hub(text.to_owned())
        } else {
            Self::Directory(path.to_owned())
        }
    }

    /// Name under which the model is served: the folder's or file's name, or the hub id.
    pub fn served_name(&self) -> String {
        let name = |part: Option<&std::ffi::OsStr>| {
            part.map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned())
        };
        match self {
            Self::Demo => DEMO_MODEL.into(),
            // A path such as `.` has a name only once it is resolved.
            Self::Directory(path) => match path.canonicalize() {
                Ok(path) => name(path.file_name()),
                Err(_) => name(path.file_name()),
            },
            Self::Gguf(path) => name(path.file_stem()),
            Self::Hub(id) => id.clone(),
        }
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Demo => f.write_str(DEMO_MODEL),
            Self::Directory(path) | Self::Gguf(path) => path.display().fmt(f),
            Self::Hub(id) => f.write_str(id),
        }
    }
}

/// `owner/name` with the hub's characters.
fn is_hub_id(text: &str) -> bool {
    let part = |part: &str| {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        !part.is_empty() && part.len() <= 96 && !part.starts_with('.') && part.bytes().all(legal)
    };
    text.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name))
}

/// Data type of the arithmetic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dtype {
    /// 32 bits: the reference on CPUs.
    #[default]
    F32,
    /// bfloat16.
    Bf16,
    /// 16 bits.
    F16,
}

/// A quantisation of the weights while they are loaded: the cheaper copy that a dishonest miner would serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantised {
    /// 8 bits.
    Q8_0,
    /// 4 bits.
    Q4K,
}

impl Quantised {
    /// As manifests and GGUF files write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
        }
    }
}

/// What loading is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadStep {
    /// The files' form is checked.
    Checking,
    /// mistral.rs reads (and for a hub id first downloads) the weights.
    Loading,
    /// Files are hashed for the manifest.
    Hashing {
        /// Name of the file.
        file: String,
    },
    /// One token is generated.
    WarmingUp,
    /// The model answers.
    Ready,
}

impl fmt::Display for LoadStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checking => f.write_str("checking the model's files"),
            Self::Loading => f.write_str("loading the weights"),
            Self::Hashing { file } => write!(f, "hashing {file}"),
            Self::WarmingUp => f.write_str("generating a first token"),
            Self::Ready => f.write_str("ready"),
        }
    }
}

/// Is told what loading is doing; called from several threads.
pub type Progress = Arc<dyn Fn(LoadStep) + Send + Sync>;

/// How to load a model.
#[derive(Clone)]
pub struct LoadOptions {
    /// Where it comes from.
    pub source: ModelSource,
    /// Folder for what loading has to write: the unpacked demo model, changed chat templates.
    pub data_dir: PathBuf,
    /// Name under which it is served; [`ModelSource::served_name`] if absent.
    pub name: Option<String>,
    /// Data type of the arithmetic.
    pub dtype: Dtype,
    /// Whether the weights are quantised while they are loaded; GGUF files are as they are.
    pub quantised: Option<Quantised>,
    /// Generations that run at once; more wait. Each holds a copy of the weights in memory, because
    /// mistral.rs mixes up sequences that it batches on a CPU.
    pub lanes: usize,
    /// Most tokens of prompt and answer, if fewer than the model's own.
    pub max_context: Option<u32>,
    /// Most bytes of logits that scoring an answer may hold at once, and for a moment twice that. Longer
    /// answers are scored row by row, as slowly as they were generated.
    pub score_bytes: usize,
    /// Is told about progress.
    pub progress: Option<Progress>,
}

impl LoadOptions {
    /// Defaults: f32, the model's own context, one generation at once, or four of the demo model.
    pub fn new(source: ModelSource, data_dir: impl Into<PathBuf>) -> Self {
        let lanes = if source == ModelSource::Demo { DEMO_LANES } else { 1 };
        Self {
            source,
            data_dir: data_dir.into(),
            name: None,
            dtype: Dtype::F32,
            quantised: None,
            lanes,
            max_context: None,
            score_bytes: SCORE_BYTES,
            progress: None,
        }
    }

    pub(crate) fn report(&self, step: LoadStep) {
        tracing::debug!(model = %self.source, %step, "loading");
        if let Some(progress) = &self.progress {
            progress(step);
        }
    }
}

impl fmt::Debug for LoadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadOptions")
            .field("source", &self.source)
            .field("data_dir", &self.data_dir)
            .field("name", &self.name)
            .field("dtype", &self.dtype)
            .field("quantised", &self.quantised)
            .field("lanes", &self.lanes)
            .field("max_context", &self.max_context)
            .field("score_bytes", &self.score_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        let here = env!("CARGO_MANIFEST_DIR");
        assert_eq!(ModelSource::parse("assay-demo"), ModelSource::Demo);
        assert_eq!(
            ModelSource::parse("Qwen/Qwen3-0.6B"),
            ModelSource::Hub("Qwen/Qwen3-0.6B".into())
        );
        assert_eq!(ModelSource::parse("a/b.GGUF"), ModelSource::Gguf("a/b.GGUF".into()));
        assert_eq!(ModelSource::parse(here), ModelSource::Directory(here.into()));
        for path in ["/no/where", "./x", "../x", "a/b/c", "model", "~/x y"] {
            assert_eq!(ModelSource::parse(path), ModelSource::Directory(path.into()), "{path}");
        }
    }

    #[test]
    fn names_come_from_the_source() {
        assert_eq!(ModelSource::Gguf("/m/tiny.q8.gguf".into()).served_name(), "tiny.q8");
        assert_eq!(ModelSource::Directory("/m/tiny".into()).served_name(), "tiny");
        assert_eq!(ModelSource::Hub("o/n".into()).served_name(), "o/n");
    }
}
