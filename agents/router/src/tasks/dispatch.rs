//! Finds a session and a node for a request, signs it and offers it.

use std::{sync::Arc, time::Duration};

use alloy::primitives::{B256, aliases::U96};
use assay_protocol::order::order;
use assay_store::{Bytes, ContentStore};
use assay_types::{
    BLOCK_VERSION, Dispatch, Lane, NodeId, Nonce, RequestBlock, Signed, SigningKey, TaskId,
    TaskRequest, link::Offer, task_id,
};
use axum::http::StatusCode;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    carry::Carried,
    chores::Chore,
    conversations::Conversations,
    hedge::{self, Hedges},
    pace::Paces,
    room::WaitingRoom,
    running::{Running, Spare},
    telemetry::{self, Telemetry},
};
use crate::{
    book::{
        db::Note,
        payers::Payer,
        service::{Ledger, NonceError},
        state::{Reservation, SessionView, Submitted, Unready, fee, hold},
    },
    clock::{now_ms, now_s},
    config::{ACCEPT_TIMEOUT, MAX_OFFERS, RouterConfig},
    http::{ask::Ask, error::ApiError},
    link::{
        hub::{Choice, Hub, NewTask, Slot},
        state::{Scope, TaskEvent},
    },
    traces::{Stage, Trace, Traces},
};

/// Events of a task besides its tokens: accepted, the last one, frames without ids, slack.
pub(super) const SPARE_EVENTS: usize = 16;
/// Codes with which a miner says that the conversation is too long.
pub(super) const TOO_LONG: [&str; 2] = ["prompt_too_long", "context_exceeded"];
/// Codes with which a miner says that no node could serve the request.
const CLIENT_FAULTS: [&str; 7] = [
    "empty_prompt",
    "zero_output",
    "bad_parameter",
    "bad_stop_sequences",
    "template",
    "unsupported",
    "bad_request",
];

/// Turns requests into running tasks.
pub struct Dispatcher {
    /// Settings.
    pub config: Arc<RouterConfig>,
    /// What signatures are bound to.
    pub scope: Scope,
    /// The router's key, which holds its lanes.
    pub signer: SigningKey,
    /// Connected nodes.
    pub hub: Hub,
    /// Sessions, nonces, timelines.
    pub ledger: Ledger,
    /// Where results are.
    pub store: Arc<dyn ContentStore>,
    /// What is done beside.
    pub chores: mpsc::Sender<Chore>,
    /// How fast its models answer.
    pub paces: Paces,
    /// Requests that wait for room.
    pub waiting: WaitingRoom,
    /// Tasks of others that are under way.
    pub carried: Carried,
    /// Which node answered a conversation last.
    pub conversations: Conversations,
    /// How many requests may be asked of a second node.
    pub hedges: Hedges,
    /// Where spans go.
    pub traces: Traces,
    /// No new task from now on.
    pub stopping: CancellationToken,
}

/// One request's way to a node.
pub(super) struct Try {
    /// Nodes that were asked before.
    pub tried: Vec<NodeId>,
    /// When the request came.
    pub started: Instant,
    /// Whether another node is asked at the same time.
    pub is_rival: bool,
    /// The request's.
    pub trace: Trace,
}

/// One offer and what is needed to follow it.
pub(super) struct Offered {
    pub task: TaskId,
    pub node: NodeId,
    pub events: mpsc::Receiver<TaskEvent>,
    /// The other nodes of a redundant task.
    followers: Vec<NodeId>,
    /// What they are offered.
    closed: Offer,
}

/// How a node answered.
pub(super) enum Reply {
    Accepted {
        prompt_tokens: u32,
    },
    /// Another node may take it.
    NotThis(ApiError),
    /// No node will.
    Never(ApiError),
}

impl Dispatcher {
    /// Offers the request to nodes until one accepts it.
    ///
    /// # Errors
    /// 400 if the request is at fault, 429 if all nodes are busy, 502 or 503 if no node serves it.
    pub async fn begin(self: &Arc<Self>, ask: &Ask) -> Result<Running, ApiError> {
        self.hedges.earn();
        let trace = self.traces.begin(&Telemetry::of(ask));
        let (tried, started) = (Vec::new(), Instant::now());
        let first = Try { tried, started, is_rival: false, trace: trace.clone() };
        let begun = match &ask.signed {
            Some(signed) => self.carry(ask, signed, first).await,
            None => self.begin_again(ask, first).await,
        };
        if let Err(error) = &begun {
            trace.failed(error.task, error);
        }
        begun
    }

