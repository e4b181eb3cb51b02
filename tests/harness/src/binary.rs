//! The real `assay` binary, as a user runs it.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::{process::Reaped, root};

/// A network is up in seconds; a machine that compiles beside the test gets this much.
const NETWORK_START: Duration = Duration::from_secs(180);
/// Shutdown finishes what was begun: the slowest step waits for a block.
const NETWORK_STOP: Duration = Duration::from_secs(60);

/// Builds the binary if it is out of date and returns its path.
pub fn assay_binary() -> Result<PathBuf> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY.get_or_init(|| build().map_err(|e| format!("{e:#}"))).clone().map_err(anyhow::Error::msg)
}

fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // What cargo sets for a test makes build scripts of dependencies run anew, and with them half the tree.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO") && !["CARGO_HOME", "CARGO_TARGET_DIR"].contains(&&*name) {
            command.env_remove(&*name);
        }
    }
    let output = command
        .args(["build", "--locked", "--quiet", "--bin", "assay", "--message-format", "json"])
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()
        .context("cargo cannot be started")?;
    if !output.status.success() {
        bail!("`cargo build --bin assay` failed");
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "assay")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo did not name the binary that it built")
}

/// Runs `assay` with `args` against the network in `data`, and waits for it.
pub fn run_assay<S: AsRef<OsStr>>(data: &Path, args: &[S]) -> Result<Output> {
    Command::new(assay_binary()?)
        .args(args)
        .env("ASSAY_DATA", data)
        .stdin(Stdio::null())
        .output()
        .context("assay cannot be started")
}

/// An agent in a process of its own. It ends by force, as in a crash, when it is dropped.
pub struct Agent(#[expect(dead_code, reason = "held to be killed")] Reaped);

/// How to start a network.
#[derive(Clone, Debug, Default)]
pub struct NetworkOptions {
    /// More flags of `assay up`.
    pub flags: Vec<String>,
}

/// A running `assay up` on free ports, in a folder of its own.
pub struct Network {
    child: Reaped,
    data: TempDir,
    flags: Vec<String>,
    password: Option<String>,
    description: Value,
}

/// `assay up`, its output at the end of `up.log`.
fn spawn_up(data: &Path, flags: &[String], password: Option<&str>) -> Result<Reaped> {
    let log = File::options().create(true).append(true).open(data.join("up.log"))?;
    let child = Command::new(assay_binary()?)
        .args(["up", "--http", "127.0.0.1:0", "--rpc", "127.0.0.1:0", "--ipfs", "127.0.0.1:0"])
        .args(flags)
        .env("ASSAY_DATA", data)
        .envs(password.map(|password| ("ASSAY_PASSWORD", password)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("assay up cannot be started")?;
    Ok(Reaped(child))
}

impl Network {
    /// Starts a network and waits until it is ready.
    pub async fn start(options: NetworkOptions) -> Result<Self> {
        Self::start_with(options, None).await
    }

    /// The same with keystores that this password encrypts.
    pub async fn start_with_password(options: NetworkOptions, password: &str) -> Result<Self> {
        Self::start_with(options, Some(password.to_owned())).await
    }

    async fn start_with(options: NetworkOptions, password: Option<String>) -> Result<Self> {
        let data = TempDir::new()?;
        let flags = options.flags;
        let child = spawn_up(data.path(), &flags, password.as_deref())?;
        let mut network = Self { child, data, flags, password, description: Value::Null };
        network.wait_until_ready().await?;
        Ok(network)
    }

    /// Ends it as a crash does, and leaves what it left.
    pub fn kill(&mut self) -> Result<()> {
        self.child.0.kill()?;
        self.child.0.wait()?;
        Ok(())
    }

    /// Starts it again in the same folder with the same flags, and waits until it is ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.restart_with(&[]).await
    }

    /// The same with more flags.
    pub async fn restart_with(&mut self, more: &[&str]) -> Result<()> {
        // What a killed network left is not taken for the new one's.
        let _ = fs::remove_file(self.data.path().join("network.json"));
        let more = more.iter().copied().map(str::to_owned);
        let flags: Vec<String> = self.flags.iter().cloned().chain(more).collect();
        self.child = spawn_up(self.data.path(), &flags, self.password.as_deref())?;
        self.wait_until_ready().await
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < NETWORK_START {
            if let Some(status) = self.child.0.try_wait()? {
                bail!("assay up ended with {status}:\n{}", self.log());
            }
            // The description is written last.
            if let Ok(text) = fs::read(self.data.path().join("network.json")) {
                self.description = serde_json::from_slice(&text)?;
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("assay up was not ready within {NETWORK_START:?}:\n{}", self.log())
    }

    /// Starts `assay <args>` beside it, e.g. a miner of its own.
    pub fn spawn(&self, args: &[&str]) -> Result<Agent> {
        self.spawn_agent(args, None)
    }

    /// The same with the password of its keystore.
    pub fn spawn_with_password(&self, args: &[&str], password: &str) -> Result<Agent> {
        self.spawn_agent(args, Some(password))
    }

    fn spawn_agent(&self, args: &[&str], password: Option<&str>) -> Result<Agent> {
        let log = File::create(self.data.path().join("agent.log"))?;
        let child = Command::new(assay_binary()?)
            .args(args)
            .env("ASSAY_DATA", self.data.path())
            .envs(password.map(|password| ("ASSAY_PASSWORD", password)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("the agent cannot be started")?;
        Ok(Agent(Reaped(child)))
    }

    /// What it printed and logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.data.path().join("up.log")).unwrap_or_default()
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// The text at a JSON pointer of network.json, e.g. `/rpc_url`.
    pub fn described(&self, pointer: &str) -> Result<&str> {
        self.description
            .pointer(pointer)
            .and_then(Value::as_str)
            .with_context(|| format!("network.json has no {pointer}: {}", self.description))
    }

    /// Base URL of the router.
    pub fn http_url(&self) -> Result<&str> {
        self.described("/http_url")
    }

    /// Memory that the process holds now, in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.0.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
        Ok(kib * 1024)
    }

    /// Ends it as Ctrl-C does, and returns its log.
    pub async fn interrupt(mut self) -> Result<String> {
        let id = self.child.0.id().to_string();
        let killed = Command::new("kill").args(["-INT", &id]).status()?;
        anyhow::ensure!(killed.success(), "kill -INT failed");
        let begun = Instant::now();
        while begun.elapsed() < NETWORK_STOP {
            if let Some(status) = self.child.0.try_wait()? {
                let log = self.log();
                anyhow::ensure!(status.success(), "assay up ended with {status}:\n{log}");
                return Ok(log);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("assay up did not end within {NETWORK_STOP:?} of Ctrl-C:\n{}", self.log())
    }
}
