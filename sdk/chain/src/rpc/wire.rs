//! How bytes go to one endpoint and come back: bounded, and without keys in errors.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alloy::primitives::B256;
use alloy::pubsub::{ConnectionHandle, PubSubConnect, PubSubFrontend, RawSubscription};
use alloy::transports::http::reqwest;
use alloy::transports::ws::{WebSocketConfig, WsConnect};
use alloy::transports::{TransportError, TransportErrorKind, TransportResult};
use alloy_json_rpc::{Id, Request, RequestPacket, ResponsePacket, ResponsePayload, RpcSend};
use tokio::sync::Mutex;

/// Largest answer that is taken. A block full of logs is some 20 MiB of JSON.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// How much of a refusal's body is kept.
const MAX_ERROR_BYTES: usize = 300;
/// Longest time to make a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Ids of calls made here, apart from those of the RPC client, which counts from 0.
const FIRST_OWN_ID: u64 = 1 << 40;

static NEXT_OWN_ID: AtomicU64 = AtomicU64::new(FIRST_OWN_ID);

/// A call made here.
pub(super) fn own_call<P: RpcSend>(
    method: &'static str,
    params: P,
) -> TransportResult<RequestPacket> {
    let id = Id::Number(NEXT_OWN_ID.fetch_add(1, Ordering::Relaxed));
    let request = Request::new(method, id, params).serialize().map_err(TransportError::ser_err)?;
    Ok(RequestPacket::Single(request))
}

/// The result in the answer to [`own_call`].
pub(super) fn own_answer<T: serde::de::DeserializeOwned>(
    answer: &ResponsePacket,
) -> TransportResult<T> {
    match answer.first_payload() {
        Some(ResponsePayload::Success(value)) => serde_json::from_str(value.get())
            .map_err(|error| TransportError::deser_err(error, shorten(value.get()))),
        Some(ResponsePayload::Failure(error)) => Err(TransportError::ErrorResp(error.clone())),
        None => Err(TransportErrorKind::custom_str("an empty answer")),
    }
}

#[derive(Debug)]
pub(super) enum Wire {
    Http { client: reqwest::Client, url: reqwest::Url },
    Socket(Socket),
}

/// A WebSocket, made at the first call, and anew after it broke. The library's own way of connecting
/// again holds calls back meanwhile; here they fail at once and go to another endpoint.
#[derive(Debug)]
pub(super) struct Socket {
    url: String,
    connected: Mutex<Option<PubSubFrontend>>,
}

impl Wire {
    /// `None` if the text is no URL of a known scheme.
    pub(super) fn new(url: &str) -> Option<Self> {
        let parsed: reqwest::Url = url.parse().ok()?;
        parsed.host_str()?;
        match parsed.scheme() {
            "http" | "https" => {
                let client =
                    reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).build().ok()?;
                Some(Self::Http { client, url: parsed })
            }
            "ws" | "wss" => {
                Some(Self::Socket(Socket { url: url.into(), connected: Mutex::new(None) }))
            }
            _ => None,
        }
    }

    pub(super) async fn ask(&self, packet: RequestPacket) -> TransportResult<ResponsePacket> {
        match self {
            Self::Http { client, url } => post(client, url, &packet).await,
            Self::Socket(socket) => {
                match socket.frontend().await?.send_packet(packet.clone()).await {
                    // It may have been idle for long, and closed for that.
                    Err(TransportError::Transport(TransportErrorKind::BackendGone)) => {
                        socket.frontend().await?.send_packet(packet).await
                    }
                    other => other,
                }
            }
        }
    }

    /// Forgets a connection that did not answer, with whatever it still owes us.
    pub(super) async fn disconnect(&self) {
        if let Self::Socket(socket) = self {
            *socket.connected.lock().await = None;
        }
    }

    /// New heads; `None` without a WebSocket.
    pub(super) async fn heads(&self) -> TransportResult<Option<RawSubscription>> {
        let Self::Socket(socket) = self else { return Ok(None) };
        let frontend = socket.frontend().await?;
        let answer = frontend.send_packet(own_call("eth_subscribe", ("newHeads",))?).await?;
        frontend.get_subscription(own_answer::<B256>(&answer)?).await.map(Some)
    }
}

impl Socket {
    async fn frontend(&self) -> TransportResult<PubSubFrontend> {
        let mut connected = self.connected.lock().await;
        // A frontend whose service has ended takes no more calls.
        if let Some(frontend) = connected.as_ref().filter(|frontend| is_alive(frontend)) {
            return Ok(frontend.clone());
        }
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_ANSWER_BYTES))
            .max_frame_size(Some(MAX_ANSWER_BYTES));
        let connect = Once(WsConnect::new(&self.url).with_config(config));
        let frontend = match tokio::time::timeout(CONNECT_TIMEOUT, connect.into_service()).await {
            Ok(frontend) => frontend?,
            Err(_) => return Err(TransportErrorKind::custom_str("no connection in time")),
        };
        *connected = Some(frontend.clone());
        Ok(frontend)
    }
}

fn is_alive(frontend: &PubSubFrontend) -> bool {
    // Ready, or closed: it is never pending.
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let ready = tower::Service::poll_ready(&mut frontend.clone(), &mut context);
    matches!(ready, std::task::Poll::Ready(Ok(())))
}

/// Connects once; a connection that broke stays broken.
struct Once(WsConnect);

impl PubSubConnect for Once {
    fn is_local(&self) -> bool {
        self.0.is_local()
    }

    async fn connect(&self) -> TransportResult<ConnectionHandle> {
        self.0.connect().await
    }

    async fn try_reconnect(&self) -> TransportResult<ConnectionHandle> {
        Err(TransportErrorKind::non_retryable_str("the connection broke"))
    }
}

async fn post(
    client: &reqwest::Client,
    url: &reqwest::Url,
    packet: &RequestPacket,
) -> TransportResult<ResponsePacket> {
    // The client writes the whole URL into its errors, and with it the key that may be in there.
    let failed = |error: reqwest::Error| TransportErrorKind::custom(error.without_url());
    let answer = client.post(url.clone()).json(packet).send().await.map_err(failed)?;
    let status = answer.status();
    let retry_after = answer
        .headers()
        .get(reqwest::header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let body = bounded_body(answer).await?;
    let parsed = serde_json::from_slice::<ResponsePacket>(&body);
    match parsed {
        // Some nodes send a refusal of the call with a status of its own.
        Ok(answer) if status.is_success() || answer.is_error() && status.as_u16() != 429 => {
            Ok(answer)
        }
        Err(error) if status.is_success() => {
            Err(TransportError::deser_err(error, shorten(&String::from_utf8_lossy(&body))))
        }
        _ => Err(TransportErrorKind::http_error_with_retry_after(
            status.as_u16(),
            shorten(&String::from_utf8_lossy(&body)),
            retry_after,
        )),
    }
}

async fn bounded_body(mut answer: reqwest::Response) -> TransportResult<Vec<u8>> {
    let failed = |error: reqwest::Error| TransportErrorKind::custom(error.without_url());
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            let text = format!("an answer of more than {MAX_ANSWER_BYTES} bytes");
            return Err(TransportErrorKind::custom_str(&text));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn shorten(text: &str) -> String {
    text.chars().take(MAX_ERROR_BYTES).collect()
}
