//! One generation: from the prompt's ids to a pinned result block.

use std::time::Duration;

use alloy::signers::SignerSync;
use assay_engine::{GenerateEvent, GenerateRequest};
use assay_store::StoreError;
use assay_types::{
    B256, BLOCK_VERSION, Bytes, EndReason, ResultBlock, SeedInput, StreamHash, TaskId,
    link::{RECEIPT_EVERY_TOKENS, StreamReceipt},
    prompt_hash, seed_g,
};
use futures::StreamExt;

use super::{
    Tools,
    check::{Checked, Refusal, refuse},
    outlet::{Outlet, Receipt},
};

/// Pause before the store is tried again; it doubles up to the longest.
const FIRST_STORE_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between tries of the store.
const LONGEST_STORE_PAUSE: Duration = Duration::from_secs(2);

/// What a generation made.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub ids: Vec<u32>,
    pub text: String,
    pub end_reason: EndReason,
    pub stream_hash: B256,
    pub prompt_hash: B256,
}

/// Runs the model and streams.
pub(crate) async fn generate(
    tools: &Tools,
    task: TaskId,
    checked: Checked,
    outlet: &Outlet,
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
    let (mut ids, mut text) = (Vec::new(), String::new());
    let mut stream = StreamHash::new(task);
    loop {
        let event = tokio::time::timeout(tools.stall_timeout, events.next());
        match event.await.map_err(|_| stalled())?.transpose().map_err(failed)? {
            Some(GenerateEvent::Token { id, text: piece }) => {
                if ids.len() >= max_output as usize {
                    return Err(refuse(
                        "engine_internal",
                        "the engine made more tokens than asked for",
                    ));
                }
                ids.push(id);
                stream.push(id);
                text.push_str(&piece);
                tools.stats.token();
                outlet.token(id, &piece);
                if ids.len().is_multiple_of(RECEIPT_EVERY_TOKENS as usize) {
                    outlet.receipt(receipt(tools, task, ids.len(), stream.value())?);
                }
            }
            Some(GenerateEvent::Done { end_reason }) if !ids.is_empty() => {
                let stream_hash = stream.value();
                if !ids.len().is_multiple_of(RECEIPT_EVERY_TOKENS as usize) {
                    outlet.receipt(receipt(tools, task, ids.len(), stream_hash)?);
                }
                return Ok(Made { ids, text, end_reason, stream_hash, prompt_hash });
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

/// Signs for the tokens so far.
fn receipt(
    tools: &Tools,
    task: TaskId,
    count: usize,
    stream_hash: B256,
) -> Result<Receipt, Refusal> {
    let seq = u32::try_from(count).unwrap_or(u32::MAX);
    let hash = StreamReceipt::new(task, tools.node, seq, stream_hash)
        .signing_hash(tools.ledger.chain_id(), tools.ledger.queue());
    let signature = tools
        .operator
        .sign_hash_sync(&hash)
        .map_err(|error| refuse("internal", format!("a receipt could not be signed: {error}")))?;
    Ok(Receipt { seq, stream_hash, signature })
}

/// Pins the result block and returns its digest. Tries until the task's job is stopped by its deadline.
pub(crate) async fn pin(tools: &Tools, task: TaskId, made: &Made) -> Result<B256, Refusal> {
    let block = ResultBlock {
        end_reason: made.end_reason,
        ids: made.ids.clone(),
        salt: B256::new(rand::random()),
        stream_hash: made.stream_hash,
        text: made.text.clone(),
        version: BLOCK_VERSION,
    };
    let (bytes, digest) =
        block.encode().map_err(|error| refuse("internal", format!("the result: {error}")))?;
    let bytes = Bytes::from(bytes);
    let mut pause = FIRST_STORE_PAUSE;
    loop {
        match tools.store.put(bytes.0.clone()).await {
            Ok(stored) if stored == digest => return Ok(digest),
            Ok(stored) => {
                return Err(refuse(
                    "internal",
                    format!(
                        "the content store names the result {stored}, but it is {digest}: use another store"
                    ),
                ));
            }
            Err(error) if error.is_retryable() => {
                tracing::warn!(%task, %error, "the result cannot be pinned yet");
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
