//! `/v1/messages`, as Anthropic words it, and the shape of its errors.

use assay_types::{EndReason, Message, Prompt, TokenLogprobs};
use axum::{
    extract::Request,
    http::{StatusCode, header},
    middleware::Next,
    response::Response,
};
use serde_json::{Value, json};

use super::{
    ask::{self, Common, Names},
    error::ApiError,
    fields::{Fields, unsupported},
    wording::{Answer, Head, Order, Said, Wording},
};
use crate::{
    config::RouterConfig,
    tasks::running::{Delta, Finish},
};

const NAMES: Names =
    Names { max_output: &["max_tokens"], stop: "stop_sequences", max_temperature: 1.0 };

/// Parameters of Anthropic's that this version does not have, and what to do instead.
const REFUSED: [(&str, &str); 11] = [
    ("tools", "tool calls are not built in this version; describe the tools in a message"),
    ("tool_choice", "tool calls are not built in this version; leave it out"),
    ("logprobs", "Anthropic's API has none: ask /v1/chat/completions"),
    ("top_logprobs", "Anthropic's API has none: ask /v1/chat/completions"),
    ("container", "it is not built in this version; leave it out"),
    ("context_management", "it is not built in this version; leave it out"),
    ("mcp_servers", "it is not built in this version; leave it out"),
    ("output_config", "other forms than text are not built in this version; leave it out"),
    ("inference_geo", "miners are anywhere; leave it out"),
    ("speed", "there is one speed; leave it out"),
    ("output_format", "other forms than text are not built in this version; leave it out"),
];

/// Reads a request.
///
/// # Errors
/// 400 that names the parameter, or 404 for a model that is not served.
pub fn read(fields: &mut Fields, config: &RouterConfig) -> Result<Order, ApiError> {
    fields.refuse(&REFUSED)?;
    fields.only("thinking", &[json!({"type": "disabled"})])?;
    fields.only("service_tier", &[json!("auto"), json!("standard_only")])?;
    // There is no cache that a client could steer.
    fields.take("cache_control");
    if let Some(value) = fields.take("metadata") {
        let mut metadata = Fields::of(value, "metadata")?;
        metadata.drop_texts(&["user_id"])?;
        metadata.end()?;
    }
    let common = Common::take(fields, &NAMES, config)?;
    if !common.is_bounded() {
        let message = "max_tokens is missing: say how many tokens the answer may have";
        return Err(ApiError::invalid("max_tokens", "missing_required_parameter", message));
    }
    let mut list = system(fields)?;
    list.extend(messages(fields)?);
    let stream = fields.boolean("stream")?.unwrap_or(false);
    fields.end()?;
    let ask = common.ask(Prompt::Messages(list))?;
    // Which one of several ended an answer is not told by the node.
    let stop = (ask.stop.len() == 1).then(|| ask.stop.first().cloned()).flatten();
    Ok(Order::new(vec![ask], stream, Box::new(Words { stop })))
}

/// What stands in a block of text without effect: there is no cache that a client could steer, and an answer
/// has no citations.
const IDLE: [&str; 2] = ["cache_control", "citations"];

fn system(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    let Some(value) = fields.take("system") else { return Ok(Vec::new()) };
    let content = ask::content(Some(value), "system", (&["text"], &IDLE))?;
    Ok(vec![Message { role: "system".into(), content }])
}

fn messages(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    let value = fields.need("messages", "send at least one message")?;
    let list = ask::list(value, "messages")?;
    let last = list.len() - 1;
    let read = |(i, value)| {
        let place = format!("messages[{i}]");
        let mut fields = Fields::of(value, &place)?;
        let text =
            ask::content(fields.take("content"), &fields.name("content"), (&["text"], &IDLE));
        let message = ask::message(&mut fields, &["user", "assistant"], String::new())?;
        let message = Message { content: text?, ..message };
        fields.end()?;
        if i == last && message.role == "assistant" {
            return Err(unsupported(
                &place,
                "the last message is the assistant's: an answer cannot be made to go on from given text in this version; end with a message of the user",
            ));
        }
        Ok(message)
    };
    list.into_iter().enumerate().map(read).collect()
}

/// The words of an answer, with the only stop sequence, if there is one.
struct Words {
    stop: Option<String>,
}

impl Words {
    /// `stop_reason` and `stop_sequence`.
    fn stopped(&self, finish: &Finish) -> (&'static str, Option<&str>) {
        match finish.end {
            EndReason::Max => ("max_tokens", None),
            EndReason::Stop => ("stop_sequence", self.stop.as_deref()),
            EndReason::Eos | EndReason::Cancelled => ("end_turn", None),
        }
    }
}

fn usage(head: &Head, output_tokens: u32) -> Value {
    json!({
        "input_tokens": head.prompt_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output_tokens,
    })
}

fn message(head: &Head, content: Value) -> Value {
    json!({
        "id": head.id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": head.model,
        "content": content,
        "stop_reason": null,
        "stop_sequence": null,
        "usage": usage(head, 0),
    })
}

