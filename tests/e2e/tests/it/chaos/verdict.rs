//! What the chain says afterwards, whatever the agents say.

use std::collections::{BTreeMap, BTreeSet};

use alloy::{
    primitives::{Address, B256, U256},
    providers::{DynProvider, Provider},
    rpc::types::Filter,
    sol_types::SolEvent,
};
use assay_bindings::{
    CorToken, Deployment, NodePool, Parameters, Session, SessionPayment, SessionQueue,
};
use assay_protocol::{PartState, QueueScope, TaskRecord, TaskState};
use serde::Serialize;

/// Seconds between a deadline and the act of whoever moves the task on, on a machine that also kills and starts
/// processes: an agent may be away for some seconds, and tries again after at most a minute.
pub const BOUND_S: u64 = 90;

/// One task with what became of it.
struct Seen {
    record: TaskRecord,
    ends_s: Vec<u64>,
    paid: BTreeMap<u32, u32>,
}

/// Figures of a run, for the report.
#[derive(Debug, Default, Serialize)]
pub struct Verdict {
    pub tasks: usize,
    pub answers_paid: usize,
    pub refunded: usize,
    pub redundant: usize,
    pub claimed: usize,
    /// The furthest that an end came after its deadline, seconds; negative if all were early.
    pub latest_end_s: i64,
}

pub struct Chain {
    pub provider: DynProvider,
    pub deployment: Deployment,
}

impl Chain {
    async fn events<E: SolEvent>(&self, address: Address) -> Vec<(E, u64)> {
        let filter =
            Filter::new().from_block(0).address(address).event_signature(E::SIGNATURE_HASH);
        let logs = self.provider.get_logs(&filter).await.unwrap();
        let mut events = Vec::new();
        for log in logs {
            let number = log.block_number.unwrap();
            events.push((log.log_decode::<E>().unwrap().inner.data, number));
        }
        events
    }

    async fn time_of(&self, number: u64) -> u64 {
        let block = self.provider.get_block(number.into()).await.unwrap().unwrap();
        block.header.timestamp
    }

    /// Tasks that are not at their end yet.
    pub async fn open_tasks(&self) -> usize {
        let queue = SessionQueue::new(self.deployment.queue, &self.provider);
        let submitted = self.events::<SessionQueue::TaskSubmitted>(self.deployment.queue).await;
        let mut open = 0;
        for (event, _) in submitted {
            let state = queue.statusOf(event.taskId).call().await.unwrap().state;
            let ended = [TaskState::Settled as u8, TaskState::Refunded as u8].contains(&state);
            open += usize::from(!ended);
        }
        open
    }

    /// Whether the task was paid.
    pub async fn is_settled(&self, task: &str) -> bool {
        let queue = SessionQueue::new(self.deployment.queue, &self.provider);
        let id: B256 = task.parse().unwrap();
        queue.statusOf(id).call().await.unwrap().state == TaskState::Settled as u8
    }

    /// Checks that every task ended, once, in time, and that all money is there.
    pub async fn judge(&self) -> Verdict {
        let seen = self.fold().await;
        let terms = Parameters::new(self.deployment.parameters, &self.provider);
        let terms = terms.sessionTermsOf(1).call().await.unwrap();
        let after_s = terms.revealTime.to::<u64>() + terms.settleDelay.to::<u64>();
        let mut verdict = Verdict { latest_end_s: i64::MIN, ..Verdict::default() };
        for (id, task) in &seen {
            verdict.tasks += 1;
            verdict.redundant += usize::from(task.record.task.parts.len() > 1);
            verdict.claimed += usize::from(task.record.task.ticket != 0);
            verdict.refunded += usize::from(task.record.state == TaskState::Refunded);
            verdict.answers_paid += task.paid.len();
            let final_by = task.record.task.finalBy.to::<u64>() + after_s;
            let end = end_of(*id, task);
            let late = i64::try_from(end).unwrap() - i64::try_from(final_by).unwrap();
            assert!(late <= BOUND_S as i64, "task {id} ended {late} s after its last deadline");
            verdict.latest_end_s = verdict.latest_end_s.max(late);
        }
        self.assert_conserved().await;
        verdict
    }

    /// A task as its events tell it.
    pub async fn record(&self, task: B256) -> Option<TaskRecord> {
        self.fold().await.remove(&task).map(|seen| seen.record)
    }

