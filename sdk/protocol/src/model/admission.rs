//! `SessionQueue`: which requests become tasks, and whom they are given to.

use alloy::primitives::{Address, B256, Bytes, Signature};
use assay_bindings::{
    Parameters::SessionTerms,
    SessionQueue::{
        Part, SessionQueue_AttemptsOutOfBounds, SessionQueue_BadSignature,
        SessionQueue_CallbackNotAllowed, SessionQueue_DeadlineOutOfBounds,
        SessionQueue_EmptyDigest, SessionQueue_FeeAboveCap, SessionQueue_FeeBelowTip,
        SessionQueue_NonceUsed, SessionQueue_NotHolder, SessionQueue_NotOperator,
        SessionQueue_NotReserved, SessionQueue_NotServed, SessionQueue_PullTakesOne,
        SessionQueue_QueueFull, SessionQueue_RedundancyOutOfBounds, SessionQueue_SeedUnknown,
        SessionQueue_SessionNotActive, SessionQueue_TokensOutOfBounds, SessionQueue_WrongState,
        SessionQueueCalls, Task, TaskRequest, TaskSubmitted, submitAndCommitCall,
        submitAndPrecommitCall,
    },
};
use assay_types::{Dispatch, Lane, NodeId, Nonce, Signed, TaskRequest as SignedRequest};

use super::Run;
use crate::{
    money::fee_up,
    num::{amount, int, u40, u96, u256},
    order::order,
    refusal::{Failure, require},
    state::{Reservation, Session, SessionState, known},
    task::{PartState, TaskState},
};

/// Gas of a callback at most.
const MAX_CALLBACK_GAS: u32 = 500_000;
/// Tasks that wait in the queue of one session at most.
pub(super) const MAX_QUEUE: u64 = 64;
const MAX_HELD: u128 = (1 << 96) - 1;

/// Whose signature it is; `None` if that cannot be told, or if another one could be made from it.
pub(super) fn signer(hash: B256, signature: &[u8]) -> Option<Address> {
    let v = *signature.get(64).filter(|_| signature.len() == 65)?;
    let parsed = Signature::try_from(signature).ok().filter(|_| v == 27 || v == 28)?;
    if parsed.normalize_s().is_some() {
        return None;
    }
    parsed.recover_address_from_prehash(&hash).ok()
}

/// A request that its lane's holder wants.
struct Wanted<'a> {
    request: &'a TaskRequest,
    session: &'a Session,
    /// The first deadline that is taken, unix seconds.
    earliest_s: u64,
}

