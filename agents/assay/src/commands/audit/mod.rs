//! `assay audit`: replays the chain and reports.

mod contents;
mod explain;
mod progress;
mod rerun;
mod watch;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use alloy::{consensus::Header, primitives::B256};
use anyhow::{Context, Result, bail};
use assay_bindings::Deployment;
use assay_chain::Chain;
use assay_protocol::{ProtocolEvent, State};
use assay_replay::{Audit, Observer, Options, Report, Source, forget};
use assay_runtime::shutdown_signal;

use super::deploy::read_file;
use crate::{
    args::{AuditArgs, AuditChain, AuditCommand, Global},
    network::{Network, data_folder},
    ui,
};
use contents::Contents;
use progress::Progress;
use rerun::{Sampler, Scorer};

/// Something diverges.
const DIVERGES: u8 = 1;
/// The audit could not be made.
const IMPOSSIBLE: u8 = 2;
/// Audits, or explains. The exit code tells three outcomes apart.
pub async fn run(global: &Global, args: AuditArgs) -> ExitCode {
    let outcome = match &args.command {
        Some(AuditCommand::Explain(args)) => explain::run(global, args).await,
        Some(AuditCommand::Watch(args)) => watch::run(global, args).await,
        None => audit(global, &args).await,
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(DIVERGES),
        Err(error) => {
            ui::note(format!("error: the audit could not be made: {error:#}"));
            ExitCode::from(IMPOSSIBLE)
        }
    }
}

async fn audit(global: &Global, args: &AuditArgs) -> Result<bool> {
    let chain = connect(global, &args.chain).await?;
    let (source, deployment) = (Source::new(chain.provider), (*chain.deployment).clone());
    let to = match args.range.to {
        Some(to) => to,
        None => source.head().await?,
    };
    let folder = journal(global, &deployment, "once", args.fresh)?;
    let options = Options { deployment, from: args.range.from, to };
    let mut watch = Watch { progress: Progress::new(to, "block"), contents: None, sampler: None };
    if let Some(url) = &args.ipfs_url {
        watch.contents = Some(Contents::follow(url, args.range.from).await?);
    }
    let scorer = match args.rerun.rerun {
        Some(sample) => Some(Scorer::load(global, args, sample).await?),
        None => None,
    };
    watch.sampler = scorer.as_ref().map(|scorer| scorer.sampler(args.range.from));
    let audit = replayed(&source, options, &folder, &mut watch).await;
    watch.progress.end();
    let mut audit = audit?;
    audit.conclude(&source).await?;
    let mut report = audit.report().clone();
    if let Some(contents) = watch.contents {
        contents.finish(&mut report).await?;
    }
    if let (Some(scorer), Some(sampler)) = (scorer, watch.sampler) {
        scorer.score(sampler, &mut report).await?;
    }
    // Interrupted before, all of it but the replay would be done again.
    audit.forget()?;
    if let Some(path) = &args.html {
        fs::write(path, report.html())
            .with_context(|| format!("the report cannot be written to {}", path.display()))?;
    }
    ui::show(global.json, &report, Report::text)?;
    Ok(report.is_clean())
}

/// Audits the blocks to the end, from where an earlier audit was interrupted.
async fn replayed(
    source: &Source,
    options: Options,
    folder: &Path,
    watch: &mut Watch,
) -> Result<Audit> {
    let to = options.to;
    let mut audit = Audit::resume(source, options, folder, watch).await?;
    if audit.report().to > 0 {
        let at = audit.report().to;
        ui::note(format!(
            "goes on after block {at}, where an audit was interrupted; --fresh begins anew"
        ));
    }
    let advanced = tokio::select! {
        advanced = audit.advance(source, to, watch) => Some(advanced),
        () = shutdown_signal() => None,
    };
    audit.save()?;
    let Some(advanced) = advanced else {
        let then = if audit.keeps_place() { "goes on there" } else { "begins anew" };
        bail!("interrupted after block {}: the same command {then}", audit.report().to);
    };
    advanced?;
    Ok(audit)
}

/// Where audits of these contracts keep what they need.
fn audits(global: &Global, deployment: &Deployment) -> Result<PathBuf> {
    let audits = data_folder(global.data.as_deref())?.join("audits");
    Ok(audits.join(deployment.queue.to_string()))
}

/// Where audits of these contracts write down how far they are.
fn journal(
    global: &Global,
    deployment: &Deployment,
    kind: &str,
    is_fresh: bool,
) -> Result<PathBuf> {
    let folder = audits(global, deployment)?.join(kind);
    if is_fresh {
        forget(&folder).with_context(|| folder.display().to_string())?;
    }
    Ok(folder)
}

/// The chain and the contracts that the flags, or the network's folder, name.
async fn connect(global: &Global, args: &AuditChain) -> Result<Chain> {
    let network =
        || -> Result<Network> { Ok(Network::load(&data_folder(global.data.as_deref())?)?) };
    let deployment = match &args.deployment {
        Some(path) => read_file(path)?
            .contracts
            .with_context(|| format!("{} does not say where the contracts are", path.display()))?,
        None => network()?.deployment,
    };
    let rpc_url = match &args.rpc_url {
        Some(url) => url.clone(),
        None => network()?.rpc_url,
    };
    Ok(Chain::connect(&rpc_url, deployment).await?)
}

/// Shows how far the audit is, and passes on which contents and answers the chain names.
struct Watch {
    progress: Progress,
    contents: Option<Contents>,
    sampler: Option<Sampler>,
}

impl Observer for Watch {
    fn block(&mut self, number: u64, _: u64) {
        self.progress.at(number);
    }

    fn event(&mut self, header: &Header, transaction: B256, before: &State, event: &ProtocolEvent) {
        if let Some(contents) = &mut self.contents {
            contents.event(header.number, transaction, event);
        }
        if let Some(sampler) = &mut self.sampler {
            sampler.event((header.number, transaction), before, event);
        }
    }
}
