//! Audits of answers, as `ProofOfInference` stores them.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, B256, U256};
use assay_bindings::ProofOfInference::{
    AnswerExposed, Appeal, Appealed, Audit, AuditMoved, BookChanged, ClassPaused, DataDemanded,
    DataPublished, Demand, EpochClosed, Judged, PanelMoved, Party, RecordChanged,
};

use assay_proof::CLUSTER_QUORUM;

use super::{Gap, State, known};
use crate::{
    audit::{bit_of, earners_of, joined, named_by},
    hearing::{FIRST_MEMBER, is_appeal, nodes_in},
    num::{amount, int},
};

/// In the place of the time of an audit that is over: members of an appeal's panel are to be paid.
pub const HAS_MEMBERS: u64 = 1 << 17;

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
    /// The miner is to publish request and answer.
    Demanded = 9,
    /// A panel found it false; the miner's owner may appeal.
    Condemned = 10,
    /// A second panel is to be drawn.
    Appealed = 11,
    /// True.
    Passed = 12,
    /// Nobody was there to look.
    Unverified = 13,
    /// Nobody could tell.
    Void = 14,
    /// False.
    Disproved = 15,
    /// The task has ended; validators are to be paid.
    Closed = 16,
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
            9 => Self::Demanded,
            10 => Self::Condemned,
            11 => Self::Appealed,
            12 => Self::Passed,
            13 => Self::Unverified,
            14 => Self::Void,
            15 => Self::Disproved,
            16 => Self::Closed,
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
    /// By task and node: data that somebody demanded. They stay when the task has ended.
    pub demands: BTreeMap<(B256, u32), Demand>,
    /// By task and node: appeals that are open, or whose members are to be paid.
    pub appeals: BTreeMap<(B256, u32), Appeal>,
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

    fn moved(&mut self, event: &AuditMoved) -> Result<(), Gap> {
        let state = AuditState::try_from(event.state)?;
        let standing = self.standing(event.taskId, event.nodeId)?;
        // In the end the contract stores something else in the time's place.
        let until_s = if state < AuditState::Passed { int(event.until) } else { 0 };
        (standing.state, standing.until_s) = (state, until_s);
        standing.audit = Some(event.audit.clone());
        Ok(())
    }

    pub(super) fn panel_moved(&mut self, event: &PanelMoved) -> Result<(), Gap> {
        let key = (event.taskId, event.nodeId);
        self.standing(key.0, key.1)?.parties = event.parties.clone();
        if !is_appeal(&event.parties) {
            return Ok(());
        }
        let appeal = known(self.appeals.get_mut(&key), "the appeal over task", key.0)?;
        let members = event.parties.iter().skip(FIRST_MEMBER);
        let set = members.clone().fold(U256::ZERO, |set, party| joined(set, party.nodeId));
        appeal.members = set.saturating_to();
        let open = members.enumerate().filter(|(_, party)| party.isOpen);
        let open = open.fold(0_u8, |bits, (place, _)| bits | 1 << place);
        // Who demanded the data is not paid for its duty.
        appeal.earners = open & !appeal.waived;
        Ok(())
    }

    pub(super) fn demanded(&mut self, event: &DataDemanded) -> Result<(), Gap> {
        let key = (event.taskId, event.nodeId);
        let standing = known(self.answers.get(&key), "the exposed answer of node", key.1)?;
        let audit = known(standing.audit.as_ref(), "the audit of task", key.0)?;
        self.demands.insert(key, Demand { resumes: standing.state as u8, ..Demand::default() });
        // What the other validators waive stands in their audit.
        if bit_of(audit.drawn, event.validator) == 0 {
            let appeal = known(self.appeals.get_mut(&key), "the appeal over task", key.0)?;
            appeal.waived = bit_of(U256::from(appeal.members), event.validator);
        }
        Ok(())
    }

    pub(super) fn published(&mut self, event: &DataPublished) -> Result<(), Gap> {
        let demand = self.demands.get_mut(&(event.taskId, event.nodeId));
        let demand = known(demand, "the demand of task", event.taskId)?;
        let published = event.data.len().saturating_add(event.offset as usize);
        (demand.requestBytes, demand.totalBytes) = (event.requestBytes, event.totalBytes);
        demand.publishedBytes = published.try_into().unwrap_or(u32::MAX);
        Ok(())
    }

    /// What is left of an appeal when its audit is over; its bond.
    fn end_appeal(&mut self, key: (B256, u32), owes_members: bool) -> u128 {
        let Some(mut appeal) = self.appeals.remove(&key) else { return 0 };
        let bond = amount(appeal.bond);
        if owes_members {
            let (members, earners) = (appeal.members, appeal.earners);
            appeal = Appeal { members, earners, ..Appeal::default() };
            self.appeals.insert(key, appeal);
        }
        bond
    }

    /// Members of an appeal's panel that are to be paid for it like other validators.
    pub fn members_owed(&self, task: B256, node: u32) -> Vec<u32> {
        let appeal = self.appeals.get(&(task, node));
        appeal.map_or_else(Vec::new, |appeal| named_by(U256::from(appeal.members), appeal.earners))
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
            let owes_members = !self.members_owed(task, node).is_empty();
            let Some(standing) = self.answers.get_mut(&(task, node)) else { continue };
            let owes = |audit: &Audit| owes_members || !earners_of(audit).is_empty();
            match standing.audit.as_ref().is_some_and(owes) {
                true => standing.state = AuditState::Closed,
                false => self.forget(task, node),
            }
        }
    }

    pub(super) fn forget(&mut self, task: B256, node: u32) {
        self.answers.remove(&(task, node));
        self.appeals.remove(&(task, node));
    }
}

