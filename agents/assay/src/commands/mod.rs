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
use assay_client::{Client, Reader, Wallet};

use crate::{
    args::{Global, KeyArgs},
    keys,
    network::{Network, data_folder},
};

/// The network of the command, connected without a key.
async fn reader(global: &Global) -> Result<(Network, Chain)> {
    let (network, reader) = observer(global).await?;
    Ok((network, reader.chain))
}

/// The same with its content store.
async fn observer(global: &Global) -> Result<(Network, Reader)> {
    let network = Network::load(&data_folder(global.data.as_deref())?)?;
    let reader = Reader::connect(&network).await?;
    Ok((network, reader))
}

/// The network of the command, connected with the key that the flags name.
async fn writer(
    global: &Global,
    key: &KeyArgs,
    default_account: &str,
) -> Result<(Network, Wallet)> {
    let (network, client) = client(global, key, default_account).await?;
    Ok((network, client.wallet))
}

/// The same with its content store.
async fn client(
    global: &Global,
    key: &KeyArgs,
    default_account: &str,
) -> Result<(Network, Client)> {
    let network = Network::load(&data_folder(global.data.as_deref())?)?;
    let signer = keys::open(key, global.data.as_deref(), default_account)?;
    let client = Client::connect(&network, signer).await?;
    Ok((network, client))
}

/// Time of the newest block, unix seconds: what the contracts go by.
pub async fn head_time(chain: &Chain) -> Result<u64> {
    let head = chain.provider.get_block(BlockId::latest()).await?;
    Ok(head.context("the chain has no latest block")?.header.timestamp)
}
