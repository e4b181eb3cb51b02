//! `SessionQueue`: precommitments and answers.

use alloy::primitives::B256;
use assay_bindings::SessionQueue::{
    Answer, Part, Precommit, SessionQueue_BadEndReason, SessionQueue_DeadlinePassed,
    SessionQueue_EmptyDigest, SessionQueue_NotOnTask, SessionQueue_RedundancyOutOfBounds,
    SessionQueue_StaleTask, SessionQueue_TooManyTokens, SessionQueue_UnknownTask,
    SessionQueue_WrongClass, SessionQueue_WrongOpening, SessionQueue_WrongPartState,
    SessionQueue_WrongState, Task, TaskCommitted, TaskMoved, TaskPrecommitted, commitCall,
    precommitCall,
};
use assay_types::{NodeId, Precommit as SignedPrecommit, Signed, TaskId};

use super::Run;
use crate::{
    money::fee_up,
    num::{int, u40, u96, u256},
    refusal::{Failure, require},
    task::{PartState, TaskRecord, TaskState, commitment_of, digest},
};

/// eos, stop, max.
const LAST_END_REASON: u8 = 3;

pub(super) fn count(task: &Task, state: PartState) -> usize {
    task.parts.iter().filter(|part| part.state == state as u8).count()
}

impl Run<'_> {
    /// The task that was brought: it must be the one that is stored.
    pub(super) fn brought(&self, task: &Task) -> Result<B256, Failure> {
        let id = self.state.network.scope().task_id(task).0;
        let entry = self.state.tasks.get(&id).ok_or(SessionQueue_UnknownTask { taskId: id })?;
        let stored = &entry.record.task;
        require!(
            stored == task,
            SessionQueue_StaleTask { taskId: id, stored: digest(stored), brought: digest(task) }
        );
        Ok(id)
    }

    pub(super) fn record_of(&self, id: B256) -> Result<&TaskRecord, Failure> {
        Ok(&self.state.task(id)?.record)
    }

    pub(super) fn expect(&self, id: B256, wanted: TaskState) -> Result<(), Failure> {
        let state = self.record_of(id)?.state;
        require!(state == wanted, SessionQueue_WrongState { taskId: id, state: state as u8 });
        Ok(())
    }

    pub(super) fn check_in_time(&self, id: B256) -> Result<(), Failure> {
        let until_s = self.record_of(id)?.until_s;
        require!(
            self.at.time_s <= until_s,
            SessionQueue_DeadlinePassed { taskId: id, deadline: u40(until_s) }
        );
        Ok(())
    }

    /// The part of a node, which must be in that state.
    pub(super) fn part_in(
        &self,
        id: B256,
        node: u32,
        wanted: PartState,
    ) -> Result<(usize, Part), Failure> {
        let parts = &self.record_of(id)?.task.parts;
        let index = parts.iter().position(|part| part.nodeId == node);
        let found = index.and_then(|index| Some((index, parts.get(index)?.clone())));
        let (index, part) = found.ok_or(SessionQueue_NotOnTask { taskId: id, nodeId: node })?;
        require!(
            part.state == wanted as u8,
            SessionQueue_WrongPartState { taskId: id, nodeId: node, state: part.state }
        );
        Ok((index, part))
    }

    /// Whether the operator of a node stands by a commitment.
    fn check_commitment(
        &self,
        id: B256,
        (node, commitment): (u32, B256),
        signature: &[u8],
    ) -> Result<(), Failure> {
        self.check_operator(node, self.precommit_hash(id, node, commitment), signature)
    }

    pub(super) fn precommit_hash(&self, id: B256, node: u32, commitment: B256) -> B256 {
        let deployment = &self.state.network.deployment;
        let signed = SignedPrecommit { taskId: id, nodeId: node, commitment };
        signed.signing_hash(deployment.chain_id, deployment.queue)
    }

    pub(super) fn precommit(&mut self, call: &precommitCall) -> Result<(), Failure> {
        let id = self.brought(&call.task)?;
        self.expect(id, TaskState::Assigned)?;
        self.check_in_time(id)?;
        self.precommit_all(id, &call.precommits)
    }

    pub(super) fn precommit_all(
        &mut self,
        id: B256,
        precommits: &[Precommit],
    ) -> Result<(), Failure> {
        // One node alone has nobody to hide its answer from.
        let parts = self.record_of(id)?.task.parts.len();
        require!(parts != 1, SessionQueue_RedundancyOutOfBounds { redundancy: 1, max: u256(1_u8) });
        for given in precommits {
            let (node, commitment) = (given.nodeId, given.commitment);
            require!(!commitment.is_zero(), SessionQueue_EmptyDigest {});
            self.part_in(id, node, PartState::Waiting)?;
            self.check_commitment(id, (node, commitment), &given.signature)?;
            self.emit(TaskPrecommitted { taskId: id, nodeId: node, commitment })?;
        }
        self.open_phase(id)
    }

    /// Once everybody has precommitted or failed, commitments are to be opened.
    fn open_phase(&mut self, id: B256) -> Result<(), Failure> {
        let record = self.record_of(id)?;
        let task = record.task.clone();
        if count(&task, PartState::Waiting) != 0 || count(&task, PartState::Precommitted) == 0 {
            return Ok(());
        }
        let session = self.state.session(task.sessionId)?;
        let reveal = self.state.tunables.session_terms(session.terms_version)?.revealTime;
        let state = TaskState::Precommitted;
        self.tell_moved(id, state, self.at.time_s + int(reveal), task)
    }

    pub(super) fn tell_moved(
        &mut self,
        id: B256,
        state: TaskState,
        until_s: u64,
        task: Task,
    ) -> Result<(), Failure> {
        self.emit(TaskMoved { taskId: id, state: state as u8, until: u40(until_s), task })
    }

    pub(super) fn commit(&mut self, call: &commitCall) -> Result<(), Failure> {
        let id = self.brought(&call.task)?;
        let single = call.task.parts.len() == 1;
        self.expect(id, if single { TaskState::Assigned } else { TaskState::Precommitted })?;
        self.check_in_time(id)?;
        for answer in &call.answers {
            self.answer(id, answer)?;
        }
        let record = self.record_of(id)?;
        if !single && record.state == TaskState::Committed {
            let (until_s, task) = (record.until_s, record.task.clone());
            self.tell_moved(id, TaskState::Committed, until_s, task)?;
        }
        call.answers.iter().try_for_each(|answer| self.expose(id, answer.nodeId))
    }

    /// One answer, or the opening of one.
    pub(super) fn answer(&mut self, id: B256, answer: &Answer) -> Result<(), Failure> {
        let node = answer.nodeId;
        let opening = self.record_of(id)?.state == TaskState::Precommitted;
        let wanted = if opening { PartState::Precommitted } else { PartState::Waiting };
        let (_, part) = self.part_in(id, node, wanted)?;
        self.check_answer(id, answer)?;
        let commitment = self.commitment(id, answer);
        if opening {
            require!(
                commitment == part.commitment,
                SessionQueue_WrongOpening { taskId: id, nodeId: node, commitment }
            );
        } else {
            self.check_commitment(id, (node, commitment), &answer.signature)?;
        }
        self.tell_answer(id, answer)
    }

    pub(super) fn commitment(&self, id: B256, answer: &Answer) -> B256 {
        let scope = self.state.network.scope().commit_scope(TaskId(id), NodeId(answer.nodeId));
        commitment_of(&scope, answer)
    }

    fn check_answer(&self, id: B256, answer: &Answer) -> Result<(), Failure> {
        let task = &self.record_of(id)?.task;
        let (prompt, output) = (answer.promptTokens, answer.outputTokens);
        let fits = |tokens: u32, max: u32| (1..=max).contains(&tokens);
        require!(
            fits(prompt, task.maxPrompt) && fits(output, task.maxOutput),
            SessionQueue_TooManyTokens {
                promptTokens: prompt,
                maxPrompt: task.maxPrompt,
                outputTokens: output,
                maxOutput: task.maxOutput,
            }
        );
        let reason = answer.endReason;
        require!(
            (1..=LAST_END_REASON).contains(&reason),
            SessionQueue_BadEndReason { endReason: reason }
        );
        let digests = [answer.outputDigest, answer.promptHash, answer.proofSeal];
        require!(!digests.contains(&B256::ZERO), SessionQueue_EmptyDigest {});
        let declared = self.state.nodes.get(&answer.nodeId).map_or(B256::ZERO, |node| node.class);
        let claimed = answer.numericClass;
        require!(
            claimed == declared,
            SessionQueue_WrongClass { nodeId: answer.nodeId, claimed, declared }
        );
        Ok(())
    }

    fn tell_answer(&mut self, id: B256, answer: &Answer) -> Result<(), Failure> {
        let task = &self.record_of(id)?.task;
        let session = self.state.session(task.sessionId)?;
        let terms = self.state.tunables.session_terms(session.terms_version)?;
        let due = count(task, PartState::Waiting) + count(task, PartState::Precommitted);
        // This one is the last that was due.
        let settle_at_s = if due == 1 { self.at.time_s + int(terms.settleDelay) } else { 0 };
        let fee =
            fee_up(answer.promptTokens, answer.outputTokens, session.price_in, session.price_out);
        let session_id = task.sessionId;
        self.emit(TaskCommitted {
            taskId: id,
            sessionId: session_id,
            nodeId: answer.nodeId,
            outputDigest: answer.outputDigest,
            promptHash: answer.promptHash,
            promptTokens: answer.promptTokens,
            outputTokens: answer.outputTokens,
            numericClass: answer.numericClass,
            endReason: answer.endReason,
            salt: answer.salt,
            proofSeal: answer.proofSeal,
            fee: u96(fee),
            settleAt: u40(settle_at_s),
        })
    }
}
