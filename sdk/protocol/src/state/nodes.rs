//! Nodes, their places and the draws that wait.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256};
use assay_bindings::{
    NodePool::{
        DrawEntered, DrawPassed, NodeRegistered, NodeReleased, NodeReserved, NodeStateChanged,
        Offered, OperatorChanged,
    },
    NodeStats::StatsChanged,
};

use super::{Gap, State, known};
use crate::{
    draw::{Candidate, Draw, FOREVER_S, Hit, Place},
    level::{Record, Series},
    num::int,
};

/// Where a node stands: `NodeState` of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum NodeState {
    /// Unknown.
    None = 0,
    /// Takes part in draws.
    Ephemeral = 1,
    /// Serves one client.
    Dedicated = 2,
    /// Takes nothing new.
    Draining = 3,
    /// Its stake is still slashable.
    Exiting = 4,
    /// Has its stake back.
    Exited = 5,
    /// Was proven to have lied.
    Jailed = 6,
}

impl From<u8> for NodeState {
    fn from(code: u8) -> Self {
        match code {
            1 => Self::Ephemeral,
            2 => Self::Dedicated,
            3 => Self::Draining,
            4 => Self::Exiting,
            5 => Self::Exited,
            6 => Self::Jailed,
            _ => Self::None,
        }
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Whose stake it is.
    pub owner: Address,
    /// Where it stands.
    pub state: NodeState,
    /// Unix seconds; when the stake of an exiting node is free.
    pub exit_at_s: u64,
    /// Version of the tunables that it lives by.
    pub terms_version: u16,
    /// Signs for it.
    pub operator: Address,
    /// Unix seconds; 0 if the operator is the first.
    pub operator_since_s: u64,
    /// The operator before.
    pub previous_operator: Address,
    /// Is paid for it.
    pub payout: Address,
    /// Its only client; zero for one that takes part in draws.
    pub dedicated_to: Address,
    /// Backend and data type.
    pub class: B256,
    /// Model and index of each of its places.
    pub places: Vec<(u32, u32)>,
}

impl Node {
    /// Whether it serves one client, who names it.
    pub fn is_dedicated(&self) -> bool {
        !self.dedicated_to.is_zero()
    }

    pub(super) fn operator_changed(&mut self, time_s: u64, event: &OperatorChanged) {
        (self.operator, self.previous_operator) = (event.newOperator, event.oldOperator);
        self.operator_since_s = time_s;
    }
}

/// The places of a model, and the order of the draws that look at them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// By index; never moved.
    pub places: Vec<Place>,
    /// Indices of places that belong to nobody; the last is given first.
    pub vacant: Vec<u32>,
    /// Tickets of draws, counted from 1.
    pub tickets_given: u64,
    /// Those that are through.
    pub tickets_passed: u64,
    /// Number of places when each waiting ticket was given.
    pub slots_at: BTreeMap<u64, u32>,
    /// What the draw that happens now has found and not reserved yet.
    finding: Option<Vec<Hit>>,
}

impl Pool {
    /// Places whose node takes part, or still serves a session.
    pub fn taken(&self) -> u32 {
        let counts = |place: &&Place| {
            place.node != 0 && (place.active_until_s == FOREVER_S || place.session != 0)
        };
        self.places.iter().filter(counts).count() as u32
    }

    /// Places that a session has.
    pub fn used(&self) -> u32 {
        self.places.iter().filter(|place| place.session != 0).count() as u32
    }

    /// Share of the places in use, hundredths of a percent.
    pub fn utilisation_bps(&self) -> u64 {
        (10_000 * u64::from(self.used())).checked_div(u64::from(self.taken())).unwrap_or(0)
    }

    /// All places.
    pub fn slots(&self) -> u32 {
        self.places.len() as u32
    }

    fn give(&mut self, place: Place) -> u32 {
        if let Some(index) = self.vacant.pop() {
            if let Some(slot) = self.places.get_mut(index as usize) {
                *slot = place;
            }
            return index;
        }
        self.places.push(place);
        self.slots() - 1
    }
}

impl State {
    /// The node.
    ///
    /// # Errors
    /// If no event told of it.
    pub fn node(&self, id: u32) -> Result<&Node, Gap> {
        known(self.nodes.get(&id), "node", id)
    }