impl Wording for Words {
    fn begin(&mut self, head: &Head) -> Vec<Said> {
        let block = json!({"type": "text", "text": ""});
        vec![
            Said::typed("message_start", json!({"message": message(head, json!([]))})),
            Said::typed("content_block_start", json!({"index": 0, "content_block": block})),
        ]
    }

    fn text(&mut self, _: &Head, _: usize, delta: &Delta) -> Vec<Said> {
        let delta = json!({"type": "text_delta", "text": delta.text});
        vec![Said::typed("content_block_delta", json!({"index": 0, "delta": delta}))]
    }

    fn end(&mut self, head: &Head, _: usize, finish: &Finish, _: &[TokenLogprobs]) -> Vec<Said> {
        let (reason, sequence) = self.stopped(finish);
        let delta = json!({"stop_reason": reason, "stop_sequence": sequence});
        let usage = usage(head, finish.output_tokens);
        vec![
            Said::typed("content_block_stop", json!({"index": 0})),
            Said::typed("message_delta", json!({"delta": delta, "usage": usage})),
        ]
    }

    fn over(&mut self, _: &Head) -> Vec<Said> {
        vec![Said::typed("message_stop", json!({}))]
    }

    fn failed(&mut self, _: &Head, error: &ApiError) -> Vec<Said> {
        vec![Said { name: Some("error"), data: error_body(error).to_string() }]
    }

    fn whole(&self, head: &Head, answers: &[Answer]) -> Value {
        let text = |answer: &Answer| json!({"type": "text", "text": answer.text});
        let mut body = message(head, answers.iter().map(text).collect());
        if let Some(answer) = answers.first() {
            let (reason, sequence) = self.stopped(&answer.finish);
            body["stop_reason"] = json!(reason);
            body["stop_sequence"] = json!(sequence);
            body["usage"] = usage(head, answer.finish.output_tokens);
        }
        body
    }
}

/// The shape of Anthropic's errors, with the parameter and the code besides.
fn error_body(error: &ApiError) -> Value {
    let kind = match error.status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    };
    json!({
        "type": "error",
        "error": {
            "type": kind, "message": error.message, "param": error.param, "code": error.code,
        },
        "request_id": error.task,
    })
}

/// Middleware: words the errors of everything inside as Anthropic does.
pub async fn word_errors(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    match response.extensions().get::<ApiError>() {
        Some(error) => {
            let mut worded = error.with_body(error_body(error));
            if let Some(methods) = response.headers().get(header::ALLOW) {
                worded.headers_mut().insert(header::ALLOW, methods.clone());
            }
            worded
        }
        None => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ask::tests::{order_of, refused};

    fn base() -> Value {
        json!({
            "model": "assay-demo", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}],
        })
    }

    #[test]
    fn a_conversation_begins_with_its_system_text() {
        let mut body = base();
        body["system"] =
            json!([{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]);
        body["metadata"] = json!({"user_id": "u"});
        body["stop_sequences"] = json!(["END"]);
        let order = order_of(read, &body).unwrap();
        let Prompt::Messages(messages) = &order.asks[0].prompt else { panic!() };
        let flat: Vec<_> = messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
        assert_eq!(flat, [("system", "a"), ("user", "Hi")]);
        assert_eq!(
            (order.asks[0].max_output, order.asks[0].stop.as_slice()),
            (9, &["END".into()][..])
        );
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        let mut wrong: Vec<(Value, &str)> = vec![
            (json!({"max_tokens": null}), "max_tokens"),
            (json!({"temperature": 1.5}), "temperature"),
            (json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}), "thinking"),
            (json!({"metadata": {"x": 1}}), "metadata.x"),
            (json!({"messages": [{"role": "system", "content": "x"}]}), "messages[0].role"),
            (json!({"messages": [{"role": "assistant", "content": "x"}]}), "messages[0]"),
            (
                json!({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}),
                "messages[0].content[0]",
            ),
            (json!({"stop": ["x"]}), "stop"),
        ];
        wrong.extend(REFUSED.map(|(name, _)| (json!({name: 1}), name)));
        refused(read, &base(), &wrong);
    }

    #[test]
    fn errors_have_anthropics_types() {
        let error = ApiError::limited("no_capacity", "busy", 2);
        let body = error_body(&error);
        assert_eq!(
            (&body["type"], &body["error"]["type"]),
            (&json!("error"), &json!("rate_limit_error"))
        );
        let body = error_body(&ApiError::invalid("stop", "invalid_value", "x"));
        assert_eq!(body["error"]["type"], "invalid_request_error");
        assert_eq!(
            (&body["error"]["code"], &body["error"]["param"]),
            (&json!("invalid_value"), &json!("stop"))
        );
        assert_eq!(error_body(&ApiError::node("x", "y"))["error"]["type"], "api_error");
    }
}
