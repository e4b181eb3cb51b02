//! What waits for somebody to push it, and what to do about it. No IO, no clock: time comes with the
//! input, as the chain counts it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use alloy::primitives::B256;
use assay_bindings::SessionQueue::{Answer, Task};
use assay_chain::Block;
use assay_protocol::{QueueScope, TaskState};
use serde::{Deserialize, Serialize};

use super::items::effects;
pub use super::items::{Drawing, Item, Items, Key, Round, SessionItem, Stage, TaskItem};

/// Blocks whose changes can be undone: as many as the event source can take back.
const KEPT_CHANGES: usize = assay_chain::KEPT_BLOCKS as usize;
/// The EVM knows the hashes of this many blocks: a round that is older can never be had.
const BLOCKHASH_WINDOW: u64 = 256;
/// Tasks in one settlement: the contract's limit.
const MAX_SETTLE: usize = 64;
/// Most actions at work at once, so that a backlog does not flood the node.
const MAX_PENDING: usize = 32;
/// Seconds before something that was done, or refused, is tried again; doubles up to the longest. What
/// was done shows as an event before that, unless a reorganisation took it away.
const FIRST_RETRY_S: u64 = 2;
/// Longest pause between attempts: sessions and tasks do not get more urgent with age.
const LONGEST_RETRY_S: u64 = 60;

/// A change of one item: what it was before, to undo it, and what it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which one.
    pub key: Key,
    /// `None`: it was not there.
    pub before: Option<Item>,
    /// `None`: it is gone.
    pub after: Option<Item>,
}

/// What the keeper does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Push {
    /// `RandomBeacon.reveal(round, ..)`.
    Reveal(u64),
    /// `Session.activate(session)`.
    Activate(u64),
    /// `Session.rotate(session, lane)`.
    Rotate(u64, u32),
    /// `Session.expire(session)`.
    Expire(u64),
    /// `Session.finish(session)`.
    Finish(u64),
    /// `Session.finishReclaim(session, lane)`.
    FinishReclaim(u64, u32),
    /// `SessionQueue.advance(task)`.
    Advance(B256),
    /// `SessionQueue.deliver(task, answer)`.
    Deliver(B256),
    /// `SessionQueue.settle(tasks)`.
    Settle(Vec<B256>),
}

impl Push {
    /// Name for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reveal(_) => "reveal",
            Self::Activate(_) => "activate",
            Self::Rotate(..) => "rotate",
            Self::Expire(_) => "expire",
            Self::Finish(_) => "finish",
            Self::FinishReclaim(..) => "finish_reclaim",
            Self::Advance(_) => "advance",
            Self::Deliver(_) => "deliver",
            Self::Settle(_) => "settle",
        }
    }
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Store these changes of a block together with the cursor.
    Store(Vec<Change>),
    /// Call the contract; `attempt` counts from 0 and makes a fresh transaction of every attempt.
    Push {
        /// The call.
        push: Push,
        /// How often it was tried before.
        attempt: u32,
        /// The tasks that it brings.
        tasks: Vec<Task>,
        /// The answer that it tells.
        answer: Option<Box<Answer>>,
    },
}

/// What happens to the keeper.
#[derive(Debug, Clone, PartialEq)]
pub enum Input<'a> {
    /// A canonical block.
    Block(&'a Block),
    /// The newest block is no longer canonical.
    Reverted(&'a Block),
    /// Time to act. `chain_time` is that of the newest block, and the time that has gone by since.
    Tick {
        /// Unix seconds.
        chain_time: u64,
    },
    /// An action ended, one way or the other; whether it had its effect is told by events alone.
    Ended {
        /// Which one.
        push: Push,
        /// Unix seconds.
        chain_time: u64,
    },
}

/// Where the values of rounds come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beacon {
    /// Hashes of blocks: a round is a block's number, and can be had for 256 blocks.
    Blockhash,
    /// drand: a round is out from its time on, and for ever.
    Drand {
        /// Time of round 1, unix seconds.
        genesis_s: u64,
        /// Seconds between rounds.
        period_s: u64,
    },
}

/// What the keeper needs to know of its deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Chain and queue.
    pub scope: QueueScope,
    /// Of the deployment.
    pub beacon: Beacon,
    /// See [`crate::OracleConfig::settle_grace_s`].
    pub settle_grace_s: u64,
}

#[derive(Debug, Clone, Copy)]
struct Attempt {
    count: u32,
    /// `None` while at work; then not before this time.
    retry_at: Option<u64>,
}

/// All that waits.
#[derive(Debug)]
pub struct Keeper {
    terms: Terms,
    items: Items,
    /// Changes by block, oldest first.
    journal: VecDeque<(u64, Vec<Change>)>,
    /// Number of the newest block.
    head: u64,
    /// Its time, unix seconds.
    head_time_s: u64,
    /// By what is pushed; a settlement is entered under each of its tasks.
    attempts: BTreeMap<Push, Attempt>,
}

impl Keeper {
    /// From what was stored: items, and the journal of the newest blocks, oldest first.
    pub fn new(terms: Terms, items: Items, journal: VecDeque<(u64, Vec<Change>)>) -> Self {
        Self { terms, items, journal, head: 0, head_time_s: 0, attempts: BTreeMap::new() }
    }

