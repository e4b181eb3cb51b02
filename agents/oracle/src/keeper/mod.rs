//! The oracle's one worker: what it knows (`items`), what it decides (`state`), where it keeps it (`store`), what it does (`service`).

pub mod state;

mod items;
pub(crate) mod service;
pub(crate) mod store;
