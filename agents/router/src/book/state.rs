//! Sessions in which the router holds a lane, what their tasks cost, and the nonces that are free.
//! No IO, no clock.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use assay_protocol::money::fee_up;
use assay_types::{Address, B256, Lane, ModelId, ModelIndex, Nonce, SessionId, TaskId};

pub use super::{
    facts::{Fact, Observed, PartFailure, Submitted},
    purse::Charge,
    session::{Reservation, SessionState, SessionView},
};
use super::{
    lanes::{Charged, Charges},
    payers::Payer,
    purse::Purse,
};
use crate::{config::UNPAID_PAUSE, treasury::state::Own};

/// Why no session can take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unready {
    /// The router holds no lane for this model.
    NoSession,
    /// There is one, but it still waits for its nodes or its seed.
    NotActive,
    /// There is one, but it has fewer nodes than answers are asked for: this many.
    TooFewNodes(usize),
    /// There is one, but what its lane may spend is spent or held.
    Spent,
}

/// What a request needs of a session.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// The model.
    pub model: ModelId,
    /// Largest counts of prompt and answer.
    pub tokens: (u32, u32),
    /// Answers wanted.
    pub redundancy: u8,
    /// Unix seconds.
    pub deadline: u64,
}

/// The book.
#[derive(Debug)]
pub struct Book {
    me: Address,
    /// Shared with the requests that they serve.
    sessions: BTreeMap<SessionId, Arc<SessionView>>,
    purses: HashMap<SessionId, Purse>,
    owners: HashMap<TaskId, SessionId>,
    /// What API keys spend, whatever the session.
    accounts: HashMap<Payer, Purse>,
    payers: HashMap<TaskId, Payer>,
    /// Models by their number, as the chain has them.
    models: BTreeMap<ModelIndex, ModelId>,
    /// Sessions in which the router holds no lane: it may be given one at any time.
    others: BTreeMap<SessionId, SessionView>,
    /// Fees of the tasks that settle in the block that is taken in, one for each answer.
    settling: BTreeMap<TaskId, u128>,
    last_timestamp: u64,
}

/// Reservations of a session that are remembered: the contract serves the current one and the one before, and a
/// reverted block may bring back one more.
const KEPT_RESERVATIONS: usize = 3;
/// Sessions of others that are remembered, each some hundred bytes; of more the oldest are forgotten.
const MAX_OTHERS: usize = 16_384;

impl Book {
    /// The book of the router whose key is `me`, with what an earlier life stored.
    pub fn new(
        me: Address,
        models: Vec<(ModelIndex, ModelId)>,
        sessions: Vec<SessionView>,
    ) -> Self {
        let (mine, others): (Vec<_>, Vec<_>) = sessions.into_iter().partition(SessionView::is_mine);
        Self {
            me,
            models: models.into_iter().collect(),
            sessions: mine.into_iter().map(|s| (s.id, Arc::new(s))).collect(),
            others: others.into_iter().map(|s| (s.id, s)).collect(),
            purses: HashMap::new(),
            owners: HashMap::new(),
            accounts: HashMap::new(),
            payers: HashMap::new(),
            settling: BTreeMap::new(),
            last_timestamp: 0,
        }
    }

    /// The time that deadlines are made from, unix seconds: a development chain's clock may be ahead of ours.
    pub fn now_s(&self, wall_s: u64) -> u64 {
        self.last_timestamp.max(wall_s)
    }

    /// All sessions in which the router holds a lane.
    pub fn sessions(&self) -> impl Iterator<Item = &SessionView> {
        self.sessions.values().map(AsRef::as_ref)
    }

    /// Replaces what is charged by what the database has; what was charged a moment ago and is still to be written
    /// stays.
    pub fn set_charges(&mut self, charges: Charges) {
        let unseen = self.unseen();
        self.owners.clear();
        for purse in self.purses.values_mut() {
            purse.clear();
        }
        for (session, spent) in charges.spent {
            self.purses.entry(session).or_default().spent = spent;
        }
        self.payers.clear();
        self.accounts.clear();
        for (payer, spent) in charges.spent_by_keys {
            self.accounts.entry(payer).or_default().spent = spent;
        }
        let mut written = HashSet::new();
        for Charged { session, task, charge, is_final, payer } in charges.tasks {
            self.purses.entry(session).or_default().take_in(task, charge, is_final);
            if let Some(payer) = payer {
                self.accounts.entry(payer.clone()).or_default().take_in(task, charge, is_final);
                if !is_final {
                    self.payers.insert(task, payer);
                }
            }
            if !is_final {
                self.owners.insert(task, session);
            }
            written.insert(task);
        }
        for (session, task, charge, payer) in unseen {
            if !written.contains(&task) {
                self.charge(session, task, (charge.amount, charge.deadline), payer);
            }
        }
    }

