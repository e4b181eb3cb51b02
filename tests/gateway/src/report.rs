//! Tables.

use std::{collections::BTreeMap, fmt::Write as _, fs, io::Write as _};

use crate::{
    peers::{Bench, Gateway},
    run::Measured,
};

/// Says something while the measurement runs.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints a result.
pub fn show(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Processes that wanted to run over the last minute.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find(|line| line.starts_with("model name"));
    let name = name.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores of {name}")
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Everything that was measured.
pub struct Table<'a> {
    pub bench: &'a Bench,
    pub gateways: &'a [Gateway],
    pub rounds: &'a BTreeMap<&'static str, Vec<Measured>>,
    pub loads: &'a [f64],
}

impl Table<'_> {
    fn median(&self, gateway: Gateway, of: impl Fn(&Measured) -> f64) -> f64 {
        median(self.rounds.get(gateway.name()).into_iter().flatten().map(of))
    }

    /// The median over the rounds of what a gateway adds to the upstream of the same round.
    fn added(&self, gateway: Gateway, of: impl Fn(&Measured) -> f64) -> f64 {
        let rounds = |gateway: Gateway| self.rounds.get(gateway.name()).into_iter().flatten();
        median(
            rounds(gateway)
                .zip(rounds(Gateway::Direct))
                .map(|(with, without)| of(with) - of(without)),
        )
    }

    /// The table, as it stands in documents.
    pub fn markdown(&self, connections: usize, streams: usize) -> String {
        let loads: Vec<String> = self.loads.iter().map(|load| format!("{load:.1}")).collect();
        let mut text = format!(
            "{}; medians of {} rounds; load average before and after each round: {}\n\n",
            machine(),
            self.loads.len() - 1,
            loads.join(", ")
        );
        let _ = writeln!(
            text,
            "| gateway | start | idle MiB | added p50 / p99 ms, 1 connection | requests/s, {connections} connections | its CPU per request | {streams} streams: lost tokens | added gap p50 / p99 ms | first token p50 ms | its CPU per token |"
        );
        text.push_str("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
        for gateway in self.gateways {
            text.push_str(&self.row(*gateway));
        }
        if self.gateways.contains(&Gateway::Assay) {
            let _ = writeln!(
                text,
                "\nFrom a client's hang-up until the router's node is told: p50 {:.2} ms, p99 {:.2} ms.",
                self.median(Gateway::Assay, |m| m.hang_up.p50_ms),
                self.median(Gateway::Assay, |m| m.hang_up.p99_ms),
            );
        }
        text
    }

    fn row(&self, gateway: Gateway) -> String {
        let is_direct = gateway == Gateway::Direct;
        let value = |of: &dyn Fn(&Measured) -> f64| {
            if is_direct { self.median(gateway, of) } else { self.added(gateway, of) }
        };
        let name = if is_direct {
            "direct (total, not added)".to_owned()
        } else {
            format!("{} {}", gateway.name(), gateway.version(self.bench))
        };
        format!(
            "| {name} | {:.0} ms | {:.0} | {:.2} / {:.2} | {:.0} | {:.0} µs | {:.0} | {:.2} / {:.2} | {:.1} | {:.0} µs |\n",
            self.median(gateway, |m| m.start_ms),
            self.median(gateway, |m| m.idle_mib),
            value(&|m| m.one.p50_ms),
            value(&|m| m.one.p99_ms),
            self.median(gateway, |m| m.full.per_s),
            self.median(gateway, |m| m.cpu_us),
            self.median(gateway, |m| m.streams.lost as f64),
            value(&|m| m.streams.gaps.p50_ms),
            value(&|m| m.streams.gaps.p99_ms),
            self.median(gateway, |m| m.streams.first.p50_ms),
            self.median(gateway, |m| m.token_cpu_us),
        )
    }
}

/// How memory and speed changed over a soak, by least squares over its second half: what is filled once, caches and
/// pools, is filled in the first.
pub fn slopes(points: &[(f64, f64, f64)]) -> String {
    let half = points.get(points.len() / 2..).unwrap_or_default();
    let slope = |value: &dyn Fn(&(f64, f64, f64)) -> f64| {
        let count = half.len() as f64;
        let (mean_x, mean_y) = (
            half.iter().map(|point| point.0).sum::<f64>() / count,
            half.iter().map(value).sum::<f64>() / count,
        );
        let (mut above, mut below) = (0.0, 0.0);
        for point in half {
            above += (point.0 - mean_x) * (value(point) - mean_y);
            below += (point.0 - mean_x).powi(2);
        }
        above / below
    };
    format!(
        "{}; second half: memory {:+.3} MiB a minute, p50 {:+.4} ms a minute",
        machine(),
        slope(&|point| point.1),
        slope(&|point| point.2)
    )
}
