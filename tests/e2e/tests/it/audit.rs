//! `assay audit watch` follows a network, finds what is changed behind the contracts' back, and remembers it.

use std::{
    fs::{self, File},
    process::{Child, Command, ExitStatus, Stdio},
};

use alloy::providers::{Provider, ProviderBuilder};
use assay_harness::{Network, NetworkOptions, assay_binary, free_port, run_assay};
use serde_json::Value;

use crate::{chat, question, settled, wait_for};

/// A watch on its way; it ends with the test, however that ends.
struct Watch {
    child: Child,
    url: String,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Watch {
    fn start(network: &Network, flags: &[&str]) -> Self {
        let address = format!("127.0.0.1:{}", free_port().unwrap());
        let file = |name: &str| File::create(network.data().join(name)).unwrap();
        let child = Command::new(assay_binary().unwrap())
            .args(["audit", "watch", "--json", "--observe", &address])
            .args(flags)
            .env("ASSAY_DATA", network.data())
            .stdin(Stdio::null())
            .stdout(file("watch.json"))
            .stderr(file("watch.log"))
            .spawn()
            .unwrap();
        Self { child, url: format!("http://{address}") }
    }

    /// A number among its metrics; nothing while it is not served.
    async fn metric(&self, name: &str) -> Option<f64> {
        let text = reqwest::get(format!("{}/metrics", self.url)).await.ok()?.text().await.ok()?;
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Waits until a metric is as it should be.
    async fn until(&self, name: &str, is: impl Fn(f64) -> bool) -> f64 {
        let begun = std::time::Instant::now();
        loop {
            if let Some(value) = self.metric(name).await.filter(|value| is(*value)) {
                return value;
            }
            assert!(begun.elapsed() < crate::PATIENCE, "{name} is {:?}", self.metric(name).await);
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    /// Ends it as Ctrl-C does.
    async fn interrupt(&mut self) -> ExitStatus {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        wait_for("the end of the watch", || self.child.try_wait().unwrap()).await
    }
}

fn report(network: &Network) -> Value {
    let text = fs::read_to_string(network.data().join("watch.json")).unwrap();
    let log = fs::read_to_string(network.data().join("watch.log")).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{log}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_follows_the_chain_and_remembers_what_it_found() {
    let flags = ["--miners", "1"].map(str::to_owned).into();
    let network = Network::start(NetworkOptions { flags }).await.unwrap();
    let mut watch = Watch::start(&network, &[]);
    let (_, task, answer) = chat(&network, question(&network, "What is a session?")).await;
    settled(&network, &task.unwrap_or_else(|| panic!("{answer}"))).await;
    let provider =
        ProviderBuilder::new().connect(network.described("/rpc_url").unwrap()).await.unwrap();
    let head = provider.get_block_number().await.unwrap() as f64;
    watch.until("assay_audit_block", |block| block >= head).await;
    assert_eq!(watch.metric("assay_audit_divergences").await, Some(0.0));
    assert_eq!(reqwest::get(format!("{}/ready", watch.url)).await.unwrap().status(), 200);
    assert!(watch.interrupt().await.success());
    let sound = report(&network);
    assert!(sound["checked"]["tasks"].as_u64().unwrap() >= 1, "{sound}");

    // Somebody writes a word of storage while nobody looks.
    let payment = network.described("/deployment/payment").unwrap();
    let word = format!("0x{:064x}", 0x0777);
    let _: Value =
        provider.raw_request("anvil_setStorageAt".into(), (payment, "0x1", &word)).await.unwrap();
    let mut watch = Watch::start(&network, &["--challenge"]);
    watch.until("assay_audit_divergences", |found| found > 0.0).await;
    assert_eq!(watch.metric("assay_audit_equivocations").await, Some(0.0));
    assert_eq!(watch.interrupt().await.code(), Some(1));
    let found = report(&network);
    assert!(found["to"].as_u64() >= sound["to"].as_u64(), "{found}");
    let log = fs::read_to_string(network.data().join("watch.log")).unwrap();
    assert!(log.contains(&format!("from block {}", sound["to"])), "{log}");
    assert!(log.contains("diverges") && log.contains("challenges nodes"), "{log}");

    // What was found stays found; a journal that somebody touched is refused.
    let mut watch = Watch::start(&network, &[]);
    watch.until("assay_audit_divergences", |found| found > 0.0).await;
    assert_eq!(watch.interrupt().await.code(), Some(1));
    let audits = network.data().join("audits");
    let queue = fs::read_dir(audits).unwrap().next().unwrap().unwrap().path();
    let newest = |file: &fs::DirEntry| {
        let name = file.file_name().into_string().ok()?;
        name.strip_prefix("checkpoint-")?.strip_suffix(".json")?.parse::<u64>().ok()
    };
    let files = fs::read_dir(queue.join("watch")).unwrap().map(Result::unwrap);
    let file = files.max_by_key(newest).unwrap().path();
    let told = fs::read_to_string(&file).unwrap();
    assert!(told.contains("\"from\":1,"), "{told}");
    fs::write(&file, told.replace("\"from\":1,", "\"from\":2,")).unwrap();
    let mut watch = Watch::start(&network, &[]);
    let ended = wait_for("a refusal", || watch.child.try_wait().unwrap()).await;
    let log = fs::read_to_string(network.data().join("watch.log")).unwrap();
    assert_eq!(ended.code(), Some(2), "{log}");
    assert!(log.contains("--fresh"), "{log}");
    let mut watch = Watch::start(&network, &["--fresh"]);
    watch.until("assay_audit_divergences", |found| found > 0.0).await;
    assert_eq!(watch.interrupt().await.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_scored_again_by_whoever_has_the_weights() {
    let flags = ["--cheat", "edited"].map(str::to_owned).into();
    let network = Network::start(NetworkOptions { flags }).await.unwrap();
    let said =
        |part: &str| network.log().lines().find(|line| line.contains(part)).map(str::to_owned);
    let caught = wait_for("the slash", || said("CAUGHT: node")).await;
    let node: u64 =
        caught.split("node ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    wait_for("the refund", || said("the client has")).await;
    wait_for("more answers", || said("more questions: answered by nodes")).await;
    let audit = |flags: &[&str]| {
        let output = run_assay(network.data(), &[&["audit", "--json"], flags].concat()).unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout), told)
    };
    let (code, report, told) = audit(&["--rerun", "100%"]);
    let report = report.unwrap_or_else(|error| panic!("{error}: {told}"));
    assert!(told.contains("--rerun-seed"), "{told}");
    let rerun = &report["rerun"];
    let answers = rerun["answers"].as_array().unwrap();
    assert_eq!(answers.len() as u64, rerun["eligible"].as_u64().unwrap());
    let with = |verdict: &str| answers.iter().filter(|answer| answer["verdict"] == verdict).count();
    // What the network has not judged yet is false and to be paid.
    assert_eq!(code, Some(if with("fail") > 0 { 1 } else { 0 }), "{rerun:#}");
    assert!(with("unpaid") > 0 && with("pass") > 0, "{rerun:#}");
    for answer in answers {
        let is_false = ["fail", "unpaid"].iter().any(|verdict| answer["verdict"] == *verdict);
        assert_eq!(is_false, answer["node"] == node, "{answer:#}");
    }
    // The same seed draws the same answers.
    let (_, one, told) = audit(&["--rerun", "2", "--rerun-seed", "7"]);
    let (_, other, _) = audit(&["--rerun", "2", "--rerun-seed", "7"]);
    let tasks = |report: Value| {
        let answers = report["rerun"]["answers"].as_array().unwrap().clone();
        answers.into_iter().map(|answer| answer["task"].clone()).collect::<Vec<_>>()
    };
    let one = tasks(one.unwrap_or_else(|error| panic!("{error}: {told}")));
    assert_eq!((one.len(), one), (2, tasks(other.unwrap())));
    // Weights that cannot be loaded prove nothing.
    let (code, _, told) = audit(&["--rerun", "2", "--model", "/nonexistent"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("cannot be loaded"), "{told}");
}