    /// Every task with its events, in the chain's order.
    async fn fold(&self) -> BTreeMap<B256, Seen> {
        let queue = self.deployment.queue;
        let scope = QueueScope { chain_id: self.deployment.chain_id, queue };
        let logs = self.provider.get_logs(&Filter::new().from_block(0).address(queue)).await;
        let mut seen: BTreeMap<B256, Seen> = BTreeMap::new();
        for log in logs.unwrap() {
            let number = log.block_number.unwrap();
            if let Ok(event) = log.log_decode::<SessionQueue::TaskSubmitted>() {
                let record = TaskRecord::submitted(&event.inner.data);
                let task = Seen { record, ends_s: Vec::new(), paid: BTreeMap::new() };
                let before = seen.insert(event.inner.taskId, task);
                assert!(before.is_none(), "a task was submitted twice");
            } else if let Ok(event) = log.log_decode::<SessionQueue::TaskPrecommitted>() {
                let task = seen.get_mut(&event.inner.taskId).unwrap();
                task.record.precommitted(&scope, &event.inner.data).unwrap();
            } else if let Ok(event) = log.log_decode::<SessionQueue::TaskCommitted>() {
                let task = seen.get_mut(&event.inner.taskId).unwrap();
                task.record.committed(&scope, &event.inner.data).unwrap();
            } else if let Ok(event) = log.log_decode::<SessionQueue::TaskMoved>() {
                seen.get_mut(&event.inner.taskId).unwrap().record.moved(&event.inner.data);
            } else if let Ok(event) = log.log_decode::<SessionQueue::TaskSettled>() {
                let time = self.time_of(number).await;
                let task = seen.get_mut(&event.inner.taskId).unwrap();
                task.record.state = TaskState::Settled;
                task.ends_s.push(time);
                *task.paid.entry(event.inner.nodeId).or_default() += 1;
            } else if let Ok(event) = log.log_decode::<SessionQueue::TaskRefunded>() {
                let time = self.time_of(number).await;
                let task = seen.get_mut(&event.inner.taskId).unwrap();
                task.record.state = TaskState::Refunded;
                task.ends_s.push(time);
            }
        }
        seen
    }

    /// Every account that ever had money, from the events, summed up against the token's own balance.
    pub async fn assert_conserved(&self) {
        let at = &self.deployment;
        let payment = SessionPayment::new(at.payment, &self.provider);
        let token = CorToken::new(at.token, &self.provider);
        let balance = token.balanceOf(at.payment).call().await.unwrap();
        assert_eq!(payment.totalAccounts(0).call().await.unwrap(), balance);
        let mut sum = U256::ZERO;
        let sessions = Session::new(at.sessions, &self.provider);
        for session in 1..=sessions.sessionCount().call().await.unwrap() {
            let lanes = sessions.laneCount(session).call().await.unwrap().to::<u32>();
            for lane in 0..lanes {
                let funds = payment.fundsOf(session, lane).call().await.unwrap();
                sum += U256::from(funds.free) + U256::from(funds.held);
            }
        }
        let nodes = NodePool::new(at.nodes, &self.provider).nodeCount().call().await.unwrap();
        for node in 1..=nodes {
            sum += payment.stakeOf(node).call().await.unwrap();
        }
        for account in self.accounts().await {
            sum += payment.balanceOf(account, 0).call().await.unwrap();
        }
        assert_eq!(sum, balance, "the accounts do not add up to the token balance");
    }

    /// Everybody whose balance was ever written.
    async fn accounts(&self) -> BTreeSet<Address> {
        let payment = self.deployment.payment;
        let mut accounts = BTreeSet::new();
        for (event, _) in self.events::<SessionPayment::Credited>(payment).await {
            accounts.insert(event.account);
        }
        for (event, _) in self.events::<SessionPayment::TipPaid>(payment).await {
            accounts.insert(event.keeper);
        }
        for (event, _) in self.events::<SessionPayment::SessionReturned>(payment).await {
            accounts.insert(event.owner);
        }
        for (event, _) in self.events::<SessionPayment::StakeReleased>(payment).await {
            accounts.insert(event.owner);
        }
        accounts
    }
}

/// When the task ended; it ended once, and each answer was paid once.
fn end_of(id: B256, task: &Seen) -> u64 {
    match task.record.state {
        TaskState::Settled => {
            let committed = PartState::Committed as u8;
            let answered: BTreeMap<u32, u32> = (task.record.task.parts.iter())
                .filter(|part| part.state == committed)
                .map(|part| (part.nodeId, 1))
                .collect();
            assert_eq!(task.paid, answered, "task {id}: who was paid, and who answered");
        }
        TaskState::Refunded => {
            assert!(task.paid.is_empty(), "task {id} was paid and refunded");
            assert_eq!(task.ends_s.len(), 1, "task {id} was refunded more than once");
        }
        other => panic!("task {id} is still {other:?}"),
    }
    *task.ends_s.first().unwrap()
}
