//! Blocks and receipts as the chain keeps them, and as they are stored.

use alloy::consensus::transaction::Recovered;
use alloy::consensus::{
    EMPTY_OMMER_ROOT_HASH, Eip658Value, Header, Receipt, ReceiptEnvelope, Transaction, TxEnvelope,
    TxType, TypedTransaction, proofs,
};
use alloy::eips::eip1559::{BaseFeeParams, INITIAL_BASE_FEE, calc_next_block_base_fee};
use alloy::eips::eip2718::{Decodable2718, Encodable2718};
use alloy::eips::eip4895::Withdrawal;
use alloy::eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy::primitives::{Address, B256, Bloom, Bytes, Log, Signature, U256, keccak256};
use alloy::rlp::{Decodable, Encodable};

/// A transaction with its sender.
pub type SignedTx = Recovered<TxEnvelope>;

/// A transaction that nobody has signed, in the name of any account: for development. Its signature
/// holds the sender, so that equal transactions of two senders have two hashes, and an `s` of zero,
/// which no signature has.
pub fn impersonate(tx: TypedTransaction, sender: Address) -> SignedTx {
    let signature = Signature::new(U256::from_be_slice(sender.as_slice()), U256::ZERO, false);
    SignedTx::new_unchecked(tx.into_envelope(signature), sender)
}

pub(crate) fn is_impersonated(tx: &TxEnvelope) -> bool {
    tx.signature().s().is_zero()
}

/// Gas limit of a block: the value of mainnet when Prague came; contracts of the largest size deploy in it.
pub const BLOCK_GAS_LIMIT: u64 = 30_000_000;

/// Base fee of the first block, as mainnet began: one gwei.
pub const GENESIS_BASE_FEE: u64 = INITIAL_BASE_FEE;

/// The outcome of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The outcome of `tx` as the one after `previous` in a block with this base fee.
    pub(crate) fn new(
        tx: &SignedTx,
        envelope: ReceiptEnvelope<Log>,
        base_fee: Option<u64>,
        previous: Option<&Self>,
    ) -> Self {
        let gas_before = previous.map_or(0, |previous| previous.envelope.cumulative_gas_used());
        let next_log = |record: &Self| record.first_log_index + record.envelope.logs().len() as u64;
        Self {
            gas_used: envelope.cumulative_gas_used().saturating_sub(gas_before),
            effective_gas_price: tx.effective_gas_price(base_fee),
            contract_address: tx.kind().is_create().then(|| tx.signer().create(tx.nonce())),
            first_log_index: previous.map_or(0, next_log),
            envelope,
        }
    }

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
#[derive(Debug, Clone, PartialEq, Eq)]
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
        Self::with_hash(header, transactions, receipts)
    }

    fn with_hash(
        header: Header,
        transactions: Vec<SignedTx>,
        receipts: Vec<TxReceiptRecord>,
    ) -> Self {
        let rlp = alloy::rlp::encode(&header);
        let size = block_size(rlp.len(), &transactions);
        Self { hash: keccak256(&rlp), header, transactions, receipts, size }
    }

    /// The whole block as bytes, with what it would cost to compute again: senders and receipts.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.header.encode(&mut out);
        let transactions = self.transactions.iter().map(|tx| {
            let mut bytes = tx.signer().to_vec();
            tx.inner().encode_2718(&mut bytes);
            Bytes::from(bytes)
        });
        transactions.collect::<Vec<_>>().encode(&mut out);
        let receipts = self.receipts.iter().map(|receipt| receipt.envelope.encoded_2718().into());
        receipts.collect::<Vec<Bytes>>().encode(&mut out);
        out
    }

    /// Reads what [`Block::encode`] wrote. The bytes are trusted: senders are taken as they stand.
    ///
    /// # Errors
    /// When the bytes are no block.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, alloy::rlp::Error> {
        let header = Header::decode(&mut bytes)?;
        let transactions = Vec::<Bytes>::decode(&mut bytes)?
            .iter()
            .map(|tx| {
                let (sender, mut envelope) = tx
                    .split_at_checked(Address::len_bytes())
                    .ok_or(alloy::rlp::Error::InputTooShort)?;
                let envelope = TxEnvelope::decode_2718(&mut envelope)?;
                Ok(SignedTx::new_unchecked(envelope, Address::from_slice(sender)))
            })
            .collect::<Result<Vec<_>, alloy::rlp::Error>>()?;
        let mut receipts: Vec<TxReceiptRecord> = Vec::with_capacity(transactions.len());
        let envelopes = Vec::<Bytes>::decode(&mut bytes)?;
        for (tx, envelope) in transactions.iter().zip(&envelopes) {
            let envelope = ReceiptEnvelope::decode_2718(&mut envelope.as_ref())?;
            let base_fee = header.base_fee_per_gas;
            receipts.push(TxReceiptRecord::new(tx, envelope, base_fee, receipts.last()));
        }
        Ok(Self::with_hash(header, transactions, receipts))
    }
}

/// Length of `rlp([header, transactions, ommers, withdrawals])` with two empty lists at its end.
fn block_size(header: usize, transactions: &[SignedTx]) -> u64 {
    let list = |payload: usize| alloy::rlp::Header { list: true, payload_length: payload }.length();
    let bodies: usize = transactions.iter().map(|tx| tx.inner().length()).sum();
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
