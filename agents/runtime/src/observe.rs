//! `/metrics`, `/health` and `/ready`.

use std::sync::{Mutex, OnceLock, PoisonError};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use serde_json::json;

use crate::Health;

/// Bounds in seconds of every histogram whose name ends in `_seconds`: from a token (1 ms) to a
/// transaction on a slow chain (1 min).
const SECONDS_BUCKETS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Content type of the Prometheus text format.
const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be set up; no other part of the process may install a recorder: {source}")]
pub struct MetricsError {
    #[from]
    source: BuildError,
}

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
static INSTALL: Mutex<()> = Mutex::new(());

/// Installs the recorder of the process, once; later calls give the same handle. Metrics that are
/// recorded before are lost, so call it first. Every metric carries the label `agent`.
///
/// # Errors
/// If somebody else installed a recorder.
pub fn install_metrics() -> Result<PrometheusHandle, MetricsError> {
    let _guard = INSTALL.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = RECORDER.get() {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)?
        .install_recorder()?;
    Ok(RECORDER.get_or_init(|| handle).clone())
}

/// Keeps the recorder's memory bounded; [`crate::Runtime`] calls it every few seconds.
pub fn upkeep_metrics() {
    if let Some(handle) = RECORDER.get() {
        handle.run_upkeep();
    }
}

/// `GET /metrics` (of the whole process: the label `agent` tells agents apart), `GET /health`
/// (200 while the process answers), `GET /ready` (200, or 503 with the reasons).
pub fn observe_router(health: Health) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(live))
        .route("/ready", get(ready))
        .with_state(health)
}

async fn metrics() -> Response {
    match RECORDER.get() {
        Some(handle) => {
            ([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], handle.render()).into_response()
        }
        None => (StatusCode::SERVICE_UNAVAILABLE, "metrics are not installed in this process\n")
            .into_response(),
    }
}

async fn live(State(health): State<Health>) -> Response {
    Json(json!({
        "agent": health.agent(),
        "status": "ok",
        "version": env!("CARGO_PKG_VERSION"),
    }))
    .into_response()
}

async fn ready(State(health): State<Health>) -> Response {
    let readiness = health.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}
