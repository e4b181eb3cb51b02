//! `assay node appeal`, and what `assay node status` says of judgements that can be contested.

use std::collections::BTreeMap;

use alloy::{
    primitives::{B256, U256},
    providers::Provider,
    rpc::types::{Filter, Log},
    sol_types::SolEvent,
};
use anyhow::{Context, Result, bail, ensure};
use assay_bindings::{
    ProofOfInference::{self, AuditMoved, PanelMoved, appealCall},
    SessionPayment,
};
use assay_chain::Chain;
use assay_client::cor;
use assay_miner::appeal_bond;
use assay_proof::Reasons;
use assay_protocol::state::AuditState;
use assay_types::{NodeId, TaskId};
use serde::Serialize;

use super::{life, status};
use crate::{
    args::{Global, NodeAppeal},
    commands::{head_time, reader, writer},
};

/// A judgement over one of a node's answers that its owner can still contest.
#[derive(Debug, Serialize)]
pub struct Condemned {
    task: TaskId,
    /// What the answer was found false for.
    reasons: String,
    /// The last second in which an appeal is taken, unix seconds, and how many are left.
    until: u64,
    seconds_left: u64,
    /// What an appeal takes, minor units of COR.
    bond: String,
}

impl Condemned {
    /// For a person.
    pub fn line(&self) -> String {
        let bond = cor(self.bond.parse::<U256>().unwrap_or_default());
        format!(
            "  CONDEMNED  task {}: a panel found the answer false ({}). Without an appeal by {} (in {} s) the stake is taken; \
             it takes {bond}: `assay node appeal {}`",
            self.task, self.reasons, self.until, self.seconds_left, self.task
        )
    }
}

async fn logs(chain: &Chain, filter: Filter) -> Result<Vec<Log>> {
    let filter = filter.address(chain.deployment.proof);
    chain.provider.get_logs(&filter).await.context("the chain's events cannot be read")
}

/// Judgements over answers of a node that can be contested now.
pub async fn condemned(chain: &Chain, start: u64, node: NodeId) -> Result<Vec<Condemned>> {
    let of_node = Filter::new()
        .from_block(start)
        .event_signature(AuditMoved::SIGNATURE_HASH)
        .topic2(B256::left_padding_from(&node.0.to_be_bytes()));
    let mut newest: BTreeMap<B256, AuditMoved> = BTreeMap::new();
    for log in logs(chain, of_node).await? {
        let event = log.log_decode::<AuditMoved>()?.inner.data;
        newest.insert(event.taskId, event);
    }
    let now = head_time(chain).await?;
    newest.retain(|_, event| {
        event.state == AuditState::Condemned as u8 && event.until.to::<u64>() >= now
    });
    if newest.is_empty() {
        return Ok(Vec::new());
    }
    let bond = bond(chain, node).await?;
    let condemned = newest.into_values().map(|event| Condemned {
        task: TaskId(event.taskId),
        reasons: Reasons(event.audit.reasons).to_string(),
        until: event.until.to(),
        seconds_left: event.until.to::<u64>().saturating_sub(now),
        bond: bond.to_string(),
    });
    Ok(condemned.collect())
}

async fn bond(chain: &Chain, node: NodeId) -> Result<U256> {
    let proof = ProofOfInference::new(chain.deployment.proof, &chain.provider);
    let payment = SessionPayment::new(chain.deployment.payment, &chain.provider);
    let config = proof.config().call().await?;
    let stake = payment.stakeOf(node.0).call().await?;
    Ok(appeal_bond(stake, config.slashBps, config.appealBps))
}

/// Appeals for the owner, and shows how its node stands then.
pub async fn run(global: &Global, args: NodeAppeal) -> Result<()> {
    let (network, chain) = reader(global).await?;
    let call = appeal_of(&chain, network.start_block, args.task).await?;
    let node = NodeId(call._0.nodeId);
    let account = life::owner_account(global, node.0).await?;
    let (network, wallet) = writer(global, &args.key, &account).await?;
    life::check_owner(&wallet, node.0).await?;
    wallet.allow_payment(bond(&chain, node).await?).await?;
    wallet.send(chain.deployment.proof, call).await?;
    status::show(global, &chain, network.start_block, node.0).await
}

/// The appeal over a task's answer, if one was condemned and it is still time.
async fn appeal_of(chain: &Chain, start: u64, task: TaskId) -> Result<appealCall> {
    let of_task =
        |event: B256| Filter::new().from_block(start).event_signature(event).topic1(task.0);
    let moves = logs(chain, of_task(AuditMoved::SIGNATURE_HASH)).await?;
    let mut newest: BTreeMap<u32, AuditMoved> = BTreeMap::new();
    for log in &moves {
        let event = log.log_decode::<AuditMoved>()?.inner.data;
        newest.insert(event.nodeId, event);
    }
    ensure!(!newest.is_empty(), "no answer to task {task} was audited");
    let is_condemned = |event: &AuditMoved| event.state == AuditState::Condemned as u8;
    let Some(event) = newest.into_values().find(is_condemned) else {
        bail!(
            "no answer to task {task} stands condemned: `assay audit explain {task}` tells what became of it"
        );
    };
    let (until, now) = (event.until.to::<u64>(), head_time(chain).await?);
    ensure!(now <= until, "the time to appeal was over {} s ago", now.saturating_sub(until));
    let panels = logs(chain, of_task(PanelMoved::SIGNATURE_HASH)).await?;
    let panels = panels.iter().rev().filter_map(|log| log.log_decode::<PanelMoved>().ok());
    let mut parties = panels.map(|log| log.inner.data).filter(|panel| panel.nodeId == event.nodeId);
    let panel = parties.next().context("the chain does not tell of the panel")?;
    Ok(appealCall { _0: event.audit, _1: panel.parties })
}
