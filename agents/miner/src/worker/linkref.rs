//! The sending side of a connection, as the worker sees it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use assay_types::{Address, link::FromMiner};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::Outlet;

/// A connection whose router's key is proven. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct LinkRef {
    pub router: Address,
    /// Frames that belong to no outlet.
    frames: mpsc::Sender<FromMiner>,
    /// Ends the connection: its router does not read.
    overrun: CancellationToken,
    turns: Arc<Turns>,
}

/// Outlets that have something to say; each is in it at most once.
#[derive(Debug, Default)]
struct Turns {
    /// `None` once the connection is gone.
    queue: Mutex<Option<VecDeque<Outlet>>>,
    bell: Notify,
}

impl LinkRef {
    pub(crate) fn new(
        router: Address,
        frames: mpsc::Sender<FromMiner>,
        overrun: CancellationToken,
    ) -> Self {
        let turns = Turns { queue: Mutex::new(Some(VecDeque::new())), bell: Notify::new() };
        Self { router, frames, overrun, turns: Arc::new(turns) }
    }

    /// Whether this is the same connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.turns, &other.turns)
    }

    /// Puts a frame into the connection's buffer; a router that lets it run full is disconnected.
    pub(crate) fn send(&self, frame: FromMiner) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.frames.try_send(frame) {
            tracing::warn!(router = %self.router, "router reads too slowly: disconnecting");
            self.overrun.cancel();
        }
    }

    /// The outlet has something to say.
    pub(crate) fn ready(&self, outlet: &Outlet) {
        if let Some(queue) = &mut *self.turns.queue.lock().unwrap_or_else(PoisonError::into_inner) {
            queue.push_back(outlet.clone());
            self.turns.bell.notify_one();
        }
    }

    /// The outlet whose turn it is.
    pub(crate) async fn next(&self) -> Outlet {
        loop {
            if let Some(outlet) = self.try_next() {
                return outlet;
            }
            self.turns.bell.notified().await;
        }
    }

    /// The same, if there is one now.
    pub(crate) fn try_next(&self) -> Option<Outlet> {
        self.turns.queue.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.pop_front()
    }

    /// The connection is gone: outlets keep what they have to say for the next one.
    pub(crate) fn close(&self) {
        *self.turns.queue.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_router_that_does_not_read_is_disconnected_when_the_buffer_is_full() {
        let (frames, mut queue) = mpsc::channel(2);
        let overrun = CancellationToken::new();
        let link = LinkRef::new(Address::ZERO, frames, overrun.clone());
        for seq in 0..2 {
            link.send(FromMiner::Pong { seq });
            assert!(!overrun.is_cancelled());
        }
        link.send(FromMiner::Pong { seq: 2 });
        assert!(overrun.is_cancelled());
        // Nothing of what was taken is lost or out of order.
        for seq in 0..2 {
            assert_eq!(queue.recv().await, Some(FromMiner::Pong { seq }));
        }
        // A connection that is gone is no overrun.
        let (frames, queue) = mpsc::channel(1);
        drop(queue);
        let overrun = CancellationToken::new();
        LinkRef::new(Address::ZERO, frames, overrun.clone()).send(FromMiner::Drain);
        assert!(!overrun.is_cancelled());
    }
}
