//! The command line, as a person and as a script use it.

use alloy::{
    primitives::B256,
    providers::{DynProvider, Provider, ProviderBuilder},
};
use assay_harness::{Anvil, Network, NetworkOptions, root, run_assay};
use serde_json::Value;

use crate::{PATIENCE, active_session, json};

#[tokio::test(flavor = "multi_thread")]
async fn ask_sessions_tasks_and_nodes() {
    let network = Network::start(Default::default()).await.unwrap();

    let answer = run_assay(network.data(), &["ask", "What is a session?"]).unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let text = String::from_utf8_lossy(&answer.stdout).to_lowercase();
    assert!(text.contains("session"), "{text}");

    // A session of one's own, a task without a router, its answer.
    let id = active_session(&network, &["--deposit", "5", "--max-nodes", "2"]).await;
    assert_eq!(json(&network, &["session", "show", &id])["state"], "active");
    let task = json(&network, &["task", "submit", "--session", &id, "--max-tokens", "24", "hello"]);
    assert!(!task["text"].as_str().unwrap().is_empty(), "{task}");
    let again = json(&network, &["task", "show", task["task"].as_str().unwrap()]);
    assert_eq!(again["text"], task["text"]);
    verified(&network, task["task"].as_str().unwrap());
    let closing = json(&network, &["session", "close", &id]);
    assert_eq!(closing["state"], "draining");

    // Six nodes, as a script reads them. A draw need not meet every one of them, but those that it met are reserved.
    let session = json(&network, &["session", "show", "1"]);
    let drawn = session["nodes"].as_array().unwrap();
    assert!(!drawn.is_empty(), "{session}");
    let nodes = json(&network, &["node", "list"]);
    let nodes = nodes.as_array().unwrap();
    assert_eq!(nodes.len(), 6);
    for (index, node) in nodes.iter().enumerate() {
        assert_eq!(node["node_id"], index as u64 + 1);
        assert_eq!(node["state"], "ephemeral", "{node}");
        let reserved = node["reservations"] != "0";
        assert!(reserved || !drawn.contains(&node["node_id"]), "{node} of {session}");
        assert_eq!(node["stake"], "800000000000000000000");
        assert_eq!(node["slashed"], "0");
        assert!(node["earned"].as_str().unwrap().parse::<u128>().is_ok());
    }
    let status = run_assay(network.data(), &["node", "status", "1"]).unwrap();
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    for part in ["claimable", "in every draw", "drawn      level "] {
        assert!(status.contains(part), "no {part:?} in: {status}");
    }
    lanes_of_a_session(&network);
    tasks_that_are_claimed(&network).await;
    terms_and_models(&network);
    let log = network.interrupt().await.unwrap();
    assert!(log.contains("stopped"), "{log}");
}

/// Whoever has the weights scores an answer again: every token is the one that the seed wants. Other weights are not
/// taken for it.
fn verified(network: &Network, task: &str) {
    let scored = json(network, &["verify", task]);
    let answer = &scored["answers"][0];
    assert_eq!(answer["faults"].as_array().unwrap().len(), 0, "{scored}");
    assert!(answer["max_margin_nats"].as_f64().unwrap() < 0.01, "{scored}");
    assert_eq!(answer["verdict"], "pass", "{scored}");
    let other = root().join("agents/engine-mistral/demo-model/assay-demo-q4_k.gguf");
    let other =
        run_assay(network.data(), &["verify", task, "--model", other.to_str().unwrap()]).unwrap();
    let complaint = String::from_utf8_lossy(&other.stderr);
    assert!(!other.status.success() && complaint.contains("name the right weights"), "{complaint}");
}

/// The client's session 3 gets a lane, money for it, and the announcement that it is taken back.
fn lanes_of_a_session(network: &Network) {
    const ROUTER: &str = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8";
    let session = json(network, &["session", "open", "--deposit", "5", "--max-nodes", "2"]);
    let id = session["session"].to_string();
    let lane = format!("{ROUTER}:1.5");
    let added = json(network, &["session", "lane", "add", &id, &lane]);
    assert_eq!(added["lanes"][1]["holder"], ROUTER, "{added}");
    assert_eq!(added["lanes"][1]["free"], "1500000000000000000");
    let topped = json(network, &["session", "topup", &id, "2", "--lane", "1"]);
    assert_eq!(topped["lanes"][1]["free"], "3500000000000000000", "{topped}");
    let reclaimed = json(network, &["session", "lane", "reclaim", &id, "1"]);
    assert!(reclaimed["lanes"][1]["reclaim_at"].as_u64().unwrap() > 0, "{reclaimed}");
    let early = run_assay(network.data(), &["session", "lane", "reclaim", &id, "1"]).unwrap();
    assert!(!early.status.success());
    assert!(String::from_utf8_lossy(&early.stderr).contains("still serves"));
    let rotated = run_assay(network.data(), &["session", "rotate", &id]).unwrap();
    assert!(String::from_utf8_lossy(&rotated.stderr).contains("Session_"), "{rotated:?}");
}