    /// How many sessions and tasks wait.
    pub fn waiting(&self) -> (usize, usize) {
        let count = |wanted: fn(&Key) -> bool| self.items.keys().filter(|key| wanted(key)).count();
        let sessions = count(|key| matches!(key, Key::Session(_)));
        (sessions, count(|key| matches!(key, Key::Task(_))))
    }

    /// What waits, by its key.
    pub fn items(&self) -> &Items {
        &self.items
    }

    /// Takes an input in; returns what to do, in order.
    pub fn on(&mut self, input: Input<'_>) -> Vec<Action> {
        match input {
            Input::Block(block) => vec![Action::Store(self.apply(block))],
            Input::Reverted(block) => {
                let changes = self.undo(block);
                vec![Action::Store(changes)]
            }
            Input::Tick { chain_time } => self.push_all(chain_time),
            Input::Ended { push, chain_time } => {
                self.end(&push, chain_time);
                Vec::new()
            }
        }
    }

    fn apply(&mut self, block: &Block) -> Vec<Change> {
        (self.head, self.head_time_s) = (block.at.number, block.timestamp);
        let mut changes = Vec::new();
        for event in &block.events {
            let after = effects(&self.items, &self.terms.scope, &event.body, block.timestamp);
            for (key, after) in after {
                let before = match &after {
                    Some(item) => self.items.insert(key, item.clone()),
                    None => self.items.remove(&key),
                };
                if before != after {
                    changes.push(Change { key, before, after });
                }
            }
        }
        if !changes.is_empty() {
            self.journal.push_back((block.at.number, changes.clone()));
            if self.journal.len() > KEPT_CHANGES {
                self.journal.pop_front();
            }
        }
        changes
    }

    /// Takes the block's changes back; returns them as they are now undone.
    fn undo(&mut self, block: &Block) -> Vec<Change> {
        self.head = block.at.number.saturating_sub(1);
        let Some((_, changes)) = self.journal.pop_back_if(|(number, _)| *number == block.at.number)
        else {
            return Vec::new();
        };
        changes
            .into_iter()
            .rev()
            .map(|Change { key, before, after }| {
                match &before {
                    Some(item) => self.items.insert(key, item.clone()),
                    None => self.items.remove(&key),
                };
                Change { key, before: after, after: before }
            })
            .collect()
    }

