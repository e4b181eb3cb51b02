//! What the tap costs: decoding with it and with mistral.rs's own sampler, in turn, on the same weights.
//!
//! `cargo run -p assay-engine-mistral --example overhead -- [MODEL] [ROUNDS] [TOKENS]`; without a model it
//! writes one of Qwen3-0.6B's shape with random weights (1.2 GB) into the temporary folder and removes it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program to be run by hand")]

use std::{fs, path::Path, time::Instant};

use assay_engine::{B256, Engine, GenerateEvent, GenerateRequest, Prompt, Sampling};
use assay_engine_mistral::{LoadOptions, MistralEngine, ModelSource, Shape, write_random_model};
use assay_proof::Sampler;
use futures::StreamExt;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

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
    let sampling = Sampling { temperature_milli: TEMPERATURE_MILLI, ..Sampling::default() };
    let (mut own, mut tapped, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // One unmeasured pair, then pairs in turn: what disturbs the machine disturbs both.
    for round in 0..=rounds {
        let request = GenerateRequest {
            prompt_ids: prompt_ids.clone(),
            sampling,
            seed: B256::repeat_byte(round),
            max_output: tokens,
            stop: Vec::new(),
            top_logprobs: None,
        };
        let without = ms_a_token(&engine.time_without_tap(&request).await.unwrap());
        let with = ms_a_token(&times_with_tap(engine, request).await);
        if round > 0 {
            own.push(without);
            tapped.push(with);
            ratios.push(with / without);
        }
    }
    let vocabulary = engine.info().vocab_size;
    println!("machine: {}", machine());
    println!("model: {name}, vocabulary {vocabulary}, temperature 1.0");
    println!("{rounds} pairs of answers of {tokens} tokens, in turn");
    println!("{:<28} {:>10} {:>10} {:>10}", "milliseconds a token", "least", "median", "most");
    for (what, of) in
        [("mistral.rs's own sampler", &mut own), ("seeded sampler and contrasts", &mut tapped)]
    {
        let median = median(of);
        println!("{what:<28} {:>10.3} {median:>10.3} {:>10.3}", of[0], of[of.len() - 1]);
    }
    let ratio = median(&mut ratios);
    println!("median ratio {ratio:.4}: {:+.2} % of decode time", (ratio - 1.0) * 100.0);
    let step_ms = sampler_ms(sampling, vocabulary);
    println!(
        "the seeded sampler alone: {step_ms:.3} ms a token on normal logits of deviation 3, {:.2} % of decode time",
        step_ms / median(&mut tapped) * 100.0
    );
}

/// Milliseconds that the sampler takes for a row by itself.
fn sampler_ms(sampling: Sampling, vocabulary: u32) -> f64 {
    const ROWS: u32 = 50;
    let mut random = ChaCha8Rng::seed_from_u64(1);
    // Twelve uniform numbers add up to a normal one of deviation 1.
    let mut normal = || (0..12).map(|_| random.random::<f32>()).sum::<f32>() - 6.0;
    let row: Vec<f32> = (0..vocabulary).map(|_| 3.0 * normal()).collect();
    let mut sampler = Sampler::new(sampling, B256::ZERO, vocabulary).unwrap();
    sampler.step(&row).unwrap();
    let begun = Instant::now();
    for _ in 0..ROWS {
        sampler.step(&row).unwrap();
    }
    begun.elapsed().as_secs_f64() * 1000.0 / f64::from(ROWS)
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

/// From the first token to the last.
fn ms_a_token(times: &[Instant]) -> f64 {
    let whole = *times.last().unwrap() - times[0];
    whole.as_secs_f64() * 1000.0 / (times.len() - 1) as f64
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
