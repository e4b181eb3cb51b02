//! The keys that are valid now, and what each has left of its limits a minute.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use assay_types::B256;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    bill::Bill,
    bucket::{Bucket, Refused},
    key::{ApiKey, hash},
};
use crate::{
    clock::{now_ms, now_s},
    http::{ask::Ask, error::ApiError},
};

/// Anthropic's clients send their key in it.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// How often a wait for a key's end looks at the wall clock, which may be set meanwhile.
const EXPIRY_LOOK_MS: u64 = 60_000;

/// A key that somebody asks with.
#[derive(Debug)]
pub struct Caller {
    key: Arc<ApiKey>,
    revoked: CancellationToken,
    rates: Mutex<Rates>,
}

#[derive(Debug)]
struct Rates {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
}

impl Caller {
    fn new(key: ApiKey) -> Arc<Self> {
        let now = now_ms();
        let bucket = |limit: Option<u32>| limit.map(|limit| Bucket::new(limit, now));
        let rates = Rates {
            requests: bucket(key.limits.requests_per_minute),
            tokens: bucket(key.limits.tokens_per_minute),
        };
        Arc::new(Self {
            key: Arc::new(key),
            revoked: CancellationToken::new(),
            rates: Mutex::new(rates),
        })
    }

    /// The key.
    pub fn key(&self) -> &ApiKey {
        &self.key
    }

    /// Waits until the key is revoked or has expired.
    pub async fn ended(&self) -> ApiError {
        tokio::select! {
            biased;
            () = self.revoked.cancelled() => is_revoked(),
            () = self.expired() => has_expired(),
        }
    }

    async fn expired(&self) {
        let Some(at_s) = self.key.limits.expires_s else { return std::future::pending().await };
        loop {
            let left_ms = at_s.saturating_mul(1000).saturating_sub(now_ms());
            if left_ms == 0 {
                return;
            }
            sleep(Duration::from_millis(left_ms.min(EXPIRY_LOOK_MS))).await;
        }
    }

    /// Takes what a request may need out of the limits a minute; what it does not need comes back with the bill.
    ///
    /// # Errors
    /// 403 for a model that the key may not ask for, 429 for too many requests or tokens.
    pub fn admit(self: &Arc<Self>, asks: &mut [Ask]) -> Result<Bill, ApiError> {
        let admitted = self.take(asks);
        let outcome = if admitted.is_ok() { "admitted" } else { "refused" };
        metrics::counter!("assay_router_key_requests_total", "agent" => "router", "key" => self.key.id.clone(), "outcome" => outcome)
            .increment(1);
        admitted
    }

    fn take(self: &Arc<Self>, asks: &mut [Ask]) -> Result<Bill, ApiError> {
        if let Some(ask) = asks.iter().find(|ask| !self.key.allows(&ask.model.name)) {
            return Err(not_allowed(&ask.model.name, &self.key.limits.models));
        }
        let reserved: Vec<u64> = asks.iter().map(most_tokens).collect();
        let wanted = reserved.iter().fold(0, |sum: u64, tokens| sum.saturating_add(*tokens));
        let now = now_ms();
        {
            let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
            let Rates { requests, tokens } = &mut *rates;
            if let Some(bucket) = requests {
                bucket.take(1, now).map_err(|refused| too_many("requests", 1, refused))?;
            }
            if let Some(bucket) = tokens
                && let Err(refused) = bucket.take(wanted, now)
            {
                if let Some(bucket) = requests {
                    bucket.give_back(1);
                }
                return Err(too_many("tokens", wanted, refused));
            }
        }
        for ask in asks.iter_mut() {
            ask.key = Some(self.key.clone());
        }
        Ok(Bill::new(self.clone(), reserved))
    }

    pub(super) fn give_back(&self, unused: u64) {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = &mut rates.tokens {
            bucket.give_back(unused);
        }
    }
}

/// Most tokens that the answers to a request can have, each with its prompt.
fn most_tokens(ask: &Ask) -> u64 {
    (u64::from(ask.max_prompt) + u64::from(ask.max_output)) * u64::from(ask.redundancy)
}

/// All valid keys, by the hash of their secret.
#[derive(Debug, Default)]
pub struct Keyring(RwLock<HashMap<B256, Arc<Caller>>>);

impl Keyring {
    /// Takes over what the file has. A key that is known keeps what it has left; who asks with one that is revoked is
    /// cut off.
    pub fn replace(&self, all: Vec<(B256, ApiKey)>) {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *keys);
        for (hash, key) in all.into_iter().filter(|(_, key)| key.revoked_s.is_none()) {
            let known = before.remove(&hash).filter(|caller| *caller.key == key);
            keys.insert(hash, known.unwrap_or_else(|| Caller::new(key)));
        }
        for caller in before.values() {
            tracing::info!(key = %caller.key.id, "an API key is revoked");
            caller.revoked.cancel();
        }
    }

    /// Who asks.
    ///
    /// # Errors
    /// 401 if no valid key comes with the request.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<Caller>, ApiError> {
        let text = secret(headers).ok_or_else(|| {
            unauthorised(
                "an API key is missing: send it as \"authorization: Bearer KEY\" or as \"x-api-key: KEY\"",
            )
        })?;
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let caller = keys.get(&hash(text)).ok_or_else(|| {
            unauthorised(
                "this API key is not known here, or is revoked: ask whoever runs this router for one",
            )
        })?;
        if caller.key.limits.expires_s.is_some_and(|at| at <= now_s()) {
            return Err(has_expired());
        }
        Ok(caller.clone())
    }
}

