//! Tasks, the queues of their sessions, and what they hold.

use alloy::primitives::B256;
use assay_bindings::SessionQueue::{
    AnswerDelivered, PartChanged, Task, TaskCommitted, TaskMoved, TaskPrecommitted, TaskRefunded,
    TaskSettled, TaskSubmitted,
};
use assay_types::Dispatch;

use super::{Gap, State, known};
use crate::{
    num::amount,
    task::{PartEvent, TaskRecord, TaskState, UnknownPart},
};

/// A task and what its owner was told.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskEntry {
    /// The task as it stands.
    pub record: TaskRecord,
    /// Whether its callback is through, or not wanted any more.
    pub delivered: bool,
}

impl From<UnknownPart> for Gap {
    fn from(part: UnknownPart) -> Self {
        Self(part.to_string())
    }
}

fn is_pulled(task: &Task) -> bool {
    task.dispatch == Dispatch::Pull as u8
}

impl State {
    /// The task.
    ///
    /// # Errors
    /// If no event told of it.
    pub fn task(&self, id: B256) -> Result<&TaskEntry, Gap> {
        known(self.tasks.get(&id), "task", id)
    }

    fn task_mut(&mut self, id: B256) -> Result<&mut TaskEntry, Gap> {
        known(self.tasks.get_mut(&id), "task", id)
    }

    /// The tip that a task keeps for its callback, minor units.
    pub fn callback_tip(&self, task: &Task) -> Result<u128, Gap> {
        if task.callbackGas == 0 {
            return Ok(0);
        }
        let session = self.session(task.sessionId)?;
        self.tunables.tip(session.terms_version, session.asset)
    }

    fn enter_queue(&mut self, task: &Task) -> Result<(), Gap> {
        let session = self.session_mut(task.sessionId)?;
        session.queued = session.queued.max(task.ticket);
        Ok(())
    }

    fn leave_queue(&mut self, id: B256) -> Result<(), Gap> {
        let task = &self.task(id)?.record.task;
        let (session, ticket) = (task.sessionId, task.ticket);
        self.session_mut(session)?.dequeued = ticket;
        Ok(())
    }

    fn end_claim(&mut self, id: B256, node: u32) -> Result<(), Gap> {
        if !is_pulled(&self.task(id)?.record.task) {
            return Ok(());
        }
        let claims = self.claims.entry(node).or_default();
        *claims = known(claims.checked_sub(1), "the claim of node", node)?;
        Ok(())
    }

    pub(super) fn task_submitted(&mut self, event: &TaskSubmitted) -> Result<(), Gap> {
        let task = &event.task;
        self.hold(task.sessionId, task.lane, amount(task.held))?;
        let lane = self.session_mut(task.sessionId)?.lane_mut(task.lane)?;
        lane.next_nonce = lane.next_nonce.max(task.nonce.saturating_add(1));
        self.enter_queue(task)?;
        let entry = TaskEntry { record: TaskRecord::submitted(event), delivered: false };
        self.tasks.insert(event.taskId, entry);
        Ok(())
    }

    pub(super) fn part_changed(&mut self, event: &PartChanged) -> Result<(), Gap> {
        match PartEvent::try_from(event.what) {
            Ok(PartEvent::Claimed) => {
                *self.claims.entry(event.nodeId).or_default() += 1;
                self.leave_queue(event.taskId)
            }
            // `TaskMoved` brings who followed.
            Ok(PartEvent::TookOver) => Ok(()),
            Ok(PartEvent::Declined | PartEvent::Silent | PartEvent::Unrevealed) => {
                self.end_claim(event.taskId, event.nodeId)
            }
            Ok(PartEvent::Disproved) => {
                let scope = self.network.scope();
                Ok(self.task_mut(event.taskId)?.record.disproved(&scope, event)?)
            }
            Err(code) => Err(Gap(format!("a part's event {code} is not known"))),
        }
    }

    pub(super) fn task_precommitted(&mut self, event: &TaskPrecommitted) -> Result<(), Gap> {
        let scope = self.network.scope();
        Ok(self.task_mut(event.taskId)?.record.precommitted(&scope, event)?)
    }

    pub(super) fn task_committed(&mut self, event: &TaskCommitted) -> Result<(), Gap> {
        self.end_claim(event.taskId, event.nodeId)?;
        let scope = self.network.scope();
        Ok(self.task_mut(event.taskId)?.record.committed(&scope, event)?)
    }

    pub(super) fn task_moved(&mut self, event: &TaskMoved) -> Result<(), Gap> {
        if self.task(event.taskId)?.record.state == TaskState::Refunded {
            // It had ended before: what moved is the queue.
            return self.leave_queue(event.taskId);
        }
        self.enter_queue(&event.task)?;
        self.task_mut(event.taskId)?.record.moved(event);
        Ok(())
    }

    /// With the first answer everything that the task holds is held no more, but for the tip of its callback.
    pub(super) fn task_settled(&mut self, time_s: u64, event: &TaskSettled) -> Result<(), Gap> {
        let entry = self.task(event.taskId)?;
        let task = &entry.record.task;
        let lane = (task.sessionId, task.lane);
        let first = entry.record.state != TaskState::Settled;
        let held = amount(task.held).saturating_sub(self.callback_tip(task)?);
        self.unhold(lane, if first { held } else { 0 }, amount(event.fee))?;
        let record = &mut self.task_mut(event.taskId)?.record;
        (record.state, record.until_s) = (TaskState::Settled, time_s);
        Ok(())
    }

    pub(super) fn task_refunded(&mut self, time_s: u64, event: &TaskRefunded) -> Result<(), Gap> {
        let task = &self.task(event.taskId)?.record.task;
        let (lane, tip) = ((task.sessionId, task.lane), amount(event.tip));
        self.unhold(lane, amount(event.refund) + tip, tip)?;
        let entry = self.task_mut(event.taskId)?;
        // Its holder took it back: whoever does that needs no callback.
        if entry.record.state == TaskState::Queued {
            (entry.record.state, entry.record.until_s) = (TaskState::Refunded, time_s);
            entry.delivered = true;
        }
        // None of its answers was proven.
        if entry.record.state == TaskState::Committed {
            (entry.record.state, entry.record.until_s) = (TaskState::Refunded, time_s);
        }
        Ok(())
    }

    pub(super) fn answer_delivered(&mut self, event: &AnswerDelivered) -> Result<(), Gap> {
        let task = &self.task(event.taskId)?.record.task;
        let (lane, tip) = ((task.sessionId, task.lane), self.callback_tip(task)?);
        self.unhold(lane, tip, tip)?;
        self.task_mut(event.taskId)?.delivered = true;
        Ok(())
    }
}
