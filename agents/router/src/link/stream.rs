//! One task on a connection: what the miner says of it is checked against its offer. It outlives the
//! connection, so that the miner can go on where it was.

use assay_types::{
    Address, B256, EndReason, MAX_BLOCK_BYTES, NodeId, Signature, Signed, StreamHash, TaskId,
    TokenLogprobs,
    link::{CANCEL_SLACK_TOKENS, Offer, RECEIPT_EVERY_TOKENS, SignedCancellation, StreamReceipt},
};

/// Frames without ids that one task may have: the text that was held back, and slack.
const EMPTY_FRAMES: u32 = 4;
/// How often one task may go on over a new connection: a poor line has less, and a node that breaks off
/// again and again ends.
const MAX_RESUMES: u32 = 16;

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
    /// The node's signature over all ids.
    pub receipt: SignedReceipt,
}

/// Why the word of a lane's holder does not end a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCut {
    /// It is not under way any more.
    Over,
    /// It is for more tokens than the node has sent.
    NotSent {
        /// Tokens that came.
        sent: u32,
    },
    /// It leaves out more tokens than the node gives away: it would go on, and be paid whole.
    TooLate {
        /// Tokens that came.
        sent: u32,
    },
}

/// A node's receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedReceipt {
    /// What it says.
    pub receipt: StreamReceipt,
    /// By the node's operator.
    pub signature: Signature,
}

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

/// Whose receipts are taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signer {
    pub scope: Scope,
    pub node: NodeId,
    pub operator: Address,
}

/// One task. An error text of its methods means that the node broke the protocol.
#[derive(Debug)]
pub struct Stream {
    pub(super) task: TaskId,
    pub(super) deadline: u64,
    /// The client is gone; frames are still checked and thrown away.
    pub(super) muted: bool,
    /// Tokens that had come when it was cancelled, and are paid.
    cancelled_at: Option<u32>,
    /// The word of the lane's holder, if it has ended it.
    pub(super) cut: Option<SignedCancellation>,
    max_prompt: u32,
    max_output: u32,
    /// Whether the offer asks for tokens.
    open: bool,
    /// Log probabilities that the request asks for: so many alternatives at each position.
    top_logprobs: Option<u32>,
    accepted: Option<u32>,
    ids: Vec<u32>,
    hash: StreamHash,
    /// The newest: it covers the earlier ones.
    receipt: Option<SignedReceipt>,
    /// Whether its signature has been looked at.
    is_checked: bool,
    text: String,
    empty_frames: u32,
    resumes: u32,
}

impl Stream {
    pub(super) fn new(task: TaskId, offer: &Offer, top_logprobs: Option<u32>) -> Self {
        Self {
            task,
            deadline: offer.request.deadline,
            muted: false,
            cancelled_at: None,
            cut: None,
            max_prompt: offer.request.maxPrompt,
            max_output: offer.request.maxOutput,
            open: offer.stream,
            top_logprobs,
            accepted: None,
            ids: Vec::new(),
            hash: StreamHash::new(task),
            receipt: None,
            is_checked: true,
            text: String::new(),
            empty_frames: 0,
            resumes: 0,
        }
    }

    pub(super) fn is_accepted(&self) -> bool {
        self.accepted.is_some()
    }

