//! Which node gets a task, and what happens while its first token is late.

use assay_types::TaskId;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::world::{MODEL, Miner, World, events, hello};

/// First tokens after which the router knows what is late.
const MEASURED: usize = 20;

/// Two miners of one session. Which of them is asked first is the router's to choose.
struct Pair {
    world: World,
    miners: Vec<Miner>,
    _data: TempDir,
}

impl Pair {
    async fn start() -> Self {
        let data = tempdir().unwrap();
        let world = World::with_nodes(data.path(), &[1, 2]).await;
        let miners = vec![world.miner(1).await, world.miner(2).await];
        Self { world, miners, _data: data }
    }

    /// Whoever is offered the next task stands first from then on.
    async fn offered(&mut self) -> TaskId {
        let [one, two] = &mut self.miners[..] else { panic!("two miners") };
        let (task, is_second) = tokio::select! {
            offered = one.offer() => (offered.0, false),
            offered = two.offer() => (offered.0, true),
        };
        if is_second {
            self.miners.reverse();
        }
        task
    }

    /// A request is answered by whoever is asked; the node.
    async fn answered(&mut self, body: Value) -> u32 {
        let asked = self.world.ask(body);
        let served = async {
            let task = self.offered().await;
            self.miners[0].answer(task, &["quick"]).await;
        };
        let (response, ()) = tokio::join!(asked, served);
        assert_eq!(response.status(), 200);
        self.miners[0].node.0
    }

    /// A router that has measured enough, and a request whose first node accepts it and says nothing until the second
    /// one is asked: what the client will get, and the tasks of both.
    async fn late(&mut self) -> (impl Future<Output = reqwest::Response> + use<>, TaskId, TaskId) {
        for _ in 0..MEASURED {
            self.answered(hello(false)).await;
        }
        let asked = tokio::spawn(self.world.ask(hello(false)));
        let first = self.offered().await;
        self.miners[0].accept(first).await;
        let (second, offer) = self.miners[1].offer().await;
        assert_ne!(first, second, "a task pays one node");
        assert_eq!(offer.request.nodeId, self.miners[1].node.0);
        (async { asked.await.unwrap() }, first, second)
    }

    async fn stop(self) {
        self.world.router.stop().await.unwrap();
    }
}

async fn text_of(response: reqwest::Response) -> String {
    assert_eq!(response.status(), 200);
    let body: Value = response.json().await.unwrap();
    body["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_second_node_answers_where_the_first_token_is_late() {
    let mut pair = Pair::start().await;
    let (asked, slow, fast) = pair.late().await;
    pair.miners[1].answer(fast, &["well"]).await;
    assert_eq!(text_of(asked.await).await, "well");
    assert_eq!(pair.miners[0].cancelled().await, (slow, 0));
    let slow =
        pair.world.task_until(&slow.to_string(), |task| events(task).contains(&"replaced")).await;
    assert!(events(&slow).contains(&"hedged"), "{slow:#}");
    assert_eq!(
        (&slow["answer"], &slow["error"]["code"]),
        (&json!("cancelled"), &json!("not_needed"))
    );
    let timeline = slow["timeline"].as_array().unwrap();
    let replaced = timeline.iter().find(|entry| entry["event"] == "replaced").unwrap();
    assert_eq!(replaced["detail"], fast.to_string());
    pair.world.task_until(&fast.to_string(), |task| task["answer"] == "complete").await;
    pair.stop().await;
}

#[tokio::test]
async fn the_second_node_is_told_to_stop_where_the_first_one_begins_after_all() {
    let mut pair = Pair::start().await;
    let (asked, slow, second) = pair.late().await;
    pair.miners[1].accept(second).await;
    pair.miners[0].token(slow, 0, "well").await;
    assert_eq!(pair.miners[1].cancelled().await, (second, 0));
    pair.miners[0].finish(slow, &["well"], "well").await;
    assert_eq!(text_of(asked.await).await, "well");
    let second =
        pair.world.task_until(&second.to_string(), |task| task["answer"] == "cancelled").await;
    assert_eq!(second["error"]["code"], "not_needed");
    pair.stop().await;
}

#[tokio::test]
async fn a_node_that_dies_while_another_one_is_asked_is_replaced_by_it() {
    let mut pair = Pair::start().await;
    let (asked, _, second) = pair.late().await;
    pair.miners[1].accept(second).await;
    drop(pair.miners.remove(0));
    // Tasks that are waited for go on for a moment: the node could come back.
    pair.miners[0].token(second, 0, "well").await;
    pair.miners[0].finish(second, &["well"], "well").await;
    assert_eq!(text_of(asked.await).await, "well");
    pair.stop().await;
}

#[tokio::test]
async fn a_node_that_does_not_answer_an_offer_is_passed_over() {
    let mut pair = Pair::start().await;
    for _ in 0..MEASURED {
        pair.answered(hello(false)).await;
    }
    let asked = tokio::spawn(pair.world.ask(hello(false)));
    let silent = pair.offered().await;
    let (second, _) = pair.miners[1].serve(&["well"]).await;
    assert_eq!(text_of(asked.await.unwrap()).await, "well");
    assert_ne!(silent, second);
    assert_eq!(pair.miners[0].cancelled().await, (silent, 0));
    let silent =
        pair.world.task_until(&silent.to_string(), |task| task["answer"] == "cancelled").await;
    assert_eq!(silent["error"]["code"], "not_needed");
    pair.stop().await;
}

#[tokio::test]
async fn no_second_node_is_asked_once_the_first_token_is_there() {
    let mut pair = Pair::start().await;
    for _ in 0..MEASURED {
        pair.answered(hello(false)).await;
    }
    let asked = pair.world.ask(hello(false));
    let served = async {
        let task = pair.offered().await;
        pair.miners[0].accept(task).await;
        pair.miners[0].token(task, 0, "").await;
        // Longer than any first token is waited for.
        let other = tokio::time::timeout(std::time::Duration::from_secs(1), pair.miners[1].offer());
        assert!(other.await.is_err(), "asked in the middle of an answer");
        pair.miners[0].finish(task, &[""], "").await;
    };
    let (response, ()) = tokio::join!(asked, served);
    assert_eq!(text_of(response).await, "");
    pair.stop().await;
}

#[tokio::test]
async fn a_conversation_stays_with_the_node_that_has_read_it() {
    let mut pair = Pair::start().await;
    let mut messages = vec![json!({"role": "user", "content": "What is a session?"})];
    let ask = |messages: &[Value]| json!({"model": MODEL, "messages": messages});
    let node = pair.answered(ask(&messages)).await;
    for turn in 0..4 {
        messages.push(json!({"role": "assistant", "content": "quick"}));
        messages.push(json!({"role": "user", "content": format!("And {turn}?")}));
        assert_eq!(pair.answered(ask(&messages)).await, node, "turn {turn}");
    }
    pair.stop().await;
}
