//! The agents of a development network, from their start to their end.

use std::{path::Path, sync::Arc, time::Duration};

use alloy::{
    eips::BlockId,
    primitives::{aliases::U80, utils::Unit},
    providers::Provider,
};
use anyhow::{Context, Result, bail};
use assay_bindings::{COR, ModelRegistry, Parameters, RandomBeacon, Session};
use assay_chain::Chain;
use assay_engine::Engine;
use assay_engine_mistral::MistralEngine;
use assay_miner::{MinerConfig, MinerDeps, MinerHandle};
use assay_oracle::{OracleConfig, OracleHandle};
use assay_router::{RouterConfig, RouterDeps, RouterHandle, ServedModel};
use assay_types::ModelId;

use super::{AGENTS_FOLDER, Steps, foundation::Foundation};
use crate::{
    args::UpArgs,
    commands::session::{Opening, open_session},
    network::{self, Network},
    wallet::Wallet,
};

/// Price of a million prompt tokens in minor units: 10 COR.
const FLOOR_IN: u128 = 10 * COR;
/// Price of a million generated tokens: 20 COR.
const FLOOR_OUT: u128 = 20 * COR;
/// Deposit of the router's session, and what the router may spend of it.
const SESSION_COR: u128 = 1_000;
/// Slots of each miner: the most, so that every session may reserve it.
const MINER_CAPACITY: u8 = 8;
/// Nodes that one session can have.
const MAX_SESSION_NODES: u8 = 8;
/// A session gets its nodes after two beacon rounds, some seconds.
const SESSION_START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// A network that serves.
pub struct Running {
    pub description: Network,
    base: Foundation,
    oracle: OracleHandle,
    router: RouterHandle,
    miners: Vec<MinerHandle>,
    session: u64,
}

impl Running {
    pub async fn start(
        data: &Path,
        args: &UpArgs,
        steps: &Arc<Steps>,
        engine: Arc<MistralEngine>,
        base: Foundation,
    ) -> Result<Self> {
        let chain = Chain::connect(&base.agent_rpc_url, base.deployment.clone()).await?;
        let model = register_model(&base, &engine).await?;
        steps.say(format!("model: {} registered as {}", model.name, model.model_id));
        let agents = data.join(AGENTS_FOLDER);
        let mut config =
            OracleConfig::new(&base.agent_rpc_url, base.deployment.clone(), agents.join("oracle"));
        config.start_block = base.start_block;
        let oracle = assay_oracle::start(config, base.accounts.oracle.signer.clone()).await?;
        steps.say(format!("oracle: {}", oracle.address()));
        let router = start_router(&agents, args, &base, &chain, &model).await?;
        let http_url = format!("http://{}", router.local_addr());
        steps.say(format!("router: {http_url}"));
        let miners = start_miners(&agents, &base, &chain, engine, steps, &router).await?;
        wait_for_slots(&chain).await?;
        let session = open_and_wait(&base, &chain, &model, steps).await?;
        wait_for_router(&router).await?;
        let description = Network {
            rpc_url: base.rpc_url.clone(),
            ipfs_url: base.ipfs_url.clone(),
            http_url: Some(http_url),
            start_block: base.start_block,
            deployment: base.deployment.clone(),
            model: Some(model),
        };
        Ok(Self { description, base, oracle, router, miners, session })
    }

    /// What a person needs to go on; `command` is how this program was called.
    pub fn banner(&self, command: &str) -> String {
        let network = &self.description;
        let http = network.http_url.as_deref().unwrap_or_default();
        let model = network.model.as_ref().map_or("", |model| model.name.as_str());
        let accounts: Vec<String> = self
            .base
            .accounts
            .all()
            .map(|account| format!("    {:<9} {}", account.name, account.address()))
            .collect();
        format!(
            "\n  API       {http}/v1   (OpenAI-compatible, model {model})\n  chain     {}\n  IPFS      {}   gateway {}/ipfs/<cid>\n  \
             session   {} with {} miners\n  accounts\n{}\n\n  Ask in another terminal:\n    {command} ask \"What is a session?\"\n    \
             curl {http}/v1/chat/completions -H 'content-type: application/json' \\\n      \
             -d '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"What is a session?\"}}],\"stream\":true}}'\n\n  \
             Ctrl-C ends the network.\n",
            network.rpc_url,
            network.ipfs_url,
            network.ipfs_url.trim_end_matches('/'),
            self.session,
            self.miners.len(),
            accounts.join("\n"),
        )
    }

