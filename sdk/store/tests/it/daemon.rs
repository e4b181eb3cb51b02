//! The client against a real IPFS daemon: js-ipfs, as `script/test` installs it from npm.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use assay_store::{
    Bytes, ContentStore, KuboStore, MAX_BLOCK_BYTES, StoreError, cid_of, digest_of, get_content,
    parse_cid, put_content,
};
use futures::{StreamExt, stream::FuturesUnordered};
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// A daemon in a process of its own, with its repository.
struct Daemon {
    child: Child,
    url: String,
    client: KuboStore,
}

impl Daemon {
    /// Starts in the folder on this port; 0 takes a free one.
    async fn start(repo: &Path, port: u16) -> Self {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/daemon"));
        assert!(
            folder.join("node_modules").is_dir(),
            "the IPFS daemon of the tests is not installed: run `npm ci` in {}",
            folder.display()
        );
        let mut child = Command::new("node")
            .arg("--no-warnings")
            .arg(folder.join("daemon.mjs"))
            .arg(repo)
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node is not installed: install Node.js 20 or later");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines.next_line().await.unwrap().expect("the IPFS daemon does not start");
        let client = KuboStore::new(&url).unwrap();
        Self { child, url, client }
    }

    fn port(&self) -> u16 {
        self.url.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    /// Ends it as Ctrl-C does.
    async fn stop(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().await.unwrap().success());
    }

