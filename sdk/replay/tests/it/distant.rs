//! Chains that are no development chains: the state before the range comes from proofs.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use alloy::consensus::constants::EMPTY_ROOT_HASH;
use alloy::primitives::{B256, U256, keccak256};
use alloy::sol_types::SolValue;
use assay_replay::{Audit, AuditError, Explainer, Options, Report, Rule, Source, Subject};
use serde_json::{Value, json};

use crate::liar::{REFUSED, balance_slot, set_storage, source_with};
use crate::resume::Watch;
use crate::world::World;

/// Makes the embedded chain look like any node of a public chain.
fn disguised(
    world: &World,
    lie: impl Fn(&str, &Value, &mut Value) + Send + Sync + 'static,
) -> Source {
    source_with(world, move |method, params, result| {
        match method {
            "web3_clientVersion" => *result = json!("Geth/v1.16.7-stable/linux-amd64"),
            "debug_dumpBlock" => panic!("a public chain's beginning is not asked for"),
            _ => lie(method, params, result),
        };
    })
}

fn honest(_: &str, _: &Value, _: &mut Value) {}

async fn audit(world: &World, source: &Source, from: u64) -> Result<Report, AuditError> {
    let options = Options { deployment: world.deployment.clone(), from, to: world.head().await };
    Audit::run(source, options, &mut ()).await
}

/// A network among others with a past, and the first block of a range in which much happens.
async fn busy() -> (World, u64) {
    let mut world = World::start_among_others().await;
    let session = world.live().await;
    let task = world.submit(session, 1).await;
    world.mine(3).await;
    let from = world.head().await + 1;
    world.strangers(7).await;
    world.lie(task).await;
    let session = world.live().await;
    world.strangers(8).await;
    let task = world.answered(session).await;
    world.settle(&[task]).await;
    (world, from)
}

fn untrue(outcome: Result<Report, AuditError>, words: &str) {
    match outcome {
        Err(AuditError::Untrue { what, .. }) => assert!(what.contains(words), "{what}"),
        Err(error) => panic!("{error}"),
        Ok(report) => panic!("{:?}", report.divergences),
    }
}

