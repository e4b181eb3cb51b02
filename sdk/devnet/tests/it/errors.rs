//! What a wrong transaction or request is answered, in geth's words.

use alloy::network::TransactionBuilder;
use alloy::primitives::{Address, B256, Bytes, U256};
use alloy::providers::Provider;
use alloy::rpc::types::{Filter, TransactionRequest};
use alloy::signers::local::PrivateKeySigner;
use assay_devnet::{Devnet, DevnetConfig, DevnetError};

use crate::{World, ether, message, send, sign_with, transfer};

async fn refused(world: &World, request: TransactionRequest) -> String {
    let raw = world.sign(request).await;
    let (code, text) = message(world.http().send_raw_transaction(&raw).await);
    assert_eq!(code, -32000);
    text
}

#[tokio::test]
async fn nonces() {
    let world = World::start().await;
    let provider = world.http();
    send(&provider, transfer(0)).await;
    assert_eq!(refused(&world, transfer(0)).await, "nonce too low: next nonce 1, tx nonce 0");
    // A gap is not an error: the transaction waits.
    let raw = world.sign(transfer(3)).await;
    let _ = provider.send_raw_transaction(&raw).await.unwrap();
    assert_eq!(refused(&world, transfer(3)).await, "already known");
    let other = transfer(3).with_value(U256::from(2));
    assert_eq!(refused(&world, other).await, "replacement transaction underpriced");
    world.devnet.stop().await;
}

#[tokio::test]
async fn gas_and_fees() {
    let world = World::start().await;
    assert_eq!(
        refused(&world, transfer(0).with_gas_limit(20_999)).await,
        "intrinsic gas too low: gas 20999, minimum needed 21000"
    );
    assert_eq!(
        refused(&world, transfer(0).with_gas_limit(30_000_001)).await,
        "exceeds block gas limit"
    );
    // Zero bytes cost 4 gas each, but the floor of EIP-7623 asks for 10.
    let data = transfer(0).with_input(vec![0_u8; 1000]).with_gas_limit(26_000);
    assert_eq!(
        refused(&world, data).await,
        "insufficient gas for floor data gas cost: gas 26000, minimum needed 31000"
    );
    let cheap = transfer(0).with_max_fee_per_gas(7).with_max_priority_fee_per_gas(0);
    let text = refused(&world, cheap).await;
    assert!(text.starts_with("max fee per gas less than block base fee: address 0x"), "{text}");
    assert!(text.ends_with(", maxFeePerGas: 7, baseFee: 875000000"), "{text}");
    assert_eq!(
        refused(&world, transfer(0).with_max_priority_fee_per_gas(20_000_000_000)).await,
        "max priority fee per gas higher than max fee per gas"
    );
    world.devnet.stop().await;
}

#[tokio::test]
async fn funds() {
    let world = World::start().await;
    let fee = U256::from(21_000) * U256::from(10_000_000_000_u64);
    let (balance, cost) = (ether(1000), ether(1000) + fee);
    assert_eq!(
        refused(&world, transfer(0).with_value(ether(1000))).await,
        format!(
            "insufficient funds for gas * price + value: balance {balance}, tx cost {cost}, overshot {fee}"
        )
    );
    let pauper = PrivateKeySigner::random();
    let raw = sign_with(&pauper, transfer(0)).await;
    let (_, text) = message(world.http().send_raw_transaction(&raw).await);
    assert!(text.starts_with("insufficient funds for gas * price + value: balance 0,"), "{text}");
    world.devnet.stop().await;
}

#[tokio::test]
async fn senders_and_garbage() {
    let world = World::start().await;
    let provider = world.http();
    assert_eq!(
        refused(&world, transfer(0).with_chain_id(1)).await,
        "invalid sender: invalid chain id for signer: have 1 want 31337"
    );
    for garbage in [&b""[..], &b"\x02\xc0"[..], &[0xff; 100][..], &b"\x05\x01"[..]] {
        let (code, _) = message(provider.send_raw_transaction(garbage).await);
        assert_eq!(code, -32602);
    }
    let mut raw = world.sign(transfer(0)).await;
    raw.push(0);
    let (code, text) = message(provider.send_raw_transaction(&raw).await);
    assert_eq!((code, text.as_str()), (-32602, "bytes follow after the transaction"));
    assert_eq!(provider.get_block_number().await.unwrap(), 0);
    world.devnet.stop().await;
}

#[tokio::test]
async fn init_code_that_is_too_large() {
    let world = World::start().await;
    let create = transfer(0)
        .with_kind(alloy::primitives::TxKind::Create)
        .with_input(vec![0_u8; 49_153])
        .with_gas_limit(10_000_000);
    assert_eq!(
        refused(&world, create).await,
        "max initcode size exceeded: code size 49153 limit 49152"
    );
    world.devnet.stop().await;
}

#[tokio::test]
async fn requests_that_make_no_sense() {
    let world = World::start().await;
    let provider = world.http();
    let ask = |method: &'static str, params: serde_json::Value| {
        let provider = provider.clone();
        async move { message(provider.raw_request::<_, serde_json::Value>(method.into(), params).await) }
    };
    let json = serde_json::json!([]);
    assert_eq!(ask("eth_getWork", json.clone()).await.0, -32601);
    assert_eq!(ask("eth_getBalance", json).await.0, -32602);
    assert_eq!(ask("eth_getBalance", serde_json::json!(["0x12"])).await.0, -32602);
    let both = serde_json::json!([{"to": Address::ZERO, "gasPrice": "0x1", "maxFeePerGas": "0x1"}]);
    let (code, text) = ask("eth_call", both).await;
    assert_eq!(code, -32602);
    assert!(text.starts_with("both gasPrice and"), "{text}");
    let (code, text) = ask("eth_getFilterChanges", serde_json::json!(["0x99"])).await;
    assert_eq!((code, text.as_str()), (-32000, "filter not found"));
    world.devnet.stop().await;
}

#[tokio::test]
async fn log_queries_are_bounded() {
    let world = World::start().await;
    let provider = world.http();
    let many: Vec<Address> =
        (0..1001_u64).map(|i| Address::from_word(U256::from(i).into())).collect();
    let (_, text) = message(provider.get_logs(&Filter::new().address(many)).await);
    assert_eq!(text, "exceed max addresses");
    let unknown = Filter::new().at_block_hash(B256::repeat_byte(1));
    let (_, text) = message(provider.get_logs(&unknown).await);
    assert_eq!(text, "unknown block");
    let () = provider.raw_request("anvil_mine".into(), (3,)).await.unwrap();
    let backwards = Filter::new().from_block(2).to_block(1);
    let (_, text) = message(provider.get_logs(&backwards).await);
    assert_eq!(text, "invalid block range params");
    world.devnet.stop().await;
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused() {
    let world = World::start().await;
    let huge = Bytes::from(vec![0_u8; 5 * 1024 * 1024]);
    assert!(world.http().send_raw_transaction(&huge).await.is_err());
    assert_eq!(world.http().get_block_number().await.unwrap(), 0);
    world.devnet.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let world = World::start().await;
    let listen = world.devnet.local_addr();
    let config = DevnetConfig { listen, ..DevnetConfig::default() };
    let error = Devnet::start(config).await.unwrap_err();
    assert!(matches!(&error, DevnetError::Bind { addr, .. } if *addr == listen));
    assert!(error.to_string().contains(&listen.to_string()));
    world.devnet.stop().await;
    // And free again after the stop.
    let config = DevnetConfig { listen, ..DevnetConfig::default() };
    Devnet::start(config).await.unwrap().stop().await;
}
