//! Brings answers to the chain, hands tasks back, and claims the pay.

mod service;
mod state;

pub(crate) use service::Committer;
pub(crate) use state::{Input, Seen};
