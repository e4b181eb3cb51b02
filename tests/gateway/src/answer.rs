//! The one answer that everybody gives, and its pace.

use std::time::Duration;

/// The model's name in requests.
pub const MODEL: &str = "mock";
/// Words of a whole answer; one token each.
pub const WORDS: [&str; 8] = ["This ", "is ", "the ", "answer ", "of ", "the ", "mock", "."];
/// Each token of a stream.
pub const WORD: &str = "token ";
/// Between two tokens of a stream: 50 a second.
pub const PACE: Duration = Duration::from_millis(20);
/// A prompt like that of a short conversation.
const PROMPT: &str = "Explain in one short sentence what a gateway in front of several language models does, \
    and why the time that it adds to each token matters to those who read the answer.";

/// A body that asks for a whole answer.
pub fn whole() -> String {
    body(WORDS.len(), false)
}

/// A body that asks for a stream of `tokens`.
pub fn stream(tokens: usize) -> String {
    body(tokens, true)
}

fn body(max_tokens: usize, stream: bool) -> String {
    let messages = [serde_json::json!({"role": "user", "content": PROMPT})];
    serde_json::json!({
        "model": MODEL, "messages": messages, "max_tokens": max_tokens, "stream": stream,
    })
    .to_string()
}
