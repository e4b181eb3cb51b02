//! Measures an audit beside bare revm on the same blocks: `script/bench/audit-replay [TASKS]`.
//!
//! A child process is the embedded chain, which serves so many tasks; this one audits it over HTTP. Two more children
//! then do one thing each, so that their memory tells them apart: one executes the blocks again and holds nothing but the
//! chain's state, the other one audits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::panic)]

#[allow(dead_code)]
#[path = "../tests/it/world.rs"]
mod world;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use alloy::consensus::Header;
use alloy::consensus::proofs::calculate_receipt_root;
use alloy::eips::BlockId;
use alloy::primitives::{Bloom, KECCAK256_EMPTY, U256};
use alloy::providers::{Provider, ProviderBuilder};
use alloy::sol_types::SolCall;
use alloy_evm::{Evm, EvmEnv, EvmFactory, FromRecoveredTx, eth::EthEvmFactory};
use assay_bindings::{Deployment, SessionQueue};
use assay_evm::Replay;
use assay_replay::{Audit, Fetched, Genesis, Options, Source};
use futures::StreamExt;
use revm::context::{BlockEnv, CfgEnv, TxEnv};
use revm::context_interface::block::BlobExcessGasAndPrice;
use revm::database::InMemoryDB;
use revm::primitives::hardfork::SpecId;
use revm::state::AccountInfo;
use serde::{Deserialize, Serialize};
use world::{Faults, World, everybody};

/// Tasks of the chain unless told otherwise.
const TASKS: usize = 100_000;
/// Tasks of one block: with their settlements they fill half of it, so that the base fee stays.
const TASKS_A_BLOCK: usize = 100;
/// Tasks that one transaction settles.
const SETTLED_TOGETHER: usize = 10;
/// Gas limit of a task that is carried with its answer.
const CARRIED_GAS: u64 = 200_000;
/// Gas limit of a settlement.
const SETTLE_GAS: u64 = 600_000;
/// Rows of the table.
const ROWS: u64 = 10;
/// Blocks that are kept in memory, to be executed three times.
const CHUNK: usize = 16;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |text: &String| text.parse().expect("a number of tasks");
    match arguments.first().map(String::as_str) {
        Some("serve") => serve(number(&arguments[1])).await,
        Some("remember") => remember(&arguments[1..]).await,
        _ => measure(arguments.first().map_or(TASKS, number)).await,
    }
}

/// Makes the chain, says where it is, and serves it until the parent closes its end.
async fn serve(tasks: usize) {
    let mut world = World::start(&Faults::new()).await;
    let session = world.session().await;
    let nodes = world.serving(session).await;
    let _: serde_json::Value =
        world.provider.raw_request("evm_setAutomine".into(), [false]).await.unwrap();
    let (keeper, queue) = (world.keeper.clone(), world.deployment.queue);
    let mut due = Vec::new();
    let mut done = 0;
    while done < tasks || !due.is_empty() {
        world.advance(5).await;
        world.gas_limit = SETTLE_GAS;
        for group in std::mem::take(&mut due).chunks(SETTLED_TOGETHER) {
            let tasks = group.iter().map(|id| world.tasks.remove(id).unwrap().task).collect();
            let call = SessionQueue::settleCall { tasks }.abi_encode();
            world.offer(&keeper, queue.into(), call.into()).await;
        }
        world.gas_limit = CARRIED_GAS;
        for number in done..tasks.min(done + TASKS_A_BLOCK) {
            let (id, call) = world.carried_call(session, nodes[number % nodes.len()]).await;
            world.offer(&keeper, queue.into(), call.abi_encode().into()).await;
            due.push(id);
        }
        done += due.len();
        world.mine(1).await;
        let receipts = world.provider.get_block_receipts(BlockId::latest()).await.unwrap().unwrap();
        for receipt in receipts {
            assert!(receipt.status());
            world.take_in(&receipt);
        }
    }
    println!("{}", world.url);
    println!("{}", serde_json::to_string(&world.deployment).unwrap());
    let _ = std::io::stdin().read(&mut [0]);
}

