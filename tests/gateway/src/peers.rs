//! How each gateway is started.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{answer::MODEL, load, node::CANCELS, process::Process, subject::BLOCKS_SOCKET};

/// Time to the first answer.
const START_WITHIN: Duration = Duration::from_secs(90);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway {
    /// The upstream itself.
    Direct,
    /// This repository's router.
    Assay,
    /// From PyPI.
    VllmRouter,
    /// From PyPI.
    SglangRouter,
    /// From PyPI.
    Smg,
    /// From PyPI, one worker.
    LiteLlm,
}

/// Where programs are and logs go.
pub struct Bench {
    /// Folder with one Python environment for each of the others.
    pub environments: PathBuf,
    /// Logs and databases.
    pub folder: PathBuf,
}

/// A gateway at work.
pub struct Started {
    /// Itself; the upstream for `Direct`.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    /// From its start to its first answer.
    pub after: Duration,
    /// What it is in front of.
    behind: Vec<Process>,
    data: PathBuf,
}

impl Gateway {
    /// All, in the order of the table.
    pub const ALL: [Self; 6] =
        [Self::Direct, Self::Assay, Self::VllmRouter, Self::SglangRouter, Self::Smg, Self::LiteLlm];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Assay => "assay",
            Self::VllmRouter => "vllm-router",
            Self::SglangRouter => "sglang-router",
            Self::Smg => "smg",
            Self::LiteLlm => "litellm",
        }
    }

    fn program(self, bench: &Bench) -> PathBuf {
        bench.environments.join(self.name()).join("bin").join(self.name())
    }

    /// Whether it is there to be measured.
    pub fn is_installed(self, bench: &Bench) -> bool {
        matches!(self, Self::Direct | Self::Assay) || self.program(bench).exists()
    }

    /// Its version.
    pub fn version(self, bench: &Bench) -> String {
        if matches!(self, Self::Direct | Self::Assay) {
            return env!("CARGO_PKG_VERSION").to_owned();
        }
        let code = format!("import importlib.metadata as m; print(m.version('{}'))", self.name());
        let python = self.program(bench).with_file_name("python");
        let output = Command::new(python).args(["-c", &code]).output();
        output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
    }

    /// Starts it, with what it is in front of: for the router, nodes that have signed `ahead` answers.
    ///
    /// # Errors
    /// If it does not answer in time.
    pub fn start(self, bench: &Bench, ahead: u64) -> Result<Started> {
        match self {
            Self::Assay => start_router(bench, ahead),
            _ => self.start_other(bench),
        }
    }

    fn start_other(self, bench: &Bench) -> Result<Started> {
        let behind = free_address()?;
        let log = |name: &str| bench.folder.join(format!("{name}.log"));
        let upstream = Process::start(
            Command::new(std::env::current_exe()?).args([
                "upstream",
                "--listen",
                &behind.to_string(),
            ]),
            &log("upstream"),
        )?;
        load::first_answer(behind, START_WITHIN)?;
        let data = bench.folder.clone();
        if self == Self::Direct {
            let after = Duration::ZERO;
            return Ok(Started { process: upstream, address: behind, after, behind: vec![], data });
        }
        let address = free_address()?;
        let (port, metrics) = (address.port().to_string(), free_address()?.port().to_string());
        let url = format!("http://{behind}");
        let mut command = Command::new(self.program(bench));
        let routing = [
            "--host",
            "127.0.0.1",
            "--port",
            &port,
            "--worker-urls",
            &url,
            "--prometheus-port",
            &metrics,
        ];
        match self {
            Self::Smg | Self::SglangRouter => {
                command.arg("launch").args(routing);
            }
            Self::LiteLlm => {
                let config = bench.folder.join("litellm.yaml");
                fs::write(&config, litellm(&url))?;
                // Without it the start waits for a list of prices from the network.
                command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
                command.env("LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY", "true");
                command.args(["--host", "127.0.0.1", "--port", &port, "--config"]).arg(config);
            }
            _ => {
                command.args(routing);
            }
        }
        let begun = Instant::now();
        let process = Process::start(&mut command, &log(self.name()))?;
        load::first_answer(address, START_WITHIN)?;
        let after = begun.elapsed();
        Ok(Started { process, address, after, behind: vec![upstream], data })
    }
}

fn litellm(url: &str) -> String {
    format!(
        "model_list:\n  - model_name: {MODEL}\n    litellm_params:\n      model: openai/{MODEL}\n      api_base: {url}/v1\n      api_key: mock\n"
    )
}

fn start_router(bench: &Bench, ahead: u64) -> Result<Started> {
    let address = free_address()?;
    let data = bench.folder.join(format!("router-{}", address.port()));
    fs::create_dir_all(&data)?;
    let nodes = start_nodes(address, &data, (1, ahead))?;
    let begun = Instant::now();
    let process = Process::start(
        Command::new(std::env::current_exe()?)
            .args(["router", "--listen", &address.to_string(), "--data"])
            .arg(&data),
        &bench.folder.join("router.log"),
    )?;
    load::first_answer(address, START_WITHIN)?;
    let after = begun.elapsed();
    Ok(Started { process, address, after, behind: vec![nodes], data })
}

fn start_nodes(router: SocketAddr, data: &Path, (nodes, ahead): (u32, u64)) -> Result<Process> {
    Process::start_ready(
        Command::new(std::env::current_exe()?)
            .args(["nodes", "--router", &router.to_string(), "--nodes", &nodes.to_string()])
            .args(["--ahead", &ahead.to_string(), "--blocks"])
            .arg(data.join(BLOCKS_SOCKET)),
        &data.join("nodes.log"),
    )
}

impl Started {
    /// Behind the router, as many nodes as a session can have: one takes 32 tasks at once.
    ///
    /// # Errors
    /// If they do not start.
    pub fn widen(&mut self, gateway: Gateway, nodes: u32) -> Result<()> {
        if gateway == Gateway::Assay {
            self.behind.clear();
            self.behind.push(start_nodes(self.address, &self.data, (nodes, 0))?);
            // All of them must be there before the first stream begins.
            let all = format!("assay_router_links{{agent=\"router\"}} {nodes}\n");
            load::until(self.address, "/metrics", &all, START_WITHIN)?;
        }
        Ok(())
    }
}

impl Started {
    /// When nodes were told that a client is gone, unix microseconds.
    pub fn cancels(&self) -> Vec<u128> {
        let text = fs::read_to_string(self.data.join(CANCELS)).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}
