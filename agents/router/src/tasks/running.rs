//! A task that a node serves: its tokens as they come, then its checked end. Dropped early, it is cancelled.

use std::{sync::Arc, time::Duration};

use assay_types::{EndReason, NodeId, ResultBlock, TaskId, TokenLogprobs};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    carry::{Carriage, cancelled},
    conversations::Turn,
    dispatch::{Dispatcher, Try, is_node_fault, node_gone},
    hedge::{self, Rival},
    telemetry::{self, Telemetry},
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
    traces::{Stage, Trace},
};

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// More text.
    Text(Delta),
    /// The answer is complete and checked; what is stated of its last tokens, which have no text.
    End(Finish, Vec<TokenLogprobs>),
}

/// Text as it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Never empty.
    pub text: String,
    /// What is stated of its tokens, if that was asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// Tokens of the answer up to here.
    pub tokens: u32,
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
    pub(super) ask: Ask,
    pub(super) tried: Vec<NodeId>,
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
    /// When another node is asked, too; `None` if none will be.
    hedge_at: Option<Instant>,
    /// That other node's try.
    rival: Option<Rival>,
    /// Whether it is the other node's try itself, and not chosen yet.
    is_rival: bool,
    turn: Option<Turn>,
    /// Of a request that another has signed.
    carriage: Option<Carriage>,
    trace: Trace,
    prompt_tokens: u32,
    /// Tokens that came.
    tokens: u32,
    /// What is stated of tokens whose text has not come yet.
    logprobs: Vec<TokenLogprobs>,
    started: Instant,
    offered: Instant,
    accepted: Instant,
    ends: Instant,
    /// Time of the last sign of life, and of the first token.
    heard: Instant,
    first: Option<Instant>,
    finished: bool,
}

/// What happens to a task that is waited for.
enum Step {
    /// Its node says something.
    Said(Piece),
    /// The other node has said something first.
    Outpaced(Box<Running>, Piece),
}

/// What a task's side hears.
enum Heard {
    Event(Option<TaskEvent>),
    Rival(Option<(Box<Running>, Piece)>),
    /// The first token is late: another node may do better.
    HedgeDue,
    /// Nothing for too long.
    Nothing,
}

impl Running {
    pub(super) fn new(
        dispatcher: Arc<Dispatcher>,
        ask: &Ask,
        (task, node): (TaskId, NodeId),
        Try { started, is_rival, trace, .. }: Try,
    ) -> Self {
        let ends = started + dispatcher.total();
        let turn = dispatcher.conversations.turn(ask);
        metrics::gauge!("assay_router_tasks", "agent" => "router").increment(1.0);
        Self {
            dispatcher,
            telemetry: Telemetry::of(ask),
            task,
            node,
            events: None,
            spare: None,
            hedge_at: None,
            rival: None,
            is_rival,
            turn,
            carriage: None,
            trace,
            prompt_tokens: 0,
            tokens: 0,
            logprobs: Vec::new(),
            started,
            offered: Instant::now(),
            accepted: Instant::now(),
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
        (self.heard, self.accepted) = (Instant::now(), Instant::now());
        let may_hedge = self.dispatcher.config.hedging && !self.is_rival && self.spare.is_some();
        let late = self.dispatcher.paces.late_after(self.telemetry.model());
        self.hedge_at = late.filter(|_| may_hedge).map(|late| self.offered + late);
    }

    /// Nobody else is shown the task while this lives.
    pub(super) fn keep(&mut self, carriage: Carriage) {
        self.carriage = Some(carriage);
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
            let error = match self.advance().await {
                Ok(Step::Said(piece)) => {
                    if let Piece::End(finish, _) = &piece {
                        self.complete(*finish);
                    }
                    return Ok(piece);
                }
                Ok(Step::Outpaced(winner, piece)) => {
                    self.passed_over(&hedge::not_needed());
                    self.give_way(*winner);
                    return Ok(piece);
                }
                Err(error) => error,
            };
            self.finished = true;
            self.blame(&error);
            self.note_failure("failed", &error);
            // Another node may be at work already.
            if let Some(rival) = self.rival.take()
                && is_node_fault(&error)
                && let Some((winner, piece)) = rival.await
            {
                self.give_way(*winner);
                return Ok(piece);
            }
            match self.replacement(&error).await {
                Some(another) => self.give_way(another),
                None => {
                    if !self.is_rival {
                        self.telemetry.failed(self.started.elapsed(), error.status);
                        self.trace.failed(Some(self.task), &error);
                    }
                    return Err(error.of_task(self.task));
                }
            }
        }
    }

    /// Another node's try, where this one failed before anything of its answer was seen. It is a task of its own.
    async fn replacement(&mut self, error: &ApiError) -> Option<Self> {
        let Spare { ask, tried } = *self.spare.take().filter(|_| is_node_fault(error))?;
        if Instant::now() >= self.ends {
            return None;
        }
        let wanted = self.another_try(tried, self.is_rival);
        self.dispatcher.begin_again(&ask, wanted).await.ok()
    }

    fn another_try(&self, tried: Vec<NodeId>, is_rival: bool) -> Try {
        Try { tried, started: self.started, is_rival, trace: self.trace.clone() }
    }

    /// Another node's task is this answer's from now on.
    fn give_way(&mut self, mut another: Self) {
        tracing::info!(task = %self.task, by = %another.task, "a node is replaced");
        self.dispatcher.ledger.note(Note::Happened {
            task: self.task,
            event: "replaced",
            at_ms: now_ms(),
            detail: Some(another.task.to_string()),
        });
        if another.is_rival && !self.is_rival {
            another.is_rival = false;
            hedge::count("won");
            if let Some(first) = another.first {
                another.telemetry.first_token(first - another.started);
            }
        }
        *self = another;
    }

