//! Audits of answers, as `ProofOfInference` stores them.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, B256};
use assay_bindings::ProofOfInference::{
    AnswerExposed, Audit, AuditMoved, BookChanged, ClassPaused, EpochClosed, Judged, PanelMoved,
    Party, RecordChanged,
};

use assay_proof::{CLUSTER_QUORUM, Reasons};

use super::{Gap, State, known};
use crate::{
    audit::Question,
    hearing::{MINER, missing_of, nodes_in, upheld_of},
    num::{amount, int},
};

/// Where the proof of an answer stands: `AuditState` of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum AuditState {
    /// Waits for the draw of its epoch.
    Exposed = 1,
    /// Not drawn; waits for the other answers of its task.
    Cleared = 2,
    /// The validator is to commit.
    Drawn = 3,
    /// The miner is to open.
    Sealed = 4,
    /// The validator is to open.
    Opened = 5,
    /// A panel is to be drawn.
    Accused = 6,
    /// The panel is to commit.
    Convened = 7,
    /// The parties are to open.
    Hearing = 8,
    /// True.
    Passed = 9,
    /// Nobody was there to look.
    Unverified = 10,
    /// Nobody could tell.
    Void = 11,
    /// False.
    Disproved = 12,
    /// The task has ended; validators are to be paid.
    Closed = 13,
}

impl TryFrom<u8> for AuditState {
    type Error = Gap;

    fn try_from(code: u8) -> Result<Self, Gap> {
        Ok(match code {
            1 => Self::Exposed,
            2 => Self::Cleared,
            3 => Self::Drawn,
            4 => Self::Sealed,
            5 => Self::Opened,
            6 => Self::Accused,
            7 => Self::Convened,
            8 => Self::Hearing,
            9 => Self::Passed,
            10 => Self::Unverified,
            11 => Self::Void,
            12 => Self::Disproved,
            13 => Self::Closed,
            other => return Err(Gap(format!("an audit's state {other} is not known"))),
        })
    }
}

/// What was fixed when an answer was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Its fee in COR, minor units.
    pub value: u128,
    /// Unix seconds.
    pub committed_at_s: u64,
    /// Places of the model's pool.
    pub slots: u32,
    /// Of its audit, hundredths of a percent.
    pub probability_bps: u16,
}

/// The proof of one answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Where it stands.
    pub state: AuditState,
    /// As committed.
    pub exposure: Exposure,
    /// Unix seconds; the last one of what is waited for.
    pub until_s: u64,
    /// Once a validator was drawn: what whoever moves the audit brings.
    pub audit: Option<Audit>,
    /// Those of a dispute.
    pub parties: Vec<Party>,
}

/// Everything that `ProofOfInference` stores.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proofs {
    /// By task and node: answers whose task has not ended, or whose validators are to be paid.
    pub answers: BTreeMap<(B256, u32), Standing>,
    /// Round and the time of its naming (unix seconds) by epoch.
    pub rounds: BTreeMap<u64, (u64, u64)>,
    /// By node and model: value that was audited and passed (COR), and the sum of margins (1/65536 nat).
    pub records: BTreeMap<(u32, u32), (u128, u32)>,
    /// Put aside for audits, by model and asset.
    pub books: BTreeMap<(u32, u8), u128>,
    /// Unix seconds by class; nobody of it is slashed by a verdict before.
    pub paused_until_s: BTreeMap<B256, u64>,
    /// The last epoch, by class, in which a verdict found somebody false, and whose nodes those were.
    pub failures: BTreeMap<B256, (u64, BTreeSet<Address>)>,
}

impl Proofs {
    /// Owners of a class whose nodes a verdict found false in an epoch.
    pub fn failed(&self, class: B256, epoch: u64) -> BTreeSet<Address> {
        let last = self.failures.get(&class).filter(|(of, _)| *of == epoch);
        last.map(|(_, owners)| owners.clone()).unwrap_or_default()
    }

    /// Fees of a node that are at stake, in COR.
    pub fn open_value(&self, node: u32) -> u128 {
        let of_node = self.answers.iter().filter(|((_, other), _)| *other == node);
        let open = of_node.filter(|(_, standing)| {
            standing.state != AuditState::Cleared && standing.state < AuditState::Passed
        });
        open.map(|(_, standing)| standing.exposure.value).sum()
    }

