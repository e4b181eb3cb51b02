//! Measures the embedded chain: `cargo run -p assay-devnet --example chain_speed`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program to be run by hand")]

use std::time::{Duration, Instant};

use alloy::eips::eip2718::Encodable2718;
use alloy::network::{EthereumWallet, NetworkTransactionBuilder, TransactionBuilder};
use alloy::primitives::{Address, B256, Bytes, U256, bytes};
use alloy::providers::{DynProvider, Provider, ProviderBuilder};
use alloy::rpc::types::TransactionRequest;
use alloy::signers::local::PrivateKeySigner;
use assay_devnet::{Devnet, DevnetConfig};

/// Slots that the contract has before anything is measured.
const SLOTS: u64 = 5_000;
/// Transactions, each in a block of its own.
const TRANSACTIONS: u64 = 10_000;
/// Writes the second word of its calldata to the eight slots from the first one on.
const WRITER: Bytes = bytes!(
    "6000356020358082558060018301558060028301558060038301558060048301558060058301558060068301558060078301550000"
);

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    println!("{SLOTS} slots, transactions that write 8 of them, each in its block, over HTTP");
    for data in [None, Some(folder.path().to_path_buf())] {
        let kept = if data.is_some() { "in a file" } else { "in memory" };
        let signer = PrivateKeySigner::random();
        let config = DevnetConfig {
            accounts: vec![(signer.address(), U256::from(10).pow(U256::from(24)))],
            block_time: None,
            data,
            ..DevnetConfig::default()
        };
        let devnet = Devnet::start(config).await.unwrap();
        let provider = ProviderBuilder::new().connect(&devnet.http_url()).await.unwrap().erased();
        let mut times = send_all(&provider, &signer).await;
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        println!("{kept}: median {:?}, 99 % {:?} until the answer", at(50), at(99));
        devnet.stop().await;
    }
    let begun = Instant::now();
    let config =
        DevnetConfig { data: Some(folder.path().to_path_buf()), ..DevnetConfig::default() };
    let devnet = Devnet::start(config).await.unwrap();
    println!("restart with {TRANSACTIONS} transactions: {:?}", begun.elapsed());
    devnet.stop().await;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default());
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        println!("{}: {} bytes", file.file_name().display(), file.metadata().unwrap().len());
    }
}

async fn send_all(provider: &DynProvider, signer: &PrivateKeySigner) -> Vec<Duration> {
    let contract = Address::repeat_byte(0x42);
    let () = provider.raw_request("anvil_setCode".into(), (contract, WRITER)).await.unwrap();
    for slot in 0..SLOTS {
        let value = (contract, U256::from(slot), B256::from(U256::from(slot + 1)));
        let _: bool = provider.raw_request("anvil_setStorageAt".into(), value).await.unwrap();
    }
    let wallet = EthereumWallet::from(signer.clone());
    let mut times = Vec::new();
    for nonce in 0..TRANSACTIONS {
        let words = [nonce * 13 % SLOTS, nonce + 7].map(|n| U256::from(n).to_be_bytes::<32>());
        let request = TransactionRequest::default()
            .with_to(contract)
            .with_input(words.concat())
            .with_nonce(nonce)
            .with_chain_id(31337)
            .with_gas_limit(200_000)
            .with_max_fee_per_gas(10_000_000_000)
            .with_max_priority_fee_per_gas(1_000_000_000);
        let raw = request.build(&wallet).await.unwrap().encoded_2718();
        let begun = Instant::now();
        let receipt = provider.send_raw_transaction_sync(&raw).await.unwrap();
        times.push(begun.elapsed());
        assert!(receipt.status());
    }
    times
}
