//! Canonical blocks in order, with what was reverted.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::{Address, B256};
use alloy::providers::Provider;
use alloy::pubsub::Subscription;
use alloy::rpc::types::{Filter, Header, Log};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cursor::{KEPT_BLOCKS, load_blocks};
use crate::event::{Block, BlockRef, ChainEvent, Event, ProtocolEvent};
use crate::{Chain, ChainError, Database};

/// Pause between looks at the head where nothing wakes us: a quarter of the fastest block time.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The same with a WebSocket that wakes us: only against a connection that died without telling.
const WATCHDOG_INTERVAL: Duration = Duration::from_secs(2);
/// Pause after a failed call; doubles up to the longest.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
/// Longest pause after failed calls.
const LONGEST_BACKOFF: Duration = Duration::from_secs(15);
/// Blocks fetched side by side while catching up: enough to hide the round trip, and no flood.
const FETCH_WINDOW: usize = 16;
/// Most logs of our contracts in one block that are taken: a block of 60 M gas has room for some 30,000.
const MAX_LOGS_PER_BLOCK: usize = 100_000;

/// Source of [`ChainEvent`]s. The consumer stores each with [`crate::save_cursor`]; after a restart the
/// source goes on behind the cursor.
#[derive(Debug)]
pub struct EventSource {
    chain: Chain,
    db: Arc<Database>,
    start_block: u64,
    emitters: Vec<Address>,
    /// What was sent and is canonical as far as we know, oldest first.
    recent: VecDeque<Block>,
}

/// What one look at the chain led to.
enum Step {
    /// There may be more to do at once.
    More,
    /// We are at the head.
    AtHead,
    /// Nobody wants more.
    Stopped,
}

impl EventSource {
    /// `start_block` is the first block to send if the database has no cursor.
    pub fn new(chain: Chain, db: Arc<Database>, start_block: u64) -> Self {
        let emitters = ProtocolEvent::emitters(&chain.deployment);
        Self { chain, db, start_block, emitters, recent: VecDeque::new() }
    }

