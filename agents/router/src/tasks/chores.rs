//! What a task needs beside its answer: its request is pinned, it is submitted, gas is looked up.

use std::{sync::Arc, time::Duration};

use assay_store::{Bytes, ContentStore};
use assay_types::{B256, Nonce, SessionId, TaskId, TaskRequest};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    book::{
        db::{NOT_SUBMITTED, Note},
        owed::Unpinned,
        service::Ledger,
    },
    clock::{now_ms, now_s},
    config::{
        CHORE_DELAY, CHORES_GRACE, MAX_CHORES, MAX_PIN_RETRY, NONCE_LAG, PIN_BATCH, PIN_RETRY,
        PIN_WITHIN, SUBMIT_AFTER,
    },
    journal::JournalError,
    ports::ChainPort,
};

/// Something to do.
#[derive(Debug)]
pub enum Chore {
    /// A task was offered.
    Task {
        /// Its id.
        task: TaskId,
        /// What its lane's holder signed.
        request: TaskRequest,
        /// Its request block.
        block: Bytes,
        /// Whether the node took it; dropped if it left without an answer.
        accepted: oneshot::Receiver<bool>,
    },
    /// An earlier life of the router may not have submitted a task that a node accepted.
    Submit {
        /// Its id.
        task: TaskId,
        /// What its lane's holder signed.
        request: TaskRequest,
    },
    /// The request block of a task that another has signed for.
    Pin {
        /// The task.
        task: TaskId,
        /// Its request block.
        block: Bytes,
    },
    /// The timeline wants this transaction's gas.
    Gas(B256),
}

/// Does chores.
#[derive(Clone)]
pub struct Chores {
    /// The chain.
    pub chain: Arc<dyn ChainPort>,
    /// Where requests are pinned.
    pub store: Arc<dyn ContentStore>,
    /// Where it is written down.
    pub ledger: Ledger,
}

impl Chores {
    /// Works until `stop`, then finishes what was begun.
    pub async fn run(self, mut chores: mpsc::Receiver<Chore>, stop: CancellationToken) {
        let mut working = JoinSet::new();
        let mut begun = Vec::with_capacity(MAX_CHORES);
        loop {
            let room = MAX_CHORES.saturating_sub(working.len());
            let count = tokio::select! {
                biased;
                Some(done) = working.join_next() => {
                    if let Err(error) = done {
                        tracing::error!(%error, "a chore ended badly");
                    }
                    continue;
                }
                count = chores.recv_many(&mut begun, room), if room > 0 => count,
                () = stop.cancelled() => 0,
            };
            if count == 0 {
                break;
            }
            begun.drain(..).for_each(|chore| self.begin(chore, &mut working));
            // Who makes the next one need not wake anybody for it.
            sleep(CHORE_DELAY).await;
        }
        while let Ok(chore) = chores.try_recv() {
            self.begin(chore, &mut working);
        }
        let rest = async { while working.join_next().await.is_some() {} };
        if timeout(CHORES_GRACE, rest).await.is_err() {
            // Signed transactions are stored before they are sent: the next start goes on with them.
            tracing::info!(
                "the router stops before the chain has taken in all of its transactions"
            );
        }
    }

    fn begin(&self, chore: Chore, working: &mut JoinSet<()>) {
        let worker = self.clone();
        working.spawn(async move { worker.perform(chore).await });
    }

    async fn perform(&self, chore: Chore) {
        match chore {
            Chore::Task { task, request, block, accepted } => {
                let pin = self.pin(task, block, now_ms());
                let submit = self.submit_if_taken(task, request, accepted);
                tokio::join!(pin, submit);
            }
            Chore::Pin { task, block } => {
                self.pin(task, block, now_ms()).await;
            }
            Chore::Submit { task, request } => self.submit(task, request).await,
            Chore::Gas(transaction) => match self.chain.gas_used(transaction).await {
                Ok(Some(gas_used)) => self.ledger.note(Note::Gas { transaction, gas_used }),
                Ok(None) => {
                    tracing::debug!(%transaction, "no receipt for a transaction that an event named")
                }
                Err(error) => {
                    tracing::warn!(%transaction, %error, "the gas of a transaction is not known")
                }
            },
        }
    }

    /// Pins the blocks that an earlier try, or an earlier life of the router, left.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn pin_rest(self, stop: CancellationToken) -> Result<(), JournalError> {
        let mut pause = PIN_RETRY;
        loop {
            let before_ms = now_ms().saturating_sub(to_ms(PIN_RETRY));
            let rest = self.ledger.unpinned(before_ms).await?;
            let is_all = rest.len() < PIN_BATCH as usize;
            let mut is_away = false;
            for Unpinned { task, block, since_ms } in rest {
                is_away = !self.pin(task, block, since_ms).await;
                if is_away || stop.is_cancelled() {
                    break;
                }
            }
            // What is pinned must not come again.
            self.ledger.written().await;
            pause = if is_away { (pause * 2).min(MAX_PIN_RETRY) } else { PIN_RETRY };
            if is_all || is_away {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = stop.cancelled() => return Ok(()),
                }
            }
        }
    }

    /// Tries to pin a block; whether it is settled. One that is not stays in the database.
    async fn pin(&self, task: TaskId, block: Bytes, since_ms: u64) -> bool {
        let at_ms = now_ms();
        let error = match self.store.put(block).await {
            Ok(_) => None,
            Err(error)
                if error.is_retryable() && at_ms.saturating_sub(since_ms) < to_ms(PIN_WITHIN) =>
            {
                tracing::warn!(%task, %error, "the request block is not pinned yet");
                return false;
            }
            Err(error) => {
                tracing::error!(%task, %error, "the request block is not pinned, and is given up");
                Some(error.to_string())
            }
        };
        self.ledger.note(Note::Pinned { task, error, at_ms });
        true
    }

    fn happened(&self, task: TaskId, event: &'static str, detail: Option<String>) {
        self.ledger.note(Note::Happened { task, event, at_ms: now_ms(), detail });
    }

    async fn submit_if_taken(
        &self,
        task: TaskId,
        request: TaskRequest,
        accepted: oneshot::Receiver<bool>,
    ) {
        let session = SessionId(request.sessionId);
        let taken = match timeout(SUBMIT_AFTER, accepted).await {
            Ok(Ok(taken)) => taken,
            Ok(Err(_)) => false,
            Err(_) => true,
        };
        if !taken && self.ledger.book().nonce_lead(session, Nonce(request.nonce)) < NONCE_LAG {
            // Nobody works on it: it costs neither gas nor a hold.
            self.ledger.book().release(&task);
            return self.happened(task, NOT_SUBMITTED, Some("no node took it".into()));
        }
        self.submit(task, request).await;
    }

    async fn submit(&self, task: TaskId, request: TaskRequest) {
        let session = SessionId(request.sessionId);
        let outcome = match self.chain.submit(task, request).await {
            Ok(mined) => {
                tracing::debug!(%task, transaction = %mined.transaction, gas = mined.gas_used, "task submitted");
                "submitted"
            }
            Err(error) if error.is_already_there() => "carried_by_miner",
            Err(error) => {
                tracing::warn!(%task, %error, "the task is not submitted; its miner may still carry it with the answer");
                if error.is_unpaid() {
                    self.ledger.book().unpaid(session, now_s());
                }
                self.happened(task, "submission_failed", Some(error.to_string()));
                "failed"
            }
        };
        metrics::counter!("assay_router_submissions_total", "agent" => "router", "outcome" => outcome).increment(1);
    }
}

fn to_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
