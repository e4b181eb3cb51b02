//! Contracts with a fault, deployed like any others: their own code does what it should not.

use alloy::hex;
use assay_harness::{Change, compile_changed};
use assay_replay::{Divergence, Report, Rule};

use crate::world::{Faults, World};

/// A network in which the code of one contract is compiled with some text changed.
async fn with_fault(contract: &'static str, changes: &'static [Change]) -> World {
    let compiled = tokio::task::spawn_blocking(move || compile_changed(contract, changes));
    let code = hex::decode(compiled.await.unwrap().unwrap().bytecode).unwrap();
    World::start(&Faults::from([(contract, code.into())])).await
}

/// The first divergence beside the one that tells of the other code.
fn first<'a>(report: &'a Report, contract: &str) -> &'a Divergence {
    let (code, mut others): (Vec<_>, Vec<_>) =
        report.divergences.iter().partition(|found| found.rule == Rule::Code);
    assert!(code.iter().any(|found| found.contract.as_ref().unwrap().0 == contract));
    assert!(!others.is_empty(), "{:?}", report.divergences);
    others.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fee_that_is_rounded_down_is_found() {
    let change = Change {
        file: "libraries/Fees.sol",
        from: "(millionfold + PRICED_TOKENS - 1) / PRICED_TOKENS",
        to: "millionfold / PRICED_TOKENS",
    };
    let mut world = with_fault("SessionQueue", Box::leak(Box::new([change]))).await;
    let session = world.session().await;
    let task = world.submit(session, 1).await;
    let report = world.audit().await;
    let found = first(&report, "SessionQueue");
    assert_eq!((found.rule, found.task), (Rule::Rules, Some(task)));
    assert_eq!(found.amount.as_deref(), Some("-1"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_is_made_twice_is_found() {
    let change = Change {
        file: "SessionPayment.sol",
        from: "balanceOf[account][asset] += amount;\n                emit",
        to: "balanceOf[account][asset] += 2 * amount;\n                emit",
    };
    let mut world = with_fault("SessionPayment", Box::leak(Box::new([change]))).await;
    let session = world.session().await;
    let task = world.answered(session).await;
    let transaction = world.settle(&[task]).await;
    let report = world.audit().await;
    let found = first(&report, "SessionPayment");
    assert_eq!((found.rule, found.task), (Rule::Storage, Some(task)), "{found}");
    assert_eq!(found.transaction, Some(transaction));
    assert!(found.what.starts_with("the balance of"));
    assert!(found.amount.as_ref().unwrap().starts_with('+'));
}

/// The contract tells of the punishment and takes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_slash_that_takes_nothing_is_found() {
    let change =
        Change { file: "SessionPayment.sol", from: "stakeOf[nodeId] = stake_ - amount;", to: "" };
    let mut world = with_fault("SessionPayment", Box::leak(Box::new([change]))).await;
    let session = world.session().await;
    let task = world.submit(session, 1).await;
    let node = world.lie(task).await;
    let report = world.audit().await;
    let found = first(&report, "SessionPayment");
    assert_eq!((found.rule, found.node), (Rule::Storage, Some(node)), "{found}");
    assert_eq!(found.what, format!("the stake of node {node}"));
    // Half of the stake of two places.
    assert_eq!(found.amount.as_deref(), Some("+100000000000000000000"));
}

/// The contract does not punish at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_slash_that_is_skipped_is_found() {
    let change = Change {
        file: "SessionPayment.sol",
        from: "if (evidence.rule == Rule.None) revert SessionPayment_NoEvidence(nodeId);",
        to: "if (evidence.rule != Rule.None) return;",
    };
    let mut world = with_fault("SessionPayment", Box::leak(Box::new([change]))).await;
    let session = world.session().await;
    let task = world.submit(session, 1).await;
    let node = world.lie(task).await;
    let report = world.audit().await;
    let found = first(&report, "SessionPayment");
    assert_eq!(found.what, "Slashed is missing");
    assert_eq!((found.rule, found.task, found.node), (Rule::Rules, Some(task), Some(node)));
    assert_eq!(found.amount.as_deref(), Some("-100000000000000000000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_forged_is_found() {
    let change = Change {
        file: "SessionPayment.sol",
        from: "_credit(keeper, asset, tip);\n    }",
        to: "_credit(keeper, asset, tip);\n        emit Credited(keeper, asset, 777);\n    }",
    };
    let mut world = with_fault("SessionPayment", Box::leak(Box::new([change]))).await;
    let session = world.session().await;
    let task = world.silent(session).await;
    let report = world.audit().await;
    let found = first(&report, "SessionPayment");
    assert_eq!((found.rule, found.task), (Rule::Rules, Some(task)), "{found}");
    assert_eq!(found.what, "Credited without a reason");
    assert_eq!(found.amount.as_deref(), Some("+777"));
}

/// The draw looks at other places than its seed says.
#[tokio::test(flavor = "multi_thread")]
async fn a_draw_over_a_rearranged_pool_is_found() {
    let change = Change {
        file: "NodePool.sol",
        from: "uint32(uint128(hash) % draw.slots)",
        to: "uint32((uint128(hash) + 3) % draw.slots)",
    };
    let mut world = with_fault("NodePool", Box::leak(Box::new([change]))).await;
    let session = world.session().await;
    let report = world.audit().await;
    let found = first(&report, "NodePool");
    assert_eq!((found.rule, found.session), (Rule::Rules, Some(session)), "{found}");
    assert!(found.what.starts_with("NodeReserved"), "{found}");
    assert!(!report.complete || !report.is_clean());
}
