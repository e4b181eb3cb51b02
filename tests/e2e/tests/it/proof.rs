//! Audits in a whole network: an honest answer is audited and paid, a dishonest node is caught.

use assay_harness::{Network, NetworkOptions};
use serde_json::Value;

use crate::{chat, json, question, settled, wait_for};

/// What the chain says of the proof of a task's only answer.
pub async fn proof(network: &Network, task: &str) -> Value {
    let url = format!("{}/v1/tasks/{task}/proof", network.http_url().unwrap());
    let proof: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    proof["answers"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_answer_is_audited_and_paid() {
    let network = Network::start(Default::default()).await.unwrap();
    let log = network.log();
    assert!(log.contains("6 owners audit one another"), "{log}");
    // Nothing vouches for a new node: its first answers are audited for certain.
    let (status, task, answer) = chat(&network, question(&network, "What is a miner?")).await;
    assert_eq!(status, 200, "{answer}\n{}", network.log());
    let task = task.unwrap();
    let record = settled(&network, &task).await;
    let proof = proof(&network, &task).await;
    assert_eq!(proof["probability"], 1.0, "{proof:#}");
    assert_eq!(proof["state"], "passed", "{proof:#}");
    assert_ne!(proof["validator"], proof["node_id"], "{proof:#}");
    assert_eq!(proof["verdicts"].as_array().unwrap().len(), 1, "{proof:#}");
    assert_eq!(record["node_id"], proof["node_id"]);
    let node = proof["node_id"].to_string();
    let earned = json(&network, &["node", "status", &node]);
    assert_ne!(earned["earned"], "0", "{earned:#}");
    assert_eq!(earned["slashed"], "0", "{earned:#}");
    network.interrupt().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_runs_four_bits_is_slashed_and_the_client_refunded() {
    let mut network = Network::start(NetworkOptions::default()).await.unwrap();
    network.kill().unwrap();
    network.restart_with(&["--cheat", "quantized"]).await.unwrap();
    let node = caught(&network).await;
    // Its miner stays away, and the others go on.
    network.kill().unwrap();
    network.restart().await.unwrap();
    assert!(network.log().contains("was jailed"), "{}", network.log());
    let (status, task, answer) = chat(&network, question(&network, "What is a miner?")).await;
    assert_eq!(status, 200, "{answer}\n{}", network.log());
    assert_ne!(settled(&network, &task.unwrap()).await["node_id"].to_string(), node);
    network.interrupt().await.unwrap();
}

/// Waits until the network's cheat is caught, and looks at what became of it; its node.
async fn caught(network: &Network) -> String {
    let said =
        |part: &str| network.log().lines().find(|line| line.contains(part)).map(str::to_owned);
    let caught = wait_for("the slash", || said("CAUGHT: node")).await;
    let node = caught.split("node ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    wait_for("the refund", || said("the client has")).await;
    let others = wait_for("more answers", || said("more questions: answered by nodes")).await;
    let others = others.split("nodes ").nth(1).unwrap();
    assert!(others.split(", ").all(|other| other != node), "{caught}\n{others}");
    let jailed = json(network, &["node", "status", &node]);
    assert_eq!(jailed["state"], "jailed", "{jailed:#}");
    assert_eq!(jailed["stake"], "0", "{jailed:#}");
    let answered = said("CHEAT: node").unwrap();
    let task = answered.split("task ").nth(1).unwrap();
    let proof = proof(network, task).await;
    assert_eq!(proof["state"], "disproved", "{proof:#}");
    assert_eq!(proof["judged"]["is_slashed"], true, "{proof:#}");
    assert_eq!(proof["judged"]["question"], "weights", "{proof:#}");
    node
}
