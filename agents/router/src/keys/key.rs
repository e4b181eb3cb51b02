//! What is stored of an API key.

use std::fmt;

use alloy::hex;
use assay_types::{B256, sha256};
use serde::Serialize;

/// What every key begins with, so that scanners for leaked secrets find it.
const PREFIX: &str = "sk-assay-";
/// Hexadecimal digits of a key's id: enough for more keys than a router has, few enough to type.
const ID_DIGITS: usize = 12;

/// A key's text, shown once. What is stored is its hash: 256 random bits cannot be guessed, so that a slow hash would
/// protect nothing.
pub struct Secret(String);

impl Secret {
    /// A new one.
    pub fn random() -> Self {
        Self(format!("{PREFIX}{}", hex::encode(B256::random())))
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The hash that is stored.
    pub fn hash(&self) -> B256 {
        hash(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The hash of a key's text.
pub fn hash(text: &str) -> B256 {
    sha256(text.as_bytes())
}

/// A new id.
pub fn random_id() -> String {
    let random = hex::encode(B256::random());
    format!("key_{}", random.get(..ID_DIGITS).unwrap_or(&random))
}

/// How often a budget begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// 24 hours.
    Day,
    /// 7 days.
    Week,
    /// 30 days.
    Month,
}

impl Period {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Day, Self::Week, Self::Month];

    /// Its length.
    pub const fn seconds(self) -> u64 {
        const DAY_S: u64 = 24 * 3600;
        match self {
            Self::Day => DAY_S,
            Self::Week => 7 * DAY_S,
            Self::Month => 30 * DAY_S,
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|period| period.name() == name)
    }
}

/// What a key may do. `None` is without a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Minor units of the session's asset, COR in most: in all, or in each period.
    pub budget: Option<u128>,
    /// How often the budget begins anew, counted from the key's creation.
    pub period: Option<Period>,
    /// Requests that may begin in a minute.
    pub requests_per_minute: Option<u32>,
    /// Tokens of prompts and answers in a minute.
    pub tokens_per_minute: Option<u32>,
    /// Unix seconds; no request begins from then on, and what is under way ends.
    pub expires_s: Option<u64>,
    /// Models by name; empty: all that are served.
    pub models: Vec<String>,
}

/// An API key without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApiKey {
    /// Names it in lists, metrics and tasks; nobody can ask with it.
    pub id: String,
    /// What its maker calls it.
    pub name: String,
    /// Unix seconds.
    pub created_s: u64,
    /// Unix seconds.
    pub revoked_s: Option<u64>,
    /// What it may do.
    #[serde(flatten)]
    pub limits: Limits,
}

impl ApiKey {
    /// Whether it may ask for a model.
    pub fn allows(&self, model: &str) -> bool {
        self.limits.models.is_empty() || self.limits.models.iter().any(|name| name == model)
    }

    /// The period of its budget at a time, unix seconds, counted from 0.
    pub fn period_at(&self, time_s: u64) -> u64 {
        let since = time_s.saturating_sub(self.created_s);
        self.limits.period.map_or(0, |period| since / period.seconds())
    }

    /// Seconds until its budget begins anew; `None` if it never does.
    pub fn renewed_in_s(&self, time_s: u64) -> Option<u64> {
        let length = self.limits.period?.seconds();
        let since = time_s.saturating_sub(self.created_s);
        Some(length - since % length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_random_and_is_not_printed() {
        let (one, other) = (Secret::random(), Secret::random());
        assert!(one.text().starts_with(PREFIX) && one.text().len() == PREFIX.len() + 64);
        assert_ne!(one.hash(), other.hash());
        assert_eq!(one.hash(), hash(one.text()));
        assert_eq!(format!("{one:?}"), "Secret");
    }

    #[test]
    fn periods_are_counted_from_the_keys_creation() {
        let limits = Limits { period: Some(Period::Day), ..Limits::default() };
        let mut key = ApiKey {
            id: random_id(),
            name: String::new(),
            created_s: 1000,
            revoked_s: None,
            limits,
        };
        assert_eq!((key.period_at(1000), key.period_at(1000 + 86_399)), (0, 0));
        assert_eq!((key.period_at(1000 + 86_400), key.period_at(0)), (1, 0));
        assert_eq!(key.renewed_in_s(1000 + 86_399), Some(1));
        key.limits.period = None;
        assert_eq!((key.period_at(u64::MAX), key.renewed_in_s(5)), (0, None));
    }
}
