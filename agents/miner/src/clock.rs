//! The chain's time.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A chain without new blocks for this long mines on demand: then its next block has about our time.
const IDLE_CHAIN: Duration = Duration::from_secs(10);

/// The time of the newest block, and what has passed since.
#[derive(Debug)]
pub struct ChainClock(Mutex<(u64, Instant)>);

impl ChainClock {
    /// A clock that starts at the time of a block (unix seconds).
    pub fn new(block_time_s: u64) -> Self {
        Self(Mutex::new((block_time_s, Instant::now())))
    }

    /// A newer block was seen.
    pub fn set(&self, block_time_s: u64) {
        *self.lock() = (block_time_s, Instant::now());
    }

    /// About what the next block's time will be: deadlines are measured against it.
    pub fn now_s(&self) -> u64 {
        let (block, seen) = *self.lock();
        block.saturating_add(seen.elapsed().as_secs())
    }

    /// A time that the chain has surely reached: what may not come too early waits for it.
    pub fn reached_s(&self) -> u64 {
        let (block, seen) = *self.lock();
        block.saturating_add(seen.elapsed().saturating_sub(IDLE_CHAIN).as_secs())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (u64, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_runs_on_between_blocks_and_a_settlement_waits_for_one() {
        let clock = ChainClock::new(100);
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!((clock.now_s(), clock.reached_s()), (104, 100));
        clock.set(103);
        assert_eq!((clock.now_s(), clock.reached_s()), (103, 103));
        // Nothing for long: the chain mines on demand.
        tokio::time::advance(Duration::from_secs(25)).await;
        assert_eq!((clock.now_s(), clock.reached_s()), (128, 118));
    }
}
