//! An agent's SQLite file: one process, one schema, one transaction at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

/// Tables of this crate; a new version is appended, an old one is never changed.
const OWN_MIGRATIONS: [&str; 2] = [include_str!("schema.sql"), include_str!("schema_2.sql")];
/// `user_version` is this crate's version times this, plus the agent's version.
const VERSION_RADIX: u32 = 1 << 12;
/// How long to wait for a reader such as a backup tool; no other agent can be there.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// One opened database. Closing it (dropping the last reference) releases the folder's lock.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    connection: Mutex<Connection>,
    /// Held for as long as the database is open.
    _lock: Option<File>,
}

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Another process, or another agent of this one, has it open.
    #[error(
        "database {} is in use by {holder}; stop that agent, or give this one another data folder",
        path.display()
    )]
    InUse {
        /// Of the database.
        path: PathBuf,
        /// Who holds it, e.g. `process 4711`.
        holder: String,
    },
    /// A newer version of the program wrote it.
    #[error(
        "database {} has schema {found}, but this program knows {known} at most; \
         install the newer program again, or restore a backup",
        path.display()
    )]
    NewerSchema {
        /// Of the database.
        path: PathBuf,
        /// As it is in the file: `library.agent`.
        found: String,
        /// Newest that this program knows.
        known: String,
    },
    /// The disk is full: nothing of the transaction was stored, and nothing that was stored before is lost.
    #[error(
        "database {}: the disk is full ({source}); make room and start the agent again: it goes on where \
         it stopped", path.display()
    )]
    Full {
        /// Of the file.
        path: PathBuf,
        /// As it was told.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file system refused.
    #[error("database {}: {source}; check the folder and its permissions", path.display())]
    Io {
        /// Of the file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("database {}: {source}; check the disk's space, or restore a backup", path.display())]
    Sqlite {
        /// Of the database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

impl DatabaseError {
    /// True if the same may work later without anybody doing anything to the database.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    fn io(path: &Path, source: std::io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            ErrorKind::StorageFull => Self::Full { path, source: source.into() },
            _ => Self::Io { path, source },
        }
    }

    fn sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_path_buf();
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { path, source: source.into() },
            _ => Self::Sqlite { path, source },
        }
    }
}

impl Database {
    /// Opens or makes the database at `path`, and brings its schema up to date: this crate's tables, and
    /// one step per entry of `migrations` (the agent's; append, never change).
    ///
    /// # Errors
    /// If another agent has it open, a newer program wrote it, the disk is full, or it cannot be read or
    /// written.
    pub fn open(path: &Path, migrations: &[&str]) -> Result<Arc<Self>, DatabaseError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|source| DatabaseError::io(folder, source))?;
        }
        let lock = take_lock(path)?;
        let sqlite = |source| DatabaseError::sqlite(path, source);
        let mut connection = Connection::open(path).map_err(sqlite)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(sqlite)?;
        // What was committed must survive a loss of power: a nonce or an answer must never be forgotten.
        connection.pragma_update(None, "synchronous", "FULL").map_err(sqlite)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(sqlite)?;
        // Statements stay prepared: one is planned once, not again whenever its values change.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(sqlite)?;
        migrate(&mut connection, path, migrations)?;
        Ok(Arc::new(Self {
            path: path.to_path_buf(),
            connection: Mutex::new(connection),
            _lock: Some(lock),
        }))
    }

    /// A database that ends with the process, for programs that do one thing and whose user sees whether it was done.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn in_memory() -> Result<Arc<Self>, DatabaseError> {
        let path = PathBuf::from("in memory");
        let mut connection =
            Connection::open_in_memory().map_err(|source| DatabaseError::sqlite(&path, source))?;
        migrate(&mut connection, &path, &[])?;
        Ok(Arc::new(Self { path, connection: Mutex::new(connection), _lock: None }))
    }

    /// Runs `f` in one transaction: all of it is stored, or, if `f` fails, nothing. Keep it short: it
    /// blocks, and holds up every other user of the database.
    ///
    /// # Errors
    /// What `f` or SQLite says.
    pub fn transaction<T>(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, DatabaseError> {
        // An unfinished transaction of a panicked user was rolled back: the connection is sound.
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let run = || {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = f(&tx)?;
            tx.commit()?;
            Ok(value)
        };
        run().map_err(|source| DatabaseError::sqlite(&self.path, source))
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The lock is the operating system's: it ends with the process, however that ends.
fn take_lock(path: &Path) -> Result<File, DatabaseError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let io = |source| DatabaseError::io(&lock_path, source);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock_path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = (&mut file).take(64).read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => "another process".to_string(),
                pid => format!("process {pid}"),
            };
            return Err(DatabaseError::InUse { path: path.to_path_buf(), holder });
        }
        Err(TryLockError::Error(source)) => return Err(io(source)),
    }
    file.set_len(0).map_err(io)?;
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(file)
}

fn migrate(
    connection: &mut Connection,
    path: &Path,
    migrations: &[&str],
) -> Result<(), DatabaseError> {
    let sqlite = |source| DatabaseError::sqlite(path, source);
    let version: u32 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sqlite)?;
    let (own, agent) = ((version / VERSION_RADIX) as usize, (version % VERSION_RADIX) as usize);
    let (own_known, agent_known) = (OWN_MIGRATIONS.len(), migrations.len());
    if own > own_known || agent > agent_known {
        return Err(DatabaseError::NewerSchema {
            path: path.to_path_buf(),
            found: format!("{own}.{agent}"),
            known: format!("{own_known}.{agent_known}"),
        });
    }
    let mut apply = || {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
        for step in OWN_MIGRATIONS.iter().skip(own).chain(migrations.iter().skip(agent)) {
            tx.execute_batch(step)?;
        }
        let new = own_known as u32 * VERSION_RADIX + agent_known as u32;
        tx.pragma_update(None, "user_version", new)?;
        tx.commit()
    };
    apply().map_err(sqlite)
}
