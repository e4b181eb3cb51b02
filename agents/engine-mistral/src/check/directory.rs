//! A folder with a model: the files that must be there and what their JSON says.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use assay_engine::EngineError;
use serde_json::Value;

use super::{DOWNLOAD_AGAIN, ModelFacts, bad, safetensors::safetensors};

/// The largest published tokenizer.json files have some 35 MB; far above that it is something else.
const MAX_JSON_BYTES: u64 = 256 << 20;
const COPY_ALL: &str = "point to a folder with config.json, tokenizer.json and *.safetensors files, as `git clone` of a model from the hub gives it";
/// Files that take part in loading if they are there.
const OPTIONAL: [&str; 4] = [
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// Checks the folder and says what it holds.
pub(crate) fn directory(path: &Path) -> Result<ModelFacts, EngineError> {
    if !path.exists() {
        let remedy = "check the path; a model on the hub is written owner/name, one GGUF file ends in .gguf, and the built-in model is assay-demo";
        return Err(bad(path, "it does not exist", remedy));
    }
    if !path.is_dir() {
        return Err(bad(path, "it is neither a folder nor a .gguf file", COPY_ALL));
    }
    let config = required_json(path, "config.json")?;
    let architecture = config
        .get("architectures")
        .and_then(|list| list.get(0))
        .and_then(Value::as_str)
        .ok_or_else(|| {
            let reason = "config.json names no architecture";
            bad(path, reason, "use a model in the format of the transformers library")
        })?
        .to_owned();
    let tokenizer_json = required_json(path, "tokenizer.json")?;
    if !tokenizer_json.get("model").is_some_and(Value::is_object) {
        return Err(bad(&path.join("tokenizer.json"), "it holds no tokenizer", DOWNLOAD_AGAIN));
    }

    let mut files = weights(path)?;
    for weight in &files {
        safetensors(weight)?;
    }
    let tokenizer = path.join("tokenizer.json");
    files.extend([path.join("config.json"), tokenizer.clone()]);
    for name in OPTIONAL {
        let file = path.join(name);
        if file.is_file() {
            if name.ends_with(".json") {
                read_json(&file)?;
            }
            files.push(file);
        }
    }
    files.sort();
    let quantisation = config
        .get("quantization_config")
        .and_then(|q| q.get("quant_method"))
        .and_then(Value::as_str)
        .unwrap_or("none")
        .to_owned();
    let chat_template = chat_template(path)?;
    Ok(ModelFacts { architecture, chat_template, quantisation, files, tokenizer })
}

/// All safetensors files, among them those that an index names.
fn weights(path: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let io = |error: std::io::Error| {
        bad(path, format!("it cannot be listed: {error}"), "check that the folder may be read")
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(io)? {
        let file = entry.map_err(io)?.path();
        if file.is_file() && file.extension().is_some_and(|e| e == "safetensors") {
            found.push(file);
        }
    }
    let index = path.join("model.safetensors.index.json");
    if index.is_file() {
        let value = read_json(&index)?;
        let map = value.get("weight_map").and_then(Value::as_object);
        let map = map.ok_or_else(|| bad(&index, "it has no weight_map", DOWNLOAD_AGAIN))?;
        for name in map.values() {
            let name = name.as_str().unwrap_or_default();
            if !found.iter().any(|file| file.file_name().is_some_and(|f| f == name)) {
                let reason = format!("the file {name:?} that its index names is missing");
                return Err(bad(path, reason, "download the missing file into the folder"));
            }
        }
    }
    if found.is_empty() {
        return Err(bad(path, "it holds no *.safetensors file", COPY_ALL));
    }
    found.sort();
    Ok(found)
}

fn required_json(path: &Path, name: &str) -> Result<Value, EngineError> {
    let file = path.join(name);
    if !file.is_file() {
        return Err(bad(path, format!("it has no {name}"), COPY_ALL));
    }
    read_json(&file)
}

fn read_json(file: &Path) -> Result<Value, EngineError> {
    let io = |error: std::io::Error| {
        bad(file, format!("it cannot be read: {error}"), "check that the file may be read")
    };
    if fs::metadata(file).map_err(io)?.len() > MAX_JSON_BYTES {
        return Err(bad(file, "it is far too large", DOWNLOAD_AGAIN));
    }
    let bytes = fs::read(file).map_err(io)?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| bad(file, format!("it is not JSON: {error}"), DOWNLOAD_AGAIN))?;
    if !value.is_object() {
        return Err(bad(file, "it is not a JSON object", DOWNLOAD_AGAIN));
    }
    Ok(value)
}

/// The template's text: a file of its own, or in the tokenizer's configuration.
fn chat_template(path: &Path) -> Result<Option<String>, EngineError> {
    let jinja = path.join("chat_template.jinja");
    if jinja.is_file() {
        let text = fs::read_to_string(&jinja)
            .map_err(|error| bad(&jinja, format!("it cannot be read: {error}"), DOWNLOAD_AGAIN))?;
        return Ok(Some(text));
    }
    for name in ["tokenizer_config.json", "chat_template.json"] {
        let file = path.join(name);
        if !file.is_file() {
            continue;
        }
        match read_json(&file)?.get("chat_template") {
            Some(Value::String(text)) => return Ok(Some(text.clone())),
            Some(Value::Array(list)) => return Ok(Some(named_templates(list))),
            _ => {}
        }
    }
    Ok(None)
}

/// Several templates in one: a text that changes when any of them does.
fn named_templates(list: &[Value]) -> String {
    let text = |value: &Value, key: &str| {
        value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let by_name: BTreeMap<String, String> =
        list.iter().map(|value| (text(value, "name"), text(value, "template"))).collect();
    by_name.into_iter().map(|(name, template)| format!("{name}\n{template}\n")).collect()
}
