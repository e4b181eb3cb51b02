//! The client against routers that the tests make up, good ones and bad ones. The real one, with its network, is asked in
//! `tests/e2e`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use assay_client::{ClientError, Network, Piece, Question, Router, SignedRequest, Usage};
use assay_types::{
    B256, Bytes, Prompt, Signature, TaskId, TaskRequest, TokenLogprob, TokenLogprobs, TokenName,
    link::SignedCancellation,
};
use axum::{
    Json,
    body::Body,
    extract::State,
    http::{Response, StatusCode},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What a made-up router answers, and what it was asked.
#[derive(Clone)]
struct Script {
    status: u16,
    body: &'static str,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

struct Fake {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Fake {
    async fn start(status: u16, body: &'static str) -> Self {
        let asked = Arc::<Mutex<Vec<_>>>::default();
        let script = Script { status, body, asked: asked.clone() };
        let take = |path: &'static str| {
            post(move |State(script): State<Script>, Json(body): Json<Value>| async move {
                script.asked.lock().unwrap().push((path.to_owned(), body));
                Response::builder()
                    .status(StatusCode::from_u16(script.status).unwrap())
                    .header("x-assay-task", TaskId(B256::repeat_byte(5)).to_string())
                    .body(Body::from(script.body))
                    .unwrap()
            })
        };
        let models = get(|| async { Json(json!({"object": "list", "data": [{"id": "one"}]})) });
        let routes = axum::Router::new()
            .route("/v1/models", models)
            .route("/v1/chat/completions", take("chat"))
            .route("/v1/requests", take("requests"))
            .route("/v1/requests/{task}/cancel", take("cancel"))
            .with_state(script);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { address, asked, serving }
    }

    fn router(&self) -> Router {
        Router::new(&format!("http://{}/", self.address), None).unwrap()
    }
}

const WHOLE: &str = r#"data: {"choices":[{"delta":{"role":"assistant","content":""}}]}

data: {"choices":[{"delta":{"content":"one "}}]}

data: {"choices":[{"delta":{"content":"two"}}]}

data: {"choices":[{"delta":{},"finish_reason":"stop"}]}

data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}

data: [DONE]

"#;

#[tokio::test]
async fn an_answer_is_read_piece_by_piece() {
    let fake = Fake::start(200, WHOLE).await;
    let router = fake.router();
    assert_eq!(router.models().await.unwrap()[0].id, "one");
    let mut stream = router.ask("one", &Question::new("hello")).await.unwrap();
    assert_eq!(stream.task(), Some(TaskId(B256::repeat_byte(5))));
    let piece = Piece { text: "one ".into(), logprobs: vec![] };
    assert_eq!(stream.next().await.unwrap(), Some(piece));
    let answer = stream.finish().await.unwrap();
    assert_eq!(answer.text, "one two");
    assert_eq!(answer.usage, Some(Usage { prompt_tokens: 7, completion_tokens: 3 }));
    let (_, body) = fake.asked.lock().unwrap().remove(0);
    assert_eq!(body["messages"][0]["content"], "hello");
    assert_eq!((&body["temperature"], &body["max_tokens"]), (&json!(0.0), &json!(128)));
    assert!(body.get("logprobs").is_none() && answer.logprobs.is_empty());
}

/// An answer of three tokens, the last of which is its end.
const STATED: &str = r#"data: {"choices":[{"delta":{"role":"assistant","content":""},"logprobs":null}]}

data: {"choices":[{"delta":{"content":"€"},"logprobs":{"content":[{"token":"\\xe2","logprob":-0.5,"bytes":[226],"top_logprobs":[{"token":"a","logprob":-0.25,"bytes":[97]}]},{"token":"\\x82\\xac","logprob":0.0,"bytes":[130,172],"top_logprobs":[{"token":"\\x82\\xac","logprob":0.0,"bytes":[130,172]}]}],"refusal":null}}]}

data: {"choices":[{"delta":{},"logprobs":{"content":[{"token":"<end>","logprob":-1.609438,"bytes":null,"top_logprobs":[{"token":"b","logprob":-1.5,"bytes":[98]}]}],"refusal":null},"finish_reason":"stop"}]}

data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}

data: [DONE]

"#;

