//! API keys, for a router that is told to ask for them: who may ask for which model, how often, and for how much.
//!
//! Keys stand in a file of their own ([`file`]), which a command changes while the router runs; the router looks for
//! changes ([`service`]) and keeps what is valid in memory ([`ring`]). What a key has spent follows from its tasks, in
//! [`crate::book`]: nothing of it is lost in a crash.

mod bill;
mod bucket;
pub mod file;
pub mod key;
pub mod ring;
pub mod service;
pub mod usage;

pub use bill::Bill;
pub use ring::{Caller, Keyring};
