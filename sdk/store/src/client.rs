//! Client of the Kubo RPC, over `ipfs-api-backend-hyper`.
//!
//! That crate builds the requests (addresses, options, the multipart form) and names the answers. What
//! it cannot do is done here:
//! - its calls read a daemon's whole answer into memory whatever its length, on errors too, so the
//!   requests it builds are sent here and the answers read up to a bound;
//! - its `add()` cannot parse the answer of every daemon (`Size` is a number in some), and adds UnixFS
//!   files: the content of this network is one raw block, so `block/put` is used.
//!
//! The kind of block is asked for with `format`, the older name of `cid-codec` that the crate has: Kubo
//! takes it, and daemons that do not know `cid-codec` (js-ipfs) read the bytes as dag-pb without it.

use std::{error::Error, io::Cursor, time::Duration};

use assay_types::B256;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use hyper_014::{
    Body, Client, Request, StatusCode, Uri,
    body::HttpBody,
    client::HttpConnector,
    http::uri::{PathAndQuery, Scheme},
};
use ipfs_api_backend_hyper::{
    ApiError, BackendWithGlobalOptions, Form, GlobalOptions, IpfsApi, IpfsClient, TryFromUri,
    request::{ApiRequest, BlockGet, BlockPut, PinAdd, PinLs, Version},
    response::{BlockPutResponse, PinAddResponse, PinLsResponse, VersionResponse},
};
use serde::de::DeserializeOwned;

use crate::{
    ContentStore, MAX_BLOCK_BYTES, StoreError, cid_of, digest_from_cid, digest_of, parse_cid,
};

/// Longest wait for one call, search among peers included. A task settles within seconds, so an answer
/// later than this one is of no use to it; the caller tries again or gives up.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a connection: a daemon stands on this machine or near it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer that is not a block. The longest one asked for names one CID.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// How much of a daemon's own words goes into an error.
const MAX_MESSAGE_CHARS: usize = 300;

type Backend = BackendWithGlobalOptions<IpfsClient>;

/// A daemon that speaks the Kubo RPC over HTTP. Cheap to share behind an `Arc`.
pub struct KuboStore {
    url: String,
    requests: Backend,
    http: Client<HttpConnector, Body>,
    timeout: Duration,
}

/// An answer, read up to its bound.
struct Answer {
    status: StatusCode,
    body: Bytes,
}

impl KuboStore {
    /// A client for the RPC at `api_url`, like `http://127.0.0.1:5001`. Does not connect.
    ///
    /// # Errors
    /// [`StoreError::BadUrl`].
    pub fn new(api_url: &str) -> Result<Self, StoreError> {
        Self::with_timeout(api_url, CALL_TIMEOUT)
    }

    /// The same with another longest wait for one call.
    ///
    /// # Errors
    /// [`StoreError::BadUrl`].
    pub fn with_timeout(api_url: &str, timeout: Duration) -> Result<Self, StoreError> {
        let base = base_uri(api_url)?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        // A connection kept over a restart of the daemon fails the next call, and a new one costs
        // little on one machine.
        let http = Client::builder().pool_max_idle_per_host(0).build(connector);
        // The daemon stops its own search when this client no longer waits for it.
        let options = GlobalOptions { offline: None, timeout: Some(timeout) };
        Ok(Self {
            url: format!(
                "{}://{}",
                base.scheme_str().unwrap_or("http"),
                base.authority().map_or("", |a| a.as_str())
            ),
            requests: BackendWithGlobalOptions::new(IpfsClient::build_with_base_uri(base), options),
            http,
            timeout,
        })
    }

