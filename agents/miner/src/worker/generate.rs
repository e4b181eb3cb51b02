//! One generation: from the prompt's ids to a pinned result block.

use std::time::Duration;

use alloy::signers::SignerSync;
use assay_engine::{EngineError, GenerateEvent, GenerateRequest};
use assay_proof::{Contrasts, Record};
use assay_store::StoreError;
use assay_types::{
    B256, BLOCK_VERSION, Bytes, EndReason, RequestBlock, ResultBlock, SeedInput, Signature, Signed,
    StreamHash, TaskId, TokenLogprobs,
    link::{RECEIPT_EVERY_TOKENS, SignedCancellation, StreamReceipt},
    prompt_hash, seed_g,
};
use futures::StreamExt;

use super::{
    Tools,
    check::{Checked, Refusal, refuse},
    outlet::{Outlet, Receipt},
};
use crate::answers::SignedReceipt;

/// Pause before the store is tried again; it doubles up to the longest.
const FIRST_STORE_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between tries of the store.
const LONGEST_STORE_PAUSE: Duration = Duration::from_secs(2);

/// What a generation made.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    /// The tokens, and the fingerprint that H2 seals.
    pub record: Record,
    pub text: String,
    pub end_reason: EndReason,
    pub stream_hash: B256,
    pub prompt_hash: B256,
    /// Of an answer that was cancelled.
    pub cancellation: Option<Signature>,
}

/// A token as the outlet gets it.
struct Token {
    id: u32,
    text: String,
    logprobs: Option<TokenLogprobs>,
}

/// What is generated goes to the outlet; in another life of the task, only once it has repeated what the earlier one
/// signed for.
struct Tape<'a> {
    tools: &'a Tools,
    task: TaskId,
    outlet: &'a Outlet,
    signed: Option<SignedReceipt>,
    /// Tokens that are held back, with the stream hash after each.
    held: Vec<(Token, B256)>,
    ids: Vec<u32>,
    contrasts: Vec<Contrasts>,
    text: String,
    stream: StreamHash,
}

impl<'a> Tape<'a> {
    fn new(
        tools: &'a Tools,
        task: TaskId,
        outlet: &'a Outlet,
        signed: Option<SignedReceipt>,
    ) -> Self {
        let stream = StreamHash::new(task);
        let (held, ids, contrasts, text) = (vec![], vec![], vec![], String::new());
        Self { tools, task, outlet, signed, held, ids, contrasts, text, stream }
    }

    fn push(&mut self, token: Token, contrasts: Contrasts) -> Result<(), Refusal> {
        self.ids.push(token.id);
        self.contrasts.push(contrasts);
        self.stream.push(token.id);
        self.text.push_str(&token.text);
        self.tools.stats.token();
        self.held.push((token, self.stream.value()));
        match self.signed {
            Some((seq, _)) if self.ids.len() < seq as usize => return Ok(()),
            Some((seq, hash)) if self.ids.len() == seq as usize && hash != self.stream.value() => {
                return Err(differs());
            }
            _ => self.signed = None,
        }
        let first = self.ids.len() - self.held.len();
        for (count, (token, hash)) in (first + 1..).zip(std::mem::take(&mut self.held)) {
            self.outlet.token(token.id, &token.text, token.logprobs);
            if count.is_multiple_of(RECEIPT_EVERY_TOKENS as usize) {
                self.outlet.receipt(receipt(self.tools, self.task, count, hash)?);
            }
        }
        Ok(())
    }

    /// The stream has ended: the last receipt covers all of it.
    fn end(&self) -> Result<(), Refusal> {
        if self.signed.is_some() {
            return Err(differs());
        }
        let count = self.ids.len();
        if !count.is_multiple_of(RECEIPT_EVERY_TOKENS as usize) {
            self.outlet.receipt(receipt(self.tools, self.task, count, self.stream.value())?);
        }
        Ok(())
    }
}

fn differs() -> Refusal {
    refuse(
        "engine_internal",
        "the engine did not repeat what an earlier life of the node has signed: offer the task to another node",
    )
}

