//! The node: chain, pool and time behind one lock; and the news that subscribers hear.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use alloy::consensus::transaction::SignerRecoverable;
use alloy::consensus::{Transaction, TxEnvelope};
use alloy::eips::eip2718::Decodable2718;
use alloy::primitives::{Address, B256, Bytes};
use assay_evm::{
    Block, BlockBuilder, Chain, ChainConfig, ChainError, ExecuteError, SealedBlock, SignedTx,
    TxError,
};
use tokio::sync::broadcast;

use crate::clock::Clock;
use crate::error::RpcError;
use crate::pool::{Pool, PoolError};
use crate::rpc::Filters;
use crate::store::{Store, StoreError};

/// News that a slow subscriber may lag behind before it is cut off.
const NEWS_CAPACITY: usize = 8192;

/// What happened.
#[derive(Debug, Clone)]
pub(crate) enum News {
    /// A new head.
    Block(Arc<Block>),
    /// Blocks that are no longer part of the chain, oldest first.
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
    /// Accounts that may send without a signature (`anvil_impersonateAccount`).
    pub(crate) impersonated: HashSet<Address>,
    /// Whether every account may (`anvil_autoImpersonateAccount`).
    pub(crate) impersonate_all: bool,
    snapshots: BTreeMap<u64, i64>,
}

#[derive(Debug)]
pub(crate) struct Node {
    inner: RwLock<Inner>,
    /// Where the chain is kept, unless it is in memory alone; taken away when the node closes.
    store: Option<Mutex<Option<Store>>>,
    pub(crate) filters: Filters,
    news: broadcast::Sender<News>,
    clock: Clock,
}

impl Node {
    /// A new chain, or the one in the folder.
    pub(crate) fn open(
        config: ChainConfig,
        folder: Option<&Path>,
        clock: Clock,
        mine_on_transaction: bool,
    ) -> Result<Self, StoreError> {
        let now_s = clock.now_s();
        let config = ChainConfig { genesis_timestamp: now_s, ..config };
        let mut store = folder.map(Store::open).transpose()?;
        let chain = match &mut store {
            Some(store) => store.resume(config)?,
            None => Chain::new(config),
        };
        // Where time was pushed forward before a restart, it goes on from there.
        let ahead_s = chain.head().timestamp().saturating_sub(now_s);
        let inner = Inner {
            chain,
            pool: Pool::default(),
            offset_s: i64::try_from(ahead_s).unwrap_or_default(),
            next_timestamp: None,
            mine_on_transaction,
            impersonated: HashSet::new(),
            impersonate_all: false,
            snapshots: BTreeMap::new(),
        };
        let (news, _) = broadcast::channel(NEWS_CAPACITY);
        let store = store.map(|store| Mutex::new(Some(store)));
        Ok(Self { inner: RwLock::new(inner), store, filters: Filters::default(), news, clock })
    }

