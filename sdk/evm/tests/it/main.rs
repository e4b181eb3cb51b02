//! The chain without a server: blocks, calls, the way back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod blocks;
mod calls;
mod proofs;
mod state;
mod witness;

use std::sync::Arc;

use alloy::consensus::transaction::SignerRecoverable;
use alloy::consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy::primitives::{Address, Bytes, TxKind, U256, bytes};
use alloy::signers::SignerSync;
use alloy::signers::local::PrivateKeySigner;
use assay_evm::{Block, Chain, ChainConfig, SignedTx, TxReceiptRecord};

/// Empty calldata: returns slot 0. Otherwise writes the first word there.
const STORE: Bytes = bytes!("36600f5760005460005260206000f35b60003560005500");
/// Reverts with its calldata.
const REVERTER: Bytes = bytes!("366000600037366000fd");
/// Returns PREVRANDAO.
const RANDAO: Bytes = bytes!("4460005260206000f3");
/// Pays everything it has to the caller and destroys itself (EIP-6780: only in the same transaction).
const SUICIDE: Bytes = bytes!("33ff");

const START_S: u64 = 1_700_000_000;

struct World {
    chain: Chain,
    signer: PrivateKeySigner,
    nonce: u64,
}

impl World {
    fn new() -> Self {
        let signer = PrivateKeySigner::random();
        let chain = Chain::new(ChainConfig {
            genesis_timestamp: START_S,
            accounts: vec![(signer.address(), ether(10))],
            ..ChainConfig::default()
        });
        Self { chain, signer, nonce: 0 }
    }

    fn tx(&mut self, to: TxKind, value: u64, input: Bytes) -> SignedTx {
        let tx = TxEip1559 {
            chain_id: 31337,
            nonce: self.nonce,
            gas_limit: 1_000_000,
            max_fee_per_gas: 5_000_000_000,
            max_priority_fee_per_gas: 1_000_000_000,
            to,
            value: U256::from(value),
            input,
            ..TxEip1559::default()
        };
        self.nonce += 1;
        sign(&self.signer, tx)
    }

    /// Mines one transaction in a block of its own.
    fn mine(&mut self, to: TxKind, value: u64, input: Bytes) -> TxReceiptRecord {
        let tx = self.tx(to, value, input);
        self.chain.validate(&tx).unwrap();
        let block = self.seal(vec![tx]);
        block.receipts[0].clone()
    }

    /// Seals a block with these transactions, at the time of the head.
    fn seal(&mut self, txs: Vec<SignedTx>) -> Arc<Block> {
        self.seal_at(self.chain.head().timestamp(), txs)
    }

    fn seal_at(&mut self, timestamp: u64, txs: Vec<SignedTx>) -> Arc<Block> {
        let mut builder = self.chain.begin_block(timestamp).unwrap();
        for tx in txs {
            builder.execute(tx).unwrap();
        }
        let sealed = builder.seal();
        self.chain.push(sealed).unwrap()
    }

    fn deploy(&mut self, runtime: &Bytes) -> Address {
        let receipt = self.mine(TxKind::Create, 0, init_code(runtime));
        assert!(receipt.is_success());
        receipt.contract_address.unwrap()
    }
}

fn sign(signer: &PrivateKeySigner, tx: TxEip1559) -> SignedTx {
    let signature = signer.sign_hash_sync(&tx.signature_hash()).unwrap();
    TxEnvelope::from(tx.into_signed(signature)).try_into_recovered().unwrap()
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
