//! What nodes signed twice is found and challenged; what only looks like it is not.

use std::path::Path;
use std::time::Duration;

use alloy::primitives::{Address, B256, Bytes};
use alloy::providers::Provider;
use alloy::signers::SignerSync;
use alloy::signers::local::PrivateKeySigner;
use alloy::sol_types::SolCall;
use assay_auditor::{Auditor, AuditorConfig};
use assay_bindings::SessionQueue::Precommit;
use assay_bindings::{SessionPayment, SessionQueue};
use assay_chain::Chain;
use assay_protocol::{QueueScope, commitment_of};
use assay_types::{NodeId, Precommit as SignedPrecommit, Signed, TaskId};
use serde_json::{Value, json};

use crate::world::{Faults, World, key};

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(60);

async fn auditor(world: &World, folder: &Path, key: Option<&PrivateKeySigner>) -> Auditor {
    let chain = Chain::connect(&world.url, world.deployment.clone()).await.unwrap();
    let config =
        AuditorConfig { journal: folder.join("journal"), evidence: folder.join("evidence") };
    Auditor::new(config, chain, key.cloned()).await.unwrap()
}

/// Lets an auditor work until something is so.
async fn until(auditor: &mut Auditor, is: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        ended = auditor.follow() => panic!("the auditor ended: {ended:?}"),
        waited = tokio::time::timeout(PATIENCE, waiting) => waited.unwrap(),
    }
}

/// Lets it work until it is at the head.
async fn until_it_is_there(auditor: &mut Auditor, world: &World) {
    let health = auditor.health().clone();
    health.set_ready(false, "asked again");
    until(auditor, async || health.is_ready()).await;
    let report = auditor.report().unwrap().unwrap();
    assert!(report.is_clean(), "{:?}", report.divergences);
    assert_eq!(report.to, world.head().await);
}

async fn stake(world: &World, node: u32) -> u128 {
    let payment = SessionPayment::new(world.deployment.payment, &world.provider);
    payment.stakeOf(node).call().await.unwrap().to()
}

fn notes(auditor: &Auditor) -> String {
    auditor.report().unwrap().unwrap().notes.join("\n")
}

/// Somebody carries another answer of a node than the one that stands on chain: the contract refuses it, and everybody
/// has seen it.
async fn carry_another(world: &mut World, task: B256, precommit: Precommit) {
    let node = precommit.nodeId;
    let mut answer = world.answer(task, node, false);
    answer.proofSeal = B256::repeat_byte(0xee);
    answer.signature = precommit.signature;
    carry(world, task, answer).await;
}

async fn carry(world: &mut World, task: B256, answer: SessionQueue::Answer) {
    let call = SessionQueue::commitCall { task: world.task(task), answers: vec![answer] };
    let (keeper, queue) = (world.keeper.clone(), world.deployment.queue);
    let receipt = world.transact(&keeper, queue.into(), call.abi_encode().into()).await;
    assert!(!receipt.status());
}

/// The commitment of the other answer, for a chain and a queue.
fn another(world: &World, task: B256, node: u32, (chain_id, queue): (u64, Address)) -> B256 {
    let mut answer = world.answer(task, node, false);
    answer.proofSeal = B256::repeat_byte(0xee);
    let scope = QueueScope { chain_id, queue };
    commitment_of(&scope.commit_scope(TaskId(task), NodeId(node)), &answer)
}

fn here(world: &World) -> (u64, Address) {
    (world.deployment.chain_id, world.deployment.queue)
}

