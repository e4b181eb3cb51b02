//! Foundry's `cast` (the real program) as a client of the embedded chain.

use alloy::primitives::{Address, B256, U256, hex, keccak256};
use alloy::rpc::types::{Block, EIP1186AccountProofResponse, Log, TransactionReceipt};
use alloy_trie::proof::verify_proof;
use alloy_trie::{Nibbles, TrieAccount};
use assay_devnet::{Devnet, DevnetConfig};
use assay_harness::foundry_program;
use serde::de::DeserializeOwned;
use tokio::process::Command;

use super::pair::{ether, signer};

/// A contract with `set(uint256)`, which emits `Stored(uint256)`, and `get()`.
fn contract() -> String {
    let topic = keccak256("Stored(uint256)");
    let runtime = [
        &hex!("36600414603557" "600435805f555f52" "7f")[..],
        topic.as_slice(),
        &hex!("60205fa100" "5b5f545f5260205ff3")[..],
    ]
    .concat();
    // PUSH1 len, DUP1, PUSH1 9, PUSH0, CODECOPY, PUSH0, RETURN
    let init = [&[0x60, runtime.len() as u8][..], &hex!("8060095f395ff3"), &runtime[..]].concat();
    hex::encode_prefixed(init)
}

struct Cast {
    url: String,
    key: String,
}

impl Cast {
    async fn run(&self, args: &[&str]) -> Result<String, String> {
        let output = Command::new(foundry_program("cast").unwrap())
            .args(args)
            .env("ETH_RPC_URL", &self.url)
            // Nothing of the developer's own configuration.
            .env("HOME", "/nonexistent")
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    async fn say(&self, args: &[&str]) -> String {
        self.run(args).await.unwrap_or_else(|error| panic!("cast {args:?}: {error}"))
    }

    async fn json<T: DeserializeOwned>(&self, args: &[&str]) -> T {
        let text = self.say(&[args, &["--json"]].concat()).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("cast {args:?}: {error}: {text}"))
    }

    async fn send(&self, args: &[&str]) -> TransactionReceipt {
        self.json(&[&["send", "--private-key", &self.key], args].concat()).await
    }
}

#[tokio::test]
async fn cast_works_with_the_embedded_chain() {
    let owner = signer(0);
    let devnet = Devnet::start(DevnetConfig {
        block_time: None,
        accounts: vec![(owner.address(), ether(1000))],
        ..DevnetConfig::default()
    })
    .await
    .unwrap();
    let cast = Cast { url: devnet.http_url(), key: owner.to_bytes().to_string() };
    let me = owner.address().to_string();
    assert_eq!(cast.say(&["chain-id"]).await, "31337");
    assert!(cast.say(&["client"]).await.starts_with("assay-devnet/"));
    assert_eq!(cast.say(&["block-number"]).await, "0");
    assert_eq!(cast.say(&["balance", &me]).await, ether(1000).to_string());
    assert_eq!(cast.say(&["base-fee"]).await, "1000000000");
    assert_eq!(cast.say(&["gas-price"]).await, "1875000000");

    let deployed = cast.send(&["--create", &contract()]).await;
    assert!(deployed.status());
    let address = deployed.contract_address.unwrap();
    let to = address.to_string();
    let code = cast.say(&["code", &to]).await;
    assert!(contract().ends_with(code.trim_start_matches("0x")), "{code}");
    assert_eq!(cast.say(&["nonce", &me]).await, "1");

    let gas: u64 = cast.say(&["estimate", &to, "set(uint256)", "7"]).await.parse().unwrap();
    let stored = cast.send(&[&to, "set(uint256)", "7"]).await;
    assert!(stored.status() && gas >= stored.gas_used);
    assert_eq!(cast.say(&["call", &to, "get()(uint256)"]).await, "7");
    assert_eq!(cast.say(&["call", &to, "get()(uint256)", "--block", "1"]).await, "0");
    assert_eq!(cast.say(&["storage", &to, "0"]).await, B256::with_last_byte(7).to_string());

    let tx = stored.transaction_hash.to_string();
    let receipt: TransactionReceipt = cast.json(&["receipt", &tx]).await;
    assert_eq!(receipt, stored);
    assert_eq!(cast.say(&["tx", &tx, "nonce"]).await, "1");
    let block: Block = cast.json(&["block", "latest"]).await;
    assert_eq!(block.header.hash, block.header.inner.hash_slow());
    assert_eq!(Some(block.header.hash), stored.block_hash);
    let by_hash: Block = cast.json(&["block", &block.header.hash.to_string()]).await;
    assert_eq!(by_hash, block);

    let logs: Vec<Log> =
        cast.json(&["logs", "--from-block", "0", "--address", &to, "Stored(uint256)"]).await;
    assert_eq!(logs, stored.logs());
    assert_eq!(U256::from_be_slice(&logs[0].data().data), U256::from(7));
    let none: Vec<Log> = cast.json(&["logs", "--from-block", "0", "Other(uint256)"]).await;
    assert!(none.is_empty());

    proofs(&cast, address, block.header.state_root).await;
    failures(&cast, &to).await;
    devnet.stop().await;
}

