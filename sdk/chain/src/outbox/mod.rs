//! Transactions that are stored, signed, before they are sent.
//!
//! A row goes `signed → sent → mined | failed`. Every signed version of a transaction is kept as an
//! attempt, because any of them may be the one that is mined. Nonces come from the table, so that a
//! revert found while estimating uses none, and a restart goes on where the last life ended.
//!
//! | trouble | what happens |
//! |---|---|
//! | crash after signing | [`Outbox::run`] broadcasts what it finds |
//! | "already known" | counts as sent |
//! | "nonce too low" | receipts of all attempts are looked up; only if another transaction is found to have used the nonce is the effect estimated again and, if it is still wanted, signed with a new nonce |
//! | underpriced, or not mined after 3 blocks and 5 s | fees go up by an eighth |
//! | dropped by the node, or its block was reverted | broadcast again |
//! | refused for good | an empty transaction uses up the nonce |
//! | a nonce below ours became free | an empty transaction uses it up |

mod broadcast;
mod error;
mod fees;
mod journey;
mod nonces;
mod plan;
mod store;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alloy::primitives::{Address, Bytes, U256};
use alloy::rpc::types::TransactionReceipt;
use alloy::signers::local::PrivateKeySigner;
use alloy::sol_types::SolCall;
use assay_bindings::SessionQueue;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub use error::OutboxError;
pub use store::OutboxStatus;
pub(crate) use store::{reopen_other, reopen_reverted};

use crate::{Chain, Database};
use store::{NewAttempt, NewRow, Store};

/// How often [`Outbox::run`] looks for transactions that nobody watches, in the database alone.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);
/// How often it asks the chain about nonces, in sweeps: every 2 s.
const SWEEPS_PER_MEND: u32 = 8;
/// How often finished rows are pruned, in sweeps: every hour.
const SWEEPS_PER_PRUNE: u32 = 14_400;
/// Finished transactions that are kept: the memory of [`Intent::key`]. Some days of a busy agent.
const KEPT_FINISHED: u64 = 20_000;
/// Longest key: ids and a word.
const MAX_KEY_BYTES: usize = 200;
/// What a settlement may need for each answer that is drawn only in the block that it comes into, or whose epoch ends
/// there: about three times what a draw takes that succeeds at once.
const DRAW_GAS: u64 = 150_000;
/// Answers that this is reserved for at most: the limit stays far below that of a block.
const MAX_SPARE_DRAWS: u64 = 32;

/// A transaction that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Names the effect, e.g. `commit:0x..`: two intents with one key are one transaction. Different calls
    /// that reach for the same effect need different keys. At most 200 bytes.
    pub key: String,
    /// Contract or account.
    pub to: Address,
    /// Call data.
    pub data: Bytes,
    /// Wei that go along.
    pub value: U256,
    /// Gas beyond the estimate and its margin, for work that the call finds only in the block that it comes into. What
    /// is not used is not paid for.
    pub spare_gas: u64,
}

impl Intent {
    /// A call without wei.
    pub fn call(key: impl Into<String>, to: Address, data: impl Into<Bytes>) -> Self {
        Self { key: key.into(), to, data: data.into(), value: U256::ZERO, spare_gas: 0 }
    }

    /// `settle`: it does whatever is due in its block, which may be much more than was due when it was estimated.
    pub fn settle(key: impl Into<String>, queue: Address, tasks: Vec<SessionQueue::Task>) -> Self {
        let answers: usize = tasks.iter().map(|task| task.parts.len()).sum();
        let draws = u64::try_from(answers).unwrap_or(u64::MAX).min(MAX_SPARE_DRAWS);
        let data = SessionQueue::settleCall { tasks }.abi_encode();
        Self { spare_gas: draws * DRAW_GAS, ..Self::call(key, queue, data) }
    }
}

/// Sends the transactions of one account. Clones share it; an account has one outbox only.
#[derive(Debug, Clone)]
pub struct Outbox {
    inner: Arc<Inner>,
}

struct Inner {
    chain: Chain,
    signer: PrivateKeySigner,
    store: Store,
    /// Held from choosing a nonce until its first broadcast: nonces reach the node in order.
    signing: tokio::sync::Mutex<()>,
    /// Rows that somebody is seeing through.
    watched: Mutex<HashSet<i64>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("address", &self.signer.address()).finish_non_exhaustive()
    }
}

