//! One proven connection: every frame of the miner is checked against what it was offered. No IO, no clock.

use std::collections::HashMap;

use assay_types::{
    Address, B256, EndReason, MAX_BLOCK_BYTES, NodeId, Signature, StreamHash, TaskId,
    link::{
        DOMAIN_LINK_MINER, FromMiner, FromRouter, LINK_VERSION, Offer, RECEIPT_EVERY_TOKENS,
        challenge_hash, receipt_hash,
    },
};

use crate::config::MISSED_PINGS;

/// Seconds after its deadline until a task that nobody waits for is forgotten.
const FORGET_AFTER_S: u64 = 60;
/// Frames without ids that one task may have: the text that was held back, and slack.
const EMPTY_FRAMES: u32 = 4;
/// Longest message of a miner that is passed on.
const MAX_MESSAGE_CHARS: usize = 500;
/// Longest code of a miner that is passed on.
const MAX_CODE_CHARS: usize = 40;

/// Chain and contract that signatures are bound to, and the router's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Address of `SessionQueue`.
    pub queue: Address,
    /// The router's key.
    pub router: Address,
}

/// What a client's side learns of its task. The last one is `Done`, `Declined` or `Failed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskEvent {
    /// The node serves it.
    Accepted,
    /// Tokens came.
    Tokens {
        /// How many.
        count: u32,
        /// Their text.
        text: String,
    },
    /// The answer is complete.
    Done(Box<Answer>),
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

/// What was streamed, and what the miner says that its result block has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// All ids.
    pub ids: Vec<u32>,
    /// The whole text.
    pub text: String,
    /// Why it ended.
    pub end_reason: EndReason,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// sha-256 of the result block.
    pub output_digest: B256,
    /// Recomputed from the ids.
    pub stream_hash: B256,
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
    },
    /// Nobody waits for this task any more.
    Cancel(TaskId),
    /// A ping interval has passed.
    Tick {
        /// Unix seconds.
        now_s: u64,
    },
    /// The connection is gone.
    Ended {
        /// Why.
        reason: String,
    },
}

/// What to do about it.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Write a frame.
    Send(FromRouter),
    /// Tell the task's client.
    Tell(TaskId, TaskEvent),
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

/// One task on the connection.
#[derive(Debug)]
struct Stream {
    max_prompt: u32,
    max_output: u32,
    deadline: u64,
    accepted: Option<u32>,
    ids: Vec<u32>,
    hash: StreamHash,
    /// Hash after every [`RECEIPT_EVERY_TOKENS`] tokens.
    marks: Vec<B256>,
    text: String,
    empty_frames: u32,
    /// The client is gone; frames are still checked and thrown away.
    muted: bool,
}

/// A proven connection of one node.
#[derive(Debug)]
pub struct Peer {
    scope: Scope,
    operator: Address,
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
    if version != LINK_VERSION {
        return Err((
            "wrong_version",
            format!(
                "the node speaks version {version} of the link, this router {LINK_VERSION}: update the older one"
            ),
        ));
    }
    let Scope { chain_id, queue, router } = *scope;
    let hash = challenge_hash(DOMAIN_LINK_MINER, chain_id, queue, node, router, nonce);
    signature.recover_address_from_prehash(&hash).map_err(|error| {
        ("wrong_signature", format!("the signature of the hello cannot be recovered: {error}"))
    })
}

