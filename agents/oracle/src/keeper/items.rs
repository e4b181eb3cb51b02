//! What waits, and what an event makes of it. No IO, no clock.

use std::collections::BTreeMap;

use alloy::{
    primitives::{B256, Bytes},
    sol_types::SolValue,
};
use assay_bindings::SessionQueue::{Answer, Task};
use assay_chain::ProtocolEvent;
use assay_protocol::{PartEvent, PartState, QueueScope, TaskRecord, TaskState, opened};
use serde::{Deserialize, Serialize};

use super::answers::{self, AnswerItem};
use super::state::Terms;

/// Names what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    /// By session id.
    Session(u64),
    /// By task id.
    Task(B256),
    /// A lane that its owner takes back: session and lane.
    Lane(u64, u32),
    /// The proof of an answer: task and node.
    Answer(B256, u32),
    /// What is put aside for audits, by model and asset. It waits for nothing; audits are paid out of it.
    Book(u32, u8),
    /// Terms of sessions, by version. They wait for nothing; sessions refer to them.
    Terms(u16),
}

/// A beacon round that something waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// Its number.
    pub round: u64,
    /// Whether its value is revealed.
    pub known: bool,
}

/// A draw that a session waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drawing {
    /// Its seed.
    pub seed: Round,
    /// Place in the order of the model's draws.
    pub ticket: u64,
    /// Unix seconds; its last one.
    pub until_s: u64,
}

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Waits for its first nodes.
    Open,
    /// Serves.
    Active,
    /// Ends at this time, unix seconds.
    Draining(u64),
}

/// A session that is not closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionItem {
    /// How far it is.
    pub stage: Stage,
    /// Its model's index.
    pub model: u32,
    /// Version of its terms.
    pub terms: u16,
    /// The draw that it waits for.
    pub drawing: Option<Drawing>,
    /// Seed of the current reservation.
    pub seed: Option<Round>,
    /// Unix seconds; when its drawn nodes may be replaced. `None` without drawn nodes.
    pub rotates_at_s: Option<u64>,
    /// Reservations so far.
    pub reservations: u64,
    /// A lane that has used up its tasks of this reservation.
    pub worn_lane: Option<u32>,
}

/// A task that is not at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskItem {
    /// Of the task.
    pub session: u64,
    /// `TaskState` of the contract.
    pub state: u8,
    /// Unix seconds; when the state's time is over.
    pub until_s: u64,
    /// `abi.encode(task)`, to be brought to whatever moves it.
    pub task: Bytes,
    /// Seed of a task that was claimed, until it is known.
    pub seed: Option<Round>,
    /// Answers as they were opened, for the call that tells the one of record: node and `abi.encode(answer)`.
    pub answers: Vec<(u32, Bytes)>,
}

/// What waits, until it has reached its final state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// A session.
    Session(SessionItem),
    /// A task.
    Task(TaskItem),
    /// A lane that ends at this time, unix seconds.
    Lane(u64),
    /// The proof of an answer.
    Answer(AnswerItem),
    /// Minor units.
    Book(u128),
    /// Terms of sessions.
    Terms {
        /// Seconds that drawn nodes serve.
        reserve_period_s: u64,
        /// Tasks of one lane that they serve.
        max_tasks: u64,
    },
}

impl TaskItem {
    fn of(record: &TaskRecord) -> Self {
        Self {
            session: record.task.sessionId,
            state: record.state as u8,
            until_s: record.until_s,
            task: record.task.abi_encode().into(),
            seed: None,
            answers: Vec::new(),
        }
    }

    /// The task; `None` if what is stored is damaged.
    pub fn decode(&self) -> Option<Task> {
        Task::abi_decode(&self.task).ok()
    }

    /// The answer of record: that of the lowest part that was committed and has not failed since.
    pub fn decode_answer(&self) -> Option<Answer> {
        let task = self.decode()?;
        let mut parts = task.parts.iter();
        let of_record = parts.find(|part| part.state == PartState::Committed as u8)?.nodeId;
        let (_, bytes) = self.answers.iter().find(|(node, _)| *node == of_record)?;
        Answer::abi_decode(bytes).ok()
    }