    /// Tasks that the chain has not shown yet, with the keys that pay.
    fn unseen(&self) -> Vec<(SessionId, TaskId, Charge, Option<Payer>)> {
        let of_session = |(session, purse): (&SessionId, &Purse)| {
            let session = *session;
            let unseen: Vec<(TaskId, Charge)> = purse.unseen().collect();
            unseen.into_iter().map(move |(task, charge)| (session, task, charge))
        };
        let all = self.purses.iter().flat_map(of_session);
        all.map(|(session, task, charge)| (session, task, charge, self.payers.get(&task).cloned()))
            .collect()
    }

    /// Takes in a canonical block; returns the sessions that changed, and those that need not be known any more.
    pub fn on_committed(&mut self, block: &Observed) -> (Vec<SessionView>, Vec<SessionId>) {
        self.last_timestamp = self.last_timestamp.max(block.timestamp);
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        for (_, fact) in &block.facts {
            if let Some(id) = self.learn(fact, &mut changed)
                && let Some(view) = self.view(id)
            {
                changed.push(view.clone());
            }
            if let Fact::SessionClosed { session } = fact
                && self.others.remove(session).is_some()
            {
                gone.push(*session);
            }
        }
        while self.others.len() > MAX_OTHERS
            && let Some((oldest, _)) = self.others.pop_first()
        {
            gone.push(oldest);
        }
        for (task, fees) in std::mem::take(&mut self.settling) {
            self.finish(&task, fees);
        }
        (changed, gone)
    }

    /// Takes in a fact; the session that changed, and those that changed besides.
    fn learn(&mut self, fact: &Fact, changed: &mut Vec<SessionView>) -> Option<SessionId> {
        match fact {
            Fact::ModelRegistered { index, model } => {
                self.models.insert(*index, *model);
                None
            }
            Fact::SessionOpened { session, model, price_in, price_out } => {
                let model = *self.models.get(model)?;
                let view = SessionView::opened(*session, model, (*price_in, *price_out));
                self.others.insert(*session, view);
                Some(*session)
            }
            Fact::SessionOwned { session, owner } => {
                let is_own = *owner == self.me;
                self.session_mut(*session).filter(|_| is_own)?.is_own = true;
                Some(*session)
            }
            Fact::LaneAdded { session, lane, holder, allotment } => {
                self.add_lane(*session, *lane, *holder, *allotment)
            }
            Fact::SessionActivated { session, seed_round, nodes, previous_until } => {
                let view = self.session_mut(*session)?;
                if view.state == SessionState::Open {
                    view.state = SessionState::Active;
                }
                if let Some(last) = view.reservations.first_mut() {
                    last.until = *previous_until;
                }
                let nodes = nodes.clone();
                let new = Reservation { seed_round: *seed_round, seed: None, nodes, until: 0 };
                view.reservations.insert(0, new);
                view.reservations.truncate(KEPT_RESERVATIONS);
                Some(*session)
            }
            Fact::RoundRevealed { round, value } => {
                self.set_seed(*round, Some(*value), changed);
                None
            }
            Fact::LaneReclaimed { session, lane, reclaim_at } => {
                let view = self.session_mut(*session).filter(|s| s.is_my_lane(*lane))?;
                view.reclaim_at = *reclaim_at;
                Some(*session)
            }
            Fact::SessionDraining { session, ends_at } => {
                let view = self.session_mut(*session)?;
                view.state = SessionState::Draining;
                view.ends_at = *ends_at;
                Some(*session)
            }
            Fact::SessionClosed { session } => {
                self.session_mut(*session)?.state = SessionState::Closed;
                Some(*session)
            }
            Fact::SessionToppedUp { session, lane, amount } => {
                let view = self.session_mut(*session).filter(|s| s.is_my_lane(*lane))?;
                view.allotment = view.allotment.saturating_add(*amount);
                self.purses.entry(*session).or_default().unpaid_until_s = 0;
                Some(*session)
            }
            _ => {
                self.learn_task(fact);
                None
            }
        }
    }

    fn view(&self, id: SessionId) -> Option<&SessionView> {
        self.sessions.get(&id).map(AsRef::as_ref).or_else(|| self.others.get(&id))
    }

