//! Claimed tokens under the model: the rows of logits that they would have been chosen from.
//!
//! One teacher-forced prefill of prompt and claimed tokens gives all rows at once. mistral.rs hands out
//! the rows of every position, the prompt's too, so this takes `T * V * 4` bytes for T tokens and V
//! logits, and for a moment as much again; for Qwen3's 151,936 logits that is 622 MB per 1,024 tokens.
//!
//! What would take more than [`LoadOptions::score_bytes`](crate::LoadOptions) comes row by row instead:
//! the prompt is prefilled as in a generation, and then the tap dictates the claimed tokens. That holds
//! one row at a time and costs as much as generating them did. The same way serves the architectures
//! whose prefill keeps only its last row (phi3 and starcoder2 in GGUF form).
//!
//! mistral.rs panics if a request for raw logits shares a batch with another one, or if nobody can take
//! its logits any more. Here it has a lane of its own until mistral.rs has dropped its sequence, as a
//! generation has, and the receiving end lives as long.

use std::sync::Arc;

use assay_engine::EngineError;
use mistralrs::{CustomLogitsProcessor, DType, Response, Tensor};
use tokio::sync::{Mutex, mpsc};

use crate::{
    engine::{Shared, Work, pick_what_is_left, send, submission},
    generation::{died, failure},
    lanes::LaneGuard,
    load::blocking,
    tap::{Chooser, read_row},
};

/// Bytes of a logit.
const LOGIT_BYTES: usize = 4;
/// Responses of a raw request: its logits, or an error.
const RAW_RESPONSES: usize = 4;

/// Tokens that somebody claims to have got for a prompt; neither is empty.
pub(crate) struct Claim {
    pub prompt_ids: Vec<u32>,
    pub claimed_ids: Vec<u32>,
}

impl Claim {
    /// What has to be fed to see the row of every claimed token: all but the last one.
    fn fed(&self) -> Vec<u32> {
        let (_, before_last) = self.claimed_ids.split_last().unwrap_or((&0, &[]));
        [&self.prompt_ids, before_last].concat()
    }
}

/// The receiving end of mistral.rs's answer.
pub(crate) type Responses = Arc<Mutex<mpsc::Receiver<Response>>>;

/// What has to live as long as mistral.rs holds a sequence that no tap samples: its lane, and the
/// receiving end of its answer, even if whoever waited for it has gone.
pub(crate) struct Keeper {
    pub _lane: LaneGuard,
    pub _responses: Responses,
}

impl CustomLogitsProcessor for Keeper {
    fn apply(&self, logits: &Tensor, _: &[u32]) -> mistralrs::Result<Tensor> {
        Ok(logits.clone())
    }
}

impl Shared {
    /// Gives `reader` the row of each claimed token, in order, and returns its notes.
    pub(crate) async fn read<N: Send + 'static>(
        &self,
        claim: Claim,
        mut reader: Chooser<N>,
    ) -> Result<Vec<N>, EngineError> {
        // One at a time: it bounds the memory, and leaves other lanes to generations.
        let _one = self.reading.lock().await;
        let count = claim.claimed_ids.len();
        let fed = claim.fed();
        if fed.len().saturating_mul(self.row_width * LOGIT_BYTES) <= self.score_bytes {
            let first = claim.prompt_ids.len() - 1;
            let logits = self.prefill(fed).await?;
            if matches!(logits.dims(), [rows, _] if *rows == first + count) {
                let read = move || {
                    (first..first + count).map(|at| note(&logits, at, &mut reader)).collect()
                };
                return blocking(read, EngineError::Internal).await;
            }
            tracing::debug!("this architecture keeps only its last row: reading row by row");
        }
        let max_output = u32::try_from(count).unwrap_or(u32::MAX);
        let mut channels = self.run(&claim.prompt_ids, max_output, reader).await?;
        let mut notes = Vec::with_capacity(count);
        while notes.len() < count {
            notes.push(channels.choice().await?.1);
        }
        Ok(notes)
    }

    /// The logits of all positions of `ids`, `[T, V]`.
    async fn prefill(&self, ids: Vec<u32>) -> Result<Tensor, EngineError> {
        let lane = self.free.take().await?;
        let runner = self.runner(&lane)?;
        let (response, responses) = mpsc::channel(RAW_RESPONSES);
        let responses: Responses = Arc::new(Mutex::new(responses));
        let processor = Arc::new(Keeper { _lane: lane, _responses: responses.clone() });
        let work = Work { ids, sampling: pick_what_is_left(0), raw: true };
        let request = submission(runner.next_request_id(), work, response, processor);
        send(&runner, request).await?;
        let mut responses = responses.lock().await;
        loop {
            match responses.recv().await {
                Some(Response::Raw { logits_chunks, .. }) => {
                    let chunk = logits_chunks.into_iter().next();
                    return chunk.ok_or_else(|| EngineError::Internal("no logits came".into()));
                }
                Some(other) => {
                    if let Some(error) = failure(other) {
                        return Err(error);
                    }
                }
                None => return Err(died()),
            }
        }
    }
}

fn note<N>(logits: &Tensor, at: usize, reader: &mut Chooser<N>) -> Result<N, EngineError> {
    let row = logits.get(at).and_then(|row| row.to_dtype(DType::F32));
    let row = read_row(&row.map_err(|error| unreadable(&error))?)?;
    Ok(reader(&row)?.1)
}

fn unreadable(error: &dyn std::error::Error) -> EngineError {
    EngineError::Internal(format!("the logits cannot be read: {error}"))
}
