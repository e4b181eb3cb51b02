//! One try of a duty: fetches what it needs, examines, sends.
//!
//! What comes from the chain and the content store is hostile: blocks are bounded and hashed by the store, and what does
//! not fit is a finding, not an error.

use std::sync::Arc;

use alloy::{
    primitives::{Address, U256, keccak256, utils::format_ether},
    signers::local::PrivateKeySigner,
};
use assay_bindings::ProofOfInference::{
    Testimony, collectCall, commitAuditCall, commitPanelCall, demandDataCall, revealCall,
    testifyCall,
};
use assay_chain::DatabaseError;
use assay_engine::{Answered, Engine, EngineError, examine};
use assay_proof::{Audit, Calibration, Reasons, Record, Width};
use assay_protocol::{QueueScope, audit::Question, opened};
use assay_store::{Bytes, ContentStore, StoreError};
use assay_types::{
    B256, CommitScope, EndReason, NodeId, RequestBlock, ResultBlock, TaskId, TokenSeal,
};

use super::{
    duty::{Due, Duty, MINER, version},
    evidence::{EvidenceError, Sealed, compared_positions, own_testimony},
    published::Blocks,
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

/// What cannot be fetched is demanded after a sixth of the time that there was: long enough for what is only late, and so
/// early that whoever has no use for a lost audit hears of it.
const PATIENCE: u64 = 5;
/// Seconds that a party of a dispute leaves to each of those before it: about a block of a rollup, so that what one sends
/// is mined before the next one sends.
const TURN_S: u64 = 2;

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
    /// Whether a judgement over an answer that its own model finds true is contested.
    pub appeals: bool,
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
    #[error("an appeal takes {} COR of the owner {owner}, who has less: send it the rest", format_ether(*.amount))]
    NoBond { owner: Address, amount: U256 },
}

