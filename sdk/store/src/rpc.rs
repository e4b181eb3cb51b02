//! The part of Kubo's RPC that agents use, with Kubo's answers and errors.

use assay_types::B256;
use axum::{
    Json, Router,
    extract::{
        FromRequest, FromRequestParts, Multipart, Query, Request, State, rejection::QueryRejection,
    },
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::{
    MAX_BLOCK_BYTES, StoreError, cid_of, digest_from_cid, disk::Disk, parse_cid, server::Shared,
};

/// Pins in one list: the answer stays within a few hundred kilobytes.
const MAX_PINS_LISTED: usize = 4096;

/// Kubo's code of an error that the caller made, and of any other.
const CODE_CLIENT: u8 = 1;
const CODE_NORMAL: u8 = 0;

/// An error in Kubo's words.
pub(crate) struct RpcError {
    status: StatusCode,
    code: u8,
    message: String,
}

impl RpcError {
    fn normal(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: CODE_NORMAL,
            message: message.into(),
        }
    }

    fn client(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: CODE_CLIENT, message: message.into() }
    }
}

impl IntoResponse for RpcError {
    fn into_response(self) -> Response {
        let body = json!({ "Message": self.message, "Code": self.code, "Type": "error" });
        (self.status, Json(body)).into_response()
    }
}

impl From<StoreError> for RpcError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { cid } => Self::normal(format!(
                "block was not found locally (offline): ipld: could not find {cid}"
            )),
            StoreError::BadCid { .. } => Self::client(format!("invalid path: {error}")),
            StoreError::Corrupt { ref cid, ref path } => {
                tracing::error!(%cid, path = %path.display(), "stored block is damaged");
                Self::normal("block in storage has different hash than requested")
            }
            StoreError::TooLarge { .. } => Self::normal(
                "produced block is over 1MiB: big blocks can't be exchanged with other peers. consider using UnixFS for automatic chunking of bigger files",
            ),
            error => {
                tracing::error!(%error, "content store call failed");
                Self::normal(error.to_string())
            }
        }
    }
}

/// Options of a call, with a refusal in Kubo's shape.
struct Options<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Options<T> {
    type Rejection = RpcError;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        state: &S,
    ) -> Result<Self, RpcError> {
        let Query(options) = Query::<T>::from_request_parts(parts, state)
            .await
            .map_err(|rejection: QueryRejection| RpcError::client(rejection.body_text()))?;
        Ok(Self(options))
    }
}

/// Options whose argument names one block.
#[derive(Deserialize)]
struct Block {
    arg: Option<String>,
}

#[derive(Deserialize)]
struct Range {
    arg: Option<String>,
    offset: Option<usize>,
    length: Option<usize>,
}

#[derive(Deserialize)]
struct PinFilter {
    arg: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Put {
    cid_codec: Option<String>,
    /// Name of the codec before `cid-codec`.
    format: Option<String>,
    mhtype: Option<String>,
    mhlen: Option<i64>,
    #[serde(default)]
    pin: bool,
}

type Answer = Result<Json<Value>, RpcError>;

/// Routes under `/api/v0`. Kubo takes `POST` alone.
pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/version", post(version))
        .route("/id", post(id))
        .route("/block/put", post(block_put))
        .route("/block/get", post(block_get))
        .route("/block/stat", post(block_stat))
        .route("/cat", post(cat))
        .route("/pin/add", post(pin_add))
        .route("/pin/ls", post(pin_ls))
        .route("/pin/rm", post(pin_rm))
        .route("/repo/gc", post(repo_gc))
        .route("/repo/stat", post(repo_stat))
        .fallback(unknown)
}

/// The block that an argument names.
fn named(arg: Option<&str>) -> Result<B256, RpcError> {
    let arg = arg
        .filter(|arg| !arg.is_empty())
        .ok_or_else(|| RpcError::client("argument \"ipfs-path\" is required"))?;
    Ok(digest_from_cid(&parse_cid(arg)?)?)
}

async fn unknown() -> RpcError {
    RpcError {
        status: StatusCode::NOT_FOUND,
        code: CODE_NORMAL,
        message: "this content store does not have this call; run a Kubo node and give its address as --ipfs-url to use it".into(),
    }
}

async fn version() -> Json<Value> {
    Json(json!({
        "Version": concat!("assay-store/", env!("CARGO_PKG_VERSION")),
        "Commit": "",
        // Layout of the folder, as the number of Kubo's repositories is.
        "Repo": "1",
        "System": format!("{}/{}", std::env::consts::ARCH, std::env::consts::OS),
        "Golang": "",
    }))
}

/// There is no peer: the fields that name one are empty.
async fn id() -> Json<Value> {
    Json(json!({
        "ID": "",
        "PublicKey": "",
        "Addresses": [],
        "AgentVersion": concat!("assay-store/", env!("CARGO_PKG_VERSION")),
        "ProtocolVersion": "",
        "Protocols": [],
    }))
}

impl Put {
    /// Only raw blocks under sha2-256 are kept; another kind under this call would get another CID than asked for.
    fn check(&self) -> Result<(), RpcError> {
        if self.format.is_some() && self.cid_codec.as_deref().is_some_and(|codec| codec != "raw") {
            return Err(RpcError::client(
                "unable to use \"format\" (deprecated) and a custom \"cid-codec\" at the same time",
            ));
        }
        let codec = self.format.as_deref().or(self.cid_codec.as_deref()).unwrap_or("raw");
        if codec != "raw" {
            return Err(RpcError::client(format!(
                "this content store keeps raw blocks only, not {codec:?}: use cid-codec=raw"
            )));
        }
        let hash = self.mhtype.as_deref().unwrap_or("sha2-256");
        if hash != "sha2-256" || !matches!(self.mhlen, None | Some(-1 | 32)) {
            return Err(RpcError::client(
                "this content store names blocks by 32 bytes of sha2-256 only: use mhtype=sha2-256",
            ));
        }
        Ok(())
    }
}

