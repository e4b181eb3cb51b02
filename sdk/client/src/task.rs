//! Requests: sent by transaction, or signed for whoever carries them.

use std::{sync::PoisonError, time::Duration};

use alloy::{
    primitives::{B256, aliases::U96},
    signers::SignerSync,
};
use assay_bindings::{Session, SessionPayment, SessionQueue};
use assay_protocol::{TaskState, money::fee_up};
use assay_types::{
    Bytes, Cancellation, Dispatch, Lane, Nonce, RequestBlock, SessionId, Signature, Signed, TaskId,
    TaskRequest, link::SignedCancellation, task_id,
};

use crate::{Client, ClientError, Question, TaskView};

/// How a request is to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The lane that pays; its holder must be the client's key. 0 is the session's owner's.
    pub lane: u32,
    /// Node that shall serve it; 0: chosen by the session's seed.
    pub node: u32,
    /// Seconds from now that the first node has for its answer.
    pub deadline_s: u64,
    /// Answers wanted, each by another node, each paid.
    pub redundancy: u8,
    /// Nodes that are asked one after the other.
    pub attempts: u8,
    /// Whether nodes are assigned, or claim the task.
    pub dispatch: Dispatch,
    /// The largest fee of one answer, minor units; `None`: what its bounds come to at the session's prices.
    pub fee_cap: Option<u128>,
}

impl Default for Terms {
    /// The owner's lane, a minute, one answer, three nodes one after the other.
    fn default() -> Self {
        Self {
            lane: 0,
            node: 0,
            deadline_s: 60,
            redundancy: 1,
            attempts: 3,
            dispatch: Dispatch::Push,
            fee_cap: None,
        }
    }
}

/// A task that was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The task.
    pub task: TaskId,
    /// Hash of the transaction.
    pub transaction: B256,
    /// Longest time until it has its answers, or anyone may have it refunded.
    pub longest: Duration,
}

/// A request that its lane's holder has signed. Whoever has it can have it served and paid, once and as it stands:
/// nothing of it can be altered, and it costs its `feeCap` at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRequest {
    /// The task that it asks for.
    pub task: TaskId,
    /// What was signed.
    pub request: TaskRequest,
    /// By the lane's holder.
    pub signature: Signature,
    /// Canonical bytes of the request block; their sha-256 is the request's digest.
    pub block: Bytes,
}

impl Client {
    /// Pins a question and submits it by transaction. No router is needed.
    ///
    /// # Errors
    /// If the lane is another's, the content store fails, the contract refuses, or log probabilities are wanted.
    pub async fn submit(
        &self,
        session: u64,
        question: &Question,
        terms: &Terms,
    ) -> Result<Submitted, ClientError> {
        if question.top_logprobs.is_some() {
            let remedy = "by transaction: nodes state them beside a stream alone. Sign the question, and have a router carry it";
            return Err(ClientError::NoLogprobs(remedy));
        }
        let block = question.block()?;
        let (bytes, digest) = block.encode()?;
        let got = self.reader.store.put(bytes.into()).await?;
        if got != digest {
            return Err(ClientError::OtherDigest { expected: digest, got });
        }
        // Whichever reservation is current: the chain decides, and nobody has begun.
        let request = self.request(session, (&block, digest), terms, 0).await?;
        let queue = self.reader.chain.deployment.queue;
        let task = request.task_id(queue);
        let call = SessionQueue::submitCall { request: request.into() };
        let transaction = self.wallet.send(queue, call).await?.transaction_hash;
        let sessions =
            Session::new(self.reader.chain.deployment.sessions, &self.wallet.chain.provider);
        let times = sessions.progressOf(session).call().await?;
        let retries = u64::from(terms.attempts.saturating_sub(1)) * times.attemptTime.to::<u64>();
        let longest = terms.deadline_s + retries + times.revealTime.to::<u64>();
        Ok(Submitted { task, transaction, longest: Duration::from_secs(longest) })
    }

    /// Signs a question for a router, or anybody else, to pass on to a node of the session; nothing is sent. The lane
    /// must not be the owner's: nodes serve that one by transaction alone, since its money can be taken back at any time.
    ///
    /// # Errors
    /// If the lane is another's, or the session's nodes serve nobody now.
    pub async fn sign(
        &self,
        session: u64,
        question: &Question,
        terms: &Terms,
    ) -> Result<SignedRequest, ClientError> {
        let block = question.block()?;
        let (bytes, digest) = block.encode()?;
        let view = self.reader.session(session).await?;
        let state = view.as_ref().map_or("none", |view| view.state);
        let ready = view.filter(|view| view.is_seeded && view.state == "active");
        let Some(view) = ready else { return Err(ClientError::NotReady { session, state }) };
        let seed_round = view.info.current.seedRound;
        let request = self.request(session, (&block, digest), terms, seed_round).await?;
        let queue = self.reader.chain.deployment.queue;
        let hash = request.signing_hash(self.reader.chain.chain_id, queue);
        let signature = self.wallet.signer.sign_hash_sync(&hash)?;
        let task = request.task_id(queue);
        Ok(SignedRequest { task, request, signature, block: bytes.into() })
    }

