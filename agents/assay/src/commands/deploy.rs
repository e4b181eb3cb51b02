//! `assay deploy`: the contracts on a chain, described in network.json.

use std::fs;

use alloy::providers::{Provider, ProviderBuilder};
use anyhow::{Context, Result};
use assay_bindings::{DeployConfig, deploy};
use serde_json::json;

use crate::{
    args::{DeployArgs, Global},
    keys,
    network::{Network, data_folder},
    ui,
};

pub async fn run(global: &Global, args: DeployArgs) -> Result<()> {
    let data = data_folder(global.data.as_deref())?;
    fs::create_dir_all(&data).with_context(|| format!("{} cannot be made", data.display()))?;
    let signer = keys::open(&args.key, global.data.as_deref(), "deployer")?;
    let deployer = signer.address();
    let provider =
        ProviderBuilder::new().wallet(signer).connect(&args.rpc_url).await.with_context(|| {
            format!("no chain answers at {}: start it, or correct --rpc-url", args.rpc_url)
        })?;
    let start_block = provider.get_block_number().await.with_context(|| {
        format!("no chain answers at {}: start it, or correct --rpc-url", args.rpc_url)
    })?;
    let deployment = deploy(&provider, deployer, &DeployConfig::development()).await?;
    let network = Network {
        rpc_url: args.rpc_url,
        ipfs_url: args.ipfs_url,
        http_url: None,
        start_block,
        deployment,
        model: None,
    };
    let path = network.save(&data)?;
    let value = json!({"deployment": network.deployment, "written": path});
    ui::show(global.json, &value, |_| {
        let d = &network.deployment;
        format!(
            "deployed on chain {} by {deployer}\n  CorToken        {}\n  ModelRegistry   {}\n  NodePool        {}\n  \
             Session         {}\n  SessionQueue    {}\n  SessionPayment  {}\n  RandomBeacon    {}\nwritten to {}",
            d.chain_id,
            d.token,
            d.models,
            d.nodes,
            d.sessions,
            d.queue,
            d.payment,
            d.beacon,
            path.display()
        )
    })
}
