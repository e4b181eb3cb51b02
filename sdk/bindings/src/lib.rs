//! Committed ABI and bytecode of the contracts, typed bindings, revert decoder, deployment.
//!
//! `artifacts/*.json` is written by `script/bindings`; nothing here needs a compiler.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod config;
mod contracts;
mod convert;
mod deploy;
mod deployment;
mod revert;

pub use config::{
    AssetConfig, BeaconConfig, COR, DeployConfig, DeploymentFile, NodeTermsConfig, ProofSettings,
    SessionTermsConfig,
};
pub use contracts::{
    BlockhashBeacon, CorToken, Deployer, DrandBeacon, ModelRegistry, NodePool, NodeStats,
    Parameters, ProofOfInference, ProofOfInferenceJudgement, ProofOfInferencePanel, RandomBeacon,
    Session, SessionPayment, SessionQueue,
};
pub use deploy::{creations, deploy, proof_creations};
pub use deployment::{Deployment, DeploymentError};
pub use revert::{abis, decode_revert};
