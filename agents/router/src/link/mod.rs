//! The WebSocket that miners open: who they are, what they were offered, what they say about it.

pub mod hub;
mod score;
pub mod service;
pub mod standing;
pub mod state;
pub mod stream;
