//! `/v1/chat/completions`, as OpenAI words it.

use assay_types::{Message, Prompt, TokenLogprobs};
use serde_json::{Value, json};

use super::{
    ask::{self, Common, Names, Streaming},
    error::ApiError,
    fields::Fields,
    logprobs,
    wording::{Answer, Head, Order, Said, Wording, output_tokens},
};
use crate::{
    config::RouterConfig,
    tasks::running::{Delta, Finish},
};

const NAMES: Names = Names {
    max_output: &["max_tokens", "max_completion_tokens"],
    stop: "stop",
    max_temperature: 2.0,
};

/// Parameters of OpenAI's that this version does not have, and what to do instead.
const REFUSED: [(&str, &str); 13] = [
    ("tools", "tool calls are not built in this version; describe the tools in a message"),
    ("tool_choice", "tool calls are not built in this version; leave it out"),
    ("parallel_tool_calls", "tool calls are not built in this version; leave it out"),
    ("functions", "function calls are not built in this version; leave it out"),
    ("function_call", "function calls are not built in this version; leave it out"),
    ("modalities", "answers are text; leave it out"),
    ("audio", "answers are text; leave it out"),
    ("prediction", "it is not built in this version; leave it out"),
    ("reasoning_effort", "it is not built in this version; leave it out"),
    ("verbosity", "it is not built in this version; ask for it in a message"),
    ("service_tier", "there is one tier; leave it out"),
    ("web_search_options", "it is not built in this version; leave it out"),
    ("prompt", "send the conversation as messages"),
];

/// Parameters that change nothing in an answer: checked, neither stored nor sent on.
pub const WITHOUT_EFFECT: [&str; 3] = ["user", "safety_identifier", "prompt_cache_key"];

/// Reads a request.
///
/// # Errors
/// 400 that names the parameter, or 404 for a model that is not served.
pub fn read(fields: &mut Fields, config: &RouterConfig) -> Result<Order, ApiError> {
    fields.refuse(&REFUSED)?;
    fields.only("store", &[json!(false)])?;
    fields.only("response_format", &[json!({"type": "text"})])?;
    fields.drop_texts(&WITHOUT_EFFECT)?;
    fields.metadata()?;
    let common = Common::take(fields, &NAMES, config)?.with_logprobs(logprobs::of_chat(fields)?);
    let prompt = Prompt::Messages(messages(fields)?);
    let Streaming { stream, include_usage } = Streaming::take(fields)?;
    let n = ask::choices(fields)?;
    fields.end()?;
    Ok(Order::new(ask::asks(&common, vec![prompt], n)?, stream, wording(include_usage)))
}

fn messages(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    let value = fields.need("messages", "send at least one message")?;
    let list = ask::list(value, "messages")?;
    list.into_iter()
        .enumerate()
        .map(|(i, value)| message(value, &format!("messages[{i}]")))
        .collect()
}

fn message(value: Value, place: &str) -> Result<Message, ApiError> {
    let mut fields = Fields::of(value, place)?;
    // Clients send an earlier answer back with fields that have nothing in them.
    fields.drop_empty_lists();
    let content = ask::content(fields.take("content"), &fields.name("content"), (&["text"], &[]));
    let roles = ["system", "developer", "user", "assistant"];
    // What is wrong with the role says more than what is missing beside it.
    let message = ask::message(&mut fields, &roles, String::new())?;
    let message = Message { content: content?, ..message };
    fields.end()?;
    Ok(message)
}

/// The words of one answer.
pub fn wording(include_usage: bool) -> Box<dyn Wording> {
    Box::new(Chat { include_usage, is_counted: false, ended: Vec::new() })
}

/// The same, and with the usage each chunk of text says how many tokens have come: whoever cancels signs for them.
pub fn counted(include_usage: bool) -> Box<dyn Wording> {
    Box::new(Chat { include_usage, is_counted: true, ended: Vec::new() })
}

/// Usage as OpenAI counts it, but for prompts: each answer's own, because each is paid.
pub fn usage(head: &Head, output_tokens: u32) -> Value {
    json!({
        "prompt_tokens": head.prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": head.prompt_tokens.saturating_add(output_tokens),
    })
}

struct Chat {
    include_usage: bool,
    /// Whether each chunk of text has the usage so far.
    is_counted: bool,
    ended: Vec<Finish>,
}

impl Chat {
    fn chunk(&self, head: &Head, choices: Value, usage: Option<Value>) -> Said {
        let mut chunk = json!({
            "id": head.id("chatcmpl-"),
            "object": "chat.completion.chunk",
            "created": head.created_s,
            "model": head.model,
            "system_fingerprint": null,
            "choices": choices,
        });
        if self.include_usage {
            chunk["usage"] = usage.unwrap_or_default();
        }
        Said::plain(&chunk)
    }
}

fn choices(
    answer: usize,
    (delta, reason): (Value, Option<&str>),
    logprobs: &[TokenLogprobs],
) -> Value {
    json!([{
        "index": answer, "delta": delta, "logprobs": logprobs::chat(logprobs),
        "finish_reason": reason,
    }])
}

impl Wording for Chat {
    fn begin(&mut self, head: &Head) -> Vec<Said> {
        let role = |i| choices(i, (json!({"role": "assistant", "content": ""}), None), &[]);
        (0..head.tasks.len()).map(|i| self.chunk(head, role(i), None)).collect()
    }

