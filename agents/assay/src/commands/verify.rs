//! `assay verify`: anyone with the weights judges an answer alone.

use std::{path::Path, sync::Arc};

use alloy::primitives::{Address, B256};
use anyhow::{Context, Result, ensure};
use assay_bindings::{ModelRegistry, RandomBeacon, Session, SessionQueue};
use assay_chain::Chain;
use assay_engine::{Answered, Engine, Examination, examine};
use assay_engine_mistral::{LoadOptions, LoadStep, MistralEngine, ModelSource, calibrate::Table};
use assay_proof::{Calibration, Failing, MARGINS_PER_NAT, Width, verdict};
use assay_protocol::opened;
use assay_store::{ContentStore, KuboStore, StoreError};
use assay_types::{
    CommitScope, ModelId, NodeId, NumericClass, RequestBlock, ResultBlock, TaskId, TokenSeal,
};
use serde::Serialize;

use super::{reader, task::events, thresholds};
use crate::{
    args::{Global, VerifyArgs},
    network::{Network, data_folder},
    ui,
};

/// An answer, as the chain tells of it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The task, and the node that answered.
    pub scope: CommitScope,
    /// The value that seeds the task.
    pub beacon: B256,
    /// What the node committed to.
    pub seal: TokenSeal,
    /// Digest of the request.
    pub request: B256,
    /// Holder of the task's lane, who may cancel.
    pub holder: Address,
}

/// What is thought of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Pass,
    Fail,
    /// There are no thresholds.
    Unjudged,
}

/// An answer that was scored.
#[derive(Debug, Serialize)]
pub struct Judgement {
    pub node: NodeId,
    class: NumericClass,
    pub verdict: Verdict,
    pub reasons: Option<String>,
    faults: Vec<String>,
    tokens: u32,
    max_margin_nats: f64,
    margin_sum_nats: f64,
    hard_margin_nats: Option<f64>,
    margin_limit_nats: Option<f64>,
    worst_position: Vec<u32>,
}

/// What the command shows.
#[derive(Serialize)]
struct Verified<'a> {
    task: TaskId,
    model: &'a str,
    class: NumericClass,
    answers: &'a [Judgement],
}

/// A model's weights, and the thresholds of its proof.
pub struct Judge {
    engine: MistralEngine,
    table: Option<Table>,
}

impl Judge {
    /// Loads a model, and its thresholds if there are any.
    pub async fn load(global: &Global, model: &str, calibration: Option<&Path>) -> Result<Self> {
        let engine = engine(global, model).await?;
        let table = thresholds::table(calibration, engine.info().model_id)?;
        Ok(Self { engine, table })
    }

    /// Whose answers it can score.
    pub fn model_id(&self) -> ModelId {
        self.engine.info().model_id
    }

    /// Name of the model.
    pub fn model(&self) -> &str {
        &self.engine.info().model
    }

    /// Where it scores.
    pub fn class(&self) -> NumericClass {
        self.engine.info().numeric_class
    }

    /// Scores an answer; `None` if the store does not have it, or what was asked. An error is no verdict.
    pub async fn judge(
        &self,
        store: &dyn ContentStore,
        answer: &Answer,
    ) -> Result<Option<Judgement>> {
        let (Some(request), Some(result)) =
            (fetch(store, answer.request).await?, fetch(store, answer.seal.output_digest).await?)
        else {
            return Ok(None);
        };
        let request =
            RequestBlock::decode(&request).context("what the task's digest names is no request")?;
        let result = ResultBlock::decode(&result).ok();
        let cancelled = |result: &ResultBlock| result.is_cancelled_by(&answer.scope, answer.holder);
        let answered = Answered {
            scope: answer.scope,
            beacon: answer.beacon,
            seal: &answer.seal,
            request: &request,
            result: result.as_ref(),
            cancel_is_signed: result.as_ref().is_some_and(cancelled),
        };
        let examination = examine(&self.engine, &answered, Width::default()).await?;
        let ours = self.class();
        let pair = self.table.as_ref().and_then(|table| table.of(answer.seal.class, ours));
        let calibration = pair.map(|pair| pair.calibration);
        Ok(Some(judgement(answer, &examination, calibration.as_ref())))
    }
}

/// A content; `None` if nobody gives it.
async fn fetch(store: &dyn ContentStore, digest: B256) -> Result<Option<Vec<u8>>> {
    match store.get(digest).await {
        Ok(content) => Ok(Some(content.to_vec())),
        Err(StoreError::NotFound { .. } | StoreError::Timeout { .. }) => Ok(None),
        Err(error) => Err(error).context("contents cannot be fetched"),
    }
}

/// What the chain tells of a task.
struct Told {
    /// What the session pays for.
    model: ModelId,
    request_digest: B256,
    seed_round: u64,
    holder: Address,
    answers: Vec<SessionQueue::TaskCommitted>,
}

