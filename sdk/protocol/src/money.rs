//! Prices, fees and their division, rounded as the contracts round.

/// Hundredths of a percent in the whole.
pub const BPS: u128 = 10_000;
/// Prices are for so many tokens.
pub const TOKENS_PER_PRICE: u128 = 1_000_000;

/// What a fee is made of; all of it, to the last minor unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Of the node's payout account.
    pub miner: u128,
    /// Of the lane's holder.
    pub router: u128,
    /// Of the model's publisher.
    pub royalty: u128,
    /// Of whoever settles.
    pub tip: u128,
    /// What rounding and the tip leave over.
    pub burnt: u128,
}

/// Who gets how much of a fee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Hundredths of a percent.
    pub miner_bps: u16,
    /// Hundredths of a percent; the miner's in lane 0.
    pub router_bps: u16,
    /// Hundredths of a percent.
    pub royalty_bps: u16,
    /// Minor units, at most.
    pub max_tip: u128,
    /// Whether the task is in lane 0.
    pub direct: bool,
}

/// Price of so many tokens at prices in minor units per million, rounded up: in favour of the escrow.
///
/// Prices have 80 bits and counts 32, so that nothing overflows.
pub fn fee_up(prompt_tokens: u32, output_tokens: u32, price_in: u128, price_out: u128) -> u128 {
    let sum = u128::from(prompt_tokens) * price_in + u128::from(output_tokens) * price_out;
    sum.div_ceil(TOKENS_PER_PRICE)
}

/// What a pool in full use costs more, as a multiple of its floor.
const STEEPNESS: u128 = 4;

/// Price at a utilisation in hundredths of a percent: the floor times `1 + 4 * u^2`, rounded down; never above five
/// times the floor.
pub fn price_down(floor: u128, utilisation_bps: u64) -> u128 {
    let square = u128::from(utilisation_bps) * u128::from(utilisation_bps);
    floor + floor * STEEPNESS * square / (BPS * BPS)
}

/// Share of so many hundredths of a percent, rounded down.
pub fn share_down(amount: u128, bps: u16) -> u128 {
    amount * u128::from(bps) / BPS
}

impl Split {
    /// Divides `fee`: shares are rounded down, what that leaves over pays the tip, the rest is burnt.
    pub fn shares_down(&self, fee: u128) -> Shares {
        let share = |bps| share_down(fee, bps);
        let (miner, router) = (share(self.miner_bps), share(self.router_bps));
        let royalty = share(self.royalty_bps);
        let rest = fee - miner - router - royalty;
        let tip = rest.min(self.max_tip);
        let (miner, router) = if self.direct { (miner + router, 0) } else { (miner, router) };
        Shares { miner, router, royalty, tip, burnt: rest - tip }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prices_grow_with_the_square_of_the_utilisation() {
        let prices = [0, 2500, 5000, 10_000].map(|bps| price_down(1000, bps));
        assert_eq!(prices, [1000, 1250, 2000, 5000]);
        assert_eq!(price_down(7, 100), 7);
        let largest = (1 << 80) / 5;
        assert!(price_down(largest, 10_000) <= (1 << 80));
    }

    #[test]
    fn fees_are_rounded_up() {
        assert_eq!(fee_up(1, 0, 1, 0), 1);
        assert_eq!(fee_up(1_000_000, 1_000_000, 2, 3), 5);
        assert_eq!(fee_up(1_000_001, 0, 2, 3), 3);
        let largest = fee_up(u32::MAX, u32::MAX, (1 << 80) - 1, (1 << 80) - 1);
        assert!(largest < 1 << 96);
    }

    proptest! {
        #[test]
        fn shares_are_the_fee_to_the_last_unit(
            fee in 0_u128..1 << 96,
            miner_bps in 5000_u16..=9700,
            router_bps in 0_u16..=300,
            max_tip in 0_u128..1 << 60,
            direct: bool,
        ) {
            let split = Split { miner_bps, router_bps, royalty_bps: 0, max_tip, direct };
            let Shares { miner, router, royalty, tip, burnt } = split.shares_down(fee);
            prop_assert_eq!(miner + router + royalty + tip + burnt, fee);
            prop_assert!(tip <= max_tip && (router == 0 || !direct));
        }
    }
}
