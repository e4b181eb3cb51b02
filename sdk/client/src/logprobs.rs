//! Log probabilities in the chunks of a router: OpenAI's words for them, read as what a node states.

use assay_types::{TokenLogprob, TokenLogprobs, TokenName};
use serde::Deserialize;
use serde_json::Value;

use crate::ClientError;

/// What an answer was asked to have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// Alternatives at each position.
    pub(crate) top: u32,
    /// Most tokens of the answer.
    pub(crate) max_output: u32,
}

#[derive(Deserialize)]
struct Logprobs {
    content: Vec<Position>,
}

#[derive(Deserialize)]
struct Position {
    #[serde(flatten)]
    chosen: Entry,
    top_logprobs: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    token: String,
    logprob: f64,
    bytes: Option<Vec<u8>>,
}

impl From<Entry> for TokenLogprob {
    /// The bytes say what a token adds; its text is escaped where they are a part of a character.
    fn from(entry: Entry) -> Self {
        let token = match entry.bytes.map(String::from_utf8) {
            None => TokenName::Special(entry.token),
            Some(Ok(text)) => TokenName::Text(text),
            Some(Err(error)) => TokenName::Bytes(error.into_bytes().into()),
        };
        Self { token, logprob_micronats: Self::micronats(entry.logprob) }
    }
}

impl Wish {
    /// `logprobs` of a chunk's choice, after `so_far` positions of the answer; none if it is `null`.
    ///
    /// # Errors
    /// If they cannot be, or are too many.
    pub(crate) fn read(
        self,
        logprobs: &Value,
        so_far: usize,
    ) -> Result<Vec<TokenLogprobs>, ClientError> {
        if logprobs.is_null() {
            return Ok(Vec::new());
        }
        let read = Logprobs::deserialize(logprobs);
        let content = read.map_err(|error| ClientError::BadLogprobs(error.to_string()))?.content;
        let (all, max_output) = (so_far + content.len(), self.max_output);
        if all > max_output as usize {
            let what = format!("{all} positions, where {max_output} tokens were asked for");
            return Err(ClientError::BadLogprobs(what));
        }
        let position = |Position { chosen, top_logprobs }| {
            let top = top_logprobs.into_iter().map(TokenLogprob::from).collect();
            let stated = TokenLogprobs { chosen: TokenLogprob::from(chosen), top };
            stated.check(self.top).map_err(ClientError::BadLogprobs)?;
            Ok(stated)
        };
        content.into_iter().map(position).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const WISH: Wish = Wish { top: 1, max_output: 3 };

    fn entry(token: &str, logprob: f64, bytes: Value) -> Value {
        json!({"token": token, "logprob": logprob, "bytes": bytes})
    }

    fn position(token: &str, bytes: Value) -> Value {
        let mut value = entry(token, -0.25, bytes);
        value["top_logprobs"] = json!([entry("a", -0.000_001, json!([97]))]);
        value
    }

    #[test]
    fn a_token_is_what_the_node_named() {
        let content = [
            position("a", json!([97])),
            position("\\xe2", json!([0xE2])),
            position("<end>", Value::Null),
        ];
        let read = WISH.read(&json!({"content": content, "refusal": null}), 0).unwrap();
        let named = [
            TokenName::Text("a".into()),
            TokenName::Bytes(vec![0xE2].into()),
            TokenName::Special("<end>".into()),
        ];
        for (one, token) in read.iter().zip(named) {
            assert_eq!(one.chosen, TokenLogprob { token, logprob_micronats: -250_000 });
            let alternative = TokenName::Text("a".into());
            assert_eq!(one.top, [TokenLogprob { token: alternative, logprob_micronats: -1 }]);
        }
        assert_eq!(read.len(), 3);
        assert_eq!(WISH.read(&Value::Null, 3).unwrap(), []);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let good = json!({"content": [position("a", json!([97]))]});
        assert_eq!(WISH.read(&good, 2).unwrap().len(), 1);
        let more = WISH.read(&good, 3).unwrap_err().to_string();
        assert!(more.contains("4 positions"), "{more}");
        let bad = |place: &str, value: Value, what: &str| {
            let mut one = good.clone();
            *one.pointer_mut(place).unwrap() = value;
            let error = WISH.read(&one, 0).unwrap_err();
            assert!(matches!(&error, ClientError::BadLogprobs(_)), "{error}");
            assert!(error.to_string().contains(what), "{error}");
        };
        bad("/content", json!(7), "invalid type");
        bad("/content/0/bytes", json!([256]), "256");
        bad("/content/0/logprob", json!(0.5), "cannot be");
        bad("/content/0/logprob", json!(-1e300), "cannot be");
        bad("/content/0/logprob", Value::Null, "null");
        bad("/content/0/top_logprobs", json!([]), "0 alternatives");
        bad("/content/0/top_logprobs/0/bytes", json!(vec![97; 513]), "513 bytes");
    }
}