impl Run<'_> {
    pub(super) fn queue(&mut self, call: &SessionQueueCalls) -> Result<(), Failure> {
        use SessionQueueCalls as C;
        match call {
            C::submit(call) => self.submit(&call.request),
            C::submitSigned(call) => self.submit_signed(&call.request, &call.signature),
            C::submitAndCommit(call) => self.submit_and_commit(call),
            C::submitAndPrecommit(call) => self.submit_and_precommit(call),
            C::claim(call) => self.claim(call),
            C::cancel(call) => self.cancel(&call.task),
            C::decline(call) => self.decline(call),
            C::precommit(call) => self.precommit(call),
            C::commit(call) => self.commit(call),
            C::advance(call) => self.advance(&call.task),
            C::settle(call) => self.settle(&call.tasks),
            C::deliver(call) => self.deliver(&call.task, &call.answer),
            C::reportEquivocation(call) => {
                self.report_equivocation(call.taskId, &call.one, &call.other)
            }
            _ => Ok(()),
        }
    }

    fn holder(&self, request: &TaskRequest) -> Address {
        let session = self.state.sessions.get(&request.sessionId);
        let lane = session.and_then(|session| session.lane(request.lane));
        lane.map_or(Address::ZERO, |lane| lane.holder)
    }

    fn submit(&mut self, request: &TaskRequest) -> Result<(), Failure> {
        let caller = self.at.caller;
        require!(
            caller == self.holder(request),
            SessionQueue_NotHolder { sessionId: request.sessionId, lane: request.lane, caller }
        );
        self.submit_later(request)
    }

    fn submit_signed(&mut self, request: &TaskRequest, signature: &Bytes) -> Result<(), Failure> {
        self.check_consent(request, signature)?;
        self.submit_later(request)
    }

    /// A task without its answers: there must be a second for them.
    fn submit_later(&mut self, request: &TaskRequest) -> Result<(), Failure> {
        let (task, until_s) = self.admit(request, self.at.time_s + 1)?;
        self.check_hold((task.sessionId, task.lane), task.nonce, task.held.saturating_to())?;
        self.tell_submitted(request, task, until_s)
    }

    fn submit_and_commit(&mut self, call: &submitAndCommitCall) -> Result<(), Failure> {
        let (request, answer) = (&call.request, &call.answer);
        require!(
            request.redundancy == 1,
            SessionQueue_RedundancyOutOfBounds { redundancy: request.redundancy, max: u256(1_u8) }
        );
        let (mut task, until_s) = self.carried(request, &call.signature)?;
        let session = self.state.session(request.sessionId)?;
        let fee =
            fee_up(answer.promptTokens, answer.outputTokens, session.price_in, session.price_out);
        // The answer is there: nothing more than its fee is to be held.
        task.held = u96(fee + self.state.callback_tip(&task)?);
        let id = self.state.network.scope().task_id(&task).0;
        self.carry(request, (task, until_s), |run| run.answer(id, answer))?;
        self.expose(id, answer.nodeId)
    }

    fn submit_and_precommit(&mut self, call: &submitAndPrecommitCall) -> Result<(), Failure> {
        let (task, until_s) = self.carried(&call.request, &call.signature)?;
        let id = self.state.network.scope().task_id(&task).0;
        let precommits = &call.precommits;
        self.carry(&call.request, (task, until_s), |run| run.precommit_all(id, precommits))
    }

    /// The task of a signed request whose answers or precommitments come with it.
    fn carried(&self, request: &TaskRequest, signature: &Bytes) -> Result<(Task, u64), Failure> {
        self.check_consent(request, signature)?;
        let admitted = self.admit(request, self.at.time_s)?;
        let id = self.state.network.scope().task_id(&admitted.0).0;
        let queued = TaskState::Queued as u8;
        require!(
            request.dispatch == Dispatch::Push as u8,
            SessionQueue_WrongState { taskId: id, state: queued }
        );
        Ok(admitted)
    }

    /// Submits a task with what comes with it. Its money is looked at last.
    fn carry(
        &mut self,
        request: &TaskRequest,
        (task, until_s): (Task, u64),
        then: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let held = task.held.saturating_to();
        let money = self.check_hold((task.sessionId, task.lane), task.nonce, held);
        if money.is_err() {
            // The call fails in any case; which error it is depends on what comes with the request.
            self.state.lend(task.sessionId, task.lane, held)?;
        }
        self.tell_submitted(request, task, until_s)?;
        then(self)?;
        money
    }

    fn tell_submitted(
        &mut self,
        request: &TaskRequest,
        task: Task,
        until_s: u64,
    ) -> Result<(), Failure> {
        self.emit(TaskSubmitted {
            taskId: self.state.network.scope().task_id(&task).0,
            sessionId: task.sessionId,
            nodeId: task.parts.first().map_or(0, |part| part.nodeId),
            requestDigest: request.requestDigest,
            deadline: request.deadline,
            until: u40(until_s),
            task,
        })
    }

    /// The holder of the lane signed the request, or is a contract that says so.
    fn check_consent(&self, request: &TaskRequest, signature: &Bytes) -> Result<(), Failure> {
        let (deployment, holder) = (&self.state.network.deployment, self.holder(request));
        let signed = SignedRequest::from(request.clone());
        let hash = signed.signing_hash(deployment.chain_id, deployment.queue);
        let consents = signer(hash, signature) == Some(holder)
            || self.at.outside.accepts(holder, hash, signature);
        require!(
            !holder.is_zero() && consents,
            SessionQueue_BadSignature { sessionId: request.sessionId, lane: request.lane, holder }
        );
        Ok(())
    }

    /// A node's word by its operator, who sends or has signed it.
    pub(super) fn check_operator(
        &self,
        node: u32,
        hash: B256,
        signature: &[u8],
    ) -> Result<(), Failure> {
        let by = if signature.is_empty() { Some(self.at.caller) } else { signer(hash, signature) };
        let caller = by.unwrap_or(Address::ZERO);
        let operator = self.state.nodes.get(&node).map(|node| node.operator);
        require!(by.is_some() && by == operator, SessionQueue_NotOperator { nodeId: node, caller });
        Ok(())
    }

    /// The task of a request that may be taken, and the end of its first phase in unix seconds.
    fn admit(&self, request: &TaskRequest, earliest_s: u64) -> Result<(Task, u64), Failure> {
        let id = request.sessionId;
        let session = self.state.session(id)?;
        let wanted = Wanted { request, session, earliest_s };
        let reservation = self.check_open(&wanted)?;
        self.check_parts(&wanted, reservation)?;
        self.check_deadline(&wanted)?;
        check_content(request)?;
        let task_id =
            SignedRequest::from(request.clone()).task_id(self.state.network.deployment.queue);
        require!(
            !self.state.tasks.contains_key(&task_id.0),
            SessionQueue_NonceUsed { sessionId: id, lane: request.lane, nonce: request.nonce }
        );
        let terms = self.state.tunables.session_terms(session.terms_version)?;
        let attempts_left = request.attempts - 1;
        let final_by_s = request.deadline + followers_time_s(request, terms);
        let mut task = Task {
            sessionId: id,
            lane: request.lane,
            nonce: request.nonce,
            seedRound: 0,
            reservation: reservation.seed_round,
            maxPrompt: request.maxPrompt,
            maxOutput: request.maxOutput,
            held: u96(self.held_for(&wanted)?),
            finalBy: u40(final_by_s),
            attemptsLeft: attempts_left,
            tried: 0,
            dispatch: request.dispatch,
            ticket: 0,
            callbackGas: request.callbackGas,
            parts: Vec::new(),
        };
        if request.dispatch == Dispatch::Pull as u8 {
            require!(
                session.queued - session.dequeued < MAX_QUEUE,
                SessionQueue_QueueFull { sessionId: id, limit: u256(MAX_QUEUE) }
            );
            task.ticket = session.queued + 1;
        } else {
            task.seedRound = reservation.seed_round;
            self.assign(&mut task, request, reservation)?;
        }
        Ok((task, request.deadline))
    }

    fn check_open<'a>(&self, wanted: &Wanted<'a>) -> Result<&'a Reservation, Failure> {
        let (request, session) = (wanted.request, wanted.session);
        let open = match session.state {
            SessionState::Active => true,
            // What others were promised before the owner closed is still taken.
            SessionState::Draining => request.lane != 0,
            _ => false,
        };
        require!(open, SessionQueue_SessionNotActive { sessionId: request.sessionId });
        let served = session.serves(request.seedRound, self.at.time_s);
        Ok(served.ok_or(SessionQueue_NotServed {
            sessionId: request.sessionId,
            seedRound: request.seedRound,
        })?)
    }

    fn check_parts(&self, wanted: &Wanted<'_>, reservation: &Reservation) -> Result<(), Failure> {
        let request = wanted.request;
        let terms = self.state.tunables.session_terms(wanted.session.terms_version)?;
        require!(
            (1..=terms.maxAttempts).contains(&request.attempts),
            SessionQueue_AttemptsOutOfBounds { attempts: request.attempts, max: terms.maxAttempts }
        );
        let (redundancy, max) = (request.redundancy, reservation.nodes.len() as u64);
        require!(
            (1..=max).contains(&u64::from(redundancy)),
            SessionQueue_RedundancyOutOfBounds { redundancy, max: u256(max) }
        );
        let single = redundancy == 1 && request.nodeId == 0;
        require!(
            request.dispatch == Dispatch::Push as u8 || single,
            SessionQueue_PullTakesOne { redundancy, nodeId: request.nodeId }
        );
        Ok(())
    }

    /// Where the lane or the session ends, the last attempt and its openings must fit before.
    fn check_deadline(&self, wanted: &Wanted<'_>) -> Result<(), Failure> {
        let (request, session) = (wanted.request, wanted.session);
        let terms = self.state.tunables.session_terms(session.terms_version)?;
        let lane_end_s = session.lane(request.lane).map_or(0, |lane| lane.reclaim_at_s);
        let end_s = if session.state == SessionState::Draining { session.ends_at_s } else { 0 };
        let ends = [lane_end_s, end_s].into_iter().filter(|end_s| *end_s != 0);
        let mut latest_s = self.at.time_s + int(terms.maxDeadline);
        if let Some(end_s) = ends.min() {
            let tail_s = followers_time_s(request, terms) + int(terms.revealTime);
            latest_s = latest_s.min(end_s.saturating_sub(tail_s));
        }
        require!(
            (wanted.earliest_s..=latest_s).contains(&request.deadline),
            SessionQueue_DeadlineOutOfBounds {
                deadline: request.deadline,
                earliest: u256(wanted.earliest_s),
                latest: u256(latest_s),
            }
        );
        Ok(())
    }

    /// What a task holds: its largest fees, and the tip of its callback.
    fn held_for(&self, wanted: &Wanted<'_>) -> Result<u128, Failure> {
        let (request, session) = (wanted.request, wanted.session);
        let tip = self.state.tunables.tip(session.terms_version, session.asset)?;
        let (price_in, price_out) = (session.price_in, session.price_out);
        let fee = fee_up(request.maxPrompt, request.maxOutput, price_in, price_out);
        let cap = request.feeCap;
        require!(fee <= amount(cap), SessionQueue_FeeAboveCap { fee: u256(fee), cap });
        require!(fee >= tip, SessionQueue_FeeBelowTip { fee: u256(fee), tip: u96(tip) });
        let callback = if request.callbackGas == 0 { 0 } else { tip };
        let held = fee * u128::from(request.redundancy) + callback;
        let cap = u96(MAX_HELD);
        require!(held <= MAX_HELD, SessionQueue_FeeAboveCap { fee: u256(held), cap });
        Ok(held)
    }

    /// Gives a task to its nodes: the named one, and those that the seed and the nonce choose.
    fn assign(
        &self,
        task: &mut Task,
        request: &TaskRequest,
        reservation: &Reservation,
    ) -> Result<(), Failure> {
        let (id, named) = (request.sessionId, request.nodeId);
        require!(
            named == 0 || reservation.nodes.contains(&named),
            SessionQueue_NotReserved { sessionId: id, nodeId: named }
        );
        let asks_seed = named == 0 || request.redundancy > 1;
        let seed_round = reservation.seed_round;
        let seed = match self.value_of(seed_round) {
            None if asks_seed => {
                return Err(
                    SessionQueue_SeedUnknown { sessionId: id, seedRound: seed_round }.into()
                );
            }
            seed => seed.unwrap_or_default(),
        };
        let nodes: Vec<NodeId> = reservation.nodes.iter().copied().map(NodeId).collect();
        let named = (named != 0).then_some(NodeId(named));
        let turn = order(&nodes, named, seed, Lane(task.lane), Nonce(task.nonce));
        for index in turn.into_iter().take(usize::from(request.redundancy)) {
            task.parts.push(part_of(task_node(reservation, index)?, index, reservation));
            task.tried |= 1 << index;
        }
        Ok(())
    }
}

