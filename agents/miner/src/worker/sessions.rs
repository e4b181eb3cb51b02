//! What does not change in a session, read once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use assay_types::{Address, B256, Lane, SessionId};

use crate::ledger::{Ledger, LedgerError, SessionView};

/// Sessions and lanes that are remembered: far above what a node of eight places is reserved for.
const MAX_CACHED: usize = 4096;

/// Reads sessions, and remembers them once they are active: from then on their nodes, prices, seed and
/// lanes stand. That a session is drained or closed since is for the chain to refuse.
pub(crate) struct Sessions {
    ledger: Arc<dyn Ledger>,
    views: Mutex<HashMap<SessionId, (Arc<SessionView>, B256)>>,
    lanes: Mutex<HashMap<(SessionId, Lane), Address>>,
}

fn remember<K: std::hash::Hash + Eq, V>(map: &Mutex<HashMap<K, V>>, key: K, value: V) {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    if map.len() >= MAX_CACHED {
        map.clear();
    }
    map.insert(key, value);
}

fn recall<K: std::hash::Hash + Eq, V: Clone>(map: &Mutex<HashMap<K, V>>, key: &K) -> Option<V> {
    map.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
}

impl Sessions {
    pub(crate) fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger, views: Mutex::default(), lanes: Mutex::default() }
    }

    /// The session and the seed of its tasks (zero while unknown); `None` if there is no such session.
    pub(crate) async fn get(
        &self,
        session: SessionId,
    ) -> Result<Option<(Arc<SessionView>, B256)>, LedgerError> {
        if let Some(known) = recall(&self.views, &session) {
            return Ok(Some(known));
        }
        let (view, seed) =
            tokio::try_join!(self.ledger.session(session), self.ledger.seed(session))?;
        let Some(view) = view.map(Arc::new) else { return Ok(None) };
        if view.takes_tasks && !seed.is_zero() {
            remember(&self.views, session, (view.clone(), seed));
        }
        Ok(Some((view, seed)))
    }

    /// Who holds the lane.
    pub(crate) async fn holder(
        &self,
        session: SessionId,
        lane: Lane,
    ) -> Result<Option<Address>, LedgerError> {
        if let Some(known) = recall(&self.lanes, &(session, lane)) {
            return Ok(Some(known));
        }
        let holder = self.ledger.lane_holder(session, lane).await?;
        if let Some(holder) = holder {
            remember(&self.lanes, (session, lane), holder);
        }
        Ok(holder)
    }
}
