//! Does what the committer's state decides: looks, sends, settles.

use std::{sync::Arc, time::Duration};

use alloy::primitives::keccak256;
use assay_chain::DatabaseError;
use assay_types::TaskId;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::state::{Action, Input, Now, State, Way};
use crate::{
    answers::{Answers, Fate},
    clock::ChainClock,
    ledger::Ledger,
    status::Stats,
};

/// How often deadlines and settlements are looked at.
const TICK: Duration = Duration::from_millis(250);
/// How long a stop waits for commits; below the runtime's patience with this phase.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// The service; its parts come from the wiring.
pub(crate) struct Committer {
    pub ledger: Arc<dyn Ledger>,
    pub answers: Answers,
    pub clock: Arc<ChainClock>,
    pub stats: Arc<Stats>,
    pub inputs: mpsc::UnboundedReceiver<Input>,
    pub margin_s: u64,
    pub batch: usize,
    /// Cancelled when no new answer can come.
    pub worker_done: CancellationToken,
}

impl Committer {
    /// Until `stop`; then until what is owed is committed.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), DatabaseError> {
        let mut state = State::new(self.margin_s, self.batch);
        for open in self.answers.open()? {
            state.on(Input::Answered(Box::new(open)));
        }
        let mut calls: JoinSet<Input> = JoinSet::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut until: Option<Instant> = None;
        loop {
            if let Some(until) = until {
                let done = self.worker_done.is_cancelled() && self.inputs.is_empty();
                if done && !state.owes() {
                    return Ok(());
                }
                if Instant::now() >= until {
                    tracing::warn!("answers are not committed yet; the next start commits them");
                    return Ok(());
                }
            }
            let input = tokio::select! {
                () = stop.cancelled(), if until.is_none() => {
                    until = Some(Instant::now() + STOP_PATIENCE);
                    state.stop();
                    None
                }
                Some(input) = self.inputs.recv() => Some(input),
                Some(joined) = calls.join_next() => match joined {
                    Ok(input) => Some(input),
                    Err(error) => {
                        tracing::error!(%error, "a call of the committer died");
                        None
                    }
                },
                _ = tick.tick() => None,
            };
            let mut actions = Vec::new();
            if let Some(input) = input {
                self.reopen(&mut state, &input)?;
                actions.extend(state.on(input));
            }
            let now = Now { now_s: self.clock.now_s(), reached_s: self.clock.reached_s() };
            actions.extend(state.tick(now));
            for action in actions {
                self.act(action, &mut state, &mut calls)?;
            }
        }
    }

    /// A settlement or refund that was reverted makes an answer open that was at its end.
    fn reopen(&self, state: &mut State, input: &Input) -> Result<(), DatabaseError> {
        if let Input::Fate { task, fate: Fate::Unsettled | Fate::Answered } = input
            && let Some(open) = self.answers.open_one(*task)?
        {
            state.on(Input::Answered(Box::new(open)));
        }
        Ok(())
    }

    fn act(
        &self,
        action: Action,
        state: &mut State,
        calls: &mut JoinSet<Input>,
    ) -> Result<(), DatabaseError> {
        match action {
            Action::Look { task } => {
                let (ledger, stats) = (self.ledger.clone(), self.stats.clone());
                calls.spawn(async move {
                    let status = match ledger.task(task).await {
                        Ok(status) => Some(status),
                        Err(error) => {
                            tracing::warn!(%task, %error, "a task cannot be looked up");
                            stats.error(&error);
                            None
                        }
                    };
                    Input::Looked { task, status }
                });
            }
            Action::Send { task, way, attempt } => self.send(task, way, attempt, state, calls)?,
            Action::Settle { tasks, round } => self.settle(tasks, round, calls),
            Action::Missed { task } => {
                tracing::error!(%task, "the deadline passed before the answer was on chain");
                self.stats.error(format!("task {task}: the deadline passed before its commit"));
                self.answers.set_fate(task, Fate::Missed)?;
            }
        }
        Ok(())
    }

    fn send(
        &self,
        task: TaskId,
        way: Way,
        attempt: u32,
        state: &mut State,
        calls: &mut JoinSet<Input>,
    ) -> Result<(), DatabaseError> {
        let Some(open) = self.answers.open_one(task)? else {
            state.on(Input::Fate { task, fate: Fate::Missed });
            return Ok(());
        };
        // Counted before it is sent: the same key would only bring the old refusal back.
        self.answers.count_attempt(task)?;
        let (ledger, stats) = (self.ledger.clone(), self.stats.clone());
        let key = format!("commit:{task}:{attempt}");
        calls.spawn(async move {
            let commit = open.answer.commit;
            let result = match (way, open.answer.signed) {
                (Way::Carry, Some((request, signature))) => {
                    ledger.submit_and_commit(key, request, signature, commit).await
                }
                _ => ledger.commit(key, task, commit).await,
            };
            if let Err(error) = &result {
                tracing::warn!(%task, ?way, attempt, reverted = error.reverted, %error, "a commit did not get through");
                stats.error(format!("commit of task {task}: {error}"));
            }
            Input::Sent { task, ok: result.is_ok() }
        });
        Ok(())
    }

    fn settle(&self, tasks: Vec<TaskId>, round: u32, calls: &mut JoinSet<Input>) {
        let (ledger, stats) = (self.ledger.clone(), self.stats.clone());
        let ids: Vec<u8> = tasks.iter().flat_map(|task| task.0.0).collect();
        // The round is counted from each start, so the time makes it new in the next life.
        let key = format!("settle:{}:{}:{round}", keccak256(ids), self.clock.now_s());
        calls.spawn(async move {
            let result = ledger.settle(key, tasks.clone()).await;
            if let Err(error) = &result {
                tracing::warn!(%error, count = tasks.len(), "a settlement did not get through");
                stats.error(format!("settlement: {error}"));
            }
            Input::SettleSent { tasks, ok: result.is_ok() }
        });
    }
}
