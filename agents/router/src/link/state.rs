//! One proven connection: every frame of the miner is checked against what it was offered. No IO, no clock.

use std::collections::HashMap;

use assay_types::{
    Address, B256, NodeId, Signature, TaskId, TokenLogprobs,
    link::{
        DOMAIN_LINK_MINER, FromMiner, FromRouter, LINK_VERSION, MISSED_PINGS, Offer,
        SignedCancellation, challenge_hash,
    },
};

pub use super::stream::{Answer, NotCut, Scope, SignedReceipt, Stream};
use super::stream::{Said, Signer};

/// Seconds after its deadline until a task that nobody waits for is forgotten.
const FORGET_AFTER_S: u64 = 60;
/// Longest message of a miner that is passed on.
const MAX_MESSAGE_CHARS: usize = 500;
/// Longest code of a miner that is passed on.
const MAX_CODE_CHARS: usize = 40;

/// What a client's side learns of its task. The last one is `Done`, `Sealed`, `Cancelled`, `Declined` or `Failed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskEvent {
    /// The node serves it.
    Accepted {
        /// Tokens of the prompt.
        prompt_tokens: u32,
    },
    /// Tokens came.
    Tokens {
        /// How many.
        count: u32,
        /// Their text.
        text: String,
        /// One for each of them if the request asks for them, else none.
        logprobs: Vec<TokenLogprobs>,
    },
    /// The answer is complete.
    Done(Box<Answer>),
    /// The answer is complete; its commit will show it.
    Sealed,
    /// The lane's holder has ended it.
    Cancelled {
        /// Tokens that the holder pays for.
        tokens: u32,
    },
    /// The node does not serve it.
    Declined {
        /// Stable code.
        code: String,
        /// Why.
        message: String,
    },
    /// It ends without an answer.
    Failed {
        /// Stable code.
        code: String,
        /// Why.
        message: String,
    },
}

/// What happens to a connection.
#[derive(Debug)]
pub enum Input {
    /// The miner said something.
    Frame(FromMiner),
    /// Offer this.
    Offer {
        /// The task.
        task: TaskId,
        /// Its offer.
        offer: Box<Offer>,
        /// What its request block says of log probabilities.
        top_logprobs: Option<u32>,
    },
    /// Tasks of an earlier connection of the node go on here.
    Adopt(Vec<Stream>),
    /// Nobody waits for this task any more.
    Cancel(TaskId),
    /// The holder of its lane ends this task, which [`Peer::may_cut`] has allowed.
    Cut(TaskId, SignedCancellation),
    /// There is nothing else to do: a receipt's signature may be looked at.
    Idle,
    /// A ping interval has passed.
    Tick {
        /// Unix seconds.
        now_s: u64,
    },
}

/// What to do about it.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Write a frame.
    Send(FromRouter),
    /// Tell the node to stop: so many of its tokens are paid.
    Cancel(TaskId, u32),
    /// Tell the task's client.
    Tell(TaskId, TaskEvent),
    /// Keep it with the task: should the commit contradict it, it is evidence.
    Keep(TaskId, Box<SignedReceipt>),
    /// The node is free of this task.
    Forget(TaskId),
    /// The node takes no more tasks.
    Draining,
    /// Close the connection: an `Error` frame with this, then nothing.
    Close {
        /// Stable code.
        code: &'static str,
        /// What happened and what to do.
        message: String,
    },
}

/// A proven connection of one node.
#[derive(Debug)]
pub struct Peer {
    signer: Signer,
    streams: HashMap<TaskId, Stream>,
    silent: u32,
    pings: u64,
    closed: bool,
}

/// The connection cannot be trusted any more.
struct Violation {
    task: Option<TaskId>,
    message: String,
}

/// Who signed a `Hello`.
///
/// # Errors
/// A text for the miner.
pub fn hello_signer(
    scope: &Scope,
    version: u32,
    node: NodeId,
    nonce: B256,
    signature: &Signature,
) -> Result<Address, (&'static str, String)> {
    check_version(version)?;
    let Scope { chain_id, queue, router } = *scope;
    let hash = challenge_hash(DOMAIN_LINK_MINER, chain_id, queue, node, router, nonce);
    signature.recover_address_from_prehash(&hash).map_err(|error| {
        ("wrong_signature", format!("the signature of the hello cannot be recovered: {error}"))
    })
}

/// Whether a node speaks this version of the link.
///
/// # Errors
/// A text for the miner.
pub fn check_version(version: u32) -> Result<(), (&'static str, String)> {
    if version == LINK_VERSION {
        return Ok(());
    }
    Err((
        "wrong_version",
        format!(
            "the node speaks version {version} of the link, this router {LINK_VERSION}: update the older one"
        ),
    ))
}

