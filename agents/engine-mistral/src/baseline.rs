//! Generation by mistral.rs's own sampler: what the tap is measured against.

use std::{sync::Arc, time::Instant};

use assay_engine::{Engine, EngineError, GenerateRequest};
use mistralrs::{Response, SamplingParams};
use tokio::sync::{Mutex, mpsc};

use crate::{
    MistralEngine,
    engine::{SPARE_RESPONSES, Work, send, submission},
    generation::{died, failure},
    scoring::{Keeper, Responses},
};

impl MistralEngine {
    /// Generates with mistral.rs's own sampler and gives the time of every response, one a token. Of the
    /// request's sampling only the temperature is used; the seed is mistral.rs's own. Nothing of the
    /// answer can be proven: this is for measurements alone.
    ///
    /// # Errors
    /// If the request cannot be served or the engine fails.
    pub async fn time_without_tap(
        &self,
        request: &GenerateRequest,
    ) -> Result<Vec<Instant>, EngineError> {
        request.check(self.info())?;
        let lane = self.shared.free.take().await?;
        let runner = self.shared.runner(&lane)?;
        let (response, responses) = mpsc::channel(request.max_output as usize + SPARE_RESPONSES);
        let responses: Responses = Arc::new(Mutex::new(responses));
        let sampling = SamplingParams {
            temperature: Some(f64::from(request.sampling.temperature_milli) / 1000.0),
            top_k: None,
            max_len: Some(request.max_output as usize),
            ..SamplingParams::deterministic()
        };
        let work = Work { ids: request.prompt_ids.clone(), sampling, raw: false };
        let keeper = Arc::new(Keeper { _lane: lane, _responses: responses.clone() });
        send(&runner, submission(runner.next_request_id(), work, response, keeper)).await?;
        let mut responses = responses.lock().await;
        let mut times = Vec::new();
        while let Some(response) = responses.recv().await {
            times.push(Instant::now());
            if let Response::CompletionChunk(chunk) = &response {
                if chunk.choices.iter().any(|choice| choice.finish_reason.is_some()) {
                    return Ok(times);
                }
            } else if let Some(error) = failure(response) {
                return Err(error);
            }
        }
        Err(died())
    }
}