    async fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([name, &id]).status().await.unwrap().success());
    }

    /// A client that waits less long than agents do.
    fn impatient(&self) -> KuboStore {
        KuboStore::with_timeout(&self.url, Duration::from_millis(300)).unwrap()
    }

    /// A call past the client under test.
    async fn call(&self, call: &str) -> (u16, String) {
        let answer =
            Client::new().post(format!("{}/api/v0/{call}", self.url)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn json(&self, call: &str) -> Value {
        let (status, text) = self.call(call).await;
        assert_eq!(status, 200, "{call}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Sends bytes past the client under test.
    async fn upload(&self, call: &str, bytes: &[u8]) -> Value {
        let mut form = b"--XyZ\r\nContent-Disposition: form-data; name=\"data\"; filename=\"data\"\r\nContent-Type: application/octet-stream\r\n\r\n".to_vec();
        form.extend_from_slice(bytes);
        form.extend_from_slice(b"\r\n--XyZ--\r\n");
        // In chunks: the daemon refuses a form over 1 MiB that says its length.
        let chunks = futures::stream::iter([Ok::<_, std::io::Error>(form)]);
        let answer = Client::new()
            .post(format!("{}/api/v0/{call}", self.url))
            .header("content-type", "multipart/form-data; boundary=XyZ")
            .body(reqwest::Body::wrap_stream(chunks))
            .send()
            .await
            .unwrap();
        answer.json().await.unwrap()
    }

    async fn is_listed(&self, cid: &str) -> bool {
        let pins = self.json("pin/ls?type=recursive").await;
        pins["Keys"].as_object().unwrap().keys().any(|key| same(key, cid))
    }
}

/// Its keys stand in another base than ours.
fn same(one: &str, other: &str) -> bool {
    parse_cid(one).unwrap() == parse_cid(other).unwrap()
}

/// What a killed daemon leaves locked: it calls a lock old only after 20 seconds.
fn unlock(repo: &Path) {
    fs::remove_dir(repo.join("repo.lock")).unwrap();
}

fn block(bytes: usize) -> Bytes {
    (0..bytes).map(|n| (n % 251) as u8).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn blocks_are_stored_pinned_and_named_as_here() {
    let repo = TempDir::new().unwrap();
    let daemon = Daemon::start(repo.path(), 0).await;
    let client = &daemon.client;
    assert_eq!(client.health().await.unwrap(), "0.18.1");
    for bytes in [0, 1, 255, 256 << 10, MAX_BLOCK_BYTES - 1, MAX_BLOCK_BYTES].map(block) {
        let digest = digest_of(&bytes);
        let cid = cid_of(digest).to_string();
        assert!(!client.is_pinned(digest).await.unwrap());
        assert_eq!(client.put(bytes.clone()).await.unwrap(), digest);
        assert_eq!(client.get(digest).await.unwrap(), bytes);
        assert!(client.is_pinned(digest).await.unwrap());
        let stat = daemon.json(&format!("block/stat?arg={cid}")).await;
        assert_eq!(stat["Size"], bytes.len());
        assert!(same(stat["Key"].as_str().unwrap(), &cid));
        assert!(daemon.is_listed(&cid).await);
        assert_eq!(client.put(bytes).await.unwrap(), digest, "again");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_pin_keeps_a_block_from_garbage_collection() {
    let repo = TempDir::new().unwrap();
    let daemon = Daemon::start(repo.path(), 0).await;
    let client = &daemon.client;
    let (kept, dropped) = (block(1000), block(2000));
    for bytes in [&kept, &dropped] {
        client.put(bytes.clone()).await.unwrap();
    }
    let cid = cid_of(digest_of(&dropped)).to_string();
    let gone = daemon.json(&format!("pin/rm?arg={cid}")).await;
    assert!(same(gone["Pins"][0].as_str().unwrap(), &cid));
    assert!(!client.is_pinned(digest_of(&dropped)).await.unwrap());
    assert!(!daemon.is_listed(&cid).await);
    let (status, removed) = daemon.call("repo/gc").await;
    assert_eq!(status, 200);
    let removed: Vec<Value> =
        removed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(removed, [json!({ "Key": { "/": cid } })]);

    assert_eq!(client.get(digest_of(&kept)).await.unwrap(), kept);
    // It searches for what it lacks until the client no longer waits.
    let missing = daemon.impatient().get(digest_of(&dropped)).await.unwrap_err();
    assert!(matches!(missing, StoreError::Timeout { .. }), "{missing:?}");
    assert!(missing.is_retryable());
    // A search under way ends when the block is stored.
    let (found, put) = tokio::join!(client.get(digest_of(&dropped)), client.put(dropped.clone()));
    assert_eq!(put.unwrap(), digest_of(&dropped));
    assert_eq!(found.unwrap(), dropped);
    assert!(client.is_pinned(digest_of(&dropped)).await.unwrap());
    daemon.stop().await;
}

#[tokio::test]
async fn content_over_one_block_is_a_file_to_the_daemon() {
    let repo = TempDir::new().unwrap();
    let daemon = Daemon::start(repo.path(), 0).await;
    for bytes in [MAX_BLOCK_BYTES, MAX_BLOCK_BYTES + 1, 3 * MAX_BLOCK_BYTES + 12_345].map(block) {
        let cid = put_content(&daemon.client, bytes.clone()).await.unwrap();
        // The same as the daemon names it, if it lays it out by the same profile.
        let options = "cid-version=1&raw-leaves=true&chunker=size-1048576&only-hash=true&pin=false";
        let added = daemon.upload(&format!("add?{options}"), &bytes).await;
        assert!(same(added["Hash"].as_str().unwrap(), &cid.to_string()), "{added}");
        let stat = daemon.json(&format!("files/stat?arg=/ipfs/{cid}")).await;
        assert_eq!(stat["Size"], bytes.len());
        // Nothing of it may be collected.
        assert_eq!(daemon.call("repo/gc").await, (200, String::new()));
        let cat = Client::new().post(format!("{}/api/v0/cat?arg={cid}", daemon.url));
        assert_eq!(cat.send().await.unwrap().bytes().await.unwrap(), bytes);
        assert_eq!(get_content(&daemon.client, &cid, bytes.len()).await.unwrap(), bytes);
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_block_over_the_limit_is_refused_both_ways() {
    let repo = TempDir::new().unwrap();
    let daemon = Daemon::start(repo.path(), 0).await;
    let large = block(MAX_BLOCK_BYTES + 1);
    let refused = daemon.client.put(large.clone()).await;
    assert!(
        matches!(refused, Err(StoreError::TooLarge { bytes, .. }) if bytes == MAX_BLOCK_BYTES + 1),
        "{refused:?}"
    );
    // Somebody else may store more in one block on this daemon: it is not read.
    let put = daemon.upload("block/put?format=raw&mhtype=sha2-256", &large).await;
    assert_eq!(put["Key"], cid_of(digest_of(&large)).to_string());
    let got = daemon.client.get(digest_of(&large)).await;
    assert!(matches!(got, Err(StoreError::TooLarge { limit: MAX_BLOCK_BYTES, .. })), "{got:?}");
    daemon.stop().await;
}

#[tokio::test]
async fn content_outlives_a_restart_and_a_kill_of_the_daemon() {
    let repo = TempDir::new().unwrap();
    let daemon = Daemon::start(repo.path(), 0).await;
    let port = daemon.port();
    // One client over all of it, as an agent has.
    let client = KuboStore::new(&daemon.url).unwrap();
    let first = client.put(block(100)).await.unwrap();
    daemon.stop().await;
    for call in [client.put(block(101)).await, client.get(first).await.map(|_| first)] {
        let error = call.unwrap_err();
        assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
        assert!(error.is_retryable());
    }
    let mut daemon = Daemon::start(repo.path(), port).await;
    assert_eq!(client.get(first).await.unwrap(), block(100));
    assert!(client.is_pinned(first).await.unwrap());

    // Killed with puts under way.
    let put = |bytes: usize| {
        let client = &client;
        async move { (bytes, client.put(block(bytes)).await) }
    };
    let mut puts: FuturesUnordered<_> = (1..=40).map(|n| put(n * 5000)).collect();
    let mut results = vec![puts.next().await.unwrap()];
    let (killed, rest) = tokio::join!(daemon.child.kill(), puts.collect::<Vec<_>>());
    killed.unwrap();
    results.extend(rest);
    assert!(results[0].1.is_ok());
    unlock(repo.path());
    let daemon = Daemon::start(repo.path(), port).await;
    for (bytes, result) in results {
        let digest = digest_of(&block(bytes));
        match result {
            Ok(stored) => assert_eq!(stored, digest),
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                assert_eq!(client.put(block(bytes)).await.unwrap(), digest);
            }
        }
        assert_eq!(client.get(digest).await.unwrap(), block(bytes));
        assert!(client.is_pinned(digest).await.unwrap());
    }
    assert_eq!(client.get(first).await.unwrap(), block(100));
    daemon.stop().await;
}

#[tokio::test]
async fn a_daemon_that_stands_still_is_left_and_taken_up_again() {
    let repo = TempDir::new().unwrap();
    let daemon = Daemon::start(repo.path(), 0).await;
    let client = daemon.impatient();
    let digest = daemon.client.put(block(10)).await.unwrap();
    daemon.signal("-STOP").await;
    for error in [
        client.get(digest).await.unwrap_err(),
        client.put(block(11)).await.unwrap_err(),
        client.is_pinned(digest).await.unwrap_err(),
        client.health().await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Timeout { .. }), "{error:?}");
    }
    daemon.signal("-CONT").await;
    assert_eq!(daemon.client.get(digest).await.unwrap(), block(10));
    assert_eq!(daemon.client.put(block(11)).await.unwrap(), digest_of(&block(11)));
    daemon.stop().await;
}