async fn measure(tasks: usize) {
    let begun = Instant::now();
    let (mut chain, [url, deployment]) = child(&["serve", &tasks.to_string()]);
    println!("{tasks} tasks on the embedded chain, made in {:.0} s", begun.elapsed().as_secs_f64());
    run(source(&url), serde_json::from_str(&deployment).unwrap()).await;
    println!(
        "\nmemory of a process that does nothing else:\n    block    tasks   replay    audit  of its own"
    );
    let rows = |way| -> [String; ROWS as usize] {
        let (mut child, rows) = child(&["remember", way, &url, &deployment]);
        child.wait().unwrap();
        rows
    };
    for (replay, audit) in rows("replay").iter().zip(rows("audit")) {
        let replay: Memory = serde_json::from_str(replay).unwrap();
        let audit: Memory = serde_json::from_str(&audit).unwrap();
        let own = audit.kib.saturating_sub(replay.kib) / 1024;
        let [of_replay, of_audit] = [replay, audit].map(|memory| memory.kib / 1024);
        println!(
            "{:>9} {:>8} {of_replay:>4} MiB {of_audit:>4} MiB {own:>7} MiB",
            audit.block, audit.tasks
        );
    }
    drop(chain.stdin.take());
    chain.wait().unwrap();
}

/// This program in another process, and the first lines that it says.
fn child<const N: usize>(arguments: &[&str]) -> (Child, [String; N]) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, std::array::from_fn(|_| lines.next().unwrap().unwrap()))
}

fn source(url: &str) -> Source {
    Source::new(ProviderBuilder::new().connect_http(url.parse().unwrap()).erased())
}

/// Memory of a process after a block.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Memory {
    block: u64,
    tasks: u64,
    kib: u64,
}

/// Executes or audits everything, and tells from time to time what it holds.
async fn remember(arguments: &[String]) {
    let [way, url, deployment] = arguments else { panic!("a way, a chain and its contracts") };
    let source = source(url);
    let Begun { to, mut replay, mut audit, .. } =
        begin(&source, serde_json::from_str(deployment).unwrap()).await;
    let mut blocks = std::pin::pin!(source.blocks(1..=to));
    let mut printed = 0;
    while let Some((number, block)) = blocks.next().await {
        let block = block.unwrap().unwrap();
        match way.as_str() {
            "replay" => again(&mut replay, &block),
            _ => assert!(audit.block(&block, &mut ())),
        }
        if number * ROWS / to > printed {
            printed = number * ROWS / to;
            let tasks = audit.report().checked.tasks;
            let memory = Memory { block: number, tasks, kib: resident_kib() };
            println!("{}", serde_json::to_string(&memory).unwrap());
        }
    }
}

/// The ways to execute a chain's blocks, before its first.
struct Begun {
    to: u64,
    bare: Bare,
    replay: Replay,
    audit: Audit,
}

async fn begin(source: &Source, deployment: Deployment) -> Begun {
    let to = source.head().await.unwrap();
    let first = source.block(0).await.unwrap().unwrap();
    let genesis = Genesis::fetch(source, 31337, first.header.state_root).await.unwrap();
    let replay = Replay::new(31337, genesis.state.clone(), (0, first.hash));
    let audit = Audit::new(Options { deployment, from: 1, to }, genesis, &first);
    Begun { to, bare: Bare::new(), replay, audit }
}

/// Time that each way took.
#[derive(Default)]
struct Times {
    bare: Duration,
    replay: Duration,
    audit: Duration,
    fetch: Duration,
}

