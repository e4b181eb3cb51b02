//! What a miner reads from the contracts and sends to them.

use std::{
    collections::HashMap,
    future::{Future, IntoFuture},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use alloy::{
    primitives::{Address, B256, Bytes, U256, aliases::U96},
    providers::Provider,
    sol_types::SolCall,
};
use assay_bindings::{
    CorToken, ModelRegistry, NodePool, ProofOfInference, RandomBeacon, Session, SessionPayment,
    SessionQueue,
};
use assay_chain::{Chain, Deployment, Intent, Outbox, OutboxError};
use assay_proof::Calibration;
use assay_protocol::TaskState;
use assay_types::{Lane, ModelId, NodeId, NumericClass, SessionId, Signature, TaskId, TaskRequest};
use async_trait::async_trait;

use crate::eip1271;

/// Longest time of one read: above it the answer is of no use to an offer.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Hundredths of a percent in a whole.
const BPS: u64 = 10_000;
/// Sessions whose model is remembered: far above what a node of eight places is reserved for.
const MAX_CACHED: usize = 4096;

/// What decides whether a request is taken; see `Admission` of the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The model that the session pays for.
    pub model_id: ModelId,
    /// Whether it takes signed requests now: active or draining.
    pub takes_tasks: bool,
    /// Who holds the lane; `None` if there is no such lane.
    pub holder: Option<Address>,
    /// Unix seconds after which nothing of the lane is taken; 0 if that is open.
    pub ends_at_s: u64,
    /// The reservation asked for, by its seed round; 0 if it is not, or no longer, served.
    pub seed_round: u64,
    /// Its nodes.
    pub nodes: Vec<NodeId>,
    /// Minor units for a million prompt tokens.
    pub price_in: u128,
    /// Minor units for a million generated tokens.
    pub price_out: u128,
    /// A task whose largest fee is below this is refused: it could not pay the tip of its keeper.
    pub min_fee: u128,
    /// How far ahead a deadline may lie, seconds.
    pub max_deadline_s: u64,
    /// What a node that takes over has, seconds.
    pub attempt_time_s: u64,
    /// What nodes have to open their commitments, seconds.
    pub reveal_time_s: u64,
    /// Nodes that may be asked one after the other.
    pub max_attempts: u8,
}

/// Money of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Funds {
    /// Minor units.
    pub free: u128,
    /// The first nonce that is too far ahead.
    pub nonce_limit: u64,
}

/// Where a task stands in the newest block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskStatus {
    /// Its state.
    pub state: TaskState,
    /// Unix seconds; when the state's time is over.
    pub until_s: u64,
    /// Hash of the rest, see [`assay_protocol::digest`].
    pub digest: B256,
}

/// A transaction of the operator.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Answers a task that is on chain, or opens its precommitment.
    Commit(Box<(SessionQueue::Task, SessionQueue::Answer)>),
    /// Carries a signed request with its answer.
    SubmitAndCommit(Box<(TaskRequest, Signature, SessionQueue::Answer)>),
    /// Precommits.
    Precommit(Box<(SessionQueue::Task, SessionQueue::Precommit)>),
    /// Carries a signed request with this node's precommitment.
    SubmitAndPrecommit(Box<(TaskRequest, Signature, SessionQueue::Precommit)>),
    /// Takes the head of a session's queue, behind tasks that are gone.
    Claim(Box<SessionQueue::Task>, NodeId, Vec<SessionQueue::Task>),
    /// Hands a task back.
    Decline(Box<SessionQueue::Task>, NodeId),
    /// Settles what is due of these.
    Settle(Vec<SessionQueue::Task>),
    /// Moves an audit on.
    Audit(Box<AuditCall>),
}

impl Call {
    /// Minor units of COR that the owner pays with it, if it is the owner's to send.
    fn bond(&self) -> Option<U256> {
        let Self::Audit(call) = self else { return None };
        if let AuditCall::Appeal(_, bond) = **call { Some(bond) } else { None }
    }
}