/// What a client is told whose node does not come back.
pub fn node_gone(reason: &str) -> TaskEvent {
    let message = format!(
        "the node left before the answer was complete ({reason}): send the request again; what was held for this one comes back when its deadline passes, if the node does not commit an answer"
    );
    TaskEvent::Failed { code: "node_gone".into(), message }
}

impl Peer {
    /// A connection on which `operator` has proven to be the key of `node`.
    pub fn new(scope: Scope, node: NodeId, operator: Address) -> Self {
        let signer = Signer { scope, node, operator };
        Self { signer, streams: HashMap::new(), silent: 0, pings: 0, closed: false }
    }

    /// Takes in what happened.
    pub fn on(&mut self, input: Input) -> Vec<Action> {
        if self.closed {
            return Vec::new();
        }
        match input {
            Input::Frame(frame) => {
                self.silent = 0;
                self.frame(frame).unwrap_or_else(|violation| self.violated(violation))
            }
            Input::Offer { task, offer, top_logprobs } => {
                self.streams.insert(task, Stream::new(task, &offer, top_logprobs));
                vec![Action::Send(FromRouter::Offer(offer))]
            }
            Input::Adopt(streams) => streams.into_iter().flat_map(|s| self.adopt(s)).collect(),
            Input::Cancel(task) => self.cancel(task).into_iter().collect(),
            Input::Cut(task, signed) => self.cut(task, signed),
            Input::Idle => self.check_any().unwrap_or_else(|violation| self.violated(violation)),
            Input::Tick { now_s } => self.tick(now_s),
        }
    }

    /// The connection is gone: the tasks that the node may come back for. An offer that it had not answered
    /// fails, so that another node gets it; should this one come back, it is told to stop.
    pub fn part(&mut self, reason: &str) -> (Vec<Action>, Vec<Stream>) {
        self.closed = true;
        let mut actions = Vec::new();
        let streams: Vec<Stream> = self.streams.drain().map(|(_, stream)| stream).collect();
        let streams = streams.into_iter().map(|mut stream| {
            actions.extend(kept(&mut stream, &self.signer));
            if !stream.is_accepted() && !stream.muted {
                stream.muted = true;
                actions.push(Action::Tell(stream.task, node_gone(reason)));
            }
            stream
        });
        let streams = streams.collect();
        (actions, streams)
    }

    /// Whether a receipt's signature is still to be looked at: no token waits for that.
    pub fn has_unchecked(&self) -> bool {
        self.streams.values().any(Stream::is_unchecked)
    }

    fn check_any(&mut self) -> Result<Vec<Action>, Violation> {
        let unchecked = self.streams.values().find(|stream| stream.is_unchecked());
        unchecked.map(|stream| stream.task).map_or_else(|| Ok(Vec::new()), |task| self.check(task))
    }

    fn check(&mut self, task: TaskId) -> Result<Vec<Action>, Violation> {
        let by = self.signer;
        let Some(stream) = self.streams.get_mut(&task) else { return Ok(Vec::new()) };
        let signed = stream.check(&by).map_err(|message| violation(task, message))?;
        Ok(signed.into_iter().map(|signed| Action::Keep(task, Box::new(signed))).collect())
    }

    fn adopt(&mut self, mut stream: Stream) -> Vec<Action> {
        let task = stream.task;
        let mut actions = Vec::new();
        if !stream.muted && !stream.resume() {
            stream.muted = true;
            actions.push(Action::Tell(task, node_gone("it broke off too often")));
        }
        actions.push(match stream.muted {
            true => stop(&mut stream),
            false => Action::Send(FromRouter::Resume { task, seq: stream.count() }),
        });
        self.streams.insert(task, stream);
        actions
    }

    fn cancel(&mut self, task: TaskId) -> Option<Action> {
        let stream = self.streams.get_mut(&task).filter(|stream| !stream.muted)?;
        Some(stop(stream))
    }

    /// Whether the word of the lane's holder for so many tokens ends a task.
    ///
    /// # Errors
    /// If the task is over here, or these are not the tokens that came.
    pub fn may_cut(&self, task: TaskId, tokens: u32) -> Result<(), NotCut> {
        self.streams.get(&task).ok_or(NotCut::Over)?.may_cut(tokens)
    }

    fn cut(&mut self, task: TaskId, signed: SignedCancellation) -> Vec<Action> {
        let Some(stream) = self.streams.get_mut(&task).filter(|stream| !stream.muted) else {
            return Vec::new();
        };
        stream.cut(signed);
        let told = TaskEvent::Cancelled { tokens: signed.tokens };
        vec![stop(stream), Action::Tell(task, told)]
    }

