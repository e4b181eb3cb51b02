//! Networks with which nothing is wrong, and audits that cannot be made.

use alloy::primitives::{Address, U256};
use alloy::providers::Provider;
use assay_replay::{Audit, AuditError, Explainer, Options, Subject};

use crate::world::{Faults, World, key};

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
    let named = world.deployment.named().len() as u64;
    // Each twice, and the second half of the queue.
    assert_eq!(checked.contracts, 2 * (named + 1));
    assert!(checked.draws >= 1 && checked.rounds >= 2 && checked.penalties == 2);
    assert!(checked.tasks == 5 && checked.payments >= 8 && checked.deadlines > 5);
    assert!(
        checked.storage_hashes == 2 * named && checked.stored_values > 400 && checked.funds > 10
    );
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

/// anvil's roots are its own; what the contracts store there is asked for, value by value.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_on_anvil_is_audited_by_its_values() {
    let mut world = World::start_on_anvil().await;
    world.live().await;
    let report = world.audit().await;
    assert!(report.is_clean(), "{:?}", report.divergences);
    assert_eq!((report.notes.len(), report.checked.state_roots), (1, 0));
    assert!(report.checked.stored_values > 500 && report.checked.calls > 15);
    // `assay up` on anvil gives its accounts their gas money so.
    let stranger = key("stranger");
    let gift = (stranger.address(), U256::from(10_u64.pow(19)));
    let _: serde_json::Value =
        world.provider.raw_request("anvil_setBalance".into(), gift).await.unwrap();
    world.transact(&stranger, Address::repeat_byte(2).into(), Default::default()).await;
    let report = world.audit().await;
    assert!(report.is_clean() && report.notes.len() == 2, "{:?}", report.divergences);
    let slot = crate::liar::balance_slot(&world, world.router.address()).await;
    crate::liar::set_storage(&world, world.deployment.payment, slot, 5).await;
    let report = world.audit().await;
    let found = report.divergences.last().unwrap();
    assert_eq!(found.rule, assay_replay::Rule::Storage);
    assert!(found.what.contains(&world.router.address().to_string()), "{found}");
}

/// What happened to a task and to a node is told in words, with the amounts.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_and_a_node_are_explained() {
    let mut world = World::start(&Faults::new()).await;
    let session = world.session().await;
    let task = world.answered(session).await;
    world.settle(&[task]).await;
    let node = world.task(task).parts[0].nodeId;
    world.lie(task).await;
    let explain = async |subject| {
        let (source, deployment) = (world.source(), world.deployment.clone());
        let mut explainer = Explainer::new(subject);
        let options = Options { deployment, from: 1, to: world.head().await };
        assert!(Audit::run(&source, options, &mut explainer).await.unwrap().is_clean());
        let lines = explainer.lines().map(|line| line.text.clone());
        lines.collect::<Vec<_>>().join("\n")
    };
    let told = explain(Subject::Task(task)).await;
    for words in ["was submitted in lane 1", "serve it", "rounded up", "(90 %)", "was punished"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let told = explain(Subject::Node(node)).await;
    for words in ["was registered", "places", "by draw 1", "staked 200 COR", "It loses 100 COR"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(told.contains("went from Ephemeral to Jailed"), "{told}");
}

/// A page is whole, and says the same as the text.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_a_page_and_a_text() {
    let world = World::start(&Faults::new()).await;
    let mut report = world.audit().await;
    let (page, text) = (report.html(), report.text());
    assert!(page.contains("Everything is as the protocol says") && page.ends_with("</html>\n"));
    assert!(text.contains("everything is as the protocol says"));
    let values = ("<b>one</b>", "another");
    report.diverges(assay_replay::Divergence::new(assay_replay::Rule::Content, "a thing", values));
    let (page, text) = (report.html(), report.text());
    assert!(page.contains("1 divergence") && page.contains("&lt;b&gt;one&lt;/b&gt;"));
    assert!(text.contains("Divergence 1: a thing") && !page.contains("<b>one"));
    let back: assay_replay::Report =
        serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(back, report);
}
