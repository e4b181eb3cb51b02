//! Several endpoints of one chain.

use std::cell::RefCell;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use alloy::providers::{Provider, ProviderBuilder};
use alloy::rpc::types::TransactionRequest;
use assay_chain::{Chain, ChainError};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::proxy::{Act, Call, Proxy};
use crate::world::{Follower, World, nonces, succeeded};

struct Pair {
    world: World,
    first: Proxy,
    second: Proxy,
}

impl Pair {
    async fn new() -> Self {
        let world = World::new(true).await;
        let first = Proxy::start(world.node.http_url()).await;
        let second = Proxy::start(world.node.http_url()).await;
        Self { world, first, second }
    }

    fn urls(&self) -> String {
        format!("{}, {}", self.first.url, self.second.url)
    }

    async fn connect(&self) -> Result<Chain, ChainError> {
        Chain::connect(&self.urls(), self.world.deployment.clone()).await
    }
}

/// A rule that answers with another chain's id.
fn foreign(call: &Call) -> Act {
    match call.method.as_str() {
        "eth_chainId" => Act::Answer(json!("0xa")),
        _ => Act::Forward,
    }
}

#[tokio::test]
async fn the_first_of_the_list_is_asked_while_it_is_sound() {
    let pair = Pair::new().await;
    let chain = pair.connect().await.unwrap();
    let (first, second) = (pair.first.total(), pair.second.total());
    for _ in 0..10 {
        chain.provider.get_block_number().await.unwrap();
    }
    assert_eq!((pair.first.total(), pair.second.total()), (first + 10, second));
}

#[tokio::test]
async fn whatever_is_wrong_with_the_first_the_second_answers_and_keeps_answering() {
    let troubles: [fn() -> Act; 6] = [
        || Act::Drop,
        || Act::Status(429, "slow down"),
        || Act::Status(503, "<html>maintenance</html>"),
        || Act::Status(200, "no json"),
        || Act::Refuse("daily request count exceeded, request rate limited"),
        || Act::Hang,
    ];
    for trouble in troubles {
        let pair = Pair::new().await;
        let chain = pair.connect().await.unwrap();
        pair.first.set(move |_| trouble());
        for _ in 0..5 {
            chain.provider.get_block_number().await.unwrap();
        }
        // It is left alone, not asked each time.
        assert!(pair.first.total() < 5, "{}", pair.first.total());
        assert!(pair.second.count("eth_blockNumber") >= 5);
    }
}

#[tokio::test]
async fn an_endpoint_that_is_down_at_the_start_does_not_prevent_it() {
    let world = World::new(true).await;
    let down = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for scheme in ["http", "ws"] {
        let urls = format!("{scheme}://{down}/v2/secret-key,{}", world.node.http_url());
        let chain = world.chain_at(&urls).await;
        assert!(chain.provider.get_block_number().await.is_ok());
        let start = world.head().await + 1;
        let name = format!("{scheme}.db");
        let mut follower = Follower::start(chain, world.database(&name), start);
        world.emit_block(3).await;
        assert_eq!(nonces(&follower.committed().await), [3]);
    }
    // All of them down: each is named, and no key.
    let urls = format!("http://{down}/v2/secret-key,ws://{down}/v2/secret-key");
    let error = Chain::connect(&urls, world.deployment.clone()).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(matches!(error, ChainError::Unreachable { .. }) && !text.contains("secret"), "{text}");
    assert!(text.contains(&format!("http://{down}")) && text.contains(&format!("ws://{down}")));
}

#[tokio::test]
async fn an_endpoint_of_another_chain_is_never_asked_for_anything_else() {
    let pair = Pair::new().await;
    pair.first.set(foreign);
    let chain = pair.connect().await.unwrap();
    let outbox_key = alloy::signers::local::PrivateKeySigner::random();
    pair.world.fund(outbox_key.address()).await;
    let db = pair.world.database("a");
    let outbox = assay_chain::Outbox::new(chain, outbox_key, db).await.unwrap();
    assert!(succeeded(&outbox.send(pair.world.emit(1)).await.unwrap()));
    assert_eq!(pair.first.total(), pair.first.count("eth_chainId"));
    // None of them of the right chain is an error that says so.
    pair.second.set(foreign);
    let error = pair.connect().await.unwrap_err();
    assert!(matches!(error, ChainError::WrongChain { expected: 31337, got: 10, .. }), "{error}");
}

