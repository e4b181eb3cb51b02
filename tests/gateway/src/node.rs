//! Constant nodes of the router: they speak its link, and give the same answer at the same pace as the upstream.
//!
//! What they sign does not depend on the request, only on its task, whose ids are known in advance: so they can
//! sign ahead, and the measurement does not wait for their signatures.

use std::{
    collections::HashMap,
    fs::File,
    io::Write as _,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use alloy::{
    primitives::{Address, Signature},
    signers::local::PrivateKeySigner,
};
use anyhow::{Result, bail};
use assay_types::{
    B256, BLOCK_VERSION, EndReason, NodeId, Nonce, ResultBlock, SessionId, Signed, SigningKey,
    StreamHash, TaskId,
    link::{
        DOMAIN_LINK_MINER, FromMiner, FromRouter, LINK_VERSION, RECEIPT_EVERY_TOKENS,
        StreamReceipt, challenge_hash,
    },
    task_id,
};
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    net::{TcpStream, UnixStream},
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config, tungstenite::Message,
};
use tokio_util::sync::CancellationToken;

use crate::{
    answer::{PACE, WORD, WORDS},
    chain::{CHAIN_ID, LANE, SESSIONS, queue},
    report, store,
};

/// Name of the file, beside the store's socket, with the times at which nodes were told that a client is gone, unix
/// microseconds, one a line.
pub const CANCELS: &str = "cancels";
/// Most nodes of a session.
pub const MAX_NODES: u32 = 8;
/// Tasks that a node runs at once.
const CAPACITY: u32 = 32;
/// Tokens that every prompt has.
pub const PROMPT_TOKENS: u32 = 40;
/// Pause between two tries to connect.
const RETRY: Duration = Duration::from_millis(2);
/// Frames that wait to be written to the router.
const FRAMES: usize = 1024;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The key of all nodes.
const KEY: B256 = B256::repeat_byte(0x17);

/// Who operates all nodes.
///
/// # Errors
/// Never: the constant is a key.
pub fn operator() -> Result<Address> {
    Ok(PrivateKeySigner::from_bytes(&KEY)?.address())
}

/// What a node says at the end of a task.
#[derive(Clone)]
struct End {
    task: TaskId,
    stream_hash: B256,
    receipt: Signature,
    output_digest: B256,
    block: Vec<u8>,
    tokens: u32,
    reason: EndReason,
}

fn id(index: usize) -> u32 {
    index as u32 + 100
}

impl End {
    /// Of an answer of these words.
    fn new(key: &SigningKey, node: NodeId, task: TaskId, words: &[&str]) -> Result<Self> {
        let ids: Vec<u32> = (0..words.len()).map(id).collect();
        let stream_hash = StreamHash::of(task, &ids);
        let tokens = u32::try_from(ids.len())?;
        let receipt = receipt(key, node, task, (tokens, stream_hash))?;
        let reason = EndReason::Max;
        let block = ResultBlock {
            cancellation: None,
            end_reason: reason,
            stream_hash,
            ids,
            salt: B256::repeat_byte(3),
            text: words.concat(),
            version: BLOCK_VERSION,
        };
        let (block, output_digest) = block.encode()?;
        Ok(Self { task, stream_hash, receipt, output_digest, block, tokens, reason })
    }

    fn frames(&self) -> [FromMiner; 2] {
        let Self { task, stream_hash, output_digest, tokens, reason, .. } = *self;
        [
            FromMiner::Receipt { task, seq: tokens, stream_hash, signature: self.receipt },
            FromMiner::Done {
                task,
                end_reason: reason,
                prompt_tokens: PROMPT_TOKENS,
                output_tokens: tokens,
                output_digest,
                stream_hash,
            },
        ]
    }
}

fn receipt(
    key: &SigningKey,
    node: NodeId,
    task: TaskId,
    (seq, stream_hash): (u32, B256),
) -> Result<Signature> {
    let receipt = StreamReceipt::new(task, node, seq, stream_hash);
    Ok(key.sign_hash(&receipt.signing_hash(CHAIN_ID, queue())))
}

/// One node.
struct Node {
    id: NodeId,
    key: SigningKey,
    /// Whole answers that are signed already.
    ahead: HashMap<TaskId, End>,
}

