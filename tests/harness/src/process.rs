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

/// The program itself: npm's launcher around it would leave it running when it is killed.
fn anvil_program() -> Result<PathBuf> {
    let packages = root().join("node_modules/@foundry-rs");
    let hint = "anvil is not installed: run `npm ci` in the repository's root";
    for entry in std::fs::read_dir(packages).context(hint)? {
        let program = entry?.path().join("bin/anvil");
        if program.is_file() {
            return Ok(program);
        }
    }
    bail!(hint)
}

/// Foundry's development chain, as npm installed it.
pub struct Anvil {
    _child: Reaped,
    url: String,
}

impl Anvil {
    /// Starts anvil with the hardfork of this project, mining on transactions and every second.
    pub async fn start() -> Result<Self> {
        let port = free_port()?;
        let child = Command::new(anvil_program()?)
            .args(["--port", &port.to_string(), "--hardfork", "prague", "--quiet"])
            .args(["--block-time", "1", "--mixed-mining"])
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
