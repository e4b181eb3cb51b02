//! Bad input gets a clear error that says what to do.

use std::{fs, net::TcpListener, path::Path, process::Output};

use alloy::providers::{ProviderBuilder, ext::AnvilApi};
use assay_harness::{Anvil, Network, free_port, run_assay};
use serde_json::json;

use crate::chat;

fn up(data: &Path, flags: &[&str]) -> Output {
    let ports = ["up", "--http", "127.0.0.1:0", "--rpc", "127.0.0.1:0", "--ipfs", "127.0.0.1:0"];
    let flags: Vec<&str> = ports.iter().chain(flags).copied().collect();
    run_assay(data, &flags).unwrap()
}

/// The command failed, and its error has all of `parts`.
fn refused(output: &Output, parts: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success(),
        "it did not fail: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    for part in parts {
        assert!(error.contains(part), "no {part:?} in: {error}");
    }
    assert!(!error.contains("panicked"), "{error}");
}

#[test]
fn a_port_in_use_names_the_flag_that_changes_it() {
    let data = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, others) in [
        ("--http", ["--rpc", "--ipfs"]),
        ("--rpc", ["--http", "--ipfs"]),
        ("--ipfs", ["--http", "--rpc"]),
    ] {
        let flags = ["up", flag, &address, others[0], "127.0.0.1:0", others[1], "127.0.0.1:0"];
        refused(&run_assay(data.path(), &flags).unwrap(), &[&address, flag]);
    }
}

#[test]
fn a_model_that_cannot_be_loaded_is_explained() {
    let data = tempfile::tempdir().unwrap();
    let models = tempfile::tempdir().unwrap();
    let missing = models.path().join("nowhere");
    refused(&up(data.path(), &["--model", missing.to_str().unwrap()]), &["nowhere"]);
    let gguf = models.path().join("broken.gguf");
    fs::write(&gguf, b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff").unwrap();
    refused(&up(data.path(), &["--model", gguf.to_str().unwrap()]), &["broken.gguf"]);
    let folder = models.path().join("folder");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("config.json"), "{}").unwrap();
    fs::write(folder.join("model.safetensors"), [0xff; 64]).unwrap();
    refused(&up(data.path(), &["--model", folder.to_str().unwrap()]), &["folder"]);
}

#[test]
fn a_chain_that_is_down_is_named() {
    let data = tempfile::tempdir().unwrap();
    let url = format!("http://127.0.0.1:{}", free_port().unwrap());
    refused(&up(data.path(), &["--rpc-url", &url]), &[&url, "no chain answers"]);
    refused(&run_assay(data.path(), &["node", "list"]).unwrap(), &["assay up"]);
}

#[test]
fn a_second_network_in_one_folder_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let lock = fs::File::create(data.path().join("up.lock")).unwrap();
    lock.lock().unwrap();
    refused(&up(data.path(), &[]), &["another `assay up`", "--data"]);
}

/// Another chain than the folder's network lives on, e.g. an anvil that was started anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_another_chain_is_refused_until_it_may_be_forgotten() {
    let data = tempfile::tempdir().unwrap();
    let record = json!({"genesis": format!("0x{}", "12".repeat(32)), "start_block": 7});
    fs::write(data.path().join("up.json"), record.to_string()).unwrap();
    refused(&up(data.path(), &["--miners", "1"]), &["another chain", "--data", "--fresh"]);
    fs::write(data.path().join("up.json"), "{").unwrap();
    refused(&up(data.path(), &["--miners", "1"]), &["up.json", "--fresh"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_chain_small_deposit_and_empty_wallet() {
    let network = Network::start(Default::default()).await.unwrap();
    let data = network.data();
    refused(
        &run_assay(data, &["session", "open", "--deposit", "0.001"]).unwrap(),
        &["Session_DepositTooSmall"],
    );
    // More than the client has.
    refused(
        &run_assay(data, &["session", "open", "--deposit", "99999999"]).unwrap(),
        &["needs", "send it"],
    );
    refused(&run_assay(data, &["session", "show", "77"]).unwrap(), &["no session 77"]);
    refused(&run_assay(data, &["node", "status", "77"]).unwrap(), &["no node 77"]);

    // The same description, but the RPC leads to a chain without the contracts.
    let anvil = Anvil::start().await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(data.join("network.json")).unwrap();
    let rpc = network.described("/rpc_url").unwrap();
    fs::write(elsewhere.path().join("network.json"), text.replace(rpc, anvil.url())).unwrap();
    refused(&run_assay(elsewhere.path(), &["node", "list"]).unwrap(), &["no contract"]);
    let provider = ProviderBuilder::new().connect(anvil.url()).await.unwrap();
    provider.anvil_set_chain_id(4242).await.unwrap();
    refused(&run_assay(elsewhere.path(), &["node", "list"]).unwrap(), &["4242", "31337"]);

    // Requests that no miner should see.
    for (body, status, code) in [
        (
            json!({"model": "nope", "messages": [{"role": "user", "content": "x"}]}),
            404,
            "model_not_found",
        ),
        (json!({"model": "assay-demo", "messages": []}), 400, ""),
        (
            json!({"model": "assay-demo", "messages": [{"role": "user", "content": "x"}], "seed": 7}),
            400,
            "",
        ),
    ] {
        let (got, _, answer) = chat(&network, body.clone()).await;
        assert_eq!(got, status, "{body}: {answer}");
        let error = &answer["error"];
        assert!(!error["message"].as_str().unwrap().is_empty(), "{answer}");
        assert!(code.is_empty() || error["code"] == code, "{answer}");
    }
    let long = "word ".repeat(4000);
    let (got, _, answer) = chat(
        &network,
        json!({"model": "assay-demo", "messages": [{"role": "user", "content": long}]}),
    )
    .await;
    assert_eq!(got, 400, "{answer}");
    assert_eq!(answer["error"]["code"], "context_length_exceeded", "{answer}");
    let malformed = reqwest::Client::new()
        .post(format!("{}/v1/chat/completions", network.http_url().unwrap()))
        .header("content-type", "application/json")
        .body("{\"model\": ")
        .send()
        .await
        .unwrap();
    assert_eq!(malformed.status().as_u16(), 400);
    network.interrupt().await.unwrap();
}