    pub(super) fn node_mut(&mut self, id: u32) -> Result<&mut Node, Gap> {
        known(self.nodes.get_mut(&id), "node", id)
    }

    /// The node whose operator key this is.
    pub fn node_by_operator(&self, operator: Address) -> Option<u32> {
        let uses = |node: &Node| node.operator == operator && node.state != NodeState::Exited;
        self.nodes.iter().find(|(_, node)| uses(node)).map(|(id, _)| *id)
    }

    /// Counters and level of a node.
    pub fn record(&self, node: u32, series: Series) -> Record {
        self.records.get(&(node, series)).copied().unwrap_or_default()
    }

    /// The places of a node with their models and indices.
    pub fn places_of(&self, id: u32) -> Vec<(u32, u32, Place)> {
        let Some(node) = self.nodes.get(&id) else { return Vec::new() };
        let place = |(model, index): &(u32, u32)| {
            let pool = self.pools.get(&(*model, node.is_dedicated()))?;
            Some((*model, *index, *pool.places.get(*index as usize)?))
        };
        node.places.iter().filter_map(place).collect()
    }

    /// Index of a node's first place for a model that a session has; 0 for the first free one.
    pub fn place_with(&self, id: u32, model: u32, session: u64) -> Option<u32> {
        let places = self.places_of(id);
        let fits = |(of, _, place): &&(u32, u32, Place)| *of == model && place.session == session;
        places.iter().find(fits).map(|(_, index, _)| *index)
    }

    /// What the draw that a session waits for finds with its seed.
    pub(crate) fn find(&self, id: u64, seed: B256) -> Result<Vec<Hit>, Gap> {
        let session = self.session(id)?;
        let waiting = known(session.waiting.as_ref(), "the draw of session", id)?;
        let draw = Draw {
            model: session.model,
            ticket: waiting.ticket,
            seed,
            slots: waiting.slots,
            as_of_s: waiting.as_of_s,
            min: session.min_nodes,
            max: session.max_nodes,
        };
        let named = self.named(id)?;
        let owners: Vec<Address> =
            named.iter().filter_map(|id| self.nodes.get(id)).map(|node| node.owner).collect();
        let candidate = |id: u32| {
            let node = self.nodes.get(&id).filter(|node| node.state != NodeState::Jailed)?;
            let record = self.record(id, Series::Drawn);
            let level = record.draw_level(self.network.clock, waiting.as_of_s);
            Some(Candidate { owner: node.owner, level })
        };
        let pool = self.pools.get(&(session.model, false));
        let places = pool.map_or(&[][..], |pool| &pool.places);
        Ok(draw.find(places, &owners, candidate))
    }

    pub(super) fn stats_changed(&mut self, event: &StatsChanged) {
        let series = Series::of(event.series != Series::Drawn as u8);
        self.records.insert((event.nodeId, series), Record::from(&event.record));
    }

    pub(super) fn node_registered(&mut self, event: &NodeRegistered) {
        let node = Node {
            owner: event.owner,
            state: NodeState::None,
            exit_at_s: 0,
            terms_version: event.termsVersion,
            operator: event.operator,
            operator_since_s: 0,
            previous_operator: Address::ZERO,
            payout: event.payout,
            dedicated_to: event.dedicatedTo,
            class: event.numericClass,
            places: Vec::new(),
        };
        self.nodes.insert(event.nodeId, node);
    }

    /// A node that has places of the model resumes; any other gets new ones.
    pub(super) fn offered(&mut self, event: &Offered) -> Result<(), Gap> {
        let node = known(self.nodes.get_mut(&event.nodeId), "node", event.nodeId)?;
        let pool = self.pools.entry((event.model, node.is_dedicated())).or_default();
        let active_from_s = int(event.activeFrom);
        let old: Vec<u32> =
            node.places.iter().filter(|p| p.0 == event.model).map(|p| p.1).collect();
        for index in &old {
            let place = known(pool.places.get_mut(*index as usize), "place", index)?;
            (place.active_from_s, place.active_until_s) = (active_from_s, FOREVER_S);
        }
        if old.is_empty() {
            let place = Place {
                node: event.nodeId,
                active_from_s,
                active_until_s: FOREVER_S,
                ..Place::default()
            };
            for _ in 0..event.capacity {
                node.places.push((event.model, pool.give(place)));
            }
        }
        Ok(())
    }

