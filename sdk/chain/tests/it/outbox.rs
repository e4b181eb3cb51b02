use std::collections::BTreeSet;
use std::sync::Arc;

use alloy::consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy::eips::eip2718::Encodable2718;
use alloy::network::{TransactionBuilder, TxSignerSync};
use alloy::primitives::{Address, B256, Bytes, U256, hex};
use alloy::providers::Provider;
use alloy::rpc::types::TransactionRequest;
use alloy::signers::local::PrivateKeySigner;
use assay_chain::{Chain, Database, Intent, Outbox, OutboxError, OutboxStatus};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::world::{PATIENCE, World, succeeded};

async fn count(world: &World, address: Address) -> u64 {
    world.provider.get_transaction_count(address).await.unwrap()
}

#[tokio::test]
async fn several_in_flight_get_a_nonce_each() {
    let world = World::new(true).await;
    let outbox = world.outbox("a").await;
    let mut sends = JoinSet::new();
    for nonce in 0..12 {
        let (outbox, intent) = (outbox.clone(), world.emit(nonce));
        sends.spawn(async move { outbox.send(intent).await.unwrap() });
    }
    let receipts = sends.join_all().await;
    assert!(receipts.iter().all(succeeded));
    let hashes: BTreeSet<B256> = receipts.iter().map(|receipt| receipt.transaction_hash).collect();
    assert_eq!(hashes.len(), 12);
    assert_eq!(count(&world, outbox.address()).await, 12);
    assert_eq!(outbox.status().unwrap(), OutboxStatus { mined: 12, ..Default::default() });
}

#[tokio::test]
async fn several_in_flight_are_mined_in_one_block() {
    let world = World::new(false).await;
    let outbox = world.outbox("a").await;
    let mut sends = JoinSet::new();
    for nonce in 0..5 {
        let (outbox, intent) = (outbox.clone(), world.emit(nonce));
        sends.spawn(async move { outbox.send(intent).await.unwrap() });
    }
    while outbox.status().unwrap().sent < 5 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    world.mine().await;
    let receipts = sends.join_all().await;
    let blocks: BTreeSet<_> = receipts.iter().map(|receipt| receipt.block_number).collect();
    assert_eq!(blocks.len(), 1);
}

#[tokio::test]
async fn one_key_is_one_transaction() {
    let world = World::new(true).await;
    let outbox = world.outbox("a").await;
    let (one, two) = tokio::join!(outbox.send(world.emit(1)), outbox.send(world.emit(1)));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.transaction_hash, two.transaction_hash);
    let again = outbox.send(world.emit(1)).await.unwrap();
    assert_eq!(again.transaction_hash, one.transaction_hash);
    assert_eq!(count(&world, outbox.address()).await, 1);
    // The same key for another call would hide one of the two.
    let other = Intent { key: "emit:1".into(), ..world.emit(2) };
    assert!(matches!(outbox.send(other).await, Err(OutboxError::KeyReused { .. })));
}

/// An agent that was killed while it sent counts its next try anew: the first is still under way.
#[tokio::test]
async fn the_same_call_under_another_key_waits_and_is_refused_if_it_is_done() {
    let world = World::new(false).await;
    let outbox = world.outbox("a").await;
    let mut sends = JoinSet::new();
    for attempt in 1..=3 {
        let (outbox, intent) = (outbox.clone(), world.once(&format!("commit:7:{attempt}")));
        sends.spawn(async move { outbox.send(intent).await });
    }
    while outbox.status().unwrap().sent < 1 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    world.mine().await;
    let results = sends.join_all().await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for error in results.into_iter().filter_map(Result::err) {
        assert!(matches!(error, OutboxError::Reverted { tx_hash: None, .. }), "{error}");
    }
    assert_eq!(count(&world, outbox.address()).await, 1);
}

/// What may be done twice is.
#[tokio::test]
async fn the_same_call_under_another_key_is_made_again_if_the_contract_takes_it() {
    let world = World::new(true).await;
    let outbox = world.outbox("a").await;
    let again = Intent { key: "again".into(), ..world.emit(1) };
    let (one, two) = tokio::join!(outbox.send(world.emit(1)), outbox.send(again));
    assert_ne!(one.unwrap().transaction_hash, two.unwrap().transaction_hash);
    assert_eq!(world.effects(1).await, 2);
}

