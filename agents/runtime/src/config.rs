//! Configuration in one way: flags over environment over file over defaults.
//!
//! The type of a setting comes from the field that it fills, so `ASSAY_MINER_NAME=12` is a text where
//! the field is a `String` and a number where it is a number. Give the struct
//! `#[serde(default, deny_unknown_fields)]`: then what is missing has its default and what is
//! misspelled is refused. Secrets are no settings: keep them in files, see [`crate::keystore`].

mod source;

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use source::Node;

/// Longest configuration file that is read; a longer one is no configuration.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// One setting from the command line: the key as in the file, with dots between tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// E.g. `store.url`.
    pub key: String,
    /// As it was typed.
    pub value: String,
}

impl Override {
    /// A setting; `key` as in the file.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "configuration file {} cannot be read; check the path and its permissions: {source}",
        path.display()
    )]
    Read {
        /// Of the file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is far too long.
    #[error(
        "configuration file {} has {bytes} bytes, more than {MAX_FILE_BYTES}; is it the right file?",
        path.display()
    )]
    TooLong {
        /// Of the file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file is no TOML.
    #[error("configuration file {} is not valid TOML: {source}", path.display())]
    Syntax {
        /// Of the file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A variable or flag addresses something inside a plain value.
    #[error("{origin} sets `{key}`, but `{parent}` is a plain value; remove one of the two")]
    NotATable {
        /// Who sets it.
        origin: String,
        /// What it sets.
        key: String,
        /// What stands in the way.
        parent: String,
    },
    /// A value has the wrong type or name.
    #[error("the configuration does not fit: {0}")]
    Invalid(String),
}

/// Reads a configuration: `overrides` (flags) over environment over `file` over defaults.
///
/// `ASSAY_MINER_STORE__URL` sets `store.url` where `env_prefix` is `ASSAY_MINER`: one underscore after
/// the prefix, two between tables. A text is split at commas where a list is wanted.
///
/// # Errors
/// Files that cannot be read, values that do not fit; the text names the setting and who set it.
pub fn load_config<T: DeserializeOwned>(
    file: Option<&Path>,
    env_prefix: &str,
    overrides: &[Override],
) -> Result<T, ConfigError> {
    load_config_from(file, env_prefix, std::env::vars(), overrides)
}

/// [`load_config`] with the environment as an argument.
///
/// # Errors
/// As [`load_config`].
pub fn load_config_from<T: DeserializeOwned>(
    file: Option<&Path>,
    env_prefix: &str,
    environment: impl IntoIterator<Item = (String, String)>,
    overrides: &[Override],
) -> Result<T, ConfigError> {
    let mut root = match file {
        Some(path) => read_file(path)?,
        None => Node::empty(),
    };
    let prefix = format!("{env_prefix}_");
    // Sorted, so that the outcome and its errors do not depend on the order of the environment.
    let mut variables: Vec<_> =
        environment.into_iter().filter(|(name, _)| name.starts_with(&prefix)).collect();
    variables.sort();
    for (name, value) in variables {
        let key = name.trim_start_matches(&prefix).to_ascii_lowercase().replace("__", ".");
        root.set(&key, value, &format!("environment variable {name}"))?;
    }
    for setting in overrides {
        root.set(&setting.key, setting.value.clone(), &format!("flag --{}", setting.key))?;
    }
    T::deserialize(root).map_err(|error| ConfigError::Invalid(error.to_string()))
}

fn read_file(path: &Path) -> Result<Node, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_path_buf(), source };
    let bytes = std::fs::metadata(path).map_err(read)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(ConfigError::TooLong { path: path.to_path_buf(), bytes });
    }
    let text = std::fs::read_to_string(path).map_err(read)?;
    let table: toml::Table = toml::from_str(&text).map_err(|source| ConfigError::Syntax {
        path: path.to_path_buf(),
        source: Box::new(source),
    })?;
    Ok(Node::from_table(table))
}
