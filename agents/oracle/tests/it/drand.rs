//! Relays of drand that work, fail and lie; the signatures are published ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use alloy::primitives::{B256, hex};
use assay_bindings::{BeaconConfig, Session};
use assay_devnet::{Clock, ManualClock};
use assay_oracle::drand::{Drand, DrandError};
use assay_protocol::state::AuditState;
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::court::{Court, all_audited, honest};
use crate::world::{World, until};

const ROUND: u64 = 513;
/// Another one that is recorded.
const NEXT_ROUND: u64 = 1000;
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

/// Rounds of `evmnet` as drand published them, by number.
const PUBLISHED: &str = include_str!("../../../../contracts/test/vectors/beacon.json");
/// Of `evmnet`.
const GENESIS_S: u64 = 1_727_521_075;
const PERIOD_S: u64 = 3;
const DRIFT_S: u64 = 3;

/// A round as it was published.
fn published(round: u64) -> Option<Value> {
    let vectors: Value = serde_json::from_str(PUBLISHED).unwrap();
    let rounds = vectors["evmnet"]["rounds"].as_array().unwrap();
    let number = round.to_string();
    rounds.iter().find(|told| told["round"] == number.as_str()).cloned()
}

/// The first second in which contracts ask for this round.
fn asks_for(round: u64) -> u64 {
    GENESIS_S + PERIOD_S * (round - 2) - DRIFT_S
}

/// From when they ask for a round until it is out.
const TO_PUBLICATION_S: u64 = PERIOD_S + DRIFT_S;

/// A relay that has the rounds that were recorded, and no others.
async fn recorded() -> Relay {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let answer = move |Path((_, number)): Path<(String, u64)>| {
        count.fetch_add(1, Ordering::Relaxed);
        let told = published(number).map(|told| {
            let signature = told["signature"].as_str().unwrap();
            round(number, signature.trim_start_matches("0x"))
        });
        async move { told.ok_or(StatusCode::NOT_FOUND) }
    };
    serve(Router::new().route("/{chain}/public/{round}", get(answer)), asked).await
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
    serve(Router::new().route("/{chain}/public/{round}", get(answer)), asked).await
}

async fn serve(router: Router, asked: Arc<AtomicUsize>) -> Relay {
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

/// Nodes of a session, once it was drawn.
async fn drawn(world: &World, session: u64) -> Option<u32> {
    let sessions = Session::new(world.deployment.sessions, &world.provider);
    let told = sessions.SessionActivated_filter().topic1(alloy::primitives::U256::from(session));
    let told = told.from_block(0).query().await.unwrap();
    told.first().map(|(event, _)| event.nodes[0])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_and_audits_are_drawn_by_signatures_that_drand_published() {
    let relay = recorded().await;
    let mut config = all_audited();
    config.beacon = BeaconConfig::Drand { max_drift_s: DRIFT_S };
    // A node can be drawn from the second after its registration on.
    let clock = ManualClock::new(asks_for(ROUND) - 2);
    let mut world = World::with(config, Clock::Manual(clock.clone())).await;
    world.drand_urls = vec![relay.url.clone()];
    let court = Court::with(world).await;
    clock.advance(2);
    let oracle = court.world.oracle("oracle").await;
    let session = court.world.open(1).await;
    clock.advance(TO_PUBLICATION_S);
    until("the session is drawn", || async { drawn(&court.world, session).await.is_some() }).await;
    let node = drawn(&court.world, session).await.unwrap();

    // Its answer is committed in the last second before contracts ask for the next round that was recorded.
    clock.advance(asks_for(NEXT_ROUND) - 1 - clock.now_s());
    court.dev("evm_mine", serde_json::json!([])).await;
    let task = court.world.submit_to(session, 0, 60, node).await;
    let case = court.answer(task, &honest()).await;
    clock.advance(1);
    assert_eq!(court.round(case).await, NEXT_ROUND);
    clock.advance(TO_PUBLICATION_S);
    let (audit, _) = court.reaches(case, AuditState::Drawn).await;
    let randomness = published(NEXT_ROUND).unwrap()["randomness"].as_str().unwrap().to_owned();
    assert_eq!(audit.seed, randomness.parse::<B256>().unwrap());
    oracle.stop().await.unwrap();
}