impl State {
    /// The epoch in which failures of a class are counted.
    pub(crate) fn failure_epoch(&self, time_s: u64) -> u64 {
        time_s / self.network.clock.epoch_s.max(1)
    }

    pub(super) fn audit_moved(&mut self, time_s: u64, event: &AuditMoved) -> Result<(), Gap> {
        self.proofs.moved(event)?;
        match AuditState::try_from(event.state)? {
            AuditState::Condemned => self.count_failure(time_s, event.nodeId),
            state if state >= AuditState::Passed => {
                let owes_members = int(event.until) & HAS_MEMBERS != 0;
                let bond = self.proofs.end_appeal((event.taskId, event.nodeId), owes_members);
                self.bond_settled(bond)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn appealed(&mut self, event: &Appealed) {
        let appeal = Appeal {
            bond: event.bond,
            accusers: event.accusers,
            dissenter: event.dissenter,
            ..Appeal::default()
        };
        self.proofs.appeals.insert((event.taskId, event.nodeId), appeal);
        self.bonded(amount(event.bond));
    }

    pub(super) fn judged(&mut self, time_s: u64, event: &Judged) -> Result<(), Gap> {
        let key = (event.taskId, event.nodeId);
        let standing = known(self.proofs.answers.get(&key), "the exposed answer of node", key.1)?;
        let audit = known(standing.audit.as_ref(), "the audit of task", key.0)?;
        let parties = &standing.parties;
        let provers = nodes_in(parties, event.failing.saturating_to());
        if is_appeal(parties) && !event.slashed {
            // Who loses is not paid.
            let losers = nodes_in(parties, self.rule(audit, parties)?.losers);
            if let Some(appeal) = self.proofs.appeals.get_mut(&key) {
                let members = U256::from(appeal.members);
                losers.iter().for_each(|loser| appeal.earners &= !bit_of(members, *loser));
            }
            return Ok(());
        }
        // What a first panel found and costs no stake: its class is paused. What costs the stake was counted before.
        let is_first = standing.state == AuditState::Hearing && event.guilty && !event.slashed;
        if is_first && self.witnesses(audit, &provers)? >= CLUSTER_QUORUM {
            self.count_failure(time_s, event.nodeId)?;
        }
        Ok(())
    }

    /// A verdict that three owners stand behind counts against the miner's class, whether it costs stake or not.
    fn count_failure(&mut self, time_s: u64, miner: u32) -> Result<(), Gap> {
        let node = self.node(miner)?;
        let (owner, class) = (node.owner, node.class);
        let epoch = self.failure_epoch(time_s);
        let mut owners = self.proofs.failed(class, epoch);
        owners.insert(owner);
        self.proofs.failures.insert(class, (epoch, owners));
        Ok(())
    }
}
