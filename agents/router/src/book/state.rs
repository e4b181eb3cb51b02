//! Sessions in which the router holds a lane, what their tasks cost, and the nonces that are free.
//! No IO, no clock.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, VecDeque},
};

use assay_protocol::money::fee_up;
use assay_types::{Address, B256, Lane, ModelId, ModelIndex, NodeId, Nonce, SessionId, TaskId};
use serde::{Deserialize, Serialize};

use crate::config::UNPAID_PAUSE;

/// One event of the protocol, as far as a router needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are those of the contracts' events")]
pub enum Fact {
    ModelRegistered {
        index: ModelIndex,
        model: ModelId,
    },
    SessionOpened {
        session: SessionId,
        model: ModelIndex,
        price_in: u128,
        price_out: u128,
    },
    LaneAdded {
        session: SessionId,
        lane: Lane,
        holder: Address,
        allotment: u128,
    },
    SessionActivated {
        session: SessionId,
        seed_round: u64,
        nodes: Vec<NodeId>,
        previous_until: u64,
    },
    RoundRevealed {
        round: u64,
    },
    LaneReclaimed {
        session: SessionId,
        lane: Lane,
        reclaim_at: u64,
    },
    SessionDraining {
        session: SessionId,
        ends_at: u64,
    },
    SessionClosed {
        session: SessionId,
    },
    SessionToppedUp {
        session: SessionId,
        lane: Lane,
        amount: u128,
    },
    TaskSubmitted(Submitted),
    TaskCommitted {
        task: TaskId,
        output_digest: B256,
        prompt_tokens: u32,
        output_tokens: u32,
        fee: u128,
    },
    TaskSettled {
        task: TaskId,
        fee: u128,
    },
    TaskRefunded {
        task: TaskId,
        refund: u128,
        tip: u128,
    },
}

/// A task that the chain has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are those of the contract's event")]
pub struct Submitted {
    pub task: TaskId,
    pub session: SessionId,
    pub lane: Lane,
    pub node: NodeId,
    pub nonce: Nonce,
    pub request_digest: B256,
    pub max_prompt: u32,
    pub max_output: u32,
    pub held: u128,
    pub deadline: u64,
}

/// A canonical block and its facts, each with the hash of its transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// Unix seconds.
    pub timestamp: u64,
    /// In order.
    pub facts: Vec<(B256, Fact)>,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Waits for its nodes.
    Open,
    /// Has its nodes.
    Active,
    /// Ends soon.
    Draining,
    /// Ended.
    Closed,
}

/// Nodes that serve a session for a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Round that seeds its tasks; it names the reservation in requests.
    pub seed_round: u64,
    /// Whether that round's value is known.
    pub seeded: bool,
    /// Its nodes.
    pub nodes: Vec<NodeId>,
    /// Unix seconds; requests are taken until then. 0: until the session ends.
    pub until: u64,
}

/// A session in which the router holds a lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// The session.
    pub id: SessionId,
    /// Its model.
    pub model: ModelId,
    /// Where it stands.
    pub state: SessionState,
    /// Minor units for a million prompt tokens.
    pub price_in: u128,
    /// Minor units for a million generated tokens.
    pub price_out: u128,
    /// Its reservations, newest first: the current one, and the one before it while that still serves.
    pub reservations: Vec<Reservation>,
    /// Unix seconds; 0 unless draining.
    pub ends_at: u64,
    /// The router's lane.
    pub lane: Lane,
    /// Money that was reserved for the lane, minor units.
    pub allotment: u128,
    /// Unix seconds; the owner takes the lane back then. 0: not.
    pub reclaim_at: u64,
}

impl SessionView {
    /// Whether it can take tasks: it has its nodes and their seed.
    pub fn is_ready(&self) -> bool {
        let serves = matches!(self.state, SessionState::Active | SessionState::Draining);
        serves && self.reservations.iter().any(|reservation| reservation.seeded)
    }

    /// The newest reservation that can serve a task until `deadline`: while the seed of a new one is not known yet,
    /// the one before.
    pub fn serving(&self, deadline: u64) -> Option<&Reservation> {
        let ends = |at: u64| at != 0 && at <= deadline;
        if ends(self.reclaim_at) || (self.state == SessionState::Draining && ends(self.ends_at)) {
            return None;
        }
        let serves = matches!(self.state, SessionState::Active | SessionState::Draining);
        let fits = |r: &&Reservation| r.seeded && !ends(r.until);
        self.reservations.iter().find(fits).filter(|_| serves)
    }
}