impl Node {
    fn new(id: NodeId, ahead: u64) -> Result<Self> {
        let key = SigningKey::new(KEY)?;
        let mut ends = HashMap::new();
        for number in 0..ahead {
            let (session, nonce) = (SessionId(number % SESSIONS + 1), Nonce(number / SESSIONS));
            let task = task_id(queue(), session, LANE, nonce);
            ends.insert(task, End::new(&key, id, task, &WORDS)?);
        }
        Ok(Self { id, key, ahead: ends })
    }

    async fn shake(&self, socket: &mut Socket) -> Result<()> {
        let Some(FromRouter::Challenge { chain_id, queue, router, nonce, .. }) =
            next(socket).await?
        else {
            bail!("no challenge")
        };
        let hash = challenge_hash(DOMAIN_LINK_MINER, chain_id, queue, self.id, router, nonce);
        let hello = FromMiner::Hello {
            version: LINK_VERSION,
            node: self.id,
            signature: self.key.sign_hash(&hash),
            nonce: B256::repeat_byte(0x55),
            capacity: CAPACITY,
        };
        socket.send(text(&hello)?).await?;
        match next(socket).await? {
            Some(FromRouter::Welcome { .. }) => Ok(()),
            other => bail!("no welcome but {other:?}"),
        }
    }

    /// Serves offers until the connection ends.
    async fn serve(
        mut self,
        router: SocketAddr,
        mut blocks: UnixStream,
        mut cancels: File,
    ) -> Result<()> {
        let url = format!("ws://{router}/link");
        let (mut socket, _) = connect_async_with_config(url, None, true).await?;
        self.shake(&mut socket).await?;
        let (sink, mut source): (_, SplitStream<Socket>) = socket.split();
        let (frames, waiting) = mpsc::channel(FRAMES);
        let (ends, mut ended) = mpsc::channel::<End>(FRAMES);
        tokio::spawn(write(sink, waiting));
        let key = Arc::new(self.key.clone());
        let mut running: HashMap<TaskId, CancellationToken> = HashMap::new();
        loop {
            let frame = tokio::select! {
                frame = next(&mut source) => frame?,
                Some(end) = ended.recv() => {
                    running.remove(&end.task);
                    store::hand_over(&mut blocks, end.task, end.output_digest, &end.block).await?;
                    for frame in end.frames() {
                        frames.send(frame).await?;
                    }
                    continue;
                }
            };
            match frame {
                None => return Ok(()),
                Some(FromRouter::Ping { seq }) => frames.send(FromMiner::Pong { seq }).await?,
                Some(FromRouter::Offer(offer)) => {
                    let task = offer.request.task_id(queue());
                    let asked = offer.request.maxOutput as usize;
                    frames.send(FromMiner::Accept { task, prompt_tokens: PROMPT_TOKENS }).await?;
                    if asked > WORDS.len() {
                        let stop = CancellationToken::new();
                        running.insert(task, stop.clone());
                        let (key, node) = (key.clone(), self.id);
                        let paced = Paced { key, node, task, count: asked, stop };
                        tokio::spawn(paced.run(frames.clone(), ends.clone()));
                        continue;
                    }
                    let end = match self.ahead.remove(&task) {
                        Some(end) => end,
                        None => End::new(&self.key, self.id, task, &WORDS)?,
                    };
                    store::hand_over(&mut blocks, task, end.output_digest, &end.block).await?;
                    let ids = (0..WORDS.len()).map(id).collect();
                    frames
                        .send(FromMiner::Token {
                            task,
                            seq: 0,
                            ids,
                            text: WORDS.concat(),
                            logprobs: vec![],
                        })
                        .await?;
                    for frame in end.frames() {
                        frames.send(frame).await?;
                    }
                }
                Some(FromRouter::Cancel { task, .. }) => {
                    let at = SystemTime::now().duration_since(UNIX_EPOCH)?;
                    writeln!(cancels, "{}", at.as_micros())?;
                    if let Some(stop) = running.remove(&task) {
                        stop.cancel();
                        let (code, message) = ("cancelled".into(), String::new());
                        frames.send(FromMiner::Error { task: Some(task), code, message }).await?;
                    }
                }
                Some(_) => {}
            }
        }
    }
}

