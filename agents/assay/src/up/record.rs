//! What a folder's network remembers of itself: which chain it lives on.

use std::{fs, path::Path};

use alloy::{
    eips::BlockNumberOrTag,
    primitives::B256,
    providers::{DynProvider, Provider},
};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

const FILE: &str = "up.json";

/// Written before the first contract is, and never changed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// Hash of block 0.
    genesis: B256,
    /// First block that may hold events of the contracts.
    pub start_block: u64,
}

impl Record {
    /// The folder's record, which must be of this chain, or a new one that begins at its head.
    pub async fn find_or_make(data: &Path, provider: &DynProvider, head: u64) -> Result<Self> {
        let block = provider.get_block_by_number(BlockNumberOrTag::Earliest).await?;
        let genesis = block.context("the chain has no block 0")?.header.hash;
        let path = data.join(FILE);
        if path.exists() {
            let damaged = || format!("{} cannot be read: start anew with --fresh", path.display());
            let text = fs::read(&path).with_context(damaged)?;
            let record: Self = serde_json::from_slice(&text).with_context(damaged)?;
            ensure!(
                record.genesis == genesis,
                "the network in {} lives on another chain, whose block 0 was {}, here it is {genesis}: name another \
                 folder with --data, or start anew with --fresh, which forgets that network",
                data.display(),
                record.genesis
            );
            return Ok(record);
        }
        let record = Self { genesis, start_block: head };
        let temporary = data.join("up.json.new");
        fs::write(&temporary, serde_json::to_vec_pretty(&record)?)
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(record)
    }

    /// Removes it.
    pub fn forget(data: &Path) -> Result<()> {
        let path = data.join(FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("{} cannot be removed", path.display()))
            }
            _ => Ok(()),
        }
    }
}
