//! Blocks, fees, and what the node says about itself.

use std::sync::Arc;

use alloy::consensus::Transaction;
use alloy::eips::{BlockId, BlockNumberOrTag};
use alloy::primitives::{B256, U64, U128, U256};
use alloy::rpc::types::{Block as RpcBlock, FeeHistory, TransactionReceipt};
use assay_evm::{BLOCK_GAS_LIMIT, Block, Chain};

use super::{Answer, Context, Maybe, Module, Must, by_id, by_tag, heavy, quantity, quick};
use crate::convert;
use crate::error::{DevnetError, RpcError};

/// Tip that is suggested: one gwei, as by anvil. Nobody competes for space in these blocks.
pub(super) const SUGGESTED_TIP: u128 = 1_000_000_000;

/// Blocks that one `eth_feeHistory` covers at most: geth's limit.
const MAX_FEE_HISTORY: u64 = 1024;

/// Percentiles that one `eth_feeHistory` names at most: geth's limit.
const MAX_PERCENTILES: usize = 100;

pub(super) fn register(module: &mut Module) -> Result<(), DevnetError> {
    quick(module, "web3_clientVersion", |_, ()| {
        Ok(concat!("assay-devnet/v", env!("CARGO_PKG_VERSION")))
    })?;
    quick(module, "net_version", |node, ()| Ok(node.read().chain.chain_id().to_string()))?;
    quick(module, "net_listening", |_, ()| Ok(true))?;
    quick(module, "eth_chainId", |node, ()| Ok(quantity(node.read().chain.chain_id())))?;
    quick(module, "eth_blockNumber", |node, ()| Ok(quantity(node.read().chain.head().number())))?;
    quick(module, "eth_syncing", |_, ()| Ok(false))?;
    quick(module, "eth_accounts", |_, ()| Ok(Vec::<String>::new()))?;
    quick(module, "eth_gasPrice", gas_price)?;
    quick(module, "eth_maxPriorityFeePerGas", |_, ()| Ok(U128::from(SUGGESTED_TIP)))?;
    quick(module, "eth_getBlockByNumber", block_by_number)?;
    quick(module, "eth_getBlockByHash", block_by_hash)?;
    quick(module, "eth_getBlockTransactionCountByNumber", count_by_number)?;
    quick(module, "eth_getBlockTransactionCountByHash", count_by_hash)?;
    quick(module, "eth_getUncleCountByBlockNumber", uncles_by_number)?;
    quick(module, "eth_getUncleCountByBlockHash", uncles_by_hash)?;
    heavy(module, "eth_getBlockReceipts", block_receipts)?;
    heavy(module, "eth_feeHistory", fee_history)?;
    Ok(())
}

fn gas_price(node: &Context, (): ()) -> Answer<U128> {
    Ok(U128::from(u128::from(node.read().chain.next_base_fee()) + SUGGESTED_TIP))
}

fn block_by_number(
    node: &Context,
    (Must(tag), Maybe(full)): (Must<BlockNumberOrTag>, Maybe<bool>),
) -> Answer<Option<RpcBlock>> {
    let block = by_tag(&node.read().chain, tag).cloned();
    Ok(block.map(|block| convert::block(&block, full.unwrap_or_default())))
}

fn block_by_hash(
    node: &Context,
    (Must(hash), Maybe(full)): (Must<B256>, Maybe<bool>),
) -> Answer<Option<RpcBlock>> {
    let block = node.read().chain.block_by_hash(&hash).cloned();
    Ok(block.map(|block| convert::block(&block, full.unwrap_or_default())))
}

fn count(block: Option<&Arc<Block>>) -> Option<U64> {
    block.map(|block| quantity(block.transactions.len() as u64))
}

fn count_by_number(node: &Context, (Must(tag),): (Must<BlockNumberOrTag>,)) -> Answer<Option<U64>> {
    Ok(count(by_tag(&node.read().chain, tag)))
}

fn count_by_hash(node: &Context, (Must(hash),): (Must<B256>,)) -> Answer<Option<U64>> {
    Ok(count(node.read().chain.block_by_hash(&hash)))
}