impl Peer {
    /// A connection on which `operator` has proven its key.
    pub fn new(scope: Scope, operator: Address) -> Self {
        Self { scope, operator, streams: HashMap::new(), silent: 0, pings: 0, closed: false }
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
            Input::Offer { task, offer } => self.offer(task, offer),
            Input::Cancel(task) => match self.streams.get_mut(&task) {
                Some(stream) if !stream.muted => {
                    stream.muted = true;
                    vec![Action::Send(FromRouter::Cancel { task })]
                }
                _ => Vec::new(),
            },
            Input::Tick { now_s } => self.tick(now_s),
            Input::Ended { reason } => self.end("node_gone", &reason),
        }
    }

    fn offer(&mut self, task: TaskId, offer: Box<Offer>) -> Vec<Action> {
        let stream = Stream {
            max_prompt: offer.request.maxPrompt,
            max_output: offer.request.maxOutput,
            deadline: offer.request.deadline,
            accepted: None,
            ids: Vec::new(),
            hash: StreamHash::new(task),
            marks: Vec::new(),
            text: String::new(),
            empty_frames: 0,
            muted: false,
        };
        self.streams.insert(task, stream);
        vec![Action::Send(FromRouter::Offer(offer))]
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

    /// All tasks fail, and nothing more is taken in.
    fn end(&mut self, code: &str, reason: &str) -> Vec<Action> {
        self.closed = true;
        let message = format!(
            "the node left before the answer was complete ({reason}): send the request again; what was held for this one comes back when its deadline passes, if the node does not commit an answer"
        );
        let mut actions = Vec::new();
        for (task, stream) in self.streams.drain() {
            if !stream.muted {
                let event = TaskEvent::Failed { code: code.into(), message: message.clone() };
                actions.push(Action::Tell(task, event));
            }
            actions.push(Action::Forget(task));
        }
        actions
    }

    fn close(&mut self, code: &'static str, message: String) -> Vec<Action> {
        let mut actions = self.end("node_gone", &message);
        actions.push(Action::Close { code, message });
        actions
    }

    fn violated(&mut self, violation: Violation) -> Vec<Action> {
        let Violation { task, message } = violation;
        let mut actions = Vec::new();
        if let Some(task) = task
            && let Some(stream) = self.streams.remove(&task)
        {
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
            FromMiner::Accept { task, prompt_tokens } => self.accept(task, prompt_tokens),
            FromMiner::Decline { task, code, message } => {
                let stream = self.stream(task, "decline")?;
                if stream.accepted.is_some() {
                    return Err(violation(task, "it declined a task that it had accepted"));
                }
                let (code, message) =
                    (cut(&code, MAX_CODE_CHARS), cut(&message, MAX_MESSAGE_CHARS));
                Ok(self.last(task, TaskEvent::Declined { code, message }))
            }
            FromMiner::Token { task, seq, ids, text } => self.token(task, seq, &ids, text),
            FromMiner::Receipt { task, seq, stream_hash, signature } => {
                self.receipt(task, seq, stream_hash, &signature)
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
                self.done(task, said)
            }
            FromMiner::Error { task: Some(task), code, message } => {
                self.stream(task, "error")?;
                let (code, message) =
                    (cut(&code, MAX_CODE_CHARS), cut(&message, MAX_MESSAGE_CHARS));
                Ok(self.last(task, TaskEvent::Failed { code, message }))
            }
            FromMiner::Error { task: None, code, message } => {
                let said =
                    format!("{}: {}", cut(&code, MAX_CODE_CHARS), cut(&message, MAX_MESSAGE_CHARS));
                Ok(self.close("bye", format!("the node gave up: {said}")))
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
        let muted = self.streams.remove(&task).is_none_or(|s| s.muted);
        let tell = (!muted).then_some(Action::Tell(task, event));
        tell.into_iter().chain([Action::Forget(task)]).collect()
    }

    fn accept(&mut self, task: TaskId, prompt_tokens: u32) -> Result<Vec<Action>, Violation> {
        let stream = self.stream(task, "accept")?;
        if stream.accepted.replace(prompt_tokens).is_some() {
            return Err(violation(task, "it accepted twice"));
        }
        if prompt_tokens > stream.max_prompt {
            return Err(violation(task, "it accepted a prompt longer than the request allows"));
        }
        Ok(stream.tell(task, TaskEvent::Accepted))
    }

    fn token(
        &mut self,
        task: TaskId,
        seq: u32,
        ids: &[u32],
        text: String,
    ) -> Result<Vec<Action>, Violation> {
        let stream = self.stream(task, "token")?;
        stream.push(seq, ids, &text).map_err(|message| violation(task, message))?;
        let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        Ok(stream.tell(task, TaskEvent::Tokens { count, text }))
    }

    fn receipt(
        &mut self,
        task: TaskId,
        seq: u32,
        stream_hash: B256,
        signature: &Signature,
    ) -> Result<Vec<Action>, Violation> {
        let (operator, Scope { chain_id, queue, .. }) = (self.operator, self.scope);
        let stream = self.stream(task, "receipt")?;
        if stream.hash_at(seq) != Some(stream_hash) {
            return Err(violation(
                task,
                format!("its receipt for {seq} tokens does not match what it streamed"),
            ));
        }
        let hash = receipt_hash(chain_id, queue, task, seq, stream_hash);
        if signature.recover_address_from_prehash(&hash).ok() != Some(operator) {
            return Err(violation(task, "its receipt is not signed by the node's operator"));
        }
        Ok(Vec::new())
    }

    fn done(&mut self, task: TaskId, said: Said) -> Result<Vec<Action>, Violation> {
        let stream = self.stream(task, "done")?;
        said.check(stream).map_err(|message| violation(task, message))?;
        let answer = Answer {
            ids: std::mem::take(&mut stream.ids),
            text: std::mem::take(&mut stream.text),
            end_reason: said.end_reason,
            prompt_tokens: said.prompt_tokens,
            output_digest: said.output_digest,
            stream_hash: said.stream_hash,
        };
        Ok(self.last(task, TaskEvent::Done(Box::new(answer))))
    }
}

/// What a `Done` says.
struct Said {
    end_reason: EndReason,
    prompt_tokens: u32,
    output_tokens: u32,
    output_digest: B256,
    stream_hash: B256,
}

impl Said {
    fn check(&self, stream: &Stream) -> Result<(), String> {
        let count = stream.count();
        if stream.accepted != Some(self.prompt_tokens) {
            return Err(format!(
                "it ended with {} prompt tokens and accepted another number",
                self.prompt_tokens
            ));
        }
        if count == 0 || self.output_tokens != count {
            return Err(format!(
                "it ended with {} tokens and streamed {count}",
                self.output_tokens
            ));
        }
        if self.stream_hash != stream.hash.value() {
            return Err("its stream hash is not that of the tokens that it streamed".into());
        }
        match self.end_reason {
            EndReason::Max if count != stream.max_output => {
                Err(format!("it ended for length after {count} of {} tokens", stream.max_output))
            }
            EndReason::Cancelled if !stream.muted => {
                Err("it ended a task as cancelled that nobody cancelled".into())
            }
            _ => Ok(()),
        }
    }
}

impl Stream {
    fn count(&self) -> u32 {
        u32::try_from(self.ids.len()).unwrap_or(u32::MAX)
    }

    fn tell(&self, task: TaskId, event: TaskEvent) -> Vec<Action> {
        if self.muted { Vec::new() } else { vec![Action::Tell(task, event)] }
    }

    fn push(&mut self, seq: u32, ids: &[u32], text: &str) -> Result<(), String> {
        if self.accepted.is_none() {
            return Err("it streamed before it accepted".into());
        }
        if seq != self.count() {
            return Err(format!("token {} was due and {seq} came", self.count()));
        }
        if ids.is_empty() {
            self.empty_frames += 1;
            if self.empty_frames > EMPTY_FRAMES {
                return Err("it streams frames without tokens".into());
            }
        }
        if self.ids.len() + ids.len() > self.max_output as usize {
            return Err(format!("it streamed more than {} tokens", self.max_output));
        }
        if self.text.len() + text.len() > MAX_BLOCK_BYTES {
            return Err("it streamed more text than a result block holds".into());
        }
        for id in ids {
            self.ids.push(*id);
            self.hash.push(*id);
            if self.count().is_multiple_of(RECEIPT_EVERY_TOKENS) {
                self.marks.push(self.hash.value());
            }
        }
        self.text.push_str(text);
        Ok(())
    }

    /// The hash over the first `seq` tokens, where one is kept.
    fn hash_at(&self, seq: u32) -> Option<B256> {
        if seq == self.count() {
            return Some(self.hash.value());
        }
        let place = (seq / RECEIPT_EVERY_TOKENS).checked_sub(1)?;
        let kept = seq.is_multiple_of(RECEIPT_EVERY_TOKENS);
        self.marks.get(place as usize).copied().filter(|_| kept)
    }
}

fn violation(task: TaskId, message: impl Into<String>) -> Violation {
    Violation { task: Some(task), message: message.into() }
}

fn cut(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

#[cfg(test)]
mod tests {
    use alloy::signers::{SignerSync, local::PrivateKeySigner};
    use assay_types::{Bytes, TaskRequest};

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
            feeCap: 1,
            deadline: 1000,
            nodeId: 1,
        };
        Box::new(Offer { request, signature: Signature::test_signature(), block: Bytes::new() })
    }

    fn peer_with_task(operator: Address) -> Peer {
        let mut peer = Peer::new(scope(), operator);
        let actions = peer.on(Input::Offer { task: TASK, offer: offer() });
        assert!(matches!(actions.as_slice(), [Action::Send(FromRouter::Offer(_))]));
        peer
    }

    fn accept(peer: &mut Peer) {
        let frame = FromMiner::Accept { task: TASK, prompt_tokens: 3 };
        let actions = peer.on(Input::Frame(frame));
        assert_eq!(actions, [Action::Tell(TASK, TaskEvent::Accepted)]);
    }

    fn tokens(peer: &mut Peer, seq: u32, count: u32) -> Vec<Action> {
        let ids = (seq..seq + count).collect();
        peer.on(Input::Frame(FromMiner::Token { task: TASK, seq, ids, text: "x".into() }))
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
        let mut peer = peer_with_task(Address::ZERO);
        accept(&mut peer);
        tokens(&mut peer, 0, 2);
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
    fn a_silent_node_is_closed_and_its_task_fails() {
        let mut peer = peer_with_task(Address::ZERO);
        for _ in 0..MISSED_PINGS {
            let actions = peer.on(Input::Tick { now_s: 0 });
            assert!(matches!(actions.as_slice(), [Action::Send(FromRouter::Ping { .. })]));
        }
        peer.on(Input::Frame(FromMiner::Pong { seq: 1 }));
        for _ in 0..MISSED_PINGS {
            assert!(!closes(&peer.on(Input::Tick { now_s: 0 })));
        }
        let actions = peer.on(Input::Tick { now_s: 0 });
        assert!(closes(&actions));
        let told = |a: &Action| matches!(a, Action::Tell(TASK, TaskEvent::Failed { .. }));
        assert!(actions.iter().any(told) && actions.contains(&Action::Forget(TASK)));
    }

    #[test]
    fn a_cancelled_task_is_checked_but_not_told_and_forgotten_in_time() {
        let mut peer = peer_with_task(Address::ZERO);
        accept(&mut peer);
        let cancel = [Action::Send(FromRouter::Cancel { task: TASK })];
        assert_eq!(peer.on(Input::Cancel(TASK)), cancel);
        assert!(peer.on(Input::Cancel(TASK)).is_empty());
        assert!(tokens(&mut peer, 0, 1).is_empty());
        peer.on(Input::Frame(FromMiner::Pong { seq: 1 }));
        assert!(!peer.on(Input::Tick { now_s: 1060 }).contains(&Action::Forget(TASK)));
        assert!(peer.on(Input::Tick { now_s: 1061 }).contains(&Action::Forget(TASK)));
    }

    #[test]
    fn receipts_at_every_mark_are_taken_and_others_are_not() {
        let key = PrivateKeySigner::random();
        let mut peer = peer_with_task(key.address());
        accept(&mut peer);
        tokens(&mut peer, 0, 70);
        let receipt = |seq: u32| {
            let ids: Vec<u32> = (0..seq).collect();
            let stream_hash = StreamHash::of(TASK, &ids);
            let hash = receipt_hash(31337, Address::repeat_byte(1), TASK, seq, stream_hash);
            let signature = key.sign_hash_sync(&hash).unwrap();
            Input::Frame(FromMiner::Receipt { task: TASK, seq, stream_hash, signature })
        };
        for seq in [32, 64, 70] {
            assert!(peer.on(receipt(seq)).is_empty(), "{seq}");
        }
        assert!(closes(&peer.on(receipt(33))));
    }

    #[test]
    fn ends_that_cannot_be_are_violations() {
        for (count, reason) in [(2, EndReason::Max), (2, EndReason::Cancelled), (3, EndReason::Eos)]
        {
            let mut peer = peer_with_task(Address::ZERO);
            accept(&mut peer);
            tokens(&mut peer, 0, 2);
            assert!(closes(&peer.on(done(count, reason))), "{count} {reason:?}");
        }
        let mut peer = peer_with_task(Address::ZERO);
        accept(&mut peer);
        assert!(closes(&tokens(&mut peer, 0, 101)), "more than max_output");
    }
}
