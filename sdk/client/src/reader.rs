//! What a network's chain and content store tell, without a key.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use alloy::{
    eips::BlockId,
    primitives::{B256, U256},
    providers::Provider,
    rpc::types::Filter,
    sol_types::SolEvent,
};
use assay_bindings::SessionQueue;
use assay_chain::Chain;
use assay_protocol::TaskState;
use assay_store::{ContentStore, KuboStore};
use assay_types::{NodeId, ResultBlock, TaskId};

use crate::{ClientError, Network};

/// Pause between two looks at the chain while something is under way.
const POLL: Duration = Duration::from_millis(200);
/// How far the chain's newest block may be behind our clock, seconds; a chain that stands still longer goes by its own.
const MAX_LAG_S: u64 = 60;

/// A network, read without a key. Clones share its connections.
#[derive(Clone)]
pub struct Reader {
    /// Its chain.
    pub chain: Chain,
    /// Its content store.
    pub store: Arc<dyn ContentStore>,
    /// First block that may hold events of the contracts.
    pub start_block: u64,
}

/// A task, as the chain has it.
#[derive(Clone, Debug)]
pub struct TaskView {
    /// The task.
    pub task: TaskId,
    /// Where it stands.
    pub state: TaskState,
    /// How it was submitted.
    pub submitted: SessionQueue::TaskSubmitted,
    /// Its answers in the order of their commits.
    pub answers: Vec<SessionQueue::TaskCommitted>,
    /// As it stands, which only its events tell: whoever moves it brings this.
    pub current: SessionQueue::Task,
}

/// One answer of a task, read out of the content store.
#[derive(Clone, Debug)]
pub struct AnswerView {
    /// Who answered.
    pub node: NodeId,
    /// What it is paid, minor units.
    pub fee: U256,
    /// sha-256 of the result block.
    pub output_digest: B256,
    /// The result block.
    pub block: ResultBlock,
}

impl Reader {
    /// Connects to a network, and checks that its chain and contracts are there.
    ///
    /// # Errors
    /// If they are not, or the address of the content store is none.
    pub async fn connect(network: &Network) -> Result<Self, ClientError> {
        let chain = Chain::connect(&network.rpc_url, network.deployment.clone()).await?;
        Self::on(chain, network)
    }

    pub(crate) fn on(chain: Chain, network: &Network) -> Result<Self, ClientError> {
        let store = Arc::new(KuboStore::new(&network.ipfs_url)?);
        Ok(Self { chain, store, start_block: network.start_block })
    }

    /// Time of the newest block, unix seconds: what the contracts go by.
    ///
    /// # Errors
    /// If the chain does not answer.
    pub async fn head_time_s(&self) -> Result<u64, ClientError> {
        let head = self.chain.provider.get_block(BlockId::latest()).await?;
        Ok(head.map_or(0, |head| head.header.timestamp))
    }

    /// The time that deadlines are made from, unix seconds: ours, unless the chain's clock is ahead or stands still.
    pub(crate) async fn now_s(&self) -> Result<u64, ClientError> {
        let ours =
            SystemTime::now().duration_since(UNIX_EPOCH).map(|d| d.as_secs()).unwrap_or_default();
        let head = self.head_time_s().await?;
        Ok(head.max(ours.min(head + MAX_LAG_S)))
    }

    /// Events of one task of one kind, oldest first: the contract itself keeps only a hash.
    ///
    /// # Errors
    /// If the chain does not answer, or with something else.
    pub async fn events<E: SolEvent>(&self, task: TaskId) -> Result<Vec<E>, ClientError> {
        events(&self.chain, self.start_block, task).await
    }

    /// Where a task stands; [`TaskState::None`] if the chain does not know it.
    ///
    /// # Errors
    /// If the chain does not answer.
    pub async fn state_of(&self, task: TaskId) -> Result<TaskState, ClientError> {
        let queue = SessionQueue::new(self.chain.deployment.queue, &self.chain.provider);
        let state = queue.statusOf(task.0).call().await?.state;
        Ok(TaskState::try_from(state).unwrap_or(TaskState::None))
    }

    /// A task with its answers' commitments.
    ///
    /// # Errors
    /// If the chain does not know it, or does not answer.
    pub async fn task(&self, task: TaskId) -> Result<TaskView, ClientError> {
        let state = self.state_of(task).await?;
        let submitted = self.events::<SessionQueue::TaskSubmitted>(task).await?.pop();
        let submitted = submitted.ok_or(ClientError::UnknownTask(task))?;
        let moved = self.events::<SessionQueue::TaskMoved>(task).await?.pop();
        let current = moved.map_or_else(|| submitted.task.clone(), |event| event.task);
        let answers = self.events::<SessionQueue::TaskCommitted>(task).await?;
        Ok(TaskView { task, state, submitted, answers, current })
    }

    /// The answers of a task, fetched from the content store.
    ///
    /// # Errors
    /// If one cannot be had, or is no result block.
    pub async fn answers(&self, task: &TaskView) -> Result<Vec<AnswerView>, ClientError> {
        let mut answers = Vec::new();
        for event in &task.answers {
            let bytes = self.store.get(event.outputDigest).await?;
            answers.push(AnswerView {
                node: NodeId(event.nodeId),
                fee: U256::from(event.fee),
                output_digest: event.outputDigest,
                block: ResultBlock::decode(&bytes)?,
            });
        }
        Ok(answers)
    }

    /// Waits until a task has all of its answers, or has ended; at most so long.
    ///
    /// # Errors
    /// If it is refunded, or nobody moves it on in that time.
    pub async fn wait_for_answer(
        &self,
        task: TaskId,
        longest: Duration,
    ) -> Result<TaskView, ClientError> {
        let reached = |state| [TaskState::Committed, TaskState::Settled].contains(&state);
        self.wait_for(task, longest, reached).await
    }

    /// Waits until a task is settled: its nodes are paid, and what it held beyond that is free again.
    ///
    /// # Errors
    /// If it is refunded, or nobody moves it on in that time.
    pub async fn wait_for_settlement(
        &self,
        task: TaskId,
        longest: Duration,
    ) -> Result<TaskView, ClientError> {
        self.wait_for(task, longest, |state| state == TaskState::Settled).await
    }

    async fn wait_for(
        &self,
        task: TaskId,
        longest: Duration,
        reached: impl Fn(TaskState) -> bool,
    ) -> Result<TaskView, ClientError> {
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < longest {
            match self.state_of(task).await? {
                TaskState::Refunded => return Err(ClientError::Refunded(task)),
                state if reached(state) => return self.task(task).await,
                _ => tokio::time::sleep(POLL).await,
            }
        }
        Err(ClientError::Late(task))
    }
}

/// Events of `SessionQueue` about one task of one kind, from a block on, oldest first.
///
/// # Errors
/// If the chain does not answer, or with something else.
pub async fn events<E: SolEvent>(
    chain: &Chain,
    start_block: u64,
    task: TaskId,
) -> Result<Vec<E>, ClientError> {
    let filter = Filter::new()
        .from_block(start_block)
        .address(chain.deployment.queue)
        .event_signature(E::SIGNATURE_HASH)
        .topic1(task.0);
    let logs = chain.provider.get_logs(&filter).await?;
    logs.into_iter().map(|log| Ok(log.log_decode::<E>()?.inner.data)).collect()
}
