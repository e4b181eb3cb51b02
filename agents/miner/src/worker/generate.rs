//! One generation: from the prompt's ids to a pinned result block.

use std::time::Duration;

use alloy::signers::SignerSync;
use assay_engine::{GenerateEvent, GenerateRequest};
use assay_proof::{Contrasts, Record};
use assay_store::StoreError;
use assay_types::{
    B256, BLOCK_VERSION, Bytes, EndReason, ResultBlock, SeedInput, Signed, StreamHash, TaskId,
    link::{RECEIPT_EVERY_TOKENS, StreamReceipt},
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
}

/// What is generated goes to the outlet; in another life of the task, only once it has repeated what the earlier one
/// signed for.
struct Tape<'a> {
    tools: &'a Tools,
    task: TaskId,
    outlet: &'a Outlet,
    signed: Option<SignedReceipt>,
    /// Tokens that are held back, with the stream hash after each.
    held: Vec<(u32, String, B256)>,
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

    fn push(&mut self, id: u32, contrasts: Contrasts, piece: &str) -> Result<(), Refusal> {
        self.ids.push(id);
        self.contrasts.push(contrasts);
        self.stream.push(id);
        self.text.push_str(piece);
        self.tools.stats.token();
        self.held.push((id, piece.to_owned(), self.stream.value()));
        match self.signed {
            Some((seq, _)) if self.ids.len() < seq as usize => return Ok(()),
            Some((seq, hash)) if self.ids.len() == seq as usize && hash != self.stream.value() => {
                return Err(differs());
            }
            _ => self.signed = None,
        }
        let first = self.ids.len() - self.held.len();
        for (count, (id, piece, hash)) in (first + 1..).zip(std::mem::take(&mut self.held)) {
            self.outlet.token(id, &piece);
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

/// Runs the model and streams. `signed` is the newest receipt of an earlier life.
pub(crate) async fn generate(
    tools: &Tools,
    task: TaskId,
    checked: Checked,
    outlet: &Outlet,
    signed: Option<SignedReceipt>,
) -> Result<Made, Refusal> {
    let prompt_hash = prompt_hash(&checked.prompt_ids);
    let seed = seed_g(&SeedInput {
        chain_id: tools.ledger.chain_id(),
        queue: tools.ledger.queue(),
        task,
        prompt_hash,
        node: tools.node,
        beacon: checked.beacon,
    });
    let max_output = checked.block.max_output;
    let request = GenerateRequest {
        prompt_ids: checked.prompt_ids,
        sampling: checked.block.sampling,
        seed,
        max_output,
        stop: checked.block.stop,
    };
    let failed = |error: assay_engine::EngineError| refuse(error.code(), error.to_string());
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
        let event = tokio::time::timeout(tools.stall_timeout, events.next());
        match event.await.map_err(|_| stalled())?.transpose().map_err(failed)? {
            Some(GenerateEvent::Token { id, contrasts, text: piece }) => {
                if tape.ids.len() >= max_output as usize {
                    return Err(refuse(
                        "engine_internal",
                        "the engine made more tokens than asked for",
                    ));
                }
                tape.push(id, contrasts, &piece)?;
            }
            Some(GenerateEvent::Done { end_reason }) if !tape.ids.is_empty() => {
                tape.end()?;
                let Tape { ids, contrasts, text, stream, .. } = tape;
                let record = Record::new(ids, contrasts)
                    .map_err(|error| refuse("engine_internal", error.to_string()))?;
                return Ok(Made {
                    record,
                    text,
                    end_reason,
                    stream_hash: stream.value(),
                    prompt_hash,
                });
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
