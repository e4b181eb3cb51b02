//! The crate graph: which crate may depend on which, and who owns the heavy dependencies.

use std::{collections::BTreeMap, fs};

use assay_harness::root;
use toml::Table;

/// Heavy or delicate dependencies, and the crates that may name them.
const OWNERS: &[(&str, &[&str])] = &[
    ("mistralrs", &["assay-engine-mistral"]),
    ("revm", &["assay-evm"]),
    ("alloy-evm", &["assay-evm"]),
    ("foundry-compilers", &["assay-harness"]),
    ("ipfs-api-backend-hyper", &["assay-store"]),
    ("jsonrpsee", &["assay-devnet"]),
    ("assay-engine-mistral", &["assay-assay"]),
];

/// Crates of `sdk/`, and those of them that each may name.
const SDK: &[(&str, &[&str])] = &[
    ("assay-types", &[]),
    ("assay-proof", &["assay-types"]),
    ("assay-bindings", &["assay-types"]),
    ("assay-protocol", &["assay-types", "assay-bindings", "assay-proof"]),
    ("assay-chain", &["assay-types", "assay-bindings", "assay-protocol"]),
    ("assay-store", &["assay-types"]),
    ("assay-engine", &["assay-types", "assay-proof"]),
    (
        "assay-client",
        &[
            "assay-types",
            "assay-bindings",
            "assay-chain",
            "assay-engine",
            "assay-proof",
            "assay-protocol",
            "assay-store",
        ],
    ),
    ("assay-evm", &[]),
    ("assay-devnet", &["assay-evm"]),
    (
        "assay-replay",
        &["assay-types", "assay-bindings", "assay-proof", "assay-protocol", "assay-evm"],
    ),
];

/// These agents never depend on one another.
const AGENTS: &[&str] = &["assay-auditor", "assay-oracle", "assay-router", "assay-miner"];

struct Crate {
    folder: String,
    dependencies: Vec<String>,
}

fn crates() -> BTreeMap<String, Crate> {
    let mut found = BTreeMap::new();
    for group in ["sdk", "agents", "tests"] {
        for entry in fs::read_dir(root().join(group)).unwrap() {
            let folder = entry.unwrap().path();
            let Ok(text) = fs::read_to_string(folder.join("Cargo.toml")) else { continue };
            let manifest: Table = text.parse().unwrap();
            let name = manifest["package"]["name"].as_str().unwrap().to_owned();
            let dependencies = manifest
                .get("dependencies")
                .and_then(|table| table.as_table())
                .map(|table| table.keys().cloned().collect())
                .unwrap_or_default();
            let folder = format!("{group}/{}", folder.file_name().unwrap().to_string_lossy());
            found.insert(name, Crate { folder, dependencies });
        }
    }
    found
}

#[test]
fn every_crate_is_named_after_its_folder() {
    for (name, krate) in crates() {
        let last = krate.folder.rsplit('/').next().unwrap();
        assert_eq!(name, format!("assay-{last}"), "{}", krate.folder);
    }
}

#[test]
fn heavy_dependencies_have_one_owner() {
    for (name, krate) in crates() {
        for (dependency, owners) in OWNERS {
            let named = krate.dependencies.iter().any(|d| d == dependency);
            assert!(
                !named || owners.contains(&name.as_str()),
                "{name} may not depend on {dependency}"
            );
        }
    }
}

#[test]
fn the_sdk_never_depends_on_agents_and_agents_never_on_one_another() {
    let all = crates();
    for (name, krate) in &all {
        for dependency in &krate.dependencies {
            let Some(target) = all.get(dependency) else { continue };
            let sdk_uses_agent =
                krate.folder.starts_with("sdk/") && !target.folder.starts_with("sdk/");
            assert!(!sdk_uses_agent, "{name} may not depend on {dependency}");
            let agent_uses_agent =
                AGENTS.contains(&name.as_str()) && AGENTS.contains(&dependency.as_str());
            assert!(!agent_uses_agent, "{name} may not depend on {dependency}");
        }
    }
}

#[test]
fn libraries_depend_on_one_another_in_one_direction() {
    let all = crates();
    for (name, krate) in all.iter().filter(|(_, krate)| krate.folder.starts_with("sdk/")) {
        let Some((_, allowed)) = SDK.iter().find(|(library, _)| library == name) else {
            panic!("say in SDK what {name} may depend on");
        };
        for dependency in krate.dependencies.iter().filter(|name| all.contains_key(*name)) {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} may not depend on {dependency}"
            );
        }
    }
}

#[test]
fn every_dependency_is_declared_in_the_workspace() {
    for (name, krate) in crates() {
        let text = fs::read_to_string(root().join(&krate.folder).join("Cargo.toml")).unwrap();
        let manifest: Table = text.parse().unwrap();
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(table) = manifest.get(section).and_then(|t| t.as_table()) else { continue };
            for (dependency, spec) in table {
                let shared = spec.get("workspace").and_then(|w| w.as_bool()) == Some(true);
                assert!(shared, "{name}: {dependency} must say `workspace = true`");
            }
        }
    }
}
