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
