//! Serves one miner's WebSocket: proves both keys, then does what [`Peer`] says.

use std::{collections::HashMap, sync::Arc, time::Duration};

use alloy::signers::{SignerSync, local::PrivateKeySigner};
use assay_types::{
    Address, B256, NodeId, TaskId,
    link::{
        DOMAIN_LINK_ROUTER, FromMiner, FromRouter, LINK_VERSION, PING_INTERVAL_S, challenge_hash,
    },
};
use axum::extract::ws::{Message, WebSocket};
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    hub::{Command, Hub, Registered},
    state::{Action, Input, Peer, Scope, TaskEvent, hello_signer},
};
use crate::{
    clock::now_s,
    config::{HANDSHAKE_TIMEOUT, MAX_HELLO_BYTES, WRITE_QUEUE},
    ports::ChainPort,
};

/// Time that one frame may take to be written: a miner that does not read is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What every connection needs.
pub struct LinkServer {
    /// Where nodes are entered.
    pub hub: Hub,
    /// What signatures are bound to.
    pub scope: Scope,
    /// The router's key.
    pub signer: PrivateKeySigner,
    /// Who operates a node.
    pub chain: Arc<dyn ChainPort>,
    /// No new offers from now on.
    pub drain: CancellationToken,
    /// Connections end.
    pub stop: CancellationToken,
}

/// Why a connection ends.
#[derive(Debug)]
struct Farewell {
    code: &'static str,
    message: String,
}

fn farewell(code: &'static str, message: impl Into<String>) -> Farewell {
    Farewell { code, message: message.into() }
}

/// A miner whose key is proven.
struct Proven {
    node: NodeId,
    operator: Address,
    capacity: u32,
}

type Sink = SplitSink<WebSocket, Message>;
type Source = SplitStream<WebSocket>;

impl LinkServer {
    /// Serves one connection until it ends.
    pub async fn serve(&self, socket: WebSocket) {
        let (mut sink, mut source) = socket.split();
        let shaken = timeout(HANDSHAKE_TIMEOUT, self.shake(&mut sink, &mut source));
        let shaken = tokio::select! {
            shaken = shaken => shaken,
            () = self.stop.cancelled() => return,
        };
        let proven = match shaken {
            Ok(Ok(proven)) => proven,
            Ok(Err(end)) => return refuse(&mut sink, end).await,
            Err(_) => {
                let message = format!("no hello came within {} s", HANDSHAKE_TIMEOUT.as_secs());
                return refuse(&mut sink, farewell("handshake_timeout", message)).await;
            }
        };
        let node = proven.node;
        let registered = self.hub.register(node, proven.capacity);
        let connection = registered.connection;
        tracing::info!(%node, connection, capacity = proven.capacity, "miner connected");
        metrics::gauge!("assay_router_links", "agent" => "router").increment(1.0);
        let end = self.converse(sink, source, &proven, registered).await;
        self.hub.unregister(node, connection);
        metrics::gauge!("assay_router_links", "agent" => "router").decrement(1.0);
        tracing::info!(%node, connection, code = end.code, reason = end.message, "miner disconnected");
    }

    async fn shake(&self, sink: &mut Sink, source: &mut Source) -> Result<Proven, Farewell> {
        let Scope { chain_id, queue, router } = self.scope;
        let nonce = B256::random();
        let challenge =
            FromRouter::Challenge { version: LINK_VERSION, chain_id, queue, router, nonce };
        write(sink, &challenge).await?;
        let text = first_text(source).await?;
        let hello = serde_json::from_str(&text)
            .map_err(|error| farewell("bad_hello", format!("the hello cannot be read: {error}")))?;
        let FromMiner::Hello { version, node, signature, nonce: theirs, capacity } = hello else {
            return Err(farewell("bad_hello", "the first frame must be a hello"));
        };
        let signer = hello_signer(&self.scope, version, node, nonce, &signature)
            .map_err(|(code, message)| farewell(code, message))?;
        match self.chain.operator_of(node).await {
            Ok(Some(operator)) if operator == signer => {}
            Ok(Some(_)) => {
                let message = format!(
                    "the hello is not signed by the operator of node {node}: check the node's id, and the key with which it was registered"
                );
                return Err(farewell("wrong_signature", message));
            }
            Ok(None) => {
                let message =
                    format!("node {node} is not registered on chain {chain_id}: register it first");
                return Err(farewell("unknown_node", message));
            }
            Err(error) => {
                tracing::warn!(%node, %error, "a node's operator cannot be read from the chain");
                return Err(farewell(
                    "chain_unavailable",
                    "this router cannot reach its chain: try again",
                ));
            }
        }
        let hash = challenge_hash(DOMAIN_LINK_ROUTER, chain_id, queue, node, router, theirs);
        let signature = self.signer.sign_hash_sync(&hash).map_err(|error| {
            farewell("internal_error", format!("this router cannot sign: {error}"))
        })?;
        write(sink, &FromRouter::Welcome { signature }).await?;
        Ok(Proven { node, operator: signer, capacity })
    }