    fn standing(&mut self, task: B256, node: u32) -> Result<&mut Standing, Gap> {
        known(self.answers.get_mut(&(task, node)), "the exposed answer of node", node)
    }

    pub(super) fn exposed(&mut self, event: &AnswerExposed) {
        let exposure = Exposure {
            value: amount(event.value),
            committed_at_s: int(event.committedAt),
            slots: event.slots,
            probability_bps: event.probabilityBps,
        };
        let state = AuditState::Exposed;
        let standing = Standing { state, exposure, until_s: 0, audit: None, parties: Vec::new() };
        self.answers.insert((event.taskId, event.nodeId), standing);
    }

    pub(super) fn closed(&mut self, time_s: u64, event: &EpochClosed) {
        self.rounds.insert(int(event.epoch), (event.round, time_s));
    }

    pub(super) fn cleared(&mut self, task: B256, node: u32) -> Result<(), Gap> {
        self.standing(task, node)?.state = AuditState::Cleared;
        Ok(())
    }

    pub(super) fn moved(&mut self, event: &AuditMoved) -> Result<(), Gap> {
        let state = AuditState::try_from(event.state)?;
        let standing = self.standing(event.taskId, event.nodeId)?;
        // In the end the contract stores something else in the time's place.
        let until_s = if state < AuditState::Passed { int(event.until) } else { 0 };
        (standing.state, standing.until_s) = (state, until_s);
        standing.audit = Some(event.audit.clone());
        Ok(())
    }

    pub(super) fn panel_moved(&mut self, event: &PanelMoved) -> Result<(), Gap> {
        self.standing(event.taskId, event.nodeId)?.parties = event.parties.clone();
        Ok(())
    }

    pub(super) fn recorded(&mut self, event: &RecordChanged) {
        self.records.insert((event.nodeId, event.model), (amount(event.passed), event.drift));
    }

    pub(super) fn paused(&mut self, event: &ClassPaused) {
        self.paused_until_s.insert(event.numericClass, int(event.until));
    }

    pub(super) fn booked(&mut self, event: &BookChanged) {
        self.books.insert((event.model, event.asset), amount(event.amount));
    }

    /// The task has ended: what is left of its answers is whom to pay for their audits.
    pub(super) fn ended(&mut self, task: B256) {
        let nodes: Vec<u32> =
            self.answers.range((task, 0)..=(task, u32::MAX)).map(|((_, node), _)| *node).collect();
        for node in nodes {
            let Some(standing) = self.answers.get_mut(&(task, node)) else { continue };
            match &standing.audit {
                Some(audit) if audit.earners != 0 => standing.state = AuditState::Closed,
                _ => self.forget(task, node),
            }
        }
    }

    pub(super) fn forget(&mut self, task: B256, node: u32) {
        self.answers.remove(&(task, node));
    }
}

impl State {
    /// The epoch in which failures of a class are counted.
    pub(crate) fn failure_epoch(&self, time_s: u64) -> u64 {
        time_s / self.network.clock.epoch_s.max(1)
    }

    /// A verdict that three owners stand behind counts against the miner's class, whether it costs stake or not.
    pub(super) fn judged(&mut self, time_s: u64, event: &Judged) -> Result<(), Gap> {
        let standing = self.proofs.answers.get(&(event.taskId, event.nodeId));
        let standing = known(standing, "the exposed answer of node", event.nodeId)?;
        let audit = known(standing.audit.as_ref(), "the audit of task", event.taskId)?;
        let parties = &standing.parties;
        let question = Question::of(Reasons(audit.reasons));
        let hides = missing_of(parties, question) >> MINER & 1 == 1;
        // All that a panel upholds is that the answer cannot be read.
        let content = event.question == Question::Content as u8;
        let is_only_unread = content && upheld_of(parties, audit.reasons) == Reasons::IDS;
        if !event.guilty || hides || is_only_unread {
            return Ok(());
        }
        let provers = nodes_in(parties, event.failing.saturating_to());
        if self.witnesses(audit, &provers)? < CLUSTER_QUORUM {
            return Ok(());
        }
        let node = self.node(event.nodeId)?;
        let (owner, class) = (node.owner, node.class);
        let epoch = self.failure_epoch(time_s);
        let mut owners = self.proofs.failed(class, epoch);
        owners.insert(owner);
        self.proofs.failures.insert(class, (epoch, owners));
        Ok(())
    }
}