    fn tick(&mut self, now_s: u64) -> Vec<Action> {
        self.silent += 1;
        if self.silent > MISSED_PINGS {
            let message = format!("the node was silent for {MISSED_PINGS} pings");
            return self.close("node_silent", message);
        }
        let over: Vec<TaskId> = self
            .streams
            .iter()
            .filter(|(_, s)| s.muted && s.deadline.saturating_add(FORGET_AFTER_S) < now_s)
            .map(|(task, _)| *task)
            .collect();
        let mut actions: Vec<Action> =
            over.into_iter().filter_map(|task| self.forget(task)).collect();
        self.pings += 1;
        actions.push(Action::Send(FromRouter::Ping { seq: self.pings }));
        actions
    }

    fn forget(&mut self, task: TaskId) -> Option<Action> {
        self.streams.remove(&task).map(|_| Action::Forget(task))
    }

    fn close(&mut self, code: &'static str, message: String) -> Vec<Action> {
        self.closed = true;
        vec![Action::Close { code, message }]
    }

    fn violated(&mut self, violation: Violation) -> Vec<Action> {
        let Violation { task, message } = violation;
        let mut actions = Vec::new();
        if let Some(task) = task
            && let Some(mut stream) = self.streams.remove(&task)
        {
            actions.extend(kept(&mut stream, &self.signer));
            if !stream.muted {
                let message =
                    format!("the node broke the protocol ({message}): send the request again");
                let event = TaskEvent::Failed { code: "node_violation".into(), message };
                actions.push(Action::Tell(task, event));
            }
            actions.push(Action::Forget(task));
        }
        actions.extend(self.close("violation", message));
        actions
    }

    fn frame(&mut self, frame: FromMiner) -> Result<Vec<Action>, Violation> {
        match frame {
            FromMiner::Accept { task, prompt_tokens } => {
                let stream = self.stream(task, "accept")?;
                stream.accept(prompt_tokens).map_err(|message| violation(task, message))?;
                Ok(tell(stream, TaskEvent::Accepted { prompt_tokens }))
            }
            FromMiner::Decline { task, code, message } => {
                let stream = self.stream(task, "decline")?;
                if stream.is_accepted() {
                    return Err(violation(task, "it declined a task that it had accepted"));
                }
                let (code, message) = short(&code, &message);
                Ok(self.last(task, TaskEvent::Declined { code, message }))
            }
            FromMiner::Token { task, seq, ids, text, logprobs } => {
                let stream = self.stream(task, "token")?;
                stream
                    .push(seq, &ids, &text)
                    .and_then(|()| stream.check_logprobs(ids.len(), &logprobs))
                    .map_err(|message| violation(task, message))?;
                let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
                Ok(tell(stream, TaskEvent::Tokens { count, text, logprobs }))
            }
            FromMiner::Receipt { task, seq, stream_hash, signature } => {
                let node = self.signer.node;
                let stream = self.stream(task, "receipt")?;
                stream
                    .sign((seq, stream_hash), signature, node)
                    .map_err(|message| violation(task, message))?;
                Ok(Vec::new())
            }
            FromMiner::Done {
                task,
                end_reason,
                prompt_tokens,
                output_tokens,
                output_digest,
                stream_hash,
            } => {
                let said =
                    Said { end_reason, prompt_tokens, output_tokens, output_digest, stream_hash };
                let mut actions = self.check(task)?;
                let stream = self.stream(task, "done")?;
                let answer = stream.done(&said).map_err(|message| violation(task, message))?;
                actions.extend(self.last(task, TaskEvent::Done(Box::new(answer))));
                Ok(actions)
            }
            FromMiner::Sealed { task } => {
                let stream = self.stream(task, "sealed")?;
                stream.seal().map_err(|message| violation(task, message))?;
                Ok(self.last(task, TaskEvent::Sealed))
            }
            // Of redundant tasks. A router may carry them; this one leaves it to the nodes, which send them themselves.
            FromMiner::Precommit { .. } | FromMiner::Opening { .. } => Ok(Vec::new()),
            FromMiner::Error { task: Some(task), code, message } => {
                // One that crossed a cancel or the end of its task says nothing new.
                if !self.streams.contains_key(&task) {
                    return Ok(Vec::new());
                }
                let (code, message) = short(&code, &message);
                Ok(self.last(task, TaskEvent::Failed { code, message }))
            }
            FromMiner::Error { task: None, code, message } => {
                let (code, message) = short(&code, &message);
                Ok(self.close("bye", format!("the node gave up: {code}: {message}")))
            }
            FromMiner::Drain => Ok(vec![Action::Draining]),
            FromMiner::Ping { seq } => Ok(vec![Action::Send(FromRouter::Pong { seq })]),
            FromMiner::Pong { .. } => Ok(Vec::new()),
            FromMiner::Hello { .. } => {
                Err(Violation { task: None, message: "a second hello came".into() })
            }
        }
    }

