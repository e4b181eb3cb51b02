//! What a miner is told.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::MinerError;

/// Most slots of a node: the contract's bound, which keeps the weights of a draw within a factor of 8.
pub const MAX_CAPACITY: u8 = 8;
/// Most tasks of one `settle`: the contract's bound.
pub const MAX_SETTLE_BATCH: usize = 64;
/// Most routers that one miner connects to: each is a connection and a buffer.
pub const MAX_ROUTERS: usize = 64;

/// Most examinations at once: more would only wait for one another in the engine.
pub const MAX_AUDITS: usize = 8;

/// Settings of one miner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MinerConfig {
    /// Routers to connect to, e.g. `ws://127.0.0.1:8080/link`. Without any, the miner serves tasks that
    /// are submitted on chain.
    pub router_urls: Vec<String>,
    /// Slots of the node in the draw, and tasks that it runs at once: 1 to [`MAX_CAPACITY`].
    pub capacity: u8,
    /// Folder of the database; one per miner.
    pub data: PathBuf,
    /// A generation without a new token for this long is given up.
    pub stall_timeout_ms: u64,
    /// Seconds after its time until a task is settled by us, so that no clock has to be exact.
    pub settle_margin_s: u64,
    /// Most tasks of one settlement: 1 to [`MAX_SETTLE_BATCH`].
    pub settle_batch: usize,
    /// Answers of other nodes that are examined at once: each is a prefill of its prompt and its tokens, beside what
    /// the node generates. 1 to [`MAX_AUDITS`].
    pub audits: usize,
    /// Whether this node's owner appeals where a panel found an answer false that the node's own model finds true: the
    /// bond is lost with an appeal that fails.
    pub appeals: bool,
}

impl Default for MinerConfig {
    fn default() -> Self {
        Self {
            router_urls: Vec::new(),
            capacity: 4,
            data: PathBuf::from("data/miner"),
            stall_timeout_ms: 60_000,
            settle_margin_s: 1,
            settle_batch: MAX_SETTLE_BATCH,
            audits: 1,
            appeals: true,
        }
    }
}

impl MinerConfig {
    /// Checks every bound.
    ///
    /// # Errors
    /// [`MinerError::Config`], which names the setting.
    pub fn check(&self) -> Result<(), MinerError> {
        let wrong = |what: String| Err(MinerError::Config(what));
        if !(1..=MAX_CAPACITY).contains(&self.capacity) {
            return wrong(format!("capacity is {}, set 1 to {MAX_CAPACITY}", self.capacity));
        }
        if !(1..=MAX_SETTLE_BATCH).contains(&self.settle_batch) {
            return wrong(format!(
                "settle_batch is {}, set 1 to {MAX_SETTLE_BATCH}",
                self.settle_batch
            ));
        }
        if !(1..=MAX_AUDITS).contains(&self.audits) {
            return wrong(format!("audits is {}, set 1 to {MAX_AUDITS}", self.audits));
        }
        if self.stall_timeout_ms == 0 {
            return wrong("stall_timeout_ms is 0, set the longest pause between two tokens".into());
        }
        if self.router_urls.len() > MAX_ROUTERS {
            return wrong(format!(
                "router_urls has {} entries, set at most {MAX_ROUTERS}",
                self.router_urls.len()
            ));
        }
        for url in &self.router_urls {
            if !url.starts_with("ws://") && !url.starts_with("wss://") {
                return wrong(format!(
                    "{url:?} in router_urls is no WebSocket address, write e.g. ws://127.0.0.1:8080/link"
                ));
            }
        }
        Ok(())
    }
}