pub async fn run(global: &Global, args: VerifyArgs) -> Result<()> {
    let (network, chain) = reader(global).await?;
    let told = told(&network, &chain, &args).await?;
    let store = KuboStore::new(&network.ipfs_url)?;
    let beacon = RandomBeacon::new(chain.deployment.beacon, &chain.provider);
    let beacon = beacon.valueOf(told.seed_round).call().await?;
    ensure!(!beacon.is_zero(), "round {} of the beacon has no value", told.seed_round);
    let judge = Judge::load(global, &args.model, args.calibration.as_deref()).await?;
    ensure!(
        judge.model_id() == told.model,
        "the task was paid to be answered by model {}, and {} is model {}: name the right weights with --model",
        told.model,
        args.model,
        judge.model_id()
    );
    let mut judgements = Vec::new();
    for event in &told.answers {
        let answer = Answer {
            scope: CommitScope {
                chain_id: chain.deployment.chain_id,
                queue: chain.deployment.queue,
                task: args.task,
                node: NodeId(event.nodeId),
            },
            beacon,
            seal: opened(event).seal(),
            request: told.request_digest,
            holder: told.holder,
        };
        let judgement = judge.judge(&store, &answer).await?;
        judgements.push(judgement.with_context(|| {
            format!(
                "the request, or the answer of node {}, cannot be fetched; is its content store up?",
                event.nodeId
            )
        })?);
    }
    let failed: Vec<u32> = judgements
        .iter()
        .filter(|judgement| judgement.verdict == Verdict::Fail)
        .map(|judgement| judgement.node.0)
        .collect();
    let verified = Verified {
        task: args.task,
        model: judge.model(),
        class: judge.class(),
        answers: &judgements,
    };
    ui::show(global.json, &verified, describe)?;
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
    let holder = sessions.laneOf(submitted.sessionId, submitted.task.lane).call().await?.holder;
    let models = ModelRegistry::new(chain.deployment.models, &chain.provider);
    let model = ModelId(models.modelAt(model).call().await?.modelId);
    Ok(Told { model, request_digest: submitted.requestDigest, seed_round, holder, answers })
}

async fn engine(global: &Global, model: &str) -> Result<MistralEngine> {
    let folder = data_folder(global.data.as_deref())?.join("models");
    let mut options = LoadOptions::new(ModelSource::parse(model), folder);
    options.lanes = 1;
    options.progress = Some(Arc::new(|step: LoadStep| ui::note(format!("model: {step}"))));
    MistralEngine::load(options)
        .await
        .with_context(|| format!("the model {model} cannot be loaded"))
}

/// The verdict on one answer. Its fingerprint is under a seal that only its miner can open: spots and blocks do not
/// count here.
fn judgement(
    answer: &Answer,
    examination: &Examination,
    calibration: Option<&Calibration>,
) -> Judgement {
    let statistics = examination.audit.statistics();
    let reasons = match calibration {
        Some(calibration) => verdict(&statistics, Failing::default(), true, calibration),
        None => statistics.faults,
    };
    let verdict = match (reasons.is_empty(), calibration) {
        (false, _) => Verdict::Fail,
        (true, Some(_)) => Verdict::Pass,
        (true, None) => Verdict::Unjudged,
    };
    let nats = |units: u64| units as f64 / MARGINS_PER_NAT;
    Judgement {
        node: answer.scope.node,
        class: answer.seal.class,
        verdict,
        reasons: (!reasons.is_empty()).then(|| reasons.to_string()),
        faults: examination.faults.iter().map(ToString::to_string).collect(),
        tokens: statistics.tokens,
        max_margin_nats: nats(statistics.max_margin.into()),
        margin_sum_nats: nats(statistics.margin_sum.into()),
        hard_margin_nats: calibration.map(|table| nats(table.hard_margin.into())),
        margin_limit_nats: calibration.map(|table| nats(table.thr(statistics.tokens))),
        worst_position: examination.audit.worst_positions(1),
    }
}

impl Judgement {
    /// The verdict in words.
    pub fn words(&self) -> String {
        match (self.verdict, &self.reasons) {
            (Verdict::Pass, _) => "pass: these tokens come out of this model".to_owned(),
            (Verdict::Fail, reasons) => {
                format!("FAIL: {}", reasons.as_deref().unwrap_or_default())
            }
            (Verdict::Unjudged, _) => {
                "no verdict: there are no thresholds for these numeric classes, see --calibration"
                    .to_owned()
            }
        }
    }

    /// What the verdict is made of, in words.
    pub fn margins(&self) -> String {
        let limit = |nats: Option<f64>| nats.map_or("?".to_owned(), |nats| format!("{nats:.4}"));
        format!(
            "{} tokens; largest margin {:.4} nats (at most {}), sum {:.4} (at most {})",
            self.tokens,
            self.max_margin_nats,
            limit(self.hard_margin_nats),
            self.margin_sum_nats,
            limit(self.margin_limit_nats),
        )
    }
}

fn describe(verified: &Verified<'_>) -> String {
    let Verified { task, model, class, answers } = verified;
    let mut lines = vec![format!("task {task}\n  scored with {model} in {class}")];
    for answer in *answers {
        lines.push(format!("node {} ({}): {}", answer.node, answer.class, answer.words()));
        lines.push(format!("  {}", answer.margins()));
        lines.extend(answer.faults.iter().map(|fault| format!("  {fault}")));
    }
    lines.join("\n")
}
