//! A node from its registration to the return of its stake, by commands alone.

use alloy::providers::{Provider, ProviderBuilder};
use assay_harness::{Network, NetworkOptions, run_assay};

use crate::{json, wait_for};

/// A drained node may still be found by draws that waited: longer than the draw window of development chains.
const DRAW_WINDOW_S: u64 = 121;

async fn pass(network: &Network, seconds: u64) {
    let url = network.described("/rpc_url").unwrap();
    let provider = ProviderBuilder::new().connect(url).await.unwrap();
    let _: serde_json::Value =
        provider.raw_request("evm_increaseTime".into(), [seconds]).await.unwrap();
    let _: serde_json::Value = provider.raw_request("evm_mine".into(), ()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_registered_drained_and_paid_out() {
    let flags = vec!["--miners".to_owned(), "1".to_owned()];
    let network = Network::start(NetworkOptions { flags }).await.unwrap();
    let refusal = |args: &[&str]| {
        let output = run_assay(network.data(), args).unwrap();
        assert!(!output.status.success(), "{args:?} did not fail");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let model = network.described("/model/model_id").unwrap();
    let too_many = format!("{model}:9");
    let error = refusal(&["node", "register", "--model", &too_many]);
    assert!(error.contains("9 places"), "{error}");

    let two = format!("{model}:2");
    let node = json(&network, &["node", "register", "--model", &two]);
    assert_eq!((&node["node_id"], &node["capacity"]), (&2.into(), &2.into()), "{node}");
    assert_eq!(node["stake"], "200000000000000000000");
    wait_for("the node's place in the draw", || {
        let status = json(&network, &["node", "status", "2"]);
        (status["models"][0]["eligible"] == true).then_some(())
    })
    .await;

    let error = refusal(&["node", "exit", "2"]);
    assert!(error.contains("NodePool_WrongState"), "{error}");
    let error = refusal(&["node", "drain", "2", "--account", "deployer"]);
    assert!(error.contains("belongs to"), "{error}");
    let drained = json(&network, &["node", "drain", "2"]);
    assert_eq!(drained["state"], "draining");
    let reason = drained["models"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("it drains"), "{reason}");
    let early = json(&network, &["node", "withdraw", "2"]);
    assert_eq!(early["still_bonded"], "200000000000000000000", "{early}");

    pass(&network, DRAW_WINDOW_S).await;
    assert_eq!(json(&network, &["node", "resume", "2"])["state"], "ephemeral");
    json(&network, &["node", "drain", "2"]);
    pass(&network, DRAW_WINDOW_S).await;
    let leaving = json(&network, &["node", "exit", "2"]);
    assert_eq!(leaving["state"], "exiting", "{leaving}");
    let early = run_assay(network.data(), &["node", "withdraw", "2"]).unwrap();
    let early = String::from_utf8_lossy(&early.stdout).into_owned();
    assert!(early.contains("stay bonded for"), "{early}");

    let bonded = json(&network, &["node", "withdraw", "2"]);
    pass(&network, bonded["seconds_left"].as_u64().unwrap() + 1).await;
    let before = json(&network, &["balance"])["cor"].as_str().unwrap().parse::<u128>().unwrap();
    let paid = json(&network, &["node", "withdraw", "2"]);
    assert_eq!(paid["stake_released"], "200000000000000000000", "{paid}");
    assert_eq!(paid["state"], "exited");
    assert_eq!(paid["still_bonded"], "0");
    let after = json(&network, &["balance"])["cor"].as_str().unwrap().parse::<u128>().unwrap();
    assert_eq!(after - before, paid["withdrawn"].as_str().unwrap().parse::<u128>().unwrap());
    assert!(after - before >= 200_000_000_000_000_000_000);
    network.interrupt().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_serves_the_client_to_whom_it_is_dedicated() {
    let flags = vec!["--miners".to_owned(), "1".to_owned()];
    let network = Network::start(NetworkOptions { flags }).await.unwrap();
    let client = json(&network, &["balance"])["address"].as_str().unwrap().to_owned();
    let register = ["node", "register", "--account", "deployer", "--dedicated-to", &client];
    let node = json(&network, &register);
    assert_eq!(node["state"], "dedicated", "{node}");
    assert_eq!(node["models"][0]["eligible"], false);
    let open = ["session", "open", "--deposit", "5", "--min-nodes", "0", "--max-nodes", "0"];
    let open = [&open[..], &["--dedicated", "2"]].concat();
    let session = json(&network, &open);
    assert_eq!(session["state"], "active", "{session}");
    assert_eq!(session["nodes"], serde_json::json!([2]));
    network.interrupt().await.unwrap();
}
