//! A report as text, for a terminal.

use std::fmt::Write;

use crate::report::{Counts, Report, Scored};

/// How much was checked, in words: a number and what it counts.
pub(crate) fn rows(checked: &Counts) -> Vec<(u64, &'static str)> {
    let Counts {
        blocks,
        transactions,
        gas,
        logs,
        state_roots,
        storage_hashes,
        contracts,
        calls,
        events,
        tasks,
        payments,
        deadlines,
        draws,
        rounds,
        penalties,
        stored_values,
        funds,
        contents,
    } = checked;
    vec![
        (
            *blocks,
            "blocks: each follows its parent, and its hash and roots are those of its content",
        ),
        (*transactions, "transactions executed again: sender, status, gas and logs"),
        (*gas, "gas used by them"),
        (*logs, "logs compared"),
        (*state_roots, "roots of the whole state compared"),
        (*storage_hashes, "storage hashes of contracts compared with the replayed tries"),
        (*contracts, "codes of contracts compared with this program's"),
        (*calls, "calls of the contracts judged by the protocol's rules"),
        (*events, "events that the rules foretold, with all values"),
        (*tasks, "tasks submitted"),
        (*payments, "fees, refunds and tips computed from token counts and prices"),
        (*deadlines, "deadlines"),
        (*draws, "draws made again from their beacon's value"),
        (*rounds, "beacon rounds"),
        (*penalties, "penalties"),
        (*stored_values, "stored values compared with what the events tell"),
        (*funds, "times all accounts were added up"),
        (*contents, "contents fetched and hashed"),
    ]
}

impl Report {
    /// The verdict in one line.
    pub fn verdict(&self) -> String {
        let found = self.divergences.len() as u64 + self.unlisted;
        let range = format!("blocks {} to {} of chain {}", self.from, self.to, self.chain_id);
        match (found, self.complete) {
            (0, true) => format!("{range}: everything is as the protocol says"),
            (0, false) => format!("{range}: the audit is not complete"),
            (1, _) => format!("{range}: 1 divergence"),
            _ => format!("{range}: {found} divergences"),
        }
    }

    /// The whole report as text.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "{}\n\nChecked:", self.verdict());
        for (count, what) in rows(&self.checked) {
            let _ = writeln!(out, "  {count:>14}  {what}");
        }
        if !self.complete {
            let _ = writeln!(out, "\nNot everything could be checked: see the last divergence.");
        }
        if let Some(rerun) = &self.rerun {
            let _ = writeln!(out, "\nScored again: {}", rerun.summary());
            for Scored { task, node, block, what, .. } in rerun.doubtful() {
                let _ = writeln!(out, "  block {block}, task {task}, node {node}\n    {what}");
            }
        }
        let _ = writeln!(out, "\nThe contracts:");
        for (name, address) in &self.contracts {
            let _ = writeln!(out, "  {name:<25} {address}");
        }
        for note in &self.notes {
            let _ = writeln!(out, "\nNote: {note}");
        }
        for (number, divergence) in (1..).zip(&self.divergences) {
            let rule = divergence.rule.words();
            let _ = writeln!(out, "\nDivergence {number}: {divergence}\n    the rule: {rule}");
        }
        if self.unlisted > 0 {
            let _ = writeln!(out, "\n... and {} more", self.unlisted);
        }
        out
    }
}
