//! Makes spans, and sends them to a collector: OTLP in its JSON form over HTTP, which every collector takes.
//!
//! The form is written here, and not by OpenTelemetry's own crates: they would enable features of crates that everything
//! here is built on, so that a program with traces would compile the engine anew.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use alloy::hex;
use assay_runtime::BoxError;
use assay_types::{B256, NodeId, TaskId};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{Stage, TracesError};
use crate::{
    http::error::ApiError,
    tasks::{running::Finish, telemetry::Telemetry},
};

/// Spans that wait to be sent; a collector that is away makes the router lose the rest, not wait.
const SPAN_QUEUE: usize = 8192;
/// Spans of one message to the collector.
const SPAN_BATCH: usize = 512;
/// Time that a span waits for others to be sent with it.
const SPAN_DELAY: Duration = Duration::from_millis(500);
/// Time for the collector to take a message.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a trace's id, and of a span's.
const ID_BYTES: (usize, usize) = (16, 8);
/// Kinds of spans: inside a program, and of one that serves.
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
/// How a span ended: well, or not.
const OK: u8 = 1;
const ERROR: u8 = 2;

/// Begins traces.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<mpsc::Sender<Value>>);

/// Sends what traces say.
#[derive(Debug)]
pub struct Exporting {
    spans: mpsc::Receiver<Value>,
    client: reqwest::Client,
    url: reqwest::Url,
}

/// One answer's trace, or none. Clones are of the same trace, which ends with the last of them.
#[derive(Clone, Debug, Default)]
pub struct Trace(Option<Arc<Root>>);

#[derive(Debug)]
struct Root {
    spans: mpsc::Sender<Value>,
    /// In hexadecimal digits, as the span's.
    trace: String,
    span: String,
    name: String,
    since: Instant,
    started: SystemTime,
    outcome: Mutex<Outcome>,
}

#[derive(Debug)]
struct Outcome {
    attributes: Vec<Value>,
    status: Value,
}

/// A span's name, kind, parent, time and what is said of it.
struct Span<'a> {
    id: &'a str,
    parent: &'a str,
    name: &'a str,
    kind: u8,
    began: Instant,
    outcome: Outcome,
}

fn text(key: &str, value: impl Into<String>) -> Value {
    json!({"key": key, "value": {"stringValue": value.into()}})
}

/// Whole numbers are texts: they have 64 bits.
fn number(key: &str, value: u32) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

fn of_task(task: TaskId) -> Value {
    text("assay.task_id", task.to_string())
}

/// A trace's id and a span's, by chance.
fn ids() -> (String, String) {
    let random = B256::random();
    let (trace, rest) = random.split_at(ID_BYTES.0);
    (hex::encode(trace), hex::encode(rest.get(..ID_BYTES.1).unwrap_or_default()))
}

