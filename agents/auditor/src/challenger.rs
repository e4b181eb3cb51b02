//! Brings evidence to the contract.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use alloy::primitives::B256;
use alloy::sol_types::SolCall;
use assay_bindings::SessionQueue::reportEquivocationCall;
use assay_chain::{Chain, DatabaseError, Intent, Outbox, OutboxError};
use assay_runtime::Health;
use tokio::time::Instant;

use crate::evidence::{Case, Cases};

/// So often open cases are looked at.
const POLL: Duration = Duration::from_secs(1);
/// A challenge that was refused, or could not be sent, is tried again after so long: the account may be funded, or the
/// chain may have the task that was missing.
const RETRY: Duration = Duration::from_secs(60);
/// Cases that are looked at in one go.
const MAX_CASES: u32 = 256;

/// Challenges the nodes of open cases.
pub(crate) struct Challenger {
    pub(crate) chain: Chain,
    pub(crate) cases: Cases,
    pub(crate) outbox: Outbox,
    /// Whether the audit is at the head: before, most cases may be punished already.
    pub(crate) health: Health,
}

impl Challenger {
    /// Challenges what is found, for ever.
    ///
    /// # Errors
    /// From the database; trouble with the chain is waited out.
    pub(crate) async fn run(self) -> Result<Infallible, DatabaseError> {
        let mut next: HashMap<(B256, u32), Instant> = HashMap::new();
        loop {
            tokio::time::sleep(POLL).await;
            if !self.health.is_ready() {
                continue;
            }
            let open = self.cases.list(true, MAX_CASES)?;
            next.retain(|key, _| open.iter().any(|case| (case.task, case.node) == *key));
            for case in open {
                let key = (case.task, case.node);
                if next.get(&key).is_some_and(|at| *at > Instant::now()) {
                    continue;
                }
                next.insert(key, Instant::now() + RETRY);
                self.file(&case).await?;
            }
        }
    }

    /// One challenge, to its end. A challenge that is mined is not sent again; one that the chain took back is.
    async fn file(&self, case: &Case) -> Result<(), DatabaseError> {
        let (task, node) = (case.task, case.node);
        let call = reportEquivocationCall {
            taskId: task,
            one: case.one.clone(),
            other: case.other.clone(),
        };
        let key = format!("equivocation:{task}:{node}");
        let intent = Intent::call(key, self.chain.deployment.queue, call.abi_encode());
        let trouble = match self.outbox.send(intent).await {
            Ok(receipt) => {
                let transaction = receipt.transaction_hash;
                tracing::warn!(%task, node, %transaction, "challenged a node that signed two answers");
                None
            }
            Err(OutboxError::Database { source }) => return Err(source),
            Err(error) => Some(error.to_string()),
        };
        if let Some(reason) = trouble.as_ref().filter(|_| case.trouble != trouble) {
            tracing::error!(%task, node, %reason, "a node signed two answers, and could not be challenged");
        }
        self.cases.note(case, trouble.as_deref())
    }
}