    /// Waits for an agent that ends by itself, which none should.
    pub async fn agents_end(&mut self) -> anyhow::Error {
        let miners =
            futures::future::select_all(self.miners.iter_mut().map(|miner| Box::pin(miner.wait())));
        let (who, error) = tokio::select! {
            ended = self.oracle.wait() => ("oracle", ended.err().map(anyhow::Error::from)),
            ended = self.router.wait() => ("router", ended.err().map(anyhow::Error::from)),
            (ended, _, _) = miners => ("a miner", ended.err().map(anyhow::Error::from)),
        };
        match error {
            Some(error) => error.context(format!("{who} stopped")),
            None => anyhow::anyhow!("{who} stopped by itself"),
        }
    }

    /// Router and miners together, since an answer under way needs both; then what carries them.
    pub async fn stop(self, steps: &Steps) {
        let miners = futures::future::join_all(self.miners.into_iter().map(MinerHandle::stop));
        let (router, miners) = tokio::join!(self.router.stop(), miners);
        if let Err(error) = router {
            steps.say(format!("router: {error:#}"));
        }
        for error in miners.into_iter().filter_map(Result::err) {
            steps.say(format!("miner: {error:#}"));
        }
        if let Err(error) = self.oracle.stop().await {
            steps.say(format!("oracle: {error:#}"));
        }
        if let Some(server) = self.base.store_server {
            server.stop().await;
        }
        if let Some(devnet) = self.base.devnet {
            devnet.stop().await;
        }
    }
}

/// Pins the manifest and registers the model, with the deployer as its publisher.
async fn register_model(base: &Foundation, engine: &MistralEngine) -> Result<network::ServedModel> {
    let manifest = base.store.put(engine.manifest().bytes()?.into()).await?;
    let info = engine.info();
    let signer = base.accounts.deployer.signer.clone();
    let wallet = Wallet::connect(&base.rpc_url, base.deployment.clone(), signer).await?;
    let floor = ModelRegistry::Floor {
        asset: 0,
        priceIn: U80::from(FLOOR_IN),
        priceOut: U80::from(FLOOR_OUT),
    };
    let registration = ModelRegistry::ModelRegistration {
        modelId: info.model_id.0,
        manifestDigest: manifest,
        floors: vec![floor],
        ..Default::default()
    };
    let call = ModelRegistry::registerCall { registration };
    wallet.send(base.deployment.models, call).await?;
    Ok(network::ServedModel {
        name: info.model.clone(),
        model_id: info.model_id,
        max_context: info.max_context,
    })
}

async fn start_router(
    agents: &Path,
    args: &UpArgs,
    base: &Foundation,
    chain: &Chain,
    model: &network::ServedModel,
) -> Result<RouterHandle> {
    let served = ServedModel {
        name: model.name.clone(),
        model_id: model.model_id,
        max_context: model.max_context,
    };
    let mut config = RouterConfig::new(args.http, agents.join("router"), vec![served]);
    config.start_block = base.start_block;
    let deps = RouterDeps {
        chain: chain.clone(),
        signer: base.accounts.router.signer.clone(),
        store: base.store.clone(),
    };
    assay_router::start(config, deps).await.context("the router cannot be started")
}

