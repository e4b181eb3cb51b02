//! The agents of a development network, from their start to their end.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, ensure};
use assay_bindings::COR;
use assay_chain::Chain;
use assay_client::Wallet;
use assay_engine::Engine;
use assay_engine_mistral::MistralEngine;
use assay_miner::{MinerConfig, MinerDeps, MinerError, MinerHandle};
use assay_oracle::{OracleConfig, OracleHandle};
use assay_router::{RouterConfig, RouterDeps, RouterHandle, ServedModel};

use super::{
    AGENTS_FOLDER, Engines, Steps,
    foundation::Foundation,
    proof,
    session::{self, SESSION_START},
};
use crate::{
    args::UpArgs,
    cheat::{self, CheatKind, Story},
    commands::model::{Terms, ensure_registered},
    keys::Account,
    network::{self, Network},
};

/// Price of a million prompt tokens in minor units: 10 COR.
const FLOOR_IN: u128 = 10 * COR;
/// Price of a million generated tokens: 20 COR.
const FLOOR_OUT: u128 = 20 * COR;
/// Slots of each miner: the most, so that every session may reserve it.
const MINER_CAPACITY: u8 = 8;

/// A network that serves.
pub struct Running {
    pub description: Network,
    base: Foundation,
    oracle: OracleHandle,
    router: RouterHandle,
    miners: Vec<MinerHandle>,
    session: u64,
    /// What the last miner does, if it is dishonest.
    cheat: Option<CheatKind>,
}

impl Running {
    pub async fn start(
        data: &Path,
        args: &UpArgs,
        steps: &Arc<Steps>,
        engines: Engines,
        base: Foundation,
    ) -> Result<Self> {
        let chain = Chain::connect(&base.agent_rpc_url, base.deployment.clone()).await?;
        let engine = &engines.honest;
        let model = register_model(&base, engine).await?;
        steps.say(format!("model: {} registered as {}", model.name, model.model_id));
        // Before the session: only those that open from then on are proven.
        let thresholds = proof::publish(&base, args, engine, steps).await?;
        ensure!(
            args.cheat.is_none() || thresholds.is_some(),
            "--cheat needs thresholds to be found out by: name some with --calibration"
        );
        let agents = data.join(AGENTS_FOLDER);
        let mut config =
            OracleConfig::new(&base.agent_rpc_url, base.deployment.clone(), agents.join("oracle"));
        config.start_block = base.start_block;
        let oracle = assay_oracle::start(config, base.accounts.oracle.signer.clone()).await?;
        steps.say(format!("oracle: {}", oracle.address()));
        let router = start_router(&agents, args, &base, &chain, &model).await?;
        let http_url = format!("http://{}", router.local_addr());
        steps.say(format!("router: {http_url}"));
        let miners = start_miners(&agents, &base, &chain, &engines, steps, &router).await?;
        if let Some(table) = &thresholds {
            proof::attest(&base, &chain, table, engine, steps).await?;
        }
        let session = session::find_or_open(&base, &chain, &model, steps).await?;
        wait_for_router(&router).await?;
        let description = Network {
            rpc_url: base.rpc_url.clone(),
            ipfs_url: base.ipfs_url.clone(),
            http_url: Some(http_url),
            start_block: base.start_block,
            deployment: base.deployment.clone(),
            model: Some(model),
        };
        let cheat = engines.dishonest.as_ref().map(|(kind, _)| *kind);
        Ok(Self { description, base, oracle, router, miners, session, cheat })
    }

