//! `assay params show|propose|withdraw`.

use alloy::{primitives::U256, providers::Provider, rpc::types::Filter, sol_types::SolEvent};
use anyhow::{Result, ensure};
use assay_bindings::{DeploymentFile, Parameters};
use assay_chain::Chain;
use assay_client::cor;
use serde_json::{Value, json};

use super::{deploy::read_file, reader, writer};
use crate::{
    args::{Global, ParamsCommand, ParamsProposeArgs},
    ui,
};

pub async fn run(global: &Global, command: ParamsCommand) -> Result<()> {
    match command {
        ParamsCommand::Show(args) => {
            let (network, chain) = reader(global).await?;
            show(global, &chain, network.start_block, args.version).await
        }
        ParamsCommand::Propose(args) => propose(global, args).await,
        ParamsCommand::Withdraw(args) => {
            let (network, wallet) = writer(global, &args.key, "deployer").await?;
            let address = wallet.chain.deployment.parameters;
            wallet.send(address, Parameters::withdrawProposalCall {}).await?;
            show(global, &wallet.chain, network.start_block, None).await
        }
    }
}

async fn propose(global: &Global, args: ParamsProposeArgs) -> Result<()> {
    let DeploymentFile { config, .. } = read_file(&args.file)?;
    let terms = config.terms()?;
    let (network, wallet) = writer(global, &args.key, "deployer").await?;
    let address = wallet.chain.deployment.parameters;
    wallet.send(address, Parameters::proposeCall { terms }).await?;
    show(global, &wallet.chain, network.start_block, None).await
}

/// What was proposed and does not hold yet: its version, and when it will hold.
async fn pending(chain: &Chain, start: u64, current: u16) -> Result<Option<(u16, u64)>> {
    let filter =
        Filter::new().from_block(start).address(chain.deployment.parameters).event_signature(vec![
            Parameters::TermsProposed::SIGNATURE_HASH,
            Parameters::TermsWithdrawn::SIGNATURE_HASH,
        ]);
    let logs = chain.provider.get_logs(&filter).await?;
    let last = logs.last().and_then(|log| log.log_decode::<Parameters::TermsProposed>().ok());
    Ok(last
        .map(|log| (log.inner.version, log.inner.effectiveAt.to::<u64>()))
        .filter(|(version, _)| *version > current))
}

async fn show(global: &Global, chain: &Chain, start: u64, version: Option<u16>) -> Result<()> {
    let parameters = Parameters::new(chain.deployment.parameters, &chain.provider);
    let current = parameters.currentVersion().call().await?;
    let version = version.unwrap_or(current);
    ensure!(
        (1..=current).contains(&version),
        "there is no version {version} of the terms: the newest that holds is {current}"
    );
    let terms = parameters.termsOf(version).call().await?;
    let (session, node) = (&terms.session, &terms.node);
    let assets: Vec<Value> = terms
        .assets
        .iter()
        .map(|asset| {
            json!({"tip": asset.tip.to_string(), "min_deposit": asset.minDeposit.to_string()})
        })
        .collect();
    let pending = pending(chain, start, current).await?;
    let value = json!({
        "version": version,
        "current": current,
        "pending": pending.map(|(version, at)| json!({"version": version, "effective_at": at})),
        "governor": parameters.governor().call().await?,
        "delay_s": parameters.delay().call().await?.to::<u64>(),
        "session": {
            "miner_bps": session.minerBps,
            "router_bps": session.routerBps,
            "max_deadline_s": session.maxDeadline.to::<u64>(),
            "attempt_time_s": session.attemptTime.to::<u64>(),
            "reveal_time_s": session.revealTime.to::<u64>(),
            "settle_delay_s": session.settleDelay.to::<u64>(),
            "max_attempts": session.maxAttempts,
            "notice_period_s": session.noticePeriod.to::<u64>(),
            "reservation_timeout_s": session.reservationTimeout.to::<u64>(),
            "reserve_period_s": session.reservePeriod.to::<u64>(),
            "max_tasks": session.maxTasks,
        },
        "node": {
            "activation_delay_s": node.activationDelay,
            "unbonding_period_s": node.unbondingPeriod,
            "collateral_per_slot": node.collateralPerSlot.to_string(),
            "slash_bps": node.slashBps,
            "reporter_bps": node.reporterBps,
        },
        "assets": assets,
    });
    ui::show(global.json, &value, describe)
}

fn describe(value: &Value) -> String {
    let mut lines = vec![format!(
        "terms version {} ({} holds now)\n  governor {}, {} s from a proposal until it holds",
        value["version"],
        value["current"],
        value["governor"].as_str().unwrap_or_default(),
        value["delay_s"]
    )];
    if let Some(pending) = value["pending"].as_object() {
        lines.push(format!(
            "  version {} was proposed and holds from {} (unix seconds) on",
            pending["version"], pending["effective_at"]
        ));
    }
    for section in ["session", "node"] {
        lines.push(format!("  {section}"));
        for (name, term) in value[section].as_object().into_iter().flatten() {
            let term = match (name.as_str(), term.as_str()) {
                ("collateral_per_slot", Some(minor)) => {
                    cor(minor.parse::<U256>().unwrap_or_default())
                }
                _ => term.to_string(),
            };
            lines.push(format!("    {name:<22} {term}"));
        }
    }
    for (number, asset) in value["assets"].as_array().into_iter().flatten().enumerate() {
        let unit = |name: &str| {
            let minor = asset[name].as_str().unwrap_or_default();
            if number == 0 {
                cor(minor.parse::<U256>().unwrap_or_default())
            } else {
                format!("{minor} minor units")
            }
        };
        lines.push(format!(
            "  asset {number}: tip {}, deposit of a session at least {}",
            unit("tip"),
            unit("min_deposit")
        ));
    }
    lines.join("\n")
}
