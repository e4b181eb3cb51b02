//! `assay audit watch`: an audit that never ends.

use anyhow::{Result, bail};
use assay_auditor::{Auditor, AuditorConfig};
use assay_replay::Report;
use assay_runtime::{install_metrics, shutdown_signal};

use super::{audits, connect, journal};
use crate::{
    args::{AuditWatchArgs, Global},
    commands::agents::observe,
    keys, ui,
};

/// Account that challenges, of those that `assay up` made, unless another key is named: no agent sends with it.
const CHALLENGER: &str = "client";

/// Follows the chain; false if something diverged.
pub async fn run(global: &Global, args: &AuditWatchArgs) -> Result<bool> {
    install_metrics()?;
    let key = match args.challenge {
        true => Some(keys::open(&args.key, global.data.as_deref(), CHALLENGER)?),
        false => None,
    };
    let chain = connect(global, &args.chain).await?;
    let config = AuditorConfig {
        journal: journal(global, &chain.deployment, "watch", args.fresh)?,
        evidence: audits(global, &chain.deployment)?.join("evidence"),
    };
    let mut auditor = Auditor::new(config, chain, key).await?;
    let at = auditor.report()?.map_or(0, |report| report.to);
    let also = auditor.challenger().map(|account| {
        format!(" and challenges nodes that signed two answers, with account {account}")
    });
    let also = also.unwrap_or_default();
    ui::note(format!("follows the chain from block {at}{also}; Ctrl-C ends it"));
    let served = observe(args.observe, auditor.health().clone());
    tokio::select! {
        ended = auditor.follow() => ended?,
        ended = served => ended?,
        () = shutdown_signal() => {}
    }
    auditor.save()?;
    let Some(report) = auditor.report()? else {
        bail!("interrupted while the chain was reorganised")
    };
    ui::show(global.json, &report, Report::text)?;
    Ok(report.is_clean())
}