/// A call of `ProofOfInference`.
#[derive(Clone, Debug, PartialEq)]
pub enum AuditCall {
    /// Opens what the miner recorded.
    Open(ProofOfInference::openProofCall),
    /// Seals what the validator found.
    Seal(ProofOfInference::commitAuditCall),
    /// The same of a panel's member.
    SealForPanel(ProofOfInference::commitPanelCall),
    /// Opens what the validator found.
    Reveal(ProofOfInference::revealCall),
    /// Opens leaves in a hearing.
    Testify(ProofOfInference::testifyCall),
    /// Has the miner publish what cannot be read.
    Demand(ProofOfInference::demandDataCall),
    /// Publishes a piece of that.
    Publish(ProofOfInference::publishDataCall),
    /// Contests a judgement, with the bond that the owner pays: its key sends it. Minor units of COR.
    Appeal(ProofOfInference::appealCall, U256),
    /// Pays the validators.
    Collect(ProofOfInference::collectCall),
}

/// What an appeal takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bond {
    /// Who may appeal, and pays.
    pub owner: Address,
    /// Whether that is this miner's key.
    pub is_ours: bool,
    /// Minor units of COR.
    pub amount: U256,
    /// What the owner has, minor units of COR.
    pub balance: U256,
}

impl AuditCall {
    /// Calldata.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Open(call) => call.abi_encode(),
            Self::Seal(call) => call.abi_encode(),
            Self::SealForPanel(call) => call.abi_encode(),
            Self::Reveal(call) => call.abi_encode(),
            Self::Testify(call) => call.abi_encode(),
            Self::Demand(call) => call.abi_encode(),
            Self::Publish(call) => call.abi_encode(),
            Self::Appeal(call, _) => call.abi_encode(),
            Self::Collect(call) => call.abi_encode(),
        }
    }
}

/// How likely an answer would be audited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odds {
    /// Answers of the session are not proven.
    Unproven,
    /// Nobody could check what a node of this class computes: the contract takes no answer of it.
    Uncalibrated,
    /// Hundredths of a percent; above 10,000 the contract takes no answer.
    Bps(u64),
}

/// An answer that is about to be promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stake {
    /// Who answers.
    pub node: NodeId,
    /// Its numeric class.
    pub class: NumericClass,
    /// What it may cost at most; minor units of the session's asset.
    pub fee: u128,
    /// The same of answers that the chain does not know yet, by session.
    pub promised: Vec<(SessionId, u128)>,
}

/// The chain could not be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the chain did not answer {call}: {reason}; check the RPC address and that the node is up")]
pub struct LedgerError {
    /// What was asked.
    pub call: &'static str,
    /// What came instead.
    pub reason: String,
}

/// A transaction did not do what it should.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct SendError {
    /// What happened and what to do.
    pub reason: String,
    /// True if the contract refused: look at the task again. False if the transaction may not have
    /// reached it.
    pub reverted: bool,
}

