//! A task that a node serves: its tokens as they come, then its checked end. Dropped early, it is cancelled.

use std::{sync::Arc, time::Duration};

use assay_types::{EndReason, NodeId, ResultBlock, TaskId};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    dispatch::{Dispatcher, is_node_fault, node_gone},
    telemetry::{self, Stage, Telemetry},
};
use crate::{
    book::{db::Note, receipts::CONTRADICTED},
    clock::now_ms,
    config::{RESULT_RETRY, RESULT_TIMEOUT},
    http::{ask::Ask, error::ApiError},
    link::{
        standing::Outcome,
        state::{Answer, TaskEvent},
    },
};

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text, never empty.
    Text(String),
    /// The answer is complete and checked.
    End(Finish),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish {
    /// Why it ended.
    pub end: EndReason,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub output_tokens: u32,
}

impl Finish {
    /// Why it ended, in OpenAI's words.
    pub fn reason(&self) -> &'static str {
        match self.end {
            EndReason::Max => "length",
            EndReason::Eos | EndReason::Stop | EndReason::Cancelled => "stop",
        }
    }
}

/// What a request needs to be asked of another node.
#[derive(Debug)]
pub struct Spare {
    ask: Ask,
    tried: Vec<NodeId>,
}

impl Spare {
    /// Of a request that these nodes were asked; a redundant task has its other nodes already.
    pub(super) fn of(ask: &Ask, tried: Vec<NodeId>) -> Option<Box<Self>> {
        (ask.redundancy == 1).then(|| Box::new(Self { ask: ask.clone(), tried }))
    }
}

/// A task in progress.
pub struct Running {
    dispatcher: Arc<Dispatcher>,
    telemetry: Telemetry,
    task: TaskId,
    node: NodeId,
    events: Option<mpsc::Receiver<TaskEvent>>,
    /// What another node needs, until the client has seen something of this one's answer.
    spare: Option<Box<Spare>>,
    prompt_tokens: u32,
    started: Instant,
    offered: Instant,
    ends: Instant,
    /// Time of the last sign of life, and of the first token.
    heard: Instant,
    first: Option<Instant>,
    finished: bool,
}

impl Running {
    pub(super) fn new(
        dispatcher: Arc<Dispatcher>,
        ask: &Ask,
        task: TaskId,
        node: NodeId,
        started: Instant,
    ) -> Self {
        let ends = started + dispatcher.total();
        metrics::gauge!("assay_router_tasks", "agent" => "router").increment(1.0);
        Self {
            dispatcher,
            telemetry: Telemetry::of(ask),
            task,
            node,
            events: None,
            spare: None,
            prompt_tokens: 0,
            started,
            offered: Instant::now(),
            ends,
            heard: Instant::now(),
            first: None,
            finished: false,
        }
    }

    pub(super) fn accepted(
        &mut self,
        events: mpsc::Receiver<TaskEvent>,
        prompt_tokens: u32,
        spare: Option<Box<Spare>>,
    ) {
        self.events = Some(events);
        self.spare = spare;
        self.prompt_tokens = prompt_tokens;
        self.heard = Instant::now();
    }

    pub(super) fn not_taken(&mut self, error: &ApiError) {
        self.finished = true;
        self.blame(error);
        self.note_failure("declined", error);
    }

    /// Its id.
    pub fn task(&self) -> TaskId {
        self.task
    }

    /// Tokens of its prompt, as the node that took it has counted them.
    pub fn prompt_tokens(&self) -> u32 {
        self.prompt_tokens
    }

    /// Waits for text or the end.
    ///
    /// # Errors
    /// Whatever ends the task without a checked answer; nothing comes after it.
    pub async fn next(&mut self) -> Result<Piece, ApiError> {
        loop {
            let outcome = self.advance().await;
            match outcome {
                Ok(Piece::Text(_)) => {}
                Ok(Piece::End(finish)) => self.complete(finish),
                Err(ref error) => {
                    self.finished = true;
                    self.blame(error);
                    self.note_failure("failed", error);
                    if let Some(another) = self.replace(error).await {
                        *self = another;
                        continue;
                    }
                    self.telemetry.failed(self.started.elapsed(), error.status);
                }
            }
            return outcome.map_err(|error| error.of_task(self.task));
        }
    }

    /// Another node's try, where this one failed before anything of its answer was seen. It is a task of its own.
    async fn replace(&mut self, error: &ApiError) -> Option<Self> {
        let Spare { ask, tried } = *self.spare.take().filter(|_| is_node_fault(error))?;
        if Instant::now() >= self.ends {
            return None;
        }
        let another = self.dispatcher.begin_again(&ask, tried, self.started).await.ok()?;
        tracing::info!(task = %self.task, by = %another.task, code = error.code, "a node is replaced");
        self.dispatcher.ledger.note(Note::Happened {
            task: self.task,
            event: "replaced",
            at_ms: now_ms(),
            detail: Some(another.task.to_string()),
        });
        Some(another)
    }

    fn blame(&self, error: &ApiError) {
        // Whoever asks for more tokens than fit into the time gets none of them.
        if is_node_fault(error) && Instant::now() < self.ends {
            self.dispatcher.hub.judge(self.node, Outcome::Failed);
        }
    }

