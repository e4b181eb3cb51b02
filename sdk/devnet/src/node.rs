//! The node: chain, pool and time behind one lock; and the news that subscribers hear.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use alloy::consensus::transaction::SignerRecoverable;
use alloy::consensus::{Transaction, TxEnvelope};
use alloy::eips::eip2718::Decodable2718;
use alloy::primitives::{B256, Bytes};
use assay_evm::{Block, Chain, ChainConfig, ChainError, ExecuteError, SignedTx, TxError};
use tokio::sync::broadcast;

use crate::clock::Clock;
use crate::error::RpcError;
use crate::pool::Pool;

/// News that a slow subscriber may lag behind before it is cut off.
const NEWS_CAPACITY: usize = 8192;

/// What happened.
#[derive(Debug, Clone)]
pub(crate) enum News {
    /// A new head.
    Block(Arc<Block>),
    /// Blocks that are no longer part of the chain, oldest first (`evm_revert`).
    Dropped(Arc<Vec<Arc<Block>>>),
    /// A transaction entered the pool.
    Transaction(Arc<SignedTx>),
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) chain: Chain,
    pub(crate) pool: Pool,
    /// Seconds between the clock and the chain's time (`evm_increaseTime`).
    pub(crate) offset_s: i64,
    /// Time of the next block, if it was set (`evm_setNextBlockTimestamp`).
    pub(crate) next_timestamp: Option<u64>,
    pub(crate) mine_on_transaction: bool,
    snapshots: BTreeMap<u64, i64>,
}

#[derive(Debug)]
pub(crate) struct Node {
    inner: RwLock<Inner>,
    news: broadcast::Sender<News>,
    clock: Clock,
}

impl Node {
    pub(crate) fn new(config: ChainConfig, clock: Clock, mine_on_transaction: bool) -> Self {
        let genesis_timestamp = clock.now_s();
        let chain = Chain::new(ChainConfig { genesis_timestamp, ..config });
        let inner = Inner {
            chain,
            pool: Pool::default(),
            offset_s: 0,
            next_timestamp: None,
            mine_on_transaction,
            snapshots: BTreeMap::new(),
        };
        let (news, _) = broadcast::channel(NEWS_CAPACITY);
        Self { inner: RwLock::new(inner), news, clock }
    }

    /// The lock is never poisoned by a half-done change: a block that is not sealed takes itself back.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    /// Nobody listening is fine.
    fn tell(&self, news: News) {
        let _ = self.news.send(news);
    }

    /// The time that a block would have now, in unix seconds.
    pub(crate) fn block_time(&self, inner: &Inner) -> u64 {
        let now = self.clock.now_s().saturating_add_signed(inner.offset_s);
        inner.next_timestamp.unwrap_or(now).max(inner.chain.head().timestamp())
    }

    /// Takes a signed transaction in; mines it at once if the node does so.
    pub(crate) fn submit(&self, raw: &Bytes) -> Result<B256, RpcError> {
        let tx = decode(raw)?;
        let hash = *tx.tx_hash();
        let mut inner = self.write();
        if inner.pool.contains(&hash) {
            return Err(crate::pool::PoolError::AlreadyKnown.into());
        }
        inner.chain.validate(&tx)?;
        let news = Arc::new(tx.clone());
        inner.pool.add(tx)?;
        self.tell(News::Transaction(news));
        if inner.mine_on_transaction {
            // A full block leaves transactions behind: mine until nothing moves.
            while self.mine_locked(&mut inner, false)?.is_some() {}
        }
        Ok(hash)
    }

    /// Mines a block with what waits, or an empty one.
    pub(crate) fn mine(&self) -> Result<Arc<Block>, RpcError> {
        let mut inner = self.write();
        match self.mine_locked(&mut inner, true)? {
            Some(block) => Ok(block),
            None => Ok(Arc::clone(inner.chain.head())),
        }
    }

    /// Mines while the lock is held. Without `empty`, a block that nothing would be in is not made.
    pub(crate) fn mine_locked(
        &self,
        inner: &mut Inner,
        empty: bool,
    ) -> Result<Option<Arc<Block>>, ChainError> {
        let timestamp = self.block_time(inner);
        let base_fee = inner.chain.next_base_fee();
        let state = inner.chain.state();
        let mut ready = inner.pool.ready(base_fee, |sender| state.nonce(sender));
        let mut builder = inner.chain.begin_block(timestamp)?;
        let mut included = 0_usize;
        while let Some((sender, nonce)) = ready.next() {
            let Some(tx) = inner.pool.tx_at(&sender, nonce).cloned() else { continue };
            match builder.execute(tx) {
                Ok(_) => {
                    included += 1;
                    inner.pool.remove(&sender, nonce);
                    ready.offer(&inner.pool, sender, nonce + 1);
                }
                // It waits for the next block.
                Err(ExecuteError::Invalid(TxError::BlockFull)) => {}
                Err(ExecuteError::Invalid(error)) => {
                    tracing::debug!(%sender, nonce, %error, "transaction dropped from the pool");
                    inner.pool.remove(&sender, nonce);
                }
                Err(ExecuteError::Chain(error)) => return Err(error),
            }
        }
        if included == 0 && !empty {
            return Ok(None);
        }
        let block = builder.seal();
        inner.next_timestamp = None;
        self.drop_stale(inner, &block);
        tracing::debug!(number = block.number(), transactions = included, "block mined");
        self.tell(News::Block(Arc::clone(&block)));
        Ok(Some(block))
    }

    /// Waiting transactions whose nonce a block has used up by another transaction.
    fn drop_stale(&self, inner: &mut Inner, block: &Block) {
        for tx in &block.transactions {
            inner.pool.remove(&tx.signer(), tx.nonce());
        }
    }

    pub(crate) fn snapshot(&self) -> Result<u64, ChainError> {
        let mut inner = self.write();
        let id = inner.chain.snapshot()?;
        let offset_s = inner.offset_s;
        inner.snapshots.insert(id, offset_s);
        Ok(id)
    }

    /// Goes back to a snapshot: state, blocks, and the distance to the clock. The pool is emptied.
    pub(crate) fn revert(&self, id: u64) -> bool {
        let mut inner = self.write();
        let Some(dropped) = inner.chain.revert(id) else { return false };
        inner.offset_s = inner.snapshots.get(&id).copied().unwrap_or_default();
        inner.snapshots.split_off(&id);
        inner.next_timestamp = None;
        inner.pool.clear();
        if !dropped.is_empty() {
            self.tell(News::Dropped(Arc::new(dropped)));
        }
        true
    }

    /// Moves the chain's time so that it shows `timestamp` now.
    pub(crate) fn set_time(&self, inner: &mut Inner, timestamp: u64) {
        let distance = i128::from(timestamp) - i128::from(self.clock.now_s());
        inner.offset_s = i64::try_from(distance).unwrap_or_default();
    }
}

fn decode(raw: &Bytes) -> Result<SignedTx, RpcError> {
    let mut rest = raw.as_ref();
    let envelope = TxEnvelope::decode_2718(&mut rest)
        .map_err(|error| RpcError::params(format!("the transaction cannot be decoded: {error}")))?;
    if !rest.is_empty() {
        return Err(RpcError::params("bytes follow after the transaction".to_owned()));
    }
    envelope.try_into_recovered().map_err(|_| TxError::InvalidSender.into())
}
