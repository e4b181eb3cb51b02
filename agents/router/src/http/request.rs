//! From the JSON of a chat completion request to what a miner is asked. Nothing is ignored in silence:
//! what this version does not do is refused by name.

use assay_types::{MAX_MESSAGES, MAX_OUTPUT_LIMIT, MAX_STOP_BYTES, MAX_STOPS, Message, Sampling};
use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::error::ApiError;
use crate::config::{MAX_REDUNDANCY, MESSAGE_TOKENS, RouterConfig, ServedModel, TEMPLATE_TOKENS};

/// Longest piece of a client's text that is repeated in an error.
const SHOWN: usize = 64;
/// A number is a multiple of a thousandth if it is as near to one as a 64-bit float can tell.
const MILLI_SLACK: f64 = 1e-6;

/// Parameters that change nothing in the answer: accepted, neither stored nor sent on.
const WITHOUT_EFFECT: [&str; 2] = ["user", "metadata"];

/// Parameters of OpenAI's that this version does not have, and what to do instead.
const REFUSED: [(&str, &str); 20] = [
    (
        "seed",
        "the network fixes the seed of every answer, so that nobody can choose it; leave it out",
    ),
    ("tools", "tool calls are not built in this version; describe the tools in a message"),
    ("tool_choice", "tool calls are not built in this version; leave it out"),
    ("parallel_tool_calls", "tool calls are not built in this version; leave it out"),
    ("functions", "function calls are not built in this version; leave it out"),
    ("function_call", "function calls are not built in this version; leave it out"),
    ("top_logprobs", "log probabilities are not built in this version; leave it out"),
    ("logit_bias", "it is not built in this version; leave it out"),
    ("modalities", "answers are text; leave it out"),
    ("audio", "answers are text; leave it out"),
    ("prediction", "it is not built in this version; leave it out"),
    ("reasoning_effort", "it is not built in this version; leave it out"),
    ("verbosity", "it is not built in this version; ask for it in a message"),
    ("service_tier", "there is one tier; leave it out"),
    ("web_search_options", "it is not built in this version; leave it out"),
    ("repetition_penalty", "use frequency_penalty and presence_penalty"),
    ("best_of", "one answer is made for a request; leave it out"),
    ("echo", "the prompt is not repeated; leave it out"),
    ("suffix", "it is not built in this version; leave it out"),
    ("prompt", "send the conversation as messages"),
];

/// A checked request.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// The model asked for.
    pub model: ServedModel,
    /// The conversation.
    pub messages: Vec<Message>,
    /// Sampling parameters.
    pub sampling: Sampling,
    /// Stop sequences.
    pub stop: Vec<String>,
    /// Most tokens of the answer.
    pub max_output: u32,
    /// Most tokens that the prompt can have; what money is held for.
    pub max_prompt: u32,
    /// Answers wanted, each of another node; the first one's is shown.
    pub redundancy: u8,
    /// Whether tokens are streamed.
    pub stream: bool,
    /// Whether a last chunk of the stream has the usage.
    pub include_usage: bool,
}

/// Reads a request's body.
///
/// # Errors
/// 400 that names the parameter, or 404 for a model that is not served.
pub fn parse(body: &[u8], config: &RouterConfig) -> Result<Ask, ApiError> {
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        ApiError::invalid(
            "",
            "invalid_json",
            format!("the body is not JSON: {error}; check it with a JSON parser"),
        )
    })?;
    let Value::Object(mut fields) = value else {
        return Err(ApiError::invalid("", "invalid_json", "the body must be a JSON object"));
    };
    fields.retain(|_, value| !value.is_null());
    for (name, instead) in REFUSED {
        if fields.contains_key(name) {
            return Err(unsupported(name, format!("{name} is not supported: {instead}")));
        }
    }
    for name in WITHOUT_EFFECT {
        fields.shift_remove(name);
    }
    read(&mut fields, config)
}

