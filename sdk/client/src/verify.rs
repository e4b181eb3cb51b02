//! Whether what came back is what was paid for.

use alloy::primitives::{Address, Signature, U256};
use assay_bindings::{NodePool, ProofOfInference, RandomBeacon, Session};
use assay_engine::{Answered, Engine, Examination, examine};
use assay_proof::Width;
use assay_protocol::{QueueScope, commitment_of, money::fee_up, opened, state::AuditState};
use assay_types::{
    B256, CommitScope, EndReason, Lane, ModelId, NodeId, RequestBlock, ResultBlock, SessionId,
    Signed, StreamHash, TaskId, TokenSeal, link::StreamReceipt,
};

use crate::{ClientError, Reader, TaskView};

/// Something about an answer that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// The request block is not the one that is said to have been asked.
    #[error("the chain has the request {on_chain}, not {asked}")]
    OtherRequest {
        /// On chain.
        on_chain: B256,
        /// That was asked.
        asked: B256,
    },
    /// What the chain names as the result cannot be read.
    #[error("the result under the digest on chain is none: {0}")]
    Unreadable(String),
    /// The result has another number of tokens than was sealed, and paid.
    #[error("the result has {block} tokens, sealed are {sealed}")]
    OtherCount {
        /// In the result block.
        block: usize,
        /// In the commitment.
        sealed: u32,
    },
    /// More tokens than the request allows.
    #[error("{count} tokens of {what} are more than the {allowed} that were asked for")]
    TooMany {
        /// `prompt` or `answer`.
        what: &'static str,
        /// Committed.
        count: u32,
        /// By the request.
        allowed: u32,
    },
    /// The rolling hash of the result is not that of its tokens.
    #[error("the result's stream hash is not that of its tokens")]
    OtherStream,
    /// The result ended otherwise than was sealed.
    #[error("the result ended by {block:?}, sealed is {sealed:?}")]
    OtherEnd {
        /// In the result block.
        block: EndReason,
        /// In the commitment.
        sealed: EndReason,
    },
    /// It ends early, and nobody who may has signed that.
    #[error("it says that it was cancelled, but the holder of its lane has not signed that")]
    NotCancelled,
    /// What was shown is not what was pinned.
    #[error("the text that was shown differs from the result's from byte {0} on")]
    OtherText(usize),
    /// The fee is not what tokens and prices come to.
    #[error("the fee is {charged}, tokens and prices come to {due}")]
    OtherFee {
        /// On chain, minor units.
        charged: U256,
        /// What is due, minor units.
        due: U256,
    },
    /// The chain stores another commitment than its events tell.
    #[error("the seals do not hash to the commitment that the chain stores")]
    OtherCommitment,
    /// A receipt of the stream speaks of other tokens.
    #[error("the node signed a receipt for other tokens than it committed: it is evidence")]
    Contradicted,
    /// A receipt that its node's operator has not signed.
    #[error("a receipt is not signed by the operator of node {0}")]
    ForgedReceipt(NodeId),
}

/// Where the proof of an answer stands on chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditView {
    /// The session's answers are not proven.
    Unproven,
    /// So far in its audit.
    At(AuditState),
    /// Nothing is open: it was not drawn, or its audit is over.
    Ended,
}

/// What is known of one answer.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Who answered, and what its commitment is bound to.
    pub scope: CommitScope,
    /// What it committed to.
    pub seal: TokenSeal,
    /// Its result block; `None` if there is none under the digest.
    pub block: Option<ResultBlock>,
    /// What is wrong; empty if nothing is.
    pub findings: Vec<Finding>,
    /// Where its proof stands.
    pub audit: AuditView,
    /// What a model of one's own thinks of it; `None` without one.
    pub examination: Option<Examination>,
}

/// What is the same for all answers of a task.
struct Case {
    request: RequestBlock,
    holder: Address,
    prices: (u128, u128),
    is_proven: bool,
    beacon: B256,
}

