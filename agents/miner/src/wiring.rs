//! Makes the channels, registers the services. The only place that does.

use std::{sync::Arc, time::Duration};

use alloy::signers::local::PrivateKeySigner;
use assay_chain::{Chain, ChainEvent, Database, EventSource, Outbox};
use assay_engine::Engine;
use assay_protocol::QueueScope;
use assay_runtime::{BoxError, Health, Phase, Running, Runtime};
use assay_store::ContentStore;
use assay_types::{ModelId, NodeId, TaskId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    MinerConfig, MinerError, MinerStatus,
    answers::{Answers, MIGRATIONS},
    audits::{Auditor, Audits},
    clock::ChainClock,
    committer::{self, Committer},
    intake::{Earnings, Intake},
    ledger::{ChainLedger, Ledger, head},
    link::{Identity, LINKS, Link, LinkParts},
    registration::Registration,
    status::Stats,
    tasks::Scope,
    worker::{Outlets, Promises, Seeds, Tools, Worker},
};

/// Blocks that wait for the intake; the source waits when it is full.
const EVENT_BUFFER: usize = 64;
/// Offers and cancels that wait for the worker; links wait when it is full. An offer is up to 1 MiB.
const WORKER_BUFFER: usize = 32;
/// Longer than the worker's and the committer's own patience together, so that they end by themselves.
const WORK_GRACE: Duration = Duration::from_secs(40);

/// What a miner works with.
pub struct MinerDeps {
    /// The chain and its contracts.
    pub chain: Chain,
    /// Pays the stake, and owns the node.
    pub owner: PrivateKeySigner,
    /// Signs for the node and sends its commits; may be the same as `owner`.
    pub operator: PrivateKeySigner,
    /// Where requests are found and results are pinned.
    pub store: Arc<dyn ContentStore>,
    /// The model; several miners may share it.
    pub engine: Arc<dyn Engine>,
    /// The model that the node shall serve; must be the engine's.
    pub model_id: ModelId,
}

/// A node of any ledger: what [`start`] makes of [`MinerDeps`], and what tests make of fakes.
pub struct NodeParts {
    /// The node that this miner is.
    pub node: NodeId,
    /// Its operator key.
    pub operator: PrivateKeySigner,
    /// The contracts.
    pub ledger: Arc<dyn Ledger>,
    /// Blocks of the chain, as an event source sends them.
    pub events: mpsc::Receiver<ChainEvent>,
    /// Opened with [`MIGRATIONS`].
    pub database: Arc<Database>,
    /// Where requests are found and results are pinned.
    pub store: Arc<dyn ContentStore>,
    /// The model.
    pub engine: Arc<dyn Engine>,
    /// Number of the newest block: tasks are served once its events are taken in.
    pub head: u64,
    /// Its time, unix seconds.
    pub block_time_s: u64,
}

/// A miner at work. Dropping it ends it by force: what it owes is done at the next start.
pub struct MinerHandle {
    node: NodeId,
    stats: Arc<Stats>,
    health: Health,
    running: Running,
}

impl MinerHandle {
    /// Its node.
    pub fn node_id(&self) -> NodeId {
        self.node
    }

    /// What it has done and does.
    pub fn status(&self) -> MinerStatus {
        self.stats.status()
    }

    /// Whether it takes tasks, for `/ready`.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Takes nothing new, finishes and commits what runs, then ends.
    ///
    /// # Errors
    /// What failed before or while stopping.
    pub async fn stop(self) -> Result<(), MinerError> {
        self.health.set_ready(false, "stopping");
        Ok(self.running.stop().await?)
    }

    /// Waits until it ends, by itself or because its stop token was cancelled.
    ///
    /// # Errors
    /// What ended it.
    pub async fn wait(&mut self) -> Result<(), MinerError> {
        Ok(self.running.wait().await?)
    }

    /// Begins the same end as [`Self::stop`] when it is cancelled.
    pub fn stop_token(&self) -> CancellationToken {
        self.running.stop_token()
    }

    /// Ends at once, as a crash would.
    pub fn kill(&self) {
        self.running.kill();
    }
}

