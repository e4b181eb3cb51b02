//! How an API words an answer. What happens is the same for all of them: tasks begin, text comes, each ends.

use assay_types::{TaskId, TokenLogprobs};
use serde_json::{Value, json};

use super::{ask::Ask, error::ApiError};
use crate::{
    keys::Bill,
    tasks::running::{Delta, Finish},
};

/// A request as one API has read it.
pub struct Order {
    /// One for each answer that is wanted.
    pub asks: Vec<Ask>,
    /// Whether tokens are streamed.
    pub stream: bool,
    /// How it is answered.
    pub wording: Box<dyn Wording>,
    /// What the key that asks has been charged; `None` where no keys are asked for.
    pub bill: Option<Bill>,
}

impl Order {
    /// An order that no key is charged for yet.
    pub fn new(asks: Vec<Ask>, stream: bool, wording: Box<dyn Wording>) -> Self {
        Self { asks, stream, wording, bill: None }
    }
}

/// What is known once the tasks of a request have begun.
#[derive(Clone, Debug)]
pub struct Head {
    /// One for each answer, never empty.
    pub tasks: Vec<TaskId>,
    /// Unix seconds.
    pub created_s: u64,
    /// Name of the model.
    pub model: String,
    /// Tokens of all prompts together.
    pub prompt_tokens: u32,
}

impl Head {
    /// An id of the API's kind, of the first task.
    pub fn id(&self, prefix: &str) -> String {
        let task = self.tasks.first().copied().unwrap_or_default();
        format!("{prefix}{}", alloy::hex::encode(task.0))
    }
}

/// One answer, complete and checked.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// One for each token if they were asked for, else none.
    pub logprobs: Vec<TokenLogprobs>,
    /// How it ended.
    pub finish: Finish,
}

/// One event of a streamed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its name, in APIs that name their events.
    pub name: Option<&'static str>,
    /// Its data, mostly JSON.
    pub data: String,
}

impl Said {
    /// An event without a name.
    pub fn plain(data: &Value) -> Self {
        Self { name: None, data: data.to_string() }
    }

    /// An event whose name also stands in its data, as its `type`.
    pub fn typed(name: &'static str, fields: Value) -> Self {
        let mut data = json!({"type": name});
        if let (Value::Object(data), Value::Object(fields)) = (&mut data, fields) {
            data.extend(fields);
        }
        Self { name: Some(name), data: data.to_string() }
    }
}

/// The words of one API for one request. A stream is `begin`, `text` and `end` in any order of the answers,
/// then `over`; or `failed` at any time, and nothing after it.
pub trait Wording: Send {
    /// The tasks have begun.
    fn begin(&mut self, head: &Head) -> Vec<Said>;

    /// Text of one answer.
    fn text(&mut self, head: &Head, answer: usize, delta: &Delta) -> Vec<Said>;

    /// One answer is complete; what is stated of tokens that had no text.
    fn end(
        &mut self,
        head: &Head,
        answer: usize,
        finish: &Finish,
        rest: &[TokenLogprobs],
    ) -> Vec<Said>;

    /// All answers are complete.
    fn over(&mut self, head: &Head) -> Vec<Said>;

    /// There will be no whole answer.
    fn failed(&mut self, head: &Head, error: &ApiError) -> Vec<Said>;

    /// Everything at once, where nothing is streamed.
    fn whole(&self, head: &Head, answers: &[Answer]) -> Value;
}

/// Tokens of all answers together.
pub fn output_tokens<'a>(finishes: impl IntoIterator<Item = &'a Finish>) -> u32 {
    finishes.into_iter().fold(0, |sum, finish| sum.saturating_add(finish.output_tokens))
}
