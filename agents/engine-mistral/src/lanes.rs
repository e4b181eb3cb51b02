//! Lanes: copies of the loaded model, each of which runs one generation at a time.
//!
//! mistral.rs batches sequences of equal length, and its attention on CPUs (0.8.1,
//! `flash_attn_cpu_single_q`) keeps one scratch row per head, not per sequence: in a batch of several,
//! all go on with the attention of the last. Nothing in its configuration prevents such a batch, so a
//! lane never holds two sequences. A generation gives its lane back when mistral.rs has dropped its
//! sequence, not when its client has gone.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use assay_engine::EngineError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Which lanes are free.
pub(crate) struct Lanes {
    free: Mutex<VecDeque<usize>>,
    permits: Arc<Semaphore>,
}

/// One lane, until it is dropped.
pub(crate) struct LaneGuard {
    lanes: Arc<Lanes>,
    index: usize,
    /// Released after the lane is back in the list.
    _permit: OwnedSemaphorePermit,
}

impl Lanes {
    pub(crate) fn new(count: usize) -> Arc<Self> {
        let free = Mutex::new((0..count).collect());
        Arc::new(Self { free, permits: Arc::new(Semaphore::new(count)) })
    }

    /// The lane that has been free longest; waits for one in the order of calls.
    pub(crate) async fn take(self: &Arc<Self>) -> Result<LaneGuard, EngineError> {
        let closed = || EngineError::Stopped("it has no free lane".into());
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| closed())?;
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let index = free.pop_front().ok_or_else(closed)?;
        Ok(LaneGuard { lanes: self.clone(), index, _permit: permit })
    }
}

impl LaneGuard {
    pub(crate) fn index(&self) -> usize {
        self.index
    }
}

impl Drop for LaneGuard {
    fn drop(&mut self) {
        let mut free = self.lanes.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push_back(self.index);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_lane_is_held_once_and_comes_back() {
        let lanes = Lanes::new(2);
        let one = lanes.take().await.unwrap();
        let two = lanes.take().await.unwrap();
        assert_ne!(one.index(), two.index());
        assert!(lanes.take().now_or_never().is_none());
        let freed = one.index();
        drop(one);
        assert_eq!(lanes.take().await.unwrap().index(), freed);
        drop(two);
    }
}