fn read(fields: &mut Map<String, Value>, config: &RouterConfig) -> Result<Ask, ApiError> {
    fixed_values(fields)?;
    let model = model(fields, &config.models)?;
    let messages = messages(fields)?;
    let stream = boolean(fields, "stream")?.unwrap_or(false);
    let include_usage = stream_options(fields, stream)?;
    let sampling = sampling(fields)?;
    let stop = stop(fields)?;
    let wanted = wanted_output(fields)?;
    let redundancy = redundancy(fields)?.unwrap_or(config.default_redundancy);
    if let Some((name, _)) = fields.iter().next() {
        let shown = shown(name);
        return Err(unsupported(
            &shown,
            format!("{shown:?} is not a parameter that this router knows: leave it out"),
        ));
    }
    let (max_prompt, max_output) = tokens(&messages, &model, wanted, config.default_max_output)?;
    Ok(Ask {
        model,
        messages,
        sampling,
        stop,
        max_output,
        max_prompt,
        redundancy,
        stream,
        include_usage,
    })
}

fn unsupported(param: &str, message: String) -> ApiError {
    ApiError::invalid(param, "unsupported_parameter", message)
}

fn wrong(param: &str, message: impl Into<String>) -> ApiError {
    ApiError::invalid(param, "invalid_value", message)
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// Parameters of which exactly one value is served.
fn fixed_values(fields: &mut Map<String, Value>) -> Result<(), ApiError> {
    if fields.shift_remove("n").is_some_and(|n| n.as_u64() != Some(1)) {
        return Err(unsupported(
            "n",
            "n must be 1: send the request again for another answer".into(),
        ));
    }
    for name in ["logprobs", "store"] {
        if fields.shift_remove(name).is_some_and(|v| v != Value::Bool(false)) {
            return Err(unsupported(name, format!("{name} is not supported: leave it out")));
        }
    }
    let text = |v: &Value| {
        v.as_object().is_some_and(|o| o.len() == 1 && o.get("type").is_some_and(|t| t == "text"))
    };
    if fields.shift_remove("response_format").is_some_and(|v| !text(&v)) {
        return Err(unsupported(
            "response_format",
            "response_format must be {\"type\": \"text\"}: other forms are not built in this version".into(),
        ));
    }
    Ok(())
}

fn model(fields: &mut Map<String, Value>, models: &[ServedModel]) -> Result<ServedModel, ApiError> {
    let Some(value) = fields.shift_remove("model") else {
        return Err(ApiError::invalid(
            "model",
            "missing_required_parameter",
            format!("model is missing: {}", served(models)),
        ));
    };
    let Value::String(name) = value else {
        return Err(wrong("model", "model must be a string"));
    };
    models.iter().find(|m| m.name == name).cloned().ok_or_else(|| ApiError {
        param: Some("model".into()),
        ..ApiError::refused(
            StatusCode::NOT_FOUND,
            "model_not_found",
            format!("the model {:?} is not served here: {}", shown(&name), served(models)),
        )
    })
}

fn served(models: &[ServedModel]) -> String {
    let names: Vec<&str> = models.iter().map(|m| m.name.as_str()).collect();
    format!("use one of: {}", names.join(", "))
}

fn boolean(fields: &mut Map<String, Value>, name: &str) -> Result<Option<bool>, ApiError> {
    match fields.shift_remove(name) {
        None => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(value)),
        Some(_) => Err(wrong(name, format!("{name} must be true or false"))),
    }
}

fn stream_options(fields: &mut Map<String, Value>, stream: bool) -> Result<bool, ApiError> {
    let Some(value) = fields.shift_remove("stream_options") else { return Ok(false) };
    if !stream {
        return Err(wrong(
            "stream_options",
            "stream_options is only for requests with \"stream\": true",
        ));
    }
    let Value::Object(mut options) = value else {
        return Err(wrong("stream_options", "stream_options must be an object"));
    };
    options.retain(|_, value| !value.is_null());
    let include = boolean(&mut options, "include_usage")?.unwrap_or(false);
    match options.keys().next() {
        None => Ok(include),
        Some(name) => {
            let name = format!("stream_options.{}", shown(name));
            Err(unsupported(&name, format!("{name} is not supported: only include_usage is")))
        }
    }
}

