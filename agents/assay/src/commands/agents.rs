//! `assay oracle|router|miner`: one agent in a process of its own.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use alloy::{primitives::U256, signers::local::PrivateKeySigner};
use anyhow::{Context, Result, ensure};
use assay_chain::Chain;
use assay_client::{cor, parse_cor};
use assay_engine::Engine;
use assay_engine_mistral::{LoadOptions, LoadStep, MistralEngine, ModelSource};
use assay_miner::{MinerConfig, MinerDeps};
use assay_oracle::OracleConfig;
use assay_router::{RouterConfig, RouterDeps, ServedModel, treasury::OwnSessions};
use assay_runtime::{Health, install_metrics, observe_router, shutdown_signal};
use assay_store::KuboStore;

use crate::{
    args::{AgentArgs, Global, MinerArgs, OracleArgs, RouterArgs},
    keys,
    network::{Network, data_folder},
    ui,
};

/// What every agent needs first.
struct Base {
    network: Network,
    chain: Chain,
    signer: PrivateKeySigner,
    folder: PathBuf,
}

async fn base(global: &Global, args: &AgentArgs, agent: &str) -> Result<Base> {
    let data = data_folder(global.data.as_deref())?;
    let network = Network::load(&data)?;
    let signer = keys::open(&args.key, Some(&data), agent)?;
    let rpc_url = args.rpc_url.clone().unwrap_or_else(|| network.rpc_url.clone());
    let chain = Chain::connect(&rpc_url, network.deployment.clone()).await?;
    install_metrics()?;
    // One folder for each key: two agents of one kind on one machine do not meet in a database.
    let folder = data.join(format!("{agent}-{}", signer.address()));
    Ok(Base { network, chain, signer, folder })
}

/// Serves /metrics, /health and /ready until whoever asked for it ends; for ever pending without an address.
pub async fn observe(address: Option<SocketAddr>, health: Health) -> Result<()> {
    let Some(address) = address else { return std::future::pending().await };
    let listener = tokio::net::TcpListener::bind(address).await.with_context(|| {
        format!("metrics cannot be served on {address}: choose another address with --observe")
    })?;
    Ok(axum::serve(listener, observe_router(health)).await?)
}

/// Waits for Ctrl-C, or for the agent to fail.
macro_rules! serve {
    ($handle:ident, $observe:expr) => {{
        let health = $handle.health().clone();
        tokio::select! {
            ended = $handle.wait() => return Ok(ended?),
            ended = observe($observe, health) => ended?,
            () = shutdown_signal() => {}
        }
        ui::note("stopping: no new work; what was begun is finished");
        Ok($handle.stop().await?)
    }};
}

pub async fn oracle(global: &Global, args: OracleArgs) -> Result<()> {
    let base = base(global, &args.agent, "oracle").await?;
    let rpc_url = args.agent.rpc_url.as_ref().unwrap_or(&base.network.rpc_url);
    let mut config = OracleConfig::new(rpc_url, base.network.deployment, base.folder);
    config.start_block = base.network.start_block;
    config.drand_urls = args.drand;
    let mut handle = assay_oracle::start(config, base.signer).await?;
    let address = handle.address();
    ui::note(format!("oracle {address} runs; Ctrl-C ends it"));
    serve!(handle, args.agent.observe)
}

/// The sessions that a router opens itself.
fn own_sessions(args: &RouterArgs) -> Result<Option<OwnSessions>> {
    let Some(deposit) = &args.session_deposit else { return Ok(None) };
    let mut own = OwnSessions::new(parse_cor(deposit)?);
    own.max_nodes = args.session_nodes;
    if let Some(below) = &args.top_up_below {
        own.top_up_below = parse_cor(below)?;
    }
    ensure!(
        own.top_up_below <= own.allotment(),
        "--top-up-below is at most what a lane gets, {}: a new session would be topped up at once",
        cor(U256::from(own.allotment()))
    );
    Ok(Some(own))
}

pub async fn router(global: &Global, args: RouterArgs) -> Result<()> {
    let base = base(global, &args.agent, "router").await?;
    let model = base.network.model.clone().context(
        "network.json names no model to serve: add `model` with name, model_id and max_context",
    )?;
    let served =
        ServedModel { name: model.name, model_id: model.model_id, max_context: model.max_context };
    let mut config = RouterConfig::new(args.http, base.folder, vec![served]);
    config.start_block = base.network.start_block;
    config.api_keys = args.api_keys;
    config.hedging = !args.no_hedging;
    config.otlp_endpoint.clone_from(&args.otlp_endpoint);
    config.own_sessions = own_sessions(&args)?;
    let store = KuboStore::new(args.ipfs_url.as_deref().unwrap_or(&base.network.ipfs_url))?;
    let address = base.signer.address();
    let deps = RouterDeps { chain: base.chain, signer: base.signer, store: Arc::new(store) };
    let mut handle = assay_router::start(config, deps).await?;
    ui::note(format!("router {address} serves http://{}/v1; Ctrl-C ends it", handle.local_addr()));
    serve!(handle, args.agent.observe)
}

pub async fn miner(global: &Global, args: MinerArgs) -> Result<()> {
    let base = base(global, &args.agent, "miner").await?;
    let mut options = LoadOptions::new(ModelSource::parse(&args.model), base.folder.join("models"));
    options.progress = Some(Arc::new(|step: LoadStep| ui::note(format!("model: {step}"))));
    let engine = MistralEngine::load(options)
        .await
        .with_context(|| format!("the model {} cannot be loaded", args.model))?;
    let mut routers = args.routers;
    if routers.is_empty() {
        let url = base
            .network
            .http_url
            .as_deref()
            .context("no router is known: name one with --router ws://host:port/link")?;
        routers.push(format!("{}/link", url.replacen("http", "ws", 1)));
    }
    let config = MinerConfig {
        router_urls: routers,
        capacity: args.capacity,
        data: base.folder,
        appeals: !args.no_appeal,
        ..MinerConfig::default()
    };
    let store = KuboStore::new(args.ipfs_url.as_deref().unwrap_or(&base.network.ipfs_url))?;
    let model_id = engine.info().model_id;
    let deps = MinerDeps {
        chain: base.chain,
        owner: base.signer.clone(),
        operator: base.signer,
        store: Arc::new(store),
        engine: Arc::new(engine),
        model_id,
    };
    let mut handle = assay_miner::start(config, deps).await?;
    ui::note(format!("miner runs as node {}; Ctrl-C ends it", handle.node_id()));
    serve!(handle, args.agent.observe)
}
