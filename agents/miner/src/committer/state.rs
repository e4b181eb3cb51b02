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
    SettleSent { tasks: Vec<TaskId>, ok: bool },
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
    /// A settlement of it was sent: look before the next.
    asked: bool,
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
                    asked: false,
                });
                vec![]
            }
            Input::Looked { task, status } => self.looked(task, status),
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
        let Some(entry) = self.open.get_mut(&task) else { return vec![] };
        let late = now_s > entry.deadline_s;
        match status {
            Some(TaskStatus::Committed { settle_at_s }) => {
                entry.settle_at_s = Some(settle_at_s);
                entry.asked = false;
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

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;
    use assay_bindings::SessionQueue;
    use assay_types::{ProofSeal, Signature, TaskRequest};

    use super::*;
    use crate::answers::Answer;

    const DEADLINE_S: u64 = 1000;

    fn task(byte: u8) -> TaskId {
        TaskId(B256::repeat_byte(byte))
    }

    fn answered(byte: u8, carried: bool) -> Input {
        let request = TaskRequest {
            sessionId: 1,
            lane: 1,
            nonce: 0,
            requestDigest: B256::ZERO,
            maxPrompt: 1,
            maxOutput: 1,
            feeCap: 1,
            deadline: DEADLINE_S,
            nodeId: 1,
        };
        let commit = SessionQueue::Commit {
            outputDigest: B256::ZERO,
            promptHash: B256::ZERO,
            promptTokens: 1,
            outputTokens: 1,
            numericClass: B256::ZERO,
            endReason: 1,
            salt: B256::ZERO,
            proofSeal: B256::ZERO,
        };
        Input::Answered(Box::new(OpenAnswer {
            answer: Answer {
                task: task(byte),
                signed: carried.then(|| (request, Signature::test_signature())),
                deadline_s: DEADLINE_S,
                commit,
                proof: ProofSeal { root: B256::ZERO, salt: B256::ZERO },
            },
            attempts: 0,
            settle_at_s: None,
        }))
    }

    fn at(now_s: u64) -> Now {
        Now { now_s, reached_s: now_s }
    }

    fn looked(byte: u8, status: TaskStatus) -> Input {
        Input::Looked { task: task(byte), status: Some(status) }
    }

    fn committed(byte: u8, settle_at_s: u64) -> Input {
        Input::Fate { task: task(byte), fate: Fate::Committed { settle_at_s, fee: 1 } }
    }

    /// A state with one task that is committed.
    fn with_committed(bytes: &[u8], settle_at_s: u64) -> State {
        let mut state = State::new(1, 2);
        for byte in bytes {
            state.on(answered(*byte, true));
            state.on(committed(*byte, settle_at_s));
        }
        state
    }

    #[test]
    fn the_way_follows_what_the_chain_knows() {
        for (status, carried, way) in [
            (TaskStatus::None, true, Some(Way::Carry)),
            (TaskStatus::Assigned, true, Some(Way::Commit)),
            (TaskStatus::Assigned, false, Some(Way::Commit)),
            // Not on chain, and nobody's signature to carry: it may come back.
            (TaskStatus::None, false, None),
            (TaskStatus::Settled, true, None),
            (TaskStatus::Refunded, true, None),
        ] {
            let mut state = State::new(1, 64);
            state.on(answered(1, carried));
            assert_eq!(state.tick(at(10)), [Action::Look { task: task(1) }]);
            assert!(state.tick(at(11)).is_empty(), "one look at a time");
            let sent: Vec<_> = way
                .map(|way| Action::Send { task: task(1), way, attempt: 0 })
                .into_iter()
                .collect();
            assert_eq!(state.on(looked(1, status)), sent, "{status:?}");
        }
    }

    #[test]
    fn a_refused_send_is_looked_up_at_once_and_numbered_anew() {
        let mut state = State::new(1, 64);
        state.on(answered(1, true));
        state.tick(at(10));
        state.on(looked(1, TaskStatus::None));
        state.on(Input::Sent { task: task(1), ok: false });
        assert_eq!(state.tick(at(10)), [Action::Look { task: task(1) }]);
        let again = state.on(looked(1, TaskStatus::Assigned));
        assert_eq!(again, [Action::Send { task: task(1), way: Way::Commit, attempt: 1 }]);
        // The second refusal in a row waits.
        state.on(Input::Sent { task: task(1), ok: false });
        assert!(state.tick(at(10)).is_empty());
        assert_eq!(state.tick(at(20)), [Action::Look { task: task(1) }]);
    }

    #[test]
    fn a_mined_commit_waits_for_its_event_and_looks_if_it_does_not_come() {
        let mut state = State::new(1, 64);
        state.on(answered(1, true));
        state.tick(at(10));
        state.on(looked(1, TaskStatus::None));
        state.on(Input::Sent { task: task(1), ok: true });
        assert!(state.tick(at(15)).is_empty());
        assert!(state.owes());
        assert_eq!(state.tick(at(40)), [Action::Look { task: task(1) }]);
        state.on(looked(1, TaskStatus::Committed { settle_at_s: 50 }));
        assert!(!state.owes());
        assert!(state.tick(at(50)).is_empty());
        let settle = Action::Settle { tasks: vec![task(1)], round: 1 };
        assert_eq!(state.tick(at(51)), [settle]);
    }

    #[test]
    fn an_event_before_the_receipt_costs_no_time() {
        let mut state = State::new(1, 64);
        state.on(answered(1, true));
        state.tick(at(10));
        state.on(looked(1, TaskStatus::None));
        state.on(committed(1, 15));
        state.on(Input::Sent { task: task(1), ok: true });
        assert_eq!(state.tick(at(16)).len(), 1);
    }

    #[test]
    fn what_is_due_is_settled_in_batches_one_at_a_time() {
        let mut state = with_committed(&[1, 2, 3], 20);
        assert!(state.tick(at(20)).is_empty());
        let first = state.tick(at(21));
        assert_eq!(first, [Action::Settle { tasks: vec![task(1), task(2)], round: 1 }]);
        assert!(state.tick(at(22)).is_empty());
        state.on(Input::SettleSent { tasks: vec![task(1), task(2)], ok: true });
        let second = state.tick(at(23));
        assert_eq!(second, [Action::Settle { tasks: vec![task(3)], round: 2 }]);
        for byte in [1, 2, 3] {
            state.on(Input::Fate { task: task(byte), fate: Fate::Settled { earned: 1 } });
        }
        assert!(state.tick(at(500)).is_empty());
    }

    #[test]
    fn a_settlement_without_its_event_is_looked_up_before_the_next() {
        let mut state = with_committed(&[1], 20);
        assert_eq!(state.tick(at(21)).len(), 1);
        state.on(Input::SettleSent { tasks: vec![task(1)], ok: false });
        assert!(state.tick(at(22)).is_empty());
        assert_eq!(state.tick(at(23)), [Action::Look { task: task(1) }]);
        state.on(looked(1, TaskStatus::Committed { settle_at_s: 20 }));
        let again = Action::Settle { tasks: vec![task(1)], round: 2 };
        assert_eq!(state.tick(at(24)), [again]);
    }

    #[test]
    fn a_passed_deadline_is_looked_up_once_more_and_then_missed() {
        let mut state = State::new(1, 64);
        state.on(answered(1, true));
        assert_eq!(state.tick(at(DEADLINE_S + 1)), [Action::Look { task: task(1) }]);
        let missed = state.on(looked(1, TaskStatus::Assigned));
        assert_eq!(missed, [Action::Missed { task: task(1) }]);
        assert!(!state.owes());
        // It was committed in time after all.
        state.on(answered(2, true));
        state.tick(at(DEADLINE_S + 1));
        assert!(state.on(looked(2, TaskStatus::Committed { settle_at_s: 1005 })).is_empty());
    }

    #[test]
    fn a_reverted_commit_is_owed_again() {
        let mut state = with_committed(&[1], 20);
        assert!(!state.owes());
        state.on(Input::Fate { task: task(1), fate: Fate::Answered });
        assert!(state.owes());
        assert_eq!(state.tick(at(10)), [Action::Look { task: task(1) }]);
    }

    #[test]
    fn a_stop_settles_nothing_and_commits_what_is_owed() {
        let mut state = with_committed(&[1], 20);
        state.on(answered(2, true));
        state.tick(at(5));
        state.on(looked(2, TaskStatus::None));
        state.stop();
        state.on(Input::Sent { task: task(2), ok: true });
        assert_eq!(state.tick(at(30)), [Action::Look { task: task(2) }]);
        assert!(state.owes());
        state.on(looked(2, TaskStatus::Committed { settle_at_s: 40 }));
        assert!(!state.owes());
        assert!(state.tick(at(100)).is_empty());
    }

    #[test]
    fn a_chain_that_does_not_answer_is_asked_more_and_more_rarely() {
        let mut state = State::new(1, 64);
        state.on(answered(1, true));
        let mut asked = Vec::new();
        for now in 0..100 {
            if !state.tick(at(now)).is_empty() {
                asked.push(now);
                state.on(Input::Looked { task: task(1), status: None });
            }
        }
        assert_eq!(asked, [0, 2, 6, 14, 30, 60, 90]);
    }
}
