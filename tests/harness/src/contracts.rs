//! The contracts, compiled from source with the settings of foundry.toml.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use foundry_compilers::{
    ProjectBuilder, ProjectPathsConfig,
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
    if !root.join("node_modules/solc").exists() {
        bail!("the Solidity compiler is not installed: run `npm ci` in the repository's root");
    }
    let paths = ProjectPathsConfig::builder()
        .root(&root)
        .sources(root.join("contracts/src"))
        .lib(root.join("node_modules"))
        .remappings(REMAPPED.map(|name| Remapping {
            context: None,
            name: name.into(),
            path: root.join("node_modules").join(name).display().to_string(),
        }))
        .build_with_root(&root);
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
    let output = project.compile()?;
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
