//! Blocks and receipts as the chain keeps them.

use alloy::consensus::transaction::Recovered;
use alloy::consensus::{
    EMPTY_OMMER_ROOT_HASH, Eip658Value, Header, Receipt, ReceiptEnvelope, TxEnvelope, TxType,
    proofs,
};
use alloy::eips::eip1559::{BaseFeeParams, INITIAL_BASE_FEE, calc_next_block_base_fee};
use alloy::eips::eip4895::Withdrawal;
use alloy::eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy::primitives::{Address, B256, Bloom, Log, keccak256};
use alloy::rlp::Encodable;

/// A transaction with its sender.
pub type SignedTx = Recovered<TxEnvelope>;

/// Gas limit of a block: the value of mainnet when Prague came; contracts of the largest size deploy in it.
pub const BLOCK_GAS_LIMIT: u64 = 30_000_000;

/// Base fee of the first block, as mainnet began: one gwei.
pub const GENESIS_BASE_FEE: u64 = INITIAL_BASE_FEE;

/// The outcome of one transaction.
#[derive(Debug, Clone)]
pub struct TxReceiptRecord {
    /// What the receipts root commits to: status, cumulative gas, bloom, logs.
    pub envelope: ReceiptEnvelope<Log>,
    /// Gas of this transaction alone.
    pub gas_used: u64,
    /// Price paid per gas, in wei.
    pub effective_gas_price: u128,
    /// Address of the contract, for a transaction that creates one.
    pub contract_address: Option<Address>,
    /// Place of the first log of this transaction among those of the block.
    pub first_log_index: u64,
}

impl TxReceiptRecord {
    /// Whether the transaction did what it should.
    pub fn is_success(&self) -> bool {
        self.envelope.status()
    }

    /// Events, in order.
    pub fn logs(&self) -> &[Log] {
        self.envelope.logs()
    }
}

/// A sealed block.
#[derive(Debug, Clone)]
pub struct Block {
    /// The header; `hash` is the hash of its RLP encoding.
    pub header: Header,
    /// Hash of the header.
    pub hash: B256,
    /// Transactions in order, with their senders.
    pub transactions: Vec<SignedTx>,
    /// Receipts, in the order of the transactions.
    pub receipts: Vec<TxReceiptRecord>,
    /// Length of the RLP encoding of the whole block, in bytes.
    pub size: u64,
}

impl Block {
    /// Number of the block; genesis is 0.
    pub const fn number(&self) -> u64 {
        self.header.number
    }

    /// Time of the block in unix seconds.
    pub const fn timestamp(&self) -> u64 {
        self.header.timestamp
    }

    /// Hashes of the transactions, in order.
    pub fn transaction_hashes(&self) -> impl Iterator<Item = B256> + '_ {
        self.transactions.iter().map(|tx| *tx.inner().tx_hash())
    }

    /// Base fee of the block that follows (EIP-1559), in wei per gas.
    pub fn next_base_fee(&self) -> u64 {
        calc_next_block_base_fee(
            self.header.gas_used,
            self.header.gas_limit,
            self.header.base_fee_per_gas.unwrap_or(GENESIS_BASE_FEE),
            BaseFeeParams::ethereum(),
        )
    }

    pub(crate) fn seal(
        mut header: Header,
        transactions: Vec<SignedTx>,
        receipts: Vec<TxReceiptRecord>,
    ) -> Self {
        let bodies: Vec<&TxEnvelope> = transactions.iter().map(|tx| tx.inner()).collect();
        let envelopes: Vec<&ReceiptEnvelope<Log>> =
            receipts.iter().map(|receipt| &receipt.envelope).collect();
        header.transactions_root = proofs::calculate_transaction_root(&bodies);
        header.receipts_root = proofs::calculate_receipt_root(&envelopes);
        header.logs_bloom = receipts
            .iter()
            .fold(Bloom::ZERO, |bloom, receipt| bloom | *receipt.envelope.logs_bloom());
        let mut rlp = Vec::new();
        header.encode(&mut rlp);
        let hash = keccak256(&rlp);
        let size = block_size(rlp.len(), &bodies);
        Self { header, hash, transactions, receipts, size }
    }
}

/// Length of `rlp([header, transactions, ommers, withdrawals])` with two empty lists at its end.
fn block_size(header: usize, transactions: &[&TxEnvelope]) -> u64 {
    let list = |payload: usize| alloy::rlp::Header { list: true, payload_length: payload }.length();
    let bodies: usize = transactions.iter().map(|tx| tx.length()).sum();
    let payload = header + list(bodies) + bodies + 2;
    (list(payload) + payload) as u64
}

/// A header with everything in it that does not depend on the transactions.
pub(crate) fn empty_header() -> Header {
    let no_withdrawals: &[Withdrawal] = &[];
    Header {
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        withdrawals_root: Some(proofs::calculate_withdrawals_root(no_withdrawals)),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(B256::ZERO),
        requests_hash: Some(EMPTY_REQUESTS_HASH),
        ..Default::default()
    }
}

pub(crate) fn receipt_envelope(
    tx_type: TxType,
    success: bool,
    cumulative_gas_used: u64,
    logs: Vec<Log>,
) -> ReceiptEnvelope<Log> {
    let receipt =
        Receipt { status: Eip658Value::Eip658(success), cumulative_gas_used, logs }.with_bloom();
    match tx_type {
        TxType::Legacy => ReceiptEnvelope::Legacy(receipt),
        TxType::Eip2930 => ReceiptEnvelope::Eip2930(receipt),
        TxType::Eip1559 => ReceiptEnvelope::Eip1559(receipt),
        TxType::Eip4844 => ReceiptEnvelope::Eip4844(receipt),
        TxType::Eip7702 => ReceiptEnvelope::Eip7702(receipt),
    }
}
