//! `assay node`.

mod appeal;
mod life;
mod register;
pub mod status;

use std::collections::HashMap;

use alloy::{primitives::U256, providers::Provider, rpc::types::Filter, sol_types::SolEvent};
use anyhow::{Context, Result, ensure};
use assay_bindings::{NodePool, NodeStats, SessionPayment, SessionQueue};
use assay_chain::Chain;
use assay_client::cor;
use assay_types::NumericClass;
use serde::Serialize;

use super::{reader, session::COR_ASSET};
use crate::{
    args::{Global, NodeCommand},
    ui,
};

pub async fn run(global: &Global, command: NodeCommand) -> Result<()> {
    match command {
        NodeCommand::Register(args) => register::register(global, args).await,
        NodeCommand::List => {
            let (network, chain) = reader(global).await?;
            let pool = NodePool::new(chain.deployment.nodes, &chain.provider);
            let count = pool.nodeCount().call().await?;
            let rows = rows(&chain, network.start_block, 1..=count).await?;
            ui::show(global.json, rows.as_slice(), table)
        }
        NodeCommand::Status(args) => {
            let (network, chain) = reader(global).await?;
            status::show(global, &chain, network.start_block, args.node).await
        }
        NodeCommand::Drain(args) => {
            life::change(global, &args, NodePool::drainCall { nodeId: args.node }).await
        }
        NodeCommand::Resume(args) => {
            life::change(global, &args, NodePool::resumeCall { nodeId: args.node }).await
        }
        NodeCommand::Exit(args) => {
            life::change(global, &args, NodePool::exitCall { nodeId: args.node }).await
        }
        NodeCommand::Appeal(args) => appeal::run(global, args).await,
        NodeCommand::Withdraw(args) => life::withdraw(global, args).await,
    }
}

/// A node as `--json` shows it; amounts are minor units of COR.
#[derive(Debug, Serialize)]
pub struct Row {
    pub node_id: u32,
    pub state: &'static str,
    owner: String,
    operator: String,
    payout: String,
    /// The client that it serves alone, if there is one.
    dedicated_to: Option<String>,
    terms_version: u16,
    numeric_class: String,
    /// Sessions that it can serve at once.
    capacity: u32,
    /// Sessions that have reserved it.
    reservations: String,
    /// Levels by drawn and by named work: 0 to 10.
    pub level: u8,
    level_dedicated: u8,
    stake: String,
    /// When the stake of an exiting node is free, unix seconds; else 0.
    bonded_until: u64,
    /// Sum of its shares of settled tasks.
    earned: String,
    /// Fees of its answers that are not settled yet.
    held: String,
    /// Stake that was taken from it: paid in, less what is there, less what was given back.
    slashed: String,
    tasks_settled: u64,
    /// What the contracts owe to its payout address.
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
    /// Fees of all answers, and of those that were paid.
    committed: U256,
    paid: U256,
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
            SessionQueue::TaskCommitted::SIGNATURE_HASH,
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
            sum.paid += U256::from(event.fee);
            sum.tasks += 1;
        } else if let Ok(event) = log.log_decode::<SessionQueue::TaskCommitted>() {
            sums.entry(event.inner.nodeId).or_default().committed += U256::from(event.inner.fee);
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
    let stats = NodeStats::new(chain.deployment.stats, &chain.provider);
    let payment = SessionPayment::new(chain.deployment.payment, &chain.provider);
    let mut sums = sums(chain, start).await?;
    let mut rows = Vec::new();
    for node_id in nodes {
        let node = pool.nodeOf(node_id).call().await?;
        let stake = payment.stakeOf(node_id).call().await?;
        let claimable = payment.balanceOf(node.payout, COR_ASSET).call().await?;
        // Models and capacities.
        let offers = pool.offersOf(node_id).call().await?;
        let sum = sums.remove(&node_id).unwrap_or_default();
        rows.push(Row {
            node_id,
            state: state_name(node.state),
            owner: node.owner.to_string(),
            operator: node.operator.to_string(),
            payout: node.payout.to_string(),
            dedicated_to: (!node.dedicatedTo.is_zero()).then(|| node.dedicatedTo.to_string()),
            terms_version: node.termsVersion,
            numeric_class: NumericClass(node.numericClass).to_string(),
            capacity: offers._1.iter().map(|capacity| u32::from(*capacity)).sum(),
            reservations: pool.reservationsOf(node_id).call().await?.to_string(),
            level: stats.levelOf(node_id, status::DRAWN).call().await?,
            level_dedicated: stats.levelOf(node_id, status::DEDICATED).call().await?,
            stake: stake.to_string(),
            bonded_until: node.exitAt.to(),
            earned: sum.earned.to_string(),
            held: sum.committed.saturating_sub(sum.paid).to_string(),
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
        "{:>4}  {:<10} {:>8} {:>5} {:>6} {:>14} {:>20} {:>10}",
        "node", "state", "sessions", "level", "tasks", "stake", "earned", "slashed"
    )];
    lines.extend(rows.iter().map(|row| {
        format!(
            "{:>4}  {:<10} {:>8} {:>5} {:>6} {:>14} {:>20} {:>10}",
            row.node_id,
            row.state,
            format!("{}/{}", row.reservations, row.capacity),
            row.level,
            row.tasks_settled,
            in_cor(&row.stake),
            in_cor(&row.earned),
            in_cor(&row.slashed)
        )
    }));
    lines.join("\n")
}

/// Refuses a number that no node has.
async fn check_exists(chain: &Chain, node: u32) -> Result<()> {
    let pool = NodePool::new(chain.deployment.nodes, &chain.provider);
    let count = pool.nodeCount().call().await?;
    ensure!(node >= 1 && node <= count, "there is no node {node}: the chain has {count}");
    Ok(())
}
