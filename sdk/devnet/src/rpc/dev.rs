//! Methods that only a development chain has.

use alloy::consensus::Transaction;
use alloy::primitives::{Address, B256, Bytes, U64, U256};
use alloy::rpc::types::anvil::{ReorgOptions, TransactionData};
use jsonrpsee::types::Params;
use serde::Deserialize;

use super::{Answer, Context, FromParams, Maybe, Module, Must, heavy, invalid, quantity, quick};
use crate::error::{DevnetError, RpcError};

/// Blocks that one call mines at most: each takes memory for ever.
const MAX_MINE: u64 = 10_000;

/// Largest step of `evm_increaseTime`: a hundred years, so that no sum of times overflows.
const MAX_STEP_S: u64 = 100 * 365 * 86_400;

pub(super) fn register(module: &mut Module) -> Result<(), DevnetError> {
    heavy(module, "evm_mine", mine)?;
    heavy(module, "anvil_mine", mine_many)?;
    quick(module, "evm_increaseTime", increase_time)?;
    quick(module, "evm_setNextBlockTimestamp", set_next_timestamp)?;
    module.register_alias("anvil_increaseTime", "evm_increaseTime")?;
    module.register_alias("anvil_setNextBlockTimestamp", "evm_setNextBlockTimestamp")?;
    quick(module, "evm_setAutomine", set_automine)?;
    heavy(module, "evm_snapshot", |node, ()| Ok(quantity(node.snapshot()?)))?;
    heavy(module, "evm_revert", |node, (Must(id),): (Must<U64>,)| node.revert(id.saturating_to()))?;
    module.register_alias("anvil_snapshot", "evm_snapshot")?;
    module.register_alias("anvil_revert", "evm_revert")?;
    heavy(module, "anvil_reorg", reorg)?;
    quick(module, "anvil_dropTransaction", drop_transaction)?;
    quick(module, "anvil_setBalance", set_balance)?;
    quick(module, "anvil_setNonce", set_nonce)?;
    quick(module, "anvil_setCode", set_code)?;
    quick(module, "anvil_setStorageAt", set_storage)?;
    Ok(())
}

/// A number as tools write it: `12`, `"12"` or `"0xc"`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(u64),
    Text(U256),
}

impl Number {
    fn get(self) -> Answer<u64> {
        match self {
            Self::Plain(number) => Ok(number),
            Self::Text(number) => number
                .try_into()
                .map_err(|_| RpcError::params("invalid argument: the number is too large")),
        }
    }
}

/// What `evm_mine` takes: a timestamp, or options.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum MineOptions {
    Options { timestamp: Option<Number>, blocks: Option<Number> },
    Timestamp(Number),
}

fn mine(node: &Context, (Maybe(options),): (Maybe<MineOptions>,)) -> Answer<&'static str> {
    let (timestamp, blocks) = match options {
        None => (None, None),
        Some(MineOptions::Timestamp(timestamp)) => (Some(timestamp), None),
        Some(MineOptions::Options { timestamp, blocks }) => (timestamp, blocks),
    };
    if let Some(timestamp) = timestamp {
        set_next_timestamp(node, (Must(timestamp),))?;
    }
    mine_blocks(node, blocks.map_or(Ok(1), Number::get)?, 0)?;
    Ok("0x0")
}

fn mine_many(
    node: &Context,
    (Maybe(blocks), Maybe(interval)): (Maybe<Number>, Maybe<Number>),
) -> Answer<()> {
    let interval_s = interval.map_or(Ok(0), Number::get)?;
    mine_blocks(node, blocks.map_or(Ok(1), Number::get)?, interval_s)
}

fn mine_blocks(node: &Context, blocks: u64, interval_s: u64) -> Answer<()> {
    if blocks > MAX_MINE {
        return Err(RpcError::limit(format!("at most {MAX_MINE} blocks can be mined at once")));
    }
    for index in 0..blocks {
        if index > 0 && interval_s > 0 {
            increase_time(node, (Must(Number::Plain(interval_s)),))?;
        }
        node.mine()?;
    }
    Ok(())
}

