//! What tests of the whole network share: compiled contracts, anvil, an IPFS daemon, and the real `assay` binary.
//!
//! Everything started here listens on 127.0.0.1 and ends with the value that owns it.

mod binary;
mod contracts;
mod ipfs;
mod process;

pub use binary::{Agent, Network, NetworkOptions, assay_binary, run_assay};
pub use contracts::{Change, CompiledContract, compile_changed, compile_contracts};
pub use ipfs::Ipfs;
pub use process::{Anvil, foundry_program, free_port};

use std::path::PathBuf;

/// Root of the repository.
pub fn root() -> PathBuf {
    // tests/harness is two below it.
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}