    async fn advance(&mut self) -> Result<Piece, ApiError> {
        loop {
            let config = &self.dispatcher.config;
            let patience = match self.first {
                None => config.first_token_timeout,
                Some(_) => config.token_timeout,
            };
            let until = self.ends.min(self.heard + patience);
            let Some(events) = &mut self.events else { return Err(node_gone()) };
            let Ok(event) = timeout_at(until, events.recv()).await else {
                return Err(self.too_late(patience));
            };
            self.heard = Instant::now();
            match event {
                Some(TaskEvent::Tokens { count, text }) => {
                    if count > 0 && self.first.is_none() {
                        self.first_token();
                    }
                    if !text.is_empty() {
                        return Ok(Piece::Text(text));
                    }
                }
                Some(TaskEvent::Done(answer)) => {
                    let checked = self.verify(*answer).await;
                    telemetry::overhead(Stage::Check, self.heard.elapsed());
                    return checked;
                }
                Some(
                    TaskEvent::Failed { code, message } | TaskEvent::Declined { code, message },
                ) => {
                    return Err(ApiError::node(&code, message));
                }
                // An open stream ends with `Done`; the link sees to it.
                Some(TaskEvent::Accepted { .. } | TaskEvent::Sealed) => {}
                None => return Err(node_gone()),
            }
        }
    }

    fn first_token(&mut self) {
        self.first = Some(self.heard);
        self.spare = None;
        self.dispatcher.hub.judge(self.node, Outcome::Began(self.heard - self.offered));
        self.dispatcher.happened(self.task, "first_token");
        let after = self.heard - self.started;
        self.dispatcher.paces.first_token(self.telemetry.model(), after);
        self.telemetry.first_token(after);
    }

    fn too_late(&self, patience: Duration) -> ApiError {
        self.dispatcher.hub.cancel(self.node, self.task);
        let message = if Instant::now() >= self.ends {
            format!(
                "the answer was not complete within {} s: ask for fewer tokens",
                self.dispatcher.config.deadline_s
            )
        } else if self.first.is_none() {
            format!("no token came within {} s: send the request again", patience.as_secs())
        } else {
            format!("no further token came within {} s: send the request again", patience.as_secs())
        };
        ApiError::node("node_timeout", message)
    }

    /// Compares what was streamed with what the miner pinned, which is what it will be paid for.
    async fn verify(&self, answer: Answer) -> Result<Piece, ApiError> {
        let digest = answer.output_digest;
        let read = async {
            loop {
                match self.dispatcher.store.get(digest).await {
                    Ok(bytes) => return bytes,
                    Err(error) => {
                        tracing::warn!(task = %self.task, %error, "the result block is not there yet")
                    }
                }
                sleep(RESULT_RETRY).await;
            }
        };
        let Ok(bytes) = timeout(RESULT_TIMEOUT, read).await else {
            let message = format!(
                "the node's result block {digest} cannot be read from the content store: do not rely on the text, and send the request again"
            );
            return Err(ApiError::node("result_unavailable", message));
        };
        let mismatch = |what: &str| {
            tracing::warn!(task = %self.task, node = %self.node, what, "a result block contradicts its stream");
            let message = format!(
                "the node's result block does not match what it streamed ({what}): do not rely on the text, and send the request again"
            );
            ApiError::node("result_mismatch", message)
        };
        let block = ResultBlock::decode(&bytes).map_err(|error| mismatch(&error.to_string()))?;
        let same = [
            (block.ids == answer.ids, "token ids"),
            (block.text == answer.text, "text"),
            (block.stream_hash == answer.stream_hash, "stream hash"),
            (block.end_reason == answer.end_reason, "end reason"),
        ];
        if let Some((_, what)) = same.iter().find(|(same, _)| !same) {
            if answer.receipt.receipt.contradicts(&block.ids) {
                let detail =
                    format!("its receipt is for other tokens than its result block {digest}");
                self.dispatcher.ledger.note(Note::Happened {
                    task: self.task,
                    event: CONTRADICTED,
                    at_ms: now_ms(),
                    detail: Some(detail),
                });
            }
            return Err(mismatch(what));
        }
        let output_tokens = u32::try_from(answer.ids.len()).unwrap_or(u32::MAX);
        self.dispatcher.ledger.note(Note::Answered {
            task: self.task,
            output_digest: digest,
            tokens: (answer.prompt_tokens, output_tokens),
            at_ms: now_ms(),
        });
        let (end, prompt_tokens) = (answer.end_reason, answer.prompt_tokens);
        Ok(Piece::End(Finish { end, prompt_tokens, output_tokens }))
    }

    fn complete(&mut self, finish: Finish) {
        self.finished = true;
        self.dispatcher.hub.judge(self.node, Outcome::Completed);
        let now = Instant::now();
        self.telemetry.complete(now - self.started, &finish);
        if let Some(first) = self.first
            && finish.output_tokens > 1
        {
            let each = (now - first) / (finish.output_tokens - 1);
            self.dispatcher.paces.token(self.telemetry.model(), each);
            self.telemetry.token(each);
        }
    }

    fn note_failure(&self, answer: &'static str, error: &ApiError) {
        self.dispatcher.ledger.note(Note::Failed {
            task: self.task,
            answer,
            code: error.code.clone(),
            message: error.message.clone(),
            at_ms: now_ms(),
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        metrics::gauge!("assay_router_tasks", "agent" => "router").decrement(1.0);
        if self.finished {
            return;
        }
        // The other nodes of a redundant task go on: it is on chain, and its page shows their answers.
        self.dispatcher.hub.cancel(self.node, self.task);
        let error =
            ApiError::node("client_gone", "the client hung up before the answer was complete");
        self.telemetry.hung_up(self.started.elapsed());
        self.note_failure("cancelled", &error);
    }
}
