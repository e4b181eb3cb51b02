//! Where anvil does not do what Ethereum does. Each test shows what both do, and fails when that changes.

use alloy::consensus::TrieAccount;
use alloy::eips::eip2718::Encodable2718;
use alloy::eips::eip7702::Authorization;
use alloy::network::{EthereumWallet, NetworkTransactionBuilder, TransactionBuilder};
use alloy::primitives::{Address, B256, Bytes, U256};
use alloy::rpc::types::TransactionRequest;
use alloy::signers::SignerSync;
use serde_json::json;

use super::pair::{ACCOUNTS, Pair, START_S, signer};

const CONTRACT: Address = Address::repeat_byte(0x77);

pub async fn sign(nonce: u64, to: Address, by: Option<u8>) -> Bytes {
    let mut request = TransactionRequest::default()
        .with_to(to)
        .with_nonce(nonce)
        .with_chain_id(31337)
        .with_gas_limit(100_000)
        .with_max_fee_per_gas(10_000_000_000)
        .with_max_priority_fee_per_gas(1);
    request.authorization_list = by.map(|by| {
        let address = Address::repeat_byte(0x33);
        let authorization = Authorization { chain_id: U256::from(31337), address, nonce: 0 };
        let signature = signer(by).sign_hash_sync(&authorization.signature_hash()).unwrap();
        vec![authorization.into_signed(signature)]
    });
    let wallet = EthereumWallet::from(signer(0));
    request.build(&wallet).await.unwrap().encoded_2718().into()
}

/// EIP-7702 gives back 12,500 of the 25,000 gas of an authorization if its account exists already. For
/// anvil every account exists.
#[tokio::test]
async fn an_authorization_of_a_new_account_costs_its_whole_price() {
    let pair = Pair::start().await;
    let spent = async |nonce: u64, by: u8| {
        let raw = sign(nonce, Address::repeat_byte(0x44), Some(by)).await;
        let hash = pair.same("eth_sendRawTransaction", json!([raw])).await;
        pair.mine(START_S + 1 + nonce).await;
        let (devnet, anvil) = pair.read("eth_getTransactionReceipt", json!([hash])).await;
        let gas = |receipt: serde_json::Value| {
            serde_json::from_value::<U256>(receipt["gasUsed"].clone()).unwrap().to::<u64>()
        };
        (gas(devnet), gas(anvil))
    };
    // At most a fifth of the gas is given back.
    let existing = 46_000 - 46_000 / 5;
    assert_eq!(spent(0, 1).await, (existing, existing));
    assert_eq!(spent(1, ACCOUNTS).await, (46_000, existing));
}

/// A slot that is cleared leaves the trie. In anvil's it stays, with the value zero, and so do accounts
/// that are empty: neither `storageHash` nor `stateRoot` is then what Ethereum has.
#[tokio::test]
async fn cleared_storage_has_the_root_of_no_storage() {
    let pair = Pair::start().await;
    let slot = B256::ZERO;
    pair.same("anvil_setCode", json!([CONTRACT, "0x00"])).await;
    for value in [B256::with_last_byte(1), B256::ZERO] {
        pair.same("anvil_setStorageAt", json!([CONTRACT, U256::ZERO, value])).await;
    }
    let (devnet, anvil) = pair.read("eth_getProof", json!([CONTRACT, [slot], "latest"])).await;
    assert_eq!(devnet["storageProof"][0]["value"], anvil["storageProof"][0]["value"]);
    let empty = json!(TrieAccount::default().storage_root);
    assert_eq!(devnet["storageHash"], empty);
    assert_ne!(anvil["storageHash"], empty);
}

/// A call that names no price runs where gas costs nothing: on geth, BASEFEE is zero then.
#[tokio::test]
async fn a_call_without_a_price_sees_no_base_fee() {
    let pair = Pair::start().await;
    // BASEFEE PUSH0 MSTORE PUSH1 32 PUSH0 RETURN
    pair.same("anvil_setCode", json!([CONTRACT, "0x485f5260205ff3"])).await;
    pair.mine(START_S + 1).await;
    let (devnet, anvil) = pair.read("eth_call", json!([{"to": CONTRACT}, "latest"])).await;
    let block = pair.same("eth_feeHistory", json!(["0x1", "latest", [50.0]])).await;
    let base_fee: U256 = serde_json::from_value(block["baseFeePerGas"][0].clone()).unwrap();
    assert_eq!(devnet, json!(B256::ZERO));
    assert_eq!(anvil, json!(B256::from(base_fee)));
    let priced = json!([{"to": CONTRACT, "maxFeePerGas": "0xffffffff", "from": signer(0).address()}, "latest"]);
    assert_eq!(pair.same("eth_call", priced).await, json!(B256::from(base_fee)));
}
