//! RPCs that lie, and states that somebody changed by hand.

use std::sync::Arc;
use std::task::{Context, Poll};

use alloy::primitives::{Address, B256, U256, keccak256};
use alloy::providers::{Provider, ProviderBuilder};
use alloy::rpc::client::RpcClient;
use alloy::sol_types::SolValue;
use alloy::transports::http::{Http, reqwest};
use alloy::transports::{TransportError, TransportFut};
use alloy_json_rpc::{RequestPacket, ResponsePacket, ResponsePayload};
use assay_replay::{AuditError, Report, Rule, Source};
use serde_json::{Value, json};
use tower::Service;

use crate::world::{Faults, World};

/// Changes the result of a call, of which it sees method and parameters.
type Lie = Arc<dyn Fn(&str, &Value, &mut Value) + Send + Sync>;

/// A result with this member is a refusal, which it holds.
pub const REFUSED: &str = "refused";

/// What is done to an answer.
type Change = fn(&mut Value);

/// A transport that lies.
#[derive(Clone)]
struct Liar {
    inner: Http<reqwest::Client>,
    lie: Lie,
}

impl Service<RequestPacket> for Liar {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, packet: RequestPacket) -> Self::Future {
        let RequestPacket::Single(request) = &packet else { panic!("one call at a time") };
        let method = request.method().to_owned();
        let params = request.params().map_or(Value::Null, |raw| raw.get().parse().unwrap());
        let (lie, mut inner) = (Arc::clone(&self.lie), self.inner.clone());
        Box::pin(async move {
            let mut answer = inner.call(packet).await?;
            if let ResponsePacket::Single(response) = &mut answer
                && let ResponsePayload::Success(raw) = &mut response.payload
            {
                let mut result: Value = raw.get().parse().unwrap();
                lie(&method, &params, &mut result);
                *raw = serde_json::value::to_raw_value(&result).unwrap();
                if let Some(refusal) = result.get(REFUSED) {
                    let refusal = serde_json::from_value(refusal.clone()).unwrap();
                    response.payload = ResponsePayload::Failure(refusal);
                }
            }
            Ok(answer)
        })
    }
}

/// The chain of a network behind an RPC that lies.
pub fn source_with(
    world: &World,
    lie: impl Fn(&str, &Value, &mut Value) + Send + Sync + 'static,
) -> Source {
    let inner = Http::new(world.url.parse().unwrap());
    let client = RpcClient::new(Liar { inner, lie: Arc::new(lie) }, true);
    let provider = ProviderBuilder::new().disable_recommended_fillers().connect_client(client);
    Source::new(provider.erased())
}

async fn audit_with(
    world: &World,
    lie: impl Fn(&str, &Value, &mut Value) + Send + Sync + 'static,
) -> Result<Report, AuditError> {
    world.try_audit(&source_with(world, lie)).await
}

/// A network with one settled task: the task, and the transaction that settled it.
async fn settled() -> (World, B256, B256) {
    let mut world = World::start(&Faults::new()).await;
    let session = world.session().await;
    let task = world.answered(session).await;
    let transaction = world.settle(&[task]).await;
    (world, task, transaction)
}