    /// The same, after some nodes were tried. A rival does not wait for a node: others are asked already.
    pub(super) async fn begin_again(
        self: &Arc<Self>,
        ask: &Ask,
        Try { mut tried, started, is_rival, trace }: Try,
    ) -> Result<Running, ApiError> {
        let received_ms = now_ms();
        let mut last: Option<ApiError> = None;
        for _ in tried.len()..MAX_OFFERS {
            self.check_stopping()?;
            let now = self.ledger.book().now_s(now_s());
            let deadline = now.saturating_add(self.config.deadline_s);
            let admission = Stage::begin("admission");
            let placed = self.place(ask, deadline, (&tried, !is_rival)).await;
            trace.stage(admission, None);
            let (session, slot) = match placed {
                Ok(found) => found,
                // What the node that was tried said is nearer to the cause.
                Err(error) => return Err(last.unwrap_or(error)),
            };
            let signing = Stage::begin("signing");
            let mut offered = self.offer(ask, &session, slot, (deadline, received_ms)).await?;
            telemetry::overhead(telemetry::Stage::Offer, signing.elapsed());
            trace.stage(signing, Some(offered.task));
            let offer = Stage::begin("offer");
            // A client that hangs up from here on cancels what it asked for.
            let named = (offered.task, offered.node);
            let kept = Try { tried: Vec::new(), started, is_rival, trace: trace.clone() };
            let mut running = Running::new(self.clone(), ask, named, kept);
            tried.push(offered.node);
            let nodes = session.serving(deadline).map(|reservation| reservation.nodes.as_slice());
            let nodes = nodes.filter(|_| !is_rival).unwrap_or_default();
            let others = Choice { nodes, tried: &tried, familiar: None };
            let reply = self.answer_of(ask, &mut offered, &others).await;
            trace.stage(offer, Some(offered.task));
            let Some(reply) = reply else {
                let late = hedge::late_offer();
                running.passed_over(&late);
                last = Some(late.of_task(offered.task));
                continue;
            };
            match reply {
                Reply::Accepted { prompt_tokens } => {
                    self.happened(offered.task, "accepted");
                    self.offer_closed(&offered);
                    running.accepted(offered.events, prompt_tokens, Spare::of(ask, tried));
                    return Ok(running);
                }
                Reply::NotThis(error) => {
                    running.not_taken(&error);
                    last = Some(error.of_task(offered.task));
                }
                Reply::Never(error) => {
                    running.not_taken(&error);
                    return Err(error.of_task(offered.task));
                }
            }
        }
        Err(last.unwrap_or_else(|| ApiError::internal("no offer was made")))
    }

    /// Whether new tasks may begin.
    pub(super) fn check_stopping(&self) -> Result<(), ApiError> {
        if !self.stopping.is_cancelled() {
            return Ok(());
        }
        let message = "this router is stopping: send the request again in a moment";
        Err(ApiError::unavailable("stopping", message, 5))
    }

    pub(super) fn happened(&self, task: TaskId, event: &'static str) {
        self.ledger.note(Note::Happened { task, event, at_ms: now_ms(), detail: None });
    }

    /// Signs the request and hands it to the node, the store and the chain side by side.
    async fn offer(
        &self,
        ask: &Ask,
        session: &SessionView,
        slot: Slot,
        (deadline, received_ms): (u64, u64),
    ) -> Result<Offered, ApiError> {
        let node = slot.node();
        let (block, digest) = request_block(ask)?;
        let nonce = self.ledger.nonce(session.id).await.map_err(no_nonce)?;
        let reservation = session.serving(deadline).cloned().unwrap_or_default();
        let request = TaskRequest {
            sessionId: session.id.0,
            lane: session.lane.0,
            nonce: nonce.0,
            seedRound: reservation.seed_round,
            requestDigest: digest,
            maxPrompt: ask.max_prompt,
            maxOutput: ask.max_output,
            // Prices of 80 bits and counts of 32 leave room.
            feeCap: U96::saturating_from(fee(session, (ask.max_prompt, ask.max_output))),
            deadline,
            nodeId: node.0,
            redundancy: ask.redundancy,
            // The client has this answer or none: whoever took the task over would stream to nobody.
            attempts: 1,
            dispatch: Dispatch::Push as u8,
            callbackGas: 0,
        };
        let task = task_id(self.scope.queue, session.id, session.lane, nonce);
        let hash = request.signing_hash(self.scope.chain_id, self.scope.queue);
        let signature = self.signer.sign_hash(&hash);
        let (sender, events) = mpsc::channel(ask.max_output as usize + SPARE_EVENTS);
        let (accepted, answer) = oneshot::channel();
        let nodes = nodes_of(&reservation, &request);
        let offer = Offer {
            request: request.clone(),
            signature,
            block: block.clone().into(),
            stream: true,
        };
        let closed = Offer { stream: false, ..offer.clone() };
        let payer = self.charge(ask, session, (task, deadline))?;
        let (offer, top_logprobs) = (Box::new(offer), ask.top_logprobs);
        let new = NewTask { task, offer, top_logprobs, events: sender, accepted };
        if slot.offer(new).is_err() {
            self.ledger.book().release(&task);
            return Err(node_gone().of_task(task));
        }
        self.ledger.note(Note::Received {
            task: Box::new(Submitted::planned(&request, task, nodes.clone())),
            model: ask.model.name.clone(),
            owed: Box::new((request.clone(), block.clone())),
            payer,
            at_ms: received_ms,
        });
        self.happened(task, "offered");
        let chore = Chore::Task { task, request, block, accepted: answer };
        if self.chores.try_send(chore).is_err() {
            // The miner carries the signed request with its answer, and the block is pinned later.
            tracing::warn!(%task, "too much waits for the chain: the task is left to its miner to submit");
            self.happened(task, "submission_skipped");
        }
        let followers = nodes.into_iter().filter(|other| *other != node).collect();
        Ok(Offered { task, node, events, followers, closed })
    }

