//! Proofs of answers: what waits of them, what an event makes of it, and when its time has come. No IO, no clock.

use alloy::primitives::{B256, Bytes};
use alloy::sol_types::SolValue;
use assay_bindings::ProofOfInference::{Audit, AuditMoved, Party};
use assay_chain::ProtocolEvent;
use assay_proof::Reasons;
use assay_protocol::audit::earners_of;
use assay_protocol::state::{AuditState, HAS_MEMBERS};
use serde::{Deserialize, Serialize};

use super::items::{Effect, Item, Items, Key, Round};

/// Seconds that the validators of an answer have to collect their pay before it is collected for them.
const COLLECT_GRACE_S: u64 = 60;
/// The first of the parties of a dispute are the miner and the accuser, which open only where weights are compared.
const FIRST_MEMBER: usize = 2;
const BPS: u128 = 10_000;

/// What the deployment fixed for audits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProofTerms {
    /// Answers of so many seconds share a round.
    pub epoch_length_s: u64,
    /// Seconds that a draw waits for its round.
    pub round_timeout_s: u64,
    /// What an audit pays each of its validators, hundredths of a percent of the fee.
    pub audit_pay_bps: u16,
}

/// The proof of one answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerItem {
    /// Unix seconds; since when it stands so, or since when its round has its value.
    pub since_s: u64,
    /// How far it is.
    pub proof: Proof,
}

/// How far the proof of an answer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// Committed in this epoch; waits for its draw.
    Exposed {
        /// Of the commit.
        epoch: u64,
        /// Once the epoch's round was named.
        draw: Option<Draw>,
    },
    /// Somebody is to do something.
    Audited(AuditItem),
    /// Nothing is open any more; its validators, if it had any, are paid once the task has ended.
    Through(Option<Wages>),
    /// The task has ended.
    Owed(Wages),
}

/// The draw of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draw {
    /// What draws.
    pub round: Round,
    /// Unix seconds; after it the answer is paid unaudited.
    pub until_s: u64,
}

/// An audit that is not at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditItem {
    /// `AuditState` of the contract.
    pub state: u8,
    /// Unix seconds; the last one of what is waited for.
    pub until_s: u64,
    /// The round that is waited for.
    pub round: Option<Round>,
    /// Everybody who has to show something in a hearing has done so.
    pub is_heard: bool,
    /// `abi.encode(audit)`, to be brought to whatever moves it.
    pub audit: Bytes,
    /// `abi.encode(parties)` of a dispute.
    pub parties: Bytes,
}

/// What validators of an answer are to be paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wages {
    /// Model and asset of the book that pays.
    pub book: (u32, u8),
    /// Minor units.
    pub amount: u128,
    /// `abi.encode(audit)`.
    pub audit: Bytes,
}

/// What there is to do about a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Its epoch's round is to be named.
    Close(u64),
    /// This round is to be revealed.
    Value(Round),
    /// `convene`.
    Convene,
    /// `judge`.
    Judge,
    /// `reconvene`.
    Reconvene,
    /// `advanceAudit`.
    AdvanceAudit,
    /// `advancePanel`.
    AdvancePanel,
    /// `collect`.
    Collect,
}

impl AnswerItem {
    /// What there is to do at this time (unix seconds).
    pub(super) fn need(&self, items: &Items, terms: &ProofTerms, now: u64) -> Option<Need> {
        match &self.proof {
            Proof::Exposed { epoch, draw: None } => {
                let ends_at = epoch.saturating_add(1).saturating_mul(terms.epoch_length_s);
                (now >= ends_at).then_some(Need::Close(*epoch))
            }
            Proof::Exposed { draw: Some(draw), .. } => Some(Need::Value(draw.round)),
            Proof::Audited(audit) => audit.need(now),
            Proof::Through(_) => None,
            Proof::Owed(wages) => {
                let has_time = now >= self.since_s.saturating_add(COLLECT_GRACE_S);
                let booked = items.get(&Key::Book(wages.book.0, wages.book.1));
                let pays = matches!(booked, Some(Item::Book(amount)) if *amount >= wages.amount);
                (has_time && pays).then_some(Need::Collect)
            }
        }
    }

    /// The round that it waits for.
    pub(super) fn round_mut(&mut self) -> Option<&mut Round> {
        match &mut self.proof {
            Proof::Exposed { draw, .. } => draw.as_mut().map(|draw| &mut draw.round),
            Proof::Audited(audit) => audit.round.as_mut(),
            Proof::Through(_) | Proof::Owed(_) => None,
        }
    }

