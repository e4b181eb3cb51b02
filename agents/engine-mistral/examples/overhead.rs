//! What the tap costs: decoding with it and with mistral.rs's own sampler, in turn, on the same weights.
//!
//! `cargo run -p assay-engine-mistral --example overhead -- [MODEL] [ROUNDS] [TOKENS]`; without a model it
//! writes one of Qwen3-0.6B's shape with random weights (1.2 GB) into the temporary folder and removes it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program to be run by hand")]

use std::{fs, path::Path, time::Instant};

use assay_engine::{B256, Engine, GenerateEvent, GenerateRequest, Prompt, Sampling};
use assay_engine_mistral::{LoadOptions, MistralEngine, ModelSource, Shape, write_random_model};
use futures::StreamExt;

const TEMPERATURE_MILLI: u32 = 1000;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next();
    let rounds: u8 = arguments.next().map_or(4, |text| text.parse().unwrap());
    let tokens: u32 = arguments.next().map_or(48, |text| text.parse().unwrap());
    let data = std::env::temp_dir().join(format!("assay-overhead-{}", std::process::id()));
    let source = match &model {
        Some(model) => ModelSource::parse(model),
        None => {
            let folder = data.join("random-qwen3-0.6b");
            println!("writing a random model of Qwen3-0.6B's shape ...");
            write_random_model(&folder, &Shape::QWEN3_0_6B, 1).unwrap();
            ModelSource::Directory(folder)
        }
    };
    let name = model.unwrap_or_else(|| "random weights, shape of Qwen3-0.6B".to_owned());
    println!("loading {name} in f32 ...");
    let options = LoadOptions { lanes: 1, ..LoadOptions::new(source, &data) };
    let engine = MistralEngine::load(options).await.unwrap();
    measure(&engine, &name, rounds, tokens).await;
    drop(engine);
    fs::remove_dir_all(&data).unwrap();
}

async fn measure(engine: &MistralEngine, name: &str, rounds: u8, tokens: u32) {
    let prompt = Prompt::Text("Once there was a machine that had to prove what it said.".into());
    let prompt_ids = engine.tokenize(&prompt).await.unwrap();
    let (mut own, mut tapped) = (Vec::new(), Vec::new());
    // One unmeasured pair, then pairs in turn: what disturbs the machine disturbs both.
    for round in 0..=rounds {
        let sampling = Sampling { temperature_milli: TEMPERATURE_MILLI, ..Sampling::default() };
        let request = GenerateRequest {
            prompt_ids: prompt_ids.clone(),
            sampling,
            seed: B256::repeat_byte(round),
            max_output: tokens,
            stop: Vec::new(),
        };
        let times = engine.time_without_tap(&request).await.unwrap();
        let with_tap = times_with_tap(engine, request).await;
        if round > 0 {
            own.extend(steps(&times));
            tapped.extend(steps(&with_tap));
        }
    }
    let (own_ms, tap_ms) = (median(&mut own), median(&mut tapped));
    println!("machine: {}", machine());
    println!("model: {name}, vocabulary {}, temperature 1.0", engine.info().vocab_size);
    println!("{} steps each, in {rounds} pairs of answers, in turn", own.len().min(tapped.len()));
    println!("{:<28} {:>10} {:>10} {:>10}", "milliseconds a token", "10 %", "median", "90 %");
    for (what, steps) in
        [("mistral.rs's own sampler", &own), ("seeded sampler and contrasts", &tapped)]
    {
        let at = |part: usize| steps[(steps.len() - 1) * part / 10];
        println!("{what:<28} {:>10.3} {:>10.3} {:>10.3}", at(1), at(5), at(9));
    }
    let overhead = (tap_ms / own_ms - 1.0) * 100.0;
    println!("ratio of the medians {:.4}: {overhead:+.2} % of decode time", tap_ms / own_ms);
}

async fn times_with_tap(engine: &MistralEngine, request: GenerateRequest) -> Vec<Instant> {
    let mut events = engine.generate(request).await.unwrap();
    let mut times = Vec::new();
    while let Some(event) = events.next().await {
        if let GenerateEvent::Token { .. } = event.unwrap() {
            times.push(Instant::now());
        }
    }
    times
}

/// Milliseconds between neighbours.
fn steps(times: &[Instant]) -> Vec<f64> {
    times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1000.0).collect()
}

/// The median; sorts.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(Path::new(path)).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.and_then(|rest| rest.split(':').nth(1)).unwrap_or("unknown CPU").trim();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{model}, {cores} cores, {}", std::env::consts::OS)
}