    /// Signs that a task of a lane of this key ends after its first `tokens` tokens, which are paid; nothing is sent.
    ///
    /// # Errors
    /// If the key does not sign.
    pub fn sign_cancellation(
        &self,
        task: TaskId,
        tokens: u32,
    ) -> Result<SignedCancellation, ClientError> {
        let chain = &self.reader.chain;
        let cancellation = Cancellation::new(task, tokens);
        let hash = cancellation.signing_hash(chain.chain_id, chain.deployment.queue);
        let signature = self.wallet.signer.sign_hash_sync(&hash)?;
        Ok(SignedCancellation { tokens, signature })
    }

    async fn request(
        &self,
        session: u64,
        (block, digest): (&RequestBlock, B256),
        terms: &Terms,
        seed_round: u64,
    ) -> Result<TaskRequest, ClientError> {
        let chain = &self.reader.chain;
        let (lane, account) = (terms.lane, self.address());
        let sessions = Session::new(chain.deployment.sessions, &chain.provider);
        let found = sessions.laneOf(session, lane).call().await;
        let holder = found.map_err(|source| ClientError::NoLane { session, lane, source })?.holder;
        if holder != account {
            return Err(ClientError::NotHolder { session, lane, holder, account });
        }
        let prices = sessions.progressOf(session).call().await?;
        let (price_in, price_out) = (prices.priceIn.to::<u128>(), prices.priceOut.to::<u128>());
        let bound = fee_up(block.max_prompt, block.max_output, price_in, price_out);
        Ok(TaskRequest {
            sessionId: session,
            lane,
            nonce: self.take_nonce(session, lane).await?,
            seedRound: seed_round,
            requestDigest: digest,
            maxPrompt: block.max_prompt,
            maxOutput: block.max_output,
            feeCap: U96::saturating_from(terms.fee_cap.unwrap_or(bound)),
            deadline: self.reader.now_s().await? + terms.deadline_s,
            nodeId: terms.node,
            redundancy: terms.redundancy,
            attempts: terms.attempts,
            dispatch: terms.dispatch as u8,
            callbackGas: 0,
        })
    }

    /// The next nonce of a lane: beyond those that the chain has, and those that this client has used. A nonce that comes
    /// to nothing leaves a gap, which the contract allows.
    async fn take_nonce(&self, session: u64, lane: u32) -> Result<u64, ClientError> {
        let chain = &self.reader.chain;
        let payment = SessionPayment::new(chain.deployment.payment, &chain.provider);
        let on_chain = payment.fundsOf(session, lane).call().await?.nextNonce;
        let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        let next = nonces.entry((session, lane)).or_default();
        let nonce = on_chain.max(*next);
        *next = nonce.saturating_add(1);
        Ok(nonce)
    }

    /// Takes back a task that waits for a node to claim it.
    ///
    /// # Errors
    /// If it is not queued, or another's.
    pub async fn cancel(&self, task: TaskId) -> Result<TaskView, ClientError> {
        let view = self.reader.task(task).await?;
        if view.state != TaskState::Queued {
            return Err(ClientError::NotQueued { task, state: view.state_name() });
        }
        let call = SessionQueue::cancelCall { task: view.current };
        self.wallet.send(self.reader.chain.deployment.queue, call).await?;
        self.reader.task(task).await
    }

    /// Id of the task that a nonce of a lane names.
    pub fn task_of(&self, session: u64, lane: u32, nonce: u64) -> TaskId {
        let queue = self.reader.chain.deployment.queue;
        task_id(queue, SessionId(session), Lane(lane), Nonce(nonce))
    }
}

impl TaskView {
    /// Its state in a word.
    pub fn state_name(&self) -> &'static str {
        match self.state {
            TaskState::None => "none",
            TaskState::Queued => "queued",
            TaskState::Assigned => "assigned",
            TaskState::Precommitted => "precommitted",
            TaskState::Committed => "committed",
            TaskState::Settled => "settled",
            TaskState::Refunded => "refunded",
        }
    }
}
