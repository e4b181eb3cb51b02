//! `assay node register|list|status`.

use std::collections::HashMap;

use alloy::{
    primitives::{B256, U256},
    providers::Provider,
    rpc::types::Filter,
    sol_types::SolEvent,
};
use anyhow::{Context, Result, ensure};
use assay_bindings::{NodePool, SessionPayment, SessionQueue};
use assay_chain::Chain;
use assay_types::NumericClass;
use serde::Serialize;

use crate::{
    amount::cor,
    args::{Global, NodeCommand, NodeRegisterArgs},
    keys,
    network::{Network, data_folder},
    ui,
    wallet::Wallet,
};

pub async fn run(global: &Global, command: NodeCommand) -> Result<()> {
    let network = Network::load(&data_folder(global.data.as_deref())?)?;
    let start = network.start_block;
    match command {
        NodeCommand::Register(args) => register(global, network, args).await,
        NodeCommand::List => {
            let chain = Chain::connect(&network.rpc_url, network.deployment).await?;
            let count =
                NodePool::new(chain.deployment.nodes, &chain.provider).nodeCount().call().await?;
            let rows = rows(&chain, start, 1..=count).await?;
            ui::show(global.json, rows.as_slice(), table)
        }
        NodeCommand::Status(args) => {
            let chain = Chain::connect(&network.rpc_url, network.deployment).await?;
            status(global, &chain, start, args.node).await
        }
    }
}

/// A node as `--json` shows it; amounts are minor units of COR.
#[derive(Debug, Serialize)]
struct Row {
    node_id: u32,
    state: &'static str,
    owner: String,
    operator: String,
    payout: String,
    model_id: B256,
    numeric_class: String,
    capacity: u8,
    reservations: u8,
    stake: String,
    /// Sum of its shares of settled tasks.
    earned: String,
    /// Stake that was taken from it: paid in, less what is there, less what was given back.
    slashed: String,
    tasks_settled: u64,
    /// Balance of its payout address.
    claimable: String,
}

fn state_name(state: u8) -> &'static str {
    ["none", "ephemeral", "dedicated", "draining", "exiting", "exited", "jailed"]
        .get(usize::from(state))
        .unwrap_or(&"unknown")
}

/// Sums of one node over the chain's events.
#[derive(Default)]
struct Sums {
    earned: U256,
    tasks: u64,
    staked: U256,
    released: U256,
}

async fn sums(chain: &Chain, start: u64) -> Result<HashMap<u32, Sums>> {
    let mut sums: HashMap<u32, Sums> = HashMap::new();
    let filter = Filter::new()
        .from_block(start)
        .address(vec![chain.deployment.queue, chain.deployment.payment])
        .event_signature(vec![
            SessionQueue::TaskSettled::SIGNATURE_HASH,
            SessionPayment::Staked::SIGNATURE_HASH,
            SessionPayment::StakeReleased::SIGNATURE_HASH,
        ]);
    let logs =
        chain.provider.get_logs(&filter).await.context("the chain's events cannot be read")?;
    for log in logs {
        if let Ok(event) = log.log_decode::<SessionQueue::TaskSettled>() {
            let event = event.inner.data;
            let sum = sums.entry(event.nodeId).or_default();
            sum.earned += U256::from(event.minerShare);
            sum.tasks += 1;
        } else if let Ok(event) = log.log_decode::<SessionPayment::Staked>() {
            sums.entry(event.inner.nodeId).or_default().staked += event.inner.amount;
        } else if let Ok(event) = log.log_decode::<SessionPayment::StakeReleased>() {
            sums.entry(event.inner.nodeId).or_default().released += event.inner.amount;
        }
    }
    Ok(sums)
}

