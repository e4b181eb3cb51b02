//! `assay up` is killed in the middle of its work, and the next one in the same folder goes on with it.

use assay_harness::{Anvil, Network, NetworkOptions, run_assay};

use crate::{active_session, chat, json, ledger::View, question, settled, wait_for};

/// Sum of what nodes earned, which only settlements add to.
fn settled_tasks(network: &Network) -> u64 {
    let nodes = json(network, &["node", "list"]);
    nodes.as_array().unwrap().iter().map(|node| node["tasks_settled"].as_u64().unwrap()).sum()
}

/// A streamed answer that nobody reads to its end.
async fn begin_to_stream(network: &Network) -> reqwest::Response {
    let url = format!("{}/v1/chat/completions", network.http_url().unwrap());
    let mut body = question(network, "Tell a long story about a miner and a router.");
    body["stream"] = true.into();
    body["max_tokens"] = 200.into();
    let mut response = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.chunk().await.unwrap().expect("the stream has no first chunk");
    response
}

async fn goes_on(mut network: Network) {
    let (status, task, answer) = chat(&network, question(&network, "What is a session?")).await;
    assert_eq!(status, 200, "{answer}\n{}", network.log());
    settled(&network, &task.unwrap()).await;
    let id = active_session(&network, &["--deposit", "5", "--max-nodes", "2"]).await;
    let contracts = network.described("/deployment/queue").unwrap().to_owned();
    let nodes = json(&network, &["node", "list"]);
    let submit = ["task", "submit", "--session", &id, "--deadline-s", "30", "--no-wait", "hello"];

    // Two tasks are accepted: one by the router, one by the chain. Then everything dies.
    let stream = begin_to_stream(&network).await;
    let direct = json(&network, &submit)["task"].as_str().unwrap().to_owned();
    let streamed = stream.headers()["x-assay-task"].to_str().unwrap().to_owned();
    network.kill().unwrap();
    drop(stream);
    network.restart().await.unwrap();

    assert_eq!(network.described("/deployment/queue").unwrap(), contracts);
    let again = json(&network, &["node", "list"]);
    assert_eq!(again.as_array().unwrap().len(), nodes.as_array().unwrap().len(), "{again}");
    assert!(network.log().contains("session 1: goes on"), "{}", network.log());
    // The task on chain ends, paid or refunded; the other one too, if it came that far.
    for task in [&direct, &streamed] {
        wait_for("the end of a task", || {
            let output = run_assay(network.data(), &["task", "show", task, "--json"]).unwrap();
            if String::from_utf8_lossy(&output.stderr).contains("there is no task") {
                assert_ne!(task, &direct, "the chain forgot a task");
                return Some(());
            }
            let shown: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
            ["settled", "refunded"].contains(&shown["state"].as_str()?).then_some(())
        })
        .await;
    }
    let before = settled_tasks(&network);
    let (status, task, answer) = chat(&network, question(&network, "What is a miner?")).await;
    assert_eq!(status, 200, "{answer}\n{}", network.log());
    settled(&network, &task.unwrap()).await;
    wait_for("the settlement", || (settled_tasks(&network) > before).then_some(())).await;
    View::of(&network).await.assert_conserved().await;
    let log = network.interrupt().await.unwrap();
    assert!(log.contains("stopped"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_network_goes_on_where_it_was() {
    goes_on(Network::start(Default::default()).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_network_on_anvil_goes_on_while_anvil_lives() {
    let anvil = Anvil::start().await.unwrap();
    let flags = vec!["--rpc-url".to_owned(), anvil.url().to_owned()];
    goes_on(Network::start(NetworkOptions { flags }).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_network_has_another_chain_and_the_same_keys() {
    let flags = vec!["--miners".to_owned(), "1".to_owned()];
    let mut network = Network::start(NetworkOptions { flags }).await.unwrap();
    let record = network.data().join("up.json");
    let (chain, keys) = (std::fs::read(&record).unwrap(), json(&network, &["balance"]));
    active_session(&network, &["--deposit", "5", "--max-nodes", "1"]).await;
    network.kill().unwrap();
    network.restart_with(&["--fresh"]).await.unwrap();
    assert_ne!(std::fs::read(&record).unwrap(), chain);
    assert_eq!(json(&network, &["balance"])["address"], keys["address"]);
    let second = run_assay(network.data(), &["session", "show", "2"]).unwrap();
    assert!(String::from_utf8_lossy(&second.stderr).contains("no session 2"), "{second:?}");
    network.interrupt().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_closed_is_followed_by_another_one() {
    let flags = vec!["--miners".to_owned(), "1".to_owned()];
    let mut network = Network::start(NetworkOptions { flags }).await.unwrap();
    assert_eq!(json(&network, &["session", "close", "1"])["state"], "draining");
    network.kill().unwrap();
    network.restart().await.unwrap();
    assert_eq!(json(&network, &["session", "show", "2"])["state"], "active");
    let (status, _, answer) = chat(&network, question(&network, "What is a miner?")).await;
    assert_eq!(status, 200, "{answer}\n{}", network.log());
    network.interrupt().await.unwrap();
}
