//! `assay doctor` finds what is wrong, and says what to do.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use alloy::providers::{Provider, ProviderBuilder};
use assay_harness::{Network, NetworkOptions, free_port, run_assay};
use serde_json::Value;

use crate::wait_for;

/// What `assay doctor --json` finds, and whether it ended with 0.
fn doctor(data: &Path, flags: &[&str]) -> (bool, Vec<Value>) {
    let output = run_assay(data, &[&["doctor", "--json"], flags].concat()).unwrap();
    let findings = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.success(), findings)
}

/// The checks that failed; each has a remedy.
fn failed(findings: &[Value]) -> Vec<&str> {
    let failed = findings.iter().filter(|finding| finding["verdict"] == "failed");
    failed
        .map(|finding| {
            assert!(!finding["remedy"].as_str().unwrap().is_empty(), "{finding}");
            finding["check"].as_str().unwrap()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_well_until_something_is_wrong_with_it() {
    let flags = vec!["--miners".to_owned(), "1".to_owned()];
    let mut network = Network::start(NetworkOptions { flags }).await.unwrap();
    let data = network.data().to_path_buf();
    let (well, findings) = doctor(&data, &[]);
    assert!(well, "{findings:#?}");
    assert_eq!(failed(&findings), Vec::<&str>::new());
    let names: Vec<&str> = findings.iter().map(|f| f["check"].as_str().unwrap()).collect();
    assert!(names.contains(&"contracts") && names.contains(&"data folder"), "{names:?}");

    // A key that others can read, a model that is not there, a node that does not exist.
    let key = data.join("keys/miner-1.json");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let (well, findings) = doctor(&data, &["--model", "nowhere/at/all.gguf", "--node", "77"]);
    assert!(!well);
    assert_eq!(failed(&findings), ["nodes", "data folder", "model"], "{findings:#?}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

    // A deployment with two addresses mixed up, an account without gas.
    let file = data.join("network.json");
    let right = fs::read_to_string(&file).unwrap();
    let address = |name: &str| network.described(&format!("/deployment/{name}")).unwrap();
    fs::write(&file, right.replace(address("stats"), address("payment"))).unwrap();
    assert_eq!(failed(&doctor(&data, &[]).1), ["contracts"]);
    fs::write(&file, right.replace("\"chain_id\": 31337", "\"chain_id\": 4242")).unwrap();
    let (_, findings) = doctor(&data, &[]);
    assert!(failed(&findings).contains(&"chain"), "{findings:#?}");
    fs::write(&file, &right).unwrap();

    // Metrics for the world, and a content store behind an open network.
    let verdict = |check: &str| {
        let (_, findings) = doctor(&data, &[]);
        let finding = findings.iter().find(|finding| finding["check"] == check).unwrap();
        (finding["verdict"].as_str().unwrap().to_owned(), finding["detail"].to_string())
    };
    assert_eq!(verdict("transport").0, "ok");
    let port = free_port().unwrap();
    let own = format!("0.0.0.0:{port}");
    let oracle = network.spawn(&["oracle", "--account", "client", "--observe", &own]).unwrap();
    wait_for("a warning of open metrics", || {
        let (verdict, detail) = verdict("exposure");
        (verdict == "warning" && detail.contains(&own)).then_some(())
    })
    .await;
    drop(oracle);
    assert!(!verdict("exposure").1.contains(&own));
    let store = network.described("/ipfs_url").unwrap();
    fs::write(&file, right.replace(store, "http://192.0.2.1:5001")).unwrap();
    assert_eq!(verdict("transport").0, "warning");
    fs::write(&file, &right).unwrap();

    // The chain's clock runs away.
    let provider =
        ProviderBuilder::new().connect(network.described("/rpc_url").unwrap()).await.unwrap();
    let _: Value = provider.raw_request("evm_increaseTime".into(), [3600]).await.unwrap();
    let _: Value = provider.raw_request("evm_mine".into(), ()).await.unwrap();
    assert_eq!(failed(&doctor(&data, &[]).1), ["clock"]);

    // Nothing runs any more, though a network is described.
    network.kill().unwrap();
    let (well, findings) = doctor(&data, &[]);
    assert!(!well);
    let failed = failed(&findings);
    for check in ["chain", "contracts", "store", "router"] {
        assert!(failed.contains(&check), "{check}: {findings:#?}");
    }
    let folder = findings.iter().find(|finding| finding["check"] == "data folder").unwrap();
    assert_eq!(folder["verdict"], "warning", "{folder}");
}

#[test]
fn a_machine_without_a_network_is_told_how_to_start_one() {
    let folder = tempfile::tempdir().unwrap();
    let (well, findings) = doctor(folder.path(), &[]);
    assert!(!well);
    assert_eq!(failed(&findings), ["network"], "{findings:#?}");
    assert!(findings[0]["remedy"].as_str().unwrap().contains("assay up"), "{findings:#?}");
    let output = run_assay(folder.path(), &["doctor"]).unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("FAILED   network"));
}
