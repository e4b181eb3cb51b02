//! Amounts as people write them.

use alloy::primitives::{
    U256,
    utils::{UnitsError, format_units, parse_units},
};

/// COR has 18 decimals.
const DECIMALS: u8 = 18;

/// A text is no amount.
#[derive(Debug, thiserror::Error)]
pub enum AmountError {
    /// Not digits with at most one point.
    #[error("{text:?} is not an amount of COR: write it like 5 or 2.5")]
    NotANumber {
        /// What was given.
        text: String,
        /// Why, if that is known.
        source: Option<UnitsError>,
    },
    /// More than can exist.
    #[error("{text} COR is more than there can be")]
    TooMuch {
        /// What was given.
        text: String,
    },
}

/// `2.5` is 2.5 COR in minor units.
///
/// # Errors
/// If the text is no amount.
pub fn parse_cor(text: &str) -> Result<u128, AmountError> {
    let wrong = |source| AmountError::NotANumber { text: text.to_owned(), source };
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    if !text.chars().any(|c| c.is_ascii_digit()) || !text.trim().chars().all(digits) {
        return Err(wrong(None));
    }
    let amount: U256 =
        parse_units(text.trim(), DECIMALS).map_err(|error| wrong(Some(error)))?.into();
    u128::try_from(amount).map_err(|_| AmountError::TooMuch { text: text.to_owned() })
}

/// Minor units as COR, without trailing zeros.
pub fn cor(amount: impl Into<U256>) -> String {
    format!("{} COR", shortened(amount.into()))
}

/// Wei as the chain's coin, which has as many decimals as COR; nobody pays less than a millionth for gas.
pub fn ether(wei: U256) -> String {
    const SHOWN: U256 = U256::from_limbs([1_000_000_000_000, 0, 0, 0]);
    format!("{} ether", shortened(wei - wei % SHOWN))
}

fn shortened(amount: U256) -> String {
    let text = format_units(amount, DECIMALS).unwrap_or_default();
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_round_trip() {
        assert_eq!(parse_cor("2.5").unwrap(), 2_500_000_000_000_000_000);
        assert_eq!(cor(U256::from(2_500_000_000_000_000_000_u128)), "2.5 COR");
        assert_eq!(cor(U256::from(10_u128.pow(19))), "10 COR");
        assert_eq!(cor(U256::ZERO), "0 COR");
        for bad in ["", "x", "-1", "1e99"] {
            assert!(parse_cor(bad).is_err(), "{bad}");
        }
    }
}