/// Finds or registers the operator's node, then serves.
///
/// # Errors
/// Wrong settings, another model, unfunded accounts, a chain or a database that cannot be used.
pub async fn start(config: MinerConfig, deps: MinerDeps) -> Result<MinerHandle, MinerError> {
    config.check()?;
    let info = deps.engine.info().clone();
    if info.model_id != deps.model_id {
        let (engine, name) = (info.model_id, info.model);
        return Err(MinerError::WrongEngine { engine, name, wanted: deps.model_id });
    }
    let database = Database::open(&config.data.join("miner.db"), MIGRATIONS)?;
    let (head, block_time_s) = head(&deps.chain).await?;
    let outbox = Outbox::new(deps.chain.clone(), deps.operator.clone(), database.clone()).await?;
    let owner = match deps.owner.address() == deps.operator.address() {
        true => None,
        false => {
            let path = config.data.join("owner.db");
            let database = Database::open(&path, &[])?;
            Some(Outbox::new(deps.chain.clone(), deps.owner.clone(), database).await?)
        }
    };
    let mut runtime = runtime_of(&deps.operator);
    let stop = runtime.token(Phase::Output);
    runtime.spawn(Phase::Output, "outbox", boxed(outbox.clone().run(stop.clone())));
    if let Some(owner) = owner.clone() {
        runtime.spawn(Phase::Output, "owner-outbox", boxed(owner.run(stop.clone())));
    }
    let owner = owner.unwrap_or_else(|| outbox.clone());
    let registration = Registration {
        chain: &deps.chain,
        owner: &owner,
        operator: deps.operator.address(),
        info: &info,
        capacity: config.capacity,
    };
    let node = registration.ensure().await?;
    let (sender, events) = mpsc::channel(EVENT_BUFFER);
    let source = EventSource::new(deps.chain.clone(), database.clone(), head);
    runtime.spawn(Phase::Output, "chain-events", boxed(source.run(sender, stop)));
    let parts = NodeParts {
        node,
        operator: deps.operator,
        ledger: Arc::new(ChainLedger::new(deps.chain, outbox, owner)),
        events,
        database,
        store: deps.store,
        engine: deps.engine,
        head,
        block_time_s,
    };
    serve(&config, parts, runtime)
}

/// Serves as a node that is registered already.
///
/// # Errors
/// Wrong settings, or a database that cannot be read.
pub fn start_node(config: &MinerConfig, parts: NodeParts) -> Result<MinerHandle, MinerError> {
    config.check()?;
    let runtime = runtime_of(&parts.operator);
    serve(config, parts, runtime)
}

fn runtime_of(operator: &PrivateKeySigner) -> Runtime {
    Runtime::new(format!("miner-{}", operator.address())).with_grace(Phase::Work, WORK_GRACE)
}

async fn boxed_result<E: Into<BoxError>>(
    future: impl Future<Output = Result<(), E>>,
) -> Result<(), BoxError> {
    future.await.map_err(Into::into)
}

fn boxed<E: Into<BoxError> + Send + 'static>(
    future: impl Future<Output = Result<(), E>> + Send + 'static,
) -> impl Future<Output = Result<(), BoxError>> + Send + 'static {
    boxed_result(future)
}

/// What several services have.
struct Shared {
    ledger: Arc<dyn Ledger>,
    answers: Answers,
    clock: Arc<ChainClock>,
    stats: Arc<Stats>,
}

/// What the worker's jobs work with.
fn tools_of(
    config: &MinerConfig,
    parts: &NodeParts,
    shared: &Shared,
    committer: mpsc::UnboundedSender<committer::Input>,
) -> Tools {
    let of = (parts.node, parts.engine.info().numeric_class);
    Tools {
        node: parts.node,
        promises: Promises::new(shared.ledger.clone(), shared.answers.clone(), of),
        operator: parts.operator.clone(),
        seeds: Seeds::new(shared.ledger.clone()),
        ledger: shared.ledger.clone(),
        engine: parts.engine.clone(),
        store: parts.store.clone(),
        answers: shared.answers.clone(),
        clock: shared.clock.clone(),
        stats: shared.stats.clone(),
        committer,
        stall_timeout: Duration::from_millis(config.stall_timeout_ms),
    }
}