fn stated() -> Vec<TokenLogprobs> {
    let one = |token, logprob_micronats| TokenLogprob { token, logprob_micronats };
    let text = |text: &str| TokenName::Text(text.into());
    let bytes = |bytes: &[u8]| TokenName::Bytes(bytes.to_vec().into());
    let end = TokenName::Special("<end>".into());
    let rest = || one(bytes(&[0x82, 0xAC]), 0);
    let first = one(bytes(&[0xE2]), -500_000);
    vec![
        TokenLogprobs { chosen: first, top: vec![one(text("a"), -250_000)] },
        TokenLogprobs { chosen: rest(), top: vec![rest()] },
        TokenLogprobs { chosen: one(end, -1_609_438), top: vec![one(text("b"), -1_500_000)] },
    ]
}

fn wish(top: u32) -> Question {
    Question { top_logprobs: Some(top), ..Question::new("hello") }
}

#[tokio::test]
async fn log_probabilities_come_with_the_text_of_their_tokens() {
    let fake = Fake::start(200, STATED).await;
    let router = fake.router();
    let mut stream = router.ask("one", &wish(1)).await.unwrap();
    let euro = Piece { text: "€".into(), logprobs: stated()[..2].to_vec() };
    assert_eq!(stream.next().await.unwrap(), Some(euro));
    let end = Piece { text: String::new(), logprobs: stated()[2..].to_vec() };
    assert_eq!(stream.next().await.unwrap(), Some(end));
    assert_eq!(stream.next().await.unwrap(), None);
    let answer = stream.finish().await.unwrap();
    assert_eq!((answer.text.as_str(), answer.logprobs), ("€", stated()));
    let (_, body) = fake.asked.lock().unwrap().remove(0);
    assert_eq!((&body["logprobs"], &body["top_logprobs"]), (&json!(true), &json!(1)));

    let answer = router.carry("one", &signed(&wish(1))).await.unwrap().finish().await.unwrap();
    assert_eq!(answer.logprobs, stated());
    let (path, body) = fake.asked.lock().unwrap().remove(0);
    assert_eq!((path.as_str(), body.get("logprobs")), ("requests", None));
    assert!(body["block"].as_str().unwrap().contains("\"top_logprobs\":1"), "{body}");

    let unasked = router.ask("one", &Question::new("hello")).await.unwrap().finish().await.unwrap();
    assert_eq!((unasked.text.as_str(), unasked.logprobs), ("€", vec![]));
}

#[tokio::test]
async fn log_probabilities_that_lack_or_cannot_be_are_an_error() {
    let short = Question { max_output: 2, ..wish(1) };
    for (body, question, what) in [
        (WHOLE, wish(1), "0 positions in an answer of 3 tokens"),
        (STATED, wish(2), "1 alternatives"),
        (STATED, short, "3 positions, where 2 tokens"),
    ] {
        let fake = Fake::start(200, body).await;
        let stream = fake.router().ask("one", &question).await.unwrap();
        let failed = stream.finish().await.unwrap_err();
        assert!(matches!(&failed, ClientError::BadLogprobs(_)), "{failed}");
        assert!(failed.to_string().contains(what), "{failed}");
    }
    let fake = Fake::start(200, WHOLE).await;
    let mut stream = fake.router().ask("one", &wish(1)).await.unwrap();
    while let Ok(Some(_)) = stream.next().await {}
    let failed = stream.finish().await.unwrap_err();
    assert!(matches!(failed, ClientError::BrokenOff(_)), "what failed is not whole: {failed}");

    let text = Question { prompt: Prompt::Text("Once".into()), ..wish(1) };
    let failed = fake.router().ask("one", &text).await.err().unwrap();
    assert!(matches!(&failed, ClientError::NoLogprobs(_)), "{failed}");
    assert_eq!(fake.asked.lock().unwrap().len(), 1, "nothing was sent");
}