fn uncles_by_number(
    node: &Context,
    (Must(tag),): (Must<BlockNumberOrTag>,),
) -> Answer<Option<U64>> {
    Ok(by_tag(&node.read().chain, tag).map(|_| U64::ZERO))
}

fn uncles_by_hash(node: &Context, (Must(hash),): (Must<B256>,)) -> Answer<Option<U64>> {
    Ok(node.read().chain.block_by_hash(&hash).map(|_| U64::ZERO))
}

fn block_receipts(
    node: &Context,
    (Must(id),): (Must<BlockId>,),
) -> Answer<Option<Vec<TransactionReceipt>>> {
    let block = by_id(&node.read().chain, id).cloned();
    Ok(block.map(|block| {
        (0..block.transactions.len()).filter_map(|index| convert::receipt(&block, index)).collect()
    }))
}

fn fee_history(
    node: &Context,
    (Must(count), Must(newest), Maybe(percentiles)): (
        Must<U256>,
        Must<BlockNumberOrTag>,
        Maybe<Vec<f64>>,
    ),
) -> Answer<FeeHistory> {
    let percentiles = percentiles.unwrap_or_default();
    if percentiles.len() > MAX_PERCENTILES {
        return Err(RpcError::params(format!("over the query limit {MAX_PERCENTILES}")));
    }
    let sorted = percentiles.is_sorted_by(|a, b| a < b);
    if !sorted || percentiles.iter().any(|p| !(0.0..=100.0).contains(p)) {
        return Err(RpcError::params("invalid reward percentile".to_owned()));
    }
    let blocks = history_blocks(&node.read().chain, count.saturating_to(), newest)?;
    let mut history = FeeHistory::default();
    let Some(oldest) = blocks.first() else { return Ok(history) };
    history.oldest_block = oldest.number();
    for block in &blocks {
        history.base_fee_per_gas.push(block.header.base_fee_per_gas.unwrap_or_default().into());
        history.gas_used_ratio.push(block.header.gas_used as f64 / BLOCK_GAS_LIMIT as f64);
        history.base_fee_per_blob_gas.push(1);
        history.blob_gas_used_ratio.push(0.0);
    }
    if let Some(newest) = blocks.last() {
        history.base_fee_per_gas.push(newest.next_base_fee().into());
        history.base_fee_per_blob_gas.push(1);
    }
    if !percentiles.is_empty() {
        history.reward = Some(blocks.iter().map(|block| rewards(block, &percentiles)).collect());
    }
    Ok(history)
}

fn history_blocks(chain: &Chain, count: u64, newest: BlockNumberOrTag) -> Answer<Vec<Arc<Block>>> {
    let head = chain.head().number();
    let newest = by_tag(chain, newest).map(|block| block.number()).ok_or_else(|| {
        RpcError::server(format!("request beyond head block: requested {newest}, head {head}"))
    })?;
    let count = count.clamp(0, MAX_FEE_HISTORY).min(newest + 1);
    Ok((newest + 1 - count..=newest).filter_map(|number| chain.block(number).cloned()).collect())
}

/// The tips at these percentiles of the gas that the block used.
fn rewards(block: &Block, percentiles: &[f64]) -> Vec<u128> {
    let base_fee = block.header.base_fee_per_gas.unwrap_or_default();
    let mut tips: Vec<(u128, u64)> = block
        .transactions
        .iter()
        .zip(&block.receipts)
        .map(|(tx, receipt)| {
            (tx.effective_tip_per_gas(base_fee).unwrap_or_default(), receipt.gas_used)
        })
        .collect();
    tips.sort_unstable();
    percentiles
        .iter()
        .map(|percentile| {
            let threshold = (block.header.gas_used as f64 * percentile / 100.0) as u64;
            let mut sum = 0_u64;
            for (tip, gas) in &tips {
                sum += gas;
                if sum >= threshold {
                    return *tip;
                }
            }
            tips.last().map(|(tip, _)| *tip).unwrap_or_default()
        })
        .collect()
}
