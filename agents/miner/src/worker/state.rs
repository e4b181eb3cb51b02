//! What to do with each offer and event: capacity, duplicates, order. No IO, no clock.

use std::collections::{BTreeMap, HashMap, HashSet};

use assay_types::{
    Dispatch, TaskId,
    link::{Offer, SignedCancellation},
};

use super::{LinkRef, check::has_time, claim::Claim};
use crate::tasks::{ChainTask, Standing};

/// Tasks of the chain that wait in memory for a free place, and again for being claimed; more wait in the database until a
/// restart or their deadline. Far above what a node of eight places can do before a deadline.
const MAX_WAITING: usize = 1024;
/// The contract's bound of open claims.
const MAX_CLAIMS: usize = 2;
/// Seconds until a session's queue is looked at again after a claim that did not get through.
const CLAIM_PAUSE_S: u64 = 2;

/// What the worker learns.
#[derive(Debug)]
pub(crate) enum Input {
    /// A router offers a task.
    Offer { task: TaskId, link: LinkRef, offer: Box<Offer> },
    /// The chain has changed a task; `None` if its submission was reverted.
    Chain { task: TaskId, now: Option<Box<ChainTask>>, standing: Standing },
    /// A router's client is gone.
    Cancel { task: TaskId, signed: Option<SignedCancellation>, link: LinkRef },
}

/// Number of a job; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct JobId(pub u64);

/// What to do.
#[derive(Debug)]
pub(crate) enum Action {
    /// Check the offer and serve it.
    StartOffer { job: JobId, task: TaskId, link: LinkRef, offer: Box<Offer> },
    /// Fetch the request and serve it.
    StartGiven { job: JobId, given: Box<ChainTask> },
    /// Claim the task.
    Claim { queued: Box<ChainTask> },
    /// The same task runs: if the offer is genuine, let this router listen.
    Attach { job: JobId, task: TaskId, link: LinkRef, offer: Box<Offer> },
    /// Say no, and if the offer is genuine do not serve it later either.
    Decline {
        task: TaskId,
        link: LinkRef,
        offer: Box<Offer>,
        code: &'static str,
        message: &'static str,
    },
    /// Stop the job, if it is this router's: its client is gone.
    Cancel { job: JobId, task: TaskId, signed: Option<SignedCancellation>, link: LinkRef },
    /// Stop the job, unless it has its answer: the task is not this node's to answer any more.
    Stop { job: JobId },
    /// Do not serve the task any more: there is no time left.
    Drop { given: Box<ChainTask> },
}

/// The worker's knowledge.
#[derive(Debug)]
pub(crate) struct State {
    capacity: usize,
    running: HashMap<TaskId, JobId>,
    /// By deadline.
    waiting: BTreeMap<(u64, TaskId), Box<ChainTask>>,
    /// Of the queues of its sessions, by session and ticket.
    queued: BTreeMap<(u64, u64), Box<ChainTask>>,
    claiming: HashSet<TaskId>,
    /// Claimed, and not answered.
    claimed: HashSet<TaskId>,
    /// When queues are looked at again (unix seconds), by session.
    paused: HashMap<u64, u64>,
    next_job: u64,
    draining: bool,
}

impl State {
    pub(crate) fn new(capacity: u8) -> Self {
        Self {
            capacity: usize::from(capacity),
            running: HashMap::new(),
            waiting: BTreeMap::new(),
            queued: BTreeMap::new(),
            claiming: HashSet::new(),
            claimed: HashSet::new(),
            paused: HashMap::new(),
            next_job: 0,
            draining: false,
        }
    }

    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// Jobs and claims in progress.
    pub(crate) fn busy(&self) -> usize {
        self.running.len() + self.claiming.len()
    }

