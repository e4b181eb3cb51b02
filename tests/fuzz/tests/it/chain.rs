//! What an RPC tells: blocks and receipts, events, calls, the reasons of reverts.

use std::sync::{Arc, Mutex};

use alloy::{
    network::{EthereumWallet, TransactionBuilder},
    primitives::{Address, B256, LogData, U256},
    providers::{Provider, ProviderBuilder},
    rpc::types::TransactionRequest,
    signers::local::PrivateKeySigner,
    sol_types::{Panic, PanicKind, Revert, SolError},
};
use assay_bindings::{Deployment, abis, decode_revert};
use assay_devnet::{Devnet, DevnetConfig};
use assay_fuzz::Target;
use assay_protocol::{Call, ProtocolEvent};
use assay_replay::Source;
use axum::{Json, Router, extract::State, routing::post};
use serde_json::Value;

use crate::{FEW, MANY};

/// Words of arguments: as many as most calls have.
const WORDS: usize = 24;

#[test]
fn fuzz_reverts() {
    let mut inputs = vec![
        Revert::from("not today").abi_encode(),
        Panic::from(PanicKind::UnderOverflow).abi_encode(),
    ];
    for (_, abi) in abis() {
        for error in abi.errors.into_values().flatten() {
            let arguments = vec![0; 32 * error.inputs.len()];
            inputs.push([error.selector().as_slice(), &arguments].concat());
        }
    }
    let run = |input: &[u8]| drop(decode_revert(input));
    Target::new("reverts", inputs, MANY).run(run).unwrap();
}

/// The place of an event among all, its topics, its data.
fn log(input: &[u8]) -> LogData {
    let (place, rest) = input.split_first().unwrap_or((&0, &[]));
    let (_, _, topic) = ProtocolEvent::ALL[usize::from(*place) % ProtocolEvent::ALL.len()];
    let (count, rest) = rest.split_first().unwrap_or((&0, &[]));
    let (topics, data) = rest.split_at(rest.len().min(32 * usize::from(*count % 4)));
    let indexed = topics.chunks_exact(32).map(B256::from_slice);
    LogData::new_unchecked([topic].into_iter().chain(indexed).collect(), data.to_vec().into())
}

#[test]
fn fuzz_events() {
    let inputs = (0..ProtocolEvent::ALL.len()).flat_map(|place| {
        (1..4).map(move |topics| [&[place as u8, topics][..], &[0; 32 * WORDS]].concat())
    });
    Target::new("events", inputs.collect(), MANY)
        .run(|input| {
            if let Ok(Some(event)) = ProtocolEvent::from_log(&log(input)) {
                assert_eq!(ProtocolEvent::from_log(&event.encode()).unwrap(), Some(event));
            }
        })
        .unwrap();
}

fn deployment() -> Deployment {
    let at = Address::repeat_byte;
    Deployment {
        chain_id: 31337,
        token: at(1),
        parameters: at(2),
        models: at(3),
        stats: at(4),
        nodes: at(5),
        sessions: at(6),
        queue: at(7),
        payment: at(8),
        beacon: at(9),
        panel: at(10),
        judgement: at(11),
        proof: at(12),
    }
}

#[test]
fn fuzz_calls() {
    let deployment = deployment();
    let contracts = deployment.named();
    let mut inputs = Vec::new();
    for (name, abi) in abis() {
        let Some(place) = contracts.iter().position(|(other, _)| *other == name) else { continue };
        for function in abi.functions.into_values().flatten() {
            let selector = function.selector();
            inputs.push([&[place as u8][..], selector.as_slice(), &[0; 32 * WORDS]].concat());
        }
    }
    assert!(inputs.len() > 50);
    Target::new("calls", inputs, MANY)
        .run(|input| {
            let Some((place, input)) = input.split_first() else { return };
            let (_, contract) = contracts[usize::from(*place) % contracts.len()];
            let _ = Call::decode(&deployment, contract, input);
        })
        .unwrap();
}

/// A block with a transaction and its receipts, as a chain tells them, on a line each.
async fn told() -> Vec<u8> {
    let key = PrivateKeySigner::from_bytes(&B256::repeat_byte(7)).unwrap();
    let config = DevnetConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        accounts: vec![(key.address(), U256::from(10).pow(U256::from(18)))],
        ..DevnetConfig::default()
    };
    let devnet = Devnet::start(config).await.unwrap();
    let provider = ProviderBuilder::new()
        .wallet(EthereumWallet::from(key))
        .connect(&devnet.http_url())
        .await
        .unwrap();
    let transfer =
        TransactionRequest::default().with_to(Address::repeat_byte(9)).with_value(U256::from(1));
    provider.send_transaction(transfer).await.unwrap().get_receipt().await.unwrap();
    let block: Value =
        provider.raw_request("eth_getBlockByNumber".into(), ("latest", true)).await.unwrap();
    let receipts: Value =
        provider.raw_request("eth_getBlockReceipts".into(), ["latest"]).await.unwrap();
    devnet.stop().await;
    format!("{block}\n{receipts}").into_bytes()
}

type Told = Arc<Mutex<Vec<u8>>>;

/// Answers with the first line when it is asked for a block, and with the second when for receipts.
async fn answer(State(told): State<Told>, Json(call): Json<Value>) -> Vec<u8> {
    let told = told.lock().unwrap();
    let wants_receipts = call["method"] == "eth_getBlockReceipts";
    let mut lines = told.splitn(2, |byte| *byte == b'\n');
    let result = lines.nth(usize::from(wants_receipts)).unwrap_or(b"null");
    let head = format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":", call["id"]);
    [head.as_bytes(), result, b"}"].concat()
}

#[test]
fn fuzz_blocks_of_an_rpc() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let sound = runtime.block_on(told());
    let told = Told::default();
    let app = Router::new().route("/", post(answer)).with_state(Arc::clone(&told));
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
    let provider = runtime.block_on(ProviderBuilder::new().connect(&url)).unwrap().erased();
    let source = Source::new(provider);
    *told.lock().unwrap() = sound.clone();
    let block = runtime.block_on(source.block(1)).unwrap().unwrap();
    assert_eq!((block.transactions.len(), block.unsigned.len(), block.receipts.len()), (1, 0, 1));
    assert_eq!(block.hash, block.told_hash);
    Target::new("blocks-of-an-rpc", vec![sound], 4 * FEW)
        .run(|input| {
            *told.lock().unwrap() = input.to_vec();
            // A thread that panics shows as an error of its own.
            if let Err(error) = runtime.block_on(source.block(1)) {
                assert!(!matches!(error, assay_replay::AuditError::Stopped(_)), "{error}");
            }
        })
        .unwrap();
    server.abort();
}
