//! `assay audit`: replays the chain and reports.

mod contents;
mod explain;
mod watch;

use std::{
    fs,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use alloy::{consensus::Header, primitives::B256};
use anyhow::{Context, Result, bail};
use assay_bindings::Deployment;
use assay_chain::Chain;
use assay_protocol::{ProtocolEvent, State};
use assay_replay::{Audit, Observer, Options, Report, Source, forget};
use assay_runtime::shutdown_signal;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::deploy::read_file;
use crate::{
    args::{AuditArgs, AuditChain, AuditCommand, Global},
    network::{Network, data_folder},
    ui,
};
use contents::Contents;

/// Something diverges.
const DIVERGES: u8 = 1;
/// The audit could not be made.
const IMPOSSIBLE: u8 = 2;
/// So often the bar is drawn.
const REDRAW: Duration = Duration::from_millis(200);

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
    let (source, deployment) = connect(global, &args.chain).await?;
    let to = match args.range.to {
        Some(to) => to,
        None => source.head().await?,
    };
    let folder = journal(global, &deployment, "once", args.fresh)?;
    let options = Options { deployment, from: args.range.from, to };
    let mut watch = Watch { bar: bar(to), contents: None };
    if let Some(url) = &args.ipfs_url {
        watch.contents = Some(Contents::follow(url, args.range.from).await?);
    }
    let report = report(&source, options, &folder, &mut watch).await;
    watch.bar.finish_and_clear();
    let mut report = report?;
    if let Some(contents) = watch.contents {
        contents.finish(&mut report).await?;
    }
    if let Some(path) = &args.html {
        fs::write(path, report.html())
            .with_context(|| format!("the report cannot be written to {}", path.display()))?;
    }
    ui::show(global.json, &report, Report::text)?;
    Ok(report.is_clean())
}

/// Audits to the end, from where an earlier audit was interrupted.
async fn report(
    source: &Source,
    options: Options,
    folder: &Path,
    watch: &mut Watch,
) -> Result<Report> {
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
        bail!("interrupted after block {}: the same command goes on there", audit.report().to);
    };
    advanced?;
    Ok(audit.finish(source).await?)
}

/// Where audits of these contracts write down how far they are.
fn journal(
    global: &Global,
    deployment: &Deployment,
    kind: &str,
    is_fresh: bool,
) -> Result<PathBuf> {
    let audits = data_folder(global.data.as_deref())?.join("audits");
    let folder = audits.join(deployment.queue.to_string()).join(kind);
    if is_fresh {
        forget(&folder).with_context(|| folder.display().to_string())?;
    }
    Ok(folder)
}

/// The chain and the contracts that the flags, or the network's folder, name.
async fn connect(global: &Global, args: &AuditChain) -> Result<(Source, Deployment)> {
    let network = || Network::load(&data_folder(global.data.as_deref())?);
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
    let chain = Chain::connect(&rpc_url, deployment.clone()).await?;
    Ok((Source::new(chain.provider), deployment))
}

/// A bar on a terminal; nothing elsewhere.
fn bar(blocks: u64) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let style = "{bar:30} block {pos} of {len}, {per_sec}, {eta} left";
    let style =
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(blocks), target).with_style(style);
    bar.enable_steady_tick(REDRAW);
    bar
}

/// Shows how far the audit is, and passes on which contents the chain names.
struct Watch {
    bar: ProgressBar,
    contents: Option<Contents>,
}

impl Observer for Watch {
    fn block(&mut self, number: u64, _: u64) {
        self.bar.set_position(number);
    }

    fn event(&mut self, header: &Header, transaction: B256, _: &State, event: &ProtocolEvent) {
        if let Some(contents) = &mut self.contents {
            contents.event(header.number, transaction, event);
        }
    }
}