    async fn converse(
        &self,
        sink: Sink,
        source: Source,
        proven: &Proven,
        registered: Registered,
    ) -> Farewell {
        let (frames, queue) = mpsc::channel(WRITE_QUEUE);
        let desk = Desk {
            peer: Peer::new(self.scope, proven.operator),
            frames,
            clients: HashMap::new(),
            hub: self.hub.clone(),
            node: proven.node,
            connection: registered.connection,
        };
        // The reader ends first, its queue is then written to the end; or writing fails and ends both.
        let mut writing = std::pin::pin!(write_all(sink, queue));
        let reading = self.read(desk, source, registered);
        tokio::select! {
            end = reading => {
                let _ = writing.await;
                end
            }
            end = &mut writing => match end {
                Ok(()) => farewell("closed", "the connection is closed"),
                Err(end) => end,
            }
        }
    }

    /// Takes in frames, commands and time until the connection ends.
    async fn read(
        &self,
        mut desk: Desk,
        mut source: Source,
        mut registered: Registered,
    ) -> Farewell {
        let mut ticks = interval(Duration::from_secs(PING_INTERVAL_S));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        let mut drained = false;
        loop {
            let input = tokio::select! {
                message = source.next() => match incoming(message) {
                    Ok(Some(frame)) => Input::Frame(frame),
                    Ok(None) => continue,
                    Err(end) => return desk.end(end),
                },
                command = registered.commands.recv() => match command {
                    Some(Command::Offer(task)) => desk.admit(task),
                    Some(Command::Cancel(task)) => desk.abandon(task),
                    // Only a newer connection takes this one's place in the hub.
                    None => return desk.end(replaced()),
                },
                _ = ticks.tick() => Input::Tick { now_s: now_s() },
                () = registered.replaced.cancelled() => {
                    return desk.end(replaced());
                }
                () = self.drain.cancelled(), if !drained => {
                    drained = true;
                    self.hub.drain(desk.node, desk.connection);
                    let _ = desk.frames.try_send(FromRouter::Drain);
                    continue;
                }
                () = self.stop.cancelled() => {
                    return desk.end(farewell("closed", "the router stops"));
                }
            };
            if let Err(end) = desk.take(input) {
                return end;
            }
        }
    }
}

fn replaced() -> Farewell {
    farewell("replaced", "a newer connection of the same node is there")
}

/// A client that waits.
struct Client {
    events: mpsc::Sender<TaskEvent>,
    accepted: Option<oneshot::Sender<bool>>,
}

/// Does the actions of one connection.
struct Desk {
    peer: Peer,
    frames: mpsc::Sender<FromRouter>,
    clients: HashMap<TaskId, Client>,
    hub: Hub,
    node: NodeId,
    connection: u64,
}

impl Desk {
    fn admit(&mut self, new: super::hub::NewTask) -> Input {
        let client = Client { events: new.events, accepted: Some(new.accepted) };
        self.clients.insert(new.task, client);
        Input::Offer { task: new.task, offer: new.offer }
    }

    /// A task that is cancelled before the node took it is not submitted.
    fn abandon(&mut self, task: TaskId) -> Input {
        if let Some(client) = self.clients.get_mut(&task) {
            client.accepted = None;
        }
        Input::Cancel(task)
    }

