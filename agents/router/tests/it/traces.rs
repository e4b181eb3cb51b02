//! What a collector of OpenTelemetry is sent.

use alloy::signers::local::PrivateKeySigner;
use assay_router::RouterConfig;
use tempfile::{TempDir, tempdir};

use crate::world::config;

fn with_collector(endpoint: String) -> (RouterConfig, TempDir) {
    let data = tempdir().unwrap();
    let mut settings = config(data.path());
    settings.otlp_endpoint = Some(endpoint);
    (settings, data)
}

#[cfg(not(feature = "otlp"))]
#[tokio::test]
async fn a_program_without_traces_says_so_instead_of_sending_none() {
    use assay_router::{Journal, Parts, RouterError, assemble};

    let (settings, data) = with_collector("http://127.0.0.1:4318".into());
    let (_blocks, updates) = tokio::sync::mpsc::channel(1);
    let parts = Parts {
        chain: std::sync::Arc::new(crate::world::FakeChain::default()),
        signer: PrivateKeySigner::random(),
        store: std::sync::Arc::new(crate::world::MemoryStore::default()),
        journal: Journal::open(data.path()).unwrap(),
        blocks: updates,
        services: Vec::new(),
        services_stop: Default::default(),
    };
    let refused = assemble(settings, parts).await.err().unwrap();
    assert!(matches!(refused, RouterError::Traces(_)), "{refused}");
    assert!(refused.to_string().contains("--features otlp"), "{refused}");
}

#[cfg(feature = "otlp")]
mod sent {
    use std::{collections::HashMap, sync::Arc};

    use axum::{Json, Router, routing::post};
    use serde_json::{Value, json};
    use tokio::{net::TcpListener, sync::Mutex};

    use super::*;
    use crate::world::{World, hello};

    /// A collector; what it was sent, once `serve` is dropped nothing more.
    struct Collector {
        endpoint: String,
        got: Arc<Mutex<Vec<Value>>>,
        serving: tokio::task::JoinHandle<()>,
    }

    impl Collector {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            let got: Arc<Mutex<Vec<Value>>> = Default::default();
            let into = got.clone();
            let take = move |Json(body): Json<Value>| async move {
                into.lock().await.push(body);
                Json(json!({}))
            };
            let routes = Router::new().route("/v1/traces", post(take));
            let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
            Self { endpoint, got, serving }
        }

        /// All spans, with the name of the service that sent them checked.
        async fn spans(self) -> Vec<Value> {
            self.serving.abort();
            let bodies = self.got.lock().await;
            let mut spans = Vec::new();
            for of_resource in bodies.iter().flat_map(|body| list(&body["resourceSpans"])) {
                let service = attributes(&of_resource["resource"]);
                assert_eq!(service["service.name"], "assay-router");
                spans.extend(
                    list(&of_resource["scopeSpans"]).iter().flat_map(|s| list(&s["spans"])),
                );
            }
            spans
        }
    }

    fn list(value: &Value) -> Vec<Value> {
        value.as_array().cloned().unwrap_or_default()
    }

    /// Attributes as texts.
    fn attributes(of: &Value) -> HashMap<String, String> {
        let pair = |pair: Value| {
            let key = pair["key"].as_str().unwrap().to_owned();
            let (_, value) = pair["value"].as_object().unwrap().iter().next().unwrap();
            (key, value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        list(&of["attributes"]).into_iter().map(pair).collect()
    }

    fn named<'a>(spans: &'a [Value], name: &str) -> Vec<&'a Value> {
        spans.iter().filter(|span| span["name"] == name).collect()
    }

    #[tokio::test]
    async fn an_answer_is_a_trace_of_its_stages_without_its_words() {
        let collector = Collector::start().await;
        let (settings, _data) = with_collector(collector.endpoint.clone());
        let mut world = World::with_config(settings, PrivateKeySigner::random()).await;
        world.open_session(&[1], u128::MAX).await;
        let mut miner = world.miner(1).await;
        let asked = world.ask(hello(true));
        let (response, (task, _)) = tokio::join!(asked, miner.serve(&["secret", "word"]));
        assert!(response.text().await.unwrap().contains("secret"));
        // It sends what there is before it ends.
        world.router.stop().await.unwrap();

        let spans = collector.spans().await;
        let text = json!(spans).to_string();
        assert!(!text.contains("Hello") && !text.contains("secret"), "{text}");
        let [root] = named(&spans, "chat assay-demo")[..] else { panic!("{text}") };
        let said = attributes(root);
        assert_eq!(said["assay.task_id"], task.to_string());
        assert_eq!(
            (said["assay.node_id"].as_str(), said["gen_ai.request.model"].as_str()),
            ("1", "assay-demo")
        );
        assert_eq!(
            (
                said["gen_ai.usage.input_tokens"].as_str(),
                said["gen_ai.usage.output_tokens"].as_str()
            ),
            ("7", "2")
        );
        for stage in ["admission", "signing", "offer", "first token", "generation", "end"] {
            let [span] = named(&spans, stage)[..] else { panic!("{stage}: {text}") };
            assert_eq!(span["traceId"], root["traceId"], "{stage}");
            assert_eq!(span["parentSpanId"], root["spanId"], "{stage}");
            let nano = |span: &Value, name: &str| -> u128 {
                span[name].as_str().unwrap().parse().unwrap()
            };
            assert!(nano(span, "startTimeUnixNano") >= nano(root, "startTimeUnixNano"), "{stage}");
            assert!(nano(span, "endTimeUnixNano") <= nano(root, "endTimeUnixNano"), "{stage}");
            // The task has its id from the signature on.
            let of_task = attributes(span).remove("assay.task_id");
            assert_eq!(of_task, (stage != "admission").then(|| task.to_string()), "{stage}");
        }
    }

    #[tokio::test]
    async fn a_failed_request_says_why_and_a_collector_that_is_away_stops_nobody() {
        let collector = Collector::start().await;
        let (settings, _data) = with_collector(collector.endpoint.clone());
        let mut world = World::with_config(settings, PrivateKeySigner::random()).await;
        world.open_session(&[1], u128::MAX).await;
        assert_eq!(world.ask(hello(false)).await.status(), 503);
        world.router.stop().await.unwrap();
        let spans = collector.spans().await;
        let [root] = named(&spans, "chat assay-demo")[..] else { panic!("{spans:?}") };
        assert_eq!(attributes(root)["error.type"], "no_miner");

        let (settings, _data) = with_collector("http://127.0.0.1:1".into());
        let mut world = World::with_config(settings, PrivateKeySigner::random()).await;
        world.open_session(&[1], u128::MAX).await;
        let mut miner = world.miner(1).await;
        let (response, _) = tokio::join!(world.ask(hello(false)), miner.serve(&["x"]));
        assert_eq!(response.status(), 200);
        world.router.stop().await.unwrap();
    }
}
