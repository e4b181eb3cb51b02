//! Feeds the keeper and does what it says.

use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::Bytes;
use alloy::providers::Provider;
use assay_bindings::{ProofOfInference, SessionQueue};
use assay_chain::{Chain, ChainEvent, Database, Outbox, OutboxError};
use assay_protocol::state::AuditState;
use assay_runtime::{BoxError, Health};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::drand::{Drand, DrandError};

use super::calls::{self, Call};
use super::state::{Action, Brought, Input, Keeper, Push};
use super::store;

/// How often deadlines are looked at while no block comes.
const TICK: Duration = Duration::from_secs(1);
/// How long a stop waits for calls that are under way; the outbox goes on with them at the next start.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How long the question for the head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Blocks that we may be behind the head and still act: one may be mined while we ask.
const SLACK_BLOCKS: u64 = 1;
/// Condition of [`Health`] that says whether the chain is followed.
const CHAIN_CONDITION: &str = "chain";
/// Condition of [`Health`] that says whether the account can pay.
const FUNDS_CONDITION: &str = "funds";

pub(crate) struct KeeperService {
    pub agent: Arc<str>,
    pub chain: Chain,
    pub db: Arc<Database>,
    pub outbox: Outbox,
    /// Where the deployment's beacon is drand.
    pub drand: Option<Drand>,
    pub keeper: Keeper,
    pub health: Health,
    pub events: mpsc::Receiver<ChainEvent>,
}

/// Where the newest block stands, and when it came.
#[derive(Debug, Clone, Copy)]
struct Head {
    number: u64,
    timestamp: u64,
    seen: Instant,
}

impl Head {
    /// The chain's time: that of the newest block and what has gone by since, for chains that mine only
    /// when there is something to mine.
    fn time(&self) -> u64 {
        self.timestamp.saturating_add(self.seen.elapsed().as_secs())
    }
}

