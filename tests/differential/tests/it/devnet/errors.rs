//! What is refused, and in which words.

use std::collections::BTreeSet;

use alloy::eips::eip2718::Encodable2718;
use alloy::network::{EthereumWallet, NetworkTransactionBuilder, TransactionBuilder};
use alloy::primitives::{Address, B256, Bytes, TxKind, U256};
use alloy::rpc::types::TransactionRequest;
use alloy::sol_types::{Panic, Revert, SolError};
use serde_json::{Value, json};

use super::differences::{ANVIL_TAKES, Difference, ERRORS};
use super::pair::{ACCOUNTS, Pair, Refusal, START_S, ether, signer};

/// Reverts with its calldata.
const REVERTER: &str = "0x366000600037366000fd";
const CONTRACT: Address = Address::repeat_byte(0x77);

/// Fails unless two errors are equal, or differ as it is listed; then it says by which entry.
pub fn agree(devnet: &Refusal, anvil: &Refusal) -> Option<usize> {
    if devnet == anvil {
        return None;
    }
    assert_eq!(devnet.data, anvil.data, "{devnet:?} and {anvil:?}");
    let fits = |refusal: &Refusal, (code, start): (i64, &str)| {
        refusal.code == code && refusal.message.starts_with(start)
    };
    let listed = |entry: &Difference| fits(devnet, entry.devnet) && fits(anvil, entry.anvil);
    let found = ERRORS.iter().position(listed);
    assert!(found.is_some(), "not listed: {devnet:?} and {anvil:?}");
    found
}

struct Run {
    pair: Pair,
    used: BTreeSet<usize>,
}

impl Run {
    /// A request that both must refuse.
    async fn refused(&mut self, method: &'static str, params: Value) {
        match self.pair.both(method, params.clone()).await {
            (Err(devnet), Err(anvil)) => self.used.extend(agree(&devnet, &anvil)),
            (devnet, anvil) => panic!("{method} {params}: {devnet:?} and {anvil:?}"),
        }
    }

    async fn refused_tx(&mut self, request: TransactionRequest) {
        let raw = sign(0, request).await;
        self.refused("eth_sendRawTransaction", json!([raw])).await;
    }

    /// A request that only anvil takes.
    async fn taken_by_anvil(&mut self, method: &'static str, params: Value, words: &str) {
        match self.pair.both(method, params.clone()).await {
            (Err(devnet), Ok(_)) => assert!(devnet.message.starts_with(words), "{devnet:?}"),
            (devnet, anvil) => panic!("{method} {params}: {devnet:?} and {anvil:?}"),
        }
    }
}

async fn sign(index: u8, request: TransactionRequest) -> Bytes {
    let wallet = EthereumWallet::from(signer(index));
    request.build(&wallet).await.unwrap().encoded_2718().into()
}

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

async fn transactions(run: &mut Run) {
    let first = sign(0, transfer(0)).await;
    run.pair.same("eth_sendRawTransaction", json!([first])).await;
    run.pair.mine(START_S + 1).await;
    run.refused("eth_sendRawTransaction", json!([first])).await;
    run.refused_tx(transfer(0).with_value(U256::from(2))).await;
    let waiting = sign(0, transfer(1)).await;
    run.pair.same("eth_sendRawTransaction", json!([waiting])).await;
    run.refused("eth_sendRawTransaction", json!([waiting])).await;
    run.refused_tx(transfer(1).with_value(U256::from(2))).await;
    run.pair.mine(START_S + 2).await;
    run.refused_tx(transfer(2).with_gas_limit(20_999)).await;
    run.refused_tx(transfer(2).with_gas_limit(30_000_001)).await;
    run.refused_tx(transfer(2).with_max_fee_per_gas(7).with_max_priority_fee_per_gas(7)).await;
    run.refused_tx(transfer(2).with_max_priority_fee_per_gas(20_000_000_000)).await;
    run.refused_tx(transfer(2).with_value(ether(1000))).await;
    run.refused_tx(transfer(2).with_chain_id(1)).await;
    let create = transfer(2).with_kind(TxKind::Create).with_gas_limit(10_000_000);
    run.refused_tx(create.with_input(vec![0_u8; 49_153])).await;
    let pauper = sign(ACCOUNTS, transfer(0)).await;
    run.refused("eth_sendRawTransaction", json!([pauper])).await;
    for garbage in ["0x", "0x02c0", "0xffffffffff", "0x0501"] {
        run.refused("eth_sendRawTransaction", json!([garbage])).await;
    }
}

