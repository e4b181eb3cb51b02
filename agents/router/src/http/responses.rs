//! `/v1/responses`, as OpenAI words it: text in, text out, nothing stored.

use assay_types::{EndReason, Message, Prompt, TokenLogprobs};
use serde_json::{Map, Value, json};

use super::{
    ask::{self, Common, Names, Streaming},
    chat::WITHOUT_EFFECT,
    error::ApiError,
    fields::{Fields, wrong},
    logprobs,
    wording::{Answer, Head, Order, Said, Wording},
};
use crate::{
    config::RouterConfig,
    tasks::running::{Delta, Finish},
};

const NAMES: Names =
    Names { max_output: &["max_output_tokens"], stop: "stop", max_temperature: 2.0 };

/// Parameters of OpenAI's that this version does not have, and what to do instead.
const REFUSED: [(&str, &str); 14] = [
    ("previous_response_id", "no response is stored: send the whole conversation as input"),
    ("conversation", "no conversation is stored: send it as input"),
    ("prompt", "no prompt is stored: send it as instructions and input"),
    ("tool_choice", "tool calls are not built in this version; leave it out"),
    ("parallel_tool_calls", "tool calls are not built in this version; leave it out"),
    ("max_tool_calls", "tool calls are not built in this version; leave it out"),
    ("reasoning", "it is not built in this version; leave it out"),
    ("service_tier", "there is one tier; leave it out"),
    ("context_management", "it is not built in this version; leave it out"),
    ("moderation", "it is not built in this version; leave it out"),
    ("image", "only text is supported in this version; leave it out"),
    ("prompt_cache_options", "there is no cache that a client could steer; leave it out"),
    ("prompt_cache_retention", "there is no cache that a client could steer; leave it out"),
    ("messages", "send the conversation as input"),
];

/// Reads a request.
///
/// # Errors
/// 400 that names the parameter, or 404 for a model that is not served.
pub fn read(fields: &mut Fields, config: &RouterConfig) -> Result<Order, ApiError> {
    fields.refuse(&REFUSED)?;
    fields.only("tools", &[json!([])])?;
    fields.only("background", &[json!(false)])?;
    fields.only("store", &[json!(false)])?;
    fields.only("truncation", &[json!("disabled")])?;
    text_format(fields)?;
    fields.drop_texts(&WITHOUT_EFFECT)?;
    let metadata = fields.metadata()?;
    let common = Common::take(fields, &NAMES, config)?;
    let common = common.with_logprobs(logprobs::of_response(fields)?);
    let instructions = fields.text("instructions")?;
    let mut list: Vec<Message> = instructions.iter().map(|text| said("system", text)).collect();
    list.extend(input(fields.need("input", "send a text or a list of messages")?)?);
    let Streaming { stream, .. } = Streaming::take(fields)?;
    fields.end()?;
    let asks = ask::asks(&common, vec![Prompt::Messages(list)], 1)?;
    let ask = asks.first().ok_or_else(|| ApiError::internal("no request was made"))?;
    let wording = Words {
        instructions,
        metadata,
        max_output: common.is_bounded().then_some(ask.max_output),
        temperature_milli: ask.sampling.temperature_milli,
        top_p_milli: ask.sampling.top_p_milli,
        top_logprobs: ask.top_logprobs.unwrap_or(0),
        count: 0,
        text: String::new(),
        logprobs: Vec::new(),
    };
    Ok(Order::new(asks, stream, Box::new(wording)))
}

fn said(role: &str, text: &str) -> Message {
    Message { role: role.into(), content: text.into() }
}

fn text_format(fields: &mut Fields) -> Result<(), ApiError> {
    let Some(value) = fields.take("text") else { return Ok(()) };
    let mut text = Fields::of(value, "text")?;
    text.only("format", &[json!({"type": "text"})])?;
    text.refuse(&[("verbosity", "it is not built in this version; ask for it in a message")])?;
    text.end()
}

fn input(value: Value) -> Result<Vec<Message>, ApiError> {
    match value {
        Value::String(text) => Ok(vec![said("user", &text)]),
        Value::Array(_) => {
            let list = ask::list(value, "input")?;
            list.into_iter().enumerate().map(|(i, item)| message(item, i)).collect()
        }
        _ => Err(wrong("input", "input must be a text or an array of messages")),
    }
}

