//! Networks with which nothing is wrong, and audits that cannot be made.

use alloy::primitives::Address;
use assay_replay::{Audit, AuditError, Options};

use crate::world::{Faults, World};

/// Everything that a network does is checked, and nothing diverges.
#[tokio::test(flavor = "multi_thread")]
async fn a_sound_network_has_no_divergence() {
    let mut world = World::start(&Faults::new()).await;
    let session = world.live().await;
    let task = world.submit(session, 1).await;
    world.lie(task).await;
    world.mine(3).await;
    let report = world.audit().await;
    assert!(report.is_clean(), "{:?}", report.divergences);
    let checked = &report.checked;
    assert_eq!(checked.blocks, world.head().await);
    assert_eq!(checked.state_roots, checked.blocks);
    assert_eq!(checked.contracts, 24);
    assert!(checked.draws >= 1 && checked.rounds >= 2 && checked.penalties == 2);
    assert!(checked.tasks == 5 && checked.payments >= 8 && checked.deadlines > 5);
    assert!(checked.storage_hashes == 22 && checked.stored_values > 400 && checked.funds > 10);
}

/// What was forgotten of a task that is over suffices to punish a lie about it.
#[tokio::test(flavor = "multi_thread")]
async fn a_lie_about_a_task_that_is_over_is_judged() {
    let mut world = World::start(&Faults::new()).await;
    let session = world.session().await;
    let task = world.answered(session).await;
    world.settle(&[task]).await;
    world.mine(200).await;
    world.lie(task).await;
    let report = world.audit().await;
    assert!(report.is_clean(), "{:?}", report.divergences);
    assert_eq!(report.checked.penalties, 1);
}

/// A range that begins later is checked alone, on the state that the blocks before it made.
#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_checked_on_the_state_before_it() {
    let mut world = World::start(&Faults::new()).await;
    let from = world.head().await + 1;
    world.live().await;
    let options = Options { deployment: world.deployment.clone(), from, to: from + 9 };
    let report = Audit::run(&world.source(), options, &mut ()).await.unwrap();
    assert!(report.is_clean(), "{:?}", report.divergences);
    assert_eq!(report.checked.blocks, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_that_cannot_be_made_says_why() {
    let world = World::start(&Faults::new()).await;
    let head = world.head().await;
    let audit = async |from, to, change: fn(&mut assay_bindings::Deployment)| {
        let mut deployment = world.deployment.clone();
        change(&mut deployment);
        Audit::run(&world.source(), Options { deployment, from, to }, &mut ()).await.unwrap_err()
    };
    let same = |_: &mut assay_bindings::Deployment| {};
    assert!(matches!(audit(1, head + 1, same).await, AuditError::NoRange { .. }));
    assert!(matches!(audit(5, 4, same).await, AuditError::NoRange { .. }));
    let error = audit(1, 3, same).await;
    assert!(matches!(error, AuditError::NotDeployed { contract: "ModelRegistry", to: 3, .. }));
    let nowhere = |to: &mut assay_bindings::Deployment| to.queue = Address::repeat_byte(9);
    let error = audit(1, head, nowhere).await;
    assert!(matches!(error, AuditError::NotDeployed { contract: "SessionQueue", .. }));
    // Contracts are there, but others.
    let mixed = |to: &mut assay_bindings::Deployment| to.parameters = to.models;
    let error = audit(1, head, mixed).await;
    assert!(matches!(error, AuditError::OtherVersion { .. }));
}
