//! The connection itself: connects, reads, writes, pings, and connects again.

use std::{sync::Arc, time::Duration};

use alloy::signers::local::PrivateKeySigner;
use assay_runtime::Health;
use assay_types::{
    B256,
    link::{FromMiner, MAX_FRAME_BYTES, PING_INTERVAL_S},
};
use futures::{SinkExt, StreamExt};
use tokio::{net::TcpStream, sync::mpsc, time::Instant};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};
use tokio_util::sync::CancellationToken;

use super::state::{Action, Identity, State};
use crate::{
    status::Stats,
    worker::{self, LinkRef},
};

/// First pause before connecting again; it doubles up to the longest.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
/// Longest pause: a router that comes back finds its miners within seconds.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// Longest time for connecting, and again for the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for one frame to get into the socket.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for saying goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer that is silent for this many pings is gone.
const MISSED_PINGS: u32 = 3;
/// Frames that wait for a slow router: some minutes of tokens of eight tasks. More, and it is
/// disconnected; the tasks go on.
const FRAME_BUFFER: usize = 8192;

/// Condition of readiness: linked to at least one router.
pub(crate) const LINKS: &str = "links";

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What all links share.
pub(crate) struct LinkParts {
    pub identity: Identity,
    pub operator: PrivateKeySigner,
    pub stats: Arc<Stats>,
    pub health: Health,
    pub worker: mpsc::Sender<worker::Input>,
    /// Cancelled when the node takes no more tasks.
    pub drain: CancellationToken,
}

/// The link to one router.
pub(crate) struct Link {
    pub url: String,
    pub parts: Arc<LinkParts>,
}

impl Link {
    /// Connects, and again, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let mut opened = false;
            let reason = self.connection(&mut opened, &stop).await;
            if stop.is_cancelled() {
                return;
            }
            if opened {
                backoff = FIRST_BACKOFF;
            }
            // Half to the whole: many miners of one router must not come back at once.
            let pause = backoff.mul_f64(rand::random_range(0.5..=1.0));
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
            let retry_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            if self.parts.drain.is_cancelled() {
                tracing::info!(url = %self.url, reason, "the link ended while the miner stops");
            } else {
                tracing::warn!(url = %self.url, reason, retry_in_ms, "no link to the router");
            }
            self.parts.stats.error(format!("{}: {reason}", self.url));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One connection; returns why it ended.
    async fn connection(&self, opened: &mut bool, stop: &CancellationToken) -> String {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_FRAME_BYTES))
            .max_frame_size(Some(MAX_FRAME_BYTES));
        // Nagle's algorithm off: it costs 40 ms on the first token.
        let connect = connect_async_with_config(self.url.as_str(), Some(config), true);
        let connected = tokio::select! {
            () = stop.cancelled() => return "the miner stops".into(),
            connected = tokio::time::timeout(HANDSHAKE_TIMEOUT, connect) => connected,
        };
        let socket = match connected {
            Ok(Ok((socket, _))) => socket,
            Ok(Err(error)) => {
                return format!("cannot connect: {error}; check that the router runs");
            }
            Err(_) => return format!("no connection within {} s", HANDSHAKE_TIMEOUT.as_secs()),
        };
        let (frames, outgoing) = mpsc::channel(FRAME_BUFFER);
        let parts = &self.parts;
        let mut connection = Connection {
            parts,
            url: &self.url,
            state: State::new(parts.identity, parts.operator.clone(), B256::new(rand::random())),
            frames,
            overrun: CancellationToken::new(),
            link: None,
        };
        let reason = connection.serve(socket, outgoing, stop).await;
        *opened = connection.link.is_some();
        if *opened && parts.stats.link_down() == 0 {
            parts.health.fail(LINKS, format!("no link to a router: {reason}"));
        }
        reason
    }
}

/// One connection in progress.
struct Connection<'a> {
    parts: &'a LinkParts,
    url: &'a str,
    state: State,
    frames: mpsc::Sender<FromMiner>,
    overrun: CancellationToken,
    /// Once both keys are proven.
    link: Option<LinkRef>,
}

