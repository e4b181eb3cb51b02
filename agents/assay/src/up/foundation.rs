//! What the agents stand on: accounts, content store, chain, contracts.

use std::{path::Path, sync::Arc, time::Duration};

use alloy::{
    network::{EthereumWallet, TransactionBuilder},
    primitives::{U256, utils::Unit},
    providers::{DynProvider, Provider, ProviderBuilder, ext::AnvilApi},
    rpc::types::TransactionRequest,
};
use anyhow::{Context, Result, ensure};
use assay_bindings::{CorToken, DeployConfig, Deployment, NodePool, deploy};
use assay_chain::redact;
use assay_devnet::{Devnet, DevnetConfig, DevnetError};
use assay_store::{
    ContentStore, DEFAULT_LIMIT_BYTES, KuboStore, StoreError, StoreServer, StoreServerConfig,
};

use super::{CHAIN_FOLDER, Steps, record::Record};
use crate::{
    args::UpArgs,
    cheat,
    keys::{self, Account},
};

/// Ether for gas of each account: more than a development network can spend.
const GAS_MONEY_ETHER: u64 = 1000;
/// An account with less gets some again.
const LOW_GAS_ETHER: u64 = 1;
/// What it gets then, from the deployer: for 20,000 answers.
const MORE_GAS_ETHER: u64 = 10;
/// COR of the client: its session's deposit, and more for sessions of its own.
const CLIENT_COR: u64 = 10_000;
/// Less than this is not enough for the next session: the client gets its COR again.
const LOW_CLIENT_COR: u64 = 1_000;
/// COR of each miner: collateral of eight slots, and some to spare.
const MINER_COR: u64 = 1_000;

/// The accounts of a development network.
pub struct Accounts {
    pub deployer: Account,
    pub client: Account,
    pub router: Account,
    pub oracle: Account,
    pub miners: Vec<Account>,
}

impl Accounts {
    async fn open(data: &Path, miners: u8) -> Result<Self> {
        let mut names: Vec<String> =
            ["deployer", "client", "router", "oracle"].map(str::to_owned).into();
        names.extend((1..=miners).map(|n| format!("miner-{n}")));
        let mut all = keys::development_accounts(data, names).await?.into_iter();
        let mut next = || all.next().context("an account is missing");
        Ok(Self {
            deployer: next()?,
            client: next()?,
            router: next()?,
            oracle: next()?,
            miners: all.collect(),
        })
    }

    pub fn all(&self) -> impl Iterator<Item = &Account> {
        [&self.deployer, &self.client, &self.router, &self.oracle].into_iter().chain(&self.miners)
    }
}

/// Everything below the agents.
pub struct Foundation {
    pub accounts: Accounts,
    pub store: Arc<dyn ContentStore>,
    pub store_server: Option<StoreServer>,
    pub ipfs_url: String,
    pub devnet: Option<Devnet>,
    /// HTTP, for people and commands.
    pub rpc_url: String,
    /// What the agents connect to: WebSocket where there is one.
    pub agent_rpc_url: String,
    pub start_block: u64,
    pub deployment: Deployment,
}

/// Starts store and chain, makes and funds the accounts, deploys the contracts; what an earlier run did is found again.
pub async fn lay(data: &Path, args: &UpArgs, steps: &Arc<Steps>) -> Result<Foundation> {
    let (store_server, ipfs_url) = start_store(data, args).await?;
    let store = KuboStore::new(&ipfs_url)?;
    let version = store.health().await?;
    steps.say(format!("content store: {ipfs_url} ({version})"));
    let accounts = Accounts::open(data, args.miners).await?;
    steps.say(format!(
        "accounts: {} keystores in {}",
        accounts.all().count(),
        keys::folder(data).display()
    ));
    let (devnet, rpc_url, agent_rpc_url) = start_chain(data, args, &accounts).await?;
    let provider = ProviderBuilder::new()
        .wallet(EthereumWallet::from(accounts.deployer.signer.clone()))
        .connect(&rpc_url)
        .await
        .with_context(|| chain_hint(&rpc_url))?
        .erased();
    let chain_id = provider.get_chain_id().await.with_context(|| chain_hint(&rpc_url))?;
    if args.cheat.is_some() {
        cheat::check(chain_id, args.miners.into())?;
    }
    let head = provider.get_block_number().await?;
    steps.say(format!("chain {chain_id}: {}, block {head}", redact(&rpc_url)));
    let start_block = Record::find_or_make(data, &provider, head).await?.start_block;
    fund_gas(&provider, &accounts).await?;
    let deployer = accounts.deployer.address();
    let deployment = deploy(&provider, deployer, &DeployConfig::development())
        .await
        .context("the contracts cannot be deployed")?;
    steps.say(format!("contracts: SessionQueue at {}", deployment.queue));
    fund_cor(&provider, &deployment, &accounts).await?;
    steps.say("accounts: funded");
    Ok(Foundation {
        accounts,
        store: Arc::new(store),
        store_server,
        ipfs_url,
        devnet,
        rpc_url,
        agent_rpc_url,
        start_block,
        deployment,
    })
}

