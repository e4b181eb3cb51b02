//! `SessionQueue`: claims, cancellations, and what happens to a task whose nodes decline or are silent.

use alloy::primitives::B256;
use assay_bindings::{
    NodeStats::StatsChanged,
    SessionQueue::{
        PartChanged, SessionQueue_DeadlineNotPassed, SessionQueue_NotHead, SessionQueue_NotHolder,
        SessionQueue_NotOnTask, SessionQueue_NotOperator, SessionQueue_NotReserved,
        SessionQueue_TooMany, SessionQueue_TooManyClaims, SessionQueue_WrongState, Task,
        TaskRefunded, claimCall, declineCall,
    },
};
use assay_types::{Decline, Dispatch, Lane, NodeId, Nonce, Signed};

use super::{
    Run,
    admission::{MAX_QUEUE, part_of, task_node},
    answers::count,
};
use crate::{
    level::{Outcome, Series},
    num::{amount, int, u40, u96, u256},
    order::order,
    refusal::{Failure, require},
    state::{Reservation, known},
    task::{PartEvent, PartState, TaskState},
};

/// Tasks that one call takes.
pub(super) const MAX_TASKS: u64 = 64;
/// Claims that a node has not answered.
const MAX_CLAIMS: u8 = 2;

/// Indices of the parts that nobody has any more.
type Open = Vec<usize>;

