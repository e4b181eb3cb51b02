//! A report as one page that needs nothing else: for a browser, a phone, a printer.

use std::fmt::Write;

use crate::report::{Divergence, Report, Scored, Verdict};
use crate::text::rows;

/// Colours are those of the reader's system; nothing is loaded from anywhere.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--soft:#667;--line:#d8dce2;--card:#f6f7f9;--good:#1a7f46;--bad:#b3261e}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--paper:#15181c;--soft:#98a1ad;--line:#30363d;--card:#1d2126;--good:#4cc38a;--bad:#ff7b72}}\
*{box-sizing:border-box}body{margin:0 auto;max-width:60rem;padding:2rem 1.25rem 4rem;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif}\
h1{font-size:1.6rem;margin:0 0 .25rem}h2{font-size:1.15rem;margin:2.5rem 0 .75rem}\
.verdict{display:inline-block;margin:.75rem 0;padding:.5rem .9rem;border-radius:.5rem;font-weight:600;color:#fff}\
.good{background:var(--good)}.bad{background:var(--bad)}\
@media(prefers-color-scheme:dark){.verdict{color:#10130f}}\
p{margin:.5rem 0;max-width:46rem}.soft{color:var(--soft)}\
table{border-collapse:collapse;width:100%}td,th{padding:.35rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}\
td.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap;width:1%}\
code{font:0.85em/1.5 ui-monospace,monospace;overflow-wrap:anywhere}\
article{margin:1rem 0;padding:1rem 1.1rem;background:var(--card);border:1px solid var(--line);border-left:4px solid var(--bad);border-radius:.4rem}\
article h3{margin:0;font-size:1rem}article table{margin-top:.6rem}article td{border:0;padding:.15rem .6rem .15rem 0}\
article td:first-child{color:var(--soft);white-space:nowrap;width:1%}\
.amount{color:var(--bad);font-weight:600}";

/// Text as it may stand in HTML: what a chain tells is written by strangers.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

impl Report {
    /// The whole report as a page.
    pub fn html(&self) -> String {
        let mut out = String::new();
        let class = if self.is_clean() { "good" } else { "bad" };
        let _ = write!(
            out,
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <title>Audit of chain {chain}</title><style>{STYLE}</style></head><body>\
             <h1>Audit of chain {chain}</h1>\
             <p class=\"soft\">Blocks {from} to {to}, up to <code>{hash}</code>, by assay {version}</p>\
             <div class=\"verdict {class}\">{verdict}</div>",
            chain = self.chain_id,
            from = grouped(self.from),
            to = grouped(self.to),
            hash = self.to_hash,
            version = escape(&self.version),
            verdict = escape(&self.short()),
        );
        self.divergences_html(&mut out);
        self.checked_html(&mut out);
        self.rerun_html(&mut out);
        out.push_str("<h2>The contracts</h2><table>");
        for (name, address) in &self.contracts {
            let _ =
                write!(out, "<tr><td>{}</td><td><code>{address}</code></td></tr>", escape(name));
        }
        out.push_str("</table></body></html>\n");
        out
    }

    fn short(&self) -> String {
        match (self.divergences.len() as u64 + self.unlisted, self.complete) {
            (0, true) => "Everything is as the protocol says".to_owned(),
            (0, false) => "The audit is not complete".to_owned(),
            (1, _) => "1 divergence".to_owned(),
            (found, _) => format!("{} divergences", grouped(found)),
        }
    }

    fn divergences_html(&self, out: &mut String) {
        if !self.complete {
            out.push_str(
                "<p>Not everything could be checked: the last divergence says where it ended.</p>",
            );
        }
        if !self.divergences.is_empty() {
            out.push_str("<h2>What diverges</h2>");
        }
        for divergence in &self.divergences {
            divergence.html(out);
        }
        if self.unlisted > 0 {
            let _ = write!(out, "<p>And {} more.</p>", grouped(self.unlisted));
        }
    }

    fn rerun_html(&self, out: &mut String) {
        let Some(rerun) = &self.rerun else { return };
        let _ = write!(
            out,
            "<h2>Answers scored again</h2><p>{}.</p><table><tr><th>block</th><th>task</th><th>node</th><th>found</th></tr>",
            escape(&rerun.summary())
        );
        for Scored { task, node, block, verdict, what } in &rerun.answers {
            let class = if *verdict == Verdict::Fail { " class=\"amount\"" } else { "" };
            let (block, what) = (grouped(*block), escape(what));
            let _ = write!(
                out,
                "<tr><td class=\"number\">{block}</td><td><code>{task}</code></td><td>{node}</td><td{class}>{what}</td></tr>"
            );
        }
        out.push_str("</table>");
    }

    fn checked_html(&self, out: &mut String) {
        out.push_str(
            "<h2>What was checked</h2><p class=\"soft\">Every transaction was executed again on the state before it. \
             What every call of the contracts had to do was computed from the protocol's rules, and compared with what \
             it did.</p><table>",
        );
        for (count, what) in rows(&self.checked) {
            let count = grouped(count);
            let _ =
                write!(out, "<tr><td class=\"number\">{count}</td><td>{}</td></tr>", escape(what));
        }
        out.push_str("</table>");
        for note in &self.notes {
            let _ = write!(out, "<p><b>Note.</b> {}</p>", escape(note));
        }
    }
}

impl Divergence {
    fn html(&self, out: &mut String) {
        let _ = write!(
            out,
            "<article><h3>{}</h3><div class=\"soft\">{}</div><table>",
            escape(&self.what),
            escape(self.rule.words())
        );
        let mut row = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                let _ =
                    write!(out, "<tr><td>{name}</td><td><code>{}</code></td></tr>", escape(&value));
            }
        };
        row("block", self.block.map(|block| block.to_string()));
        row("transaction", self.transaction.map(|hash| hash.to_string()));
        row("contract", self.contract.as_ref().map(|(name, at)| format!("{name} {at}")));
        row("task", self.task.map(|task| task.to_string()));
        row("node", self.node.map(|node| node.to_string()));
        row("session", self.session.map(|session| session.to_string()));
        row("expected", Some(self.expected.clone()));
        row("found", Some(self.found.clone()));
        if let Some(amount) = &self.amount {
            let _ = write!(
                out,
                "<tr><td>off by</td><td class=\"amount\">{} minor units</td></tr>",
                escape(amount)
            );
        }
        out.push_str("</table></article>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let texts = [0, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn what_strangers_wrote_is_text() {
        assert_eq!(escape("<b a='\"&"), "&lt;b a=&#39;&quot;&amp;");
    }
}