/// The contracts, as a miner uses them.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// EIP-155 chain id.
    fn chain_id(&self) -> u64;
    /// `SessionQueue`.
    fn queue(&self) -> Address;
    /// What requests of a lane for a reservation (by its seed round, 0 for the current one) must satisfy; `None` if
    /// there is no such session.
    async fn admission(
        &self,
        session: SessionId,
        lane: Lane,
        seed_round: u64,
    ) -> Result<Option<Admission>, LedgerError>;
    /// The model of a session; `None` if there is no such session.
    async fn model_of(&self, session: SessionId) -> Result<Option<ModelId>, LedgerError>;
    /// Money of a lane.
    async fn funds(&self, session: SessionId, lane: Lane) -> Result<Funds, LedgerError>;
    /// Who holds, or held, a lane; `None` if there is no such lane.
    async fn holder(&self, session: SessionId, lane: Lane) -> Result<Option<Address>, LedgerError> {
        let admission = self.admission(session, lane, 0).await?;
        Ok(admission.and_then(|admission| admission.holder))
    }
    /// Whether a contract says by EIP-1271 that this is its signature, within the gas that `SessionQueue` gives it.
    async fn is_signed(&self, by: Address, of: (B256, &Signature)) -> Result<bool, LedgerError>;
    /// Value of a beacon round; zero while it is unknown.
    async fn seed(&self, round: u64) -> Result<B256, LedgerError>;
    /// Where a task stands in the newest block.
    async fn status(&self, task: TaskId) -> Result<TaskStatus, LedgerError>;
    /// How likely an answer in a session would be audited.
    async fn odds(&self, session: SessionId, stake: Stake) -> Result<Odds, LedgerError>;
    /// What an honest miner and a validator of `class` may differ by, with a model by its index; `None` if nobody
    /// calibrated that.
    async fn limits(
        &self,
        model: u32,
        miner: NodeId,
        class: NumericClass,
    ) -> Result<Option<Calibration>, LedgerError>;
    /// What an appeal of a node takes.
    async fn bond(&self, node: NodeId) -> Result<Bond, LedgerError>;
    /// The ticket at the head of a session's queue.
    async fn queue_head(&self, session: SessionId) -> Result<u64, LedgerError>;
    /// Sends a transaction. The same key is sent once.
    async fn send(&self, key: String, call: Call) -> Result<(), SendError>;
}

/// The contracts of a deployment, written to by the operator's outbox, and for what is the owner's alone by the owner's.
pub struct ChainLedger {
    chain: Chain,
    outbox: Outbox,
    owner: Outbox,
    sessions: Mutex<HashMap<SessionId, SessionFacts>>,
}

/// What never changes of a session.
#[derive(Clone, Copy)]
struct SessionFacts {
    model_id: ModelId,
    model: u32,
    asset: u8,
    is_proven: bool,
}

impl ChainLedger {
    /// Reads through `chain` and sends through `outbox`; `owner` is the same one, or that of a key of the owner's own.
    pub fn new(chain: Chain, outbox: Outbox, owner: Outbox) -> Self {
        Self { chain, outbox, owner, sessions: Mutex::default() }
    }

    /// Lets the contracts take a bond from the owner.
    async fn allow(&self, amount: U256) -> Result<(), SendError> {
        let (at, owner) = (&self.chain.deployment, self.owner.address());
        let token = CorToken::new(at.token, &self.chain.provider);
        let asked = token.allowance(owner, at.payment);
        let failed = |error: LedgerError| SendError { reason: error.to_string(), reverted: false };
        let allowed = read_value("CorToken.allowance", asked.call().into_future()).await;
        if allowed.map_err(failed)? >= amount {
            return Ok(());
        }
        let data = CorToken::approveCall { spender: at.payment, value: amount }.abi_encode();
        let failed = |error: LedgerError| SendError { reason: error.to_string(), reverted: false };
        let (block, _) = head(&self.chain).await.map_err(failed)?;
        // Each is a transaction of its own: an earlier one may be used up.
        sent(&self.owner, Intent::call(format!("approve:{owner}:{block}"), at.token, data)).await
    }

    async fn session(&self, session: SessionId) -> Result<Option<SessionFacts>, LedgerError> {
        let lock = || self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(&session).copied();
        if known.is_some() {
            return Ok(known);
        }
        let contract = Session::new(self.chain.deployment.sessions, &self.chain.provider);
        let call = "Session.sessionOf";
        let info = read(call, contract.sessionOf(session.0).call().into_future()).await?;
        let Some(info) = info else { return Ok(None) };
        let models = ModelRegistry::new(self.chain.deployment.models, &self.chain.provider);
        let call = "ModelRegistry.modelAt";
        let model = read_value(call, models.modelAt(info.model).call().into_future()).await?;
        let facts = SessionFacts {
            model_id: ModelId(model.modelId),
            model: info.model,
            asset: info.asset,
            is_proven: info.isProven,
        };
        let mut cache = lock();
        if cache.len() >= MAX_CACHED {
            cache.clear();
        }
        cache.insert(session, facts);
        Ok(Some(facts))
    }

