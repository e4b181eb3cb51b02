//! Whether this node's stake covers one more proven answer: what the chain would refuse at the commit is declined before
//! any work.

use std::{collections::BTreeMap, sync::Arc};

use assay_chain::DatabaseError;
use assay_types::{NodeId, NumericClass, SessionId, TaskId};
use tokio::sync::Mutex;

use super::check::{Refusal, refuse};
use crate::{
    answers::Answers,
    ledger::{Ledger, Odds, Stake},
    tasks::Standing,
};

/// Above it the contract takes no answer: hundredths of a percent.
const CERTAIN_BPS: u64 = 10_000;

/// An answer that is not on chain yet.
#[derive(Clone, Copy, Debug)]
struct Promise {
    session: SessionId,
    /// At most; minor units of the session's asset.
    fee: u128,
    /// Unix seconds.
    deadline_s: u64,
}

/// Proven answers that this node works at: what they may cost is at stake with what the chain counts already.
pub(crate) struct Promises {
    ledger: Arc<dyn Ledger>,
    answers: Answers,
    node: NodeId,
    class: NumericClass,
    /// Held while the chain is asked, so that two tasks at once cannot both count on the same stake.
    open: Mutex<BTreeMap<TaskId, Promise>>,
}

impl Promises {
    pub(crate) fn new(
        ledger: Arc<dyn Ledger>,
        answers: Answers,
        (node, class): (NodeId, NumericClass),
    ) -> Self {
        Self { ledger, answers, node, class, open: Mutex::default() }
    }

    /// Promises an answer of at most so much, if it is to be proven and the stake covers it.
    pub(crate) async fn make(
        &self,
        task: TaskId,
        (session, fee): (SessionId, u128),
        (deadline_s, now_s): (u64, u64),
    ) -> Result<(), Refusal> {
        let mut open = self.open.lock().await;
        open.retain(|_, promise| promise.deadline_s >= now_s);
        self.forget_committed(&mut open).map_err(|e| refuse("internal", e.to_string()))?;
        open.remove(&task);
        if self.check(&open, session, fee).await? {
            open.insert(task, Promise { session, fee, deadline_s });
        }
        Ok(())
    }

    /// Whether one could be made.
    pub(crate) async fn allow(&self, session: SessionId, fee: u128) -> Result<(), Refusal> {
        let open = self.open.lock().await;
        self.check(&open, session, fee).await.map(|_| ())
    }

    /// Whether an answer to the task will be proven.
    pub(crate) async fn has(&self, task: TaskId) -> bool {
        self.open.lock().await.contains_key(&task)
    }

    /// The task was given up.
    pub(crate) async fn release(&self, task: TaskId) {
        self.open.lock().await.remove(&task);
    }

    /// What is on chain is counted there.
    fn forget_committed(&self, open: &mut BTreeMap<TaskId, Promise>) -> Result<(), DatabaseError> {
        let mut counted = Vec::new();
        for task in open.keys() {
            let given = self.answers.chain_task(*task)?;
            let standing = given.map(|given| given.standing(self.node));
            if matches!(standing, Some(Standing::Answered | Standing::Committed | Standing::Over)) {
                counted.push(*task);
            }
        }
        open.retain(|task, _| !counted.contains(task));
        Ok(())
    }

    async fn check(
        &self,
        open: &BTreeMap<TaskId, Promise>,
        session: SessionId,
        fee: u128,
    ) -> Result<bool, Refusal> {
        let promised = open.values().map(|promise| (promise.session, promise.fee)).collect();
        let stake = Stake { node: self.node, class: self.class, fee, promised };
        match self.ledger.odds(session, stake).await? {
            Odds::Unproven => Ok(false),
            Odds::Uncalibrated => Err(refuse(
                "not_calibrated",
                format!(
                    "nobody has calibrated class {} of this model with itself, so that no answer of it can be proven: \
                     offer the task to a node of another class",
                    self.class
                ),
            )),
            Odds::Bps(bps) if bps > CERTAIN_BPS => Err(refuse(
                "stake_too_small",
                format!(
                    "the stake of node {} is too small for what is open: add collateral, or offer the task again when \
                     other tasks have settled",
                    self.node
                ),
            )),
            Odds::Bps(_) => Ok(true),
        }
    }
}
