//! `assay up`: the whole network of a development chain in one process, which goes on where the last one ended.

mod foundation;
mod network;
mod proof;
mod record;
mod session;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result};
use assay_engine::Engine;
use assay_engine_mistral::{LoadOptions, LoadStep, MistralEngine, ModelSource};
use assay_runtime::{install_metrics, shutdown_signal};

pub use self::proof::PANEL_OWNERS;
use self::record::Record;
use crate::{
    args::{Global, UpArgs},
    cheat::{self, CheatKind},
    network::{Network, data_folder},
    ui,
};

/// Databases of the agents: what each owes, and how far it has read the chain.
const AGENTS_FOLDER: &str = "agents";
/// The embedded chain.
const CHAIN_FOLDER: &str = "chain";

/// Says what is done, and when since the start.
pub struct Steps {
    begun: Instant,
    quiet: bool,
}

impl Steps {
    fn new(quiet: bool) -> Self {
        Self { begun: Instant::now(), quiet }
    }

    /// Says nothing.
    pub fn quiet() -> Self {
        Self::new(true)
    }

    pub fn say(&self, text: impl AsRef<str>) {
        if !self.quiet {
            ui::line(format!("{:6.1}s  {}", self.begun.elapsed().as_secs_f64(), text.as_ref()));
        }
    }
}

pub async fn run(global: &Global, args: UpArgs) -> Result<()> {
    let steps = Arc::new(Steps::new(global.json));
    let data = data_folder(global.data.as_deref())?;
    let _lock = prepare(&data, args.fresh)?;
    install_metrics()?;
    let stop = shutdown_signal();
    tokio::pin!(stop);
    let (_, mut started) = tokio::select! {
        started = start(&data, &args, &steps) => started?,
        () = &mut stop => {
            steps.say("stopped before the network was ready");
            return Ok(());
        }
    };
    let path = started.description.save(&data)?;
    if global.json {
        ui::line(serde_json::to_string(&started.description)?);
    } else {
        steps.say(format!("ready; described in {}", path.display()));
        ui::line(started.banner(&own_command(global)).await?);
    }
    let story = started.story(&steps).await?;
    let tell = async {
        match &story {
            Some(story) => story.tell().await,
            None => std::future::pending().await,
        }
    };
    let failed = tokio::select! {
        failed = started.agents_end() => Some(failed),
        told = tell => told.err(),
        () = &mut stop => None,
    };
    Network::forget(&data);
    steps.say("stopping: no new requests; what was begun is finished");
    started.stop(&steps).await;
    steps.say("stopped");
    match failed {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// This program as a person would call it again for the same network.
fn own_command(global: &Global) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "assay".into());
    match &global.data {
        Some(data) => format!("{program} --data {}", data.display()),
        None => program,
    }
}

/// Makes the folder and takes its lock; `fresh` forgets the network in it, but neither keys nor content nor models.
pub fn prepare(data: &Path, fresh: bool) -> Result<fs::File> {
    fs::create_dir_all(data).with_context(|| {
        format!("{} cannot be made: name another folder with --data", data.display())
    })?;
    let lock = fs::File::create(data.join("up.lock"))?;
    lock.try_lock().map_err(|_| {
        anyhow::anyhow!(
            "another `assay up` runs in {}: stop it, or name another folder with --data",
            data.display()
        )
    })?;
    Network::forget(data);
    if fresh {
        for folder in [AGENTS_FOLDER, CHAIN_FOLDER].map(|name| data.join(name)) {
            if folder.exists() {
                fs::remove_dir_all(&folder)
                    .with_context(|| format!("{} cannot be removed", folder.display()))?;
            }
        }
        // Last: as long as it is there, an interrupted removal is noticed.
        Record::forget(data)?;
    }
    fs::create_dir_all(data.join(AGENTS_FOLDER))?;
    Ok(lock)
}

/// Starts everything; the engine comes along for who wants to use it beside the network.
pub async fn start(
    data: &Path,
    args: &UpArgs,
    steps: &Arc<Steps>,
) -> Result<(Arc<MistralEngine>, network::Running)> {
    // The model loads while the chain is prepared: they have nothing to do with one another.
    let (engine, base) = tokio::try_join!(
        load_model(data.to_path_buf(), args.model.clone(), steps.clone()),
        foundation::lay(data, args, steps)
    )?;
    let dishonest = match args.cheat {
        Some(kind) => {
            let options = LoadOptions::new(ModelSource::parse(&args.model), data.join("models"));
            Some((kind, cheat::engine(kind, engine.clone(), &options).await?))
        }
        None => None,
    };
    let engines = Engines { honest: engine.clone(), dishonest };
    let running = network::Running::start(data, args, steps, engines, base).await?;
    Ok((engine, running))
}

/// What the miners run.
pub struct Engines {
    honest: Arc<MistralEngine>,
    /// Of the one that cheats, if one shall.
    dishonest: Option<(CheatKind, Arc<dyn Engine>)>,
}

async fn load_model(data: PathBuf, model: String, steps: Arc<Steps>) -> Result<Arc<MistralEngine>> {
    let source = ModelSource::parse(&model);
    steps.say(format!("loading the model {model}"));
    let mut options = LoadOptions::new(source, data.join("models"));
    let reporter = steps.clone();
    options.progress = Some(Arc::new(move |step| {
        if step != LoadStep::Ready {
            reporter.say(format!("model: {step}"));
        }
    }));
    let engine = MistralEngine::load(options)
        .await
        .with_context(|| format!("the model {model} cannot be loaded"))?;
    steps.say("model: loaded");
    Ok(Arc::new(engine))
}
