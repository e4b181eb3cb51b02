//! A bad day: agents are killed, the chain takes blocks back, connections are cut, while tasks come in. Afterwards the
//! chain is asked: every task ended once and in time, everybody was paid once, all money is there.
//!
//! `script/bench/chaos` runs it longer and writes its figures down.

pub mod agents;
mod client;
mod proxy;
pub mod verdict;
pub mod worlds;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use client::Clients;
use worlds::World;

/// Tasks of a run in CI; `ASSAY_CHAOS_TASKS` asks for more.
const TASKS: u32 = 20;
/// Seed of the faults; `ASSAY_CHAOS_SEED` names another.
const SEED: u64 = 0xa55a;
/// Blocks that a reorganisation takes back at most.
const MAX_REORG: u64 = 8;
/// A fault about this often.
const PAUSE_MS: std::ops::Range<u64> = 400..1600;
/// How long a killed process stays away.
const AWAY_MS: std::ops::Range<u64> = 0..2500;
/// All tasks are in, and the faults have stopped: everything must be at its end within this.
const LAST_END: Duration = Duration::from_secs(400);
/// A run that takes longer than this hangs.
const LONGEST: Duration = Duration::from_secs(40 * 60);

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What was done to the network.
#[derive(Debug, Default)]
struct Faults {
    reorgs: u32,
    deepest: u64,
    cuts: u32,
}

/// Kills, takes back and cuts until `stop`.
async fn torment(world: &mut World, rng: &mut StdRng, stop: &AtomicBool) -> Faults {
    let mut faults = Faults::default();
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(rng.random_range(PAUSE_MS))).await;
        match rng.random_range(0..10) {
            0..5 => {
                let victim = rng.random_range(0..world.agents.len());
                let away = Duration::from_millis(rng.random_range(AWAY_MS));
                world.agents[victim].kill();
                tokio::time::sleep(away).await;
                world.agents[victim].run();
            }
            5..7 => {
                let depth = rng.random_range(1..=MAX_REORG);
                if world.reorg(depth).await {
                    faults.reorgs += 1;
                    faults.deepest = faults.deepest.max(depth);
                }
            }
            _ => {
                world.lines.iter().for_each(proxy::Line::cut);
                faults.cuts += 1;
            }
        }
        world.assert_nobody_gave_up();
    }
    faults
}

async fn bad_day(name: &str, mut world: World) {
    let (tasks, seed) = (setting("ASSAY_CHAOS_TASKS", TASKS), setting("ASSAY_CHAOS_SEED", SEED));
    let begun = Instant::now();
    let mut rng = StdRng::seed_from_u64(seed);
    let clients = Clients::start(&world, tasks);
    let stop = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&stop);
    let working = tokio::spawn(async move {
        let served = clients.finish().await;
        ended.store(true, Ordering::Relaxed);
        served
    });
    let day = async {
        let faults = torment(&mut world, &mut rng, &stop).await;
        (faults, working.await.unwrap())
    };
    let (faults, served) = tokio::time::timeout(LONGEST, day).await.expect("the run hangs");
    let chain = world.chain().await;
    let quiet = Instant::now();
    while chain.open_tasks().await > 0 {
        assert!(quiet.elapsed() < LAST_END, "tasks are still open:\n{}", world.logs());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let verdict = chain.judge().await;
    for task in &served.answered {
        assert!(chain.is_settled(task).await, "task {task} was answered and never paid");
    }
    let connections_cut: u32 =
        world.lines.iter().map(|line| line.ended.load(Ordering::Relaxed)).sum();
    let kills: u32 = world.agents.iter().map(|agent| agent.kills).sum();
    assert!(kills > 0 && faults.reorgs > 0, "nothing bad happened: {faults:?}");
    let figures = json!({
        "world": name,
        "seed": seed,
        "seconds": begun.elapsed().as_secs(),
        "kills": kills,
        "reorganisations": faults.reorgs,
        "deepest": faults.deepest,
        "cuts": faults.cuts,
        "connections_cut": connections_cut,
        "answered": served.answered.len(),
        "failed_requests": served.failed,
        "on_chain": verdict,
    });
    report(&figures);
}

/// Shows the figures to who runs this with `--nocapture`, and appends them where `ASSAY_CHAOS_REPORT` says.
#[expect(clippy::print_stdout, reason = "the test's captured output")]
fn report(figures: &Value) {
    use std::io::Write;
    println!("{figures:#}");
    let Some(path) = std::env::var_os("ASSAY_CHAOS_REPORT") else { return };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    writeln!(file, "{figures}").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_on_anvil_outlive_a_bad_day() {
    bad_day("agents apart, anvil", World::apart_on_anvil(true).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_network_outlives_a_bad_day() {
    bad_day("assay up, embedded chain", World::whole().await).await;
}
