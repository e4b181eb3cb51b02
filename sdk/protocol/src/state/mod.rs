//! Everything that the contracts store, rebuilt from their events.
//!
//! [`State::fold`] takes the events in order, each with its block's time. Nothing else changes a state, so that whoever
//! has the events has the storage.

mod accounts;
mod nodes;
mod proofs;
mod sessions;
mod tasks;
mod tunables;

use std::collections::BTreeMap;

use alloy::primitives::B256;
use assay_bindings::{Deployment, ProofOfInference::ProofConfig};

pub use self::proofs::HAS_MEMBERS;
pub use self::{
    accounts::{Accounts, DEAD},
    nodes::{Node, NodeState, Pool},
    proofs::{AuditState, Exposure, Proofs, Standing},
    sessions::{Lane, Reservation, Session, SessionState, Waiting},
    tasks::TaskEntry,
    tunables::{Model, Pair, Tunables},
};
use crate::{
    beacon::Beacon,
    event::ProtocolEvent,
    level::{LevelClock, Record, Series},
    task::QueueScope,
};

/// What constructors fixed for ever.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Where the contracts stand.
    pub deployment: Deployment,
    /// From a proposal of tunables until it holds, seconds.
    pub proposal_delay_s: u64,
    /// Longest that a draw may wait for its seed, and shortest until a place is another's, seconds.
    pub draw_window_s: u64,
    /// Longest that audits of a task may take, seconds.
    pub longest_audit_s: u64,
    /// Largest royalty, hundredths of a percent.
    pub max_royalty_bps: u16,
    /// Tokens that sessions may be paid in; asset 0 is COR.
    pub assets: u8,
    /// How levels decay.
    pub clock: LevelClock,
    /// Of audits.
    pub proof: ProofConfig,
    /// Where randomness comes from.
    pub beacon: Beacon,
}

impl Network {
    /// What the queue's commitments are bound to.
    pub fn scope(&self) -> QueueScope {
        QueueScope { chain_id: self.deployment.chain_id, queue: self.deployment.queue }
    }
}

/// An event does not fit what was folded before it: events are missing, or they are another network's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("events are missing: {0}; fold every event of the contracts from their deployment on")]
pub struct Gap(pub String);

/// A thing that an event names must have been told before.
pub(crate) fn known<T>(found: Option<T>, what: &str, id: impl std::fmt::Display) -> Result<T, Gap> {
    found.ok_or_else(|| Gap(format!("{what} {id} is not known")))
}

/// Storage of all contracts.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// What constructors fixed.
    pub network: Network,
    /// Versions of the tunables, and who governs them.
    pub tunables: Tunables,
    /// By index.
    pub models: BTreeMap<u32, Model>,
    /// By id.
    pub nodes: BTreeMap<u32, Node>,
    /// Places by model; those of dedicated nodes apart.
    pub pools: BTreeMap<(u32, bool), Pool>,
    /// Counters and levels by node and series.
    pub records: BTreeMap<(u32, Series), Record>,
    /// By id.
    pub sessions: BTreeMap<u64, Session>,
    /// By id.
    pub tasks: BTreeMap<B256, TaskEntry>,
    /// Open claims by node.
    pub claims: BTreeMap<u32, u8>,
    /// Money outside sessions.
    pub accounts: Accounts,
    /// Values of the beacon by round.
    pub rounds: BTreeMap<u64, B256>,
    /// Audits of answers.
    pub proofs: Proofs,
}

impl State {
    /// Before the first event.
    pub fn new(network: Network) -> Self {
        Self {
            network,
            tunables: Tunables::default(),
            models: BTreeMap::new(),
            nodes: BTreeMap::new(),
            pools: BTreeMap::new(),
            records: BTreeMap::new(),
            sessions: BTreeMap::new(),
            tasks: BTreeMap::new(),
            claims: BTreeMap::new(),
            accounts: Accounts::default(),
            rounds: BTreeMap::new(),
            proofs: Proofs::default(),
        }
    }

