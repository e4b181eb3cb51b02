//! Every refusal of the contracts is a custom error, and a test provokes it; every call that changes something is tested.

use std::{collections::BTreeSet, fs, path::Path};

use assay_harness::{compile_contracts, root};
use serde_json::Value;

/// Text of all Solidity files below a folder.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "sol") {
            text += &fs::read_to_string(&path).unwrap();
        }
    }
    text
}

/// Names of the entries of one type in the ABI of our contracts; those of libraries have no underscore.
fn names(wanted: impl Fn(&Value) -> bool) -> BTreeSet<String> {
    let compiled = compile_contracts().unwrap();
    let ours = compiled.iter().filter(|(name, _)| {
        let source = root().join("contracts/src");
        let known = source.join(format!("{name}.sol")).exists()
            || source.join(format!("periphery/{name}.sol")).exists();
        // Nearly all of the token is OpenZeppelin's.
        known && name.as_str() != "CorToken"
    });
    let entries = ours.flat_map(|(_, contract)| contract.abi.as_array().unwrap().clone());
    entries.filter(|entry| wanted(entry)).map(|entry| text(&entry["name"]).to_owned()).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// [G4] Each error of the ABI is named where a test expects it.
#[test]
fn every_error_is_provoked_by_a_test() {
    let errors = names(|entry| entry["type"] == "error" && text(&entry["name"]).contains('_'));
    assert!(errors.len() > 100, "only {} errors", errors.len());
    let tests = sources(&root().join("contracts/test"));
    let unprovoked: Vec<_> =
        errors.iter().filter(|error| !tests.contains(&format!("{error}.selector"))).collect();
    assert!(unprovoked.is_empty(), "no test in contracts/test expects {unprovoked:?}");
}

#[test]
fn every_call_that_changes_something_is_tested() {
    let calls = names(|entry| {
        entry["type"] == "function" && !matches!(text(&entry["stateMutability"]), "view" | "pure")
    });
    assert!(calls.len() > 40, "only {} calls", calls.len());
    let tests = sources(&root().join("contracts/test"));
    let untested: Vec<_> =
        calls.iter().filter(|call| !tests.contains(&format!(".{call}("))).collect();
    assert!(untested.is_empty(), "no test in contracts/test calls {untested:?}");
}

/// [G4] Neither strings nor nothing: an error with its values.
#[test]
fn nothing_is_refused_without_an_error() {
    let text = sources(&root().join("contracts/src"));
    for bare in ["require(", "assert(", "revert(\"", "revert()"] {
        assert!(!text.contains(bare), "contracts/src has `{bare}`");
    }
}
