//! `Session`: opening, lanes and the end.

use assay_bindings::{
    Parameters::Parameters_UnknownAsset,
    Session::{
        LaneAdded, LaneReclaimed, LaneTerms, OpenTerms, Session_AllotmentsAboveDeposit,
        Session_DepositTooSmall, Session_DrawWaits, Session_LaneReclaimed,
        Session_NodesOutOfBounds, Session_NotOwner, Session_NotReclaimable, Session_PriceAboveCap,
        Session_StillDraining, Session_TasksOpen, Session_TooManyLanes, Session_UnknownLane,
        Session_UnknownSession, Session_WrongState, Session_ZeroAmount, Session_ZeroHolder,
        SessionCalls, SessionClosed, SessionDraining, SessionOpened, SessionToppedUp, addLaneCall,
        topUpCall,
    },
    SessionPayment::SessionPayment_UnknownAsset,
};

use super::Run;
use crate::{
    money::price_down,
    num::{amount, int, u40, u80, u96, u256},
    refusal::{Failure, require},
    state::{Lane, Session, SessionState, known},
};

/// Nodes of a reservation at most.
const MAX_NODES: u64 = 8;
/// Lanes of a session beside the owner's, those that were taken back included.
const MAX_LANES: u64 = 8;

impl Run<'_> {
    pub(super) fn sessions(&mut self, call: &SessionCalls) -> Result<(), Failure> {
        use SessionCalls as C;
        match call {
            C::open(call) => self.open(&call.terms),
            C::openWithPermit(call) => self.open_with_permit(&call.terms),
            C::topUp(call) => self.top_up(call),
            C::addLane(call) => self.add_lane(call),
            C::reclaimLane(call) => self.reclaim_lane(call.sessionId, call.lane),
            C::finishReclaim(call) => self.finish_reclaim(call.sessionId, call.lane),
            C::activate(call) => self.activate(call.sessionId),
            C::rotate(call) => self.rotate(call.sessionId, call.lane),
            C::expire(call) => self.expire(call.sessionId),
            C::close(call) => self.close(call.sessionId),
            C::finish(call) => self.finish(call.sessionId),
            _ => Ok(()),
        }
    }

    /// A session that has not ended.
    pub(super) fn unclosed(&self, id: u64) -> Result<&Session, Failure> {
        let session = self.state.sessions.get(&id);
        let session = session.ok_or(Session_UnknownSession { sessionId: id })?;
        let state = session.state as u8;
        require!(
            session.state != SessionState::Closed,
            Session_WrongState { sessionId: id, state }
        );
        Ok(session)
    }

    fn owned_session(&self, id: u64) -> Result<&Session, Failure> {
        let (session, caller) = (self.unclosed(id)?, self.at.caller);
        require!(session.owner == caller, Session_NotOwner { sessionId: id, caller });
        Ok(session)
    }

    pub(super) fn in_state(&self, id: u64, wanted: SessionState) -> Result<(), Failure> {
        let state = self.state.session(id)?.state;
        require!(state == wanted, Session_WrongState { sessionId: id, state: state as u8 });
        Ok(())
    }

    pub(super) fn lane_of(&self, id: u64, lane: u32) -> Result<&Lane, Failure> {
        let found = self.state.session(id)?.lane(lane);
        Ok(found.ok_or(Session_UnknownLane { sessionId: id, lane })?)
    }

    // ------------------------------------------------------------ opening

    fn open(&mut self, terms: &OpenTerms) -> Result<(), Failure> {
        let version = self.state.tunables.version_at(self.at.time_s);
        self.check_terms(version, terms)?;
        let id = self.state.sessions.len() as u64 + 1;
        let model = self.open_model(terms.modelId)?;
        let pool = self.state.pools.get(&(model, false));
        let utilisation_bps = pool.map_or(0, |pool| pool.utilisation_bps());
        let ticket = if terms.maxNodes == 0 { 0 } else { self.enter_draw(model)? };
        let (floor_in, floor_out) = self.floors(model, terms.asset)?;
        let price_in = u80(price_down(floor_in, utilisation_bps));
        let price_out = u80(price_down(floor_out, utilisation_bps));
        for (price, cap) in [(price_in, terms.maxPriceIn), (price_out, terms.maxPriceOut)] {
            require!(price <= cap, Session_PriceAboveCap { price, cap });
        }
        self.emit(SessionOpened {
            sessionId: id,
            owner: self.at.caller,
            model,
            asset: terms.asset,
            termsVersion: version,
            minNodes: terms.minNodes,
            maxNodes: terms.maxNodes,
            priceIn: price_in,
            priceOut: price_out,
            deposit: terms.deposit,
        })?;
        if terms.maxNodes != 0 {
            let timeout = self.state.tunables.session_terms(version)?.reservationTimeout;
            self.tell_drawing(id, ticket, self.at.time_s + int(timeout))?;
        }
        self.reserve_named(id, &terms.dedicated)?;
        if terms.maxNodes == 0 {
            self.begin(id, terms.dedicated.clone(), terms.dedicated.len())?;
        }
        self.open_lanes(id, terms)
    }

    /// Whether the permit works or not: what counts is the allowance. But it is a permit of some token.
    fn open_with_permit(&mut self, terms: &OpenTerms) -> Result<(), Failure> {
        let asset = terms.asset;
        require!(asset < self.state.network.assets, SessionPayment_UnknownAsset { asset });
        self.open(terms)
    }

    fn check_terms(&self, version: u16, terms: &OpenTerms) -> Result<(), Failure> {
        let (min, max) = (u64::from(terms.minNodes), u64::from(terms.maxNodes));
        let named = terms.dedicated.len() as u64;
        // Drawn nodes need a minimum; without them somebody must be named.
        let sensible = if max == 0 { min == 0 && named > 0 } else { (1..=max).contains(&min) };
        require!(
            sensible && max + named <= MAX_NODES,
            Session_NodesOutOfBounds {
                minNodes: u256(min),
                maxNodes: u256(max),
                dedicated: u256(named),
                limit: u256(MAX_NODES),
            }
        );
        check_lanes(terms.lanes.len() as u64)?;
        let asset = terms.asset;
        require!(asset < self.state.network.assets, Parameters_UnknownAsset { asset });
        let minimum = self.state.tunables.asset_terms(version, asset)?.minDeposit;
        let deposit = terms.deposit;
        require!(deposit >= minimum, Session_DepositTooSmall { deposit, minimum });
        Ok(())
    }

    /// The money of an opening: the allotments, and the rest for lane 0.
    fn open_lanes(&mut self, id: u64, terms: &OpenTerms) -> Result<(), Failure> {
        let mut allotments = 0;
        for (lane, terms) in (1..).zip(&terms.lanes) {
            self.tell_lane(id, lane, terms)?;
            allotments += amount(terms.allotment);
        }
        let deposit = amount(terms.deposit);
        require!(
            allotments <= deposit,
            Session_AllotmentsAboveDeposit { allotments: u256(allotments), deposit: terms.deposit }
        );
        let from = self.at.caller;
        for (lane, terms) in (1..).zip(&terms.lanes) {
            self.deposit((id, lane), from, amount(terms.allotment))?;
        }
        self.deposit((id, 0), from, deposit - allotments)
    }

    fn tell_lane(&mut self, id: u64, lane: u32, terms: &LaneTerms) -> Result<(), Failure> {
        let (holder, allotment) = (terms.holder, terms.allotment);
        require!(!holder.is_zero(), Session_ZeroHolder { lane: u256(lane) });
        self.emit(LaneAdded { sessionId: id, lane, holder, allotment })
    }

    // ------------------------------------------------------------ money and lanes

    fn top_up(&mut self, call: &topUpCall) -> Result<(), Failure> {
        let (id, lane, sum) = (call.sessionId, call.lane, call.amount);
        self.unclosed(id)?;
        self.check_not_reclaimed(id, lane)?;
        require!(!sum.is_zero(), Session_ZeroAmount {});
        let from = self.at.caller;
        self.emit(SessionToppedUp { sessionId: id, lane, from, amount: sum })?;
        self.deposit((id, lane), from, amount(sum))
    }

    fn check_not_reclaimed(&self, id: u64, lane: u32) -> Result<(), Failure> {
        let reclaim_at = u40(self.lane_of(id, lane)?.reclaim_at_s);
        require!(
            reclaim_at.is_zero(),
            Session_LaneReclaimed { sessionId: id, lane, reclaimAt: reclaim_at }
        );
        Ok(())
    }

    fn add_lane(&mut self, call: &addLaneCall) -> Result<(), Failure> {
        let (id, terms) = (call.sessionId, &call.terms);
        let session = self.owned_session(id)?;
        let state = session.state as u8;
        require!(
            session.state != SessionState::Draining,
            Session_WrongState { sessionId: id, state }
        );
        let lane = session.lanes.len() as u32;
        check_lanes(u64::from(lane))?;
        self.tell_lane(id, lane, terms)?;
        if terms.allotment.is_zero() {
            return Ok(());
        }
        self.move_funds(id, (0, lane), amount(terms.allotment))
    }

    fn reclaim_lane(&mut self, id: u64, lane: u32) -> Result<(), Failure> {
        self.owned_session(id)?;
        self.lane_of(id, lane)?;
        let never = u40(0);
        require!(lane != 0, Session_NotReclaimable { sessionId: id, lane, reclaimAt: never });
        self.check_not_reclaimed(id, lane)?;
        let reclaim_at = u40(self.notice_end_s(id)?);
        self.emit(LaneReclaimed { sessionId: id, lane, reclaimAt: reclaim_at })
    }

    fn finish_reclaim(&mut self, id: u64, lane: u32) -> Result<(), Failure> {
        self.unclosed(id)?;
        let found = self.lane_of(id, lane)?.clone();
        let reclaim_at = found.reclaim_at_s;
        require!(
            reclaim_at != 0 && self.at.time_s > reclaim_at,
            Session_NotReclaimable { sessionId: id, lane, reclaimAt: u40(reclaim_at) }
        );
        check_no_tasks(id, lane, &found)?;
        require!(found.free != 0, Session_ZeroAmount {});
        self.move_funds(id, (lane, 0), found.free)
    }

    // ------------------------------------------------------------ the end

    fn close(&mut self, id: u64) -> Result<(), Failure> {
        self.owned_session(id)?;
        self.in_state(id, SessionState::Active)?;
        self.drain_session(id)
    }

    pub(super) fn drain_session(&mut self, id: u64) -> Result<(), Failure> {
        let ends_at = u40(self.notice_end_s(id)?);
        self.emit(SessionDraining { sessionId: id, endsAt: ends_at })
    }

    /// Unix seconds; the end of a notice that is given now.
    fn notice_end_s(&self, id: u64) -> Result<u64, Failure> {
        let version = self.state.session(id)?.terms_version;
        let notice = self.state.tunables.session_terms(version)?.noticePeriod;
        Ok(self.at.time_s + int(notice))
    }

    fn finish(&mut self, id: u64) -> Result<(), Failure> {
        self.unclosed(id)?;
        self.in_state(id, SessionState::Draining)?;
        let session = self.state.session(id)?;
        let ends_at = u40(session.ends_at_s);
        require!(
            self.at.time_s > session.ends_at_s,
            Session_StillDraining { sessionId: id, endsAt: ends_at }
        );
        if let Some(waiting) = session.waiting {
            let until = u40(waiting.until_s);
            return Err(Session_DrawWaits { sessionId: id, drawUntil: until }.into());
        }
        for (lane, found) in (0..).zip(&session.lanes) {
            check_no_tasks(id, lane, found)?;
        }
        self.end(id)
    }

    /// Nodes go, whoever called is paid, the rest is the owner's.
    pub(super) fn end(&mut self, id: u64) -> Result<(), Failure> {
        let nodes = known(self.state.sessions.get(&id), "session", id)?.current.nodes.clone();
        self.release(id, &nodes)?;
        self.pay_tip(id)?;
        let returned = self.return_rest(id)?;
        self.emit(SessionClosed { sessionId: id, returned })
    }
}

/// `lanes` beside the owner's.
fn check_lanes(lanes: u64) -> Result<(), Failure> {
    let limit = u256(MAX_LANES);
    require!(lanes <= MAX_LANES, Session_TooManyLanes { lanes: u256(lanes), limit });
    Ok(())
}

fn check_no_tasks(id: u64, lane: u32, found: &Lane) -> Result<(), Failure> {
    let held = u96(found.held);
    require!(held.is_zero(), Session_TasksOpen { sessionId: id, lane, held });
    Ok(())
}
