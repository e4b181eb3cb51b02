//! A router's HTTP API: answers as they come.

use std::time::Duration;

use assay_types::{Prompt, RequestBlock, TaskId, TokenLogprobs, link::SignedCancellation};
use futures::stream::BoxStream;
use reqwest::{Response, header::HeaderMap};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Client, ClientError, Question, SignedRequest, events::Events, logprobs::Wish};

/// The header that names an answer's task.
const TASK_HEADER: &str = "x-assay-task";
/// Longest body that is not a stream: an answer of the largest block, as JSON.
const MAX_BODY_BYTES: usize = 8 << 20;
/// Time for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A router. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Router {
    base: String,
    key: Option<String>,
    http: reqwest::Client,
}

/// A model that a router serves.
#[derive(Clone, Debug, Deserialize)]
pub struct Model {
    /// Its name.
    pub id: String,
}

/// Tokens of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: u32,
    /// Of the answer.
    pub completion_tokens: u32,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its task on chain.
    pub task: Option<TaskId>,
    /// Its text.
    pub text: String,
    /// Its tokens, if the router said so.
    pub usage: Option<Usage>,
    /// One for each token if they were asked for, else none: the node's word, which nothing has checked but its form.
    pub logprobs: Vec<TokenLogprobs>,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its text; empty where only tokens without text are left, as at the end of an answer with log probabilities.
    pub text: String,
    /// Those of its tokens, if they were asked for.
    pub logprobs: Vec<TokenLogprobs>,
}

/// An answer as it comes. Dropped early, it hangs up: the router then cancels a task of its own lane; one that
/// [`Client::sign`] has signed goes on, and is paid whole, unless [`AnswerStream::cancel`] ends it.
pub struct AnswerStream {
    router: Router,
    events: Events<BoxStream<'static, Result<Vec<u8>, reqwest::Error>>>,
    answer: Answer,
    wish: Option<Wish>,
    ended: bool,
}

