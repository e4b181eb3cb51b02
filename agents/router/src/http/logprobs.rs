//! Log probabilities in OpenAI's words: how its APIs ask for them, and how each of them words them. They are what the
//! node says of its tokens; nothing here checks them.

use assay_types::{MAX_TOP_LOGPROBS, TokenLogprob, TokenLogprobs, TokenName};
use serde_json::{Map, Value, json};

use super::{
    error::ApiError,
    fields::{Fields, unsupported, wrong},
};

/// Most alternatives of a completion; OpenAI's own limit.
const MAX_OF_COMPLETIONS: u32 = 5;
/// What a response is asked to include for them.
const INCLUDED: &str = "message.output_text.logprobs";

/// Takes `logprobs` and `top_logprobs` of a chat: how many alternatives are wanted, if log probabilities are.
///
/// # Errors
/// 400 that names the parameter.
pub fn of_chat(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    of_top(fields, wanted, "\"logprobs\": true")
}

/// Takes `include` and `top_logprobs` of a response.
///
/// # Errors
/// 400 that names the parameter.
pub fn of_response(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let wanted = match fields.take("include") {
        None => false,
        Some(Value::Array(list)) if list.is_empty() => false,
        Some(value) if value == json!([INCLUDED]) => true,
        Some(_) => {
            let message = format!(
                "include must be [{INCLUDED:?}] or left out: nothing else is built in this version"
            );
            return Err(unsupported("include", message));
        }
    };
    of_top(fields, wanted, &format!("\"include\": [{INCLUDED:?}]"))
}

fn of_top(fields: &mut Fields, wanted: bool, with: &str) -> Result<Option<u32>, ApiError> {
    match fields.count("top_logprobs", 0, MAX_TOP_LOGPROBS)? {
        Some(_) if !wanted => {
            let message = format!("top_logprobs is only for requests with {with}");
            Err(wrong("top_logprobs", message))
        }
        top => Ok(wanted.then(|| top.unwrap_or(0))),
    }
}

/// Takes `logprobs` of a completion, which is a number there.
///
/// # Errors
/// 400 that names it.
pub fn of_completion(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    fields.count("logprobs", 0, MAX_OF_COMPLETIONS)
}

/// `logprobs` of a chat's choice; `null` where none are.
pub fn chat(logprobs: &[TokenLogprobs]) -> Value {
    if logprobs.is_empty() {
        return Value::Null;
    }
    json!({"content": entries(logprobs, &Value::Null), "refusal": null})
}

/// `logprobs` of a response's text.
pub fn response(logprobs: &[TokenLogprobs]) -> Value {
    entries(logprobs, &json!([]))
}