/// A stream at its pace. What it signs is signed ahead, at another token than in the streams beside it: real nodes share no
/// processor with each other, or with the router.
struct Paced {
    key: Arc<SigningKey>,
    node: NodeId,
    task: TaskId,
    count: usize,
    stop: CancellationToken,
}

/// What comes after some of a stream's tokens.
enum Ahead {
    Receipt(FromMiner),
    End(End),
}

impl Paced {
    async fn run(self, frames: mpsc::Sender<FromMiner>, ends: mpsc::Sender<End>) -> Result<()> {
        let every = RECEIPT_EVERY_TOKENS as usize;
        let mut ticks = interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for start in (0..self.count).step_by(every) {
            let end = self.count.min(start + every);
            let sign_at = start + usize::from(self.task.0[31]) % (end - start);
            let mut signed = None;
            for index in start..end {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = self.stop.cancelled() => return Ok(()),
                }
                let (task, seq) = (self.task, u32::try_from(index)?);
                let (ids, text, logprobs) = (vec![id(index)], WORD.into(), vec![]);
                frames.send(FromMiner::Token { task, seq, ids, text, logprobs }).await?;
                if index == sign_at {
                    signed = Some(self.sign(end)?);
                }
            }
            match signed {
                Some(Ahead::Receipt(receipt)) => frames.send(receipt).await?,
                Some(Ahead::End(end)) => ends.send(end).await?,
                None => {}
            }
        }
        Ok(())
    }

    /// For the first `tokens` tokens.
    fn sign(&self, tokens: usize) -> Result<Ahead> {
        let Self { key, node, task, count, .. } = self;
        if tokens == *count {
            return Ok(Ahead::End(End::new(key, *node, *task, &vec![WORD; tokens])?));
        }
        let ids: Vec<u32> = (0..tokens).map(id).collect();
        let (seq, stream_hash) = (u32::try_from(tokens)?, StreamHash::of(*task, &ids));
        let signature = receipt(key, *node, *task, (seq, stream_hash))?;
        let task = *task;
        Ok(Ahead::Receipt(FromMiner::Receipt { task, seq, stream_hash, signature }))
    }
}

fn text(frame: &FromMiner) -> Result<Message> {
    Ok(Message::Text(serde_json::to_string(frame)?.into()))
}

/// Writes what there is, and flushes once.
async fn write(
    mut sink: SplitSink<Socket, Message>,
    mut queue: mpsc::Receiver<FromMiner>,
) -> Result<()> {
    while let Some(frame) = queue.recv().await {
        sink.feed(text(&frame)?).await?;
        while let Ok(frame) = queue.try_recv() {
            sink.feed(text(&frame)?).await?;
        }
        sink.flush().await?;
    }
    Ok(())
}

/// The next frame; `None` when the router has closed.
async fn next<S>(source: &mut S) -> Result<Option<FromRouter>>
where
    S: StreamExt<Item = tokio_tungstenite::tungstenite::Result<Message>> + Unpin,
{
    loop {
        match source.next().await {
            Some(Ok(Message::Text(text))) => return Ok(Some(serde_json::from_str(&text)?)),
            Some(Ok(Message::Close(_))) | None => return Ok(None),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
        }
    }
}

/// Serves as `nodes` nodes until it is killed. Each has signed its part of `ahead` answers before it connects.
///
/// # Errors
/// If an answer cannot be signed.
pub fn serve(router: SocketAddr, blocks: &Path, (nodes, ahead): (u32, u64)) -> Result<()> {
    let nodes: Vec<Node> =
        (1..=nodes).map(|id| Node::new(NodeId(id), ahead)).collect::<Result<_>>()?;
    report::show("ready");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let serving = nodes.into_iter().map(|node| async {
            let socket = loop {
                match store::connect(blocks).await {
                    Ok(socket) if TcpStream::connect(router).await.is_ok() => break socket,
                    _ => sleep(RETRY).await,
                }
            };
            let path = blocks.with_file_name(CANCELS);
            let cancels = File::options().append(true).create(true).open(path)?;
            node.serve(router, socket, cancels).await
        });
        for served in futures::future::join_all(serving).await {
            served?;
        }
        Ok(())
    })
}
