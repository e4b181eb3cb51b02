//! Where the network of a command is described.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
pub use assay_client::{Network, ServedModel};

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
