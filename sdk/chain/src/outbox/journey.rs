//! Seeing a stored transaction through to its receipt.

use std::time::Duration;

use alloy::primitives::{Bytes, U256};
use alloy::providers::Provider;
use alloy::rpc::types::TransactionReceipt;
use tokio::time::{Instant, sleep};

use super::broadcast::{Broadcast, Refusal, revert_reason};
use super::fees::{MAX_FEE_PER_GAS, MAX_OVER_PRICE};
use super::plan::transaction;
use super::store::{Mined, NewAttempt, Row, State};
use super::{Inner, Intent, OutboxError};
use crate::{BlockRef, ChainError};

/// First pause before a look for the receipt: development chains mine at once. It doubles.
const FIRST_POLL: Duration = Duration::from_millis(5);
/// Longest pause between looks: half of the shortest usual block time.
const LONGEST_POLL: Duration = Duration::from_secs(1);
/// Pause before what no node took is offered again.
const RETRY_UNSENT: Duration = Duration::from_millis(500);
/// Pause before what a node took is offered again, should the node have dropped it.
const REBROADCAST: Duration = Duration::from_secs(2);
/// How long receipts may lag behind the account's nonce until we ask who used it: mostly it was our own
/// transaction, mined between two calls.
const RECEIPT_LAG: Duration = Duration::from_millis(200);
/// How long we wait for a receipt of ours where the node cannot tell who used the nonce.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(30);
/// A transaction is stuck when it was neither mined within this time, many blocks of a rollup ...
const STUCK_AFTER: Duration = Duration::from_secs(5);
/// ... nor within this many blocks.
const STUCK_BLOCKS: u64 = 3;
/// Gas of an empty transaction where the node does not tell.
const EMPTY_GAS: u64 = 21_000;

/// What one watcher remembers of a transaction.
#[derive(Debug, Default)]
struct Watch {
    acted: Option<Instant>,
    /// When, and at which block, the newest fees were offered.
    priced: Option<(Instant, u64)>,
    /// Since when the nonce is used without a receipt of ours.
    displaced: Option<Instant>,
    /// What was said in the log; it is said once.
    warned: bool,
}

impl Watch {
    /// Time to do something about the transaction?
    fn is_due(&self, state: State) -> bool {
        let pause = match (self.displaced, state) {
            (Some(_), _) => RECEIPT_LAG,
            (None, State::Signed) => RETRY_UNSENT,
            (None, _) => REBROADCAST,
        };
        match self.acted {
            Some(at) => at.elapsed() >= pause,
            None => true,
        }
    }
}

