//! The OpenAI-compatible API, and everything else that is served over HTTP.

pub mod answer;
pub mod error;
pub mod guard;
pub mod request;
pub mod routes;
pub mod timeline;