async fn rows(chain: &Chain, start: u64, nodes: impl IntoIterator<Item = u32>) -> Result<Vec<Row>> {
    let pool = NodePool::new(chain.deployment.nodes, &chain.provider);
    let payment = SessionPayment::new(chain.deployment.payment, &chain.provider);
    let mut sums = sums(chain, start).await?;
    let mut rows = Vec::new();
    for node_id in nodes {
        let node = pool.nodeOf(node_id).call().await?;
        let stake = payment.stakeOf(node_id).call().await?;
        let claimable = payment.balanceOf(node.payout).call().await?;
        let sum = sums.remove(&node_id).unwrap_or_default();
        rows.push(Row {
            node_id,
            state: state_name(node.state as u8),
            owner: node.owner.to_string(),
            operator: node.operator.to_string(),
            payout: node.payout.to_string(),
            model_id: node.modelId,
            numeric_class: NumericClass(node.numericClass).to_string(),
            capacity: node.capacity,
            reservations: node.reservations,
            stake: stake.to_string(),
            earned: sum.earned.to_string(),
            slashed: sum.staked.saturating_sub(sum.released).saturating_sub(stake).to_string(),
            tasks_settled: sum.tasks,
            claimable: claimable.to_string(),
        });
    }
    Ok(rows)
}

fn in_cor(minor: &str) -> String {
    cor(minor.parse::<U256>().unwrap_or_default())
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no node is registered: `assay node register` or `assay miner` registers one"
            .into();
    }
    let mut lines = vec![format!(
        "{:>4}  {:<10} {:>8} {:>6} {:>14} {:>20} {:>10}",
        "node", "state", "sessions", "tasks", "stake", "earned", "slashed"
    )];
    lines.extend(rows.iter().map(|row| {
        format!(
            "{:>4}  {:<10} {:>8} {:>6} {:>14} {:>20} {:>10}",
            row.node_id,
            row.state,
            format!("{}/{}", row.reservations, row.capacity),
            row.tasks_settled,
            in_cor(&row.stake),
            in_cor(&row.earned),
            in_cor(&row.slashed)
        )
    }));
    lines.join("\n")
}

async fn status(global: &Global, chain: &Chain, start: u64, node: u32) -> Result<()> {
    let pool = NodePool::new(chain.deployment.nodes, &chain.provider);
    let count = pool.nodeCount().call().await?;
    ensure!(node >= 1 && node <= count, "there is no node {node}: the chain has {count}");
    let rows = rows(chain, start, [node]).await?;
    let row = rows.first().context("the node cannot be read")?;
    ui::show(global.json, row, |row| {
        format!(
            "node {}: {}\n  owner      {}\n  operator   {}\n  payout     {}\n  class      {}\n  sessions   {} of {}\n  \
             stake      {}\n  slashed    {}\n  settled    {} tasks\n  earned     {}\n  claimable  {} (balance of the payout address)",
            row.node_id,
            row.state,
            row.owner,
            row.operator,
            row.payout,
            row.numeric_class,
            row.reservations,
            row.capacity,
            in_cor(&row.stake),
            in_cor(&row.slashed),
            row.tasks_settled,
            in_cor(&row.earned),
            in_cor(&row.claimable)
        )
    })
}

async fn register(global: &Global, network: Network, args: NodeRegisterArgs) -> Result<()> {
    let start = network.start_block;
    let model_id = args
        .model_id
        .or(network.model.as_ref().map(|model| model.model_id))
        .context("this network names no model: give one with --model-id")?;
    ensure!((1..=8).contains(&args.capacity), "--capacity is {}, allowed is 1 to 8", args.capacity);
    let signer = keys::open(&args.key, global.data.as_deref(), "client")?;
    let wallet = Wallet::connect(&network.rpc_url, network.deployment, signer).await?;
    let pool_address = wallet.chain.deployment.nodes;
    let unit =
        NodePool::new(pool_address, &wallet.chain.provider).collateralPerSlot().call().await?;
    wallet.allow_payment(unit * U256::from(args.capacity)).await?;
    let call = NodePool::registerCall {
        registration: NodePool::NodeRegistration {
            operator: wallet.address(),
            payout: wallet.address(),
            modelId: model_id.0,
            numericClass: args.class.0,
            capacity: args.capacity,
        },
    };
    let receipt = wallet.send(pool_address, call).await?;
    let node = receipt
        .decoded_log::<NodePool::NodeRegistered>()
        .map(|log| log.nodeId)
        .context("the transaction registered no node")?;
    status(global, &wallet.chain, start, node).await
}