/// Moves the chain's time forward; returns how far it is from the clock, in seconds.
fn increase_time(node: &Context, (Must(seconds),): (Must<Number>,)) -> Answer<i64> {
    let seconds = seconds.get()?;
    if seconds > MAX_STEP_S {
        return Err(RpcError::params(format!("time can move by at most {MAX_STEP_S} s at once")));
    }
    let mut inner = node.write();
    inner.offset_s = inner.offset_s.saturating_add_unsigned(seconds);
    Ok(inner.offset_s)
}

fn set_next_timestamp(node: &Context, (Must(timestamp),): (Must<Number>,)) -> Answer<()> {
    let timestamp = timestamp.get()?;
    let mut inner = node.write();
    let parent = inner.chain.head().timestamp();
    if timestamp < parent {
        return Err(assay_evm::ChainError::Timestamp { timestamp, parent }.into());
    }
    // Time goes on from there after that block.
    node.set_time(&mut inner, timestamp);
    inner.next_timestamp = Some(timestamp);
    Ok(())
}

fn set_automine(node: &Context, (Must(on),): (Must<bool>,)) -> Answer<bool> {
    let mut inner = node.write();
    inner.mine_on_transaction = on;
    Ok(true)
}

/// `[depth, pairs]` or an object of the same: clients of anvil send both.
impl FromParams for ReorgOptions {
    fn read(params: &Params<'_>) -> Answer<Self> {
        params.parse().map_err(|error| invalid(&error))
    }
}

fn reorg(node: &Context, options: ReorgOptions) -> Answer<()> {
    let ReorgOptions { depth, tx_block_pairs } = options;
    let decode = |(data, block): (TransactionData, u64)| match data {
        TransactionData::Raw(raw) if block < depth => Ok((crate::node::decode(&raw)?, block)),
        TransactionData::Raw(_) => Err(RpcError::params(format!(
            "Block number for reorg tx will exceed the reorged chain height. Block number {block} must not exceed (depth-1) {}",
            depth.saturating_sub(1)
        ))),
        TransactionData::JSON(_) => Err(RpcError::params("a reorg takes signed transactions only")),
    };
    let replacements = tx_block_pairs.into_iter().map(decode).collect::<Answer<Vec<_>>>()?;
    node.reorg(depth, &replacements)
}

/// Takes a waiting transaction out of the pool, as a node may do at any time.
fn drop_transaction(node: &Context, (Must(hash),): (Must<B256>,)) -> Answer<Option<B256>> {
    let mut inner = node.write();
    let Some((sender, nonce)) = inner.pool.get(&hash).map(|tx| (tx.signer(), tx.nonce())) else {
        return Ok(None);
    };
    inner.pool.remove(&sender, nonce);
    Ok(Some(hash))
}

fn set_balance(
    node: &Context,
    (Must(address), Must(balance)): (Must<Address>, Must<U256>),
) -> Answer<()> {
    node.write().chain.set_balance(address, balance);
    Ok(())
}

fn set_nonce(
    node: &Context,
    (Must(address), Must(nonce)): (Must<Address>, Must<Number>),
) -> Answer<()> {
    node.write().chain.set_nonce(address, nonce.get()?);
    Ok(())
}

fn set_code(
    node: &Context,
    (Must(address), Must(code)): (Must<Address>, Must<Bytes>),
) -> Answer<()> {
    node.write().chain.set_code(address, code);
    Ok(())
}

fn set_storage(
    node: &Context,
    (Must(address), Must(slot), Must(value)): (Must<Address>, Must<U256>, Must<B256>),
) -> Answer<bool> {
    node.write().chain.set_storage(address, slot, value.into());
    Ok(true)
}
