//! The contracts, compiled from source with the settings of foundry.toml.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail};
use foundry_compilers::{
    Project, ProjectBuilder, ProjectCompileOutput, ProjectPathsConfig,
    artifacts::{
        BytecodeHash, EvmVersion, Settings, SettingsMetadata, output_selection::OutputSelection,
        remappings::Remapping,
    },
    solc::{Solc, SolcCompiler, SolcSettings},
};

use crate::root;

/// As in foundry.toml.
const OPTIMIZER_RUNS: usize = 200;
/// As in foundry.toml.
const REMAPPED: [&str; 2] = ["@kevincharm/bls-bn254/", "@openzeppelin/contracts/"];

/// What the compiler makes of one contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledContract {
    /// Its ABI.
    pub abi: serde_json::Value,
    /// Creation bytecode, 0x and hex.
    pub bytecode: String,
}

/// Compiles everything under contracts/src. Needs `npm ci`.
pub fn compile_contracts() -> Result<BTreeMap<String, CompiledContract>> {
    let root = root().canonicalize()?;
    let output = project(&root, &root)?.compile()?;
    artifacts(output)
}

/// A change of a source file: what stands there once, and what stands there instead.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// Below contracts/src.
    pub file: &'static str,
    /// Must be there exactly once.
    pub from: &'static str,
    /// What it becomes.
    pub to: &'static str,
}

/// Compiles one contract of contracts/src and what it needs, with some text changed: for tests that plant a fault.
pub fn compile_changed(contract: &str, changes: &[Change]) -> Result<CompiledContract> {
    let root = root().canonicalize()?;
    let folder = tempfile::tempdir()?;
    let sources = folder.path().join("contracts/src");
    copy(&root.join("contracts/src"), &sources)?;
    for change in changes {
        let path = sources.join(change.file);
        let text = fs::read_to_string(&path)?;
        if text.matches(change.from).count() != 1 {
            bail!("{} does not have this once: {}", change.file, change.from);
        }
        fs::write(&path, text.replace(change.from, change.to))?;
    }
    let file = sources.join(format!("{contract}.sol"));
    let output = project(&root, folder.path())?.compile_files([file])?;
    artifacts(output)?.remove(contract).with_context(|| format!("there is no {contract}"))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// What compiles `contracts/src` below `folder` as foundry.toml says; compiler and libraries are those of the
/// repository.
fn project(root: &Path, folder: &Path) -> Result<Project<SolcCompiler>> {
    if !root.join("node_modules/solc").exists() {
        bail!("the Solidity compiler is not installed: run `npm ci` in the repository's root");
    }
    let paths = ProjectPathsConfig::builder()
        .root(folder)
        .sources(folder.join("contracts/src"))
        .lib(root.join("node_modules"))
        .remappings(REMAPPED.map(|name| Remapping {
            context: None,
            name: name.into(),
            path: root.join("node_modules").join(name).display().to_string(),
        }))
        .build_with_root(folder);
    let mut settings = Settings {
        evm_version: Some(EvmVersion::Prague),
        metadata: Some(SettingsMetadata::new(BytecodeHash::None, false)),
        output_selection: OutputSelection::default_output_selection(),
        ..Settings::default()
    };
    settings.optimizer.enabled = Some(true);
    settings.optimizer.runs = Some(OPTIMIZER_RUNS);
    let solc = Solc::new(root.join("script/solc")).context("script/solc does not answer")?;
    let project = ProjectBuilder::<SolcCompiler>::new(Default::default())
        .paths(paths)
        .settings(SolcSettings { settings, ..SolcSettings::default() })
        .ephemeral()
        .no_artifacts()
        .build(SolcCompiler::Specific(solc))?;
    Ok(project)
}

fn artifacts(
    output: ProjectCompileOutput<SolcCompiler>,
) -> Result<BTreeMap<String, CompiledContract>> {
    if output.has_compiler_errors() {
        bail!("the contracts do not compile:\n{output}");
    }
    let mut contracts = BTreeMap::new();
    for (id, artifact) in output.into_artifacts() {
        let (Some(abi), Some(bytecode)) = (artifact.abi, artifact.bytecode) else { continue };
        let bytecode = bytecode.object.as_bytes().map(ToString::to_string).unwrap_or_default();
        contracts.insert(id.name, CompiledContract { abi: serde_json::to_value(abi)?, bytecode });
    }
    Ok(contracts)
}
