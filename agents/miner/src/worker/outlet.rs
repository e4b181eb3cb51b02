//! What there is to say about a task, kept until its router has read it: a router that is slow gets more
//! at a time, one that lost its connection goes on where it was. A link asks for frames when it can write
//! them, so nothing piles up in between.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use assay_types::{
    Address, B256, Bytes, Signature, TaskId, TokenLogprobs, TokenSeal,
    link::{FromMiner, RECEIPT_EVERY_TOKENS, SignedCancellation},
};
use tokio::sync::Notify;

use super::linkref::LinkRef;

/// The frames of one task. Clones share it. It holds the whole answer: the request's `max_output` bounds it.
#[derive(Clone, Debug)]
pub(crate) struct Outlet {
    task: TaskId,
    request_digest: B256,
    inner: Arc<Mutex<Inner>>,
    block_came: Arc<Notify>,
    cut_came: Arc<Notify>,
}

/// The node's signature over the first `seq` tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receipt {
    pub seq: u32,
    pub stream_hash: B256,
    pub signature: Signature,
}

#[derive(Debug, Default)]
struct Inner {
    block: Option<Bytes>,
    link: Option<LinkRef>,
    /// Whose task it is, also while its connection is down.
    router: Option<Address>,
    /// Who holds its lane, once a signed request was seen.
    holder: Option<Address>,
    /// Tokens that were ever sent.
    shown: usize,
    /// What the lane's holder pays for, if not for all.
    cut: Option<SignedCancellation>,
    /// Whether the link is to ask for frames already.
    announced: bool,
    /// Whether tokens are shown.
    stream: bool,
    prompt_tokens: Option<u32>,
    ids: Vec<u32>,
    text: String,
    /// Where the text of each id ends.
    ends: Vec<usize>,
    /// One for each id if the request asks for them, else none.
    logprobs: Vec<TokenLogprobs>,
    /// By `seq`.
    receipts: Vec<Receipt>,
    /// Of an answer to a redundant task.
    precommit: Option<FromMiner>,
    end: Option<FromMiner>,
    opening: Option<FromMiner>,
    said: Said,
}

/// What the link has got so far.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    accept: bool,
    tokens: usize,
    receipts: usize,
    precommit: bool,
    end: bool,
    opening: bool,
}

impl Outlet {
    /// Frames go to `link`, tokens among them if `stream` says so.
    pub(crate) fn new(
        task: TaskId,
        request_digest: B256,
        link: Option<LinkRef>,
        stream: bool,
    ) -> Self {
        let inner = Inner {
            router: link.as_ref().map(|link| link.router),
            link,
            stream,
            ..Inner::default()
        };
        Self {
            task,
            request_digest,
            inner: Arc::new(Mutex::new(inner)),
            block_came: Arc::default(),
            cut_came: Arc::default(),
        }
    }

    /// The task.
    pub(crate) fn task(&self) -> TaskId {
        self.task
    }

    /// sha-256 of the request block.
    pub(crate) fn request_digest(&self) -> B256 {
        self.request_digest
    }

    /// The request block came with an offer; its digest was checked.
    pub(crate) fn give_block(&self, block: Bytes) {
        self.lock().block = Some(block);
        self.block_came.notify_one();
    }

    /// Waits for an offer's request block.
    pub(crate) async fn block(&self) -> Bytes {
        loop {
            if let Some(block) = self.lock().block.clone() {
                return block;
            }
            self.block_came.notified().await;
        }
    }

    /// From now on `link` gets the frames; what there was so far comes first.
    pub(crate) fn attach(&self, link: LinkRef, stream: bool) {
        let mut inner = self.lock();
        inner.stream |= stream;
        inner.hand_to(link, Said::default());
        self.announce(inner);
    }

    /// The task's router is back on `link` and has the first `seq` tokens. False if it cannot have them.
    pub(crate) fn resume(&self, link: LinkRef, seq: u32) -> bool {
        let mut inner = self.lock();
        let tokens = usize::try_from(seq).unwrap_or(usize::MAX);
        if tokens > inner.ids.len() || (!inner.stream && tokens > 0) {
            return false;
        }
        // The receipt over just these tokens may have been lost after them.
        let receipts = match tokens {
            0 => 0,
            _ => inner.receipts.partition_point(|receipt| receipt.seq < seq),
        };
        inner.hand_to(link, Said { accept: true, tokens, receipts, ..Said::default() });
        self.announce(inner);
        true
    }