    /// The word of a pair of classes; zero if it is not calibrated.
    async fn calibration(
        &self,
        model: u32,
        miner: NumericClass,
        validator: NumericClass,
    ) -> Result<U256, LedgerError> {
        let models = ModelRegistry::new(self.chain.deployment.models, &self.chain.provider);
        let asked = models.calibrationOf(model, miner.0, validator.0);
        read_value("ModelRegistry.calibrationOf", asked.call().into_future()).await
    }
}

/// Bounds a read in time. A revert is `None`: the views revert for what does not exist.
pub(crate) async fn read<T>(
    call: &'static str,
    future: impl Future<Output = Result<T, alloy::contract::Error>>,
) -> Result<Option<T>, LedgerError> {
    let failed = |reason: String| LedgerError { call, reason };
    match tokio::time::timeout(READ_TIMEOUT, future).await {
        Ok(Ok(value)) => Ok(Some(value)),
        Ok(Err(error)) if error.as_revert_data().is_some() => Ok(None),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("no answer within {} s", READ_TIMEOUT.as_secs()))),
    }
}

/// What an appeal takes, minor units of COR: a share of what the judgement would take of the stake.
pub fn appeal_bond(stake: U256, slash_bps: u16, appeal_bps: u16) -> U256 {
    let part = |amount: U256, bps: u16| amount.saturating_mul(U256::from(bps)) / U256::from(BPS);
    part(part(stake, slash_bps), appeal_bps)
}

/// The same for a view that never reverts on a chain with the contracts.
pub(crate) async fn read_value<T>(
    call: &'static str,
    future: impl Future<Output = Result<T, alloy::contract::Error>>,
) -> Result<T, LedgerError> {
    let missing = LedgerError { call, reason: "the contract refused the call".into() };
    read(call, future).await?.ok_or(missing)
}

/// The newest block: number and time (unix seconds).
pub(crate) async fn head(chain: &Chain) -> Result<(u64, u64), LedgerError> {
    let call = "eth_getBlockByNumber";
    let block = tokio::time::timeout(
        READ_TIMEOUT,
        chain.provider.get_block_by_number(alloy::eips::BlockNumberOrTag::Latest).into_future(),
    );
    let failed = |reason: String| LedgerError { call, reason };
    match block.await {
        Ok(Ok(Some(block))) => Ok((block.header.number, block.header.timestamp)),
        Ok(Ok(None)) => Err(failed("there is no latest block".into())),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("no answer within {} s", READ_TIMEOUT.as_secs()))),
    }
}

/// `SessionState`: 2 is active, 3 draining.
const TAKES_TASKS: [u8; 2] = [2, 3];
/// Nodes of a reservation at most, and the bits of each in `Admission.nodes`.
const MAX_NODES: usize = 8;
const NODE_BITS: usize = 32;

fn unpack(nodes: U256) -> Vec<NodeId> {
    (0..MAX_NODES)
        .map(|i| NodeId(((nodes >> (NODE_BITS * i)) & U256::from(u32::MAX)).to::<u32>()))
        .take_while(|node| node.0 != 0)
        .collect()
}

/// What is sent, and where it goes.
fn intent(key: String, call: Call, at: &Deployment) -> Intent {
    let bytes = |signature: Signature| Bytes::from(signature.as_bytes().to_vec());
    let data = match call {
        Call::Commit(of) => {
            let (task, answer) = *of;
            SessionQueue::commitCall { task, answers: vec![answer] }.abi_encode()
        }
        Call::SubmitAndCommit(of) => {
            let (request, signature, answer) = *of;
            let (request, signature) = (request.into(), bytes(signature));
            SessionQueue::submitAndCommitCall { request, signature, answer }.abi_encode()
        }
        Call::Precommit(of) => {
            let (task, precommit) = *of;
            SessionQueue::precommitCall { task, precommits: vec![precommit] }.abi_encode()
        }
        Call::SubmitAndPrecommit(of) => {
            let (request, signature, precommit) = *of;
            let (request, signature) = (request.into(), bytes(signature));
            let precommits = vec![precommit];
            SessionQueue::submitAndPrecommitCall { request, signature, precommits }.abi_encode()
        }
        Call::Claim(task, node, gone) => {
            SessionQueue::claimCall { task: *task, nodeId: node.0, gone }.abi_encode()
        }
        Call::Decline(task, node) => {
            let signature = Bytes::new();
            SessionQueue::declineCall { task: *task, nodeId: node.0, signature }.abi_encode()
        }
        Call::Settle(tasks) => return Intent::settle(key, at.queue, tasks),
        Call::Audit(call) => return Intent::call(key, at.proof, call.encode()),
    };
    Intent::call(key, at.queue, data)
}