impl Reader {
    /// Checks every answer of a task: its request, digests, seals, counts, end, cancellation and fee, and where its proof
    /// stands. With an engine, also whether these tokens come out of this model with the seed of the task.
    ///
    /// # Errors
    /// If there is no answer, or chain, content store or engine fail. What is wrong with an answer is no error, but one
    /// of its findings.
    pub async fn verify(
        &self,
        task: TaskId,
        engine: Option<&dyn Engine>,
    ) -> Result<Vec<Verified>, ClientError> {
        let view = self.task(task).await?;
        if view.answers.is_empty() {
            return Err(ClientError::NoAnswer(task));
        }
        let case = self.case(&view).await?;
        let mut verified = Vec::new();
        for event in &view.answers {
            let answer = opened(event);
            let (scope, seal) = (self.scope(task, event.nodeId), answer.seal());
            let block = match self.store.get(event.outputDigest).await {
                Ok(bytes) => ResultBlock::decode(&bytes).map_err(|error| error.to_string()),
                Err(error) if error.is_retryable() => return Err(error.into()),
                Err(error) => Err(error.to_string()),
            };
            let mut findings = case.findings(&view, &scope, &seal, &block);
            let (price_in, price_out) = case.prices;
            let due =
                U256::from(fee_up(seal.prompt_tokens, seal.output_tokens, price_in, price_out));
            let charged = U256::from(event.fee);
            if charged != due {
                findings.push(Finding::OtherFee { charged, due });
            }
            let commitment = commitment_of(&scope, &answer);
            let mut parts = view.current.parts.iter().filter(|part| part.nodeId == event.nodeId);
            let stored = parts.next().map(|part| part.commitment);
            if stored.is_some_and(|stored| !stored.is_zero() && stored != commitment) {
                findings.push(Finding::OtherCommitment);
            }
            let block = block.ok();
            let answered = Answered {
                scope,
                beacon: case.beacon,
                seal: &seal,
                request: &case.request,
                result: block.as_ref(),
                cancel_is_signed: block
                    .as_ref()
                    .is_some_and(|block| block.is_cancelled_by(&scope, case.holder)),
            };
            let examination = match engine {
                Some(engine) => Some(examine(engine, &answered, Width::default()).await?),
                None => None,
            };
            let audit = self.audit(&case, &scope).await?;
            verified.push(Verified { scope, seal, block, findings, audit, examination });
        }
        Ok(verified)
    }

    /// The model that a task was paid to be answered by.
    ///
    /// # Errors
    /// If the chain does not answer.
    pub async fn model_of(&self, task: &TaskView) -> Result<ModelId, ClientError> {
        let session = task.submitted.sessionId;
        let view = self.session(session).await?;
        let view = view.ok_or(ClientError::NotReady { session, state: "none" })?;
        Ok(view.model_id)
    }

    /// Whether a receipt that a router keeps of a stream (`GET /v1/tasks/{id}`) is its node's, and says the same as the
    /// committed answer.
    ///
    /// # Errors
    /// If the chain does not answer.
    pub async fn check_receipt(
        &self,
        receipt: &StreamReceipt,
        signature: &Signature,
        answer: &Verified,
    ) -> Result<Option<Finding>, ClientError> {
        let pool = NodePool::new(self.chain.deployment.nodes, &self.chain.provider);
        let node = pool.nodeOf(receipt.nodeId).call().await?;
        let queue = self.chain.deployment.queue;
        let signer = receipt.signer(self.chain.chain_id, queue, signature).ok();
        if signer != Some(node.operator) {
            return Ok(Some(Finding::ForgedReceipt(NodeId(receipt.nodeId))));
        }
        let Some(block) = &answer.block else { return Ok(None) };
        // A receipt may be for tokens that a cancellation has left out.
        let beyond = receipt.seq as usize > block.ids.len();
        let cut = block.end_reason == EndReason::Cancelled && beyond;
        let contradicts = !cut && receipt.contradicts(&block.ids);
        Ok(contradicts.then_some(Finding::Contradicted))
    }

