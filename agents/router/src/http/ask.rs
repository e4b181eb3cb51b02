//! What every API asks of a miner, whatever its words for it: model, prompt, sampling, bounds.

use std::sync::Arc;

use assay_types::{
    MAX_LOGPROBS, MAX_MESSAGES, MAX_OUTPUT_LIMIT, MAX_STOP_BYTES, MAX_STOPS, Message, Prompt,
    Sampling, count_logprobs,
};
use axum::http::StatusCode;
use serde_json::Value;

use super::{
    error::ApiError,
    fields::{Fields, shown, unsupported, wrong},
};
use crate::{
    config::{MAX_REDUNDANCY, MESSAGE_TOKENS, RouterConfig, ServedModel, TEMPLATE_TOKENS},
    keys::key::ApiKey,
    tasks::carry::SignedAsk,
};

/// Sampling parameters of OpenAI's that no API of this router has, and what to do instead.
pub const REFUSED: [(&str, &str); 5] = [
    (
        "seed",
        "the network fixes the seed of every answer, so that nobody can choose it; leave it out",
    ),
    ("logit_bias", "it is not built in this version; leave it out"),
    ("repetition_penalty", "use frequency_penalty and presence_penalty"),
    ("grammar", "grammars are not built in this version; describe the form in a message"),
    ("guided_json", "grammars are not built in this version; describe the form in a message"),
];

/// Characters of a stop sequence: so many of any kind fit into what the network takes.
const MAX_STOP_CHARS: usize = MAX_STOP_BYTES / 4;

/// One checked request for one answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// The model asked for.
    pub model: ServedModel,
    /// The conversation or the text.
    pub prompt: Prompt,
    /// Sampling parameters.
    pub sampling: Sampling,
    /// Stop sequences.
    pub stop: Vec<String>,
    /// Log probabilities are wanted, with so many alternatives at each position.
    pub top_logprobs: Option<u32>,
    /// Most tokens of the answer.
    pub max_output: u32,
    /// Most tokens that the prompt can have; what money is held for.
    pub max_prompt: u32,
    /// Answers wanted, each of another node; the first one's is shown.
    pub redundancy: u8,
    /// The key that pays, where keys are asked for.
    pub key: Option<Arc<ApiKey>>,
    /// The request itself, where its holder has signed it; else the router signs one.
    pub signed: Option<Arc<SignedAsk>>,
}

/// What all answers of one request have in common.
#[derive(Debug)]
pub struct Common {
    model: ServedModel,
    sampling: Sampling,
    stop: Vec<String>,
    top_logprobs: Option<u32>,
    redundancy: u8,
    /// Tokens wanted, and the parameter that says so.
    max_output: (Option<u32>, &'static str),
    default_max_output: u32,
}

/// How an API names what all of them have.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Its parameters for the most tokens of an answer; the first one that is there counts.
    pub max_output: &'static [&'static str],
    /// Its parameter for stop sequences.
    pub stop: &'static str,
    /// Its largest temperature.
    pub max_temperature: f64,
}

impl Common {
    /// Takes what all APIs have from the parameters.
    ///
    /// # Errors
    /// 400 that names a parameter, or 404 for a model that is not served.
    pub fn take(
        fields: &mut Fields,
        names: &Names,
        config: &RouterConfig,
    ) -> Result<Self, ApiError> {
        fields.refuse(&REFUSED)?;
        Ok(Self {
            model: model(fields, &config.models)?,
            sampling: sampling(fields, names.max_temperature)?,
            stop: stop(fields, names.stop)?,
            top_logprobs: None,
            redundancy: redundancy(fields)?.unwrap_or(config.default_redundancy),
            max_output: wanted_output(fields, names.max_output)?,
            default_max_output: config.default_max_output,
        })
    }

    /// The same with log probabilities: so many alternatives at each position, if they are wanted.
    pub fn with_logprobs(self, top_logprobs: Option<u32>) -> Self {
        Self { top_logprobs, ..self }
    }

    /// Whether the request says how long the answer may be.
    pub fn is_bounded(&self) -> bool {
        self.max_output.0.is_some()
    }

    /// A request for one answer to `prompt`.
    ///
    /// # Errors
    /// 400 if it does not fit into the model's context.
    pub fn ask(&self, prompt: Prompt) -> Result<Ask, ApiError> {
        let (max_prompt, max_output) = self.tokens(&prompt)?;
        Ok(Ask {
            model: self.model.clone(),
            prompt,
            sampling: self.sampling,
            stop: self.stop.clone(),
            top_logprobs: self.top_logprobs,
            max_output,
            max_prompt,
            redundancy: self.redundancy,
            key: None,
            signed: None,
        })
    }