#[async_trait]
impl Ledger for ChainLedger {
    fn chain_id(&self) -> u64 {
        self.chain.chain_id
    }

    fn queue(&self) -> Address {
        self.chain.deployment.queue
    }

    async fn admission(
        &self,
        session: SessionId,
        lane: Lane,
        seed_round: u64,
    ) -> Result<Option<Admission>, LedgerError> {
        let contract = Session::new(self.chain.deployment.sessions, &self.chain.provider);
        let call = "Session.admissionOf";
        let asked = contract.admissionOf(session.0, lane.0, seed_round);
        let (model, found) =
            tokio::try_join!(self.model_of(session), read_value(call, asked.call().into_future()))?;
        let Some(model_id) = model else { return Ok(None) };
        Ok(Some(Admission {
            model_id,
            takes_tasks: TAKES_TASKS.contains(&found.state),
            holder: Some(found.holder).filter(|holder| !holder.is_zero()),
            ends_at_s: found.endsAt.to::<u64>(),
            seed_round: found.seedRound,
            nodes: unpack(found.nodes),
            price_in: found.priceIn.to::<u128>(),
            price_out: found.priceOut.to::<u128>(),
            min_fee: found.tip.to::<u128>(),
            max_deadline_s: found.maxDeadline.to::<u64>(),
            attempt_time_s: found.attemptTime.to::<u64>(),
            reveal_time_s: found.revealTime.to::<u64>(),
            max_attempts: found.maxAttempts,
        }))
    }

    async fn model_of(&self, session: SessionId) -> Result<Option<ModelId>, LedgerError> {
        Ok(self.session(session).await?.map(|facts| facts.model_id))
    }

    async fn odds(&self, session: SessionId, stake: Stake) -> Result<Odds, LedgerError> {
        let Some(facts) = self.session(session).await?.filter(|facts| facts.is_proven) else {
            return Ok(Odds::Unproven);
        };
        let Stake { node, class, mut fee, promised } = stake;
        for (session, promised) in promised {
            // Other assets are counted once they are on chain: what they are worth is the contract's to say.
            let other = self.session(session).await?.is_none_or(|of| of.asset != facts.asset);
            fee = fee.saturating_add(if other { 0 } else { promised });
        }
        let proof = ProofOfInference::new(self.chain.deployment.proof, &self.chain.provider);
        let fee = U96::saturating_from(fee);
        let asked = proof.probabilityOf(node.0, facts.model, facts.asset, fee);
        let call = "ProofOfInference.probabilityOf";
        let (word, bps) = tokio::try_join!(
            self.calibration(facts.model, class, class),
            read_value(call, asked.call().into_future()),
        )?;
        Ok(if word.is_zero() { Odds::Uncalibrated } else { Odds::Bps(bps.saturating_to()) })
    }

    async fn limits(
        &self,
        model: u32,
        miner: NodeId,
        class: NumericClass,
    ) -> Result<Option<Calibration>, LedgerError> {
        let pool = NodePool::new(self.chain.deployment.nodes, &self.chain.provider);
        let call = "NodePool.ownerOf";
        let found = read_value(call, pool.ownerOf(miner.0).call().into_future()).await?;
        let word = self.calibration(model, NumericClass(found.numericClass), class).await?;
        Ok(Calibration::unpack(word).ok())
    }