/// While a block is waited for, one of them sees the transaction through, and the other one waits for it.
#[tokio::test]
async fn two_wait_for_one_transaction() {
    /// Long enough that both have looked for the receipt several times.
    const SEVERAL_LOOKS: std::time::Duration = std::time::Duration::from_millis(500);
    let world = World::new(false).await;
    let outbox = world.outbox("a").await;
    let block = async {
        tokio::time::sleep(SEVERAL_LOOKS).await;
        world.mine().await;
    };
    let sends = [outbox.send(world.emit(1)), outbox.send(world.emit(1))];
    let (receipts, ()) = tokio::join!(futures::future::try_join_all(sends), block);
    let receipts = receipts.unwrap();
    assert_eq!(receipts[0].transaction_hash, receipts[1].transaction_hash);
    assert_eq!(count(&world, outbox.address()).await, 1);
}

#[tokio::test]
async fn a_refusal_while_estimating_is_decoded_and_uses_no_nonce() {
    let world = World::new(true).await;
    let outbox = world.outbox("a").await;
    let error = outbox.send(world.refused("commit:7")).await.unwrap_err();
    let OutboxError::Reverted { key, reason, tx_hash } = &error else { panic!("{error}") };
    assert_eq!((key.as_str(), *tx_hash), ("commit:7", None));
    assert!(reason.starts_with("SessionQueue_UnknownTask(taskId: 0x0707"), "{reason}");
    assert!(!error.is_retryable());
    assert_eq!(outbox.status().unwrap(), OutboxStatus::default());
    // The key is free, and the next transaction has the first nonce.
    let intent = Intent { key: "commit:7".into(), ..world.emit(1) };
    assert!(succeeded(&outbox.send(intent).await.unwrap()));
    assert_eq!(count(&world, outbox.address()).await, 1);
}

#[tokio::test]
async fn a_race_that_was_lost_in_the_block_is_decoded() {
    let world = World::new(false).await;
    let (winner, loser) = (world.outbox("a").await, world.outbox("b").await);
    let mut sends = JoinSet::new();
    for outbox in [winner.clone(), loser.clone()] {
        let intent = world.once("capture:1");
        sends.spawn(async move { outbox.send(intent).await });
    }
    while winner.status().unwrap().sent + loser.status().unwrap().sent < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    world.mine().await;
    let results = sends.join_all().await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let error = results.into_iter().find_map(Result::err).unwrap();
    let OutboxError::Reverted { reason, tx_hash: Some(_), .. } = &error else { panic!("{error}") };
    assert!(reason.starts_with("SessionQueue_UnknownTask"), "{reason}");
    // The same key gives the same result for ever.
    for outbox in [winner, loser] {
        let again = outbox.send(world.once("capture:1")).await;
        assert_eq!(again.is_ok(), outbox.status().unwrap().mined == 1);
    }
}

#[tokio::test]
async fn an_empty_account_is_told_where_to_get_gas() {
    let world = World::new(true).await;
    let signer = PrivateKeySigner::random();
    let address = signer.address();
    let outbox = Outbox::new(world.chain().await, signer, world.database("a")).await.unwrap();
    let error = outbox.send(world.emit(1)).await.unwrap_err();
    let OutboxError::Unfunded { address: named, needed, balance } = &error else {
        panic!("{error}")
    };
    assert_eq!((*named, *balance), (address, U256::ZERO));
    assert!(*needed > U256::ZERO);
    assert!(error.is_retryable() && error.to_string().contains(&address.to_string()));
    let too_much = Intent { value: U256::from(10).pow(U256::from(19)), ..world.emit(2) };
    assert!(matches!(outbox.send(too_much).await, Err(OutboxError::Unfunded { .. })));
    // Nothing was stored: after funding the same intent goes through.
    world.fund(address).await;
    assert!(succeeded(&outbox.send(world.emit(1)).await.unwrap()));
}

#[tokio::test]
async fn what_was_signed_and_never_sent_is_sent_after_a_restart() {
    let world = World::new(false).await;
    let signer = PrivateKeySigner::random();
    world.fund(signer.address()).await;
    let db = world.database("a");
    // An earlier life stores two transactions, which the node then forgets with the snapshot.
    let outbox = Outbox::new(world.chain().await, signer.clone(), db.clone()).await.unwrap();
    let snapshot: String = world.rpc("evm_snapshot", ()).await;
    let mut sends = JoinSet::new();
    for nonce in 0..2 {
        let (outbox, intent) = (outbox.clone(), world.emit(nonce));
        sends.spawn(async move { outbox.send(intent).await });
    }
    while outbox.status().unwrap().sent < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    sends.abort_all();
    while sends.join_next().await.is_some() {}
    world.go_back(snapshot).await;
    db.transaction(|tx| tx.execute("UPDATE outbox SET state = 'signed'", [])).unwrap();
    drop(outbox);
    world.mine().await;
    assert_eq!(count(&world, signer.address()).await, 0);

    let outbox = Outbox::new(world.chain().await, signer.clone(), db).await.unwrap();
    let stop = CancellationToken::new();
    let mut service = JoinSet::new();
    service.spawn(outbox.clone().run(stop.clone()));
    while outbox.status().unwrap().sent < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    world.mine().await;
    let receipt =
        tokio::time::timeout(PATIENCE, outbox.send(world.emit(1))).await.unwrap().unwrap();
    assert!(succeeded(&receipt));
    assert_eq!(count(&world, signer.address()).await, 2);
    stop.cancel();
    service.join_next().await.unwrap().unwrap().unwrap();
}

