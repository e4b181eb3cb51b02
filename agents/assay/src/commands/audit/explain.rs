//! `assay audit explain`: what became of a task or a node, and why, from chain data alone.

use alloy::{consensus::Header, primitives::B256};
use anyhow::{Context, Result, ensure};
use assay_protocol::{ProtocolEvent, State};
use assay_replay::{Audit, Explainer, Line, Observer, Options, Report, Source, Subject};
use serde::Serialize;

use super::{connect, progress::Progress};
use crate::{
    args::{AuditExplainArgs, Global},
    ui,
};

#[derive(Serialize)]
struct Explanation {
    /// What happened, in order.
    lines: Vec<Line>,
    /// Older lines that are left out.
    left_out: u64,
    /// Whether the blocks that it was read from are as they must be.
    verdict: String,
    sound: bool,
}

struct Watch {
    progress: Progress,
    explainer: Explainer,
}

impl Observer for Watch {
    fn block(&mut self, number: u64, _: u64) {
        self.progress.at(number);
    }

    fn event(&mut self, header: &Header, transaction: B256, before: &State, event: &ProtocolEvent) {
        self.explainer.event(header, transaction, before, event);
    }
}

/// Explains; false if the chain that it explains from does not stand its audit.
pub async fn run(global: &Global, args: &AuditExplainArgs) -> Result<bool> {
    let subject = subject(&args.subject)?;
    let chain = connect(global, &args.chain).await?;
    let (source, deployment) = (Source::new(chain.provider), (*chain.deployment).clone());
    let to = source.head().await?;
    let mut watch =
        Watch { progress: Progress::new(to, "block"), explainer: Explainer::new(subject) };
    let report = Audit::run(&source, Options { deployment, from: 1, to }, &mut watch).await;
    watch.progress.end();
    let report = report?;
    let lines: Vec<Line> = watch.explainer.lines().cloned().collect();
    ensure!(
        !lines.is_empty(),
        "no event up to block {to} tells of {}: see `assay node list`, or the header x-assay-task of an answer",
        args.subject
    );
    let explanation = Explanation {
        lines,
        left_out: watch.explainer.dropped,
        verdict: report.verdict(),
        sound: report.is_clean(),
    };
    ui::show(global.json, &explanation, |explanation| text(explanation, &report))?;
    Ok(report.is_clean())
}

/// `7` is a node, 32 bytes in hex are a task.
fn subject(text: &str) -> Result<Subject> {
    if let Ok(node) = text.parse() {
        return Ok(Subject::Node(node));
    }
    let task = text.parse().with_context(|| {
        format!(
            "{text:?} is neither the number of a node nor the id of a task (0x and 64 hex digits)"
        )
    })?;
    Ok(Subject::Task(task))
}

fn text(explanation: &Explanation, report: &Report) -> String {
    let mut out = String::new();
    if explanation.left_out > 0 {
        out.push_str(&format!("({} older events are left out)\n\n", explanation.left_out));
    }
    for Line { block, time_s, transaction, text } in &explanation.lines {
        out.push_str(&format!(
            "block {block}, second {time_s}, transaction {transaction}\n  {text}\n\n"
        ));
    }
    out.push_str(&explanation.verdict);
    if !report.is_clean() {
        out.push_str("; `assay audit` shows what");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_tasks_are_told_apart() {
        let task = B256::repeat_byte(7);
        assert_eq!(subject("7").unwrap(), Subject::Node(7));
        assert_eq!(subject(&task.to_string()).unwrap(), Subject::Task(task));
        for bad in ["", "x", "-1", "0x12", "4294967296"] {
            assert!(subject(bad).is_err(), "{bad}");
        }
    }
}
