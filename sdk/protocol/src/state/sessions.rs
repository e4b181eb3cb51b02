//! Sessions, their reservations and lanes.

use alloy::primitives::Address;
use assay_bindings::Session::{
    LaneAdded, LaneReclaimed, SessionActivated, SessionClosed, SessionDraining, SessionDrawing,
    SessionOpened,
};

use super::{Gap, NodeState, State, known};
use crate::num::{amount, int};

/// Where a session stands: `SessionState` of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum SessionState {
    /// Unknown.
    None = 0,
    /// Waits for its nodes.
    Open = 1,
    /// Has its nodes.
    Active = 2,
    /// Ends.
    Draining = 3,
    /// Ended.
    Closed = 4,
}

/// Nodes that serve a session for a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservation {
    /// Names it; its value seeds its tasks. 0 while the session waits for its first nodes.
    pub seed_round: u64,
    /// Named ones first.
    pub nodes: Vec<u32>,
    /// How many were named.
    pub dedicated: u8,
    /// Unix seconds; requests are taken until then. 0 for the current one.
    pub until_s: u64,
}

/// A draw that a session waits for. Times in unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its beacon round.
    pub round: u64,
    /// Its place in the order of the model's draws.
    pub ticket: u64,
    /// Places of the pool when the ticket was given.
    pub slots: u32,
    /// When it was given.
    pub as_of_s: u64,
    /// The last second in which it may take place.
    pub until_s: u64,
}

/// Money of a lane, and who may spend it. Amounts in minor units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lane {
    /// Signs or sends requests.
    pub holder: Address,
    /// Unix seconds until which requests are taken; 0 unless the owner takes the lane back.
    pub reclaim_at_s: u64,
    /// Held by no task.
    pub free: u128,
    /// Held by tasks.
    pub held: u128,
    /// One more than the largest nonce used.
    pub next_nonce: u64,
}

/// A session. Times in unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Holder of lane 0.
    pub owner: Address,
    /// Where it stands.
    pub state: SessionState,
    /// Version of the tunables that it lives by.
    pub terms_version: u16,
    /// What it is paid in.
    pub asset: u8,
    /// Drawn nodes, at least.
    pub min_nodes: u8,
    /// Drawn nodes, at most; 0 for a session of named ones alone.
    pub max_nodes: u8,
    /// When it was opened.
    pub opened_at_s: u64,
    /// When it ends or ended; 0 before.
    pub ends_at_s: u64,
    /// Index of its model.
    pub model: u32,
    /// Minor units per million tokens.
    pub price_in: u128,
    /// Minor units per million tokens.
    pub price_out: u128,
    /// The draw that it waits for.
    pub waiting: Option<Waiting>,
    /// From when on its nodes may be replaced.
    pub rotates_at_s: u64,
    /// Counted from 1; 0 while open.
    pub reservations: u16,
    /// Whether its answers are proven: its model was calibrated when it opened.
    pub is_proven: bool,
    /// Serves now.
    pub current: Reservation,
    /// Served before.
    pub previous: Reservation,
    /// Lane 0 is the owner's.
    pub lanes: Vec<Lane>,
    /// Tickets given in its queue, counted from 1.
    pub queued: u64,
    /// Tickets that left the queue's head.
    pub dequeued: u64,
}

impl Session {
    /// The lane, if there is one.
    pub fn lane(&self, lane: u32) -> Option<&Lane> {
        self.lanes.get(lane as usize)
    }

    pub(super) fn lane_mut(&mut self, lane: u32) -> Result<&mut Lane, Gap> {
        known(self.lanes.get_mut(lane as usize), "lane", lane)
    }

    /// The reservation that a request names by its seed round, 0 for the current one, if it is served at that time.
    pub fn serves(&self, seed_round: u64, time_s: u64) -> Option<&Reservation> {
        if self.reservations == 0 {
            return None;
        }
        if seed_round == 0 || seed_round == self.current.seed_round {
            return Some(&self.current);
        }
        let previous = &self.previous;
        (seed_round == previous.seed_round && time_s <= previous.until_s).then_some(previous)
    }
}

impl State {
    /// The session.
    ///
    /// # Errors
    /// If no event told of it.
    pub fn session(&self, id: u64) -> Result<&Session, Gap> {
        known(self.sessions.get(&id), "session", id)
    }

    pub(super) fn session_mut(&mut self, id: u64) -> Result<&mut Session, Gap> {
        known(self.sessions.get_mut(&id), "session", id)
    }

