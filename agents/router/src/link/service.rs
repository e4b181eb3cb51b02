//! Serves one miner's WebSocket: proves both keys, then does what [`Peer`] says.

use std::{collections::HashMap, sync::Arc, time::Duration};

use assay_types::{
    Address, B256, Cancellation, NodeId, Signed, SigningKey, TaskId,
    link::{
        DOMAIN_LINK_ROUTER, FromMiner, FromRouter, LINK_VERSION, PING_INTERVAL_S,
        SignedCancellation, challenge_hash, version_of,
    },
};
use axum::extract::ws::{Message, WebSocket};
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    sync::mpsc,
    task::yield_now,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    hub::{Client, Command, Cut, Hub, NewTask, Parted, Registered},
    state::{Action, Input, Peer, Scope, TaskEvent, check_version, hello_signer, node_gone},
};
use crate::{
    book::{db::Note, service::Ledger},
    clock::now_s,
    config::{HANDSHAKE_TIMEOUT, MAX_HELLO_BYTES, WRITE_QUEUE},
    ports::ChainPort,
};

/// A node's level is read anew after so many looks at its key: it changes with its answers, and then by little.
const LEVEL_EVERY: u32 = 12;
/// Time that one frame may take to be written: a miner that does not read is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What every connection needs.
pub struct LinkServer {
    /// Where nodes are entered.
    pub hub: Hub,
    /// What signatures are bound to.
    pub scope: Scope,
    /// The router's key.
    pub signer: SigningKey,
    /// Who operates a node.
    pub chain: Arc<dyn ChainPort>,
    /// Where receipts are kept.
    pub ledger: Ledger,
    /// How long tasks wait for a node whose connection dropped.
    pub resume_timeout: Duration,
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
        self.converse(sink, source, &proven, registered).await;
    }

    /// Keeps the tasks of a connection that is gone, until the node's next one takes them over or the time
    /// is over.
    async fn linger(&self, node: NodeId, connection: u64, tasks: Vec<Parted>, reason: &str) {
        let wait = !tasks.is_empty();
        let left = match self.hub.part(node, connection, tasks) {
            Ok(()) if wait => {
                tokio::select! {
                    () = sleep(self.resume_timeout) => {}
                    () = self.stop.cancelled() => {}
                }
                self.hub.give_up(node, connection)
            }
            Ok(()) => Vec::new(),
            Err(left) => left,
        };
        for client in left.into_iter().filter_map(|parted| parted.client) {
            let _ = client.events.try_send(node_gone(reason));
        }
    }

    async fn shake(&self, sink: &mut Sink, source: &mut Source) -> Result<Proven, Farewell> {
        let Scope { chain_id, queue, router } = self.scope;
        let nonce = B256::random();
        let challenge =
            FromRouter::Challenge { version: LINK_VERSION, chain_id, queue, router, nonce };
        write(sink, &challenge).await?;
        let text = first_text(source).await?;
        let refused = |(code, message)| farewell(code, message);
        if let Some(version) = version_of(&text) {
            check_version(version).map_err(refused)?;
        }
        let hello = serde_json::from_str(&text)
            .map_err(|error| farewell("bad_hello", format!("the hello cannot be read: {error}")))?;
        let FromMiner::Hello { version, node, signature, nonce: theirs, capacity } = hello else {
            return Err(farewell("bad_hello", "the first frame must be a hello"));
        };
        let signer =
            hello_signer(&self.scope, version, node, nonce, &signature).map_err(refused)?;
        match self.chain.operator_of(node).await {
            Ok(Some(operator)) if operator == signer => {}
            Ok(Some(_)) => {
                let message = format!(
                    "the hello is not signed by the operator of node {node}: check the node's id, and the key with which it was registered"
                );
                return Err(farewell("wrong_signature", message));
            }
            Ok(None) => {
                let message = format!(
                    "node {node} is not registered on chain {chain_id}, or was proven to lie: register another"
                );
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
        let signature = self.signer.sign_hash(&hash);
        write(sink, &FromRouter::Welcome { signature }).await?;
        Ok(Proven { node, operator: signer, capacity })
    }

    /// Talks until the connection ends, then keeps its tasks for the next one.
    async fn converse(&self, sink: Sink, source: Source, proven: &Proven, registered: Registered) {
        let (node, connection) = (proven.node, registered.connection);
        let (frames, queue) = mpsc::channel(WRITE_QUEUE);
        let mut desk = Desk {
            peer: Peer::new(self.scope, node, proven.operator),
            frames: Some(frames),
            clients: HashMap::new(),
            hub: self.hub.clone(),
            ledger: self.ledger.clone(),
            scope: self.scope,
            signer: self.signer.clone(),
            node,
            operator: proven.operator,
            connection,
        };
        let mut writing = std::pin::pin!(write_all(sink, queue));
        let ended = tokio::select! {
            end = self.read(&mut desk, source, registered) => Ok(end),
            end = &mut writing => Err(end),
        };
        let is_writing = ended.is_ok();
        let end = match ended {
            Ok(end) => end,
            Err(Ok(())) => farewell("closed", "the connection is closed"),
            Err(Err(end)) => end,
        };
        metrics::gauge!("assay_router_links", "agent" => "router").decrement(1.0);
        desk.goodbye(&end);
        let tasks = desk.leave(&end.message);
        let waiting = tasks.len();
        tracing::info!(%node, connection, code = end.code, reason = end.message, waiting, "miner disconnected");
        // What there is left to say is written meanwhile: it may take a while.
        let rest = async {
            if is_writing {
                let _ = writing.await;
            }
        };
        tokio::join!(self.linger(node, connection, tasks, &end.message), rest);
    }

    /// Ends once the key does not speak for the node any more: it left, has another one, or was proven to lie. A chain that
    /// does not answer says nothing about it.
    async fn dismissed(&self, node: NodeId, operator: Address) -> Farewell {
        let mut looks = 0_u32;
        loop {
            if looks.is_multiple_of(LEVEL_EVERY) {
                match self.chain.level_of(node).await {
                    Ok(level) => self.hub.set_level(node, level),
                    Err(error) => tracing::debug!(%node, %error, "a node's level cannot be read"),
                }
            }
            looks = looks.wrapping_add(1);
            sleep(Duration::from_secs(PING_INTERVAL_S)).await;
            match self.chain.operator_of(node).await {
                Ok(now) if now == Some(operator) => {}
                Ok(_) => {
                    return farewell("unknown_node", "the chain does not know this node any more");
                }
                Err(error) => tracing::debug!(%node, %error, "a node's operator cannot be read"),
            }
        }
    }

    /// Takes in frames, commands and time until the connection ends.
    async fn read(
        &self,
        desk: &mut Desk,
        mut source: Source,
        mut registered: Registered,
    ) -> Farewell {
        let mut dismissed = std::pin::pin!(self.dismissed(desk.node, desk.operator));
        let mut ticks = interval(Duration::from_secs(PING_INTERVAL_S));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        let mut drained = false;
        let adopted = desk.adopt(std::mem::take(&mut registered.parted));
        if let Err(end) = desk.take(adopted) {
            return end;
        }
        loop {
            // What is rare comes first, for it does not keep the rest waiting; what can wait comes last.
            let input = tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    return farewell("closed", "the router stops");
                }
                () = registered.replaced.cancelled() => return replaced(),
                end = &mut dismissed => return end,
                () = self.drain.cancelled(), if !drained => {
                    drained = true;
                    self.hub.drain(desk.node, desk.connection);
                    if let Some(frames) = &desk.frames {
                        let _ = frames.try_send(FromRouter::Drain);
                    }
                    continue;
                }
                _ = ticks.tick() => Input::Tick { now_s: now_s() },
                command = registered.commands.recv() => match command {
                    Some(Command::Offer(task)) => desk.admit(task),
                    Some(Command::Adopt(tasks)) => desk.adopt(tasks),
                    Some(Command::Cancel(task)) => desk.abandon(task),
                    Some(Command::Cut(cut)) => match desk.cut(cut) {
                        Some(input) => input,
                        None => continue,
                    },
                    // Only a newer connection takes this one's place in the hub.
                    None => return replaced(),
                },
                message = source.next() => match incoming(message) {
                    Ok(Some(frame)) => Input::Frame(frame),
                    Ok(None) => continue,
                    Err(end) => return end,
                },
                () = yield_now(), if desk.peer.has_unchecked() => Input::Idle,
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

/// Does the actions of one connection.
struct Desk {
    peer: Peer,
    /// `None` once nothing more is to be said.
    frames: Option<mpsc::Sender<FromRouter>>,
    clients: HashMap<TaskId, Client>,
    hub: Hub,
    ledger: Ledger,
    scope: Scope,
    signer: SigningKey,
    node: NodeId,
    operator: Address,
    connection: u64,
}

impl Desk {
    fn admit(&mut self, new: NewTask) -> Input {
        let client = Client { events: new.events, accepted: Some(new.accepted) };
        self.clients.insert(new.task, client);
        Input::Offer { task: new.task, offer: new.offer, top_logprobs: new.top_logprobs }
    }

    fn adopt(&mut self, tasks: Vec<Parted>) -> Input {
        let adopt = |Parted { stream, client }| {
            self.clients.extend(client.map(|client| (stream.task, client)));
            stream
        };
        Input::Adopt(tasks.into_iter().map(adopt).collect())
    }

    /// A task that is cancelled before the node took it is not submitted.
    fn abandon(&mut self, task: TaskId) -> Input {
        if let Some(client) = self.clients.get_mut(&task) {
            client.accepted = None;
        }
        Input::Cancel(task)
    }

    /// The holder of a task's lane ends it, if that is still possible.
    fn cut(&self, Cut { task, signed, heard }: Cut) -> Option<Input> {
        let checked = self.peer.may_cut(task, signed.tokens);
        let is_cut = checked.is_ok();
        let _ = heard.send(checked);
        is_cut.then_some(Input::Cut(task, signed))
    }

    fn take(&mut self, input: Input) -> Result<(), Farewell> {
        for action in self.peer.on(input) {
            match action {
                Action::Send(frame) => self.send(frame)?,
                Action::Cancel(task, tokens) => {
                    let signed = self.cancellation(task, tokens);
                    self.send(FromRouter::Cancel { task, signed })?;
                }
                Action::Tell(task, event) => self.tell(task, event),
                Action::Keep(task, receipt) => self.ledger.note(Note::Signed { task, receipt }),
                Action::Forget(task) => {
                    self.clients.remove(&task);
                    self.hub.release(self.node, self.connection);
                }
                Action::Draining => self.hub.drain(self.node, self.connection),
                Action::Close { code, message } => {
                    tracing::warn!(node = %self.node, code, reason = message, "the router closes a miner's connection");
                    metrics::counter!("assay_router_link_violations_total", "agent" => "router", "code" => code).increment(1);
                    return Err(farewell(code, message));
                }
            }
        }
        Ok(())
    }

    fn send(&self, frame: FromRouter) -> Result<(), Farewell> {
        let sent = self.frames.as_ref().map(|frames| frames.try_send(frame));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(farewell("slow_reader", "the node does not read what it is sent")),
        }
    }

    /// The word that so many tokens of a task in the router's own lane are paid. In the lane of another it says nothing.
    fn cancellation(&self, task: TaskId, tokens: u32) -> Option<SignedCancellation> {
        let Scope { chain_id, queue, .. } = self.scope;
        let hash = Cancellation::new(task, tokens).signing_hash(chain_id, queue);
        (tokens > 0).then(|| SignedCancellation { tokens, signature: self.signer.sign_hash(&hash) })
    }

    fn tell(&mut self, task: TaskId, event: TaskEvent) {
        let Some(client) = self.clients.get_mut(&task) else { return };
        let answer = match &event {
            TaskEvent::Accepted { .. } => Some(true),
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

    /// The miner is told why the connection ends.
    fn goodbye(&mut self, end: &Farewell) {
        let error =
            FromRouter::Error { task: None, code: end.code.into(), message: end.message.clone() };
        if let Some(frames) = self.frames.take() {
            let _ = frames.try_send(error);
        }
    }

    /// The tasks that the node may come back for.
    fn leave(mut self, reason: &str) -> Vec<Parted> {
        let (actions, streams) = self.peer.part(reason);
        for action in actions {
            match action {
                Action::Tell(task, event) => {
                    self.tell(task, event);
                    self.clients.remove(&task);
                }
                Action::Keep(task, receipt) => self.ledger.note(Note::Signed { task, receipt }),
                _ => {}
            }
        }
        let part = |stream: super::state::Stream| {
            let client = self.clients.remove(&stream.task);
            Parted { stream, client }
        };
        streams.into_iter().map(part).collect()
    }
}

async fn write(sink: &mut Sink, frame: &FromRouter) -> Result<(), Farewell> {
    write_frames(sink, std::slice::from_ref(frame)).await
}

/// Writes frames that wait together as one: each by itself is a call of the system.
async fn write_frames(sink: &mut Sink, frames: &[FromRouter]) -> Result<(), Farewell> {
    let texts = frames.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>();
    let texts = texts.map_err(|error| {
        farewell("internal_error", format!("a frame cannot be written: {error}"))
    })?;
    let writing = async {
        for text in texts {
            sink.feed(Message::Text(text.into())).await?;
        }
        sink.flush().await
    };
    match timeout(WRITE_TIMEOUT, writing).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(farewell("closed", format!("writing failed: {error}"))),
        Err(_) => Err(farewell("slow_reader", "the node does not read what it is sent")),
    }
}

/// Writes until the queue's sender is gone, then closes.
async fn write_all(mut sink: Sink, mut queue: mpsc::Receiver<FromRouter>) -> Result<(), Farewell> {
    let mut frames = Vec::with_capacity(WRITE_QUEUE);
    while queue.recv_many(&mut frames, WRITE_QUEUE).await > 0 {
        write_frames(&mut sink, &frames).await?;
        frames.clear();
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
