//! What to send for each answer, and when. No IO, no clock.
//!
//! An answer is looked up on chain before every transaction, so that whoever was faster (another
//! submission of the same request, another settler, an earlier life of this miner) is simply believed.

use std::collections::BTreeMap;

use assay_types::TaskId;

use crate::{
    answers::{Fate, OpenAnswer},
    ledger::TaskStatus,
};

/// Seconds until a task is looked up again after something failed: about a block of a slow chain.
const RETRY_S: u64 = 2;
/// Longest pause between tries.
const MAX_RETRY_S: u64 = 30;
/// Seconds that a transaction that was mined may take to come back as an event.
const EVENT_PATIENCE_S: u64 = 20;

/// How an answer gets on chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The task is there: `commit`.
    Commit,
    /// It is not, and we have its signature: `submitAndCommit`.
    Carry,
}

/// What the committer learns. Times are the chain's, unix seconds.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// An answer was stored, now or in an earlier life.
    Answered(Box<OpenAnswer>),
    /// A task was looked up.
    Looked { task: TaskId, status: Option<TaskStatus> },
    /// Its transaction was mined, or not.
    Sent { task: TaskId, ok: bool },
    /// A settlement was mined, or not.
    SettleSent { tasks: Vec<TaskId> },
    /// The chain's events said so.
    Fate { task: TaskId, fate: Fate },
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Look the task up on chain.
    Look { task: TaskId },
    /// Send the answer; `attempt` makes the outbox's key.
    Send { task: TaskId, way: Way, attempt: u32 },
    /// Settle these; `round` makes the outbox's key.
    Settle { tasks: Vec<TaskId>, round: u32 },
    /// Store that the deadline passed.
    Missed { task: TaskId },
}

/// Times of a tick.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// About the next block's time.
    pub now_s: u64,
    /// A time that the chain has surely reached.
    pub reached_s: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing under way; the next look is due then.
    Idle { from_s: u64 },
    /// A look or a transaction is under way.
    Busy,
}

#[derive(Clone, Debug)]
struct Entry {
    carried: bool,
    deadline_s: u64,
    attempts: u32,
    failures: u32,
    step: Step,
    /// Committed; settles then.
    settle_at_s: Option<u64>,
}

/// Every answer that is not at its end.
#[derive(Debug)]
pub(crate) struct State {
    open: BTreeMap<TaskId, Entry>,
    margin_s: u64,
    batch: usize,
    settling: bool,
    stopping: bool,
    rounds: u32,
    now_s: u64,
}

impl State {
    pub(crate) fn new(margin_s: u64, batch: usize) -> Self {
        Self {
            open: BTreeMap::new(),
            margin_s,
            batch,
            settling: false,
            stopping: false,
            rounds: 0,
            now_s: 0,
        }
    }

    /// Whether some answer is not on chain yet: it is owed before a shutdown.
    pub(crate) fn owes(&self) -> bool {
        self.open.values().any(|entry| entry.settle_at_s.is_none())
    }

