//! Relays of drand that work, fail and lie; the signatures are published ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use alloy::primitives::hex;
use assay_oracle::drand::{Drand, DrandError};
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

const ROUND: u64 = 513;
/// Of round 513 of `evmnet`.
const SIGNATURE: &str = "06ded8c05af23042a0caf9b404c6140f9ec64adbaf82f04d5c37153e8412ed580f827c7d5ac7d02ca0bbd989d07594729bdcde7d6dc1001191c59dc9033d31b2";

struct Relay {
    url: String,
    asked: Arc<AtomicUsize>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A relay that answers every round with this.
async fn relay(status: StatusCode, body: String) -> Relay {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let answer = move |Path((chain, _)): Path<(String, u64)>| {
        count.fetch_add(1, Ordering::Relaxed);
        assert!(chain.starts_with("04f1e906"), "{chain}");
        let body = body.clone();
        async move { (status, body) }
    };
    let router = Router::new().route("/{chain}/public/{round}", get(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Relay { url, asked, server }
}

fn round(round: u64, signature: &str) -> String {
    serde_json::json!({"round": round, "randomness": "00", "signature": signature}).to_string()
}

#[tokio::test]
async fn the_first_relay_that_has_the_round_is_believed() {
    let broken = relay(StatusCode::INTERNAL_SERVER_ERROR, String::new()).await;
    let liars = [
        round(ROUND + 1, SIGNATURE),
        round(ROUND, &SIGNATURE[2..]),
        round(ROUND, &format!("zz{}", &SIGNATURE[2..])),
        "[]".to_owned(),
        format!("{{\"round\": {ROUND}, \"signature\": \"{}\"}}", "0".repeat(8192)),
    ];
    let mut relays = vec![broken];
    for body in liars {
        relays.push(relay(StatusCode::OK, body).await);
    }
    let honest = relay(StatusCode::OK, round(ROUND, SIGNATURE)).await;
    let spare = relay(StatusCode::OK, round(ROUND, SIGNATURE)).await;
    let mut urls: Vec<String> = relays.iter().map(|relay| relay.url.clone()).collect();
    urls.extend([honest.url.clone(), spare.url.clone()]);

    let signature = Drand::new(&urls).unwrap().signature(ROUND).await.unwrap();
    assert_eq!(hex::encode(signature), SIGNATURE);
    assert!(relays.iter().all(|relay| relay.asked.load(Ordering::Relaxed) == 1));
    assert_eq!(spare.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn relays_that_fail_and_addresses_that_are_none_are_named() {
    let empty = relay(StatusCode::NOT_FOUND, String::new()).await;
    let drand = Drand::new(std::slice::from_ref(&empty.url)).unwrap();
    let error = drand.signature(ROUND).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("round 513") && text.contains("404"), "{text}");
    for bad in ["drand", "ftp://drand"] {
        let error = Drand::new(&[bad.to_owned()]).unwrap_err();
        assert!(matches!(error, DrandError::Url { .. }), "{error}");
    }
}
