//! Answers that are scored again with the model's weights: a sample of those on chain, drawn by a seed.

use std::collections::{BTreeMap, HashMap};

use alloy::primitives::{B256, keccak256};
use alloy::sol_types::SolValue;
use anyhow::{Context, Result, ensure};
use assay_bindings::SessionQueue::TaskCommitted;
use assay_protocol::{PartEvent, ProtocolEvent, State, opened};
use assay_replay::{Divergence, Report, Rerun, Rule, Scored, Verdict as Told};
use assay_store::{ContentStore, KuboStore};
use assay_types::{ModelId, NodeId, TaskId};

use super::progress::Progress;
use crate::{
    args::{AuditArgs, AuditRerun, Global, Sample},
    commands::verify::{Answer, Judge, Verdict},
    network::{Network, data_folder},
    ui,
};

/// Answers that are kept at most: they wait in memory until the replay is done.
const MAX_ANSWERS: usize = 100_000;

/// An answer that is drawn.
struct Drawn {
    answer: Answer,
    block: u64,
    transaction: B256,
    /// Round whose value it waits for.
    waits_for: Option<u64>,
    /// The network itself found that it is not to be paid.
    is_unpaid: bool,
}

/// Draws answers while an audit runs.
pub struct Sampler {
    sample: Sample,
    seed: u64,
    from: u64,
    model: ModelId,
    /// Digest of the request of each task that is on its way.
    requests: HashMap<B256, B256>,
    /// By the number that the seed gives them: the lowest are taken.
    drawn: BTreeMap<B256, Drawn>,
    /// Answers of the model.
    eligible: u64,
    /// Answers of other models.
    others: u64,
}

impl Sampler {
    /// Draws among the answers of a model in blocks from `from` on.
    pub fn new(sample: Sample, seed: u64, from: u64, model: ModelId) -> Self {
        let (requests, drawn) = (HashMap::new(), BTreeMap::new());
        Self { sample, seed, from, model, requests, drawn, eligible: 0, others: 0 }
    }

    /// Its place in the order of the draw, which nobody can choose without the seed.
    fn place(&self, task: B256, node: u32) -> B256 {
        keccak256((self.seed, task, node).abi_encode())
    }

    /// Takes in an event, and the state before it.
    pub fn event(
        &mut self,
        (block, transaction): (u64, B256),
        before: &State,
        event: &ProtocolEvent,
    ) {
        match event {
            ProtocolEvent::TaskSubmitted(e) => {
                self.requests.insert(e.taskId, e.requestDigest);
            }
            ProtocolEvent::TaskSettled(e) => _ = self.requests.remove(&e.taskId),
            ProtocolEvent::TaskRefunded(e) => _ = self.requests.remove(&e.taskId),
            ProtocolEvent::TaskCommitted(e) if block >= self.from => {
                self.committed((block, transaction), before, e);
            }
            ProtocolEvent::PartChanged(e) if e.what == PartEvent::Disproved as u8 => {
                if let Some(drawn) = self.drawn.get_mut(&self.place(e.taskId, e.nodeId)) {
                    drawn.is_unpaid = true;
                }
            }
            ProtocolEvent::RoundRevealed(e) => {
                let waits = |drawn: &&mut Drawn| drawn.waits_for == Some(e.round);
                for drawn in self.drawn.values_mut().filter(waits) {
                    (drawn.answer.beacon, drawn.waits_for) = (e.value, None);
                }
            }
            _ => {}
        }
    }

    fn committed(
        &mut self,
        (block, transaction): (u64, B256),
        before: &State,
        event: &TaskCommitted,
    ) {
        let known = (before.tasks.get(&event.taskId), before.sessions.get(&event.sessionId));
        let (Some(entry), Some(session)) = known else { return };
        let task = &entry.record.task;
        let Some(request) = self.requests.get(&event.taskId) else { return };
        if before.models.get(&session.model).is_none_or(|model| model.id != self.model.0) {
            self.others += 1;
            return;
        }
        self.eligible += 1;
        let place = self.place(event.taskId, event.nodeId);
        let value = before.rounds.get(&task.seedRound).copied();
        let scope = before.network.scope();
        let answer = Answer {
            scope: scope.commit_scope(TaskId(event.taskId), NodeId(event.nodeId)),
            beacon: value.unwrap_or_default(),
            seal: opened(event).seal(),
            request: *request,
            holder: session.lane(task.lane).map(|lane| lane.holder).unwrap_or_default(),
        };
        let waits_for = value.is_none().then_some(task.seedRound);
        let drawn = Drawn { answer, block, transaction, waits_for, is_unpaid: false };
        keep(&mut self.drawn, self.sample, (place, drawn));
    }
}

/// Takes one more into a sample, by its place in the draw. Of a share that takes none, the first stays all the same: so
/// there is no audit that scores nothing again.
fn keep<T>(drawn: &mut BTreeMap<B256, T>, sample: Sample, (place, one): (B256, T)) {
    drawn.insert(place, one);
    let goes = |last: &B256| drawn.len() > 1 && !sample.takes(*last);
    let is_over = drawn.len() > sample.most().min(MAX_ANSWERS);
    if is_over || drawn.keys().next_back().is_some_and(goes) {
        drawn.pop_last();
    }
}