impl KeeperService {
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), BoxError> {
        self.health.fail(CHAIN_CONDITION, "reads the chain from its cursor");
        let mut running: JoinSet<Push> = JoinSet::new();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut head: Option<Head> = None;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = running.join_next() => {
                    if let (Ok(push), Some(head)) = (ended, head) {
                        self.keeper.on(Input::Ended { push, chain_time: head.time() });
                    }
                    continue;
                }
                event = self.events.recv() => {
                    let Some(event) = event else {
                        // Intake has stopped, or failed and stops the agent: our turn comes.
                        stop.cancelled().await;
                        break;
                    };
                    head = Some(self.take(&event)?);
                    if !self.events.is_empty() {
                        continue;
                    }
                }
                _ = ticks.tick() => {}
            }
            let Some(at) = head else { continue };
            let current = tokio::select! {
                () = stop.cancelled() => break,
                current = self.is_current(at) => current,
            };
            if current {
                self.push(at, &mut running);
            }
        }
        let drained = async { while running.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_PATIENCE, drained).await.is_err() {
            tracing::info!(agent = %self.agent, "calls under way are finished at the next start");
        }
        Ok(())
    }

    /// Takes a block in, or back.
    fn take(&mut self, event: &ChainEvent) -> Result<Head, BoxError> {
        let block = event.block();
        let (input, number) = match event {
            ChainEvent::Committed(block) => (Input::Block(block), block.at.number),
            ChainEvent::Reverted(block) => {
                (Input::Reverted(block), block.at.number.saturating_sub(1))
            }
        };
        for action in self.keeper.on(input) {
            if let Action::Store(changes) = action {
                store::save(&self.db, event, &changes)?;
            }
        }
        let (sessions, tasks, answers) = self.keeper.waiting();
        self.gauge("assay_oracle_sessions_waiting", sessions as f64);
        self.gauge("assay_oracle_tasks_waiting", tasks as f64);
        self.gauge("assay_oracle_proofs_waiting", answers as f64);
        self.gauge("assay_oracle_head_block", number as f64);
        Ok(Head { number, timestamp: block.timestamp, seen: Instant::now() })
    }

    fn gauge(&self, name: &'static str, value: f64) {
        metrics::gauge!(name, "agent" => Arc::clone(&self.agent)).set(value);
    }

    /// True if we have read up to the head: what an old block left open may be done long since.
    async fn is_current(&self, at: Head) -> bool {
        let number = self.chain.provider.get_block_number();
        match tokio::time::timeout(HEAD_TIMEOUT, number.into_future()).await {
            Ok(Ok(number)) if number <= at.number.saturating_add(SLACK_BLOCKS) => {
                self.health.satisfy(CHAIN_CONDITION);
                true
            }
            Ok(Ok(number)) => {
                let text = format!("has read {} of {number} blocks", at.number);
                self.health.fail(CHAIN_CONDITION, text);
                false
            }
            _ => {
                self.health.fail(CHAIN_CONDITION, "the chain does not answer");
                false
            }
        }
    }

    /// Starts what the keeper wants now.
    fn push(&mut self, head: Head, running: &mut JoinSet<Push>) {
        for action in self.keeper.on(Input::Tick { chain_time: head.time() }) {
            let Action::Push { push, attempt, brought } = action else { continue };
            let (chain, outbox) = (self.chain.clone(), self.outbox.clone());
            let (agent, health) = (Arc::clone(&self.agent), self.health.clone());
            let drand = self.drand.clone();
            running.spawn(async move {
                let proof = match (&push, &drand) {
                    (Push::Reveal(round), Some(drand)) => drand.signature(*round).await,
                    _ => Ok(Bytes::new()),
                };
                let result = match proof {
                    Ok(proof) => {
                        let call = Call { push: &push, attempt, brought, proof };
                        perform(&chain, &outbox, call).await.map_err(Failure::from)
                    }
                    Err(error) => Err(error.into()),
                };
                report(&agent, &health, &push, &result);
                push
            });
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    /// Mined.
    Mined { gas: u64 },
    /// Others had done it: nothing was sent.
    Nothing,
}

/// Why a push had no effect.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error(transparent)]
    Drand(#[from] DrandError),
}

async fn perform(chain: &Chain, outbox: &Outbox, call: Call<'_>) -> Result<Done, OutboxError> {
    // The contract skips what is drawn or settled already, so that an estimate would not refuse.
    let is_useful = match call.push {
        Push::Settle(_) => settles(chain, &call.brought).await,
        Push::Draw(_) => {
            settles(chain, &call.brought).await || is_exposed(chain, &call.brought).await
        }
        _ => true,
    };
    let Some(intent) = calls::intent(chain, call).filter(|_| is_useful) else {
        return Ok(Done::Nothing);
    };
    let receipt = outbox.send(intent).await?;
    Ok(Done::Mined { gas: receipt.gas_used })
}

/// False if the chain says that none of the tasks would be settled.
async fn settles(chain: &Chain, brought: &Brought) -> bool {
    let queue = SessionQueue::new(chain.deployment.queue, &chain.provider);
    let settle = queue.settle(brought.tasks.clone());
    let count = tokio::time::timeout(HEAD_TIMEOUT, settle.call().into_future()).await;
    !matches!(count, Ok(Ok(count)) if count.is_zero())
}

/// False if the chain says that every answer is drawn. Mostly the first one is not, and one question is enough.
async fn is_exposed(chain: &Chain, brought: &Brought) -> bool {
    let proof = ProofOfInference::new(chain.deployment.proof, &chain.provider);
    for (task, node) in &brought.exposed {
        let status = proof.statusOf(*task, *node);
        let told = tokio::time::timeout(HEAD_TIMEOUT, status.call().into_future()).await;
        if !matches!(told, Ok(Ok(told)) if told.state != AuditState::Exposed as u8) {
            return true;
        }
    }
    false
}

fn report(agent: &Arc<str>, health: &Health, push: &Push, result: &Result<Done, Failure>) {
    let action = push.name();
    let outcome = match result {
        Ok(Done::Mined { gas }) => {
            health.satisfy(FUNDS_CONDITION);
            tracing::info!(%agent, action, gas, "pushed");
            "done"
        }
        Ok(Done::Nothing) => "nothing",
        // Somebody was faster, or it is not yet time on the chain's clock.
        Err(Failure::Outbox(OutboxError::Reverted { reason, .. })) => {
            tracing::debug!(%agent, action, reason = %reason, "refused");
            "refused"
        }
        Err(error) => {
            if let Failure::Outbox(OutboxError::Unfunded { .. }) = error {
                health.fail(FUNDS_CONDITION, error.to_string());
            }
            tracing::warn!(%agent, action, %error, "did not go through; it is tried again");
            "failed"
        }
    };
    let agent = Arc::clone(agent);
    metrics::counter!(
        "assay_oracle_actions_total", "agent" => agent, "action" => action, "outcome" => outcome
    )
    .increment(1);
}