/// Leaves a stored transaction behind whose signed version has this gas limit and this fee.
async fn leave_behind(
    world: &World,
    signer: &PrivateKeySigner,
    gas_limit: u64,
    fee: u128,
) -> Arc<Database> {
    let db = world.database("a");
    let outbox = Outbox::new(world.chain().await, signer.clone(), db.clone()).await.unwrap();
    let snapshot: String = world.rpc("evm_snapshot", ()).await;
    let mut send = JoinSet::new();
    let (sender, intent) = (outbox.clone(), world.emit(1));
    send.spawn(async move { sender.send(intent).await });
    while outbox.status().unwrap().sent < 1 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    send.shutdown().await;
    world.go_back(snapshot).await;
    let intent = world.emit(1);
    let mut tx = TxEip1559 {
        chain_id: 31337,
        nonce: 0,
        gas_limit,
        max_fee_per_gas: fee,
        max_priority_fee_per_gas: fee,
        to: intent.to.into(),
        input: intent.data,
        ..Default::default()
    };
    let signature = signer.sign_transaction_sync(&mut tx).unwrap();
    let tx: TxEnvelope = tx.into_signed(signature).into();
    let (hash, raw, fee) = (tx.tx_hash().to_vec(), tx.encoded_2718(), fee.to_string());
    db.transaction(|sql| {
        sql.execute("UPDATE outbox SET state = 'signed'", [])?;
        sql.execute(
            "UPDATE outbox_attempts SET hash = ?, raw = ?, max_fee = ?, max_tip = ?",
            (hash, raw, &fee, &fee),
        )
    })
    .unwrap();
    db
}

#[tokio::test]
async fn what_pays_too_little_is_signed_again_with_higher_fees() {
    let world = World::new(false).await;
    let signer = PrivateKeySigner::random();
    world.fund(signer.address()).await;
    let db = leave_behind(&world, &signer, 200_000, 1).await;
    let _: serde_json::Value = world.rpc("evm_setAutomine", (true,)).await;
    let outbox = Outbox::new(world.chain().await, signer, db.clone()).await.unwrap();
    let sent = tokio::time::timeout(PATIENCE, outbox.send(world.emit(1))).await.unwrap().unwrap();
    assert!(succeeded(&sent));
    let attempts: i64 = db
        .transaction(|tx| {
            tx.query_row("SELECT COUNT(*) FROM outbox_attempts", [], |row| row.get(0))
        })
        .unwrap();
    assert_eq!(attempts, 2);
    assert_eq!(count(&world, outbox.address()).await, 1);
}

#[tokio::test]
async fn what_the_node_never_takes_is_given_up_and_its_nonce_used() {
    let world = World::new(false).await;
    let signer = PrivateKeySigner::random();
    world.fund(signer.address()).await;
    let db = leave_behind(&world, &signer, 20_000, 10_000_000_000).await;
    let _: serde_json::Value = world.rpc("evm_setAutomine", (true,)).await;
    let outbox = Outbox::new(world.chain().await, signer, db).await.unwrap();
    let send = outbox.send(world.emit(1));
    let error = tokio::time::timeout(PATIENCE, send).await.unwrap().unwrap_err();
    let OutboxError::Refused { key, reason } = &error else { panic!("{error}") };
    assert!(key == "emit:1" && reason.contains("intrinsic gas too low"), "{error}");
    assert_eq!(count(&world, outbox.address()).await, 1);
    // Those behind it go on.
    assert!(succeeded(&outbox.send(world.emit(2)).await.unwrap()));
}

#[tokio::test]
async fn a_database_of_another_chain_is_refused() {
    let (world, other) = (World::new(true).await, World::new(true).await);
    let signer = PrivateKeySigner::random();
    let db = world.database("a");
    drop(Outbox::new(world.chain().await, signer.clone(), db.clone()).await.unwrap());
    let error = Outbox::new(other.chain().await, signer, db).await.unwrap_err();
    assert!(error.to_string().contains("data folder") && !error.is_retryable(), "{error}");
}

