//! Does what the state of audits decides.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use assay_chain::DatabaseError;
use assay_types::{NodeId, TaskId};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    duty::{Due, due},
    state::{Action, Input, Outcome, State},
    work::Auditor,
};

/// How often time limits are looked at.
const TICK: Duration = Duration::from_millis(250);
/// Longest try of what has no time limit of its own.
const LONGEST_TRY_S: u64 = 120;

/// The service; its parts come from the wiring.
pub(crate) struct Audits {
    pub auditor: Arc<Auditor>,
    /// Tasks of whose audits the chain told something new.
    pub inputs: mpsc::UnboundedReceiver<TaskId>,
    /// Examinations at once.
    pub at_once: usize,
    /// Cancelled when the database knows what the chain knew when the miner started.
    pub caught_up: CancellationToken,
}

impl Audits {
    /// Until `stop`. What is open then goes on in the next life.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), DatabaseError> {
        tokio::select! {
            () = self.caught_up.cancelled() => {}
            () = stop.cancelled() => return Ok(()),
        }
        let mut state = State::new(self.at_once, self.auditor.clock.now_s());
        for task in self.auditor.answers.audited_tasks()? {
            self.look(task, &mut state)?;
        }
        let mut tries: JoinSet<Input> = JoinSet::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    if state.open() > 0 {
                        tracing::warn!(
                            duties = state.open(),
                            "duties of audits are open, and those that are missed cost stake: start the miner again soon"
                        );
                    }
                    return Ok(());
                }
                Some(task) = self.inputs.recv() => self.look(task, &mut state)?,
                Some(ended) = tries.join_next() => match ended {
                    Ok(input) => state.on(input),
                    Err(error) => tracing::error!(%error, "a duty of an audit died"),
                },
                _ = tick.tick() => {}
            }
            for action in state.tick(self.auditor.clock.now_s()) {
                self.act(action, &mut tries);
            }
            self.auditor.stats.set_duties(state.open());
        }
    }

    /// How the audits of a task stand now.
    fn look(&self, task: TaskId, state: &mut State) -> Result<(), DatabaseError> {
        let case = self.auditor.answers.case(task)?;
        let told: BTreeSet<NodeId> = case.audits.keys().map(|node| NodeId(*node)).collect();
        for miner in state.miners_of(task).union(&told) {
            let audited = case.audits.get(&miner.0);
            let due = audited.and_then(|audited| due(self.auditor.node, audited));
            state.on(Input::Stands((task, *miner), due));
        }
        Ok(())
    }

    fn act(&self, action: Action, tries: &mut JoinSet<Input>) {
        match action {
            Action::Try { key, due, attempt, waited_s } => {
                let left_s = due.until_s.saturating_sub(self.auditor.clock.now_s());
                let limit = Duration::from_secs(left_s.saturating_add(1).min(LONGEST_TRY_S));
                let auditor = self.auditor.clone();
                tries.spawn(async move {
                    let tried =
                        tokio::time::timeout(limit, auditor.perform(key, due, (attempt, waited_s)));
                    Input::Tried(key, due, tried.await.unwrap_or(Outcome::Failed))
                });
            }
            Action::Missed { key: (task, miner), due: Due { duty, until_s, .. } } => {
                let duty = duty.name();
                tracing::error!(%task, %miner, duty, until_s, "the time for a duty of an audit is over");
                self.auditor.stats.audit("missed");
                self.auditor.stats.error(format!(
                    "{duty} in the audit of task {task} came too late: its time was over at {until_s}"
                ));
            }
        }
    }
}
