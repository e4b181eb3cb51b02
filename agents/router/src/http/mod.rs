//! Everything that is served over HTTP. Each API has a file that reads its requests and words its answers;
//! what is asked of the network ([`ask`]) and how it is served ([`answer`]) is the same for all.

pub mod answer;
pub mod ask;
mod body;
mod chat;
mod completions;
pub mod error;
pub mod fields;
pub mod guard;
mod logprobs;
mod messages;
mod models;
mod openapi;
mod places;
mod proof;
mod requests;
mod responses;
pub mod routes;
pub mod server;
mod socket;
mod timeline;
mod wording;
