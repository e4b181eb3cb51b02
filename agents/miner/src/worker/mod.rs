//! Runs tasks: offers of routers and tasks of the chain.

mod check;
mod generate;
mod job;
mod linkref;
mod outlet;
mod outlets;
mod service;
mod sessions;
mod state;

pub(crate) use job::Tools;
pub(crate) use linkref::LinkRef;
pub(crate) use outlet::Outlet;
pub(crate) use outlets::Outlets;
pub(crate) use service::Worker;
pub(crate) use sessions::Sessions;
pub(crate) use state::Input;