    /// The router does not want the rest: `link` gets the end of it, and nothing else.
    pub(crate) fn mute(&self, link: LinkRef) {
        let mut inner = self.lock();
        // On the same link the end may be on its way already.
        let end = inner.said.end && inner.link.as_ref().is_some_and(|ours| ours.is(&link));
        inner.stream = false;
        inner.hand_to(link, Said { accept: true, end, ..Said::default() });
        self.announce(inner);
    }

    /// Whether this router offered the task, or the same one later.
    pub(crate) fn belongs_to(&self, router: Address) -> bool {
        self.lock().router == Some(router)
    }

    /// Whose task it is; `None` while only the chain has given it.
    pub(crate) fn router(&self) -> Option<Address> {
        self.lock().router
    }

    /// Who holds the task's lane, by a request whose signature was checked.
    pub(crate) fn set_holder(&self, holder: Option<Address>) {
        self.lock().holder = holder;
    }

    /// Who holds the task's lane; `None` while no signed request of it was seen.
    pub(crate) fn holder(&self) -> Option<Address> {
        self.lock().holder
    }

    /// Tokens that were sent, whether they arrived or not.
    pub(crate) fn shown(&self) -> u32 {
        u32::try_from(self.lock().shown).unwrap_or(u32::MAX)
    }

    /// The lane's holder has signed for so many tokens: no more of them are made.
    pub(crate) fn cut(&self, cut: SignedCancellation) {
        self.lock().cut = Some(cut);
        self.cut_came.notify_one();
    }

    /// Where the answer ends early.
    pub(crate) fn cut_at(&self) -> Option<SignedCancellation> {
        self.lock().cut
    }

    /// Waits until [`Self::cut_at`] may have changed.
    pub(crate) async fn cut_came(&self) {
        self.cut_came.notified().await;
    }

    /// Bytes that it holds, about.
    pub(crate) fn size(&self) -> usize {
        let inner = self.lock();
        inner.text.len()
            + inner.ids.len() * size_of::<(u32, usize)>()
            + size_of_logprobs(&inner.logprobs)
            + inner.receipts.len() * size_of::<Receipt>()
            + inner.block.as_ref().map_or(0, |block| block.len())
    }

    pub(crate) fn accept(&self, prompt_tokens: u32) {
        let mut inner = self.lock();
        inner.prompt_tokens = Some(prompt_tokens);
        self.announce(inner);
    }

    pub(crate) fn token(&self, id: u32, text: &str, logprobs: Option<TokenLogprobs>) {
        let mut inner = self.lock();
        inner.ids.push(id);
        inner.logprobs.extend(logprobs);
        inner.text.push_str(text);
        let end = inner.text.len();
        inner.ends.push(end);
        self.announce(inner);
    }

    /// Over all tokens so far.
    pub(crate) fn receipt(&self, receipt: Receipt) {
        let mut inner = self.lock();
        inner.receipts.push(receipt);
        self.announce(inner);
    }

    /// The node's word for its answer, before the end.
    pub(crate) fn precommit(&self, commitment: B256, signature: Signature) {
        let mut inner = self.lock();
        inner.precommit = Some(FromMiner::Precommit { task: self.task, commitment, signature });
        self.announce(inner);
    }

    /// What the precommitment was made of: the chain has those of all nodes.
    pub(crate) fn opening(&self, seal: TokenSeal, proof_seal: B256) {
        let mut inner = self.lock();
        inner.opening = Some(FromMiner::Opening { task: self.task, seal, proof_seal });
        self.announce(inner);
    }

    /// The last frame of the stream: `Done`, `Decline` or `Error`.
    pub(crate) fn end(&self, frame: FromMiner) {
        let mut inner = self.lock();
        if inner.end.is_none() {
            inner.end = Some(frame);
            self.announce(inner);
        }
    }