/// The same is checked as by a replay from the chain's beginning, and nothing diverges.
#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_audited_from_the_proven_state_before_it() {
    let (world, from) = busy().await;
    let proofs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&proofs);
    let source = disguised(&world, move |method, _, _| {
        if method == "eth_getProof" {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let report = audit(&world, &source, from).await.unwrap();
    assert!(report.is_clean(), "{:?}", report.divergences);
    assert!(proofs.load(Ordering::Relaxed) > 20);
    let whole = audit(&world, &world.source(), from).await.unwrap();
    let (is, due) = (report.checked, whole.checked);
    assert_eq!(is.blocks, world.head().await - from + 1);
    assert_eq!(
        (is.blocks, is.transactions, is.gas, is.logs),
        (due.blocks, due.transactions, due.gas, due.logs)
    );
    assert_eq!((is.calls, is.storage_hashes), (due.calls, due.storage_hashes));
    assert_eq!(is.state_roots, is.blocks);
    assert!(is.calls > 15 && is.penalties >= 1);
    assert!(report.notes.iter().any(|note| note.contains("compare it with one that you trust")));
    assert_eq!(report.from, from);
}

/// What was read and audited before is not asked for again, and the report is that of an audit that nobody interrupted.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_audit_from_proofs_goes_on() {
    let (world, from) = busy().await;
    let (head, folder) = (world.head().await, tempfile::tempdir().unwrap());
    let middle = (from + head) / 2;
    let options = |from| Options { deployment: world.deployment.clone(), from, to: head };
    for asked in [from, 1] {
        let source = disguised(&world, honest);
        let mut expected = Watch::default();
        let whole = Audit::run(&source, options(asked), &mut expected).await.unwrap();
        for to in [from, middle] {
            let mut audit =
                Audit::resume(&source, options(asked), folder.path(), &mut ()).await.unwrap();
            assert!(audit.advance(&source, to, &mut ()).await.unwrap());
            assert!(audit.keeps_place());
            audit.save().unwrap();
        }
        let again = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = Arc::clone(&again);
        let source = disguised(&world, move |method, params, _| {
            let number = params.get(0).and_then(Value::as_str).unwrap_or_default();
            let number = number.strip_prefix("0x").map(|hex| u64::from_str_radix(hex, 16));
            if let ("eth_getBlockByNumber", Some(Ok(number))) = (method, number) {
                seen.lock().unwrap().insert(number);
            }
        });
        let mut told = Watch::default();
        let mut audit =
            Audit::resume(&source, options(asked), folder.path(), &mut told).await.unwrap();
        assert_eq!(audit.report().to, middle);
        assert!(audit.advance(&source, head, &mut told).await.unwrap());
        assert_eq!(audit.finish(&source).await.unwrap(), whole);
        assert_eq!(told, expected);
        let earlier: Vec<u64> = again.lock().unwrap().range(..=middle).copied().collect();
        assert_eq!(earlier, [0, middle], "only to see that it is the same chain");
    }
}

/// Without a range it begins when all contracts stand; before that there is nothing to be audited.
#[tokio::test(flavor = "multi_thread")]
async fn the_whole_life_of_a_network_is_audited() {
    let mut world = World::start_among_others().await;
    let session = world.live().await;
    let source = disguised(&world, honest);
    let report = audit(&world, &source, 1).await.unwrap();
    assert!(report.is_clean(), "{:?}", report.divergences);
    assert!(report.from > 24 && report.from < world.head().await && report.checked.tasks >= 4);
    let mut explainer = Explainer::new(Subject::Node(1));
    let from = world.head().await;
    let options = Options { deployment: world.deployment.clone(), from, to: from };
    assert!(Audit::run(&source, options, &mut explainer).await.unwrap().is_clean());
    // What was before the range is told, too.
    assert!(explainer.lines().any(|line| line.text.contains("was registered")));
    assert!(session > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_proven_wrong_is_refused() {
    let (world, from) = busy().await;
    let change = |kind: &'static str| {
        disguised(&world, move |method, params, result| {
            let slots = params[1].as_array().map_or(0, Vec::len);
            match (kind, method) {
                ("code", "eth_getCode") => *result = json!("0x6001"),
                ("balance", "eth_getProof") => {
                    let nodes = result["accountProof"].as_array_mut().unwrap();
                    let text = nodes.last().unwrap().as_str().unwrap().to_owned();
                    let digit = if text.ends_with('0') { '1' } else { '0' };
                    *nodes.last_mut().unwrap() =
                        json!(format!("{}{digit}", &text[..text.len() - 1]));
                }
                ("node", "eth_getProof") => {
                    _ = result["accountProof"].as_array_mut().unwrap().remove(1)
                }
                ("value", "eth_getProof") if slots > 0 => {
                    result["storageProof"][0]["value"] = json!("0x777");
                }
                // Each answer is right, and for another slot than was asked for.
                ("other slot", "eth_getProof") if slots > 1 => {
                    result["storageProof"].as_array_mut().unwrap().truncate(1);
                }
                _ => {}
            }
        })
    };
    for (kind, words) in [
        ("code", "the code has hash"),
        ("balance", "the proof lacks the node"),
        ("node", "the proof lacks the node"),
        ("value", "by its proof, not 0x777"),
        ("other slot", "the proof lacks the node"),
    ] {
        untrue(audit(&world, &change(kind), from).await, words);
    }
}

/// What happened before the range cannot be told otherwise, nor left out.
#[tokio::test(flavor = "multi_thread")]
async fn a_past_that_is_told_wrong_is_found() {
    let (world, from) = busy().await;
    let receipts = disguised(&world, |method, _, result| {
        if method == "eth_getBlockReceipts" {
            for receipt in result.as_array_mut().unwrap() {
                receipt["logs"].as_array_mut().unwrap().pop();
            }
        }
    });
    untrue(audit(&world, &receipts, from).await, "receipts are not those of its header");
    // A block without events has another header, and so another hash.
    let (mut hidden, none) = (0, json!(format!("0x{}", "0".repeat(512))));
    for number in from - 24..from {
        let changed = Arc::new(AtomicUsize::new(0));
        let (wanted, none, told) =
            (json!(format!("{number:#x}")), none.clone(), Arc::clone(&changed));
        let source = disguised(&world, move |method, params, result| {
            if method == "eth_getBlockByNumber"
                && params[0] == wanted
                && result["logsBloom"] != none
            {
                result["logsBloom"] = none.clone();
                result["receiptsRoot"] = json!(EMPTY_ROOT_HASH);
                told.store(1, Ordering::Relaxed);
            }
        });
        let outcome = audit(&world, &source, from).await;
        if changed.load(Ordering::Relaxed) > 0 {
            untrue(outcome, "its parent is not");
            hidden += 1;
        }
    }
    assert!(hidden > 8, "{hidden}");
    // The contracts are said to be younger than they are, so that the oldest events are not looked for.
    let younger = disguised(&world, move |method, params, result| {
        let block = params[1].as_str().and_then(|digits| digits.strip_prefix("0x"));
        let block = block.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        if method == "eth_getCode" && block.is_some_and(|block| block < from - 5) {
            *result = json!("0x");
        }
    });
    untrue(audit(&world, &younger, from).await, "stands there by its proof");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_changed_by_hand_in_the_range_is_found() {
    let (mut world, from) = busy().await;
    let payment = world.deployment.payment;
    let untouched = keccak256((B256::repeat_byte(0x66), U256::from(3)).abi_encode());
    set_storage(&world, payment, untouched, 1_000_000).await;
    world.mine(1).await;
    world.strangers(9).await;
    let report = audit(&world, &disguised(&world, honest), from).await.unwrap();
    let rules: Vec<_> = report.divergences.iter().map(|found| found.rule).collect();
    assert_eq!(rules, [Rule::State, Rule::StorageHash], "{:?}", report.divergences);
    let slot = balance_slot(&world, world.router.address()).await;
    set_storage(&world, payment, slot, 5).await;
    let session = world.session().await;
    let task = world.answered(session).await;
    world.settle(&[task]).await;
    let report = audit(&world, &disguised(&world, honest), from).await.unwrap();
    assert!(
        report.divergences.iter().any(|found| found.rule == Rule::Storage),
        "{:?}",
        report.divergences
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_cannot_be_audited_says_why() {
    let (world, from) = busy().await;
    let refuse = |wanted: &'static str, code: i64| {
        disguised(&world, move |method, _, result| {
            if method == wanted {
                *result = json!({ REFUSED: { "code": code, "message": "not here" } });
            }
        })
    };
    let error = audit(&world, &refuse("eth_getProof", -32_601), from).await.unwrap_err();
    assert!(matches!(error, AuditError::NoProofs { .. }), "{error}");
    let error = audit(&world, &refuse("eth_getProof", -32_000), from).await.unwrap_err();
    assert!(matches!(error, AuditError::NoState { block, .. } if block == from - 1), "{error}");
    let error =
        audit(&world, &disguised(&world, honest), world.head().await + 1).await.unwrap_err();
    assert!(matches!(error, AuditError::NoRange { .. }), "{error}");
    let early = Options { deployment: world.deployment.clone(), from: 1, to: 8 };
    let error = Audit::run(&disguised(&world, honest), early, &mut ()).await.unwrap_err();
    assert!(matches!(error, AuditError::NotDeployed { to: 8, .. }), "{error}");
    let deposit = disguised(&world, move |method, params, result| {
        if method == "eth_getBlockByNumber"
            && params[0] == json!(format!("{from:#x}"))
            && params[1] == true
        {
            result["transactions"][0]["type"] = json!("0x7e");
        }
    });
    let error = audit(&world, &deposit, from).await.unwrap_err();
    assert!(
        matches!(error, AuditError::Unsupported { block, index: 0, kind: 0x7e } if block == from),
        "{error}"
    );
    assert!(error.to_string().contains("OP stack"), "{error}");
    let work = disguised(&world, move |method, params, result| {
        if method == "eth_getBlockByNumber" && params[0] == json!(format!("{from:#x}")) {
            result["difficulty"] = json!("0x1");
        }
    });
    let error = audit(&world, &work, from).await.unwrap_err();
    assert!(matches!(error, AuditError::Rules { block } if block == from), "{error}");
    let parent = disguised(&world, move |method, params, result| {
        if method == "eth_getBlockByNumber" && params[0] == json!(format!("{:#x}", from - 5)) {
            result["gasUsed"] = json!("0x7");
        }
    });
    untrue(audit(&world, &parent, from).await, "its parent is not");
}

/// anvil that began with others' accounts: its proofs hold, its roots after a block do not, and what is stored at the end
/// is proven.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_chain_on_anvil_is_audited_by_its_proofs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("genesis.json");
    let genesis = json!({
        "config": { "chainId": 31337 },
        "nonce": "0x0", "timestamp": "0x6b000000", "extraData": "0x", "gasLimit": "0x1c9c380", "difficulty": "0x0",
        "mixHash": B256::ZERO, "coinbase": "0x0000000000000000000000000000000000000000",
        "alloc": {
            "00000000000000000000000000000000000000aa": { "balance": "0x1234" },
            "00000000000000000000000000000000000000bb": {
                "balance": "0x0", "code": "0x6001600055", "storage": { (B256::ZERO.to_string()): B256::repeat_byte(7) },
            },
        },
    });
    std::fs::write(&path, genesis.to_string()).unwrap();
    let mut world = World::start_on_anvil_among_others(&path).await;
    let session = world.live().await;
    let from = world.head().await + 1;
    world.strangers(7).await;
    let task = world.answered(session).await;
    world.settle(&[task]).await;
    let report = audit(&world, &world.source(), from).await.unwrap();
    assert!(report.is_clean(), "{:?}", report.divergences);
    assert!(report.checked.calls > 1 && report.checked.state_roots == 0);
    assert_eq!(report.checked.blocks, world.head().await - from + 1);
    let lying = source_with(&world, |method, _, result| {
        if method == "eth_getProof" && result["storageProof"][0]["proof"].is_array() {
            _ = result["storageProof"][0]["proof"].as_array_mut().unwrap().pop();
        }
    });
    untrue(audit(&world, &lying, from).await, "the proof lacks the node");
    let slot = balance_slot(&world, world.router.address()).await;
    set_storage(&world, world.deployment.payment, slot, 5).await;
    world.mine(1).await;
    // The storage alone tells: a lie about views does not help.
    let report = audit(&world, &world.source(), from).await.unwrap();
    let found = report.divergences.first().unwrap();
    assert_eq!(found.rule, Rule::Storage);
    assert!(found.what.contains(&world.router.address().to_string()), "{found}");
}
