//! Committed ABI and bytecode of the contracts, typed bindings, revert decoder, deployment.
//!
//! `artifacts/*.json` is written by `script/bindings`; nothing here needs a compiler.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod contracts;
mod convert;
mod deployment;
mod revert;

pub use contracts::{
    CorToken, ModelRegistry, NodePool, NodeStats, Parameters, RandomBeacon, Session,
    SessionPayment, SessionQueue,
};
pub use deployment::{COR, DeployConfig, Deployment, DeploymentError, deploy};
pub use revert::{abis, decode_revert};