    /// Frames that `link` has not got yet, about `budget` bytes of them. The outlet asks for its turn again
    /// when there are more.
    pub(crate) fn take(&self, link: &LinkRef, budget: usize) -> Vec<FromMiner> {
        let mut inner = self.lock();
        if !inner.link.as_ref().is_some_and(|ours| ours.is(link)) {
            return Vec::new();
        }
        inner.announced = false;
        let (mut frames, mut size) = (Vec::new(), 0);
        while size < budget {
            let Some(frame) = inner.next(self.task) else { return frames };
            size += match &frame {
                FromMiner::Token { ids, text, logprobs, .. } => {
                    text.len() + 8 * ids.len() + size_of_logprobs(logprobs)
                }
                _ => 0,
            } + FRAME_BYTES;
            frames.push(frame);
        }
        self.announce(inner);
        frames
    }

    /// Tells the link that there may be something to say.
    fn announce(&self, mut inner: MutexGuard<'_, Inner>) {
        if inner.announced {
            return;
        }
        let Some(link) = inner.link.clone() else { return };
        inner.announced = true;
        drop(inner);
        link.ready(self);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that they take, in memory and in a frame, about; all positions have as many alternatives.
fn size_of_logprobs(logprobs: &[TokenLogprobs]) -> usize {
    let each = logprobs.first().map_or(0, |first| (1 + first.top.len()) * LOGPROB_BYTES);
    logprobs.len() * each
}

/// Bytes of one log probability with its token, about.
const LOGPROB_BYTES: usize = 64;
/// Bytes of a frame around its tokens, about.
const FRAME_BYTES: usize = 256;

impl Inner {
    fn hand_to(&mut self, link: LinkRef, said: Said) {
        // On the same link, its turn is still to come.
        self.announced &= self.link.as_ref().is_some_and(|ours| ours.is(&link));
        self.router = Some(link.router);
        self.link = Some(link);
        self.said = said;
    }

    fn next(&mut self, task: TaskId) -> Option<FromMiner> {
        if !self.said.accept
            && let Some(prompt_tokens) = self.prompt_tokens
        {
            self.said.accept = true;
            return Some(FromMiner::Accept { task, prompt_tokens });
        }
        if self.stream
            && let Some(frame) = self.next_of_stream(task)
        {
            return Some(frame);
        }
        if !self.said.precommit
            && let Some(precommit) = self.precommit.clone()
        {
            self.said.precommit = true;
            return Some(precommit);
        }
        if !self.said.end {
            let end = self.end.clone()?;
            self.said.end = true;
            return match end {
                FromMiner::Done { .. } if !self.stream => Some(FromMiner::Sealed { task }),
                end => Some(end),
            };
        }
        if self.said.opening {
            return None;
        }
        let opening = self.opening.clone()?;
        self.said.opening = true;
        Some(opening)
    }

    /// A due receipt, or tokens up to where the next one is due.
    fn next_of_stream(&mut self, task: TaskId) -> Option<FromMiner> {
        let from = self.said.tokens;
        if let Some(receipt) = self.receipts.get(self.said.receipts)
            && receipt.seq as usize <= from
        {
            self.said.receipts += 1;
            let Receipt { seq, stream_hash, signature } = *receipt;
            return Some(FromMiner::Receipt { task, seq, stream_hash, signature });
        }
        if from == self.ids.len() {
            return None;
        }
        let every = RECEIPT_EVERY_TOKENS as usize;
        let to = ((from / every + 1) * every).min(self.ids.len());
        let to = self.end_with_text(from, to);
        let begin = self.end_of_text(from);
        self.said.tokens = to;
        self.shown = self.shown.max(to);
        Some(FromMiner::Token {
            task,
            seq: u32::try_from(from).unwrap_or(u32::MAX),
            ids: self.ids[from..to].to_vec(),
            text: self.text[begin..self.ends[to - 1]].to_owned(),
            logprobs: self.logprobs.get(from..to).unwrap_or_default().to_vec(),
        })
    }

    /// Where the text of the first `count` tokens ends.
    fn end_of_text(&self, count: usize) -> usize {
        count.checked_sub(1).map_or(0, |last| self.ends[last])
    }

    /// Where a frame of these tokens ends: log probabilities come with the text of their tokens, so that tokens whose
    /// text is held back wait for the next frame.
    fn end_with_text(&self, from: usize, to: usize) -> usize {
        if self.logprobs.is_empty() {
            return to;
        }
        let has_text = |count: &usize| self.end_of_text(*count) > self.end_of_text(*count - 1);
        (from + 1..=to).rev().find(has_text).unwrap_or(to)
    }
}

#[cfg(test)]
mod tests {
    use assay_types::{TokenLogprob, TokenName};
    use proptest::prelude::*;
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    use super::*;

    const TASK: TaskId = TaskId(B256::repeat_byte(1));

    fn link() -> LinkRef {
        LinkRef::new(Address::ZERO, mpsc::channel(1).0, CancellationToken::new())
    }

    fn fill(outlet: &Outlet, from: u32, to: u32) {
        for seq in from..to {
            outlet.token(seq, &format!("<{seq}é>"), None);
            if (seq + 1).is_multiple_of(RECEIPT_EVERY_TOKENS) {
                let signature = Signature::test_signature();
                outlet.receipt(Receipt { seq: seq + 1, stream_hash: B256::ZERO, signature });
            }
        }
    }

    fn finish(outlet: &Outlet, count: u32) {
        outlet.end(FromMiner::Done {
            task: TASK,
            end_reason: assay_types::EndReason::Eos,
            prompt_tokens: 1,
            output_tokens: count,
            output_digest: B256::ZERO,
            stream_hash: B256::ZERO,
        });
    }

    /// All frames that are announced to the link.
    fn drain(link: &LinkRef, budget: usize) -> Vec<FromMiner> {
        let mut frames = Vec::new();
        while let Some(outlet) = link.try_next() {
            frames.extend(outlet.take(link, budget));
        }
        frames
    }

    /// Reads frames as a strict router does; the tokens that it has then.
    fn read(frames: &[FromMiner], mut count: u32, text: &mut String) -> u32 {
        let mut signed = count / RECEIPT_EVERY_TOKENS * RECEIPT_EVERY_TOKENS;
        if count.is_multiple_of(RECEIPT_EVERY_TOKENS) {
            signed = signed.saturating_sub(RECEIPT_EVERY_TOKENS);
        }
        for frame in frames {
            match frame {
                FromMiner::Token { seq, ids, text: piece, .. } => {
                    assert_eq!(*seq, count);
                    let due = count / RECEIPT_EVERY_TOKENS * RECEIPT_EVERY_TOKENS;
                    assert_eq!(signed, due, "a token before a due receipt");
                    count += u32::try_from(ids.len()).unwrap();
                    assert_eq!(seq / RECEIPT_EVERY_TOKENS, (count - 1) / RECEIPT_EVERY_TOKENS);
                    text.push_str(piece);
                }
                FromMiner::Receipt { seq, .. } => {
                    assert_eq!(*seq, count);
                    signed = *seq;
                }
                _ => {}
            }
        }
        count
    }

    proptest! {
        #[test]
        fn a_stream_that_is_resumed_anywhere_has_no_gap_and_no_duplicate(
            total in 1_u32..200, cuts in prop::collection::vec((0_u32..200, 1_usize..4000), 0..5),
        ) {
            let outlet = Outlet::new(TASK, B256::ZERO, Some(link()), true);
            let (mut count, mut made, mut text) = (0, 0, String::new());
            for (until, budget) in cuts {
                let until = until.min(total).max(made);
                fill(&outlet, made, until);
                made = until;
                let link = link();
                prop_assert!(outlet.resume(link.clone(), count));
                let frames = drain(&link, budget);
                // Any part of what was written may be lost with the connection.
                let read_frames = &frames[..frames.len() * (budget % 3) / 2];
                count = read(read_frames, count, &mut text);
            }
            fill(&outlet, made, total);
            finish(&outlet, total);
            let link = link();
            prop_assert!(outlet.resume(link.clone(), count));
            let frames = drain(&link, 500);
            prop_assert_eq!(read(&frames, count, &mut text), total);
            let whole: String = (0..total).map(|seq| format!("<{seq}é>")).collect();
            prop_assert_eq!(text, whole);
            let last_is_done = matches!(frames.last(), Some(FromMiner::Done { .. }));
            prop_assert!(last_is_done);
        }
    }

    fn stated(logprob_micronats: i64) -> TokenLogprobs {
        let chosen = TokenLogprob { token: TokenName::Text("x".into()), logprob_micronats };
        TokenLogprobs { chosen: chosen.clone(), top: vec![chosen; 20] }
    }

    #[test]
    fn log_probabilities_come_with_the_text_of_their_tokens_and_again_after_a_cut() {
        let outlet = Outlet::new(TASK, B256::ZERO, Some(link()), true);
        for (seq, text) in ["a", "", "b", "", ""].into_iter().enumerate() {
            outlet.token(seq as u32, text, Some(stated(-(seq as i64))));
        }
        let parts = |from| {
            let link = link();
            assert!(outlet.resume(link.clone(), from));
            let frames = drain(&link, 1).into_iter().map(|frame| match frame {
                FromMiner::Token { seq, ids, text, logprobs, .. } => {
                    let values = logprobs.iter().map(|one| one.chosen.logprob_micronats);
                    assert!(values.eq(ids.iter().map(|id| -i64::from(*id))));
                    (seq, ids.len(), text)
                }
                other => panic!("{other:?}"),
            });
            frames.collect::<Vec<_>>()
        };
        assert_eq!(parts(0), [(0, 3, "ab".into()), (3, 2, String::new())]);
        assert_eq!(parts(1), [(1, 2, "b".into()), (3, 2, String::new())]);
        assert_eq!(parts(4), [(4, 1, String::new())]);
        assert!(outlet.size() > 5 * 21 * size_of::<TokenLogprob>());
    }

    #[test]
    fn a_router_that_does_not_read_makes_nothing_grow_but_the_answer() {
        let link = link();
        let outlet = Outlet::new(TASK, B256::ZERO, Some(link.clone()), true);
        outlet.accept(1);
        fill(&outlet, 0, 10_000);
        // One announcement, whatever there is to say.
        let taken = link.try_next().unwrap().take(&link, 1);
        assert!(matches!(taken[..], [FromMiner::Accept { .. }]));
        assert!(link.try_next().is_some() && link.try_next().is_none());
    }

    #[test]
    fn a_closed_stream_shows_nothing_but_its_end() {
        let link = link();
        let outlet = Outlet::new(TASK, B256::ZERO, Some(link.clone()), false);
        outlet.accept(7);
        fill(&outlet, 0, 40);
        finish(&outlet, 40);
        let frames = drain(&link, 10_000);
        let accept = FromMiner::Accept { task: TASK, prompt_tokens: 7 };
        assert_eq!(frames, [accept, FromMiner::Sealed { task: TASK }]);
        assert!(!outlet.resume(link.clone(), 1), "nobody has a token of it");
        assert!(outlet.resume(link.clone(), 0));
        assert_eq!(drain(&link, 10_000), [FromMiner::Sealed { task: TASK }]);
        // Its router needs a new leader.
        outlet.attach(link.clone(), true);
        assert_eq!(read(&drain(&link, 10_000), 0, &mut String::new()), 40);
    }

    #[test]
    fn tokens_that_were_never_made_cannot_be_resumed_from() {
        let outlet = Outlet::new(TASK, B256::ZERO, Some(link()), true);
        fill(&outlet, 0, 3);
        assert!(!outlet.resume(link(), 4));
        assert!(!outlet.resume(link(), u32::MAX));
        assert!(outlet.resume(link(), 3));
    }

    #[test]
    fn an_older_link_gets_nothing_any_more() {
        let (old, new) = (link(), link());
        let outlet = Outlet::new(TASK, B256::ZERO, Some(old.clone()), true);
        fill(&outlet, 0, 1);
        outlet.attach(new.clone(), true);
        assert!(drain(&old, 100).is_empty());
        assert_eq!(drain(&new, 100).len(), 1);
        outlet.mute(old.clone());
        fill(&outlet, 1, 2);
        finish(&outlet, 2);
        assert!(drain(&new, 100).is_empty());
        assert_eq!(drain(&old, 100), [FromMiner::Sealed { task: TASK }]);
        outlet.mute(old.clone());
        assert!(drain(&old, 100).is_empty(), "it has the end");
        outlet.mute(new.clone());
        assert_eq!(drain(&new, 100), [FromMiner::Sealed { task: TASK }]);
    }
}
