//! Counters of one miner: for `/metrics` and for its handle.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use assay_types::NodeId;
use serde::Serialize;

use crate::intake::Earnings;

/// Label of every metric of a miner.
const AGENT: &str = "miner";

/// What a miner has done since it was started, and what it does now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MinerStatus {
    /// Its node.
    pub node_id: NodeId,
    /// Routers that it is connected to.
    pub links: u64,
    /// Tasks that run now.
    pub running: u64,
    /// Answers made.
    pub served: u64,
    /// Tokens generated.
    pub tokens: u64,
    /// Tasks declined before they were taken, by code.
    pub declined: BTreeMap<String, u64>,
    /// Tasks that failed after they were taken, by code.
    pub failed: BTreeMap<String, u64>,
    /// Tasks that the chain gave to this node and took back at its word, by the code of its reason.
    pub handed_back: BTreeMap<String, u64>,
    /// What the chain's events told of this node, by name: `claimed`, `took_over`, `precommitted`, `committed`, `opened`,
    /// `silent`, `unrevealed`, `disproved`, and `unknown_answers`, which this node's database does not know.
    pub events: BTreeMap<String, u64>,
    /// Tasks of this node that were settled, in its database's whole life.
    pub settled: u64,
    /// What they earned, minor units of COR.
    pub earned: u128,
    /// What became of audits, since the start, by name. Of its own answers: `exposed`, `not_audited`, `audited`,
    /// `passed`, `unverified`, `accused`, `acquitted`, `convicted`, `void`, `disproved`. Of others' answers: `drawn`,
    /// `panels`, `found_true`, `found_false`. And `missed` duties, and `slashed`.
    pub audits: BTreeMap<String, u64>,
    /// Duties of audits that it has now.
    pub duties: u64,
    /// What audits of others' answers earned since the start, minor units.
    pub audit_pay: u128,
    /// Stake that was taken since the start, minor units of COR.
    pub slashed: u128,
    /// The last that became of an audit, in words.
    pub last_audit: Option<String>,
    /// The last thing that went wrong, if anything did.
    pub last_error: Option<String>,
}

/// Shared by the miner's services.
#[derive(Debug)]
pub struct Stats {
    node: NodeId,
    label: String,
    links: AtomicU64,
    running: AtomicU64,
    served: AtomicU64,
    tokens: AtomicU64,
    duties: AtomicU64,
    rest: Mutex<Rest>,
}

#[derive(Debug, Default)]
struct Rest {
    declined: BTreeMap<&'static str, u64>,
    failed: BTreeMap<&'static str, u64>,
    handed_back: BTreeMap<String, u64>,
    events: BTreeMap<&'static str, u64>,
    earnings: Earnings,
    audits: BTreeMap<&'static str, u64>,
    audit_pay: u128,
    slashed: u128,
    last_audit: Option<String>,
    last_error: Option<String>,
}

