//! The database, off the threads that serve requests.

use std::{
    io,
    path::Path,
    sync::{Arc, mpsc},
    thread,
};

use assay_chain::{Database, DatabaseError};
use rusqlite::Transaction;
use tokio::sync::oneshot;

use crate::book::tables::MIGRATIONS;

/// Name of the database in the router's folder.
pub(crate) const DATABASE_FILE: &str = "router.sqlite";
/// Pages of the database that stay in memory: those that the tasks of some minutes touch. Taken as they are used.
const CACHE_KIB: i64 = 16 << 10;
/// Pages of the log that are copied into the database at once: a page that many tasks touch is copied once.
const CHECKPOINT_PAGES: u32 = 4096;
/// Statements that stay prepared: all that requests and blocks execute, about 40, with room.
const PREPARED_STATEMENTS: usize = 64;

/// Why the database failed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The database itself.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// No thread can be started for it.
    #[error(
        "no thread for the database can be started: {0}; raise the limit of processes (ulimit -u)"
    )]
    NoThread(io::Error),
    /// The thread that wrote is gone.
    #[error("the database's thread ended: restart the router")]
    Thread,
}

/// One transaction, and what becomes of its result.
type Work = Box<dyn FnOnce() + Send>;

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    database: Arc<Database>,
    works: mpsc::Sender<Work>,
}

impl Journal {
    /// Opens or makes the router's database in `folder`.
    ///
    /// # Errors
    /// If another agent has it open, a newer program wrote it, or it cannot be used.
    pub fn open(folder: &Path) -> Result<Self, JournalError> {
        let database = Database::open(&folder.join(DATABASE_FILE), MIGRATIONS)?;
        database.transaction(|tx| {
            tx.set_prepared_statement_cache_capacity(PREPARED_STATEMENTS);
            tx.pragma_update(None, "cache_size", -CACHE_KIB)?;
            tx.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)
        })?;
        let (works, waiting) = mpsc::channel::<Work>();
        thread::Builder::new()
            .name("database".into())
            .spawn(move || waiting.into_iter().for_each(|work| work()))
            .map_err(JournalError::NoThread)?;
        Ok(Self { database, works })
    }

    /// The database itself.
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// One transaction, on this thread.
    ///
    /// # Errors
    /// The database's own.
    pub fn transaction<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        Ok(self.database.transaction(work)?)
    }

    /// One transaction, on the database's thread, which may wait for the disk.
    ///
    /// # Errors
    /// The database's own.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (done, result) = oneshot::channel();
        let database = self.database.clone();
        let work = move || {
            let worked = database.transaction(work);
            // Whoever has the result may open the database again.
            drop(database);
            let _ = done.send(worked);
        };
        self.works.send(Box::new(work)).map_err(|_| JournalError::Thread)?;
        Ok(result.await.map_err(|_| JournalError::Thread)??)
    }
}