async fn run(source: Source, deployment: Deployment) {
    let Begun { to, mut bare, mut replay, mut audit } = begin(&source, deployment).await;
    let mut times = Times::default();
    let (mut gas, mut printed) = (0, 0);
    let mut chunks = std::pin::pin!(source.blocks(1..=to).chunks(CHUNK));
    println!("    block    tasks      gas    bare revm       replay        audit  replay/bare");
    for turn in 0_usize.. {
        let asked = Instant::now();
        let Some(chunk) = chunks.next().await else { break };
        times.fetch += asked.elapsed();
        let chunk: Vec<Fetched> =
            chunk.into_iter().map(|(_, block)| block.unwrap().unwrap()).collect();
        // Whoever comes first finds cold caches: they take turns.
        for way in [[0, 1, 2], [1, 2, 0], [2, 0, 1]][turn % 3] {
            let begun = Instant::now();
            match way {
                0 => chunk.iter().for_each(|block| bare.block(block)),
                1 => chunk.iter().for_each(|block| again(&mut replay, block)),
                _ => chunk.iter().for_each(|block| assert!(audit.block(block, &mut ()))),
            }
            *[&mut times.bare, &mut times.replay, &mut times.audit][way] += begun.elapsed();
        }
        gas += chunk.iter().map(|block| block.header.gas_used).sum::<u64>();
        let at = chunk.last().unwrap().header.number;
        if at * ROWS / to > printed {
            printed = at * ROWS / to;
            row(at, gas, audit.report().checked.tasks, &times);
        }
    }
    let begun = Instant::now();
    let report = audit.finish(&source).await.unwrap();
    times.audit += begun.elapsed();
    assert!(report.is_clean(), "{}", report.text());
    let checked = &report.checked;
    println!(
        "audited: {} tasks, {} calls, {} events, {} stored values; {:.1} s, and {:.1} s of waiting for blocks",
        checked.tasks,
        checked.calls,
        checked.events,
        checked.stored_values,
        times.audit.as_secs_f64(),
        times.fetch.as_secs_f64(),
    );
}

fn row(block: u64, gas: u64, tasks: u64, times: &Times) {
    let rate = |time: Duration| gas as f64 / time.as_secs_f64() / 1e6;
    let (bare, replay, audit) = (rate(times.bare), rate(times.replay), rate(times.audit));
    println!(
        "{block:>9} {tasks:>8} {:>6.0} M {bare:>8.0} M/s {replay:>8.0} M/s {audit:>8.0} M/s {:>12.2}",
        gas as f64 / 1e6,
        replay / bare,
    );
}

/// The replay alone: execution, and all that the header says of it.
fn again(replay: &mut Replay, block: &Fetched) {
    let header = &block.header;
    let executed = replay.block(header, block.hash, &block.transactions, &[]).unwrap();
    let receipts: Vec<_> = executed.receipts.iter().map(|receipt| &receipt.envelope).collect();
    let bloom = receipts.iter().fold(Bloom::ZERO, |bloom, receipt| bloom | *receipt.logs_bloom());
    assert_eq!(calculate_receipt_root(&receipts), header.receipts_root);
    assert_eq!(bloom, header.logs_bloom);
    assert_eq!(replay.state().root(), header.state_root);
}

/// revm with its own database in memory: transactions are executed, and nothing is compared but the gas.
struct Bare {
    db: InMemoryDB,
}

impl Bare {
    fn new() -> Self {
        let mut db = InMemoryDB::default();
        for person in everybody() {
            let balance = U256::from(10).pow(U256::from(24));
            let info = AccountInfo { balance, code_hash: KECCAK256_EMPTY, ..Default::default() };
            db.insert_account_info(person.address(), info);
        }
        Self { db }
    }

    fn block(&mut self, block: &Fetched) {
        let header = &block.header;
        let cfg = CfgEnv::new_with_spec(SpecId::PRAGUE).with_chain_id(31337);
        let env = EvmEnv::new(cfg, block_env(header));
        let mut evm = EthEvmFactory::default().create_evm(&mut self.db, env);
        let mut gas = 0;
        for tx in &block.transactions {
            let tx = TxEnv::from_recovered_tx(tx.inner(), tx.signer());
            gas += evm.transact_commit(tx).unwrap().tx_gas_used();
        }
        drop(evm);
        assert_eq!(gas, header.gas_used);
        self.db.cache.block_hashes.insert(U256::from(header.number), block.hash);
    }
}

fn block_env(header: &Header) -> BlockEnv {
    BlockEnv {
        number: U256::from(header.number),
        beneficiary: header.beneficiary,
        timestamp: U256::from(header.timestamp),
        gas_limit: header.gas_limit,
        basefee: header.base_fee_per_gas.unwrap_or_default(),
        difficulty: U256::ZERO,
        prevrandao: Some(header.mix_hash),
        blob_excess_gas_and_price: Some(BlobExcessGasAndPrice {
            excess_blob_gas: 0,
            blob_gasprice: 1,
        }),
        slot_num: 0,
    }
}

/// Memory of this process, as the kernel counts it.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0)
}
