//! A chain that is kept in a folder: restarts, kills, a full disk, and folders that are refused.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use alloy::eips::BlockId;
use alloy::primitives::{B256, U256};
use alloy::providers::{DynProvider, Provider, ProviderBuilder};
use alloy::rpc::types::{Block, Filter};
use alloy::signers::local::PrivateKeySigner;
use assay_devnet::{Clock, Devnet, DevnetConfig, DevnetError, ManualClock, StoreError};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::{START_S, STORE, World, deploy, ether, send, sign_with, store, transfer};

/// Names the folder for [`serve_until_killed`].
const FOLDER: &str = "ASSAY_DEVNET_TEST_FOLDER";
/// The account that has money there: any constant will do.
const KEY: B256 = B256::repeat_byte(0x17);

fn signer() -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&KEY).unwrap()
}

fn config(folder: PathBuf) -> DevnetConfig {
    DevnetConfig {
        accounts: vec![(signer().address(), ether(1000))],
        block_time: None,
        data: Some(folder),
        ..DevnetConfig::default()
    }
}

/// The other process: this test, started by the ones below.
#[tokio::test]
#[ignore = "only a process of its own runs this"]
async fn serve_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let devnet = Devnet::start(config(PathBuf::from(folder))).await.unwrap();
    // Past the capture of tests, which would hold it back.
    writeln!(std::io::stdout(), "{}", devnet.http_url()).unwrap();
    std::future::pending::<()>().await;
}

struct Process {
    child: Child,
    provider: DynProvider,
}

impl Process {
    /// `limits` are shell commands that run before the chain.
    async fn start(folder: &Path, limits: &str) -> Self {
        let test = std::env::current_exe().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", &format!("{limits} exec \"$0\" \"$@\"")])
            .arg(test)
            .args(["--exact", "folder::serve_until_killed", "--ignored", "--nocapture"])
            .env(FOLDER, folder)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        loop {
            let line = lines.next_line().await.unwrap().expect("the chain does not start");
            // The test runner writes before it, on the same line.
            if let Some(start) = line.find("http://") {
                let provider = ProviderBuilder::new().connect(&line[start..]).await.unwrap();
                return Self { child, provider: provider.erased() };
            }
        }
    }
}

async fn blocks(provider: &DynProvider) -> Vec<Block> {
    let mut blocks = Vec::new();
    for number in 0..=provider.get_block_number().await.unwrap() {
        let block = provider.get_block_by_number(number.into()).full().await.unwrap().unwrap();
        let receipts = provider.get_block_receipts(number.into()).await.unwrap().unwrap();
        assert_eq!(receipts.len(), block.transactions.len());
        blocks.push(block);
    }
    blocks
}

