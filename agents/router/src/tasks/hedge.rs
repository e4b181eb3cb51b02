//! Asks a second node where the first one's first token is late.
//!
//! A task pays one node, so the second one gets a task of its own, with its own nonce and its own money held; whichever
//! speaks first is shown, and the other one is cancelled without fault. What that costs: the other task is on chain
//! mostly, so that it took the gas of a submission and of the node's decline, which gives all of its money back; should
//! its node have had the whole answer by then, it is paid, as for any client that hangs up too late. So few requests
//! are asked twice, and only where it is likely to help:
//!
//! A node that has not even answered the offer by then is not waited for beside the other one: its task is taken back,
//! and mostly is not on chain yet.
//!
//! - never after the first token, never for a redundant task, never a third time;
//! - after a time that few first tokens of the model take, as they were measured here, and that a client feels;
//! - only while nobody waits for a node: where all nodes are slow, more tasks make them slower;
//! - at most one for every [`TASKS_A_HEDGE`] tasks.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use futures::future::BoxFuture;
use tokio::time::timeout;

use super::{
    dispatch::{Dispatcher, Offered, Reply, Try, declined},
    running::{Piece, Running},
};
use crate::{
    http::{ask::Ask, error::ApiError},
    link::hub::Choice,
};

/// Tasks for each that may be asked twice.
const TASKS_A_HEDGE: u32 = 10;
/// Hedges that may be saved up: a node that hangs is noticed by all who wait for it at once.
const MAX_SAVED: u32 = 8;

/// Another node's try, until it has said something.
pub(super) type Rival = BoxFuture<'static, Option<(Box<Running>, Piece)>>;

/// How many requests may be asked twice.
#[derive(Debug)]
pub struct Hedges {
    /// Tasks since the last ones, as many as count.
    earned: AtomicU32,
}

impl Default for Hedges {
    fn default() -> Self {
        Self { earned: AtomicU32::new(TASKS_A_HEDGE) }
    }
}

impl Hedges {
    /// A task was begun.
    pub fn earn(&self) {
        let most = TASKS_A_HEDGE * MAX_SAVED;
        // A failed update means that all are earned.
        let _ = self.earned.fetch_update(Relaxed, Relaxed, |had| (had < most).then_some(had + 1));
    }

    /// Takes one, if there is one.
    pub fn take(&self) -> bool {
        self.earned.fetch_update(Relaxed, Relaxed, |had| had.checked_sub(TASKS_A_HEDGE)).is_ok()
    }
}

/// Asks another node, until its first words.
pub(super) fn rival(dispatcher: Arc<Dispatcher>, ask: Ask, wanted: Try) -> Rival {
    Box::pin(async move {
        let Ok(running) = dispatcher.begin_again(&ask, wanted).await else {
            count("refused");
            return None;
        };
        let mut running = Box::new(running);
        let piece = running.next().await.ok()?;
        Some((running, piece))
    })
}

impl Dispatcher {
    /// What the node says to the offer; `None` if it has not said anything when its first token would be late, and one of
    /// the others has room.
    pub(super) async fn timely(
        &self,
        ask: &Ask,
        offered: &mut Offered,
        others: &Choice<'_>,
    ) -> Option<Reply> {
        let (task, node) = (offered.task, offered.node);
        let late = self.paces.late_after(&ask.model.name);
        if let Some(late) = late.filter(|_| self.config.hedging && ask.redundancy == 1) {
            let reply = self.reply((task, node), &mut offered.events, declined);
            match timeout(late, reply).await {
                Ok(reply) => return Some(reply),
                Err(_) if self.hub.reserve(others).is_ok() && self.hedges.take() => {
                    count("passed_over");
                    return None;
                }
                Err(_) => {}
            }
        }
        Some(self.reply((task, node), &mut offered.events, declined).await)
    }
}

/// What becomes of a task whose node is late to answer the offer.
pub(super) fn late_offer() -> ApiError {
    let message =
        "the node had not answered the offer when its first token was due: another one was asked";
    ApiError::node("not_needed", message)
}

/// What becomes of a task that was asked of two nodes, at one of them.
pub(super) fn not_needed() -> ApiError {
    ApiError::node(
        "not_needed",
        "two nodes were asked, and the other one's first token came sooner",
    )
}

/// What became of a hedge.
pub(super) fn count(outcome: &'static str) {
    metrics::counter!("assay_router_hedges_total", "agent" => "router", "outcome" => outcome)
        .increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_in_ten_may_be_asked_twice_and_some_are_saved_up() {
        let hedges = Hedges::default();
        assert!(hedges.take() && !hedges.take(), "one to begin with");
        (1..TASKS_A_HEDGE).for_each(|_| hedges.earn());
        assert!(!hedges.take());
        hedges.earn();
        assert!(hedges.take() && !hedges.take());
        (0..1000).for_each(|_| hedges.earn());
        assert_eq!((0..1000).filter(|_| hedges.take()).count(), MAX_SAVED as usize);
    }
}