    fn take(&mut self, input: Input) -> Result<(), Farewell> {
        for action in self.peer.on(input) {
            match action {
                Action::Send(frame) => {
                    if self.frames.try_send(frame).is_err() {
                        return Err(self.end(farewell(
                            "slow_reader",
                            "the node does not read what it is sent",
                        )));
                    }
                }
                Action::Tell(task, event) => self.tell(task, event),
                Action::Forget(task) => {
                    self.clients.remove(&task);
                    self.hub.release(self.node, self.connection);
                }
                Action::Draining => self.hub.drain(self.node, self.connection),
                Action::Close { code, message } => {
                    tracing::warn!(node = %self.node, code, reason = message, "the router closes a miner's connection");
                    metrics::counter!("assay_router_link_violations_total", "agent" => "router", "code" => code).increment(1);
                    let message = message.clone();
                    return Err(self.end(farewell(code, message)));
                }
            }
        }
        Ok(())
    }

    fn tell(&mut self, task: TaskId, event: TaskEvent) {
        let Some(client) = self.clients.get_mut(&task) else { return };
        let answer = match &event {
            TaskEvent::Accepted => Some(true),
            TaskEvent::Declined { .. } => Some(false),
            _ => None,
        };
        if let Some(answer) = answer
            && let Some(accepted) = client.accepted.take()
        {
            let _ = accepted.send(answer);
        }
        // The channel has room for every event of a task; a client that is gone has none.
        let _ = client.events.try_send(event);
    }

    /// The connection ends: its tasks fail, and the miner is told why.
    fn end(&mut self, end: Farewell) -> Farewell {
        for action in self.peer.on(Input::Ended { reason: end.message.clone() }) {
            if let Action::Tell(task, event) = action {
                self.tell(task, event);
            }
        }
        let error =
            FromRouter::Error { task: None, code: end.code.into(), message: end.message.clone() };
        let _ = self.frames.try_send(error);
        end
    }
}

async fn write(sink: &mut Sink, frame: &FromRouter) -> Result<(), Farewell> {
    let text = serde_json::to_string(frame).map_err(|error| {
        farewell("internal_error", format!("a frame cannot be written: {error}"))
    })?;
    match timeout(WRITE_TIMEOUT, sink.send(Message::Text(text.into()))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(farewell("closed", format!("writing failed: {error}"))),
        Err(_) => Err(farewell("slow_reader", "the node does not read what it is sent")),
    }
}

/// Writes until the queue's sender is gone, then closes.
async fn write_all(mut sink: Sink, mut queue: mpsc::Receiver<FromRouter>) -> Result<(), Farewell> {
    while let Some(frame) = queue.recv().await {
        write(&mut sink, &frame).await?;
    }
    let _ = timeout(WRITE_TIMEOUT, sink.close()).await;
    Ok(())
}

async fn refuse(sink: &mut Sink, end: Farewell) {
    tracing::warn!(code = end.code, reason = end.message, "a connection to the link is refused");
    metrics::counter!("assay_router_link_refusals_total", "agent" => "router", "code" => end.code)
        .increment(1);
    let error = FromRouter::Error { task: None, code: end.code.into(), message: end.message };
    if write(sink, &error).await.is_ok() {
        let _ = timeout(WRITE_TIMEOUT, sink.close()).await;
    }
}

async fn first_text(source: &mut Source) -> Result<String, Farewell> {
    loop {
        match source.next().await {
            Some(Ok(Message::Text(text))) if text.len() <= MAX_HELLO_BYTES => {
                return Ok(text.as_str().to_owned());
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(_)) => {
                let message =
                    format!("the first frame must be a hello of at most {MAX_HELLO_BYTES} bytes");
                return Err(farewell("bad_hello", message));
            }
            Some(Err(error)) => return Err(farewell("closed", format!("reading failed: {error}"))),
            None => return Err(farewell("closed", "the miner hung up")),
        }
    }
}

/// A frame, or nothing that matters.
fn incoming(message: Option<Result<Message, axum::Error>>) -> Result<Option<FromMiner>, Farewell> {
    match message {
        Some(Ok(Message::Text(text))) => match serde_json::from_str(text.as_str()) {
            Ok(frame) => Ok(Some(frame)),
            Err(error) => Err(farewell("bad_frame", format!("a frame cannot be read: {error}"))),
        },
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(None),
        Some(Ok(Message::Binary(_))) => Err(farewell("bad_frame", "frames are text")),
        Some(Ok(Message::Close(_))) | None => Err(farewell("closed", "the miner hung up")),
        Some(Err(error)) => Err(farewell("closed", format!("reading failed: {error}"))),
    }
}