    /// The lock is never poisoned by a half-done change: a block is made on a copy of the state.
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
        self.submit_locked(&mut self.write(), tx)
    }

    /// Takes a transaction in while the lock is held.
    pub(crate) fn submit_locked(&self, inner: &mut Inner, tx: SignedTx) -> Result<B256, RpcError> {
        let (hash, sender, nonce) = (*tx.tx_hash(), tx.signer(), tx.nonce());
        if inner.pool.contains(&hash) {
            return Err(PoolError::AlreadyKnown.into());
        }
        inner.chain.validate(&tx)?;
        let news = Arc::new(tx.clone());
        inner.pool.add(tx)?;
        self.tell(News::Transaction(news));
        if inner.mine_on_transaction {
            // A full block leaves transactions behind: mine until nothing moves.
            loop {
                match self.mine_locked(inner, false) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    // It is in an earlier block than the one that failed.
                    Err(_) if inner.chain.transaction(&hash).is_some() => break,
                    Err(error) => {
                        // The sender is told that it failed: it must not come into a later block.
                        inner.pool.remove(&sender, nonce);
                        return Err(error);
                    }
                }
            }
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
    ) -> Result<Option<Arc<Block>>, RpcError> {
        let (builder, refused) = fill_block(inner, self.block_time(inner))?;
        let sealed = (empty || !builder.is_empty()).then(|| builder.seal());
        for (sender, nonce) in refused {
            inner.pool.remove(&sender, nonce);
        }
        sealed.map(|sealed| self.append(inner, sealed)).transpose()
    }

    /// Makes a sealed block the head: stored first, then told.
    fn append(&self, inner: &mut Inner, sealed: SealedBlock) -> Result<Arc<Block>, RpcError> {
        self.stored(|store| store.append(&sealed, inner.chain.head_state()))?;
        let block = inner.chain.push(sealed)?;
        inner.next_timestamp = None;
        // Also waiting transactions whose nonce another one has used up.
        for tx in &block.transactions {
            inner.pool.remove(&tx.signer(), tx.nonce());
        }
        tracing::debug!(
            number = block.number(),
            transactions = block.transactions.len(),
            "block mined"
        );
        self.tell(News::Block(Arc::clone(&block)));
        Ok(block)
    }

    /// Does something with the store, if the chain is kept in one.
    fn stored(
        &self,
        action: impl FnOnce(&Store) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let Some(store) = &self.store else { return Ok(()) };
        let store = store.lock().unwrap_or_else(PoisonError::into_inner);
        store.as_ref().map_or(Err(StoreError::Closed), action)
    }

    /// Gives the folder free. A request that is still under way makes no block any more.
    pub(crate) fn close(&self) {
        if let Some(store) = &self.store {
            store.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    /// Replaces the last `depth` blocks by as many others. Their transactions are gone, as on anvil;
    /// the new blocks have those of `replacements`, each with the number of its block, from 0.
    pub(crate) fn reorg(
        &self,
        depth: u64,
        replacements: &[(SignedTx, u64)],
    ) -> Result<(), RpcError> {
        let mut inner = self.write();
        let head = inner.chain.head().number();
        let common = head.checked_sub(depth).ok_or_else(|| {
            RpcError::params(format!("Reorg depth must not exceed current chain height: current height {head}, depth {depth}"))
        })?;
        inner.chain.state_at(common)?;
        self.stored(|store| store.truncate(common))?;
        let dropped = inner.chain.rewind(common)?;
        let Inner { snapshots, chain, .. } = &mut *inner;
        snapshots.retain(|id, _| chain.snapshot_head(*id).is_some());
        let replaced = dropped.first().map(|block| block.hash);
        self.drop_blocks(dropped);
        for offset in 0..depth {
            let mut builder = inner.chain.begin_block(self.block_time(&inner))?;
            // Without it, an empty block could be the very one that it replaces.
            if let Some(replaced) = replaced.filter(|_| offset == 0) {
                builder.extra_data(replaced);
            }
            for (tx, _) in replacements.iter().filter(|(_, place)| *place == offset) {
                if let Err(error) = builder.execute(tx.clone()) {
                    tracing::warn!(hash = %tx.tx_hash(), %error, "left out of the reorg");
                }
            }
            let sealed = builder.seal();
            self.append(&mut inner, sealed)?;
        }
        Ok(())
    }

    fn drop_blocks(&self, dropped: Vec<Arc<Block>>) {
        if !dropped.is_empty() {
            self.filters.dropped(&dropped);
            self.tell(News::Dropped(Arc::new(dropped)));
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
    pub(crate) fn revert(&self, id: u64) -> Result<bool, RpcError> {
        let mut inner = self.write();
        let Some(head) = inner.chain.snapshot_head(id) else { return Ok(false) };
        self.stored(|store| store.truncate(head))?;
        let Some(dropped) = inner.chain.revert(id) else { return Ok(false) };
        inner.offset_s = inner.snapshots.get(&id).copied().unwrap_or_default();
        inner.snapshots.split_off(&id);
        inner.next_timestamp = None;
        inner.pool.clear();
        self.drop_blocks(dropped);
        Ok(true)
    }

    /// Moves the chain's time so that it shows `timestamp` now.
    pub(crate) fn set_time(&self, inner: &mut Inner, timestamp: u64) {
        let distance = i128::from(timestamp) - i128::from(self.clock.now_s());
        inner.offset_s = i64::try_from(distance).unwrap_or_default();
    }
}

/// A block of what waits, and who has transactions in the pool that can never be in one.
fn fill_block(
    inner: &Inner,
    timestamp: u64,
) -> Result<(BlockBuilder<'_>, Vec<(Address, u64)>), ChainError> {
    let Inner { chain, pool, .. } = inner;
    let mut builder = chain.begin_block(timestamp)?;
    let mut ready = pool.ready(builder.base_fee(), |sender| chain.nonce(sender));
    let mut refused = Vec::new();
    while let Some((sender, nonce)) = ready.next() {
        let Some(tx) = pool.tx_at(&sender, nonce).cloned() else { continue };
        match builder.execute(tx) {
            Ok(_) => ready.offer(pool, sender, nonce + 1),
            // It waits for the next block.
            Err(ExecuteError::Invalid(TxError::BlockFull)) => {}
            Err(ExecuteError::Invalid(error)) => {
                tracing::debug!(%sender, nonce, %error, "transaction dropped from the pool");
                refused.push((sender, nonce));
            }
            Err(ExecuteError::Chain(error)) => return Err(error),
        }
    }
    Ok((builder, refused))
}

pub(crate) fn decode(raw: &Bytes) -> Result<SignedTx, RpcError> {
    let mut rest = raw.as_ref();
    let envelope = TxEnvelope::decode_2718(&mut rest)
        .map_err(|error| RpcError::params(format!("the transaction cannot be decoded: {error}")))?;
    if !rest.is_empty() {
        return Err(RpcError::params("bytes follow after the transaction".to_owned()));
    }
    envelope.try_into_recovered().map_err(|_| TxError::InvalidSender.into())
}
