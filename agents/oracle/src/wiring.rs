//! Makes the channels and registers the services; nothing else does.

use std::net::SocketAddr;
use std::sync::Arc;

use alloy::primitives::Address;
use alloy::signers::local::PrivateKeySigner;
use assay_bindings::{DrandBeacon, ProofOfInference};
use assay_chain::{Chain, Database, EventSource, Outbox};
use assay_protocol::QueueScope;
use assay_runtime::{
    Health, Phase, Running, Runtime, RuntimeError, install_metrics, observe_router,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::drand::Drand;
use crate::keeper::service::KeeperService;
use crate::keeper::state::{Beacon, Keeper, ProofTerms, Terms};
use crate::keeper::store;
use crate::{OracleConfig, OracleError};

/// Blocks that may wait for the keeper: enough that fetching and storing overlap.
const EVENT_BUFFER: usize = 64;

/// An oracle at work. Dropping it ends the oracle by force: call [`OracleHandle::stop`].
#[derive(Debug)]
pub struct OracleHandle {
    running: Running,
    address: Address,
    observe: Option<SocketAddr>,
    health: Health,
}

impl OracleHandle {
    /// Account that pays for the calls and earns their tips.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Where `/metrics`, `/health` and `/ready` are served, if they are.
    pub fn observe_addr(&self) -> Option<SocketAddr> {
        self.observe
    }

    /// Ready once the chain is read up to its head.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Waits until the oracle has ended.
    ///
    /// # Errors
    /// What ended it.
    pub async fn wait(&mut self) -> Result<(), RuntimeError> {
        self.running.wait().await
    }

    /// Stops it in order and waits.
    ///
    /// # Errors
    /// What failed before or while stopping.
    pub async fn stop(self) -> Result<(), RuntimeError> {
        self.running.stop().await
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&self) {
        self.running.kill();
    }
}

/// Connects, opens the database in the configured folder and starts the services. `signer` is the
/// account that pays for the calls.
///
/// # Errors
/// If the chain, the database, the account or the address to listen on cannot be used.
pub async fn start(
    config: OracleConfig,
    signer: PrivateKeySigner,
) -> Result<OracleHandle, OracleError> {
    install_metrics()?;
    let health = Health::new(config.name.as_str());
    let chain = Chain::connect(&config.rpc_url, config.deployment.clone()).await?;
    let scope = QueueScope { chain_id: chain.chain_id, queue: chain.deployment.queue };
    let settle_grace_s = config.settle_grace_s;
    let beacon = beacon(&chain).await?;
    let terms = Terms { scope, beacon, proof: proof_terms(&chain).await?, settle_grace_s };
    let drand = Drand::new(&config.drand_urls)?;
    let db = Database::open(&config.data_dir.join("oracle.db"), &store::MIGRATIONS)?;
    let (items, journal) = store::load(&db)?;
    let outbox = Outbox::new(chain.clone(), signer, Arc::clone(&db)).await?;
    let address = outbox.address();
    let mut runtime = Runtime::new(config.name.as_str());
    let observe = match config.observe {
        Some(addr) => Some(serve(&mut runtime, addr, &health).await?),
        None => None,
    };
    let (out, events) = mpsc::channel(EVENT_BUFFER);
    let source = EventSource::new(chain.clone(), Arc::clone(&db), config.start_block);
    let intake = runtime.token(Phase::Intake);
    let work = runtime.token(Phase::Work);
    let output = runtime.token(Phase::Output);
    let keeper = KeeperService {
        agent: config.name.as_str().into(),
        chain,
        db,
        outbox: outbox.clone(),
        drand: (beacon != Beacon::Blockhash).then_some(drand),
        keeper: Keeper::new(terms, items, journal),
        health: health.clone(),
        events,
    };
    runtime.spawn(Phase::Intake, "events", async move { Ok(source.run(out, intake).await?) });
    runtime.spawn(Phase::Work, "keeper", keeper.run(work));
    runtime.spawn(Phase::Output, "outbox", async move { Ok(outbox.run(output).await?) });
    health.set_ready(true, "");
    Ok(OracleHandle { running: runtime.start(), address, observe, health })
}

/// Which of the beacons the deployment has: drand's tells its network, the other one knows no such call.
async fn beacon(chain: &Chain) -> Result<Beacon, OracleError> {
    let contract = DrandBeacon::new(chain.deployment.beacon, &chain.provider);
    match contract.network().call().await {
        Ok(network) => Ok(Beacon::Drand { genesis_s: network.genesis, period_s: network.period }),
        Err(error) if error.as_revert_data().is_some() => Ok(Beacon::Blockhash),
        Err(source) => Err(OracleError::Beacon { source: Box::new(source) }),
    }
}

/// What the deployment fixed for audits.
async fn proof_terms(chain: &Chain) -> Result<ProofTerms, OracleError> {
    let proof = ProofOfInference::new(chain.deployment.proof, &chain.provider);
    let failed = |source| OracleError::Proof { source: Box::new(source) };
    let config = proof.config().call().await.map_err(failed)?;
    Ok(ProofTerms {
        epoch_length_s: config.epochLength.to::<u64>(),
        round_timeout_s: config.roundTimeout.to::<u64>(),
        audit_pay_bps: config.auditPayBps,
    })
}

async fn serve(
    runtime: &mut Runtime,
    addr: SocketAddr,
    health: &Health,
) -> Result<SocketAddr, OracleError> {
    let failed = |source| OracleError::Listen { addr, source };
    let listener = TcpListener::bind(addr).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    let (router, stop) = (observe_router(health.clone()), runtime.token(Phase::Output));
    runtime.spawn(Phase::Output, "observe", async move {
        axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await?;
        Ok(())
    });
    Ok(local)
}