fn chain_hint(url: &str) -> String {
    format!(
        "no chain answers at {}: start anvil there, or leave --rpc-url away for the embedded chain",
        redact(url)
    )
}

async fn start_store(data: &Path, args: &UpArgs) -> Result<(Option<StoreServer>, String)> {
    if let Some(url) = &args.ipfs_url {
        return Ok((None, url.clone()));
    }
    let config = StoreServerConfig {
        listen: args.ipfs,
        folder: data.join("ipfs"),
        limit_bytes: DEFAULT_LIMIT_BYTES,
    };
    let server = StoreServer::start(config).await.map_err(|error| match error {
        StoreError::Bind { addr, source } => anyhow::Error::new(source).context(format!(
            "the content store cannot listen on {addr}: choose another address with --ipfs"
        )),
        other => other.into(),
    })?;
    let url = server.url();
    Ok((Some(server), url))
}

async fn start_chain(
    data: &Path,
    args: &UpArgs,
    accounts: &Accounts,
) -> Result<(Option<Devnet>, String, String)> {
    if let Some(url) = &args.rpc_url {
        let agents = match url.split_once("://") {
            // anvil and the embedded chain serve both on one port.
            Some(("http", rest)) => format!("ws://{rest}"),
            Some(("https", rest)) => format!("wss://{rest}"),
            _ => url.clone(),
        };
        return Ok((None, url.clone(), agents));
    }
    let gas_money = U256::from(GAS_MONEY_ETHER) * Unit::ETHER.wei();
    let config = DevnetConfig {
        listen: args.rpc,
        accounts: accounts.all().map(|account| (account.address(), gas_money)).collect(),
        block_time: Some(Duration::from_secs(1)),
        data: Some(data.join(CHAIN_FOLDER)),
        ..DevnetConfig::default()
    };
    let devnet = Devnet::start(config).await.map_err(|error| match error {
        DevnetError::Bind { addr, source } => anyhow::Error::new(source).context(format!(
            "the chain cannot listen on {addr}: choose another address with --rpc"
        )),
        other => other.into(),
    })?;
    let (http, ws) = (devnet.http_url(), devnet.ws_url());
    Ok((Some(devnet), http, ws))
}

/// Also for accounts that an earlier run did not have. By transfers, so that whoever replays the chain finds where it comes
/// from; only on a chain that does not know the deployer yet its own is set by hand.
async fn fund_gas(provider: &DynProvider, accounts: &Accounts) -> Result<()> {
    let ether = |amount: u64| U256::from(amount) * Unit::ETHER.wei();
    let deployer = accounts.deployer.address();
    if provider.get_balance(deployer).await? < ether(LOW_GAS_ETHER) {
        provider.anvil_set_balance(deployer, ether(GAS_MONEY_ETHER)).await.context(
            "the chain does not give accounts their gas money: `assay up` needs anvil or its embedded chain",
        )?;
    }
    for account in accounts.all() {
        if provider.get_balance(account.address()).await? >= ether(LOW_GAS_ETHER) {
            continue;
        }
        let transfer = TransactionRequest::default()
            .with_to(account.address())
            .with_value(ether(MORE_GAS_ETHER));
        let receipt = provider.send_transaction(transfer).await?.get_receipt().await?;
        ensure!(receipt.status(), "the transfer of gas money to {} failed", account.address());
    }
    Ok(())
}

/// Gives those COR who lack it: a miner that has its node needs none.
async fn fund_cor(
    provider: &DynProvider,
    deployment: &Deployment,
    accounts: &Accounts,
) -> Result<()> {
    let token = CorToken::new(deployment.token, provider);
    let pool = NodePool::new(deployment.nodes, provider);
    let mut shares = vec![(accounts.client.address(), LOW_CLIENT_COR, CLIENT_COR)];
    for miner in &accounts.miners {
        if pool.nodeByOperator(miner.address()).call().await? == 0 {
            shares.push((miner.address(), MINER_COR, MINER_COR));
        }
    }
    for (to, low, amount) in shares {
        let balance = token.balanceOf(to).call().await?;
        if balance >= U256::from(low) * Unit::ETHER.wei() {
            continue;
        }
        let missing = U256::from(amount) * Unit::ETHER.wei() - balance;
        let receipt = token.transfer(to, missing).send().await?.get_receipt().await?;
        ensure!(receipt.status(), "the transfer of COR to {to} failed");
    }
    Ok(())
}