    /// Bounds of prompt and answer. Without a tokenizer the prompt's bound is its bytes (no tokenizer makes
    /// more tokens than bytes) and what a template adds; the fee counts the real tokens.
    fn tokens(&self, prompt: &Prompt) -> Result<(u32, u32), ApiError> {
        let bytes: usize = match prompt {
            Prompt::Messages(list) => list.iter().map(|m| m.content.len() + MESSAGE_TOKENS).sum(),
            Prompt::Text(text) => text.len(),
        };
        let bound = u32::try_from(bytes + TEMPLATE_TOKENS).unwrap_or(u32::MAX);
        let context = self.model.max_context;
        let limit = context.saturating_sub(1).clamp(1, MAX_OUTPUT_LIMIT);
        let max_output = match self.max_output {
            (Some(wanted), name) if wanted > limit => {
                let message = format!(
                    "an answer of {wanted} tokens does not fit into the context of {context} tokens of {:?}: ask for at most {limit}, less the prompt",
                    self.model.name
                );
                return Err(ApiError::invalid(name, "context_length_exceeded", message));
            }
            (Some(wanted), _) => wanted,
            // The whole default if it surely fits, else at most half of the context.
            (None, _) => self
                .default_max_output
                .min(context.saturating_sub(bound).max(context / 2))
                .clamp(1, limit),
        };
        let max_prompt = bound.min(context.saturating_sub(max_output)).max(1);
        Ok((max_prompt, max_output))
    }
}

/// Takes a list of 1 to [`MAX_MESSAGES`] elements.
///
/// # Errors
/// 400 if it is something else.
pub fn list(value: Value, place: &str) -> Result<Vec<Value>, ApiError> {
    let Value::Array(list) = value else {
        return Err(wrong(place, format!("{place} must be an array")));
    };
    if list.is_empty() || list.len() > MAX_MESSAGES {
        let message = format!("{place} has {} elements: send 1 to {MAX_MESSAGES}", list.len());
        return Err(wrong(place, message));
    }
    Ok(list)
}

/// The text of a message: a string, or parts of text, which become lines. An API names its kinds of parts of
/// text, and what may stand in one without effect.
///
/// # Errors
/// 400 that names the part.
pub fn content(
    value: Option<Value>,
    place: &str,
    (kinds, idle): (&[&str], &[&str]),
) -> Result<String, ApiError> {
    match value {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(parts)) if !parts.is_empty() => {
            let texts: Result<Vec<String>, ApiError> = parts
                .into_iter()
                .enumerate()
                .map(|(i, part)| text_part(part, &format!("{place}[{i}]"), kinds, idle))
                .collect();
            Ok(texts?.join("\n"))
        }
        _ => Err(wrong(place, format!("{place} must be a string or an array of text parts"))),
    }
}

fn text_part(part: Value, place: &str, kinds: &[&str], idle: &[&str]) -> Result<String, ApiError> {
    let mut fields = Fields::of(part, place)?;
    let kind = fields.take("type").unwrap_or_default();
    if !kind.as_str().is_some_and(|kind| kinds.contains(&kind)) {
        let kind = shown(kind.as_str().unwrap_or("missing"));
        return Err(ApiError::invalid(
            place,
            "unsupported_content",
            format!("{place}.type is {kind:?}: only text is supported in this version"),
        ));
    }
    let Value::String(text) = fields.need("text", "it is the text of this part")? else {
        let name = fields.name("text");
        return Err(wrong(&name, format!("{name} must be a string")));
    };
    for name in idle {
        fields.take(name);
    }
    fields.drop_empty_lists();
    fields.end()?;
    Ok(text)
}

/// A role and a text, checked for `roles`; `developer` is OpenAI's newer name for `system`.
///
/// # Errors
/// 400 that names the role.
pub fn message(fields: &mut Fields, roles: &[&str], content: String) -> Result<Message, ApiError> {
    let name = fields.name("role");
    match fields.text("role")? {
        Some(role) if role == "developer" && roles.contains(&"developer") => {
            Ok(Message { content, role: "system".into() })
        }
        Some(role) if roles.contains(&role.as_str()) => Ok(Message { content, role }),
        Some(other) => {
            let other = shown(&other);
            Err(wrong(&name, format!("{name} is {other:?}: use one of {}", roles.join(", "))))
        }
        None => Err(wrong(&name, format!("{name} is missing: use one of {}", roles.join(", ")))),
    }
}