/// A message, also one of an earlier response's output.
fn message(item: Value, index: usize) -> Result<Message, ApiError> {
    let mut fields = Fields::of(item, &format!("input[{index}]"))?;
    fields.only("type", &[json!("message")])?;
    fields.drop_texts(&["id", "status"])?;
    let kinds = ["input_text", "output_text"];
    let idle = ["annotations", "logprobs"];
    let text = ask::content(fields.take("content"), &fields.name("content"), (&kinds, &idle));
    let roles = ["system", "developer", "user", "assistant"];
    let message = ask::message(&mut fields, &roles, String::new())?;
    let message = Message { content: text?, ..message };
    fields.end()?;
    Ok(message)
}

/// The words of one response, and what of its request they repeat.
struct Words {
    instructions: Option<String>,
    metadata: Map<String, Value>,
    max_output: Option<u32>,
    temperature_milli: u32,
    top_p_milli: u32,
    top_logprobs: u32,
    /// Events so far.
    count: u64,
    text: String,
    logprobs: Vec<TokenLogprobs>,
}

fn part(text: &str, logprobs: &[TokenLogprobs]) -> Value {
    let logprobs = logprobs::response(logprobs);
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs})
}

fn item(head: &Head, status: &str, content: Value) -> Value {
    json!({
        "id": head.id("msg_"), "type": "message", "role": "assistant", "status": status,
        "content": content,
    })
}

/// The status of a response, and why it is not complete.
fn status(finish: &Finish) -> (&'static str, Value) {
    match finish.end {
        EndReason::Max => ("incomplete", json!({"reason": "max_output_tokens"})),
        EndReason::Eos | EndReason::Stop | EndReason::Cancelled => ("completed", Value::Null),
    }
}

impl Words {
    fn event(&mut self, name: &'static str, fields: Value) -> Said {
        let mut numbered = json!({"sequence_number": self.count});
        self.count += 1;
        if let (Value::Object(numbered), Value::Object(fields)) = (&mut numbered, fields) {
            numbered.extend(fields);
        }
        Said::typed(name, numbered)
    }

    /// The response without an output; what is not supported stands at the value that says so.
    fn response(&self, head: &Head) -> Value {
        json!({
            "id": head.id("resp_"),
            "object": "response",
            "created_at": head.created_s,
            "status": "in_progress",
            "background": false,
            "error": null,
            "incomplete_details": null,
            "instructions": self.instructions,
            "max_output_tokens": self.max_output,
            "model": head.model,
            "output": [],
            "parallel_tool_calls": false,
            "previous_response_id": null,
            "reasoning": {"effort": null, "summary": null},
            "store": false,
            "temperature": f64::from(self.temperature_milli) / 1000.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
            "top_logprobs": self.top_logprobs,
            "top_p": f64::from(self.top_p_milli) / 1000.0,
            "truncation": "disabled",
            "usage": null,
            "metadata": self.metadata,
        })
    }

    fn finished(&self, head: &Head, finish: &Finish, part: &Value) -> Value {
        let (status, details) = status(finish);
        let mut body = self.response(head);
        body["status"] = json!(status);
        body["incomplete_details"] = details;
        body["output"] = json!([item(head, status, json!([part]))]);
        body["usage"] = json!({
            "input_tokens": head.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": finish.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": head.prompt_tokens.saturating_add(finish.output_tokens),
        });
        body
    }
}

impl Wording for Words {
    fn begin(&mut self, head: &Head) -> Vec<Said> {
        let response = self.response(head);
        let id = head.id("msg_");
        vec![
            self.event("response.created", json!({"response": response})),
            self.event("response.in_progress", json!({"response": response})),
            self.event(
                "response.output_item.added",
                json!({"output_index": 0, "item": item(head, "in_progress", json!([]))}),
            ),
            self.event(
                "response.content_part.added",
                json!({"item_id": id, "output_index": 0, "content_index": 0, "part": part("", &[])}),
            ),
        ]
    }