/// This network's own parameters stand in an object of their own: `"assay": {"redundancy": 3}`.
fn redundancy(fields: &mut Map<String, Value>) -> Result<Option<u8>, ApiError> {
    let Some(value) = fields.shift_remove("assay") else { return Ok(None) };
    let Value::Object(mut options) = value else {
        return Err(wrong("assay", "assay must be an object"));
    };
    options.retain(|_, value| !value.is_null());
    let redundancy = options.shift_remove("redundancy");
    if let Some(name) = options.keys().next() {
        let name = format!("assay.{}", shown(name));
        return Err(unsupported(&name, format!("{name} is not supported: only redundancy is")));
    }
    let Some(value) = redundancy else { return Ok(None) };
    let wanted = value.as_u64().and_then(|wanted| u8::try_from(wanted).ok());
    match wanted.filter(|wanted| (1..=MAX_REDUNDANCY).contains(wanted)) {
        Some(wanted) => Ok(Some(wanted)),
        None => Err(wrong(
            "assay.redundancy",
            format!("assay.redundancy must be a whole number from 1 to {MAX_REDUNDANCY}"),
        )),
    }
}

fn messages(fields: &mut Map<String, Value>) -> Result<Vec<Message>, ApiError> {
    let Some(value) = fields.shift_remove("messages") else {
        return Err(ApiError::invalid(
            "messages",
            "missing_required_parameter",
            "messages is missing: send at least one message",
        ));
    };
    let Value::Array(list) = value else {
        return Err(wrong("messages", "messages must be an array"));
    };
    if list.is_empty() || list.len() > MAX_MESSAGES {
        return Err(wrong(
            "messages",
            format!("there are {} messages: send 1 to {MAX_MESSAGES}", list.len()),
        ));
    }
    list.into_iter().enumerate().map(|(i, value)| message(i, value)).collect()
}

fn message(index: usize, value: Value) -> Result<Message, ApiError> {
    let place = format!("messages[{index}]");
    let Value::Object(mut fields) = value else {
        return Err(wrong(&place, format!("{place} must be an object with role and content")));
    };
    // Clients send an earlier answer back with fields that have nothing in them.
    fields.retain(|_, v| !v.is_null() && v.as_array().is_none_or(|list| !list.is_empty()));
    let role = match fields.shift_remove("role") {
        Some(Value::String(role)) => role,
        _ => return Err(wrong(&format!("{place}.role"), format!("{place}.role must be a string"))),
    };
    let role = match role.as_str() {
        "system" | "user" | "assistant" => role,
        // OpenAI's newer name for the same.
        "developer" => "system".into(),
        other => {
            return Err(wrong(
                &format!("{place}.role"),
                format!(
                    "{place}.role is {:?}: use system, developer, user or assistant",
                    shown(other)
                ),
            ));
        }
    };
    let content = content(&place, fields.shift_remove("content"))?;
    match fields.keys().next() {
        None => Ok(Message { content, role }),
        Some(name) => {
            let name = format!("{place}.{}", shown(name));
            Err(unsupported(
                &name,
                format!("{name} is not supported: a message has role and content"),
            ))
        }
    }
}

/// A string, or parts of text, which become lines.
fn content(place: &str, value: Option<Value>) -> Result<String, ApiError> {
    let place = format!("{place}.content");
    match value {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(parts)) => {
            let texts: Result<Vec<String>, ApiError> = parts
                .into_iter()
                .enumerate()
                .map(|(i, part)| text_part(&format!("{place}[{i}]"), part))
                .collect();
            Ok(texts?.join("\n"))
        }
        _ => Err(wrong(&place, format!("{place} must be a string or an array of text parts"))),
    }
}

