//! What a miner reads from the contracts and sends to them.

use std::{future::Future, time::Duration};

use alloy::{
    primitives::{Address, B256, Bytes, U256},
    providers::Provider,
    sol_types::SolCall,
};
use assay_bindings::{Session, SessionQueue};
use assay_chain::{Chain, Intent, Outbox, OutboxError};
use assay_types::{Lane, ModelId, NodeId, SessionId, Signature, TaskId, TaskRequest};
use async_trait::async_trait;

/// Longest time of one read: above it the answer is of no use to an offer.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// A session, as far as a miner needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// The model that it pays for.
    pub model_id: ModelId,
    /// Its reserved nodes.
    pub nodes: Vec<NodeId>,
    /// Whether it takes signed requests now: active or draining.
    pub takes_tasks: bool,
    /// Minor units of COR for a prompt token.
    pub price_in: u128,
    /// Minor units of COR for a generated token.
    pub price_out: u128,
    /// A task whose largest fee is below this is refused: it could not pay the tip of its keeper.
    pub min_fee: u128,
    /// How far ahead a deadline may lie, seconds.
    pub max_deadline_s: u64,
}

/// Where a task stands on chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskStatus {
    /// Never submitted, as far as this chain knows.
    None,
    /// Waits for its answer.
    Assigned,
    /// Answered; settles at this time (unix seconds).
    Committed {
        /// Unix seconds.
        settle_at_s: u64,
    },
    /// Paid.
    Settled,
    /// Given back.
    Refunded,
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
    /// The session; `None` if there is none of this id.
    async fn session(&self, session: SessionId) -> Result<Option<SessionView>, LedgerError>;
    /// Who holds the lane; `None` if there is no such lane.
    async fn lane_holder(
        &self,
        session: SessionId,
        lane: Lane,
    ) -> Result<Option<Address>, LedgerError>;
    /// Value that seeds the session's tasks; zero while it is unknown.
    async fn seed(&self, session: SessionId) -> Result<B256, LedgerError>;
    /// Where a task stands in the newest block.
    async fn task(&self, task: TaskId) -> Result<TaskStatus, LedgerError>;
    /// Answers a task that is on chain. The same key is sent once.
    async fn commit(
        &self,
        key: String,
        task: TaskId,
        answer: SessionQueue::Commit,
    ) -> Result<(), SendError>;
    /// Carries a signed request with its answer. The same key is sent once.
    async fn submit_and_commit(
        &self,
        key: String,
        request: TaskRequest,
        signature: Signature,
        answer: SessionQueue::Commit,
    ) -> Result<(), SendError>;
    /// Settles what is due of these. The same key is sent once.
    async fn settle(&self, key: String, tasks: Vec<TaskId>) -> Result<(), SendError>;
}

/// The contracts of a deployment, written to by the operator's outbox.
pub struct ChainLedger {
    chain: Chain,
    outbox: Outbox,
}

impl ChainLedger {
    /// Reads through `chain` and sends through `outbox`.
    pub fn new(chain: Chain, outbox: Outbox) -> Self {
        Self { chain, outbox }
    }

    async fn send(&self, key: String, call: impl SolCall) -> Result<(), SendError> {
        let intent = Intent {
            key,
            to: self.chain.deployment.queue,
            data: Bytes::from(call.abi_encode()),
            value: U256::ZERO,
        };
        match self.outbox.send(intent).await {
            Ok(_) => Ok(()),
            Err(error) => Err(SendError {
                reverted: matches!(error, OutboxError::Reverted { .. }),
                reason: error.to_string(),
            }),
        }
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

#[async_trait]
impl Ledger for ChainLedger {
    fn chain_id(&self) -> u64 {
        self.chain.chain_id
    }

    fn queue(&self) -> Address {
        self.chain.deployment.queue
    }

    async fn session(&self, session: SessionId) -> Result<Option<SessionView>, LedgerError> {
        let contract = Session::new(self.chain.deployment.sessions, &self.chain.provider);
        let call = "Session.sessionOf";
        let info = read(call, contract.sessionOf(session.0).call().into_future()).await?;
        let queue = SessionQueue::new(self.chain.deployment.queue, &self.chain.provider);
        let tip = read_value("SessionQueue.tip", queue.tip().call().into_future()).await?;
        let call = "SessionQueue.maxDeadline";
        let max_deadline = read_value(call, queue.maxDeadline().call().into_future()).await?;
        Ok(info.map(|info| SessionView {
            model_id: ModelId(info.modelId),
            nodes: info.nodes.into_iter().map(NodeId).collect(),
            takes_tasks: TAKES_TASKS.contains(&info.state),
            price_in: info.priceIn.to::<u128>(),
            price_out: info.priceOut.to::<u128>(),
            min_fee: tip,
            max_deadline_s: max_deadline.to::<u64>(),
        }))
    }

    async fn lane_holder(
        &self,
        session: SessionId,
        lane: Lane,
    ) -> Result<Option<Address>, LedgerError> {
        let contract = Session::new(self.chain.deployment.sessions, &self.chain.provider);
        let call = "Session.laneOf";
        let info = read(call, contract.laneOf(session.0, lane.0).call().into_future()).await?;
        Ok(info.map(|lane| lane.holder).filter(|holder| !holder.is_zero()))
    }

    async fn seed(&self, session: SessionId) -> Result<B256, LedgerError> {
        let contract = Session::new(self.chain.deployment.sessions, &self.chain.provider);
        let call = "Session.seedOf";
        let seed = read(call, contract.seedOf(session.0).call().into_future()).await?;
        Ok(seed.unwrap_or_default())
    }

    async fn task(&self, task: TaskId) -> Result<TaskStatus, LedgerError> {
        let contract = SessionQueue::new(self.chain.deployment.queue, &self.chain.provider);
        let call = "SessionQueue.taskOf";
        let stored = read_value(call, contract.taskOf(task.0).call().into_future()).await?;
        match stored.state {
            0 => Ok(TaskStatus::None),
            1 => Ok(TaskStatus::Assigned),
            2 => Ok(TaskStatus::Committed { settle_at_s: stored.until.to::<u64>() }),
            3 => Ok(TaskStatus::Settled),
            4 => Ok(TaskStatus::Refunded),
            other => Err(LedgerError { call, reason: format!("unknown state {other}") }),
        }
    }

    async fn commit(
        &self,
        key: String,
        task: TaskId,
        answer: SessionQueue::Commit,
    ) -> Result<(), SendError> {
        self.send(key, SessionQueue::commitCall { taskId: task.0, answer }).await
    }

    async fn submit_and_commit(
        &self,
        key: String,
        request: TaskRequest,
        signature: Signature,
        answer: SessionQueue::Commit,
    ) -> Result<(), SendError> {
        let signature = Bytes::from(signature.as_bytes().to_vec());
        let request = request.into();
        self.send(key, SessionQueue::submitAndCommitCall { request, signature, answer }).await
    }

    async fn settle(&self, key: String, tasks: Vec<TaskId>) -> Result<(), SendError> {
        let ids = tasks.into_iter().map(|task| task.0).collect();
        self.send(key, SessionQueue::settleCall { taskIds: ids }).await
    }
}
