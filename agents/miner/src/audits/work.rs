//! One try of a duty: fetches what it needs, examines, sends.
//!
//! What comes from the chain and the content store is hostile: blocks are bounded and hashed by the store, and what does
//! not fit is a finding, not an error.

use std::sync::Arc;

use alloy::{primitives::keccak256, signers::local::PrivateKeySigner};
use assay_bindings::{ProofOfInference, SessionQueue};
use assay_chain::DatabaseError;
use assay_engine::{Answered, Engine, EngineError, examine};
use assay_proof::{Audit, Calibration, Reasons, Record, Width};
use assay_protocol::{QueueScope, audit::Question, opened};
use assay_store::{Bytes, ContentStore, StoreError};
use assay_types::{B256, CommitScope, NodeId, RequestBlock, ResultBlock, TaskId, TokenSeal};

use super::{
    duty::{Due, Duty, MINER},
    evidence::{EvidenceError, Sealed, compared_positions, own_testimony},
    state::{Key, Outcome},
    told::{Audited, Case},
};
use crate::{
    answers::Answers,
    clock::ChainClock,
    ledger::{AuditCall, Call, Ledger, LedgerError},
    salts::audit_salt,
    status::Stats,
};

/// Seconds before its time is over that a duty is done with what there is: a few blocks of a slow rollup, and the time
/// that the model needs.
const LAST_CALL_S: u64 = 12;

/// What duties are done with.
pub(crate) struct Auditor {
    pub node: NodeId,
    pub operator: PrivateKeySigner,
    pub ledger: Arc<dyn Ledger>,
    pub engine: Arc<dyn Engine>,
    pub store: Arc<dyn ContentStore>,
    pub answers: Answers,
    pub clock: Arc<ChainClock>,
    pub stats: Arc<Stats>,
}

