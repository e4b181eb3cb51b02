//! `eth_getLogs`.

use alloy::eips::BlockNumberOrTag;
use alloy::rpc::types::{Filter, FilterBlockOption, Log as RpcLog};
use assay_evm::Chain;

use super::{Answer, Module, Must, by_tag, heavy};
use crate::convert::matching_logs;
use crate::error::{DevnetError, RpcError};

/// Blocks that one query covers at most. Most of them are skipped by their bloom filter.
pub(super) const MAX_LOG_RANGE: u64 = 100_000;

/// Logs that one query returns at most, so that an answer stays within the size limit.
pub(super) const MAX_LOGS: usize = 20_000;

/// Addresses that a filter names at most: geth's limit.
const MAX_ADDRESSES: usize = 1000;

/// Alternatives that a filter names at most for one topic: geth's limit.
const MAX_TOPIC_ALTERNATIVES: usize = 1000;

pub(super) fn register(module: &mut Module) -> Result<(), DevnetError> {
    heavy(module, "eth_getLogs", |node, (Must(filter),): (Must<Filter>,)| {
        check(&filter)?;
        query(&node.read().chain, &filter)
    })
}

/// Refuses a filter that is larger than any honest one.
pub(super) fn check(filter: &Filter) -> Answer<()> {
    if filter.address.len() > MAX_ADDRESSES {
        return Err(RpcError::params("exceed max addresses"));
    }
    if filter.topics.iter().any(|topic| topic.len() > MAX_TOPIC_ALTERNATIVES) {
        return Err(RpcError::params("exceed max topics"));
    }
    Ok(())
}

/// First and last block of the range that a filter names. Without a start: the head, as in geth.
pub(super) fn range(
    chain: &Chain,
    from: Option<BlockNumberOrTag>,
    to: Option<BlockNumberOrTag>,
) -> Answer<(u64, u64)> {
    let head = chain.head().number();
    let number = |tag: Option<BlockNumberOrTag>| match tag {
        Some(BlockNumberOrTag::Number(number)) => number,
        Some(tag) => by_tag(chain, tag).map_or(head, |block| block.number()),
        None => head,
    };
    let (from, to) = (number(from), number(to));
    if from > to && to < head {
        return Err(RpcError::params("invalid block range params"));
    }
    Ok((from, to.min(head)))
}

pub(super) fn query(chain: &Chain, filter: &Filter) -> Answer<Vec<RpcLog>> {
    let (from, to) = match filter.block_option {
        FilterBlockOption::AtBlockHash(hash) => {
            let block =
                chain.block_by_hash(&hash).ok_or_else(|| RpcError::server("unknown block"))?;
            return Ok(matching_logs(block, filter, false));
        }
        FilterBlockOption::Range { from_block, to_block } => range(chain, from_block, to_block)?,
    };
    scan(chain, filter, from, to)
}

/// The logs of the blocks `from..=to`; none when `from` is beyond `to`.
pub(super) fn scan(chain: &Chain, filter: &Filter, from: u64, to: u64) -> Answer<Vec<RpcLog>> {
    if to.saturating_sub(from) >= MAX_LOG_RANGE {
        return Err(RpcError::limit(format!("exceed maximum block range: {MAX_LOG_RANGE}")));
    }
    let mut found = Vec::new();
    for block in (from..=to).filter_map(|number| chain.block(number)) {
        found.extend(matching_logs(block, filter, false));
        if found.len() > MAX_LOGS {
            return Err(RpcError::limit(format!(
                "query returned more than {MAX_LOGS} results; ask for fewer blocks"
            )));
        }
    }
    Ok(found)
}
