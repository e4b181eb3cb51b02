//! Errors as OpenAI words them: `{"error": {message, type, param, code}}`.

use assay_types::TaskId;
use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// Names the task of an answer, or its tasks with commas between them.
pub const TASK_HEADER: HeaderName = HeaderName::from_static("x-assay-task");

/// Tells OpenAI's and Anthropic's clients that the same request will never be answered.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// A request that is not answered, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// OpenAI's class: `invalid_request_error`, `server_error`, ...
    pub kind: &'static str,
    /// Stable code.
    pub code: String,
    /// What is wrong and what to do.
    pub message: String,
    /// The parameter at fault.
    pub param: Option<Box<str>>,
    /// Seconds after which it is worth trying again.
    pub retry_after_s: Option<u16>,
    /// The task, if there is one.
    pub task: Option<TaskId>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            code: code.into(),
            message: message.into(),
            param: None,
            retry_after_s: None,
            task: None,
        }
    }

    /// 400: the request is at fault.
    pub fn invalid(param: &str, code: &str, message: impl Into<String>) -> Self {
        let kind = "invalid_request_error";
        let param = (!param.is_empty()).then(|| param.into());
        Self { param, ..Self::new(StatusCode::BAD_REQUEST, kind, code, message) }
    }

    /// The request is at fault in another way than by its parameters.
    pub fn refused(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self::new(status, "invalid_request_error", code, message)
    }

    /// 502: the node failed.
    pub fn node(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "server_error", code, message)
    }

    /// 429: as much is under way as can be; the same request is served a moment later.
    pub fn limited(code: &str, message: impl Into<String>, retry_after_s: u16) -> Self {
        Self {
            retry_after_s: Some(retry_after_s),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", code, message)
        }
    }

    /// 503: nobody can serve it now.
    pub fn unavailable(code: &str, message: impl Into<String>, retry_after_s: u16) -> Self {
        Self {
            retry_after_s: Some(retry_after_s),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", code, message)
        }
    }

    /// 500: the router failed.
    pub fn internal(message: impl Into<String>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "server_error", "internal_error", message)
    }

    /// The same, naming its task.
    #[must_use]
    pub fn of_task(mut self, task: TaskId) -> Self {
        self.task = Some(task);
        self
    }

    /// What is inside the body's `error`.
    pub fn detail(&self) -> Value {
        json!({
            "message": self.message, "type": self.kind, "param": self.param, "code": self.code,
        })
    }

    /// The body.
    pub fn body(&self) -> Value {
        json!({"error": self.detail()})
    }

    /// The response whose body another API words.
    pub fn with_body(&self, body: Value) -> Response {
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.max(1)));
        } else if self.status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if let Some(task) = self.task {
            name_tasks(&mut response, &[task]);
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.with_body(self.body());
        // For a layer that words errors of its API in another shape.
        response.extensions_mut().insert(self);
        response
    }
}

/// Names the tasks of an answer in the response's headers.
pub fn name_tasks(response: &mut Response, tasks: &[TaskId]) {
    let names: Vec<String> = tasks.iter().map(ToString::to_string).collect();
    if let Ok(value) = HeaderValue::from_str(&names.join(",")) {
        response.headers_mut().insert(TASK_HEADER, value);
    }
}
