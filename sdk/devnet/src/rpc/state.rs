//! Balances, code, storage; calls and estimates.

use alloy::eips::{BlockId, BlockNumberOrTag};
use alloy::primitives::{Address, B256, Bytes, U64, U256};
use alloy::rpc::types::TransactionRequest;
use alloy::rpc::types::state::StateOverride;
use assay_evm::{CallAt, StateError, StateView};

use super::{Answer, Context, Maybe, Module, Must, by_id, heavy, quantity};
use crate::error::DevnetError;
use crate::node::Inner;

pub(super) fn register(module: &mut Module) -> Result<(), DevnetError> {
    heavy(module, "eth_getBalance", balance)?;
    heavy(module, "eth_getCode", code)?;
    heavy(module, "eth_getStorageAt", storage)?;
    heavy(module, "eth_getTransactionCount", transaction_count)?;
    heavy(module, "eth_call", call)?;
    heavy(module, "eth_estimateGas", estimate)?;
    Ok(())
}

/// The state that an id means; without one, that of now.
fn view(inner: &Inner, id: Option<BlockId>) -> Answer<StateView<'_>> {
    match id {
        None | Some(BlockId::Number(BlockNumberOrTag::Pending)) => Ok(inner.chain.state()),
        Some(id) => {
            let block = by_id(&inner.chain, id).ok_or(StateError::UnknownBlock)?;
            Ok(inner.chain.state_at(block.number())?)
        }
    }
}

fn balance(
    node: &Context,
    (Must(address), Maybe(id)): (Must<Address>, Maybe<BlockId>),
) -> Answer<U256> {
    Ok(view(&node.read(), id)?.balance(&address))
}

fn code(
    node: &Context,
    (Must(address), Maybe(id)): (Must<Address>, Maybe<BlockId>),
) -> Answer<Bytes> {
    Ok(view(&node.read(), id)?.code(&address))
}

fn storage(
    node: &Context,
    (Must(address), Must(slot), Maybe(id)): (Must<Address>, Must<U256>, Maybe<BlockId>),
) -> Answer<B256> {
    Ok(view(&node.read(), id)?.storage_at(&address, &slot).into())
}

fn transaction_count(
    node: &Context,
    (Must(address), Maybe(id)): (Must<Address>, Maybe<BlockId>),
) -> Answer<U64> {
    let inner = node.read();
    let nonce = view(&inner, id)?.nonce(&address);
    if id == Some(BlockId::Number(BlockNumberOrTag::Pending)) {
        return Ok(quantity(inner.pool.pending_nonce(&address, nonce)));
    }
    Ok(quantity(nonce))
}

/// In which block a call runs: for `pending`, in the one that comes next.
fn place(node: &Context, inner: &Inner, id: BlockId) -> Answer<CallAt> {
    if id == BlockId::Number(BlockNumberOrTag::Pending) {
        return Ok(CallAt::Pending(node.block_time(inner)));
    }
    let block = by_id(&inner.chain, id).ok_or(StateError::UnknownBlock)?;
    Ok(CallAt::Block(block.number()))
}

fn call(
    node: &Context,
    (Must(request), Maybe(id), Maybe(overrides)): (
        Must<TransactionRequest>,
        Maybe<BlockId>,
        Maybe<StateOverride>,
    ),
) -> Answer<Bytes> {
    let inner = node.read();
    let at = place(node, &inner, id.unwrap_or_default())?;
    Ok(inner.chain.call(&request, at, overrides)?)
}

/// Without a block, the estimate is for the next block: that is where the transaction will run.
fn estimate(
    node: &Context,
    (Must(request), Maybe(id), Maybe(overrides)): (
        Must<TransactionRequest>,
        Maybe<BlockId>,
        Maybe<StateOverride>,
    ),
) -> Answer<U64> {
    let inner = node.read();
    let at = place(node, &inner, id.unwrap_or(BlockId::pending()))?;
    Ok(quantity(inner.chain.estimate_gas(&request, at, overrides)?))
}