/// What one task takes of its lane's allotment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Held, or the fee once committed.
    pub amount: u128,
    /// Unix seconds.
    pub deadline: u64,
    /// Whether the chain has the task; one that it never saw costs nothing after its deadline.
    pub on_chain: bool,
}

/// Why no session can take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unready {
    /// The router holds no lane for this model.
    NoSession,
    /// There is one, but it still waits for its nodes or its seed.
    NotActive,
    /// There is one, but what its lane may spend is spent or held.
    Spent,
}

#[derive(Debug, Default)]
struct Purse {
    spent: u128,
    open: HashMap<TaskId, Charge>,
    nonces: VecDeque<(u64, u64)>,
    /// One more than the largest nonce that the chain has.
    next_on_chain: u64,
    unpaid_until_s: u64,
}

/// The book.
#[derive(Debug)]
pub struct Book {
    me: Address,
    sessions: BTreeMap<SessionId, SessionView>,
    purses: HashMap<SessionId, Purse>,
    owners: HashMap<TaskId, SessionId>,
    /// Models by their number, as the chain has them.
    models: BTreeMap<ModelIndex, ModelId>,
    opened: BTreeMap<SessionId, (ModelId, u128, u128)>,
    last_timestamp: u64,
}

/// Reservations of a session that are remembered: the contract serves the current one and the one before, and a
/// reverted block may bring back one more.
const KEPT_RESERVATIONS: usize = 3;
/// Sessions whose lanes are still to come in the same block; more in one block are dropped.
const MAX_OPENED: usize = 1024;

impl Book {
    /// The book of the router whose key is `me`, with what an earlier life stored.
    pub fn new(
        me: Address,
        models: Vec<(ModelIndex, ModelId)>,
        sessions: Vec<SessionView>,
    ) -> Self {
        Self {
            me,
            models: models.into_iter().collect(),
            sessions: sessions.into_iter().map(|s| (s.id, s)).collect(),
            purses: HashMap::new(),
            owners: HashMap::new(),
            opened: BTreeMap::new(),
            last_timestamp: 0,
        }
    }

    /// The time that deadlines are made from, unix seconds: a development chain's clock may be ahead of ours.
    pub fn now_s(&self, wall_s: u64) -> u64 {
        self.last_timestamp.max(wall_s)
    }

    /// All sessions.
    pub fn sessions(&self) -> impl Iterator<Item = &SessionView> {
        self.sessions.values()
    }

    /// Replaces what is charged by what the database has.
    pub fn set_charges(&mut self, charges: Vec<(SessionId, TaskId, Charge, bool)>) {
        self.owners.clear();
        for purse in self.purses.values_mut() {
            purse.spent = 0;
            purse.open.clear();
        }
        for (session, task, charge, finished) in charges {
            let purse = self.purses.entry(session).or_default();
            if finished {
                purse.spent = purse.spent.saturating_add(charge.amount);
            } else {
                purse.open.insert(task, charge);
                self.owners.insert(task, session);
            }
        }
    }

