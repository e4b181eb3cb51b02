//! What waits for somebody to push it, and what to do about it. No IO, no clock: time comes with the
//! input, as the chain counts it.

use std::collections::{BTreeMap, VecDeque};

use alloy::primitives::B256;
use assay_chain::{Block, ProtocolEvent};
use serde::{Deserialize, Serialize};

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

/// Names what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    /// By session id.
    Session(u64),
    /// By task id.
    Task(B256),
}

/// What waits, until it has reached its final state. Times in unix seconds of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// Waits for its nodes.
    Open {
        /// Its block's time.
        opened_at: u64,
        /// Round that draws them.
        draw_round: u64,
        /// True once the round has its value.
        drawn: bool,
    },
    /// Has its nodes.
    Active {
        /// Round that seeds its tasks.
        seed_round: u64,
        /// True once the round has its value.
        seeded: bool,
    },
    /// Ends.
    Draining {
        /// From then on it can be finished.
        ends_at: u64,
        /// As before.
        seed_round: u64,
        /// As before.
        seeded: bool,
    },
    /// A task that waits for its answer.
    Assigned {
        /// Of the task.
        session: u64,
        /// Last second in which an answer is taken.
        deadline: u64,
    },
    /// A task that was answered.
    Committed {
        /// Of the task.
        session: u64,
        /// From then on it can be settled.
        settle_at: u64,
    },
}

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
    /// `RandomBeacon.capture(round)`.
    Capture(u64),
    /// `Session.activate(session)`.
    Activate(u64),
    /// `Session.finish(session)`.
    Finish(u64),
    /// `Session.expire(session)`.
    Expire(u64),
    /// `SessionQueue.advance(task)`.
    Advance(B256),
    /// `SessionQueue.settle(tasks)`.
    Settle(Vec<B256>),
}

impl Push {
    /// Name for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Capture(_) => "capture",
            Self::Activate(_) => "activate",
            Self::Finish(_) => "finish",
            Self::Expire(_) => "expire",
            Self::Advance(_) => "advance",
            Self::Settle(_) => "settle",
        }
    }
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Store these changes of a block together with the cursor.
    Store(Vec<Change>),
    /// Call the contract; `attempt` counts from 0 and makes a fresh transaction of every attempt.
    Push {
        /// The call.
        push: Push,
        /// How often it was tried before.
        attempt: u32,
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

/// Terms that the keeper needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// `Session.reservationTimeout()`.
    pub reservation_timeout_s: u64,
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
    items: BTreeMap<Key, Item>,
    /// Changes by block, oldest first.
    journal: VecDeque<(u64, Vec<Change>)>,
    /// Number of the newest block.
    head: u64,
    /// By what is pushed; a settlement is entered under each of its tasks.
    attempts: BTreeMap<Push, Attempt>,
}

impl Keeper {
    /// From what was stored: items, and the journal of the newest blocks, oldest first.
    pub fn new(
        terms: Terms,
        items: BTreeMap<Key, Item>,
        journal: VecDeque<(u64, Vec<Change>)>,
    ) -> Self {
        Self { terms, items, journal, head: 0, attempts: BTreeMap::new() }
    }

    /// How many sessions and tasks wait.
    pub fn waiting(&self) -> (usize, usize) {
        let sessions = self.items.keys().filter(|key| matches!(key, Key::Session(_))).count();
        (sessions, self.items.len() - sessions)
    }