impl Connection<'_> {
    async fn serve(
        &mut self,
        mut socket: Socket,
        mut outgoing: mpsc::Receiver<FromMiner>,
        stop: &CancellationToken,
    ) -> String {
        let started = Instant::now();
        let mut heard = started;
        let interval = Duration::from_secs(PING_INTERVAL_S);
        let mut ping = tokio::time::interval_at(started + interval, interval);
        let (mut seq, mut drained) = (0_u64, false);
        let drain = self.parts.drain.clone();
        loop {
            let written = tokio::select! {
                () = stop.cancelled() => {
                    let mut frames = Vec::new();
                    while let Ok(frame) = outgoing.try_recv() {
                        frames.push(frame);
                    }
                    let _ = write(&mut socket, frames).await;
                    let _ = tokio::time::timeout(CLOSE_TIMEOUT, socket.close(None)).await;
                    return "the miner stops".into();
                }
                () = self.overrun.cancelled() => return "the router reads too slowly".into(),
                message = socket.next() => match message {
                    Some(Ok(message)) => {
                        heard = Instant::now();
                        match self.read(message).await {
                            Ok(frames) => write(&mut socket, frames).await,
                            Err(reason) => {
                                let _ = tokio::time::timeout(CLOSE_TIMEOUT, socket.close(None)).await;
                                return reason;
                            }
                        }
                    }
                    Some(Err(error)) => return format!("the connection broke: {error}"),
                    None => return "the router closed the connection".into(),
                },
                Some(frame) = outgoing.recv() => {
                    let mut frames = vec![frame];
                    while let Ok(frame) = outgoing.try_recv() {
                        frames.push(frame);
                    }
                    write(&mut socket, frames).await
                }
                _ = ping.tick() => {
                    if heard.elapsed() >= interval * MISSED_PINGS {
                        return "the router does not answer".into();
                    }
                    if !self.state.is_open() && started.elapsed() >= HANDSHAKE_TIMEOUT {
                        return "the router did not finish the handshake".into();
                    }
                    seq = seq.wrapping_add(1);
                    let frames = if self.state.is_open() { vec![FromMiner::Ping { seq }] } else { vec![] };
                    write(&mut socket, frames).await
                }
                () = drain.cancelled(), if !drained && self.state.is_open() => {
                    drained = true;
                    write(&mut socket, vec![FromMiner::Drain]).await
                }
            };
            if let Err(reason) = written {
                return reason;
            }
        }
    }

    /// What one message asks to be sent; an error ends the connection.
    async fn read(&mut self, message: Message) -> Result<Vec<FromMiner>, String> {
        let text = match message {
            Message::Text(text) => text,
            // The library answers pings of the protocol itself.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(vec![]),
            Message::Close(_) => return Err("the router closed the connection".into()),
            Message::Binary(_) => {
                return Err("the router sent a binary message: frames are text".into());
            }
        };
        let mut frames = Vec::new();
        for action in self.state.on_text(text.as_str()) {
            match action {
                Action::Send(frame) => frames.push(frame),
                Action::Opened { router } => {
                    tracing::info!(url = %self.url, %router, "linked to the router");
                    self.parts.stats.link_up();
                    self.parts.health.satisfy(LINKS);
                    let (frames, overrun) = (self.frames.clone(), self.overrun.clone());
                    self.link = Some(LinkRef::new(router, frames, overrun));
                }
                Action::Offer { task, offer } => {
                    if let Some(link) = self.link.clone() {
                        self.tell(worker::Input::Offer { task, link, offer }).await?;
                    }
                }
                Action::Cancel { task } => {
                    if let Some(link) = self.link.clone() {
                        self.tell(worker::Input::Cancel { task, link }).await?;
                    }
                }
                Action::Note { code, message } => {
                    tracing::info!(url = %self.url, code, message, "the router says");
                }
                Action::Close { reason } => return Err(reason),
            }
        }
        Ok(frames)
    }

    async fn tell(&self, input: worker::Input) -> Result<(), String> {
        self.parts.worker.send(input).await.map_err(|_| "the miner stops".to_owned())
    }
}

/// Puts frames into the socket and flushes once.
async fn write(socket: &mut Socket, frames: Vec<FromMiner>) -> Result<(), String> {
    if frames.is_empty() {
        return Ok(());
    }
    let all = async {
        for frame in frames {
            let text = serde_json::to_string(&frame).map_err(|error| error.to_string())?;
            socket.feed(Message::text(text)).await.map_err(|error| error.to_string())?;
        }
        socket.flush().await.map_err(|error| error.to_string())
    };
    match tokio::time::timeout(WRITE_TIMEOUT, all).await {
        Ok(result) => result.map_err(|error| format!("the connection broke: {error}")),
        Err(_) => Err("the router does not read".into()),
    }
}