    fn stream(&mut self, task: TaskId, what: &str) -> Result<&mut Stream, Violation> {
        self.streams.get_mut(&task).ok_or_else(|| Violation {
            task: None,
            message: format!("a frame of type {what} came for the task {task}, which is not open on this connection"),
        })
    }

    fn last(&mut self, task: TaskId, event: TaskEvent) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(mut stream) = self.streams.remove(&task) {
            actions.extend(kept(&mut stream, &self.signer));
            actions.extend(tell(&stream, event));
        }
        actions.push(Action::Forget(task));
        actions
    }
}

/// Has the node stop: by the word of the lane's holder, if there is one.
fn stop(stream: &mut Stream) -> Action {
    let task = stream.task;
    match stream.cut {
        Some(signed) => Action::Send(FromRouter::Cancel { task, signed: Some(signed) }),
        None => Action::Cancel(task, stream.cancel()),
    }
}

/// The last receipt of a task that ends or parts, if nobody has looked at it and it is one.
fn kept(stream: &mut Stream, by: &Signer) -> Option<Action> {
    let signed = stream.check(by).ok().flatten()?;
    Some(Action::Keep(stream.task, Box::new(signed)))
}

fn tell(stream: &Stream, event: TaskEvent) -> Vec<Action> {
    if stream.muted { Vec::new() } else { vec![Action::Tell(stream.task, event)] }
}

fn violation(task: TaskId, message: impl Into<String>) -> Violation {
    Violation { task: Some(task), message: message.into() }
}

/// A miner's code and message, as far as they are passed on.
fn short(code: &str, message: &str) -> (String, String) {
    let cut = |text: &str, chars: usize| text.chars().take(chars).collect();
    (cut(code, MAX_CODE_CHARS), cut(message, MAX_MESSAGE_CHARS))
}

#[cfg(test)]
mod tests {
    use alloy::signers::{SignerSync, local::PrivateKeySigner};
    use assay_types::{Bytes, EndReason, Signed, StreamHash, TaskRequest, link::StreamReceipt};

    use proptest::prelude::*;

    use super::*;

    const TASK: TaskId = TaskId(B256::repeat_byte(4));

    fn scope() -> Scope {
        let (queue, router) = (Address::repeat_byte(1), Address::repeat_byte(2));
        Scope { chain_id: 31337, queue, router }
    }

    fn offer() -> Box<Offer> {
        let request = TaskRequest {
            sessionId: 1,
            lane: 1,
            nonce: 0,
            requestDigest: B256::ZERO,
            maxPrompt: 10,
            maxOutput: 100,
            deadline: 1000,
            nodeId: 1,
            ..Default::default()
        };
        let signature = Signature::test_signature();
        Box::new(Offer { request, signature, block: Bytes::new(), stream: true })
    }

    fn key() -> PrivateKeySigner {
        PrivateKeySigner::from_bytes(&B256::repeat_byte(9)).unwrap()
    }

    fn new_peer() -> Peer {
        Peer::new(scope(), NodeId(1), key().address())
    }

    fn peer_with_task() -> Peer {
        let mut peer = new_peer();
        let actions = peer.on(Input::Offer { task: TASK, offer: offer(), top_logprobs: None });
        assert!(matches!(actions.as_slice(), [Action::Send(FromRouter::Offer(_))]));
        peer
    }

    fn accept(peer: &mut Peer) {
        let frame = FromMiner::Accept { task: TASK, prompt_tokens: 3 };
        let actions = peer.on(Input::Frame(frame));
        assert_eq!(actions, [Action::Tell(TASK, TaskEvent::Accepted { prompt_tokens: 3 })]);
    }

    fn tokens(peer: &mut Peer, seq: u32, count: u32) -> Vec<Action> {
        let ids = (seq..seq + count).collect();
        peer.on(Input::Frame(FromMiner::Token {
            task: TASK,
            seq,
            ids,
            text: "x".into(),
            logprobs: vec![],
        }))
    }

    fn receipt_by(key: &PrivateKeySigner, node: u32, seq: u32) -> FromMiner {
        let ids: Vec<u32> = (0..seq).collect();
        let stream_hash = StreamHash::of(TASK, &ids);
        let receipt = StreamReceipt::new(TASK, NodeId(node), seq, stream_hash);
        let hash = receipt.signing_hash(31337, Address::repeat_byte(1));
        let signature = key.sign_hash_sync(&hash).unwrap();
        FromMiner::Receipt { task: TASK, seq, stream_hash, signature }
    }

