//! The connection itself: connects, reads, writes, pings, and connects again.

use std::{sync::Arc, time::Duration};

use alloy::signers::local::PrivateKeySigner;
use assay_runtime::Health;
use assay_types::{
    B256,
    link::{FromMiner, MAX_FRAME_BYTES, PING_INTERVAL_S},
};
use futures::{SinkExt, StreamExt};
use tokio::{net::TcpStream, sync::mpsc, time::MissedTickBehavior};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{self, Message, protocol::WebSocketConfig},
};
use tokio_util::sync::CancellationToken;

use super::state::{Action, Identity, State};
use crate::{
    status::Stats,
    worker::{self, LinkRef, Outlets},
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
/// Frames besides those of running tasks that wait for a slow router, e.g. refusals of its offers. More,
/// and it is disconnected; the tasks go on.
const FRAME_BUFFER: usize = 1024;
/// Bytes of a task's frames that are written before the next task has its turn.
const TURN_BYTES: usize = 64 << 10;

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
    /// What routers come back for.
    pub outlets: Outlets,
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
        let connected = tokio::select! {
            () = stop.cancelled() => return "the miner stops".into(),
            connected = tokio::time::timeout(HANDSHAKE_TIMEOUT, connect(&self.url)) => connected,
        };
        let socket = match connected {
            Ok(Ok(socket)) => socket,
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
        if let Some(link) = &connection.link {
            link.close();
            *opened = true;
        }
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
        let interval = Duration::from_secs(PING_INTERVAL_S);
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut drained = false;
        let drain = self.parts.drain.clone();
        loop {
            let frames = tokio::select! {
                () = stop.cancelled() => {
                    self.say_the_rest(&mut socket, &mut outgoing).await;
                    return "the miner stops".into();
                }
                () = self.overrun.cancelled() => return "the router reads too slowly".into(),
                message = socket.next() => match message {
                    Some(Ok(message)) => self.read(message).await,
                    Some(Err(error)) => return format!("the connection broke: {error}"),
                    None => return "the router closed the connection".into(),
                },
                Some(frame) = outgoing.recv() => {
                    let mut frames = vec![frame];
                    while let Ok(frame) = outgoing.try_recv() {
                        frames.push(frame);
                    }
                    Ok(frames)
                }
                frames = next_of(self.link.as_ref()) => Ok(frames),
                _ = ticks.tick() => {
                    let actions = self.state.on_tick();
                    self.perform(actions).await
                }
                () = drain.cancelled(), if !drained && self.state.is_open() => {
                    drained = true;
                    Ok(vec![FromMiner::Drain])
                }
            };
            let written = match frames {
                Ok(frames) => write(&mut socket, frames).await,
                Err(reason) => {
                    let _ = tokio::time::timeout(CLOSE_TIMEOUT, socket.close(None)).await;
                    return reason;
                }
            };
            if let Err(reason) = written {
                return reason;
            }
        }
    }

    /// What is due when the miner stops, then goodbye.
    async fn say_the_rest(&self, socket: &mut Socket, outgoing: &mut mpsc::Receiver<FromMiner>) {
        let mut frames = Vec::new();
        while let Ok(frame) = outgoing.try_recv() {
            frames.push(frame);
        }
        let mut written = write(socket, frames).await;
        while written.is_ok()
            && let Some(link) = &self.link
            && let Some(outlet) = link.try_next()
        {
            written = write(socket, outlet.take(link, TURN_BYTES)).await;
        }
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, socket.close(None)).await;
    }

    /// What one message asks to be sent; an error ends the connection.
    async fn read(&mut self, message: Message) -> Result<Vec<FromMiner>, String> {
        self.state.heard();
        let text = match message {
            Message::Text(text) => text,
            // The library answers pings of the protocol itself.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(vec![]),
            Message::Close(_) => return Err("the router closed the connection".into()),
            Message::Binary(_) => {
                return Err("the router sent a binary message: frames are text".into());
            }
        };
        let actions = self.state.on_text(text.as_str());
        self.perform(actions).await
    }

    /// Does it; returns what is to be sent.
    async fn perform(&mut self, actions: Vec<Action>) -> Result<Vec<FromMiner>, String> {
        let mut frames = Vec::new();
        for action in actions {
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
                Action::Resume { task, seq } => {
                    if let Some(link) = self.link.clone()
                        && let Err((code, message)) = self.parts.outlets.resume(task, link, seq)
                    {
                        tracing::info!(url = %self.url, %task, seq, code, "a task is not resumed");
                        let (code, message) = (code.into(), message.into());
                        frames.push(FromMiner::Error { task: Some(task), code, message });
                    }
                }
                Action::Cancel { task, signed } => {
                    if let Some(link) = self.link.clone() {
                        self.tell(worker::Input::Cancel { task, signed, link }).await?;
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

/// Connects; small frames go out at once.
async fn connect(url: &str) -> Result<Socket, tungstenite::Error> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_FRAME_BYTES))
        .max_frame_size(Some(MAX_FRAME_BYTES));
    // Nagle's algorithm off: it costs 40 ms on the first token.
    let no_delay = true;
    let (socket, _) = connect_async_with_config(url, Some(config), no_delay).await?;
    Ok(socket)
}

/// Frames of the task whose turn it is; waits until there is one.
async fn next_of(link: Option<&LinkRef>) -> Vec<FromMiner> {
    match link {
        Some(link) => link.next().await.take(link, TURN_BYTES),
        None => std::future::pending().await,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_links_socket_does_not_wait_for_more_to_send() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/link", listener.local_addr().unwrap());
        let accepted = async {
            let (stream, _) = listener.accept().await.unwrap();
            tokio_tungstenite::accept_async(stream).await.unwrap()
        };
        let (socket, _router) = tokio::join!(connect(&url), accepted);
        match socket.unwrap().get_ref() {
            MaybeTlsStream::Plain(stream) => assert!(stream.nodelay().unwrap()),
            other => panic!("{other:?}"),
        }
    }
}
