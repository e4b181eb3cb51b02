//! `/v1/completions`, as OpenAI words it: text without a chat template.

use assay_types::{Prompt, TokenLogprobs};
use serde_json::{Value, json};

use super::{
    ask::{self, Common, Names, Streaming},
    chat::{WITHOUT_EFFECT, usage},
    error::ApiError,
    fields::{Fields, unsupported, wrong},
    logprobs,
    wording::{Answer, Head, Order, Said, Wording, output_tokens},
};
use crate::{
    config::RouterConfig,
    tasks::running::{Delta, Finish},
};

const NAMES: Names = Names { max_output: &["max_tokens"], stop: "stop", max_temperature: 2.0 };

/// Parameters of OpenAI's that this version does not have, and what to do instead.
const REFUSED: [(&str, &str); 4] = [
    ("best_of", "it is not built in this version; ask for several answers with n, and choose"),
    ("top_logprobs", "say with logprobs how many alternatives are wanted, 0 to 5"),
    ("suffix", "it is not built in this version; leave it out"),
    ("messages", "send a conversation to /v1/chat/completions, or text as prompt"),
];

/// Reads a request.
///
/// # Errors
/// 400 that names the parameter, or 404 for a model that is not served.
pub fn read(fields: &mut Fields, config: &RouterConfig) -> Result<Order, ApiError> {
    fields.refuse(&REFUSED)?;
    fields.only("echo", &[json!(false)])?;
    fields.drop_texts(&WITHOUT_EFFECT)?;
    let common = Common::take(fields, &NAMES, config)?;
    let common = common.with_logprobs(logprobs::of_completion(fields)?);
    let prompts = prompts(fields.need("prompt", "send the text to go on from")?)?;
    let Streaming { stream, include_usage } = Streaming::take(fields)?;
    let n = ask::choices(fields)?;
    fields.end()?;
    let asks = ask::asks(&common, prompts, n)?;
    let wording = Text { include_usage, chars: vec![0; asks.len()], ended: Vec::new() };
    Ok(Order::new(asks, stream, Box::new(wording)))
}

/// One text or several.
fn prompts(value: Value) -> Result<Vec<Prompt>, ApiError> {
    let list = match value {
        Value::String(_) => vec![value],
        Value::Array(list) if !list.is_empty() => list,
        _ => return Err(wrong("prompt", "prompt must be a text or an array of texts")),
    };
    let prompt = |value: Value| match value {
        Value::String(text) if !text.is_empty() => Ok(Prompt::Text(text)),
        Value::String(_) => Err(wrong("prompt", "prompt is empty: send the text to go on from")),
        Value::Number(_) | Value::Array(_) => {
            Err(unsupported("prompt", "token ids are not supported: send prompt as text"))
        }
        _ => Err(wrong("prompt", "prompt must be a text or an array of texts")),
    };
    list.into_iter().map(prompt).collect()
}

struct Text {
    include_usage: bool,
    /// Characters of each answer so far, where log probabilities are wanted.
    chars: Vec<usize>,
    ended: Vec<Finish>,
}

impl Text {
    fn logprobs(&mut self, answer: usize, logprobs: &[TokenLogprobs]) -> Value {
        let chars = self.chars.get_mut(answer);
        chars.map_or(Value::Null, |chars| logprobs::completion(logprobs, chars))
    }

    fn chunk(&self, head: &Head, choices: Value) -> Value {
        let mut chunk = json!({
            "id": head.id("cmpl-"),
            "object": "text_completion",
            "created": head.created_s,
            "model": head.model,
            "system_fingerprint": null,
            "choices": choices,
        });
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }
}

fn choice(answer: usize, (text, logprobs): (&str, Value), reason: Option<&str>) -> Value {
    json!({"index": answer, "text": text, "logprobs": logprobs, "finish_reason": reason})
}

impl Wording for Text {
    fn begin(&mut self, _: &Head) -> Vec<Said> {
        Vec::new()
    }

    fn text(&mut self, head: &Head, answer: usize, delta: &Delta) -> Vec<Said> {
        let logprobs = self.logprobs(answer, &delta.logprobs);
        let choice = choice(answer, (&delta.text, logprobs), None);
        vec![Said::plain(&self.chunk(head, json!([choice])))]
    }

    fn end(
        &mut self,
        head: &Head,
        answer: usize,
        finish: &Finish,
        rest: &[TokenLogprobs],
    ) -> Vec<Said> {
        self.ended.push(*finish);
        let rest = self.logprobs(answer, rest);
        let choice = choice(answer, ("", rest), Some(finish.reason()));
        vec![Said::plain(&self.chunk(head, json!([choice])))]
    }

    fn over(&mut self, head: &Head) -> Vec<Said> {
        let mut said = Vec::new();
        if self.include_usage {
            let mut chunk = self.chunk(head, json!([]));
            chunk["usage"] = usage(head, output_tokens(&self.ended));
            said.push(Said::plain(&chunk));
        }
        said.push(Said { name: None, data: "[DONE]".into() });
        said
    }

    /// No `[DONE]`: a client that waits for it knows that the answer is not whole.
    fn failed(&mut self, _: &Head, error: &ApiError) -> Vec<Said> {
        vec![Said::plain(&error.body())]
    }

    fn whole(&self, head: &Head, answers: &[Answer]) -> Value {
        let choices = answers.iter().enumerate();
        let choices = choices.map(|(i, answer)| {
            let logprobs = logprobs::completion(&answer.logprobs, &mut 0);
            choice(i, (&answer.text, logprobs), Some(answer.finish.reason()))
        });
        let mut body = self.chunk(head, choices.collect());
        body["usage"] = usage(head, output_tokens(answers.iter().map(|a| &a.finish)));
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ask::tests::{order_of, refused};

    #[test]
    fn each_text_is_answered_n_times() {
        let body = json!({"model": "assay-demo", "prompt": ["a", "b"], "n": 2, "stream": true});
        let order = order_of(read, &body).unwrap();
        let prompts: Vec<&Prompt> = order.asks.iter().map(|ask| &ask.prompt).collect();
        let text = |text: &str| Prompt::Text(text.into());
        assert_eq!(prompts, [&text("a"), &text("a"), &text("b"), &text("b")]);
        assert!(order.stream);
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        let base = json!({"model": "assay-demo", "prompt": "Once"});
        let mut wrong: Vec<(Value, &str)> = vec![
            (json!({"prompt": ""}), "prompt"),
            (json!({"prompt": []}), "prompt"),
            (json!({"prompt": [1, 2]}), "prompt"),
            (json!({"prompt": null}), "prompt"),
            (json!({"prompt": ["a", "b", "c"], "n": 3}), "prompt"),
            (json!({"echo": true}), "echo"),
            (json!({"logprobs": true}), "logprobs"),
            (json!({"logprobs": 6}), "logprobs"),
            (json!({"max_completion_tokens": 3}), "max_completion_tokens"),
        ];
        wrong.extend(REFUSED.map(|(name, _)| (json!({name: 1}), name)));
        refused(read, &base, &wrong);
    }
}
