//! Routes, their limits and the access log.

use std::{net::SocketAddr, sync::Arc};

use assay_runtime::{Health, observe_router};
use assay_types::{TaskId, link::MAX_FRAME_BYTES};
use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{ConnectInfo, Path, Request, State, WebSocketUpgrade},
    http::{Method, StatusCode, Uri},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{
    answer,
    error::{ApiError, TASK_HEADER},
    guard::local_only,
    request,
    timeline::task_json,
};
use crate::{
    config::{BODY_TIMEOUT, MAX_BODY_BYTES, MAX_LINKS, MAX_REQUESTS},
    link::service::LinkServer,
    tasks::dispatch::Dispatcher,
};

/// What handlers need.
pub struct App {
    /// Serves requests.
    pub dispatcher: Arc<Dispatcher>,
    /// Serves miners.
    pub links: Arc<LinkServer>,
    /// Unix seconds at which the router started: when its models were "created".
    pub started_s: u64,
    requests: Arc<Semaphore>,
    miners: Arc<Semaphore>,
}

impl App {
    /// An app with all its permits.
    pub fn new(dispatcher: Arc<Dispatcher>, links: Arc<LinkServer>, started_s: u64) -> Self {
        let requests = Arc::new(Semaphore::new(MAX_REQUESTS));
        let miners = Arc::new(Semaphore::new(MAX_LINKS));
        Self { dispatcher, links, started_s, requests, miners }
    }
}

/// All routes.
pub fn routes(app: Arc<App>, health: Health) -> Router {
    let api = Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/tasks/{id}", get(task))
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(local_only));
    Router::new()
        .merge(api)
        .route("/link", get(link))
        .with_state(app)
        .merge(observe_router(health))
        .fallback(nothing_here)
        .layer(middleware::from_fn(access_log))
}

/// One line for each request: nothing of its content.
async fn access_log(request: Request, next: middleware::Next) -> Response {
    let started = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let task = response.headers().get(TASK_HEADER).and_then(|t| t.to_str().ok()).unwrap_or("");
    let (status, ms) = (response.status().as_u16(), started.elapsed().as_millis());
    tracing::info!(target: "assay_router::access", %method, path, status, ms, task);
    metrics::counter!("assay_router_http_requests_total", "agent" => "router", "status" => status.to_string())
        .increment(1);
    response
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}: see the API's description", uri.path());
    ApiError::refused(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

async fn nothing_here(uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(128).collect();
    ApiError::refused(
        StatusCode::NOT_FOUND,
        "unknown_url",
        format!(
            "nothing is served at {path:?}: there are /v1/chat/completions, /v1/models, /v1/tasks/{{id}}, /link, /metrics, /health and /ready"
        ),
    )
}

async fn chat(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let Ok(permit) = app.requests.clone().try_acquire_owned() else {
        let message =
            format!("{MAX_REQUESTS} requests are being served: send the request again in a moment");
        return Err(ApiError::unavailable("overloaded", message, 2));
    };
    let body = body(request.into_body()).await?;
    let config = &app.dispatcher.config;
    let ask = request::parse(&body, config)?;
    drop(body);
    answer::complete(app.dispatcher.clone(), ask, permit).await
}

async fn body(body: Body) -> Result<axum::body::Bytes, ApiError> {
    match timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_long(&error) => Err(ApiError::refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            "request_too_large",
            format!("the body is larger than {MAX_BODY_BYTES} bytes: send a shorter conversation"),
        )),
        Ok(Err(error)) => Err(ApiError::invalid(
            "",
            "unreadable_body",
            format!("the body cannot be read: {error}"),
        )),
        Err(_) => Err(ApiError::refused(
            StatusCode::REQUEST_TIMEOUT,
            "body_timeout",
            format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs()),
        )),
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.to_string().contains("length limit exceeded") {
            return true;
        }
        source = error.source();
    }
    false
}

async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    let list: Vec<Value> =
        app.dispatcher.config.models.iter().map(|m| model_json(&m.name, app.started_s)).collect();
    Json(json!({"object": "list", "data": list}))
}

fn model_json(name: &str, created: u64) -> Value {
    json!({"id": name, "object": "model", "created": created, "owned_by": "assay"})
}

async fn model(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if app.dispatcher.config.models.iter().any(|m| m.name == name) {
        return Ok(Json(model_json(&name, app.started_s)));
    }
    let name: String = name.chars().take(64).collect();
    let message = format!("the model {name:?} is not served here: see /v1/models");
    Err(ApiError::refused(StatusCode::NOT_FOUND, "model_not_found", message))
}

async fn task(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id: TaskId = id.parse().map_err(|_| {
        ApiError::invalid("id", "invalid_value", "a task's id is 0x and 64 hexadecimal digits")
    })?;
    let row = app.dispatcher.ledger.task(id).await.map_err(|error| {
        tracing::error!(%error, "a task cannot be read");
        ApiError::internal("this router's database fails: look at its log")
    })?;
    match row {
        Some(row) => Ok(Json(task_json(id, &row))),
        None => Err(ApiError::refused(
            StatusCode::NOT_FOUND,
            "task_not_found",
            "this router has no such task: it knows those of its own lanes",
        )),
    }
}

async fn link(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let Ok(permit) = app.miners.clone().try_acquire_owned() else {
        let message = format!("{MAX_LINKS} miners are connected: try another router");
        return ApiError::unavailable("too_many_links", message, 30).into_response();
    };
    tracing::debug!(%peer, "a miner connects");
    let links = app.links.clone();
    upgrade.max_message_size(MAX_FRAME_BYTES).max_frame_size(MAX_FRAME_BYTES).on_upgrade(
        move |socket| async move {
            links.serve(socket).await;
            drop(permit);
        },
    )
}