    /// Takes in the next event, of a block of that time (unix seconds).
    ///
    /// # Errors
    /// If the event names something that no event before it told of.
    pub fn fold(&mut self, time_s: u64, event: &ProtocolEvent) -> Result<(), Gap> {
        use ProtocolEvent as E;
        match event {
            E::TermsProposed(event) => self.tunables.proposed(event),
            E::TermsWithdrawn(event) => self.tunables.withdrawn(time_s, event),
            E::GovernorProposed(event) => self.tunables.successor = event.successor,
            E::GovernorChanged(event) => self.tunables.governed(event),
            E::ModelRegistered(event) => self.model_registered(time_s, event),
            E::ModelDeprecated(event) => self.model_deprecated(time_s, event)?,
            E::PairCalibrated(event) => self.pair_calibrated(time_s, event)?,
            E::PairAttested(event) => self.pair_attested(event)?,
            E::StatsChanged(event) => self.stats_changed(event),
            E::NodeRegistered(event) => self.node_registered(event),
            E::Offered(event) => self.offered(event)?,
            E::OperatorChanged(event) => {
                self.node_mut(event.nodeId)?.operator_changed(time_s, event);
            }
            E::PayoutChanged(event) => self.node_mut(event.nodeId)?.payout = event.newPayout,
            E::NodeStateChanged(event) => self.node_state_changed(time_s, event)?,
            E::DrawEntered(event) => self.draw_entered(event),
            E::DrawPassed(event) => self.draw_passed(event)?,
            E::NodeReserved(event) => self.node_reserved(event)?,
            E::NodeReleased(event) => self.node_released(time_s, event)?,
            E::SessionOpened(event) => self.session_opened(time_s, event),
            E::LaneAdded(event) => self.lane_added(event)?,
            E::LaneReclaimed(event) => self.lane_reclaimed(event)?,
            // The money is told by `Deposited`.
            E::SessionToppedUp(_) => {}
            E::SessionDrawing(event) => self.session_drawing(time_s, event)?,
            E::SessionActivated(event) => self.session_activated(time_s, event)?,
            E::RotationDropped(event) => self.session_mut(event.sessionId)?.waiting = None,
            E::SessionDraining(event) => self.session_draining(event)?,
            E::SessionClosed(event) => self.session_closed(time_s, event)?,
            E::TaskSubmitted(event) => self.task_submitted(event)?,
            E::PartChanged(event) => self.part_changed(event)?,
            E::TaskPrecommitted(event) => self.task_precommitted(event)?,
            E::TaskCommitted(event) => self.task_committed(event)?,
            E::TaskMoved(event) => self.task_moved(event)?,
            E::TaskSettled(event) => {
                self.task_settled(time_s, event)?;
                self.proofs.ended(event.taskId);
            }
            E::TaskRefunded(event) => {
                self.task_refunded(time_s, event)?;
                self.proofs.ended(event.taskId);
            }
            E::AnswerDelivered(event) => self.answer_delivered(event)?,
            E::Deposited(event) => self.deposited(event)?,
            E::FundsMoved(event) => self.funds_moved(event)?,
            E::SessionReturned(event) => self.session_returned(event)?,
            E::TipPaid(event) => self.tip_paid(event)?,
            E::Credited(event) => self.credited(event),
            E::Staked(event) => self.accounts.staked(event),
            E::StakeReleased(event) => self.accounts.stake_released(event),
            E::Slashed(event) => self.slashed(event)?,
            E::Withdrawn(event) => self.accounts.withdrawn(event)?,
            E::Burnt(event) => self.accounts.burnt(event)?,
            E::RoundRevealed(event) => {
                self.rounds.insert(event.round, event.value);
            }
            E::AnswerExposed(event) => self.proofs.exposed(event),
            E::EpochClosed(event) => self.proofs.closed(time_s, event),
            E::AnswerCleared(event) => self.proofs.cleared(event.taskId, event.nodeId)?,
            E::AnswerUnverified(event) => self.proofs.cleared(event.taskId, event.nodeId)?,
            E::AuditMoved(event) => self.audit_moved(time_s, event)?,
            E::PanelMoved(event) => self.proofs.panel_moved(event)?,
            E::RecordChanged(event) => self.proofs.recorded(event),
            E::ClassPaused(event) => self.proofs.paused(event),
            E::BookChanged(event) => self.proofs.booked(event),
            E::AuditCollected(event) => self.audit_collected(event)?,
            E::DataDemanded(event) => self.proofs.demanded(event)?,
            E::DataPublished(event) => self.proofs.published(event)?,
            E::Appealed(event) => self.appealed(event),
            E::Judged(event) => self.judged(time_s, event)?,
            // Evidence and reasons, which nothing is stored of.
            E::ProofOpened(_) | E::Verdict(_) => {}
        }
        Ok(())
    }
}
