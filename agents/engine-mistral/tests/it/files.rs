//! Damaged, incomplete and foreign model files: a clear error each, and never a panic.

use std::{
    fs,
    path::{Path, PathBuf},
};

use assay_engine::{Engine, EngineError};
use assay_engine_mistral::{ModelSource, unpack_demo};

use crate::support::{Folder, demo_gguf, load, request, run, user};

async fn refused(source: ModelSource, data: &Path) -> String {
    let error = load(source, data).await.unwrap_err();
    assert!(matches!(error, EngineError::BadModel { .. }), "{error:?}");
    assert!(!error.is_client_fault());
    error.to_string()
}

async fn damaged(change: impl FnOnce(&Path)) -> String {
    let (folder, copy) = Folder::with_demo();
    change(&copy);
    refused(ModelSource::Directory(copy), folder.path()).await
}

fn edit(file: PathBuf, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(&file).unwrap();
    change(&mut bytes);
    fs::write(&file, bytes).unwrap();
}

fn edit_json(file: PathBuf, change: impl FnOnce(&mut serde_json::Value)) {
    edit(file, |bytes| {
        let mut value = serde_json::from_slice(bytes).unwrap();
        change(&mut value);
        *bytes = serde_json::to_vec(&value).unwrap();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_lead_nowhere() {
    let folder = Folder::new();
    let nowhere = folder.path().join("nowhere");
    let message = refused(ModelSource::Directory(nowhere), folder.path()).await;
    assert!(message.contains("does not exist") && message.contains("assay-demo"), "{message}");
    let message = refused(ModelSource::Directory(folder.path().into()), folder.path()).await;
    assert!(message.contains("config.json"), "{message}");
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let message = refused(ModelSource::Directory(file), folder.path()).await;
    assert!(message.contains("neither a folder"), "{message}");
    let missing = folder.path().join("missing.gguf");
    let message = refused(ModelSource::Gguf(missing), folder.path()).await;
    assert!(message.contains("cannot be opened"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_files_are_named() {
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        let message = damaged(|copy| fs::remove_file(copy.join(name)).unwrap()).await;
        let word = if name.ends_with(".json") { name } else { "*.safetensors" };
        assert!(message.contains(word), "{message}");
    }
    let message = damaged(|copy| {
        let index = r#"{"weight_map":{"a":"model-00002-of-00002.safetensors"}}"#;
        fs::write(copy.join("model.safetensors.index.json"), index).unwrap();
    })
    .await;
    assert!(message.contains("model-00002-of-00002.safetensors"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_safetensors() {
    let weights = |copy: &Path| copy.join("model.safetensors");
    for (what, change) in [
        (
            "download",
            Box::new(|b: &mut Vec<u8>| b.truncate(b.len() - 1)) as Box<dyn FnOnce(&mut Vec<u8>)>,
        ),
        ("download", Box::new(|b: &mut Vec<u8>| b.truncate(100))),
        ("download", Box::new(|b: &mut Vec<u8>| b.truncate(3))),
        ("header", Box::new(|b: &mut Vec<u8>| b[7] = 0x7F)),
        ("not JSON", Box::new(|b: &mut Vec<u8>| b[8] = b'x')),
        ("needs", Box::new(|b: &mut Vec<u8>| b.push(0))),
    ] {
        let message = damaged(|copy| edit(weights(copy), change)).await;
        assert!(message.contains(what) || message.contains("need"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_json() {
    let files =
        ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"];
    for name in files {
        let message = damaged(|copy| edit(copy.join(name), |b| b.truncate(b.len() / 2))).await;
        assert!(message.contains("not JSON") && message.contains(name), "{message}");
    }
    let message = damaged(|copy| {
        edit_json(copy.join("config.json"), |v| v["architectures"] = serde_json::json!([]));
    })
    .await;
    assert!(message.contains("architecture"), "{message}");
    let message = damaged(|copy| {
        edit_json(copy.join("config.json"), |v| v["architectures"] = serde_json::json!(["NoSuch"]));
    })
    .await;
    assert!(message.contains("NoSuch") || message.contains("architecture"), "{message}");
    damaged(|copy| edit_json(copy.join("tokenizer.json"), |v| v["model"] = serde_json::json!({})))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_of_another_shape_or_without_sense() {
    damaged(|copy| {
        edit_json(copy.join("config.json"), |v| v["num_hidden_layers"] = serde_json::json!(99));
    })
    .await;
    damaged(|copy| {
        edit_json(copy.join("config.json"), |v| v["hidden_size"] = serde_json::json!(512));
    })
    .await;
    // All weights NaN, in 16-bit and in 32-bit types.
    let message = damaged(|copy| {
        edit(copy.join("model.safetensors"), |bytes| {
            let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            bytes[start..].fill(0xFF);
        });
    })
    .await;
    assert!(message.contains("NaN"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_gguf() {
    let folder = Folder::new();
    let whole = fs::read(demo_gguf()).unwrap();
    let file = folder.path().join("bad.gguf");
    let mut cases: Vec<(Vec<u8>, &str)> = vec![
        (b"GGUF".to_vec(), "does not begin"),
        (vec![0; 100], "does not begin"),
        (whole[..whole.len() - 1].to_vec(), "the file at"),
        (whole[..1000].to_vec(), "ends in the middle"),
    ];
    for (at, value, what) in [
        (4, 9_u64, "version 9"),
        (8, u64::MAX, "tensors"),
        (16, u64::MAX, "header entries"),
        (24, u64::MAX, "string"),
    ] {
        let mut bytes = whole.clone();
        let width = if at == 4 { 4 } else { 8 };
        bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        cases.push((bytes, what));
    }
    for (bytes, what) in cases {
        fs::write(&file, bytes).unwrap();
        let message = refused(ModelSource::Gguf(file.clone()), folder.path()).await;
        assert!(message.contains(what), "{what}: {message}");
    }
    // Cut anywhere, it is refused.
    for part in 1..40 {
        fs::write(&file, &whole[..whole.len() * part / 40]).unwrap();
        refused(ModelSource::Gguf(file.clone()), folder.path()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_a_template_takes_text_only() {
    let (folder, copy) = Folder::with_demo();
    let _ = fs::remove_file(copy.join("chat_template.jinja"));
    edit_json(copy.join("tokenizer_config.json"), |v| {
        v.as_object_mut().unwrap().remove("chat_template");
    });
    let engine = load(ModelSource::Directory(copy), folder.path()).await.unwrap();
    let error = engine.tokenize(&user("hi")).await.unwrap_err();
    assert!(matches!(error, EngineError::Unsupported { .. }), "{error}");
    let text = assay_engine::Prompt::Text("hi".into());
    assert!(!engine.tokenize(&text).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_sees_no_clock_and_may_refuse() {
    let (folder, copy) = Folder::with_demo();
    let _ = fs::remove_file(copy.join("chat_template.jinja"));
    let template = "{%- if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}fixed{% endif %}\
                    {%- for m in messages %}{%- if m.content == 'no' %}{{ raise_exception('not this') }}{% endif %}\
                    {{ m.content }}{% endfor %}";
    edit_json(copy.join("tokenizer_config.json"), |v| {
        v["chat_template"] = serde_json::json!(template);
    });
    let engine = load(ModelSource::Directory(copy), folder.path()).await.unwrap();
    let ids = engine.tokenize(&user("hello")).await.unwrap();
    let text = engine.read(&ids, &[]).await.unwrap().text;
    assert!(text.contains("fixed") && text.contains("hello"), "{text}");
    let error = engine.tokenize(&user("no")).await.unwrap_err();
    assert!(matches!(error, EngineError::Template(_)) && error.is_client_fault(), "{error}");
    assert!(error.to_string().contains("not this"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_unpacked_demo_is_repaired() {
    let folder = Folder::new();
    let model = unpack_demo(folder.path()).unwrap();
    edit(model.join("model.safetensors"), |bytes| bytes.truncate(10));
    fs::write(model.join("old.safetensors"), "x").unwrap();
    let engine = load(ModelSource::Demo, folder.path()).await.unwrap();
    assert!(!model.join("old.safetensors").exists());
    assert!(!run(&engine, request(&engine, "Hello").await).await.ids.is_empty());
}