/// What further attempts have after the deadline, seconds: their own time, and one attempt's more for the blocks that
/// pass before somebody notices a silence.
fn followers_time_s(request: &TaskRequest, terms: &SessionTerms) -> u64 {
    let attempts = if request.attempts == 1 { 0 } else { u64::from(request.attempts) };
    attempts * int(terms.attemptTime)
}

pub(super) fn task_node(reservation: &Reservation, index: usize) -> Result<u32, Failure> {
    Ok(*known(reservation.nodes.get(index), "node", index)?)
}

/// A part that waits for the node at `index` of a reservation.
pub(super) fn part_of(node: u32, index: usize, reservation: &Reservation) -> Part {
    Part {
        nodeId: node,
        state: PartState::Waiting as u8,
        dedicated: index < usize::from(reservation.dedicated),
        fee: u96(0),
        commitment: B256::ZERO,
    }
}

fn check_content(request: &TaskRequest) -> Result<(), Failure> {
    let (lane, gas) = (request.lane, request.callbackGas);
    require!(
        gas == 0 || (lane == 0 && gas <= MAX_CALLBACK_GAS),
        SessionQueue_CallbackNotAllowed { lane, callbackGas: gas, max: MAX_CALLBACK_GAS }
    );
    let (prompt, output) = (request.maxPrompt, request.maxOutput);
    require!(
        prompt != 0 && output != 0,
        SessionQueue_TokensOutOfBounds { maxPrompt: prompt, maxOutput: output }
    );
    require!(!request.requestDigest.is_zero(), SessionQueue_EmptyDigest {});
    Ok(())
}