    /// Sends every canonical block from the cursor on, in order, until `stop`. Failed calls are repeated
    /// with growing pauses.
    ///
    /// # Errors
    /// What waiting cannot mend: another chain, a reorganisation deeper than what is kept, a database
    /// that fails, a receiver that is gone.
    pub async fn run(
        mut self,
        out: mpsc::Sender<ChainEvent>,
        stop: CancellationToken,
    ) -> Result<(), ChainError> {
        self.recent = self.db.transaction(load_blocks)?.into();
        let mut bound = false;
        let mut heads = None;
        let mut backoff = FIRST_BACKOFF;
        loop {
            let result = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                result = self.look(&out, &mut bound, &mut heads) => result,
            };
            let pause = match result {
                Ok(Step::Stopped) if stop.is_cancelled() => return Ok(()),
                Ok(Step::Stopped) => return Err(ChainError::ConsumerGone),
                Ok(Step::More) => {
                    backoff = FIRST_BACKOFF;
                    continue;
                }
                Ok(Step::AtHead) => {
                    backoff = FIRST_BACKOFF;
                    if heads.is_some() { WATCHDOG_INTERVAL } else { POLL_INTERVAL }
                }
                Err(error) if error.is_retryable() => {
                    tracing::warn!(%error, retry_in_ms = backoff.as_millis() as u64, "chain events wait");
                    let pause = backoff;
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                    heads = None;
                    pause
                }
                Err(error) => return Err(error),
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
                () = next_head(&mut heads) => {}
            }
        }
    }

    /// One look at the head, and up to one window of blocks.
    async fn look(
        &mut self,
        out: &mpsc::Sender<ChainEvent>,
        bound: &mut bool,
        heads: &mut Option<Subscription<Header>>,
    ) -> Result<Step, ChainError> {
        if !*bound {
            self.chain.bind(&self.db).await?;
            *bound = true;
        }
        // Subscribed before we look, so that no head falls between.
        if heads.is_none() && self.chain.pubsub {
            let subscription = self.chain.provider.subscribe_blocks().into_future();
            *heads = Some(self.chain.call("eth_subscribe", subscription).await?);
        }
        let Some(head) = self.header(BlockNumberOrTag::Latest).await? else {
            return Err(self.bad_answer("there is no latest block"));
        };
        if self.is_replaced(&head).await? {
            return self.revert(out).await;
        }
        let next = self.recent.back().map_or(self.start_block, |tip| tip.at.number + 1);
        if head.number < next {
            return Ok(Step::AtHead);
        }
        let last = head.number.min(next + FETCH_WINDOW as u64 - 1);
        self.advance(next..=last, &head, out).await
    }

    /// True if the newest block that we sent is no longer canonical.
    async fn is_replaced(&self, head: &Header) -> Result<bool, ChainError> {
        let Some(tip) = self.recent.back() else { return Ok(false) };
        if head.number > tip.at.number {
            // The next block's parent tells.
            return Ok(false);
        }
        if head.number == tip.at.number {
            return Ok(head.hash != tip.at.hash);
        }
        // The head is behind us: a node that lags, unless it has another block there than we.
        let same_height = self.recent.iter().rev().find(|block| block.at.number == head.number);
        Ok(same_height.is_some_and(|block| block.at.hash != head.hash))
    }

    async fn advance(
        &mut self,
        numbers: RangeInclusive<u64>,
        head: &Header,
        out: &mpsc::Sender<ChainEvent>,
    ) -> Result<Step, ChainError> {
        let blocks: Vec<Option<Block>> = futures::stream::iter(numbers)
            .map(|number| self.block(number, head))
            .buffered(FETCH_WINDOW)
            .try_collect()
            .await?;
        for block in blocks {
            // Gone between two calls: look again.
            let Some(block) = block else { return Ok(Step::More) };
            if let Some(tip) = self.recent.back()
                && block.parent != tip.at.hash
            {
                if block.at.number == tip.at.number + 1 {
                    return self.revert(out).await;
                }
                return Ok(Step::More);
            }
            if out.send(ChainEvent::Committed(block.clone())).await.is_err() {
                return Ok(Step::Stopped);
            }
            self.recent.push_back(block);
            if self.recent.len() as u64 > KEPT_BLOCKS {
                self.recent.pop_front();
            }
        }
        Ok(Step::More)
    }

    /// Takes the newest block back.
    async fn revert(&mut self, out: &mpsc::Sender<ChainEvent>) -> Result<Step, ChainError> {
        // Without its parent we would not know where to go on, unless it was the first of all.
        if self.recent.len() < 2
            && let Some(oldest) = self.recent.front()
            && oldest.at.number > self.start_block
        {
            let number = oldest.at.number;
            return Err(ChainError::ReorgTooDeep { kept: KEPT_BLOCKS, number });
        }
        // A chain that was started anew is no reorganisation.
        self.chain.bind(&self.db).await?;
        let Some(block) = self.recent.pop_back() else { return Ok(Step::More) };
        tracing::info!(number = block.at.number, hash = %block.at.hash, "block was reverted");
        match out.send(ChainEvent::Reverted(block)).await {
            Ok(()) => Ok(Step::More),
            Err(_) => Ok(Step::Stopped),
        }
    }

    /// The block at `number` with its events, all of one hash; `None` if it went away meanwhile.
    async fn block(&self, number: u64, head: &Header) -> Result<Option<Block>, ChainError> {
        let header = if number == head.number {
            head.clone()
        } else {
            match self.header(BlockNumberOrTag::Number(number)).await? {
                Some(header) => header,
                None => return Ok(None),
            }
        };
        if header.number != number {
            return Err(self.bad_answer(&format!("block {} for {number}", header.number)));
        }
        let hash = header.hash;
        let filter = Filter::new().at_block_hash(hash).address(self.emitters.clone());
        let logs = self.chain.call("eth_getLogs", self.chain.provider.get_logs(&filter)).await?;
        if logs.len() > MAX_LOGS_PER_BLOCK {
            return Err(self.bad_answer(&format!("{} logs in block {number}", logs.len())));
        }
        Ok(Some(Block {
            at: BlockRef { number, hash },
            parent: header.parent_hash,
            timestamp: header.timestamp,
            events: self.events(hash, logs)?,
        }))
    }

    fn events(&self, hash: B256, logs: Vec<Log>) -> Result<Vec<Event>, ChainError> {
        let mut events = Vec::with_capacity(logs.len());
        for log in logs {
            let (Some(tx_hash), Some(log_index)) = (log.transaction_hash, log.log_index) else {
                return Err(self.bad_answer("a log without its transaction or index"));
            };
            if log.block_hash != Some(hash) {
                return Err(self.bad_answer("a log of another block"));
            }
            let decoded = ProtocolEvent::decode(&self.chain.deployment, log.address(), log.data())
                .map_err(|error| self.bad_answer(&format!("a log of {tx_hash}: {error}")))?;
            if let Some(body) = decoded {
                events.push(Event { tx_hash, log_index, body });
            }
        }
        events.sort_by_key(|event| event.log_index);
        Ok(events)
    }

    async fn header(&self, at: BlockNumberOrTag) -> Result<Option<Header>, ChainError> {
        let block = self.chain.provider.get_block_by_number(at).into_future();
        let block = self.chain.call("eth_getBlockByNumber", block).await?;
        Ok(block.map(|block| block.header))
    }

    fn bad_answer(&self, reason: &str) -> ChainError {
        ChainError::BadAnswer { url: self.chain.endpoint.to_string(), reason: reason.to_string() }
    }
}

/// Resolves at the next head, or never without a subscription; a subscription that ended is dropped.
async fn next_head(heads: &mut Option<Subscription<Header>>) {
    match heads {
        Some(subscription) => {
            if let Err(tokio::sync::broadcast::error::RecvError::Closed) = subscription.recv().await
            {
                *heads = None;
            }
        }
        None => std::future::pending().await,
    }
}
