//! Values of beacon rounds, read once: they stand for ever.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use assay_types::B256;

use crate::ledger::{Ledger, LedgerError};

/// Rounds that are remembered: far above the reservations of a node of eight places.
const MAX_CACHED: usize = 4096;
/// How often a round that is not known yet is asked for.
const POLL: Duration = Duration::from_millis(500);

/// Reads rounds.
pub(crate) struct Seeds {
    ledger: Arc<dyn Ledger>,
    known: Mutex<HashMap<u64, B256>>,
}

impl Seeds {
    pub(crate) fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger, known: Mutex::default() }
    }

    /// The value of a round; zero while it is unknown.
    pub(crate) async fn get(&self, round: u64) -> Result<B256, LedgerError> {
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(&round).copied();
        if let Some(known) = known {
            return Ok(known);
        }
        let value = self.ledger.seed(round).await?;
        if !value.is_zero() {
            let mut known = lock();
            if known.len() >= MAX_CACHED {
                known.clear();
            }
            known.insert(round, value);
        }
        Ok(value)
    }

    /// The same, once it is known.
    pub(crate) async fn wait(&self, round: u64) -> B256 {
        loop {
            match self.get(round).await {
                Ok(value) if !value.is_zero() => return value,
                Ok(_) => {}
                Err(error) => tracing::warn!(round, %error, "a seed cannot be read yet"),
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
