//! Takes in the chain's events: tasks of this node and of its sessions, and what became of them.

mod service;
mod state;

pub(crate) use service::Intake;
pub(crate) use state::Earnings;
