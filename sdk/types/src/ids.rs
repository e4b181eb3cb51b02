//! Identifiers. Each is a newtype, so that a session is never passed where a node is meant.

use std::{fmt, str::FromStr};

use alloy::primitives::B256;
use serde::{Deserialize, Serialize};

macro_rules! integer_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub B256);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = alloy::hex::FromHexError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

integer_id!(
    /// A session, counted from 1 by the `Session` contract.
    SessionId, u64
);
integer_id!(
    /// A node, counted from 1 by `NodePool`; never changes while keys may. 0 means "no node named".
    NodeId, u32
);
integer_id!(
    /// An allotment of a session. Lane 0 belongs to the session's owner, the others to routers.
    Lane, u32
);
integer_id!(
    /// Number of a request in its lane, given out in sequence by the lane's holder.
    Nonce, u64
);
integer_id!(
    /// A model's number in `ModelRegistry`, counted from 1: the short form that contracts store.
    ModelIndex, u32
);
integer_id!(
    /// A token that sessions may be paid in, by its place in `SessionPayment`'s list; 0 is COR.
    AssetId, u8
);
hash_id!(
    /// `keccak256(abi.encode(queue, sessionId, lane, nonce))`: known before any transaction.
    TaskId
);
hash_id!(
    /// keccak-256 of the bytes of a model manifest.
    ModelId
);

/// Backend and data type of a node's arithmetic, e.g. `cpu-f32`: ASCII, left-aligned in 32 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NumericClass(pub B256);

/// Why a text is not a numeric class.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a numeric class: use 1 to 31 characters of a-z, 0-9 and '-', such as cpu-f32"
)]
pub struct NumericClassError {
    text: String,
}

impl FromStr for NumericClass {
    type Err = NumericClassError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty() || text.len() > 31 || !text.bytes().all(legal) {
            return Err(NumericClassError { text: text.chars().take(64).collect() });
        }
        Ok(Self(B256::right_padding_from(text.as_bytes())))
    }
}

impl TryFrom<String> for NumericClass {
    type Error = NumericClassError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<NumericClass> for String {
    fn from(class: NumericClass) -> Self {
        class.to_string()
    }
}

impl fmt::Display for NumericClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.as_slice().split(|b| *b == 0).next().unwrap_or_default();
        f.write_str(&String::from_utf8_lossy(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_class_is_a_left_aligned_text() {
        let class: NumericClass = "cpu-f32".parse().unwrap();
        assert_eq!(&class.0[..8], b"cpu-f32\0");
        assert_eq!(class.to_string(), "cpu-f32");
        for bad in ["", "CPU", "a b", "0123456789012345678901234567890123"] {
            assert!(bad.parse::<NumericClass>().is_err(), "{bad}");
        }
    }
}
