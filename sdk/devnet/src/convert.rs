//! Blocks, transactions and logs in the form that JSON-RPC has for them.

use alloy::consensus::Transaction as _;
use alloy::primitives::{B256, U256};
use alloy::rpc::types::{
    Block as RpcBlock, BlockTransactions, Filter, Header as RpcHeader, Log as RpcLog,
    Transaction as RpcTransaction, TransactionReceipt,
};
use assay_evm::{Block, SignedTx};

pub(crate) fn header(block: &Block) -> RpcHeader {
    RpcHeader {
        hash: block.hash,
        inner: block.header.clone(),
        total_difficulty: None,
        size: Some(U256::from(block.size)),
    }
}

pub(crate) fn block(block: &Block, full: bool) -> RpcBlock {
    let transactions = if full {
        let all = 0..block.transactions.len();
        BlockTransactions::Full(all.filter_map(|index| transaction(block, index)).collect())
    } else {
        BlockTransactions::Hashes(block.transaction_hashes().collect())
    };
    RpcBlock {
        header: header(block),
        uncles: Vec::new(),
        transactions,
        withdrawals: Some(Vec::new().into()),
    }
}

pub(crate) fn transaction(block: &Block, index: usize) -> Option<RpcTransaction> {
    let tx = block.transactions.get(index)?.clone();
    Some(RpcTransaction {
        effective_gas_price: Some(tx.effective_gas_price(block.header.base_fee_per_gas)),
        inner: tx,
        block_hash: Some(block.hash),
        block_number: Some(block.number()),
        transaction_index: Some(index as u64),
        block_timestamp: Some(block.timestamp()),
    })
}

pub(crate) fn pending_transaction(tx: &SignedTx) -> RpcTransaction {
    RpcTransaction {
        inner: tx.clone(),
        block_hash: None,
        block_number: None,
        transaction_index: None,
        effective_gas_price: None,
        block_timestamp: None,
    }
}

pub(crate) fn receipt(block: &Block, index: usize) -> Option<TransactionReceipt> {
    let (tx, record) = (block.transactions.get(index)?, block.receipts.get(index)?);
    let hash = *tx.tx_hash();
    let mut next = record.first_log_index;
    let inner = record.envelope.clone().map_logs(|log| {
        let log_index = next;
        next += 1;
        rpc_log(block, log, LogPlace { hash, index: index as u64, log_index }, false)
    });
    Some(TransactionReceipt {
        inner,
        transaction_hash: hash,
        transaction_index: Some(index as u64),
        block_hash: Some(block.hash),
        block_number: Some(block.number()),
        gas_used: record.gas_used,
        effective_gas_price: record.effective_gas_price,
        blob_gas_used: None,
        blob_gas_price: None,
        from: tx.signer(),
        to: tx.to(),
        contract_address: record.contract_address,
    })
}

/// Where a log is in its block.
struct LogPlace {
    hash: B256,
    index: u64,
    log_index: u64,
}

fn rpc_log(block: &Block, log: alloy::primitives::Log, place: LogPlace, removed: bool) -> RpcLog {
    RpcLog {
        inner: log,
        block_hash: Some(block.hash),
        block_number: Some(block.number()),
        block_timestamp: Some(block.timestamp()),
        transaction_hash: Some(place.hash),
        transaction_index: Some(place.index),
        log_index: Some(place.log_index),
        removed,
    }
}

/// The logs of a block that a filter asks for, whatever block range it names.
pub(crate) fn matching_logs(block: &Block, filter: &Filter, removed: bool) -> Vec<RpcLog> {
    // Most blocks are empty; a filter of many alternatives would take its time over each.
    if block.receipts.is_empty() || !filter.matches_bloom(block.header.logs_bloom) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (index, (tx, record)) in block.transactions.iter().zip(&block.receipts).enumerate() {
        for (log, log_index) in record.envelope.logs().iter().zip(record.first_log_index..) {
            if filter.matches_address(log.address) && filter.matches_topics(log.topics()) {
                let place = LogPlace { hash: *tx.tx_hash(), index: index as u64, log_index };
                found.push(rpc_log(block, log.clone(), place, removed));
            }
        }
    }
    found
}