    async fn funds(&self, session: SessionId, lane: Lane) -> Result<Funds, LedgerError> {
        let contract = SessionPayment::new(self.chain.deployment.payment, &self.chain.provider);
        let (funds, window) = (contract.fundsOf(session.0, lane.0), contract.nonceWindow());
        let (funds, window) = tokio::try_join!(
            read_value("SessionPayment.fundsOf", funds.call().into_future()),
            read_value("SessionPayment.nonceWindow", window.call().into_future()),
        )?;
        let nonce_limit = funds.nextNonce.saturating_add(window);
        Ok(Funds { free: funds.free.to::<u128>(), nonce_limit })
    }

    async fn is_signed(&self, by: Address, of: (B256, &Signature)) -> Result<bool, LedgerError> {
        eip1271::is_signed(&self.chain, by, of).await
    }

    async fn seed(&self, round: u64) -> Result<B256, LedgerError> {
        let beacon = RandomBeacon::new(self.chain.deployment.beacon, &self.chain.provider);
        read_value("RandomBeacon.valueOf", beacon.valueOf(round).call().into_future()).await
    }

    async fn status(&self, task: TaskId) -> Result<TaskStatus, LedgerError> {
        let contract = SessionQueue::new(self.chain.deployment.queue, &self.chain.provider);
        let call = "SessionQueue.statusOf";
        let found = read_value(call, contract.statusOf(task.0).call().into_future()).await?;
        let unknown = |state| LedgerError { call, reason: format!("unknown state {state}") };
        Ok(TaskStatus {
            state: TaskState::try_from(found.state).map_err(unknown)?,
            until_s: found.until.to::<u64>(),
            digest: found.digest,
        })
    }

    async fn bond(&self, node: NodeId) -> Result<Bond, LedgerError> {
        let at = &self.chain.deployment;
        let proof = ProofOfInference::new(at.proof, &self.chain.provider);
        let payment = SessionPayment::new(at.payment, &self.chain.provider);
        let pool = NodePool::new(at.nodes, &self.chain.provider);
        let (config, stake, owner) =
            (proof.config(), payment.stakeOf(node.0), pool.ownerOf(node.0));
        let (config, stake, owner) = tokio::try_join!(
            read_value("ProofOfInference.config", config.call().into_future()),
            read_value("SessionPayment.stakeOf", stake.call().into_future()),
            read_value("NodePool.ownerOf", owner.call().into_future()),
        )?;
        let owner = owner.owner;
        let token = CorToken::new(at.token, &self.chain.provider);
        let balance = token.balanceOf(owner);
        let balance = read_value("CorToken.balanceOf", balance.call().into_future()).await?;
        Ok(Bond {
            owner,
            is_ours: owner == self.owner.address(),
            amount: appeal_bond(stake, config.slashBps, config.appealBps),
            balance,
        })
    }

    async fn queue_head(&self, session: SessionId) -> Result<u64, LedgerError> {
        let contract = SessionQueue::new(self.chain.deployment.queue, &self.chain.provider);
        let call = "SessionQueue.ticketsOf";
        Ok(read_value(call, contract.ticketsOf(session.0).call().into_future()).await?.head)
    }

    async fn send(&self, key: String, call: Call) -> Result<(), SendError> {
        let outbox = match call.bond() {
            Some(bond) => {
                self.allow(bond).await?;
                &self.owner
            }
            None => &self.outbox,
        };
        sent(outbox, intent(key, call, &self.chain.deployment)).await
    }
}

async fn sent(outbox: &Outbox, intent: Intent) -> Result<(), SendError> {
    match outbox.send(intent).await {
        Ok(_) => Ok(()),
        Err(error) => Err(SendError {
            reverted: matches!(error, OutboxError::Reverted { .. }),
            reason: error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_read_out_of_their_word() {
        assert!(unpack(U256::ZERO).is_empty());
        let two = U256::from(7) | (U256::from(u32::MAX) << 32);
        assert_eq!(unpack(two), [NodeId(7), NodeId(u32::MAX)]);
        assert_eq!(unpack(U256::MAX).len(), MAX_NODES);
    }
}
