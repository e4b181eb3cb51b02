//! Damaged model files are refused, and nothing panics.

use std::fs;

use assay_fuzz::Target;

use super::{gguf, safetensors::safetensors};

/// Files that are written and read in each test.
const ROUNDS: u32 = 4_000;

/// A file with one tensor of four numbers, and all that its header must say.
fn sound_gguf() -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let string =
        |key: &str, value: &str| [text(key), 8_u32.to_le_bytes().into(), text(value)].concat();
    let number = |key: &str, value: u32| {
        [text(key), 4_u32.to_le_bytes().into(), value.to_le_bytes().into()].concat()
    };
    let list = [8_u32.to_le_bytes().to_vec(), 2_u64.to_le_bytes().into(), text("a"), text("b")];
    let tokens = [text("tokenizer.ggml.tokens"), 9_u32.to_le_bytes().into(), list.concat()];
    let pairs = [
        string("general.architecture", "llama"),
        string("tokenizer.ggml.model", "gpt2"),
        tokens.concat(),
        number("tokenizer.ggml.eos_token_id", 1),
        number("llama.block_count", 1),
        number("general.alignment", 32),
    ];
    let tensor = [
        text("output.weight"),
        1_u32.to_le_bytes().into(),
        4_u64.to_le_bytes().into(),
        0_u32.to_le_bytes().into(),
        0_u64.to_le_bytes().into(),
    ];
    let head = [
        b"GGUF".to_vec(),
        3_u32.to_le_bytes().into(),
        1_u64.to_le_bytes().into(),
        (pairs.len() as u64).to_le_bytes().into(),
    ];
    let mut file = [head.concat(), pairs.concat(), tensor.concat()].concat();
    file.resize(file.len().next_multiple_of(32) + 16, 0);
    file
}

#[test]
fn fuzz_gguf_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, sound_gguf()).unwrap();
    assert_eq!(gguf(&path).unwrap().quantisation, "F32");
    Target::new("gguf", vec![sound_gguf()], ROUNDS)
        .run(|input| {
            fs::write(&path, input).unwrap();
            let _ = gguf(&path);
        })
        .unwrap();
}

#[test]
fn fuzz_safetensors_files() {
    let header = br#"{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"BF16","shape":[1],"data_offsets":[16,18]}}"#;
    let sound = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 18]].concat();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, &sound).unwrap();
    safetensors(&path).unwrap();
    Target::new("safetensors", vec![sound], ROUNDS)
        .run(|input| {
            fs::write(&path, input).unwrap();
            let _ = safetensors(&path);
        })
        .unwrap();
}