    /// Counts what a task may cost, against its lane and against the key that pays; that key, if there is one.
    fn charge(
        &self,
        ask: &Ask,
        session: &SessionView,
        (task, deadline): (TaskId, u64),
    ) -> Result<Option<Payer>, ApiError> {
        let held = hold(session, (ask.max_prompt, ask.max_output), ask.redundancy);
        let payer = ask
            .key
            .as_ref()
            .map(|key| Payer { key: key.id.clone(), period: key.period_at(deadline) });
        let mut book = self.ledger.book();
        if let Some((key, payer)) = ask.key.as_ref().zip(payer.as_ref())
            && let Some(budget) = key.limits.budget
        {
            let now = book.now_s(now_s());
            let left = book.left_of(payer, budget, now);
            if left < held {
                return Err(over_budget(held, left, key.renewed_in_s(deadline)));
            }
        }
        book.charge(session.id, task, (held, deadline), payer.clone());
        Ok(payer)
    }

    /// Offers a redundant task to its other nodes, whose streams stay closed. One that is away or busy learns of
    /// the task from the chain.
    fn offer_closed(&self, offered: &Offered) {
        for node in &offered.followers {
            let only = Choice { nodes: &[*node], ..Choice::default() };
            let Ok(slot) = self.hub.reserve(&only) else { continue };
            // Nobody listens: its answer comes by the chain.
            let (events, _) = mpsc::channel(1);
            let (accepted, _) = oneshot::channel();
            let offer = Box::new(offered.closed.clone());
            let (task, top_logprobs) = (offered.task, None);
            let new = NewTask { task, offer, top_logprobs, events, accepted };
            if slot.offer(new).is_err() {
                tracing::debug!(%task, %node, "a node's connection is too busy for an offer");
            }
        }
    }

    /// How the node answers. What a key pays is in the database before its client sees anything.
    /// `None` if it is late, and one of the others is to be asked instead.
    async fn answer_of(
        &self,
        ask: &Ask,
        offered: &mut Offered,
        others: &Choice<'_>,
    ) -> Option<Reply> {
        let reply = self.timely(ask, offered, others);
        match ask.key {
            None => reply.await,
            Some(_) => tokio::join!(reply, self.ledger.written()).0,
        }
    }

    /// What a node says to an offer; `declined` words a refusal.
    pub(super) async fn reply(
        &self,
        (task, node): (TaskId, NodeId),
        events: &mut mpsc::Receiver<TaskEvent>,
        declined: fn(&str, &str) -> Reply,
    ) -> Reply {
        match timeout(ACCEPT_TIMEOUT, events.recv()).await {
            Ok(Some(TaskEvent::Accepted { prompt_tokens })) => Reply::Accepted { prompt_tokens },
            Ok(Some(TaskEvent::Declined { code, message })) => declined(&code, &message),
            Ok(Some(TaskEvent::Failed { code, message })) => {
                Reply::NotThis(ApiError::node(&code, message))
            }
            Ok(_) => Reply::NotThis(node_gone()),
            Err(_) => {
                self.hub.cancel(node, task);
                let message = format!(
                    "the node did not answer the offer within {} s: send the request again",
                    ACCEPT_TIMEOUT.as_secs()
                );
                Reply::NotThis(ApiError::node("node_timeout", message))
            }
        }
    }

    /// When a task of now must have its answer.
    pub(super) fn total(&self) -> Duration {
        Duration::from_secs(self.config.deadline_s)
    }
}