    /// Streams `count` tokens with their receipts.
    fn stream(peer: &mut Peer, count: u32) {
        let mut seq = 0;
        while seq < count {
            let part = 32.min(count - seq);
            assert!(!closes(&tokens(peer, seq, part)));
            seq += part;
            assert!(peer.on(Input::Frame(receipt_by(&key(), 1, seq))).is_empty());
            let kept = peer.on(Input::Idle);
            assert!(matches!(kept[..], [Action::Keep(TASK, _)]), "{seq}: {kept:?}");
            assert!(!peer.has_unchecked(), "{seq}");
        }
    }

    fn closes(actions: &[Action]) -> bool {
        matches!(actions.last(), Some(Action::Close { .. }))
    }

    fn done(count: u32, end_reason: EndReason) -> Input {
        let ids: Vec<u32> = (0..count).collect();
        Input::Frame(FromMiner::Done {
            task: TASK,
            end_reason,
            prompt_tokens: 3,
            output_tokens: count,
            output_digest: B256::repeat_byte(6),
            stream_hash: StreamHash::of(TASK, &ids),
        })
    }

    #[test]
    fn an_answer_is_told_once_and_nothing_comes_after_it() {
        let mut peer = peer_with_task();
        accept(&mut peer);
        stream(&mut peer, 2);
        let actions = peer.on(done(2, EndReason::Eos));
        let [Action::Tell(TASK, TaskEvent::Done(answer)), Action::Forget(TASK)] = &actions[..]
        else {
            panic!("{actions:?}")
        };
        assert_eq!((answer.ids.as_slice(), answer.text.as_str()), (&[0, 1][..], "x"));
        assert!(closes(&tokens(&mut peer, 2, 1)), "a token after the end");
        assert!(tokens(&mut peer, 2, 1).is_empty(), "a closed connection does nothing");
    }

    #[test]
    fn a_silent_node_is_closed_and_its_unanswered_offer_fails() {
        let mut peer = peer_with_task();
        for _ in 0..MISSED_PINGS {
            let actions = peer.on(Input::Tick { now_s: 0 });
            assert!(matches!(actions.as_slice(), [Action::Send(FromRouter::Ping { .. })]));
        }
        peer.on(Input::Frame(FromMiner::Pong { seq: 1 }));
        for _ in 0..MISSED_PINGS {
            assert!(!closes(&peer.on(Input::Tick { now_s: 0 })));
        }
        assert!(closes(&peer.on(Input::Tick { now_s: 0 })));
        let (actions, streams) = peer.part("silent");
        let told = |a: &Action| matches!(a, Action::Tell(TASK, TaskEvent::Failed { .. }));
        assert!(actions.iter().any(told), "it was not accepted");
        // Should the node come back, it is told to stop.
        let cancel = Action::Cancel(TASK, 0);
        assert_eq!(new_peer().on(Input::Adopt(streams)), [cancel]);
    }

    #[test]
    fn an_accepted_task_goes_on_over_the_next_connection_where_it_was() {
        let mut peer = peer_with_task();
        accept(&mut peer);
        stream(&mut peer, 40);
        let (actions, streams) = peer.part("the cable was cut");
        assert!(actions.is_empty(), "nobody has to know");
        let mut peer = new_peer();
        let resume = Action::Send(FromRouter::Resume { task: TASK, seq: 40 });
        assert_eq!(peer.on(Input::Adopt(streams)), [resume]);
        // The receipt may have been on its way twice.
        assert!(peer.on(Input::Frame(receipt_by(&key(), 1, 40))).is_empty());
        assert!(!closes(&tokens(&mut peer, 40, 1)));
        peer.on(Input::Frame(receipt_by(&key(), 1, 41)));
        let actions = peer.on(done(41, EndReason::Eos));
        assert!(
            matches!(&actions[..], [_, Action::Tell(_, TaskEvent::Done(a)), _] if a.ids.len() == 41)
        );
    }

    #[test]
    fn a_gap_or_a_duplicate_after_a_resume_ends_the_task() {
        for seq in [0, 39, 41] {
            let mut peer = peer_with_task();
            accept(&mut peer);
            stream(&mut peer, 40);
            let (_, streams) = peer.part("x");
            let mut peer = new_peer();
            peer.on(Input::Adopt(streams));
            assert!(closes(&tokens(&mut peer, seq, 1)), "{seq}");
        }
    }

    #[test]
    fn a_task_does_not_resume_for_ever() {
        let mut peer = peer_with_task();
        accept(&mut peer);
        let mut resumed = 0;
        let failed = loop {
            let (_, streams) = peer.part("again");
            peer = new_peer();
            match &peer.on(Input::Adopt(streams))[..] {
                [Action::Send(FromRouter::Resume { .. })] => resumed += 1,
                [Action::Tell(TASK, event), Action::Cancel(TASK, _)] => {
                    break event.clone();
                }
                other => panic!("{other:?}"),
            }
            assert!(resumed < 100, "for ever");
        };
        assert_eq!(resumed, 16);
        assert!(matches!(failed, TaskEvent::Failed { code, .. } if code == "node_gone"));
    }