/// Its events were told before this database began.
pub(super) const UNKNOWN: Trouble =
    Trouble::Lost("the task was submitted before this node's database began");

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
    /// Tries a duty that was due for `waited_s` seconds. `attempt` counts refusals.
    pub(crate) async fn perform(
        &self,
        (task, miner): Key,
        due: Due,
        (attempt, waited_s): (u32, u64),
    ) -> Outcome {
        let name = due.duty.name();
        let call = match self.prepare((task, miner), due, waited_s).await {
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
    async fn prepare(&self, key: Key, due: Due, waited_s: u64) -> Result<AuditCall, Trouble> {
        let left_s = due.until_s.saturating_sub(self.clock.now_s());
        let is_last_call = left_s <= LAST_CALL_S;
        let is_patient = waited_s.saturating_mul(PATIENCE) < left_s && !is_last_call;
        let reads = match due.duty.seals() {
            // It takes its time, and others may move the audit meanwhile.
            true => self.seal(key, &self.answers.case(key.0)?, is_patient).await?,
            false => true,
        };
        if waited_s < due.ahead.saturating_mul(TURN_S) && !is_last_call {
            return Err(Trouble::NotYet("the turn of this node"));
        }
        let case = self.answers.case(key.0)?;
        let audited = case.audits.get(&key.1.0).filter(|audited| version(audited) == due.version);
        let audited = audited.ok_or(Trouble::NotYet("what the audit stands at now"))?;
        let (audit, parties) = (audited.audit.clone(), audited.parties.clone());
        Ok(match due.duty {
            Duty::Publish => AuditCall::Publish(self.publish(key.0, &case, audited).await?),
            Duty::Open => AuditCall::Open(self.open(key, audited).await?),
            Duty::Appeal => self.appeal(key, &case, audited).await?,
            Duty::Seal | Duty::SealForPanel if !reads => {
                AuditCall::Demand(demandDataCall { _0: audit, _1: parties, _2: self.node.0 })
            }
            Duty::Seal => {
                AuditCall::Seal(commitAuditCall { brought: audit, sealed_: self.sealed(key)? })
            }
            Duty::SealForPanel => AuditCall::SealForPanel(commitPanelCall {
                _0: audit,
                _1: parties,
                _2: self.node.0,
                _3: self.sealed(key)?,
            }),
            Duty::Reveal => AuditCall::Reveal(self.reveal(key, audited, is_last_call).await?),
            Duty::Testify(place) => {
                let testimony = self.testify(key, audited, place).await?;
                AuditCall::Testify(testifyCall {
                    _0: audit,
                    _1: parties,
                    _2: self.node.0,
                    _3: testimony,
                })
            }
            Duty::Collect => AuditCall::Collect(collectCall(audit)),
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

    pub(super) async fn limits(
        &self,
        audited: &Audited,
        class_of: NodeId,
    ) -> Result<Calibration, Trouble> {
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

    // ---------------------------------------------------------------- as validator

    /// H' of what this node has found and stored.
    fn sealed(&self, key: Key) -> Result<B256, Trouble> {
        let sealed = self.answers.sealed(key)?;
        let sealed = sealed.ok_or(Trouble::NotYet("what this node finds"))?;
        Ok(sealed.seal(&self.scope(key.0, self.node), key.1)?)
    }

    /// Stores what this node finds, once, before anybody sees its seal; false if it is to demand request and answer.
    async fn seal(&self, key: Key, case: &Case, is_patient: bool) -> Result<bool, Trouble> {
        if self.answers.sealed(key)?.is_some() {
            return Ok(true);
        }
        let Some(found) = self.find(key, case, is_patient).await? else { return Ok(false) };
        let salt = audit_salt(&self.operator, &self.scope(key.0, self.node), key.1)?;
        self.answers.seal(key, Sealed { found, salt })?;
        Ok(true)
    }

    /// What this node finds; `None` if it cannot read what nobody has demanded yet. Of what is published everybody reads the
    /// same.
    pub(super) async fn find(
        &self,
        (task, miner): Key,
        case: &Case,
        is_patient: bool,
    ) -> Result<Option<Audit>, Trouble> {
        let event = case.answers.get(&miner.0).ok_or(UNKNOWN)?;
        let request_digest = case.request_digest.ok_or(UNKNOWN)?;
        let data = case.audits.get(&miner.0).and_then(|audited| audited.data.as_ref());
        let blocks = match data {
            Some(data) => {
                let blocks = data.blocks(request_digest, event.outputDigest);
                Some(blocks.ok_or(Trouble::NotYet("what was demanded"))?)
            }
            None => self.fetch_blocks(request_digest, event.outputDigest, is_patient).await?,
        };
        let Some(blocks) = blocks else { return Ok(None) };
        let found = self.examine((task, miner), case, &blocks).await?;
        let is_unread = found.statistics().faults.contains(Reasons::IDS);
        Ok((data.is_some() || !is_unread).then_some(found))
    }

    /// Request and answer out of the content store; `None` if one of them cannot be had.
    async fn fetch_blocks(
        &self,
        request: B256,
        result: B256,
        is_patient: bool,
    ) -> Result<Option<Blocks>, Trouble> {
        let Some(request) = self.fetch(request, is_patient).await? else { return Ok(None) };
        let Some(result) = self.fetch(result, is_patient).await? else { return Ok(None) };
        let (request, result) =
            (RequestBlock::decode(&request).ok(), ResultBlock::decode(&result).ok());
        Ok(Some(Blocks { request, result, are_genuine: true }))
    }

    /// A block; `None` if it cannot be had, or is none, and it is no longer the time to be patient.
    async fn fetch(&self, digest: B256, is_patient: bool) -> Result<Option<Bytes>, Trouble> {
        match self.store.get(digest).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::TooLarge { .. }) => Ok(None),
            Err(error) if !is_patient => {
                tracing::warn!(%digest, %error, "a block of an answer cannot be read: it is demanded on chain");
                Ok(None)
            }
            Err(StoreError::NotFound { .. }) => Err(Trouble::NotYet("a block of the answer")),
            Err(error) => Err(error.into()),
        }
    }

    /// What the model thinks of the answer.
    async fn examine(
        &self,
        (task, miner): Key,
        case: &Case,
        blocks: &Blocks,
    ) -> Result<Audit, Trouble> {
        let event = case.answers.get(&miner.0).ok_or(UNKNOWN)?;
        let seal = opened(event).seal();
        let Blocks { request, result, are_genuine } = blocks;
        let Some(request) = request.as_ref().filter(|_| *are_genuine) else {
            tracing::warn!(%task, %miner, are_genuine, "examined: what was answered cannot be read");
            return Ok(unreadable(&seal, result.as_ref().filter(|_| *are_genuine), *are_genuine));
        };
        let beacon = self.value(case.seed_round).await?;
        let answered = Answered {
            scope: self.scope(task, miner),
            beacon,
            seal: &seal,
            request,
            result: result.as_ref(),
            cancel_is_signed: self.cancel_is_signed((task, miner), case, result.as_ref()).await?,
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

    /// Whether the answer is one that the holder of the task's lane has cut short.
    async fn cancel_is_signed(
        &self,
        (task, miner): Key,
        case: &Case,
        result: Option<&ResultBlock>,
    ) -> Result<bool, Trouble> {
        let Some(block) = result.filter(|block| block.end_reason == EndReason::Cancelled) else {
            return Ok(false);
        };
        let Some((session, lane)) = case.lane else { return Ok(false) };
        let holder = self.ledger.holder(session, lane).await?;
        let scope = self.scope(task, miner);
        Ok(holder.is_some_and(|holder| block.is_cancelled_by(&scope, holder)))
    }

    async fn reveal(
        &self,
        key: Key,
        audited: &Audited,
        is_last_call: bool,
    ) -> Result<revealCall, Trouble> {
        let sealed = self.answers.sealed(key)?;
        let sealed = sealed.ok_or(Trouble::Lost(
            "the database does not know what this node sealed: it cannot be opened",
        ))?;
        let value = self.value(audited.audit.round).await?;
        let limits = self.limits(audited, key.1).await?;
        let record = self.record(audited, &sealed, is_last_call).await?;
        let findings = sealed.open(key, value, record.as_ref(), &limits)?;
        Ok(revealCall { brought: audited.audit.clone(), findings })
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
    ) -> Result<Testimony, Trouble> {
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

/// Findings about an answer to what is no request, or to what is not what was asked.
fn unreadable(seal: &TokenSeal, result: Option<&ResultBlock>, is_genuine: bool) -> Audit {
    let ids = result.map_or(&[][..], |block| &block.ids);
    let prompt = if is_genuine { Reasons::PROMPT } else { Reasons::default() };
    let faults = if result.is_some() { prompt } else { prompt | Reasons::IDS };
    Audit::new(seal.output_tokens, ids, &[], Width::default(), faults)
}
