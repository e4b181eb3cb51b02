//! Signatures of drand's rounds, from its public relays. Nobody has to be trusted: the contract verifies them, and for
//! each round there is one.

use std::time::Duration;

use alloy::primitives::{Bytes, hex};
use reqwest::{Client, Url};
use serde::Deserialize;

/// drand's own relays, and Cloudflare's.
pub const RELAYS: [&str; 4] = [
    "https://api.drand.sh",
    "https://api2.drand.sh",
    "https://api3.drand.sh",
    "https://drand.cloudflare.com",
];
/// Names the network `evmnet` in a relay's paths.
const EVMNET: &str = "04f1e9062b8a81f848fded9c12306733282b2727ecced50032187751166ec8c3";
/// A round's answer has some hundred bytes.
const MAX_ANSWER_BYTES: usize = 4096;
/// A point of G1: two coordinates of 32 bytes.
const SIGNATURE_BYTES: usize = 64;
/// How long one relay may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// No relay gave the signature.
#[derive(Debug, thiserror::Error)]
pub enum DrandError {
    /// A configured address is none.
    #[error("{url:?} is not the URL of a drand relay: {reason}; write it like {}", RELAYS[0])]
    Url {
        /// As configured.
        url: String,
        /// Why.
        reason: String,
    },
    /// The HTTP client cannot be made.
    #[error("no HTTP client can be made: {0}")]
    Client(#[source] reqwest::Error),
    /// Every relay failed; the last one's reason.
    #[error(
        "no drand relay gave round {round}: {reason}; check the connection to the internet, or name other relays"
    )]
    NoRelay {
        /// Of the beacon.
        round: u64,
        /// What the last relay said.
        reason: String,
    },
}

#[derive(Deserialize)]
struct Answer {
    round: u64,
    signature: String,
}

/// The relays, asked in their order. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Drand {
    http: Client,
    relays: Vec<Url>,
}

impl Drand {
    /// Relays by their base URLs; drand's own if there are none.
    ///
    /// # Errors
    /// If an address is no http(s) URL.
    pub fn new(urls: &[String]) -> Result<Self, DrandError> {
        let own: Vec<String> = RELAYS.iter().map(|url| (*url).to_owned()).collect();
        let urls = if urls.is_empty() { &own } else { urls };
        let relays = urls.iter().map(|url| parse(url)).collect::<Result<_, _>>()?;
        let http = Client::builder().timeout(TIMEOUT).build().map_err(DrandError::Client)?;
        Ok(Self { http, relays })
    }

    /// The signature of `round`, 64 bytes: what `RandomBeacon.reveal` takes.
    ///
    /// # Errors
    /// If no relay has it.
    pub async fn signature(&self, round: u64) -> Result<Bytes, DrandError> {
        let mut reason = "none is configured".to_owned();
        for relay in &self.relays {
            match self.ask(relay, round).await {
                Ok(signature) => return Ok(signature),
                Err(error) => {
                    tracing::debug!(%relay, round, %error, "a drand relay has no signature");
                    reason = format!("{relay}: {error}");
                }
            }
        }
        Err(DrandError::NoRelay { round, reason })
    }

    async fn ask(&self, relay: &Url, round: u64) -> Result<Bytes, String> {
        let path = format!("{}/{EVMNET}/public/{round}", relay.as_str().trim_end_matches('/'));
        let response = self.http.get(path).send().await.map_err(|error| error.to_string())?;
        if !response.status().is_success() {
            return Err(format!("it answered {}", response.status()));
        }
        let answer: Answer = serde_json::from_slice(&bounded(response).await?)
            .map_err(|error| format!("it answered something else than a round: {error}"))?;
        if answer.round != round {
            return Err(format!("it answered round {}", answer.round));
        }
        match hex::decode(&answer.signature) {
            Ok(bytes) if bytes.len() == SIGNATURE_BYTES => Ok(bytes.into()),
            _ => Err(format!("its signature is not {SIGNATURE_BYTES} bytes in hex")),
        }
    }
}

fn parse(text: &str) -> Result<Url, DrandError> {
    let failed = |reason: String| DrandError::Url { url: text.to_owned(), reason };
    let url = Url::parse(text).map_err(|error| failed(error.to_string()))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(failed(format!("its scheme is {other}"))),
    }
}

/// The body, if it is as short as it should be.
async fn bounded(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| error.to_string())? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER_BYTES {
            return Err(format!("its answer is above {MAX_ANSWER_BYTES} bytes"));
        }
    }
    Ok(body)
}
