//! Honest audits and cheats, on a model of random weights in pure Rust: each cheat is caught by what must
//! catch it, and nobody else is.

mod cheats;
mod model;
mod panels;
mod world;
