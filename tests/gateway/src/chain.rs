//! A constant chain: takes every task, has it in its next block, and settles it once its answer is there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use assay_protocol::money::TOKENS_PER_PRICE;
use assay_router::{
    BlockUpdate,
    book::{
        facts::{Fact, Observed, Submitted},
        service::BlockChange,
    },
    ports::{ChainPort, Mined, PortError},
};
use assay_types::{
    Address, B256, Lane, ModelId, ModelIndex, NodeId, Nonce, SessionId, TaskId, TaskRequest,
};
use async_trait::async_trait;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{answer::WORDS, node};

/// EIP-155 id.
pub const CHAIN_ID: u64 = 31_337;
/// Sessions: between two blocks a lane takes 256 tasks, and no chain's limit is measured here.
pub const SESSIONS: u64 = 64;
/// The router's lane in each.
pub const LANE: Lane = Lane(1);
/// Time between two blocks.
const BLOCK_TIME: Duration = Duration::from_millis(50);
/// Minor units for a token.
const PRICE: u128 = 2;

/// `SessionQueue`.
pub fn queue() -> Address {
    Address::repeat_byte(0x42)
}

/// The model of all sessions.
pub fn model_id() -> ModelId {
    ModelId(B256::repeat_byte(0x11))
}

/// The chain. Cheap to clone.
#[derive(Clone, Default)]
pub struct ConstantChain(Arc<Mutex<Pending>>);

#[derive(Default)]
struct Pending {
    submitted: Vec<(TaskId, TaskRequest)>,
    /// On chain, without an answer.
    open: HashMap<TaskId, TaskRequest>,
    answered: Vec<(TaskId, B256)>,
}

impl ConstantChain {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node has pinned its answer: it is committed and settled in the next block that has its task.
    pub fn answered(&self, task: TaskId, digest: B256) {
        self.pending().answered.push((task, digest));
    }

    /// Makes blocks until `stop`.
    pub async fn run(
        self,
        holder: Address,
        blocks: mpsc::Sender<BlockUpdate>,
        stop: CancellationToken,
    ) {
        let mut ticks = interval(BLOCK_TIME);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut facts = opening(holder);
        for number in 1.. {
            let facts = std::mem::take(&mut facts).into_iter().chain(self.facts());
            let hash = hash_of(number);
            let facts = facts.map(|fact| (hash, fact)).collect();
            let observed = Observed { number, hash, timestamp: number, facts };
            let change = BlockChange::Committed(observed);
            let update = BlockUpdate { change, cursor: Box::new(|_| Ok(())) };
            if blocks.send(update).await.is_err() {
                return;
            }
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn facts(&self) -> Vec<Fact> {
        let mut pending = self.pending();
        let mut facts = Vec::new();
        for (task, request) in std::mem::take(&mut pending.submitted) {
            facts.push(submitted(task, &request));
            pending.open.insert(task, request);
        }
        for (task, digest) in std::mem::take(&mut pending.answered) {
            match pending.open.remove(&task) {
                Some(request) => facts.extend(settled(task, &request, digest)),
                None => pending.answered.push((task, digest)),
            }
        }
        facts
    }
}

fn hash_of(number: u64) -> B256 {
    B256::left_padding_from(&number.to_be_bytes())
}

/// Sessions with all nodes, a lane of each for `holder`, and the seed of their reservation.
fn opening(holder: Address) -> Vec<Fact> {
    let (index, round) = (ModelIndex(1), 1);
    let nodes: Vec<NodeId> = (1..=node::MAX_NODES).map(NodeId).collect();
    let mut facts = vec![Fact::ModelRegistered { index, model: model_id() }];
    for session in (1..=SESSIONS).map(SessionId) {
        let price = PRICE * TOKENS_PER_PRICE;
        facts.extend([
            Fact::SessionOpened { session, model: index, price_in: price, price_out: price },
            Fact::LaneAdded { session, lane: LANE, holder, allotment: u128::MAX },
            Fact::SessionActivated {
                session,
                seed_round: round,
                nodes: nodes.clone(),
                previous_until: 0,
            },
        ]);
    }
    facts.push(Fact::RoundRevealed { round, value: B256::repeat_byte(0x99) });
    facts
}

fn submitted(task: TaskId, request: &TaskRequest) -> Fact {
    Fact::TaskSubmitted(Submitted {
        task,
        session: SessionId(request.sessionId),
        lane: Lane(request.lane),
        nodes: vec![NodeId(request.nodeId)],
        nonce: Nonce(request.nonce),
        request_digest: request.requestDigest,
        max_prompt: request.maxPrompt,
        max_output: request.maxOutput,
        held: request.feeCap.to::<u128>(),
        deadline: request.deadline,
    })
}

fn settled(task: TaskId, request: &TaskRequest, output_digest: B256) -> [Fact; 2] {
    let node = NodeId(request.nodeId);
    let (prompt_tokens, output_tokens) = (node::PROMPT_TOKENS, WORDS.len() as u32);
    let fee = PRICE * u128::from(prompt_tokens + output_tokens);
    [
        Fact::TaskCommitted { task, node, output_digest, prompt_tokens, output_tokens, fee },
        Fact::TaskSettled { task, node, fee },
    ]
}

#[async_trait]
impl ChainPort for ConstantChain {
    fn chain_id(&self) -> u64 {
        CHAIN_ID
    }

    fn queue(&self) -> Address {
        queue()
    }

    async fn operator_of(&self, node: NodeId) -> Result<Option<Address>, PortError> {
        let operator = node::operator().map_err(|error| PortError::Failed(error.to_string()))?;
        Ok((node.0 <= node::MAX_NODES).then_some(operator))
    }

    async fn submit(&self, task: TaskId, request: TaskRequest) -> Result<Mined, PortError> {
        self.pending().submitted.push((task, request));
        Ok(Mined { transaction: B256::ZERO, gas_used: 0 })
    }

    async fn gas_used(&self, _transaction: B256) -> Result<Option<u64>, PortError> {
        Ok(Some(100_000))
    }
}