    /// Nothing new from now on.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
        self.waiting.clear();
        self.queued.clear();
    }

    /// `spent` says whether the database knows an end of the input's task.
    pub(crate) fn on(&mut self, input: Input, spent: bool) -> Vec<Action> {
        match input {
            Input::Offer { task, link, offer } => self.offer(task, link, offer, spent),
            Input::Chain { task, now, standing } => self.chain(task, now, (standing, spent)),
            Input::Cancel { task, signed, link } => match self.running.get(&task) {
                Some(job) => vec![Action::Cancel { job: *job, task, signed, link }],
                None => vec![],
            },
        }
    }

    fn chain(
        &mut self,
        task: TaskId,
        now: Option<Box<ChainTask>>,
        (standing, spent): (Standing, bool),
    ) -> Vec<Action> {
        self.waiting.retain(|(_, waiting), _| *waiting != task);
        self.queued.retain(|_, queued| queued.task != task);
        self.claimed.remove(&task);
        // Its submission was reverted: it may come back, and an answer of it is not lost.
        let Some(now) = now else { return vec![] };
        let open = !spent && !self.draining;
        match standing {
            Standing::Due => {
                if now.record.task.dispatch == Dispatch::Pull as u8 && !spent {
                    self.claimed.insert(task);
                }
                let wanted = open && !self.running.contains_key(&task);
                if wanted && self.waiting.len() < MAX_WAITING {
                    self.waiting.insert((now.record.until_s, task), now);
                }
                vec![]
            }
            Standing::Queued => {
                if open && self.queued.len() < MAX_WAITING {
                    let place = (now.record.task.sessionId, now.record.task.ticket);
                    self.queued.insert(place, now);
                }
                vec![]
            }
            _ => match self.running.get(&task) {
                Some(job) => vec![Action::Stop { job: *job }],
                None => vec![],
            },
        }
    }

    fn offer(
        &mut self,
        task: TaskId,
        link: LinkRef,
        offer: Box<Offer>,
        spent: bool,
    ) -> Vec<Action> {
        if let Some(job) = self.running.get(&task) {
            return vec![Action::Attach { job: *job, task, link, offer }];
        }
        let refusal = if spent {
            Some((
                "bad_request",
                "this node has served or given up the task before: sign a new request",
            ))
        } else if self.draining {
            Some(("busy", "the node is stopping: offer the task to another node"))
        } else if self.busy() >= self.capacity {
            Some(("busy", "all places of the node are taken: offer it to another node, or later"))
        } else {
            None
        };
        if let Some((code, message)) = refusal {
            return vec![Action::Decline { task, link, offer, code, message }];
        }
        self.waiting.retain(|(_, waiting), _| *waiting != task);
        let job = self.start(task);
        vec![Action::StartOffer { job, task, link, offer }]
    }

    /// Starts what waits, and claims, as far as there are places. `now_s` is the chain's time.
    pub(crate) fn fill(&mut self, now_s: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        // By deadline: what comes too late stands first, and is dropped in good time to be handed back.
        while let Some(entry) = self.waiting.first_entry()
            && !has_time(entry.key().0, now_s)
        {
            actions.push(Action::Drop { given: entry.remove() });
        }
        while self.busy() < self.capacity
            && let Some((_, given)) = self.waiting.pop_first()
        {
            let job = self.start(given.task);
            actions.push(Action::StartGiven { job, given });
        }
        while let Some(queued) = self.next_claim(now_s) {
            self.claiming.insert(queued.task);
            actions.push(Action::Claim { queued });
        }
        actions
    }

    /// The head of a queue that may be claimed now.
    fn next_claim(&self, now_s: u64) -> Option<Box<ChainTask>> {
        let claims = self.claiming.union(&self.claimed).count();
        if self.draining || claims >= MAX_CLAIMS || self.busy() >= self.capacity {
            return None;
        }
        let mut seen = None;
        self.queued
            .iter()
            .filter(|((session, _), queued)| {
                // The first of each queue alone: it must leave before the next can be claimed.
                let first = seen.replace(*session) != Some(*session);
                let paused = self.paused.get(session).is_some_and(|from| now_s < *from);
                let under_way = self.claiming.contains(&queued.task);
                first && !paused && !under_way && has_time(queued.record.until_s, now_s)
            })
            .map(|(_, queued)| queued.clone())
            .next()
    }

    /// A claim is over.
    pub(crate) fn claim_ended(&mut self, queued: &ChainTask, claim: Claim, now_s: u64) {
        self.claiming.remove(&queued.task);
        let place = (queued.record.task.sessionId, queued.record.task.ticket);
        self.paused.retain(|_, from| now_s < *from);
        match claim {
            Claim::Done => {
                // Its event may have been here before.
                self.claimed.insert(queued.task);
                self.queued.remove(&place);
            }
            Claim::Later => {
                self.paused.insert(place.0, now_s.saturating_add(CLAIM_PAUSE_S));
            }
            Claim::Never => {
                self.queued.remove(&place);
            }
        }
    }

    /// The job has ended; false if it is not known.
    pub(crate) fn ended(&mut self, task: TaskId, job: JobId) -> bool {
        let ours = self.running.get(&task).is_some_and(|running| *running == job);
        if ours {
            self.running.remove(&task);
            self.claimed.remove(&task);
        }
        ours
    }

    fn start(&mut self, task: TaskId) -> JobId {
        let job = JobId(self.next_job);
        self.next_job = self.next_job.wrapping_add(1);
        self.running.insert(task, job);
        job
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
