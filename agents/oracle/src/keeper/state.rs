//! What waits for somebody to push it, and what to do about it. No IO, no clock: time comes with the
//! input, as the chain counts it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use alloy::primitives::B256;
use assay_chain::Block;
use assay_protocol::{QueueScope, TaskState};
use serde::{Deserialize, Serialize};

use super::answers::{self, Need};
pub use super::answers::{AnswerItem, AuditItem, Draw, Proof, ProofTerms, Wages};
use super::items::effects;
pub use super::items::{Drawing, Item, Items, Key, Round, SessionItem, Stage, TaskItem};
pub use super::push::{Brought, Push};

/// Blocks whose changes can be undone: as many as the event source can take back.
const KEPT_CHANGES: usize = assay_chain::KEPT_BLOCKS as usize;
/// The EVM knows the hashes of this many blocks: a round that is older can never be had.
const BLOCKHASH_WINDOW: u64 = 256;
/// Tasks in one settlement: the contract's limit.
const MAX_SETTLE: usize = 64;
/// Tasks in one settlement that draws: each of up to eight answers takes up to 32 tries, some hundred thousand gas.
const MAX_DRAW: usize = 8;
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
        /// What it brings.
        brought: Brought,
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
    /// Of the deployment.
    pub proof: ProofTerms,
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
    /// By what is pushed; a settlement or a draw is entered under each of its tasks.
    attempts: BTreeMap<Push, Attempt>,
}

impl Keeper {
    /// From what was stored: items, and the journal of the newest blocks, oldest first.
    pub fn new(terms: Terms, items: Items, journal: VecDeque<(u64, Vec<Change>)>) -> Self {
        Self { terms, items, journal, head: 0, head_time_s: 0, attempts: BTreeMap::new() }
    }

