//! What one request of a key has taken out of its limits, and what it turns out to need.

use std::sync::Arc;

use super::ring::Caller;
use crate::{http::error::ApiError, tasks::running::Finish};

/// What is taken for each answer of a request. What an answer turns out not to need goes back once it is complete; one
/// that breaks off keeps all of it, since nobody knows what it took.
#[derive(Debug)]
pub struct Bill {
    caller: Arc<Caller>,
    reserved: Vec<u64>,
}

impl Bill {
    pub(super) fn new(caller: Arc<Caller>, reserved: Vec<u64>) -> Self {
        Self { caller, reserved }
    }

    /// Waits until the key is revoked or has expired.
    pub async fn key_ended(&self) -> ApiError {
        self.caller.ended().await
    }

    /// One answer is complete.
    pub fn ended(&mut self, answer: usize, finish: &Finish) {
        let used = u64::from(finish.prompt_tokens) + u64::from(finish.output_tokens);
        if let Some(reserved) = self.reserved.get_mut(answer) {
            self.caller.give_back(std::mem::take(reserved).saturating_sub(used));
        }
        for (kind, tokens) in [("input", finish.prompt_tokens), ("output", finish.output_tokens)] {
            metrics::counter!("assay_router_key_tokens_total", "agent" => "router", "key" => self.caller.key().id.clone(), "kind" => kind)
                .increment(tokens.into());
        }
    }
}
