//! Whether an agent can serve, and why not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

/// Condition that [`Health::set_ready`] sets.
const AGENT_CONDITION: &str = "agent";

/// Readiness of one agent; clones share it. An agent is ready when none of its conditions is failing.
#[derive(Debug, Clone)]
pub struct Health {
    agent: Arc<str>,
    conditions: Arc<Mutex<BTreeMap<&'static str, String>>>,
    ready: Arc<watch::Sender<bool>>,
}

/// Answer of `/ready`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Name of the agent.
    pub agent: String,
    /// True if it takes work.
    pub ready: bool,
    /// Failing conditions, each with its reason; empty if ready.
    pub reasons: BTreeMap<&'static str, String>,
}

impl Health {
    /// Not ready, for the reason "starting", until told otherwise.
    pub fn new(agent: impl Into<Arc<str>>) -> Self {
        let starting = BTreeMap::from([(AGENT_CONDITION, "starting".to_string())]);
        Self {
            agent: agent.into(),
            conditions: Arc::new(Mutex::new(starting)),
            ready: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Name of the agent.
    pub fn agent(&self) -> &str {
        &self.agent
    }

    /// Says whether the agent itself is ready; `reason` says why not (ignored if it is).
    pub fn set_ready(&self, ready: bool, reason: impl Into<String>) {
        if ready {
            self.satisfy(AGENT_CONDITION);
        } else {
            self.fail(AGENT_CONDITION, reason);
        }
    }

    /// A named condition fails: the agent is not ready until it is satisfied.
    pub fn fail(&self, condition: &'static str, reason: impl Into<String>) {
        let mut conditions = self.lock();
        conditions.insert(condition, reason.into());
        self.ready.send_if_modified(|ready| std::mem::replace(ready, false));
    }

    /// A named condition holds again.
    pub fn satisfy(&self, condition: &'static str) {
        let mut conditions = self.lock();
        conditions.remove(condition);
        let now = conditions.is_empty();
        self.ready.send_if_modified(|ready| std::mem::replace(ready, now) != now);
    }

    /// Ready or not, and why not.
    pub fn readiness(&self) -> Readiness {
        let reasons = self.lock().clone();
        Readiness { agent: self.agent.to_string(), ready: reasons.is_empty(), reasons }
    }

    /// True if no condition fails.
    pub fn is_ready(&self) -> bool {
        self.lock().is_empty()
    }

    /// Waits until the agent is ready.
    pub async fn wait_ready(&self) {
        let mut ready = self.ready.subscribe();
        // The sender lives in `self`: this cannot fail while we wait.
        let _ = ready.wait_for(|ready| *ready).await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        // A map of texts is whole after a panic elsewhere.
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
