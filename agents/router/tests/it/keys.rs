//! API keys: who is let in, for what, for how much, and until when.

use alloy::signers::local::PrivateKeySigner;
use assay_router::{
    book::{facts::Fact, service::BlockChange},
    keys::{
        file::KeyFile,
        key::{ApiKey, Limits, Period},
        usage::{Usage, usages},
    },
};
use assay_types::{TaskId, link::Offer};
use futures::{SinkExt, StreamExt};
use reqwest::Response;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message as Ws, client::IntoClientRequest},
};

use crate::world::{
    MODEL, Miner, PATIENCE, PRICE_IN, PRICE_OUT, World, committed, config, data_lines, hello,
    settled, submitted,
};

/// First tokens after which the router knows what is late.
const FIRST_TOKENS_MEASURED: usize = 20;

/// A router that asks for keys, with a session and node 1.
struct Guarded {
    world: World,
    miner: Miner,
    file: KeyFile,
    data: TempDir,
}

/// A key and its secret.
struct Key {
    key: ApiKey,
    secret: String,
}

impl Guarded {
    async fn start() -> Self {
        Self::on(&[1]).await
    }

    /// With a session on these nodes, of which node 1 is there.
    async fn on(nodes: &[u32]) -> Self {
        let data = tempdir().unwrap();
        let mut settings = config(data.path());
        settings.api_keys = true;
        let mut world = World::with_config(settings, PrivateKeySigner::random()).await;
        // Periods are counted by the keys' clock, this machine's.
        world.use_wall_clock();
        world.open_session(nodes, u128::MAX).await;
        let miner = world.miner(1).await;
        let file = KeyFile::open(data.path()).unwrap();
        Self { world, miner, file, data }
    }

    /// A new key, once the running router knows it.
    async fn key(&self, limits: Limits) -> Key {
        let (key, secret) = self.file.create("test", limits).unwrap();
        let key = Key { key, secret: secret.text().to_owned() };
        self.until(&key, 200).await;
        key
    }

