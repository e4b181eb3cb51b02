//! Why a call of a contract fails.

use std::fmt;

use alloy::{primitives::Bytes, sol_types::SolError};
use assay_bindings::decode_revert;

use crate::state::Gap;

/// A custom error of the contracts with its values, as it stands in the revert's data.
#[derive(Clone, PartialEq, Eq)]
pub struct Refusal(pub Bytes);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match decode_revert(&self.0) {
            Some(text) => f.write_str(&text),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<E: SolError> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self(error.abi_encode().into())
    }
}

/// Why a call has no outcome that can be predicted to succeed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// The contract refuses the call.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The state that was folded is not whole.
    #[error(transparent)]
    Gap(#[from] Gap),
}

impl<E: SolError> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

/// Refuses with a custom error unless the condition holds.
macro_rules! require {
    ($condition:expr, $error:expr) => {
        if !$condition {
            return Err($error.into());
        }
    };
}
pub(crate) use require;
