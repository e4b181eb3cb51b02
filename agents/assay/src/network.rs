//! `network.json`: where a network is, so that commands need no flags.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use assay_bindings::Deployment;
use assay_types::ModelId;
use serde::{Deserialize, Serialize};

const FILE: &str = "network.json";

/// What a command must know of a network.
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

/// The folder given, or `assay` in the user's data folder.
pub fn data_folder(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(folder) = given {
        return Ok(folder.to_path_buf());
    }
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    from("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| from("HOME").map(|home| Path::new(&home).join(".local/share")))
        .map(|base| base.join("assay"))
        .context("there is no home folder to keep data in: name one with --data <dir>")
}

/// An error without what an RPC's URLs, or their list, may hold of keys: user, password, path and query.
pub fn without_keys(error: anyhow::Error, urls: &str) -> anyhow::Error {
    let mut text = format!("{error:#}");
    for url in urls.split(',').filter_map(|url| reqwest::Url::parse(url.trim()).ok()) {
        let parts = [Some(url.path()), url.query(), Some(url.username()), url.password()];
        for part in parts.into_iter().flatten().filter(|part| part.len() > 1) {
            text = text.replace(part, "…");
        }
    }
    anyhow::Error::msg(text)
}

impl Network {
    /// Reads the network that lives in `folder`.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let text = fs::read_to_string(&path).with_context(|| {
            format!(
                "no network is described in {}: start one with `assay up`, or name its folder with --data",
                path.display()
            )
        })?;
        serde_json::from_str(&text).with_context(|| {
            format!("{} cannot be read: start the network again to write it anew", path.display())
        })
    }

    /// Writes the description, whole or not at all.
    pub fn save(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join(FILE);
        let temporary = folder.join("network.json.new");
        write_private(&temporary, &serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(path)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_no_keys() {
        let urls = "https://user:password@one.example/v3/KEY-1?token=KEY-2, ws://two.example/KEY-3";
        let told = "error sending request for url (https://one.example/v3/KEY-1?token=KEY-2); /KEY-3; user:password";
        let text = without_keys(anyhow::Error::msg(told), urls).to_string();
        assert!(text.contains("one.example"), "{text}");
        for secret in ["KEY", "password"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