impl Run<'_> {
    pub(super) fn claim(&mut self, call: &claimCall) -> Result<(), Failure> {
        let gone = call.gone.len() as u64;
        let limit = u256(MAX_TASKS);
        require!(gone <= MAX_TASKS, SessionQueue_TooMany { tasks: u256(gone), limit });
        let id = self.brought(&call.task)?;
        self.expect(id, TaskState::Queued)?;
        self.check_in_time(id)?;
        let (index, reservation) = self.check_claimer(id, call)?;
        self.check_head(id, call)?;
        let mut task = call.task.clone();
        let session = self.state.session(task.sessionId)?;
        let terms = self.state.tunables.session_terms(session.terms_version)?;
        // Who follows another has a whole attempt.
        let until_s = match task.tried {
            0 => self.record_of(id)?.until_s,
            _ => self.at.time_s + int(terms.attemptTime),
        };
        task.tried |= 1 << index;
        task.seedRound = self.next_round();
        task.parts = vec![part_of(call.nodeId, index, &reservation)];
        self.tell_part(id, call.nodeId, 0, PartEvent::Claimed)?;
        self.tell_moved(id, TaskState::Assigned, until_s, task)
    }

    /// Index of the node in the task's reservation.
    fn check_claimer(&self, id: B256, call: &claimCall) -> Result<(usize, Reservation), Failure> {
        let (task, node) = (&call.task, call.nodeId);
        let caller = self.at.caller;
        let operator = self.state.nodes.get(&node).map(|node| node.operator);
        require!(operator == Some(caller), SessionQueue_NotOperator { nodeId: node, caller });
        let claims = self.state.claims.get(&node).copied().unwrap_or(0);
        require!(
            claims < MAX_CLAIMS,
            SessionQueue_TooManyClaims { nodeId: node, limit: u256(MAX_CLAIMS) }
        );
        let reservation = self.reservation_of(task)?.unwrap_or_default();
        let index = reservation.nodes.iter().position(|reserved| *reserved == node);
        let index =
            index.ok_or(SessionQueue_NotReserved { sessionId: task.sessionId, nodeId: node })?;
        require!(task.tried >> index & 1 == 0, SessionQueue_NotOnTask { taskId: id, nodeId: node });
        Ok((index, reservation))
    }

    /// Tasks that are gone leave the queue one after the other; the claimed one must be the next.
    fn check_head(&self, id: B256, call: &claimCall) -> Result<(), Failure> {
        let mut head = self.state.session(call.task.sessionId)?.dequeued + 1;
        let next = |task: B256, ticket: u64, head: u64| {
            require!(ticket == head, SessionQueue_NotHead { taskId: task, ticket, head });
            Ok::<u64, Failure>(head + 1)
        };
        for gone in &call.gone {
            let gone_id = self.brought(gone)?;
            self.expect(gone_id, TaskState::Refunded)?;
            let same = gone.sessionId == call.task.sessionId;
            head = next(gone_id, if same { gone.ticket } else { 0 }, head)?;
        }
        next(id, call.task.ticket, head)?;
        Ok(())
    }

    /// The reservation of a task, while it is served.
    fn reservation_of(&self, task: &Task) -> Result<Option<Reservation>, Failure> {
        let session = self.state.session(task.sessionId)?;
        Ok(session.serves(task.reservation, self.at.time_s).cloned())
    }

    pub(super) fn tell_part(
        &mut self,
        id: B256,
        node: u32,
        part: usize,
        what: PartEvent,
    ) -> Result<(), Failure> {
        self.emit(PartChanged { taskId: id, nodeId: node, part: part as u8, what: what as u8 })
    }

    pub(super) fn tell_stats(
        &mut self,
        (node, series): (u32, Series),
        outcome: Outcome,
        times: u32,
    ) -> Result<(), Failure> {
        let clock = self.state.network.clock;
        let record = self.state.record(node, series);
        let after = record.after(clock, outcome, times, self.at.time_s);
        self.emit(StatsChanged {
            nodeId: node,
            series: series as u8,
            outcome: outcome as u8,
            times,
            record: after.into(),
        })
    }

    pub(super) fn cancel(&mut self, task: &Task) -> Result<(), Failure> {
        let id = self.brought(task)?;
        let session = self.state.session(task.sessionId)?;
        let holder = known(session.lane(task.lane), "lane", task.lane)?.holder;
        let caller = self.at.caller;
        require!(
            caller == holder,
            SessionQueue_NotHolder { sessionId: task.sessionId, lane: task.lane, caller }
        );
        self.expect(id, TaskState::Queued)?;
        self.tell_refund(id, amount(task.held), 0)
    }

    /// So much of what a task held goes back, less the tip of whoever moved it.
    pub(super) fn tell_refund(&mut self, id: B256, sum: u128, tip: u128) -> Result<(), Failure> {
        let session = self.record_of(id)?.task.sessionId;
        let asset = self.state.session(session)?.asset;
        let refund = u96(sum.saturating_sub(tip));
        self.emit(TaskRefunded { taskId: id, sessionId: session, refund, tip: u96(tip) })?;
        self.credit(self.at.caller, asset, tip)
    }

    pub(super) fn decline(&mut self, call: &declineCall) -> Result<(), Failure> {
        let id = self.brought(&call.task)?;
        self.expect(id, TaskState::Assigned)?;
        self.check_in_time(id)?;
        let node = call.nodeId;
        let (index, _) = self.part_in(id, node, PartState::Waiting)?;
        let deployment = &self.state.network.deployment;
        let signed = Decline { taskId: id, nodeId: node };
        let hash = signed.signing_hash(deployment.chain_id, deployment.queue);
        self.check_operator(node, hash, &call.signature)?;
        let mut task = call.task.clone();
        self.leave(id, &mut task, index, PartEvent::Declined)?;
        let before_s = self.record_of(id)?.until_s;
        let (state, mut until_s) = self.go_on(id, &mut task, vec![index])?;
        if state == TaskState::Assigned {
            // The others keep the time that they were given.
            until_s = until_s.max(before_s);
        }
        // Who hands a task back earns no tip by it.
        self.finish_move(id, (state, until_s), task, 0)
    }

    pub(super) fn advance(&mut self, task: &Task) -> Result<(), Failure> {
        let id = self.brought(task)?;
        let (state, until_s) = (self.record_of(id)?.state, self.record_of(id)?.until_s);
        if state == TaskState::Refunded && task.ticket != 0 {
            return self.leave_queue(id, task, until_s);
        }
        let due = match state {
            TaskState::Queued | TaskState::Precommitted => PartState::Precommitted,
            TaskState::Assigned => PartState::Waiting,
            _ => return Err(SessionQueue_WrongState { taskId: id, state: state as u8 }.into()),
        };
        require!(
            self.at.time_s > until_s,
            SessionQueue_DeadlineNotPassed { taskId: id, deadline: u40(until_s) }
        );
        let silent = due == PartState::Waiting;
        let why = if silent { PartEvent::Silent } else { PartEvent::Unrevealed };
        let mut after = task.clone();
        let late: Open =
            (0..task.parts.len()).filter(|i| task.parts[*i].state == due as u8).collect();
        for index in &late {
            self.leave(id, &mut after, *index, why)?;
        }
        let session = self.state.session(task.sessionId)?;
        let tip = self.state.tunables.tip(session.terms_version, session.asset)?;
        let next = self.go_on(id, &mut after, if silent { late } else { Open::new() })?;
        self.finish_move(id, next, after, tip)
    }

    /// A task that has ended leaves the head of its queue.
    fn leave_queue(&mut self, id: B256, task: &Task, until_s: u64) -> Result<(), Failure> {
        let (ticket, head) = (task.ticket, self.state.session(task.sessionId)?.dequeued + 1);
        require!(ticket == head, SessionQueue_NotHead { taskId: id, ticket, head });
        self.tell_moved(id, TaskState::Refunded, until_s, task.clone())
    }

    /// A node is off a part, and its record says why.
    fn leave(
        &mut self,
        id: B256,
        task: &mut Task,
        index: usize,
        why: PartEvent,
    ) -> Result<(), Failure> {
        let part = known(task.parts.get_mut(index), "part", index)?;
        let (node, series) = (part.nodeId, Series::of(part.dedicated));
        part.state = PartState::Failed as u8;
        let outcome = match why {
            PartEvent::Declined => Outcome::Declined,
            PartEvent::Unrevealed => Outcome::Unrevealed,
            _ => Outcome::Silent,
        };
        self.tell_part(id, node, index, why)?;
        self.tell_stats((node, series), outcome, 1)
    }

    /// How a task goes on without some of its nodes: others follow, or it queues again, or its phase ends.
    fn go_on(
        &mut self,
        id: B256,
        task: &mut Task,
        open: Open,
    ) -> Result<(TaskState, u64), Failure> {
        let session = self.state.session(task.sessionId)?;
        let terms = self.state.tunables.session_terms(session.terms_version)?.clone();
        let attempt_s = int(terms.attemptTime);
        let next_s = self.at.time_s + attempt_s;
        if !open.is_empty() && task.attemptsLeft != 0 && next_s <= int(task.finalBy) {
            if task.dispatch == Dispatch::Pull as u8 {
                if self.requeue(task)? {
                    task.attemptsLeft -= 1;
                    return Ok((TaskState::Queued, int(task.finalBy) - attempt_s));
                }
            } else if self.pass_on(id, task, &open)? {
                task.attemptsLeft -= 1;
                return Ok((TaskState::Assigned, next_s));
            }
        }
        let record = self.record_of(id)?;
        let now_s = self.at.time_s;
        Ok(if count(task, PartState::Waiting) != 0 {
            (record.state, record.until_s)
        } else if count(task, PartState::Precommitted) != 0 {
            (TaskState::Precommitted, now_s + int(terms.revealTime))
        } else if count(task, PartState::Committed) != 0 {
            (TaskState::Committed, now_s + int(terms.settleDelay))
        } else {
            (TaskState::Refunded, now_s)
        })
    }

    /// Gives open parts to the next nodes that were not asked; there are none once the reservation is over, or while
    /// its seed is not known.
    fn pass_on(&mut self, id: B256, task: &mut Task, open: &[usize]) -> Result<bool, Failure> {
        let reservation = self.reservation_of(task)?;
        let (Some(reservation), Some(seed)) = (reservation, self.value_of(task.reservation)) else {
            return Ok(false);
        };
        let nodes: Vec<NodeId> = reservation.nodes.iter().copied().map(NodeId).collect();
        let turn = order(&nodes, None, seed, Lane(task.lane), Nonce(task.nonce));
        let tried = task.tried;
        let followers = turn.into_iter().filter(|index| tried >> index & 1 == 0);
        let mut passed = false;
        for (part, index) in open.iter().zip(followers) {
            let node = task_node(&reservation, index)?;
            let slot = known(task.parts.get_mut(*part), "part", part)?;
            *slot = part_of(node, index, &reservation);
            task.tried |= 1 << index;
            passed = true;
            self.tell_part(id, node, *part, PartEvent::TookOver)?;
        }
        Ok(passed)
    }

    /// Puts a claimed task to the tail of its queue, if there is room and a node that has not claimed it.
    fn requeue(&self, task: &mut Task) -> Result<bool, Failure> {
        let session = self.state.session(task.sessionId)?;
        let nodes = self.reservation_of(task)?.map_or(0, |reservation| reservation.nodes.len());
        let untried = (0..nodes).any(|index| task.tried >> index & 1 == 0);
        if !untried || session.queued - session.dequeued >= MAX_QUEUE {
            return Ok(false);
        }
        task.ticket = session.queued + 1;
        task.seedRound = 0;
        task.parts = Vec::new();
        Ok(true)
    }

    fn finish_move(
        &mut self,
        id: B256,
        (state, until_s): (TaskState, u64),
        task: Task,
        tip: u128,
    ) -> Result<(), Failure> {
        let back = amount(task.held).saturating_sub(self.state.callback_tip(&task)?);
        self.tell_moved(id, state, until_s, task)?;
        if state != TaskState::Refunded {
            return Ok(());
        }
        self.tell_refund(id, back, tip)
    }
}
