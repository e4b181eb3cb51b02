//! The runtime as an agent uses it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod config;
mod keystore;
mod observe;
mod supervisor;