    fn record(&self) -> Option<TaskRecord> {
        let state = TaskState::try_from(self.state).ok()?;
        Some(TaskRecord { task: self.decode()?, state, until_s: self.until_s })
    }

    fn with(&self, record: &TaskRecord) -> Self {
        let of = Self::of(record);
        Self { seed: self.seed, answers: self.answers.clone(), ..of }
    }
}

/// Everything that waits.
pub type Items = BTreeMap<Key, Item>;
/// What an event makes of an item.
pub(super) type Effect = (Key, Option<Item>);

/// Items as an event of a block at `time` (unix seconds) leaves them.
pub(super) fn effects(
    items: &Items,
    terms: &Terms,
    event: &ProtocolEvent,
    time: u64,
) -> Vec<Effect> {
    match event {
        ProtocolEvent::TermsProposed(event) => {
            let session = &event.terms.session;
            let item = Item::Terms {
                reserve_period_s: session.reservePeriod.to::<u64>(),
                max_tasks: u64::from(session.maxTasks),
            };
            vec![(Key::Terms(event.version), Some(item))]
        }
        ProtocolEvent::RoundRevealed(event) => revealed(items, event.round, time),
        ProtocolEvent::LaneReclaimed(event) => {
            let item = Item::Lane(event.reclaimAt.to::<u64>());
            vec![(Key::Lane(event.sessionId, event.lane), Some(item))]
        }
        ProtocolEvent::FundsMoved(event) => vec![(Key::Lane(event.sessionId, event.from), None)],
        ProtocolEvent::SessionClosed(event) => {
            let lanes = Key::Lane(event.sessionId, 0)..=Key::Lane(event.sessionId, u32::MAX);
            let gone = items.range(lanes).map(|(key, _)| (*key, None));
            gone.chain([(Key::Session(event.sessionId), None)]).collect()
        }
        event => {
            let session = session_effect(items, event, time);
            let task = task_effect(items, &terms.scope, event);
            let answers = answers::effects(items, &terms.proof, event, time);
            session.into_iter().chain(task).chain(answers).collect()
        }
    }
}

fn session(items: &Items, id: u64) -> Option<SessionItem> {
    match items.get(&Key::Session(id)) {
        Some(Item::Session(session)) => Some(session.clone()),
        _ => None,
    }
}

fn session_effect(items: &Items, event: &ProtocolEvent, time: u64) -> Option<Effect> {
    let (id, item) = match event {
        ProtocolEvent::SessionOpened(event) => {
            let item = SessionItem {
                stage: Stage::Open,
                model: event.model,
                terms: event.termsVersion,
                drawing: None,
                seed: None,
                rotates_at_s: None,
                reservations: 0,
                worn_lane: None,
            };
            (event.sessionId, item)
        }
        ProtocolEvent::SessionDrawing(event) => {
            let mut item = session(items, event.sessionId)?;
            item.drawing = Some(Drawing {
                seed: Round { round: event.drawRound, known: false },
                ticket: event.ticket.to::<u64>(),
                until_s: event.drawUntil.to::<u64>(),
            });
            (event.sessionId, item)
        }
        ProtocolEvent::SessionActivated(event) => {
            let mut item = session(items, event.sessionId)?;
            if item.stage == Stage::Open {
                item.stage = Stage::Active;
            }
            let drawn = event.nodes.len() > usize::from(event.dedicated);
            item.rotates_at_s = match items.get(&Key::Terms(item.terms)) {
                Some(Item::Terms { reserve_period_s, .. }) if drawn => {
                    Some(time.saturating_add(*reserve_period_s))
                }
                _ => None,
            };
            item.drawing = None;
            item.seed = Some(Round { round: event.seedRound, known: false });
            item.reservations = item.reservations.saturating_add(1);
            item.worn_lane = None;
            (event.sessionId, item)
        }
        ProtocolEvent::RotationDropped(event) => {
            let mut item = session(items, event.sessionId)?;
            item.drawing = None;
            (event.sessionId, item)
        }
        ProtocolEvent::SessionDraining(event) => {
            let mut item = session(items, event.sessionId)?;
            item.stage = Stage::Draining(event.endsAt.to::<u64>());
            (event.sessionId, item)
        }
        ProtocolEvent::TaskSubmitted(event) => {
            let mut item = session(items, event.sessionId)?;
            let Some(Item::Terms { max_tasks, .. }) = items.get(&Key::Terms(item.terms)) else {
                return None;
            };
            let worn = item.reservations.saturating_mul(*max_tasks);
            if event.task.nonce.saturating_add(1) < worn || item.worn_lane.is_some() {
                return None;
            }
            item.worn_lane = Some(event.task.lane);
            (event.sessionId, item)
        }
        _ => return None,
    };
    Some((Key::Session(id), Some(Item::Session(item))))
}

