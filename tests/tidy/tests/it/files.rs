//! Sizes, licences and words of the files that git tracks.

use std::{fs, path::PathBuf, process::Command};

use assay_harness::root;

/// A file that one person can hold in mind; tests at its end do not count.
const MAX_LINES: usize = 600;
/// The demo model in all its forms.
const MAX_MODEL_BYTES: u64 = 10_000_000;

fn tracked(pattern: &str) -> Vec<PathBuf> {
    let output =
        Command::new("git").args(["ls-files", "-z", pattern]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "git ls-files failed");
    let names = String::from_utf8(output.stdout).unwrap();
    names
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(|name| root().join(name))
        // A file deleted but not yet committed is still listed.
        .filter(|path| path.exists())
        .collect()
}

#[test]
fn sources_are_short_enough_to_read() {
    let mut files = tracked("*.rs");
    files.extend(tracked("contracts/src/*.sol"));
    assert!(files.len() > 50, "only {} sources found", files.len());
    let is_test = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "tests");
    let folder = root();
    for path in
        files.into_iter().filter(|path| !is_test(&path.strip_prefix(&folder).unwrap().into()))
    {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let lines = code.lines().count();
        assert!(
            lines <= MAX_LINES,
            "{} has {lines} lines, allowed are {MAX_LINES}",
            path.display()
        );
    }
}

#[test]
fn solidity_files_name_their_licence() {
    let files = tracked("*.sol");
    assert!(files.len() > 10, "only {} contracts found", files.len());
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let expected = "// SPDX-License-Identifier: MIT OR Apache-2.0";
        assert_eq!(text.lines().next(), Some(expected), "{}", path.display());
    }
}

#[test]
fn nothing_is_left_for_later() {
    let marks = ["TODO", "FIXME", "XXX"].map(|mark| format!("{mark}:"));
    for path in tracked("*.rs").into_iter().chain(tracked("*.sol")) {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let found = marks.iter().find(|mark| line.contains(mark.as_str()));
            assert!(found.is_none(), "{}:{}: {line}", path.display(), number + 1);
        }
    }
}

#[test]
fn the_demo_model_is_small() {
    let files = tracked("agents/engine-mistral/demo-model/");
    let bytes: u64 = files
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors" || e == "gguf"))
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    assert!(bytes > 0, "the demo model is not committed");
    assert!(
        bytes <= MAX_MODEL_BYTES,
        "the demo model takes {bytes} bytes, allowed are {MAX_MODEL_BYTES}"
    );
}
