//! What is this node's to do in an audit, by what the chain tells of it.

use alloy::{
    primitives::{B256, keccak256},
    sol_types::SolValue,
};
use assay_proof::Reasons;
use assay_protocol::state::AuditState;
use assay_types::NodeId;

use super::told::{Audited, place_of};

/// Places among the parties of a dispute: the miner, its first validator, then the panel.
pub(crate) const MINER: usize = 0;
const FIRST_MEMBER: usize = 2;

/// Something that only this node does in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Its own answer is audited: to open what it recorded.
    Open,
    /// It is the validator: to examine the answer and to seal what it finds.
    Seal,
    /// The same as a member of a panel.
    SealForPanel,
    /// To open what it sealed, with the leaves that the round draws.
    Reveal,
    /// To open its leaves in a hearing; its place among the parties.
    Testify(usize),
    /// To have its pay paid out.
    Collect,
}

impl Duty {
    /// For logs, and for the outbox's keys.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Open => "open_proof",
            Self::Seal => "commit_audit",
            Self::SealForPanel => "commit_panel",
            Self::Reveal => "reveal",
            Self::Testify(_) => "testify",
            Self::Collect => "collect",
        }
    }

    /// Whether the model has to run for it.
    pub(crate) fn examines(self) -> bool {
        matches!(self, Self::Seal | Self::SealForPanel)
    }
}

/// A duty as the audit stands now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub duty: Duty,
    /// Unix seconds; the last one in which the contract takes it.
    pub until_s: u64,
    /// Hash of the audit and its parties: what is brought.
    pub version: B256,
}

/// What a panel decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Whose contrasts are those of the weights.
    Weights,
    /// Whether the tokens follow from them.
    Sampling,
    /// Whether end, text, prompt and ids are what they should be.
    Content,
}

/// What an accusation is about: weights before sampling, which says nothing if the weights are others.
pub(crate) fn question_of(reasons: Reasons) -> Question {
    let any = |of: Reasons| reasons.0 & of.0 != 0;
    if any(Reasons::FINGERPRINT | Reasons::SPOT) {
        return Question::Weights;
    }
    match Reasons::OF_THE_ANSWER.contains(reasons) {
        true => Question::Content,
        false => Question::Sampling,
    }
}

/// What `node` has to do, if anything.
pub(crate) fn due(node: NodeId, audited: &Audited) -> Option<Due> {
    let Audited { state, until_s, audit, parties, .. } = audited;
    let is_validator = audit.validator == node.0;
    let place = parties.iter().position(|party| party.nodeId == node.0);
    let party = place.and_then(|place| Some((place, parties.get(place)?)));
    let duty = match (state, party) {
        (AuditState::Drawn, _) if is_validator => Duty::Seal,
        (AuditState::Sealed, _) if audit.nodeId == node.0 => Duty::Open,
        (AuditState::Opened, _) if is_validator => Duty::Reveal,
        (AuditState::Convened, Some((_, party))) if !party.isSealed => Duty::SealForPanel,
        (AuditState::Hearing, Some((place, party))) if party.isSealed && !party.isOpen => {
            let compares = question_of(Reasons(audit.reasons)) == Question::Weights;
            if place < FIRST_MEMBER && !compares {
                return None;
            }
            Duty::Testify(place)
        }
        (AuditState::Closed, _) => {
            let earned = place_of(audit.drawn, node).is_some_and(|at| audit.earners >> at & 1 == 1);
            return earned.then(|| Due {
                duty: Duty::Collect,
                until_s: u64::MAX,
                version: version(audited),
            });
        }
        _ => return None,
    };
    Some(Due { duty, until_s: *until_s, version: version(audited) })
}

fn version(audited: &Audited) -> B256 {
    keccak256(
        (audited.audit.clone(), audited.parties.clone(), audited.state as u8 as u64).abi_encode(),
    )
}
