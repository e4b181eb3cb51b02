//! Processes that are killed and started again.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use assay_harness::assay_binary;

/// One agent in a process of its own.
pub struct Agent {
    name: String,
    args: Vec<String>,
    data: PathBuf,
    child: Option<Child>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Agent {
    /// Starts `assay <args>` on a data folder; its output goes to a file there.
    pub fn start(name: &str, data: &Path, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let (name, data) = (name.to_owned(), data.to_owned());
        let mut agent = Self { name, args, data, child: None };
        agent.run();
        agent
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    fn log_path(&self) -> PathBuf {
        self.data.join(format!("{}.log", self.name))
    }

    /// The end of what it printed and logged.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Starts it again, after a kill.
    pub fn run(&mut self) {
        let log: File = OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        let child = Command::new(assay_binary().unwrap())
            .args(&self.args)
            .env("ASSAY_DATA", &self.data)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Whether it ended by itself, which it never should.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some())
    }
}