/// Why a duty is not done yet, or cannot be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// It will be there soon.
    #[error("{0} is not there yet")]
    NotYet(&'static str),
    /// It was to be there.
    #[error("{0}")]
    Lost(&'static str),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    #[error("the operator's key does not sign: {0}")]
    Key(#[from] alloy::signers::Error),
}

impl Trouble {
    fn outcome(&self) -> Outcome {
        match self {
            Self::NotYet(_) => Outcome::Waiting,
            Self::Lost(_) | Self::Evidence(_) => Outcome::Impossible,
            _ => Outcome::Failed,
        }
    }
}

/// Why there is no block under a digest.
enum Missing {
    /// Nobody has it.
    Nobody,
    /// What is there is too large for a block.
    NoBlock,
}

impl Auditor {
    /// Tries a duty. `attempt` counts refusals.
    pub(crate) async fn perform(&self, (task, miner): Key, due: Due, attempt: u32) -> Outcome {
        let name = due.duty.name();
        let call = match self.prepare((task, miner), due).await {
            Ok(call) => call,
            Err(trouble) => {
                let outcome = trouble.outcome();
                if outcome == Outcome::Waiting {
                    tracing::debug!(%task, %miner, duty = name, %trouble, "an audit waits");
                } else {
                    tracing::warn!(%task, %miner, duty = name, %trouble, "a duty of an audit is not done yet");
                    self.stats.error(format!("{name} in the audit of task {task}: {trouble}"));
                }
                return outcome;
            }
        };
        // Different calldata is another transaction.
        let key = format!("{name}:{task}:{miner}:{}:{attempt}", keccak256(call.encode()));
        match self.ledger.send(key, Call::Audit(Box::new(call))).await {
            Ok(()) => Outcome::Sent,
            Err(error) if error.reverted => {
                tracing::info!(%task, %miner, duty = name, %error, "the audit was moved meanwhile, or its time has not come");
                Outcome::Refused
            }
            Err(error) => {
                tracing::warn!(%task, %miner, duty = name, %error, "a transaction of an audit did not get through");
                self.stats.error(format!("{name} in the audit of task {task}: {error}"));
                Outcome::Failed
            }
        }
    }

    /// The transaction of a duty.
    async fn prepare(&self, key: Key, due: Due) -> Result<AuditCall, Trouble> {
        let case = self.answers.case(key.0)?;
        let Some(audited) = case.audits.get(&key.1.0) else {
            return Err(Trouble::NotYet("the audit"));
        };
        let is_last_call = self.clock.now_s().saturating_add(LAST_CALL_S) >= due.until_s;
        let audit = audited.audit.clone();
        let parties = audited.parties.clone();
        Ok(match due.duty {
            Duty::Open => AuditCall::Open(self.open(key, audited).await?),
            Duty::Seal => {
                let sealed_ = self.seal(key, &case, is_last_call).await?;
                AuditCall::Seal(ProofOfInference::commitAuditCall { brought: audit, sealed_ })
            }
            Duty::SealForPanel => {
                let sealed_ = self.seal(key, &case, is_last_call).await?;
                AuditCall::SealForPanel(ProofOfInference::commitPanelCall {
                    _0: audit,
                    _1: parties,
                    _2: self.node.0,
                    _3: sealed_,
                })
            }
            Duty::Reveal => AuditCall::Reveal(self.reveal(key, audited, is_last_call).await?),
            Duty::Testify(place) => {
                let testimony = self.testify(key, audited, place).await?;
                AuditCall::Testify(ProofOfInference::testifyCall {
                    _0: audit,
                    _1: parties,
                    _2: self.node.0,
                    _3: testimony,
                })
            }
            Duty::Collect => AuditCall::Collect(ProofOfInference::collectCall(audit)),
        })
    }

    fn scope(&self, task: TaskId, node: NodeId) -> CommitScope {
        let queue = QueueScope { chain_id: self.ledger.chain_id(), queue: self.ledger.queue() };
        queue.commit_scope(task, node)
    }

    /// The value of a round; it is waited for.
    async fn value(&self, round: u64) -> Result<B256, Trouble> {
        let value = self.ledger.seed(round).await?;
        if value.is_zero() { Err(Trouble::NotYet("the round's value")) } else { Ok(value) }
    }

    async fn limits(&self, audited: &Audited, class_of: NodeId) -> Result<Calibration, Trouble> {
        let class = self.engine.info().numeric_class;
        let limits = self.ledger.limits(audited.audit.model, class_of, class).await?;
        limits.ok_or(Trouble::Lost("the pair of numeric classes is not calibrated"))
    }

    /// A block by its digest. `Ok(Err(..))` is what the miner, or whoever asked, has to answer for.
    async fn block(&self, digest: B256) -> Result<Result<Bytes, Missing>, Trouble> {
        match self.store.get(digest).await {
            Ok(bytes) => Ok(Ok(bytes)),
            Err(StoreError::NotFound { .. }) => Ok(Err(Missing::Nobody)),
            Err(StoreError::TooLarge { .. }) => Ok(Err(Missing::NoBlock)),
            Err(error) => Err(error.into()),
        }
    }

    // ---------------------------------------------------------------- the own answer

    /// Its proof, once its contrasts are where everybody finds them.
    async fn open(
        &self,
        (task, _): Key,
        audited: &Audited,
    ) -> Result<ProofOfInference::openProofCall, Trouble> {
        let answer = self.answers.answer(task)?;
        let answer = answer.ok_or(Trouble::Lost(
            "the database does not know the answer that the chain has of this node: its proof cannot be opened",
        ))?;
        let digest = self.store.put(answer.proof_block.clone().into()).await?;
        Ok(ProofOfInference::openProofCall {
            brought: audited.audit.clone(),
            answer: answer_of(&answer.answer),
            root: answer.proof.root,
            salt: answer.proof.salt,
            proofDigest: digest,
        })
    }

    /// What this node recorded of its own answer.
    async fn own_record(&self, task: TaskId) -> Result<Record, Trouble> {
        let answer = self.answers.answer(task)?.ok_or(Trouble::Lost("the answer is not known"))?;
        let block = self.store.get(answer.answer.outputDigest).await?;
        let lost = || Trouble::Lost("what this node recorded is not what it sealed");
        let result = ResultBlock::decode(&block).map_err(|_| lost())?;
        let width = width_of(answer.proof_block.len(), result.ids.len()).ok_or_else(lost)?;
        Record::open(&answer.proof_block, result.ids, width, answer.proof.root).map_err(|_| lost())
    }

    // ---------------------------------------------------------------- as validator

    /// H' of what this node finds: what it has stored, or else what it finds now and stores before anybody sees its seal.
    async fn seal(&self, key: Key, case: &Case, is_last_call: bool) -> Result<B256, Trouble> {
        let scope = self.scope(key.0, self.node);
        let sealed = match self.answers.sealed(key)? {
            Some(sealed) => sealed,
            None => {
                let found = self.examine(key, case, is_last_call).await?;
                let salt = audit_salt(&self.operator, &scope, key.1)?;
                self.answers.seal(key, Sealed { found, salt })?
            }
        };
        Ok(sealed.seal(&scope, key.1)?)
    }

    /// What the model thinks of the answer.
    async fn examine(
        &self,
        (task, miner): Key,
        case: &Case,
        is_last_call: bool,
    ) -> Result<Audit, Trouble> {
        let unknown = || Trouble::Lost("the task was submitted before this node's database began");
        let event = case.answers.get(&miner.0).ok_or_else(unknown)?;
        let request_digest = case.request_digest.ok_or_else(unknown)?;
        let seal = opened(event).seal();
        let beacon = self.value(case.seed_round).await?;
        let request = match self.block(request_digest).await? {
            Ok(bytes) => RequestBlock::decode(&bytes).ok(),
            Err(Missing::NoBlock) => None,
            // Who cannot see the question says nothing about the answer: an accusation that others refute costs all
            // of the stake, a duty that is not done a little of it.
            Err(Missing::Nobody) => return Err(Trouble::NotYet("the request block")),
        };
        let result = match self.block(event.outputDigest).await? {
            Ok(bytes) => ResultBlock::decode(&bytes).ok(),
            Err(Missing::Nobody) if !is_last_call => {
                return Err(Trouble::NotYet("the result block"));
            }
            Err(_) => None,
        };
        let Some(request) = request else {
            // What is no request was not answered by any model.
            tracing::warn!(%task, %miner, "examined: the request that was answered is none");
            return Ok(unreadable(&seal, result.as_ref()));
        };
        let answered = Answered {
            scope: self.scope(task, miner),
            beacon,
            seal: &seal,
            request: &request,
            result: result.as_ref(),
            cancel_is_signed: false,
        };
        let found = examine(self.engine.as_ref(), &answered, Width::default()).await?;
        let statistics = found.audit.statistics();
        let faults: Vec<String> = found.faults.iter().map(ToString::to_string).collect();
        tracing::info!(
            %task, %miner, tokens = statistics.tokens, max_margin = statistics.max_margin,
            margin_sum = statistics.margin_sum, ?faults, "examined the answer of another node"
        );
        Ok(found.audit)
    }

    async fn reveal(
        &self,
        key: Key,
        audited: &Audited,
        is_last_call: bool,
    ) -> Result<ProofOfInference::revealCall, Trouble> {
        let sealed = self.answers.sealed(key)?;
        let sealed = sealed.ok_or(Trouble::Lost(
            "the database does not know what this node sealed: it cannot be opened",
        ))?;
        let value = self.value(audited.audit.round).await?;
        let limits = self.limits(audited, key.1).await?;
        let record = self.record(audited, &sealed, is_last_call).await?;
        let findings = sealed.open(key, value, record.as_ref(), &limits)?;
        Ok(ProofOfInference::revealCall { brought: audited.audit.clone(), findings })
    }

    /// What the miner recorded; `None` if it cannot be had, or is not what it sealed.
    async fn record(
        &self,
        audited: &Audited,
        sealed: &Sealed,
        is_last_call: bool,
    ) -> Result<Option<Record>, Trouble> {
        let Some(digest) = audited.proof_digest else { return Ok(None) };
        let bytes = match self.block(digest).await? {
            Ok(bytes) => bytes,
            Err(Missing::Nobody) if !is_last_call => {
                return Err(Trouble::NotYet("the miner's proof block"));
            }
            Err(_) => return Ok(None),
        };
        let ids: Vec<u32> = sealed.found.findings().iter().map(|found| found.token).collect();
        let record = Record::open(&bytes, ids, Width::default(), audited.audit.root);
        if let Err(error) = &record {
            let (task, miner) = (audited.audit.taskId, audited.audit.nodeId);
            tracing::warn!(%task, miner, %error, "the miner's proof is not what it sealed");
        }
        Ok(record.ok())
    }

    // ---------------------------------------------------------------- in a dispute

    async fn testify(
        &self,
        key: Key,
        audited: &Audited,
        place: usize,
    ) -> Result<ProofOfInference::Testimony, Trouble> {
        let audit = &audited.audit;
        let question = Question::of(Reasons(audit.reasons));
        let value = match question {
            Question::Weights => self.value(audit.round).await?,
            _ => B256::ZERO,
        };
        let positions = compared_positions(audit, question, value)?;
        if place == MINER {
            return Ok(own_testimony(&self.own_record(key.0).await?, &positions)?);
        }
        let sealed = self.answers.sealed(key)?;
        let sealed = sealed.ok_or(Trouble::Lost(
            "the database does not know what this node sealed: it cannot be opened",
        ))?;
        Ok(sealed.testimony(&positions)?)
    }
}

/// Findings about an answer to what is no request.
fn unreadable(seal: &TokenSeal, result: Option<&ResultBlock>) -> Audit {
    let ids = result.map_or(&[][..], |block| &block.ids);
    let reasons = if result.is_some() { Reasons::PROMPT } else { Reasons::PROMPT | Reasons::IDS };
    Audit::new(seal.output_tokens, ids, &[], Width::default(), reasons)
}

/// Contrasts of a position, from the length of a proof block.
fn width_of(bytes: usize, tokens: usize) -> Option<Width> {
    [Width::Two, Width::Four].into_iter().find(|width| width.bytes() * tokens == bytes)
}

/// The same answer, for the other contract.
fn answer_of(answer: &SessionQueue::Answer) -> ProofOfInference::Answer {
    ProofOfInference::Answer {
        nodeId: answer.nodeId,
        outputDigest: answer.outputDigest,
        promptHash: answer.promptHash,
        promptTokens: answer.promptTokens,
        outputTokens: answer.outputTokens,
        numericClass: answer.numericClass,
        endReason: answer.endReason,
        salt: answer.salt,
        proofSeal: answer.proofSeal,
        signature: answer.signature.clone(),
    }
}
