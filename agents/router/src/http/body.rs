//! Bodies of requests: bounded in size and time.

use std::{error::Error, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{StatusCode, header},
};
use tokio::time::timeout;

use super::error::ApiError;
use crate::config::MAX_BODY_BYTES;

/// The whole body of a question.
///
/// # Errors
/// As [`read_at_most`].
pub async fn read(request: Request, within: Duration) -> Result<Bytes, ApiError> {
    read_at_most(request, MAX_BODY_BYTES, within).await
}

/// The whole body, of so many bytes at most.
///
/// # Errors
/// 413 if it is too large, 408 if it does not arrive in time, 400 if it breaks off.
pub async fn read_at_most(
    request: Request,
    max_bytes: usize,
    within: Duration,
) -> Result<Bytes, ApiError> {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > max_bytes as u64) {
        return Err(too_large(max_bytes));
    }
    let body: Body = request.into_body();
    match timeout(within, to_bytes(body, max_bytes)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_long(&error) => Err(too_large(max_bytes)),
        Ok(Err(error)) => {
            let message = format!("the body cannot be read: {error}; send it again, whole");
            Err(ApiError::invalid("", "unreadable_body", message))
        }
        Err(_) => Err(ApiError::refused(
            StatusCode::REQUEST_TIMEOUT,
            "body_timeout",
            format!("the body did not arrive within {} s: send it in one go", within.as_secs()),
        )),
    }
}

fn too_large(max_bytes: usize) -> ApiError {
    let message = format!("the body is larger than {max_bytes} bytes: send a shorter one");
    ApiError::refused(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
}

fn is_too_long(error: &axum::Error) -> bool {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.to_string().contains("length limit exceeded") {
            return true;
        }
        source = error.source();
    }
    false
}
