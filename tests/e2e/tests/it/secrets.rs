//! Everything logs all that it can, everything is used, and nothing that was printed or written names a secret.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use alloy::{hex, signers::local::PrivateKeySigner};
use assay_harness::{Network, NetworkOptions, assay_binary, free_port};
use serde_json::Value;

use crate::{PATIENCE, question, settled, wait_for};

/// Nobody else writes these.
const PASSWORD: &str = "pw-5f0c1d7e-of-the-keystores";
const API_KEY: &str = "sk-8e41b2c6-of-a-client";
const RPC_KEY: &str = "rpc-73d9aa10-of-an-endpoint";
const RPC_PASSWORD: &str = "rpc-c2b6e5f4-of-its-user";
/// `user:` and the password as HTTP carries them, in base64, but for the end, which may be padded.
const BASIC: &str = "dXNlcjpycGMtYzJiNmU1ZjQtb2YtaXRzLXVz";

/// A text or bytes that must stand nowhere.
struct Secret {
    what: String,
    forms: Vec<Vec<u8>>,
}

impl Secret {
    fn text(what: &str, text: &str) -> Self {
        Self { what: what.to_owned(), forms: vec![text.as_bytes().to_vec()] }
    }

    /// A key as itself, as digits, and as Rust shows bytes.
    fn key(what: &str, key: &PrivateKeySigner) -> Self {
        let bytes = key.to_bytes();
        let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
        let forms = [
            bytes.to_vec(),
            hex::encode(bytes).into_bytes(),
            hex::encode_upper(bytes).into_bytes(),
            numbers.join(", ").into_bytes(),
            numbers.join(",").into_bytes(),
        ];
        Self { what: format!("the key {what}"), forms: forms.into() }
    }

    fn is_in(&self, content: &[u8]) -> bool {
        let holds =
            |form: &Vec<u8>| content.windows(form.len()).any(|window| window == form.as_slice());
        self.forms.iter().any(holds)
    }
}

/// Every file below a folder with its content.
fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            files(&path, found);
        } else if let Ok(content) = fs::read(&path) {
            found.push((path.display().to_string(), content));
        }
    }
}