    /// Takes in a canonical block; returns the sessions that changed.
    pub fn on_committed(&mut self, block: &Observed) -> Vec<SessionView> {
        self.last_timestamp = self.last_timestamp.max(block.timestamp);
        let mut changed = Vec::new();
        for (_, fact) in &block.facts {
            if let Some(id) = self.learn(fact, &mut changed)
                && let Some(view) = self.sessions.get(&id)
            {
                changed.push(view.clone());
            }
        }
        self.opened.clear();
        changed
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
                if self.opened.len() < MAX_OPENED {
                    self.opened.insert(*session, (model, *price_in, *price_out));
                }
                None
            }
            Fact::LaneAdded { session, lane, holder, allotment } => {
                self.add_lane(*session, *lane, *holder, *allotment)
            }
            Fact::SessionActivated { session, seed_round, nodes, previous_until } => {
                let view = self.sessions.get_mut(session)?;
                if view.state == SessionState::Open {
                    view.state = SessionState::Active;
                }
                if let Some(last) = view.reservations.first_mut() {
                    last.until = *previous_until;
                }
                let nodes = nodes.clone();
                let new = Reservation { seed_round: *seed_round, seeded: false, nodes, until: 0 };
                view.reservations.insert(0, new);
                view.reservations.truncate(KEPT_RESERVATIONS);
                Some(*session)
            }
            Fact::RoundRevealed { round } => {
                self.set_seeded(*round, true, changed);
                None
            }
            Fact::LaneReclaimed { session, lane, reclaim_at } => {
                let view = self.sessions.get_mut(session).filter(|s| s.lane == *lane)?;
                view.reclaim_at = *reclaim_at;
                Some(*session)
            }
            Fact::SessionDraining { session, ends_at } => {
                let view = self.sessions.get_mut(session)?;
                view.state = SessionState::Draining;
                view.ends_at = *ends_at;
                Some(*session)
            }
            Fact::SessionClosed { session } => {
                self.sessions.get_mut(session)?.state = SessionState::Closed;
                Some(*session)
            }
            Fact::SessionToppedUp { session, lane, amount } => {
                let view = self.sessions.get_mut(session).filter(|s| s.lane == *lane)?;
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
        let (model, price_in, price_out) = *self.opened.get(&session)?;
        let view = SessionView {
            id: session,
            model,
            state: SessionState::Open,
            price_in,
            price_out,
            reservations: Vec::new(),
            ends_at: 0,
            lane,
            allotment,
            reclaim_at: 0,
        };
        self.sessions.insert(session, view);
        Some(session)
    }

    fn set_seeded(&mut self, round: u64, seeded: bool, changed: &mut Vec<SessionView>) {
        for view in self.sessions.values_mut() {
            let waits = |r: &&mut Reservation| r.seed_round == round && r.seeded != seeded;
            if let Some(reservation) = view.reservations.iter_mut().find(waits) {
                reservation.seeded = seeded;
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
                purse.open.insert(task.task, charge);
                let next = task.nonce.0.saturating_add(1);
                purse.skip_to(next);
                purse.next_on_chain = purse.next_on_chain.max(next);
                self.owners.insert(task.task, task.session);
            }
            // What a task holds beyond its fee comes back when it settles.
            Fact::TaskSettled { task, fee } => self.finish(task, *fee),
            Fact::TaskRefunded { task, tip, .. } => self.finish(task, *tip),
            _ => {}
        }
    }

    /// Whether a task was submitted in the router's own lane.
    pub fn is_mine(&self, task: &Submitted) -> bool {
        self.sessions.get(&task.session).is_some_and(|s| s.lane == task.lane)
    }

    fn charge_mut(&mut self, task: &TaskId) -> Option<&mut Charge> {
        let session = self.owners.get(task)?;
        self.purses.get_mut(session)?.open.get_mut(task)
    }

