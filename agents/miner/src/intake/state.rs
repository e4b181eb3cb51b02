//! What a block teaches a miner. No IO.

use assay_protocol::PartEvent;
use assay_types::{NodeId, TaskId};

use crate::tasks::{Standing, Taken};

/// `PartEvent` of the contract.
const CLAIMED: u8 = PartEvent::Claimed as u8;
const TOOK_OVER: u8 = PartEvent::TookOver as u8;
const DECLINED: u8 = PartEvent::Declined as u8;
const SILENT: u8 = PartEvent::Silent as u8;
const DISPROVED: u8 = PartEvent::Disproved as u8;

/// One thing that became of this node's tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lesson {
    /// Something to count, by its name.
    Count(&'static str),
    /// The chain took a task back.
    HandedBack(TaskId),
    /// The chain has a precommitment or an answer of this node.
    Answered(TaskId),
}

/// What this node has earned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Earnings {
    /// Minor units.
    pub sum: u128,
    /// Tasks.
    pub count: u64,
}

impl From<(u128, u64)> for Earnings {
    fn from((sum, count): (u128, u64)) -> Self {
        Self { sum, count }
    }
}

impl Earnings {
    /// Takes a block in, or back. False if it changed nothing.
    pub(crate) fn add(&mut self, taken: &Taken) -> bool {
        let before = *self;
        for change in &taken.changes {
            if let Some(old) = change.before.as_ref().and_then(|task| task.earned) {
                *self =
                    Self { sum: self.sum.saturating_sub(old), count: self.count.saturating_sub(1) };
            }
            if let Some(new) = change.now.as_ref().and_then(|task| task.earned) {
                *self =
                    Self { sum: self.sum.saturating_add(new), count: self.count.saturating_add(1) };
            }
        }
        *self != before
    }
}

/// How far an answer is: steps are counted when they are reached.
fn steps(standing: Option<Standing>) -> (bool, bool) {
    match standing {
        Some(Standing::Promised | Standing::Opening) => (true, false),
        Some(Standing::Answered | Standing::Committed) => (true, true),
        _ => (false, false),
    }
}

/// The lessons of a block for `node`.
pub(crate) fn lessons(taken: &Taken, node: NodeId) -> Vec<Lesson> {
    let mut lessons: Vec<Lesson> = taken
        .parts
        .iter()
        .map(|(task, what)| match *what {
            CLAIMED => Lesson::Count("claimed"),
            TOOK_OVER => Lesson::Count("took_over"),
            DECLINED => Lesson::HandedBack(*task),
            SILENT => Lesson::Count("silent"),
            DISPROVED => Lesson::Count("disproved"),
            _ => Lesson::Count("unrevealed"),
        })
        .collect();
    for change in &taken.changes {
        let standing =
            |task: &Option<crate::tasks::ChainTask>| task.as_ref().map(|t| t.standing(node));
        let (before, now) = (steps(standing(&change.before)), steps(standing(&change.now)));
        let single = change.now.as_ref().is_some_and(|task| task.record.task.parts.len() == 1);
        if !before.0 && now.0 {
            lessons.push(Lesson::Answered(change.task));
            if !single {
                lessons.push(Lesson::Count("precommitted"));
            }
        }
        if !before.1 && now.1 {
            lessons.push(Lesson::Count(if single { "committed" } else { "opened" }));
        }
    }
    lessons
}
