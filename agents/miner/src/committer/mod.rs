//! Brings answers to the chain and claims their pay.

mod service;
mod state;

pub(crate) use service::Committer;
pub(crate) use state::Input;