    #[test]
    fn a_cancelled_task_is_checked_but_not_told_and_forgotten_in_time() {
        let mut peer = peer_with_task();
        accept(&mut peer);
        assert!(!tokens(&mut peer, 0, 3).is_empty());
        let cancel = [Action::Cancel(TASK, 3)];
        assert_eq!(peer.on(Input::Cancel(TASK)), cancel);
        assert!(peer.on(Input::Cancel(TASK)).is_empty());
        // What was on its way is not paid, also if the node is told over another connection.
        assert!(tokens(&mut peer, 3, 1).is_empty());
        let (_, streams) = peer.part("x");
        let mut peer = new_peer();
        assert_eq!(peer.on(Input::Adopt(streams)), cancel);
        peer.on(Input::Frame(FromMiner::Pong { seq: 1 }));
        assert!(!peer.on(Input::Tick { now_s: 1060 }).contains(&Action::Forget(TASK)));
        assert!(peer.on(Input::Tick { now_s: 1061 }).contains(&Action::Forget(TASK)));
    }

    #[test]
    fn receipts_are_taken_when_they_are_due_and_from_their_node_alone() {
        let accepted = || {
            let mut peer = peer_with_task();
            accept(&mut peer);
            peer
        };
        let takes = |peer: &mut Peer, frame| {
            !closes(&peer.on(Input::Frame(frame))) && !closes(&peer.on(Input::Idle))
        };
        let mut peer = accepted();
        stream(&mut peer, 70);
        assert!(takes(&mut peer, receipt_by(&key(), 1, 70)), "a repetition");

        for (what, frame) in [
            ("too early", receipt_by(&key(), 1, 33)),
            ("replayed", receipt_by(&key(), 1, 31)),
            ("empty", receipt_by(&key(), 1, 0)),
            ("another key", receipt_by(&PrivateKeySigner::random(), 1, 32)),
            ("another node", receipt_by(&key(), 2, 32)),
        ] {
            let mut peer = accepted();
            tokens(&mut peer, 0, 32);
            assert!(!takes(&mut peer, frame), "{what}");
        }

        let mut peer = accepted();
        assert!(!closes(&tokens(&mut peer, 0, 32)));
        assert!(closes(&tokens(&mut peer, 32, 1)), "without its receipt");
        assert!(closes(&tokens(&mut accepted(), 0, 33)), "across a receipt");
        let mut peer = accepted();
        tokens(&mut peer, 0, 2);
        assert!(closes(&peer.on(done(2, EndReason::Eos))), "an end without a receipt");
    }

    #[test]
    fn no_token_waits_for_a_signature_and_no_answer_goes_without_one() {
        let sent = |key: &PrivateKeySigner| {
            let mut peer = peer_with_task();
            accept(&mut peer);
            tokens(&mut peer, 0, 32);
            assert!(peer.on(Input::Frame(receipt_by(key, 1, 32))).is_empty());
            assert!(!closes(&tokens(&mut peer, 32, 1)), "the next token is told at once");
            assert!(peer.has_unchecked());
            peer
        };
        let (honest, other) = (key(), PrivateKeySigner::random());
        let kept = |action: &Action, seq| matches!(action, Action::Keep(TASK, signed) if signed.receipt.seq == seq);

        // Whatever ends the task or the connection, what was signed is kept.
        assert!(kept(&sent(&honest).on(Input::Idle)[0], 32));
        assert!(kept(&sent(&honest).part("x").0[0], 32));
        assert!(kept(&tokens(&mut sent(&honest), 40, 1)[0], 32), "a violation");
        let (code, message) = ("engine".into(), "it broke".into());
        let error = FromMiner::Error { task: Some(TASK), code, message };
        assert!(kept(&sent(&honest).on(Input::Frame(error))[0], 32));
        // A later one covers it: there is one signature to look at.
        let mut peer = sent(&honest);
        assert!(peer.on(Input::Frame(receipt_by(&honest, 1, 33))).is_empty());
        let actions = peer.on(done(33, EndReason::Eos));
        assert!(kept(&actions[0], 33), "{actions:?}");
        assert!(
            matches!(&actions[1], Action::Tell(_, TaskEvent::Done(answer)) if answer.receipt.receipt.seq == 33)
        );

        assert!(closes(&sent(&other).on(Input::Idle)));
        let mut peer = sent(&other);
        assert!(peer.on(Input::Frame(receipt_by(&other, 1, 33))).is_empty());
        assert!(closes(&peer.on(done(33, EndReason::Eos))));
        let (actions, streams) = sent(&other).part("x");
        assert!(actions.is_empty(), "{actions:?}");
        let mut peer = new_peer();
        peer.on(Input::Adopt(streams));
        assert!(closes(&peer.on(Input::Idle)), "over the next connection");
    }

