//! Finds room for a request on a node. While there is none, requests wait, and keys take turns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use assay_types::NodeId;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    dispatch::{Dispatcher, no_session},
    telemetry,
    turns::Turns,
};
use crate::{
    book::state::{Need, SessionView},
    clock::now_s,
    config::{MAX_WAITING, QUEUE_TIMEOUT},
    http::{ask::Ask, error::ApiError},
    link::hub::{Choice, NoNode, Slot},
};

/// A session and room on one of its nodes.
type Place = (Arc<SessionView>, Slot);

/// A request that waits for room.
#[derive(Debug)]
struct Waiter {
    need: Need,
    model: String,
    tried: Vec<NodeId>,
    /// The node that answered the conversation's turn before.
    familiar: Option<NodeId>,
    /// Where it is told, until it is; closed if nobody waits any more.
    found: Option<oneshot::Sender<Result<Place, ApiError>>>,
}

/// Requests that wait for room.
#[derive(Debug)]
pub struct WaitingRoom {
    turns: Mutex<Turns<Waiter>>,
    /// Somebody waits from now on.
    joined: Notify,
}

impl Default for WaitingRoom {
    fn default() -> Self {
        Self { turns: Mutex::new(Turns::new(MAX_WAITING)), joined: Notify::new() }
    }
}

impl WaitingRoom {
    fn turns(&self) -> MutexGuard<'_, Turns<Waiter>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.turns().is_empty()
    }
}

impl Dispatcher {
    /// A session and room on one of its nodes; waits while all are busy, if it may.
    pub(super) async fn place(
        &self,
        ask: &Ask,
        deadline: u64,
        (tried, may_wait): (&[NodeId], bool),
    ) -> Result<Place, ApiError> {
        let need = Need {
            model: ask.model.model_id,
            tokens: (ask.max_prompt, ask.max_output),
            redundancy: ask.redundancy,
            deadline,
        };
        let (found, told) = oneshot::channel();
        let waiter = Waiter {
            need,
            model: ask.model.name.clone(),
            tried: tried.to_vec(),
            familiar: self.conversations.familiar(ask),
            found: Some(found),
        };
        let nobody_waits = self.waiting.is_empty();
        if nobody_waits && let Some(place) = self.try_place(&waiter)? {
            return Ok(place);
        }
        if !may_wait {
            return Err(busy());
        }
        let key = ask.key.as_ref().map(|key| key.id.as_str());
        let is_room = {
            let mut turns = self.waiting.turns();
            turns.retain(Waiter::waits);
            turns.join(key, waiter)
        };
        if !is_room {
            return Err(busy());
        }
        let since = Instant::now();
        // It looks at what was freed since the first look.
        self.waiting.joined.notify_one();
        let told = timeout(QUEUE_TIMEOUT, told).await;
        telemetry::queued(since.elapsed());
        match told {
            Ok(Ok(place)) => place,
            // It took too long, or the room filled up and others have less in it.
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }

    /// Gives turns whenever room is freed, until `stop`. While nobody waits, what is freed wakes nobody.
    pub async fn serve_waiting(&self, stop: CancellationToken) {
        let serve = async {
            loop {
                self.waiting.joined.notified().await;
                while !self.waiting.is_empty() {
                    let mut freed = std::pin::pin!(self.hub.freed());
                    // Counts what is freed between the look and the wait.
                    freed.as_mut().enable();
                    self.give_turns();
                    tokio::select! {
                        () = freed => {}
                        () = self.waiting.joined.notified() => {}
                    }
                }
            }
        };
        tokio::select! {
            () = serve => {}
            () = stop.cancelled() => {}
        }
    }

    fn give_turns(&self) {
        self.waiting.turns().give(|waiter| {
            if !waiter.waits() {
                return true;
            }
            let place = match self.try_place(waiter) {
                Ok(None) => return false,
                Ok(Some(place)) => Ok(place),
                Err(error) => Err(error),
            };
            // A place that nobody takes is free again.
            if let Some(found) = waiter.found.take() {
                let _ = found.send(place);
            }
            true
        });
    }

    fn try_place(&self, waiter: &Waiter) -> Result<Option<Place>, ApiError> {
        let Waiter { need, model, tried, familiar, .. } = waiter;
        let mut book = self.ledger.book();
        let now = book.now_s(now_s());
        let candidates =
            book.candidates(need, now).map_err(|unready| no_session(unready, model))?;
        drop(book);
        let mut busy = false;
        for session in candidates {
            let nodes =
                session.serving(need.deadline).map(|reservation| reservation.nodes.as_slice());
            let nodes = nodes.unwrap_or_default();
            match self.hub.reserve(&Choice { nodes, tried, familiar: *familiar }) {
                Ok(slot) => return Ok(Some((session, slot))),
                Err(NoNode::Busy) => busy = true,
                Err(NoNode::Disconnected) => {}
            }
        }
        if busy {
            return Ok(None);
        }
        Err(no_miner(model))
    }
}

pub(super) fn no_miner(model: &str) -> ApiError {
    ApiError::unavailable(
        "no_miner",
        format!(
            "no miner of a session for {model:?} is connected: wait until one is, or look at the miners' logs"
        ),
        5,
    )
}

pub(super) fn busy() -> ApiError {
    let message = "all nodes of this model are busy: send the request again in a moment";
    ApiError::limited("no_capacity", message, 2)
}

impl Waiter {
    fn waits(&self) -> bool {
        self.found.as_ref().is_some_and(|found| !found.is_closed())
    }
}
