//! A whole network with the real binary and real clients.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod bad_input;
mod chaos;
mod clients;
mod commands;
mod crash;
mod doctor;
mod fuzz;
mod hang_up;
mod ipfs;
mod ledger;
mod link;
mod nodes;
mod openai;
mod proof;
mod resume;
mod sdk;
mod secrets;
mod stranger;

use std::time::{Duration, Instant};

use assay_harness::{Network, run_assay};
use serde_json::{Value, json};

/// Development windows let a task settle within 10 seconds; a busy machine gets more.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// A busy machine gets so long for what takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// What `assay <args> --json` prints.
fn json(network: &Network, args: &[&str]) -> Value {
    let output = run_assay(network.data(), &[args, &["--json"]].concat()).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "assay {args:?}: {complaint}\n{}", network.log());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Polls `look` until it tells something.
async fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} did not happen within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Opens a session and waits for its nodes and its seed; returns its number.
async fn active_session(network: &Network, flags: &[&str]) -> String {
    let session = json(network, &[&["session", "open"], flags].concat());
    let id = session["session"].to_string();
    wait_for("the start of the session", || {
        (json(network, &["session", "show", &id])["seed_known"] == true).then_some(())
    })
    .await;
    id
}

/// One plain chat completion; returns status, task id and body.
async fn chat(network: &Network, body: Value) -> (u16, Option<String>, Value) {
    let url = format!("{}/v1/chat/completions", network.http_url().unwrap());
    let response = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
    let status = response.status().as_u16();
    let task =
        response.headers().get("x-assay-task").map(|value| value.to_str().unwrap().to_owned());
    (status, task, response.json().await.unwrap())
}

fn question(network: &Network, text: &str) -> Value {
    json!({
        "model": network.described("/model/name").unwrap(),
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 40,
    })
}

/// The router's record of a task, once it is settled.
async fn settled(network: &Network, task: &str) -> Value {
    let url = format!("{}/v1/tasks/{task}", network.http_url().unwrap());
    let begun = Instant::now();
    loop {
        let record: Value = reqwest::get(&url).await.unwrap().json().await.unwrap();
        if record["state"] == "settled" {
            return record;
        }
        assert!(begun.elapsed() < SETTLED_WITHIN, "not settled: {record:#}\n{}", network.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