    fn session_mut(&mut self, id: SessionId) -> Option<&mut SessionView> {
        let mine = self.sessions.get_mut(&id).map(Arc::make_mut);
        mine.or_else(|| self.others.get_mut(&id))
    }

    fn add_lane(
        &mut self,
        session: SessionId,
        lane: Lane,
        holder: Address,
        allotment: u128,
    ) -> Option<SessionId> {
        // Lane 0 is for direct submission by the session's owner.
        if holder != self.me || lane.0 == 0 || self.sessions.contains_key(&session) {
            return None;
        }
        let view = SessionView { lane, allotment, ..self.others.remove(&session)? };
        self.sessions.insert(session, Arc::new(view));
        Some(session)
    }

    fn set_seed(&mut self, round: u64, seed: Option<B256>, changed: &mut Vec<SessionView>) {
        let mine = self.sessions.values_mut().map(Arc::make_mut);
        for view in mine.chain(self.others.values_mut()) {
            let waits = |r: &&mut Reservation| r.seed_round == round && r.seed != seed;
            if let Some(reservation) = view.reservations.iter_mut().find(waits) {
                reservation.seed = seed;
                changed.push(view.clone());
            }
        }
    }

    fn learn_task(&mut self, fact: &Fact) {
        match fact {
            Fact::TaskSubmitted(task) if self.is_mine(task) => {
                let amount = task.held;
                let charge = Charge { amount, deadline: task.deadline, on_chain: true };
                let purse = self.purses.entry(task.session).or_default();
                purse.insert(task.task, charge);
                if let Some(payer) = self.payers.get(&task.task)
                    && let Some(account) = self.accounts.get_mut(payer)
                {
                    account.insert(task.task, charge);
                }
                let next = task.nonce.0.saturating_add(1);
                purse.skip_to(next);
                purse.next_on_chain = purse.next_on_chain.max(next);
                self.owners.insert(task.task, task.session);
            }
            // What a task holds beyond its fee comes back when it settles.
            Fact::TaskSettled { task, fee, .. } => {
                let fees = self.settling.entry(*task).or_default();
                *fees = fees.saturating_add(*fee);
            }
            Fact::TaskRefunded { task, tip, .. } => self.finish(task, *tip),
            _ => {}
        }
    }

    /// Whether a task was submitted in the router's own lane.
    pub fn is_mine(&self, task: &Submitted) -> bool {
        self.sessions.get(&task.session).is_some_and(|s| s.lane == task.lane)
    }

    fn charge_of(&self, task: &TaskId) -> Option<&Charge> {
        let session = self.owners.get(task)?;
        self.purses.get(session)?.charge(task)
    }

    fn finish(&mut self, task: &TaskId, cost: u128) {
        if let Some(session) = self.owners.remove(task)
            && let Some(purse) = self.purses.get_mut(&session)
            && purse.remove(task)
        {
            purse.spent = purse.spent.saturating_add(cost);
        }
        if let Some(payer) = self.payers.remove(task)
            && let Some(account) = self.accounts.get_mut(&payer)
            && account.remove(task)
        {
            account.spent = account.spent.saturating_add(cost);
        }
    }

    /// Undoes a block that is no longer canonical: sessions that changed, and sessions that are gone. What
    /// its tasks cost is read again from the database ([`Self::set_charges`]).
    pub fn on_reverted(&mut self, block: &Observed) -> (Vec<SessionView>, Vec<SessionId>) {
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        for (_, fact) in block.facts.iter().rev() {
            match fact {
                Fact::ModelRegistered { index, .. } => {
                    self.models.remove(index);
                }
                Fact::SessionOpened { session, .. } => {
                    self.sessions.remove(session);
                    self.others.remove(session);
                    gone.push(*session);
                }
                Fact::LaneAdded { session, lane, .. } => {
                    changed.extend(self.drop_lane(*session, *lane));
                }
                Fact::RoundRevealed { round, .. } => self.set_seed(*round, None, &mut changed),
                Fact::SessionActivated { session, .. } => {
                    self.undo(*session, &mut changed, |view| {
                        if !view.reservations.is_empty() {
                            view.reservations.remove(0);
                        }
                        match view.reservations.first_mut() {
                            Some(last) => last.until = 0,
                            None => view.state = SessionState::Open,
                        }
                    });
                }
                Fact::LaneReclaimed { session, .. } => {
                    self.undo(*session, &mut changed, |view| view.reclaim_at = 0);
                }
                Fact::SessionToppedUp { session, lane, amount } => {
                    self.undo(*session, &mut changed, |view| {
                        if view.is_my_lane(*lane) {
                            view.allotment = view.allotment.saturating_sub(*amount);
                        }
                    });
                }
                Fact::SessionDraining { session, .. } => {
                    self.undo(*session, &mut changed, |view| {
                        view.state = SessionState::Active;
                        view.ends_at = 0;
                    });
                }
                Fact::SessionClosed { session } => {
                    self.undo(*session, &mut changed, |view| {
                        let idle = view.reservations.is_empty();
                        view.state = if idle { SessionState::Open } else { SessionState::Draining };
                    });
                }
                _ => {}
            }
        }
        changed.retain(|view| self.view(view.id).is_some());
        (changed, gone)
    }

