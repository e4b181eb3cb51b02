//! `SessionQueue`: settlement, callbacks, and evidence of lies.

use alloy::primitives::{Address, B256};
use assay_bindings::{
    NodePool::NodePool_WrongState,
    SessionPayment::Slashed,
    SessionQueue::{
        Answer, AnswerDelivered, Part, Precommit, SessionQueue_AlreadyPunished,
        SessionQueue_NoCallback, SessionQueue_NotEquivocal, SessionQueue_NotOnTask,
        SessionQueue_TooMany, SessionQueue_UnknownTask, SessionQueue_WrongOpening,
        SessionQueue_WrongState, Task, TaskSettled,
    },
};

use super::{Run, admission::signer, nodes::KEY_GRACE_S, payment::Credit, phases::MAX_TASKS};
use crate::{
    level::{Outcome, Series},
    money::{Shares, Split, share_down},
    num::{amount, u96, u256},
    refusal::{Failure, require},
    state::{NodeState, known},
    task::{PartState, TaskState},
};

/// Nodes whose work one settlement counts together.
const MAX_TALLIES: usize = 8;
/// `Rule.Equivocation` of the contract: two commitments, where there may be one.
const EQUIVOCATION: u8 = 1;

/// What one answer pays, and to whom.
struct Payout {
    asset: u8,
    shares: Shares,
    miner: Address,
    router: Address,
    publisher: Address,
}

/// Work of nodes that is not counted yet.
type Tallies = Vec<((u32, Series), u32)>;

