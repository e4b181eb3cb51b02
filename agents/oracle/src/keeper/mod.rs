//! The oracle's one worker: what it knows of sessions and tasks (`items`) and of proofs (`answers`), what it decides
//! (`state`) to call (`push`), where it keeps what it knows (`store`), and how it does it (`service`, `calls`).

pub mod state;

mod answers;
mod calls;
mod items;
mod push;
pub(crate) mod service;
pub(crate) mod store;
