//! Networks whose rounds are drand's: what they draw is checked like everything else, and what is relayed is what drand
//! signed.

use alloy::hex;
use alloy::primitives::aliases::U40;
use assay_bindings::ProofOfInference::closeEpochCall;
use assay_harness::{Change, compile_changed};
use assay_replay::{Divergence, Rule, Subject};

use crate::proofs::{OFF, explained, found};
use crate::world::{EPOCH_S, Faults, Rounds, START_S, World, signature};

/// Sessions, audits and a panel, all drawn by rounds that drand signed.
#[tokio::test(flavor = "multi_thread")]
async fn draws_from_drands_rounds_are_predicted() {
    let mut world = World::start_with(Rounds::Drand, &Faults::new()).await;
    world.prove().await;
    let session = world.session().await;
    let mut honest = world.audited(session, 0).await;
    world.revealed(&mut honest).await;
    world.collect(&honest).await;
    let mut forged = world.audited(session, OFF).await;
    world.revealed(&mut forged).await;
    world.judged(&mut forged).await;
    world.executed(&mut forged).await;
    world.settle(&[forged.task]).await;
    let (report, told) = explained(&world, Subject::Task(forged.task)).await;
    assert!(report.is_clean(), "{:?}", report.divergences);
    assert!(report.checked.rounds >= 8 && report.checked.draws >= 3, "{:?}", report.checked);
    assert!(told.contains("gave it the number") && told.contains("costs the stake"), "{told}");
}

/// A network whose beacon is compiled with some text changed.
async fn with_fault(change: Change) -> World {
    let compile = move || compile_changed("DrandBeacon", &[change]);
    let compiled = tokio::task::spawn_blocking(compile).await.unwrap();
    let code = hex::decode(compiled.unwrap().bytecode).unwrap();
    World::start_with(Rounds::Drand, &Faults::from([("DrandBeacon", code.into())])).await
}

async fn found_in(world: &World) -> Divergence {
    found(world, "RandomBeacon").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beacon_that_takes_any_signature_is_found() {
    let change = Change {
        file: "DrandBeacon.sol",
        from: "if (!valid) revert DrandBeacon_WrongSignature(round, x, y);",
        to: "",
    };
    let mut world = with_fault(change).await;
    world.wait_for(30).await;
    world.relay(29, signature(29)).await;
    world.relay(30, signature(31)).await;
    let found = found_in(&world).await;
    assert_eq!((found.rule, found.what.as_str()), (Rule::Refusal, "a call that the rules refuse"));
    assert!(found.expected.contains("DrandBeacon_WrongSignature"), "{found}");
    assert_eq!(found.block, Some(world.head().await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_with_another_value_is_found() {
    let change = Change {
        file: "DrandBeacon.sol",
        from: "value = sha256(proof);",
        to: "value = keccak256(proof);",
    };
    let mut world = with_fault(change).await;
    world.reveal(30).await;
    let found = found_in(&world).await;
    assert_eq!((found.rule, found.what.as_str()), (Rule::Rules, "RoundRevealed with other values"));
}

/// The draw of an epoch's answers waits for a round that everybody knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_round_that_is_known_when_it_is_named_is_found() {
    let change = Change {
        file: "DrandBeacon.sol",
        from: "return roundAt(uint64(block.timestamp) + maxDrift) + 1;",
        to: "return roundAt(uint64(block.timestamp) + maxDrift) - 1;",
    };
    let mut world = with_fault(change).await;
    let (keeper, proof) = (world.keeper.clone(), world.deployment.proof);
    let call = closeEpochCall { epoch: U40::from(START_S / EPOCH_S) };
    world.send(&keeper, proof, &call).await;
    let found = found_in(&world).await;
    assert_eq!((found.rule, found.what.as_str()), (Rule::Rules, "EpochClosed with other values"));
}