    fn finish(&mut self, task: &TaskId, cost: u128) {
        if let Some(session) = self.owners.remove(task)
            && let Some(purse) = self.purses.get_mut(&session)
            && purse.open.remove(task).is_some()
        {
            purse.spent = purse.spent.saturating_add(cost);
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
                    gone.extend(self.sessions.remove(session).map(|view| view.id));
                }
                Fact::RoundRevealed { round } => self.set_seeded(*round, false, &mut changed),
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
                        if view.lane == *lane {
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
        changed.retain(|view| self.sessions.contains_key(&view.id));
        (changed, gone)
    }

    fn undo(
        &mut self,
        session: SessionId,
        changed: &mut Vec<SessionView>,
        change: impl FnOnce(&mut SessionView),
    ) {
        if let Some(view) = self.sessions.get_mut(&session) {
            change(view);
            changed.push(view.clone());
        }
    }

    /// Sessions that can take a task of at most these tokens until `deadline`, the fullest purse first.
    ///
    /// # Errors
    /// Why there is none.
    pub fn candidates(
        &mut self,
        model: ModelId,
        tokens: (u32, u32),
        now_s: u64,
        deadline: u64,
    ) -> Result<Vec<SessionView>, Unready> {
        let live: Vec<&SessionView> = self
            .sessions
            .values()
            .filter(|s| s.model == model && s.state != SessionState::Closed)
            .collect();
        if live.is_empty() {
            return Err(Unready::NoSession);
        }
        let takes = |s: &&SessionView| s.serving(deadline).is_some();
        let active: Vec<SessionView> = live.into_iter().filter(takes).cloned().collect();
        if active.is_empty() {
            return Err(Unready::NotActive);
        }
        let mut paid: Vec<(u128, SessionView)> = active
            .into_iter()
            .filter_map(|s| {
                let left = self.left(&s, now_s);
                (left >= fee(&s, tokens)).then_some((left, s))
            })
            .collect();
        if paid.is_empty() {
            return Err(Unready::Spent);
        }
        paid.sort_by_key(|(left, _)| Reverse(*left));
        Ok(paid.into_iter().map(|(_, s)| s).collect())
    }

    /// What is left of a session's allotment.
    fn left(&mut self, view: &SessionView, now_s: u64) -> u128 {
        let purse = self.purses.entry(view.id).or_default();
        if purse.unpaid_until_s > now_s {
            return 0;
        }
        let owners = &mut self.owners;
        purse.open.retain(|task, charge| {
            let counts = charge.on_chain || charge.deadline >= now_s;
            if !counts {
                owners.remove(task);
            }
            counts
        });
        let open: u128 = purse.open.values().map(|c| c.amount).fold(0, u128::saturating_add);
        view.allotment.saturating_sub(purse.spent.saturating_add(open))
    }

    /// Counts a task that the chain does not have yet.
    pub fn charge(&mut self, session: SessionId, task: TaskId, amount: u128, deadline: u64) {
        let charge = Charge { amount, deadline, on_chain: false };
        self.purses.entry(session).or_default().open.insert(task, charge);
        self.owners.insert(task, session);
    }

    /// The task was never and will never be submitted.
    pub fn release(&mut self, task: &TaskId) {
        if self.charge_mut(task).is_some_and(|charge| !charge.on_chain)
            && let Some(session) = self.owners.remove(task)
            && let Some(purse) = self.purses.get_mut(&session)
        {
            purse.open.remove(task);
        }
    }

    /// How far a nonce is ahead of those that the chain has.
    pub fn nonce_lead(&self, session: SessionId, nonce: Nonce) -> u64 {
        let next = self.purses.get(&session).map_or(0, |purse| purse.next_on_chain);
        nonce.0.saturating_sub(next)
    }

    /// The chain has nonces of this session below `next`.
    pub fn set_next_on_chain(&mut self, session: SessionId, next: u64) {
        self.purses.entry(session).or_default().next_on_chain = next;
    }

    /// A submission was refused for lack of money: no tasks of this session for a while.
    pub fn unpaid(&mut self, session: SessionId, wall_s: u64) {
        let now_s = self.now_s(wall_s);
        let purse = self.purses.entry(session).or_default();
        purse.unpaid_until_s = now_s.saturating_add(UNPAID_PAUSE.as_secs());
    }

    /// The next nonce, and how many are left after it.
    pub fn take_nonce(&mut self, session: SessionId) -> Option<(Nonce, u64)> {
        let purse = self.purses.entry(session).or_default();
        let (next, end) = purse.nonces.front_mut()?;
        let nonce = *next;
        *next += 1;
        if next == end {
            purse.nonces.pop_front();
        }
        let left = purse.nonces.iter().map(|(next, end)| end - next).sum();
        Some((Nonce(nonce), left))
    }

    /// Nonces from `start` up to before `end` are this process's own.
    pub fn give_nonces(&mut self, session: SessionId, start: u64, end: u64) {
        let nonces = &mut self.purses.entry(session).or_default().nonces;
        match nonces.back_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ if start < end => nonces.push_back((start, end)),
            _ => {}
        }
    }

    /// Nonces that were taken from the database and never used: the first, and the end, of a last range.
    pub fn unused_nonces(&mut self) -> Vec<(SessionId, u64, u64)> {
        let last = |(id, purse): (&SessionId, &mut Purse)| {
            purse.nonces.drain(..).next_back().map(|(next, end)| (*id, next, end))
        };
        self.purses.iter_mut().filter_map(last).collect()
    }
}

impl Purse {
    /// Another life of the router used nonces below `first`.
    fn skip_to(&mut self, first: u64) {
        let used_here = self.nonces.front().is_some_and(|(next, _)| *next >= first);
        if !used_here {
            for range in &mut self.nonces {
                range.0 = range.0.max(first.min(range.1));
            }
            self.nonces.retain(|(next, end)| next < end);
        }
    }
}

/// The largest fee of a task, minor units.
pub fn fee(session: &SessionView, tokens: (u32, u32)) -> u128 {
    fee_up(tokens.0, tokens.1, session.price_in, session.price_out)
}
