//! A session, in which the router holds a lane or may be given one: its nodes, its prices, and until when it serves.

use assay_types::{B256, Lane, ModelId, NodeId, SessionId};
use serde::{Deserialize, Serialize};

/// Where a session or a lane ends, the openings of its last tasks must fit. The contracts let no deployment
/// give them more time than this, seconds.
const MAX_REVEAL_S: u64 = 3600;

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
    /// That round's value, once it is known.
    pub seed: Option<B256>,
    /// Its nodes.
    pub nodes: Vec<NodeId>,
    /// Unix seconds; requests are taken until then. 0: until the session ends.
    pub until: u64,
}

/// A session, as far as a router must know it.
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
    /// Whether the router itself opened it.
    #[serde(default)]
    pub is_own: bool,
    /// The router's lane; 0 if it holds none: that one is the owner's.
    pub lane: Lane,
    /// Money that was reserved for the lane, minor units.
    pub allotment: u128,
    /// Unix seconds; the owner takes the lane back then. 0: not.
    pub reclaim_at: u64,
}

impl SessionView {
    /// A session that was just opened, at these prices for prompt and answer. Which lane of it is the router's is
    /// still to be told.
    pub(crate) fn opened(
        id: SessionId,
        model: ModelId,
        (price_in, price_out): (u128, u128),
    ) -> Self {
        Self {
            id,
            model,
            state: SessionState::Open,
            price_in,
            price_out,
            reservations: Vec::new(),
            ends_at: 0,
            is_own: false,
            lane: Lane(0),
            allotment: 0,
            reclaim_at: 0,
        }
    }

    /// Whether the router holds a lane of it.
    pub(super) fn is_mine(&self) -> bool {
        self.lane.0 != 0
    }

    /// Whether this lane is the router's.
    pub(super) fn is_my_lane(&self, lane: Lane) -> bool {
        self.is_mine() && self.lane == lane
    }

    /// Whether it can take tasks: it has its nodes and their seed.
    pub fn is_ready(&self) -> bool {
        let serves = matches!(self.state, SessionState::Active | SessionState::Draining);
        serves && self.reservations.iter().any(|reservation| reservation.seed.is_some())
    }

    /// The reservation that this round names, once its seed is known.
    pub fn named(&self, seed_round: u64) -> Option<&Reservation> {
        self.reservations.iter().find(|r| r.seed_round == seed_round && r.seed.is_some())
    }

    /// The newest reservation that can serve a task until `deadline`: while the seed of a new one is not known yet,
    /// the one before.
    pub fn serving(&self, deadline: u64) -> Option<&Reservation> {
        let ends = |at: u64| at != 0 && at <= deadline;
        let closes = |at: u64| at != 0 && at <= deadline.saturating_add(MAX_REVEAL_S);
        if closes(self.reclaim_at) || (self.state == SessionState::Draining && closes(self.ends_at))
        {
            return None;
        }
        let serves = matches!(self.state, SessionState::Active | SessionState::Draining);
        let fits = |r: &&Reservation| r.seed.is_some() && !ends(r.until);
        self.reservations.iter().find(fits).filter(|_| serves)
    }
}