/// What only anvil takes: reasons stand with [`ANVIL_TAKES`].
async fn taken_by_anvil(run: &mut Run) {
    let account = signer(0).address();
    let bytes = |gas| transfer(5).with_input(vec![0_u8; 1000]).with_gas_limit(gas);
    let mut nobody = transfer(5).with_gas_limit(100_000);
    nobody.authorization_list = Some(Vec::new());
    let mut longer = sign(4, transfer(0)).await.to_vec();
    longer.push(0);
    run.pair.same("anvil_setCode", json!([signer(3).address(), "0x00"])).await;
    let send = "eth_sendRawTransaction";
    let cases = [
        (send, json!([sign(0, bytes(24_000)).await])),
        (send, json!([sign(1, bytes(26_000)).await])),
        (send, json!([sign(2, nobody).await])),
        (send, json!([Bytes::from(longer)])),
        (send, json!([sign(3, transfer(0)).await])),
        (
            "eth_estimateGas",
            json!([{"from": signer(ACCOUNTS).address(), "to": account, "value": "0x5"}]),
        ),
        ("eth_call", json!([{"to": account, "gasPrice": "0x1", "maxFeePerGas": "0x1"}, "latest"])),
        ("eth_getLogs", json!([{"fromBlock": "0x2", "toBlock": "0x1"}])),
        ("eth_feeHistory", json!(["0x1", "0x99", []])),
        ("eth_feeHistory", json!(["0x1", "latest", [50.0, 10.0]])),
    ];
    assert_eq!(cases.len(), ANVIL_TAKES.len());
    for ((method, params), (words, _)) in cases.into_iter().zip(ANVIL_TAKES) {
        run.taken_by_anvil(method, params, words).await;
    }
}

async fn calls(run: &mut Run) {
    run.pair.same("anvil_setCode", json!([CONTRACT, REVERTER])).await;
    let overflow = Panic { code: U256::from(0x11) }.abi_encode();
    for data in [Revert::from("too small").abi_encode(), overflow, vec![1; 40], Vec::new()] {
        let request = json!([{"to": CONTRACT, "data": Bytes::from(data)}, "latest"]);
        run.refused("eth_call", request.clone()).await;
        run.refused("eth_estimateGas", request).await;
    }
    for (code, gas) in [
        // A loop, INVALID, an unknown opcode, a jump into nothing, too few and too many on the stack,
        // and return data that is not there.
        ("0x5b600056", "0x186a0"),
        ("0xfe", "0x186a0"),
        ("0x0c", "0x186a0"),
        ("0x600156", "0x186a0"),
        ("0x01", "0x186a0"),
        ("0x5b5f600056", "0x186a0"),
        ("0x60015f5f3e", "0x186a0"),
        // More memory than the gas pays for, than a machine has, and than there can be.
        ("0x6210000051", "0x186a0"),
        ("0x63ffffffff51", "0x186a0"),
        ("0x5f1951", "0x186a0"),
        // SSTORE with 2,000 gas left.
        ("0x6001600055", "0x59de"),
    ] {
        run.pair.same("anvil_setCode", json!([CONTRACT, code])).await;
        run.refused("eth_call", json!([{"to": CONTRACT, "gas": gas}, "latest"])).await;
    }
    // Creations that leave too much code, and code that may not be; a precompile without its gas.
    for request in [
        json!({"data": "0x6160015ff3"}),
        json!({"data": "0x60ef5f5360015ff3"}),
        json!({"to": Address::with_last_byte(2), "gas": "0x5210"}),
        json!({"to": CONTRACT, "data": Bytes::from(vec![1; 40]), "gas": "0x55f0"}),
    ] {
        run.refused("eth_call", json!([request, "latest"])).await;
    }
    let from = signer(ACCOUNTS).address();
    run.refused("eth_call", json!([{"from": from, "to": CONTRACT, "value": "0x5"}, "latest"]))
        .await;
    let gas = json!([{"from": signer(1).address(), "to": from, "gas": "0x100"}, "latest"]);
    run.refused("eth_call", gas).await;
}

async fn reads(run: &mut Run) {
    let account = signer(0).address();
    for (method, params) in [
        ("eth_getBalance", json!([account, "0x99"])),
        ("eth_getBalance", json!([account, {"blockHash": B256::repeat_byte(1)}])),
        ("eth_getProof", json!([account, [], "0x99"])),
        ("eth_call", json!([{"to": account}, "0x99"])),
        ("eth_getBalance", json!([])),
        ("eth_getBalance", json!(["0x12"])),
        ("eth_unknown", json!([])),
        ("eth_getFilterChanges", json!(["0x99"])),
        ("eth_getLogs", json!([{"blockHash": B256::repeat_byte(1)}])),
        ("evm_setNextBlockTimestamp", json!([1])),
        ("anvil_reorg", json!([99, []])),
        ("anvil_reorg", json!([1, [["0x02", 1]]])),
    ] {
        run.refused(method, params).await;
    }
}

#[tokio::test]
async fn both_refuse_the_same() {
    let mut run = Run { pair: Pair::start().await, used: BTreeSet::new() };
    transactions(&mut run).await;
    calls(&mut run).await;
    reads(&mut run).await;
    taken_by_anvil(&mut run).await;
    for (index, listed) in ERRORS.iter().enumerate() {
        assert!(run.used.contains(&index), "no longer different: {:?}", listed.devnet);
    }
}
