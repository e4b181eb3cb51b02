//! `assay doctor`: named checks of this machine and its network, side by side, each with a remedy.

mod exposure;
mod machine;
mod network;

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail};
use futures::future::BoxFuture;
use serde::Serialize;

use crate::{
    args::{DoctorArgs, Global},
    network::{Network, data_folder},
    ui,
};

/// One check may take so long; more is a failure of its own.
const CHECK_TIME: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    /// Works, but not as it should for long.
    Warning,
    Failed,
    /// There is nothing to check.
    Skipped,
}

/// What a check found.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    /// What was seen.
    detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// What a check says; its name is added where it is called.
struct Said(Verdict, String, Option<String>);

impl Said {
    fn ok(detail: impl Into<String>) -> Self {
        Self(Verdict::Ok, detail.into(), None)
    }

    fn skipped(detail: impl Into<String>) -> Self {
        Self(Verdict::Skipped, detail.into(), None)
    }

    fn warning(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self(Verdict::Warning, detail.into(), Some(remedy.into()))
    }

    fn failed(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self(Verdict::Failed, detail.into(), Some(remedy.into()))
    }
}

/// What the checks look at.
struct Patient {
    data: PathBuf,
    network: Option<Network>,
    args: DoctorArgs,
}

pub async fn run(global: &Global, args: DoctorArgs) -> Result<()> {
    let data = data_folder(global.data.as_deref())?;
    let patient = Patient { network: Network::load(&data).ok(), data, args };
    let checks: Vec<(&'static str, BoxFuture<'_, Said>)> = vec![
        ("network", Box::pin(network::described(&patient))),
        ("chain", Box::pin(network::chain(&patient))),
        ("contracts", Box::pin(network::contracts(&patient))),
        ("clock", Box::pin(network::clock(&patient))),
        ("accounts", Box::pin(network::accounts(&patient))),
        ("nodes", Box::pin(network::nodes(&patient))),
        ("store", Box::pin(network::store(&patient))),
        ("pins", Box::pin(network::pins(&patient))),
        ("router", Box::pin(network::router(&patient))),
        ("exposure", Box::pin(exposure::exposure(&patient))),
        ("transport", Box::pin(exposure::transport(&patient))),
        ("ports", Box::pin(machine::ports(&patient))),
        ("disk", Box::pin(machine::disk(&patient))),
        ("data folder", Box::pin(machine::data_folder(&patient))),
        ("model", Box::pin(machine::model(&patient))),
    ];
    let checks = checks.into_iter().map(|(check, future)| async move {
        let late = || {
            let remedy = "something holds it up: look at the other checks, then call it again";
            Said::failed(format!("no result within {} s", CHECK_TIME.as_secs()), remedy)
        };
        let Said(verdict, detail, remedy) =
            tokio::time::timeout(CHECK_TIME, future).await.unwrap_or_else(|_| late());
        Finding { check, verdict, detail, remedy }
    });
    let findings = futures::future::join_all(checks).await;
    ui::show(global.json, findings.as_slice(), describe)?;
    let failed: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Failed)
        .map(|finding| finding.check)
        .collect();
    if !failed.is_empty() {
        bail!("{} of {} checks failed: {}", failed.len(), findings.len(), failed.join(", "));
    }
    Ok(())
}

fn describe(findings: &[Finding]) -> String {
    let mut lines = Vec::new();
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED",
            Verdict::Skipped => "-",
        };
        lines.push(format!("{mark:<8} {:<12} {}", finding.check, finding.detail));
        if let Some(remedy) = &finding.remedy {
            lines.push(format!("{:<21} -> {remedy}", ""));
        }
    }
    lines.join("\n")
}
