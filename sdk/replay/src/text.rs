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

#[cfg(test)]
mod tests {
    use alloy::primitives::{Address, B256};

    use super::*;
    use crate::report::{Rerun, Verdict};

    fn scored(node: u32, verdict: Verdict) -> Scored {
        let what = format!("what was found <of {node}>");
        Scored { task: B256::repeat_byte(7), node, block: 5, verdict, what }
    }

    /// The text names what is doubtful, the page and JSON name all.
    #[test]
    fn answers_that_were_scored_again_are_told() {
        let answers = vec![
            scored(1, Verdict::Pass),
            scored(2, Verdict::Fail),
            scored(3, Verdict::Unpaid),
            scored(4, Verdict::Missing),
        ];
        let (model, class) = ("a-model".to_owned(), "cpu-f32".to_owned());
        let rerun = Rerun { model, class, seed: 11, eligible: 40, others: 2, answers };
        let report = Report {
            version: "1".to_owned(),
            chain_id: 1,
            contracts: [("SessionPayment".to_owned(), Address::repeat_byte(9))].into(),
            from: 1,
            to: 5,
            to_hash: B256::ZERO,
            complete: true,
            checked: Counts::default(),
            rerun: Some(rerun),
            notes: Vec::new(),
            divergences: Vec::new(),
            unlisted: 0,
        };
        let (text, page) = (report.text(), report.html());
        let summary = "4 of 40 answers of a-model, drawn with seed 11, scored in cpu-f32: 1 true, 1 FALSE, \
                       1 false and not paid, 1 not to be had; 2 answers of other models were not looked at";
        assert!(text.contains(summary) && page.contains(summary), "{text}\n{page}");
        assert!(text.contains(&Address::repeat_byte(9).to_string()), "{text}");
        for node in 1..=4 {
            assert_eq!(text.contains(&format!("found <of {node}>")), node > 1, "{text}");
            assert!(page.contains(&format!("found &lt;of {node}&gt;")), "{page}");
        }
        let back: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(back, report);
    }
}
