//! An anvil of the repository's npm packages, on a free port.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// Stops when dropped.
pub struct Anvil {
    child: Child,
    pub url: String,
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// The real binary: the package's launcher would outlive its child's parent.
fn binary() -> PathBuf {
    let target = match (std::env::consts::OS, std::env::consts::ARCH) {
        (os, "x86_64") => format!("{os}-amd64"),
        (os, "aarch64") => format!("{os}-arm64"),
        other => panic!("no anvil is packaged for {other:?}"),
    };
    let target = target.replace("macos", "darwin").replace("windows", "win32");
    repository("node_modules/@foundry-rs").join(format!("anvil-{target}/bin/anvil"))
}

impl Anvil {
    pub fn start() -> Self {
        let binary = binary();
        assert!(
            binary.exists(),
            "{} is missing: run `npm ci` in the repository's root",
            binary.display()
        );
        let mut child = Command::new(binary)
            .args(["--port", "0", "--hardfork", "prague", "--host", "127.0.0.1"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines
            .find_map(|line| {
                line.unwrap().strip_prefix("Listening on ").map(|at| format!("http://{at}"))
            })
            .expect("anvil ended before it listened");
        // Anvil logs every call: its output must be read, or it would block.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
