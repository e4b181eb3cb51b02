//! Transactions that wait for a block: by sender, in the order of their nonces.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use alloy::consensus::Transaction;
use alloy::primitives::{Address, B256};
use assay_evm::SignedTx;

/// Transactions that the pool holds at most: memory is bounded by this times their size.
pub(crate) const MAX_POOL: usize = 4096;

/// Transactions of one sender that wait at most (geth keeps 64 executable ones and 64 behind a gap).
pub(crate) const MAX_POOL_PER_SENDER: usize = 128;

/// A replacement pays at least this much more, in percent: geth's rule.
const PRICE_BUMP_PERCENT: u128 = 10;

/// Why the pool does not take a transaction; worded as by geth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PoolError {
    #[error("already known")]
    AlreadyKnown,
    #[error("replacement transaction underpriced")]
    Underpriced,
    #[error("txpool is full")]
    Full,
    #[error("account limit exceeded")]
    AccountLimit,
}

#[derive(Debug, Clone)]
struct Waiting {
    tx: SignedTx,
    arrival: u64,
}

/// Order in a block: the highest tip first, then the first that came.
type Rank = (u128, Reverse<u64>);

#[derive(Debug, Default)]
pub(crate) struct Pool {
    senders: HashMap<Address, BTreeMap<u64, Waiting>>,
    by_hash: HashMap<B256, (Address, u64)>,
    arrivals: u64,
}

impl Pool {
    pub(crate) fn len(&self) -> usize {
        self.by_hash.len()
    }

    pub(crate) fn contains(&self, hash: &B256) -> bool {
        self.by_hash.contains_key(hash)
    }

    pub(crate) fn get(&self, hash: &B256) -> Option<&SignedTx> {
        let (sender, nonce) = self.by_hash.get(hash)?;
        Some(&self.senders.get(sender)?.get(nonce)?.tx)
    }

    pub(crate) fn tx_at(&self, sender: &Address, nonce: u64) -> Option<&SignedTx> {
        Some(&self.senders.get(sender)?.get(&nonce)?.tx)
    }

    pub(crate) fn add(&mut self, tx: SignedTx) -> Result<(), PoolError> {
        let (hash, sender, nonce) = (*tx.tx_hash(), tx.signer(), tx.nonce());
        if self.contains(&hash) {
            return Err(PoolError::AlreadyKnown);
        }
        if let Some(old) = self.senders.get(&sender).and_then(|queue| queue.get(&nonce)) {
            let old_hash = *old.tx.tx_hash();
            if !pays_more(&old.tx, &tx) {
                return Err(PoolError::Underpriced);
            }
            self.by_hash.remove(&old_hash);
        } else {
            if self.len() >= MAX_POOL {
                return Err(PoolError::Full);
            }
            if self.senders.get(&sender).is_some_and(|queue| queue.len() >= MAX_POOL_PER_SENDER) {
                return Err(PoolError::AccountLimit);
            }
        }
        self.arrivals += 1;
        let waiting = Waiting { tx, arrival: self.arrivals };
        self.senders.entry(sender).or_default().insert(nonce, waiting);
        self.by_hash.insert(hash, (sender, nonce));
        Ok(())
    }

    /// Takes a transaction out: it is in a block, or will never be.
    pub(crate) fn remove(&mut self, sender: &Address, nonce: u64) {
        let Some(queue) = self.senders.get_mut(sender) else { return };
        if let Some(waiting) = queue.remove(&nonce) {
            self.by_hash.remove(waiting.tx.tx_hash());
        }
        if queue.is_empty() {
            self.senders.remove(sender);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.senders.clear();
        self.by_hash.clear();
    }

    /// The nonce after the unbroken row of waiting transactions that starts at `next`.
    pub(crate) fn pending_nonce(&self, sender: &Address, next: u64) -> u64 {
        let Some(queue) = self.senders.get(sender) else { return next };
        queue.range(next..).zip(next..).take_while(|((nonce, _), want)| *nonce == want).count()
            as u64
            + next
    }

    /// The first transaction of every sender that can go into a block now, best first.
    pub(crate) fn ready(&self, base_fee: u64, next: impl Fn(&Address) -> u64) -> Ready {
        let mut ready = Ready { base_fee, heap: BinaryHeap::new() };
        for sender in self.senders.keys() {
            ready.offer(self, *sender, next(sender));
        }
        ready
    }
}

/// The senders whose next transaction waits, best first.
#[derive(Debug)]
pub(crate) struct Ready {
    base_fee: u64,
    heap: BinaryHeap<(Rank, Address, u64)>,
}

impl Ready {
    /// Lets the transaction of this sender and nonce take part, if there is one.
    pub(crate) fn offer(&mut self, pool: &Pool, sender: Address, nonce: u64) {
        let Some(waiting) = pool.senders.get(&sender).and_then(|queue| queue.get(&nonce)) else {
            return;
        };
        // A fee below the base fee waits for a cheaper block.
        if let Some(tip) = waiting.tx.effective_tip_per_gas(self.base_fee) {
            self.heap.push(((tip, Reverse(waiting.arrival)), sender, nonce));
        }
    }

    pub(crate) fn next(&mut self) -> Option<(Address, u64)> {
        self.heap.pop().map(|(_, sender, nonce)| (sender, nonce))
    }
}

fn pays_more(old: &SignedTx, new: &SignedTx) -> bool {
    let bump = |price: u128| {
        price.saturating_add(price.saturating_mul(PRICE_BUMP_PERCENT).div_ceil(100)).max(price + 1)
    };
    let tip = |tx: &SignedTx| tx.max_priority_fee_per_gas().unwrap_or_else(|| tx.max_fee_per_gas());
    new.max_fee_per_gas() >= bump(old.max_fee_per_gas()) && tip(new) >= bump(tip(old))
}
