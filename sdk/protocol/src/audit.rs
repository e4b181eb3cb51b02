//! What follows from an audit of an answer alone.

use alloy::{
    primitives::{B256, U256, keccak256},
    sol_types::SolValue,
};
use assay_bindings::ProofOfInference::{Audit, Party, ProofConfig};
use assay_proof::Reasons;

pub use crate::hearing::is_appeal;

/// Bits of a digest that are not stored.
const CLEARED_BITS: usize = 48;
/// From this probability on a node pays its audits itself, hundredths of a percent.
const OWN_COST_BPS: u16 = 5000;
/// Positions that an accuser may name.
const NAMED: usize = 16;
/// Bits of a named position.
const POSITION_BITS: usize = 32;

/// What a panel has to decide: `Question` of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Question {
    /// Nothing.
    None = 0,
    /// Whether the answer came from other weights.
    Weights = 1,
    /// Whether its tokens follow from them.
    Sampling = 2,
    /// Whether end, text, prompt and ids are what they should be.
    Content = 3,
}

impl Question {
    /// Weights before sampling, which says nothing if the weights are others.
    pub fn of(reasons: Reasons) -> Self {
        let weights = (Reasons::FINGERPRINT | Reasons::SPOT).0;
        match reasons {
            Reasons(0) => Self::None,
            Reasons(bits) if bits & weights != 0 => Self::Weights,
            reasons if Reasons::OF_THE_ANSWER.contains(reasons) => Self::Content,
            _ => Self::Sampling,
        }
    }
}

/// What `ProofOfInference` stores of an audit beside its state and time: `keccak256(abi.encode(audit))` with its last 48
/// bits cleared.
pub fn digest(audit: &Audit) -> B256 {
    let hash = U256::from_be_bytes(keccak256(audit.abi_encode()).0);
    B256::from(hash >> CLEARED_BITS << CLEARED_BITS)
}

/// What an audit stores of its parties: `keccak256(abi.encode(parties))`.
pub fn parties_digest(parties: &[Party]) -> B256 {
    keccak256(parties.to_vec().abi_encode())
}

/// Nodes of a set, 32 bits each, the first lowest.
pub fn nodes_of(set: U256) -> Vec<u32> {
    let words = set.as_limbs().iter().flat_map(|limb| [*limb as u32, (*limb >> 32) as u32]);
    words.take_while(|node| *node != 0).collect()
}

/// The set with one node more.
pub(crate) fn joined(set: U256, node: u32) -> U256 {
    set | U256::from(node) << (u32::BITS as usize * nodes_of(set).len())
}

/// One bit at the place of a node in a set; 0 if it is not there.
pub(crate) fn bit_of(set: U256, node: u32) -> u8 {
    let place = nodes_of(set).iter().position(|other| *other == node);
    place.map_or(0, |place| 1 << place)
}

/// Places in `earners` of those who demanded the data, above those who have done their duty.
const WAIVED_BITS: u32 = 8;

/// Notes that a validator has done its duty. One that demanded the data is not paid for it.
pub(crate) fn earn(audit: &mut Audit, node: u32) {
    let bit = u16::from(bit_of(audit.drawn, node));
    if audit.earners >> WAIVED_BITS & bit == 0 {
        audit.earners |= bit;
    }
}

/// One that was wrong is not paid.
pub(crate) fn forfeit(audit: &mut Audit, node: u32) {
    audit.earners &= !u16::from(bit_of(audit.drawn, node));
}

/// Notes that a validator has demanded the data.
pub(crate) fn waive(audit: &mut Audit, node: u32) {
    audit.earners |= u16::from(bit_of(audit.drawn, node)) << WAIVED_BITS;
}

/// The place, as a bit, of the one who has demanded the data; 0 if it is none of those drawn.
pub(crate) fn waiver_of(audit: &Audit) -> u8 {
    audit.earners.to_be_bytes()[0]
}

/// Validators that are to be paid.
pub fn earners_of(audit: &Audit) -> Vec<u32> {
    named_by(audit.drawn, audit.earners.to_be_bytes()[1])
}

/// Those of a set that have their bit.
pub fn named_by(set: U256, bits: u8) -> Vec<u32> {
    let nodes = nodes_of(set).into_iter().enumerate();
    nodes.filter(|(at, _)| bits >> at & 1 == 1).map(|(_, node)| node).collect()
}

/// Share of its fee that an answer gives for audits once it is paid, hundredths of a percent.
pub fn levy_bps(config: &ProofConfig, probability_bps: Option<u16>) -> u16 {
    let own = probability_bps.is_some_and(|odds| odds >= OWN_COST_BPS);
    config.auditShareBps + if own { config.auditPayBps } else { 0 }
}

/// Positions of an answer of `tokens` tokens that an accuser named: 32 bits each, the first highest, zeros behind the
/// last.
///
/// # Errors
/// The first position that does not ascend, is outside of the answer, or stands behind a gap.
pub fn named_positions(named: U256, also: U256, tokens: u32) -> Result<Vec<u32>, u32> {
    let at = |place: usize| {
        let word = if place < NAMED / 2 { named } else { also };
        let shift = 256 - POSITION_BITS * (place % (NAMED / 2) + 1);
        (word >> shift & U256::from(u32::MAX)).saturating_to::<u32>()
    };
    let mut all = (0..NAMED).map(at);
    let mut positions: Vec<u32> = Vec::new();
    for position in all.by_ref() {
        if position == 0 {
            break;
        }
        if positions.last().is_some_and(|last| position <= *last) || position > tokens {
            return Err(position);
        }
        positions.push(position);
    }
    if all.any(|position| position != 0) { Err(0) } else { Ok(positions) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_ascend_without_gaps() {
        let at = |place: usize, position: u32| U256::from(position) << (224 - 32 * (place % 8));
        let three = at(0, 2) | at(1, 5) | at(2, 9);
        assert_eq!(named_positions(three, U256::ZERO, 9), Ok(vec![2, 5, 9]));
        assert_eq!(named_positions(three, U256::ZERO, 8), Err(9));
        assert_eq!(named_positions(at(0, 2) | at(1, 2), U256::ZERO, 9), Err(2));
        assert_eq!(named_positions(at(0, 2) | at(2, 3), U256::ZERO, 9), Err(0));
        assert_eq!(named_positions(at(0, 2), at(0, 3), 9), Err(0));
        let full = (0..8).fold(U256::ZERO, |all, place| all | at(place, place as u32 + 1));
        let also = (8..16).fold(U256::ZERO, |all, place| all | at(place, place as u32 + 1));
        assert_eq!(named_positions(full, also, 16), Ok((1..=16).collect()));
        assert_eq!(named_positions(U256::ZERO, U256::ZERO, 16), Ok(Vec::new()));
    }

    #[test]
    fn sets_of_nodes_keep_their_order() {
        let set = [7, 3, u32::MAX].into_iter().fold(U256::ZERO, joined);
        assert_eq!(nodes_of(set), [7, 3, u32::MAX]);
        assert_eq!([7, 3, u32::MAX, 5].map(|node| bit_of(set, node)), [1, 2, 4, 0]);
        let eight = (1..=8).fold(U256::ZERO, joined);
        assert_eq!((nodes_of(eight).len(), bit_of(eight, 8)), (8, 128));
    }
}
