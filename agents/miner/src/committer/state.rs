//! What to send for each answer and for each task that is handed back, and when. No IO, no clock.
//!
//! A task is looked up on chain before every transaction, so that whoever was faster (a router that carries what its nodes
//! signed, another submission of the same request, another settler, an earlier life of this miner) is simply believed.

use std::collections::BTreeMap;

use assay_types::TaskId;

use crate::{answers::OpenAnswer, tasks::Standing};

/// Seconds until a task is looked up again after something failed: about a block of a slow chain.
const RETRY_S: u64 = 2;
/// Longest pause between tries.
const MAX_RETRY_S: u64 = 30;
/// Seconds that a transaction that was mined may take to come back as an event.
const EVENT_PATIENCE_S: u64 = 20;
/// What is left to a router to carry is sent by the node itself so many seconds before it would be late: a few blocks of
/// a slow rollup.
const OWN_CARRY_S: u64 = 15;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The task is there: its answer.
    Commit,
    /// It is not, and we have its signature: both.
    Carry,
    /// A precommitment to a task that is there.
    Precommit,
    /// The same to one that is not, and of which we have the signature.
    CarryPrecommit,
    /// The opening of a precommitment.
    Open,
    /// The task is handed back.
    Decline,
}

/// What a look at the chain showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Never submitted, as far as this chain knows.
    Absent,
    /// It stands so, until then (unix seconds).
    On(Standing, u64),
    /// Answered, and an answer to it is being audited: nobody can settle it yet.
    Audited,
    /// The chain is ahead of the events that we have: the task cannot be named yet.
    Ahead,
}

/// What the committer learns. Times are the chain's, unix seconds.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// An answer was stored, now or in an earlier life.
    Answered(Box<OpenAnswer>),
    /// A task is not served: hand it back.
    Decline { task: TaskId, until_s: u64 },
    /// A task was looked up.
    Looked { task: TaskId, seen: Option<Seen> },
    /// Its transaction was mined, or not.
    Sent { task: TaskId, ok: bool },
    /// A settlement was mined, or not.
    SettleSent { tasks: Vec<TaskId>, ok: bool },
    /// The chain's events have changed the task.
    Moved { task: TaskId, seen: Seen },
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Look the task up on chain.
    Look { task: TaskId },
    /// Send; `attempt` makes the outbox's key.
    Send { task: TaskId, way: Way, attempt: u32 },
    /// Settle these; `round` makes the outbox's key.
    Settle { tasks: Vec<TaskId>, round: u32 },
    /// Store that the answer came too late.
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

/// What is wanted of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// Its answer on chain, and paid.
    Answer {
        /// We have the signed request.
        carried: bool,
        /// Precommitments come first.
        redundant: bool,
    },
    /// To be rid of it.
    Decline,
}

#[derive(Clone, Debug)]
struct Entry {
    want: Want,
    deadline_s: u64,
    attempts: u32,
    failures: u32,
    step: Step,
    /// Answered on chain: nothing but its settlement is left.
    done: bool,
    /// The chain has moved it while something was under way.
    told: bool,
    /// Committed; settles then.
    settle_at_s: Option<u64>,
    /// A settlement of it was sent: look before the next.
    asked: bool,
}

impl Entry {
    fn new(want: Want, deadline_s: u64, attempts: u32) -> Self {
        let step = Step::Idle { from_s: 0 };
        let (failures, settle_at_s) = (0, None);
        let (done, told, asked) = (false, false, false);
        Self { want, deadline_s, attempts, failures, step, done, told, settle_at_s, asked }
    }

    fn idle(&mut self, from_s: u64) -> Vec<Action> {
        self.step = Step::Idle { from_s };
        vec![]
    }

    fn send(&mut self, task: TaskId, way: Way) -> Vec<Action> {
        (self.settle_at_s, self.told) = (None, false);
        self.step = Step::Busy;
        let attempt = self.attempts;
        self.attempts = attempt.saturating_add(1);
        vec![Action::Send { task, way, attempt }]
    }
}

