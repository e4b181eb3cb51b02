//! A real IPFS daemon beside the network.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{process::Reaped, root};

/// js-ipfs without peers, as npm installed it for the tests of the content store, with a repository of its own.
pub struct Ipfs {
    child: Reaped,
    repo: TempDir,
    url: String,
}

impl Ipfs {
    /// Starts it on a free port and waits until it answers.
    pub async fn start() -> Result<Self> {
        let repo = TempDir::new()?;
        let (child, url) = launch(&repo, "0").await?;
        Ok(Self { child, repo, url })
    }

    /// Its Kubo RPC.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) -> Result<()> {
        self.child.0.kill()?;
        self.child.0.wait()?;
        // It would call the lock of a killed process old only after 20 seconds.
        Ok(fs::remove_dir(self.repo.path().join("repo.lock"))?)
    }

    /// Starts it again with the same repository on the same port.
    pub async fn restart(&mut self) -> Result<()> {
        let port = self.url.rsplit(':').next().context("no port")?;
        let (child, url) = launch(&self.repo, port).await?;
        ensure!(url == self.url, "the daemon listens on {url}, not on {}", self.url);
        self.child = child;
        Ok(())
    }
}

async fn launch(repo: &TempDir, port: &str) -> Result<(Reaped, String)> {
    let folder = root().join("sdk/store/tests/daemon");
    ensure!(
        folder.join("node_modules").is_dir(),
        "the IPFS daemon is not installed: run `npm ci` in {}",
        folder.display()
    );
    let mut child = Command::new("node")
        .arg("--no-warnings")
        .arg(folder.join("daemon.mjs"))
        .arg(repo.path())
        .arg(port)
        // It ends when this ends, also where nobody can kill it any more.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("node cannot be started: install Node.js 20 or later")?;
    let output = child.stdout.take().context("no output")?;
    let child = Reaped(child);
    let url = tokio::task::spawn_blocking(move || first_line(output)).await??;
    Ok((child, url))
}

fn first_line(output: ChildStdout) -> Result<String> {
    let mut line = String::new();
    // An address is far shorter.
    BufReader::new(output.take(1000)).read_line(&mut line)?;
    ensure!(line.ends_with('\n'), "the IPFS daemon ended before it listened");
    Ok(line.trim_end().to_owned())
}