#[tokio::test]
async fn a_nonce_that_somebody_else_used_is_replaced_if_the_effect_is_missing() {
    let world = World::new(false).await;
    let signer = PrivateKeySigner::random();
    world.fund(signer.address()).await;
    // The same key in two agents, which must not be but happens.
    let ours = Outbox::new(world.chain().await, signer.clone(), world.database("a")).await.unwrap();
    let theirs =
        Outbox::new(world.chain().await, signer.clone(), world.database("b")).await.unwrap();
    let mut sends = JoinSet::new();
    let (outbox, intent) = (theirs.clone(), world.emit(1));
    sends.spawn(async move { outbox.send(intent).await });
    while theirs.status().unwrap().sent < 1 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    // Underpriced against theirs at first; then theirs is mined, and the nonce is gone.
    let (outbox, intent) = (ours.clone(), world.emit(2));
    sends.spawn(async move { outbox.send(intent).await });
    while ours.status().unwrap().signed + ours.status().unwrap().sent < 1 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    world.mine().await;
    let _: serde_json::Value = world.rpc("evm_setAutomine", (true,)).await;
    let results = tokio::time::timeout(PATIENCE, sends.join_all()).await.unwrap();
    for result in results {
        assert!(succeeded(&result.unwrap()));
    }
    assert_eq!(count(&world, signer.address()).await, 2);
}

#[tokio::test]
async fn what_a_reorganisation_took_back_is_sent_again() {
    let world = World::new(true).await;
    let outbox = world.outbox("a").await;
    let snapshot: String = world.rpc("evm_snapshot", ()).await;
    outbox.send(world.emit(1)).await.unwrap();
    outbox.send(world.emit(2)).await.unwrap();
    world.go_back(snapshot).await;
    assert_eq!(count(&world, outbox.address()).await, 0);
    // The next one finds the gap.
    assert!(succeeded(&outbox.send(world.emit(3)).await.unwrap()));
    assert_eq!(count(&world, outbox.address()).await, 3);
    for nonce in [1, 2] {
        assert!(succeeded(&outbox.send(world.emit(nonce)).await.unwrap()));
    }
}

#[tokio::test]
async fn a_chain_that_is_down_stores_nothing() {
    let world = World::new(true).await;
    let signer = PrivateKeySigner::random();
    world.fund(signer.address()).await;
    let url = world.node.http_url();
    let chain = Chain::connect(&url, world.deployment.clone()).await.unwrap();
    let outbox = Outbox::new(chain, signer, world.database("a")).await.unwrap();
    let intent = world.emit(1);
    world.node.stop().await;
    let error = outbox.send(intent).await.unwrap_err();
    assert!(matches!(&error, OutboxError::Rpc { .. }) && error.is_retryable(), "{error}");
    assert_eq!(outbox.status().unwrap(), OutboxStatus::default());
}

/// What a call does may depend on what comes before it in its block: a settlement draws where a round was just revealed.
#[tokio::test]
async fn work_that_is_found_only_in_the_block_has_its_gas() {
    /// Fills three words if the first one is set, and nothing else; with data it sets the first one.
    const WORKS_ONCE_SET: [u8; 35] =
        hex!("36601c57 600054 600b57 00 5b 6001600155 6001600255 6001600355 00 5b 6001600055 00");
    const TIP: u128 = 100_000_000_000;
    let world = World::new(true).await;
    let length = WORKS_ONCE_SET.len() as u8;
    let init =
        [&[0x60, length, 0x80, 0x60, 0x0b, 0x60, 0, 0x39, 0x60, 0, 0xf3], &WORKS_ONCE_SET[..]];
    let create = TransactionRequest::default().with_deploy_code(init.concat());
    for (spare_gas, succeeds) in [(0, false), (100_000, true)] {
        let created = world.provider.send_transaction(create.clone()).await.unwrap();
        let to = created.get_receipt().await.unwrap().contract_address.unwrap();
        let outbox = world.outbox(&format!("spare {spare_gas}")).await;
        let _: serde_json::Value = world.rpc("evm_setAutomine", (false,)).await;
        let intent = Intent { spare_gas, ..Intent::call("work", to, Bytes::new()) };
        let meanwhile = async {
            while outbox.status().unwrap().sent == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            // With a higher tip it comes before.
            let set = TransactionRequest::default()
                .to(to)
                .with_input(vec![1])
                .with_gas_limit(100_000)
                .with_max_priority_fee_per_gas(TIP)
                .with_max_fee_per_gas(2 * TIP);
            let _ = world.provider.send_transaction(set).await.unwrap();
            let _: serde_json::Value = world.rpc("evm_setAutomine", (true,)).await;
            world.mine().await;
        };
        let (sent, ()) = tokio::join!(outbox.send(intent), meanwhile);
        assert_eq!(sent.as_ref().is_ok_and(succeeded), succeeds, "{sent:?}");
    }
}
