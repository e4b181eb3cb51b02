//! Daemons that answer with something else than what was asked for: nothing of it is believed.

use std::{
    convert::Infallible,
    future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use assay_store::{Bytes, ContentStore, KuboStore, MAX_BLOCK_BYTES, StoreError, cid_of, digest_of};
use axum::{
    Json, Router,
    body::Body,
    extract::RawQuery,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{MethodRouter, post},
};
use futures::stream;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

const BYTES: &[u8] = b"the true bytes";

/// A daemon with the given calls; ends when dropped.
struct Liar {
    addr: SocketAddr,
    _task: AbortOnDrop,
}

impl Liar {
    async fn start(routes: &[(&str, MethodRouter)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let router = routes.iter().fold(Router::new(), |router, (path, route)| {
            router.route(&format!("/api/v0{path}"), route.clone())
        });
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { addr, _task: AbortOnDrop(task) }
    }

    fn client(&self) -> KuboStore {
        KuboStore::new(&format!("http://{}", self.addr)).unwrap()
    }
}

fn says(answer: Value) -> MethodRouter {
    post(move || async move { Json(answer) })
}

fn refuses(message: &'static str) -> MethodRouter {
    post(move || async move {
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            Json(json!({ "Message": message, "Code": 0, "Type": "error" })),
        )
    })
}

/// An answer without end, which counts the chunks that were taken from it.
fn endless(status: StatusCode, taken: Arc<AtomicUsize>) -> MethodRouter {
    post(move || async move {
        let chunks = stream::repeat_with(move || {
            taken.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(Bytes::from_static(&[b' '; 16 << 10]))
        });
        (status, Body::from_stream(chunks)).into_response()
    })
}

/// One byte after the other, without end and without haste.
fn drips() -> MethodRouter {
    post(|| async {
        let mut pause = tokio::time::interval(Duration::from_millis(10));
        let bytes = stream::poll_fn(move |context| {
            pause.poll_tick(context).map(|_| Some(Ok::<_, Infallible>(Bytes::from_static(b" "))))
        });
        Body::from_stream(bytes)
    })
}

/// A daemon below HTTP: gives this answer to whatever comes, and closes the connection.
async fn raw(answer: &'static [u8]) -> (KuboStore, AbortOnDrop) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = KuboStore::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            // The end of a request without a body, or of the head of one: enough to answer.
            let mut read = 0;
            while !request[..read].windows(4).any(|end| end == b"\r\n\r\n") {
                let bytes = stream.read(&mut request[read..]).await.unwrap();
                assert!(bytes > 0, "the client left in the middle of its request");
                read += bytes;
            }
            stream.write_all(answer).await.unwrap();
        }
    });
    (client, AbortOnDrop(task))
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn hangs() -> MethodRouter {
    post(|| async { future::pending::<Response>().await })
}

fn key(bytes: &[u8]) -> String {
    cid_of(digest_of(bytes)).to_string()
}

#[tokio::test]
async fn other_bytes_are_refused() {
    for lie in [&b"other bytes"[..], b"the true byte", b"the true bytes ", b""] {
        let liar = Liar::start(&[("/block/get", post(move || async move { lie }))]).await;
        let error = liar.client().get(digest_of(BYTES)).await.unwrap_err();
        let StoreError::CidMismatch { asked, got } = &error else { panic!("{error:?}") };
        assert_eq!((asked, got), (&key(BYTES), &key(lie)));
        assert!(!error.is_retryable());
    }
    let honest = Liar::start(&[("/block/get", post(|| async { BYTES }))]).await;
    assert_eq!(honest.client().get(digest_of(BYTES)).await.unwrap(), BYTES);
}