    fn scope(&self, task: TaskId, node: u32) -> CommitScope {
        let (chain_id, queue) = (self.chain.chain_id, self.chain.deployment.queue);
        QueueScope { chain_id, queue }.commit_scope(task, NodeId(node))
    }

    async fn case(&self, view: &TaskView) -> Result<Case, ClientError> {
        let submitted = &view.submitted;
        let (session, lane) = (SessionId(submitted.sessionId), Lane(submitted.task.lane));
        let sessions = Session::new(self.chain.deployment.sessions, &self.chain.provider);
        let info = sessions.sessionOf(session.0).call().await?;
        let holder = sessions.laneOf(session.0, lane.0).call().await?.holder;
        let request = RequestBlock::decode(&self.store.get(submitted.requestDigest).await?)?;
        // A claimed task is seeded by a round after its claim.
        let round = match view.current.seedRound {
            0 => submitted.task.seedRound,
            round => round,
        };
        let beacon = RandomBeacon::new(self.chain.deployment.beacon, &self.chain.provider);
        Ok(Case {
            request,
            holder,
            prices: (info.priceIn.to::<u128>(), info.priceOut.to::<u128>()),
            is_proven: info.isProven,
            beacon: beacon.valueOf(round).call().await?,
        })
    }

    async fn audit(&self, case: &Case, scope: &CommitScope) -> Result<AuditView, ClientError> {
        if !case.is_proven {
            return Ok(AuditView::Unproven);
        }
        let proof = ProofOfInference::new(self.chain.deployment.proof, &self.chain.provider);
        let status = proof.statusOf(scope.task.0, scope.node.0).call().await?;
        Ok(AuditState::try_from(status.state).map_or(AuditView::Ended, AuditView::At))
    }
}

impl Case {
    fn findings(
        &self,
        view: &TaskView,
        scope: &CommitScope,
        seal: &TokenSeal,
        block: &Result<ResultBlock, String>,
    ) -> Vec<Finding> {
        let mut found = Vec::new();
        let task = &view.submitted.task;
        for (what, count, allowed) in [
            ("prompt", seal.prompt_tokens, task.maxPrompt.min(self.request.max_prompt)),
            ("answer", seal.output_tokens, task.maxOutput.min(self.request.max_output)),
        ] {
            if count > allowed {
                found.push(Finding::TooMany { what, count, allowed });
            }
        }
        let block = match block {
            Ok(block) => block,
            Err(why) => {
                found.push(Finding::Unreadable(why.clone()));
                return found;
            }
        };
        if block.ids.len() != seal.output_tokens as usize {
            let (block, sealed) = (block.ids.len(), seal.output_tokens);
            found.push(Finding::OtherCount { block, sealed });
        }
        if block.stream_hash != StreamHash::of(scope.task, &block.ids) {
            found.push(Finding::OtherStream);
        }
        if block.end_reason.sealed() != seal.end_reason {
            let (block, sealed) = (block.end_reason, seal.end_reason);
            found.push(Finding::OtherEnd { block, sealed });
        }
        let cancelled = block.end_reason == EndReason::Cancelled;
        if cancelled && !block.is_cancelled_by(scope, self.holder) {
            found.push(Finding::NotCancelled);
        }
        found
    }
}

impl TaskView {
    /// Whether the chain has the request that was asked, by the sha-256 of its block.
    pub fn compare_request(&self, asked: B256) -> Option<Finding> {
        let on_chain = self.submitted.requestDigest;
        (on_chain != asked).then_some(Finding::OtherRequest { on_chain, asked })
    }
}

impl Verified {
    /// Whether the text that somebody showed is the one that was committed.
    pub fn compare_text(&self, shown: &str) -> Option<Finding> {
        let pinned = self.block.as_ref()?.text.as_str();
        let same = pinned.bytes().zip(shown.bytes()).take_while(|(a, b)| a == b).count();
        (pinned != shown).then_some(Finding::OtherText(same))
    }
}