    /// Waits until a key is known, or no more.
    async fn until(&self, key: &Key, status: u16) {
        let known = async {
            while self.get(key, "/v1/models").await.status() != status {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, known).await.unwrap();
    }

    async fn get(&self, key: &Key, path: &str) -> Response {
        let request = self.world.http.get(self.world.url(path)).bearer_auth(&key.secret);
        request.send().await.unwrap()
    }

    fn ask(&self, key: &Key, body: Value) -> impl Future<Output = Response> + use<> {
        let url = self.world.url("/v1/chat/completions");
        let request = self.world.http.post(url).bearer_auth(&key.secret).json(&body);
        async move { request.send().await.unwrap() }
    }

    /// Asks, and is answered with one word; the task and its offer.
    async fn answered(&mut self, key: &Key) -> (TaskId, Box<Offer>) {
        let asked = self.ask(key, short());
        let (response, served) = tokio::join!(asked, self.miner.serve(&["x"]));
        assert_eq!(response.status(), 200);
        served
    }

    fn usage(&self, key: &Key) -> Usage {
        let all = usages(self.data.path()).unwrap();
        all.get(&key.key.id).and_then(|periods| periods.get(&0)).cloned().unwrap_or_default()
    }

    /// Waits until so much is spent and held.
    async fn until_used(&self, key: &Key, used: (u128, u128)) {
        let is_used = async {
            while (self.usage(key).spent, self.usage(key).held) != used {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        let timely = tokio::time::timeout(PATIENCE, is_used).await;
        timely.unwrap_or_else(|_| panic!("{:?}, not {used:?}", self.usage(key)));
    }
}

fn short() -> Value {
    let mut ask = hello(false);
    ask["max_tokens"] = json!(10);
    ask
}

fn short_stream() -> Value {
    let mut ask = short();
    ask["stream"] = json!(true);
    ask
}

/// What [`short`] may cost.
fn held(offer: &Offer) -> u128 {
    let request = &offer.request;
    PRICE_IN * u128::from(request.maxPrompt) + PRICE_OUT * u128::from(request.maxOutput)
}

async fn error(response: Response) -> (u16, String, Option<String>, bool) {
    let header = |name: &str| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
    let (after, retry) = (header("retry-after"), header("x-should-retry"));
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    let code = body["error"]["code"].as_str().unwrap().to_owned();
    (status, code, after, retry.as_deref() != Some("false"))
}

#[tokio::test]
async fn only_who_has_a_key_is_served() {
    let mut world = Guarded::start().await;
    let key = world.key(Limits::default()).await;
    let nobody = Key { key: key.key.clone(), secret: "sk-dummy".into() };
    let url = world.world.url("/v1/chat/completions");
    let bare = world.world.http.post(&url).json(&short()).send().await.unwrap();
    assert_eq!(error(bare).await, (401, "invalid_api_key".into(), None, true));
    assert_eq!(error(world.ask(&nobody, short()).await).await.0, 401);
    for path in ["/v1/models", "/v1/tasks/7", "/v1/responses"] {
        assert_eq!(world.get(&nobody, path).await.status(), 401, "{path}");
    }
    let messages = world.world.url("/v1/messages");
    let refused = world.world.http.post(&messages).json(&json!({})).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    let body: Value = refused.json().await.unwrap();
    assert_eq!(
        (&body["type"], &body["error"]["type"]),
        (&json!("error"), &json!("authentication_error"))
    );
    let document = world.world.http.get(world.world.url("/openapi.json")).send().await.unwrap();
    let document: Value = document.json().await.unwrap();
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");

    let (task, _) = world.answered(&key).await;
    let ask = json!({"model": MODEL, "max_tokens": 10, "messages": [{"role": "user", "content": "Hello"}]});
    let asked = world.world.http.post(&messages).header("x-api-key", &key.secret).json(&ask).send();
    let (response, _) = tokio::join!(asked, world.miner.serve(&["x"]));
    assert_eq!(response.unwrap().status(), 200);

    // Each sees its own tasks.
    let other = world.key(Limits::default()).await;
    for path in [format!("/v1/tasks/{task}"), format!("/v1/tasks/{task}/proof")] {
        assert_eq!(world.get(&key, &path).await.status(), 200, "{path}");
        assert_eq!(world.get(&other, &path).await.status(), 404, "{path}");
    }
    let shown: Value = world.get(&key, &format!("/v1/tasks/{task}")).await.json().await.unwrap();
    assert_eq!(shown["api_key"], key.key.id);
    world.world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_key_asks_for_its_models_alone() {
    let mut world = Guarded::start().await;
    let limits = Limits { models: vec!["another".into()], ..Limits::default() };
    let key = world.key(limits).await;
    assert_eq!(
        error(world.ask(&key, short()).await).await,
        (403, "model_not_allowed".into(), None, true)
    );
    let models: Value = world.get(&key, "/v1/models").await.json().await.unwrap();
    assert_eq!(models["data"], json!([]));
    let key = world.key(Limits { models: vec![MODEL.into()], ..Limits::default() }).await;
    world.answered(&key).await;
    world.world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_budget_is_held_before_the_first_token_and_paid_with_the_fee() {
    let mut world = Guarded::start().await;
    // The bound of such a request is 277 prompt tokens and 10 of the answer.
    let bound = PRICE_IN * 277 + PRICE_OUT * 10;
    let limits = Limits { budget: Some(2 * bound - 1), ..Limits::default() };
    let key = world.key(limits).await;
    let asked = world.ask(&key, short_stream());
    let (mut response, (task, offer)) = tokio::join!(asked, async {
        let (task, offer) = world.miner.offer().await;
        world.miner.accept(task).await;
        world.miner.token(task, 0, "x").await;
        (task, offer)
    });
    assert_eq!(held(&offer), bound);
    assert!(response.chunk().await.unwrap().is_some());
    // The client has seen something: what it may cost is in the database.
    assert_eq!(world.usage(&key), Usage { tasks: 1, held: bound, ..Usage::default() });
    let second = world.ask(&key, short()).await;
    assert_eq!(error(second).await, (429, "insufficient_quota".into(), None, false));

    world.miner.finish(task, &["x"], "x").await;
    while response.chunk().await.unwrap().is_some() {}
    let block = world.world.mine(vec![submitted(task, &offer, &[1]), committed(task, 1, 7)]).await;
    assert_eq!(error(world.ask(&key, short()).await).await.0, 429, "it is still held");
    let paid = world.world.mine(vec![settled(task, 1, 7)]).await;
    world.until_used(&key, (7, 0)).await;
    // What was not needed is free again, and a reverted block takes it back.
    for block in [paid.clone(), block.clone()] {
        world.world.change(BlockChange::Reverted(block)).await;
    }
    world.until_used(&key, (0, bound)).await;
    assert_eq!(error(world.ask(&key, short()).await).await.0, 429);
    for block in [block, paid] {
        world.world.change(BlockChange::Committed(block)).await;
    }
    world.answered(&key).await;
    world.world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_node_is_asked_as_far_as_the_budget_goes() {
    let mut world = Guarded::on(&[1, 2]).await;
    let rich = world.key(Limits::default()).await;
    for _ in 0..FIRST_TOKENS_MEASURED {
        world.answered(&rich).await;
    }
    let mut other = world.world.miner(2).await;
    let bound = PRICE_IN * 277 + PRICE_OUT * 10;
    for (budget, is_asked_twice) in [(2 * bound, true), (2 * bound - 1, false)] {
        let key = world.key(Limits { budget: Some(budget), ..Limits::default() }).await;
        let asked = tokio::spawn(world.ask(&key, short()));
        let (first, is_other) = tokio::select! {
            offered = world.miner.offer() => (offered.0, false),
            offered = other.offer() => (offered.0, true),
        };
        let [slow, idle] = match is_other {
            false => [&mut world.miner, &mut other],
            true => [&mut other, &mut world.miner],
        };
        slow.accept(first).await;
        if is_asked_twice {
            let (second, _) = idle.serve(&["x"]).await;
            assert_eq!(slow.cancelled().await, (first, 0));
            assert_ne!(first, second);
        } else {
            // Longer than any first token is waited for.
            let second = tokio::time::timeout(std::time::Duration::from_secs(1), idle.offer());
            assert!(second.await.is_err(), "the key cannot pay for a second one");
            slow.token(first, 0, "x").await;
            slow.finish(first, &["x"], "x").await;
        }
        assert_eq!(asked.await.unwrap().status(), 200);
        // Nobody knows yet whether the slow one commits something.
        let held = if is_asked_twice { 2 * bound } else { bound };
        world.until_used(&key, (0, held)).await;
    }
    world.world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_crash_forgets_nothing_that_a_key_has_spent() {
    let mut world = Guarded::start().await;
    let limits = Limits { budget: Some(1500), period: Some(Period::Month), ..Limits::default() };
    let key = world.key(limits).await;
    let (paid, offer) = world.answered(&key).await;
    let facts = vec![submitted(paid, &offer, &[1]), committed(paid, 1, 600), settled(paid, 1, 600)];
    world.world.mine(facts).await;
    let (open, offer) = world.answered(&key).await;
    world.world.mine(vec![submitted(open, &offer, &[1])]).await;

    let Guarded { world: before, data, file, .. } = world;
    let (signer, operators) = (before.key.clone(), before.operators.clone());
    let (chain, store) = before.crash(data.path()).await;
    let mut settings = config(data.path());
    settings.api_keys = true;
    let mut after = World::around(settings, signer, chain.clone(), store).await;
    for (node, operator) in &operators {
        chain.operators.lock().unwrap().insert(*node, operator.address());
    }
    after.operators = operators;
    after.use_wall_clock();
    let miner = after.miner(1).await;
    let mut world = Guarded { world: after, miner, file, data };
    // 600 are spent and 584 held: 316 are left, and another needs 584.
    let bound = held(&offer);
    let refused = error(world.ask(&key, short()).await).await;
    assert_eq!((refused.0, refused.1.as_str()), (429, "insufficient_quota"));
    assert!(refused.2.unwrap().parse::<u64>().unwrap() <= Period::Month.seconds());
    let refunded = Fact::TaskRefunded { task: open, refund: bound, tip: 0 };
    world.world.mine(vec![refunded]).await;
    world.answered(&key).await;
    world.until_used(&key, (600, bound)).await;
    world.world.router.stop().await.unwrap();
}

#[tokio::test]
async fn what_no_node_took_is_not_held() {
    let mut world = Guarded::start().await;
    let key = world.key(Limits { budget: Some(600), ..Limits::default() }).await;
    for _ in 0..2 {
        let decline = async {
            let (task, _) = world.miner.offer().await;
            let (code, message) = ("empty_prompt".to_owned(), "x".to_owned());
            let frame = assay_types::link::FromMiner::Decline { task, code, message };
            world.miner.send(frame).await;
            task
        };
        let url = world.world.url("/v1/chat/completions");
        let asked = world.world.http.post(url).bearer_auth(&key.secret).json(&short()).send();
        let (response, task) = tokio::join!(asked, decline);
        assert_eq!(response.unwrap().status(), 400);
        let path = format!("/v1/tasks/{task}");
        let is_over = async {
            loop {
                let shown: Value = world.get(&key, &path).await.json().await.unwrap();
                let timeline = shown["timeline"].as_array().unwrap();
                if timeline.iter().any(|entry| entry["event"] == "not_submitted") {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, is_over).await.unwrap();
    }
    world.world.router.stop().await.unwrap();
}

#[tokio::test]
async fn requests_and_tokens_of_a_minute_are_limited() {
    let mut world = Guarded::start().await;
    let key = world.key(Limits { requests_per_minute: Some(2), ..Limits::default() }).await;
    world.answered(&key).await;
    world.answered(&key).await;
    let (status, code, after, _) = error(world.ask(&key, short()).await).await;
    assert_eq!((status, code.as_str()), (429, "rate_limit_exceeded"));
    assert!((1..=30).contains(&after.unwrap().parse::<u64>().unwrap()));

    // 287 are taken for a request, and what it does not need comes back: 8 are used.
    let key = world.key(Limits { tokens_per_minute: Some(300), ..Limits::default() }).await;
    world.answered(&key).await;
    world.answered(&key).await;
    let (status, code, after, _) = error(world.ask(&key, short()).await).await;
    assert_eq!((status, code.as_str()), (429, "rate_limit_exceeded"));
    assert!(after.is_some());
    let mut long = short();
    long["max_tokens"] = json!(200);
    assert_eq!(
        error(world.ask(&key, long).await).await,
        (429, "rate_limit_exceeded".into(), None, false)
    );
    world.world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_key_that_is_revoked_is_cut_off_in_mid_stream() {
    let mut world = Guarded::start().await;
    let key = world.key(Limits::default()).await;
    let asked = world.ask(&key, short_stream());
    let (mut response, task) = tokio::join!(asked, async {
        let (task, _) = world.miner.offer().await;
        world.miner.accept(task).await;
        world.miner.token(task, 0, "first").await;
        task
    });
    let mut seen = String::new();
    while !seen.contains("first") {
        seen.push_str(&String::from_utf8_lossy(&response.chunk().await.unwrap().unwrap()));
    }
    assert!(world.file.revoke(&key.key.id).unwrap().is_some());
    // The node is told to stop, and the stream ends with an error.
    match world.miner.recv().await {
        Some(assay_types::link::FromRouter::Cancel { task: cancelled, .. }) => {
            assert_eq!(cancelled, task)
        }
        other => panic!("{other:?}"),
    }
    let rest = response.text().await.unwrap();
    let last: Value = serde_json::from_str(data_lines(&rest).last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "invalid_api_key", "{rest}");
    assert!(!rest.contains("[DONE]"));
    assert_eq!(error(world.ask(&key, short()).await).await.0, 401);
    world.world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_key_that_expires_is_cut_off_in_mid_stream() {
    let mut world = Guarded::start().await;
    let now_s = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    // Long enough to begin with, also on a busy machine.
    let expires_s = Some(now_s + 6);
    let key = world.key(Limits { expires_s, ..Limits::default() }).await;
    let asked = world.ask(&key, short_stream());
    let (response, task) = tokio::join!(asked, async {
        let (task, _) = world.miner.offer().await;
        world.miner.accept(task).await;
        world.miner.token(task, 0, "first").await;
        task
    });
    assert_eq!(world.miner.cancelled().await, (task, 1));
    let body = response.text().await.unwrap();
    assert!(body.contains("first") && !body.contains("[DONE]"), "{body}");
    let last: Value = serde_json::from_str(data_lines(&body).last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "invalid_api_key", "{body}");
    assert!(last["error"]["message"].as_str().unwrap().contains("expired"), "{body}");
    world.world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_websocket_ends_with_its_key() {
    let mut world = Guarded::start().await;
    let key = world.key(Limits { requests_per_minute: Some(1), ..Limits::default() }).await;
    let url = format!("ws://{}/v1/responses", world.world.address());
    assert!(connect_async(&url).await.is_err(), "no key");
    let mut request = url.into_client_request().unwrap();
    let bearer = format!("Bearer {}", key.secret).parse().unwrap();
    request.headers_mut().insert("authorization", bearer);
    let (mut socket, _) = connect_async(request).await.unwrap();
    let ask = json!({"type": "response.create", "model": MODEL, "input": "Hello", "max_output_tokens": 10});
    socket.send(Ws::Text(ask.to_string().into())).await.unwrap();
    world.miner.serve(&["x"]).await;
    loop {
        let text = socket.next().await.unwrap().unwrap().into_text().unwrap();
        if text.contains("response.completed") {
            break;
        }
    }
    socket.send(Ws::Text(ask.to_string().into())).await.unwrap();
    let refused = socket.next().await.unwrap().unwrap().into_text().unwrap();
    assert!(refused.contains("rate_limit_exceeded"), "{refused}");
    world.file.revoke(&key.key.id).unwrap();
    assert!(matches!(socket.next().await, Some(Ok(Ws::Close(_)))));
    world.world.router.stop().await.unwrap();
}
