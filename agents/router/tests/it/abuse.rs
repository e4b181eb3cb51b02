//! Clients that mean harm, or are broken: bounded, refused clearly, nothing leaked, nothing counted against a miner.

use std::time::Duration;

use alloy::signers::local::PrivateKeySigner;
use assay_router::config::{MAX_BODY_BYTES, MAX_REQUESTS, Patience, SOCKET_FRAMES};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::tempdir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message as Ws, protocol::frame::coding::CloseCode},
};

use crate::world::{MODEL, PATIENCE, World, config, hello};

/// Long enough for a busy machine to send a request, short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);

async fn impatient(data: &std::path::Path, patience: Patience) -> World {
    let mut settings = config(data);
    settings.patience = patience;
    World::with_config(settings, PrivateKeySigner::random()).await
}

/// Everything that the router sends until it closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    // One that is cut off says nothing more.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut seen)).await.unwrap();
    String::from_utf8_lossy(&seen).into_owned()
}

/// A good request as its bytes.
fn raw(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn bodies_that_no_client_would_send_are_refused() {
    let data = tempdir().unwrap();
    let world = World::bare(data.path(), PrivateKeySigner::random()).await;
    let nested = |depth: usize| {
        let list = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        format!("{{\"model\": \"{MODEL}\", \"messages\": {list}}}").into_bytes()
    };
    let many = format!("{{\"model\": \"{MODEL}\", \"messages\": [{}0]}}", "0,".repeat(400_000));
    let mut keys = hello(false);
    for i in 0..20_000 {
        keys[format!("key{i}")] = json!(i);
    }
    let long = json!({
        "model": MODEL, "messages": [{"role": "user", "content": "x".repeat(MAX_BODY_BYTES - 90_000)}],
    });
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"] {
        let cases: [(&str, Vec<u8>, &[u16]); 9] = [
            ("nested", nested(100_000), &[400]),
            ("nested a little", nested(20), &[400]),
            ("many", many.clone().into_bytes(), &[400]),
            ("many keys", keys.to_string().into_bytes(), &[400]),
            ("invalid UTF-8", b"{\"model\": \"\xff\xfe\"}".to_vec(), &[400]),
            ("half a surrogate", br#"{"model": "\ud800"}"#.to_vec(), &[400]),
            ("a large number", br#"{"model": 1e999}"#.to_vec(), &[400]),
            ("nothing", Vec::new(), &[400]),
            // Well-formed: there is no session for it.
            ("long", long.to_string().into_bytes(), &[400, 503]),
        ];
        for (what, body, statuses) in cases {
            let response = world.http.post(world.url(path)).body(body).send().await.unwrap();
            let status = response.status().as_u16();
            assert!(statuses.contains(&status), "{path}, {what}: {status}");
            let body: Value = response.json().await.unwrap();
            let message = body["error"]["message"].as_str().unwrap();
            assert!(message.len() < 1000, "{path}, {what}: an error of {} bytes", message.len());
            assert!(body["error"]["code"].is_string(), "{path}, {what}");
        }
    }
    // A length that is too large is refused before the body is sent.
    let mut stream = TcpStream::connect(world.address()).await.unwrap();
    let head = format!(
        "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        1_u64 << 40
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn bombs_of_headers_are_refused() {
    let data = tempdir().unwrap();
    let world = World::bare(data.path(), PrivateKeySigner::random()).await;
    let many = (0..1000).map(|i| format!("x-{i}: y\r\n")).collect::<String>();
    let long = format!("x: {}\r\n", "y".repeat(200_000));
    for headers in [many, long] {
        let mut stream = TcpStream::connect(world.address()).await.unwrap();
        let head = format!("GET /v1/models HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        // The router may close before it has read everything.
        let _ = stream.write_all(head.as_bytes()).await;
        let answer = rest(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    // What is no HTTP at all.
    let mut stream = TcpStream::connect(world.address()).await.unwrap();
    stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 400"));
    assert_eq!(world.http.get(world.url("/health")).send().await.unwrap().status(), 200);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn clients_that_dawdle_lose_their_connection() {
    let data = tempdir().unwrap();
    let patience = Patience { head: SHORT, body: SHORT, ..Patience::default() };
    let world = impatient(data.path(), patience).await;
    let slow_head = async {
        let mut stream = TcpStream::connect(world.address()).await.unwrap();
        stream.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nhost: loc").await.unwrap();
        rest(&mut stream).await
    };
    let idle = async {
        let mut stream = TcpStream::connect(world.address()).await.unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        rest(&mut stream).await
    };
    let slow_body = async {
        let mut stream = TcpStream::connect(world.address()).await.unwrap();
        let request = raw("/v1/chat/completions", &hello(false).to_string());
        stream.write_all(&request.as_bytes()[..request.len() - 5]).await.unwrap();
        rest(&mut stream).await
    };
    let (head, idle, body) = tokio::join!(slow_head, idle, slow_body);
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 408"), "{head}");
    assert!(idle.starts_with("HTTP/1.1 200"), "{idle}");
    assert!(body.starts_with("HTTP/1.1 408") && body.contains("body_timeout"), "{body}");
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn aborted_uploads_give_their_places_back() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    let request = raw("/v1/chat/completions", &hello(false).to_string());
    let half = &request.as_bytes()[..request.len() - 5];
    let mut streams = Vec::new();
    for _ in 0..MAX_REQUESTS {
        let mut stream = TcpStream::connect(world.address()).await.unwrap();
        stream.write_all(half).await.unwrap();
        streams.push(stream);
    }
    // All places are taken by bodies that do not come.
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let response =
            world.http.post(world.url("/v1/embeddings")).body("{}").send().await.unwrap();
        if response.status() == 429 {
            assert!(response.headers().contains_key("retry-after"));
            break;
        }
        assert!(tokio::time::Instant::now() < until, "never full");
    }
    drop(streams);
    loop {
        let response =
            world.http.post(world.url("/v1/embeddings")).body("{}").send().await.unwrap();
        if response.status() == 404 {
            break;
        }
        assert!(tokio::time::Instant::now() < until, "the places are not given back");
    }
    let (response, _) = tokio::join!(world.ask(hello(false)), miner.serve(&["ok"]));
    assert_eq!(response.status(), 200);
    assert!(world.chain.submitted.lock().unwrap().len() <= 1, "a half request became a task");
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_client_that_hangs_up_costs_its_miner_nothing() {
    let data = tempdir().unwrap();
    let world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    for path in ["/v1/chat/completions", "/v1/messages"] {
        let mut body = hello(true);
        body["max_tokens"] = json!(9);
        let mut stream = TcpStream::connect(world.address()).await.unwrap();
        stream.write_all(raw(path, &body.to_string()).as_bytes()).await.unwrap();
        let (task, _) = miner.offer().await;
        miner.accept(task).await;
        miner.token(task, 0, "x").await;
        let mut seen = [0; 15];
        stream.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"HTTP/1.1 200 OK");
        drop(stream);
        assert_eq!(miner.cancelled().await.0, task);
        let shown = world.task_until(&task.to_string(), |t| t["answer"] == "cancelled").await;
        assert_eq!(shown["error"]["code"], "client_gone");
        // The miner is still asked, and the router did not close its connection.
        miner
            .send(assay_types::link::FromMiner::Error {
                task: Some(task),
                code: "cancelled".into(),
                message: String::new(),
            })
            .await;
    }
    let (response, _) = tokio::join!(world.ask(hello(false)), miner.serve(&["ok"]));
    assert_eq!(response.status(), 200);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn floods_and_silence_end_a_websocket() {
    let data = tempdir().unwrap();
    let patience = Patience { socket: SHORT, ..Patience::default() };
    let world = impatient(data.path(), patience).await;
    let url = format!("ws://{}/v1/responses", world.address());
    let closed = async |mut socket: tokio_tungstenite::WebSocketStream<_>| loop {
        match tokio::time::timeout(PATIENCE, socket.next()).await.unwrap() {
            Some(Ok(Ws::Close(frame))) => break frame.map(|frame| frame.code),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => break None,
        }
    };
    let (mut flood, _) = connect_async(&url).await.unwrap();
    for _ in 0..=SOCKET_FRAMES {
        let _ = flood.send(Ws::Ping(Default::default())).await;
    }
    assert_eq!(closed(flood).await, Some(CloseCode::Policy));
    let (silent, _) = connect_async(&url).await.unwrap();
    assert_eq!(closed(silent).await, Some(CloseCode::Away));
    let (mut binary, _) = connect_async(&url).await.unwrap();
    binary.send(Ws::binary(vec![0; 9])).await.unwrap();
    assert_eq!(closed(binary).await, Some(CloseCode::Unsupported));
    // Larger than any request: the connection ends before it is in memory.
    let (mut large, _) = connect_async(&url).await.unwrap();
    let _ = large.send(Ws::text(" ".repeat(2 * MAX_BODY_BYTES))).await;
    closed(large).await;
    world.router.stop().await.unwrap();
}
