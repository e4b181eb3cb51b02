//! How likely an answer is audited, in hundredths of a percent and rounded up, and whether it is drawn.

use alloy::{
    primitives::{B256, U256, keccak256},
    sol_types::SolValue,
};

use crate::num::u256;

/// Certainty.
pub const BPS: u64 = 10_000;
/// Domain of the hash that draws an answer.
pub const DOMAIN_DRAW: &str = "assay.audit.draw.v1";
/// So many audited answers of the size of the one at stake halve the probability.
const HALVING: u128 = 10;
/// After so many halvings less than one hundredth of a percent is left.
const MAX_HALVINGS: u128 = 14;
/// `10,000 * 2^(-r / 10)` for r = 0 to 9, rounded up.
const TENTHS: [u64; 10] = [10_000, 9331, 8706, 8123, 7579, 7072, 6598, 6156, 5744, 5359];
/// What makes cheating a loss with certainty, half as much again.
const MARGIN_BPS: u64 = 15_000;

/// By the record: what the node's audited answers came to (`passed`), against the one at stake, minor units of COR.
pub fn by_record_bps(passed: u128, value: u128) -> u64 {
    let passes = passed.checked_div(value).unwrap_or(HALVING * MAX_HALVINGS);
    let halvings = passes / HALVING;
    if halvings >= MAX_HALVINGS {
        return 1;
    }
    let whole = TENTHS.get((passes % HALVING) as usize).copied().unwrap_or(BPS);
    whole.div_ceil(1 << halvings)
}

/// By what the node could gain with all that is open, against the stake that it would lose, minor units of COR; with
/// detection of `power_bps`. Above [`BPS`] if no probability is enough.
pub fn by_exposure_bps(gain: u128, at_risk: u128, power_bps: u16) -> U256 {
    if gain == 0 {
        return U256::ZERO;
    }
    let bound = U256::from(power_bps) * (u256(at_risk) + u256(gain));
    (U256::from(BPS * MARGIN_BPS) * u256(gain)).div_ceil(bound)
}

/// The number below [`BPS`] that an answer gets of a round's value: it is audited if that is below its probability.
pub fn roll(value: B256, task: B256, node: u32) -> u64 {
    let hash = keccak256((keccak256(DOMAIN_DRAW), value, task, node).abi_encode());
    (U256::from_be_bytes(hash.0) % U256::from(BPS)).saturating_to()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_halves_the_odds_every_ten_answers() {
        let odds = [0, 1, 9, 10, 19, 139, 140, 1000].map(|passed| by_record_bps(passed, 1));
        assert_eq!(odds, [10_000, 9331, 5359, 5000, 2680, 1, 1, 1]);
        assert_eq!((by_record_bps(99, 10), by_record_bps(9, 10)), (5359, 10_000));
        assert_eq!(by_record_bps(0, 0), 1);
    }

    #[test]
    fn exposure_asks_for_more_than_what_makes_cheating_a_loss() {
        assert_eq!(by_exposure_bps(0, 0, 9500), U256::ZERO);
        assert_eq!(by_exposure_bps(1, 99, 10_000), U256::from(150));
        assert_eq!(by_exposure_bps(1, 99, 9500), U256::from(158));
        assert!(by_exposure_bps(10, 0, 9500) > U256::from(BPS));
    }
}
