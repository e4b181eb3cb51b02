//! `assay bench`: the engine alone and through the whole network, side by side in one process.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use assay_engine::{Engine, GenerateEvent, GenerateRequest};
use assay_engine_mistral::MistralEngine;
use assay_types::{B256, Message, Prompt, Sampling};
use futures::StreamExt;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    args::{BenchArgs, Global, UpArgs},
    ui,
    up::{self, Steps},
};

/// Wait for the settlement of the last task, whose transactions are listed.
const SETTLE: Duration = Duration::from_secs(30);

/// One answer, timed.
#[derive(Clone, Copy, Debug)]
struct Run {
    first_token: Duration,
    tokens_per_s: f64,
    tokens: u64,
}

#[derive(Debug, Serialize)]
struct Figures {
    first_token_ms_median: f64,
    tokens_per_s_median: f64,
    tokens_per_s_min: f64,
    tokens_per_s_max: f64,
    tokens: u64,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Figures {
    fn of(runs: &[Run]) -> Self {
        let speeds: Vec<f64> = runs.iter().map(|run| run.tokens_per_s).collect();
        Self {
            first_token_ms_median: median(
                runs.iter().map(|run| run.first_token.as_secs_f64() * 1000.0).collect(),
            ),
            tokens_per_s_median: median(speeds.clone()),
            tokens_per_s_min: speeds.iter().copied().fold(f64::INFINITY, f64::min),
            tokens_per_s_max: speeds.iter().copied().fold(0.0, f64::max),
            tokens: runs.iter().map(|run| run.tokens).sum(),
        }
    }
}

pub async fn run(global: &Global, args: BenchArgs) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("assay-bench-{}", std::process::id()));
    let outcome = measure(global, &args, &folder).await;
    let _ = std::fs::remove_dir_all(&folder);
    ui::show(global.json, &outcome?, describe)
}

async fn measure(global: &Global, args: &BenchArgs, folder: &std::path::Path) -> Result<Value> {
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let up_args = UpArgs {
        http: any,
        rpc: any,
        ipfs: any,
        rpc_url: None,
        ipfs_url: None,
        miners: args.miners,
        model: args.model.clone(),
        calibration: None,
        cheat: None,
        fresh: false,
    };
    let steps = Arc::new(Steps::quiet());
    let begun = Instant::now();
    let _lock = up::prepare(folder, false)?;
    let (engine, running) = up::start(folder, &up_args, &steps).await?;
    let ready_s = begun.elapsed().as_secs_f64();
    let url = running.description.http_url.clone().context("no router")?;
    let idle_mib = resident_mib()?;
    if !global.json {
        ui::note(format!("ready after {ready_s:.1} s; {} pairs of answers follow", args.runs));
    }
    // One unmeasured pair, then pairs in turn: what disturbs the machine disturbs both.
    let (mut alone, mut network) = (Vec::new(), Vec::new());
    let mut last_task = String::new();
    for round in 0..=args.runs {
        let direct = engine_alone(&engine, args, round).await?;
        let (through, task) = through_network(&url, args).await?;
        if round > 0 {
            alone.push(direct);
            network.push(through);
        }
        last_task = task;
    }
    let transactions = transactions(&url, &last_task).await?;
    let busy_mib = resident_mib()?;
    running.stop(&steps).await;
    let (alone, network) = (Figures::of(&alone), Figures::of(&network));
    Ok(json!({
        "machine": machine(),
        "model": args.model,
        "miners": args.miners,
        "runs": args.runs,
        "max_tokens": args.max_tokens,
        "ready_s": ready_s,
        "speed_ratio": network.tokens_per_s_median / alone.tokens_per_s_median,
        "first_token_added_ms": network.first_token_ms_median - alone.first_token_ms_median,
        "alone": alone,
        "network": network,
        "transactions": transactions,
        "resident_mib_idle": idle_mib,
        "resident_mib_after": busy_mib,
    }))
}

fn timed(begun: Instant, first: Option<Instant>, tokens: u64) -> Result<Run> {
    let first = first.context("the answer was empty")?;
    let decoding = first.elapsed().as_secs_f64();
    let tokens_per_s = tokens.saturating_sub(1) as f64 / decoding;
    Ok(Run { first_token: first - begun, tokens_per_s, tokens })
}