/// The service of audits, and how it is told of them.
fn audits_of(
    config: &MinerConfig,
    parts: &NodeParts,
    shared: &Shared,
    caught_up: &CancellationToken,
) -> (mpsc::UnboundedSender<TaskId>, Audits) {
    let (sender, inputs) = mpsc::unbounded_channel();
    let auditor = Auditor {
        node: parts.node,
        operator: parts.operator.clone(),
        ledger: shared.ledger.clone(),
        engine: parts.engine.clone(),
        store: parts.store.clone(),
        answers: shared.answers.clone(),
        clock: shared.clock.clone(),
        stats: shared.stats.clone(),
        appeals: config.appeals,
    };
    let (auditor, caught_up) = (Arc::new(auditor), caught_up.clone());
    (sender, Audits { auditor, inputs, at_once: config.audits, caught_up })
}

/// The service that brings answers to the chain.
fn committer_of(
    config: &MinerConfig,
    node: NodeId,
    shared: &Shared,
    inputs: mpsc::UnboundedReceiver<committer::Input>,
    worker_done: CancellationToken,
) -> Committer {
    Committer {
        node,
        ledger: shared.ledger.clone(),
        answers: shared.answers.clone(),
        clock: shared.clock.clone(),
        stats: shared.stats.clone(),
        inputs,
        margin_s: config.settle_margin_s,
        batch: config.settle_batch,
        worker_done,
    }
}

/// Chain events → intake → {worker, committer, audits}; links ⇄ worker → committer.
fn serve(
    config: &MinerConfig,
    parts: NodeParts,
    mut runtime: Runtime,
) -> Result<MinerHandle, MinerError> {
    let shared = Shared {
        ledger: parts.ledger.clone(),
        answers: Answers::new(parts.database.clone()),
        clock: Arc::new(ChainClock::new(parts.block_time_s)),
        stats: Arc::new(Stats::new(parts.node)),
    };
    let earnings = Earnings::from(shared.answers.earned()?);
    shared.stats.set_earned(earnings);
    let (worker, worker_inputs) = mpsc::channel(WORKER_BUFFER);
    let (committer, committer_inputs) = mpsc::unbounded_channel();
    let (worker_done, caught_up) = (CancellationToken::new(), CancellationToken::new());
    let queue = QueueScope { chain_id: parts.ledger.chain_id(), queue: parts.ledger.queue() };
    let (drain, work) = (runtime.token(Phase::Intake), runtime.token(Phase::Work));
    let outlets = Outlets::default();
    let tools = tools_of(config, &parts, &shared, committer.clone());
    let (audits, audits_service) = audits_of(config, &parts, &shared, &caught_up);
    runtime.spawn(Phase::Work, "audits", boxed(audits_service.run(work.clone())));
    let committer_service =
        committer_of(config, parts.node, &shared, committer_inputs, worker_done.clone());
    let Shared { answers, clock, stats, .. } = shared;
    let intake = Intake {
        scope: Scope { queue, node: parts.node },
        answers,
        clock,
        stats: stats.clone(),
        events: parts.events,
        worker: worker.clone(),
        committer,
        audits,
        outlets: outlets.clone(),
        earnings,
        head: parts.head,
        caught_up: caught_up.clone(),
    };
    runtime.spawn(Phase::Output, "intake", boxed(intake.run(runtime.token(Phase::Output))));
    let worker_service = Worker {
        tools: Arc::new(tools),
        capacity: config.capacity,
        inputs: worker_inputs,
        outlets: outlets.clone(),
        caught_up,
        done: worker_done,
    };
    runtime.spawn(Phase::Work, "worker", boxed(worker_service.run(drain.clone(), work.clone())));
    runtime.spawn(Phase::Work, "committer", boxed(committer_service.run(work)));
    let health = Health::new(format!("miner-{}", parts.node));
    let links = LinkParts {
        identity: Identity::new(parts.ledger.as_ref(), parts.node, config.capacity),
        operator: parts.operator,
        stats: stats.clone(),
        health: health.clone(),
        worker,
        outlets,
        drain,
    };
    start_links(&config.router_urls, links, &mut runtime);
    health.set_ready(true, "");
    Ok(MinerHandle { node: parts.node, stats, health, running: runtime.start() })
}

/// One link for each router.
fn start_links(urls: &[String], parts: LinkParts, runtime: &mut Runtime) {
    let parts = Arc::new(parts);
    if !urls.is_empty() {
        parts.health.fail(LINKS, "no link to a router yet");
    }
    for url in urls {
        let link = Link { url: url.clone(), parts: parts.clone() };
        let stop = runtime.token(Phase::Output);
        runtime.spawn(Phase::Output, "link", async move {
            link.run(stop).await;
            Ok(())
        });
    }
}