    fn text(&mut self, head: &Head, answer: usize, delta: &Delta) -> Vec<Said> {
        let choices = choices(answer, (json!({"content": delta.text}), None), &delta.logprobs);
        let usage = self.is_counted.then(|| usage(head, delta.tokens));
        vec![self.chunk(head, choices, usage)]
    }

    fn end(
        &mut self,
        head: &Head,
        answer: usize,
        finish: &Finish,
        rest: &[TokenLogprobs],
    ) -> Vec<Said> {
        self.ended.push(*finish);
        vec![self.chunk(head, choices(answer, (json!({}), Some(finish.reason())), rest), None)]
    }

    fn over(&mut self, head: &Head) -> Vec<Said> {
        let mut said = Vec::new();
        if self.include_usage {
            let usage = usage(head, output_tokens(&self.ended));
            said.push(self.chunk(head, json!([]), Some(usage)));
        }
        said.push(Said { name: None, data: "[DONE]".into() });
        said
    }

    /// No `[DONE]`: a client that waits for it knows that the answer is not whole.
    fn failed(&mut self, _: &Head, error: &ApiError) -> Vec<Said> {
        vec![Said::plain(&error.body())]
    }

    fn whole(&self, head: &Head, answers: &[Answer]) -> Value {
        let choice = |(i, answer): (usize, &Answer)| {
            json!({
                "index": i,
                "message": {"role": "assistant", "content": answer.text, "refusal": null},
                "logprobs": logprobs::chat(&answer.logprobs),
                "finish_reason": answer.finish.reason(),
            })
        };
        json!({
            "id": head.id("chatcmpl-"),
            "object": "chat.completion",
            "created": head.created_s,
            "model": head.model,
            "system_fingerprint": null,
            "choices": answers.iter().enumerate().map(choice).collect::<Vec<_>>(),
            "usage": usage(head, output_tokens(answers.iter().map(|a| &a.finish))),
        })
    }
}

#[cfg(test)]
mod tests {
    use assay_types::Sampling;
    use axum::http::StatusCode;

    use super::*;
    use crate::{
        config::{MESSAGE_TOKENS, TEMPLATE_TOKENS},
        http::ask::{Ask, REFUSED as REFUSED_BY_ALL, tests::config},
    };

    fn ordered(extra: Value) -> Result<Order, ApiError> {
        let mut body =
            json!({"model": "assay-demo", "messages": [{"role": "user", "content": "Hi"}]});
        for (name, value) in extra.as_object().unwrap() {
            body[name] = value.clone();
        }
        let mut fields = Fields::of_body(&serde_json::to_vec(&body).unwrap())?;
        read(&mut fields, &config())
    }

    fn asked(extra: Value) -> Result<Ask, ApiError> {
        ordered(extra).map(|order| order.asks[0].clone())
    }

    #[test]
    fn defaults_are_openais() {
        let idle = json!({
            "user": "u", "metadata": {"a": "b"}, "prompt_cache_key": "k", "n": 1, "seed": null,
            "logprobs": false, "response_format": {"type": "text"},
        });
        assert!(!ordered(idle.clone()).unwrap().stream);
        let ask = asked(idle).unwrap();
        assert_eq!(ask.sampling, Sampling::default());
        assert_eq!(ask.max_output, 256);
        assert_eq!(ask.max_prompt as usize, 2 + MESSAGE_TOKENS + TEMPLATE_TOKENS);
    }

    #[test]
    fn a_wish_for_log_probabilities_is_passed_on() {
        let wish = |extra| asked(extra).unwrap().top_logprobs;
        assert_eq!(wish(json!({})), None);
        assert_eq!(wish(json!({"logprobs": null, "top_logprobs": null})), None);
        assert_eq!(wish(json!({"logprobs": true})), Some(0));
        assert_eq!(wish(json!({"logprobs": true, "top_logprobs": 20})), Some(20));
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
        for (name, _) in REFUSED.iter().chain(&REFUSED_BY_ALL) {
            let error = asked(json!({*name: 1})).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(*name));
            assert_eq!(error.code, "unsupported_parameter");
        }
        for (extra, param) in [
            (json!({"n": 9}), "n"),
            (json!({"n": 0}), "n"),
            (json!({"metadata": {"a": 1}}), "metadata"),
            (json!({"user": 1}), "user"),
            (json!({"messages": [[]]}), "messages[0]"),
            (json!({"logprobs": 1}), "logprobs"),
            (json!({"top_logprobs": 2}), "top_logprobs"),
            (json!({"top_logprobs": 0, "logprobs": false}), "top_logprobs"),
            (json!({"top_logprobs": 21, "logprobs": true}), "top_logprobs"),
            (json!({"logprobs": true, "max_tokens": 900, "top_logprobs": 20, "n": 8}), "logprobs"),
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
        let Prompt::Messages(messages) = ask.prompt else { panic!() };
        let flat: Vec<_> = messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
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
    fn several_answers_are_as_many_requests() {
        let order = ordered(json!({"n": 3, "assay": {"redundancy": 2}})).unwrap();
        assert_eq!(order.asks.len(), 3);
        assert!(order.asks.iter().all(|ask| *ask == order.asks[0] && ask.redundancy == 2));
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
