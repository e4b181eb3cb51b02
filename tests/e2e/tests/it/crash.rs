//! A miner is killed: its task ends by the deadline and the deposit comes back.

use std::time::Duration;

use assay_harness::{Network, NetworkOptions, run_assay};
use serde_json::Value;

use crate::{active_session, json, wait_for};

/// Places in the draw count one second after registration; blocks come every second.
const SLOTS_ACTIVE: Duration = Duration::from_secs(3);
/// What `advance` earns on development chains, out of what was held.
const TIP: u128 = 1_000_000_000_000_000;
const DEPOSIT: u128 = 2_000_000_000_000_000_000;

/// The owner's lane.
fn money(session: &Value) -> u128 {
    let part = |name: &str| session["lanes"][0][name].as_str().unwrap().parse::<u128>().unwrap();
    part("free") + part("held")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_miner_costs_its_client_the_tip_alone() {
    let flags = vec!["--miners".to_owned(), "1".to_owned()];
    let network = Network::start(NetworkOptions { flags }).await.unwrap();
    let miner = network.spawn(&["miner", "--account", "client", "--capacity", "2"]).unwrap();
    wait_for("the registration of a second miner", || {
        (json(&network, &["node", "list"]).as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    tokio::time::sleep(SLOTS_ACTIVE).await;
    let open = ["--account", "deployer", "--deposit", "2", "--min-nodes", "2", "--max-nodes", "2"];
    let id = active_session(&network, &open).await;

    // It serves, and is killed before the next task.
    let submit = |deadline_s: &'static str| {
        let id = id.clone();
        let args = ["task", "submit", "--account", "deployer", "--session", &id, "--node", "2"];
        let args = [&args[..], &["--attempts", "1", "--deadline-s", deadline_s, "hello"]].concat();
        run_assay(network.data(), &args).unwrap()
    };
    let served = submit("60");
    assert!(served.status.success(), "{}", String::from_utf8_lossy(&served.stderr));
    let before = wait_for("the settlement", || {
        let shown = json(&network, &["session", "show", &id]);
        (shown["lanes"][0]["held"] == "0").then_some(shown)
    })
    .await;
    assert!(money(&before) < DEPOSIT);
    drop(miner);
    let refused = submit("5");
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success());
    assert!(error.contains("was refunded"), "{error}");
    let after = json(&network, &["session", "show", &id]);
    assert_eq!(after["lanes"][0]["held"], "0");
    assert_eq!(money(&before) - money(&after), TIP);
    network.interrupt().await.unwrap();
}