impl Inner {
    /// Waits until the row is finished; does what is needed, unless somebody else sees to it already.
    /// What was not `offered` to the node just now, such as what an earlier life left, is offered at once.
    pub(super) async fn see_through(
        &self,
        id: i64,
        offered: bool,
    ) -> Result<TransactionReceipt, OutboxError> {
        let mut claim = None;
        let mut watch = Watch { acted: offered.then(Instant::now), ..Watch::default() };
        let mut pause = FIRST_POLL;
        loop {
            let row = self.row(id)?;
            if let Some(result) = outcome(&row) {
                return result;
            }
            match self.receipt(&row).await {
                Ok(Some((attempt, receipt))) => {
                    self.record(&row, &attempt, &receipt).await?;
                    continue;
                }
                Ok(None) => {
                    claim = claim.or_else(|| self.claim(id));
                    if claim.is_some() && watch.is_due(row.state) {
                        watch.acted = Some(Instant::now());
                        self.act(id, &mut watch).await?;
                    }
                }
                // The row is safe; the chain will answer again.
                Err(error) => tracing::debug!(%error, "transaction waits for the chain"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_POLL);
        }
    }

    fn row(&self, id: i64) -> Result<Row, OutboxError> {
        self.store.load(id)?.ok_or_else(|| OutboxError::Refused {
            key: format!("row {id}"),
            reason: "it is no longer in the table".into(),
        })
    }

    /// Offers the transaction again, with higher fees or another nonce if need be.
    async fn act(&self, id: i64, watch: &mut Watch) -> Result<(), OutboxError> {
        let _signing = self.signing.lock().await;
        let row = self.row(id)?;
        let Some(newest) = row.attempts.first() else { return Ok(()) };
        if !matches!(row.state, State::Signed | State::Sent) {
            return Ok(());
        }
        let (count, block) = match self.count_and_block().await {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "transaction waits for the chain");
                return Ok(());
            }
        };
        if count > newest.nonce {
            return self.displaced(&row, newest, watch).await;
        }
        watch.displaced = None;
        match self.broadcast(&newest.raw).await {
            Broadcast::Accepted => self.store.mark_sent(id)?,
            Broadcast::Refused { refusal, text } => match refusal {
                Refusal::Known => self.store.mark_sent(id)?,
                Refusal::Underpriced => return self.bump(&row, newest, watch, block).await,
                Refusal::Unfunded => return Err(self.unfunded(&row, newest).await?),
                Refusal::ForGood => return self.give_up(&row, newest, &text).await,
                Refusal::NonceTooLow => {}
                Refusal::Other if watch.warned => {}
                Refusal::Other => {
                    watch.warned = true;
                    tracing::warn!(key = %row.intent.key, reason = %text, "the node does not take a transaction; it is sent again");
                }
            },
        }
        let (since, from) = *watch.priced.get_or_insert((Instant::now(), block));
        // Only the first in line can be stuck for its fees; the others wait for it.
        let stuck = count == newest.nonce
            && since.elapsed() >= STUCK_AFTER
            && block >= from.saturating_add(STUCK_BLOCKS);
        if stuck {
            return self.bump(&row, newest, watch, block).await;
        }
        Ok(())
    }

    async fn count_and_block(&self) -> Result<(u64, u64), ChainError> {
        let block = self.chain.provider.get_block_number();
        tokio::try_join!(self.count(), self.chain.call("eth_blockNumber", block.into_future()))
    }

    /// Signs with fees an eighth higher.
    async fn bump(
        &self,
        row: &Row,
        newest: &NewAttempt,
        watch: &mut Watch,
        block: u64,
    ) -> Result<(), OutboxError> {
        let market = self.fees().await?;
        let fees = newest.fees.bumped(market);
        if fees.max > MAX_FEE_PER_GAS {
            return Err(OutboxError::FeeTooHigh { wei: fees.max, limit: MAX_FEE_PER_GAS });
        }
        // What was first offered was the price then.
        let price = row.attempts.last().map_or(market.max, |first| market.max.max(first.fees.max));
        if fees.max > price.saturating_mul(MAX_OVER_PRICE) {
            if !std::mem::replace(&mut watch.warned, true) {
                let (key, max_fee) = (&row.intent.key, newest.fees.max);
                tracing::warn!(%key, max_fee, price, "a transaction is not mined although it pays many times the price; is the RPC node right?");
            }
            return Ok(());
        }
        let (intent, gas_limit) =
            if newest.empty { self.empty().await } else { (row.intent.clone(), row.gas_limit) };
        let tx = transaction(&intent, newest.nonce, self.chain.chain_id, gas_limit, fees);
        tracing::info!(key = %row.intent.key, nonce = newest.nonce, max_fee = fees.max, "fees raised");
        self.offer(row.id, &self.sign(tx, newest.empty)?).await?;
        watch.priced = Some((Instant::now(), block));
        Ok(())
    }

    /// Another transaction used our nonce, unless our receipt is only late.
    async fn displaced(
        &self,
        row: &Row,
        newest: &NewAttempt,
        watch: &mut Watch,
    ) -> Result<(), OutboxError> {
        let since = *watch.displaced.get_or_insert_with(Instant::now);
        if since.elapsed() < RECEIPT_LAG || !self.is_taken(row, newest.nonce, since).await {
            return Ok(());
        }
        let (id, key) = (row.id, &row.intent.key);
        if newest.empty {
            let reason = row.reason.as_deref().unwrap_or("given up");
            return Ok(self.store.mark_failed(id, newest.nonce, None, reason)?);
        }
        tracing::warn!(%key, nonce = newest.nonce, "somebody else used the nonce: is the key in use elsewhere?");
        // Estimating asks whether the effect is still wanted: contracts refuse to do a thing twice.
        match self.plan(&row.intent).await {
            Ok(mut plan) => {
                // What was reserved at first is not stored apart.
                plan.gas_limit = plan.gas_limit.max(row.gas_limit);
                let nonce = self.store.next_nonce()?.max(plan.count);
                let tx = plan.transaction(&row.intent, nonce, self.chain.chain_id);
                self.offer(id, &self.sign(tx, false)?).await?;
                *watch = Watch { acted: watch.acted, ..Watch::default() };
                Ok(())
            }
            Err(OutboxError::Reverted { reason, .. }) => {
                Ok(self.store.mark_failed(id, newest.nonce, None, &reason)?)
            }
            Err(OutboxError::Rpc { source }) => {
                tracing::debug!(error = %source, "transaction waits for the chain");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Uses up the nonce of a transaction that no node takes, so that those behind it can go on.
    async fn give_up(&self, row: &Row, newest: &NewAttempt, text: &str) -> Result<(), OutboxError> {
        tracing::error!(key = %row.intent.key, reason = text, "the node refuses a transaction for good");
        self.store.give_up(row.id, text)?;
        let fees = newest.fees.bumped(self.fees().await?);
        let (intent, gas_limit) = self.empty().await;
        let tx = transaction(&intent, newest.nonce, self.chain.chain_id, gas_limit, fees);
        self.offer(row.id, &self.sign(tx, true)?).await
    }

    /// True if a transaction that is none of the row's used its nonce. To take that from a missing receipt
    /// alone would be to send twice what a node is merely late to tell of.
    async fn is_taken(&self, row: &Row, nonce: u64, since: Instant) -> bool {
        match self.user_of(nonce).await {
            Ok(Some(hash)) => row.attempts.iter().all(|attempt| attempt.hash != hash),
            Ok(None) => since.elapsed() >= RECEIPT_PATIENCE,
            Err(error) => {
                tracing::debug!(%error, "the node does not tell who used a nonce");
                since.elapsed() >= RECEIPT_PATIENCE
            }
        }
    }

    /// A transaction to ourselves that does nothing, and its gas.
    pub(super) async fn empty(&self) -> (Intent, u64) {
        let to = self.signer.address();
        let intent = Intent::call("", to, Bytes::new());
        let gas = self.estimate(&intent).await.unwrap_or(EMPTY_GAS);
        (intent, gas)
    }

    /// Stores a new version, then broadcasts it.
    async fn offer(&self, id: i64, attempt: &NewAttempt) -> Result<(), OutboxError> {
        self.store.add_attempt(id, attempt)?;
        self.first_broadcast(id, attempt).await.map(drop)
    }

    async fn unfunded(&self, row: &Row, newest: &NewAttempt) -> Result<OutboxError, OutboxError> {
        let address = self.signer.address();
        let balance = self.chain.provider.get_balance(address).into_future();
        let balance = self.chain.call("eth_getBalance", balance).await?;
        let gas = U256::from(row.gas_limit).saturating_mul(U256::from(newest.fees.max));
        let needed = row.intent.value.saturating_add(gas);
        Ok(OutboxError::Unfunded { address, needed, balance })
    }

    /// The receipt of whichever version was mined.
    async fn receipt(
        &self,
        row: &Row,
    ) -> Result<Option<(NewAttempt, TransactionReceipt)>, ChainError> {
        for attempt in &row.attempts {
            let receipt = self.chain.provider.get_transaction_receipt(attempt.hash);
            let receipt =
                self.chain.call("eth_getTransactionReceipt", receipt.into_future()).await?;
            if let Some(receipt) = receipt.filter(|receipt| receipt.block_hash.is_some()) {
                return Ok(Some((attempt.clone(), receipt)));
            }
        }
        Ok(None)
    }

    async fn record(
        &self,
        row: &Row,
        attempt: &NewAttempt,
        receipt: &TransactionReceipt,
    ) -> Result<(), OutboxError> {
        let text = serde_json::to_string(receipt).map_err(|error| OutboxError::Refused {
            key: row.intent.key.clone(),
            reason: format!("its receipt cannot be stored: {error}"),
        })?;
        let (Some(number), Some(hash)) = (receipt.block_number, receipt.block_hash) else {
            return Ok(()); // Not mined after all.
        };
        let (id, nonce, block) = (row.id, attempt.nonce, BlockRef { number, hash });
        let mined = Mined { block, receipt: &text };
        if attempt.empty {
            let reason = row.reason.as_deref().unwrap_or("given up");
            self.store.mark_failed(id, nonce, Some(&mined), reason)?;
        } else if receipt.status() {
            self.store.mark_mined(id, nonce, &mined)?;
        } else {
            let reason = self.replay(row, receipt).await;
            self.store.mark_failed(id, nonce, Some(&mined), &reason)?;
        }
        tracing::debug!(
            key = %row.intent.key,
            hash = %receipt.transaction_hash,
            block = receipt.block_number,
            gas = receipt.gas_used,
            success = receipt.status(),
            "transaction mined"
        );
        Ok(())
    }

    /// Why a mined transaction failed: the call again on the state after its block (where a race that it
    /// lost shows), else on the state before.
    async fn replay(&self, row: &Row, receipt: &TransactionReceipt) -> String {
        let number = receipt.block_number.unwrap_or_default();
        for at in [number, number.saturating_sub(1)] {
            let mut request = self.request(&row.intent);
            request.gas = Some(row.gas_limit);
            let call = self.chain.provider.call(request).block(at.into());
            if let Err(error) = crate::provider::timed(call.into_future()).await
                && let Some(reason) = revert_reason(&error)
            {
                return reason;
            }
        }
        if receipt.gas_used >= row.gas_limit {
            return format!("it ran out of its {} gas", row.gas_limit);
        }
        "the chain does not tell why".into()
    }
}

/// The result of a finished row.
fn outcome(row: &Row) -> Option<Result<TransactionReceipt, OutboxError>> {
    let receipt = || -> Option<TransactionReceipt> {
        row.receipt.as_deref().and_then(|text| serde_json::from_str(text).ok())
    };
    let key = row.intent.key.clone();
    let reason = || row.reason.clone().unwrap_or_default();
    match row.state {
        State::Signed | State::Sent => None,
        State::Mined => Some(receipt().ok_or_else(|| OutboxError::Refused {
            key,
            reason: "its stored receipt cannot be read; restore the database from a backup".into(),
        })),
        State::Failed => {
            let tx_hash = receipt().map(|receipt| receipt.transaction_hash);
            let given_up = (row.attempts.iter())
                .any(|attempt| attempt.empty && tx_hash.is_none_or(|hash| hash == attempt.hash));
            Some(Err(if given_up {
                OutboxError::Refused { key, reason: reason() }
            } else {
                OutboxError::Reverted { key, reason: reason(), tx_hash }
            }))
        }
    }
}
