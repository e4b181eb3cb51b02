//! `network.json`: where a network is, so that programs need no flags.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use assay_bindings::Deployment;
use assay_types::ModelId;
use serde::{Deserialize, Serialize};

use crate::ClientError;

const FILE: &str = "network.json";

/// What a program must know of a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Network {
    /// JSON-RPC of the chain.
    pub rpc_url: String,
    /// Kubo RPC of the content store.
    pub ipfs_url: String,
    /// Base URL of a router.
    pub http_url: Option<String>,
    /// First block that may hold events of the contracts.
    pub start_block: u64,
    /// Addresses of the contracts.
    pub deployment: Deployment,
    /// The model that `assay up` serves.
    pub model: Option<ServedModel>,
}

/// A model of the network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServedModel {
    /// Name in the API.
    pub name: String,
    /// keccak-256 of its manifest.
    pub model_id: ModelId,
    /// Most tokens of prompt and answer together.
    pub max_context: u32,
}

impl Network {
    /// Reads the network that lives in `folder`.
    ///
    /// # Errors
    /// If none is described there.
    pub fn load(folder: &Path) -> Result<Self, ClientError> {
        let path = folder.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .map_err(|source| ClientError::BadNetwork { path, source }),
            Err(source) => Err(ClientError::NoNetwork { path, source }),
        }
    }

    /// Writes the description, whole or not at all, and returns where.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, folder: &Path) -> Result<PathBuf, ClientError> {
        let path = folder.join(FILE);
        let temporary = folder.join("network.json.new");
        let written = serde_json::to_vec_pretty(self)
            .map_err(io::Error::other)
            .and_then(|text| write_private(&temporary, &text))
            .and_then(|()| fs::rename(&temporary, &path));
        match written {
            Ok(()) => Ok(path),
            Err(source) => Err(ClientError::Unwritable { path, source }),
        }
    }

    /// Removes the description of a network that ended.
    pub fn forget(folder: &Path) {
        let _ = fs::remove_file(folder.join(FILE));
    }
}

/// Readable by its owner alone: an RPC's URL may hold a key.
fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)?.write_all(content)
}
