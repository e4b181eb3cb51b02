//! Audits that are interrupted and go on.

use std::{fs, path::Path};

use alloy::consensus::Header;
use alloy::primitives::B256;
use alloy::providers::Provider;
use assay_harness::{Change, compile_changed};
use assay_protocol::{ProtocolEvent, State};
use assay_replay::{Audit, AuditError, Observer, Options, Report};
use serde_json::{Value, json};

use crate::world::{Faults, World};

/// Remembers what it is told of.
#[derive(Default, PartialEq, Debug)]
pub struct Watch(Vec<(u64, B256, ProtocolEvent)>);

impl Observer for Watch {
    fn event(&mut self, header: &Header, transaction: B256, _: &State, event: &ProtocolEvent) {
        self.0.push((header.number, transaction, event.clone()));
    }
}

fn options(world: &World, to: u64) -> Options {
    Options { deployment: world.deployment.clone(), from: 1, to }
}

async fn resume(world: &World, folder: &Path, watch: &mut Watch) -> Result<Audit, AuditError> {
    let options = options(world, world.head().await);
    Audit::resume(&world.source(), options, folder, watch).await
}

/// Audits up to a block, and ends there as if it were interrupted.
async fn interrupted(world: &World, folder: &Path, at: u64) {
    let mut audit = resume(world, folder, &mut Watch::default()).await.unwrap();
    assert!(audit.advance(&world.source(), at, &mut ()).await.unwrap());
    audit.save().unwrap();
}

async fn whole(world: &World) -> (Report, Watch) {
    let mut watch = Watch::default();
    let options = options(world, world.head().await);
    (Audit::run(&world.source(), options, &mut watch).await.unwrap(), watch)
}

/// Goes on from wherever the folder says, to the end.
async fn rest(world: &World, folder: &Path, begins: u64) -> (Report, Watch) {
    let mut watch = Watch::default();
    let mut audit = resume(world, folder, &mut watch).await.unwrap();
    assert_eq!(audit.report().to, begins);
    assert!(audit.advance(&world.source(), world.head().await, &mut watch).await.unwrap());
    (audit.finish(&world.source()).await.unwrap(), watch)
}

async fn rpc(world: &World, method: &'static str, params: Value) -> Value {
    world.provider.raw_request(method.into(), params).await.unwrap()
}