    /// The router was given this lane in a block that is no longer canonical.
    fn drop_lane(&mut self, session: SessionId, lane: Lane) -> Option<SessionView> {
        let view = self.sessions.get(&session).filter(|view| view.is_my_lane(lane))?;
        let view = SessionView { lane: Lane(0), allotment: 0, ..SessionView::clone(view) };
        self.sessions.remove(&session);
        self.others.insert(session, view.clone());
        Some(view)
    }

    fn undo(
        &mut self,
        session: SessionId,
        changed: &mut Vec<SessionView>,
        change: impl FnOnce(&mut SessionView),
    ) {
        if let Some(view) = self.session_mut(session) {
            change(view);
            changed.push(view.clone());
        }
    }

    /// Sessions that can take such a task now, the fullest purse first.
    ///
    /// # Errors
    /// Why there is none.
    pub fn candidates(
        &mut self,
        need: &Need,
        now_s: u64,
    ) -> Result<Vec<Arc<SessionView>>, Unready> {
        let live: Vec<Arc<SessionView>> = self
            .sessions
            .values()
            .filter(|s| s.model == need.model && s.state != SessionState::Closed)
            .cloned()
            .collect();
        if live.is_empty() {
            return Err(Unready::NoSession);
        }
        let nodes = |s: &SessionView| s.serving(need.deadline).map_or(0, |r| r.nodes.len());
        let most = live.iter().map(|s| nodes(s)).max().unwrap_or_default();
        if most == 0 {
            return Err(Unready::NotActive);
        }
        let wanted = usize::from(need.redundancy);
        if most < wanted {
            return Err(Unready::TooFewNodes(most));
        }
        let mut paid: Vec<(u128, Arc<SessionView>)> = live
            .into_iter()
            .filter(|s| nodes(s) >= wanted)
            .filter_map(|s| {
                let left = self.left(&s, now_s);
                (left >= hold(&s, need.tokens, need.redundancy)).then_some((left, s))
            })
            .collect();
        if paid.is_empty() {
            return Err(Unready::Spent);
        }
        paid.sort_by_key(|(left, _)| Reverse(*left));
        Ok(paid.into_iter().map(|(_, s)| s).collect())
    }

    /// The reservation of any session that this round names, and the session's model; `None` until its seed is known.
    pub fn reservation(&self, session: SessionId, round: u64) -> Option<(ModelId, Reservation)> {
        let view = self.view(session)?;
        Some((view.model, view.named(round)?.clone()))
    }

    /// Time of the last block, unix seconds; 0 before the first.
    pub fn last_block_s(&self) -> u64 {
        self.last_timestamp
    }

    /// Sessions that the router opened itself, and what is left in each lane.
    pub fn own_sessions(&mut self, wall_s: u64) -> Vec<Own> {
        let now_s = self.now_s(wall_s);
        let own = self.sessions.values().filter(|view| view.is_own).cloned();
        let own: Vec<Arc<SessionView>> = own.collect();
        let with_left = |view: Arc<SessionView>| {
            let left = self.left(&view, now_s);
            Own { view: SessionView::clone(&view), left }
        };
        own.into_iter().map(with_left).collect()
    }

    /// What is left of a session's allotment.
    fn left(&mut self, view: &SessionView, now_s: u64) -> u128 {
        let mut gone = Vec::new();
        let purse = self.purses.entry(view.id).or_default();
        let left = purse.left(view.allotment, now_s, &mut gone);
        for task in gone {
            self.owners.remove(&task);
        }
        left
    }

    /// What is left of a key's budget.
    pub fn left_of(&mut self, payer: &Payer, budget: u128, now_s: u64) -> u128 {
        let mut gone = Vec::new();
        let Some(account) = self.accounts.get_mut(payer) else { return budget };
        let left = account.left(budget, now_s, &mut gone);
        for task in gone {
            self.payers.remove(&task);
        }
        left
    }

