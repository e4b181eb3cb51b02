//! Networks to torment: each agent in a process of its own on anvil, and all of them in one on the embedded chain.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use alloy::providers::{DynProvider, Provider, ProviderBuilder};
use assay_bindings::Deployment;
use assay_harness::{Anvil, free_port, run_assay};
use assay_store::{StoreServer, StoreServerConfig};
use serde_json::Value;
use tempfile::TempDir;

use super::{agents::Agent, proxy::Line, verdict::Chain};

/// Everything is there within this, on a machine that compiles beside it.
const READY: Duration = Duration::from_secs(180);
const MINERS: usize = 3;
/// Far above what a run stores.
const STORE_BYTES: u64 = 1 << 30;
const POLL: Duration = Duration::from_millis(100);
/// Seconds between anvil's blocks, from the first reorganisation on.
const BLOCK_S: u64 = 1;

/// A network.
pub struct World {
    /// What may be killed.
    pub agents: Vec<Agent>,
    /// What may be cut.
    pub lines: Vec<Line>,
    /// Base URL of the router.
    pub http_url: String,
    pub model: String,
    /// Accounts, each with a session of its own, for tasks past the router.
    pub direct_sessions: Vec<(&'static str, u64)>,
    rpc_url: String,
    data: TempDir,
    _store: Option<StoreServer>,
    _anvil: Option<Anvil>,
}

fn network(data: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(data.join("network.json")).ok()?).ok()
}

/// Runs `assay up` until it is ready.
async fn up(data: &Path, flags: &[&str]) -> (Agent, Value) {
    let mut agent = Agent::start("up", data, &[&["up"], flags].concat());
    let begun = Instant::now();
    loop {
        if let Some(description) = network(data) {
            return (agent, description);
        }
        assert!(!agent.has_ended(), "assay up ended:\n{}", agent.log());
        assert!(begun.elapsed() < READY, "assay up is not ready:\n{}", agent.log());
        tokio::time::sleep(POLL).await;
    }
}

