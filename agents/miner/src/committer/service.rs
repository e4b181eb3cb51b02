//! Does what the committer's state decides: looks, sends, settles.

use std::{sync::Arc, time::Duration};

use alloy::primitives::keccak256;
use assay_bindings::SessionQueue;
use assay_chain::DatabaseError;
use assay_protocol::{QueueScope, TaskState, commitment_of, digest};
use assay_types::{NodeId, TaskId};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::state::{Action, Input, Now, Seen, State, Way};
use crate::{
    answers::{Answers, OpenAnswer},
    clock::ChainClock,
    ledger::{Call, Ledger, LedgerError, TaskStatus},
    status::Stats,
    tasks::{ChainTask, Standing},
};

/// How often deadlines and settlements are looked at.
const TICK: Duration = Duration::from_millis(250);
/// How long a stop waits for commits; below the runtime's patience with this phase.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// Transactions of one task that a contract refuses without anybody having to look: nodes of a redundant task move it
/// at the same time, and each move makes the others' stale.
const USUAL_REFUSALS: u32 = 8;

/// The service; its parts come from the wiring.
pub(crate) struct Committer {
    pub node: NodeId,
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
                self.act(action, &mut calls)?;
            }
        }
    }

    /// A settlement or refund that was reverted makes an answer open that was at its end.
    fn reopen(&self, state: &mut State, input: &Input) -> Result<(), DatabaseError> {
        if let Input::Moved { task, seen } = input
            && !matches!(seen, Seen::On(Standing::Over, _))
            && let Some(open) = self.answers.open_one(*task)?
        {
            state.on(Input::Answered(Box::new(open)));
        }
        Ok(())
    }

    fn act(&self, action: Action, calls: &mut JoinSet<Input>) -> Result<(), DatabaseError> {
        match action {
            Action::Look { task } => {
                let (ledger, answers) = (self.ledger.clone(), self.answers.clone());
                let (stats, node) = (self.stats.clone(), self.node);
                calls.spawn(async move {
                    let seen = match look(ledger.as_ref(), &answers, node, task).await {
                        Ok(seen) => Some(seen),
                        Err(error) => {
                            tracing::warn!(%task, %error, "a task cannot be looked up");
                            stats.error(&error);
                            None
                        }
                    };
                    Input::Looked { task, seen }
                });
            }
            Action::Send { task, way, attempt } => self.send(task, way, attempt, calls)?,
            Action::Settle { tasks, round } => self.settle(tasks, round, calls)?,
            Action::Missed { task } => {
                tracing::error!(%task, "the deadline passed before the answer was on chain");
                self.stats.error(format!("task {task}: the deadline passed before its commit"));
                self.answers.miss(task)?;
            }
        }
        Ok(())
    }

    fn send(
        &self,
        task: TaskId,
        way: Way,
        attempt: u32,
        calls: &mut JoinSet<Input>,
    ) -> Result<(), DatabaseError> {
        let (answer, given) = (self.answers.open_one(task)?, self.answers.chain_task(task)?);
        let Some(call) = self.call(way, answer, given) else {
            // Its block was reverted since the look.
            calls.spawn(async move { Input::Sent { task, ok: false } });
            return Ok(());
        };
        // Counted before it is sent: the same key would only bring the old refusal back.
        self.answers.count_attempt(task)?;
        let before = self.answers.dropped(task)?.map_or(0, |dropped| dropped.attempts);
        let (ledger, stats) = (self.ledger.clone(), self.stats.clone());
        let key = match way {
            Way::Decline => format!("decline:{task}:{before}"),
            _ => format!("commit:{task}:{attempt}"),
        };
        calls.spawn(async move {
            let result = ledger.send(key, call).await;
            match &result {
                Err(error) if error.reverted && attempt < USUAL_REFUSALS => {
                    tracing::info!(%task, ?way, attempt, %error, "the task was moved meanwhile");
                }
                Err(error) => {
                    tracing::warn!(%task, ?way, attempt, reverted = error.reverted, %error, "a transaction did not get through");
                    stats.error(format!("{way:?} of task {task}: {error}"));
                }
                Ok(()) => {}
            }
            Input::Sent { task, ok: result.is_ok() }
        });
        Ok(())
    }

    /// The transaction; `None` if what it needs is not there.
    fn call(&self, way: Way, open: Option<OpenAnswer>, given: Option<ChainTask>) -> Option<Call> {
        let task = given.map(|given| given.record.task);
        if way == Way::Decline {
            return Some(Call::Decline(Box::new(task?), self.node));
        }
        let answer = open?.answer;
        let scope = QueueScope { chain_id: self.ledger.chain_id(), queue: self.ledger.queue() };
        let precommit = || SessionQueue::Precommit {
            nodeId: self.node.0,
            commitment: commitment_of(&scope.commit_scope(answer.task, self.node), &answer.answer),
            // The operator sends it.
            signature: alloy::primitives::Bytes::new(),
        };
        Some(match way {
            Way::Commit | Way::Open => Call::Commit(Box::new((task?, answer.answer))),
            Way::Precommit => Call::Precommit(Box::new((task?, precommit()))),
            Way::Carry => {
                let (request, signature) = answer.signed?;
                Call::SubmitAndCommit(Box::new((request, signature, answer.answer)))
            }
            Way::CarryPrecommit => {
                let (request, signature) = answer.signed.clone()?;
                Call::SubmitAndPrecommit(Box::new((request, signature, precommit())))
            }
            Way::Decline => return None,
        })
    }

    fn settle(
        &self,
        tasks: Vec<TaskId>,
        round: u32,
        calls: &mut JoinSet<Input>,
    ) -> Result<(), DatabaseError> {
        let mut records = Vec::new();
        for task in &tasks {
            records.extend(self.answers.chain_task(*task)?.map(|given| given.record.task));
        }
        let (ledger, stats) = (self.ledger.clone(), self.stats.clone());
        let ids: Vec<u8> = tasks.iter().flat_map(|task| task.0.0).collect();
        // The round is counted from each start, so the time makes it new in the next life.
        let key = format!("settle:{}:{}:{round}", keccak256(ids), self.clock.now_s());
        calls.spawn(async move {
            let result = ledger.send(key, Call::Settle(records)).await;
            if let Err(error) = &result {
                tracing::warn!(%error, count = tasks.len(), "a settlement did not get through");
                stats.error(format!("settlement: {error}"));
            }
            Input::SettleSent { tasks, ok: result.is_ok() }
        });
        Ok(())
    }
}

/// The chain's newest word on a task, and what our events say of it if that is the same.
async fn look(
    ledger: &dyn Ledger,
    answers: &Answers,
    node: NodeId,
    task: TaskId,
) -> Result<Seen, LookError> {
    let TaskStatus { state, until_s, digest: stored } = ledger.status(task).await?;
    match state {
        TaskState::None => return Ok(Seen::Absent),
        TaskState::Settled | TaskState::Refunded => return Ok(Seen::On(Standing::Over, until_s)),
        _ => {}
    }
    let Some(given) = answers.chain_task(task)? else { return Ok(Seen::Ahead) };
    if given.record.state != state || digest(&given.record.task) != stored {
        return Ok(Seen::Ahead);
    }
    match answers.standing(&given, node)? {
        Standing::Committed if answers.is_being_audited(task)? => Ok(Seen::Audited),
        standing => Ok(Seen::On(standing, until_s)),
    }
}

/// A task could not be looked up.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
}
