//! The development chain as its clients see it: alloy's providers over HTTP and WebSocket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod blocks;
mod calls;
mod dev;
mod errors;
mod folder;
mod pool;
mod proofs;
mod push;
mod reorg;

use alloy::network::{EthereumWallet, NetworkTransactionBuilder, TransactionBuilder};
use alloy::primitives::{Address, Bytes, U256, bytes, hex};
use alloy::providers::{DynProvider, Provider, ProviderBuilder, WsConnect};
use alloy::rpc::types::{TransactionReceipt, TransactionRequest};
use alloy::signers::local::PrivateKeySigner;
use alloy::transports::{RpcError, TransportErrorKind};
use assay_devnet::{Clock, Devnet, DevnetConfig, ManualClock};

/// Time that the manual clock starts at.
const START_S: u64 = 1_700_000_000;

/// Empty calldata: returns slot 0. Otherwise: writes the first word there, and logs it under topic 42.
const STORE: Bytes = bytes!("36600f5760005460005260206000f35b60003580600055600052602a60206000a100");
/// Reverts with its calldata.
const REVERTER: Bytes = bytes!("366000600037366000fd");
/// Returns BLOCKHASH of the first word.
const BLOCKHASH: Bytes = bytes!("6000354060005260206000f3");
/// Burns all gas.
const LOOP: Bytes = bytes!("5b600056");

/// A chain with one rich account, on a clock that stands still.
struct World {
    devnet: Devnet,
    clock: ManualClock,
    signer: PrivateKeySigner,
}

impl World {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut DevnetConfig)) -> Self {
        let signer = PrivateKeySigner::random();
        let clock = ManualClock::new(START_S);
        let mut config = DevnetConfig {
            block_time: None,
            accounts: vec![(signer.address(), ether(1000))],
            clock: Clock::Manual(clock.clone()),
            ..DevnetConfig::default()
        };
        change(&mut config);
        let devnet = Devnet::start(config).await.unwrap();
        Self { devnet, clock, signer }
    }

    fn address(&self) -> Address {
        self.signer.address()
    }

    fn http(&self) -> DynProvider {
        ProviderBuilder::new()
            .wallet(EthereumWallet::from(self.signer.clone()))
            .connect_http(self.devnet.http_url().parse().unwrap())
            .erased()
    }

    async fn ws(&self) -> DynProvider {
        ProviderBuilder::new()
            .wallet(EthereumWallet::from(self.signer.clone()))
            .connect_ws(WsConnect::new(self.devnet.ws_url()))
            .await
            .unwrap()
            .erased()
    }

    /// Signs a transaction exactly as given, without asking the chain.
    async fn sign(&self, request: TransactionRequest) -> Vec<u8> {
        sign_with(&self.signer, request).await
    }
}

async fn sign_with(signer: &PrivateKeySigner, request: TransactionRequest) -> Vec<u8> {
    use alloy::eips::eip2718::Encodable2718;
    let wallet = EthereumWallet::from(signer.clone());
    request.build(&wallet).await.unwrap().encoded_2718()
}

/// A transfer of one wei with everything filled in.
fn transfer(nonce: u64) -> TransactionRequest {
    TransactionRequest::default()
        .with_to(Address::repeat_byte(0x11))
        .with_value(U256::ONE)
        .with_nonce(nonce)
        .with_chain_id(31337)
        .with_gas_limit(21_000)
        .with_max_fee_per_gas(10_000_000_000)
        .with_max_priority_fee_per_gas(1_000_000_000)
}

fn ether(amount: u64) -> U256 {
    U256::from(amount) * U256::from(10).pow(U256::from(18))
}

fn word(value: u64) -> Bytes {
    U256::from(value).to_be_bytes_vec().into()
}

/// Init code that leaves this runtime code.
fn init_code(runtime: &Bytes) -> Bytes {
    let len = u8::try_from(runtime.len()).unwrap();
    let mut code = vec![0x60, len, 0x60, 12, 0x60, 0, 0x39, 0x60, len, 0x60, 0, 0xf3];
    code.extend_from_slice(runtime);
    code.into()
}

async fn deploy(provider: &DynProvider, runtime: &Bytes) -> Address {
    let request = TransactionRequest::default().with_deploy_code(init_code(runtime));
    let receipt = send(provider, request).await;
    assert!(receipt.status());
    let address = receipt.contract_address.unwrap();
    assert_eq!(provider.get_code_at(address).await.unwrap(), *runtime);
    address
}

async fn send(provider: &DynProvider, request: TransactionRequest) -> TransactionReceipt {
    provider.send_transaction(request).await.unwrap().get_receipt().await.unwrap()
}

/// A call that writes `value` into a `STORE` contract.
fn store(to: Address, value: u64) -> TransactionRequest {
    TransactionRequest::default().with_to(to).with_input(word(value))
}

fn message<T: std::fmt::Debug>(result: Result<T, RpcError<TransportErrorKind>>) -> (i64, String) {
    let error = result.unwrap_err();
    let payload = error.as_error_resp().unwrap_or_else(|| panic!("no answer: {error}"));
    (payload.code, payload.message.to_string())
}

fn hex_data(bytes: &[u8]) -> String {
    hex::encode_prefixed(bytes)
}
