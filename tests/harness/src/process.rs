//! Child processes that end with their owner.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::root;

/// anvil starts in well under a second; a busy machine gets this much.
const ANVIL_START: Duration = Duration::from_secs(60);

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A child that is killed when it is dropped.
pub(crate) struct Reaped(pub Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One of Foundry's programs (anvil, cast), as npm installed it. npm's launcher around it would leave it
/// running when it is killed.
pub fn foundry_program(name: &str) -> Result<PathBuf> {
    let packages = root().join("node_modules/@foundry-rs");
    let hint = || format!("{name} is not installed: run `npm ci` in the repository's root");
    for entry in std::fs::read_dir(packages).with_context(hint)? {
        let program = entry?.path().join("bin").join(name);
        if program.is_file() {
            return Ok(program);
        }
    }
    bail!(hint())
}

/// Foundry's development chain, as npm installed it.
pub struct Anvil {
    _child: Reaped,
    url: String,
}

impl Anvil {
    /// Starts anvil with the hardfork of this project, mining on transactions and every second.
    pub async fn start() -> Result<Self> {
        Self::start_with(&["--block-time", "1", "--mixed-mining"]).await
    }

    /// Starts anvil with the hardfork of this project and these flags.
    pub async fn start_with(flags: &[&str]) -> Result<Self> {
        let port = free_port()?;
        let child = Command::new(foundry_program("anvil")?)
            .args(["--port", &port.to_string(), "--hardfork", "prague", "--quiet"])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("anvil cannot be started")?;
        let anvil = Self { _child: Reaped(child), url: format!("http://127.0.0.1:{port}") };
        let body =
            serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []});
        let begun = Instant::now();
        while begun.elapsed() < ANVIL_START {
            if reqwest::Client::new().post(&anvil.url).json(&body).send().await.is_ok() {
                return Ok(anvil);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("anvil did not answer at {} within {ANVIL_START:?}", anvil.url)
    }

    /// Its JSON-RPC.
    pub fn url(&self) -> &str {
        &self.url
    }
}