pub(super) fn model(fields: &mut Fields, models: &[ServedModel]) -> Result<ServedModel, ApiError> {
    let served = || {
        let names: Vec<&str> = models.iter().map(|m| m.name.as_str()).collect();
        format!("use one of: {}", names.join(", "))
    };
    let Value::String(name) = fields.need("model", &served())? else {
        return Err(wrong("model", "model must be a string"));
    };
    models.iter().find(|m| m.name == name).cloned().ok_or_else(|| not_served(&name, &served()))
}

/// 404: a model that this router does not serve.
pub fn not_served(name: &str, remedy: &str) -> ApiError {
    let message = format!("the model {:?} is not served here: {remedy}", shown(name));
    ApiError {
        param: Some("model".into()),
        ..ApiError::refused(StatusCode::NOT_FOUND, "model_not_found", message)
    }
}

fn sampling(fields: &mut Fields, max_temperature: f64) -> Result<Sampling, ApiError> {
    let default = Sampling::default();
    let positive = |v: i32| v.unsigned_abs();
    let temperature = fields.milli("temperature", (0.0, max_temperature))?.map(positive);
    let top_p = fields.milli("top_p", (0.001, 1.0))?.map(positive);
    let min_p = fields.milli("min_p", (0.0, 1.0))?.map(positive);
    let frequency = fields.milli("frequency_penalty", (-2.0, 2.0))?;
    let presence = fields.milli("presence_penalty", (-2.0, 2.0))?;
    let top_k = fields.count("top_k", 0, u32::MAX)?;
    Ok(Sampling {
        frequency_penalty_milli: frequency.unwrap_or(default.frequency_penalty_milli),
        min_p_milli: min_p.unwrap_or(default.min_p_milli),
        presence_penalty_milli: presence.unwrap_or(default.presence_penalty_milli),
        temperature_milli: temperature.unwrap_or(default.temperature_milli),
        top_k: top_k.unwrap_or(default.top_k),
        top_p_milli: top_p.unwrap_or(default.top_p_milli),
    })
}

fn stop(fields: &mut Fields, name: &str) -> Result<Vec<String>, ApiError> {
    let list = match fields.take(name) {
        None => return Ok(Vec::new()),
        // Anthropic has lists alone.
        Some(Value::String(one)) if name == "stop" => vec![Value::String(one)],
        Some(Value::Array(list)) => list,
        Some(_) => {
            return Err(wrong(name, format!("{name} must be an array of strings")));
        }
    };
    if list.len() > MAX_STOPS {
        let message = format!("{name} has {} sequences: send at most {MAX_STOPS}", list.len());
        return Err(wrong(name, message));
    }
    list.into_iter()
        .map(|value| match value {
            Value::String(text) if (1..=MAX_STOP_CHARS).contains(&text.chars().count()) => Ok(text),
            _ => Err(wrong(
                name,
                format!(
                    "each sequence of {name} must be a string of 1 to {MAX_STOP_CHARS} characters"
                ),
            )),
        })
        .collect()
}

/// This network's own parameters stand in an object of their own: `"assay": {"redundancy": 3}`.
fn redundancy(fields: &mut Fields) -> Result<Option<u8>, ApiError> {
    let Some(value) = fields.take("assay") else { return Ok(None) };
    let mut options = Fields::of(value, "assay")?;
    let redundancy = options.count("redundancy", 1, MAX_REDUNDANCY.into())?;
    options.end()?;
    Ok(redundancy.and_then(|wanted| u8::try_from(wanted).ok()))
}

fn wanted_output(
    fields: &mut Fields,
    names: &'static [&'static str],
) -> Result<(Option<u32>, &'static str), ApiError> {
    let mut found: (Option<u32>, &'static str) = (None, "max_tokens");
    for name in names {
        match (found, fields.count(name, 1, u32::MAX)?) {
            ((Some(one), first), Some(other)) if one != other => {
                let message = format!("{first} and {name} differ: send one of them");
                return Err(wrong(first, message));
            }
            ((None, _), Some(wanted)) => found = (Some(wanted), name),
            _ => {}
        }
    }
    Ok(found)
}

/// Parameters with which OpenAI's APIs stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streaming {
    /// Whether tokens are streamed.
    pub stream: bool,
    /// Whether a last chunk of the stream has the usage.
    pub include_usage: bool,
}