async fn engine_alone(engine: &MistralEngine, args: &BenchArgs, round: u32) -> Result<Run> {
    let begun = Instant::now();
    let prompt =
        Prompt::Messages(vec![Message { content: args.prompt.clone(), role: "user".into() }]);
    let request = GenerateRequest {
        prompt_ids: engine.tokenize(&prompt).await?,
        sampling: Sampling { temperature_milli: 0, ..Sampling::default() },
        seed: B256::with_last_byte(u8::try_from(round).unwrap_or(u8::MAX)),
        max_output: args.max_tokens,
        stop: Vec::new(),
        top_logprobs: None,
    };
    let mut events = engine.generate(request).await?;
    let (mut first, mut tokens) = (None, 0);
    while let Some(event) = events.next().await {
        if let GenerateEvent::Token { text, .. } = event? {
            tokens += 1;
            if first.is_none() && !text.is_empty() {
                first = Some(Instant::now());
            }
        }
    }
    timed(begun, first, tokens)
}

async fn through_network(url: &str, args: &BenchArgs) -> Result<(Run, String)> {
    let http = reqwest::Client::builder().tcp_nodelay(true).build()?;
    // The connection is made before the clock starts: clients keep theirs open.
    let models: Value = http.get(format!("{url}/v1/models")).send().await?.json().await?;
    let body = json!({
        "model": models["data"][0]["id"],
        "messages": [{"role": "user", "content": args.prompt}],
        "temperature": 0,
        "max_tokens": args.max_tokens,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    let begun = Instant::now();
    let response = http.post(format!("{url}/v1/chat/completions")).json(&body).send().await?;
    if !response.status().is_success() {
        bail!("the router answered {}: {}", response.status(), response.text().await?);
    }
    let task =
        response.headers().get("x-assay-task").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let (mut first, mut last, mut text) = (None, begun, String::new());
    let mut bytes = response.bytes_stream();
    while let Some(chunk) = bytes.next().await {
        let chunk = String::from_utf8_lossy(&chunk?).into_owned();
        if chunk.contains("\"content\":\"") && !chunk.contains("\"content\":\"\"") {
            first.get_or_insert_with(Instant::now);
            last = Instant::now();
        }
        text.push_str(&chunk);
    }
    let usage = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .find_map(|chunk| chunk["usage"]["completion_tokens"].as_u64())
        .with_context(|| format!("the stream had no usage: {text}"))?;
    let first = first.context("the answer was empty")?;
    let run = Run {
        first_token: first - begun,
        tokens_per_s: usage.saturating_sub(1) as f64 / (last - first).as_secs_f64(),
        tokens: usage,
    };
    Ok((run, task.context("the answer names no task")?))
}

/// Every transaction of a settled task, as the router's record has it.
async fn transactions(url: &str, task: &str) -> Result<Value> {
    let begun = Instant::now();
    loop {
        let record: Value = reqwest::get(format!("{url}/v1/tasks/{task}")).await?.json().await?;
        if record["state"] == "settled" {
            let sent = |entry: &&Value| entry["transaction_hash"].is_string();
            return Ok(record["timeline"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(sent)
                .cloned()
                .collect());
        }
        if begun.elapsed() > SETTLE {
            bail!("task {task} is not settled within {SETTLE:?}: {record}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn resident_mib() -> Result<u64> {
    let status =
        std::fs::read_to_string("/proc/self/status").context("memory is read from /proc")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kib / 1024)
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map(usize::from).unwrap_or(0);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown CPU", |(_, name)| name.trim())
        .to_owned();
    format!("{cores} cores, {name}")
}

fn describe(value: &Value) -> String {
    let number = |pointer: &str| value.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let mut lines = vec![
        format!("machine: {}", value["machine"].as_str().unwrap_or_default()),
        format!(
            "model {}, {} miners, {} runs of at most {} tokens, in turn",
            value["model"].as_str().unwrap_or_default(),
            value["miners"],
            value["runs"],
            value["max_tokens"]
        ),
        format!("ready after {:.1} s", number("/ready_s")),
        String::new(),
        format!("{:<24} {:>12} {:>12}", "median", "engine alone", "network"),
        format!(
            "{:<24} {:>12.1} {:>12.1}",
            "first token, ms",
            number("/alone/first_token_ms_median"),
            number("/network/first_token_ms_median")
        ),
        format!(
            "{:<24} {:>12.1} {:>12.1}",
            "tokens a second",
            number("/alone/tokens_per_s_median"),
            number("/network/tokens_per_s_median")
        ),
        format!(
            "speed ratio {:.3}, first token {:+.1} ms",
            number("/speed_ratio"),
            number("/first_token_added_ms")
        ),
        format!(
            "memory of the process: {} MiB idle, {} MiB after the runs",
            value["resident_mib_idle"], value["resident_mib_after"]
        ),
        "transactions of the last task:".into(),
    ];
    for transaction in value["transactions"].as_array().into_iter().flatten() {
        lines.push(format!(
            "  {:<12} {:>8} gas  {}",
            transaction["event"].as_str().unwrap_or_default(),
            transaction["gas_used"],
            transaction["transaction_hash"].as_str().unwrap_or_default()
        ));
    }
    lines.join("\n")
}