fn text_part(place: &str, part: Value) -> Result<String, ApiError> {
    let Value::Object(mut fields) = part else {
        return Err(wrong(place, format!("{place} must be an object")));
    };
    let kind = fields.shift_remove("type").unwrap_or_default();
    if kind != "text" {
        let kind = shown(kind.as_str().unwrap_or("missing"));
        return Err(ApiError::invalid(
            place,
            "unsupported_content",
            format!("{place}.type is {kind:?}: only text is supported in this version"),
        ));
    }
    match (fields.shift_remove("text"), fields.keys().next()) {
        (Some(Value::String(text)), None) => Ok(text),
        (Some(Value::String(_)), Some(other)) => {
            let name = format!("{place}.{}", shown(other));
            Err(unsupported(&name, format!("{name} is not supported: leave it out")))
        }
        _ => Err(wrong(place, format!("{place}.text must be a string"))),
    }
}

/// A number in thousandths, exactly.
fn milli(
    fields: &mut Map<String, Value>,
    name: &str,
    range: (f64, f64),
) -> Result<Option<i32>, ApiError> {
    let Some(value) = fields.shift_remove(name) else { return Ok(None) };
    let (low, high) = range;
    let number = value.as_f64().filter(|v| *v >= low && *v <= high);
    let Some(number) = number else {
        return Err(wrong(name, format!("{name} must be a number from {low} to {high}")));
    };
    let scaled = number * 1000.0;
    if (scaled - scaled.round()).abs() > MILLI_SLACK {
        return Err(wrong(
            name,
            format!(
                "{name} has more than three decimals: round it to thousandths, which is what the network signs"
            ),
        ));
    }
    #[expect(clippy::cast_possible_truncation, reason = "within the range above, which fits")]
    let milli = scaled.round() as i32;
    Ok(Some(milli))
}

fn sampling(fields: &mut Map<String, Value>) -> Result<Sampling, ApiError> {
    let default = Sampling::default();
    let positive = |v: i32| v.unsigned_abs();
    let temperature = milli(fields, "temperature", (0.0, 2.0))?.map(positive);
    let top_p = milli(fields, "top_p", (0.001, 1.0))?.map(positive);
    let min_p = milli(fields, "min_p", (0.0, 1.0))?.map(positive);
    let frequency = milli(fields, "frequency_penalty", (-2.0, 2.0))?;
    let presence = milli(fields, "presence_penalty", (-2.0, 2.0))?;
    let top_k = count(fields, "top_k", 0)?;
    Ok(Sampling {
        frequency_penalty_milli: frequency.unwrap_or(default.frequency_penalty_milli),
        min_p_milli: min_p.unwrap_or(default.min_p_milli),
        presence_penalty_milli: presence.unwrap_or(default.presence_penalty_milli),
        temperature_milli: temperature.unwrap_or(default.temperature_milli),
        top_k: top_k.unwrap_or(default.top_k),
        top_p_milli: top_p.unwrap_or(default.top_p_milli),
    })
}

fn count(fields: &mut Map<String, Value>, name: &str, low: u32) -> Result<Option<u32>, ApiError> {
    let Some(value) = fields.shift_remove(name) else { return Ok(None) };
    match value.as_u64().and_then(|v| u32::try_from(v).ok()).filter(|v| *v >= low) {
        Some(value) => Ok(Some(value)),
        None => Err(wrong(name, format!("{name} must be a whole number from {low}"))),
    }
}

fn stop(fields: &mut Map<String, Value>) -> Result<Vec<String>, ApiError> {
    let list = match fields.shift_remove("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(one)) => vec![Value::String(one)],
        Some(Value::Array(list)) => list,
        Some(_) => return Err(wrong("stop", "stop must be a string or an array of strings")),
    };
    if list.len() > MAX_STOPS {
        return Err(wrong(
            "stop",
            format!("stop has {} sequences: send at most {MAX_STOPS}", list.len()),
        ));
    }
    list.into_iter()
        .map(|value| match value {
            Value::String(text) if (1..=MAX_STOP_BYTES).contains(&text.len()) => Ok(text),
            _ => Err(wrong(
                "stop",
                format!("each stop sequence must be a string of 1 to {MAX_STOP_BYTES} bytes"),
            )),
        })
        .collect()
}

