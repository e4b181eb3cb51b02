//! Answers in OpenAI's shapes, plain and streamed.

use std::{convert::Infallible, sync::Arc};

use assay_types::TaskId;
use axum::{
    Json,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, stream};
use serde_json::{Value, json};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::{
    error::{ApiError, set_task},
    request::Ask,
};
use crate::{
    clock::now_s,
    config::{HEADERS_WITHIN, KEEP_ALIVE},
    tasks::{
        dispatch::Dispatcher,
        running::{Finish, Piece, Running},
    },
};

/// Serves a request; `permit` is held until its answer is over.
///
/// # Errors
/// Whatever stands in the way, before the headers are out.
pub async fn complete(
    dispatcher: Arc<Dispatcher>,
    ask: Ask,
    permit: OwnedSemaphorePermit,
) -> Result<Response, ApiError> {
    let running = dispatcher.begin(&ask).await?;
    let task = running.task();
    let mut response = if ask.stream {
        streamed(running, &ask, permit).await?
    } else {
        plain(running, &ask.model.name).await?
    };
    set_task(&mut response, task);
    Ok(response)
}

/// What all JSON of one answer begins with.
#[derive(Clone)]
struct Head {
    id: String,
    created: u64,
    model: String,
}

impl Head {
    fn new(task: TaskId, model: &str) -> Self {
        let id = format!("chatcmpl-{}", alloy::hex::encode(task.0));
        Self { id, created: now_s(), model: model.to_owned() }
    }

    fn chunk(&self, choices: Value, usage: Option<Value>) -> Value {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": null,
            "choices": choices,
        });
        if let Some(usage) = usage {
            chunk["usage"] = usage;
        }
        chunk
    }
}

fn usage(finish: &Finish) -> Value {
    json!({
        "prompt_tokens": finish.prompt_tokens,
        "completion_tokens": finish.output_tokens,
        "total_tokens": finish.prompt_tokens.saturating_add(finish.output_tokens),
    })
}

async fn plain(mut running: Running, model: &str) -> Result<Response, ApiError> {
    let head = Head::new(running.task(), model);
    let mut content = String::new();
    let finish = loop {
        match running.next().await? {
            Piece::Text(text) => content.push_str(&text),
            Piece::End(finish) => break finish,
        }
    };
    let body = json!({
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "system_fingerprint": null,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": content, "refusal": null},
            "logprobs": null,
            "finish_reason": finish.reason,
        }],
        "usage": usage(&finish),
    });
    Ok(Json(body).into_response())
}

/// Where a stream stands.
struct Streaming {
    running: Running,
    head: Head,
    include_usage: bool,
    /// The first thing that the node said, if it came before the headers.
    early: Option<Piece>,
    stage: Stage,
    /// Chunks that are due before anything else.
    due: Vec<Event>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Role,
    Content,
    Over,
}

async fn streamed(
    mut running: Running,
    ask: &Ask,
    permit: OwnedSemaphorePermit,
) -> Result<Response, ApiError> {
    // A node that fails at once is an HTTP error; a slow one gets its headers out in time.
    let early = match timeout(HEADERS_WITHIN, running.next()).await {
        Ok(first) => Some(first?),
        Err(_) => None,
    };
    let head = Head::new(running.task(), &ask.model.name);
    let streaming = Streaming {
        running,
        head,
        include_usage: ask.include_usage,
        early,
        stage: Stage::Role,
        due: Vec::new(),
        _permit: permit,
    };
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(events(streaming)).keep_alive(keep_alive).into_response())
}

fn events(streaming: Streaming) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(streaming, |mut streaming| async move {
        let event = streaming.event().await?;
        Some((Ok(event), streaming))
    })
}

impl Streaming {
    async fn event(&mut self) -> Option<Event> {
        if let Some(event) = self.due.pop() {
            return Some(event);
        }
        match self.stage {
            Stage::Role => {
                self.stage = Stage::Content;
                Some(self.delta(&json!({"role": "assistant", "content": ""}), None))
            }
            Stage::Content => Some(self.content().await),
            Stage::Over => None,
        }
    }

    async fn content(&mut self) -> Event {
        let next = match self.early.take() {
            Some(piece) => Ok(piece),
            None => self.running.next().await,
        };
        match next {
            Ok(Piece::Text(text)) => self.delta(&json!({"content": text}), None),
            Ok(Piece::End(finish)) => {
                self.stage = Stage::Over;
                // Taken from the end.
                self.due.push(Event::default().data("[DONE]"));
                if self.include_usage {
                    let chunk = self.head.chunk(json!([]), Some(usage(&finish)));
                    self.due.push(Event::default().data(chunk.to_string()));
                }
                self.delta(&json!({}), Some(finish.reason))
            }
            Err(error) => {
                // No `[DONE]`: a client that waits for it knows that the answer is not whole.
                self.stage = Stage::Over;
                Event::default().data(error.body().to_string())
            }
        }
    }

    fn delta(&self, delta: &Value, finish_reason: Option<&str>) -> Event {
        let choices = json!([{
            "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason,
        }]);
        let usage = self.include_usage.then_some(Value::Null);
        Event::default().data(self.head.chunk(choices, usage).to_string())
    }
}
