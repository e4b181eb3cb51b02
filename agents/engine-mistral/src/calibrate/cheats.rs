//! What a dishonest miner runs instead of the model.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use assay_engine::EngineError;
use serde_json::{Value, json};

use crate::{
    demo,
    source::{LoadOptions, ModelSource, Quantised},
};

/// A model that is run in place of another.
#[derive(Clone, Debug)]
pub struct Cheat {
    /// What it is called in the report.
    pub name: String,
    /// How it is loaded.
    pub load: LoadOptions,
}

/// Copies of the model that are cheaper to run: with 8 and 4 bits a weight, and without the last layer. A
/// model in GGUF form has none of them.
///
/// # Errors
/// If a folder cannot be written.
pub fn cheaper(model: &LoadOptions) -> Result<Vec<Cheat>, EngineError> {
    let Some(folder) = folder(model)? else { return Ok(Vec::new()) };
    let with = |name: &str, source: PathBuf, quantised| Cheat {
        name: name.to_owned(),
        load: LoadOptions { source: ModelSource::Directory(source), quantised, ..model.clone() },
    };
    let mut cheats = vec![
        with("8 bits (Q8_0)", folder.clone(), Some(Quantised::Q8_0)),
        with("4 bits (Q4_K)", folder.clone(), Some(Quantised::Q4K)),
    ];
    let smaller = model.data_dir.join("without-last-layer");
    let made = without_last_layer(&folder, &smaller).map_err(|error| {
        EngineError::Internal(format!("a smaller model in {}: {error}", smaller.display()))
    })?;
    if made {
        cheats.push(with("one layer fewer", smaller, None));
    }
    Ok(cheats)
}

/// The model's folder, if it has one.
pub(crate) fn folder(model: &LoadOptions) -> Result<Option<PathBuf>, EngineError> {
    Ok(match &model.source {
        ModelSource::Demo => Some(demo::unpack(&model.data_dir)?),
        ModelSource::Directory(folder) => Some(folder.clone()),
        ModelSource::Gguf(_) | ModelSource::Hub(_) => None,
    })
}

/// The same files with one layer fewer in their configuration: its weights are there and not used.
fn without_last_layer(from: &Path, to: &Path) -> io::Result<bool> {
    let mut config: Value = serde_json::from_slice(&fs::read(from.join("config.json"))?)?;
    let layers = config.get("num_hidden_layers").and_then(Value::as_u64);
    let (Some(layers @ 2..), Some(config)) = (layers, config.as_object_mut()) else {
        return Ok(false);
    };
    config.insert("num_hidden_layers".into(), json!(layers - 1));
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let file = entry?.path();
        let Some(name) = file.file_name().filter(|_| file.is_file()) else { continue };
        // A link takes no space; over the border of a file system only a copy works.
        if fs::hard_link(&file, to.join(name)).is_err() {
            fs::copy(&file, to.join(name))?;
        }
    }
    // Not written through the link.
    fs::remove_file(to.join("config.json"))?;
    fs::write(to.join("config.json"), serde_json::to_vec_pretty(config)?)?;
    Ok(true)
}
