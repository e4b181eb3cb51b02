use alloy::signers::local::PrivateKeySigner;
use assay_oracle::{OracleConfig, OracleError, start};
use assay_protocol::TaskState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{World, until};

const CLOSED: u8 = 4;
const SETTLED: TaskState = TaskState::Settled;
const REFUNDED: TaskState = TaskState::Refunded;

async fn http_get(addr: std::net::SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: oracle\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_oracles_push_everything_and_nothing_twice() {
    let world = World::new().await;
    world.register().await;
    let one = world.oracle("oracle-1").await;
    let mut others = Vec::new();
    for number in 2..=5 {
        others.push(world.oracle(&format!("oracle-{number}")).await);
    }
    let session = world.open(1).await;
    until("the session has nodes and a seed", || world.is_seeded(session)).await;
    let unanswered = world.submit(session, 0, 2).await;
    let answered = world.submit(session, 1, 60).await;
    world.commit(answered).await;
    until("the unanswered task is refunded", || async {
        world.task_state(unanswered).await == REFUNDED
    })
    .await;
    until("the answered task is settled", || async { world.task_state(answered).await == SETTLED })
        .await;
    one.health().wait_ready().await;
    let addr = one.observe_addr().unwrap();
    assert!(http_get(addr, "/ready").await.starts_with("HTTP/1.1 200"));
    let metrics = http_get(addr, "/metrics").await;
    assert!(metrics.contains("assay_oracle_head_block{agent=\"oracle-1\"}"), "{metrics}");
    assert!(metrics.contains("assay_oracle_actions_total"), "{metrics}");
    // One transaction for each step went through, whoever sent it: the others saw that in time.
    let ended = world.ended(&[answered, unanswered]).await;
    assert_eq!(ended, 2);
    one.stop().await.unwrap();
    for oracle in others {
        oracle.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oracle_that_was_killed_goes_on_where_it_was() {
    let world = World::new().await;
    world.register().await;
    let signer = PrivateKeySigner::random();
    let mut oracle = world.oracle_of("oracle", signer.clone()).await;
    let session = world.open(1).await;
    until("the session has nodes and a seed", || world.is_seeded(session)).await;
    let task = world.submit(session, 0, 2).await;
    // Five nodes are not to be had: this one can only expire.
    let hopeless = world.open(5).await;
    oracle.kill();
    assert!(oracle.wait().await.is_err());
    drop(oracle);
    // The contract lets a session wait for 30 s.
    let _: serde_json::Value =
        alloy::providers::Provider::raw_request(&world.provider, "evm_increaseTime".into(), (31,))
            .await
            .unwrap();
    let oracle = world.oracle_of("oracle", signer).await;
    until("the task is refunded", || async { world.task_state(task).await == REFUNDED }).await;
    until("the session without nodes is closed", || async {
        world.session_state(hopeless).await == CLOSED
    })
    .await;
    oracle.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_oracle_on_one_folder_and_a_port_in_use_are_refused() {
    let world = World::new().await;
    let oracle = world.oracle("oracle").await;
    let config = OracleConfig::new(&world.url, world.deployment.clone(), world.path("oracle"));
    let error = start(config, PrivateKeySigner::random()).await.unwrap_err();
    assert!(matches!(error, OracleError::Database(_)), "{error}");
    let mut config = OracleConfig::new(&world.url, world.deployment.clone(), world.path("other"));
    config.observe = oracle.observe_addr();
    let error = start(config, PrivateKeySigner::random()).await.unwrap_err();
    assert!(matches!(error, OracleError::Listen { .. }), "{error}");
    assert!(error.to_string().contains("free the port"), "{error}");
    oracle.stop().await.unwrap();
}
