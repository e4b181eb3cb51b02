//! Between the contracts' odd widths and plain integers. Everything saturates: values of the contracts always fit.

use alloy::primitives::{
    U256, Uint,
    aliases::{U40, U80, U96},
};

/// Seconds, counters, ids.
pub(crate) fn int<const B: usize, const L: usize>(value: Uint<B, L>) -> u64 {
    value.saturating_to()
}

/// Minor units.
pub(crate) fn amount<const B: usize, const L: usize>(value: Uint<B, L>) -> u128 {
    value.saturating_to()
}

pub(crate) fn u40(value: u64) -> U40 {
    U40::saturating_from(value)
}

pub(crate) fn u80(value: u128) -> U80 {
    U80::saturating_from(value)
}

pub(crate) fn u96(value: u128) -> U96 {
    U96::saturating_from(value)
}

pub(crate) fn u256(value: impl Into<u128>) -> U256 {
    U256::from(value.into())
}