    /// Everything whose time has come and that is not at work already.
    fn push_all(&mut self, now: u64) -> Vec<Action> {
        let mut wanted: BTreeSet<Push> = BTreeSet::new();
        let mut due: Vec<B256> = Vec::new();
        let heads = self.heads();
        for (key, item) in &self.items {
            match (key, item) {
                (Key::Session(id), Item::Session(session)) => {
                    wanted.extend(self.session_push(*id, session, &heads, now));
                }
                (Key::Lane(session, lane), Item::Lane(at)) if now > *at => {
                    wanted.insert(Push::FinishReclaim(*session, *lane));
                }
                (Key::Task(id), Item::Task(task)) => {
                    wanted.extend(task.seed.and_then(|seed| self.reveal(seed)));
                    match TaskState::try_from(task.state) {
                        Ok(TaskState::Committed) => {
                            let at = task.until_s.saturating_add(self.terms.settle_grace_s);
                            due.extend((now >= at).then_some(*id));
                        }
                        Ok(TaskState::Settled | TaskState::Refunded) => {
                            wanted.insert(Push::Deliver(*id));
                        }
                        _ if now > task.until_s => {
                            wanted.insert(Push::Advance(*id));
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        self.attempts.retain(|push, attempt| {
            attempt.retry_at.is_none() || wanted.contains(push) || is_due(push, &due)
        });
        self.start(wanted, &due, now)
    }

    /// The waiting ticket of each model that is drawn next.
    fn heads(&self) -> BTreeMap<u32, u64> {
        let mut heads = BTreeMap::new();
        for item in self.items.values() {
            if let Item::Session(SessionItem { model, drawing: Some(drawing), .. }) = item {
                let head = heads.entry(*model).or_insert(drawing.ticket);
                *head = drawing.ticket.min(*head);
            }
        }
        heads
    }

    /// Starts what may start.
    fn start(&mut self, wanted: BTreeSet<Push>, due: &[B256], now: u64) -> Vec<Action> {
        let mut room = MAX_PENDING
            .saturating_sub(self.attempts.values().filter(|a| a.retry_at.is_none()).count());
        let mut actions = Vec::new();
        for push in wanted {
            if room == 0 {
                return actions;
            }
            if let Some(attempt) = self.begin(&push, now) {
                actions.push(self.action(push, attempt));
                room -= 1;
            }
        }
        let mut ready: Vec<(B256, u32)> = Vec::new();
        for task in due {
            if ready.len() < room.saturating_mul(MAX_SETTLE)
                && let Some(attempt) = self.begin(&Push::Settle(vec![*task]), now)
            {
                ready.push((*task, attempt));
            }
        }
        for batch in ready.chunks(MAX_SETTLE) {
            let attempt = batch.iter().map(|(_, attempt)| *attempt).max().unwrap_or_default();
            let tasks = batch.iter().map(|(task, _)| *task).collect();
            actions.push(self.action(Push::Settle(tasks), attempt));
        }
        actions
    }

    /// The push with the tasks that its call brings.
    fn action(&self, push: Push, attempt: u32) -> Action {
        let ids = match &push {
            Push::Advance(id) | Push::Deliver(id) => vec![*id],
            Push::Settle(ids) => ids.clone(),
            _ => Vec::new(),
        };
        let items = ids.iter().filter_map(|id| match self.items.get(&Key::Task(*id)) {
            Some(Item::Task(task)) => Some(task),
            _ => None,
        });
        let tasks = items.clone().filter_map(TaskItem::decode).collect();
        let answer = items.clone().find_map(TaskItem::decode_answer).map(Box::new);
        Action::Push { push, attempt, tasks, answer }
    }

    /// What a session needs now.
    fn session_push(
        &self,
        id: u64,
        session: &SessionItem,
        heads: &BTreeMap<u32, u64>,
        now: u64,
    ) -> Option<Push> {
        if let Some(drawing) = &session.drawing {
            let push = self.draw_push(id, drawing, heads.get(&session.model), now);
            return push.or_else(|| session.seed.and_then(|seed| self.reveal(seed)));
        }
        match session.stage {
            Stage::Open => None,
            Stage::Active => {
                let rotates = session.rotates_at_s.is_some_and(|at| now >= at);
                let missed = session.seed.is_some_and(|seed| self.is_missed(seed));
                match session.worn_lane.filter(|_| session.rotates_at_s.is_some()) {
                    _ if rotates || missed => Some(Push::Rotate(id, 0)),
                    Some(lane) => Some(Push::Rotate(id, lane)),
                    None => session.seed.and_then(|seed| self.reveal(seed)),
                }
            }
            Stage::Draining(ends_at) if now > ends_at && !self.has_tasks(id) => {
                Some(Push::Finish(id))
            }
            Stage::Draining(_) => session.seed.and_then(|seed| self.reveal(seed)),
        }
    }

    /// What a draw needs now: draws of a model happen in the order of their tickets.
    fn draw_push(&self, id: u64, drawing: &Drawing, head: Option<&u64>, now: u64) -> Option<Push> {
        let first = head.is_some_and(|head| *head == drawing.ticket);
        if now > drawing.until_s || self.is_missed(drawing.seed) {
            first.then_some(Push::Expire(id))
        } else if drawing.seed.known {
            first.then_some(Push::Activate(id))
        } else {
            self.reveal(drawing.seed)
        }
    }

    /// Reveals a round that can be had and that nobody has revealed.
    fn reveal(&self, seed: Round) -> Option<Push> {
        let out = match self.terms.beacon {
            // A block's hash is known to later blocks.
            Beacon::Blockhash => self.head >= seed.round,
            Beacon::Drand { genesis_s, period_s } => {
                let rounds = seed.round.saturating_sub(1);
                self.head_time_s >= genesis_s.saturating_add(rounds.saturating_mul(period_s))
            }
        };
        (!seed.known && out && !self.is_missed(seed)).then_some(Push::Reveal(seed.round))
    }

    /// True if the next block can no longer reveal the round.
    fn is_missed(&self, seed: Round) -> bool {
        let window = seed.round.saturating_add(BLOCKHASH_WINDOW);
        self.terms.beacon == Beacon::Blockhash
            && !seed.known
            && self.head.saturating_add(1) > window
    }

    fn has_tasks(&self, session: u64) -> bool {
        self.items.values().any(|item| matches!(item, Item::Task(task) if task.session == session))
    }

    /// The number of this attempt, if it may begin now.
    fn begin(&mut self, push: &Push, now: u64) -> Option<u32> {
        match self.attempts.get_mut(push) {
            None => {
                self.attempts.insert(push.clone(), Attempt { count: 0, retry_at: None });
                Some(0)
            }
            Some(Attempt { retry_at: None, .. }) => None,
            Some(Attempt { retry_at: Some(at), .. }) if now < *at => None,
            Some(attempt) => {
                attempt.retry_at = None;
                attempt.count = attempt.count.saturating_add(1);
                Some(attempt.count)
            }
        }
    }

    fn end(&mut self, push: &Push, now: u64) {
        let singles = match push {
            Push::Settle(tasks) => tasks.iter().map(|task| Push::Settle(vec![*task])).collect(),
            other => vec![other.clone()],
        };
        for single in singles {
            if let Some(attempt) = self.attempts.get_mut(&single) {
                let pause = FIRST_RETRY_S
                    .checked_shl(attempt.count)
                    .map_or(LONGEST_RETRY_S, |pause| pause.min(LONGEST_RETRY_S));
                attempt.retry_at = Some(now.saturating_add(pause));
            }
        }
    }
}

fn is_due(push: &Push, due: &[B256]) -> bool {
    match push {
        Push::Settle(tasks) => tasks.iter().all(|task| due.contains(task)),
        _ => false,
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
