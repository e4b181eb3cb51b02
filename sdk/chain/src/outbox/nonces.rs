//! Our nonces as the chain sees them.

use alloy::consensus::Transaction as _;
use alloy::eips::BlockId;
use alloy::network::TransactionResponse;
use alloy::primitives::B256;
use alloy::providers::Provider;
use alloy::rpc::types::Transaction;

use super::fees::Fees;
use super::plan::transaction;
use super::store::NewRow;
use super::{Inner, Intent, OutboxError};
use crate::ChainError;

/// Most gaps that one sweep fills: each costs gas, and more than a few mean that something else is wrong.
const MAX_GAPS: u64 = 16;
/// How far back the transaction that used a nonce is looked for: nodes that are no archives keep the
/// state of 128 blocks.
const MAX_LOOK_BACK: u64 = 128;

impl Inner {
    /// Nonces that the account has used on the chain.
    pub(super) async fn count(&self) -> Result<u64, ChainError> {
        self.count_at(BlockId::latest()).await
    }

    async fn count_at(&self, block: BlockId) -> Result<u64, ChainError> {
        let count = self.chain.provider.get_transaction_count(self.signer.address());
        self.chain.call("eth_getTransactionCount", count.block_id(block).into_future()).await
    }

    /// The transaction that used `nonce`; `None` if it is too long ago to be found.
    pub(super) async fn user_of(&self, nonce: u64) -> Result<Option<B256>, ChainError> {
        let head = self.chain.provider.get_block_number().into_future();
        let head = self.chain.call("eth_blockNumber", head).await?;
        // The nonce is free at `free`, if there is such a block in reach, and used at `used`.
        let (mut free, mut used) = (head.saturating_sub(MAX_LOOK_BACK), head);
        if self.count_at(free.into()).await? > nonce {
            return Ok(None);
        }
        while free + 1 < used {
            let middle = free + (used - free) / 2;
            match self.count_at(middle.into()).await? > nonce {
                true => used = middle,
                false => free = middle,
            }
        }
        let block = self.chain.provider.get_block_by_number(used.into()).full().into_future();
        let Some(block) = self.chain.call("eth_getBlockByNumber", block).await? else {
            return Ok(None);
        };
        let address = self.signer.address();
        let ours = |tx: &&Transaction| tx.from() == address && (**tx).nonce() == nonce;
        let user = block.transactions.txns().find(ours).map(TransactionResponse::tx_hash);
        Ok(user)
    }

    /// Compares what is stored with the chain. Trouble with the chain is for another time.
    ///
    /// # Errors
    /// From the database.
    pub(super) async fn mend(&self) -> Result<(), OutboxError> {
        let mended = async {
            self.mend_nonces().await?;
            self.mend_receipts().await
        };
        match mended.await {
            Err(OutboxError::Database { source }) => Err(source.into()),
            Err(error) => {
                tracing::debug!(%error, "outbox waits for the chain");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// A receipt may have come from a node that followed another branch than the one that told of the
    /// blocks. Where the blocks are still canonical, the receipt is not: it is looked for again.
    async fn mend_receipts(&self) -> Result<(), OutboxError> {
        for at in self.store.contradicted()? {
            let block = self.chain.provider.get_block_by_number(at.number.into()).into_future();
            let block = self.chain.call("eth_getBlockByNumber", block).await?;
            if block.is_some_and(|block| block.header.hash == at.hash) {
                tracing::warn!(
                    number = at.number,
                    "a receipt was of a block that is not canonical"
                );
                self.store.reopen_other(at)?;
            }
        }
        Ok(())
    }

    /// If nonces that we saw mined are free again, a reorganisation undid them: they are open again. If
    /// nonces below those are free that no transaction of ours has, nothing behind them could ever be
    /// mined: they are used up.
    async fn mend_nonces(&self) -> Result<(), OutboxError> {
        let Some(lowest) = self.store.lowest_unsettled()? else { return Ok(()) };
        if lowest <= self.count().await? {
            return Ok(());
        }
        let _signing = self.signing.lock().await;
        // Asked again: the figure may have been old.
        let count = self.count().await?;
        self.reopen_from(count).await?;
        let Some(lowest) = self.store.lowest_open()? else { return Ok(()) };
        if lowest <= count {
            return Ok(());
        }
        let fees = self.fees().await?;
        for nonce in count..lowest.min(count + MAX_GAPS) {
            self.fill(nonce, fees).await?;
        }
        Ok(())
    }

    /// Opens what was mined under nonces from `count` on, and broadcasts it in order.
    pub(super) async fn reopen_from(&self, count: u64) -> Result<(), OutboxError> {
        let reopened = self.store.reopen_from(count)?;
        if reopened == 0 {
            return Ok(());
        }
        tracing::warn!(reopened, count, "the chain took transactions back; they are sent again");
        for id in self.store.open_rows()? {
            if let Some(row) = self.store.load(id)?
                && let Some(newest) = row.attempts.first()
            {
                self.first_broadcast(id, newest).await?;
            }
        }
        Ok(())
    }

    /// Uses up a nonce that no transaction of ours has.
    async fn fill(&self, nonce: u64, fees: Fees) -> Result<(), OutboxError> {
        let (empty, gas_limit) = self.empty().await;
        let signed =
            self.sign(transaction(&empty, nonce, self.chain.chain_id, gas_limit, fees), false)?;
        let intent = Intent { key: format!("gap:{nonce}:{}", signed.hash), ..empty };
        if self.store.find(&intent.key)?.is_some() {
            return Ok(());
        }
        tracing::warn!(nonce, "a nonce below ours is free; an empty transaction uses it up");
        let id = self.store.insert(&NewRow { intent: &intent, gas_limit, attempt: &signed })?;
        self.first_broadcast(id, &signed).await.map(drop)
    }
}