/// Right to act on a row; given back on drop.
struct Claim<'a> {
    watched: &'a Mutex<HashSet<i64>>,
    id: i64,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Outbox {
    /// An outbox for the account of `signer`; binds the database to the chain, see [`Chain::bind`].
    ///
    /// # Errors
    /// If the chain does not answer, or the database belongs to another one.
    pub async fn new(
        chain: Chain,
        signer: PrivateKeySigner,
        db: Arc<Database>,
    ) -> Result<Self, OutboxError> {
        chain.bind(&db).await?;
        let store = Store::new(db, signer.address());
        let inner = Inner {
            chain,
            signer,
            store,
            signing: tokio::sync::Mutex::new(()),
            watched: Mutex::new(HashSet::new()),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The account.
    pub fn address(&self) -> Address {
        self.inner.signer.address()
    }

    /// How many transactions are in which state.
    ///
    /// # Errors
    /// From the database.
    pub fn status(&self) -> Result<OutboxStatus, OutboxError> {
        Ok(self.inner.store.status()?)
    }

    /// Sees a transaction through: estimates, stores it signed, sends it, waits until it is mined, with
    /// higher fees if it is stuck. Dropping the future does not take the transaction back: once it is
    /// stored, [`Outbox::run`] goes on with it. The same key again gives the first one's result; the same
    /// call under another key waits for the first one's end, so that the contract can refuse what is done.
    ///
    /// # Errors
    /// [`OutboxError::Reverted`] also before anything was sent (then `tx_hash` is `None` and the key is
    /// free), [`OutboxError::Unfunded`], [`OutboxError::Rpc`] if the chain does not answer before
    /// anything was stored.
    pub async fn send(&self, intent: Intent) -> Result<TransactionReceipt, OutboxError> {
        if intent.key.is_empty() || intent.key.len() > MAX_KEY_BYTES {
            return Err(OutboxError::BadKey { bytes: intent.key.len(), limit: MAX_KEY_BYTES });
        }
        loop {
            if let Some(id) = self.inner.known(&intent)? {
                return self.inner.see_through(id, false).await;
            }
            if let Some(id) = self.inner.store.open_equal(&intent)? {
                self.inner.wait_for_equal(id).await?;
            } else if let Some((id, offered)) = self.inner.prepare(&intent).await? {
                return self.inner.see_through(id, offered).await;
            }
        }
    }

    /// Goes on with what an earlier life, or a caller that went away, left behind, until `stop`.
    ///
    /// # Errors
    /// From the database; trouble with the chain is waited out.
    pub async fn run(self, stop: CancellationToken) -> Result<(), OutboxError> {
        let mut journeys: JoinSet<(i64, Result<(), OutboxError>)> = JoinSet::new();
        let mut complaints: HashMap<i64, String> = HashMap::new();
        let mut sweeps = 0u32;
        let mut interval = tokio::time::interval(SWEEP_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = interval.tick() => {}
            }
            while let Some(ended) = journeys.try_join_next() {
                let Ok((id, result)) = ended else { continue };
                complain(&mut complaints, id, result)?;
            }
            if sweeps.is_multiple_of(SWEEPS_PER_PRUNE) {
                self.inner.store.prune(KEPT_FINISHED)?;
            }
            if sweeps.is_multiple_of(SWEEPS_PER_MEND) {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    result = self.inner.mend() => result?,
                }
            }
            sweeps = sweeps.wrapping_add(1);
            for id in self.inner.store.open_rows()? {
                if !self.inner.is_watched(id) {
                    let inner = Arc::clone(&self.inner);
                    journeys
                        .spawn(async move { (id, inner.see_through(id, false).await.map(drop)) });
                }
            }
        }
    }
}

/// Tells why a transaction that nobody waits for did not succeed: once, though it is tried in every sweep.
///
/// # Errors
/// From the database.
fn complain(
    complaints: &mut HashMap<i64, String>,
    id: i64,
    result: Result<(), OutboxError>,
) -> Result<(), OutboxError> {
    match result {
        Ok(()) => drop(complaints.remove(&id)),
        Err(OutboxError::Database { source }) => return Err(source.into()),
        Err(error) => {
            let text = error.to_string();
            if complaints.get(&id) != Some(&text) {
                tracing::warn!(%error, "transaction left from before did not succeed");
                complaints.insert(id, text);
            }
        }
    }
    Ok(())
}

impl Inner {
    /// Row of the intent's key, if there is one; it must be the same transaction.
    fn known(&self, intent: &Intent) -> Result<Option<i64>, OutboxError> {
        let Some(row) = self.store.find(&intent.key)? else { return Ok(None) };
        if row.intent.to != intent.to
            || row.intent.data != intent.data
            || row.intent.value != intent.value
        {
            return Err(OutboxError::KeyReused { key: intent.key.clone() });
        }
        Ok(Some(row.id))
    }

    /// Waits until a transaction that makes the same call is mined, or will never be.
    async fn wait_for_equal(&self, id: i64) -> Result<(), OutboxError> {
        match self.see_through(id, false).await {
            Ok(_) | Err(OutboxError::Reverted { .. } | OutboxError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Estimates, signs and stores a new transaction, and broadcasts it once. Returns its row, and whether
    /// the node took it; `None` if somebody else was faster with the same key or call.
    async fn prepare(&self, intent: &Intent) -> Result<Option<(i64, bool)>, OutboxError> {
        let plan = self.plan(intent).await?;
        let _signing = self.signing.lock().await;
        if self.known(intent)?.is_some() || self.store.open_equal(intent)?.is_some() {
            return Ok(None);
        }
        let mut count = plan.count;
        if self.store.lowest_unsettled()?.is_some_and(|nonce| nonce > count) {
            // The chain seems to have lost what was mined: ask again, our figure may just be old.
            count = self.count().await?;
            self.reopen_from(count).await?;
        }
        let nonce = self.store.next_nonce()?.max(count);
        let signed = self.sign(plan.transaction(intent, nonce, self.chain.chain_id), false)?;
        let id =
            self.store.insert(&NewRow { intent, gas_limit: plan.gas_limit, attempt: &signed })?;
        tracing::debug!(key = %intent.key, nonce, hash = %signed.hash, "transaction signed");
        Ok(Some((id, self.first_broadcast(id, &signed).await?)))
    }

    /// The first broadcast of what was just stored; true if the node took it. Whatever it says, the row
    /// stays: its journey decides.
    async fn first_broadcast(&self, id: i64, attempt: &NewAttempt) -> Result<bool, OutboxError> {
        let accepted = self.broadcast(&attempt.raw).await.is_accepted();
        if accepted {
            self.store.mark_sent(id)?;
        }
        Ok(accepted)
    }

    fn claim(&self, id: i64) -> Option<Claim<'_>> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        // Made only if it is given away: one that is dropped here would wait for the lock that we hold.
        if watched.insert(id) { Some(Claim { watched: &self.watched, id }) } else { None }
    }

    fn is_watched(&self, id: i64) -> bool {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }
}
