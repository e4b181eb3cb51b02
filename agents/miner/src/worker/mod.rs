//! Runs tasks: offers of routers and tasks of the chain.

mod check;
mod generate;
mod job;
mod outlet;
mod service;
mod sessions;
mod state;

pub(crate) use job::Tools;
pub(crate) use outlet::LinkRef;
pub(crate) use service::Worker;
pub(crate) use sessions::Sessions;
pub(crate) use state::Input;
