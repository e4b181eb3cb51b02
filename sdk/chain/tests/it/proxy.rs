//! A JSON-RPC node that does what a test tells it: forwards, delays, loses, lies.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// A call that arrived.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: String,
    pub params: Value,
    /// How many calls of this method came before.
    pub index: usize,
}

/// What becomes of a call.
pub enum Act {
    /// The node's answer.
    Forward,
    /// The node's answer to the second of two equal calls.
    Twice,
    /// The node's result, changed.
    Change(Box<dyn FnOnce(Value) -> Value + Send>),
    /// The node gets the call; the caller gets this error.
    ForwardButSay(&'static str),
    /// The node gets nothing; the caller gets this error.
    Refuse(&'static str),
    /// The node gets nothing; the caller gets this result.
    Answer(Value),
    /// An HTTP status with this body.
    Status(u16, &'static str),
    /// The connection ends without an answer.
    Drop,
    /// No answer, ever.
    Hang,
    /// The node gets the call; no answer, ever.
    ForwardAndHang,
    /// An answer without an end.
    Endless,
}

type Rule = Box<dyn FnMut(&Call) -> Act + Send>;

struct Inner {
    target: String,
    client: reqwest::Client,
    rule: Mutex<Rule>,
    counts: Mutex<BTreeMap<String, usize>>,
}

/// Ends with the test.
pub struct Proxy {
    pub url: String,
    inner: Arc<Inner>,
    _server: JoinSet<()>,
}

impl Proxy {
    pub async fn start(target: String) -> Self {
        let inner = Arc::new(Inner {
            target,
            client: reqwest::Client::new(),
            rule: Mutex::new(Box::new(|_| Act::Forward)),
            counts: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(serve).with_state(Arc::clone(&inner));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, inner, _server: server }
    }

    /// Counts begin anew with a rule.
    pub fn set(&self, rule: impl FnMut(&Call) -> Act + Send + 'static) {
        let mut current = self.inner.rule.lock().unwrap();
        self.inner.counts.lock().unwrap().clear();
        *current = Box::new(rule);
    }

    /// How many calls of a method came since the rule was set.
    pub fn count(&self, method: &str) -> usize {
        self.inner.counts.lock().unwrap().get(method).copied().unwrap_or_default()
    }

    /// How many calls came since the rule was set.
    pub fn total(&self) -> usize {
        self.inner.counts.lock().unwrap().values().sum()
    }
}

async fn serve(State(inner): State<Arc<Inner>>, body: Bytes) -> Response<Body> {
    let request: Value = serde_json::from_slice(&body).unwrap();
    let method = request["method"].as_str().unwrap().to_string();
    let act = {
        let mut rule = inner.rule.lock().unwrap();
        let mut counts = inner.counts.lock().unwrap();
        let count = counts.entry(method.clone()).or_default();
        let call = Call { method, params: request["params"].clone(), index: *count };
        *count += 1;
        drop(counts);
        rule(&call)
    };
    let id = request["id"].clone();
    match act {
        Act::Forward => json_body(inner.forward(&body).await),
        Act::Twice => {
            inner.forward(&body).await;
            json_body(inner.forward(&body).await)
        }
        Act::Change(change) => {
            let mut answer = inner.forward(&body).await;
            answer["result"] = change(answer["result"].take());
            json_body(answer)
        }
        Act::ForwardButSay(text) => {
            inner.forward(&body).await;
            json_body(error(id, text))
        }
        Act::Refuse(text) => json_body(error(id, text)),
        Act::Answer(result) => json_body(json!({"jsonrpc": "2.0", "id": id, "result": result})),
        Act::Status(status, text) => Response::builder()
            .status(StatusCode::from_u16(status).unwrap())
            .body(Body::from(text))
            .unwrap(),
        Act::Drop => {
            Response::new(Body::from_stream(futures::stream::iter([Err::<Bytes, std::io::Error>(
                std::io::ErrorKind::ConnectionReset.into(),
            )])))
        }
        Act::Hang => std::future::pending().await,
        Act::ForwardAndHang => {
            inner.forward(&body).await;
            std::future::pending().await
        }
        Act::Endless => {
            let chunk = Bytes::from(vec![b' '; 1 << 20]);
            Response::new(Body::from_stream(futures::stream::repeat_with(move || {
                Ok::<_, Infallible>(chunk.clone())
            })))
        }
    }
}

impl Inner {
    async fn forward(&self, body: &Bytes) -> Value {
        let request = self.client.post(&self.target).header("content-type", "application/json");
        let answer = request.body(body.clone()).send().await.unwrap();
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }
}

fn error(id: Value, text: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32000, "message": text}})
}

fn json_body(value: Value) -> Response<Body> {
    Response::builder()
        .header("content-type", "application/json")
        .body(Body::from(value.to_string()))
        .unwrap()
}