/// A change of the receipt of one transaction.
fn in_receipt(hash: B256, change: Change) -> impl Fn(&str, &Value, &mut Value) {
    move |method, _, result| {
        if method != "eth_getBlockReceipts" {
            return;
        }
        let receipts = result.as_array_mut().unwrap().iter_mut();
        let wanted = json!(hash);
        receipts.filter(|receipt| receipt["transactionHash"] == wanted).for_each(change);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lying_receipt_is_found_with_its_task() {
    let (world, task, transaction) = settled().await;
    let lies: [(Change, &str); 5] = [
        (|receipt| receipt["status"] = json!("0x0"), "a receipt's status"),
        (|receipt| receipt["gasUsed"] = json!("0x5208"), "a receipt's gas"),
        (|receipt| _ = receipt["logs"].as_array_mut().unwrap().remove(1), "log 1 of a receipt"),
        (
            |receipt| {
                let data = receipt["logs"][0]["data"].as_str().unwrap();
                let data = format!("{}7", &data[..data.len() - 1]);
                receipt["logs"][0]["data"] = json!(data);
            },
            "log 0 of a receipt",
        ),
        (
            |receipt| receipt["logsBloom"] = json!(format!("0x{}", "0".repeat(512))),
            "a receipt's bloom",
        ),
    ];
    for (lie, what) in lies {
        let report = audit_with(&world, in_receipt(transaction, lie)).await.unwrap();
        let found = &report.divergences[0];
        assert_eq!((found.rule, found.what.as_str()), (Rule::Receipt, what));
        assert_eq!((found.transaction, found.task), (Some(transaction), Some(task)), "{what}");
        assert!(!report.is_clean());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_is_not_told_is_found() {
    let (world, ..) = settled().await;
    let head = world.head().await;
    let wanted = json!(format!("0x{:x}", head - 1));
    let report = audit_with(&world, move |method, params, result| {
        if method == "eth_getBlockByNumber" && params[0] == wanted {
            *result = Value::Null;
        }
    });
    let report = report.await.unwrap();
    assert!(!report.complete && report.to == head - 2);
    let found = &report.divergences[0];
    assert_eq!((found.rule, found.block), (Rule::Missing, Some(head - 1)));
    let report = audit_with(&world, |method, _, result| {
        if method == "eth_getBlockReceipts" {
            *result = Value::Null;
        }
    });
    let report = report.await.unwrap();
    assert_eq!((report.divergences[0].rule, report.complete), (Rule::Missing, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_is_told_wrong_is_found() {
    let (world, _, transaction) = settled().await;
    let lies: [(Change, Rule); 4] = [
        (|block| block["timestamp"] = json!("0x7fffffff"), Rule::Header),
        (|block| block["stateRoot"] = json!(B256::repeat_byte(3)), Rule::Header),
        (|block| block["transactions"][0]["value"] = json!("0x1"), Rule::Header),
        (|block| block["transactions"][0]["from"] = json!(Address::ZERO), Rule::Signature),
    ];
    for (lie, rule) in lies {
        let report = audit_with(&world, move |method, _, result| {
            let hash = json!(transaction);
            if method == "eth_getBlockByNumber" && result["transactions"][0]["hash"] == hash {
                lie(result);
            }
        });
        let report = report.await.unwrap();
        let head = world.head().await;
        let found = report.divergences.iter().find(|divergence| divergence.rule == rule);
        assert_eq!(found.unwrap().block, Some(head), "{rule:?}: {:?}", report.divergences);
    }
}

/// The RPC's proofs and its answers to calls are compared with the replay.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_told_wrong_is_found_and_named() {
    let (world, ..) = settled().await;
    let router = world.router.address();
    let payment = world.deployment.payment;
    let asked = (router, U256::ZERO).abi_encode();
    let report = audit_with(&world, move |method, params, result| {
        if method == "eth_getProof" && params[0] == json!(payment) {
            result["storageHash"] = json!(B256::repeat_byte(7));
        }
        let input = params[0]["input"].as_str().unwrap_or_default();
        if method == "eth_call" && input.ends_with(&alloy::hex::encode(&asked)) {
            *result = json!(B256::from(U256::from(7)));
        }
    });
    let report = report.await.unwrap();
    let found: Vec<_> = report.divergences.iter().map(|found| found.rule).collect();
    assert_eq!(found, [Rule::StorageHash, Rule::Storage], "{:?}", report.divergences);
    let named = &report.divergences[1];
    assert_eq!(named.contract, Some(("SessionPayment".to_owned(), payment)));
    assert!(named.what.contains(&router.to_string()) && named.found.contains('7'));
    assert!(named.amount.as_ref().unwrap().starts_with('-'));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beginning_that_is_told_wrong_is_refused() {
    let (world, ..) = settled().await;
    let error = audit_with(&world, |method, _, result| {
        if method == "debug_dumpBlock" {
            let account = result["accounts"].as_object_mut().unwrap().values_mut().next().unwrap();
            account["nonce"] = json!(77);
        }
    });
    assert!(matches!(error.await.unwrap_err(), AuditError::NoGenesis { .. }));
}

pub async fn set_storage(world: &World, contract: Address, slot: B256, value: u64) {
    let value = B256::from(U256::from(value));
    let params = (contract, slot, value);
    let _: Value = world.provider.raw_request("anvil_setStorageAt".into(), params).await.unwrap();
}

/// A balance in `SessionPayment` is in a mapping of a mapping, wherever that stands.
pub async fn balance_slot(world: &World, account: Address) -> B256 {
    for position in 0_u64..16 {
        let outer = keccak256((account, U256::from(position)).abi_encode());
        let slot = keccak256((U256::ZERO, outer).abi_encode());
        let stored = world.provider.get_storage_at(world.deployment.payment, slot.into());
        if !stored.await.unwrap().is_zero() {
            return slot;
        }
    }
    panic!("{account} has no balance");
}

/// Money that appears in an account: at the block after it, and also while there is none yet.
#[tokio::test(flavor = "multi_thread")]
async fn storage_that_was_changed_by_hand_is_found_and_named() {
    let (world, ..) = settled().await;
    let (router, payment) = (world.router.address(), world.deployment.payment);
    let slot = balance_slot(&world, router).await;
    set_storage(&world, payment, slot, 5).await;
    for mined in [0, 1] {
        world.mine(mined).await;
        let report = world.audit().await;
        let rules: Vec<_> = report.divergences.iter().map(|found| found.rule).collect();
        let expected: &[Rule] = match mined {
            0 => &[Rule::StorageHash, Rule::Storage],
            _ => &[Rule::State, Rule::StorageHash, Rule::Storage],
        };
        assert_eq!(rules, expected, "{:?}", report.divergences);
        let named = report.divergences.last().unwrap();
        assert!(named.what.contains(&router.to_string()));
        assert_eq!(report.divergences[0].block, Some(world.head().await));
    }
}

/// No transaction ever touched the slot, and no account is known that it is of.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_of_a_mapping_that_nobody_touched_cannot_hide() {
    let (world, ..) = settled().await;
    let payment = world.deployment.payment;
    let slot = keccak256((Address::repeat_byte(0x66), U256::from(3)).abi_encode());
    set_storage(&world, payment, slot, 1_000_000).await;
    world.mine(2).await;
    let report = world.audit().await;
    let rules: Vec<_> = report.divergences.iter().map(|found| found.rule).collect();
    assert_eq!(rules, [Rule::State, Rule::StorageHash], "{:?}", report.divergences);
    let contract = Some(("SessionPayment".to_owned(), payment));
    assert_eq!(report.divergences[1].contract, contract);
    assert_eq!(report.divergences[0].block, Some(world.head().await - 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_was_changed_by_hand_is_found() {
    let (world, ..) = settled().await;
    let params = (world.deployment.stats, "0x00");
    let _: Value = world.provider.raw_request("anvil_setCode".into(), params).await.unwrap();
    let report = world.audit().await;
    let found = report.divergences.iter().find(|found| found.rule == Rule::Code).unwrap();
    assert_eq!(found.contract, Some(("NodeStats".to_owned(), world.deployment.stats)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_nobody_signed_is_found() {
    let (world, ..) = settled().await;
    let from = world.router.address();
    let _: Value =
        world.provider.raw_request("anvil_impersonateAccount".into(), [from]).await.unwrap();
    let call = json!([{ "from": from, "to": Address::repeat_byte(1), "value": "0x1" }]);
    let hash: B256 = world.provider.raw_request("eth_sendTransaction".into(), call).await.unwrap();
    let report = world.audit().await;
    assert_eq!(report.divergences.len(), 1, "{:?}", report.divergences);
    let found = &report.divergences[0];
    assert_eq!((found.rule, found.transaction), (Rule::Signature, Some(hash)));
}