    /// Tokens that came.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.ids.len()).unwrap_or(u32::MAX)
    }

    /// Nobody wants more of it; the tokens that had come by then.
    pub(super) fn cancel(&mut self) -> u32 {
        self.muted = true;
        let count = self.count();
        *self.cancelled_at.get_or_insert(count)
    }

    /// Whether the word of the lane's holder for so many tokens ends it: the node has sent them, and hardly more.
    pub(super) fn may_cut(&self, tokens: u32) -> Result<(), NotCut> {
        let sent = self.count();
        if self.muted {
            return Err(NotCut::Over);
        }
        if tokens > sent {
            return Err(NotCut::NotSent { sent });
        }
        if sent - tokens > CANCEL_SLACK_TOKENS {
            return Err(NotCut::TooLate { sent });
        }
        Ok(())
    }

    /// The lane's holder has ended it.
    pub(super) fn cut(&mut self, signed: SignedCancellation) {
        self.muted = true;
        self.cut = Some(signed);
    }

    /// Whether it may go on over another connection; counts it.
    pub(super) fn resume(&mut self) -> bool {
        self.resumes += 1;
        self.resumes <= MAX_RESUMES
    }

    pub(super) fn accept(&mut self, prompt_tokens: u32) -> Result<(), String> {
        if self.accepted.replace(prompt_tokens).is_some() {
            return Err("it accepted twice".into());
        }
        if prompt_tokens > self.max_prompt {
            return Err("it accepted a prompt longer than the request allows".into());
        }
        Ok(())
    }

    pub(super) fn push(&mut self, seq: u32, ids: &[u32], text: &str) -> Result<(), String> {
        if !self.open {
            return Err("it streamed a task whose stream is closed".into());
        }
        if self.accepted.is_none() {
            return Err("it streamed before it accepted".into());
        }
        let count = self.count();
        if seq != count {
            return Err(format!("token {count} was due and {seq} came"));
        }
        if count.is_multiple_of(RECEIPT_EVERY_TOKENS) && count > 0 && !self.is_signed() {
            return Err(format!("it went on without its receipt for {count} tokens"));
        }
        if ids.is_empty() {
            self.empty_frames += 1;
            if self.empty_frames > EMPTY_FRAMES {
                return Err("it streams frames without tokens".into());
            }
        }
        let room = RECEIPT_EVERY_TOKENS - count % RECEIPT_EVERY_TOKENS;
        if ids.len() > room as usize {
            return Err(format!("a frame of {} tokens came where {room} fit", ids.len()));
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
        }
        self.text.push_str(text);
        Ok(())
    }

    /// What was asked for must come with each token, and nothing else; whether it is true is not looked at.
    pub(super) fn check_logprobs(
        &self,
        tokens: usize,
        logprobs: &[TokenLogprobs],
    ) -> Result<(), String> {
        let wanted = if self.top_logprobs.is_some() { tokens } else { 0 };
        if logprobs.len() != wanted {
            let got = logprobs.len();
            return Err(format!(
                "a frame has log probabilities for {got} tokens instead of {wanted}"
            ));
        }
        let top = self.top_logprobs.unwrap_or_default();
        let checked = logprobs.iter().try_for_each(|one| one.check(top));
        checked.map_err(|what| format!("its log probabilities have {what}"))
    }

    /// Takes a receipt over all tokens so far, whose signature is for [`Self::check`] to look at. A repetition changes
    /// nothing: the node does not know whether it arrived.
    pub(super) fn sign(
        &mut self,
        (seq, stream_hash): (u32, B256),
        signature: Signature,
        node: NodeId,
    ) -> Result<(), String> {
        if !self.open {
            return Err("it signed for a task whose stream is closed".into());
        }
        if seq != self.count() || seq == 0 || stream_hash != self.hash.value() {
            return Err(format!("its receipt for {seq} tokens does not match what it streamed"));
        }
        let receipt = StreamReceipt::new(self.task, node, seq, stream_hash);
        let signed = SignedReceipt { receipt, signature };
        if self.receipt.as_ref() == Some(&signed) {
            return Ok(());
        }
        if self.is_signed() {
            return Err(format!("it signed for {seq} tokens twice"));
        }
        (self.receipt, self.is_checked) = (Some(signed), false);
        Ok(())
    }

    /// Whether there is a receipt whose signature nobody has looked at.
    pub(super) fn is_unchecked(&self) -> bool {
        !self.is_checked
    }

    /// Looks at the newest receipt's signature; the receipt, if that was not done before.
    pub(super) fn check(&mut self, by: &Signer) -> Result<Option<SignedReceipt>, String> {
        let Some(signed) = self.receipt.as_ref().filter(|_| !self.is_checked) else {
            return Ok(None);
        };
        let signer = signed.receipt.signer(by.scope.chain_id, by.scope.queue, &signed.signature);
        if signer.ok() != Some(by.operator) {
            return Err("its receipt is not signed by the node's operator".into());
        }
        self.is_checked = true;
        Ok(Some(signed.clone()))
    }

    /// Whether the node has signed for all tokens so far.
    fn is_signed(&self) -> bool {
        self.receipt.as_ref().is_some_and(|signed| signed.receipt.seq == self.count())
    }

    /// The end of a closed stream.
    pub(super) fn seal(&self) -> Result<(), String> {
        if self.open && !self.muted {
            return Err("it sealed a task whose stream is open".into());
        }
        if self.accepted.is_none() {
            return Err("it ended a task that it had not accepted".into());
        }
        Ok(())
    }

    /// The end of an open stream, whose receipt was checked.
    pub(super) fn done(&mut self, said: &Said) -> Result<Answer, String> {
        let count = self.count();
        if !self.open {
            return Err("it showed the end of a task whose stream is closed".into());
        }
        if self.accepted != Some(said.prompt_tokens) {
            return Err(format!(
                "it ended with {} prompt tokens and accepted another number",
                said.prompt_tokens
            ));
        }
        if count == 0 || said.output_tokens != count {
            return Err(format!(
                "it ended with {} tokens and streamed {count}",
                said.output_tokens
            ));
        }
        if said.stream_hash != self.hash.value() {
            return Err("its stream hash is not that of the tokens that it streamed".into());
        }
        match said.end_reason {
            EndReason::Max if count != self.max_output => {
                return Err(format!(
                    "it ended for length after {count} of {} tokens",
                    self.max_output
                ));
            }
            EndReason::Cancelled if !self.muted => {
                return Err("it ended a task as cancelled that nobody cancelled".into());
            }
            _ => {}
        }
        let is_whole = |signed: &SignedReceipt| self.is_checked && signed.receipt.seq == count;
        let receipt = self.receipt.take().filter(is_whole);
        Ok(Answer {
            ids: std::mem::take(&mut self.ids),
            text: std::mem::take(&mut self.text),
            end_reason: said.end_reason,
            prompt_tokens: said.prompt_tokens,
            output_digest: said.output_digest,
            stream_hash: said.stream_hash,
            receipt: receipt.ok_or("it ended without a receipt for what it streamed")?,
        })
    }
}

/// What a `Done` says.
pub(super) struct Said {
    pub end_reason: EndReason,
    pub prompt_tokens: u32,
    pub output_tokens: u32,
    pub output_digest: B256,
    pub stream_hash: B256,
}
