//! `/v1/responses` as a WebSocket, as OpenAI words it: a client sends `response.create` events, and gets the
//! events of each response's stream as text messages, one response after the other.

use std::sync::Arc;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use serde_json::{Value, json};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    answer::Answering,
    error::ApiError,
    fields::{Fields, wrong},
    places::Places,
    responses,
    wording::{Order, Said},
};
use crate::{
    config::{Patience, SOCKET_FRAMES, SOCKET_WINDOW},
    keys::Caller,
    tasks::dispatch::Dispatcher,
};

/// Serves one client.
pub struct Socket {
    socket: WebSocket,
    dispatcher: Arc<Dispatcher>,
    places: Places,
    patience: Patience,
    stopping: CancellationToken,
    /// Who asks, where keys are asked for.
    caller: Option<Arc<Caller>>,
    /// Frames of the client since `counted`.
    frames: u32,
    counted: Instant,
}

/// Why a connection ends; `None` if the client ended it.
type Farewell = Option<(u16, &'static str)>;

impl Socket {
    /// A client that has just connected.
    pub fn new(
        socket: WebSocket,
        dispatcher: Arc<Dispatcher>,
        places: Places,
        caller: Option<Arc<Caller>>,
    ) -> Self {
        let (patience, stopping) = (dispatcher.config.patience, dispatcher.stopping.clone());
        let counted = Instant::now();
        Self { socket, dispatcher, places, patience, stopping, caller, frames: 0, counted }
    }

    /// Serves until either side ends it.
    pub async fn serve(mut self) {
        let farewell = loop {
            let text = match self.request().await {
                Ok(text) => text,
                Err(farewell) => break farewell,
            };
            if let Err(farewell) = self.respond(&text).await {
                break farewell;
            }
        };
        let Some((code, reason)) = farewell else { return };
        tracing::debug!(code, reason, "a client's WebSocket is closed");
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        let _ = timeout(self.patience.write, self.socket.send(close)).await;
    }

    /// The next text of the client, while nothing is answered.
    async fn request(&mut self) -> Result<String, Farewell> {
        loop {
            let until = Instant::now() + self.patience.socket;
            let frame = tokio::select! {
                frame = timeout_at(until, self.socket.recv()) => frame,
                () = key_ended(self.caller.as_deref()) => {
                    return Err(Some((close_code::POLICY, "the API key was revoked or has expired")));
                }
                () = self.stopping.cancelled() => {
                    return Err(Some((close_code::AWAY, "the router stops")));
                }
            };
            let Ok(frame) = frame else {
                return Err(Some((close_code::AWAY, "nothing came for too long")));
            };
            if let Some(text) = self.take(frame)? {
                return Ok(text);
            }
        }
    }

    /// A frame of the client; its text, if it has one.
    fn take(
        &mut self,
        frame: Option<Result<Message, axum::Error>>,
    ) -> Result<Option<String>, Farewell> {
        if self.counted.elapsed() > SOCKET_WINDOW {
            (self.frames, self.counted) = (0, Instant::now());
        }
        self.frames += 1;
        if self.frames > SOCKET_FRAMES {
            metrics::counter!("assay_router_socket_floods_total", "agent" => "router").increment(1);
            return Err(Some((close_code::POLICY, "too many frames: send them more slowly")));
        }
        match frame {
            Some(Ok(Message::Text(text))) => Ok(Some(text.as_str().to_owned())),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(None),
            Some(Ok(Message::Binary(_))) => {
                Err(Some((close_code::UNSUPPORTED, "events are JSON text")))
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => Err(None),
        }
    }

    /// Answers one event of the client.
    async fn respond(&mut self, text: &str) -> Result<(), Farewell> {
        let (mut answering, _place) =
            match begin(&self.dispatcher, &self.places, self.caller.as_ref(), text).await {
                Ok(begun) => begun,
                Err(error) => return self.send(error_event(&error)).await,
            };
        loop {
            tokio::select! {
                said = answering.next() => match said {
                    Some(Said { data, .. }) => self.send(data).await?,
                    None => return Ok(()),
                },
                frame = self.socket.recv() => if self.take(frame)?.is_some() {
                    let message = "a response is under way on this connection: wait for its end, or open another connection";
                    let error = ApiError::limited("response_in_progress", message, 1);
                    self.send(error_event(&error)).await?;
                },
            }
        }
    }

    async fn send(&mut self, text: String) -> Result<(), Farewell> {
        let sent = timeout(self.patience.write, self.socket.send(Message::Text(text.into())));
        match sent.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(None),
            Err(_) => Err(Some((close_code::POLICY, "the client does not read"))),
        }
    }
}

async fn begin(
    dispatcher: &Arc<Dispatcher>,
    places: &Places,
    caller: Option<&Arc<Caller>>,
    text: &str,
) -> Result<(Answering, OwnedSemaphorePermit), ApiError> {
    let mut order = order(text, dispatcher)?;
    let place = places.take(order.asks.len())?;
    order.bill = caller.map(|caller| caller.admit(&mut order.asks)).transpose()?;
    Ok((Answering::stream(dispatcher, order).await?, place))
}

async fn key_ended(caller: Option<&Caller>) {
    match caller {
        Some(caller) => drop(caller.ended().await),
        None => std::future::pending().await,
    }
}

fn order(text: &str, dispatcher: &Dispatcher) -> Result<Order, ApiError> {
    let mut fields = Fields::of_body(text.as_bytes())?;
    match fields.text("type")? {
        Some(kind) if kind == "response.create" => {}
        _ => {
            let message = "type must be \"response.create\": this connection takes no other events";
            return Err(wrong("type", message));
        }
    }
    // It is always streamed here.
    fields.only("stream", &[json!(true)])?;
    responses::read(&mut fields, &dispatcher.config)
}

fn error_event(error: &ApiError) -> String {
    let mut body: Value = error.body();
    body["type"] = json!("error");
    body["status"] = json!(error.status.as_u16());
    if let Some(after) = error.retry_after_s {
        body["error"]["headers"] = json!({"retry-after": after.to_string()});
    }
    body.to_string()
}