    /// Another node is faster: this one is told to stop. It has done nothing wrong.
    pub(super) fn passed_over(&mut self, why: &ApiError) {
        let waited = self.offered.elapsed();
        self.dispatcher.hub.judge(self.node, Outcome::Late(waited));
        self.dispatcher.paces.start(self.telemetry.model(), waited);
        self.dispatcher.hub.cancel(self.node, self.task);
        self.finished = true;
        self.note_failure("cancelled", why);
    }

    fn blame(&self, error: &ApiError) {
        // Whoever asks for more tokens than fit into the time gets none of them.
        if is_node_fault(error) && Instant::now() < self.ends {
            self.dispatcher.hub.judge(self.node, Outcome::Failed);
        }
    }

    async fn advance(&mut self) -> Result<Step, ApiError> {
        loop {
            let config = &self.dispatcher.config;
            let patience = match self.first {
                None => config.first_token_timeout,
                Some(_) => config.token_timeout,
            };
            let event = match self.hear(self.ends.min(self.heard + patience)).await {
                Heard::Event(event) => event,
                Heard::Nothing => return Err(self.too_late(patience)),
                Heard::HedgeDue => {
                    self.hedge();
                    continue;
                }
                Heard::Rival(Some((winner, piece))) => return Ok(Step::Outpaced(winner, piece)),
                Heard::Rival(None) => {
                    self.rival = None;
                    continue;
                }
            };
            self.heard = Instant::now();
            match event {
                Some(TaskEvent::Tokens { count, text, logprobs }) => {
                    if count > 0 && self.first.is_none() {
                        self.first_token();
                    }
                    self.tokens = self.tokens.saturating_add(count);
                    self.logprobs.extend(logprobs);
                    if !text.is_empty() {
                        let logprobs = std::mem::take(&mut self.logprobs);
                        let delta = Delta { text, logprobs, tokens: self.tokens };
                        return Ok(Step::Said(Piece::Text(delta)));
                    }
                }
                Some(TaskEvent::Done(answer)) => {
                    if let Some(first) = self.first {
                        self.trace.stage(Stage::since("generation", first), Some(self.task));
                    }
                    let end = Stage::begin("end");
                    let checked = self.verify(*answer).await;
                    telemetry::overhead(telemetry::Stage::Check, end.elapsed());
                    self.trace.stage(end, Some(self.task));
                    return checked.map(Step::Said);
                }
                Some(TaskEvent::Cancelled { tokens }) => return Err(cancelled(tokens)),
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

    async fn hear(&mut self, until: Instant) -> Heard {
        let Self { events: Some(events), rival, hedge_at, .. } = self else {
            return Heard::Event(None);
        };
        let found = async {
            match rival {
                Some(rival) => rival.await,
                None => std::future::pending().await,
            }
        };
        let wake_at = hedge_at.map_or(until, |at| at.min(until));
        tokio::select! {
            biased;
            event = events.recv() => Heard::Event(event),
            found = found => Heard::Rival(found),
            () = sleep_until(wake_at) => match hedge_at {
                Some(_) if wake_at < until => Heard::HedgeDue,
                _ => Heard::Nothing,
            },
        }
    }

    /// The first token is late: another node is asked, too, if that is likely to help.
    fn hedge(&mut self) {
        self.hedge_at = None;
        let Dispatcher { waiting, hedges, .. } = &*self.dispatcher;
        if !waiting.is_empty() || self.spare.is_none() || !hedges.take() {
            return;
        }
        if let Some(spare) = self.spare.take() {
            self.dispatcher.happened(self.task, "hedged");
            let Spare { ask, tried } = *spare;
            let wanted = self.another_try(tried, true);
            self.rival = Some(hedge::rival(self.dispatcher.clone(), ask, wanted));
        }
    }

    fn first_token(&mut self) {
        self.first = Some(self.heard);
        self.trace.stage(Stage::since("first token", self.accepted), Some(self.task));
        (self.spare, self.hedge_at) = (None, None);
        if self.rival.take().is_some() {
            hedge::count("lost");
        }
        let start = self.heard - self.offered;
        self.dispatcher.hub.judge(self.node, Outcome::Began(start));
        self.dispatcher.paces.start(self.telemetry.model(), start);
        self.dispatcher.happened(self.task, "first_token");
        if let Some(turn) = self.turn {
            self.dispatcher.conversations.answered(turn, self.node);
        }
        let after = self.heard - self.started;
        self.dispatcher.paces.first_token(self.telemetry.model(), after);
        if !self.is_rival {
            self.telemetry.first_token(after);
        }
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
    /// Takes it by exclusive reference: a try of another node is no thing to share between threads.
    async fn verify(&mut self, answer: Answer) -> Result<Piece, ApiError> {
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
        let finish = Finish { end, prompt_tokens, output_tokens };
        Ok(Piece::End(finish, std::mem::take(&mut self.logprobs)))
    }

    fn complete(&mut self, finish: Finish) {
        self.finished = true;
        let now = Instant::now();
        self.telemetry.complete(now - self.started, &finish);
        self.trace.complete((self.task, self.node), &finish);
        let each = self.first.filter(|_| finish.output_tokens > 1);
        let each = each.map(|first| (now - first) / (finish.output_tokens - 1));
        self.dispatcher.hub.judge(self.node, Outcome::Completed(each));
        if let Some(each) = each {
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
        if self.is_rival {
            return self.note_failure("cancelled", &hedge::not_needed());
        }
        let error =
            ApiError::node("client_gone", "the client hung up before the answer was complete");
        self.telemetry.hung_up(self.started.elapsed());
        self.trace.failed(Some(self.task), &error);
        self.note_failure("cancelled", &error);
    }
}