    /// `AuditState` of the contract while it is audited, else 0.
    pub(super) fn audit_state(&self) -> u8 {
        if let Proof::Audited(audit) = &self.proof { audit.state } else { 0 }
    }

    /// What whoever moves it brings; `None` if what is stored is damaged, or nothing is to be brought.
    pub(super) fn decode(&self) -> Option<(Audit, Vec<Party>)> {
        let (audit, parties) = match &self.proof {
            Proof::Audited(item) => (&item.audit, Some(&item.parties)),
            Proof::Owed(wages) => (&wages.audit, None),
            Proof::Exposed { .. } | Proof::Through(_) => return None,
        };
        let parties = parties.filter(|bytes| !bytes.is_empty());
        let parties = parties.map(|bytes| Vec::<Party>::abi_decode(bytes).ok());
        Some((Audit::abi_decode(audit).ok()?, parties.unwrap_or_else(|| Some(Vec::new()))?))
    }
}

impl AuditItem {
    fn need(&self, now: u64) -> Option<Need> {
        let is_late = now > self.until_s;
        let is_known = self.round.is_some_and(|round| round.known);
        let round = self.round.map(Need::Value);
        match AuditState::try_from(self.state).ok()? {
            // A value that comes after the time would blame those who could not use it: it is not asked for any more.
            AuditState::Drawn
            | AuditState::Sealed
            | AuditState::Opened
            | AuditState::Accused
            | AuditState::Demanded
            | AuditState::Appealed
                if is_late =>
            {
                Some(Need::AdvanceAudit)
            }
            AuditState::Convened => is_late.then_some(Need::AdvancePanel),
            AuditState::Hearing if is_late || self.is_heard => Some(Need::Judge),
            AuditState::Condemned => is_late.then_some(Need::Judge),
            AuditState::Accused if is_known => Some(Need::Convene),
            AuditState::Appealed if is_known => Some(Need::Reconvene),
            AuditState::Opened
            | AuditState::Accused
            | AuditState::Hearing
            | AuditState::Appealed => round,
            _ => None,
        }
    }
}

/// The proofs of a task's answers.
pub(super) fn of_task(items: &Items, task: B256) -> impl Iterator<Item = (u32, &AnswerItem)> {
    items.range(Key::Answer(task, 0)..=Key::Answer(task, u32::MAX)).filter_map(
        |(key, item)| match (key, item) {
            (Key::Answer(_, node), Item::Answer(answer)) => Some((*node, answer)),
            _ => None,
        },
    )
}

/// Proofs as an event of a block at `time` (unix seconds) leaves them.
pub(super) fn effects(
    items: &Items,
    terms: &ProofTerms,
    event: &ProtocolEvent,
    time: u64,
) -> Vec<Effect> {
    let answer = |proof| Some(Item::Answer(AnswerItem { since_s: time, proof }));
    match event {
        ProtocolEvent::AnswerExposed(event) => {
            let committed_at_s = event.committedAt.to::<u64>();
            let epoch = committed_at_s.checked_div(terms.epoch_length_s).unwrap_or_default();
            let proof = Proof::Exposed { epoch, draw: None };
            vec![(Key::Answer(event.taskId, event.nodeId), answer(proof))]
        }
        ProtocolEvent::EpochClosed(event) => {
            let epoch = event.epoch.to::<u64>();
            let round = Round { round: event.round, known: false };
            let draw = Draw { round, until_s: time.saturating_add(terms.round_timeout_s) };
            let of_epoch = items.iter().filter(|(_, item)| {
                let Item::Answer(item) = item else { return false };
                matches!(item.proof, Proof::Exposed { epoch: other, .. } if other == epoch)
            });
            let proof = Proof::Exposed { epoch, draw: Some(draw) };
            of_epoch.map(|(key, _)| (*key, answer(proof.clone()))).collect()
        }
        ProtocolEvent::AnswerCleared(event) => {
            vec![(Key::Answer(event.taskId, event.nodeId), answer(Proof::Through(None)))]
        }
        ProtocolEvent::AnswerUnverified(event) => {
            vec![(Key::Answer(event.taskId, event.nodeId), answer(Proof::Through(None)))]
        }
        ProtocolEvent::AuditMoved(event) => {
            let key = Key::Answer(event.taskId, event.nodeId);
            moved(items.get(&key), terms, event)
                .map(|proof| (key, answer(proof)))
                .into_iter()
                .collect()
        }
        ProtocolEvent::PanelMoved(event) => {
            let key = Key::Answer(event.taskId, event.nodeId);
            let Some(Item::Answer(item)) = items.get(&key) else { return Vec::new() };
            let Proof::Audited(audit) = &item.proof else { return Vec::new() };
            let parties = event.parties.abi_encode().into();
            vec![(key, answer(Proof::Audited(AuditItem { parties, ..audit.clone() })))]
        }
        ProtocolEvent::TaskSettled(event) => ended(items, event.taskId, time),
        ProtocolEvent::TaskRefunded(event) => ended(items, event.taskId, time),
        ProtocolEvent::AuditCollected(event) => {
            vec![(Key::Answer(event.taskId, event.nodeId), None)]
        }
        ProtocolEvent::BookChanged(event) => {
            let amount = u128::try_from(event.amount).unwrap_or(u128::MAX);
            vec![(Key::Book(event.model, event.asset), Some(Item::Book(amount)))]
        }
        _ => Vec::new(),
    }
}

