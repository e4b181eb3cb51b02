//! What is this node's to do in an audit, by what the chain tells of it.

use alloy::{
    primitives::{B256, keccak256},
    sol_types::SolValue,
};
use assay_proof::Reasons;
use assay_protocol::{audit::Question, state::AuditState};
use assay_types::NodeId;

use super::told::{Audited, earned};

/// Places among the parties of a dispute: the miner, its first validator, then the panel.
pub(crate) const MINER: usize = 0;
pub(crate) const FIRST_MEMBER: usize = 2;

/// Something that only this node does in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Its own answer cannot be read: to publish it, with its request.
    Publish,
    /// Its own answer is audited: to open what it recorded.
    Open,
    /// Its own answer was found false: to appeal, if it was not.
    Appeal,
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
            Self::Publish => "publish",
            Self::Open => "open_proof",
            Self::Appeal => "appeal",
            Self::Seal => "commit_audit",
            Self::SealForPanel => "commit_panel",
            Self::Reveal => "reveal",
            Self::Testify(_) => "testify",
            Self::Collect => "collect",
        }
    }

    /// Whether it is to seal what this node finds.
    pub(crate) fn seals(self) -> bool {
        matches!(self, Self::Seal | Self::SealForPanel)
    }

    /// Whether the model has to run for it.
    pub(crate) fn examines(self) -> bool {
        self.seals() || self == Self::Appeal
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
    /// Others that are expected to move it first: of those who would move it at once the contract takes one.
    pub ahead: u64,
}

/// What `node` has to do, if anything.
pub(crate) fn due(node: NodeId, audited: &Audited) -> Option<Due> {
    let Audited { state, until_s, audit, parties, .. } = audited;
    let (until_s, version) = (*until_s, version(audited));
    let is_validator = audit.validator == node.0;
    let place = parties.iter().position(|party| party.nodeId == node.0);
    let duty = match (state, place) {
        (AuditState::Drawn, _) if is_validator => Duty::Seal,
        (AuditState::Sealed, _) if audit.nodeId == node.0 => Duty::Open,
        (AuditState::Demanded, _) if audit.nodeId == node.0 => Duty::Publish,
        (AuditState::Condemned, _) if audit.nodeId == node.0 => Duty::Appeal,
        (AuditState::Opened, _) if is_validator => Duty::Reveal,
        (AuditState::Convened, Some(place)) if is_awaited(audited, place) => Duty::SealForPanel,
        (AuditState::Hearing, Some(place)) if is_awaited(audited, place) => Duty::Testify(place),
        (AuditState::Closed, _) => {
            let earned = earned(audited, node);
            let collect = Due { duty: Duty::Collect, until_s: u64::MAX, version, ahead: 0 };
            return earned.then_some(collect);
        }
        _ => return None,
    };
    let before = 0..place.unwrap_or_default();
    let ahead = match duty {
        Duty::SealForPanel | Duty::Testify(_) => before.filter(|at| is_awaited(audited, *at)),
        _ => return Some(Due { duty, until_s, version, ahead: 0 }),
    };
    Some(Due { duty, until_s, version, ahead: ahead.count() as u64 })
}

/// Whether the party at a place is to seal or to testify.
fn is_awaited(audited: &Audited, place: usize) -> bool {
    let Some(party) = audited.parties.get(place) else { return false };
    if audited.state == AuditState::Convened {
        return place >= FIRST_MEMBER && !party.isSealed;
    }
    let compares = Question::of(Reasons(audited.audit.reasons)) == Question::Weights;
    party.isSealed && !party.isOpen && (place >= FIRST_MEMBER || compares)
}

/// Tells what the audit stands at from what it stood at before.
pub(crate) fn version(audited: &Audited) -> B256 {
    let published = audited.data.as_ref().map_or(0, |data| data.len() as u64);
    let stage = (audited.state as u8 as u64, published);
    keccak256((audited.audit.clone(), audited.parties.clone(), stage).abi_encode())
}

#[cfg(test)]
mod tests {
    use alloy::primitives::U256;
    use assay_bindings::ProofOfInference::{Audit, Party};