#[tokio::test]
async fn a_restart_goes_on_with_the_same_blocks_receipts_logs_and_state() {
    let folder = TempDir::new().unwrap();
    let world = World::with(|config| config.data = Some(folder.path().to_path_buf())).await;
    let provider = world.http();
    let contract = deploy(&provider, &STORE).await;
    let mut receipts = Vec::new();
    for value in [7, 0, 8] {
        receipts.push(send(&provider, store(contract, value)).await);
    }
    let () = provider.raw_request("anvil_setBalance".into(), (contract, ether(3))).await.unwrap();
    let () = provider.raw_request("anvil_mine".into(), (3,)).await.unwrap();
    let before = blocks(&provider).await;
    let proof = provider.get_proof(contract, vec![B256::ZERO]).await.unwrap();
    let (signer, clock) = (world.signer.clone(), world.clock.clone());
    world.devnet.stop().await;

    let devnet = Devnet::start(DevnetConfig {
        block_time: None,
        clock: Clock::Manual(clock.clone()),
        data: Some(folder.path().to_path_buf()),
        ..DevnetConfig::default()
    })
    .await
    .unwrap();
    let world = World { devnet, clock, signer };
    let provider = world.http();
    assert_eq!(blocks(&provider).await, before);
    assert_eq!(provider.get_proof(contract, vec![B256::ZERO]).await.unwrap(), proof);
    assert_eq!(provider.get_balance(contract).await.unwrap(), ether(3));
    let logs = provider.get_logs(&Filter::new().from_block(0)).await.unwrap();
    let expected: Vec<_> = receipts.iter().flat_map(|receipt| receipt.logs().to_vec()).collect();
    assert_eq!(logs, expected);
    for (receipt, value) in receipts.iter().zip([7, 0, 8]) {
        let again = provider.get_transaction_receipt(receipt.transaction_hash).await.unwrap();
        assert_eq!(again.as_ref(), Some(receipt));
        let at = BlockId::number(receipt.block_number.unwrap());
        let slot = provider.get_storage_at(contract, U256::ZERO).block_id(at).await.unwrap();
        assert_eq!(slot, U256::from(value));
        let proof = provider.get_proof(contract, vec![]).block_id(at).await.unwrap();
        let root = before[receipt.block_number.unwrap() as usize].header.state_root;
        crate::proofs::check(root, &proof);
    }
    let receipt = send(&provider, store(contract, 9)).await;
    assert_eq!(receipt.block_number, Some(before.len() as u64));
    world.devnet.stop().await;
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_kill() {
    let folder = TempDir::new().unwrap();
    let mut nonce = 0;
    let mut answered: Vec<(B256, B256)> = Vec::new();
    for round in 0..4 {
        let Process { mut child, provider } = Process::start(folder.path(), "").await;
        let head = provider.get_block(BlockId::latest()).await.unwrap().unwrap();
        // At most the block whose answer the kill cut off is there beyond what was answered.
        let have = provider.get_transaction_count(signer().address()).await.unwrap();
        assert!(have == nonce || have == nonce + 1, "{have} of {nonce}");
        nonce = have;
        assert_eq!(head.header.number, nonce);
        for (tx, block) in &answered {
            let receipt = provider.get_transaction_receipt(*tx).await.unwrap().unwrap();
            assert_eq!(receipt.block_hash, Some(*block));
            assert!(provider.get_block_by_hash(*block).await.unwrap().is_some());
        }
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let sender = tokio::spawn({
            let provider = provider.clone();
            async move {
                let (mut done, mut stop) = (Vec::new(), Some(stop));
                for nonce in nonce.. {
                    let raw = sign_with(&signer(), transfer(nonce)).await;
                    let Ok(receipt) = provider.send_raw_transaction_sync(&raw).await else { break };
                    done.push((receipt.transaction_hash, receipt.block_hash.unwrap()));
                    if done.len() == 5 + 7 * round {
                        let _ = stop.take().unwrap().send(());
                    }
                }
                done
            }
        });
        (&mut stopped).await.unwrap();
        child.kill().await.unwrap();
        let done = sender.await.unwrap();
        nonce += done.len() as u64;
        answered.extend(done);
    }
    let Process { provider, child: _child } = Process::start(folder.path(), "").await;
    let have = provider.get_transaction_count(signer().address()).await.unwrap();
    assert!(have == nonce || have == nonce + 1, "{have} of {nonce}");
    let mut parent = B256::ZERO;
    for block in blocks(&provider).await {
        assert_eq!(block.header.parent_hash, parent);
        parent = block.header.hash;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_blocks_and_loses_none() {
    let folder = TempDir::new().unwrap();
    // A file may not become larger than 200 blocks of 512 bytes.
    let Process { mut child, provider } =
        Process::start(folder.path(), "trap '' XFSZ; ulimit -f 200;").await;
    let mut nonce = 0;
    let error = loop {
        let raw = sign_with(&signer(), transfer(nonce)).await;
        match provider.send_raw_transaction_sync(&raw).await {
            Ok(_) => nonce += 1,
            Err(error) => break error,
        }
        assert!(nonce < 1000, "the limit has no effect");
    };
    let payload = error.as_error_resp().unwrap();
    assert_eq!(payload.code, -32603);
    assert!(payload.message.contains("check the disk's space"), "{}", payload.message);
    assert!(nonce > 0);
    // The refused transaction is in no block, and in no pool.
    assert_eq!(provider.get_block_number().await.unwrap(), nonce);
    let pending = provider.get_transaction_count(signer().address()).pending().await.unwrap();
    assert_eq!(pending, nonce);
    let before = blocks(&provider).await;
    child.kill().await.unwrap();
    let Process { provider, child: _child } = Process::start(folder.path(), "").await;
    assert_eq!(blocks(&provider).await, before);
    let raw = sign_with(&signer(), transfer(nonce)).await;
    assert!(provider.send_raw_transaction_sync(&raw).await.unwrap().status());
}

#[tokio::test]
async fn what_was_taken_back_stays_away_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let devnet = Devnet::start(config(folder.path().to_path_buf())).await.unwrap();
    let provider = ProviderBuilder::new().connect(&devnet.http_url()).await.unwrap().erased();
    let id: Value = provider.raw_request("evm_snapshot".into(), ()).await.unwrap();
    let () = provider.raw_request("anvil_mine".into(), (4,)).await.unwrap();
    let reverted: bool = provider.raw_request("evm_revert".into(), (id,)).await.unwrap();
    assert!(reverted);
    let () = provider.raw_request("anvil_mine".into(), (6,)).await.unwrap();
    let raw = sign_with(&signer(), transfer(0)).await;
    let receipt = provider.send_raw_transaction_sync(&raw).await.unwrap();
    let () = provider.raw_request("anvil_reorg".into(), (3, [(); 0])).await.unwrap();
    let before = blocks(&provider).await;
    assert_eq!(before.len(), 8);
    devnet.stop().await;
    let devnet = Devnet::start(config(folder.path().to_path_buf())).await.unwrap();
    let provider = ProviderBuilder::new().connect(&devnet.http_url()).await.unwrap().erased();
    assert_eq!(blocks(&provider).await, before);
    let gone = provider.get_transaction_receipt(receipt.transaction_hash).await.unwrap();
    assert!(gone.is_none());
    devnet.stop().await;
}

#[tokio::test]
async fn time_that_was_pushed_forward_goes_on_from_there() {
    let folder = TempDir::new().unwrap();
    let clock = ManualClock::new(START_S);
    let start = || {
        let clock = Clock::Manual(clock.clone());
        Devnet::start(DevnetConfig { clock, ..config(folder.path().to_path_buf()) })
    };
    let devnet = start().await.unwrap();
    let provider = ProviderBuilder::new().connect(&devnet.http_url()).await.unwrap().erased();
    let _: Value = provider.raw_request("evm_increaseTime".into(), (86_400,)).await.unwrap();
    let () = provider.raw_request("anvil_mine".into(), (1,)).await.unwrap();
    devnet.stop().await;
    clock.advance(10);
    let devnet = start().await.unwrap();
    let provider = ProviderBuilder::new().connect(&devnet.http_url()).await.unwrap().erased();
    clock.advance(5);
    let () = provider.raw_request("anvil_mine".into(), (1,)).await.unwrap();
    let head = provider.get_block(BlockId::latest()).await.unwrap().unwrap();
    assert_eq!(head.header.timestamp, START_S + 86_400 + 5);
    devnet.stop().await;
}

async fn refusal(config: DevnetConfig) -> StoreError {
    match Devnet::start(config).await.unwrap_err() {
        DevnetError::Store(error) => error,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_folder_in_use_is_refused() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().to_path_buf();
    // By this process, and by another one.
    let devnet = Devnet::start(config(data.clone())).await.unwrap();
    let error = refusal(config(data.clone())).await;
    assert!(matches!(&error, StoreError::InUse { path } if path.starts_with(&data)), "{error}");
    devnet.stop().await;
    let mut process = Process::start(&data, "").await;
    let error = refusal(config(data.clone())).await;
    assert!(error.to_string().contains("is in use by another process"), "{error}");
    process.child.kill().await.unwrap();
    Devnet::start(config(data)).await.unwrap().stop().await;
}

#[tokio::test]
async fn a_newer_another_and_a_damaged_chain_are_refused() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().to_path_buf();
    let devnet = Devnet::start(config(data.clone())).await.unwrap();
    let provider = ProviderBuilder::new().connect(&devnet.http_url()).await.unwrap();
    let () = provider.raw_request("anvil_mine".into(), (3,)).await.unwrap();
    devnet.stop().await;
    let error = refusal(DevnetConfig { chain_id: 1, ..config(data.clone()) }).await;
    assert!(matches!(error, StoreError::OtherChain { found: 31337, asked: 1, .. }), "{error}");
    let file = data.join("chain.sqlite");
    let edit = |sql: &str| rusqlite::Connection::open(&file).unwrap().execute_batch(sql).unwrap();
    edit("PRAGMA user_version = 2");
    let error = refusal(config(data.clone())).await;
    assert!(matches!(error, StoreError::Newer { found: 2, .. }), "{error}");
    edit("PRAGMA user_version = 1; UPDATE block SET changes = X'c0' WHERE number = 2");
    // The third block writes its own slot of the history contract: the head's root misses the second.
    let error = refusal(config(data.clone())).await;
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    edit("UPDATE block SET block = X'00' WHERE number = 2");
    let error = refusal(config(data.clone())).await;
    assert!(error.to_string().contains("restore a backup"), "{error}");
    std::fs::write(&file, "this is no database, and long enough to be one at first sight").unwrap();
    let error = refusal(config(data)).await;
    assert!(matches!(error, StoreError::Sqlite { .. }), "{error}");
    let nowhere = refusal(config(PathBuf::from("/dev/null/chain"))).await;
    assert!(matches!(nowhere, StoreError::Folder { .. }), "{nowhere}");
}
