//! Loading: check the files, hand them to mistral.rs, hash them for the manifest.

use std::{
    fs,
    num::NonZeroUsize,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::Arc,
};

use assay_engine::{B256, EngineError, Manifest, ManifestFile, NumericClass};
use assay_proof::SAMPLER_VERSION;
use mistralrs::{
    AutoDeviceMapParams, DefaultSchedulerMethod, Device, DeviceMapSetting, IsqType, MistralRs,
    ModelDType, SchedulerConfig, TokenSource,
    core::{
        AutoLoaderBuilder, EmbeddingSpecificConfig, GGUFLoaderBuilder, GGUFSpecificConfig, Loader,
        MistralRsBuilder, MultimodalSpecificConfig, NormalSpecificConfig, Pipeline,
        hf_hub_cache_dir,
    },
};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use crate::{
    check::{self, ModelFacts},
    demo,
    source::{Dtype, LoadOptions, LoadStep, ModelSource, Quantised},
};

/// Name and version of the engine, part of every manifest.
pub(crate) const ENGINE_VERSION: &str = "mistralrs 0.8.1";
/// A template that asks for the date would give every day another prompt, and no auditor the same.
const CLOCK: &str = "strftime_now";
/// Put before such a template: the function is no longer defined, and templates that offer a fixed date
/// use it.
const NO_CLOCK: &str = "{%- set strftime_now = the_clock_is_not_part_of_a_prompt -%}\n";

type SharedPipeline = Arc<Mutex<dyn Pipeline>>;

/// One copy of the model and the thread that runs it.
pub(crate) struct Lane {
    pub runner: Arc<MistralRs>,
    pub pipeline: SharedPipeline,
}

/// A loaded model, before its first token.
pub(crate) struct Loaded {
    pub lanes: Vec<Lane>,
    pub facts: ModelFacts,
}

fn bad(source: &ModelSource, reason: String, remedy: &str) -> EngineError {
    EngineError::BadModel { model: source.to_string(), reason, remedy: remedy.into() }
}

/// Runs what blocks, and turns a panic into an error.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
    died: impl FnOnce(String) -> EngineError,
) -> Result<T, EngineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => Err(died(panic_text(panic.as_ref()))),
            Err(_) => Err(EngineError::Stopped("the program is shutting down".into())),
        },
    }
}

/// The message of a panic.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it gave no reason").to_owned()
}

/// Checks and loads. After this the model has generated nothing yet.
pub(crate) async fn load(options: &LoadOptions) -> Result<Loaded, EngineError> {
    options.report(LoadStep::Checking);
    let checking = options.clone();
    let internal = |text: String| EngineError::Internal(format!("checking the files: {text}"));
    let prepared = blocking(move || prepare(&checking), internal).await?;

    options.report(LoadStep::Loading);
    let mut facts = prepared.facts.clone();
    let mut lanes = Vec::new();
    for _ in 0..options.lanes.max(1) {
        let (loading, prepared) = (options.clone(), prepared.clone());
        let source = options.source.clone();
        let died = move |text: String| {
            let reason = format!("mistral.rs gave up on it: {text}");
            bad(&source, reason, BELONG_TOGETHER)
        };
        let reading = move || on_thread_of_its_own(move || read_weights(&loading, prepared));
        let (pipeline, known) = blocking(reading, died).await?;
        facts = Some(known);
        lanes.push(start(pipeline).await);
    }
    let facts = facts.ok_or_else(|| EngineError::Internal("a model without facts".into()))?;
    Ok(Loaded { lanes, facts })
}

/// mistral.rs notes in a variable of the thread that it shall quantise, and never takes it back: whatever
/// the same thread loads later would be quantised, too.
fn on_thread_of_its_own<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match std::thread::spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

async fn start(pipeline: SharedPipeline) -> Lane {
    // The scheduler ignores its own limit; lanes keep it to one sequence.
    let method = DefaultSchedulerMethod::Fixed(NonZeroUsize::MIN);
    let scheduler = SchedulerConfig::DefaultScheduler { method };
    let runner = MistralRsBuilder::new(pipeline.clone(), scheduler, false, None)
        .with_no_kv_cache(false)
        .with_no_prefix_cache(true)
        .build()
        .await;
    Lane { runner, pipeline }
}