impl Streaming {
    /// Takes `stream` and `stream_options`.
    ///
    /// # Errors
    /// 400 that names the parameter.
    pub fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let stream = fields.boolean("stream")?.unwrap_or(false);
        let Some(value) = fields.take("stream_options") else {
            return Ok(Self { stream, include_usage: false });
        };
        if !stream {
            return Err(wrong(
                "stream_options",
                "stream_options is only for requests with \"stream\": true",
            ));
        }
        let mut options = Fields::of(value, "stream_options")?;
        let include_usage = options.boolean("include_usage")?.unwrap_or(false);
        options.only("include_obfuscation", &[Value::Bool(false)])?;
        options.end()?;
        Ok(Self { stream, include_usage })
    }
}

/// Answers that one request may ask for: each is a task of its own, and takes the place of a request.
pub const MAX_CHOICES: u32 = 8;

/// Takes `n`: how many answers are wanted.
///
/// # Errors
/// 400 if there cannot be so many.
pub fn choices(fields: &mut Fields) -> Result<usize, ApiError> {
    Ok(fields.count("n", 1, MAX_CHOICES)?.unwrap_or(1) as usize)
}

/// As many requests as answers are wanted to each prompt.
///
/// # Errors
/// 400 if there are too many, or one does not fit.
pub fn asks(common: &Common, prompts: Vec<Prompt>, n: usize) -> Result<Vec<Ask>, ApiError> {
    if prompts.len().saturating_mul(n) > MAX_CHOICES as usize {
        let message = format!(
            "{} prompts with {n} answers each are more than the {MAX_CHOICES} that one request may have: send several requests",
            prompts.len()
        );
        return Err(unsupported("prompt", message));
    }
    let mut asks = Vec::with_capacity(prompts.len() * n);
    for prompt in prompts {
        let ask = common.ask(prompt)?;
        asks.extend(std::iter::repeat_n(ask, n));
    }
    check_logprobs(&asks)?;
    Ok(asks)
}

/// All answers of a request together have no more log probabilities than one may have: they are worded at once.
///
/// # Errors
/// 400 if they could have more.
pub fn check_logprobs(asks: &[Ask]) -> Result<(), ApiError> {
    let of = |ask: &Ask| ask.top_logprobs.map_or(0, |top| count_logprobs(ask.max_output, top));
    let all: u64 = asks.iter().map(of).sum();
    if all <= MAX_LOGPROBS {
        return Ok(());
    }
    let message = format!(
        "the request may have {all} log probabilities, alternatives included, and one may have {MAX_LOGPROBS}: ask for fewer tokens, answers or alternatives"
    );
    Err(wrong("logprobs", message))
}

/// What the tests of all APIs start with.
#[cfg(test)]
pub mod tests {
    use assay_types::{B256, ModelId};

    use super::*;
    use crate::http::wording::Order;

    /// A router of one model.
    pub fn config() -> RouterConfig {
        let model_id = ModelId(B256::repeat_byte(1));
        let served = ServedModel { name: "assay-demo".into(), model_id, max_context: 1024 };
        RouterConfig::new("127.0.0.1:0".parse().unwrap(), "data".into(), vec![served])
    }

    /// What an API makes of a body.
    pub fn order_of(
        read: fn(&mut Fields, &RouterConfig) -> Result<Order, ApiError>,
        body: &Value,
    ) -> Result<Order, ApiError> {
        read(&mut Fields::of_body(&serde_json::to_vec(body).unwrap())?, &config())
    }

    /// Each of these bodies is refused, and its error names this parameter.
    pub fn refused(
        read: fn(&mut Fields, &RouterConfig) -> Result<Order, ApiError>,
        base: &Value,
        wrong: &[(Value, &str)],
    ) {
        assert!(order_of(read, base).is_ok());
        for (extra, param) in wrong {
            let mut body = base.clone();
            for (name, value) in extra.as_object().unwrap() {
                body[name] = value.clone();
            }
            let error = order_of(read, &body).err().unwrap_or_else(|| panic!("taken: {extra}"));
            assert_eq!(error.param.as_deref(), Some(*param), "{extra}: {error}");
            assert_eq!(error.status, StatusCode::BAD_REQUEST, "{extra}: {error}");
            assert!(error.message.len() > 20, "no remedy: {error}");
        }
    }
}
