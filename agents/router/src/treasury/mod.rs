//! Sessions of the router's own, for users who know nothing of a chain: one for each model that is served, opened and filled
//! out of the router's wallet. Drawing nodes and rotating them is what oracles do for every session.

pub mod service;
pub mod state;

use assay_types::ModelId;

/// Where a session ends and where draws are paid, a part of its deposit is taken that no lane has: one of this many.
const SPARE: u128 = 20;

/// How the router opens and fills sessions of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnSessions {
    /// What a session is opened with, and what is added to its lane when little is left: minor units of COR.
    pub deposit: u128,
    /// A lane that has less than this left is topped up, minor units of COR.
    pub top_up_below: u128,
    /// Nodes to draw for a session.
    pub max_nodes: u8,
}

impl OwnSessions {
    /// With this deposit: of four nodes, topped up when less than a quarter is left.
    pub fn new(deposit: u128) -> Self {
        Self { deposit, top_up_below: deposit / 4, max_nodes: 4 }
    }

    /// The part of the deposit that the router's lane gets.
    pub fn allotment(&self) -> u128 {
        self.deposit - self.deposit / SPARE
    }
}

/// A session to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Its model.
    pub model: ModelId,
    /// How it is opened.
    pub terms: OwnSessions,
}
