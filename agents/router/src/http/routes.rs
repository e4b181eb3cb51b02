//! Routes, their limits and the access log.

use std::{net::SocketAddr, sync::Arc};

use assay_runtime::{Health, observe_router};
use assay_types::{TaskId, link::MAX_FRAME_BYTES};
use axum::{
    Json, Router,
    extract::{
        ConnectInfo, Path, Request, State, WebSocketUpgrade,
        ws::rejection::WebSocketUpgradeRejection,
    },
    http::{Method, StatusCode, Uri},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::Value;
use tokio::{sync::Semaphore, time::Instant};

use super::{
    answer, body, chat, completions,
    error::{ApiError, TASK_HEADER},
    fields::Fields,
    guard::local_only,
    messages, models, openapi,
    places::Places,
    responses,
    socket::Socket,
    timeline::task_json,
    wording::Order,
};
use crate::{
    config::{MAX_BODY_BYTES, MAX_LINKS, MAX_SOCKETS, RouterConfig},
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
    places: Places,
    miners: Arc<Semaphore>,
    sockets: Arc<Semaphore>,
}

impl App {
    /// An app with all its permits.
    pub fn new(dispatcher: Arc<Dispatcher>, links: Arc<LinkServer>, started_s: u64) -> Self {
        let miners = Arc::new(Semaphore::new(MAX_LINKS));
        let sockets = Arc::new(Semaphore::new(MAX_SOCKETS));
        Self { dispatcher, links, started_s, places: Places::default(), miners, sockets }
    }
}

/// How an API reads a request.
type Read = fn(&mut Fields, &RouterConfig) -> Result<Order, ApiError>;

/// All routes.
pub fn routes(app: Arc<App>, health: Health) -> Router {
    let complete = |read: Read| {
        post(move |State(app): State<Arc<App>>, request: Request| complete(app, read, request))
    };
    let anthropic = Router::new()
        .route("/v1/messages", complete(messages::read))
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(local_only))
        .layer(middleware::from_fn(messages::word_errors));
    let api = Router::new()
        .route("/v1/chat/completions", complete(chat::read))
        .route("/v1/completions", complete(completions::read))
        .route("/v1/responses", complete(responses::read).get(socket))
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/tasks/{id}", get(task))
        .route("/openapi.json", get(description))
        .route("/docs", get(openapi::page))
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(local_only));
    Router::new()
        .merge(api)
        .merge(anthropic)
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
    let message = format!("{} does not take {method}: see /docs", uri.path());
    ApiError::refused(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

async fn nothing_here(uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(128).collect();
    let message = format!("nothing is served at {path:?}: /docs shows what there is");
    ApiError::refused(StatusCode::NOT_FOUND, "unknown_url", message)
}

/// Reads a request as one API words it, and answers it.
async fn complete(app: Arc<App>, read: Read, request: Request) -> Result<Response, ApiError> {
    let mut place = app.places.take(1)?;
    let config = &app.dispatcher.config;
    let body = body::read(request, config.patience.body).await?;
    let order = read(&mut Fields::of_body(&body)?, config)?;
    drop(body);
    place.merge(app.places.take(order.asks.len().saturating_sub(1))?);
    answer::serve(&app.dispatcher, order, place).await
}

/// The body is read all the same: a client that still writes does not look for an answer.
async fn embeddings(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let _place = app.places.take(1)?;
    body::read(request, app.dispatcher.config.patience.body).await?;
    Err(ApiError {
        param: Some("model".into()),
        ..ApiError::refused(
            StatusCode::NOT_FOUND,
            "no_embedding_model",
            "no miner of this router offers a model for embeddings: use another service for them, or ask for an answer with /v1/chat/completions",
        )
    })
}

async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    Json(models::list(&app.dispatcher, app.started_s))
}

async fn model(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    models::one(&app.dispatcher, &name, app.started_s).map(Json)
}

async fn description(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    openapi::document(&app.dispatcher.config).map(Json)
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

async fn socket(
    State(app): State<Arc<App>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|_| {
        ApiError::refused(
            StatusCode::UPGRADE_REQUIRED,
            "upgrade_required",
            "GET is for WebSockets here: connect with ws://, or send a request with POST",
        )
    })?;
    let place = app.sockets.clone().try_acquire_owned().map_err(|_| {
        let message = format!("{MAX_SOCKETS} WebSockets are open: try again in a moment");
        ApiError::limited("too_many_sockets", message, 5)
    })?;
    let (dispatcher, places) = (app.dispatcher.clone(), app.places.clone());
    let upgrade = upgrade.max_message_size(MAX_BODY_BYTES).max_frame_size(MAX_BODY_BYTES);
    Ok(upgrade.on_upgrade(move |socket| async move {
        Socket::new(socket, dispatcher, places).serve().await;
        drop(place);
    }))
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
