//! The command line, as a person and as a script use it.

use crate::json;
use assay_harness::{Network, run_assay};

#[tokio::test(flavor = "multi_thread")]
async fn ask_sessions_tasks_and_nodes() {
    let network = Network::start(Default::default()).await.unwrap();

    let answer = run_assay(network.data(), &["ask", "What is a session?"]).unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let text = String::from_utf8_lossy(&answer.stdout).to_lowercase();
    assert!(text.contains("session"), "{text}");

    // A session of one's own, a task without a router, its answer.
    let session = json(&network, &["session", "open", "--deposit", "5", "--max-nodes", "2"]);
    let id = session["session"].as_u64().unwrap().to_string();
    let mut shown = session;
    for _ in 0..300 {
        shown = json(&network, &["session", "show", &id]);
        if shown["seed_known"] == true {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(shown["state"], "active", "{shown}\n{}", network.log());
    let task = json(&network, &["task", "submit", "--session", &id, "--max-tokens", "24", "hello"]);
    assert!(!task["text"].as_str().unwrap().is_empty(), "{task}");
    let again = json(&network, &["task", "show", task["task"].as_str().unwrap()]);
    assert_eq!(again["text"], task["text"]);
    let closing = json(&network, &["session", "close", &id]);
    assert_eq!(closing["state"], "draining");

    // Four nodes, as a script reads them.
    let nodes = json(&network, &["node", "list"]);
    let nodes = nodes.as_array().unwrap();
    assert_eq!(nodes.len(), 4);
    for (index, node) in nodes.iter().enumerate() {
        assert_eq!(node["node_id"], index as u64 + 1);
        assert_eq!(node["state"], "reserved", "{node}");
        assert_eq!(node["stake"], "800000000000000000000");
        assert_eq!(node["slashed"], "0");
        assert!(node["earned"].as_str().unwrap().parse::<u128>().is_ok());
    }
    let status = run_assay(network.data(), &["node", "status", "1"]).unwrap();
    assert!(String::from_utf8_lossy(&status.stdout).contains("claimable"));
    let log = network.interrupt().await.unwrap();
    assert!(log.contains("stopped"), "{log}");
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