/// A model and a content store, to score answers again with.
pub struct Scorer {
    judge: Judge,
    store: KuboStore,
    sample: Sample,
    seed: u64,
}

impl Scorer {
    /// Loads the model that the flags name. What cannot be loaded is an error, never a pass.
    pub async fn load(global: &Global, args: &AuditArgs, sample: Sample) -> Result<Self> {
        let url = match &args.ipfs_url {
            Some(url) => url.clone(),
            None => Network::load(&data_folder(global.data.as_deref())?)?.ipfs_url,
        };
        let store = KuboStore::new(&url)?;
        store.health().await.context("answers cannot be fetched")?;
        let AuditRerun { model, calibration, rerun_seed, .. } = &args.rerun;
        let judge = Judge::load(global, model, calibration.as_deref()).await?;
        let seed = rerun_seed.unwrap_or_else(rand::random);
        ui::note(format!("answers are drawn with --rerun-seed {seed}"));
        Ok(Self { judge, store, sample, seed })
    }

    /// Draws answers of the model in blocks from `from` on.
    pub fn sampler(&self, from: u64) -> Sampler {
        Sampler::new(self.sample, self.seed, from, self.judge.model_id())
    }

    /// Scores what was drawn, and puts it into a report. A false answer that is paid diverges.
    pub async fn score(&self, sampler: Sampler, report: &mut Report) -> Result<()> {
        let Sampler { drawn, eligible, others, .. } = sampler;
        let model = self.judge.model();
        ensure!(
            eligible > 0,
            "there is no answer of model {model} to score again, and {others} of others: name the right weights with --model"
        );
        let mut progress = Progress::new(drawn.len() as u64, "answer");
        let mut drawn: Vec<Drawn> = drawn.into_values().collect();
        drawn.sort_by_key(|drawn| drawn.block);
        let mut answers = Vec::with_capacity(drawn.len());
        for (number, drawn) in (1..).zip(drawn) {
            let scored = self.scored(&drawn).await?;
            if scored.verdict == Told::Fail {
                report.diverges(self.diverges(&drawn, &scored));
            }
            answers.push(scored);
            progress.at(number);
        }
        progress.end();
        let is_missing = |scored: &Scored| scored.verdict == Told::Missing;
        ensure!(
            answers.is_empty() || !answers.iter().all(is_missing),
            "none of {} answers could be scored again: this content store has none of them",
            answers.len()
        );
        let (model, class) = (model.to_owned(), self.judge.class().to_string());
        report.rerun = Some(Rerun { model, class, seed: self.seed, eligible, others, answers });
        Ok(())
    }

    async fn scored(&self, drawn: &Drawn) -> Result<Scored> {
        let Drawn { answer, block, waits_for, is_unpaid, .. } = drawn;
        let judgement = match waits_for {
            None => self.judge.judge(&self.store, answer).await?,
            Some(_) => None,
        };
        let (verdict, what) = match (&judgement, waits_for) {
            (Some(judgement), _) => {
                let what = format!("{}; {}", judgement.words(), judgement.margins());
                match judgement.verdict {
                    Verdict::Pass => (Told::Pass, what),
                    Verdict::Unjudged => (Told::Unjudged, what),
                    Verdict::Fail if *is_unpaid => {
                        (Told::Unpaid, format!("{what}; the network does not pay it"))
                    }
                    Verdict::Fail => (Told::Fail, what),
                }
            }
            (None, Some(round)) => (Told::Missing, format!("round {round} has no value yet")),
            (None, None) => (Told::Missing, "request or result cannot be had".to_owned()),
        };
        let (task, node) = (answer.scope.task.0, answer.scope.node.0);
        Ok(Scored { task, node, block: *block, verdict, what })
    }

    fn diverges(&self, drawn: &Drawn, scored: &Scored) -> Divergence {
        let what = format!("the answer of node {}, scored again with the weights", scored.node);
        let values = (format!("what {} answers", self.judge.model()), scored.what.clone());
        let mut divergence = Divergence::new(Rule::Model, what, values)
            .in_block(drawn.block)
            .in_transaction(drawn.transaction);
        (divergence.task, divergence.node) = (Some(scored.task), Some(scored.node));
        divergence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(sample: &str) -> Vec<u64> {
        let mut drawn = BTreeMap::new();
        // Places from an eighth to seven eighths of all, in no order.
        for eighth in [3_u64, 7, 1, 5, 2, 6, 4] {
            let mut place = B256::ZERO;
            place[..8].copy_from_slice(&(eighth << 61).to_be_bytes());
            keep(&mut drawn, sample.parse().unwrap(), (place, eighth));
        }
        drawn.into_values().collect()
    }

    #[test]
    fn the_lowest_places_are_drawn_and_one_at_least() {
        assert_eq!(sampled("3"), [1, 2, 3]);
        assert_eq!(sampled("40%"), [1, 2, 3]);
        assert_eq!(sampled("100%"), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(sampled("0.001%"), [1]);
    }
}
