//! `assay node status`: how a node does, and why it is drawn or not.

use alloy::{
    primitives::{Address, aliases::U40},
    providers::Provider,
};
use anyhow::{Context, Result};
use assay_bindings::{ModelRegistry, NodePool, NodeStats};
use assay_chain::Chain;
use assay_types::{ModelId, NodeId};
use serde::Serialize;

use super::{
    Row,
    appeal::{Condemned, condemned},
    check_exists, in_cor, rows, state_name,
};
use crate::{args::Global, commands::head_time, ui};

/// `NodeStats.Series`.
pub const DRAWN: u8 = 0;
pub const DEDICATED: u8 = 1;

/// Counters of one series.
#[derive(Debug, Serialize)]
struct Counters {
    series: &'static str,
    level: u8,
    /// Successes in a row since the level last changed; 2^level of them raise it.
    streak: u16,
    settled: u32,
    declined: u32,
    silent: u32,
    unrevealed: u32,
}

/// How a node stands with one of its models.
#[derive(Debug, Serialize)]
pub struct Standing {
    model_id: ModelId,
    capacity: u8,
    pub eligible: bool,
    /// In words: why it can be drawn, or why not.
    pub reason: String,
}

#[derive(Debug, Serialize)]
struct Status {
    #[serde(flatten)]
    row: Row,
    operator_has_gas: bool,
    work: Vec<Counters>,
    models: Vec<Standing>,
    /// Judgements over its answers that its owner can still contest.
    condemned: Vec<Condemned>,
}

pub async fn show(global: &Global, chain: &Chain, start: u64, node: u32) -> Result<()> {
    check_exists(chain, node).await?;
    let row = rows(chain, start, [node]).await?.pop().context("the node cannot be read")?;
    let operator: Address = row.operator.parse()?;
    let status = Status {
        operator_has_gas: !chain.provider.get_balance(operator).await?.is_zero(),
        work: vec![counters(chain, node, DRAWN).await?, counters(chain, node, DEDICATED).await?],
        models: standings(chain, node).await?,
        condemned: condemned(chain, start, NodeId(node)).await?,
        row,
    };
    ui::show(global.json, &status, describe)
}

async fn counters(chain: &Chain, node: u32, series: u8) -> Result<Counters> {
    let stats = NodeStats::new(chain.deployment.stats, &chain.provider);
    let record = stats.recordOf(node, series).call().await?;
    Ok(Counters {
        series: if series == DRAWN { "drawn" } else { "dedicated" },
        level: stats.levelOf(node, series).call().await?,
        streak: record.streak,
        settled: record.settled,
        declined: record.declined,
        silent: record.silent,
        unrevealed: record.unrevealed,
    })
}

/// What a draw that is entered now would make of the node, for each of its models.
pub async fn standings(chain: &Chain, node: u32) -> Result<Vec<Standing>> {
    let pool = NodePool::new(chain.deployment.nodes, &chain.provider);
    let models = ModelRegistry::new(chain.deployment.models, &chain.provider);
    let now = head_time(chain).await?;
    let dedicated_to = pool.nodeOf(node).call().await?.dedicatedTo;
    // Models and capacities.
    let offers = pool.offersOf(node).call().await?;
    let mut standings = Vec::new();
    for (model, capacity) in offers._0.into_iter().zip(offers._1) {
        let eligibility = pool.eligibilityOf(node, model, U40::from(now)).call().await?;
        let registered = models.modelAt(model).call().await?;
        let (eligible, reason) = match registered.deprecatedAt.is_zero() {
            true => reason(&eligibility, dedicated_to, now),
            false => (false, "the model is deprecated: it takes no new sessions".to_owned()),
        };
        standings.push(Standing {
            model_id: ModelId(registered.modelId),
            capacity,
            eligible,
            reason,
        });
    }
    Ok(standings)
}

fn reason(found: &NodePool::Eligibility, dedicated_to: Address, now: u64) -> (bool, String) {
    let state = state_name(found.state);
    let active_from = found.activeFrom.to::<u64>();
    match state {
        "ephemeral" => {}
        "dedicated" => {
            return (false, format!("in no draw: it serves {dedicated_to} alone, who names it"));
        }
        "draining" => {
            return (false, "in no draw: it drains; `assay node resume` brings it back".into());
        }
        other => return (false, format!("in no draw: it is {other}")),
    }
    if found.active == 0 {
        let wait = active_from.saturating_sub(now);
        return (false, format!("in no draw yet: its places count in {wait} s"));
    }
    if found.free == 0 {
        let places = found.places;
        return (false, format!("not drawn now: all of its {places} places are reserved"));
    }
    let chance = found.acceptanceBps / 100;
    let (free, places) = (found.free, found.places);
    (
        true,
        format!(
            "in every draw with {free} of {places} places; a try that finds one takes it with {chance} % at its level"
        ),
    )
}

fn describe(status: &Status) -> String {
    let row = &status.row;
    let mut lines = vec![
        format!("node {}: {}", row.node_id, row.state),
        format!("  owner      {}", row.owner),
        format!("  operator   {}", row.operator),
        format!("  payout     {}", row.payout),
        format!("  class      {}, terms version {}", row.numeric_class, row.terms_version),
        format!("  sessions   {} of {}", row.reservations, row.capacity),
        format!("  stake      {}", in_cor(&row.stake)),
        format!("  slashed    {}", in_cor(&row.slashed)),
        format!("  settled    {} tasks", row.tasks_settled),
        format!("  earned     {}", in_cor(&row.earned)),
        format!("  held       {} (fees of answers that are not settled yet)", in_cor(&row.held)),
        format!("  claimable  {} (owed to the payout address)", in_cor(&row.claimable)),
    ];
    if row.bonded_until > 0 {
        lines.push(format!("  bonded     until {} (unix seconds)", row.bonded_until));
    }
    for work in &status.work {
        lines.push(format!(
            "  {:<10} level {}, {} in a row; {} settled, {} declined, {} silent, {} unrevealed",
            work.series,
            work.level,
            work.streak,
            work.settled,
            work.declined,
            work.silent,
            work.unrevealed
        ));
    }
    for model in &status.models {
        lines.push(format!("  model      {} x {}", model.model_id, model.capacity));
        lines.push(format!("             {}", model.reason));
    }
    lines.extend(status.condemned.iter().map(Condemned::line));
    if !status.operator_has_gas {
        lines.push(format!("  warning    the operator {} has no gas", row.operator));
    }
    lines.join("\n")
}
