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
    rule::Rule,
    state::{NodeState, known},
    task::{PartState, TaskState},
};

/// Nodes whose work one settlement counts together.
const MAX_TALLIES: usize = 8;

/// What one answer pays, and to whom.
struct Payout {
    asset: u8,
    shares: Shares,
    /// For audits, out of the miner's share; `None` if the answer is not proven.
    levy: Option<u128>,
    miner: Address,
    router: Address,
    publisher: Address,
}

/// Work of nodes that is not counted yet.
type Tallies = Vec<((u32, Series), u32)>;

/// What one settlement pays so far.
#[derive(Default)]
struct Books {
    payouts: Vec<Payout>,
    tallies: Tallies,
    /// The lane of the last task that was due, and the model and the asset of its session.
    lane: Option<(u64, u32)>,
    model: u32,
    asset: u8,
    /// What the lane's tasks gave for audits.
    booked: u128,
}

impl Run<'_> {
    pub(super) fn settle(&mut self, tasks: &[Task]) -> Result<(), Failure> {
        let (number, limit) = (tasks.len() as u64, u256(MAX_TASKS));
        require!(number <= MAX_TASKS, SessionQueue_TooMany { tasks: u256(number), limit });
        let mut books = Books::default();
        for task in tasks {
            let id = self.state.network.scope().task_id(task).0;
            if self.is_due(id, task) {
                self.end_task(&mut books, id, task)?;
            }
        }
        self.count_all(&mut books.tallies)?;
        self.put_aside(&mut books)?;
        self.pay(&books.payouts)
    }

    fn is_due(&self, id: B256, task: &Task) -> bool {
        self.state.tasks.get(&id).is_some_and(|entry| {
            let record = &entry.record;
            record.task == *task
                && record.state == TaskState::Committed
                && record.until_s <= self.at.time_s
        })
    }

    /// Pays the answers of a task, unless their proofs are not through.
    fn end_task(&mut self, books: &mut Books, id: B256, task: &Task) -> Result<(), Failure> {
        self.turn(books, task)?;
        let Some(levies) = self.prove(id)? else { return Ok(()) };
        let paid: Vec<Part> = self.record_of(id)?.task.parts.clone();
        let paid: Vec<Part> =
            paid.into_iter().filter(|part| part.state == PartState::Committed as u8).collect();
        if paid.is_empty() {
            return self.give_back(id);
        }
        for (place, part) in paid.iter().enumerate() {
            self.tally(&mut books.tallies, (part.nodeId, Series::of(part.dedicated)))?;
            let levy_bps = levies.get(place).copied();
            let payout = self.divide(id, part, levy_bps)?;
            books.booked += payout.levy.unwrap_or(0);
            books.payouts.push(payout);
        }
        Ok(())
    }

    /// Begins the tasks of another lane.
    fn turn(&mut self, books: &mut Books, task: &Task) -> Result<(), Failure> {
        let lane = Some((task.sessionId, task.lane));
        if books.lane == lane {
            return Ok(());
        }
        self.put_aside(books)?;
        let session = self.state.session(task.sessionId)?;
        (books.lane, books.model, books.asset) = (lane, session.model, session.asset);
        Ok(())
    }

    /// Tells what a lane's tasks gave for audits of their model.
    fn put_aside(&mut self, books: &mut Books) -> Result<(), Failure> {
        let booked = std::mem::take(&mut books.booked);
        if booked == 0 {
            return Ok(());
        }
        self.book(books.model, books.asset, |before| before + booked)
    }

    /// Ends a task none of whose answers is paid.
    fn give_back(&mut self, id: B256) -> Result<(), Failure> {
        let task = &self.record_of(id)?.task;
        let session = self.state.session(task.sessionId)?;
        let tip = self.state.tunables.tip(session.terms_version, session.asset)?;
        let back = amount(task.held).saturating_sub(self.state.callback_tip(task)?);
        self.tell_refund(id, back, tip.min(back))
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

    fn divide(&mut self, id: B256, part: &Part, levy_bps: Option<u16>) -> Result<Payout, Failure> {
        let task = &self.record_of(id)?.task;
        let (session_id, lane) = (task.sessionId, task.lane);
        let session = self.state.session(task.sessionId)?;
        let terms = self.state.tunables.session_terms(session.terms_version)?;
        let model = known(self.state.models.get(&session.model), "model", session.model)?;
        let split = Split {
            miner_bps: terms.minerBps,
            router_bps: terms.routerBps,
            royalty_bps: model.royalty_bps,
            max_tip: self.state.tunables.tip(session.terms_version, session.asset)?,
            direct: lane == 0,
        };
        let fee = amount(part.fee);
        let mut shares = split.shares_down(fee);
        let levy = levy_bps.map(|bps| share_down(fee, bps).min(shares.miner));
        shares.miner -= levy.unwrap_or(0);
        let payout = Payout {
            asset: session.asset,
            shares,
            levy,
            miner: self.state.node(part.nodeId)?.payout,
            router: known(session.lane(lane), "lane", lane)?.holder,
            publisher: model.publisher,
        };
        self.emit(TaskSettled {
            taskId: id,
            sessionId: session_id,
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
        let (mut burnt, mut audits) = ((0, 0), Credit::default());
        let proof = self.state.network.deployment.proof;
        for Payout { asset, shares, levy, miner, router, publisher } in payouts {
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
            if let Some(levy) = levy {
                self.gather(&mut audits, (proof, *asset), *levy)?;
            }
        }
        for credit in &credits {
            self.tell(credit)?;
        }
        self.burn(burnt.0, burnt.1)?;
        self.tell(&audits)
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
            // Two commitments, where there may be one.
            rule: Rule::Equivocation as u8,
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