/// The proof as the event tells it; `None` of a state that is not known.
fn moved(before: Option<&Item>, terms: &ProofTerms, event: &AuditMoved) -> Option<Proof> {
    let state = AuditState::try_from(event.state).ok()?;
    let before = match before {
        Some(Item::Answer(AnswerItem { proof: Proof::Audited(audit), .. })) => Some(audit),
        _ => None,
    };
    if state >= AuditState::Passed {
        let owes_members = event.until.to::<u64>() & HAS_MEMBERS != 0;
        let members = before.filter(|_| owes_members).map_or(0, open_members);
        let earners = earners_of(&event.audit).len() + members;
        return Some(Proof::Through((earners != 0).then(|| wages(terms, &event.audit, earners))));
    }
    let waits = matches!(
        state,
        AuditState::Opened | AuditState::Accused | AuditState::Hearing | AuditState::Appealed
    );
    let told = before.and_then(|audit| audit.round).filter(|told| told.round == event.audit.round);
    let round = Round { round: event.audit.round, known: told.is_some_and(|told| told.known) };
    let parties = before.map(|audit| audit.parties.clone()).unwrap_or_default();
    Some(Proof::Audited(AuditItem {
        state: event.state,
        until_s: event.until.to::<u64>(),
        round: waits.then_some(round),
        is_heard: state == AuditState::Hearing && is_heard(&event.audit, &parties),
        audit: event.audit.abi_encode().into(),
        parties,
    }))
}

/// Whether nobody is waited for in a hearing.
fn is_heard(audit: &Audit, parties: &Bytes) -> bool {
    let Ok(parties) = Vec::<Party>::abi_decode(parties) else { return false };
    let weights = (Reasons::FINGERPRINT | Reasons::SPOT).0;
    let first = if audit.reasons & weights == 0 { FIRST_MEMBER } else { 0 };
    parties.iter().skip(first).all(|party| party.isOpen || !party.isSealed)
}

/// Members of a panel that have opened: what an appeal's are paid at most.
fn open_members(audit: &AuditItem) -> usize {
    let parties = Vec::<Party>::abi_decode(&audit.parties).unwrap_or_default();
    parties.iter().skip(FIRST_MEMBER).filter(|party| party.isOpen).count()
}

fn wages(terms: &ProofTerms, audit: &Audit, earners: usize) -> Wages {
    let each = audit.fee.to::<u128>().saturating_mul(u128::from(terms.audit_pay_bps)) / BPS;
    Wages {
        book: (audit.model, audit.asset),
        amount: each.saturating_mul(earners as u128),
        audit: audit.abi_encode().into(),
    }
}

/// What is left of the answers of a task that has ended.
fn ended(items: &Items, task: B256, time: u64) -> Vec<Effect> {
    let left = of_task(items, task).filter_map(|(node, item)| {
        let after = match &item.proof {
            // It is told once for each answer.
            Proof::Owed(_) => return None,
            Proof::Through(Some(wages)) => {
                let proof = Proof::Owed(wages.clone());
                Some(Item::Answer(AnswerItem { since_s: time, proof }))
            }
            _ => None,
        };
        Some((Key::Answer(task, node), after))
    });
    left.collect()
}
