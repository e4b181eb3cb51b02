//! Connections to routers: outward, over WebSocket, both keys proven.

mod service;
mod state;

pub(crate) use service::{LINKS, Link, LinkParts};
pub(crate) use state::Identity;
