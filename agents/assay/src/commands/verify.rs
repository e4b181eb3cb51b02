//! `assay verify`: anyone with the weights judges an answer alone.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use assay_bindings::{ModelRegistry, RandomBeacon, Session, SessionQueue};
use assay_chain::Chain;
use assay_engine::{Answered, Engine, Examination, examine};
use assay_engine_mistral::{LoadOptions, LoadStep, MistralEngine, ModelSource};
use assay_proof::{Calibration, Failing, MARGINS_PER_NAT, Width, verdict};
use assay_protocol::opened;
use assay_store::{ContentStore, KuboStore};
use assay_types::{CommitScope, ModelId, NodeId, RequestBlock, ResultBlock, TokenSeal};
use serde_json::{Value, json};

use super::{reader, task::events, thresholds};
use crate::{
    args::{Global, VerifyArgs},
    network::{Network, data_folder},
    ui,
};

/// What the chain tells of a task.
struct Told {
    /// What the session pays for.
    model: ModelId,
    request_digest: alloy::primitives::B256,
    seed_round: u64,
    answers: Vec<SessionQueue::TaskCommitted>,
}

pub async fn run(global: &Global, args: VerifyArgs) -> Result<()> {
    let (network, chain) = reader(global).await?;
    let told = told(&network, &chain, &args).await?;
    let store = KuboStore::new(&network.ipfs_url)?;
    let request = RequestBlock::decode(&store.get(told.request_digest).await?)
        .context("what the task's digest names is no request")?;
    let beacon = RandomBeacon::new(chain.deployment.beacon, &chain.provider);
    let beacon = beacon.valueOf(told.seed_round).call().await?;
    ensure!(!beacon.is_zero(), "round {} of the beacon has no value", told.seed_round);
    let engine = engine(global, &args).await?;
    ensure!(
        engine.info().model_id == told.model,
        "the task was paid to be answered by model {}, and {} is model {}: name the right weights with --model",
        told.model,
        args.model,
        engine.info().model_id
    );
    let table = thresholds::table(args.calibration.as_deref(), told.model)?;
    let mut verdicts = Vec::new();
    for event in &told.answers {
        let seal = opened(event).seal();
        let result = store.get(event.outputDigest).await.with_context(|| {
            format!(
                "the answer of node {} cannot be fetched; is its content store up?",
                event.nodeId
            )
        })?;
        let result = ResultBlock::decode(&result).ok();
        let scope = CommitScope {
            chain_id: chain.deployment.chain_id,
            queue: chain.deployment.queue,
            task: args.task,
            node: NodeId(event.nodeId),
        };
        let answered = Answered {
            scope,
            beacon,
            seal: &seal,
            request: &request,
            result: result.as_ref(),
            cancel_is_signed: false,
        };
        let examination = examine(&engine, &answered, Width::default()).await?;
        let ours = engine.info().numeric_class;
        let pair = table.as_ref().and_then(|table| table.of(seal.class, ours));
        let calibration = pair.map(|pair| pair.calibration);
        verdicts.push(judge(&scope, &seal, &examination, calibration.as_ref())?);
    }
    let failed: Vec<u64> = verdicts
        .iter()
        .filter(|verdict| verdict["verdict"] == "fail")
        .filter_map(|verdict| verdict["node"].as_u64())
        .collect();
    let value = json!({
        "task": args.task,
        "model": engine.info().model,
        "class": engine.info().numeric_class,
        "answers": verdicts,
    });
    ui::show(global.json, &value, describe)?;
    ensure!(failed.is_empty(), "not what this model answers: node {failed:?}");
    Ok(())
}

