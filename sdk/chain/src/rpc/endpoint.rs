//! One endpoint: its wire, its health, and what an answer says about it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alloy::primitives::U64;
use alloy::pubsub::RawSubscription;
use alloy::rpc::types::Block;
use alloy::transports::layers::{RateLimitRetryPolicy, RetryPolicy};
use alloy::transports::{TransportError, TransportResult};
use alloy_json_rpc::{ErrorPayload, RequestPacket, ResponsePacket};
use tokio::time::{Instant, timeout_at};

use super::health::{Health, Trouble};
use super::wire::{Wire, own_answer, own_call};

/// Longest time of a look at an endpoint's head.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct Endpoint {
    /// Scheme and host alone: the rest of a URL often holds a key.
    pub name: String,
    /// Of the chain that it must be of.
    chain_id: u64,
    wire: Wire,
    health: Mutex<Health>,
    /// Held while its chain is checked.
    verifying: tokio::sync::Mutex<()>,
}

impl Endpoint {
    pub(super) fn new(name: String, chain_id: u64, wire: Wire) -> Self {
        let (health, verifying) = Default::default();
        Self { name, chain_id, wire, health, verifying }
    }

    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_socket(&self) -> bool {
        matches!(self.wire, Wire::Socket(_))
    }

    /// One call, until `limit`, once the endpoint's chain is known to be the right one.
    pub(super) async fn attempt(
        &self,
        packet: RequestPacket,
        limit: Instant,
    ) -> Result<ResponsePacket, Trouble> {
        self.verify(limit).await?;
        self.tracked(limit, self.wire.ask(packet)).await
    }

    /// Checks the chain, unless that was done since the endpoint last failed.
    pub(super) async fn verify(&self, limit: Instant) -> Result<(), Trouble> {
        if self.health().is_verified() {
            return Ok(());
        }
        let Ok(_verifying) = timeout_at(limit, self.verifying.lock()).await else {
            return Err(no_answer());
        };
        if self.health().is_verified() {
            return Ok(());
        }
        let began = Instant::now();
        let ask = async { self.wire.ask(own_call("eth_chainId", ())?).await };
        let answer = self.tracked(limit, ask).await?;
        match own_answer::<U64>(&answer) {
            Ok(got) if got.to::<u64>() == self.chain_id => {
                self.health().set_verified();
                Ok(())
            }
            Ok(got) => {
                let trouble = Trouble::Foreign { got: got.to(), expected: self.chain_id };
                Err(self.failed(began, trouble))
            }
            Err(error) => Err(self.failed(began, Trouble::Failed(error.to_string()))),
        }
    }

    /// Timestamp of its newest block.
    pub(super) async fn head_time(&self) -> Result<u64, Trouble> {
        let limit = Instant::now() + PROBE_TIMEOUT;
        let packet = own_call("eth_getBlockByNumber", ("latest", false))
            .map_err(|error| Trouble::Failed(error.to_string()))?;
        let answer = self.attempt(packet, limit).await?;
        own_answer::<Block>(&answer)
            .map(|block| block.header.timestamp)
            .map_err(|error| Trouble::Failed(error.to_string()))
    }

    /// New heads, if it can tell them.
    pub(super) async fn heads(&self, limit: Instant) -> Option<RawSubscription> {
        self.verify(limit).await.ok()?;
        let began = Instant::now();
        match timeout_at(limit, self.wire.heads()).await {
            Ok(Ok(heads)) => heads,
            Ok(Err(error)) => {
                self.failed(began, trouble_of(&error));
                None
            }
            Err(_) => {
                self.failed(began, no_answer());
                None
            }
        }
    }

    /// Notes what is known of this endpoint from outside, e.g. that its answers contradict one another.
    pub(super) fn distrust(&self, reason: &str) {
        self.failed(Instant::now(), Trouble::Failed(reason.to_string()));
    }

    pub(super) fn set_lagging(&self, lagging: bool, behind_s: u64) {
        if !self.health().set_lagging(lagging) {
            return;
        }
        let endpoint = &self.name;
        if lagging {
            tracing::warn!(%endpoint, behind_s, "RPC endpoint lags; others are preferred while it does");
        } else {
            tracing::info!(%endpoint, "RPC endpoint has caught up");
        }
    }

    async fn tracked(
        &self,
        limit: Instant,
        ask: impl Future<Output = TransportResult<ResponsePacket>>,
    ) -> Result<ResponsePacket, Trouble> {
        let Some(slot) = self.health().take_slot(Instant::now(), limit) else {
            return Err(Trouble::Failed(
                "it limits our rate: no room for this call in time".into(),
            ));
        };
        tokio::time::sleep_until(slot).await;
        let began = Instant::now();
        let trouble = match timeout_at(limit, ask).await {
            Ok(Ok(answer)) => {
                let limited = answer.iter_errors().find(|error| is_rate_limit(error)).cloned();
                let Some(error) = limited else {
                    self.succeeded();
                    return Ok(answer);
                };
                trouble_of(&TransportError::ErrorResp(error))
            }
            Ok(Err(error)) => trouble_of(&error),
            Err(_) => {
                self.wire.disconnect().await;
                Trouble::Failed(format!("no answer within {} ms", began.elapsed().as_millis()))
            }
        };
        Err(self.failed(began, trouble))
    }

    fn succeeded(&self) {
        if self.health().succeeded(Instant::now()) {
            tracing::info!(endpoint = %self.name, "RPC endpoint is steady again");
        }
    }

    fn failed(&self, began: Instant, trouble: Trouble) -> Trouble {
        if self.health().failed(began, Instant::now(), &trouble) {
            let endpoint = &self.name;
            tracing::warn!(%endpoint, reason = %trouble, "RPC endpoint fails; others are preferred while it does");
        }
        trouble
    }
}

fn no_answer() -> Trouble {
    Trouble::Failed("no answer in time".into())
}

/// "header not found" is said by load balancers whose nodes differ; asking more slowly does not help.
fn is_rate_limit(error: &ErrorPayload) -> bool {
    error.is_retry_err() && error.message != "header not found"
}

fn trouble_of(error: &TransportError) -> Trouble {
    let limited = match error {
        TransportError::ErrorResp(error) => is_rate_limit(error),
        TransportError::Transport(kind) => {
            kind.as_http_error().is_some_and(|error| error.is_rate_limit_err())
        }
        _ => false,
    };
    let text = error.to_string();
    if limited {
        Trouble::Limited { text, wait: RateLimitRetryPolicy::default().backoff_hint(error) }
    } else {
        Trouble::Failed(text)
    }
}