#[tokio::test]
async fn another_cid_for_what_was_put_is_refused() {
    let dag_pb = cid::Cid::new_v1(0x70, *cid_of(digest_of(BYTES)).hash()).to_string();
    let truth = || says(json!({ "Pins": [key(BYTES)] }));
    for lie in [key(b"other"), dag_pb, "nonsense".into(), String::new()] {
        let liar = Liar::start(&[
            ("/block/put", says(json!({ "Key": lie, "Size": 14 }))),
            ("/pin/add", truth()),
        ])
        .await;
        let error = liar.client().put(Bytes::from_static(BYTES)).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::CidMismatch { asked, got } if *asked == key(BYTES) && *got == lie),
            "{error:?}"
        );
    }
    // It stored the block and pinned another, or none.
    let put = || says(json!({ "Key": key(BYTES), "Size": 14 }));
    let liar = Liar::start(&[
        ("/block/put", put()),
        ("/pin/add", says(json!({ "Pins": [key(b"other")] }))),
    ])
    .await;
    assert!(matches!(
        liar.client().put(Bytes::from_static(BYTES)).await,
        Err(StoreError::CidMismatch { .. })
    ));
    let liar =
        Liar::start(&[("/block/put", put()), ("/pin/add", says(json!({ "Pins": [] })))]).await;
    assert!(matches!(
        liar.client().put(Bytes::from_static(BYTES)).await,
        Err(StoreError::Daemon { .. })
    ));
    // The same CID in another base is the same block.
    let base58 =
        cid_of(digest_of(BYTES)).to_string_of_base(cid::multibase::Base::Base58Btc).unwrap();
    let honest = Liar::start(&[
        ("/block/put", says(json!({ "Key": base58, "Size": 14 }))),
        ("/pin/add", truth()),
    ])
    .await;
    assert_eq!(honest.client().put(Bytes::from_static(BYTES)).await.unwrap(), digest_of(BYTES));
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    for status in [StatusCode::OK, StatusCode::INTERNAL_SERVER_ERROR] {
        let taken = Arc::new(AtomicUsize::new(0));
        let endless = || endless(status, Arc::clone(&taken));
        let liar = Liar::start(&[
            ("/block/get", endless()),
            ("/block/put", endless()),
            ("/pin/ls", endless()),
            ("/version", endless()),
        ])
        .await;
        let client = liar.client();
        assert!(matches!(
            client.get(digest_of(BYTES)).await,
            Err(StoreError::TooLarge { limit: MAX_BLOCK_BYTES, .. })
        ));
        assert!(matches!(
            client.put(Bytes::from_static(BYTES)).await,
            Err(StoreError::TooLarge { .. })
        ));
        assert!(matches!(
            client.is_pinned(digest_of(BYTES)).await,
            Err(StoreError::TooLarge { .. })
        ));
        assert!(matches!(client.health().await, Err(StoreError::TooLarge { .. })));
        // 1 MiB and three times 64 KiB are 76 chunks; the rest is what the sockets hold.
        assert!(taken.load(Ordering::Relaxed) < 4096, "{taken:?} chunks of 16 KiB were taken");
    }
}

#[tokio::test]
async fn a_daemon_that_hangs_is_left() {
    fn stalls() -> MethodRouter {
        post(|| async { Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()) })
    }
    for route in [hangs, stalls, drips] {
        let calls = ["/block/get", "/block/put", "/pin/ls", "/version"];
        let liar = Liar::start(&calls.map(|call| (call, route()))).await;
        let client =
            KuboStore::with_timeout(&format!("http://{}", liar.addr), Duration::from_millis(100))
                .unwrap();
        let error = client.get(digest_of(BYTES)).await.unwrap_err();
        assert!(matches!(error, StoreError::Timeout { .. }) && error.is_retryable(), "{error:?}");
        assert!(matches!(
            client.put(Bytes::from_static(BYTES)).await,
            Err(StoreError::Timeout { .. })
        ));
        assert!(matches!(
            client.is_pinned(digest_of(BYTES)).await,
            Err(StoreError::Timeout { .. })
        ));
        assert!(matches!(client.health().await, Err(StoreError::Timeout { .. })));
    }
    // It takes the block and hangs over the pin: the block counts as not stored.
    let liar = Liar::start(&[
        ("/block/put", says(json!({ "Key": key(BYTES), "Size": BYTES.len() }))),
        ("/pin/add", hangs()),
    ])
    .await;
    let url = format!("http://{}", liar.addr);
    let client = KuboStore::with_timeout(&url, Duration::from_millis(100)).unwrap();
    let put = client.put(Bytes::from_static(BYTES)).await;
    assert!(matches!(put, Err(StoreError::Timeout { .. })), "{put:?}");
}

#[tokio::test]
async fn half_an_answer_is_none() {
    // Cut off before the length or the last chunk that it announced, in its head, before its head.
    for half in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\nthe true"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\nthe true\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\ne\r\nthe true",
        b"HTTP/1.1 200 OK\r\ncontent-len",
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nthe true bytes",
    ] {
        let (client, _daemon) = raw(half).await;
        let error = client.get(digest_of(BYTES)).await.unwrap_err();
        assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
        assert!(error.is_retryable());
        let error = client.health().await.unwrap_err();
        assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    }
    // Without a length the end of the connection ends the answer: only its hash shows what it is.
    let (client, _daemon) = raw(b"HTTP/1.1 200 OK\r\n\r\nthe true").await;
    let error = client.get(digest_of(BYTES)).await.unwrap_err();
    assert!(matches!(error, StoreError::CidMismatch { .. }), "{error:?}");
    let (client, _daemon) = raw(b"HTTP/1.1 200 OK\r\n\r\nthe true bytes").await;
    assert_eq!(client.get(digest_of(BYTES)).await.unwrap(), BYTES);
    // Bytes behind the announced length are not part of the answer.
    let (client, _daemon) =
        raw(b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\nthe true bytes and more").await;
    assert_eq!(client.get(digest_of(BYTES)).await.unwrap(), BYTES);
    // Nor is another address followed that it names instead of an answer.
    let (client, _daemon) =
        raw(b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n").await;
    let error = client.get(digest_of(BYTES)).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Daemon { message } if message.contains("307")),
        "{error:?}"
    );
}