/// Takes back what came after a snapshot, and mines another block in its place.
async fn reorganise(world: &World, snapshot: Value) {
    rpc(world, "evm_revert", json!([snapshot])).await;
    rpc(world, "evm_increaseTime", json!([7])).await;
    rpc(world, "evm_mine", json!([])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_audit_finds_what_a_whole_one_finds() {
    let mut world = World::start(&Faults::new()).await;
    let folder = tempfile::tempdir().unwrap();
    // Before the contracts stand, in the middle of a session, and beyond the point where tasks are forgotten.
    interrupted(&world, folder.path(), 3).await;
    let session = world.live().await;
    world.mine(130).await;
    let task = world.submit(session, 1).await;
    let head = world.head().await;
    for at in [head / 2, head - 100, head - 1] {
        interrupted(&world, folder.path(), at).await;
    }
    world.lie(task).await;
    world.mine(1).await;
    let (report, seen) = rest(&world, folder.path(), head - 1).await;
    let (expected, watch) = whole(&world).await;
    assert!(report.is_clean(), "{:?}", report.divergences);
    assert_eq!((report, seen), (expected, watch));
    // Nothing is left of an audit that is done: the next one begins anew.
    rest(&world, folder.path(), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_before_is_not_forgotten() {
    let change = Change {
        file: "libraries/Fees.sol",
        from: "(millionfold + PRICED_TOKENS - 1) / PRICED_TOKENS",
        to: "millionfold / PRICED_TOKENS",
    };
    let changes: &'static [Change] = Box::leak(Box::new([change]));
    let compiled = tokio::task::spawn_blocking(move || compile_changed("SessionQueue", changes));
    let code = alloy::hex::decode(compiled.await.unwrap().unwrap().bytecode).unwrap();
    let mut world = World::start(&Faults::from([("SessionQueue", code.into())])).await;
    let session = world.session().await;
    world.submit(session, 1).await;
    let folder = tempfile::tempdir().unwrap();
    let head = world.head().await;
    interrupted(&world, folder.path(), head).await;
    world.mine(2).await;
    let (report, _) = rest(&world, folder.path(), head).await;
    assert!(!report.is_clean());
    assert_eq!(report, whole(&world).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_refused() {
    let world = World::start(&Faults::new()).await;
    let folder = tempfile::tempdir().unwrap();
    let head = world.head().await;
    interrupted(&world, folder.path(), head).await;
    let (state, checkpoint) = (format!("state-{head}"), format!("checkpoint-{head}.json"));
    let bytes = |name: &str| fs::read(folder.path().join(name)).unwrap();
    for name in [&checkpoint, "events", &state] {
        let sound = bytes(name);
        let mut flipped = sound.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        for damaged in [&flipped[..], &sound[..middle], &[]] {
            fs::write(folder.path().join(name), damaged).unwrap();
            let refused = resume(&world, folder.path(), &mut Watch::default()).await;
            let error = refused.err().unwrap_or_else(|| panic!("{name} was taken"));
            assert!(matches!(error, AuditError::Journal { .. }), "{name}: {error}");
            assert!(error.to_string().contains("--fresh"), "{error}");
        }
        fs::write(folder.path().join(name), &sound).unwrap();
    }
    // What was damaged is forgotten on demand.
    let other = tempfile::tempdir().unwrap();
    interrupted(&world, other.path(), head).await;
    fs::write(other.path().join(&state), "damaged").unwrap();
    assay_replay::forget(other.path()).unwrap();
    assert!(rest(&world, other.path(), 0).await.0.is_clean());
    // What was written after the checkpoint is no damage.
    let more = [bytes("events"), b"half an event".to_vec()].concat();
    fs::write(folder.path().join("events"), more).unwrap();
    assert!(rest(&world, folder.path(), head).await.0.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_audit_is_not_taken_for_this_one() {
    let world = World::start(&Faults::new()).await;
    let folder = tempfile::tempdir().unwrap();
    let head = world.head().await;
    interrupted(&world, folder.path(), head).await;
    let source = world.source();
    let begins = async |options| {
        let audit = Audit::resume(&source, options, folder.path(), &mut ()).await.unwrap();
        audit.report().to
    };
    assert_eq!(begins(options(&world, head)).await, head);
    assert_eq!(begins(Options { from: 2, ..options(&world, head) }).await, 0);

    // The last blocks are replaced, and two audits go on at once.
    let snapshot = rpc(&world, "evm_snapshot", json!([])).await;
    rpc(&world, "evm_mine", json!([])).await;
    interrupted(&world, folder.path(), head + 1).await;
    reorganise(&world, snapshot).await;
    let first = resume(&world, folder.path(), &mut Watch::default()).await.unwrap();
    assert_eq!(first.report().to, 0);
    let second = resume(&world, folder.path(), &mut Watch::default()).await;
    assert!(matches!(second.err(), Some(AuditError::Busy { .. })));
}

/// A reorganisation below the newest checkpoints leads back to an older one, not to the first block; what the chain lost
/// is forgotten, and what it has instead is found.
#[tokio::test(flavor = "multi_thread")]
async fn a_deep_reorganisation_leads_back_to_an_older_checkpoint() {
    let mut world = World::start(&Faults::new()).await;
    let session = world.live().await;
    let folder = tempfile::tempdir().unwrap();
    let old = world.head().await;
    interrupted(&world, folder.path(), old).await;
    world.mine(20).await;
    let snapshot = rpc(&world, "evm_snapshot", json!([])).await;
    // The chain loses a task, and every checkpoint that was made after it.
    world.submit(session, 1).await;
    for _ in 0..12 {
        world.mine(2).await;
        interrupted(&world, folder.path(), world.head().await).await;
    }
    reorganise(&world, snapshot).await;
    world.mine(60).await;
    let (report, seen) = rest(&world, folder.path(), old).await;
    let (expected, watch) = whole(&world).await;
    assert!(report.is_clean(), "{:?}", report.divergences);
    assert_eq!((report, seen), (expected, watch));
}
