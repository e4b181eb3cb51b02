//! `Session` and `NodePool`: how sessions get their nodes, and other ones in their place.

use assay_bindings::{
    NodePool::{
        DrawEntered, DrawPassed, NodePool_DrawNotNext, NodePool_NoPlace, NodePool_NotDedicated,
        NodeReleased, NodeReserved,
    },
    Session::{
        RotationDropped, Session_DrawExpired, Session_DrawNotExpired, Session_DrawWaits,
        Session_NoDrawWaits, Session_RotationNotDue, Session_RoundNotReady, SessionActivated,
        SessionDrawing,
    },
};

use super::Run;
use crate::{
    num::{int, u40},
    refusal::{Failure, require},
    state::{NodeState, SessionState, Waiting},
    terms::answer_time_s,
};

impl Run<'_> {
    /// A ticket for a draw of the model.
    pub(super) fn enter_draw(&mut self, model: u32) -> Result<u64, Failure> {
        let pool = self.state.pools.get(&(model, false));
        let (given, slots) = pool.map_or((0, 0), |pool| (pool.tickets_given, pool.slots()));
        let ticket = given + 1;
        self.emit(DrawEntered { model, ticket: u40(ticket), slots })?;
        Ok(ticket)
    }

    pub(super) fn tell_drawing(
        &mut self,
        id: u64,
        ticket: u64,
        until_s: u64,
    ) -> Result<(), Failure> {
        let draw_round = self.next_round();
        self.emit(SessionDrawing {
            sessionId: id,
            drawRound: draw_round,
            ticket: u40(ticket),
            drawUntil: u40(until_s),
        })
    }

    /// Reserves a place of each named node, which must be dedicated to the session's owner.
    pub(super) fn reserve_named(&mut self, id: u64, nodes: &[u32]) -> Result<(), Failure> {
        let session = self.state.session(id)?;
        let (model, client) = (session.model, session.owner);
        for node in nodes {
            let found = self.state.nodes.get(node);
            let serves = found.is_some_and(|node| {
                node.state == NodeState::Dedicated && node.dedicated_to == client
            });
            require!(serves, NodePool_NotDedicated { nodeId: *node, client });
            let place = |session| self.state.place_with(*node, model, session);
            require!(
                place(id).is_none() && place(0).is_some(),
                NodePool_NoPlace { nodeId: *node, model }
            );
            self.emit(NodeReserved { nodeId: *node, sessionId: id, model })?;
        }
        Ok(())
    }

    pub(super) fn release(&mut self, id: u64, nodes: &[u32]) -> Result<(), Failure> {
        let model = self.state.session(id)?.model;
        for node in nodes {
            let place = self.state.place_with(*node, model, id);
            require!(place.is_some(), NodePool_NoPlace { nodeId: *node, model });
            self.emit(NodeReleased { nodeId: *node, sessionId: id, model })?;
        }
        Ok(())
    }

    fn waiting(&self, id: u64) -> Result<Waiting, Failure> {
        let waiting = self.unclosed(id)?.waiting;
        Ok(waiting.ok_or(Session_NoDrawWaits { sessionId: id })?)
    }

    /// Draws happen in the order of their tickets.
    fn check_next(&self, id: u64, waiting: &Waiting) -> Result<u32, Failure> {
        let model = self.state.session(id)?.model;
        let passed = self.state.pools.get(&(model, false)).map_or(0, |pool| pool.tickets_passed);
        let (ticket, next) = (u40(waiting.ticket), u40(passed + 1));
        require!(ticket == next, NodePool_DrawNotNext { model, ticket, next });
        Ok(model)
    }

    pub(super) fn activate(&mut self, id: u64) -> Result<(), Failure> {
        let waiting = self.waiting(id)?;
        let expired_at = u40(waiting.until_s);
        require!(
            self.at.time_s <= waiting.until_s,
            Session_DrawExpired { sessionId: id, expiredAt: expired_at }
        );
        let round = waiting.round;
        let seed = self.value_of(round).ok_or(Session_RoundNotReady { sessionId: id, round })?;
        let model = self.check_next(id, &waiting)?;
        let hits = self.state.find(id, seed)?;
        let drawn: Vec<u32> = hits.iter().map(|hit| hit.node).collect();
        for node in &drawn {
            self.emit(NodeReserved { nodeId: *node, sessionId: id, model })?;
        }
        self.emit(DrawPassed { model, ticket: u40(waiting.ticket) })?;
        if self.state.session(id)?.state == SessionState::Draining {
            self.release(id, &drawn)?;
            return self.emit(RotationDropped { sessionId: id });
        }
        if drawn.is_empty() {
            let ticket = self.enter_draw(model)?;
            return self.tell_drawing(id, ticket, waiting.until_s);
        }
        let named = self.state.named_staying(id)?;
        self.replace(id, named, drawn)?;
        self.pay_tip(id)
    }

    /// The next reservation: these named and drawn nodes.
    fn replace(&mut self, id: u64, named: Vec<u32>, drawn: Vec<u32>) -> Result<(), Failure> {
        let before = self.state.session(id)?.current.clone();
        // A session that waited for its first nodes has only its named ones, who stay.
        let gone = before.nodes.iter().filter(|node| !named.contains(node));
        self.release(id, &gone.copied().collect::<Vec<_>>())?;
        let dedicated = named.len();
        self.begin(id, [named, drawn].concat(), dedicated)
    }

    /// A reservation begins. The one before answers what was signed for it for the life of a task, unless its seed can
    /// never be had: then it served nothing, and the one before that keeps its time.
    pub(super) fn begin(
        &mut self,
        id: u64,
        nodes: Vec<u32>,
        dedicated: usize,
    ) -> Result<(), Failure> {
        let session = self.state.session(id)?;
        let terms = self.state.tunables.session_terms(session.terms_version)?;
        let served = session.reservations > 0 && !self.is_missed(session.current.seed_round);
        let until_s =
            if served { self.at.time_s + answer_time_s(terms) } else { session.previous.until_s };
        self.emit(SessionActivated {
            sessionId: id,
            seedRound: self.next_round(),
            nodes,
            dedicated: dedicated as u8,
            previousUntil: u40(until_s),
        })
    }

    pub(super) fn rotate(&mut self, id: u64, lane: u32) -> Result<(), Failure> {
        self.unclosed(id)?;
        self.in_state(id, SessionState::Active)?;
        self.lane_of(id, lane)?;
        let session = self.state.session(id)?;
        if let Some(waiting) = session.waiting {
            let until = u40(waiting.until_s);
            return Err(Session_DrawWaits { sessionId: id, drawUntil: until }.into());
        }
        let (model, version, max) = (session.model, session.terms_version, session.max_nodes);
        self.check_due(id, lane)?;
        if max != 0 {
            let ticket = self.enter_draw(model)?;
            let timeout = self.state.tunables.session_terms(version)?.reservationTimeout;
            return self.tell_drawing(id, ticket, self.at.time_s + int(timeout));
        }
        let named = self.state.named_staying(id)?;
        if named.is_empty() {
            return self.drain_session(id);
        }
        self.replace(id, named, Vec::new())
    }

    /// After their time or their tasks, and once the reservation before serves no more; at once if the seed was missed.
    fn check_due(&self, id: u64, lane: u32) -> Result<(), Failure> {
        let session = self.state.session(id)?;
        if self.is_missed(session.current.seed_round) {
            return Ok(());
        }
        let max_tasks = self.state.tunables.session_terms(session.terms_version)?.maxTasks;
        let nonce = self.lane_of(id, lane)?.next_nonce;
        let worked = nonce >= u64::from(max_tasks) * u64::from(session.reservations);
        let until_s = session.previous.until_s;
        let due = worked || self.at.time_s >= session.rotates_at_s;
        let rotates_at = u40(session.rotates_at_s.max(until_s + 1));
        require!(
            due && self.at.time_s > until_s,
            Session_RotationNotDue { sessionId: id, rotatesAt: rotates_at, nonce }
        );
        Ok(())
    }

    pub(super) fn expire(&mut self, id: u64) -> Result<(), Failure> {
        let waiting = self.waiting(id)?;
        let expires_at = u40(waiting.until_s);
        require!(
            self.at.time_s > waiting.until_s || self.is_missed(waiting.round),
            Session_DrawNotExpired { sessionId: id, expiresAt: expires_at }
        );
        let model = self.check_next(id, &waiting)?;
        self.emit(DrawPassed { model, ticket: u40(waiting.ticket) })?;
        let state = self.state.session(id)?.state;
        if state == SessionState::Open {
            return self.end(id);
        }
        self.emit(RotationDropped { sessionId: id })?;
        // Nobody follows a node that wants to leave: the session lets it go by its end.
        if state == SessionState::Active && self.someone_leaves(id)? {
            return self.drain_session(id);
        }
        Ok(())
    }

    /// Whether a node that serves the session now drains, or was proven to have lied.
    fn someone_leaves(&self, id: u64) -> Result<bool, Failure> {
        let takes_part = |id: &u32| {
            let state = self.state.nodes.get(id).map(|node| node.state);
            matches!(state, Some(NodeState::Ephemeral | NodeState::Dedicated))
        };
        Ok(!self.state.session(id)?.current.nodes.iter().all(takes_part))
    }
}
