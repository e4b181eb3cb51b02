//! Runs tasks: offers of routers and tasks of the chain.

mod check;
mod claim;
mod generate;
mod job;
mod linkref;
mod outlet;
mod outlets;
mod promises;
mod seeds;
mod service;
mod state;

pub(crate) use job::Tools;
pub(crate) use linkref::LinkRef;
pub(crate) use outlet::Outlet;
pub(crate) use outlets::Outlets;
pub(crate) use promises::Promises;
pub(crate) use seeds::Seeds;
pub(crate) use service::Worker;
pub(crate) use state::Input;
