//! Read-only gateway: `/ipfs/<cid>` gives the bytes of one block to anyone, browsers included.

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::de::IgnoredAny;

use crate::{StoreError, cid_of, digest_from_cid, parse_cid, server::Shared};

/// The bytes under a CID never change.
const FOREVER: &str = "public, max-age=31536000, immutable";

/// `GET` and `HEAD` of one block.
pub(crate) fn routes() -> Router<Shared> {
    Router::new().route("/ipfs/{cid}", get(block))
}

async fn block(
    State(shared): State<Shared>,
    Path(cid): Path<String>,
    headers: HeaderMap,
) -> Response {
    match read(&shared, &cid, &headers).await {
        Ok(response) => response,
        Err(error) => {
            let status = match error {
                StoreError::BadCid { .. } => StatusCode::BAD_REQUEST,
                StoreError::NotFound { .. } => StatusCode::NOT_FOUND,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            // Other errors name paths of this machine: those go to the log.
            let message = if status.is_server_error() {
                tracing::error!(%error, "gateway cannot give a block");
                "the content store cannot give this block; its log says why".to_owned()
            } else {
                error.to_string()
            };
            let headers =
                [(header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
            (status, headers, message + "\n").into_response()
        }
    }
}

async fn read(shared: &Shared, cid: &str, headers: &HeaderMap) -> Result<Response, StoreError> {
    let digest = digest_from_cid(&parse_cid(cid)?)?;
    let bytes = shared.on_disk(move |disk| disk.get(digest)).await?;
    let cid = cid_of(digest).to_string();
    let etag = format!("\"{cid}\"");
    let common = [
        (header::CACHE_CONTROL, FOREVER.to_owned()),
        (header::ETAG, etag.clone()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        // Content is public and read-only: any page may read it, as from any gateway.
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*".to_owned()),
    ];
    let path = [("X-Ipfs-Path", format!("/ipfs/{cid}"))];
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| {
        known.split(',').any(|one| one.trim() == "*" || one.trim().trim_start_matches("W/") == etag)
    }) {
        return Ok((StatusCode::NOT_MODIFIED, common, path).into_response());
    }
    let kind = match serde_json::from_slice::<IgnoredAny>(&bytes) {
        Ok(_) => "application/json",
        Err(_) => "application/octet-stream",
    };
    Ok((common, path, [(header::CONTENT_TYPE, kind)], bytes).into_response())
}