impl Tape<'_> {
    /// The whole answer.
    fn whole(self, end_reason: EndReason, prompt_hash: B256) -> Result<Made, Refusal> {
        self.end()?;
        let Self { ids, contrasts, text, stream, .. } = self;
        let record = record(ids, contrasts)?;
        let stream_hash = stream.value();
        Ok(Made { record, text, end_reason, stream_hash, prompt_hash, cancellation: None })
    }

    /// The answer up to where the lane's holder has cancelled it, as a generation of exactly these tokens has it.
    async fn until(
        mut self,
        cut: SignedCancellation,
        stop: &[String],
        prompt_hash: B256,
    ) -> Result<Made, Refusal> {
        let tokens = usize::try_from(cut.tokens).unwrap_or(usize::MAX);
        self.ids.truncate(tokens);
        self.contrasts.truncate(tokens);
        let engine = &self.tools.engine;
        let reading = engine.read(&self.ids, stop).await.map_err(failed)?;
        let is_end = |id: &u32| engine.end_tokens().contains(id);
        let end_reason = match reading.stopped_at {
            // It had come to its end before the cancellation came.
            _ if self.ids.last().is_some_and(is_end) => EndReason::Eos,
            Some(_) => EndReason::Stop,
            None => EndReason::Cancelled,
        };
        let stream_hash = StreamHash::of(self.task, &self.ids);
        let record = record(self.ids, self.contrasts)?;
        let cancellation = (end_reason == EndReason::Cancelled).then_some(cut.signature);
        Ok(Made { record, text: reading.text, end_reason, stream_hash, prompt_hash, cancellation })
    }
}

fn record(ids: Vec<u32>, contrasts: Vec<Contrasts>) -> Result<Record, Refusal> {
    Record::new(ids, contrasts).map_err(|error| refuse("engine_internal", error.to_string()))
}

fn failed(error: EngineError) -> Refusal {
    refuse(error.code(), error.to_string())
}

/// What the engine is asked for, with the seed that the node cannot choose, and the hash of its prompt.
fn wanted(tools: &Tools, task: TaskId, checked: Checked) -> (GenerateRequest, B256) {
    let prompt_hash = prompt_hash(&checked.prompt_ids);
    let seed = seed_g(&SeedInput {
        chain_id: tools.ledger.chain_id(),
        queue: tools.ledger.queue(),
        task,
        prompt_hash,
        node: tools.node,
        beacon: checked.beacon,
    });
    let Checked { block, prompt_ids, .. } = checked;
    let RequestBlock { sampling, max_output, stop, top_logprobs, .. } = block;
    let request = GenerateRequest { prompt_ids, sampling, seed, max_output, stop, top_logprobs };
    (request, prompt_hash)
}

/// Runs the model and streams. `signed` is the newest receipt of an earlier life.
pub(crate) async fn generate(
    tools: &Tools,
    task: TaskId,
    checked: Checked,
    outlet: &Outlet,
    signed: Option<SignedReceipt>,
) -> Result<Made, Refusal> {
    let (request, prompt_hash) = wanted(tools, task, checked);
    let (max_output, stop) = (request.max_output, request.stop.clone());
    let wish = request.top_logprobs;
    let stalled = || {
        let seconds = tools.stall_timeout.as_secs_f64();
        refuse(
            "engine_stalled",
            format!("the engine made no token for {seconds} s: offer the task to another node"),
        )
    };
    let start = tokio::time::timeout(tools.stall_timeout, tools.engine.generate(request));
    let mut events = start.await.map_err(|_| stalled())?.map_err(failed)?;
    let mut tape = Tape::new(tools, task, outlet, signed);
    loop {
        // What an earlier life has signed for is repeated first.
        if let Some(cut) = outlet.cut_at()
            && tape.signed.is_none()
            && tape.ids.len() >= cut.tokens as usize
        {
            // The engine stops.
            drop(events);
            return tape.until(cut, &stop, prompt_hash).await;
        }
        let event = tokio::select! {
            event = tokio::time::timeout(tools.stall_timeout, events.next()) => event,
            () = outlet.cut_came() => continue,
        };
        match event.map_err(|_| stalled())?.transpose().map_err(failed)? {
            Some(GenerateEvent::Token { id, contrasts, text, logprobs }) => {
                if tape.ids.len() >= max_output as usize {
                    return Err(refuse(
                        "engine_internal",
                        "the engine made more tokens than asked for",
                    ));
                }
                check_logprobs(wish, logprobs.as_ref())?;
                tape.push(Token { id, text, logprobs }, contrasts)?;
            }
            Some(GenerateEvent::Done { end_reason }) if !tape.ids.is_empty() => {
                return tape.whole(end_reason, prompt_hash);
            }
            Some(GenerateEvent::Done { .. }) => {
                return Err(refuse("engine_internal", "the engine ended without a token"));
            }
            None => {
                return Err(refuse("engine_internal", "the engine's stream ended without its end"));
            }
        }
    }
}

