//! A loaded demo model for all tests, folders that vanish, and short ways to ask.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use assay_engine::{
    B256, Engine, EngineError, GenerateRequest, Generation, Message, Prompt, Sampling,
};
use assay_engine_mistral::{LoadOptions, MistralEngine, ModelSource};
use tokio::sync::OnceCell;

/// A folder that is removed with its content.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "assay-engine-test-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A copy of the demo model in here.
    pub fn with_demo() -> (Self, PathBuf) {
        let folder = Self::new();
        let copy = folder.path().join("copy");
        fs::create_dir(&copy).unwrap();
        for entry in fs::read_dir(demo_folder()).unwrap() {
            let file = entry.unwrap().path();
            fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
        }
        (folder, copy)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn demo_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo-model/assay-demo")
}

pub fn demo_gguf() -> PathBuf {
    demo_file("assay-demo-q8_0.gguf")
}

/// A file beside the demo model's folder.
pub fn demo_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo-model").join(name)
}

pub async fn load(source: ModelSource, data: &Path) -> Result<MistralEngine, EngineError> {
    MistralEngine::load(LoadOptions::new(source, data)).await
}

/// The demo model, loaded once.
pub async fn demo() -> &'static MistralEngine {
    static ENGINE: OnceCell<MistralEngine> = OnceCell::const_new();
    ENGINE
        .get_or_init(|| async {
            let folder = Folder::new();
            load(ModelSource::Demo, folder.path()).await.unwrap()
        })
        .await
}

pub fn user(text: &str) -> Prompt {
    Prompt::Messages(vec![Message { role: "user".into(), content: text.into() }])
}

pub fn at(temperature_milli: u32) -> Sampling {
    Sampling { temperature_milli, ..Sampling::default() }
}

pub async fn request(engine: &dyn Engine, text: &str) -> GenerateRequest {
    GenerateRequest {
        prompt_ids: engine.tokenize(&user(text)).await.unwrap(),
        sampling: at(0),
        seed: B256::repeat_byte(1),
        max_output: 48,
        stop: vec![],
        top_logprobs: None,
    }
}

pub async fn run(engine: &dyn Engine, request: GenerateRequest) -> Generation {
    engine.generate(request).await.unwrap().finish().await.unwrap()
}