#[tokio::test]
async fn what_is_not_whole_is_no_answer() {
    let cut = "data: {\"choices\":[{\"delta\":{\"content\":\"one \"}}]}\n\n";
    let error = "data: {\"error\":{\"message\":\"the node left\",\"code\":\"node_gone\"}}\n\n";
    for (body, is_expected) in [
        (cut, (|e| matches!(e, ClientError::BrokenOff(_))) as fn(&ClientError) -> bool),
        ("", |e| matches!(e, ClientError::BrokenOff(_))),
        ("data: nonsense\n\n", |e| matches!(e, ClientError::Garbled(_))),
        (
            error,
            |e| matches!(e, ClientError::Router { status: None, code: Some(code), .. } if code == "node_gone"),
        ),
    ] {
        let fake = Fake::start(200, body).await;
        let stream = fake.router().ask("one", &Question::new("hello")).await.unwrap();
        let failed = stream.finish().await.unwrap_err();
        assert!(is_expected(&failed), "{body:?}: {failed}");
    }
}

#[tokio::test]
async fn a_refusal_comes_back_in_the_routers_words() {
    let body =
        r#"{"error":{"message":"too much: wait","type":"x","param":null,"code":"overloaded"}}"#;
    let fake = Fake::start(429, body).await;
    let failed = fake.router().ask("one", &Question::new("hello")).await.err().unwrap();
    assert_eq!(failed.to_string(), "too much: wait (overloaded)");
    let fake = Fake::start(500, "a proxy's page").await;
    let failed = fake.router().ask("one", &Question::new("hello")).await.err().unwrap();
    assert!(failed.to_string().contains("a proxy's page"), "{failed}");
    let nobody = Router::new("http://127.0.0.1:1", None).unwrap();
    let failed = nobody.models().await.unwrap_err();
    assert!(matches!(failed, ClientError::NoRouter { .. }), "{failed}");
}

fn signed(question: &Question) -> SignedRequest {
    let (block, digest) = question.block().unwrap().encode().unwrap();
    let request = TaskRequest {
        sessionId: 3,
        lane: 1,
        nonce: 9,
        requestDigest: digest,
        ..TaskRequest::default()
    };
    let signature = Signature::test_signature();
    SignedRequest { task: TaskId(B256::ZERO), request, signature, block: block.into() }
}

#[tokio::test]
async fn a_signed_request_is_sent_as_it_stands() {
    let fake = Fake::start(200, WHOLE).await;
    let signed = signed(&Question::new("hello"));
    let answer = fake.router().carry("one", &signed).await.unwrap().finish().await.unwrap();
    assert_eq!(answer.text, "one two");
    let (path, body) = fake.asked.lock().unwrap().remove(0);
    let block = String::from_utf8(signed.block.to_vec()).unwrap();
    assert_eq!((path.as_str(), &body["block"]), ("requests", &json!(block)));
    assert_eq!((&body["request"]["nonce"], &body["request"]["feeCap"]), (&json!(9), &json!("0")));
    assert_eq!(body["signature"].as_str().unwrap().len(), 2 + 130);
}

#[tokio::test]
async fn the_holders_word_is_sent_to_the_router_that_carries_the_task() {
    let fake = Fake::start(202, "{}").await;
    let word = SignedCancellation { tokens: 12, signature: Signature::test_signature() };
    fake.router().cancel(TaskId(B256::repeat_byte(5)), &word).await.unwrap();
    let (path, body) = fake.asked.lock().unwrap().remove(0);
    assert_eq!((path.as_str(), &body["tokens"]), ("cancel", &json!(12)));
    let signature: Bytes = body["signature"].as_str().unwrap().parse().unwrap();
    assert_eq!(Signature::from_raw(&signature).unwrap(), word.signature);

    let refusal = r#"{"error":{"message":"it is over","code":"task_not_found"}}"#;
    let fake = Fake::start(404, refusal).await;
    let failed = fake.router().cancel(TaskId(B256::repeat_byte(5)), &word).await.unwrap_err();
    assert!(
        matches!(&failed, ClientError::Router { status: Some(404), code: Some(code), .. } if code == "task_not_found"),
        "{failed}"
    );
}

#[test]
fn a_folder_without_a_network_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Network::load(folder.path()).unwrap_err();
    assert!(missing.to_string().contains("assay up"), "{missing}");
    std::fs::write(folder.path().join("network.json"), "{}").unwrap();
    let broken = Network::load(folder.path()).unwrap_err();
    assert!(matches!(broken, ClientError::BadNetwork { .. }), "{broken}");
}