    /// Address of the daemon.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends one request of `ipfs-api-backend-hyper` and reads at most `limit` bytes of its answer.
    async fn call<R: ApiRequest>(
        &self,
        request: R,
        form: Option<Form<'static>>,
        limit: usize,
    ) -> Result<Answer, StoreError> {
        let request = build(&self.requests, request, form).map_err(|error| StoreError::Daemon {
            message: format!("the request cannot be built: {error}"),
        })?;
        match tokio::time::timeout(self.timeout, self.exchange(request, limit)).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::Timeout { url: self.url.clone(), after: self.timeout }),
        }
    }

    async fn exchange(&self, request: Request<Body>, limit: usize) -> Result<Answer, StoreError> {
        let unreachable = |error: hyper_014::Error| StoreError::Unreachable {
            url: self.url.clone(),
            source: innermost(error),
        };
        let response = self.http.request(request).await.map_err(unreachable)?;
        let status = response.status();
        let mut stream = response.into_body();
        let mut body = BytesMut::new();
        while let Some(chunk) = stream.data().await {
            let chunk = chunk.map_err(unreachable)?;
            let bytes = body.len().saturating_add(chunk.len());
            if bytes > limit {
                return Err(StoreError::TooLarge { bytes, limit });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body: body.freeze() })
    }

    /// The error that an answer other than 200 stands for. `cid` is what the call was about.
    fn refusal(&self, answer: &Answer, cid: &str) -> StoreError {
        let message = match serde_json::from_slice::<ApiError>(&answer.body) {
            Ok(error) => error.message,
            Err(_) => {
                format!("status {}: {}", answer.status, String::from_utf8_lossy(&answer.body))
            }
        };
        let lower = message.to_lowercase();
        // Daemons tell these apart by their words alone: code and status are the same for all errors.
        if lower.contains("deadline exceeded") || lower.contains("timed out") {
            return StoreError::Timeout { url: self.url.clone(), after: self.timeout };
        }
        if lower.contains("could not find")
            || lower.contains("not found locally")
            || lower.contains("block was not found")
        {
            return StoreError::NotFound { cid: cid.to_owned() };
        }
        StoreError::Daemon { message: words(&message) }
    }

    async fn call_json<T: DeserializeOwned>(
        &self,
        request: impl ApiRequest,
        form: Option<Form<'static>>,
        cid: &str,
    ) -> Result<T, StoreError> {
        let answer = self.call(request, form, MAX_ANSWER_BYTES).await?;
        if answer.status != StatusCode::OK {
            return Err(self.refusal(&answer, cid));
        }
        serde_json::from_slice(&answer.body).map_err(|error| StoreError::Daemon {
            message: format!("its answer does not parse: {error}"),
        })
    }
}

#[async_trait]
impl ContentStore for KuboStore {
    async fn put(&self, bytes: Bytes) -> Result<B256, StoreError> {
        if bytes.len() > MAX_BLOCK_BYTES {
            return Err(StoreError::TooLarge { bytes: bytes.len(), limit: MAX_BLOCK_BYTES });
        }
        let digest = digest_of(&bytes);
        let cid = cid_of(digest).to_string();
        let size = bytes.len() as u64;
        let mut form = Form::default();
        form.add_reader("data", Cursor::new(bytes));
        let request = BlockPut {
            format: Some("raw"),
            mhtype: Some("sha2-256"),
            mhlen: None,
            pin: Some(true),
        };
        let put: BlockPutResponse = self.call_json(request, Some(form), &cid).await?;
        same_block(digest, &put.key)?;
        if put.size != size {
            return Err(StoreError::Daemon {
                message: format!("it took {} bytes of the {size} of {cid}", put.size),
            });
        }
        // Daemons that do not know `pin` of `block/put` ignore it in silence: this answer names the pin.
        let pinned: PinAddResponse = self
            .call_json(PinAdd { key: &cid, recursive: Some(true), progress: false }, None, &cid)
            .await?;
        match pinned.pins.first() {
            Some(key) => same_block(digest, key)?,
            None => {
                return Err(StoreError::Daemon {
                    message: format!("it did not confirm the pin of {cid}"),
                });
            }
        }
        Ok(digest)
    }

    async fn get(&self, digest: B256) -> Result<Bytes, StoreError> {
        let cid = cid_of(digest).to_string();
        let answer = self.call(BlockGet { hash: &cid }, None, MAX_BLOCK_BYTES).await?;
        if answer.status != StatusCode::OK {
            return Err(self.refusal(&answer, &cid));
        }
        let got = digest_of(&answer.body);
        if got != digest {
            return Err(StoreError::CidMismatch { asked: cid, got: cid_of(got).to_string() });
        }
        Ok(answer.body)
    }

