//! `assay audit watch`: an audit that never ends.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use assay_bindings::Deployment;
use assay_replay::{Audit, AuditError, Options, Report, Source};
use assay_runtime::{Health, install_metrics, shutdown_signal};

use super::{connect, journal};
use crate::{
    args::{AuditWatchArgs, Global},
    commands::agents::observe,
    ui,
};

/// So often the head is asked for: blocks come every second at most.
const POLL: Duration = Duration::from_secs(1);
/// An RPC that does not answer is left alone for so long.
const RETRY: Duration = Duration::from_secs(5);
/// So often everything that is stored is compared, besides what each block changed.
const CONCLUDE_EVERY: Duration = Duration::from_secs(60);

/// An audit, and what was told of it.
struct Watcher {
    source: Source,
    deployment: Deployment,
    folder: PathBuf,
    health: Health,
    audit: Option<Audit>,
    /// Divergences that were told.
    told: u64,
    concluded: Option<Instant>,
}

/// Follows the chain; false if something diverged.
pub async fn run(global: &Global, args: &AuditWatchArgs) -> Result<bool> {
    install_metrics()?;
    let (source, deployment) = connect(global, &args.chain).await?;
    let folder = journal(global, &deployment, "watch", args.fresh)?;
    let health = Health::new("auditor");
    let served = observe(args.observe, health.clone());
    let mut watcher =
        Watcher { source, deployment, folder, health, audit: None, told: 0, concluded: None };
    tokio::select! {
        ended = watcher.follow() => ended?,
        ended = served => ended?,
        () = shutdown_signal() => {}
    }
    let Some(mut audit) = watcher.audit else { bail!("interrupted before the first block") };
    audit.save()?;
    ui::show(global.json, audit.report(), Report::text)?;
    Ok(audit.report().is_clean())
}

impl Watcher {
    /// Ends when what comes next cannot be audited.
    async fn follow(&mut self) -> Result<()> {
        loop {
            match self.step().await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(AuditError::Reorganised { number }) => {
                    tracing::warn!(block = number, "the chain was reorganised");
                    // What was written down is of the chain as it was, or still of this one.
                    self.audit = None;
                }
                Err(error @ (AuditError::Rpc { .. } | AuditError::NoState { .. })) => {
                    tracing::warn!(%error, "the audit waits for the RPC");
                    self.health.set_ready(false, error.to_string());
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes in what is new; false if it cannot be.
    async fn step(&mut self) -> Result<bool, AuditError> {
        let head = self.source.head().await?;
        metrics::gauge!("assay_audit_head", "agent" => "auditor").set(head as f64);
        let audit = match &mut self.audit {
            Some(audit) => audit,
            empty => {
                let options = Options { deployment: self.deployment.clone(), from: 1, to: head };
                let audit = Audit::resume(&self.source, options, &self.folder, &mut ()).await?;
                let at = audit.report().to;
                ui::note(format!("follows the chain from block {at}; Ctrl-C ends it"));
                self.told = 0;
                empty.insert(audit)
            }
        };
        let goes_on = audit.advance(&self.source, head, &mut ()).await?;
        let is_due = self.concluded.is_none_or(|at| at.elapsed() >= CONCLUDE_EVERY);
        if goes_on && is_due {
            audit.conclude(&self.source).await?;
            self.concluded = Some(Instant::now());
        }
        let report = audit.report();
        metrics::gauge!("assay_audit_block", "agent" => "auditor").set(report.to as f64);
        let all = report.divergences.len() as u64 + report.unlisted;
        metrics::gauge!("assay_audit_divergences", "agent" => "auditor").set(all as f64);
        for divergence in report.divergences.iter().skip(self.told as usize) {
            tracing::error!(rule = ?divergence.rule, block = divergence.block, "diverges: {divergence}");
        }
        self.told = report.divergences.len() as u64;
        self.health.set_ready(true, "");
        if goes_on {
            tokio::time::sleep(POLL).await;
        }
        Ok(goes_on)
    }
}
