//! Filters that a client polls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use alloy::primitives::{B256, U64};
use alloy::rpc::types::{Filter, FilterBlockOption, FilterChanges, Log as RpcLog};
use assay_evm::Block;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use super::logs::{MAX_LOG_RANGE, check, query, range, scan};
use super::{Answer, Context, Module, Must, heavy, quantity, quick};
use crate::convert::matching_logs;
use crate::error::{DevnetError, RpcError};
use crate::node::{Inner, News};

/// Filters that exist at once at most, for all clients together: each costs memory until it expires.
const MAX_FILTERS: usize = 1024;

/// A filter that nobody polls for so long is dropped: geth's rule.
const FILTER_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Blocks with logs to take back that wait for the next poll of one filter.
const MAX_DROPPED: usize = 4096;

#[derive(Debug)]
enum Kind {
    /// The block from which on logs have not been told yet; and the blocks that were told and are no
    /// longer part of the chain, in the order in which they were taken back.
    Logs {
        filter: Box<Filter>,
        next: u64,
        dropped: Vec<Arc<Block>>,
    },
    /// The block from which on hashes have not been told yet.
    Blocks {
        next: u64,
    },
    Transactions(Receiver<News>),
}

#[derive(Debug)]
struct Entry {
    kind: Kind,
    polled: Instant,
}

/// The filters of all clients.
#[derive(Debug, Default)]
pub(crate) struct Filters(Mutex<(u64, HashMap<u64, Entry>)>);

impl Filters {
    fn lock(&self) -> MutexGuard<'_, (u64, HashMap<u64, Entry>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, kind: Kind) -> Answer<U64> {
        let mut guard = self.lock();
        let (last, entries) = &mut *guard;
        entries.retain(|_, entry| entry.polled.elapsed() < FILTER_TIMEOUT);
        if entries.len() >= MAX_FILTERS {
            return Err(RpcError::limit(format!(
                "too many filters: at most {MAX_FILTERS}; uninstall those that are not needed"
            )));
        }
        *last += 1;
        entries.insert(*last, Entry { kind, polled: Instant::now() });
        Ok(quantity(*last))
    }

    /// Blocks are no longer part of the chain, oldest first: whoever was told of them is told so, and
    /// of what comes in their place.
    pub(crate) fn dropped(&self, blocks: &[Arc<Block>]) {
        let Some(first) = blocks.first().map(|block| block.number()) else { return };
        self.lock().1.retain(|_, entry| {
            match &mut entry.kind {
                Kind::Logs { next, dropped, .. } => {
                    let told = blocks.iter().rev().filter(|block| block.number() < *next);
                    dropped.extend(told.filter(|block| !block.receipts.is_empty()).cloned());
                    *next = first.min(*next);
                    // Better no filter, which the client sees, than one that forgets.
                    return dropped.len() <= MAX_DROPPED;
                }
                Kind::Blocks { next } => *next = first.min(*next),
                Kind::Transactions(_) => {}
            }
            true
        });
    }
}

pub(super) fn register(module: &mut Module) -> Result<(), DevnetError> {
    quick(module, "eth_newFilter", new_filter)?;
    quick(module, "eth_newBlockFilter", |node, ()| {
        let next = node.read().chain.head().number() + 1;
        node.filters.add(Kind::Blocks { next })
    })?;
    quick(module, "eth_newPendingTransactionFilter", |node, ()| {
        node.filters.add(Kind::Transactions(node.subscribe()))
    })?;
    heavy(module, "eth_getFilterChanges", changes)?;
    heavy(module, "eth_getFilterLogs", filter_logs)?;
    quick(module, "eth_uninstallFilter", |node, (Must(id),): (Must<U64>,)| {
        Ok(node.filters.lock().1.remove(&id.saturating_to()).is_some())
    })?;
    Ok(())
}

fn new_filter(node: &Context, (Must(filter),): (Must<Filter>,)) -> Answer<U64> {
    check(&filter)?;
    let inner = node.read();
    let next = match filter.block_option {
        FilterBlockOption::AtBlockHash(_) => {
            return Err(RpcError::params("a filter to poll cannot name a block hash"));
        }
        // As in geth, a filter tells of new blocks only; `eth_getFilterLogs` has the old ones.
        FilterBlockOption::Range { from_block, to_block } => {
            range(&inner.chain, from_block, to_block)?;
            inner.chain.head().number() + 1
        }
    };
    node.filters.add(Kind::Logs { filter: Box::new(filter), next, dropped: Vec::new() })
}

fn changes(node: &Context, (Must(id),): (Must<U64>,)) -> Answer<FilterChanges> {
    let inner = node.read();
    let mut guard = node.filters.lock();
    let entry = guard.1.get_mut(&id.saturating_to()).ok_or_else(not_found)?;
    entry.polled = Instant::now();
    match &mut entry.kind {
        Kind::Blocks { next } => Ok(FilterChanges::Hashes(new_hashes(&inner, next))),
        Kind::Logs { filter, next, dropped } => {
            new_logs(&inner, filter, next, dropped).map(FilterChanges::Logs)
        }
        Kind::Transactions(news) => Ok(FilterChanges::Hashes(new_transactions(news))),
    }
}

fn not_found() -> RpcError {
    RpcError::server("filter not found")
}

fn new_hashes(inner: &Inner, next: &mut u64) -> Vec<B256> {
    let head = inner.chain.head().number();
    let blocks = (*next..=head).rev().take(MAX_LOG_RANGE as usize);
    *next = head + 1;
    let mut hashes: Vec<B256> =
        blocks.filter_map(|number| inner.chain.block(number)).map(|block| block.hash).collect();
    hashes.reverse();
    hashes
}

fn new_logs(
    inner: &Inner,
    filter: &Filter,
    next: &mut u64,
    dropped: &mut Vec<Arc<Block>>,
) -> Answer<Vec<RpcLog>> {
    let head = inner.chain.head().number();
    let first = filter.get_from_block().unwrap_or_default();
    let last = filter.get_to_block().unwrap_or(u64::MAX);
    let from = (*next).max(first);
    // Not more than fits into an answer: the rest comes with the next poll.
    let to = last.min(head).min(from.saturating_add(MAX_LOG_RANGE - 1));
    let new = scan(&inner.chain, filter, from, to)?;
    *next = to.max(from.saturating_sub(1)) + 1;
    let mut logs = Vec::new();
    for block in dropped.drain(..).filter(|block| (first..=last).contains(&block.number())) {
        logs.extend(matching_logs(&block, filter, true).into_iter().rev());
    }
    logs.extend(new);
    Ok(logs)
}

fn new_transactions(news: &mut Receiver<News>) -> Vec<B256> {
    let mut hashes = Vec::new();
    loop {
        match news.try_recv() {
            Ok(News::Transaction(tx)) => hashes.push(*tx.tx_hash()),
            Ok(_) | Err(TryRecvError::Lagged(_)) => {}
            Err(_) => return hashes,
        }
    }
}

fn filter_logs(node: &Context, (Must(id),): (Must<U64>,)) -> Answer<Vec<RpcLog>> {
    let inner = node.read();
    let mut guard = node.filters.lock();
    let entry = guard.1.get_mut(&id.saturating_to()).ok_or_else(not_found)?;
    entry.polled = Instant::now();
    match &entry.kind {
        Kind::Logs { filter, .. } => query(&inner.chain, filter),
        _ => Err(not_found()),
    }
}