async fn start_miners(
    agents: &Path,
    base: &Foundation,
    chain: &Chain,
    engine: Arc<MistralEngine>,
    steps: &Steps,
    router: &RouterHandle,
) -> Result<Vec<MinerHandle>> {
    let link = format!("ws://{}/link", router.local_addr());
    let model_id = engine.info().model_id;
    let starts = base.accounts.miners.iter().map(|account| {
        let config = MinerConfig {
            router_urls: vec![link.clone()],
            capacity: MINER_CAPACITY,
            data: agents.join(&account.name),
            ..MinerConfig::default()
        };
        let deps = MinerDeps {
            chain: chain.clone(),
            owner: account.signer.clone(),
            operator: account.signer.clone(),
            store: base.store.clone(),
            engine: engine.clone(),
            model_id,
        };
        async move {
            let miner = assay_miner::start(config, deps)
                .await
                .with_context(|| format!("{} cannot be started", account.name))?;
            steps.say(format!("{}: node {}", account.name, miner.node_id()));
            anyhow::Ok(miner)
        }
    });
    futures::future::try_join_all(starts).await
}

/// Waits until the slots that were just registered count: a draw takes only those that were active when
/// its session was opened.
async fn wait_for_slots(chain: &Chain) -> Result<()> {
    let parameters = Parameters::new(chain.deployment.parameters, &chain.provider);
    let version = parameters.currentVersion().call().await?;
    let delay = parameters.nodeTermsOf(version).call().await?.activationDelay;
    let active_from = head_time(chain).await? + u64::from(delay);
    while head_time(chain).await? < active_from {
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

async fn head_time(chain: &Chain) -> Result<u64> {
    let head = chain.provider.get_block(BlockId::latest()).await?;
    Ok(head.context("the chain has no latest block")?.header.timestamp)
}

/// Opens the session that the router serves from, paid by the client, and waits for its nodes and seed.
async fn open_and_wait(
    base: &Foundation,
    chain: &Chain,
    model: &network::ServedModel,
    steps: &Steps,
) -> Result<u64> {
    let signer = base.accounts.client.signer.clone();
    let wallet = Wallet::connect(&base.rpc_url, base.deployment.clone(), signer).await?;
    let deposit = SESSION_COR * Unit::ETHER.wei().to::<u128>();
    let miners = u8::try_from(base.accounts.miners.len()).unwrap_or(MAX_SESSION_NODES);
    let opening = Opening {
        model_id: ModelId(model.model_id.0),
        deposit,
        min_nodes: 1,
        max_nodes: miners.min(MAX_SESSION_NODES),
        dedicated: Vec::new(),
        lanes: vec![(base.accounts.router.address(), deposit)],
    };
    let session =
        open_session(&wallet, &opening).await.context("the client's session cannot be opened")?;
    steps.say(format!("session {session}: opened, waits for its nodes and its seed"));
    let contract = Session::new(base.deployment.sessions, &chain.provider);
    let beacon = RandomBeacon::new(base.deployment.beacon, &chain.provider);
    let begun = tokio::time::Instant::now();
    loop {
        let round = contract.sessionOf(session).call().await?.current.seedRound;
        if round != 0 && !beacon.valueOf(round).call().await?.is_zero() {
            break;
        }
        if begun.elapsed() > SESSION_START {
            bail!(
                "session {session} got no nodes within {SESSION_START:?}: run again with --log info to see why"
            );
        }
        tokio::time::sleep(POLL).await;
    }
    let nodes = contract.sessionOf(session).call().await?.current.nodes;
    steps.say(format!("session {session}: active with nodes {nodes:?}"));
    Ok(session)
}

async fn wait_for_router(router: &RouterHandle) -> Result<()> {
    tokio::time::timeout(SESSION_START, router.health().wait_ready()).await.map_err(|_| {
        let reason = router.health().readiness();
        anyhow::anyhow!("the router is not ready within {SESSION_START:?}: {reason:?}")
    })
}

#[cfg(test)]
mod tests {
    use assay_bindings::DeployConfig;

    use super::*;

    #[test]
    fn the_smallest_request_pays_for_the_tip() {
        // The router's prompt bound is at least its template allowance, 256 tokens; the tip is 0.001 COR.
        let fee = assay_protocol::money::fee_up(256, 1, FLOOR_IN, FLOOR_OUT);
        let tip = DeployConfig::development().assets[0].tip;
        assert!(fee >= tip, "{fee}");
    }
}