async fn told(network: &Network, chain: &Chain, args: &VerifyArgs) -> Result<Told> {
    let (start, task) = (network.start_block, args.task);
    let submitted = events::<SessionQueue::TaskSubmitted>(chain, start, task).await?.pop();
    let submitted = submitted.with_context(|| format!("there is no task {task} on this chain"))?;
    // A claimed task is seeded by a round after its claim.
    let moved = events::<SessionQueue::TaskMoved>(chain, start, task).await?;
    let mut seeds = moved.iter().map(|event| event.task.seedRound).filter(|round| *round != 0);
    let seed_round = seeds.next_back().unwrap_or(submitted.task.seedRound);
    let mut answers = events::<SessionQueue::TaskCommitted>(chain, start, task).await?;
    ensure!(
        !answers.is_empty(),
        "task {task} has no answer to verify: see `assay task show {task}`"
    );
    if let Some(node) = args.node {
        answers.retain(|event| event.nodeId == node);
        ensure!(!answers.is_empty(), "node {node} has not answered task {task}");
    }
    let sessions = Session::new(chain.deployment.sessions, &chain.provider);
    let model = sessions.sessionOf(submitted.sessionId).call().await?.model;
    let models = ModelRegistry::new(chain.deployment.models, &chain.provider);
    let model = ModelId(models.modelAt(model).call().await?.modelId);
    Ok(Told { model, request_digest: submitted.requestDigest, seed_round, answers })
}

async fn engine(global: &Global, args: &VerifyArgs) -> Result<MistralEngine> {
    let folder = data_folder(global.data.as_deref())?.join("models");
    let mut options = LoadOptions::new(ModelSource::parse(&args.model), folder);
    options.lanes = 1;
    options.progress = Some(Arc::new(|step: LoadStep| ui::note(format!("model: {step}"))));
    MistralEngine::load(options)
        .await
        .with_context(|| format!("the model {} cannot be loaded", args.model))
}

/// The verdict on one answer. Its fingerprint is under a seal that only its miner can open: spots and blocks do not
/// count here.
fn judge(
    scope: &CommitScope,
    seal: &TokenSeal,
    examination: &Examination,
    calibration: Option<&Calibration>,
) -> Result<Value> {
    let statistics = examination.audit.statistics();
    let reasons = match calibration {
        Some(calibration) => verdict(&statistics, Failing::default(), true, calibration),
        None => statistics.faults,
    };
    let verdict = match (reasons.is_empty(), calibration) {
        (false, _) => "fail",
        (true, Some(_)) => "pass",
        (true, None) => "unjudged",
    };
    let nats = |units: u64| units as f64 / MARGINS_PER_NAT;
    let faults: Vec<String> = examination.faults.iter().map(ToString::to_string).collect();
    Ok(json!({
        "node": scope.node,
        "class": seal.class,
        "verdict": verdict,
        "reasons": (!reasons.is_empty()).then(|| reasons.to_string()),
        "faults": faults,
        "tokens": statistics.tokens,
        "max_margin_nats": nats(statistics.max_margin.into()),
        "margin_sum_nats": nats(statistics.margin_sum.into()),
        "hard_margin_nats": calibration.map(|table| nats(table.hard_margin.into())),
        "margin_limit_nats": calibration.map(|table| nats(table.thr(statistics.tokens))),
        "worst_position": examination.audit.worst_positions(1),
    }))
}

fn describe(value: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let nats = |value: &Value| value.as_f64().map_or("?".into(), |nats| format!("{nats:.4}"));
    let mut lines = vec![format!(
        "task {}\n  scored with {} in {}",
        text(&value["task"]),
        text(&value["model"]),
        text(&value["class"])
    )];
    for answer in value["answers"].as_array().into_iter().flatten() {
        let what = match answer["verdict"].as_str() {
            Some("pass") => "pass: these tokens come out of this model".to_owned(),
            Some("fail") => format!("FAIL: {}", text(&answer["reasons"])),
            _ => "no verdict: there are no thresholds for these numeric classes, see --calibration"
                .to_owned(),
        };
        lines.push(format!("node {} ({}): {what}", answer["node"], text(&answer["class"])));
        lines.push(format!(
            "  {} tokens; largest margin {} nats (at most {}), sum {} (at most {})",
            answer["tokens"],
            nats(&answer["max_margin_nats"]),
            nats(&answer["hard_margin_nats"]),
            nats(&answer["margin_sum_nats"]),
            nats(&answer["margin_limit_nats"]),
        ));
        for fault in answer["faults"].as_array().into_iter().flatten() {
            lines.push(format!("  {}", text(fault)));
        }
    }
    lines.join("\n")
}
