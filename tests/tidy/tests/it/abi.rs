//! The committed ABI and bytecode are what the sources compile to.

use std::fs;

use assay_harness::{compile_contracts, root};
use serde_json::Value;

#[test]
fn committed_artifacts_match_the_sources() {
    let compiled = compile_contracts().unwrap();
    let folder = root().join("sdk/bindings/artifacts");
    let mut checked = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let committed: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let fresh = compiled.get(source_of(&name));
        let fresh = fresh.unwrap_or_else(|| panic!("there is no contract {name}"));
        let hint = "run script/bindings and commit sdk/bindings/artifacts";
        assert_eq!(sorted(&committed["abi"]), sorted(&fresh.abi), "ABI of {name}: {hint}");
        let bytecode = committed["bytecode"].as_str().unwrap();
        assert!(bytecode == fresh.bytecode, "bytecode of {name} is out of date: {hint}");
        checked += 1;
    }
    assert!(checked >= 7, "only {checked} artifacts are committed");
}

/// What both beacons have in common is bound by its name in Rust, as `script/bindings` says.
fn source_of(name: &str) -> &str {
    if name == "RandomBeacon" { "IRandomBeacon" } else { name }
}

/// Compilers print the same entries with other key orders.
fn sorted(abi: &Value) -> Vec<String> {
    let mut entries: Vec<String> = abi.as_array().unwrap().iter().map(canonical).collect();
    entries.sort();
    entries
}

fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut fields: Vec<_> =
                map.iter().map(|(k, v)| format!("{k}:{}", canonical(v))).collect();
            fields.sort();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}