/// A wallet of the command line, say.
#[tokio::test]
async fn providers_of_others_share_the_endpoints() {
    let pair = Pair::new().await;
    let chain = pair.connect().await.unwrap();
    let signer = alloy::signers::local::PrivateKeySigner::random();
    pair.world.fund(signer.address()).await;
    let wallet = ProviderBuilder::new().wallet(signer).connect_client(chain.client());
    pair.first.set(|_| Act::Drop);
    let intent = pair.world.emit(1);
    let request = TransactionRequest::default().to(intent.to).input(intent.data.into());
    let sent = wallet.send_transaction(request).await.unwrap();
    assert!(succeeded(&sent.get_receipt().await.unwrap()));
}

#[tokio::test]
async fn an_endpoint_that_comes_back_as_another_chain_is_left_alone() {
    let pair = Pair::new().await;
    let chain = pair.connect().await.unwrap();
    pair.first.set(|_| Act::Drop);
    chain.provider.get_block_number().await.unwrap();
    // Behind its address is another node now; nothing but its chain is asked for before it is used.
    pair.first.set(foreign);
    while pair.first.total() == 0 {
        chain.provider.get_block_number().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    for _ in 0..5 {
        chain.provider.get_block_number().await.unwrap();
    }
    assert_eq!((pair.first.total(), pair.first.count("eth_chainId")), (1, 1));
}

#[tokio::test]
async fn one_endpoint_that_limits_the_rate_is_asked_more_slowly_and_answers_in_the_end() {
    let world = World::new(true).await;
    let proxy = Proxy::start(world.node.http_url()).await;
    let chain = world.chain_at(&proxy.url).await;
    // Every second call is refused, by status or by error.
    let mut calls = 0;
    proxy.set(move |_| {
        calls += 1;
        match calls % 4 {
            1 => Act::Status(429, ""),
            3 => Act::Refuse("too many requests"),
            _ => Act::Forward,
        }
    });
    for _ in 0..5 {
        chain.provider.get_block_number().await.unwrap();
    }
    assert_eq!(proxy.total(), 10);
}

#[tokio::test]
async fn an_endpoint_that_lags_is_left_for_one_that_does_not() {
    let pair = Pair::new().await;
    let start = pair.world.head().await + 1;
    let old: Value = pair.world.rpc("eth_getBlockByNumber", ("latest", false)).await;
    let number = old["number"].clone();
    pair.first.set(move |call| match (call.method.as_str(), &call.params[0]) {
        ("eth_getBlockByNumber", at) if at == "latest" => Act::Answer(old.clone()),
        ("eth_blockNumber", _) => Act::Answer(number.clone()),
        _ => Act::Forward,
    });
    let _: Value = pair.world.rpc("evm_increaseTime", (60,)).await;
    pair.world.emit_block(1).await;
    let chain = pair.connect().await.unwrap();
    let mut follower = Follower::start(chain, pair.world.database("a"), start);
    assert_eq!(nonces(&follower.committed().await), [1]);
    // Once it has caught up it is the first again.
    pair.first.set(|_| Act::Forward);
    while pair.first.count("eth_getLogs") == 0 {
        pair.world.emit_block(2).await;
        assert_eq!(nonces(&follower.committed().await), [2]);
    }
}

/// Passes bytes on until it is cut.
struct Wire {
    address: std::net::SocketAddr,
    target: String,
    connections: JoinSet<()>,
}

impl Wire {
    async fn lay(target: &str) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let target = target.split_once("://").unwrap().1.to_string();
        let mut wire = Self { address, target, connections: JoinSet::new() };
        wire.mend().await;
        wire
    }

    async fn mend(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let target = self.target.clone();
        self.connections.spawn(async move {
            let mut passing = JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let target = target.clone();
                passing.spawn(async move {
                    let mut far = TcpStream::connect(target).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
    }

    /// Ends every connection and takes no new one.
    async fn cut(&mut self) {
        self.connections.shutdown().await;
    }
}

#[tokio::test]
async fn a_socket_that_breaks_is_made_anew_and_another_endpoint_serves_meanwhile() {
    let world = World::new(true).await;
    let mut wire = Wire::lay(&world.node.ws_url()).await;
    let socket = format!("ws://{}", wire.address);
    let start = world.head().await + 1;
    // Alone, and with a second endpoint.
    for (name, urls) in
        [("a", socket.clone()), ("b", format!("{socket},{}", world.node.http_url()))]
    {
        let chain = world.chain_at(&urls).await;
        let mut follower =
            Follower::start(chain.clone(), world.database(name), world.head().await + 1);
        for nonce in 0..3 {
            world.emit_block(nonce).await;
            assert_eq!(nonces(&follower.committed().await), [nonce]);
            wire.cut().await;
            assert_eq!(chain.provider.get_block_number().await.is_ok(), name == "b");
            world.emit_block(10 + nonce).await;
            if name == "b" {
                assert_eq!(nonces(&follower.committed().await), [10 + nonce]);
            }
            wire.mend().await;
            if name == "a" {
                assert_eq!(nonces(&follower.committed().await), [10 + nonce]);
            }
        }
    }
    assert!(world.head().await > start);
}

/// A WebSocket node that knows its chain and answers everything else with this text, or not at all.
async fn odd_socket(answer: Option<String>) -> (String, Arc<AtomicUsize>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, mut server) = (asked.clone(), JoinSet::new());
    server.spawn(async move {
        let mut passing = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (count, answer) = (count.clone(), answer.clone());
            passing.spawn(async move {
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    let Ok(text) = message.to_text() else { continue };
                    let Ok(call) = serde_json::from_str::<Value>(text) else { continue };
                    if call["method"] == "eth_chainId" {
                        let id = &call["id"];
                        let answer = json!({"jsonrpc": "2.0", "id": id, "result": "0x7a69"});
                        let _ = socket.send(answer.to_string().into()).await;
                        continue;
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                    if let Some(answer) = &answer {
                        let _ = socket.send(answer.clone().into()).await;
                    }
                }
            });
        }
    });
    (url, asked, server)
}

#[tokio::test]
async fn a_socket_that_hangs_or_floods_is_not_asked_for_ever() {
    let world = World::new(true).await;
    let endless = " ".repeat(65 << 20);
    for answer in [None, Some("no json".to_string()), Some(endless)] {
        let (url, asked, _server) = odd_socket(answer).await;
        let chain = world.chain_at(&format!("{url},{}", world.node.http_url())).await;
        let before = asked.load(Ordering::Relaxed);
        for _ in 0..3 {
            chain.provider.get_block_number().await.unwrap();
        }
        // A call asks it once, and once more over a new connection, if at all.
        assert!(asked.load(Ordering::Relaxed) <= before + 6);
    }
}

thread_local! {
    /// What was logged by this test: its runtime has one thread.
    static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LINES.with_borrow_mut(|lines| lines.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_outage_is_one_warning_and_no_flood() {
    // For the whole process: whether a line is wanted is decided once, by whichever test comes first to it.
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .with_writer(|| Lines)
        .init();
    let pair = Pair::new().await;
    let start = pair.world.head().await + 1;
    let chain = pair.connect().await.unwrap();
    let mut follower = Follower::start(chain, pair.world.database("a"), start);
    pair.world.emit_block(0).await;
    follower.committed().await;
    LINES.take();
    pair.first.set(|_| Act::Status(429, ""));
    for nonce in 1..30 {
        pair.world.emit_block(nonce).await;
        follower.committed().await;
    }
    pair.second.set(|_| Act::Drop);
    while pair.second.total() < 5 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    pair.first.set(|_| Act::Forward);
    pair.second.set(|_| Act::Forward);
    pair.world.emit_block(30).await;
    follower.committed().await;
    let text = String::from_utf8(LINES.take()).unwrap();
    let about = |words: &str| {
        text.lines().filter(|line| line.contains(" WARN ") && line.contains(words)).count()
    };
    assert_eq!(about(&pair.first.url), 1 + about("chain events wait"), "{text}");
    assert!(about("RPC endpoint fails") == 2 && about("chain events wait") <= 1, "{text}");
}