    async fn is_pinned(&self, digest: B256) -> Result<bool, StoreError> {
        let cid = cid_of(digest).to_string();
        let answer =
            self.call(PinLs { key: Some(&cid), typ: Some("all") }, None, MAX_ANSWER_BYTES).await?;
        if answer.status != StatusCode::OK {
            return match self.refusal(&answer, &cid) {
                StoreError::NotFound { .. } => Ok(false),
                StoreError::Daemon { message } if message.contains("not pinned") => Ok(false),
                error => Err(error),
            };
        }
        // The base of the text is the daemon's choice: compare what it stands for.
        let pins: PinLsResponse = serde_json::from_slice(&answer.body).map_err(|error| {
            StoreError::Daemon { message: format!("its list of pins does not parse: {error}") }
        })?;
        Ok(pins.keys.keys().any(|key| same_block(digest, key).is_ok()))
    }

    async fn health(&self) -> Result<String, StoreError> {
        let version: VersionResponse = self.call_json(Version, None, "").await?;
        Ok(words(&version.version))
    }
}

/// Builds the request that the crate would send. Generic because the trait that builds it can be named
/// only as a part of `IpfsApi`.
fn build<B: IpfsApi, R: ApiRequest>(
    backend: &B,
    request: R,
    form: Option<Form<'static>>,
) -> Result<B::HttpRequest, B::Error> {
    backend.build_base_request(request, form)
}

/// The daemon named the block that was computed here.
fn same_block(digest: B256, key: &str) -> Result<(), StoreError> {
    let named = parse_cid(key).and_then(|cid| digest_from_cid(&cid));
    if named.is_ok_and(|named| named == digest) {
        return Ok(());
    }
    Err(StoreError::CidMismatch { asked: cid_of(digest).to_string(), got: words(key) })
}

/// A daemon's own words, as they may stand in a log or on a terminal.
fn words(text: &str) -> String {
    text.chars().take(MAX_MESSAGE_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Address that the crate puts its paths behind.
fn base_uri(url: &str) -> Result<Uri, StoreError> {
    // What stands before the host is a password.
    let shown = url.rsplit_once('@').map_or(url, |(_, host)| host);
    let bad = |reason| StoreError::BadUrl { url: shown.to_owned(), reason };
    let uri: Uri = url.trim().parse().map_err(|_| bad("it does not parse"))?;
    let mut parts = uri.into_parts();
    match &parts.scheme {
        Some(scheme) if *scheme == Scheme::HTTP => {}
        Some(scheme) if *scheme == Scheme::HTTPS => {
            return Err(bad("https is not supported, put a local proxy or tunnel before it"));
        }
        _ => return Err(bad("it does not start with http://")),
    }
    let authority = parts.authority.as_ref().ok_or_else(|| bad("it names no host"))?;
    if authority.as_str().contains('@') {
        return Err(bad("a user and password in it are not supported"));
    }
    let path = parts.path_and_query.as_ref().map_or("", PathAndQuery::as_str).trim_end_matches('/');
    if !path.is_empty() && path != "/api/v0" {
        return Err(bad("it has a path"));
    }
    parts.path_and_query = Some(PathAndQuery::from_static("/api/v0"));
    Uri::from_parts(parts).map_err(|_| bad("it does not parse"))
}

/// The cause at the bottom, such as "Connection refused": the layers above it say nothing more.
fn innermost(error: hyper_014::Error) -> Box<dyn Error + Send + Sync> {
    let mut cause: &dyn Error = &error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in [
            "http://127.0.0.1:5001",
            "http://localhost:5001/",
            "http://[::1]:5001/api/v0",
            " http://node:5001/api/v0/ ",
        ] {
            assert!(KuboStore::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:5001",
            "/ip4/127.0.0.1/tcp/5001",
            "https://node:5001",
            "ftp://node",
            "http://",
            "http://u:p@node:5001",
            "http://node:8080/ipfs",
            "http://no de",
        ] {
            assert!(matches!(KuboStore::new(bad), Err(StoreError::BadUrl { .. })), "{bad}");
        }
        let error = KuboStore::new("http://user:secret@node:5001").map(|_| ()).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