impl Router {
    /// The router at `base`, e.g. `http://127.0.0.1:8080`, and an API key if it asks for one.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub fn new(base: &str, key: Option<String>) -> Result<Self, ClientError> {
        let base = base.trim_end_matches('/').to_owned();
        let built =
            reqwest::Client::builder().tcp_nodelay(true).connect_timeout(CONNECT_TIMEOUT).build();
        let http = built.map_err(|source| ClientError::NoRouter { url: base.clone(), source })?;
        Ok(Self { base, key, http })
    }

    /// Its address, without a slash at the end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The models that it serves.
    ///
    /// # Errors
    /// If it does not answer, or not as a router does.
    pub async fn models(&self) -> Result<Vec<Model>, ClientError> {
        #[derive(Deserialize)]
        struct List {
            data: Vec<Model>,
        }
        let asked = self.with_key(self.http.get(format!("{}/v1/models", self.base)));
        let response = self.sent(asked).await?;
        let body = read(response).await?;
        let list: List = serde_json::from_slice(&body)
            .map_err(|_| ClientError::Garbled("something else than a list of models"))?;
        Ok(list.data)
    }

    /// Asks a question that the router pays for out of its own lane.
    ///
    /// # Errors
    /// What the router refuses, in its words; log probabilities of a prompt without the model's template.
    pub async fn ask(&self, model: &str, question: &Question) -> Result<AnswerStream, ClientError> {
        let milli = |thousandths: i32| f64::from(thousandths) / 1000.0;
        let positive = |thousandths: u32| f64::from(thousandths) / 1000.0;
        let (sampling, max_output) = (&question.sampling, question.max_output);
        let mut body = json!({
            "model": model,
            "max_tokens": max_output,
            "temperature": positive(sampling.temperature_milli),
            "top_p": positive(sampling.top_p_milli),
            "min_p": positive(sampling.min_p_milli),
            "top_k": sampling.top_k,
            "frequency_penalty": milli(sampling.frequency_penalty_milli),
            "presence_penalty": milli(sampling.presence_penalty_milli),
            "stop": question.stop,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        let path = match &question.prompt {
            Prompt::Messages(messages) => {
                body["messages"] = json!(messages);
                if let Some(top) = question.top_logprobs {
                    (body["logprobs"], body["top_logprobs"]) = (json!(true), json!(top));
                }
                "/v1/chat/completions"
            }
            Prompt::Text(_) if question.top_logprobs.is_some() => {
                // OpenAI's completions name a token by its text alone, which does not tell all tokens apart.
                let remedy = "of a plain text that a router pays for: ask with messages, or sign the question";
                return Err(ClientError::NoLogprobs(remedy));
            }
            Prompt::Text(text) => {
                body["prompt"] = json!(text);
                "/v1/completions"
            }
        };
        let wish = question.top_logprobs.map(|top| Wish { top, max_output });
        self.stream(path, &body, wish).await
    }

    /// Passes a request on that its holder has signed and pays for.
    ///
    /// # Errors
    /// What the router or the node refuses, in their words; a block that is none.
    pub async fn carry(
        &self,
        model: &str,
        signed: &SignedRequest,
    ) -> Result<AnswerStream, ClientError> {
        let request = &signed.request;
        let RequestBlock { top_logprobs, max_output, .. } = RequestBlock::decode(&signed.block)?;
        let body = json!({
            "model": model,
            "request": {
                "sessionId": request.sessionId,
                "lane": request.lane,
                "nonce": request.nonce,
                "seedRound": request.seedRound,
                "requestDigest": request.requestDigest,
                "maxPrompt": request.maxPrompt,
                "maxOutput": request.maxOutput,
                "feeCap": request.feeCap.to_string(),
                "deadline": request.deadline,
                "nodeId": request.nodeId,
                "redundancy": request.redundancy,
                "attempts": request.attempts,
                "dispatch": request.dispatch,
                "callbackGas": request.callbackGas,
            },
            "signature": assay_types::Bytes::from(signed.signature.as_bytes()),
            "block": String::from_utf8_lossy(&signed.block),
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        let wish = top_logprobs.map(|top| Wish { top, max_output });
        self.stream("/v1/requests", &body, wish).await
    }

    /// Ends the answer to a request that this router carries after so many of its tokens, as the holder of the lane has
    /// signed.
    ///
    /// # Errors
    /// What the router refuses, in its words: the answer goes on then.
    pub async fn cancel(
        &self,
        task: TaskId,
        signed: &SignedCancellation,
    ) -> Result<(), ClientError> {
        let signature = assay_types::Bytes::from(signed.signature.as_bytes());
        let body = json!({"tokens": signed.tokens, "signature": signature});
        let asked = self.http.post(format!("{}/v1/requests/{task}/cancel", self.base)).json(&body);
        self.sent(self.with_key(asked)).await.map(drop)
    }

    async fn stream(
        &self,
        path: &str,
        body: &Value,
        wish: Option<Wish>,
    ) -> Result<AnswerStream, ClientError> {
        let asked = self.http.post(format!("{}{path}", self.base)).json(body);
        let response = self.sent(self.with_key(asked)).await?;
        let task = task_of(response.headers());
        let bytes = futures::StreamExt::map(response.bytes_stream(), |chunk| chunk.map(Vec::from));
        Ok(AnswerStream {
            router: self.clone(),
            events: Events::new(Box::pin(bytes)),
            answer: Answer { task, text: String::new(), usage: None, logprobs: Vec::new() },
            wish,
            ended: false,
        })
    }

    fn with_key(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    async fn sent(&self, request: reqwest::RequestBuilder) -> Result<Response, ClientError> {
        let sent = request.send().await;
        let response =
            sent.map_err(|source| ClientError::NoRouter { url: self.base.clone(), source })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = read(response).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&body);
        Err(refusal(&text, Some(status.as_u16())).unwrap_or_else(|| ClientError::Router {
            status: Some(status.as_u16()),
            code: None,
            message: format!("the router answered {status}: {text}"),
        }))
    }
}

impl AnswerStream {
    /// The task on chain.
    pub fn task(&self) -> Option<TaskId> {
        self.answer.task
    }

    /// Tokens that have come, as far as the router says so: while an answer on one's own signature comes, with each piece.
    pub fn tokens(&self) -> u32 {
        self.answer.usage.map_or(0, |usage| usage.completion_tokens)
    }

    /// The next piece; `None` at the end of an answer that is complete, and that the router has compared with
    /// what its node has pinned.
    ///
    /// # Errors
    /// If the answer breaks off, or lacks log probabilities that were asked for: nothing of it can be relied on then.
    pub async fn next(&mut self) -> Result<Option<Piece>, ClientError> {
        while !self.ended {
            let data = self.events.next().await?.ok_or(ClientError::BrokenOff(None))?;
            if data == "[DONE]" {
                self.check_logprobs()?;
                self.ended = true;
                break;
            }
            if let Some(error) = refusal(&data, None) {
                return Err(error);
            }
            let chunk: Value = serde_json::from_str(&data)
                .map_err(|_| ClientError::Garbled("a chunk that is not JSON"))?;
            if let Ok(usage) = Usage::deserialize(&chunk["usage"]) {
                self.answer.usage = Some(usage);
            }
            let choice = &chunk["choices"][0];
            let text = choice["delta"]["content"].as_str().or(choice["text"].as_str());
            let text = text.unwrap_or_default();
            let logprobs = match self.wish {
                Some(wish) => wish.read(&choice["logprobs"], self.answer.logprobs.len())?,
                None => Vec::new(),
            };
            if !text.is_empty() || !logprobs.is_empty() {
                self.answer.text.push_str(text);
                self.answer.logprobs.extend_from_slice(&logprobs);
                return Ok(Some(Piece { text: text.to_owned(), logprobs }));
            }
        }
        Ok(None)
    }

    /// Ends an answer on one's own signature after the [`AnswerStream::tokens`] that have come, which are paid; returns
    /// what came, and nothing comes after it.
    ///
    /// A node that has sent over 32 tokens more by the time that it hears of this goes on, and is paid for the whole
    /// answer, as one that had reached its end. What the chain says of the task tells.
    ///
    /// # Errors
    /// If no token has come yet, or the router refuses: the answer goes on then. `too_few_tokens` says that more have come
    /// than were read: read on.
    pub async fn cancel(&mut self, client: &Client) -> Result<Answer, ClientError> {
        let tokens = self.tokens();
        let task = self.answer.task.filter(|_| tokens > 0).ok_or(ClientError::NothingCame)?;
        let signed = client.sign_cancellation(task, tokens)?;
        self.router.cancel(task, &signed).await?;
        self.ended = true;
        Ok(self.answer.clone())
    }

    /// A whole answer has log probabilities for each of its tokens, if they were asked for.
    fn check_logprobs(&self) -> Result<(), ClientError> {
        let tokens = self.answer.usage.map(|usage| usage.completion_tokens as usize);
        let got = self.answer.logprobs.len();
        if self.wish.is_none() || tokens == Some(got) {
            return Ok(());
        }
        let tokens = tokens.map_or("an unknown number of".to_owned(), |tokens| tokens.to_string());
        let what = format!("{got} positions in an answer of {tokens} tokens");
        Err(ClientError::BadLogprobs(what))
    }

    /// Waits for the end; the whole answer.
    ///
    /// # Errors
    /// As [`AnswerStream::next`].
    pub async fn finish(mut self) -> Result<Answer, ClientError> {
        while self.next().await?.is_some() {}
        Ok(self.answer)
    }
}

fn task_of(headers: &HeaderMap) -> Option<TaskId> {
    headers.get(TASK_HEADER)?.to_str().ok()?.parse().ok()
}

/// A whole body, bounded.
async fn read(mut response: Response) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(ClientError::BrokenOff(Some(error))),
        }
        if body.len() > MAX_BODY_BYTES {
            return Err(ClientError::Garbled("a body without an end"));
        }
    }
}

/// The error that a text is, if it is one.
fn refusal(text: &str, status: Option<u16>) -> Option<ClientError> {
    #[derive(Deserialize)]
    struct Body {
        error: Detail,
    }
    #[derive(Deserialize)]
    struct Detail {
        message: String,
        code: Option<String>,
    }
    let Body { error: Detail { message, code } } = serde_json::from_str(text).ok()?;
    Some(ClientError::Router { status, code, message })
}
