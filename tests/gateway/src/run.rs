//! The comparison and the soak.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::{
    load::{self, Rate, Streams, Times},
    node::MAX_NODES,
    peers::{Bench, Gateway},
    report,
};

/// Answers before anything is measured.
const WARM_UP: usize = 200;
/// Time until a gateway that has just started counts as idle.
const SETTLE: Duration = Duration::from_secs(2);
/// Most time for the answers of one connection: the slowest gateway takes 10 ms for each.
const ONE_BY_ONE_AT_MOST: Duration = Duration::from_secs(10);
/// Clients that hang up in the middle of a stream.
const HANG_UPS: usize = 25;
/// Time for the answers that are asked for to be written down.
const BETWEEN: Duration = Duration::from_millis(500);

/// What is compared, and for how long.
#[derive(Args, Clone)]
pub struct RunArgs {
    /// Folder with one Python environment for each of the other gateways.
    #[arg(long)]
    environments: PathBuf,
    /// Rounds; the table shows medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only these gateways, by name; `direct` always.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Answers one after the other.
    #[arg(long, default_value_t = 2000)]
    answers: usize,
    /// Seconds at full speed.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Connections at full speed.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Streams side by side.
    #[arg(long, default_value_t = 256)]
    streams: usize,
    /// Tokens of each stream, 50 a second.
    #[arg(long, default_value_t = 250)]
    tokens: usize,
    /// Answers that the router's node signs ahead, so that it is not measured.
    #[arg(long, default_value_t = 40_000)]
    ahead: u64,
    /// Also writes everything that was measured to this file, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// One gateway in one round.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Measured {
    pub start_ms: f64,
    pub idle_mib: f64,
    pub one: Times,
    pub full: Rate,
    /// Processor time of the gateway for each answer at full speed.
    pub cpu_us: f64,
    pub streams: Streams,
    /// From a client's hang-up until the node is told; of the router alone.
    pub hang_up: Times,
    /// Processor time of the gateway for each streamed token.
    pub token_cpu_us: f64,
    pub after_mib: f64,
}

/// Compares, and prints the table.
///
/// # Errors
/// If a gateway does not start.
pub fn compare(args: &RunArgs) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let bench =
        Bench { environments: args.environments.clone(), folder: folder.path().to_path_buf() };
    let wanted = |gateway: &Gateway| {
        *gateway == Gateway::Direct
            || args.only.is_empty()
            || args.only.iter().any(|name| name == gateway.name())
    };
    let (found, missing): (Vec<Gateway>, Vec<Gateway>) =
        Gateway::ALL.into_iter().filter(wanted).partition(|gateway| gateway.is_installed(&bench));
    for gateway in missing {
        report::note(&format!("{} is not installed, and is left out", gateway.name()));
    }
    let mut rounds: BTreeMap<&str, Vec<Measured>> = BTreeMap::new();
    let mut loads = vec![report::load_average()];
    for round in 1..=args.rounds {
        for gateway in &found {
            let measured = measure(*gateway, &bench, args)?;
            report::note(&format!("round {round}, {}: {measured:?}", gateway.name()));
            rounds.entry(gateway.name()).or_default().push(measured);
        }
        loads.push(report::load_average());
    }
    let table = report::Table { bench: &bench, gateways: &found, rounds: &rounds, loads: &loads };
    report::show(&table.markdown(args.connections, args.streams));
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&rounds)?)?;
    }
    Ok(())
}

fn measure(gateway: Gateway, bench: &Bench, args: &RunArgs) -> Result<Measured> {
    let mut started = gateway.start(bench, args.ahead)?;
    let address = started.address;
    std::thread::sleep(SETTLE);
    let idle_mib = started.process.resident_mib();
    load::one_by_one(address, WARM_UP, ONE_BY_ONE_AT_MOST)?;
    let one = load::one_by_one(address, args.answers, ONE_BY_ONE_AT_MOST)?;
    std::thread::sleep(BETWEEN);
    let before = started.process.cpu();
    let full = load::at_full_speed(address, args.connections, Duration::from_secs(args.seconds))?;
    std::thread::sleep(BETWEEN);
    let cpu = started.process.cpu().saturating_sub(before);
    started.widen(gateway, MAX_NODES)?;
    let before = started.process.cpu();
    let streams = load::side_by_side(address, args.streams, args.tokens)?;
    let token_cpu = started.process.cpu().saturating_sub(before);
    let mut hang_up = Times::default();
    if gateway == Gateway::Assay {
        let left = load::hang_up(address, HANG_UPS)?;
        hang_up = load::between(&left, &started.cancels());
    }
    let each = |cpu: Duration, count: usize| cpu.as_secs_f64() * 1e6 / count.max(1) as f64;
    Ok(Measured {
        start_ms: started.after.as_secs_f64() * 1000.0,
        idle_mib,
        one,
        full,
        cpu_us: each(cpu, full.count),
        streams,
        hang_up,
        token_cpu_us: each(token_cpu, streams.tokens),
        after_mib: started.process.resident_mib(),
    })
}

/// How long the router is under load.
#[derive(Args, Clone)]
pub struct SoakArgs {
    /// Minutes.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Connections that ask one after the other.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Milliseconds that each of them waits after an answer.
    #[arg(long, default_value_t = 20)]
    pause_ms: u64,
    /// Seconds between two lines.
    #[arg(long, default_value_t = 60)]
    every_s: u64,
}

/// Keeps the router busy, and prints its memory and its speed over time.
///
/// # Errors
/// If the router does not start or refuses an answer.
pub fn soak(args: &SoakArgs) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let bench = Bench { environments: PathBuf::new(), folder: folder.path().to_path_buf() };
    let started = Gateway::Assay.start(&bench, 0)?;
    let begun = Instant::now();
    let mut points = Vec::new();
    while begun.elapsed() < Duration::from_secs(args.minutes * 60) {
        let time = Duration::from_secs(args.every_s);
        let pause = Duration::from_millis(args.pause_ms);
        let full = load::steadily(started.address, args.connections, time, pause)?;
        anyhow::ensure!(full.failed == 0, "{} requests failed", full.failed);
        let (minute, mib) = (begun.elapsed().as_secs_f64() / 60.0, started.process.resident_mib());
        report::note(&format!(
            "{minute:.1} min: {mib:.1} MiB, {:.0} answers/s, p50 {:.2} ms, p99 {:.2} ms",
            full.per_s, full.times.p50_ms, full.times.p99_ms
        ));
        points.push((minute, mib, full.times.p50_ms));
    }
    report::show(&report::slopes(&points));
    Ok(())
}