/// A task that is answered, and another answer to it that its node signed.
async fn lied(world: &mut World, session: u64) -> (B256, u32) {
    let task = world.answered(session).await;
    let node = world.task(task).parts[0].nodeId;
    let commitment = another(world, task, node, here(world));
    let word = world.word(task, node, commitment);
    carry_another(world, task, word).await;
    (task, node)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_signed_two_answers_is_slashed_once() {
    let mut world = World::start(&Faults::new()).await;
    let session = world.session().await;
    let (task, node) = lied(&mut world, session).await;
    let folder = tempfile::tempdir().unwrap();
    let before = stake(&world, node).await;

    // Without a key it says what it would bring, and brings nothing. It ends as if it were killed.
    let mut silent = auditor(&world, folder.path(), None).await;
    until_it_is_there(&mut silent, &world).await;
    let told = notes(&silent);
    assert!(told.contains(&format!("node {node} signed two different answers to task {task}")));
    assert!(told.contains("watch --challenge"), "{told}");
    assert_eq!(stake(&world, node).await, before);
    drop(silent);

    let stranger = world.client.clone();
    let mut challenger = auditor(&world, folder.path(), Some(&stranger)).await;
    until(&mut challenger, async || stake(&world, node).await < before).await;
    let sent = world.provider.get_transaction_count(stranger.address()).await.unwrap();
    until_it_is_there(&mut challenger, &world).await;
    let told = notes(&challenger);
    assert!(told.contains("challenged by this auditor"), "{told}");
    challenger.save().unwrap();
    drop(challenger);

    // Nothing is left to be done, for this auditor, after a restart, and for one that begins anew.
    let (after, head) = (stake(&world, node).await, world.head().await);
    for name in ["", "another"] {
        let folder = folder.path().join(name);
        let mut again = auditor(&world, &folder, Some(&stranger)).await;
        until_it_is_there(&mut again, &world).await;
        assert!(notes(&again).contains("it was punished in block"), "{}", notes(&again));
    }
    assert_eq!((stake(&world, node).await, world.head().await), (after, head));
    assert_eq!(world.provider.get_transaction_count(stranger.address()).await.unwrap(), sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_looks_like_a_lie_is_not_challenged() {
    let mut world = World::start(&Faults::new()).await;
    let session = world.session().await;
    let honest = world.answered(session).await;
    let node = world.task(honest).parts[0].nodeId;
    let sign = |signer: &PrivateKeySigner, task: B256, scope: (u64, Address), commitment: B256| {
        let word = SignedPrecommit { taskId: task, nodeId: node, commitment };
        let hash = word.signing_hash(scope.0, scope.1);
        Bytes::from(signer.sign_hash_sync(&hash).unwrap().as_bytes().to_vec())
    };
    let own = world.node_key(node);
    let scopes = [(1, world.deployment.queue), (31337, Address::repeat_byte(9))];
    let mut signatures: Vec<Bytes> = scopes
        .iter()
        .map(|scope| sign(&own, honest, *scope, another(&world, honest, node, *scope)))
        .collect();
    // Of another task, and by another key than the node's.
    let commitment = another(&world, honest, node, here(&world));
    let elsewhere = B256::repeat_byte(0x77);
    signatures.push(sign(&own, elsewhere, here(&world), commitment));
    signatures.push(sign(&key("stranger"), honest, here(&world), commitment));
    // What the node signed, in forms that the contract does not take.
    let sound = sign(&own, honest, here(&world), commitment);
    let mut bare = sound.to_vec();
    bare[64] -= 27;
    signatures.push(bare.into());
    signatures.push(sound[..64].to_vec().into());
    for signature in signatures {
        carry_another(&mut world, honest, Precommit { nodeId: node, commitment, signature }).await;
    }
    // The same answer again contradicts nothing.
    let again = world.answer(honest, node, true);
    carry(&mut world, honest, again).await;

    let before = stake(&world, node).await;
    let folder = tempfile::tempdir().unwrap();
    let stranger = world.client.clone();
    let mut challenger = auditor(&world, folder.path(), Some(&stranger)).await;
    until_it_is_there(&mut challenger, &world).await;
    assert!(!notes(&challenger).contains("signed two"), "{}", notes(&challenger));

    // A replayed pair: somebody else has brought it already.
    let (task, liar) = lied(&mut world, session).await;
    world.lie(task).await;
    // And one that nobody has brought, so that it is known when the auditor has seen all.
    let (_, other) = lied(&mut world, session).await;
    let (honestly, punished) = (before, stake(&world, liar).await);
    let whole = stake(&world, other).await;
    until(&mut challenger, async || stake(&world, other).await < whole).await;
    until_it_is_there(&mut challenger, &world).await;
    assert_eq!(notes(&challenger).matches("signed two").count(), 2, "{}", notes(&challenger));
    assert_eq!(notes(&challenger).matches("challenged by this auditor").count(), 1);
    assert!(liar == other || stake(&world, liar).await == punished);
    assert!(node == liar || node == other || stake(&world, node).await == honestly);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_that_the_chain_took_back_is_sent_again() {
    let mut world = World::start(&Faults::new()).await;
    let session = world.session().await;
    let (_, node) = lied(&mut world, session).await;
    let before = stake(&world, node).await;
    let rpc = async |method: &'static str, params: Value| -> Value {
        world.provider.raw_request(method.into(), params).await.unwrap()
    };
    let snapshot = rpc("evm_snapshot", json!([])).await;
    let folder = tempfile::tempdir().unwrap();
    let mut challenger = auditor(&world, folder.path(), Some(&world.client)).await;
    until(&mut challenger, async || stake(&world, node).await < before).await;
    until_it_is_there(&mut challenger, &world).await;
    challenger.save().unwrap();

    rpc("evm_revert", json!([snapshot])).await;
    rpc("evm_increaseTime", json!([7])).await;
    rpc("evm_mine", json!([])).await;
    assert_eq!(stake(&world, node).await, before);
    until(&mut challenger, async || stake(&world, node).await < before).await;
    world.mine(1).await;
    until(&mut challenger, async || world.head().await > 0).await;
    until_it_is_there(&mut challenger, &world).await;
    let told = notes(&challenger);
    assert!(told.contains("it was punished in block"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_moves_on_is_told() {
    let mut world = World::start(&Faults::new()).await;
    let session = world.session().await;
    let task = world.submit(session, 1).await;
    let folder = tempfile::tempdir().unwrap();
    let mut silent = auditor(&world, folder.path(), None).await;
    until_it_is_there(&mut silent, &world).await;
    assert!(!notes(&silent).contains("waits since"), "{}", notes(&silent));
    world.advance(60 + 301).await;
    world.mine(1).await;
    until_it_is_there(&mut silent, &world).await;
    let told = notes(&silent);
    assert!(told.contains(&format!("task {task} waits since second")), "{told}");
    let call = SessionQueue::advanceCall { task: world.task(task) };
    let (keeper, queue) = (world.keeper.clone(), world.deployment.queue);
    world.send(&keeper, queue, &call).await;
    until_it_is_there(&mut silent, &world).await;
    assert!(!notes(&silent).contains("waits since"), "{}", notes(&silent));
}
