//! Processes that are measured: started, watched through /proc, and ended with the value that owns them.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

/// Clock ticks in a second, on every Linux that runs today.
const TICKS_PER_S: u64 = 100;

/// A process; its end is this value's.
pub struct Process(Child);

impl Process {
    /// Starts it; what it prints goes to `log`.
    ///
    /// # Errors
    /// If there is no such program.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let out = File::create(log)?;
        let error = out.try_clone()?;
        Self::spawn(command.stdout(out).stderr(error))
    }

    /// Starts it and waits for its first line.
    ///
    /// # Errors
    /// If there is no such program, or it ends without one.
    pub fn start_ready(command: &mut Command, log: &Path) -> Result<Self> {
        let mut process = Self::spawn(command.stdout(Stdio::piped()).stderr(File::create(log)?))?;
        let stdout = process.0.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        anyhow::ensure!(!line.is_empty(), "it ended: see {}", log.display());
        Ok(process)
    }

    fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_owned();
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| format!("{} cannot be started", name.display()))?))
    }

    /// Memory that is resident, of it and its children, MiB.
    pub fn resident_mib(&self) -> f64 {
        let kib = |pid: u32| -> Option<f64> {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        self.tree().into_iter().filter_map(kib).sum::<f64>() / 1024.0
    }

    /// Processor time so far, of it and its children.
    pub fn cpu(&self) -> Duration {
        let ticks = |pid: u32| -> Option<u64> {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name, in brackets, may have spaces.
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
        };
        let all: u64 = self.tree().into_iter().filter_map(ticks).sum();
        Duration::from_millis(all * 1000 / TICKS_PER_S)
    }

    fn tree(&self) -> Vec<u32> {
        let mut found = vec![self.0.id()];
        let mut next = 0;
        while let Some(pid) = found.get(next).copied() {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let children = children.unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            next += 1;
        }
        found
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        for pid in self.tree().into_iter().rev() {
            // Children first: one that is left would keep its port.
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
        let _ = self.0.wait();
    }
}
