//! The file of API keys. The router and a command may have it open at once: SQLite keeps them apart.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use assay_types::B256;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::key::{ApiKey, Limits, Period, Secret, random_id};
use crate::clock::now_s;

/// Its name in the router's folder.
const KEYS_FILE: &str = "api-keys.sqlite";
/// How long to wait for the other one to write a line.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Version of the table; a newer program's is not touched.
const VERSION: u32 = 1;

const TABLE: &str = "
CREATE TABLE IF NOT EXISTS api_keys (
    id TEXT PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,        -- sha-256 of the secret
    name TEXT NOT NULL,
    created_s INTEGER NOT NULL, revoked_s INTEGER, expires_s INTEGER,
    budget TEXT, period TEXT,         -- decimal, minor units; day, week or month
    requests_per_minute INTEGER, tokens_per_minute INTEGER,
    models TEXT NOT NULL              -- JSON list of names; empty: all
) STRICT;
";

/// Why keys cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The folder cannot be made.
    #[error("{}: {source}; check the folder and its permissions", path.display())]
    Io {
        /// Of the folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("{}: {source}; check the disk's space and the file's permissions", path.display())]
    Sqlite {
        /// Of the file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// A newer program wrote it.
    #[error("{} is of version {found}, but this program knows {VERSION} at most; install the newer program again", path.display())]
    Newer {
        /// Of the file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The thread that read it is gone.
    #[error("the keys cannot be read: {0}; restart the router")]
    Thread(#[from] tokio::task::JoinError),
}

/// The file, opened.
#[derive(Debug)]
pub struct KeyFile {
    path: PathBuf,
    connection: Connection,
}

impl KeyFile {
    /// Opens the file in a router's folder, or makes it.
    ///
    /// # Errors
    /// If it cannot be read or written, or a newer program wrote it.
    pub fn open(folder: &Path) -> Result<Self, KeysError> {
        let io = |source| KeysError::Io { path: folder.to_path_buf(), source };
        std::fs::create_dir_all(folder).map_err(io)?;
        let path = folder.join(KEYS_FILE);
        let open = || {
            let connection = Connection::open(&path)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            // A revocation must survive a loss of power.
            connection.pragma_update(None, "synchronous", "FULL")?;
            let found: u32 =
                connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if found <= VERSION {
                connection.execute_batch(TABLE)?;
                connection.pragma_update(None, "user_version", VERSION)?;
            }
            Ok((connection, found))
        };
        match open() {
            Ok((_, found)) if found > VERSION => Err(KeysError::Newer { path, found }),
            Ok((connection, _)) => Ok(Self { path, connection }),
            Err(source) => Err(KeysError::Sqlite { path, source }),
        }
    }

    fn try_to<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, KeysError> {
        work(&self.connection)
            .map_err(|source| KeysError::Sqlite { path: self.path.clone(), source })
    }

    /// Makes a key. Its secret is known to the caller alone from then on.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn create(&self, name: &str, limits: Limits) -> Result<(ApiKey, Secret), KeysError> {
        let (id, secret) = (random_id(), Secret::random());
        let key = ApiKey { id, name: name.to_owned(), created_s: now_s(), revoked_s: None, limits };
        let limits = &key.limits;
        self.try_to(|connection| {
            connection.execute(
                "INSERT INTO api_keys VALUES (?1, ?2, ?3, ?4, NULL, ?5, ?6, ?7, ?8, ?9, ?10)",
                params![
                    key.id,
                    secret.hash().to_string(),
                    key.name,
                    seconds(key.created_s),
                    limits.expires_s.map(seconds),
                    limits.budget.map(|amount| amount.to_string()),
                    limits.period.map(Period::name),
                    limits.requests_per_minute,
                    limits.tokens_per_minute,
                    serde_json::json!(limits.models).to_string(),
                ],
            )
        })?;
        Ok((key, secret))
    }

    /// Revokes a key from now on; it as it is then, `None` if there is none of this id.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn revoke(&self, id: &str) -> Result<Option<ApiKey>, KeysError> {
        self.try_to(|connection| {
            connection.execute(
                "UPDATE api_keys SET revoked_s = coalesce(revoked_s, ?2) WHERE id = ?1",
                params![id, seconds(now_s())],
            )?;
            connection.query_row("SELECT * FROM api_keys WHERE id = ?1", [id], read).optional()
        })
    }

    /// All keys with their hashes, the oldest first.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn all(&self) -> Result<Vec<(B256, ApiKey)>, KeysError> {
        self.try_to(|connection| {
            let mut query = connection.prepare("SELECT * FROM api_keys ORDER BY created_s, id")?;
            let rows = query.query_map([], |row| {
                let hash: String = row.get("hash")?;
                Ok((hash.parse().unwrap_or_default(), read(row)?))
            })?;
            rows.collect()
        })
    }

    /// A number that changes when another connection has written.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn version(&self) -> Result<u32, KeysError> {
        self.try_to(|connection| {
            connection.pragma_query_value(None, "data_version", |row| row.get(0))
        })
    }
}

