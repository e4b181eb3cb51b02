//! A miner is killed: its task ends by the deadline and the deposit comes back.

use std::time::{Duration, Instant};

use assay_harness::{Network, NetworkOptions, run_assay};
use serde_json::Value;

use crate::json;

/// The other miner runs a model of its own: it has to load it first.
const MINER_START: Duration = Duration::from_secs(120);
/// Places in the draw count one second after registration; blocks come every second.
const SLOTS_ACTIVE: Duration = Duration::from_secs(3);
/// What `advance` earns on development chains, out of what was held.
const TIP: u128 = 1_000_000_000_000_000;
const DEPOSIT: u128 = 2_000_000_000_000_000_000;

/// Polls `look` until it tells something.
async fn wait_for<T>(longest: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < longest, "{what} did not happen within {longest:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn money(session: &Value) -> u128 {
    let part = |name: &str| session[name].as_str().unwrap().parse::<u128>().unwrap();
    part("free") + part("held")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_miner_costs_its_client_the_tip_alone() {
    let flags = vec!["--miners".to_owned(), "1".to_owned()];
    let network = Network::start(NetworkOptions { flags }).await.unwrap();
    let miner = network.spawn(&["miner", "--account", "client", "--capacity", "2"]).unwrap();
    wait_for(MINER_START, "the registration of a second miner", || {
        (json(&network, &["node", "list"]).as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    tokio::time::sleep(SLOTS_ACTIVE).await;
    let open = [
        "session",
        "open",
        "--account",
        "deployer",
        "--deposit",
        "2",
        "--min-nodes",
        "2",
        "--max-nodes",
        "2",
    ];
    let id = json(&network, &open)["session"].to_string();
    wait_for(Duration::from_secs(60), "the start of the session", || {
        (json(&network, &["session", "show", &id])["seed_known"] == true).then_some(())
    })
    .await;

    // It serves, and is killed before the next task.
    let submit = |deadline_s: &'static str| {
        let id = id.clone();
        let args = ["task", "submit", "--account", "deployer", "--session", &id, "--node", "2"];
        let args = [&args[..], &["--deadline-s", deadline_s, "hello"]].concat();
        run_assay(network.data(), &args).unwrap()
    };
    let served = submit("60");
    assert!(served.status.success(), "{}", String::from_utf8_lossy(&served.stderr));
    let before = wait_for(Duration::from_secs(60), "the settlement", || {
        let shown = json(&network, &["session", "show", &id]);
        (shown["held"] == "0").then_some(shown)
    })
    .await;
    assert!(money(&before) < DEPOSIT);
    drop(miner);
    let refused = submit("5");
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success());
    assert!(error.contains("was refunded"), "{error}");
    let after = json(&network, &["session", "show", &id]);
    assert_eq!(after["held"], "0");
    assert_eq!(money(&before) - money(&after), TIP);
    network.interrupt().await.unwrap();
}