    pub(super) fn node_state_changed(
        &mut self,
        time_s: u64,
        event: &NodeStateChanged,
    ) -> Result<(), Gap> {
        let node = known(self.nodes.get_mut(&event.nodeId), "node", event.nodeId)?;
        node.state = NodeState::from(event.newState);
        let leaves = node.state == NodeState::Exiting;
        if leaves {
            let terms = self.tunables.node_terms(node.terms_version)?;
            node.exit_at_s = time_s + u64::from(terms.unbondingPeriod);
        }
        if !leaves && !matches!(node.state, NodeState::Draining | NodeState::Jailed) {
            return Ok(());
        }
        let dedicated = node.is_dedicated();
        for (model, index) in &node.places {
            let pool = known(self.pools.get_mut(&(*model, dedicated)), "pool", model)?;
            let place = known(pool.places.get_mut(*index as usize), "place", index)?;
            if leaves {
                *place = Place::default();
                pool.vacant.push(*index);
            } else if place.active_until_s == FOREVER_S {
                place.active_until_s = time_s + 1;
            }
        }
        if leaves {
            node.places.clear();
        }
        Ok(())
    }

    pub(super) fn draw_entered(&mut self, event: &DrawEntered) {
        let pool = self.pools.entry((event.model, false)).or_default();
        pool.tickets_given = int(event.ticket);
        pool.slots_at.insert(int(event.ticket), event.slots);
    }

    pub(super) fn draw_passed(&mut self, event: &DrawPassed) -> Result<(), Gap> {
        let pool = known(self.pools.get_mut(&(event.model, false)), "pool", event.model)?;
        pool.tickets_passed = int(event.ticket);
        pool.slots_at.retain(|ticket, _| *ticket > int(event.ticket));
        pool.finding = None;
        Ok(())
    }

    /// The event does not name the place: of a named node it is the first free one, of a drawn node the one that the
    /// draw hit.
    pub(super) fn node_reserved(&mut self, event: &NodeReserved) -> Result<(), Gap> {
        let dedicated = self.node(event.nodeId)?.is_dedicated();
        let index = if dedicated {
            known(self.place_with(event.nodeId, event.model, 0), "a place of node", event.nodeId)?
        } else {
            self.drawn_place(event)?
        };
        let pool = known(self.pools.get_mut(&(event.model, dedicated)), "pool", event.model)?;
        known(pool.places.get_mut(index as usize), "place", index)?.session = event.sessionId;
        let session = self.session_mut(event.sessionId)?;
        // Those of a session that waits for drawn nodes are reserved with it.
        if dedicated && session.reservations == 0 {
            session.current.nodes.push(event.nodeId);
        }
        Ok(())
    }

    fn drawn_place(&mut self, event: &NodeReserved) -> Result<u32, Gap> {
        let pool = known(self.pools.get(&(event.model, false)), "pool", event.model)?;
        if pool.finding.is_none() {
            let session = self.session(event.sessionId)?;
            let waiting = known(session.waiting.as_ref(), "the draw of", event.sessionId)?;
            let seed = *known(self.rounds.get(&waiting.round), "round", waiting.round)?;
            let found = self.find(event.sessionId, seed)?;
            if let Some(pool) = self.pools.get_mut(&(event.model, false)) {
                pool.finding = Some(found);
            }
        }
        let pool = known(self.pools.get(&(event.model, false)), "pool", event.model)?;
        let hits = pool.finding.as_deref().unwrap_or_default();
        let hit = hits.iter().find(|hit| hit.node == event.nodeId).map(|hit| hit.place);
        known(hit, "the draw that found node", event.nodeId)
    }

    pub(super) fn node_released(&mut self, time_s: u64, event: &NodeReleased) -> Result<(), Gap> {
        let index = self.place_with(event.nodeId, event.model, event.sessionId);
        let index = known(index, "the reservation of node", event.nodeId)?;
        let dedicated = self.node(event.nodeId)?.is_dedicated();
        let pool = known(self.pools.get_mut(&(event.model, dedicated)), "pool", event.model)?;
        let place = known(pool.places.get_mut(index as usize), "place", index)?;
        (place.session, place.free_from_s) = (0, time_s + 1);
        Ok(())
    }
}