/// Every answer that is not at its end, and every task to hand back.
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

    /// Whether some answer is not on chain yet, or is only promised: it is owed before a shutdown.
    pub(crate) fn owes(&self) -> bool {
        self.open.values().any(|entry| !entry.done)
    }

    /// Nothing is settled any more; what a router was to carry, and what was mined without its event, is looked up at once:
    /// nobody brings events.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
        for entry in self.open.values_mut().filter(|entry| !entry.done) {
            if entry.step != Step::Busy {
                entry.step = Step::Idle { from_s: 0 };
            }
        }
    }

    pub(crate) fn on(&mut self, input: Input) -> Vec<Action> {
        match input {
            Input::Answered(open) => {
                let want = Want::Answer {
                    carried: open.answer.signed.is_some(),
                    redundant: open.answer.redundancy > 1,
                };
                let entry = Entry::new(want, open.answer.deadline_s, open.attempts);
                self.open.entry(open.answer.task).or_insert(entry);
                vec![]
            }
            Input::Decline { task, until_s } => {
                // In place of an answer, if there is one: that is to another request.
                let wanted = |entry: &Entry| entry.want == Want::Decline;
                if !self.open.get(&task).is_some_and(wanted) {
                    self.open.insert(task, Entry::new(Want::Decline, until_s, 0));
                }
                vec![]
            }
            Input::Looked { task, seen } => self.looked(task, seen),
            Input::Sent { task, ok } => {
                self.sent(task, ok);
                vec![]
            }
            Input::SettleSent { tasks, ok } => {
                self.settling = false;
                let pause = if ok { EVENT_PATIENCE_S } else { RETRY_S };
                for task in tasks {
                    if let Some(entry) = self.open.get_mut(&task) {
                        entry.asked = true;
                        entry.step = Step::Idle { from_s: self.now_s.saturating_add(pause) };
                    }
                }
                vec![]
            }
            Input::Moved { task, seen } => {
                self.moved(task, seen);
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
                Some(at) if now.reached_s < at.saturating_add(self.margin_s) => {}
                Some(_) if entry.asked => {
                    entry.step = Step::Busy;
                    actions.push(Action::Look { task: *task });
                }
                Some(_) if !self.settling && due.len() < self.batch => due.push(*task),
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
            // The chain moved it meanwhile, or nobody brings events any more.
            _ if entry.told => 0,
            0 if self.stopping => 0,
            0 => EVENT_PATIENCE_S,
            // A refusal usually means that another way is right by now: look at once.
            1 => 0,
            failures => pause_s(failures),
        };
        entry.told = false;
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

    fn looked(&mut self, task: TaskId, seen: Option<Seen>) -> Vec<Action> {
        let Some(entry) = self.open.get_mut(&task) else { return vec![] };
        let Some(seen) = seen else {
            entry.failures = entry.failures.saturating_add(1);
            return entry.idle(self.now_s.saturating_add(pause_s(entry.failures)));
        };
        if is_over(entry, seen) {
            // The events that say so are stored, or on their way.
            self.open.remove(&task);
            return vec![];
        }
        let (now_s, stopping) = (self.now_s, self.stopping);
        let actions = match entry.want {
            Want::Decline => decline(entry, task, seen, now_s),
            Want::Answer { .. } => answer(entry, task, seen, (now_s, stopping)),
        };
        match actions {
            Some(actions) => {
                if matches!(actions[..], [Action::Missed { .. }]) {
                    self.open.remove(&task);
                }
                actions
            }
            None => {
                self.open.remove(&task);
                vec![]
            }
        }
    }

    fn moved(&mut self, task: TaskId, seen: Seen) {
        let Some(entry) = self.open.get_mut(&task) else { return };
        if is_over(entry, seen) {
            self.open.remove(&task);
            return;
        }
        let (done, settle_at_s, pause) = match seen {
            Seen::On(Standing::Committed, at) => (true, Some(at), 0),
            Seen::On(Standing::Answered, _) | Seen::Audited => (true, None, EVENT_PATIENCE_S),
            Seen::On(Standing::Promised, _) => (false, None, EVENT_PATIENCE_S),
            // A block with what was done is reverted: it usually comes again.
            Seen::Absent => (false, None, RETRY_S),
            Seen::On(Standing::Due, _) if entry.done => (false, None, RETRY_S),
            Seen::On(_, _) | Seen::Ahead => (false, None, 0),
        };
        (entry.done, entry.settle_at_s, entry.told) = (done, settle_at_s, true);
        if entry.step != Step::Busy {
            entry.step = Step::Idle { from_s: self.now_s.saturating_add(pause) };
        }
    }
}

/// Whether nothing is left to do about the task; another request's answer says nothing for this one.
fn is_over(entry: &Entry, seen: Seen) -> bool {
    match seen {
        Seen::On(Standing::Over | Standing::Elsewhere | Standing::Queued, _) => true,
        Seen::On(Standing::Replaced, _) => entry.want != Want::Decline,
        _ => false,
    }
}

/// Hands a task back as long as that can be done; `None` if there is nothing to do.
fn decline(entry: &mut Entry, task: TaskId, seen: Seen, now_s: u64) -> Option<Vec<Action>> {
    match seen {
        Seen::On(Standing::Due | Standing::Replaced, until_s) if now_s <= until_s => {
            Some(entry.send(task, Way::Decline))
        }
        Seen::Absent | Seen::Ahead if now_s <= entry.deadline_s => {
            Some(entry.idle(now_s.saturating_add(RETRY_S)))
        }
        _ => None,
    }
}

/// Brings an answer to its end.
fn answer(
    entry: &mut Entry,
    task: TaskId,
    seen: Seen,
    (now_s, stopping): (u64, bool),
) -> Option<Vec<Action>> {
    let Want::Answer { carried, redundant } = entry.want else { return None };
    entry.done = false;
    // A router may put the words of all nodes into one transaction with the task, and then all openings into another. One
    // that has submitted the task without this node's word does not carry for it.
    let left_to_router = carried && !stopping && entry.attempts == 0;
    let own_s = |until_s: u64| match left_to_router {
        true => until_s.saturating_sub(OWN_CARRY_S),
        false => 0,
    };
    let missed = Some(vec![Action::Missed { task }]);
    let soon = |entry: &mut Entry, at: u64| {
        // Events come earlier: this is for what they do not bring.
        Some(entry.idle(at.min(now_s.saturating_add(EVENT_PATIENCE_S))))
    };
    match seen {
        Seen::Absent if now_s > entry.deadline_s => missed,
        Seen::Absent if carried && !redundant => Some(entry.send(task, Way::Carry)),
        Seen::Absent if carried && now_s >= own_s(entry.deadline_s) => {
            Some(entry.send(task, Way::CarryPrecommit))
        }
        Seen::Absent if carried => soon(entry, own_s(entry.deadline_s)),
        // Reverted with its block, and not ours to submit.
        Seen::Absent => {
            entry.settle_at_s = None;
            entry.failures = entry.failures.saturating_add(1);
            Some(entry.idle(now_s.saturating_add(pause_s(entry.failures))))
        }
        Seen::Ahead => Some(entry.idle(now_s.saturating_add(RETRY_S))),
        Seen::Audited => {
            (entry.done, entry.settle_at_s) = (true, None);
            Some(entry.idle(now_s.saturating_add(EVENT_PATIENCE_S)))
        }
        Seen::On(Standing::Due | Standing::Opening, until_s) if now_s > until_s => missed,
        Seen::On(Standing::Due, _) if !redundant => Some(entry.send(task, Way::Commit)),
        Seen::On(Standing::Due, _) => Some(entry.send(task, Way::Precommit)),
        Seen::On(Standing::Opening, until_s) if now_s >= own_s(until_s) => {
            Some(entry.send(task, Way::Open))
        }
        Seen::On(Standing::Opening, until_s) => soon(entry, own_s(until_s)),
        Seen::On(standing @ (Standing::Promised | Standing::Answered), _) => {
            entry.done = standing == Standing::Answered;
            let pause = if stopping { RETRY_S } else { EVENT_PATIENCE_S };
            Some(entry.idle(now_s.saturating_add(pause)))
        }
        Seen::On(Standing::Committed, settle_at_s) => {
            (entry.done, entry.asked) = (true, false);
            entry.settle_at_s = Some(settle_at_s);
            Some(entry.idle(now_s))
        }
        Seen::On(_, _) => None,
    }
}

/// 2, 4, 8, 16, then 30 seconds.
fn pause_s(failures: u32) -> u64 {
    RETRY_S.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(MAX_RETRY_S)
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
