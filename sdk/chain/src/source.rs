//! Canonical blocks in order, with what was reverted.
//!
//! alloy's `watch_canonical_blocks_from` does this for one life of a program: it begins without knowing
//! what it sent before, and ends at the first failed call. Here what was sent is stored with its hashes,
//! so that a reorganisation while the agent was down is seen, too.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::{Address, B256};
use alloy::providers::Provider;
use alloy::pubsub::RawSubscription;
use alloy::rpc::types::{Filter, Header, Log};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::broadcast::error::RecvError;
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
    /// True once the database is known to be of this chain.
    bound: bool,
    /// What was sent and is canonical as far as we know, oldest first.
    recent: VecDeque<Block>,
    /// A block below the head that was not there at the last look.
    missing: Option<u64>,
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
        Self {
            chain,
            db,
            start_block,
            emitters,
            bound: false,
            recent: VecDeque::new(),
            missing: None,
        }
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
        let rpc = self.chain.rpc.clone();
        let compare = rpc.compare_heads();
        tokio::pin!(compare);
        let mut wakeup = Wakeup::default();
        let mut trouble = Outage::default();
        loop {
            let result = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = &mut compare => continue,
                result = self.look(&out, &mut wakeup) => result,
            };
            let pause = match result {
                Ok(Step::Stopped) if stop.is_cancelled() => return Ok(()),
                Ok(Step::Stopped) => return Err(ChainError::ConsumerGone),
                Ok(Step::More) => {
                    trouble.is_over();
                    continue;
                }
                Ok(Step::AtHead) => {
                    trouble.is_over();
                    wakeup.pause()
                }
                Err(error) if error.is_retryable() => trouble.pause_after(&error),
                Err(error) => return Err(error),
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = &mut compare => {}
                () = tokio::time::sleep(pause) => {}
                () = wakeup.wait() => {}
            }
        }
    }

    /// One look at the head, and up to one window of blocks.
    async fn look(
        &mut self,
        out: &mpsc::Sender<ChainEvent>,
        wakeup: &mut Wakeup,
    ) -> Result<Step, ChainError> {
        if !self.bound {
            self.chain.bind(&self.db).await?;
            self.bound = true;
        }
        // Subscribed before we look, so that no head falls between.
        wakeup.subscribe(&self.chain).await;
        let head = self.header(BlockNumberOrTag::Latest).await?;
        let Some(head) = head else {
            return Err(self.chain.bad_answer("there is no latest block"));
        };
        if self.is_replaced(&head).await? {
            return self.revert(out).await;
        }
        let next = self.recent.back().map_or(self.start_block, |tip| tip.at.number + 1);
        if head.number < next {
            return Ok(Step::AtHead);
        }
        let last = head.number.min(next.saturating_add(FETCH_WINDOW as u64 - 1));
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
        let blocks: Vec<Option<Block>> = futures::stream::iter(numbers.clone())
            .map(|number| self.block(number, head))
            .buffered(FETCH_WINDOW)
            .try_collect()
            .await?;
        for (number, block) in numbers.zip(blocks) {
            let Some(block) = block else { return self.missing(number, head) };
            self.missing = None;
            if let Some(tip) = self.recent.back()
                && block.parent != tip.at.hash
            {
                if block.at.number == tip.at.number + 1 {
                    self.confirm_replaced(tip, &block).await?;
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

    /// A block that went away between two calls is looked for once more; then the node's chain has a hole.
    fn missing(&mut self, number: u64, head: &Header) -> Result<Step, ChainError> {
        if self.missing.replace(number) != Some(number) {
            return Ok(Step::More);
        }
        Err(self.chain.bad_answer(&format!("there is no block {number} below {}", head.number)))
    }

    /// Fails if the node says in one breath that `tip` is canonical and that `next` follows another block:
    /// to believe that would be to revert and commit `tip` for ever.
    async fn confirm_replaced(&self, tip: &Block, next: &Block) -> Result<(), ChainError> {
        let now = self.header(BlockNumberOrTag::Number(tip.at.number)).await?;
        if now.is_none_or(|header| header.hash != tip.at.hash) {
            return Ok(());
        }
        let (number, hash, parent) = (next.at.number, next.at.hash, next.parent);
        Err(self.chain.bad_answer(&format!(
            "block {number} ({hash}) has the parent {parent}, but {} is canonical there",
            tip.at.hash
        )))
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
            return Err(self.chain.bad_answer(&format!("block {} for {number}", header.number)));
        }
        let hash = header.hash;
        let filter = Filter::new().at_block_hash(hash).address(self.emitters.clone());
        let mut logs = self.logs(&filter).await?;
        if logs.is_empty() && filter.matches_bloom(header.logs_bloom) {
            self.confirm_known(hash).await?;
            logs = self.logs(&filter).await?;
        }
        Ok(Some(Block {
            at: BlockRef { number, hash },
            parent: header.parent_hash,
            timestamp: header.timestamp,
            events: self.events(hash, logs)?,
        }))
    }

    async fn logs(&self, filter: &Filter) -> Result<Vec<Log>, ChainError> {
        let logs = self.chain.call("eth_getLogs", self.chain.provider.get_logs(filter)).await?;
        if logs.len() > MAX_LOGS_PER_BLOCK {
            return Err(self.chain.bad_answer(&format!("{} logs in one block", logs.len())));
        }
        Ok(logs)
    }

    /// Some nodes answer with no logs for a block that they do not have, e.g. one that is behind the node
    /// that told us of the block. Once it has the block, its answer counts.
    async fn confirm_known(&self, hash: B256) -> Result<(), ChainError> {
        let block = self.chain.provider.get_block_by_hash(hash).into_future();
        match self.chain.call("eth_getBlockByHash", block).await? {
            Some(_) => Ok(()),
            None => Err(self.chain.bad_answer(&format!("no logs of block {hash}, which it lacks"))),
        }
    }

    fn events(&self, hash: B256, logs: Vec<Log>) -> Result<Vec<Event>, ChainError> {
        let mut events: BTreeMap<u64, Event> = BTreeMap::new();
        for log in logs {
            let (Some(tx_hash), Some(log_index)) = (log.transaction_hash, log.log_index) else {
                return Err(self.chain.bad_answer("a log without its transaction or index"));
            };
            if log.removed || log.block_hash != Some(hash) {
                return Err(self.chain.bad_answer("a log that was removed, or of another block"));
            }
            let decoded = ProtocolEvent::decode(&self.chain.deployment, log.address(), log.data())
                .map_err(|error| self.chain.bad_answer(&format!("a log of {tx_hash}: {error}")))?;
            let Some(body) = decoded else { continue };
            let event = Event { tx_hash, log_index, body };
            // The same log twice teaches nothing; two logs at one place cannot be.
            match events.entry(log_index) {
                Entry::Vacant(place) => drop(place.insert(event)),
                Entry::Occupied(place) if *place.get() == event => {}
                Entry::Occupied(_) => {
                    let reason = format!("two logs with index {log_index} in block {hash}");
                    return Err(self.chain.bad_answer(&reason));
                }
            }
        }
        Ok(events.into_values().collect())
    }

    async fn header(&self, at: BlockNumberOrTag) -> Result<Option<Header>, ChainError> {
        let block = self.chain.provider.get_block_by_number(at).into_future();
        let block = self.chain.call("eth_getBlockByNumber", block).await?;
        Ok(block.map(|block| block.header))
    }
}

/// What tells of new heads: a subscription where there is one.
#[derive(Default)]
struct Wakeup {
    heads: Option<RawSubscription>,
}

impl Wakeup {
    async fn subscribe(&mut self, chain: &Chain) {
        if self.heads.is_none() && chain.rpc.has_socket() {
            self.heads = chain.rpc.heads().await;
        }
    }

    fn pause(&self) -> Duration {
        if self.heads.is_some() { WATCHDOG_INTERVAL } else { POLL_INTERVAL }
    }

    /// Resolves at the next head, or never without a subscription; one that ended is dropped.
    async fn wait(&mut self) {
        let Some(heads) = &mut self.heads else { return std::future::pending().await };
        if let Err(RecvError::Closed) = heads.recv().await {
            self.heads = None;
        }
    }
}

/// Failed calls in a row: told of once, with growing pauses between.
#[derive(Default)]
struct Outage {
    failures: u32,
}

impl Outage {
    fn pause_after(&mut self, error: &ChainError) -> Duration {
        let pause =
            (FIRST_BACKOFF * 2u32.saturating_pow(self.failures.min(16))).min(LONGEST_BACKOFF);
        if self.failures == 0 {
            tracing::warn!(%error, "chain events wait");
        } else {
            tracing::debug!(%error, retry_in_ms = pause.as_millis() as u64, "chain events still wait");
        }
        self.failures = self.failures.saturating_add(1);
        pause
    }

    fn is_over(&mut self) {
        if std::mem::take(&mut self.failures) > 0 {
            tracing::info!("chain events come again");
        }
    }
}