fn nanos(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

impl Traces {
    /// Traces for the collector at `endpoint`, whose path for traces is OTLP's own; and what sends them. None without
    /// one.
    ///
    /// # Errors
    /// If it is no address.
    pub fn open(endpoint: Option<&str>) -> Result<(Self, Option<Exporting>), TracesError> {
        let Some(endpoint) = endpoint else { return Ok((Self(None), None)) };
        let wrong = |reason: String| TracesError::Endpoint { endpoint: endpoint.into(), reason };
        let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let url = reqwest::Url::parse(&url).map_err(|error| wrong(error.to_string()))?;
        let client = reqwest::Client::builder().timeout(EXPORT_TIMEOUT).build();
        let client = client.map_err(|error| wrong(error.to_string()))?;
        let (sender, spans) = mpsc::channel(SPAN_QUEUE);
        Ok((Self(Some(sender)), Some(Exporting { spans, client, url })))
    }

    /// A trace of an answer that is asked for now.
    pub fn begin(&self, of: &Telemetry) -> Trace {
        let Some(spans) = self.0.clone() else { return Trace(None) };
        let (trace, span) = ids();
        let attributes = vec![
            text("gen_ai.provider.name", "assay"),
            text("gen_ai.operation.name", of.operation()),
            text("gen_ai.request.model", of.model()),
        ];
        Trace(Some(Arc::new(Root {
            spans,
            trace,
            span,
            // As OpenTelemetry's conventions for generative AI name it.
            name: format!("{} {}", of.operation(), of.model()),
            since: Instant::now(),
            started: SystemTime::now(),
            outcome: Mutex::new(Outcome { attributes, status: json!({}) }),
        })))
    }
}

impl Trace {
    /// A stage ends now.
    pub fn stage(&self, stage: Stage, task: Option<TaskId>) {
        let Some(root) = &self.0 else { return };
        let attributes = task.map(of_task).into_iter().collect();
        root.send(&Span {
            id: &ids().1,
            parent: &root.span,
            name: stage.name(),
            kind: INTERNAL,
            began: stage.began(),
            outcome: Outcome { attributes, status: json!({}) },
        });
    }

    /// The answer is complete.
    pub fn complete(&self, (task, node): (TaskId, NodeId), finish: &Finish) {
        let said = [
            of_task(task),
            number("assay.node_id", node.0),
            number("gen_ai.usage.input_tokens", finish.prompt_tokens),
            number("gen_ai.usage.output_tokens", finish.output_tokens),
        ];
        self.outcome(said, json!({"code": OK}));
    }

    /// There is no whole answer. Its message may have words of the request in it; its code has none.
    pub fn failed(&self, task: Option<TaskId>, error: &ApiError) {
        let said = task.map(of_task).into_iter().chain([text("error.type", error.code.as_str())]);
        self.outcome(said, json!({"code": ERROR, "message": error.code}));
    }

    fn outcome(&self, said: impl IntoIterator<Item = Value>, status: Value) {
        let Some(root) = &self.0 else { return };
        let mut outcome = root.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.attributes.extend(said);
        outcome.status = status;
    }
}

impl Root {
    /// Sends a span that ends now.
    fn send(&self, span: &Span<'_>) {
        let Span { id, parent, name, kind, began, outcome } = span;
        let since = began.saturating_duration_since(self.since);
        let span = json!({
            "traceId": self.trace,
            "spanId": id,
            "parentSpanId": parent,
            "name": name,
            "kind": kind,
            "startTimeUnixNano": nanos(self.started + since),
            "endTimeUnixNano": nanos(self.started + self.since.elapsed()),
            "attributes": outcome.attributes,
            "status": outcome.status,
        });
        if self.spans.try_send(span).is_err() {
            lost(1);
        }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let outcome = self.outcome.get_mut().unwrap_or_else(PoisonError::into_inner);
        let none = Outcome { attributes: Vec::new(), status: json!({}) };
        let outcome = std::mem::replace(outcome, none);
        let (id, name, began) = (&self.span, &self.name, self.since);
        self.send(&Span { id, parent: "", name, kind: SERVER, began, outcome });
    }
}

fn lost(spans: usize) {
    let spans = u64::try_from(spans).unwrap_or(u64::MAX);
    metrics::counter!("assay_router_spans_lost_total", "agent" => "router").increment(spans);
}

impl Exporting {
    /// Sends spans, several at a time, until `stop`; then what there is.
    ///
    /// # Errors
    /// None: a collector that is away is no reason to stop.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), BoxError> {
        let mut is_away = false;
        loop {
            let mut batch = Vec::with_capacity(SPAN_BATCH);
            tokio::select! {
                biased;
                _ = self.spans.recv_many(&mut batch, SPAN_BATCH) => {}
                () = stop.cancelled() => {}
            }
            if batch.is_empty() {
                return Ok(());
            }
            tokio::select! {
                () = sleep(SPAN_DELAY) => {}
                () = stop.cancelled() => {}
            }
            while batch.len() < SPAN_BATCH
                && let Ok(span) = self.spans.try_recv()
            {
                batch.push(span);
            }
            let count = batch.len();
            let sent = self.send(batch).await;
            if let Err(error) = &sent {
                lost(count);
                if !is_away {
                    tracing::warn!(%error, "the collector takes no spans: they are lost meanwhile");
                }
                if stop.is_cancelled() {
                    return Ok(());
                }
            }
            is_away = sent.is_err();
        }
    }

    async fn send(&self, spans: Vec<Value>) -> Result<(), reqwest::Error> {
        let service = [
            text("service.name", "assay-router"),
            text("service.version", env!("CARGO_PKG_VERSION")),
        ];
        let body = json!({"resourceSpans": [{
            "resource": {"attributes": service},
            "scopeSpans": [{"scope": {"name": "assay-router"}, "spans": spans}],
        }]});
        let response = self.client.post(self.url.clone()).json(&body).send().await?;
        response.error_for_status().map(drop)
    }
}