fn task_effect(items: &Items, scope: &QueueScope, event: &ProtocolEvent) -> Option<Effect> {
    let known = |id: B256| match items.get(&Key::Task(id)) {
        Some(Item::Task(task)) => Some(task.clone()),
        _ => None,
    };
    let (id, item) = match event {
        ProtocolEvent::TaskSubmitted(event) => {
            (event.taskId, Some(TaskItem::of(&TaskRecord::submitted(event))))
        }
        ProtocolEvent::TaskPrecommitted(event) => {
            let item = known(event.taskId)?;
            let mut record = item.record()?;
            record.precommitted(scope, event).ok()?;
            (event.taskId, Some(item.with(&record)))
        }
        ProtocolEvent::TaskCommitted(event) => {
            let mut item = known(event.taskId)?;
            let mut record = item.record()?;
            record.committed(scope, event).ok()?;
            if record.task.callbackGas != 0 {
                item.answers.push((event.nodeId, opened(event).abi_encode().into()));
            }
            (event.taskId, Some(item.with(&record)))
        }
        ProtocolEvent::PartChanged(event) if event.what == PartEvent::Disproved as u8 => {
            let item = known(event.taskId)?;
            let mut record = item.record()?;
            record.disproved(scope, event).ok()?;
            (event.taskId, Some(item.with(&record)))
        }
        ProtocolEvent::TaskMoved(event) => {
            let mut item = known(event.taskId)?;
            let mut record = item.record()?;
            let claimed = record.task.seedRound != event.task.seedRound;
            record.moved(event);
            if claimed && event.task.seedRound != 0 {
                item.seed = Some(Round { round: event.task.seedRound, known: false });
            }
            (event.taskId, Some(item.with(&record)))
        }
        ProtocolEvent::TaskSettled(event) => {
            ended(known(event.taskId), event.taskId, TaskState::Settled)?
        }
        ProtocolEvent::TaskRefunded(event) => {
            ended(known(event.taskId), event.taskId, TaskState::Refunded)?
        }
        ProtocolEvent::AnswerDelivered(event) => (event.taskId, None),
        _ => return None,
    };
    Some((Key::Task(id), item.map(Item::Task)))
}

/// A task that ended is forgotten, unless its client is still to be told.
fn ended(item: Option<TaskItem>, id: B256, state: TaskState) -> Option<(B256, Option<TaskItem>)> {
    let Some(item) = item else { return Some((id, None)) };
    let record = item.record()?;
    if record.task.callbackGas == 0 {
        return Some((id, None));
    }
    Some((id, Some(TaskItem { state: state as u8, ..item })))
}

/// What waited for a round whose value came at `time` (unix seconds).
fn revealed(items: &Items, round: u64, time: u64) -> Vec<Effect> {
    let reveal = |seed: &mut Round| {
        let hit = seed.round == round && !seed.known;
        seed.known |= hit;
        hit
    };
    let waiting = items.iter().filter_map(|(key, item)| {
        let mut item = item.clone();
        let hit = match &mut item {
            Item::Session(session) => {
                let drawn =
                    session.drawing.as_mut().is_some_and(|drawing| reveal(&mut drawing.seed));
                let seeded = session.seed.as_mut().is_some_and(reveal);
                drawn || seeded
            }
            Item::Task(task) => task.seed.as_mut().is_some_and(reveal),
            Item::Answer(answer) => {
                let hit = answer.round_mut().is_some_and(reveal);
                answer.since_s = if hit { time } else { answer.since_s };
                hit
            }
            Item::Lane(_) | Item::Book(_) | Item::Terms { .. } => false,
        };
        hit.then_some((*key, Some(item)))
    });
    waiting.collect()
}
