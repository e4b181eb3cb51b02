//! Clients that ask again until they are answered, as people's programs do.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use assay_harness::run_assay;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::worlds::World;

/// Clients of the router at once.
const AT_ONCE: u32 = 4;
/// One in so many tasks is submitted on chain, past the router.
const DIRECT_EVERY: u32 = 5;
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

pub struct Clients {
    routed: JoinSet<Served>,
    direct: JoinSet<()>,
}

impl Clients {
    /// Begins to ask for so many tasks.
    pub fn start(world: &World, tasks: u32) -> Self {
        let left = Arc::new(AtomicU32::new(tasks - tasks / DIRECT_EVERY));
        let mut routed = JoinSet::new();
        for client in 0..AT_ONCE {
            let (left, url, model) =
                (Arc::clone(&left), world.http_url.clone(), world.model.clone());
            routed.spawn(async move { ask(client, &url, &model, &left).await });
        }
        let mut direct = JoinSet::new();
        let (data, session) = (world.data(), world.direct_session);
        direct.spawn(async move { submit_all(data, session, tasks / DIRECT_EVERY).await });
        Self { routed, direct }
    }

    /// Waits until all are through.
    pub async fn finish(self) -> Served {
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

async fn ask(client: u32, url: &str, model: &str, left: &AtomicU32) -> Served {
    let http = reqwest::Client::builder().timeout(TIMEOUT).build().unwrap();
    let mut served = Served::default();
    let take = |left: u32| left.checked_sub(1);
    while let Ok(number) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
        let body = json!({
            "model": model,
            "messages": [{"role": "user", "content": format!("{client} {number}: What is a miner?")}],
            "max_tokens": 24,
        });
        loop {
            match complete(&http, url, &body).await {
                Some(task) => {
                    served.answered.push(task);
                    break;
                }
                None => {
                    served.failed += 1;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
    served
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

/// Tasks of all kinds by transaction; what fails because an endpoint is away is left alone, since the chain tells what
/// became of it.
async fn submit_all(data: PathBuf, session: u64, tasks: u32) {
    let session = session.to_string();
    for number in 0..tasks {
        let kind: &[&str] = match number % 3 {
            0 => &["--redundancy", "2", "--attempts", "2"],
            1 => &["--pull"],
            _ => &["--attempts", "3"],
        };
        let base = ["task", "submit", "--account", "client", "--session", &session];
        let rest = ["--deadline-s", "30", "--max-tokens", "24", "What is an oracle?"];
        let args: Vec<String> =
            [&base[..], kind, &rest[..]].concat().into_iter().map(str::to_owned).collect();
        let data = data.clone();
        let _ = tokio::task::spawn_blocking(move || run_assay(&data, &args)).await.unwrap();
    }
}
