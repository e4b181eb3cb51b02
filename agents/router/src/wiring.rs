//! Makes the channels and registers the services; nothing else does.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use alloy::signers::local::PrivateKeySigner;
use assay_runtime::{BoxError, Health, Phase, Running, Runtime, RuntimeError};
use assay_store::ContentStore;
use assay_types::{BadKey, SigningKey};
use axum::Router;
use futures::future::BoxFuture;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    book::service::{BlockChange, Ledger, SaveCursor},
    clock::now_s,
    config::{
        ACCEPT_QUEUE, CHORE_QUEUE, MAX_CHORES, NOTE_QUEUE, PRUNE_INTERVAL, Patience, RouterConfig,
    },
    http::{
        routes::{App, routes},
        server::serve,
    },
    journal::{Journal, JournalError},
    keys::{self, file::KeysError},
    link::{hub::Hub, service::LinkServer, state::Scope},
    ports::ChainPort,
    tasks::{
        carry::Carried,
        chores::{Chore, Chores},
        conversations::Conversations,
        dispatch::Dispatcher,
        hedge::Hedges,
        pace::Paces,
        room::WaitingRoom,
    },
    traces::{Traces, TracesError},
    treasury::service::Treasury,
};

/// How long answers that are under way may take once the router stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often readiness is looked at.
const READINESS_INTERVAL: Duration = Duration::from_millis(200);