impl Run<'_> {
    pub(super) fn settle(&mut self, tasks: &[Task]) -> Result<(), Failure> {
        let (number, limit) = (tasks.len() as u64, u256(MAX_TASKS));
        require!(number <= MAX_TASKS, SessionQueue_TooMany { tasks: u256(number), limit });
        let mut payouts = Vec::new();
        let mut tallies = Tallies::new();
        for task in tasks {
            let id = self.state.network.scope().task_id(task).0;
            let due = self.state.tasks.get(&id).is_some_and(|entry| {
                let record = &entry.record;
                record.task == *task
                    && record.state == TaskState::Committed
                    && record.until_s <= self.at.time_s
            });
            if !due {
                continue;
            }
            for part in task.parts.iter().filter(|p| p.state == PartState::Committed as u8) {
                self.tally(&mut tallies, (part.nodeId, Series::of(part.dedicated)))?;
                payouts.push(self.divide(id, task, part)?);
            }
        }
        self.count_all(&mut tallies)?;
        self.pay(&payouts)
    }

    fn tally(&mut self, tallies: &mut Tallies, who: (u32, Series)) -> Result<(), Failure> {
        if let Some(tally) = tallies.iter_mut().find(|tally| tally.0 == who) {
            tally.1 += 1;
            return Ok(());
        }
        if tallies.len() == MAX_TALLIES {
            self.count_all(tallies)?;
        }
        tallies.push((who, 1));
        Ok(())
    }

    fn count_all(&mut self, tallies: &mut Tallies) -> Result<(), Failure> {
        for (who, times) in tallies.drain(..) {
            self.tell_stats(who, Outcome::Settled, times)?;
        }
        Ok(())
    }

    fn divide(&mut self, id: B256, task: &Task, part: &Part) -> Result<Payout, Failure> {
        let session = self.state.session(task.sessionId)?;
        let terms = self.state.tunables.session_terms(session.terms_version)?;
        let model = known(self.state.models.get(&session.model), "model", session.model)?;
        let split = Split {
            miner_bps: terms.minerBps,
            router_bps: terms.routerBps,
            royalty_bps: model.royalty_bps,
            max_tip: self.state.tunables.tip(session.terms_version, session.asset)?,
            direct: task.lane == 0,
        };
        let shares = split.shares_down(amount(part.fee));
        let payout = Payout {
            asset: session.asset,
            shares,
            miner: self.state.node(part.nodeId)?.payout,
            router: known(session.lane(task.lane), "lane", task.lane)?.holder,
            publisher: model.publisher,
        };
        self.emit(TaskSettled {
            taskId: id,
            sessionId: task.sessionId,
            nodeId: part.nodeId,
            fee: part.fee,
            minerShare: u96(shares.miner),
            routerShare: u96(shares.router),
            royalty: u96(shares.royalty),
            tip: u96(shares.tip),
            burnt: u96(shares.burnt),
        })?;
        Ok(payout)
    }

    /// One event for neighbours that pay the same account.
    fn pay(&mut self, payouts: &[Payout]) -> Result<(), Failure> {
        let keeper = self.at.caller;
        let mut credits: [Credit; 4] = Default::default();
        let mut burnt = (0, 0);
        for Payout { asset, shares, miner, router, publisher } in payouts {
            let rows = [
                (miner, shares.miner),
                (router, shares.router),
                (publisher, shares.royalty),
                (&keeper, shares.tip),
            ];
            for (credit, (account, sum)) in credits.iter_mut().zip(rows) {
                self.gather(credit, (*account, *asset), sum)?;
            }
            if burnt.0 != *asset {
                self.burn(burnt.0, burnt.1)?;
                burnt = (*asset, 0);
            }
            burnt.1 += shares.burnt;
        }
        for credit in &credits {
            self.tell(credit)?;
        }
        self.burn(burnt.0, burnt.1)
    }

    pub(super) fn deliver(&mut self, task: &Task, answer: &Answer) -> Result<(), Failure> {
        let id = self.brought(task)?;
        let entry = self.state.task(id)?;
        let (state, delivered) = (entry.record.state, entry.delivered);
        require!(
            matches!(state, TaskState::Settled | TaskState::Refunded),
            SessionQueue_WrongState { taskId: id, state: state as u8 }
        );
        let gas = task.callbackGas;
        require!(gas != 0 && !delivered, SessionQueue_NoCallback { taskId: id });
        if state == TaskState::Settled {
            self.check_of_record(id, task, answer)?;
        }
        let session = self.state.session(task.sessionId)?;
        let (asset, consumer) = (session.asset, session.owner);
        let tip = self.state.callback_tip(task)?;
        self.credit(self.at.caller, asset, tip)?;
        let success = self.at.outside.takes_answer(consumer, gas);
        self.emit(AnswerDelivered { taskId: id, consumer, success })
    }

    /// The answer of record is that of the lowest part that was answered.
    fn check_of_record(&self, id: B256, task: &Task, answer: &Answer) -> Result<(), Failure> {
        let part = task.parts.iter().find(|part| part.state == PartState::Committed as u8);
        let part = known(part, "the answer of task", id)?;
        let node = answer.nodeId;
        require!(node == part.nodeId, SessionQueue_NotOnTask { taskId: id, nodeId: node });
        let commitment = self.commitment(id, answer);
        require!(
            commitment == part.commitment,
            SessionQueue_WrongOpening { taskId: id, nodeId: node, commitment }
        );
        Ok(())
    }

    pub(super) fn report_equivocation(
        &mut self,
        id: B256,
        one: &Precommit,
        other: &Precommit,
    ) -> Result<(), Failure> {
        require!(self.state.tasks.contains_key(&id), SessionQueue_UnknownTask { taskId: id });
        let node = one.nodeId;
        let contradict = node == other.nodeId && one.commitment != other.commitment;
        require!(
            contradict && self.stands_by(id, one) && self.stands_by(id, other),
            SessionQueue_NotEquivocal { taskId: id, nodeId: node }
        );
        require!(
            !self.state.accounts.punished.contains(&(id, node)),
            SessionQueue_AlreadyPunished { taskId: id, nodeId: node }
        );
        let found = self.state.node(node)?;
        let (state, version) = (found.state, found.terms_version);
        require!(
            state != NodeState::Exited,
            NodePool_WrongState { nodeId: node, state: state as u8 }
        );
        if state != NodeState::Jailed {
            self.set_state(node, NodeState::Jailed)?;
        }
        let terms = self.state.tunables.node_terms(version)?;
        let (slash_bps, reporter_bps) = (terms.slashBps, terms.reporterBps);
        let slash = share_down(self.state.accounts.stake(node), slash_bps);
        let (reward, reporter) = (share_down(slash, reporter_bps), self.at.caller);
        self.emit(Slashed {
            nodeId: node,
            taskId: id,
            rule: EQUIVOCATION,
            measured: u256(2_u8),
            bound: u256(1_u8),
            amount: u256(slash),
            reporter,
            reward: u256(reward),
        })?;
        self.credit(reporter, 0, reward)?;
        self.burn(0, slash - reward)
    }

    /// Whether a node's key signed a commitment: its operator's, or lately that of the one before.
    fn stands_by(&self, id: B256, given: &Precommit) -> bool {
        let hash = self.precommit_hash(id, given.nodeId, given.commitment);
        let Some(node) = self.state.nodes.get(&given.nodeId) else { return false };
        let lately = self.at.time_s < node.operator_since_s + KEY_GRACE_S;
        signer(hash, &given.signature)
            .is_some_and(|key| key == node.operator || (lately && key == node.previous_operator))
    }
}
