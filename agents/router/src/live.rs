//! The real chain behind [`ChainPort`], and its events as the book's facts.

use std::{sync::Arc, time::Duration};

use alloy::{
    primitives::{
        U256,
        aliases::{U80, U96},
    },
    providers::Provider,
    signers::local::PrivateKeySigner,
    sol_types::SolCall,
};
use assay_bindings::{CorToken, NodePool, NodeStats, Session, SessionQueue};
use assay_chain::{
    Block, Chain, ChainEvent, Event, EventSource, Intent, Outbox, OutboxError, ProtocolEvent,
    save_cursor,
};
use assay_runtime::BoxError;
use assay_store::ContentStore;
use assay_types::{
    Address, B256, Lane, ModelId, ModelIndex, NodeId, Nonce, SessionId, TaskId, TaskRequest,
};
use async_trait::async_trait;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    BlockUpdate, Journal, Parts, RouterConfig, RouterError, RouterHandle, assemble,
    book::{
        facts::{Fact, Observed, PartFailure, Submitted},
        proofs::{PanelParty, ProofStep},
        service::BlockChange,
    },
    ports::{ChainPort, Mined, PortError},
    treasury::Opening,
    wiring::Service,
};

/// Blocks that wait to be taken in.
const BLOCK_QUEUE: usize = 64;
/// Time that one read of the chain may take: a miner's hello waits for it.
const READ_TIMEOUT: Duration = Duration::from_secs(8);

/// `NodeState`: proven to have lied.
const JAILED: u8 = 6;
/// `Series` of a node's work: that of sessions that drew it. The work of sessions that named it says only what its
/// client says.
const DRAWN: u8 = 0;
/// COR among the assets of a deployment: the first.
const COR_ASSET: u8 = 0;

/// `PartEvent` of the contract.
const CLAIMED: u8 = 0;
const TOOK_OVER: u8 = 1;
const DECLINED: u8 = 2;
const SILENT: u8 = 3;
const UNREVEALED: u8 = 4;

/// What a router works with.
pub struct RouterDeps {
    /// A checked connection to the chain.
    pub chain: Chain,
    /// The router's key: holder of its lanes, and the wallet that submits.
    pub signer: PrivateKeySigner,
    /// The content store.
    pub store: Arc<dyn ContentStore>,
}

/// Starts a router on a real chain.
///
/// # Errors
/// If its database is in use, its address is taken, or its outbox cannot be read.
pub async fn start(config: RouterConfig, deps: RouterDeps) -> Result<RouterHandle, RouterError> {
    let RouterDeps { chain, signer, store } = deps;
    let journal = Journal::open(&config.data)?;
    let database = journal.database().clone();
    let outbox = Outbox::new(chain.clone(), signer.clone(), database.clone())
        .await
        .map_err(|error| RouterError::Chain(error.into()))?;
    let source = EventSource::new(chain.clone(), database, config.start_block);
    let (events, seen) = mpsc::channel(BLOCK_QUEUE);
    let (updates, blocks) = mpsc::channel(BLOCK_QUEUE);
    let stop = CancellationToken::new();
    let (source_stop, outbox_stop) = (stop.clone(), stop.clone());
    let port = LiveChain { chain, outbox: outbox.clone(), wallet: signer.address() };
    let services: Vec<(&'static str, Service)> = vec![
        ("events", Box::pin(async move { Ok(source.run(events, source_stop).await?) })),
        ("translate", Box::pin(translate(seen, updates, stop.clone()))),
        ("outbox", Box::pin(async move { Ok(outbox.run(outbox_stop).await?) })),
    ];
    let chain: Arc<dyn ChainPort> = Arc::new(port);
    let parts = Parts { chain, signer, store, journal, blocks, services, services_stop: stop };
    assemble(config, parts).await
}

