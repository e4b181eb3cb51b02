//! Requests that the holder of another lane has signed: they are passed on as they are, and their answers shown. What they
//! cost is between their holder and the node, which carries them to the chain with its answer.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use assay_types::{
    Bytes, Cancellation, NodeId, SessionId, Signature, Signed, TaskId, TaskRequest,
    link::{CANCEL_SLACK_TOKENS, Offer, SignedCancellation},
};
use axum::http::StatusCode;
use tokio::sync::{mpsc, oneshot};

use super::{
    chores::Chore,
    dispatch::{Dispatcher, Reply, SPARE_EVENTS, TOO_LONG, Try, node_gone, nodes_of},
    room::{busy, no_miner},
    running::Running,
};
use crate::{
    book::state::Reservation,
    http::{ask::Ask, error::ApiError},
    link::{
        hub::{Choice, Cut, NewTask, NoNode},
        state::NotCut,
    },
};

/// Codes with which a node says that the request cannot be served as it was signed.
const SIGNERS_FAULTS: [&str; 11] = [
    "bad_signature",
    "unknown_session",
    "wrong_model",
    "wrong_router",
    "not_on_chain",
    "not_reserved",
    "no_funds",
    "expired",
    "bad_request",
    "given_up",
    "unsupported",
];

/// A request with its holder's signature and its block.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedAsk {
    /// What was signed.
    pub request: TaskRequest,
    /// By the lane's holder.
    pub signature: Signature,
    /// Canonical bytes of the request block, which has the signed digest.
    pub block: Bytes,
}

/// Tasks of others that are under way here. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Carried(Arc<Mutex<HashMap<TaskId, Carrying>>>);

/// Who answers a task, and what its request's signature is over.
#[derive(Clone, Debug)]
struct Carrying {
    node: NodeId,
    request: TaskRequest,
    signature: Signature,
}

/// One of them; dropped, it is under way no more.
#[derive(Debug)]
pub struct Carriage {
    carried: Carried,
    task: TaskId,
}

impl Carried {
    fn lock(&self) -> MutexGuard<'_, HashMap<TaskId, Carrying>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a task. `None` if it is under way: whoever sends its request a second time would take the answer away from
    /// the first.
    fn enter(&self, task: TaskId, carrying: Carrying) -> Option<Carriage> {
        match self.lock().entry(task) {
            Entry::Occupied(_) => None,
            Entry::Vacant(place) => {
                place.insert(carrying);
                Some(Carriage { carried: self.clone(), task })
            }
        }
    }

    fn get(&self, task: TaskId) -> Option<Carrying> {
        self.lock().get(&task).cloned()
    }
}

impl Drop for Carriage {
    fn drop(&mut self) {
        self.carried.lock().remove(&self.task);
    }
}

impl Dispatcher {
    /// Passes a signed request on to the node that the queue would give it to. No other one may answer it.
    ///
    /// # Errors
    /// 400 or 409 if the request is at fault, 429 if the node is busy, 502 or 503 if it does not serve it.
    pub(super) async fn carry(
        self: &Arc<Self>,
        ask: &Ask,
        signed: &SignedAsk,
        wanted: Try,
    ) -> Result<Running, ApiError> {
        self.check_stopping()?;
        let request = &signed.request;
        let task = request.task_id(self.scope.queue);
        let node = self.bearer(ask, request)?;
        let carrying = Carrying { node, request: request.clone(), signature: signed.signature };
        let Some(carriage) = self.carried.enter(task, carrying) else {
            let message = "this request is being answered: sign one with another nonce";
            return Err(ApiError::refused(StatusCode::CONFLICT, "already_running", message));
        };
        let only = Choice { nodes: &[node], ..Choice::default() };
        let slot = self.hub.reserve(&only).map_err(|why| match why {
            NoNode::Busy => busy(),
            NoNode::Disconnected => no_miner(&ask.model.name),
        })?;
        let (sender, mut events) = mpsc::channel(request.maxOutput as usize + SPARE_EVENTS);
        // The chain learns of it from the node.
        let (accepted, _) = oneshot::channel();
        let offer = Box::new(Offer {
            request: request.clone(),
            signature: signed.signature,
            block: signed.block.clone(),
            stream: true,
        });
        let top_logprobs = ask.top_logprobs;
        let new = NewTask { task, offer, top_logprobs, events: sender, accepted };
        if slot.offer(new).is_err() {
            return Err(node_gone().of_task(task));
        }
        let mut running = Running::new(self.clone(), ask, (task, node), wanted);
        running.keep(carriage);
        match self.reply((task, node), &mut events, declined).await {
            Reply::Accepted { prompt_tokens } => {
                // Whoever audits the answer must find what was asked.
                let block = signed.block.0.clone();
                if self.chores.try_send(Chore::Pin { task, block }).is_err() {
                    tracing::warn!(%task, "too much waits to be pinned: the request is left to its node and its holder");
                }
                running.accepted(events, prompt_tokens, None);
                Ok(running)
            }
            Reply::NotThis(error) | Reply::Never(error) => {
                running.not_taken(&error);
                Err(error.of_task(task))
            }
        }
    }

