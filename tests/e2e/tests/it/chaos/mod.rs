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
    ops::Range,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde::Serialize;
use serde_json::{Value, json};

use client::{Clients, Progress};
use worlds::World;

/// Tasks of a run in CI, at least; `ASSAY_CHAOS_TASKS` asks for more.
const TASKS: u32 = 20;
/// Seed of the faults; `ASSAY_CHAOS_SEED` names another.
const SEED: u64 = 0xa55a;
/// Faults of each kind, at least.
const FAULTS: u32 = 4;
/// A longer run has a fault of each kind for so many tasks.
const TASKS_FOR_A_FAULT: u32 = 10;
/// Blocks that a reorganisation takes back at most.
const MAX_REORG: u64 = 8;
/// Between two faults.
const PAUSE_MS: Range<u64> = 400..1600;
/// How long a killed process stays away.
const AWAY_MS: Range<u64> = 0..2500;
/// All tasks are in, and the faults have stopped: everything must be at its end within this.
const LAST_END: Duration = Duration::from_secs(400);
/// A run that takes longer than this hangs.
const LONGEST: Duration = Duration::from_secs(40 * 60);
const POLL: Duration = Duration::from_millis(100);

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// SIGKILL, and a new start.
    Kill,
    /// The chain takes blocks back.
    Reorganisation,
    /// Every connection ends.
    Cut,
}

/// What was done to the network.
#[derive(Debug, Default, Serialize)]
struct Done {
    kills: u32,
    reorganisations: u32,
    deepest: u64,
    blocks_taken_back: u64,
    cuts: u32,
    connections_cut: usize,
}

/// So many faults of each kind that this world knows; each kind comes once before one comes twice, and so on.
fn plan(world: &World, tasks: u32, rng: &mut StdRng) -> Vec<Fault> {
    let mut kinds = vec![Fault::Kill, Fault::Reorganisation];
    if !world.lines.is_empty() {
        kinds.push(Fault::Cut);
    }
    let rounds = FAULTS.max(tasks / TASKS_FOR_A_FAULT);
    let shuffled = (0..rounds).flat_map(|_| {
        kinds.shuffle(rng);
        kinds.clone()
    });
    shuffled.collect()
}

/// Does all that is planned. Every second fault waits until the network has done its share of the work, so that faults
/// come all day long; the others come whenever, also while it recovers.
async fn torment(world: &mut World, plan: &[Fault], rng: &mut StdRng, work: &Progress) -> Done {
    let mut done = Done::default();
    for (number, fault) in plan.iter().enumerate() {
        let share = work.tasks as usize * number / plan.len();
        tokio::time::sleep(Duration::from_millis(rng.random_range(PAUSE_MS))).await;
        while number % 2 == 1 && (work.answered.load(Ordering::Relaxed) as usize) < share {
            tokio::time::sleep(POLL).await;
            world.assert_nobody_gave_up();
        }
        // A chain or a connection that is away, after a kill, cannot be hurt yet.
        while !happens(*fault, world, rng, &mut done).await {
            tokio::time::sleep(POLL).await;
            world.assert_nobody_gave_up();
        }
        world.assert_nobody_gave_up();
    }
    done
}

/// False if nothing happened.
async fn happens(fault: Fault, world: &mut World, rng: &mut StdRng, done: &mut Done) -> bool {
    match fault {
        Fault::Kill => {
            let victim = rng.random_range(0..world.agents.len());
            world.agents[victim].kill();
            tokio::time::sleep(Duration::from_millis(rng.random_range(AWAY_MS))).await;
            world.agents[victim].run();
            done.kills += 1;
            true
        }
        Fault::Reorganisation => {
            let depth = rng.random_range(1..=MAX_REORG);
            let happened = world.reorg(depth).await;
            if happened {
                done.reorganisations += 1;
                done.deepest = done.deepest.max(depth);
                done.blocks_taken_back += depth;
            }
            happened
        }
        Fault::Cut => {
            let ended: usize = world.lines.iter().map(proxy::Line::cut).sum();
            done.cuts += u32::from(ended > 0);
            done.connections_cut += ended;
            ended > 0
        }
    }
}

async fn bad_day(name: &str, mut world: World) {
    let (tasks, seed) = (setting("ASSAY_CHAOS_TASKS", TASKS), setting("ASSAY_CHAOS_SEED", SEED));
    let begun = Instant::now();
    let mut rng = StdRng::seed_from_u64(seed);
    let plan = plan(&world, tasks, &mut rng);
    let clients = Clients::start(&world, tasks, seed);
    let day = async {
        let done = torment(&mut world, &plan, &mut rng, &clients.progress).await;
        (done, clients.finish().await)
    };
    let (done, served) = tokio::time::timeout(LONGEST, day).await.expect("the run hangs");
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
    assert!(verdict.tasks >= tasks as usize, "{} of {tasks} tasks came in", verdict.tasks);
    report(&json!({
        "world": name,
        "seed": seed,
        "seconds": begun.elapsed().as_secs(),
        "seconds_until_all_ended": quiet.elapsed().as_secs(),
        "faults": done,
        "answered": served.answered.len(),
        "failed_requests": served.failed,
        "on_chain": verdict,
    }));
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