/// Turns the chain's events into what the book takes in.
async fn translate(
    mut seen: mpsc::Receiver<ChainEvent>,
    updates: mpsc::Sender<BlockUpdate>,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    loop {
        let event = tokio::select! {
            event = seen.recv() => event,
            () = stop.cancelled() => None,
        };
        let Some(event) = event else { return Ok(()) };
        let observed = observe(event.block());
        let (change, block) = match event {
            ChainEvent::Committed(block) => (BlockChange::Committed(observed), block),
            ChainEvent::Reverted(block) => (BlockChange::Reverted(observed), block),
        };
        let cursor = Box::new(move |tx: &rusqlite::Transaction<'_>| save_cursor(tx, &block));
        if updates.send(BlockUpdate { change, cursor }).await.is_err() {
            return Ok(());
        }
    }
}

fn observe(block: &Block) -> Observed {
    let of_event = |event: &Event| {
        let hash = event.tx_hash;
        [fact(&event.body), owner(&event.body)].into_iter().flatten().map(move |fact| (hash, fact))
    };
    let facts = block.events.iter().flat_map(of_event).collect();
    Observed { number: block.at.number, hash: block.at.hash, timestamp: block.timestamp, facts }
}

fn owner(event: &ProtocolEvent) -> Option<Fact> {
    match event {
        ProtocolEvent::SessionOpened(e) => {
            Some(Fact::SessionOwned { session: SessionId(e.sessionId), owner: e.owner })
        }
        _ => None,
    }
}

fn fact(event: &ProtocolEvent) -> Option<Fact> {
    Some(match event {
        ProtocolEvent::SessionOpened(e) => Fact::SessionOpened {
            session: SessionId(e.sessionId),
            model: ModelIndex(e.model),
            price_in: e.priceIn.to::<u128>(),
            price_out: e.priceOut.to::<u128>(),
        },
        ProtocolEvent::LaneAdded(e) => Fact::LaneAdded {
            session: SessionId(e.sessionId),
            lane: Lane(e.lane),
            holder: e.holder,
            allotment: e.allotment.to::<u128>(),
        },
        ProtocolEvent::LaneReclaimed(e) => Fact::LaneReclaimed {
            session: SessionId(e.sessionId),
            lane: Lane(e.lane),
            reclaim_at: e.reclaimAt.to::<u64>(),
        },
        ProtocolEvent::ModelRegistered(e) => {
            Fact::ModelRegistered { index: ModelIndex(e.index), model: ModelId(e.modelId) }
        }
        ProtocolEvent::SessionActivated(e) => Fact::SessionActivated {
            session: SessionId(e.sessionId),
            seed_round: e.seedRound,
            nodes: e.nodes.iter().map(|node| NodeId(*node)).collect(),
            previous_until: e.previousUntil.to::<u64>(),
        },
        ProtocolEvent::RoundRevealed(e) => Fact::RoundRevealed { round: e.round, value: e.value },
        ProtocolEvent::SessionDraining(e) => {
            Fact::SessionDraining { session: SessionId(e.sessionId), ends_at: e.endsAt.to::<u64>() }
        }
        ProtocolEvent::SessionClosed(e) => Fact::SessionClosed { session: SessionId(e.sessionId) },
        ProtocolEvent::SessionToppedUp(e) => Fact::SessionToppedUp {
            session: SessionId(e.sessionId),
            lane: Lane(e.lane),
            amount: e.amount.to::<u128>(),
        },
        other => return task_fact(other),
    })
}

fn task_fact(event: &ProtocolEvent) -> Option<Fact> {
    Some(match event {
        ProtocolEvent::TaskSubmitted(e) => Fact::TaskSubmitted(Submitted {
            task: TaskId(e.taskId),
            session: SessionId(e.sessionId),
            lane: Lane(e.task.lane),
            nodes: e.task.parts.iter().map(|part| NodeId(part.nodeId)).collect(),
            nonce: Nonce(e.task.nonce),
            request_digest: e.requestDigest,
            max_prompt: e.task.maxPrompt,
            max_output: e.task.maxOutput,
            held: e.task.held.to::<u128>(),
            deadline: e.deadline,
        }),
        ProtocolEvent::TaskCommitted(e) => Fact::TaskCommitted {
            task: TaskId(e.taskId),
            node: NodeId(e.nodeId),
            output_digest: e.outputDigest,
            prompt_tokens: e.promptTokens,
            output_tokens: e.outputTokens,
            fee: e.fee.to::<u128>(),
        },
        ProtocolEvent::TaskSettled(e) => Fact::TaskSettled {
            task: TaskId(e.taskId),
            node: NodeId(e.nodeId),
            fee: e.fee.to::<u128>(),
        },
        ProtocolEvent::TaskPrecommitted(e) => {
            Fact::TaskPrecommitted { task: TaskId(e.taskId), node: NodeId(e.nodeId) }
        }
        ProtocolEvent::PartChanged(e) => {
            let (task, node) = (TaskId(e.taskId), NodeId(e.nodeId));
            let why = match e.what {
                CLAIMED | TOOK_OVER => return Some(Fact::PartTaken { task, node, part: e.part }),
                DECLINED => PartFailure::Declined,
                SILENT => PartFailure::Silent,
                UNREVEALED => PartFailure::Unrevealed,
                _ => return None,
            };
            Fact::PartFailed { task, node, why }
        }
        ProtocolEvent::TaskRefunded(e) => Fact::TaskRefunded {
            task: TaskId(e.taskId),
            refund: e.refund.to::<u128>(),
            tip: e.tip.to::<u128>(),
        },
        other => return proof_fact(other),
    })
}

fn proof_fact(event: &ProtocolEvent) -> Option<Fact> {
    let (task, node, step) = match event {
        ProtocolEvent::AnswerExposed(e) => {
            let (value, probability_bps) = (e.value.to_string(), e.probabilityBps);
            (e.taskId, e.nodeId, ProofStep::Exposed { value, probability_bps })
        }
        ProtocolEvent::AnswerCleared(e) => {
            (e.taskId, e.nodeId, ProofStep::Cleared { unaudited: e.unaudited })
        }
        ProtocolEvent::AnswerUnverified(e) => (e.taskId, e.nodeId, ProofStep::Unverified),
        ProtocolEvent::AuditMoved(e) => {
            let (until_s, validator) = (e.until.to::<u64>(), NodeId(e.audit.validator));
            (e.taskId, e.nodeId, ProofStep::Moved { state: e.state, until_s, validator })
        }
        ProtocolEvent::PanelMoved(e) => {
            let parties = e.parties.iter().map(|party| PanelParty {
                node_id: NodeId(party.nodeId),
                is_sealed: party.isSealed,
                is_open: party.isOpen,
            });
            (e.taskId, e.nodeId, ProofStep::Panel { parties: parties.collect() })
        }
        ProtocolEvent::ProofOpened(e) => {
            (e.taskId, e.nodeId, ProofStep::Opened { root: e.root, proof_digest: e.proofDigest })
        }
        ProtocolEvent::Verdict(e) => {
            let step = ProofStep::Verdict {
                validator: NodeId(e.validator),
                reasons: e.reasons,
                statistics: e.statistics,
                failing_blocks: e.failingBlocks,
            };
            (e.taskId, e.nodeId, step)
        }
        ProtocolEvent::Judged(e) => {
            let (guilty, slashed) = (e.guilty, e.slashed);
            let step =
                ProofStep::Judged { question: e.question, failing: e.failing, guilty, slashed };
            (e.taskId, e.nodeId, step)
        }
        ProtocolEvent::AuditCollected(e) => {
            (e.taskId, e.nodeId, ProofStep::Collected { amount: e.amount.to_string() })
        }
        _ => return None,
    };
    Some(Fact::Proof { task: TaskId(task), node: NodeId(node), step })
}

/// The chain behind an RPC node, and the router's own wallet.
struct LiveChain {
    chain: Chain,
    outbox: Outbox,
    wallet: Address,
}

impl LiveChain {
    /// Sends a call from the router's wallet, once for each key, and waits until it is in a block.
    async fn send(&self, key: String, to: Address, call: impl SolCall) -> Result<Mined, PortError> {
        let intent = Intent::call(key, to, call.abi_encode());
        match self.outbox.send(intent).await {
            Ok(receipt) => {
                Ok(Mined { transaction: receipt.transaction_hash, gas_used: receipt.gas_used })
            }
            Err(OutboxError::Reverted { reason, .. }) => Err(PortError::Refused { reason }),
            Err(error) => Err(failed(error)),
        }
    }

    /// Lets the contracts take this much out of the router's wallet for what `key` names.
    async fn allow(&self, key: &str, amount: u128) -> Result<(), PortError> {
        let at = &self.chain.deployment;
        let token = CorToken::new(at.token, &self.chain.provider);
        let (balance, allowance) =
            (token.balanceOf(self.wallet), token.allowance(self.wallet, at.payment));
        let balance = timeout(READ_TIMEOUT, balance.call()).await.map_err(failed)?;
        let (balance, amount) = (balance.map_err(failed)?, U256::from(amount));
        if balance < amount {
            let wallet = self.wallet;
            let message = format!(
                "the router's wallet {wallet} has {balance} of COR and needs {amount}: send it some"
            );
            return Err(PortError::Failed(message));
        }
        let allowed = timeout(READ_TIMEOUT, allowance.call()).await.map_err(failed)?;
        if allowed.map_err(failed)? >= amount {
            return Ok(());
        }
        let call = CorToken::approveCall { spender: at.payment, value: amount };
        self.send(format!("allow:{key}"), at.token, call).await?;
        Ok(())
    }
}

fn failed(error: impl std::fmt::Display) -> PortError {
    PortError::Failed(error.to_string())
}

#[async_trait]
impl ChainPort for LiveChain {
    fn chain_id(&self) -> u64 {
        self.chain.chain_id
    }

    fn queue(&self) -> Address {
        self.chain.deployment.queue
    }

    async fn operator_of(&self, node: NodeId) -> Result<Option<Address>, PortError> {
        let pool = NodePool::new(self.chain.deployment.nodes, &self.chain.provider);
        let operator =
            match timeout(READ_TIMEOUT, pool.nodeOf(node.0).call()).await.map_err(failed)? {
                Ok(found) if found.state == JAILED => return Ok(None),
                Ok(found) => found.operator,
                Err(error) => {
                    let unknown = error.as_decoded_error::<NodePool::NodePool_UnknownNode>();
                    return if unknown.is_some() { Ok(None) } else { Err(failed(error)) };
                }
            };
        // A node that has left keeps its record, but its key speaks for it no more.
        let call = pool.nodeByOperator(operator);
        let registered =
            timeout(READ_TIMEOUT, call.call()).await.map_err(failed)?.map_err(failed)?;
        Ok((registered == node.0).then_some(operator))
    }

    async fn level_of(&self, node: NodeId) -> Result<u8, PortError> {
        let stats = NodeStats::new(self.chain.deployment.stats, &self.chain.provider);
        let call = stats.levelOf(node.0, DRAWN);
        timeout(READ_TIMEOUT, call.call()).await.map_err(failed)?.map_err(failed)
    }

    async fn submit(&self, task: TaskId, request: TaskRequest) -> Result<Mined, PortError> {
        let call = SessionQueue::submitCall { request: request.into() };
        self.send(format!("submit:{task}"), self.chain.deployment.queue, call).await
    }

    async fn open_session(&self, key: String, opening: Opening) -> Result<(), PortError> {
        let Opening { model, terms } = opening;
        self.allow(&key, terms.deposit).await?;
        let holder = self.wallet;
        let allotment = U96::saturating_from(terms.allotment());
        let terms = Session::OpenTerms {
            modelId: model.0,
            asset: COR_ASSET,
            minNodes: 1,
            maxNodes: terms.max_nodes,
            maxPriceIn: U80::MAX,
            maxPriceOut: U80::MAX,
            deposit: U96::saturating_from(terms.deposit),
            lanes: vec![Session::LaneTerms { holder, allotment }],
            ..Default::default()
        };
        self.send(key, self.chain.deployment.sessions, Session::openCall { terms }).await?;
        Ok(())
    }

    async fn top_up(
        &self,
        key: String,
        (session, lane): (SessionId, Lane),
        amount: u128,
    ) -> Result<(), PortError> {
        self.allow(&key, amount).await?;
        let call = Session::topUpCall {
            sessionId: session.0,
            lane: lane.0,
            amount: U96::saturating_from(amount),
        };
        self.send(key, self.chain.deployment.sessions, call).await?;
        Ok(())
    }

    async fn gas_used(&self, transaction: B256) -> Result<Option<u64>, PortError> {
        let receipt = self.chain.provider.get_transaction_receipt(transaction);
        let receipt = timeout(READ_TIMEOUT, receipt).await.map_err(failed)?.map_err(failed)?;
        Ok(receipt.map(|receipt| receipt.gas_used))
    }
}
