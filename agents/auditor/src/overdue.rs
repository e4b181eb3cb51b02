//! What anybody may move on, and nobody has: the protocol waits for nobody, but somebody must call.

use alloy::primitives::B256;
use assay_protocol::state::AuditState;
use assay_protocol::{State, TaskState};

/// So long after its time, in seconds, nothing should stand still: an oracle acts within seconds, and a busy chain takes
/// its transactions within minutes.
const GRACE_S: u64 = 300;

/// Something whose time is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overdue {
    pub(crate) task: B256,
    /// The node whose answer is to be proven, if it is that.
    pub(crate) node: Option<u32>,
    /// Unix seconds; since when it could be moved on.
    pub(crate) since_s: u64,
    /// What it waits for.
    pub(crate) what: &'static str,
}

/// What could have been moved on long before `now_s`, longest first.
pub(crate) fn overdue(state: &State, now_s: u64) -> Vec<Overdue> {
    let is_late = |until_s: u64| until_s > 0 && until_s.saturating_add(GRACE_S) < now_s;
    let mut found = Vec::new();
    for (id, entry) in state.tasks.iter().filter(|(_, entry)| is_late(entry.record.until_s)) {
        let in_proof = entry.record.task.parts.iter().any(|part| {
            let standing = state.proofs.answers.get(&(*id, part.nodeId));
            standing.is_some_and(|standing| standing.state < AuditState::Passed)
        });
        let what = match entry.record.state {
            TaskState::Queued | TaskState::Assigned => "`advance`: nobody answered in time",
            TaskState::Precommitted => "`advance`: an answer was not opened in time",
            TaskState::Committed if !in_proof => "`settle`",
            _ => continue,
        };
        found.push(Overdue { task: *id, node: None, since_s: entry.record.until_s, what });
    }
    for ((task, node), standing) in &state.proofs.answers {
        // Before an audit is drawn, and after it, the task's own time counts.
        let waits = standing.state > AuditState::Cleared && standing.state < AuditState::Passed;
        if waits && is_late(standing.until_s) {
            let (node, since_s) = (Some(*node), standing.until_s);
            let what = "the next step of its audit";
            found.push(Overdue { task: *task, node, since_s, what });
        }
    }
    found.sort_by_key(|overdue| overdue.since_s);
    found
}

impl Overdue {
    pub(crate) fn words(&self, now_s: u64) -> String {
        let Self { task, node, since_s, what } = self;
        let subject = match node {
            Some(node) => format!("the answer of node {node} to task {task}"),
            None => format!("task {task}"),
        };
        format!(
            "{subject} waits since second {since_s}, for {} s, for {what}; anyone may call it, and `assay oracle` does",
            now_s.saturating_sub(*since_s)
        )
    }
}
