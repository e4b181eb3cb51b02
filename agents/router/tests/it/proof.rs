//! What a client is told of the proofs of its answers.

use assay_router::book::{
    facts::Fact,
    proofs::{PanelParty, ProofStep},
    service::BlockChange,
};
use assay_types::{B256, NodeId, TaskId, U256};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::world::{World, committed, hello, submitted};

async fn proof(world: &World, id: &str) -> Value {
    let url = world.url(&format!("/v1/tasks/{id}/proof"));
    let response = world.http.get(url).send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

fn told(task: TaskId, step: ProofStep) -> Fact {
    Fact::Proof { task, node: NodeId(1), step }
}

fn moved(task: TaskId, state: u8, validator: u32) -> Fact {
    told(task, ProofStep::Moved { state, until_s: 1_900_000_000, validator: NodeId(validator) })
}

fn party(node: u32) -> PanelParty {
    PanelParty { node_id: NodeId(node), is_sealed: true, is_open: node != 1 }
}

fn states(proof: &Value) -> Vec<&str> {
    let steps = proof["answers"][0]["steps"].as_array().unwrap();
    steps.iter().map(|step| step["event"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_audit_is_told_as_the_chain_tells_it() {
    let data = tempdir().unwrap();
    let mut world = World::with_nodes(data.path(), &[1]).await;
    let mut miner = world.miner(1).await;
    let (response, (task, offer)) = tokio::join!(world.ask(hello(false)), miner.serve(&["Hi"]));
    assert_eq!(response.status(), 200);
    let id = task.to_string();
    let before = proof(&world, &id).await;
    assert_eq!(before["object"], "assay.task.proof");
    let answer = &before["answers"][0];
    assert_eq!((&answer["node_id"], &answer["state"]), (&json!(1), &json!("none")));
    assert_eq!((&answer["probability"], &answer["steps"]), (&Value::Null, &json!([])));

    let exposed = ProofStep::Exposed { value: "70".into(), probability_bps: 2500 };
    let others = TaskId(B256::repeat_byte(0xee));
    world
        .mine(vec![
            submitted(task, &offer, &[1]),
            committed(task, 1, 70),
            told(task, exposed.clone()),
            told(others, exposed),
        ])
        .await;
    let answer = proof(&world, &id).await["answers"][0].clone();
    assert_eq!((&answer["state"], &answer["probability"]), (&json!("exposed"), &json!(0.25)));
    assert_eq!(answer["value"], "70");
    assert!(answer["steps"][0]["transaction_hash"].as_str().unwrap().starts_with("0x"));

    let opened =
        ProofStep::Opened { root: B256::repeat_byte(5), proof_digest: B256::repeat_byte(6) };
    // Ten tokens, the largest margin 9, all together 20.
    let statistics = U256::from(10) | U256::from(9) << 32 | U256::from(20) << 64;
    let found = |validator, reasons| ProofStep::Verdict {
        validator: NodeId(validator),
        reasons,
        statistics,
        failing_blocks: 1,
    };
    world.mine(vec![moved(task, 3, 2), moved(task, 4, 2)]).await;
    let answer = proof(&world, &id).await["answers"][0].clone();
    assert_eq!((&answer["state"], &answer["validator"]), (&json!("sealed"), &json!(2)));
    assert_eq!(answer["until_s"], 1_900_000_000);
    world
        .mine(vec![
            told(task, opened),
            moved(task, 5, 2),
            told(task, found(2, 0x01)),
            moved(task, 6, 2),
            told(task, ProofStep::Panel { parties: vec![party(1), party(2), party(3)] }),
            moved(task, 8, 2),
            told(task, found(3, 0x05)),
        ])
        .await;
    let judged =
        ProofStep::Judged { question: 1, failing: U256::from(0b110), guilty: true, slashed: true };
    let end = world.mine(vec![told(task, judged), moved(task, 15, 2)]).await;
    let whole = proof(&world, &id).await;
    let answer = &whole["answers"][0];
    assert_eq!((&answer["state"], &answer["until_s"]), (&json!("disproved"), &Value::Null));
    assert_eq!(answer["verdicts"][0]["reasons"], json!(["fingerprint"]));
    assert_eq!(answer["verdicts"][1]["reasons"], json!(["fingerprint", "hard margin"]));
    assert_eq!(
        (&answer["verdicts"][0]["tokens"], &answer["verdicts"][0]["max_margin"]),
        (&json!(10), &json!(9))
    );
    assert_eq!(
        answer["panel"][2],
        json!({"node_id": 3, "role": "panel", "has_committed": true, "has_opened": true})
    );
    assert_eq!(answer["panel"][0]["has_opened"], false);
    let verdict = json!({"question": "weights", "found_false_by": [2, 3], "is_false": true, "is_slashed": true});
    assert_eq!(answer["judged"], verdict);
    assert_eq!(answer["root"], B256::repeat_byte(5).to_string());
    assert!(answer["proof_cid"].as_str().unwrap().starts_with("bafk"));
    let events = [
        "exposed",
        "drawn",
        "sealed",
        "proof_published",
        "opened",
        "verdict",
        "accused",
        "panel_moved",
        "hearing",
        "verdict",
        "judged",
        "disproved",
    ];
    assert_eq!(states(&whole), events);

    // A block that is no longer canonical takes what it told with it.
    world.change(BlockChange::Reverted(end)).await;
    let whole = proof(&world, &id).await;
    assert_eq!(
        (&whole["answers"][0]["state"], &whole["answers"][0]["judged"]),
        (&json!("hearing"), &Value::Null)
    );
    assert_eq!(states(&whole).len(), events.len() - 2);
    world.router.stop().await.unwrap();
}

#[tokio::test]
async fn a_task_of_others_has_no_proof_here() {
    let data = tempdir().unwrap();
    let mut world = World::with_nodes(data.path(), &[1]).await;
    let others = TaskId(B256::repeat_byte(0xee));
    world.mine(vec![told(others, ProofStep::Unverified)]).await;
    for (id, status, code) in
        [(others.to_string(), 404, "task_not_found"), ("7".into(), 400, "invalid_value")]
    {
        let url = world.url(&format!("/v1/tasks/{id}/proof"));
        let response = world.http.get(url).send().await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], code);
    }
    world.router.stop().await.unwrap();
}
