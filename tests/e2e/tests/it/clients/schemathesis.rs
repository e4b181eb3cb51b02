//! schemathesis makes requests from the OpenAPI document, good ones and bad ones, and finds nothing.

use std::process::Command;

use assay_harness::Network;

use super::{python, script};

/// Random requests to each operation, besides some 200 that cover its document: a minute in CI. More with `ASSAY_SCHEMATHESIS_EXAMPLES`.
const EXAMPLES: &str = "10";
const SEED: &str = "6";

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing() {
    let network = Network::start(Default::default()).await.unwrap();
    let examples = std::env::var("ASSAY_SCHEMATHESIS_EXAMPLES").unwrap_or_else(|_| EXAMPLES.into());
    let mut command: Command = python();
    command
        .args(["-m", "schemathesis.cli", "run"])
        .arg(format!("{}/openapi.json", network.http_url().unwrap()))
        .args(["--checks", "all", "--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", &examples, "--seed", SEED, "--workers", "4"])
        .arg("--continue-on-failure")
        // A WebSocket, which it does not speak; the router's own tests do.
        .args(["--exclude-operation-id", "connectResponses"])
        // It has no key to sign with; the router's own tests do.
        .args(["--exclude-operation-id", "carryRequest"])
        .args(["--request-timeout", "60", "--no-color"])
        .env("SCHEMATHESIS_HOOKS", script("schemathesis_hooks.py"))
        .current_dir(network.data());
    let output = command.output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}\n{complaint}\n{}", network.log());
    network.interrupt().await.unwrap();
}
