//! What the router knows of the chain: its sessions and lanes, and the timelines of its tasks.

pub mod answers;
pub mod db;
pub mod facts;
pub mod lanes;
pub mod owed;
pub mod payers;
pub mod proofs;
pub mod prune;
mod purse;
pub mod receipts;
pub mod service;
pub mod session;
mod sql;
pub mod state;
pub mod tables;
