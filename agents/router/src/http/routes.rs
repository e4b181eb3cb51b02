//! Routes, their limits and the access log.

use std::{net::SocketAddr, sync::Arc};

use assay_runtime::{Health, observe_router};
use assay_types::{TaskId, link::MAX_FRAME_BYTES};
use axum::{
    Extension, Json, Router,
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
    guard::admit,
    messages, models, openapi,
    places::Places,
    proof::proof_json,
    requests, responses,
    socket::Socket,
    timeline::task_json,
    wording::Order,
};
use crate::{
    config::{
        MAX_BODY_BYTES, MAX_CANCELLATION_BYTES, MAX_LINKS, MAX_SOCKETS, RouterConfig,
        SOCKET_READ_BYTES, ServedModel,
    },
    journal::JournalError,
    keys::{Caller, Keyring},
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
    /// The keys that are asked for; `None` if none are.
    pub keys: Option<Arc<Keyring>>,
    places: Places,
    miners: Arc<Semaphore>,
    sockets: Arc<Semaphore>,
}

impl App {
    /// An app with all its permits.
    pub fn new(
        dispatcher: Arc<Dispatcher>,
        links: Arc<LinkServer>,
        keys: Option<Arc<Keyring>>,
        started_s: u64,
    ) -> Self {
        let miners = Arc::new(Semaphore::new(MAX_LINKS));
        let sockets = Arc::new(Semaphore::new(MAX_SOCKETS));
        Self { dispatcher, links, started_s, keys, places: Places::default(), miners, sockets }
    }
}

/// How an API reads a request.
type Read = fn(&mut Fields, &RouterConfig) -> Result<Order, ApiError>;

/// All routes.
pub fn routes(app: Arc<App>, health: Health) -> Router {
    let complete = |read: Read| {
        post(move |State(app): State<Arc<App>>, request: Request| complete(app, read, request))
    };
    let admitted = middleware::from_fn_with_state(app.keys.clone(), admit);
    let anthropic = Router::new()
        .route("/v1/messages", complete(messages::read))
        .method_not_allowed_fallback(wrong_method)
        .layer(admitted.clone())
        .layer(middleware::from_fn(messages::word_errors));
    let api = Router::new()
        .route("/v1/chat/completions", complete(chat::read))
        .route("/v1/completions", complete(completions::read))
        .route("/v1/responses", complete(responses::read).get(socket))
        .route("/v1/requests", complete(requests::read))
        .route("/v1/requests/{task}/cancel", post(cancel))
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/tasks/{id}", get(task))
        .route("/v1/tasks/{id}/proof", get(proof))
        .method_not_allowed_fallback(wrong_method)
        .layer(admitted.clone());
    let described = Router::new()
        .route("/openapi.json", get(description))
        .route("/docs", get(openapi::page))
        .method_not_allowed_fallback(wrong_method);
    // Whoever shall ask with a key may read how.
    let described = if app.keys.is_some() { described } else { described.layer(admitted) };
    Router::new()
        .merge(api)
        .merge(described)
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
    let key = response.extensions().get::<Arc<Caller>>().map_or("", |who| who.key().id.as_str());
    tracing::info!(target: "assay_router::access", %method, path, status, ms, task, key);
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
    let caller = request.extensions().get::<Arc<Caller>>().cloned();
    let body = body::read(request, config.patience.body).await?;
    let mut order = read(&mut Fields::of_body(&body)?, config)?;
    drop(body);
    place.merge(app.places.take(order.asks.len().saturating_sub(1))?);
    order.bill = caller.map(|caller| caller.admit(&mut order.asks)).transpose()?;
    answer::serve(&app.dispatcher, order, place).await
}

/// Ends a request that its lane's holder has signed. It takes no place: it makes room for others.
async fn cancel(
    State(app): State<Arc<App>>,
    Path(task): Path<String>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let within = app.dispatcher.config.patience.body;
    let body = body::read_at_most(request, MAX_CANCELLATION_BYTES, within).await?;
    let task = task_id("task", &task)?;
    let signed = requests::read_cancellation(&mut Fields::of_body(&body)?)?;
    app.dispatcher.cut(task, signed).await?;
    Ok((StatusCode::ACCEPTED, Json(requests::cancellation_json(task, signed.tokens))))
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

/// Who asks, where keys are asked for.
type Who = Option<Extension<Arc<Caller>>>;

async fn models(State(app): State<Arc<App>>, who: Who) -> Json<Value> {
    let may_see =
        |model: &ServedModel| who.as_ref().is_none_or(|who| who.key().allows(&model.name));
    Json(models::list(&app.dispatcher, may_see, app.started_s))
}

async fn model(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    models::one(&app.dispatcher, &name, app.started_s).map(Json)
}

async fn description(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    openapi::document(&app.dispatcher.config, app.keys.is_some()).map(Json)
}

async fn task(
    State(app): State<Arc<App>>,
    who: Who,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id = task_id("id", &id)?;
    let row = app.dispatcher.ledger.task(id).await.map_err(unreadable)?;
    let row = row.filter(|row| may_see(&who, row.api_key.as_deref()));
    row.map(|row| Json(task_json(id, &row))).ok_or_else(no_such_task)
}

async fn proof(
    State(app): State<Arc<App>>,
    who: Who,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id = task_id("id", &id)?;
    let found = app.dispatcher.ledger.proof(id).await.map_err(unreadable)?;
    let found = found.filter(|proof| may_see(&who, proof.api_key.as_deref()));
    found.map(|proof| Json(proof_json(id, &proof))).ok_or_else(no_such_task)
}

/// With a key one sees the tasks of that key alone.
fn may_see(who: &Who, key: Option<&str>) -> bool {
    who.as_ref().is_none_or(|who| key == Some(who.key().id.as_str()))
}

fn task_id(param: &str, text: &str) -> Result<TaskId, ApiError> {
    text.parse().map_err(|_| {
        ApiError::invalid(param, "invalid_value", "a task's id is 0x and 64 hexadecimal digits")
    })
}

fn unreadable(error: JournalError) -> ApiError {
    tracing::error!(%error, "a task cannot be read");
    ApiError::internal("this router's database fails: look at its log")
}

fn no_such_task() -> ApiError {
    ApiError::refused(
        StatusCode::NOT_FOUND,
        "task_not_found",
        "this router has no such task: it knows those of its own lanes",
    )
}

async fn socket(
    State(app): State<Arc<App>>,
    who: Who,
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
    let upgrade = upgrade.read_buffer_size(SOCKET_READ_BYTES);
    let upgrade = upgrade.max_message_size(MAX_BODY_BYTES).max_frame_size(MAX_BODY_BYTES);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let caller = who.map(|Extension(caller)| caller);
        Socket::new(socket, dispatcher, places, caller).serve().await;
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
    let upgrade = upgrade.read_buffer_size(SOCKET_READ_BYTES);
    upgrade.max_message_size(MAX_FRAME_BYTES).max_frame_size(MAX_FRAME_BYTES).on_upgrade(
        move |socket| async move {
            links.serve(socket).await;
            drop(permit);
        },
    )
}
