//! Transactions: sending them, and asking what became of them.

use std::time::Duration;

use alloy::eips::{BlockNumberOrTag, eip2718::Encodable2718};
use alloy::primitives::{B256, Bytes, U64};
use alloy::rpc::types::{Transaction as RpcTransaction, TransactionReceipt};
use jsonrpsee::types::ErrorObjectOwned;
use tokio::sync::broadcast::error::RecvError;

use super::{Answer, Context, FromParams, Maybe, Module, Must, by_tag, heavy, quick};
use crate::convert;
use crate::error::{DevnetError, RpcError};

/// How long `eth_sendRawTransactionSync` waits unless told otherwise: geth's default.
const SYNC_TIMEOUT: Duration = Duration::from_secs(20);

/// How long `eth_sendRawTransactionSync` waits at most: a request that hangs longer is a mistake.
const MAX_SYNC_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn register(module: &mut Module) -> Result<(), DevnetError> {
    heavy(module, "eth_sendRawTransaction", |node, (Must(raw),): (Must<Bytes>,)| {
        node.submit(&raw)
    })?;
    module.register_async_method(
        "eth_sendRawTransactionSync",
        |params, context, _| async move {
            send_sync(&context, &params).await.map_err(ErrorObjectOwned::from)
        },
    )?;
    quick(module, "eth_getTransactionByHash", by_hash)?;
    quick(module, "eth_getRawTransactionByHash", raw_by_hash)?;
    quick(module, "eth_getTransactionReceipt", receipt)?;
    quick(module, "eth_getTransactionByBlockNumberAndIndex", by_number_and_index)?;
    quick(module, "eth_getTransactionByBlockHashAndIndex", by_hash_and_index)?;
    Ok(())
}

async fn send_sync(
    node: &Context,
    params: &jsonrpsee::types::Params<'_>,
) -> Answer<TransactionReceipt> {
    let (Must(raw), Maybe(timeout)) = <(Must<Bytes>, Maybe<U64>)>::read(params)?;
    let timeout = timeout
        .map_or(SYNC_TIMEOUT, |ms| Duration::from_millis(ms.saturating_to()))
        .min(MAX_SYNC_TIMEOUT);
    let mut news = node.subscribe();
    let hash = node.submit(&raw)?;
    let mined = async {
        loop {
            if let Some(receipt) = receipt(node, (Must(hash),))? {
                return Ok(receipt);
            }
            if let Err(RecvError::Closed) = news.recv().await {
                return Err(RpcError::server("the node is shutting down"));
            }
        }
    };
    tokio::time::timeout(timeout, mined).await.unwrap_or_else(|_| {
        Err(RpcError::server(format!(
            "The transaction {hash} was added to the transaction pool but wasn't processed within {timeout:?}"
        )))
    })
}

fn by_hash(node: &Context, (Must(hash),): (Must<B256>,)) -> Answer<Option<RpcTransaction>> {
    let inner = node.read();
    if let Some((block, index)) = inner.chain.transaction(&hash) {
        return Ok(convert::transaction(block, index));
    }
    Ok(inner.pool.get(&hash).map(convert::pending_transaction))
}

fn raw_by_hash(node: &Context, (Must(hash),): (Must<B256>,)) -> Answer<Option<Bytes>> {
    let inner = node.read();
    let mined = inner.chain.transaction(&hash).and_then(|(b, index)| b.transactions.get(index));
    let tx = mined.or_else(|| inner.pool.get(&hash));
    Ok(tx.map(|tx| tx.inner().encoded_2718().into()))
}

fn receipt(node: &Context, (Must(hash),): (Must<B256>,)) -> Answer<Option<TransactionReceipt>> {
    let inner = node.read();
    Ok(inner.chain.transaction(&hash).and_then(|(block, index)| convert::receipt(block, index)))
}

fn by_number_and_index(
    node: &Context,
    (Must(tag), Must(index)): (Must<BlockNumberOrTag>, Must<U64>),
) -> Answer<Option<RpcTransaction>> {
    let inner = node.read();
    let block = by_tag(&inner.chain, tag);
    Ok(block.and_then(|block| convert::transaction(block, index.saturating_to())))
}

fn by_hash_and_index(
    node: &Context,
    (Must(hash), Must(index)): (Must<B256>, Must<U64>),
) -> Answer<Option<RpcTransaction>> {
    let inner = node.read();
    let block = inner.chain.block_by_hash(&hash);
    Ok(block.and_then(|block| convert::transaction(block, index.saturating_to())))
}
