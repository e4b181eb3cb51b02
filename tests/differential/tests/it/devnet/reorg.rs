//! `anvil_reorg` on both.

use alloy::primitives::{Address, B256, U256};
use serde_json::{Value, json};

use super::deviations::sign;
use super::pair::{Pair, START_S, signer};

const LOGGER: Address = Address::repeat_byte(0x77);
/// LOG0 of the word 42.
const LOGGER_CODE: &str = "0x602a60005260206000a0";

/// Number of the block and whether it was removed, of every log.
fn told(logs: &Value) -> Vec<(u64, bool)> {
    let number =
        |log: &Value| -> U256 { serde_json::from_value(log["blockNumber"].clone()).unwrap() };
    let log = |log: &Value| (number(log).to(), log["removed"] == json!(true));
    logs.as_array().unwrap().iter().map(log).collect()
}

/// Both replace the last blocks, with the transactions that are named and without the others. Only the
/// embedded chain then tells filters, as geth does, which logs are no longer true.
#[tokio::test]
async fn a_reorganisation_comes_to_the_same_on_both() {
    let pair = Pair::start().await;
    pair.same("anvil_setCode", json!([LOGGER, LOGGER_CODE])).await;
    pair.mine(START_S + 1).await;
    let logs = pair.read("eth_newFilter", json!([{"address": LOGGER}])).await;
    let blocks = pair.read("eth_newBlockFilter", json!([])).await;
    let mut hashes = Vec::new();
    for nonce in 0..3 {
        let raw = sign(nonce, LOGGER, None).await;
        hashes.push(pair.same("eth_sendRawTransaction", json!([raw])).await);
        pair.mine(START_S + 2 + nonce).await;
    }
    let (devnet, anvil) = pair.changes(&logs).await;
    assert_eq!(told(&devnet), [(2, false), (3, false), (4, false)]);
    assert_eq!(told(&anvil), told(&devnet));
    let (devnet, _) = pair.changes(&blocks).await;
    let old: Vec<B256> = serde_json::from_value(devnet).unwrap();

    pair.same("anvil_reorg", json!([2, [[sign(1, LOGGER, None).await, 1]]])).await;
    assert_eq!(pair.same("eth_blockNumber", json!([])).await, json!("0x4"));
    let count = json!([signer(0).address(), "latest"]);
    assert_eq!(pair.same("eth_getTransactionCount", count).await, json!("0x2"));
    let place = async |hash: &Value| {
        let (devnet, anvil) = pair.read("eth_getTransactionReceipt", json!([hash])).await;
        assert_eq!(devnet["blockNumber"], anvil["blockNumber"]);
        devnet["blockNumber"].clone()
    };
    assert_eq!(place(&hashes[0]).await, json!("0x2"));
    assert_eq!(place(&hashes[1]).await, json!("0x4"));
    assert_eq!(pair.same("eth_getTransactionReceipt", json!([hashes[2]])).await, Value::Null);
    assert_eq!(pair.same("eth_getTransactionByHash", json!([hashes[2]])).await, Value::Null);

    let (devnet, anvil) = pair.changes(&logs).await;
    assert_eq!(told(&devnet), [(4, true), (3, true), (4, false)]);
    assert_eq!(told(&anvil), [(4, false)]);
    let (devnet, anvil) = pair.changes(&blocks).await;
    let new: Vec<B256> = serde_json::from_value(devnet).unwrap();
    assert_eq!((new.len(), anvil.as_array().unwrap().len()), (2, 2));
    assert!(new.iter().all(|hash| !old.contains(hash)));
}
