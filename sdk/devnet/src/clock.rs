//! Where the chain takes its time from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A clock that stands still until it is moved: for tests that own their time.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that shows this time, in unix seconds.
    pub fn new(now_s: u64) -> Self {
        Self(Arc::new(AtomicU64::new(now_s)))
    }

    /// Moves the clock forward. All copies of this clock move.
    pub fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Time shown, in unix seconds.
    pub fn now_s(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Where the chain takes its time from.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The clock of the machine.
    #[default]
    System,
    /// A clock that a test moves.
    Manual(ManualClock),
}

impl Clock {
    /// Time now, in unix seconds.
    pub fn now_s(&self) -> u64 {
        match self {
            Self::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map(|d| d.as_secs())
                .unwrap_or_default(),
            Self::Manual(clock) => clock.now_s(),
        }
    }
}