    fn text(&mut self, head: &Head, _: usize, delta: &Delta) -> Vec<Said> {
        self.text.push_str(&delta.text);
        self.logprobs.extend_from_slice(&delta.logprobs);
        let fields = json!({
            "item_id": head.id("msg_"), "output_index": 0, "content_index": 0, "delta": delta.text,
            "logprobs": logprobs::response(&delta.logprobs),
        });
        vec![self.event("response.output_text.delta", fields)]
    }

    fn end(&mut self, head: &Head, _: usize, finish: &Finish, rest: &[TokenLogprobs]) -> Vec<Said> {
        self.logprobs.extend_from_slice(rest);
        let text = std::mem::take(&mut self.text);
        let part = part(&text, &std::mem::take(&mut self.logprobs));
        let id = head.id("msg_");
        let (status, _) = status(finish);
        let response = self.finished(head, finish, &part);
        let last = if status == "completed" { "response.completed" } else { "response.incomplete" };
        vec![
            self.event(
                "response.output_text.done",
                json!({
                    "item_id": id, "output_index": 0, "content_index": 0, "text": text,
                    "logprobs": part["logprobs"],
                }),
            ),
            self.event(
                "response.content_part.done",
                json!({"item_id": id, "output_index": 0, "content_index": 0, "part": part}),
            ),
            self.event(
                "response.output_item.done",
                json!({"output_index": 0, "item": item(head, status, json!([part]))}),
            ),
            self.event(last, json!({"response": response})),
        ]
    }

    fn over(&mut self, _: &Head) -> Vec<Said> {
        Vec::new()
    }

    fn failed(&mut self, head: &Head, error: &ApiError) -> Vec<Said> {
        let mut response = self.response(head);
        response["status"] = json!("failed");
        response["error"] = json!({"code": error.code, "message": error.message});
        let detail = json!({
            "code": error.code, "message": error.message, "param": error.param,
        });
        vec![
            self.event("response.failed", json!({"response": response})),
            self.event("error", detail),
        ]
    }

    fn whole(&self, head: &Head, answers: &[Answer]) -> Value {
        match answers.first() {
            Some(answer) => {
                let part = part(&answer.text, &answer.logprobs);
                self.finished(head, &answer.finish, &part)
            }
            None => self.response(head),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ask::tests::{order_of, refused};

    #[test]
    fn an_earlier_output_can_be_sent_back_as_input() {
        let body = json!({
            "model": "assay-demo", "instructions": "Be brief.", "store": false, "tools": [],
            "input": [
                {"role": "user", "content": "Hi"},
                {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
                 "content": [{"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}]},
                {"role": "user", "content": [{"type": "input_text", "text": "Why?"}]},
            ],
        });
        let order = order_of(read, &body).unwrap();
        let Prompt::Messages(messages) = &order.asks[0].prompt else { panic!() };
        let flat: Vec<_> = messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
        assert_eq!(
            flat,
            [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Why?")]
        );
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        let base = json!({"model": "assay-demo", "input": "Hi"});
        let mut wrong: Vec<(Value, &str)> = vec![
            (json!({"input": 7}), "input"),
            (json!({"input": []}), "input"),
            (
                json!({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}),
                "input[0].type",
            ),
            (
                json!({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}),
                "input[0].content[0]",
            ),
            (json!({"store": true}), "store"),
            (json!({"background": true}), "background"),
            (json!({"tools": [{"type": "web_search"}]}), "tools"),
            (json!({"include": ["reasoning.encrypted_content"]}), "include"),
            (json!({"include": "message.output_text.logprobs"}), "include"),
            (json!({"top_logprobs": 1}), "top_logprobs"),
            (json!({"truncation": "auto"}), "truncation"),
            (json!({"text": {"format": {"type": "json_object"}}}), "text.format"),
            (json!({"text": {"verbosity": "low"}}), "text.verbosity"),
            (json!({"max_tokens": 7}), "max_tokens"),
            (json!({"n": 2}), "n"),
        ];
        wrong.extend(REFUSED.map(|(name, _)| (json!({name: 1}), name)));
        refused(read, &base, &wrong);
    }
}