const BELONG_TOGETHER: &str =
    "check that this model's architecture is supported and its files belong together";

/// A checked source. A hub model's files are checked once they are here.
#[derive(Clone)]
struct Prepared {
    source: ModelSource,
    facts: Option<ModelFacts>,
}

fn prepare(options: &LoadOptions) -> Result<Prepared, EngineError> {
    let source = match &options.source {
        ModelSource::Demo => ModelSource::Directory(demo::unpack(&options.data_dir)?),
        other => other.clone(),
    };
    let facts = match &source {
        ModelSource::Directory(path) => Some(check::directory(path)?),
        ModelSource::Gguf(path) => Some(check::gguf(path)?),
        ModelSource::Demo | ModelSource::Hub(_) => None,
    };
    Ok(Prepared { source, facts })
}

fn read_weights(
    options: &LoadOptions,
    prepared: Prepared,
) -> Result<(SharedPipeline, ModelFacts), EngineError> {
    let Prepared { source, facts } = prepared;
    let template = match &facts {
        Some(facts) => without_clock(facts, &options.data_dir)?,
        None => None,
    };
    let loader = loader(&source, template)?;
    let dtype = match options.dtype {
        Dtype::F32 => ModelDType::F32,
        Dtype::Bf16 => ModelDType::BF16,
        Dtype::F16 => ModelDType::F16,
    };
    let is_hub = matches!(source, ModelSource::Hub(_));
    let pipeline = loader
        .load_model_from_hf(
            None,
            if is_hub { TokenSource::CacheToken } else { TokenSource::None },
            &dtype,
            &Device::Cpu,
            !is_hub,
            DeviceMapSetting::Auto(AutoDeviceMapParams::default_text()),
            options.quantised.map(|quantised| match quantised {
                Quantised::Q8_0 => IsqType::Q8_0,
                Quantised::Q4K => IsqType::Q4K,
            }),
            None,
        )
        .map_err(|error| {
            let remedy = if is_hub {
                "if this is meant as a path, no such folder exists; for a hub model check its id and the network, or download it elsewhere and give its folder"
            } else {
                BELONG_TOGETHER
            };
            bad(&options.source, format!("{error:#}"), remedy)
        })?;
    let facts = match (facts, &source) {
        (Some(facts), _) => facts,
        (None, ModelSource::Hub(id)) => hub_facts(id, &options.source)?,
        (None, _) => return Err(EngineError::Internal("a model without facts".into())),
    };
    Ok((pipeline, facts))
}

fn loader(source: &ModelSource, template: Option<PathBuf>) -> Result<Box<dyn Loader>, EngineError> {
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| {
            bad(source, "its path is not UTF-8".into(), "move it to a path with plain characters")
        })
    };
    let template = template.as_deref().map(text).transpose()?;
    match source {
        ModelSource::Gguf(path) => {
            // A bare file name has the empty parent, which would be looked up on the hub.
            let folder = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => text(parent)?,
                _ => ".".to_owned(),
            };
            let file = text(Path::new(path.file_name().unwrap_or_default()))?;
            let config = GGUFSpecificConfig::default();
            let builder =
                GGUFLoaderBuilder::new(None, None, folder, vec![file], config, false, template);
            Ok(builder.build())
        }
        ModelSource::Directory(path) => Ok(auto_loader(text(path)?, template)),
        ModelSource::Hub(id) => Ok(auto_loader(id.clone(), template)),
        ModelSource::Demo => Err(EngineError::Internal("the demo model is not unpacked".into())),
    }
}

fn auto_loader(model: String, template: Option<String>) -> Box<dyn Loader> {
    AutoLoaderBuilder::new(
        NormalSpecificConfig::default(),
        MultimodalSpecificConfig::default(),
        EmbeddingSpecificConfig::default(),
        None,
        None,
        model,
        false,
        template,
    )
    .build()
}