impl Stats {
    /// Zeroes for `node`.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            label: node.to_string(),
            links: AtomicU64::default(),
            running: AtomicU64::default(),
            served: AtomicU64::default(),
            tokens: AtomicU64::default(),
            duties: AtomicU64::default(),
            rest: Mutex::default(),
        }
    }

    /// All of it.
    pub fn status(&self) -> MinerStatus {
        let owned = |map: &BTreeMap<&'static str, u64>| {
            map.iter().map(|(code, count)| ((*code).to_owned(), *count)).collect()
        };
        let rest = self.rest();
        MinerStatus {
            node_id: self.node,
            links: self.links.load(Ordering::Relaxed),
            running: self.running.load(Ordering::Relaxed),
            served: self.served.load(Ordering::Relaxed),
            tokens: self.tokens.load(Ordering::Relaxed),
            declined: owned(&rest.declined),
            failed: owned(&rest.failed),
            handed_back: rest.handed_back.clone(),
            events: owned(&rest.events),
            settled: rest.earnings.count,
            earned: rest.earnings.sum,
            audits: owned(&rest.audits),
            duties: self.duties.load(Ordering::Relaxed),
            audit_pay: rest.audit_pay,
            slashed: rest.slashed,
            last_audit: rest.last_audit.clone(),
            last_error: rest.last_error.clone(),
        }
    }

    pub(crate) fn link_up(&self) {
        let links = self.links.fetch_add(1, Ordering::Relaxed) + 1;
        metrics::gauge!("assay_miner_links", "agent" => AGENT, "node" => self.label.clone())
            .set(links as f64);
    }

    /// Returns how many are left.
    pub(crate) fn link_down(&self) -> u64 {
        let links = self.links.fetch_sub(1, Ordering::Relaxed).saturating_sub(1);
        metrics::gauge!("assay_miner_links", "agent" => AGENT, "node" => self.label.clone())
            .set(links as f64);
        links
    }

    pub(crate) fn set_running(&self, running: usize) {
        self.running.store(running as u64, Ordering::Relaxed);
        metrics::gauge!("assay_miner_running", "agent" => AGENT, "node" => self.label.clone())
            .set(running as f64);
    }

    pub(crate) fn token(&self) {
        self.tokens.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("assay_miner_tokens_total", "agent" => AGENT, "node" => self.label.clone()).increment(1);
    }

    pub(crate) fn served(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("assay_miner_tasks_total", "agent" => AGENT, "node" => self.label.clone()).increment(1);
    }

    pub(crate) fn declined(&self, code: &'static str) {
        *self.rest().declined.entry(code).or_default() += 1;
        metrics::counter!("assay_miner_declined_total", "agent" => AGENT, "node" => self.label.clone(), "code" => code)
            .increment(1);
    }

    pub(crate) fn failed(&self, code: &'static str) {
        *self.rest().failed.entry(code).or_default() += 1;
        metrics::counter!("assay_miner_failed_total", "agent" => AGENT, "node" => self.label.clone(), "code" => code)
            .increment(1);
    }

    /// The chain took a task back, for the reason of this code.
    pub(crate) fn handed_back(&self, code: &str) {
        *self.rest().handed_back.entry(code.to_owned()).or_default() += 1;
        metrics::counter!("assay_miner_handed_back_total", "agent" => AGENT, "node" => self.label.clone(), "code" => code.to_owned())
            .increment(1);
    }

    /// An event of the chain, by its name in [`MinerStatus::events`].
    pub(crate) fn count(&self, event: &'static str) {
        *self.rest().events.entry(event).or_default() += 1;
        metrics::counter!("assay_miner_events_total", "agent" => AGENT, "node" => self.label.clone(), "event" => event)
            .increment(1);
    }

    pub(crate) fn set_earned(&self, earnings: Earnings) {
        self.rest().earnings = earnings;
        metrics::gauge!("assay_miner_earned_cor", "agent" => AGENT, "node" => self.label.clone())
            .set(earnings.sum as f64 / 1e18);
        metrics::gauge!("assay_miner_settled", "agent" => AGENT, "node" => self.label.clone())
            .set(earnings.count as f64);
    }

    /// Something that became of an audit, by its name in [`MinerStatus::audits`].
    pub(crate) fn audit(&self, what: &'static str) {
        *self.rest().audits.entry(what).or_default() += 1;
        metrics::counter!("assay_miner_audits_total", "agent" => AGENT, "node" => self.label.clone(), "what" => what)
            .increment(1);
    }

    /// The same, in words, with the stake that it cost (minor units).
    pub(crate) fn audit_told(&self, what: &'static str, text: String, slashed: u128) {
        self.audit(what);
        let mut rest = self.rest();
        rest.slashed = rest.slashed.saturating_add(slashed);
        rest.last_audit = Some(text);
        metrics::gauge!("assay_miner_slashed_cor", "agent" => AGENT, "node" => self.label.clone())
            .set(rest.slashed as f64 / 1e18);
    }

    pub(crate) fn audit_paid(&self, pay: u128) {
        let mut rest = self.rest();
        rest.audit_pay = rest.audit_pay.saturating_add(pay);
        metrics::gauge!("assay_miner_audit_pay_cor", "agent" => AGENT, "node" => self.label.clone())
            .set(rest.audit_pay as f64 / 1e18);
    }

    pub(crate) fn set_duties(&self, duties: usize) {
        self.duties.store(duties as u64, Ordering::Relaxed);
        metrics::gauge!("assay_miner_duties", "agent" => AGENT, "node" => self.label.clone())
            .set(duties as f64);
    }

    pub(crate) fn error(&self, error: impl ToString) {
        self.rest().last_error = Some(error.to_string());
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        // Counters are whole after a panic elsewhere.
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
