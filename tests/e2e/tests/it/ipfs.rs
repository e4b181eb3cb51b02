//! The agents with a real IPFS daemon as their content store, which crashes in the middle.

use assay_harness::{Ipfs, Network, NetworkOptions};
use assay_store::{ContentStore, KuboStore, digest_from_cid, parse_cid};
use assay_types::ResultBlock;
use serde_json::Value;

use crate::{chat, question, settled};

/// The block that a record names, as the daemon has it, pinned.
async fn pinned(store: &KuboStore, record: &Value, name: &str) -> assay_store::Bytes {
    let cid = parse_cid(record[name].as_str().unwrap()).unwrap();
    let digest = digest_from_cid(&cid).unwrap();
    assert!(store.is_pinned(digest).await.unwrap(), "{name} is not pinned: {record:#}");
    store.get(digest).await.unwrap()
}

async fn assert_result_is_pinned(store: &KuboStore, record: &Value, answer: &Value) {
    let result = ResultBlock::decode(&pinned(store, record, "output_cid").await).unwrap();
    assert_eq!(result.text, answer["choices"][0]["message"]["content"].as_str().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_pinned_and_outlive_a_crash_of_the_daemon() {
    let mut ipfs = Ipfs::start().await.unwrap();
    let flags = ["--miners", "1", "--ipfs-url", ipfs.url()].map(str::to_owned).into();
    let network = Network::start(NetworkOptions { flags }).await.unwrap();
    let store = KuboStore::new(ipfs.url()).unwrap();
    let (status, task, first) = chat(&network, question(&network, "What is a session?")).await;
    assert_eq!(status, 200, "{first}\n{}", network.log());
    let first_record = settled(&network, &task.unwrap()).await;
    assert_result_is_pinned(&store, &first_record, &first).await;
    pinned(&store, &first_record, "request_cid").await;

    // The next answer is asked for while nobody listens: it comes once the daemon is back.
    ipfs.kill().unwrap();
    let (answered, restarted) =
        tokio::join!(chat(&network, question(&network, "What is a miner?")), ipfs.restart());
    restarted.unwrap();
    let (status, task, second) = answered;
    assert_eq!(status, 200, "{second}\n{}", network.log());
    let second_record = settled(&network, &task.unwrap()).await;
    assert_result_is_pinned(&store, &second_record, &second).await;
    assert_result_is_pinned(&store, &first_record, &first).await;

    // What the daemon may throw away is none of it.
    let collected = reqwest::Client::new()
        .post(format!("{}/api/v0/repo/gc", ipfs.url()))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(collected, "");
    assert_result_is_pinned(&store, &second_record, &second).await;
    network.interrupt().await.unwrap();
}
