//! Addresses, trees of files, and requests to the embedded content store.

use std::{
    collections::HashMap,
    panic,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use assay_fuzz::Target;
use assay_store::{
    Bytes, Cid, ContentStore, DEFAULT_LIMIT_BYTES, MAX_BLOCK_BYTES, StoreError, StoreServer,
    StoreServerConfig, cid_of, content_cid, digest_from_cid, digest_of, get_content, parse_cid,
    put_content,
};
use assay_types::B256;
use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{FEW, MANY};

/// The codec of nodes of files.
const DAG_PB: u64 = 0x70;
/// A request whose end does not come is given up, and its connection cut.
const CUT_AFTER: Duration = Duration::from_millis(100);
/// What a server on a busy machine gets for a sound request.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn fuzz_cids() {
    let small = content_cid(b"hello world").to_string();
    let large = content_cid(&vec![0; MAX_BLOCK_BYTES + 1]).to_string();
    let inputs = [small.clone(), format!("/ipfs/{small}"), large].map(String::into_bytes);
    Target::new("cids", inputs.into(), MANY)
        .run(|input| {
            let Ok(text) = std::str::from_utf8(input) else { return };
            if let Ok(cid) = parse_cid(text) {
                assert_eq!(parse_cid(&cid.to_string()).unwrap(), cid);
                let _ = digest_from_cid(&cid);
            }
        })
        .unwrap();
}

/// Whoever publishes a file chooses its root: the store has one for every digest.
#[derive(Default)]
struct Blocks {
    known: Mutex<HashMap<B256, Bytes>>,
    root: Mutex<Option<(B256, Bytes)>>,
}

#[async_trait]
impl ContentStore for Blocks {
    async fn put(&self, bytes: Bytes) -> Result<B256, StoreError> {
        let digest = digest_of(&bytes);
        self.known.lock().unwrap().insert(digest, bytes);
        Ok(digest)
    }

    async fn get(&self, digest: B256) -> Result<Bytes, StoreError> {
        let root = self.root.lock().unwrap().clone().filter(|(named, _)| *named == digest);
        let known = self.known.lock().unwrap().get(&digest).cloned();
        let found = root.map(|(_, bytes)| bytes).or(known);
        found.ok_or_else(|| StoreError::NotFound { cid: cid_of(digest).to_string() })
    }

    async fn is_pinned(&self, _: B256) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn health(&self) -> Result<String, StoreError> {
        Ok("blocks".into())
    }
}

#[test]
fn fuzz_files() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = Blocks::default();
    let content = Bytes::from(vec![7; MAX_BLOCK_BYTES + 1]);
    let cid = runtime.block_on(put_content(&store, content.clone())).unwrap();
    let root = digest_of_node(&cid);
    let node = store.known.lock().unwrap()[&root].to_vec();
    let limit = 4 * MAX_BLOCK_BYTES;
    Target::new("files", vec![node], MANY / 4)
        .run(|input| {
            let digest = digest_of(input);
            *store.root.lock().unwrap() = Some((digest, Bytes::copy_from_slice(input)));
            let cid = Cid::new_v1(DAG_PB, *cid_of(digest).hash());
            if let Ok(read) = runtime.block_on(get_content(&store, &cid, limit)) {
                assert_eq!(content_cid(&read), cid, "another content than its address says");
            }
        })
        .unwrap();
}

fn digest_of_node(cid: &Cid) -> B256 {
    B256::from_slice(cid.hash().digest())
}

fn request(path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST /api/v0/{path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Sends bytes as they are, and reads what comes until the server has nothing more to say, or waits for more.
async fn talk(address: &str, bytes: &[u8], patience: Duration) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).await.unwrap();
    // Who refuses a request need not read all of it.
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(patience, socket.read_to_end(&mut answer)).await;
    answer
}

#[test]
fn fuzz_requests_to_the_store() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = StoreServerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        folder: folder.path().join("store"),
        limit_bytes: DEFAULT_LIMIT_BYTES,
    };
    let server = runtime.block_on(StoreServer::start(config)).unwrap();
    let address = server.url().replace("http://", "");
    let cid = content_cid(b"hello world");
    let form = "--b\r\ncontent-disposition: form-data; name=\"data\"; filename=\"blob\"\r\n\
                content-type: application/octet-stream\r\n\r\nhello world\r\n--b--\r\n";
    let kind = "content-type: multipart/form-data; boundary=b\r\n";
    let put = request("block/put?cid-codec=raw&mhtype=sha2-256&mhlen=32&pin=true", kind, form);
    let inputs = vec![
        put.clone(),
        request(&format!("cat?arg={cid}&offset=1&length=4"), "", ""),
        request(&format!("pin/ls?arg=/ipfs/{cid}&type=recursive"), "", ""),
        format!("GET /ipfs/{cid} HTTP/1.1\r\nhost: 127.0.0.1\r\nrange: bytes=1-4\r\nconnection: close\r\n\r\n").into_bytes(),
    ];
    // A handler that panics takes only its connection with it: it has to be heard.
    let panics = Arc::new(AtomicUsize::new(0));
    let (heard, told) = (Arc::clone(&panics), panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        heard.fetch_add(1, Ordering::Relaxed);
        told(info);
    }));
    Target::new("requests-to-the-store", inputs, FEW * 2)
        .run(|input| {
            let before = panics.load(Ordering::Relaxed);
            runtime.block_on(talk(&address, input, CUT_AFTER));
            assert_eq!(panics.load(Ordering::Relaxed), before, "a handler panicked");
        })
        .unwrap();
    let answer = runtime.block_on(talk(&address, &put, PATIENCE));
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    runtime.block_on(server.stop());
}
