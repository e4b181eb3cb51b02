//! Clients that ask again until they are answered, as people's programs do.

use std::{
    ops::Range,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use assay_harness::run_assay;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::worlds::World;

/// Clients of the router at once.
const AT_ONCE: u32 = 4;
/// One in so many tasks is submitted on chain, past the router.
const DIRECT_EVERY: u32 = 5;
/// Between an answer and the next question of a client.
const THINKS_MS: Range<u64> = 0..2000;
/// Seconds that the first node of a task on chain has: longer than a killed one is away, and than a node wants to have
/// left when it begins.
const DIRECT_DEADLINE_S: &str = "30";
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(300);
/// A request without an answer is given up: its router was killed.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What came of the requests.
#[derive(Debug, Default)]
pub struct Served {
    /// Tasks whose answer was complete.
    pub answered: Vec<String>,
    /// Requests that failed and were sent again.
    pub failed: u32,
}

/// How far the clients of the router are.
#[derive(Debug)]
pub struct Progress {
    /// Tasks that they ask for at least.
    pub tasks: u32,
    /// Answers that they got.
    pub answered: AtomicU32,
}

/// Tasks still to be asked for; while the day lasts there is always another one.
struct Work {
    left: AtomicU32,
    day_is_over: Arc<AtomicBool>,
}

impl Work {
    fn take(&self) -> bool {
        let less = |left: u32| left.checked_sub(1);
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.is_ok() || !self.day_is_over.load(Ordering::Relaxed)
    }
}

pub struct Clients {
    pub progress: Arc<Progress>,
    day_is_over: Arc<AtomicBool>,
    routed: JoinSet<Served>,
    direct: JoinSet<()>,
}

impl Clients {
    /// Begins to ask for so many tasks, and for more until the day is over.
    pub fn start(world: &World, tasks: u32, seed: u64) -> Self {
        let day_is_over = Arc::new(AtomicBool::new(false));
        let work = |tasks| {
            let day_is_over = Arc::clone(&day_is_over);
            Arc::new(Work { left: AtomicU32::new(tasks), day_is_over })
        };
        let direct_tasks = tasks / DIRECT_EVERY;
        let routed_tasks = tasks - direct_tasks;
        let progress = Progress { tasks: routed_tasks, answered: AtomicU32::new(0) };
        let progress = Arc::new(progress);
        let mut routed = JoinSet::new();
        let routed_work = work(routed_tasks);
        for number in 0..AT_ONCE {
            let client = Client {
                number,
                url: world.http_url.clone(),
                model: world.model.clone(),
                work: Arc::clone(&routed_work),
                progress: Arc::clone(&progress),
                rng: StdRng::seed_from_u64(seed.wrapping_add(number.into())),
            };
            routed.spawn(client.ask());
        }
        let mut direct = JoinSet::new();
        let direct_work = work(direct_tasks);
        for &(account, session) in &world.direct_sessions {
            let (data, work) = (world.data(), Arc::clone(&direct_work));
            direct.spawn(submit_all(data, account, session, work));
        }
        Self { progress, day_is_over, routed, direct }
    }

    /// Ends the day, and waits until all are through.
    pub async fn finish(self) -> Served {
        self.day_is_over.store(true, Ordering::Relaxed);
        let all = self.routed.join_all().await;
        self.direct.join_all().await;
        let mut sum = Served::default();
        for served in all {
            sum.answered.extend(served.answered);
            sum.failed += served.failed;
        }
        sum
    }
}

struct Client {
    number: u32,
    url: String,
    model: String,
    work: Arc<Work>,
    progress: Arc<Progress>,
    rng: StdRng,
}

impl Client {
    async fn ask(mut self) -> Served {
        let http = reqwest::Client::builder().timeout(TIMEOUT).build().unwrap();
        let mut served = Served::default();
        while self.work.take() {
            let text = format!("{} {}: What is a miner?", self.number, served.answered.len());
            let body = json!({
                "model": self.model,
                "messages": [{"role": "user", "content": text}],
                "max_tokens": 24,
            });
            let task = loop {
                if let Some(task) = complete(&http, &self.url, &body).await {
                    break task;
                }
                served.failed += 1;
                tokio::time::sleep(PAUSE).await;
            };
            served.answered.push(task);
            self.progress.answered.fetch_add(1, Ordering::Relaxed);
            let pause = self.rng.random_range(THINKS_MS);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        served
    }
}

/// The task, if its answer is complete.
async fn complete(http: &reqwest::Client, url: &str, body: &Value) -> Option<String> {
    let response = http.post(format!("{url}/v1/chat/completions")).json(body).send().await.ok()?;
    let task = response.headers().get("x-assay-task")?.to_str().ok()?.to_owned();
    if !response.status().is_success() {
        return None;
    }
    let answer: Value = response.json().await.ok()?;
    answer["choices"][0]["finish_reason"].is_string().then_some(task)
}

/// Tasks of all kinds by transaction, one account's one after the other; nobody waits for the answers, since the chain
/// tells what became of them. What fails because an endpoint is away is submitted again.
async fn submit_all(data: PathBuf, account: &'static str, session: u64, work: Arc<Work>) {
    let session = session.to_string();
    let kinds: [&[&str]; 3] =
        [&["--redundancy", "2", "--attempts", "2"], &["--pull"], &["--attempts", "3"]];
    for kind in kinds.into_iter().cycle().take_while(|_| work.take()) {
        let base = ["task", "submit", "--account", account, "--session", &session, "--no-wait"];
        let rest = ["--deadline-s", DIRECT_DEADLINE_S, "--max-tokens", "24", "What is an oracle?"];
        let args: Vec<String> =
            [&base[..], kind, &rest[..]].concat().into_iter().map(str::to_owned).collect();
        loop {
            let (data, args) = (data.clone(), args.clone());
            let submitted = tokio::task::spawn_blocking(move || run_assay(&data, &args));
            if submitted.await.unwrap().unwrap().status.success() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
