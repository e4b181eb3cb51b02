//! What the router knows of the chain: its sessions and lanes, and the timelines of its tasks.

pub mod db;
pub mod receipts;
pub mod service;
pub mod state;