    #[test]
    fn a_closed_stream_ends_sealed_and_shows_nothing() {
        let closed = || {
            let (mut peer, mut offer) = (new_peer(), offer());
            offer.stream = false;
            peer.on(Input::Offer { task: TASK, offer, top_logprobs: None });
            peer
        };
        let sealed = || Input::Frame(FromMiner::Sealed { task: TASK });
        let mut peer = closed();
        accept(&mut peer);
        let told = [Action::Tell(TASK, TaskEvent::Sealed), Action::Forget(TASK)];
        assert_eq!(peer.on(sealed()), told);

        assert!(closes(&closed().on(sealed())), "before it was accepted");
        let frames = [
            FromMiner::Token {
                task: TASK,
                seq: 0,
                ids: vec![1],
                text: "x".into(),
                logprobs: vec![],
            },
            receipt_by(&key(), 1, 1),
        ];
        for frame in frames {
            let mut peer = closed();
            accept(&mut peer);
            assert!(closes(&peer.on(Input::Frame(frame.clone()))), "{frame:?}");
        }
        let mut peer = closed();
        accept(&mut peer);
        assert!(closes(&peer.on(done(1, EndReason::Eos))), "done shows its digest");
        let mut peer = peer_with_task();
        accept(&mut peer);
        assert!(closes(&peer.on(sealed())), "an open stream ends with done");
    }

    #[test]
    fn ends_that_cannot_be_are_violations() {
        for (count, reason) in [(2, EndReason::Max), (2, EndReason::Cancelled), (3, EndReason::Eos)]
        {
            let mut peer = peer_with_task();
            accept(&mut peer);
            stream(&mut peer, 2);
            assert!(closes(&peer.on(done(count, reason))), "{count} {reason:?}");
        }
        let mut peer = peer_with_task();
        accept(&mut peer);
        stream(&mut peer, 96);
        assert!(closes(&tokens(&mut peer, 96, 5)), "more than max_output");
    }

    #[test]
    fn the_word_of_the_lanes_holder_ends_a_task_with_hardly_less_than_was_sent() {
        let mut peer = peer_with_task();
        assert_eq!(peer.may_cut(TASK, 1), Err(NotCut::NotSent { sent: 0 }));
        accept(&mut peer);
        stream(&mut peer, 70);
        assert_eq!(peer.may_cut(TASK, 71), Err(NotCut::NotSent { sent: 70 }));
        assert_eq!(peer.may_cut(TASK, 37), Err(NotCut::TooLate { sent: 70 }));
        assert_eq!((peer.may_cut(TASK, 38), peer.may_cut(TASK, 70)), (Ok(()), Ok(())));
        assert_eq!(peer.may_cut(TaskId(B256::ZERO), 70), Err(NotCut::Over));

        let signed = SignedCancellation { tokens: 38, signature: Signature::test_signature() };
        let cancel = || Action::Send(FromRouter::Cancel { task: TASK, signed: Some(signed) });
        let told = Action::Tell(TASK, TaskEvent::Cancelled { tokens: 38 });
        assert_eq!(peer.on(Input::Cut(TASK, signed)), [cancel(), told]);
        assert_eq!(peer.may_cut(TASK, 38), Err(NotCut::Over), "once");
        assert!(peer.on(Input::Cut(TASK, signed)).is_empty());
        assert!(peer.on(Input::Cancel(TASK)).is_empty(), "the client that hears of it leaves");
        assert!(tokens(&mut peer, 70, 1).is_empty(), "it crossed the cancel");

        // Nobody knows whether the node has heard it.
        let (_, streams) = peer.part("x");
        let mut peer = new_peer();
        assert_eq!(peer.on(Input::Adopt(streams)), [cancel()]);
        let sealed = Input::Frame(FromMiner::Sealed { task: TASK });
        assert_eq!(peer.on(sealed), [Action::Forget(TASK)]);
        assert_eq!(peer.may_cut(TASK, 38), Err(NotCut::Over));
    }

    /// What may happen to a connection.
    #[derive(Clone, Debug)]
    enum Happening {
        Frame(Box<FromMiner>),
        Idle,
        /// It drops, and comes back.
        Drop,
        Cut(u32),
    }