/// Why a router does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// The address is taken or is not this machine's.
    #[error(
        "the router cannot listen on {address}: {source}; free it, or choose another address with --http"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nothing to serve.
    #[error("the router has no model to serve: name at least one with its id and its context")]
    NoModel,
    /// Its key.
    #[error(transparent)]
    Key(#[from] BadKey),
    /// Its database.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Its API keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// Its traces.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// A service failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Part of the chain's side.
    #[error("the router's side of the chain does not start: {0}")]
    Chain(#[source] BoxError),
}

/// A change of the chain, and what moves the durable cursor with it.
pub struct BlockUpdate {
    /// The change.
    pub change: BlockChange,
    /// Runs in the transaction that stores it.
    pub cursor: SaveCursor,
}

/// What a router is made of.
pub struct Parts {
    /// The chain, to ask and to act.
    pub chain: Arc<dyn ChainPort>,
    /// The router's key: holder of its lanes.
    pub signer: PrivateKeySigner,
    /// The content store.
    pub store: Arc<dyn ContentStore>,
    /// Its database, with the tables of [`crate::book::tables::MIGRATIONS`].
    pub journal: Journal,
    /// Canonical blocks in order.
    pub blocks: mpsc::Receiver<BlockUpdate>,
    /// What the chain's side needs to run, stopped last; each watches the token.
    pub services: Vec<(&'static str, Service)>,
    /// Cancelled when `services` have to end.
    pub services_stop: CancellationToken,
}

/// A service of the chain's side.
pub type Service = BoxFuture<'static, Result<(), BoxError>>;

/// A router at work. Dropping it ends the router by force.
pub struct RouterHandle {
    address: SocketAddr,
    health: Health,
    running: Running,
}

impl RouterHandle {
    /// Where HTTP and the link are served.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Whether it can serve, and why not.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// What ended it.
    pub async fn wait(&mut self) -> Result<(), RouterError> {
        Ok(self.running.wait().await?)
    }

    /// Stops it: answers under way are finished, then what is owed to chain and store, then the rest.
    ///
    /// # Errors
    /// What failed meanwhile.
    pub async fn stop(self) -> Result<(), RouterError> {
        Ok(self.running.stop().await?)
    }
}

/// Builds a router from its parts and starts it.
///
/// # Errors
/// If the address cannot be bound, nothing is to be served, or the database cannot be read.
pub async fn assemble(config: RouterConfig, parts: Parts) -> Result<RouterHandle, RouterError> {
    if config.models.is_empty() {
        return Err(RouterError::NoModel);
    }
    let (listener, address) = listen(config.http)?;
    let Parts { chain, signer, store, journal, blocks, services, services_stop } = parts;

    let key = SigningKey::new(signer.to_bytes())?;
    let mut runtime = Runtime::new("router");
    let health = Health::new("router");
    let (traces, exporting) = Traces::open(config.otlp_endpoint.as_deref())?;
    if let Some(exporting) = exporting {
        runtime.spawn(Phase::Output, "spans", exporting.run(runtime.token(Phase::Output)));
    }
    let (entries, recorded) = mpsc::channel(NOTE_QUEUE);
    let (chores, to_do) = mpsc::channel(CHORE_QUEUE);
    let ledger = Ledger::open(journal, signer.address(), entries)?;
    let hub = Hub::default();
    let scope =
        Scope { chain_id: chain.chain_id(), queue: chain.queue(), router: signer.address() };
    let config = Arc::new(config);
    let intake = runtime.token(Phase::Intake);
    // Ends with the HTTP service, whether that stops or is ended by force.
    let closing = intake.child_token();
    let links_end = CancellationToken::new();
    let dispatcher = Arc::new(Dispatcher {
        config: config.clone(),
        scope,
        signer: key.clone(),
        hub: hub.clone(),
        ledger: ledger.clone(),
        store: store.clone(),
        chores: chores.clone(),
        paces: Paces::default(),
        waiting: WaitingRoom::default(),
        carried: Carried::default(),
        conversations: Conversations::default(),
        hedges: Hedges::default(),
        traces,
        stopping: intake.clone(),
    });
    let links = Arc::new(LinkServer {
        hub: hub.clone(),
        scope,
        signer: key,
        chain: chain.clone(),
        ledger: ledger.clone(),
        resume_timeout: config.resume_timeout,
        drain: intake.clone(),
        stop: links_end.clone(),
    });
    let (keys, watched) = match config.api_keys {
        true => Some(keys::service::open(config.data.clone())?).unzip(),
        false => (None, None),
    };
    let app = Arc::new(App::new(dispatcher.clone(), links, keys, now_s()));
    let routes = routes(app, health.clone());

    let (work, output) = (runtime.token(Phase::Work), runtime.token(Phase::Output));
    let web = Web { routes, patience: config.patience, closing, links_end };
    runtime.spawn(Phase::Work, "http", web.serve(listener, work));
    let worker = Chores { chain, store, ledger: ledger.clone() };
    Upkeep { worker, to_do, dispatcher, watched }.spawn(&mut runtime, &config);
    runtime.spawn(
        Phase::Intake,
        "readiness",
        watch(ledger.clone(), hub, config, (health.clone(), intake)),
    );
    runtime.spawn(Phase::Output, "follow", follow(ledger.clone(), blocks, chores, output.clone()));
    runtime.spawn(
        Phase::Output,
        "record",
        async move { Ok(ledger.record(recorded, output).await?) },
    );
    let ends = runtime.token(Phase::Output);
    runtime.spawn(Phase::Output, "chain side", async move {
        ends.cancelled().await;
        services_stop.cancel();
        Ok(())
    });
    for (name, service) in services {
        runtime.spawn(Phase::Output, name, service);
    }
    tracing::info!(%address, "router listens");
    Ok(RouterHandle { address, health, running: runtime.start() })
}

fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), RouterError> {
    bound(address).map_err(|source| RouterError::Bind { address, source })
}

fn bound(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of an earlier run that linger do not keep the port; on Windows it would share it with others.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(ACCEPT_QUEUE)?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

/// What goes on beside the requests.
struct Upkeep {
    worker: Chores,
    to_do: mpsc::Receiver<Chore>,
    dispatcher: Arc<Dispatcher>,
    watched: Option<keys::service::Watched>,
}

impl Upkeep {
    fn spawn(self, runtime: &mut Runtime, config: &RouterConfig) {
        let Self { worker, to_do, dispatcher, watched } = self;
        let work = runtime.token(Phase::Work);
        let (pinner, pins_end) = (worker.clone(), work.clone());
        runtime.spawn(Phase::Work, "pins", async move { Ok(pinner.pin_rest(pins_end).await?) });
        // Requests that wait are served until the last one is answered.
        let seats_end = runtime.token(Phase::Output);
        runtime.spawn(Phase::Output, "waiting room", async move {
            dispatcher.serve_waiting(seats_end).await;
            Ok(())
        });
        if let Some(watched) = watched {
            let stop = work.clone();
            runtime.spawn(Phase::Work, "api keys", async move {
                Ok(keys::service::watch(watched, stop).await?)
            });
        }
        if let Some(terms) = config.own_sessions {
            let models = config.models.iter().map(|model| model.model_id).collect();
            let (ledger, chain) = (worker.ledger.clone(), worker.chain.clone());
            let treasury = Treasury { ledger, chain, models, terms };
            let stop = work.clone();
            runtime.spawn(Phase::Work, "treasury", async move {
                treasury.run(stop).await;
                Ok(())
            });
        }
        let ledger = worker.ledger.clone();
        runtime.spawn(Phase::Work, "prune", prune(ledger, config.keep_tasks, work.clone()));
        runtime.spawn(Phase::Work, "chores", async move {
            worker.run(to_do, work).await;
            Ok(())
        });
    }
}

/// The HTTP service.
struct Web {
    routes: Router,
    patience: Patience,
    closing: CancellationToken,
    links_end: CancellationToken,
}

impl Web {
    async fn serve(self, listener: TcpListener, work: CancellationToken) -> Result<(), BoxError> {
        let _links = self.links_end.drop_guard();
        let _connections = self.closing.clone().drop_guard();
        tokio::select! {
            () = serve(listener, self.routes, self.patience, self.closing) => Ok(()),
            () = async { work.cancelled().await; sleep(DRAIN_TIMEOUT).await } => {
                tracing::warn!("answers that were not complete in time are cut off");
                Ok(())
            }
        }
    }
}

/// Takes in the chain's blocks.
async fn follow(
    ledger: Ledger,
    mut blocks: mpsc::Receiver<BlockUpdate>,
    chores: mpsc::Sender<Chore>,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    for (task, request) in ledger.unsubmitted(now_s()).await? {
        if chores.send(Chore::Submit { task, request }).await.is_err() {
            return Ok(());
        }
    }
    let mut wanted = ledger.without_gas(MAX_CHORES).await?;
    loop {
        for transaction in wanted.drain(..) {
            if chores.try_send(Chore::Gas(transaction)).is_err() {
                tracing::debug!(%transaction, "its gas is asked for at the next start");
            }
        }
        let update = tokio::select! {
            update = blocks.recv() => update,
            () = stop.cancelled() => None,
        };
        let Some(BlockUpdate { change, cursor }) = update else { return Ok(()) };
        wanted = ledger.on_block(change, cursor).await?;
    }
}

/// Removes tasks that ended long ago.
async fn prune(ledger: Ledger, keep: Duration, stop: CancellationToken) -> Result<(), BoxError> {
    let mut ticks = interval(PRUNE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return Ok(()),
        }
        // Each round is a transaction of its own: requests come between them.
        while !stop.is_cancelled() && ledger.prune(now_s().saturating_sub(keep.as_secs())).await? {}
    }
}

/// Says whether requests can be served now.
async fn watch(
    ledger: Ledger,
    hub: Hub,
    config: Arc<RouterConfig>,
    (health, stop): (Health, CancellationToken),
) -> Result<(), BoxError> {
    let mut ticks = interval(READINESS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => {
                health.set_ready(false, "stopping");
                return Ok(());
            }
        }
        match not_ready(&ledger, &hub, &config) {
            None => health.set_ready(true, ""),
            Some(reason) => health.set_ready(false, reason),
        }
    }
}

fn not_ready(ledger: &Ledger, hub: &Hub, config: &RouterConfig) -> Option<String> {
    let connected = hub.connected();
    let book = ledger.book();
    let served =
        |s: &&crate::book::state::SessionView| config.models.iter().any(|m| m.model_id == s.model);
    let ready: Vec<_> = book.sessions().filter(served).filter(|s| s.is_ready()).collect();
    if ready.is_empty() {
        return Some("no active session with a lane for this router: open one, or wait for its nodes and its seed".into());
    }
    let reachable = ready
        .iter()
        .flat_map(|s| &s.reservations)
        .any(|r| r.nodes.iter().any(|n| connected.contains(n)));
    (!reachable).then(|| "no node of its sessions is connected".into())
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpStream, time::timeout};

    use super::*;

    /// More than a queue of 128 has room for, before the router takes the first one.
    #[tokio::test]
    async fn a_burst_of_clients_finds_room() {
        let (listener, address) = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let mut clients = Vec::new();
        for _ in 0..300 {
            // A client without room would try for ever.
            let client = timeout(Duration::from_secs(30), TcpStream::connect(address)).await;
            clients.push(client.unwrap().unwrap());
        }
        drop(listener);
    }
}
