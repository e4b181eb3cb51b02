//! `assay model calibrate|random`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
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
    let answers: Vec<Answers> =
        args.answers.iter().map(|file| Answers::load(file)).collect::<Result<_, _>>()?;
    let options = Options {
        model,
        classes,
        cheats,
        audits: args.audits,
        trials: args.trials,
        tokens: args.tokens,
        answers,
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

/// A line now and then, and one at the end of each part.
fn tick() -> Tick {
    let last = Mutex::new(Instant::now());
    let begun = Instant::now();
    Arc::new(move |what, done, of| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if done == of || last.elapsed() > PROGRESS {
            *last = Instant::now();
            ui::note(format!("{:>6} s  {what}: {done} of {of}", begun.elapsed().as_secs()));
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
