use assay_runtime::{Health, install_metrics, observe_router};
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use tower::ServiceExt;

async fn get(health: &Health, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = observe_router(health.clone()).oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn readiness_names_every_reason() {
    let health = Health::new("miner-3");
    let (status, body) = get(&health, "/ready").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("starting") && body.contains("miner-3"), "{body}");
    // Alive it is all the same.
    let (status, body) = get(&health, "/health").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("miner-3"));

    health.set_ready(true, "");
    assert_eq!(get(&health, "/ready").await.0, StatusCode::OK);
    health.fail("chain", "no block for 30 s");
    health.fail("link", "no router");
    let (status, body) = get(&health, "/ready").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("no block for 30 s") && body.contains("no router"), "{body}");
    health.satisfy("chain");
    assert!(!health.is_ready());
    health.satisfy("link");
    health.wait_ready().await;
    assert_eq!(get(&health, "/ready").await.0, StatusCode::OK);
}

#[tokio::test]
async fn metrics_of_several_agents_are_told_apart() {
    install_metrics().unwrap();
    // A second agent of the process shares the recorder.
    install_metrics().unwrap();
    metrics::counter!("assay_test_total", "agent" => "miner-1").increment(2);
    metrics::counter!("assay_test_total", "agent" => "miner-2").increment(3);
    metrics::histogram!("assay_test_seconds", "agent" => "miner-1").record(0.02);
    let (status, body) = get(&Health::new("miner-1"), "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("assay_test_total{agent=\"miner-1\"} 2"), "{body}");
    assert!(body.contains("assay_test_total{agent=\"miner-2\"} 3"), "{body}");
    assert!(body.contains("assay_test_seconds_bucket{agent=\"miner-1\",le=\"0.025\"} 1"), "{body}");
}
