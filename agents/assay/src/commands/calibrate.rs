//! `assay model calibrate|random`.

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use assay_engine_mistral::{
    Dtype, LoadOptions, LoadStep, ModelSource, Shape,
    calibrate::{self, Answers, Cheat, Options, Table, Tick},
    write_random_model,
};
use serde_json::json;

use crate::{
    args::{DataType, Global, ModelCalibrateArgs, ModelRandomArgs, ModelShape},
    network::data_folder,
    ui,
};

/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);

pub async fn run(global: &Global, args: ModelCalibrateArgs) -> Result<()> {
    let data = data_folder(global.data.as_deref())?.join("models");
    let load = |model: &str| LoadOptions {
        lanes: args.lanes.into(),
        progress: Some(Arc::new(|step: LoadStep| {
            if let LoadStep::Loading = step {
                ui::note("loading the weights");
            }
        })),
        ..LoadOptions::new(ModelSource::parse(model), data.clone())
    };
    let classes: Vec<Dtype> = args.classes.iter().map(|class| dtype(*class)).collect();
    let mut model = load(&args.model);
    model.dtype = classes.first().copied().unwrap_or_default();
    let mut cheats = if args.save.is_some() { Vec::new() } else { calibrate::cheaper(&model)? };
    for name in &args.cheats {
        let source = ModelSource::parse(name);
        cheats.push(Cheat { name: source.served_name(), load: load(name) });
    }
    if let Some(name) = args.open_to.iter().find(|n| !cheats.iter().any(|c| c.name == **n)) {
        let names: Vec<&str> = cheats.iter().map(|cheat| &*cheat.name).collect();
        bail!("no cheat is called {name:?}: there are {}", names.join(", "));
    }
    if let Some(folder) = &args.keep {
        fs::create_dir_all(folder)
            .with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    let answers: Vec<Answers> =
        args.answers.iter().map(|file| Answers::load(file)).collect::<Result<_, _>>()?;
    let options = Options {
        model,
        classes,
        cheats,
        audits: args.audits,
        trials: args.trials,
        open: args.open,
        open_to: args.open_to,
        tokens: args.tokens,
        answers,
        keep: args.keep,
        tick: tick(),
    };
    if let Some(file) = &args.save {
        let answers = calibrate::answer(&options).await?;
        answers.save(file)?;
        let value = json!({"answers": answers.answers.len(), "file": file});
        return ui::show(global.json, &value, |value| {
            format!("{} answers in {}", value["answers"], file.display())
        });
    }
    let outcome = calibrate::run(options).await?;
    if let Some(folder) = &args.report {
        let files = outcome.write(folder);
        let files = files.with_context(|| format!("{} cannot be written", folder.display()))?;
        for file in files {
            ui::note(format!("wrote {}", file.display()));
        }
    }
    ui::show(global.json, &outcome.table(), describe)
}

pub fn random(global: &Global, args: &ModelRandomArgs) -> Result<()> {
    let shape = match args.shape {
        ModelShape::Small => Shape::SMALL,
        ModelShape::Qwen3 => Shape::QWEN3_0_6B,
    };
    write_random_model(&args.folder, &shape, args.seed)
        .with_context(|| format!("{} cannot be written", args.folder.display()))?;
    let value = json!({"folder": args.folder, "vocabulary": shape.vocabulary});
    ui::show(global.json, &value, |_| format!("random weights in {}", args.folder.display()))
}

fn dtype(class: DataType) -> Dtype {
    match class {
        DataType::F32 => Dtype::F32,
        DataType::F16 => Dtype::F16,
        DataType::Bf16 => Dtype::Bf16,
    }
}

/// A line now and then, with what is left of the part, and one at the end of each part.
fn tick() -> Tick {
    struct Part {
        what: String,
        begun: Instant,
        /// What was there when it began.
        at_first: u32,
        told: Instant,
    }
    let begun = Instant::now();
    let part = Mutex::new(None::<Part>);
    Arc::new(move |what, done, of| {
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let new = || Part { what: what.to_owned(), begun: now, at_first: done, told: now };
        let part = match &mut *part {
            Some(part) if part.what == what => part,
            other => other.insert(new()),
        };
        if done == of || part.told.elapsed() > PROGRESS {
            part.told = now;
            let each = part.begun.elapsed() / done.saturating_sub(part.at_first).max(1);
            let left = (each * of.saturating_sub(done)).as_secs();
            let left = if done == of { String::new() } else { format!(", {left} s to go") };
            ui::note(format!("{:>6} s  {what}: {done} of {of}{left}", begun.elapsed().as_secs()));
        }
    })
}

fn describe(table: &Table) -> String {
    let mut lines = vec![format!("calibration of {}", table.model)];
    for pair in &table.pairs {
        lines.push(format!(
            "miner {}, validator {}: tau {}, hard margin {} of 65536 nat; {} of {} honest audits accused\n  {}",
            pair.miner_class,
            pair.validator_class,
            pair.calibration.tau,
            pair.calibration.hard_margin,
            pair.honest_accused,
            pair.honest_audits,
            pair.word,
        ));
    }
    lines.join("\n")
}