/// `assay <args> --json` on a network.
fn json(data: &Path, args: &[&str]) -> Value {
    let output = run_assay(data, &[args, &["--json"]].concat()).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "assay {args:?}: {complaint}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Sessions with all miners, with nodes and seed.
async fn open_sessions(data: &Path) -> Vec<(&'static str, u64)> {
    let nodes = MINERS.to_string();
    let open = |account| {
        let open = ["session", "open", "--account", account, "--deposit", "500"];
        let open = [&open[..], &["--min-nodes", &nodes, "--max-nodes", &nodes]].concat();
        (account, json(data, &open)["session"].as_u64().unwrap())
    };
    let sessions = ["client", "deployer"].map(open).to_vec();
    let begun = Instant::now();
    for (_, session) in &sessions {
        while json(data, &["session", "show", &session.to_string()])["seed_known"] != true {
            assert!(begun.elapsed() < READY, "session {session} got no nodes");
            tokio::time::sleep(POLL).await;
        }
    }
    sessions
}

async fn reachable(http_url: &str) {
    let begun = Instant::now();
    loop {
        if let Ok(answer) = reqwest::get(format!("{http_url}/ready")).await
            && answer.status().is_success()
        {
            return;
        }
        assert!(begun.elapsed() < READY, "{http_url} is not ready");
        tokio::time::sleep(POLL).await;
    }
}

impl World {
    /// Router, miners and, if there shall be one, an oracle, each a process; anvil; a content store that stays.
    pub async fn apart_on_anvil(oracle: bool) -> Self {
        let data = TempDir::new().unwrap();
        let anvil = Anvil::start().await.unwrap();
        let folder = data.path().join("ipfs");
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = StoreServerConfig { listen, folder, limit_bytes: STORE_BYTES };
        let store = StoreServer::start(config).await.unwrap();
        let miners = MINERS.to_string();
        let flags = ["--rpc-url", anvil.url(), "--ipfs-url", &store.url(), "--miners", &miners];
        let http = ["--http", "127.0.0.1:0"];
        // `assay up` registers everybody; then each agent goes on alone.
        let (first, description) = up(data.path(), &[&flags[..], &http].concat()).await;
        drop(first);
        let file = data.path().join("network.json");
        std::fs::write(&file, serde_json::to_vec(&description).unwrap()).unwrap();

        let chain: SocketAddr = anvil.url().strip_prefix("http://").unwrap().parse().unwrap();
        let router: SocketAddr = format!("127.0.0.1:{}", free_port().unwrap()).parse().unwrap();
        let (rpc, link) = (Line::to(chain).await, Line::to(router).await);
        let rpc_url = format!("ws://{}", rpc.address());
        let link_url = format!("ws://{}/link", link.address());
        let (address, rpc_flags) = (router.to_string(), ["--rpc-url", &rpc_url]);
        let start = |name: &str, args: &[&str]| {
            Agent::start(name, data.path(), &[args, &rpc_flags[..]].concat())
        };
        let router_args = ["router", "--account", "router", "--http", &address];
        let mut agents = vec![start("router", &router_args)];
        if oracle {
            agents.push(start("oracle", &["oracle", "--account", "oracle"]));
        }
        for number in 1..=MINERS {
            let name = format!("miner-{number}");
            agents.push(start(&name, &["miner", "--account", &name, "--router", &link_url]));
        }
        let http_url = format!("http://{router}");
        reachable(&http_url).await;
        // The miners follow the queues of sessions that began in their life.
        let direct_sessions = if oracle { open_sessions(data.path()).await } else { Vec::new() };
        Self {
            agents,
            lines: vec![rpc, link],
            http_url,
            model: description["model"]["name"].as_str().unwrap().to_owned(),
            direct_sessions,
            rpc_url: anvil.url().to_owned(),
            data,
            _store: Some(store),
            _anvil: Some(anvil),
        }
    }

    /// One process with everything in it.
    pub async fn whole() -> Self {
        let data = TempDir::new().unwrap();
        let port = || format!("127.0.0.1:{}", free_port().unwrap());
        let (http, rpc, ipfs, miners) = (port(), port(), port(), MINERS.to_string());
        let flags = ["--http", &http, "--rpc", &rpc, "--ipfs", &ipfs, "--miners", &miners];
        let (agent, description) = up(data.path(), &flags).await;
        let direct_sessions = open_sessions(data.path()).await;
        Self {
            agents: vec![agent],
            lines: Vec::new(),
            http_url: format!("http://{http}"),
            model: description["model"]["name"].as_str().unwrap().to_owned(),
            direct_sessions,
            rpc_url: format!("http://{rpc}"),
            data,
            _store: None,
            _anvil: None,
        }
    }

    pub fn data(&self) -> PathBuf {
        self.data.path().to_owned()
    }

    fn provider(&self) -> DynProvider {
        ProviderBuilder::new().connect_http(self.rpc_url.parse().unwrap()).erased()
    }

    /// Takes the newest blocks back; their transactions return to the pool or are lost, as the chain does it. False
    /// if the chain is away.
    pub async fn reorg(&self, depth: u64) -> bool {
        let provider = self.provider();
        let mining = async |seconds: u64| {
            let _: Value =
                provider.raw_request("evm_setIntervalMining".into(), [seconds]).await.unwrap();
        };
        if self._anvil.is_some() {
            // If anvil mines while it takes blocks back, numbers are left without a block, and transactions are in two.
            // A block by hand waits for one that is being made.
            mining(0).await;
            let _: Value = provider.raw_request("evm_mine".into(), ()).await.unwrap();
        }
        let none: [(); 0] = [];
        let done = provider.raw_request("anvil_reorg".into(), (depth, none)).await;
        if self._anvil.is_some() {
            mining(BLOCK_S).await;
        }
        done.is_ok_and(|_: Value| true)
    }

    /// The chain, once it is there: the last kill may have been a moment ago.
    pub async fn chain(&self) -> Chain {
        let provider = self.provider();
        let begun = Instant::now();
        loop {
            let description = network(self.data.path());
            if let Some(description) = description
                && provider.get_block_number().await.is_ok()
            {
                let deployment = description["deployment"].clone();
                let deployment: Deployment = serde_json::from_value(deployment).unwrap();
                return Chain { provider, deployment };
            }
            assert!(begun.elapsed() < READY, "the chain is away:\n{}", self.logs());
            tokio::time::sleep(POLL).await;
        }
    }

    /// An agent that is killed starts again; one that ends by itself is a defect.
    pub fn assert_nobody_gave_up(&mut self) {
        for agent in &mut self.agents {
            assert!(!agent.has_ended(), "{} ended by itself:\n{}", agent.name(), agent.log());
        }
    }

    pub fn logs(&self) -> String {
        let logs = self.agents.iter().map(|agent| format!("--- {}\n{}", agent.name(), agent.log()));
        logs.collect::<Vec<_>>().join("\n")
    }
}