#[tokio::test]
async fn another_size_is_refused() {
    for size in [0, 13, 15, u64::MAX] {
        let liar = Liar::start(&[
            ("/block/put", says(json!({ "Key": key(BYTES), "Size": size }))),
            ("/pin/add", says(json!({ "Pins": [key(BYTES)] }))),
        ])
        .await;
        let error = liar.client().put(Bytes::from_static(BYTES)).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Daemon { message } if message.contains("of the 14 of")),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn words_of_a_daemon_cannot_write_on_a_terminal() {
    let trick = "\u{1b}[2Jgone\r\n\u{9b}31mERROR another line";
    let liar = Liar::start(&[
        ("/block/get", refuses(trick)),
        ("/version", says(json!({ "Version": trick, "Commit": "", "Repo": "" }))),
        ("/block/put", says(json!({ "Key": trick, "Size": 14 }))),
    ])
    .await;
    let client = liar.client();
    for text in [
        client.get(digest_of(BYTES)).await.unwrap_err().to_string(),
        client.health().await.unwrap(),
        client.put(Bytes::from_static(BYTES)).await.unwrap_err().to_string(),
    ] {
        assert!(text.contains("gone") && !text.contains(char::is_control), "{text:?}");
    }
    // Nor fill a log.
    let long = Liar::start(&[(
        "/block/get",
        post(|| async { (StatusCode::INTERNAL_SERVER_ERROR, "x".repeat(60_000)) }),
    )])
    .await;
    let text = long.client().get(digest_of(BYTES)).await.unwrap_err().to_string();
    assert!(text.len() < 600, "{} characters", text.len());
}

#[tokio::test]
async fn errors_in_the_words_of_daemons() {
    // Kubo offline, Kubo whose search ended, js-ipfs.
    let missing = refuses("block was not found locally (offline): ipld: could not find bafk");
    let liar = Liar::start(&[("/block/get", missing)]).await;
    assert!(
        matches!(liar.client().get(digest_of(BYTES)).await, Err(StoreError::NotFound { cid }) if cid == key(BYTES))
    );
    let liar = Liar::start(&[("/block/get", refuses("context deadline exceeded"))]).await;
    assert!(matches!(liar.client().get(digest_of(BYTES)).await, Err(StoreError::Timeout { .. })));
    let liar = Liar::start(&[
        ("/block/get", refuses("disk on fire")),
        ("/pin/ls", refuses("path 'bafk' is not pinned")),
    ])
    .await;
    let error = liar.client().get(digest_of(BYTES)).await.unwrap_err();
    assert!(error.to_string().contains("disk on fire"), "{error}");
    assert!(!liar.client().is_pinned(digest_of(BYTES)).await.unwrap());
}

#[tokio::test]
async fn answers_that_are_no_answers() {
    let liar = Liar::start(&[
        ("/version", post(|| async { "<html>a gateway</html>" })),
        ("/block/put", says(json!({ "Key": 7 }))),
        ("/pin/ls", says(json!([]))),
        ("/block/get", post(|| async { (StatusCode::BAD_GATEWAY, "[".repeat(60_000)) })),
    ])
    .await;
    assert!(matches!(liar.client().get(digest_of(BYTES)).await, Err(StoreError::Daemon { .. })));
    assert!(matches!(liar.client().health().await, Err(StoreError::Daemon { .. })));
    assert!(matches!(
        liar.client().put(Bytes::from_static(BYTES)).await,
        Err(StoreError::Daemon { .. })
    ));
    assert!(matches!(
        liar.client().is_pinned(digest_of(BYTES)).await,
        Err(StoreError::Daemon { .. })
    ));
    // No such call at all: status 404 and no words of Kubo.
    let error = Liar::start(&[]).await.client().get(digest_of(BYTES)).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Daemon { message } if message.contains("404")),
        "{error:?}"
    );
    // A list of other pins is not a yes.
    let liar = Liar::start(&[(
        "/pin/ls",
        says(json!({ "Keys": { key(b"other"): { "Type": "recursive" } } })),
    )])
    .await;
    assert!(!liar.client().is_pinned(digest_of(BYTES)).await.unwrap());
}

/// js-ipfs does not know `cid-codec`, reads a block without `format` as dag-pb, and writes keys in base58.
#[tokio::test]
async fn the_kind_of_block_is_asked_for_as_every_daemon_knows_it() {
    let base58 =
        cid_of(digest_of(BYTES)).to_string_of_base(cid::multibase::Base::Base58Btc).unwrap();
    let pins = json!({ "Pins": [&base58] });
    let put = post(|RawQuery(query): RawQuery| async move {
        let query = query.unwrap_or_default();
        let asked = |option: &str| query.split('&').any(|one| one == option);
        let known = asked("format=raw") && asked("mhtype=sha2-256") && asked("pin=true");
        Json(
            json!({ "Key": if known { base58 } else { "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n".into() }, "Size": 14 }),
        )
    });
    let daemon = Liar::start(&[("/block/put", put), ("/pin/add", says(pins))]).await;
    assert_eq!(daemon.client().put(Bytes::from_static(BYTES)).await.unwrap(), digest_of(BYTES));
}