    use super::*;

    /// Node 3's answer, audited by node 4; nodes 5 to 7 are the panel.
    fn audited(state: AuditState) -> Audited {
        let drawn = U256::from_limbs([4 | 5 << 32, 6 | 7 << 32, 0, 0]);
        let audit = Audit {
            nodeId: 3,
            validator: 4,
            drawn,
            earners: 0b1010,
            reasons: Reasons::FINGERPRINT.0,
            ..Audit::default()
        };
        let party = |node| Party { nodeId: node, isSealed: node <= 5, ..Party::default() };
        let parties = (3..=7).map(party).collect();
        Audited { state, until_s: 100, audit, parties, proof_digest: None, data: None }
    }

    fn duties(audited: &Audited) -> Vec<Option<Duty>> {
        (3..=8).map(|node| due(NodeId(node), audited).map(|due| due.duty)).collect()
    }

    #[test]
    fn everybody_has_the_duties_of_its_place() {
        use AuditState as S;
        let of = |state| duties(&audited(state));
        let none: Option<Duty> = None;
        assert_eq!(of(S::Drawn), [none, Some(Duty::Seal), none, none, none, none]);
        assert_eq!(of(S::Sealed), [Some(Duty::Open), none, none, none, none, none]);
        assert_eq!(of(S::Opened), [none, Some(Duty::Reveal), none, none, none, none]);
        assert_eq!(of(S::Demanded), [Some(Duty::Publish), none, none, none, none, none]);
        assert_eq!(of(S::Condemned), [Some(Duty::Appeal), none, none, none, none, none]);
        let panel = Some(Duty::SealForPanel);
        assert_eq!(of(S::Convened), [none, none, none, panel, panel, none]);
        for over in [S::Accused, S::Appealed, S::Passed, S::Unverified, S::Void, S::Disproved] {
            assert_eq!(of(over), [none; 6]);
        }
        // The second and the fourth that were drawn have done their duty.
        let collect = Some(Duty::Collect);
        assert_eq!(of(S::Closed), [none, none, collect, none, collect, none]);
    }

    #[test]
    fn a_hearing_wants_those_who_have_sealed_and_the_first_two_for_weights_alone() {
        let mut hearing = audited(AuditState::Hearing);
        let testify = |place| Some(Duty::Testify(place));
        assert_eq!(duties(&hearing), [testify(0), testify(1), testify(2), None, None, None]);
        hearing.audit.reasons = Reasons::HARD_MARGIN.0;
        assert_eq!(duties(&hearing), [None, None, testify(2), None, None, None]);
        hearing.parties[2].isOpen = true;
        assert_eq!(duties(&hearing), [None; 6]);
    }

    #[test]
    fn who_comes_later_lets_those_before_it_go_first() {
        let ahead = |audited: &Audited| -> Vec<Option<u64>> {
            (3..=7).map(|node| due(NodeId(node), audited).map(|due| due.ahead)).collect()
        };
        let mut hearing = audited(AuditState::Hearing);
        assert_eq!(ahead(&hearing), [Some(0), Some(1), Some(2), None, None]);
        hearing.parties[0].isOpen = true;
        assert_eq!(ahead(&hearing), [None, Some(0), Some(1), None, None]);
        // Of tokens and text neither the miner nor the accuser shows anything.
        (hearing.audit.reasons, hearing.parties[3].isSealed) = (Reasons::TEXT.0, true);
        assert_eq!(ahead(&hearing), [None, None, Some(0), Some(1), None]);
        let convened = audited(AuditState::Convened);
        assert_eq!(ahead(&convened), [None, None, None, Some(0), Some(1)]);
        assert_eq!(ahead(&audited(AuditState::Sealed))[0], Some(0));
    }

    #[test]
    fn every_move_is_another_version() {
        let (one, mut other) = (audited(AuditState::Hearing), audited(AuditState::Hearing));
        let version = |audited: &Audited| due(NodeId(3), audited).unwrap().version;
        assert_eq!(version(&one), version(&other));
        other.parties[2].isOpen = true;
        assert_ne!(version(&one), version(&other));
    }
}