/// Whether an error is its node's fault, and another node may do better: what a client asks or does never is, and
/// neither is a content store that is away.
pub(super) fn is_node_fault(error: &ApiError) -> bool {
    let code = error.code.as_str();
    let others = TOO_LONG.contains(&code) || CLIENT_FAULTS.contains(&code);
    error.status == StatusCode::BAD_GATEWAY && !others && code != "result_unavailable"
}

pub(super) fn node_gone() -> ApiError {
    ApiError::node("node_gone", "the node left before it answered: send the request again")
}

/// The nodes of a task by part, as the contract chooses them.
pub(super) fn nodes_of(reservation: &Reservation, request: &TaskRequest) -> Vec<NodeId> {
    let nodes = &reservation.nodes;
    let (named, lane, nonce) =
        (Some(NodeId(request.nodeId)), Lane(request.lane), Nonce(request.nonce));
    let order = order(nodes, named, reservation.seed.unwrap_or_default(), lane, nonce);
    let nodes = order.into_iter().filter_map(|i| nodes.get(i).copied());
    nodes.take(request.redundancy.into()).collect()
}

fn no_nonce(error: NonceError) -> ApiError {
    match error {
        NonceError::TooFarAhead => ApiError::limited(
            "too_many_open",
            format!("{error}: send the request again in a moment"),
            2,
        ),
        NonceError::Journal(error) => {
            tracing::error!(%error, "no nonce for a request");
            ApiError::internal("this router's database fails: look at its log")
        }
    }
}

fn over_budget(held: u128, left: u128, renewed_in_s: Option<u64>) -> ApiError {
    let later = match renewed_in_s {
        Some(s) => format!("wait until its budget begins anew in {s} s"),
        None => "ask whoever runs this router for a larger one".into(),
    };
    let message = format!(
        "the answer may cost {held}, and {left} is left of this API key's budget, open answers included: ask for fewer tokens with max_tokens, or {later}"
    );
    ApiError {
        kind: "insufficient_quota",
        retry_after_s: renewed_in_s.map(|s| u16::try_from(s).unwrap_or(u16::MAX)),
        ..ApiError::limited("insufficient_quota", message, 0)
    }
}

fn request_block(ask: &Ask) -> Result<(Bytes, B256), ApiError> {
    let block = RequestBlock {
        max_output: ask.max_output,
        max_prompt: ask.max_prompt,
        prompt: ask.prompt.clone(),
        salt: B256::random(),
        sampling: ask.sampling,
        stop: ask.stop.clone(),
        top_logprobs: ask.top_logprobs,
        version: BLOCK_VERSION,
    };
    let (bytes, digest) = block.encode().map_err(|error| match error {
        assay_types::BlockError::TooLarge { .. } => ApiError::refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            "request_too_large",
            format!("{error}: send a shorter conversation"),
        ),
        other => ApiError::invalid("", "invalid_value", other.to_string()),
    })?;
    Ok((Bytes::from(bytes), digest))
}

pub(super) fn no_session(unready: Unready, model: &str) -> ApiError {
    let (code, message, after) = match unready {
        Unready::NoSession => (
            "no_session",
            format!(
                "this router has no session for {model:?}: open one with a lane for its address"
            ),
            30,
        ),
        Unready::NotActive => (
            "session_not_ready",
            format!(
                "the session for {model:?} still waits for its nodes or its seed, or ends: try again in a moment"
            ),
            2,
        ),
        Unready::TooFewNodes(most) => {
            let message = format!(
                "a session for {model:?} has at most {most} nodes now: ask for at most that many answers, or open a session with more nodes"
            );
            return ApiError::invalid("assay.redundancy", "redundancy_too_high", message);
        }
        Unready::Spent => (
            "insufficient_quota",
            format!(
                "what this router may spend for {model:?} is spent or held by open tasks: top up the session, open a new one, or wait until tasks settle"
            ),
            30,
        ),
    };
    ApiError::unavailable(code, message, after)
}

pub(super) fn declined(code: &str, message: &str) -> Reply {
    if TOO_LONG.contains(&code) {
        let message = format!(
            "{message} (shorten the conversation, or ask for fewer tokens with max_tokens)"
        );
        return Reply::Never(ApiError::invalid("messages", "context_length_exceeded", message));
    }
    if CLIENT_FAULTS.contains(&code) {
        return Reply::Never(ApiError::invalid("", code, message));
    }
    let message =
        format!("the node declined ({code}: {message}): send the request again in a moment");
    Reply::NotThis(ApiError::unavailable("node_declined", message, 2))
}
