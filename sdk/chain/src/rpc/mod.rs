//! Calls to one of several endpoints of the same chain.
//!
//! Calls go to the first endpoint of the list that is sound; one that does not answer, limits our rate,
//! lags behind or turns out to be of another chain is left alone for a while, and told of once. A call is
//! offered to every endpoint before it fails. Transactions may reach several endpoints that way, which
//! does no harm: they are signed, and the same.

mod endpoint;
mod health;
mod wire;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use alloy::pubsub::RawSubscription;
use alloy::rpc::client::RpcClient;
use alloy::transports::{TransportError, TransportErrorKind, TransportFut, TransportResult};
use alloy_json_rpc::{RequestPacket, ResponsePacket};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::ChainError;
use endpoint::Endpoint;
use health::{Rank, Trouble};
use wire::Wire;

/// Longest time of a call, all endpoints together.
const CALL_TIMEOUT: Duration = Duration::from_secs(9);
/// Longest time that one endpoint gets while there is another one to ask.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the start waits for the other endpoints once one has answered.
const CONNECT_GRACE: Duration = Duration::from_secs(1);
/// Most endpoints in a list: more hide a mistake.
const MAX_ENDPOINTS: usize = 8;
/// How often a provider made of a client looks for its receipts: the library's 7 s are for mainnet.
const CLIENT_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How often the heads of several endpoints are compared.
const COMPARE_INTERVAL: Duration = Duration::from_secs(5);
/// An endpoint lags if its newest block is older than another's by more than this: longer than the
/// slowest usual block time, so that a sound one that is about to learn of a block does not.
const MAX_LAG_S: u64 = 15;

/// The endpoints; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Rpc {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    endpoints: Vec<Endpoint>,
    chain_id: u64,
}

impl Rpc {
    /// Connects to the endpoints of a list, `,` between them. One that is of the right chain suffices:
    /// the others are warned of.
    pub(crate) async fn connect(urls: &str, chain_id: u64) -> Result<Self, ChainError> {
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let texts: Vec<&str> =
            urls.split(',').map(str::trim).filter(|url| !url.is_empty()).collect();
        if texts.is_empty() || texts.len() > MAX_ENDPOINTS {
            let url = format!("(a list of {} URLs; 1 to {MAX_ENDPOINTS} can be used)", texts.len());
            return Err(ChainError::BadUrl { url });
        }
        for text in texts {
            let name = redact(text);
            let wire = Wire::new(text).ok_or_else(|| ChainError::BadUrl { url: name.clone() })?;
            endpoints.push(Endpoint::new(name, chain_id, wire));
        }
        let rpc = Self { inner: Arc::new(Inner { endpoints, chain_id }) };
        rpc.verify_all().await?;
        Ok(rpc)
    }

    async fn verify_all(&self) -> Result<(), ChainError> {
        let chain_id = self.inner.chain_id;
        let mut limit = Instant::now() + CALL_TIMEOUT;
        let mut checks: FuturesUnordered<_> = (self.inner.endpoints.iter())
            .map(|endpoint| async move { (endpoint, endpoint.verify(limit).await) })
            .collect();
        let (mut sound, mut foreign, mut failed) = (false, None, Vec::new());
        while let Ok(Some((endpoint, result))) = tokio::time::timeout_at(limit, checks.next()).await
        {
            match result {
                Ok(()) => {
                    sound = true;
                    limit = limit.min(Instant::now() + CONNECT_GRACE);
                }
                Err(Trouble::Foreign { got, .. }) => foreign = Some((endpoint.name.clone(), got)),
                Err(trouble) => failed.push((endpoint, trouble)),
            }
        }
        match foreign {
            _ if sound => Ok(()),
            Some((url, got)) => Err(ChainError::WrongChain { url, expected: chain_id, got }),
            None => Err(ChainError::Unreachable { url: self.names(), source: self.error(&failed) }),
        }
    }

    /// A client of these endpoints.
    pub(crate) fn client(&self) -> RpcClient {
        RpcClient::new(self.clone(), false).with_poll_interval(CLIENT_POLL_INTERVAL)
    }

    /// Scheme and host of every endpoint.
    pub(crate) fn names(&self) -> String {
        let names: Vec<&str> = self.inner.endpoints.iter().map(|one| one.name.as_str()).collect();
        names.join(", ")
    }

