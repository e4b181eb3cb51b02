//! The oracle's one worker: what it knows (`state`), where it keeps it (`store`), what it does (`service`).

pub mod state;

pub(crate) mod service;
pub(crate) mod store;