    /// What a person needs to go on; `command` is how this program was called.
    pub async fn banner(&self, command: &str) -> Result<String> {
        let network = &self.description;
        let http = network.http_url.as_deref().unwrap_or_default();
        let model = network.model.as_ref().map_or("", |model| model.name.as_str());
        let chain = Chain::connect(&self.base.rpc_url, self.base.deployment.clone()).await?;
        let session = session::describe(&chain, self.session).await?;
        let accounts: Vec<String> = self
            .base
            .accounts
            .all()
            .map(|account| format!("    {:<9} {}", account.name, account.address()))
            .collect();
        let cheat = match (self.cheat, self.miners.last()) {
            (Some(kind), Some(miner)) => format!(
                "  CHEAT     node {} {kind}.\n            Questions are asked here until it is caught; yours are welcome, too\n",
                miner.node_id()
            ),
            _ => String::new(),
        };
        Ok(format!(
            "\n  API       {http}/v1   (OpenAI-compatible, model {model})\n  chain     {}\n  IPFS      {}   gateway {}/ipfs/<cid>\n\
             {session}\n{cheat}  accounts\n{}\n\n  Ask in another terminal:\n    {command} ask \"What is a session?\"\n    \
             curl {http}/v1/chat/completions -H 'content-type: application/json' \\\n      \
             -d '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"What is a session?\"}}],\"stream\":true}}'\n\n  \
             Ctrl-C ends the network; `{command} up` goes on with it.\n",
            network.rpc_url,
            network.ipfs_url,
            network.ipfs_url.trim_end_matches('/'),
            accounts.join("\n"),
        ))
    }

    /// Who tells what becomes of the miner that cheats, if there is one.
    pub async fn story(&self, steps: &Arc<Steps>) -> Result<Option<Story>> {
        let (Some(kind), Some(miner)) = (self.cheat, self.miners.last()) else { return Ok(None) };
        let network = &self.description;
        Ok(Some(Story {
            node: miner.node_id().0,
            kind,
            chain: Chain::connect(&self.base.agent_rpc_url, self.base.deployment.clone()).await?,
            http_url: network.http_url.clone().unwrap_or_default(),
            model: network.model.as_ref().map(|model| model.name.clone()).unwrap_or_default(),
            steps: steps.clone(),
        }))
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

/// Registers the model, with the deployer as its publisher.
async fn register_model(base: &Foundation, engine: &MistralEngine) -> Result<network::ServedModel> {
    let signer = base.accounts.deployer.signer.clone();
    let wallet = Wallet::connect(&base.rpc_url, base.deployment.clone(), signer).await?;
    let terms =
        Terms { price_in: FLOOR_IN, price_out: FLOOR_OUT, royalty_bps: 0, predecessor: None };
    ensure_registered(&wallet, base.store.as_ref(), engine, &terms).await
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
    engines: &Engines,
    steps: &Steps,
    router: &RouterHandle,
) -> Result<Vec<MinerHandle>> {
    let link = format!("ws://{}/link", router.local_addr());
    let model_id = engines.honest.info().model_id;
    let last = base.accounts.miners.last().map(Account::address);
    let kind = engines.dishonest.as_ref().map(|(kind, _)| *kind);
    let stores = cheat::stores(kind, &base.store);
    let starts = base.accounts.miners.iter().map(|account| {
        let dishonest = engines.dishonest.as_ref().filter(|_| Some(account.address()) == last);
        let (engine, store): (Arc<dyn Engine>, _) = match dishonest {
            Some((_, engine)) => (engine.clone(), stores.dishonest.clone()),
            None => (engines.honest.clone(), stores.others.clone()),
        };
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
            store,
            engine,
            model_id,
        };
        async move {
            match assay_miner::start(config, deps).await {
                Ok(miner) => {
                    steps.say(format!("{}: node {}", account.name, miner.node_id()));
                    Ok(Some(miner))
                }
                // It drained, exited or was caught in an earlier run; the others go on.
                Err(left @ (MinerError::NodeLeft { .. } | MinerError::NodeJailed { .. })) => {
                    steps.say(format!("{}: not started: {left}", account.name));
                    Ok(None)
                }
                Err(error) => Err(anyhow::Error::new(error)
                    .context(format!("{} cannot be started", account.name))),
            }
        }
    });
    let started = futures::future::try_join_all(starts).await?;
    ensure!(
        engines.dishonest.is_none() || started.last().is_some_and(Option::is_some),
        "the miner that is to cheat was caught in an earlier run: begin anew with --fresh"
    );
    let miners: Vec<MinerHandle> = started.into_iter().flatten().collect();
    ensure!(!miners.is_empty(), "every miner's node has left: start more with --miners");
    Ok(miners)
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
