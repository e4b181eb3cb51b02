//! What an event is about: its task, node and session, and its amounts.

use alloy::primitives::{Address, B256, Log, U256};
use assay_bindings::Deployment;
use assay_protocol::ProtocolEvent;

/// What an event is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) task: Option<B256>,
    pub(crate) node: Option<u32>,
    pub(crate) session: Option<u64>,
    /// Minor units, in the order of the event's members.
    pub(crate) amounts: Vec<U256>,
}

/// Name of the contract at an address.
pub(crate) fn contract_of(deployment: &Deployment, address: Address) -> Option<&'static str> {
    deployment.named().into_iter().find(|(_, at)| *at == address).map(|(name, _)| name)
}

impl Facts {
    pub(crate) fn of_log(deployment: &Deployment, log: &Log) -> Option<Self> {
        let event = ProtocolEvent::decode(deployment, log.address, &log.data).ok()??;
        Some(Self::of(&event))
    }

    fn task(task: B256) -> Self {
        Self { task: Some(task), ..Self::default() }
    }

    fn answer(task: B256, node: u32) -> Self {
        Self { node: Some(node), ..Self::task(task) }
    }

    fn session(session: u64) -> Self {
        Self { session: Some(session), ..Self::default() }
    }

    fn node(node: u32) -> Self {
        Self { node: Some(node), ..Self::default() }
    }

    fn with(mut self, amounts: impl IntoIterator<Item = U256>) -> Self {
        self.amounts = amounts.into_iter().collect();
        self
    }

    pub(crate) fn of(event: &ProtocolEvent) -> Self {
        use ProtocolEvent as E;
        match event {
            E::TaskSubmitted(e) => Self {
                task: Some(e.taskId),
                session: Some(e.sessionId),
                amounts: vec![U256::from(e.task.held)],
                ..Self::default()
            },
            E::PartChanged(e) => Self { node: Some(e.nodeId), ..Self::task(e.taskId) },
            E::TaskPrecommitted(e) => Self { node: Some(e.nodeId), ..Self::task(e.taskId) },
            E::TaskCommitted(e) => Self {
                task: Some(e.taskId),
                node: Some(e.nodeId),
                session: Some(e.sessionId),
                amounts: vec![U256::from(e.fee)],
            },
            E::TaskMoved(e) => Self::task(e.taskId),
            E::TaskSettled(e) => Self {
                task: Some(e.taskId),
                node: Some(e.nodeId),
                session: Some(e.sessionId),
                amounts: [e.fee, e.minerShare, e.routerShare, e.royalty, e.tip, e.burnt]
                    .map(U256::from)
                    .into(),
            },
            E::TaskRefunded(e) => Self {
                task: Some(e.taskId),
                session: Some(e.sessionId),
                amounts: [e.refund, e.tip].map(U256::from).into(),
                ..Self::default()
            },
            E::AnswerDelivered(e) => Self::task(e.taskId),
            E::Slashed(e) => Self {
                task: Some(e.taskId),
                node: Some(e.nodeId),
                amounts: vec![e.amount, e.reward],
                ..Self::default()
            },
            E::StatsChanged(e) => Self::node(e.nodeId),
            E::NodeRegistered(e) => Self::node(e.nodeId),
            E::Offered(e) => Self::node(e.nodeId),
            E::OperatorChanged(e) => Self::node(e.nodeId),
            E::PayoutChanged(e) => Self::node(e.nodeId),
            E::NodeStateChanged(e) => Self::node(e.nodeId),
            E::NodeReserved(e) => Self { session: Some(e.sessionId), ..Self::node(e.nodeId) },
            E::NodeReleased(e) => Self { session: Some(e.sessionId), ..Self::node(e.nodeId) },
            E::Staked(e) => Self::node(e.nodeId).with([e.amount]),
            E::StakeReleased(e) => Self::node(e.nodeId).with([e.amount]),
            E::SessionOpened(e) => Self::session(e.sessionId),
            E::LaneAdded(e) => Self::session(e.sessionId),
            E::LaneReclaimed(e) => Self::session(e.sessionId),
            E::SessionToppedUp(e) => Self::session(e.sessionId),
            E::SessionDrawing(e) => Self::session(e.sessionId),
            E::SessionActivated(e) => Self::session(e.sessionId),
            E::RotationDropped(e) => Self::session(e.sessionId),
            E::SessionDraining(e) => Self::session(e.sessionId),
            E::SessionClosed(e) => Self::session(e.sessionId),
            E::Deposited(e) => Self::session(e.sessionId).with([e.amount]),
            E::FundsMoved(e) => Self::session(e.sessionId).with([e.amount]),
            E::SessionReturned(e) => Self::session(e.sessionId).with([e.amount]),
            E::TipPaid(e) => Self::session(e.sessionId).with([e.amount]),
            E::AnswerExposed(e) => {
                Self::answer(e.taskId, e.nodeId).with([U256::from(e.value), e.openValue])
            }
            E::AnswerCleared(e) => Self::answer(e.taskId, e.nodeId),
            E::AnswerUnverified(e) => Self::answer(e.taskId, e.nodeId),
            E::AuditMoved(e) => Self::answer(e.taskId, e.nodeId),
            E::PanelMoved(e) => Self::answer(e.taskId, e.nodeId),
            E::ProofOpened(e) => Self::answer(e.taskId, e.nodeId),
            E::Verdict(e) => Self::answer(e.taskId, e.nodeId),
            E::DataDemanded(e) => Self::answer(e.taskId, e.nodeId),
            E::DataPublished(e) => Self::answer(e.taskId, e.nodeId),
            E::Appealed(e) => Self::answer(e.taskId, e.nodeId).with([U256::from(e.bond)]),
            E::Judged(e) => Self::answer(e.taskId, e.nodeId),
            E::AuditCollected(e) => Self::answer(e.taskId, e.nodeId).with([e.amount]),
            E::RecordChanged(e) => Self::node(e.nodeId).with([U256::from(e.passed)]),
            E::BookChanged(e) => Self::default().with([e.amount]),
            E::PairAttested(e) => Self::node(e.nodeId),
            E::Credited(e) => Self::default().with([e.amount]),
            E::Withdrawn(e) => Self::default().with([e.amount]),
            E::Burnt(e) => Self::default().with([e.amount]),
            _ => Self::default(),
        }
    }
}

/// The first amount in which two events differ: found less expected, in minor units.
pub(crate) fn difference(expected: &Facts, found: &Facts) -> Option<String> {
    let pairs = expected.amounts.iter().zip(&found.amounts);
    let (expected, found) = pairs.into_iter().find(|(one, other)| one != other)?;
    Some(signed(*expected, *found))
}

/// Found less expected, with its sign.
pub(crate) fn signed(expected: U256, found: U256) -> String {
    match found.checked_sub(expected) {
        Some(more) => format!("+{more}"),
        None => format!("-{}", expected - found),
    }
}