fn seconds(time_s: u64) -> i64 {
    i64::try_from(time_s).unwrap_or(i64::MAX)
}

fn read(row: &Row<'_>) -> rusqlite::Result<ApiKey> {
    let time = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(unsigned));
    let text = |column| row.get::<_, Option<String>>(column);
    let models: String = row.get("models")?;
    // A limit that cannot be read must not become none.
    let broken = |column: &str| rusqlite::Error::InvalidColumnName(column.to_owned());
    let budget = text("budget")?.map(|text| text.parse().map_err(|_| broken("budget")));
    let period = text("period")?.map(|text| Period::of_name(&text).ok_or_else(|| broken("period")));
    Ok(ApiKey {
        id: row.get("id")?,
        name: row.get("name")?,
        created_s: unsigned(row.get("created_s")?),
        revoked_s: time("revoked_s")?,
        limits: Limits {
            budget: budget.transpose()?,
            period: period.transpose()?,
            requests_per_minute: row.get("requests_per_minute")?,
            tokens_per_minute: row.get("tokens_per_minute")?,
            expires_s: time("expires_s")?,
            models: serde_json::from_str(&models).map_err(|_| broken("models"))?,
        },
    })
}

fn unsigned(time_s: i64) -> u64 {
    u64::try_from(time_s).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kept_with_all_their_limits_and_without_their_secret() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::open(folder.path()).unwrap();
        let limits = Limits {
            budget: Some(u128::MAX),
            period: Some(Period::Week),
            requests_per_minute: Some(3),
            tokens_per_minute: Some(4),
            expires_s: Some(5),
            models: vec!["a\"b".into()],
        };
        let (key, secret) = file.create("team", limits).unwrap();
        let (free, _) = file.create("", Limits::default()).unwrap();
        let beside = KeyFile::open(folder.path()).unwrap();
        let mut all = beside.all().unwrap();
        all.sort_by_key(|(_, key)| key.name.clone());
        assert_eq!(all[0].1, free);
        assert_eq!(all[1], (secret.hash(), key.clone()));

        let before = file.version().unwrap();
        let revoked = beside.revoke(&key.id).unwrap().unwrap();
        assert!(revoked.revoked_s.is_some());
        assert_ne!(file.version().unwrap(), before, "the other one is seen");
        assert!(beside.revoke("key_x").unwrap().is_none());
        drop((file, beside));
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            let text = secret.text().as_bytes();
            assert!(!bytes.windows(text.len()).any(|window| window == text));
        }
    }

    #[test]
    fn a_file_of_a_newer_program_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::open(folder.path()).unwrap();
        file.connection.pragma_update(None, "user_version", 9).unwrap();
        drop(file);
        let error = KeyFile::open(folder.path()).unwrap_err();
        assert!(matches!(error, KeysError::Newer { found: 9, .. }), "{error}");
    }
}
