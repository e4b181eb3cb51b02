//! One file per subcommand.

pub mod agents;
pub mod api_key;
pub mod ask;
pub mod audit;
pub mod balance;
pub mod bench;
pub mod calibrate;
pub mod deploy;
pub mod doctor;
pub mod model;
pub mod node;
pub mod params;
pub mod session;
pub mod task;
pub mod thresholds;
pub mod verify;

use alloy::{eips::BlockId, providers::Provider};
use anyhow::{Context, Result};
use assay_chain::Chain;

use crate::{
    args::{Global, KeyArgs},
    keys,
    network::{Network, data_folder},
    wallet::Wallet,
};

/// The network of the command, connected without a key.
async fn reader(global: &Global) -> Result<(Network, Chain)> {
    let network = Network::load(&data_folder(global.data.as_deref())?)?;
    let chain = Chain::connect(&network.rpc_url, network.deployment.clone()).await?;
    Ok((network, chain))
}

/// The network of the command, connected with the key that the flags name.
async fn writer(
    global: &Global,
    key: &KeyArgs,
    default_account: &str,
) -> Result<(Network, Wallet)> {
    let network = Network::load(&data_folder(global.data.as_deref())?)?;
    let signer = keys::open(key, global.data.as_deref(), default_account)?;
    let wallet = Wallet::connect(&network.rpc_url, network.deployment.clone(), signer).await?;
    Ok((network, wallet))
}

/// Time of the newest block, unix seconds: what the contracts go by.
pub async fn head_time(chain: &Chain) -> Result<u64> {
    let head = chain.provider.get_block(BlockId::latest()).await?;
    Ok(head.context("the chain has no latest block")?.header.timestamp)
}