    /// From now on nothing is settled, and what was sent is looked up at once.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
        for entry in self.open.values_mut().filter(|entry| entry.settle_at_s.is_none()) {
            if entry.step != Step::Busy {
                entry.step = Step::Idle { from_s: 0 };
            }
        }
    }

    pub(crate) fn on(&mut self, input: Input) -> Vec<Action> {
        match input {
            Input::Answered(open) => {
                self.open.entry(open.answer.task).or_insert(Entry {
                    carried: open.answer.signed.is_some(),
                    deadline_s: open.answer.deadline_s,
                    attempts: open.attempts,
                    failures: 0,
                    step: Step::Idle { from_s: 0 },
                    settle_at_s: open.settle_at_s,
                });
                vec![]
            }
            Input::Looked { task, status } => self.looked(task, status),
            Input::Sent { task, ok } => {
                self.sent(task, ok);
                vec![]
            }
            Input::SettleSent { tasks } => {
                self.settling = false;
                for task in tasks {
                    if let Some(entry) = self.open.get_mut(&task) {
                        entry.step = Step::Idle { from_s: self.now_s.saturating_add(RETRY_S) };
                    }
                }
                vec![]
            }
            Input::Fate { task, fate } => {
                self.fate(task, fate);
                vec![]
            }
        }
    }

    /// What is due.
    pub(crate) fn tick(&mut self, now: Now) -> Vec<Action> {
        self.now_s = now.now_s;
        let mut actions = Vec::new();
        let mut due = Vec::new();
        for (task, entry) in &mut self.open {
            let Step::Idle { from_s } = entry.step else { continue };
            if now.now_s < from_s {
                continue;
            }
            match entry.settle_at_s {
                None => {
                    entry.step = Step::Busy;
                    actions.push(Action::Look { task: *task });
                }
                Some(_) if self.stopping => {}
                Some(at) if now.reached_s >= at.saturating_add(self.margin_s) => {
                    // Due for long, and no event of it: whoever settled it, it was before our time.
                    if now.reached_s >= at.saturating_add(self.margin_s + EVENT_PATIENCE_S) {
                        entry.step = Step::Busy;
                        actions.push(Action::Look { task: *task });
                    } else if !self.settling && due.len() < self.batch {
                        due.push(*task);
                    }
                }
                Some(_) => {}
            }
        }
        if !due.is_empty() {
            actions.push(self.settle(due));
        }
        actions
    }

    fn sent(&mut self, task: TaskId, ok: bool) {
        let Some(entry) = self.open.get_mut(&task) else { return };
        entry.failures = if ok { 0 } else { entry.failures.saturating_add(1) };
        let pause = match entry.failures {
            // The event was here before the receipt, or nobody brings events any more.
            0 if entry.settle_at_s.is_some() || self.stopping => 0,
            0 => EVENT_PATIENCE_S,
            // A refusal usually means that another way is right by now: look at once.
            1 => 0,
            failures => pause_s(failures),
        };
        entry.step = Step::Idle { from_s: self.now_s.saturating_add(pause) };
    }

    fn settle(&mut self, tasks: Vec<TaskId>) -> Action {
        for task in &tasks {
            if let Some(entry) = self.open.get_mut(task) {
                entry.step = Step::Busy;
            }
        }
        self.settling = true;
        self.rounds = self.rounds.wrapping_add(1);
        Action::Settle { tasks, round: self.rounds }
    }

    fn looked(&mut self, task: TaskId, status: Option<TaskStatus>) -> Vec<Action> {
        let now_s = self.now_s;
        let settling = self.settling;
        let Some(entry) = self.open.get_mut(&task) else { return vec![] };
        let late = now_s > entry.deadline_s;
        match status {
            Some(TaskStatus::Committed { settle_at_s }) => {
                let known = entry.settle_at_s.replace(settle_at_s).is_some();
                if known && !settling && !self.stopping {
                    return vec![self.settle(vec![task])];
                }
                entry.step = Step::Idle { from_s: now_s };
                vec![]
            }
            Some(TaskStatus::Settled | TaskStatus::Refunded) => {
                // The event that says so is on its way and will be stored.
                self.open.remove(&task);
                vec![]
            }
            Some(TaskStatus::None | TaskStatus::Assigned) if late => {
                self.open.remove(&task);
                vec![Action::Missed { task }]
            }
            Some(TaskStatus::Assigned) => send(entry, task, Way::Commit),
            Some(TaskStatus::None) if entry.carried => send(entry, task, Way::Carry),
            // Reverted with its block, and not ours to submit; or the chain does not answer.
            Some(TaskStatus::None) | None => {
                entry.settle_at_s = entry.settle_at_s.filter(|_| status.is_none());
                entry.failures = entry.failures.saturating_add(1);
                entry.step = Step::Idle { from_s: now_s.saturating_add(pause_s(entry.failures)) };
                vec![]
            }
        }
    }

    fn fate(&mut self, task: TaskId, fate: Fate) {
        match fate {
            Fate::Settled { .. } | Fate::Refunded | Fate::Missed => {
                self.open.remove(&task);
            }
            Fate::Committed { settle_at_s, .. } => {
                if let Some(entry) = self.open.get_mut(&task) {
                    entry.settle_at_s = Some(settle_at_s);
                    if entry.step != Step::Busy {
                        entry.step = Step::Idle { from_s: 0 };
                    }
                }
            }
            // A settled task that is unsettled again is read from the database by the service.
            Fate::Answered | Fate::Unsettled => {
                if let Some(entry) = self.open.get_mut(&task) {
                    entry.settle_at_s = entry.settle_at_s.filter(|_| fate == Fate::Unsettled);
                    if entry.step != Step::Busy {
                        entry.step = Step::Idle { from_s: self.now_s.saturating_add(RETRY_S) };
                    }
                }
            }
        }
    }
}

fn send(entry: &mut Entry, task: TaskId, way: Way) -> Vec<Action> {
    entry.settle_at_s = None;
    entry.step = Step::Busy;
    let attempt = entry.attempts;
    entry.attempts = attempt.saturating_add(1);
    vec![Action::Send { task, way, attempt }]
}

/// 2, 4, 8, 16, then 30 seconds.
fn pause_s(failures: u32) -> u64 {
    RETRY_S.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(MAX_RETRY_S)
}
