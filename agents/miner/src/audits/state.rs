//! When this node does what is its to do in audits. No IO, no clock.
//!
//! What is to be done follows from the chain's events alone. A duty is tried until an event tells that it is done, until
//! its time is over, or until the audit goes on without it.

use std::collections::{BTreeMap, BTreeSet};

use assay_types::{NodeId, TaskId};

use super::duty::{Due, Duty};

/// Seconds that a transaction that was mined may take to come back as an event.
const EVENT_PATIENCE_S: u64 = 20;
/// Seconds until a duty is tried again after something failed; doubles up to the longest.
const RETRY_S: u64 = 1;
/// Longest pause between tries of what has a time limit: much below the shortest of these.
const MAX_RETRY_S: u64 = 8;
/// The same of pay that the book does not have yet: others' tasks fill it.
const MAX_COLLECT_RETRY_S: u64 = 600;
/// Duties at once that need no model: each is a few reads and a transaction.
const MAX_LIGHT: usize = 16;

/// One audited answer.
pub(crate) type Key = (TaskId, NodeId);

/// How a try went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its transaction was mined.
    Sent,
    /// The contract refused: the audit was moved meanwhile.
    Refused,
    /// What it needs is not there yet: a round's value, a block.
    Waiting,
    /// The chain, the store or the engine failed.
    Failed,
    /// It cannot be done, however often it is tried.
    Impossible,
}

/// What is learnt.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// An audit stands so; `None`: nothing (more) to do for this node.
    Stands(Key, Option<Due>),
    /// A try has ended.
    Tried(Key, Due, Outcome),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Try it. `attempt` counts refusals, and makes the outbox's key; it was due for `waited_s` seconds.
    Try { key: Key, due: Due, attempt: u32, waited_s: u64 },
    /// Say that its time is over.
    Missed { key: Key, due: Due },
}

#[derive(Clone, Debug, Default)]
struct Entry {
    due: Option<Due>,
    /// What is being tried, maybe of an earlier standing.
    busy: Option<Due>,
    /// It stands so since then.
    since_s: u64,
    /// The next try is due then.
    from_s: u64,
    failures: u32,
    refusals: u32,
}

/// All audits that this node has to do with.
#[derive(Debug)]
pub(crate) struct State {
    open: BTreeMap<Key, Entry>,
    /// Examinations at once.
    at_once: usize,
    now_s: u64,
}

impl State {
    pub(crate) fn new(at_once: usize, now_s: u64) -> Self {
        Self { open: BTreeMap::new(), at_once, now_s }
    }

    /// How many duties are open.
    pub(crate) fn open(&self) -> usize {
        self.open.values().filter(|entry| entry.due.is_some()).count()
    }

    /// Nodes whose answers to a task this node has to do with.
    pub(crate) fn miners_of(&self, task: TaskId) -> BTreeSet<NodeId> {
        let keys = self.open.range((task, NodeId(0))..=(task, NodeId(u32::MAX)));
        keys.map(|((_, miner), _)| *miner).collect()
    }

    pub(crate) fn on(&mut self, input: Input) {
        match input {
            Input::Stands(key, due) => {
                let now_s = self.now_s;
                let entry = self.open.entry(key).or_default();
                if entry.due.map(|due| due.version) != due.map(|due| due.version) {
                    (entry.failures, entry.refusals) = (0, 0);
                    (entry.from_s, entry.since_s) = (0, now_s);
                }
                entry.due = due;
                self.forget(key);
            }
            Input::Tried(key, tried, outcome) => {
                let now_s = self.now_s;
                let Some(entry) = self.open.get_mut(&key) else { return };
                entry.busy = None;
                // What was tried is not what is due any more: that begins anew.
                if entry.due == Some(tried) {
                    entry.tried(outcome, now_s);
                }
                self.forget(key);
            }
        }
    }

    /// What is due, the most urgent first.
    pub(crate) fn tick(&mut self, now_s: u64) -> Vec<Action> {
        self.now_s = now_s;
        let mut actions = Vec::new();
        let busy = |wanted: bool| {
            self.open
                .values()
                .filter(|e| e.busy.is_some_and(|due| due.duty.examines() == wanted))
                .count()
        };
        let (mut examining, mut light) = (busy(true), busy(false));
        let mut ready: Vec<(Key, Due)> = Vec::new();
        for (key, entry) in &mut self.open {
            let Some(due) = entry.due.filter(|_| entry.busy.is_none()) else { continue };
            if now_s > due.until_s {
                // Whatever comes of it, an event tells.
                entry.due = None;
                actions.push(Action::Missed { key: *key, due });
            } else if now_s >= entry.from_s {
                ready.push((*key, due));
            }
        }
        // Whoever does not publish what was demanded loses its stake however true it is.
        ready.sort_by_key(|(_, due)| (due.duty != Duty::Publish, due.until_s));
        for (key, due) in ready {
            let (count, limit) = match due.duty.examines() {
                true => (&mut examining, self.at_once),
                false => (&mut light, MAX_LIGHT),
            };
            let Some(entry) = self.open.get_mut(&key).filter(|_| *count < limit) else { continue };
            *count += 1;
            entry.busy = Some(due);
            let waited_s = now_s.saturating_sub(entry.since_s);
            actions.push(Action::Try { key, due, attempt: entry.refusals, waited_s });
        }
        self.open.retain(|_, entry| entry.due.is_some() || entry.busy.is_some());
        actions
    }

    fn forget(&mut self, key: Key) {
        if self.open.get(&key).is_some_and(|entry| entry.due.is_none() && entry.busy.is_none()) {
            self.open.remove(&key);
        }
    }
}

impl Entry {
    fn tried(&mut self, outcome: Outcome, now_s: u64) {
        let pause = match outcome {
            Outcome::Sent => EVENT_PATIENCE_S,
            Outcome::Waiting => RETRY_S,
            Outcome::Impossible => {
                self.due = None;
                return;
            }
            Outcome::Refused | Outcome::Failed => {
                self.failures = self.failures.saturating_add(1);
                self.refusals += u32::from(outcome == Outcome::Refused);
                let collects = self.due.is_some_and(|due| due.duty == Duty::Collect);
                let longest = if collects { MAX_COLLECT_RETRY_S } else { MAX_RETRY_S };
                RETRY_S.saturating_mul(1 << self.failures.saturating_sub(1).min(16)).min(longest)
            }
        };
        self.from_s = now_s.saturating_add(pause);
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