/// A task that nobody was given is claimed by a node; with two answers, both are paid.
async fn tasks_that_are_claimed(network: &Network) {
    let id = active_session(network, &["--deposit", "20", "--min-nodes", "2"]).await;
    let submit = ["task", "submit", "--session", &id, "--max-tokens", "24"];
    let pulled = json(network, &[&submit[..], &["--pull", "hello"]].concat());
    assert_eq!(pulled["answers"].as_array().unwrap().len(), 1, "{pulled}");
    verified(network, pulled["task"].as_str().unwrap());
    let twice = json(network, &[&submit[..], &["--redundancy", "2", "hello"]].concat());
    let answers = twice["answers"].as_array().unwrap();
    assert_eq!(answers.len(), 2, "{twice}");
    assert_ne!(answers[0]["node"], answers[1]["node"]);
    let task = pulled["task"].as_str().unwrap();
    let late = run_assay(network.data(), &["task", "cancel", task]).unwrap();
    assert!(String::from_utf8_lossy(&late.stderr).contains("only a task that waits"), "{late:?}");
}

fn terms_and_models(network: &Network) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("terms.toml");
    let text = std::fs::read_to_string(root().join("script/deployments/31337.toml")).unwrap();
    std::fs::write(&file, text.replace("settle_delay_s = 2", "settle_delay_s = 3")).unwrap();
    let before = json(network, &["params", "show"]);
    assert_eq!(before["session"]["settle_delay_s"], 2, "{before}");
    let stranger = ["params", "propose", "--account", "client", "--file", file.to_str().unwrap()];
    let refused = run_assay(network.data(), &stranger).unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Parameters_NotGovernor"));
    let proposed = json(network, &["params", "propose", "--file", file.to_str().unwrap()]);
    assert_eq!(proposed["pending"]["version"], 2, "{proposed}");
    let withdrawn = json(network, &["params", "withdraw"]);
    assert!(withdrawn["pending"].is_null(), "{withdrawn}");

    let model = json(network, &["model", "show"]);
    assert_eq!(model["price_in"], "10000000000000000000", "{model}");
    assert_eq!(model["deprecated_at"], 0);
    let again = ["model", "register", "--price-in", "1", "--price-out", "1"];
    let again = run_assay(network.data(), &again).unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).contains("registered already"), "{again:?}");
    let id = model["model_id"].as_str().unwrap();
    let stranger = ["model", "deprecate", "--account", "client", id];
    let refused = run_assay(network.data(), &stranger).unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("ModelRegistry_"), "{refused:?}");
    assert_ne!(json(network, &["model", "deprecate", id])["deprecated_at"], 0);
    let late = run_assay(network.data(), &["session", "open", "--deposit", "5"]).unwrap();
    assert!(String::from_utf8_lossy(&late.stderr).contains("Deprecated"), "{late:?}");
    let balance = json(network, &["balance"]);
    assert!(balance["cor"].as_str().unwrap().parse::<u128>().unwrap() > 0, "{balance}");
}

/// A transaction of an account that waits to be mined.
async fn waiting(chain: &DynProvider, account: &str) -> B256 {
    let begun = std::time::Instant::now();
    loop {
        let pool: Value = chain.raw_request("txpool_content".into(), ()).await.unwrap();
        let senders = pool["pending"].as_object().unwrap();
        let ours = senders.iter().find(|(sender, _)| sender.eq_ignore_ascii_case(account));
        if let Some(transaction) = ours.and_then(|(_, all)| all.as_object()?.values().next()) {
            return transaction["hash"].as_str().unwrap().parse().unwrap();
        }
        assert!(begun.elapsed() < PATIENCE, "no transaction of {account} waits: {pool:#}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_the_chain_loses_is_sent_again() {
    let anvil = Anvil::start().await.unwrap();
    let flags = ["--rpc-url", anvil.url(), "--miners", "1"].map(str::to_owned).to_vec();
    let network = Network::start(NetworkOptions { flags }).await.unwrap();
    let account = json(&network, &["balance"])["address"].as_str().unwrap().to_owned();
    let chain = ProviderBuilder::new().connect(anvil.url()).await.unwrap().erased();
    let set = async |method: &'static str, value: Value| {
        let _: Value = chain.raw_request(method.into(), [value]).await.unwrap();
    };
    set("evm_setIntervalMining", 0.into()).await;
    let data = network.data().to_owned();
    let open = move || run_assay(&data, &["session", "open", "--deposit", "5", "--json"]).unwrap();
    let opened = tokio::task::spawn_blocking(open);
    let lost = waiting(&chain, &account).await;
    set("anvil_dropTransaction", lost.to_string().into()).await;
    waiting(&chain, &account).await;
    set("evm_setIntervalMining", 1.into()).await;
    let opened = opened.await.unwrap();
    assert!(opened.status.success(), "{}", String::from_utf8_lossy(&opened.stderr));
    network.interrupt().await.unwrap();
}

#[test]
fn completions_name_the_commands() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = run_assay(folder.path(), &["completions", shell]).unwrap();
        let script = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && script.contains("doctor"), "{shell}: {script}");
    }
}

#[test]
fn help_shows_examples() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["up", "ask", "session", "task", "node", "deploy", "miner"] {
        let output = run_assay(folder.path(), &[command, "--help"]).unwrap();
        assert!(output.status.success(), "{command}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("Usage: assay"), "{command}");
    }
    let up = run_assay(folder.path(), &["up", "--help"]).unwrap();
    assert!(String::from_utf8_lossy(&up.stdout).contains("Examples:"));
}