    /// How many sessions, tasks, and proofs of answers wait.
    pub fn waiting(&self) -> (usize, usize, usize) {
        let count = |wanted: fn(&Key) -> bool| self.items.keys().filter(|key| wanted(key)).count();
        let sessions = count(|key| matches!(key, Key::Session(_)));
        let tasks = count(|key| matches!(key, Key::Task(_)));
        (sessions, tasks, count(|key| matches!(key, Key::Answer(..))))
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
            let after = effects(&self.items, &self.terms, &event.body, block.timestamp);
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
                    wanted.extend(self.task_push(*id, task, now));
                }
                (Key::Answer(task, node), Item::Answer(answer)) => {
                    wanted.extend(self.answer_push((*task, *node), answer, now));
                }
                _ => {}
            }
        }
        self.attempts.retain(|push, attempt| attempt.retry_at.is_none() || wanted.contains(push));
        self.start(wanted, now)
    }

    /// What a task needs now.
    fn task_push(&self, id: B256, task: &TaskItem, now: u64) -> Option<Push> {
        match TaskState::try_from(task.state) {
            Ok(TaskState::Committed) => self.end_push(id, task, now),
            Ok(TaskState::Settled | TaskState::Refunded) => Some(Push::Deliver(id)),
            _ => (now > task.until_s).then_some(Push::Advance(id)),
        }
    }

    /// What an answered task needs now: its answers are drawn, audited where the draw says so, and paid.
    fn end_push(&self, id: B256, task: &TaskItem, now: u64) -> Option<Push> {
        let (mut since_s, mut draws, mut is_audited) = (task.until_s, false, false);
        for (_, answer) in answers::of_task(&self.items, id) {
            match &answer.proof {
                Proof::Exposed { draw, .. } => {
                    draws = true;
                    since_s = since_s.max(self.drawable_at(answer.since_s, (*draw)?));
                }
                Proof::Audited(_) => is_audited = true,
                Proof::Through(_) | Proof::Owed(_) => since_s = since_s.max(answer.since_s),
            }
        }
        let at = since_s.saturating_add(self.terms.settle_grace_s);
        if draws {
            // One that comes too early is not refused and does nothing: it waits for a block of that time.
            return (self.head_time_s >= at).then(|| Push::Draw(vec![id]));
        }
        (!is_audited && now >= at).then(|| Push::Settle(vec![id]))
    }

    /// Unix seconds; when a draw can be done whose round was named, or got its value, at `since_s`.
    fn drawable_at(&self, since_s: u64, draw: Draw) -> u64 {
        let window = draw.round.round.saturating_add(BLOCKHASH_WINDOW);
        let is_missed = self.terms.beacon == Beacon::Blockhash && self.head > window;
        if draw.round.known || is_missed { since_s } else { draw.until_s.saturating_add(1) }
    }

    /// What the proof of an answer needs now.
    fn answer_push(
        &self,
        (task, node): (B256, u32),
        answer: &AnswerItem,
        now: u64,
    ) -> Option<Push> {
        Some(match answer.need(&self.items, &self.terms.proof, now)? {
            Need::Close(epoch) => Push::CloseEpoch(epoch),
            Need::Value(round) => return self.reveal(round),
            Need::Convene => Push::Convene(task, node),
            Need::Judge => Push::Judge(task, node),
            Need::Reconvene => Push::Reconvene(task, node),
            Need::AdvanceAudit => Push::AdvanceAudit(task, node),
            Need::AdvancePanel => Push::AdvancePanel(task, node),
            Need::Collect => Push::Collect(task, node),
        })
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
    fn start(&mut self, mut wanted: BTreeSet<Push>, now: u64) -> Vec<Action> {
        let settles = wanted.split_off(&Push::Settle(Vec::new()));
        let draws = wanted.split_off(&Push::Draw(Vec::new()));
        let mut actions = Vec::new();
        let room = self.room();
        for push in wanted {
            if actions.len() == room {
                break;
            }
            if let Some(attempt) = self.begin(&push, now) {
                actions.push(self.action(push, attempt));
            }
        }
        actions.extend(self.start_together(draws, Push::Draw, MAX_DRAW, now));
        actions.extend(self.start_together(settles, Push::Settle, MAX_SETTLE, now));
        actions
    }

    /// Starts pushes of one task each, up to `size` of them as one.
    fn start_together(
        &mut self,
        singles: BTreeSet<Push>,
        push: fn(Vec<B256>) -> Push,
        size: usize,
        now: u64,
    ) -> Vec<Action> {
        let most = self.room().saturating_mul(size);
        let mut ready: Vec<(B256, u32)> = Vec::new();
        for single in singles {
            if ready.len() < most
                && let Some(attempt) = self.begin(&single, now)
                && let Push::Draw(tasks) | Push::Settle(tasks) = single
            {
                ready.extend(tasks.into_iter().map(|task| (task, attempt)));
            }
        }
        let together = |batch: &[(B256, u32)]| {
            let attempt = batch.iter().map(|(_, attempt)| *attempt).max().unwrap_or_default();
            self.action(push(batch.iter().map(|(task, _)| *task).collect()), attempt)
        };
        ready.chunks(size).map(together).collect()
    }

    /// How many more calls may be at work.
    fn room(&self) -> usize {
        let at_work = |wanted: fn(&Push) -> bool| {
            let begun = self.attempts.iter().filter(|(_, attempt)| attempt.retry_at.is_none());
            begun.filter(|(push, _)| wanted(push)).count()
        };
        let alone = at_work(|push| !matches!(push, Push::Draw(_) | Push::Settle(_)));
        let draws = at_work(|push| matches!(push, Push::Draw(_))).div_ceil(MAX_DRAW);
        let settles = at_work(|push| matches!(push, Push::Settle(_))).div_ceil(MAX_SETTLE);
        MAX_PENDING.saturating_sub(alone + draws + settles)
    }

    /// The push with what its call brings.
    fn action(&self, push: Push, attempt: u32) -> Action {
        let mut brought = Brought::default();
        match &push {
            Push::Advance(id) | Push::Deliver(id) => self.bring_tasks(&[*id], &mut brought),
            Push::Draw(ids) | Push::Settle(ids) => self.bring_tasks(ids, &mut brought),
            Push::Convene(task, node)
            | Push::Judge(task, node)
            | Push::Reconvene(task, node)
            | Push::AdvanceAudit(task, node)
            | Push::AdvancePanel(task, node)
            | Push::Collect(task, node) => {
                if let Some(Item::Answer(answer)) = self.items.get(&Key::Answer(*task, *node))
                    && let Some((audit, parties)) = answer.decode()
                {
                    (brought.audit, brought.parties) = (Some(Box::new(audit)), parties);
                    brought.audit_state = answer.audit_state();
                }
            }
            _ => {}
        }
        Action::Push { push, attempt, brought }
    }

    fn bring_tasks(&self, ids: &[B256], brought: &mut Brought) {
        for id in ids {
            let Some(Item::Task(task)) = self.items.get(&Key::Task(*id)) else { continue };
            brought.tasks.extend(task.decode());
            brought.answer = task.decode_answer().map(Box::new);
            let answers = answers::of_task(&self.items, *id);
            let exposed = answers.filter(|(_, a)| matches!(a.proof, Proof::Exposed { .. }));
            brought.exposed.extend(exposed.map(|(node, _)| (*id, node)));
        }
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
        for single in push.singles() {
            if let Some(attempt) = self.attempts.get_mut(&single) {
                let pause = FIRST_RETRY_S
                    .checked_shl(attempt.count)
                    .map_or(LONGEST_RETRY_S, |pause| pause.min(LONGEST_RETRY_S));
                attempt.retry_at = Some(now.saturating_add(pause));
            }
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