    /// Nodes that a session named, of its current reservation, whatever they do now. Draws leave out their owners.
    pub(crate) fn named(&self, id: u64) -> Result<Vec<u32>, Gap> {
        let session = self.session(id)?;
        let nodes = session.current.nodes.iter().copied();
        if session.reservations == 0 {
            return Ok(nodes.collect());
        }
        Ok(nodes.take(usize::from(session.current.dedicated)).collect())
    }

    /// Named nodes of a session that serve its next reservation: those that still take part. A session that waits for
    /// its first nodes keeps all.
    pub(crate) fn named_staying(&self, id: u64) -> Result<Vec<u32>, Gap> {
        let (named, waits) = (self.named(id)?, self.session(id)?.reservations == 0);
        let stays = |id: &u32| {
            waits || self.nodes.get(id).is_some_and(|node| node.state == NodeState::Dedicated)
        };
        Ok(named.into_iter().filter(stays).collect())
    }

    pub(super) fn session_opened(&mut self, time_s: u64, event: &SessionOpened) {
        let model = self.models.get(&event.model);
        let session = Session {
            owner: event.owner,
            state: SessionState::Open,
            terms_version: event.termsVersion,
            asset: event.asset,
            min_nodes: event.minNodes,
            max_nodes: event.maxNodes,
            opened_at_s: time_s,
            ends_at_s: 0,
            model: event.model,
            price_in: amount(event.priceIn),
            price_out: amount(event.priceOut),
            waiting: None,
            rotates_at_s: 0,
            reservations: 0,
            is_proven: model.is_some_and(|model| !model.pairs.is_empty()),
            current: Reservation::default(),
            previous: Reservation::default(),
            lanes: vec![Lane { holder: event.owner, ..Lane::default() }],
            queued: 0,
            dequeued: 0,
        };
        self.sessions.insert(event.sessionId, session);
    }

    pub(super) fn lane_added(&mut self, event: &LaneAdded) -> Result<(), Gap> {
        let lane = Lane { holder: event.holder, ..Lane::default() };
        self.session_mut(event.sessionId)?.lanes.push(lane);
        Ok(())
    }

    pub(super) fn lane_reclaimed(&mut self, event: &LaneReclaimed) -> Result<(), Gap> {
        let lane = self.session_mut(event.sessionId)?.lane_mut(event.lane)?;
        lane.reclaim_at_s = int(event.reclaimAt);
        Ok(())
    }

    pub(super) fn session_drawing(
        &mut self,
        time_s: u64,
        event: &SessionDrawing,
    ) -> Result<(), Gap> {
        let ticket = int(event.ticket);
        let model = self.session(event.sessionId)?.model;
        let pool = known(self.pools.get(&(model, false)), "pool", model)?;
        let waiting = Waiting {
            round: event.drawRound,
            ticket,
            slots: *known(pool.slots_at.get(&ticket), "ticket", ticket)?,
            as_of_s: time_s,
            until_s: int(event.drawUntil),
        };
        self.session_mut(event.sessionId)?.waiting = Some(waiting);
        Ok(())
    }

    pub(super) fn session_activated(
        &mut self,
        time_s: u64,
        event: &SessionActivated,
    ) -> Result<(), Gap> {
        let version = self.session(event.sessionId)?.terms_version;
        let period_s = int(self.tunables.session_terms(version)?.reservePeriod);
        let session = self.session_mut(event.sessionId)?;
        let until_s = int(event.previousUntil);
        // A reservation whose seed was missed served nothing, and is forgotten.
        if session.reservations > 0 && until_s != session.previous.until_s {
            session.previous = Reservation { until_s, ..std::mem::take(&mut session.current) };
        }
        session.state = SessionState::Active;
        session.reservations = session.reservations.saturating_add(1);
        session.waiting = None;
        session.rotates_at_s = time_s + period_s;
        session.current = Reservation {
            seed_round: event.seedRound,
            nodes: event.nodes.clone(),
            dedicated: event.dedicated,
            until_s: 0,
        };
        Ok(())
    }

    pub(super) fn session_draining(&mut self, event: &SessionDraining) -> Result<(), Gap> {
        let session = self.session_mut(event.sessionId)?;
        (session.state, session.ends_at_s) = (SessionState::Draining, int(event.endsAt));
        Ok(())
    }

    pub(super) fn session_closed(&mut self, time_s: u64, event: &SessionClosed) -> Result<(), Gap> {
        let session = self.session_mut(event.sessionId)?;
        if session.state == SessionState::Open {
            (session.waiting, session.ends_at_s) = (None, time_s);
        }
        session.state = SessionState::Closed;
        Ok(())
    }
}