/// A router takes nothing else than what was asked for.
fn check_logprobs(wish: Option<u32>, logprobs: Option<&TokenLogprobs>) -> Result<(), Refusal> {
    let found = match (wish, logprobs) {
        (None, None) => Ok(()),
        (Some(top), Some(logprobs)) => logprobs.check(top),
        (Some(_), None) => Err("none".into()),
        (None, Some(_)) => Err("some that nobody asked for".into()),
    };
    found.map_err(|what| {
        refuse("engine_internal", format!("the engine's log probabilities: {what}"))
    })
}

/// Signs for the tokens so far, and remembers that before.
fn receipt(
    tools: &Tools,
    task: TaskId,
    count: usize,
    stream_hash: B256,
) -> Result<Receipt, Refusal> {
    let seq = u32::try_from(count).unwrap_or(u32::MAX);
    tools
        .answers
        .note_receipt(task, (seq, stream_hash))
        .map_err(|error| refuse("internal", error.to_string()))?;
    let hash = StreamReceipt::new(task, tools.node, seq, stream_hash)
        .signing_hash(tools.ledger.chain_id(), tools.ledger.queue());
    let signature = tools
        .operator
        .sign_hash_sync(&hash)
        .map_err(|error| refuse("internal", format!("a receipt could not be signed: {error}")))?;
    Ok(Receipt { seq, stream_hash, signature })
}

/// Pins the result block and returns its digest. Tries until the task's job is stopped by its deadline.
pub(crate) async fn pin_result(
    tools: &Tools,
    task: TaskId,
    made: &Made,
    salt: B256,
) -> Result<B256, Refusal> {
    let block = ResultBlock {
        cancellation: made.cancellation.map(|signature| signature.as_bytes().into()),
        end_reason: made.end_reason,
        ids: made.record.ids().to_vec(),
        salt,
        stream_hash: made.stream_hash,
        text: made.text.clone(),
        version: BLOCK_VERSION,
    };
    let (bytes, digest) = block.encode().map_err(|error| {
        refuse(
            "answer_too_long",
            format!("the result cannot be stored: {error}: ask for fewer tokens"),
        )
    })?;
    match pin(tools, task, Bytes::from(bytes)).await? {
        stored if stored == digest => Ok(digest),
        stored => Err(refuse(
            "internal",
            format!(
                "the content store names the result {stored}, but it is {digest}: use another store"
            ),
        )),
    }
}

/// Pins a block, as often as it takes.
pub(crate) async fn pin(tools: &Tools, task: TaskId, bytes: Bytes) -> Result<B256, Refusal> {
    let mut pause = FIRST_STORE_PAUSE;
    loop {
        match tools.store.put(bytes.0.clone()).await {
            Ok(stored) => return Ok(stored),
            Err(error) if error.is_retryable() => {
                tracing::warn!(%task, %error, "a block cannot be pinned yet");
                tools.stats.error(&error);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_STORE_PAUSE);
            }
            Err(error) => return Err(refuse("internal", error.to_string())),
        }
    }
}

/// Fetches the request block of a task of the chain, or takes it from an offer, whichever comes first.
/// Tries until the task's job is stopped by its deadline.
pub(crate) async fn fetch(
    tools: &Tools,
    task: TaskId,
    digest: B256,
    outlet: &Outlet,
) -> Result<Bytes, Refusal> {
    tokio::select! {
        block = outlet.block() => Ok(block),
        block = fetch_from_store(tools, task, digest) => block
            .map(Bytes)
            .map_err(|error| refuse("internal", error.to_string())),
    }
}

async fn fetch_from_store(
    tools: &Tools,
    task: TaskId,
    digest: B256,
) -> Result<assay_store::Bytes, StoreError> {
    let mut pause = FIRST_STORE_PAUSE;
    loop {
        match tools.store.get(digest).await {
            Err(error) if error.is_retryable() => {
                tracing::debug!(%task, %error, "the request block is not there yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_STORE_PAUSE);
            }
            other => return other,
        }
    }
}