async fn proofs(cast: &Cast, address: Address, root: B256) {
    let proof: EIP1186AccountProofResponse =
        cast.json(&["proof", &address.to_string(), "0", "1"]).await;
    let account = TrieAccount {
        nonce: proof.nonce,
        balance: proof.balance,
        storage_root: proof.storage_hash,
        code_hash: proof.code_hash,
    };
    let key = Nibbles::unpack(keccak256(address));
    verify_proof(root, key, Some(alloy::rlp::encode(account)), &proof.account_proof).unwrap();
    for (slot, value) in proof.storage_proof.iter().zip([7, 0]) {
        assert_eq!(slot.value, U256::from(value));
        let key = Nibbles::unpack(keccak256(slot.key.as_b256()));
        let value = (value > 0).then(|| alloy::rlp::encode(slot.value));
        verify_proof(proof.storage_hash, key, value, &slot.proof).unwrap();
    }
    let storage_root = cast.say(&["storage-root", &address.to_string()]).await;
    assert_eq!(storage_root, proof.storage_hash.to_string());
    assert_eq!(cast.say(&["codehash", &address.to_string()]).await, proof.code_hash.to_string());
}

async fn failures(cast: &Cast, to: &str) {
    let poor = Cast { url: cast.url.clone(), key: signer(1).to_bytes().to_string() };
    let args = ["send", "--private-key", &poor.key, to, "set(uint256)", "1"];
    let error = poor.run(&args).await.unwrap_err();
    assert!(error.contains("insufficient funds") || error.contains("allowance"), "{error}");
    let error = cast.run(&["call", to, "get()", "--block", "99"]).await.unwrap_err();
    assert!(error.contains("header not found"), "{error}");
    // Methods of a development chain, as tests in a shell use them.
    let id = cast.say(&["rpc", "evm_snapshot"]).await;
    cast.say(&["rpc", "anvil_mine", "3"]).await;
    assert_eq!(cast.say(&["block-number"]).await, "5");
    assert_eq!(cast.say(&["rpc", "evm_revert", id.trim_matches('"')]).await, "true");
    assert_eq!(cast.say(&["block-number"]).await, "2");
    let before: Block = cast.json(&["block", "2"]).await;
    cast.say(&["rpc", "anvil_reorg", "1", "[]"]).await;
    let after: Block = cast.json(&["block", "2"]).await;
    assert_ne!(after.header.hash, before.header.hash);
    let whale = signer(2).address().to_string();
    cast.say(&["rpc", "anvil_setBalance", &whale, "0xde0b6b3a7640000"]).await;
    cast.say(&["rpc", "anvil_impersonateAccount", &whale]).await;
    let sent: TransactionReceipt =
        cast.json(&["send", "--unlocked", "--from", &whale, to, "set(uint256)", "8"]).await;
    assert!(sent.status());
    assert_eq!(cast.say(&["call", to, "get()(uint256)"]).await, "8");
}
