//! What to do with each offer and event: capacity, duplicates, order. No IO, no clock.

use std::collections::{BTreeMap, HashMap};

use assay_types::{TaskId, link::Offer};

use super::LinkRef;
use crate::answers::ChainTask;

/// Tasks of the chain that wait in memory for a free place; more wait in the database until a restart
/// or their deadline. Far above what a node of eight places can do before a deadline.
const MAX_WAITING: usize = 1024;

/// What the worker learns.
#[derive(Debug)]
pub(crate) enum Input {
    /// A router offers a task.
    Offer { task: TaskId, link: LinkRef, offer: Box<Offer> },
    /// The chain gave this node a task.
    Given(ChainTask),
    /// A router's client is gone.
    Cancel { task: TaskId, link: LinkRef },
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
    StartGiven { job: JobId, given: ChainTask },
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
    Cancel { job: JobId, task: TaskId, link: LinkRef },
    /// Do not serve the task any more.
    Drop { given: ChainTask },
}

/// The worker's knowledge.
#[derive(Debug)]
pub(crate) struct State {
    capacity: usize,
    running: HashMap<TaskId, JobId>,
    /// By deadline.
    waiting: BTreeMap<(u64, TaskId), ChainTask>,
    next_job: u64,
    draining: bool,
}

impl State {
    pub(crate) fn new(capacity: u8) -> Self {
        Self {
            capacity: usize::from(capacity),
            running: HashMap::new(),
            waiting: BTreeMap::new(),
            next_job: 0,
            draining: false,
        }
    }

    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// Nothing new from now on.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
        self.waiting.clear();
    }

    /// `spent` says whether the database knows an end of the input's task.
    pub(crate) fn on(&mut self, input: Input, spent: bool) -> Vec<Action> {
        match input {
            Input::Offer { task, link, offer } => self.offer(task, link, offer, spent),
            Input::Given(given) => {
                let known = spent || self.running.contains_key(&given.task) || self.draining;
                if !known && self.waiting.len() < MAX_WAITING {
                    self.waiting.insert((given.deadline_s, given.task), given);
                }
                vec![]
            }
            Input::Cancel { task, link } => match self.running.get(&task) {
                Some(job) => vec![Action::Cancel { job: *job, task, link }],
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
        } else if self.running.len() >= self.capacity {
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

    /// Starts what waits, as far as there are places. `now_s` is the chain's time.
    pub(crate) fn fill(&mut self, now_s: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 <= now_s {
                actions.push(Action::Drop { given: entry.remove() });
                continue;
            }
            if self.running.len() >= self.capacity {
                break;
            }
            let given = entry.remove();
            if self.running.contains_key(&given.task) {
                continue;
            }
            let job = self.start(given.task);
            actions.push(Action::StartGiven { job, given });
        }
        actions
    }

    /// The job has ended; false if it is not known.
    pub(crate) fn ended(&mut self, task: TaskId, job: JobId) -> bool {
        let ours = self.running.get(&task).is_some_and(|running| *running == job);
        if ours {
            self.running.remove(&task);
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
mod tests {
    use assay_types::{
        Address, B256, Bytes, Lane, Nonce, SessionId, Signature, TaskRequest, link::FromMiner,
    };
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn task(byte: u8) -> TaskId {
        TaskId(B256::repeat_byte(byte))
    }

    fn link() -> LinkRef {
        let (frames, _) = mpsc::channel::<FromMiner>(1);
        LinkRef::new(Address::ZERO, frames, CancellationToken::new())
    }

    fn offer(byte: u8) -> Input {
        let request = TaskRequest {
            sessionId: 1,
            lane: 1,
            nonce: u64::from(byte),
            requestDigest: B256::ZERO,
            maxPrompt: 1,
            maxOutput: 1,
            feeCap: 1,
            deadline: 100,
            nodeId: 1,
        };
        let signature = Signature::test_signature();
        let offer = Box::new(Offer { request, signature, block: Bytes::new(), stream: true });
        Input::Offer { task: task(byte), link: link(), offer }
    }

    fn given(byte: u8, deadline_s: u64) -> Input {
        Input::Given(ChainTask {
            task: task(byte),
            session: SessionId(1),
            lane: Lane(0),
            nonce: Nonce(u64::from(byte)),
            request_digest: B256::ZERO,
            max_prompt: 1,
            max_output: 1,
            deadline_s,
        })
    }

    fn started(actions: &[Action]) -> Vec<TaskId> {
        actions
            .iter()
            .filter_map(|action| match action {
                Action::StartOffer { task, .. } => Some(*task),
                Action::StartGiven { given, .. } => Some(given.task),
                _ => None,
            })
            .collect()
    }

    fn code(actions: &[Action]) -> Option<&'static str> {
        match actions {
            [Action::Decline { code, .. }] => Some(code),
            _ => None,
        }
    }

    #[test]
    fn no_more_than_capacity_runs_at_once() {
        let mut state = State::new(2);
        assert_eq!(started(&state.on(offer(1), false)), [task(1)]);
        assert_eq!(started(&state.on(offer(2), false)), [task(2)]);
        assert_eq!(code(&state.on(offer(3), false)), Some("busy"));
        assert!(state.ended(task(1), JobId(0)));
        assert!(!state.ended(task(1), JobId(0)));
        assert_eq!(started(&state.on(offer(3), false)), [task(3)]);
    }

    #[test]
    fn a_task_by_both_ways_runs_once() {
        let mut state = State::new(2);
        state.on(offer(1), false);
        state.on(given(1, 100), false);
        assert!(state.fill(0).is_empty());

        state.on(given(2, 100), false);
        assert_eq!(started(&state.fill(0)), [task(2)]);
        assert!(matches!(state.on(offer(2), false)[..], [Action::Attach { job: JobId(1), .. }]));

        // Waits for a place, then its offer takes it.
        state.on(given(3, 100), false);
        assert!(state.fill(0).is_empty());
        state.ended(task(1), JobId(0));
        assert_eq!(started(&state.on(offer(3), false)), [task(3)]);
        assert!(state.fill(0).is_empty());
    }

    #[test]
    fn the_chains_tasks_wait_for_places_by_deadline() {
        let mut state = State::new(1);
        for (byte, deadline) in [(1, 300), (2, 200), (3, 100), (4, 50)] {
            state.on(given(byte, deadline), false);
        }
        let actions = state.fill(60);
        assert!(matches!(&actions[0], Action::Drop { given } if given.task == task(4)));
        assert_eq!(started(&actions), [task(3)]);
        assert!(state.fill(60).is_empty());
        state.ended(task(3), JobId(0));
        assert_eq!(started(&state.fill(60)), [task(2)]);
    }

    #[test]
    fn what_has_an_end_never_runs_again_and_a_draining_node_takes_nothing() {
        let mut state = State::new(2);
        assert_eq!(code(&state.on(offer(1), true)), Some("bad_request"));
        state.on(given(1, 100), true);
        assert!(state.fill(0).is_empty());
        state.on(given(2, 100), false);
        state.drain();
        state.on(given(3, 100), false);
        assert!(state.fill(0).is_empty());
        assert_eq!(code(&state.on(offer(4), false)), Some("busy"));
    }

    #[test]
    fn a_cancel_meets_its_task_alone() {
        let mut state = State::new(2);
        state.on(offer(1), false);
        state.on(offer(2), false);
        let cancel = |byte| Input::Cancel { task: task(byte), link: link() };
        assert!(matches!(state.on(cancel(2), false)[..], [Action::Cancel { job: JobId(1), .. }]));
        assert!(state.on(cancel(9), false).is_empty());
        assert_eq!(state.running(), 2);
    }
}
