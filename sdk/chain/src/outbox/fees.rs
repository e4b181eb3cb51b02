//! Prices of gas.

use alloy::providers::Provider;
use alloy::providers::utils::Eip1559Estimation;

use super::{Inner, OutboxError};

/// Most that is ever signed for a unit of gas, 10,000 gwei: five times the worst that Ethereum has seen.
/// A node that asks for more is broken or hostile.
pub(super) const MAX_FEE_PER_GAS: u128 = 10_000_000_000_000;
/// Fees are not raised above this many times what the chain asks for, or asked for at first: a node that
/// calls even that too little is wrong.
pub(super) const MAX_OVER_PRICE: u128 = 10;
/// Tip where the node cannot estimate: 1 gwei, what Ethereum's clients take for the default.
const FALLBACK_TIP: u128 = 1_000_000_000;

/// EIP-1559 fees, in wei for a unit of gas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fees {
    pub max: u128,
    pub tip: u128,
}

impl Fees {
    /// Raised by an eighth, rounded up, and at least `now`: nodes replace a transaction only for 10 % more
    /// of both, some for 12.5 %.
    pub(super) fn bumped(self, now: Self) -> Self {
        let raise = |fee: u128| fee.saturating_add(fee.div_ceil(8)).saturating_add(1);
        let tip = raise(self.tip).max(now.tip);
        Self { max: raise(self.max).max(now.max).max(tip), tip }
    }
}

impl From<Eip1559Estimation> for Fees {
    fn from(estimate: Eip1559Estimation) -> Self {
        Self { max: estimate.max_fee_per_gas, tip: estimate.max_priority_fee_per_gas }
    }
}

impl Inner {
    /// What the chain asks for now.
    pub(super) async fn fees(&self) -> Result<Fees, OutboxError> {
        let provider = &self.chain.provider;
        let estimate = self
            .chain
            .call("eth_feeHistory", provider.estimate_eip1559_fees())
            .await
            .map(Fees::from);
        let fees = match estimate {
            Ok(fees) => fees,
            // Some nodes have no fee history; the price with a tip on top does as well.
            Err(error) => {
                let price = provider.get_gas_price();
                let Ok(price) = self.chain.call("eth_gasPrice", price.into_future()).await else {
                    return Err(error.into());
                };
                Fees {
                    max: price.saturating_mul(2).saturating_add(FALLBACK_TIP),
                    tip: FALLBACK_TIP,
                }
            }
        };
        if fees.max > MAX_FEE_PER_GAS {
            return Err(OutboxError::FeeTooHigh { wei: fees.max, limit: MAX_FEE_PER_GAS });
        }
        Ok(fees)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bump_is_at_least_an_eighth_of_both_and_never_below_the_market() {
        for (max, tip) in
            [(0, 0), (1, 1), (7, 3), (8, 8), (1_000_000_007, 1_000_003), (u128::MAX, 5)]
        {
            let old = Fees { max, tip };
            let new = old.bumped(Fees { max: 0, tip: 0 });
            assert!(new.max > old.max || old.max == u128::MAX);
            assert!(new.tip > old.tip);
            assert!(new.max.saturating_sub(old.max) >= old.max / 8 || new.max == u128::MAX);
            assert!(new.tip - old.tip >= old.tip / 8);
            assert!(new.max >= new.tip);
        }
        let market = Fees { max: 50, tip: 20 };
        assert_eq!(Fees { max: 10, tip: 1 }.bumped(market), market);
    }
}