/// A copy of the chat template that does not know the date, if the template asks for it.
fn without_clock(facts: &ModelFacts, data_dir: &Path) -> Result<Option<PathBuf>, EngineError> {
    let Some(template) = facts.chat_template.as_ref().filter(|text| text.contains(CLOCK)) else {
        return Ok(None);
    };
    let text = format!("{NO_CLOCK}{template}");
    let folder = data_dir.join("templates");
    let path = folder.join(format!("{}.jinja", sha256(text.as_bytes())));
    let write = || fs::create_dir_all(&folder).and_then(|()| fs::write(&path, &text));
    write().map_err(|error| EngineError::BadModel {
        model: path.display().to_string(),
        reason: format!("its chat template cannot be written: {error}"),
        remedy: "check that the data folder may be written".into(),
    })?;
    Ok(Some(path))
}

/// The downloaded copy of a hub model.
fn hub_facts(id: &str, source: &ModelSource) -> Result<ModelFacts, EngineError> {
    let missing = |what: &str| {
        let remedy = "download the model elsewhere and give its folder";
        bad(source, format!("its downloaded copy has no {what}"), remedy)
    };
    let cache = hf_hub_cache_dir().ok_or_else(|| missing("cache folder"))?;
    let folder = cache.join(format!("models--{}", id.replace('/', "--")));
    let revision =
        fs::read_to_string(folder.join("refs").join("main")).map_err(|_| missing("revision"))?;
    let facts = check::directory(&folder.join("snapshots").join(revision.trim()))?;
    if facts.chat_template.as_ref().is_some_and(|text| text.contains(CLOCK)) {
        let remedy = format!(
            "give the downloaded folder {} instead of the id",
            folder.join("snapshots").join(revision.trim()).display()
        );
        return Err(bad(source, "its chat template asks for the date".into(), &remedy));
    }
    Ok(facts)
}

pub(crate) fn sha256(bytes: &[u8]) -> B256 {
    B256::from(<[u8; 32]>::from(Sha256::digest(bytes)))
}

/// What the manifest needs to know from the loaded model.
pub(crate) struct Shape {
    pub end_tokens: Vec<u32>,
    pub max_context: u32,
    pub vocab_size: u32,
    pub numeric_class: NumericClass,
}

/// Hashes the files. Blocks.
pub(crate) fn manifest(
    facts: &ModelFacts,
    shape: Shape,
    options: &LoadOptions,
) -> Result<Manifest, EngineError> {
    let mut files = Vec::with_capacity(facts.files.len());
    let mut tokenizer_sha256 = B256::ZERO;
    for path in &facts.files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        options.report(LoadStep::Hashing { file: name });
        let file = ManifestFile::read(path)
            .map_err(|error| bad(&options.source, error.to_string(), "check the model's folder"))?;
        if *path == facts.tokenizer {
            tokenizer_sha256 = file.sha256;
        }
        files.push(file);
    }
    Ok(Manifest {
        architecture: facts.architecture.clone(),
        chat_template_sha256: facts.chat_template.as_ref().map(|text| sha256(text.as_bytes())),
        end_tokens: shape.end_tokens,
        engine: ENGINE_VERSION.into(),
        files,
        max_context: shape.max_context,
        numeric_classes: vec![shape.numeric_class],
        quantisation: match options.quantised {
            Some(quantised) => quantised.name().to_owned(),
            None => facts.quantisation.clone(),
        },
        sampler: SAMPLER_VERSION,
        tokenizer_sha256,
        version: assay_engine::MANIFEST_VERSION,
        vocab_size: shape.vocab_size,
    })
}

/// The class of arithmetic in this data type on this machine's CPU.
pub(crate) fn numeric_class(dtype: Dtype) -> Result<NumericClass, EngineError> {
    let text = match dtype {
        Dtype::F32 => "cpu-f32",
        Dtype::Bf16 => "cpu-bf16",
        Dtype::F16 => "cpu-f16",
    };
    text.parse().map_err(|error| EngineError::Internal(format!("{error}")))
}

/// Calls into mistral.rs that may panic.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, EngineError> {
    std::panic::catch_unwind(AssertUnwindSafe(work))
        .map_err(|panic| EngineError::Internal(panic_text(panic.as_ref())))
}
