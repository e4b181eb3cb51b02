//! Log probabilities of an answer's tokens, as a node states them beside the stream. They are its word alone: no
//! commitment holds them, and whoever has the weights can compute them again from the ids.

use alloy::primitives::Bytes;
use serde::{Deserialize, Serialize};

/// Most alternatives that are named at one position; OpenAI's own limit.
pub const MAX_TOP_LOGPROBS: u32 = 20;
/// Log probabilities of one answer, alternatives included: as JSON some 100 MB in whoever words it.
pub const MAX_LOGPROBS: u64 = 1 << 17;
/// Bytes of one token: several times the longest of any published vocabulary, and 21 of each token between two
/// receipts fit into a frame.
pub const MAX_TOKEN_BYTES: usize = 512;
/// The smallest log probability; what has none at all in F32 is stated so.
pub const MIN_LOGPROB_MICRONATS: i64 = -9_999_000_000;
/// Millionths in a nat.
const MICRONATS: f64 = 1e6;

/// Log probabilities that an answer may have, alternatives included; [`MAX_LOGPROBS`] are allowed.
pub fn count_logprobs(max_output: u32, top_logprobs: u32) -> u64 {
    u64::from(max_output) * (1 + u64::from(top_logprobs))
}

/// A token, as far as it can be named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenName {
    /// The text that it adds.
    Text(String),
    /// The bytes that it adds, where they are a part of a character.
    Bytes(Bytes),
    /// The name of a token without text, e.g. an end token.
    Special(String),
}

/// A token, and how likely the model found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The token.
    pub token: TokenName,
    /// Natural logarithm of its probability before temperature, penalties and filters, in millionths: at most 0, and
    /// at least [`MIN_LOGPROB_MICRONATS`].
    pub logprob_micronats: i64,
}

/// What is stated of one position of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenLogprobs {
    /// The token that was generated.
    pub chosen: TokenLogprob,
    /// The likeliest tokens, in order, as many as were asked for; the one that was generated may be among them.
    pub top: Vec<TokenLogprob>,
}

impl TokenName {
    /// What it adds to the text; `None` of a token without text.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) => Some(text.as_bytes()),
            Self::Bytes(bytes) => Some(bytes),
            Self::Special(_) => None,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Text(text) | Self::Special(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

impl TokenLogprob {
    /// The log probability in nats.
    pub fn nats(&self) -> f64 {
        self.logprob_micronats as f64 / MICRONATS
    }

    /// Nats in whole millionths, whether or not they can be a log probability.
    pub fn micronats(nats: f64) -> i64 {
        (nats * MICRONATS).round() as i64
    }

    fn check(&self) -> Result<(), String> {
        let (bytes, micronats) = (self.token.len(), self.logprob_micronats);
        if bytes > MAX_TOKEN_BYTES {
            return Err(format!("a token of {bytes} bytes, where {MAX_TOKEN_BYTES} are allowed"));
        }
        if !(MIN_LOGPROB_MICRONATS..=0).contains(&micronats) {
            return Err(format!("a log probability of {micronats} millionths, which cannot be"));
        }
        Ok(())
    }
}

impl TokenLogprobs {
    /// Whether it can stand for a position of an answer with `top` alternatives.
    ///
    /// # Errors
    /// A text that says what is wrong with it.
    pub fn check(&self, top: u32) -> Result<(), String> {
        let got = self.top.len();
        if got != top as usize {
            return Err(format!("{got} alternatives, where {top} were asked for"));
        }
        self.chosen.check()?;
        self.top.iter().try_for_each(TokenLogprob::check)?;
        match self.top.is_sorted_by(|one, next| one.logprob_micronats >= next.logprob_micronats) {
            true => Ok(()),
            false => Err("alternatives out of order".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, logprob_micronats: i64) -> TokenLogprob {
        TokenLogprob { token: TokenName::Text(text.into()), logprob_micronats }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let good = TokenLogprobs { chosen: at("c", -9), top: vec![at("a", -1), at("b", -2)] };
        assert_eq!(good.check(2), Ok(()));
        let bad = |change: fn(&mut TokenLogprobs), what: &str| {
            let mut one = good.clone();
            change(&mut one);
            let error = one.check(2).unwrap_err();
            assert!(error.contains(what), "{error}");
        };
        bad(|it| it.top.truncate(1), "1 alternatives");
        bad(|it| it.top.reverse(), "out of order");
        bad(|it| it.chosen.logprob_micronats = 1, "cannot be");
        bad(|it| it.top[1].logprob_micronats = MIN_LOGPROB_MICRONATS - 1, "cannot be");
        bad(|it| it.chosen.token = TokenName::Special("x".repeat(513)), "513 bytes");
        bad(|it| it.top[0].token = TokenName::Bytes(vec![0; 513].into()), "513 bytes");
    }

    #[test]
    fn millionths_survive_as_nats() {
        for micronats in [0, -1, -510_826, -1_609_438, MIN_LOGPROB_MICRONATS] {
            assert_eq!(TokenLogprob::micronats(at("a", micronats).nats()), micronats);
        }
        assert_eq!(at("a", -250_000).nats(), -0.25);
        assert_eq!(TokenLogprob::micronats(f64::NEG_INFINITY), i64::MIN);
    }

    #[test]
    fn a_token_says_what_it_adds() {
        let part = TokenName::Bytes(vec![0xe2, 0x82].into());
        assert_eq!(part.bytes(), Some([0xe2, 0x82].as_slice()));
        assert_eq!(TokenName::Text("hi".into()).bytes(), Some(b"hi".as_slice()));
        assert_eq!(TokenName::Special("<end>".into()).bytes(), None);
        assert_eq!(serde_json::to_string(&part).unwrap(), r#"{"bytes":"0xe282"}"#);
    }
}
