//! Requests that the holder of another lane has signed: they are passed on as they are, and their answers shown. What they
//! cost is between their holder and the node, which carries them to the chain with its answer.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use assay_types::{Bytes, NodeId, SessionId, Signature, TaskId, TaskRequest, link::Offer};
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
    link::hub::{Choice, NewTask, NoNode},
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
pub struct Carried(Arc<Mutex<HashSet<TaskId>>>);

/// One of them; dropped, it is under way no more.
#[derive(Debug)]
pub struct Carriage {
    carried: Carried,
    task: TaskId,
}

impl Carried {
    fn lock(&self) -> MutexGuard<'_, HashSet<TaskId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a task. `None` if it is under way: whoever sends its request a second time would take the answer away from
    /// the first.
    fn enter(&self, task: TaskId) -> Option<Carriage> {
        let is_new = self.lock().insert(task);
        is_new.then(|| Carriage { carried: self.clone(), task })
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
        let Some(carriage) = self.carried.enter(task) else {
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