    /// True if any endpoint can tell of new heads.
    pub(crate) fn has_socket(&self) -> bool {
        self.inner.endpoints.iter().any(Endpoint::is_socket)
    }

    /// New heads of a sound endpoint that tells them. They are no more than a wake-up.
    pub(crate) async fn heads(&self) -> Option<RawSubscription> {
        let now = Instant::now();
        let (endpoint, rank) = self.order(now).into_iter().find(|(one, _)| one.is_socket())?;
        if let Rank::Resting(_) = rank
            && self.inner.endpoints.len() > 1
        {
            return None;
        }
        endpoint.heads(now + ATTEMPT_TIMEOUT).await
    }

    /// Leaves the endpoint alone that answers now: it contradicts itself, or what can be.
    pub(crate) fn distrust(&self, reason: &str) {
        if let Some((endpoint, _)) = self.order(Instant::now()).first() {
            endpoint.distrust(reason);
        }
    }

    /// Compares the heads of several endpoints, for ever. Without it, calls still avoid what fails, but
    /// not what only lags.
    pub(crate) async fn compare_heads(&self) {
        if self.inner.endpoints.len() < 2 {
            return std::future::pending().await;
        }
        let mut ticks = tokio::time::interval(COMPARE_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let order = self.order(Instant::now());
            let asked = order.into_iter().filter(|(_, rank)| !matches!(rank, Rank::Resting(_)));
            let times =
                futures::future::join_all(asked.map(|(endpoint, _)| async move {
                    (endpoint, endpoint.head_time().await.ok())
                }))
                .await;
            let Some(newest) = times.iter().filter_map(|(_, time)| *time).max() else { continue };
            for (endpoint, time) in times {
                let Some(time) = time else { continue };
                let behind_s = newest.saturating_sub(time);
                endpoint.set_lagging(behind_s > MAX_LAG_S, behind_s);
            }
        }
    }

    /// Endpoints that may be asked, best first.
    fn order(&self, now: Instant) -> Vec<(&Endpoint, Rank)> {
        let mut order: Vec<(&Endpoint, Rank)> = (self.inner.endpoints.iter())
            .filter_map(|endpoint| Some((endpoint, endpoint.health().rank(now)?)))
            .collect();
        // Stable: among equals the first of the list stays first.
        order.sort_by_key(|(_, rank)| *rank);
        order
    }

    async fn call_any(&self, packet: RequestPacket) -> TransportResult<ResponsePacket> {
        let deadline = Instant::now() + CALL_TIMEOUT;
        loop {
            let order = self.order(Instant::now());
            let mut troubles = Vec::new();
            for (position, (endpoint, _)) in order.iter().enumerate() {
                let is_last = position + 1 == order.len();
                let limit =
                    if is_last { deadline } else { deadline.min(Instant::now() + ATTEMPT_TIMEOUT) };
                match endpoint.attempt(packet.clone(), limit).await {
                    Ok(answer) => return Ok(answer),
                    Err(trouble) => troubles.push((*endpoint, trouble)),
                }
            }
            // Whoever limits our rate answers later, in the slots that it has room for.
            let limited = troubles.iter().any(|(_, one)| matches!(one, Trouble::Limited { .. }));
            if !limited || Instant::now() >= deadline {
                return Err(self.error(&troubles));
            }
        }
    }

    fn error(&self, troubles: &[(&Endpoint, Trouble)]) -> TransportError {
        let text = match troubles {
            [] => format!("no endpoint is of chain {} any more", self.inner.chain_id),
            [(_, only)] => only.to_string(),
            more => {
                let texts: Vec<_> =
                    more.iter().map(|(one, why)| format!("{}: {why}", one.name)).collect();
                texts.join("; ")
            }
        };
        TransportErrorKind::custom_str(&text)
    }
}

impl tower::Service<RequestPacket> for Rpc {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, packet: RequestPacket) -> Self::Future {
        let rpc = self.clone();
        Box::pin(async move { rpc.call_any(packet).await })
    }
}

/// Scheme and host of a URL, for people to read: user, path and query may hold keys.
pub fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "(text without ://)".into();
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}")
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn keys_in_urls_are_not_shown() {
        assert_eq!(
            redact("https://user:pw@node.example:8545/v2/KEY?x=KEY"),
            "https://node.example:8545"
        );
        assert_eq!(redact("ws://127.0.0.1:8545"), "ws://127.0.0.1:8545");
        assert_eq!(redact("KEY"), "(text without ://)");
    }
}
