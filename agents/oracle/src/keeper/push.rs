//! What the keeper calls, and what its calls bring.

use alloy::primitives::B256;
use assay_bindings::ProofOfInference::{Audit, Party};
use assay_bindings::SessionQueue::{Answer, Task};

/// What the keeper does. Where there is not room for all, the first of them come first: rounds, on which validators and
/// panels wait, and audits, whose moves have an end; what pays nobody but others comes last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Push {
    /// `RandomBeacon.reveal(round, ..)`.
    Reveal(u64),
    /// `ProofOfInference.closeEpoch(epoch)`.
    CloseEpoch(u64),
    /// `ProofOfInference.convene(audit)` of a task's answer by a node.
    Convene(B256, u32),
    /// `ProofOfInference.judge(audit, parties)`: decides, or executes what was decided and not appealed.
    Judge(B256, u32),
    /// `ProofOfInference.reconvene(audit, parties)`.
    Reconvene(B256, u32),
    /// `ProofOfInference.advanceAudit(audit)`.
    AdvanceAudit(B256, u32),
    /// `ProofOfInference.advancePanel(audit, parties)`.
    AdvancePanel(B256, u32),
    /// `Session.activate(session)`.
    Activate(u64),
    /// `Session.rotate(session, lane)`.
    Rotate(u64, u32),
    /// `Session.expire(session)`.
    Expire(u64),
    /// `Session.finish(session)`.
    Finish(u64),
    /// `Session.finishReclaim(session, lane)`.
    FinishReclaim(u64, u32),
    /// `SessionQueue.advance(task)`.
    Advance(B256),
    /// `SessionQueue.deliver(task, answer)`.
    Deliver(B256),
    /// `ProofOfInference.collect(audit)`.
    Collect(B256, u32),
    /// `SessionQueue.settle(tasks)`, which draws those of their answers that are to be audited.
    Draw(Vec<B256>),
    /// `SessionQueue.settle(tasks)`, which ends them.
    Settle(Vec<B256>),
}

impl Push {
    /// Name for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reveal(_) => "reveal",
            Self::CloseEpoch(_) => "close_epoch",
            Self::Convene(..) => "convene",
            Self::Judge(..) => "judge",
            Self::Reconvene(..) => "reconvene",
            Self::AdvanceAudit(..) => "advance_audit",
            Self::AdvancePanel(..) => "advance_panel",
            Self::Activate(_) => "activate",
            Self::Rotate(..) => "rotate",
            Self::Expire(_) => "expire",
            Self::Finish(_) => "finish",
            Self::FinishReclaim(..) => "finish_reclaim",
            Self::Advance(_) => "advance",
            Self::Deliver(_) => "deliver",
            Self::Collect(..) => "collect",
            Self::Draw(_) => "draw",
            Self::Settle(_) => "settle",
        }
    }

    /// The push of each task alone, as attempts are counted.
    pub(super) fn singles(&self) -> Vec<Self> {
        match self {
            Self::Draw(tasks) => tasks.iter().map(|task| Self::Draw(vec![*task])).collect(),
            Self::Settle(tasks) => tasks.iter().map(|task| Self::Settle(vec![*task])).collect(),
            other => vec![other.clone()],
        }
    }
}

/// What a call brings, as it stands now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Brought {
    /// Tasks.
    pub tasks: Vec<Task>,
    /// The answer that a client is told.
    pub answer: Option<Box<Answer>>,
    /// The audit that is moved.
    pub audit: Option<Box<Audit>>,
    /// The parties of its dispute.
    pub parties: Vec<Party>,
    /// Its state: an audit does not tell it, and the same call may be made in two of them.
    pub audit_state: u8,
    /// Answers that are to be drawn: task and node.
    pub exposed: Vec<(B256, u32)>,
}
