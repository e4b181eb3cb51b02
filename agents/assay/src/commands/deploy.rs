//! `assay deploy`: the contracts on a chain, described in network.json.

use std::{fs, path::Path};

use alloy::providers::{Provider, ProviderBuilder};
use anyhow::{Context, Result};
use assay_bindings::{DeployConfig, DeploymentFile, deploy};
use serde_json::json;

use crate::{
    args::{DeployArgs, Global},
    keys,
    network::{Network, data_folder, without_keys},
    ui,
};

pub async fn run(global: &Global, args: DeployArgs) -> Result<()> {
    let urls = args.rpc_url.clone();
    deploy_and_describe(global, args).await.map_err(|error| without_keys(error, &urls))
}

async fn deploy_and_describe(global: &Global, args: DeployArgs) -> Result<()> {
    let data = data_folder(global.data.as_deref())?;
    fs::create_dir_all(&data).with_context(|| format!("{} cannot be made", data.display()))?;
    let mut file = match &args.deployment {
        Some(path) => read_file(path)?,
        None => DeploymentFile { config: DeployConfig::development(), contracts: None },
    };
    let signer = keys::open(&args.key, global.data.as_deref(), "deployer")?;
    let deployer = signer.address();
    let unreachable =
        || format!("no chain answers at {}: start it, or correct --rpc-url", args.rpc_url);
    // The network's commands may use several endpoints; one deploys.
    let endpoint = args.rpc_url.split(',').next().unwrap_or_default().trim();
    let provider =
        ProviderBuilder::new().wallet(signer).connect(endpoint).await.with_context(unreachable)?;
    let start_block = provider.get_block_number().await.with_context(unreachable)?;
    let sent = provider.get_transaction_count(deployer).await?;
    let deployment = deploy(&provider, deployer, &file.config).await?;
    let found = provider.get_transaction_count(deployer).await? == sent;
    if let Some(path) = &args.deployment {
        file.contracts = Some(deployment.clone());
        write_file(path, &file)?;
    }
    // What the folder knows of the same contracts stays; of contracts that were found, it may be anything.
    let known = Network::load(&data).ok().filter(|network| network.deployment == deployment);
    let network = Network {
        rpc_url: args.rpc_url,
        ipfs_url: args.ipfs_url,
        http_url: known.as_ref().and_then(|network| network.http_url.clone()),
        start_block: match &known {
            Some(network) => network.start_block,
            None if found => 0,
            None => start_block,
        },
        deployment,
        model: known.and_then(|network| network.model),
    };
    let path = network.save(&data)?;
    let value = json!({"deployment": network.deployment, "written": path});
    ui::show(global.json, &value, |_| {
        let d = &network.deployment;
        let mut lines = vec![format!("deployed on chain {} by {deployer}", d.chain_id)];
        lines.extend(d.named().map(|(contract, address)| format!("  {contract:<14}  {address}")));
        lines.push(format!("written to {}", path.display()));
        lines.join("\n")
    })
}

/// A file like `script/deployments/<chain id>.toml`.
pub fn read_file(path: &Path) -> Result<DeploymentFile> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read: check the path", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is no deployment file", path.display()))
}

/// Whole or not at all.
fn write_file(path: &Path, file: &DeploymentFile) -> Result<()> {
    let temporary = path.with_extension("toml.new");
    fs::write(&temporary, toml::to_string(file)?)
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("{} cannot be written", path.display()))
}