    /// Frames that a router may get, most of them about its one task and nearly right.
    fn any_frame() -> impl Strategy<Value = FromMiner> {
        let task = prop_oneof![9 => Just(TASK), 1 => Just(TaskId(B256::ZERO))];
        let seq = prop_oneof![0_u32..4, Just(31), Just(32), Just(33), any::<u32>()];
        (task, seq, 0_u32..40, 0..9_usize).prop_map(|(task, seq, count, kind)| match kind {
            0 => FromMiner::Accept { task, prompt_tokens: 3 },
            1 => FromMiner::Sealed { task },
            2 => FromMiner::Decline { task, code: "busy".into(), message: "x".repeat(9000) },
            3 => FromMiner::Error { task: Some(task), code: "x".repeat(900), message: "no".into() },
            4 => receipt_by(&key(), 1, count),
            5 => FromMiner::Done {
                task,
                end_reason: EndReason::Eos,
                prompt_tokens: 3,
                output_tokens: count,
                output_digest: B256::ZERO,
                stream_hash: StreamHash::of(task, &(0..count).collect::<Vec<_>>()),
            },
            6 => FromMiner::Drain,
            7 => FromMiner::Pong { seq: seq.into() },
            _ => {
                let ids = (seq..seq.saturating_add(count)).collect();
                FromMiner::Token { task, seq, ids, text: "x".into(), logprobs: vec![] }
            }
        })
    }

    proptest! {
        #[test]
        fn whatever_a_node_says_its_client_hears_a_whole_prefix_and_one_end(
            happenings in prop::collection::vec(prop_oneof![
                16 => any_frame().prop_map(|frame| Happening::Frame(Box::new(frame))),
                4 => Just(Happening::Idle),
                4 => Just(Happening::Drop),
                1 => (1_u32..9).prop_map(Happening::Cut),
            ], 0..60),
        ) {
            let mut peer = peer_with_task();
            let (mut tokens, mut ends) = (0, 0);
            for happening in happenings {
                let actions = match happening {
                    Happening::Frame(frame) => peer.on(Input::Frame(*frame)),
                    Happening::Idle => peer.on(Input::Idle),
                    Happening::Cut(count) if peer.may_cut(TASK, count).is_err() => continue,
                    Happening::Cut(tokens) => {
                        let signature = Signature::test_signature();
                        peer.on(Input::Cut(TASK, SignedCancellation { tokens, signature }))
                    }
                    Happening::Drop => {
                        let (mut actions, streams) = peer.part("cut");
                        peer = new_peer();
                        actions.extend(peer.on(Input::Adopt(streams)));
                        actions
                    }
                };
                for action in actions {
                    let Action::Tell(_, event) = action else { continue };
                    prop_assert_eq!(ends, 0, "something comes after the end");
                    match event {
                        TaskEvent::Accepted { .. } => {}
                        TaskEvent::Tokens { count, .. } => tokens += count,
                        TaskEvent::Done(answer) => {
                            prop_assert_eq!(answer.ids, (0..tokens).collect::<Vec<_>>());
                            prop_assert_eq!(answer.receipt.receipt.seq, tokens);
                            ends += 1;
                        }
                        TaskEvent::Declined { message, .. } => {
                            prop_assert!(message.len() <= MAX_MESSAGE_CHARS);
                            ends += 1;
                        }
                        TaskEvent::Failed { code, .. } => {
                            prop_assert!(code.len() <= MAX_CODE_CHARS);
                            ends += 1;
                        }
                        TaskEvent::Cancelled { tokens: paid } => {
                            prop_assert!(paid <= tokens);
                            ends += 1;
                        }
                        TaskEvent::Sealed => prop_assert!(false, "the stream is open"),
                    }
                }
                prop_assert!(tokens <= 100, "more than max_output");
            }
        }
    }

    #[test]
    fn an_error_that_crosses_the_end_of_its_task_is_no_violation() {
        let error = |task| {
            let (code, message) = ("unknown_task".into(), "it does not run here".into());
            Input::Frame(FromMiner::Error { task: Some(task), code, message })
        };
        let mut peer = peer_with_task();
        accept(&mut peer);
        peer.on(Input::Cancel(TASK));
        assert_eq!(peer.on(error(TASK)), [Action::Forget(TASK)]);
        assert!(peer.on(error(TASK)).is_empty());
        assert_eq!(peer.on(Input::Frame(FromMiner::Drain)), [Action::Draining], "it is open");
    }

    #[test]
    fn a_violation_costs_its_own_task_alone() {
        let mut peer = peer_with_task();
        accept(&mut peer);
        let other = TaskId(B256::repeat_byte(5));
        peer.on(Input::Offer { task: other, offer: offer(), top_logprobs: None });
        peer.on(Input::Frame(FromMiner::Accept { task: other, prompt_tokens: 1 }));
        assert!(closes(&tokens(&mut peer, 1, 1)));
        let (_, streams) = peer.part("violation");
        let resume = Action::Send(FromRouter::Resume { task: other, seq: 0 });
        assert_eq!(new_peer().on(Input::Adopt(streams)), [resume]);
    }
}