fn wanted_output(fields: &mut Map<String, Value>) -> Result<Option<u32>, ApiError> {
    let old = count(fields, "max_tokens", 1)?;
    let new = count(fields, "max_completion_tokens", 1)?;
    match (old, new) {
        (Some(old), Some(new)) if old != new => Err(wrong(
            "max_tokens",
            "max_tokens and max_completion_tokens differ: send one of them",
        )),
        (old, new) => Ok(new.or(old)),
    }
}

/// Bounds of prompt and answer. Without a tokenizer the prompt's bound is its bytes (no tokenizer makes
/// more tokens than bytes) and what a template adds; the fee counts the real tokens.
fn tokens(
    messages: &[Message],
    model: &ServedModel,
    wanted: Option<u32>,
    default_max_output: u32,
) -> Result<(u32, u32), ApiError> {
    let bytes: usize = messages.iter().map(|m| m.content.len() + MESSAGE_TOKENS).sum();
    let bound = u32::try_from(bytes + TEMPLATE_TOKENS).unwrap_or(u32::MAX);
    let context = model.max_context;
    let limit = context.saturating_sub(1).clamp(1, MAX_OUTPUT_LIMIT);
    let max_output = match wanted {
        Some(wanted) if wanted > limit => {
            return Err(ApiError::invalid(
                "max_tokens",
                "context_length_exceeded",
                format!(
                    "an answer of {wanted} tokens does not fit into the context of {context} tokens of {:?}: ask for at most {limit}, less the prompt",
                    model.name
                ),
            ));
        }
        Some(wanted) => wanted,
        // The whole default if it surely fits, else at most half of the context.
        None => {
            default_max_output.min(context.saturating_sub(bound).max(context / 2)).clamp(1, limit)
        }
    };
    let max_prompt = bound.min(context.saturating_sub(max_output)).max(1);
    Ok((max_prompt, max_output))
}

#[cfg(test)]
mod tests {
    use assay_types::{B256, ModelId};
    use serde_json::json;

    use super::*;

    fn config() -> RouterConfig {
        let model_id = ModelId(B256::repeat_byte(1));
        let served = ServedModel { name: "assay-demo".into(), model_id, max_context: 1024 };
        RouterConfig::new("127.0.0.1:0".parse().unwrap(), "data".into(), vec![served])
    }

    fn asked(extra: Value) -> Result<Ask, ApiError> {
        let mut body =
            json!({"model": "assay-demo", "messages": [{"role": "user", "content": "Hi"}]});
        for (name, value) in extra.as_object().unwrap() {
            body[name] = value.clone();
        }
        parse(&serde_json::to_vec(&body).unwrap(), &config())
    }

    #[test]
    fn defaults_are_openais() {
        let ask =
            asked(json!({"user": "u", "metadata": {"a": "b"}, "n": 1, "seed": null})).unwrap();
        assert_eq!(ask.sampling, Sampling::default());
        assert_eq!((ask.max_output, ask.stream, ask.include_usage), (256, false, false));
        assert_eq!(ask.max_prompt as usize, 2 + MESSAGE_TOKENS + TEMPLATE_TOKENS);
    }