async fn block_put(
    State(shared): State<Shared>,
    Options(options): Options<Put>,
    request: Request,
) -> Answer {
    options.check()?;
    let mut form = Multipart::from_request(request, &shared).await.map_err(|rejection| {
        RpcError::client(format!("file argument 'data' is required: {}", rejection.body_text()))
    })?;
    let broken = |error: axum::extract::multipart::MultipartError| {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return StoreError::TooLarge { bytes: MAX_BLOCK_BYTES + 1, limit: MAX_BLOCK_BYTES }
                .into();
        }
        RpcError::client(format!("cannot read the form: {}", error.body_text()))
    };
    let part = form.next_field().await.map_err(broken)?;
    let bytes = part
        .ok_or_else(|| RpcError::client("file argument 'data' is required"))?
        .bytes()
        .await
        .map_err(broken)?;
    if form.next_field().await.map_err(broken)?.is_some() {
        return Err(RpcError::client("this content store takes one block a call"));
    }
    let size = bytes.len();
    let digest = shared.on_disk(move |disk| disk.put(&bytes, options.pin)).await?;
    Ok(Json(json!({ "Key": cid_of(digest).to_string(), "Size": size })))
}

async fn block_get(
    State(shared): State<Shared>,
    Options(block): Options<Block>,
) -> Result<Response, RpcError> {
    let digest = named(block.arg.as_deref())?;
    let bytes = shared.on_disk(move |disk| disk.get(digest)).await?;
    Ok(plain(bytes))
}

/// Bytes as Kubo streams them.
fn plain(bytes: Vec<u8>) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/plain"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, [("X-Stream-Output", "1")], bytes).into_response()
}

async fn block_stat(State(shared): State<Shared>, Options(block): Options<Block>) -> Answer {
    let digest = named(block.arg.as_deref())?;
    let bytes = shared.on_disk(move |disk| disk.get(digest)).await?;
    Ok(Json(json!({ "Key": cid_of(digest).to_string(), "Size": bytes.len() })))
}

async fn cat(
    State(shared): State<Shared>,
    Options(range): Options<Range>,
) -> Result<Response, RpcError> {
    let digest = named(range.arg.as_deref())?;
    let bytes = shared.on_disk(move |disk| disk.get(digest)).await?;
    let length = range.length.unwrap_or(usize::MAX);
    Ok(plain(bytes.into_iter().skip(range.offset.unwrap_or(0)).take(length).collect()))
}

async fn pin_add(State(shared): State<Shared>, Options(block): Options<Block>) -> Answer {
    let digest = named(block.arg.as_deref())?;
    shared.on_disk(move |disk| disk.pin(digest)).await?;
    Ok(Json(json!({ "Pins": [cid_of(digest).to_string()] })))
}

async fn pin_rm(State(shared): State<Shared>, Options(block): Options<Block>) -> Answer {
    let digest = named(block.arg.as_deref())?;
    if !shared.on_disk(move |disk| disk.unpin(digest)).await? {
        return Err(RpcError::normal("not pinned or pinned indirectly"));
    }
    Ok(Json(json!({ "Pins": [cid_of(digest).to_string()] })))
}

async fn pin_ls(State(shared): State<Shared>, Options(filter): Options<PinFilter>) -> Answer {
    // A raw block has no children: Kubo's default kind of pin is the only one here.
    let kept = match filter.kind.as_deref().unwrap_or("all") {
        "all" | "recursive" => true,
        "direct" | "indirect" => false,
        other => {
            return Err(RpcError::client(format!(
                "invalid type '{other}', must be one of {{direct, indirect, recursive, all}}"
            )));
        }
    };
    let pins = match filter.arg.as_deref() {
        Some(arg) if !arg.is_empty() => {
            let digest = named(Some(arg))?;
            if !(kept && shared.on_disk(move |disk| disk.is_pinned(digest)).await?) {
                return Err(RpcError::normal(format!(
                    "path '/ipfs/{}' is not pinned",
                    cid_of(digest)
                )));
            }
            vec![digest]
        }
        _ if kept => shared.on_disk(|disk| disk.pins(MAX_PINS_LISTED + 1)).await?,
        _ => Vec::new(),
    };
    if pins.len() > MAX_PINS_LISTED {
        return Err(RpcError::normal(format!(
            "over {MAX_PINS_LISTED} pins: ask for one with arg=<cid>"
        )));
    }
    let keys: Map<String, Value> = pins
        .into_iter()
        .map(|digest| (cid_of(digest).to_string(), json!({ "Type": "recursive" })))
        .collect();
    Ok(Json(json!({ "Keys": keys })))
}

/// Kubo answers with one line for each block that is gone.
async fn repo_gc(State(shared): State<Shared>) -> Result<Response, RpcError> {
    let removed = shared.on_disk(Disk::collect).await?;
    let lines: String = removed
        .into_iter()
        .map(|digest| format!("{}\n", json!({ "Key": { "/": cid_of(digest).to_string() } })))
        .collect();
    Ok(([(header::CONTENT_TYPE, "application/json")], lines).into_response())
}

async fn repo_stat(State(shared): State<Shared>) -> Answer {
    let totals = shared.on_disk(|disk| disk.totals()).await?;
    // The path of the folder is nobody's business over the network.
    Ok(Json(json!({
        "RepoSize": totals.bytes,
        "StorageMax": totals.limit_bytes,
        "NumObjects": totals.blocks,
        "RepoPath": "",
        "Version": "assay-store@1",
    })))
}