    /// Ends a request that is passed on, as the holder of its lane has signed. Whoever signed the request is that: its
    /// node has looked before it took it.
    ///
    /// # Errors
    /// 404 if it is not under way here, 403 if another has signed, 409 for a number of tokens that does not end it, 503 if
    /// the node cannot be told now.
    pub async fn cut(&self, task: TaskId, signed: SignedCancellation) -> Result<(), ApiError> {
        let carrying = self.carried.get(task).ok_or_else(|| not_carried(task))?;
        let Carrying { node, request, signature } = carrying;
        let (chain_id, queue) = (self.scope.chain_id, self.scope.queue);
        let holder = request.signer(chain_id, queue, &signature).ok();
        let cancellation = Cancellation::new(task, signed.tokens);
        let signer = cancellation.signer(chain_id, queue, &signed.signature).ok();
        if signer.is_none() || signer != holder {
            let message = "the signature is not that of whoever signed the request: sign Cancellation(taskId, tokens) with the key of the lane's holder";
            return Err(
                ApiError::refused(StatusCode::FORBIDDEN, "wrong_signer", message).of_task(task)
            );
        }
        let (heard, answer) = oneshot::channel();
        self.hub.cut(node, Cut { task, signed, heard });
        let Ok(outcome) = answer.await else {
            let message = "the node's connection is lost or does not keep up: send the cancellation again in a moment";
            return Err(ApiError::unavailable("node_away", message, 1).of_task(task));
        };
        outcome.map_err(|why| not_cut(task, why))
    }

    /// The node that the queue gives the request to.
    fn bearer(&self, ask: &Ask, request: &TaskRequest) -> Result<NodeId, ApiError> {
        let session = SessionId(request.sessionId);
        let (model, reservation) =
            self.ledger.book().reservation(session, request.seedRound).ok_or_else(|| {
                let message = format!(
                    "session {session} has no reservation {} whose seed is known here: wait until it is active, and sign for its current one",
                    request.seedRound
                );
                ApiError::invalid("request.seedRound", "unknown_session", message)
            })?;
        if model != ask.model.model_id {
            let message =
                format!("session {session} is for another model than {:?}", ask.model.name);
            return Err(ApiError::invalid("model", "wrong_model", message));
        }
        first_node(&reservation, request).ok_or_else(|| {
            let message = format!("session {session} has not reserved node {}", request.nodeId);
            ApiError::invalid("request.nodeId", "not_reserved", message)
        })
    }
}

fn first_node(reservation: &Reservation, request: &TaskRequest) -> Option<NodeId> {
    let named = NodeId(request.nodeId);
    let first = nodes_of(reservation, request).first().copied()?;
    (named.0 == 0 || named == first).then_some(first)
}

fn not_carried(task: TaskId) -> ApiError {
    let message = "no signed request of this task is being answered here: it is over, or another router carries it";
    ApiError::refused(StatusCode::NOT_FOUND, "task_not_found", message).of_task(task)
}

fn not_cut(task: TaskId, why: NotCut) -> ApiError {
    let (code, message) = match why {
        NotCut::Over => return not_carried(task),
        NotCut::NotSent { sent: 0 } => {
            ("too_many_tokens", "the node has sent no token yet: wait for the first".to_owned())
        }
        NotCut::NotSent { sent } => (
            "too_many_tokens",
            format!("the node has sent {sent} tokens so far: sign for at most so many"),
        ),
        NotCut::TooLate { sent } => (
            "too_few_tokens",
            format!(
                "the node has sent {sent} tokens, and gives away {CANCEL_SLACK_TOKENS} of them at most: sign for {sent}"
            ),
        ),
    };
    let refused = ApiError::refused(StatusCode::CONFLICT, code, message);
    ApiError { param: Some("tokens".into()), ..refused }.of_task(task)
}

/// What whoever waits for the answer is told.
pub(super) fn cancelled(tokens: u32) -> ApiError {
    let message = format!(
        "the holder of the lane has ended this answer after {tokens} tokens: the chain shows what of it the node commits"
    );
    ApiError::refused(StatusCode::CONFLICT, "cancelled", message)
}

/// What a node's refusal means to whoever signed the request.
fn declined(code: &str, message: &str) -> Reply {
    if TOO_LONG.contains(&code) {
        return Reply::Never(ApiError::invalid("block", "context_length_exceeded", message));
    }
    if SIGNERS_FAULTS.contains(&code) {
        return Reply::Never(ApiError::invalid("request", code, message));
    }
    let message =
        format!("the node declined ({code}: {message}): sign the request for another one");
    Reply::NotThis(ApiError::unavailable("node_declined", message, 2))
}