    #[test]
    fn numbers_become_thousandths_exactly() {
        let ask = asked(json!({
            "temperature": 0.7, "top_p": 0.999, "min_p": 0.05, "top_k": 40,
            "frequency_penalty": -1.125, "presence_penalty": 2, "stop": ["\n", "END"],
        }))
        .unwrap();
        let expected = Sampling {
            frequency_penalty_milli: -1125,
            min_p_milli: 50,
            presence_penalty_milli: 2000,
            temperature_milli: 700,
            top_k: 40,
            top_p_milli: 999,
        };
        assert_eq!(ask.sampling, expected);
        assert_eq!(ask.stop, ["\n", "END"]);
        for milli in 0..=2000_u32 {
            let ask = asked(json!({"temperature": f64::from(milli) / 1000.0})).unwrap();
            assert_eq!(ask.sampling.temperature_milli, milli);
        }
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        for name in REFUSED.map(|(name, _)| name) {
            let error = asked(json!({name: 1})).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(name));
            assert_eq!(error.code, "unsupported_parameter");
        }
        for (extra, param) in [
            (json!({"n": 2}), "n"),
            (json!({"logprobs": true}), "logprobs"),
            (json!({"response_format": {"type": "json_object"}}), "response_format"),
            (json!({"stream": true, "stream_options": {"x": 1}}), "stream_options.x"),
            (json!({"stream_options": {"include_usage": true}}), "stream_options"),
            (json!({"temprature": 1}), "temprature"),
            (json!({"temperature": 0.0005}), "temperature"),
            (json!({"temperature": 2.1}), "temperature"),
            (json!({"temperature": "hot"}), "temperature"),
            (json!({"top_p": 0}), "top_p"),
            (json!({"stop": ["a", "b", "c", "d", "e"]}), "stop"),
            (json!({"stop": [""]}), "stop"),
            (json!({"max_tokens": 0}), "max_tokens"),
            (json!({"max_tokens": 1024}), "max_tokens"),
            (json!({"max_tokens": 5, "max_completion_tokens": 6}), "max_tokens"),
            (json!({"stream": 1}), "stream"),
            (json!({"messages": []}), "messages"),
            (json!({"messages": [{"role": "tool", "content": "x"}]}), "messages[0].role"),
            (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
            (
                json!({"messages": [{"role": "user", "content": "x", "name": "y"}]}),
                "messages[0].name",
            ),
            (
                json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}),
                "messages[0].content[0]",
            ),
        ] {
            let error = asked(extra.clone()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{extra}: {error}");
            assert_eq!(error.status, StatusCode::BAD_REQUEST);
        }
        let error = asked(json!({"model": "gpt-4"})).unwrap_err();
        assert_eq!((error.status, error.code.as_str()), (StatusCode::NOT_FOUND, "model_not_found"));
        assert!(error.message.contains("assay-demo"), "{error}");
    }

    #[test]
    fn parts_become_lines_and_developer_is_system() {
        let messages = json!({"messages": [
            {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c", "refusal": null, "tool_calls": []},
        ]});
        let ask = asked(messages).unwrap();
        let flat: Vec<_> =
            ask.messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
        assert_eq!(flat, [("system", "a\nb"), ("assistant", "c")]);
    }

    #[test]
    fn bounds_fit_into_the_context() {
        let long = "x".repeat(5000);
        let ask = asked(json!({"messages": [{"role": "user", "content": long}]})).unwrap();
        assert_eq!((ask.max_prompt, ask.max_output), (768, 256));
        let ask = asked(json!({"max_tokens": 1000})).unwrap();
        assert_eq!((ask.max_prompt, ask.max_output), (24, 1000));
    }

    #[test]
    fn redundancy_is_from_1_to_8_and_everything_else_is_refused_by_name() {
        assert_eq!(asked(json!({})).unwrap().redundancy, 1);
        assert_eq!(asked(json!({"assay": {"redundancy": null}})).unwrap().redundancy, 1);
        for wanted in 1..=8 {
            let ask = asked(json!({"assay": {"redundancy": wanted}})).unwrap();
            assert_eq!(ask.redundancy, wanted);
        }
        for wrong in [json!(0), json!(9), json!(265), json!(-1), json!(1.5), json!("3"), json!([3])]
        {
            let error = asked(json!({"assay": {"redundancy": wrong}})).unwrap_err();
            assert_eq!(error.param.as_deref(), Some("assay.redundancy"), "{wrong}");
        }
        let error = asked(json!({"assay": {"redundancy": 2, "votes": 3}})).unwrap_err();
        assert_eq!(
            (error.code.as_str(), error.param.as_deref()),
            ("unsupported_parameter", Some("assay.votes"))
        );
        assert_eq!(asked(json!({"assay": 3})).unwrap_err().param.as_deref(), Some("assay"));
    }
}