/// Runs a command with all of its logs; what it prints is kept.
fn run(data: &Path, args: &[&str], printed: &mut Vec<(String, Vec<u8>)>) -> Value {
    let output = Command::new(assay_binary().unwrap())
        .args(["--log", "trace", "--json"])
        .args(args)
        .env("ASSAY_DATA", data)
        .env("ASSAY_PASSWORD", PASSWORD)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    printed
        .push((format!("the output of {args:?}"), [output.stdout.clone(), output.stderr].concat()));
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

async fn ask(network: &Network) {
    let url = format!("{}/v1/chat/completions", network.http_url().unwrap());
    let answer = reqwest::Client::new()
        .post(url)
        .bearer_auth(API_KEY)
        .header("x-api-key", API_KEY)
        .json(&question(network, "What is a session?"))
        .send()
        .await
        .unwrap();
    let task = answer.headers()["x-assay-task"].to_str().unwrap().to_owned();
    settled(network, &task).await;
}

/// A key of a router that asks for one: made, used, and told to nobody but who made it.
async fn api_key(network: &Network, data: &Path, seen: &mut Vec<(String, Vec<u8>)>) -> Secret {
    let address = format!("127.0.0.1:{}", free_port().unwrap());
    let router = ["router", "--api-keys", "--account", "client", "--http", &address];
    let router =
        network.spawn_with_password(&[&router[..], &["--log", "trace"]].concat(), PASSWORD);
    let router = router.unwrap();
    let log = || fs::read_to_string(data.join("agent.log")).unwrap();
    wait_for("the start of the router", || log().contains("serves http").then_some(())).await;
    let key = run(data, &["api-key", "create", "team"], &mut Vec::new());
    let key = key["secret"].as_str().unwrap_or_else(|| panic!("{key}")).to_owned();
    let models = format!("http://{address}/v1/models");
    let client = reqwest::Client::new();
    let status = async |key: &str| {
        client.get(&models).bearer_auth(key).send().await.unwrap().status().as_u16()
    };
    // The router looks for new keys from time to time.
    let begun = Instant::now();
    while status(&key).await != 200 {
        assert!(begun.elapsed() < PATIENCE, "the key is not taken: {}", log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(status(API_KEY).await, 401);
    drop(router);
    run(data, &["api-key", "list"], seen);
    // The next agent writes over it.
    seen.push(("the log of the router".to_owned(), log().into_bytes()));
    Secret::text("an API key of a router", &key)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_logged_or_stored_names_a_secret() {
    let flags = ["--miners", "1", "--log", "trace"].map(str::to_owned).into();
    let options = NetworkOptions { flags };
    let network = Network::start_with_password(options, PASSWORD).await.unwrap();
    let data = network.data().to_path_buf();
    let mut seen = Vec::new();
    ask(&network).await;
    let api_key = api_key(&network, &data, &mut seen).await;

    let session = run(&data, &["session", "open", "--deposit", "5", "--max-nodes", "1"], &mut seen);
    let id = session["session"].to_string();
    wait_for("the start of the session", || {
        (run(&data, &["session", "show", &id], &mut seen)["seed_known"] == true).then_some(())
    })
    .await;
    run(&data, &["task", "submit", "--session", &id, "What is a miner?"], &mut seen);
    run(&data, &["session", "close", &id], &mut seen);
    run(&data, &["claim"], &mut seen);
    run(&data, &["claim", "--account", "nobody"], &mut seen);

    // An agent of its own, whose password stands in a file, and whose endpoints' URLs hold keys; one of them is dead.
    let password = tempfile::NamedTempFile::new().unwrap();
    fs::write(password.path(), PASSWORD).unwrap();
    let host = network.described("/rpc_url").unwrap().replace("http://", "");
    let keyed = |scheme: &str, host: &str| {
        format!("{scheme}://user:{RPC_PASSWORD}@{host}/v3/{RPC_KEY}?apikey={RPC_KEY}")
    };
    let urls = [keyed("ws", "127.0.0.1:9"), keyed("ws", &host), keyed("http", &host)].join(",");
    let file = password.path().to_str().unwrap();
    let keystore = data.join("keys/client.json");
    let keystore = ["--keystore", keystore.to_str().unwrap(), "--password-file", file];
    let oracle = ["oracle", "--log", "trace", "--rpc-url", &urls];
    let oracle = network.spawn(&[&oracle[..], &keystore].concat()).unwrap();
    wait_for("the start of the oracle", || {
        fs::read_to_string(data.join("agent.log")).unwrap().contains("oracle 0x").then_some(())
    })
    .await;
    ask(&network).await;
    drop(oracle);
    let dead = keyed("http", "127.0.0.1:9");
    run(&data, &["deploy", "--rpc-url", &dead, "--account", "client"], &mut seen);
    run(&data, &["audit", "--rpc-url", &dead], &mut seen);

    // The description of a network may name such a URL: whoever runs here alone can read it, and nothing prints it.
    let description = data.join("network.json");
    assert_eq!(fs::metadata(&description).unwrap().permissions().mode() & 0o077, 0);
    let told = fs::read_to_string(&description).unwrap();
    let rpc_url = network.described("/rpc_url").unwrap();
    fs::write(&description, told.replace(rpc_url, &urls)).unwrap();
    run(&data, &["doctor"], &mut seen);
    run(&data, &["node", "list"], &mut seen);
    fs::write(&description, told).unwrap();
    fs::set_permissions(&description, Permissions::from_mode(0o600)).unwrap();

    let mut secrets = vec![
        Secret::text("the keystores' password", PASSWORD),
        Secret::text("what a client takes for a key", API_KEY),
        api_key,
        Secret::text("an endpoint's key", RPC_KEY),
        Secret::text("the password of an endpoint's user", RPC_PASSWORD),
        Secret::text("the same in a header", BASIC),
    ];
    let mut keys = Vec::new();
    for file in fs::read_dir(data.join("keys")).unwrap().flatten() {
        let key = PrivateKeySigner::decrypt_keystore(file.path(), PASSWORD).unwrap();
        secrets.push(Secret::key(&file.file_name().to_string_lossy(), &key));
        keys.push(key);
    }
    files(&data, &mut seen);

    // All of them were used, by somebody who told all that he did.
    let log = network.log();
    assert!(log.contains("TRACE"), "nothing was traced");
    assert!(seen.iter().any(|(name, content)| name.contains("agent.log") && !content.is_empty()));
    assert!(keys.len() >= 5, "{} keys", keys.len());
    for key in &keys {
        let address = hex::encode(key.address()).into_bytes();
        let shown = |(_, content): &(String, Vec<u8>)| {
            content.to_ascii_lowercase().windows(address.len()).any(|window| window == address)
        };
        assert!(seen.iter().any(shown), "{} is told nowhere", key.address());
    }
    let mut found = Vec::new();
    for (name, content) in &seen {
        let secrets = secrets.iter().filter(|secret| secret.is_in(content));
        found.extend(secrets.map(|secret| format!("{} stands in {name}", secret.what)));
    }
    assert!(found.is_empty(), "{found:#?}");
}