/// `logprobs` of a completion's choice; `null` where none are. `chars` counts the characters of the answer so far.
pub fn completion(logprobs: &[TokenLogprobs], chars: &mut usize) -> Value {
    if logprobs.is_empty() {
        return Value::Null;
    }
    let (mut tokens, mut values, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
    for TokenLogprobs { chosen, top } in logprobs {
        tokens.push(spelt(&chosen.token, "bytes:"));
        values.push(chosen.nats());
        let mut likeliest = Map::new();
        // OpenAI's has the one that was generated, whatever its rank.
        for one in top.iter().chain([chosen]) {
            likeliest.entry(spelt(&one.token, "bytes:")).or_insert_with(|| json!(one.nats()));
        }
        tops.push(likeliest);
        offsets.push(advance(chars, &chosen.token));
    }
    json!({
        "tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets,
    })
}

/// Where a token begins in the text, in characters; one inside a character where that begins.
fn advance(chars: &mut usize, token: &TokenName) -> usize {
    let begins = |byte: &&u8| **byte & 0xC0 != 0x80;
    let bytes = token.bytes().unwrap_or_default();
    let is_inside = bytes.first().is_some_and(|first| !begins(&first));
    let offset = chars.saturating_sub(usize::from(is_inside));
    *chars += bytes.iter().filter(begins).count();
    offset
}

fn entries(logprobs: &[TokenLogprobs], no_bytes: &Value) -> Value {
    let entry = |one: &TokenLogprob| {
        let bytes = one.token.bytes().map_or_else(|| no_bytes.clone(), |bytes| json!(bytes));
        json!({"token": spelt(&one.token, ""), "logprob": one.nats(), "bytes": bytes})
    };
    let position = |TokenLogprobs { chosen, top }: &TokenLogprobs| {
        let mut value = entry(chosen);
        value["top_logprobs"] = top.iter().map(entry).collect();
        value
    };
    logprobs.iter().map(position).collect()
}

/// A token as text; a part of a character is escaped as OpenAI does it, e.g. `\xe2\x82`.
fn spelt(token: &TokenName, before_bytes: &str) -> String {
    match token {
        TokenName::Text(text) | TokenName::Special(text) => text.clone(),
        TokenName::Bytes(bytes) => bytes
            .iter()
            .fold(before_bytes.to_owned(), |text, byte| text + &format!("\\x{byte:02x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(token: TokenName, logprob_micronats: i64) -> TokenLogprob {
        TokenLogprob { token, logprob_micronats }
    }

    /// "a€b" in five tokens, then its end.
    fn answer() -> Vec<TokenLogprobs> {
        let text = |text: &str| TokenName::Text(text.into());
        let bytes = |bytes: &[u8]| TokenName::Bytes(bytes.to_vec().into());
        let tokens = [
            text("a"),
            bytes(&[0xE2]),
            bytes(&[0x82, 0xAC]),
            text("b"),
            TokenName::Special("<end>".into()),
        ];
        let top = || vec![one(text("a"), -250_000), one(text(" "), -1_500_000)];
        tokens.map(|token| TokenLogprobs { chosen: one(token, -250_000), top: top() }).into()
    }

    #[test]
    fn a_chat_has_an_entry_for_each_token() {
        assert_eq!(chat(&[]), Value::Null);
        let value = chat(&answer());
        assert_eq!(value["refusal"], Value::Null);
        let content = value["content"].as_array().unwrap();
        assert_eq!(content.len(), 5);
        let top = json!([
            {"token": "a", "logprob": -0.25, "bytes": [97]},
            {"token": " ", "logprob": -1.5, "bytes": [32]},
        ]);
        let first = json!({"token": "a", "logprob": -0.25, "bytes": [97], "top_logprobs": top});
        assert_eq!(content[0], first);
        assert_eq!(content[1]["token"], "\\xe2");
        assert_eq!(content[2]["bytes"], json!([0x82, 0xAC]));
        assert_eq!((&content[4]["token"], &content[4]["bytes"]), (&json!("<end>"), &Value::Null));
        assert_eq!(response(&answer())[4]["bytes"], json!([]));
    }

    #[test]
    fn a_completion_has_four_lists_and_goes_on_where_it_was() {
        let answer = answer();
        let (mut chars, mut chunked) = (0, 0);
        let whole = completion(&answer, &mut chars);
        assert_eq!(whole["tokens"], json!(["a", "bytes:\\xe2", "bytes:\\x82\\xac", "b", "<end>"]));
        assert_eq!(whole["text_offset"], json!([0, 1, 1, 2, 3]));
        assert_eq!(whole["token_logprobs"], json!([-0.25, -0.25, -0.25, -0.25, -0.25]));
        assert_eq!(whole["top_logprobs"][0], json!({"a": -0.25, " ": -1.5}));
        assert_eq!(whole["top_logprobs"][3], json!({"a": -0.25, " ": -1.5, "b": -0.25}));
        completion(&answer[..2], &mut chunked);
        assert_eq!(completion(&answer[2..], &mut chunked)["text_offset"], json!([1, 2, 3]));
        assert_eq!(completion(&[], &mut chunked), Value::Null);
        assert_eq!((chars, chunked), (3, 3));
    }
}