    /// What waits, by its key.
    pub fn items(&self) -> &BTreeMap<Key, Item> {
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
        self.head = block.at.number;
        let mut changes = Vec::new();
        for event in &block.events {
            for (key, after) in self.effects(&event.body, block.timestamp) {
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

    /// Items as an event leaves them.
    fn effects(&self, event: &ProtocolEvent, time: u64) -> Vec<(Key, Option<Item>)> {
        match event {
            ProtocolEvent::SessionOpened(event) => {
                let draw_round = event.drawRound;
                let item = Item::Open { opened_at: time, draw_round, drawn: false };
                vec![(Key::Session(event.sessionId), Some(item))]
            }
            ProtocolEvent::SessionActivated(event) => {
                let item = Item::Active { seed_round: event.seedRound, seeded: false };
                vec![(Key::Session(event.sessionId), Some(item))]
            }
            ProtocolEvent::SessionDraining(event) => {
                let key = Key::Session(event.sessionId);
                let (seed_round, seeded) = match self.items.get(&key) {
                    Some(Item::Active { seed_round, seeded }) => (*seed_round, *seeded),
                    // Not seen from its beginning: its rounds are past.
                    _ => (0, true),
                };
                let ends_at = event.endsAt.to::<u64>();
                vec![(key, Some(Item::Draining { ends_at, seed_round, seeded }))]
            }
            ProtocolEvent::SessionClosed(event) => vec![(Key::Session(event.sessionId), None)],
            ProtocolEvent::RoundCaptured(event) => self.captured(event.round),
            ProtocolEvent::TaskSubmitted(event) => {
                let item = Item::Assigned { session: event.sessionId, deadline: event.deadline };
                vec![(Key::Task(event.taskId), Some(item))]
            }
            ProtocolEvent::TaskCommitted(event) => {
                let settle_at = event.settleAt.to::<u64>();
                let item = Item::Committed { session: event.sessionId, settle_at };
                vec![(Key::Task(event.taskId), Some(item))]
            }
            ProtocolEvent::TaskSettled(event) => vec![(Key::Task(event.taskId), None)],
            ProtocolEvent::TaskRefunded(event) => vec![(Key::Task(event.taskId), None)],
            _ => Vec::new(),
        }
    }

    /// Sessions that waited for a round.
    fn captured(&self, round: u64) -> Vec<(Key, Option<Item>)> {
        let sessions = self.items.range(Key::Session(0)..=Key::Session(u64::MAX));
        sessions
            .filter_map(|(key, item)| {
                let mut item = item.clone();
                match &mut item {
                    Item::Open { draw_round, drawn, .. } if *draw_round == round => *drawn = true,
                    Item::Active { seed_round, seeded }
                    | Item::Draining { seed_round, seeded, .. }
                        if *seed_round == round =>
                    {
                        *seeded = true;
                    }
                    _ => return None,
                }
                Some((*key, Some(item)))
            })
            .collect()
    }

    /// Everything whose time has come and that is not at work already.
    fn push_all(&mut self, now: u64) -> Vec<Action> {
        let mut wanted: Vec<Push> = Vec::new();
        let mut due: Vec<B256> = Vec::new();
        for (key, item) in &self.items {
            match (key, item) {
                (Key::Session(id), item) => wanted.extend(self.session_push(*id, item, now)),
                (Key::Task(id), Item::Assigned { deadline, .. }) if now > *deadline => {
                    wanted.push(Push::Advance(*id));
                }
                (Key::Task(id), Item::Committed { settle_at, .. })
                    if now >= settle_at.saturating_add(self.terms.settle_grace_s) =>
                {
                    due.push(*id);
                }
                (Key::Task(_), _) => {}
            }
        }
        // Two sessions may wait for one round.
        wanted.sort();
        wanted.dedup();
        let single = wanted.clone();
        self.attempts.retain(|push, attempt| {
            attempt.retry_at.is_none() || single.contains(push) || is_due(push, &due)
        });
        self.start(wanted, &due, now)
    }

    /// Starts what may start.
    fn start(&mut self, wanted: Vec<Push>, due: &[B256], now: u64) -> Vec<Action> {
        let mut room = MAX_PENDING
            .saturating_sub(self.attempts.values().filter(|a| a.retry_at.is_none()).count());
        let mut actions = Vec::new();
        for push in wanted {
            if room == 0 {
                return actions;
            }
            if let Some(attempt) = self.begin(&push, now) {
                actions.push(Action::Push { push, attempt });
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
            actions.push(Action::Push { push: Push::Settle(tasks), attempt });
        }
        actions
    }

    /// What a session needs now.
    fn session_push(&self, id: u64, item: &Item, now: u64) -> Option<Push> {
        match item {
            Item::Open { opened_at, draw_round, drawn } => {
                let expires_at = opened_at.saturating_add(self.terms.reservation_timeout_s);
                if now > expires_at {
                    Some(Push::Expire(id))
                } else if *drawn {
                    Some(Push::Activate(id))
                } else {
                    self.round_push(id, *draw_round)
                }
            }
            Item::Active { seed_round, seeded: false } => self.round_push(id, *seed_round),
            Item::Active { .. } => None,
            Item::Draining { seed_round, seeded: false, .. } if self.is_missed(*seed_round) => {
                Some(Push::Expire(id))
            }
            Item::Draining { ends_at, .. } if now > *ends_at && !self.has_tasks(id) => {
                Some(Push::Finish(id))
            }
            Item::Draining { seed_round, seeded: false, .. } => self.round_push(id, *seed_round),
            Item::Draining { .. } | Item::Assigned { .. } | Item::Committed { .. } => None,
        }
    }

    /// A round is captured in a later block than its own, and within the window; once it is missed, what
    /// waits for it ends.
    fn round_push(&self, session: u64, round: u64) -> Option<Push> {
        if self.is_missed(round) {
            Some(Push::Expire(session))
        } else if self.head >= round {
            Some(Push::Capture(round))
        } else {
            None
        }
    }

    /// True if the next block can no longer capture the round.
    fn is_missed(&self, round: u64) -> bool {
        self.head.saturating_add(1) > round.saturating_add(BLOCKHASH_WINDOW)
    }

    fn has_tasks(&self, session: u64) -> bool {
        self.items.values().any(|item| {
            matches!(item,
                Item::Assigned { session: of, .. } | Item::Committed { session: of, .. }
                    if *of == session)
        })
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