/// The secret in a request's headers, as OpenAI's clients send it or as Anthropic's.
fn secret(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(&header::AUTHORIZATION).and_then(|value| {
        let (scheme, secret) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
    });
    bearer.or_else(|| text(&API_KEY)).filter(|secret| !secret.is_empty())
}

fn unauthorised(message: &str) -> ApiError {
    ApiError::refused(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
}

fn is_revoked() -> ApiError {
    unauthorised("this API key was revoked: ask whoever runs this router for another")
}

fn has_expired() -> ApiError {
    unauthorised("this API key has expired: ask whoever runs this router for another")
}

fn not_allowed(model: &str, allowed: &[String]) -> ApiError {
    let message =
        format!("this API key may not ask for {model:?}: use one of {}", allowed.join(", "));
    ApiError {
        param: Some("model".into()),
        ..ApiError::refused(StatusCode::FORBIDDEN, "model_not_allowed", message)
    }
}

fn too_many(what: &str, wanted: u64, refused: Refused) -> ApiError {
    let code = "rate_limit_exceeded";
    match refused {
        Refused::Wait { ms } => {
            let message = format!(
                "this API key has used up its {what} of this minute: send the request again in {} s",
                ms.div_ceil(1000)
            );
            ApiError::limited(code, message, u16::try_from(ms.div_ceil(1000)).unwrap_or(u16::MAX))
        }
        Refused::Never => {
            let message = format!(
                "the request may need {wanted} {what}, more than this API key has in a minute: ask for fewer with max_tokens, or shorten the prompt"
            );
            ApiError { retry_after_s: None, ..ApiError::limited(code, message, 0) }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::keys::key::{Limits, Secret, random_id};

    fn key(limits: Limits) -> ApiKey {
        ApiKey { id: random_id(), name: "a".into(), created_s: 1, revoked_s: None, limits }
    }

    fn status(ring: &Keyring, name: &'static str, value: &str) -> Result<String, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        let caller = ring.authenticate(&headers).map_err(|error| error.status.as_u16())?;
        Ok(caller.key().id.clone())
    }

    #[tokio::test]
    async fn who_asks_is_told_by_either_header_until_the_key_is_revoked() {
        let (ring, secret) = (Keyring::default(), Secret::random());
        let mut one = key(Limits::default());
        ring.replace(vec![(secret.hash(), one.clone())]);
        let bearer = format!("bearer {}", secret.text());
        assert_eq!(status(&ring, "authorization", &bearer), Ok(one.id.clone()));
        assert_eq!(status(&ring, "x-api-key", secret.text()), Ok(one.id.clone()));
        for (name, value) in [
            ("authorization", "Bearer sk-dummy"),
            ("authorization", "Bearer "),
            ("authorization", secret.text()),
            ("x-api-key", ""),
            ("cookie", "x"),
        ] {
            assert_eq!(status(&ring, name, value), Err(401), "{name}: {value}");
        }

        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", HeaderValue::from_str(secret.text()).unwrap());
        let caller = ring.authenticate(&headers).unwrap();
        ring.replace(vec![(secret.hash(), one.clone())]);
        assert!(Arc::ptr_eq(&caller, &ring.authenticate(&headers).unwrap()), "it keeps its limits");
        one.revoked_s = Some(2);
        ring.replace(vec![(secret.hash(), one)]);
        assert_eq!(caller.ended().await.status, 401);
        assert_eq!(status(&ring, "x-api-key", secret.text()), Err(401));
    }

    #[test]
    fn a_key_ends_when_it_said() {
        let (ring, secret) = (Keyring::default(), Secret::random());
        let ends = |at| key(Limits { expires_s: Some(at), ..Limits::default() });
        ring.replace(vec![(secret.hash(), ends(now_s() + 60))]);
        assert!(status(&ring, "x-api-key", secret.text()).is_ok());
        ring.replace(vec![(secret.hash(), ends(now_s()))]);
        assert_eq!(status(&ring, "x-api-key", secret.text()), Err(401));
    }

    #[tokio::test]
    async fn whoever_waits_for_a_keys_end_hears_how_it_ended() {
        let ended = |expires_s| async move {
            let caller = Caller::new(key(Limits { expires_s, ..Limits::default() }));
            caller.ended().await
        };
        let error = ended(Some(now_s())).await;
        assert!(error.status == 401 && error.message.contains("expired"), "{error}");
        let caller = Caller::new(key(Limits { expires_s: Some(u64::MAX), ..Limits::default() }));
        caller.revoked.cancel();
        assert!(caller.ended().await.message.contains("revoked"));
    }
}