    /// Counts a task that the chain does not have yet: what it holds until its deadline, and the key that pays.
    pub fn charge(
        &mut self,
        session: SessionId,
        task: TaskId,
        (amount, deadline): (u128, u64),
        payer: Option<Payer>,
    ) {
        let charge = Charge { amount, deadline, on_chain: false };
        self.purses.entry(session).or_default().insert(task, charge);
        self.owners.insert(task, session);
        let Some(payer) = payer else { return };
        if !self.accounts.contains_key(&payer) {
            // A new period: the ones before count no more once nothing of them is open.
            self.accounts.retain(|other, account| other.key != payer.key || !account.is_idle());
        }
        self.accounts.entry(payer.clone()).or_default().insert(task, charge);
        self.payers.insert(task, payer);
    }

    /// The task was never and will never be submitted.
    pub fn release(&mut self, task: &TaskId) {
        if self.charge_of(task).is_some_and(|charge| !charge.on_chain)
            && let Some(session) = self.owners.remove(task)
            && let Some(purse) = self.purses.get_mut(&session)
        {
            purse.remove(task);
            if let Some(payer) = self.payers.remove(task)
                && let Some(account) = self.accounts.get_mut(&payer)
            {
                account.remove(task);
            }
        }
    }

    /// How far a nonce is ahead of those that the chain has.
    pub fn nonce_lead(&self, session: SessionId, nonce: Nonce) -> u64 {
        let next = self.purses.get(&session).map_or(0, |purse| purse.next_on_chain);
        nonce.0.saturating_sub(next)
    }

    /// One more than the largest nonce that the chain has, of each session that has any.
    pub fn set_next_on_chain(&mut self, next: Vec<(SessionId, u64)>) {
        for purse in self.purses.values_mut() {
            purse.next_on_chain = 0;
        }
        for (session, next) in next {
            self.purses.entry(session).or_default().next_on_chain = next;
        }
    }

    /// One more than the largest nonce of a session that the chain has.
    pub fn next_on_chain(&self, session: SessionId) -> u64 {
        self.purses.get(&session).map_or(0, |purse| purse.next_on_chain)
    }

    /// A submission was refused for lack of money: no tasks of this session for a while.
    pub fn unpaid(&mut self, session: SessionId, wall_s: u64) {
        let now_s = self.now_s(wall_s);
        let purse = self.purses.entry(session).or_default();
        purse.unpaid_until_s = now_s.saturating_add(UNPAID_PAUSE.as_secs());
    }

    /// The next nonce, and how many are left after it.
    pub fn take_nonce(&mut self, session: SessionId) -> Option<(Nonce, u64)> {
        self.purses.entry(session).or_default().take_nonce()
    }

    /// Nonces from `start` up to before `end` are this process's own.
    pub fn give_nonces(&mut self, session: SessionId, start: u64, end: u64) {
        self.purses.entry(session).or_default().give_nonces(start, end);
    }

    /// Nonces that were taken from the database and never used: the first, and the end, of a last range.
    pub fn unused_nonces(&mut self) -> Vec<(SessionId, u64, u64)> {
        let last = |(id, purse): (&SessionId, &mut Purse)| {
            purse.unused_nonces().map(|(next, end)| (*id, next, end))
        };
        self.purses.iter_mut().filter_map(last).collect()
    }
}

/// What a task holds: the largest fee of each of its answers, minor units.
pub fn hold(session: &SessionView, tokens: (u32, u32), redundancy: u8) -> u128 {
    fee(session, tokens).saturating_mul(redundancy.into())
}

/// The largest fee of an answer, minor units.
pub fn fee(session: &SessionView, tokens: (u32, u32)) -> u128 {
    fee_up(tokens.0, tokens.1, session.price_in, session.price_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_charged_and_not_written_yet_survives_a_reverted_block() {
        let mut book = Book::new(Address::repeat_byte(1), Vec::new(), Vec::new());
        let payer = Payer { key: "key_a".into(), period: 3 };
        let task = TaskId(B256::repeat_byte(2));
        book.charge(SessionId(1), task, (40, 100), Some(payer.clone()));
        book.set_charges(Charges::default());
        assert_eq!(book.left_of(&payer, 100, 50), 60);
        // The chain shows it, and it is paid.
        book.finish(&task, 30);
        assert_eq!(book.left_of(&payer, 100, 50), 70);
        assert_eq!(book.left_of(&Payer { period: 4, ..payer }, 100, 50), 100);
    }
}
