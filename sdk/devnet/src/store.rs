//! The chain in an SQLite file, so that it survives its process: every block with the changes of the
//! state that it made, in one row, written before anyone hears of the block.
//!
//! A killed process loses nothing. A loss of power may take the newest blocks with it (the file stays
//! sound): to wait for the disk would cost every block several times what it costs to make.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alloy::rlp::Decodable;
use assay_evm::{
    AccountChange, Block, Chain, ChainConfig, STATE_HISTORY_BLOCKS, SealedBlock, State,
};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

/// Version of the schema, in the file's `user_version`.
const SCHEMA_VERSION: u32 = 1;

/// Name of the file in the data folder.
const FILE: &str = "chain.sqlite";

/// Why the stored chain cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be made.
    #[error("the chain's folder {}: {source}; check its permissions", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process, or another chain of this one, has it open.
    #[error(
        "the chain in {} is in use by another process; stop that one, or take another folder",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A newer version of the program wrote it.
    #[error(
        "the chain in {} has schema {found}, but this program knows {SCHEMA_VERSION} at most; \
         install the newer program again, or take another folder",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Version of its schema.
        found: u32,
    },
    /// It is a chain with another id.
    #[error(
        "the chain in {} has the id {found}, not {asked}; ask for that one, or take another folder",
        path.display()
    )]
    OtherChain {
        /// The file.
        path: PathBuf,
        /// Chain id that is stored.
        found: u64,
        /// Chain id that was asked for.
        asked: u64,
    },
    /// What is stored is no chain.
    #[error("the chain in {}: {reason}; restore a backup, or remove it to start anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The chain has been stopped.
    #[error("the chain has been stopped")]
    Closed,
    /// SQLite refused.
    #[error("the chain in {}: {source}; check the disk's space and the file", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    connection: Connection,
}

impl Store {
    /// Opens the chain in a folder, or makes a new one, and keeps everyone else out.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(folder)
            .map_err(|source| StoreError::Folder { path: folder.to_path_buf(), source })?;
        let path = folder.join(FILE);
        match prepare(&path) {
            Ok((connection, found)) if found <= SCHEMA_VERSION => Ok(Self { path, connection }),
            Ok((_, found)) => Err(StoreError::Newer { path, found }),
            Err(source) if source.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                Err(StoreError::InUse { path })
            }
            Err(source) => Err(StoreError::Sqlite { path, source }),
        }
    }

    /// Continues the stored chain, or stores the beginning of a new one.
    pub(crate) fn resume(&mut self, config: ChainConfig) -> Result<Chain, StoreError> {
        let asked = config.chain_id;
        let query = "SELECT chain_id FROM chain";
        let stored = self.connection.query_row(query, [], |row| row.get::<_, i64>(0)).optional();
        match stored.map_err(|source| self.sqlite(source))?.map(|id| id as u64) {
            Some(found) if found != asked => {
                Err(StoreError::OtherChain { path: self.path.clone(), found, asked })
            }
            Some(_) => self.load(config),
            None => {
                self.write_genesis(asked, &config.genesis())
                    .map_err(|source| self.sqlite(source))?;
                Ok(Chain::new(config))
            }
        }
    }

    fn write_genesis(&mut self, chain_id: u64, genesis: &SealedBlock) -> rusqlite::Result<()> {
        let tx = self.connection.transaction()?;
        tx.execute("INSERT INTO chain (chain_id) VALUES (?1)", [chain_id as i64])?;
        insert(&tx, genesis, &State::default())?;
        tx.commit()
    }

    fn load(&self, config: ChainConfig) -> Result<Chain, StoreError> {
        let (mut blocks, mut history) = (Vec::new(), VecDeque::new());
        let (mut genesis, mut state) = (None, State::default());
        self.for_each(|block, mut changes| {
            blocks.push(Block::decode(block)?);
            for change in Vec::<AccountChange>::decode(&mut changes)? {
                state.apply(change);
            }
            genesis.get_or_insert_with(|| state.clone());
            history.push_back(state.clone());
            if history.len() > STATE_HISTORY_BLOCKS + 1 {
                history.pop_front();
            }
            Ok(())
        })?;
        let genesis = genesis.unwrap_or_default();
        Chain::resume(config, blocks, genesis, history).map_err(|error| self.damaged(&error))
    }

    /// Calls `take` with every block and its changes, in order.
    fn for_each(
        &self,
        mut take: impl FnMut(&[u8], &[u8]) -> alloy::rlp::Result<()>,
    ) -> Result<(), StoreError> {
        let sqlite = |source| self.sqlite(source);
        let query = "SELECT block, changes FROM block ORDER BY number";
        let mut statement = self.connection.prepare(query).map_err(sqlite)?;
        let mut rows = statement.query([]).map_err(sqlite)?;
        while let Some(row) = rows.next().map_err(sqlite)? {
            let blob = |index| row.get_ref(index)?.as_blob().map_err(rusqlite::Error::from);
            let (block, changes) = (blob(0).map_err(sqlite)?, blob(1).map_err(sqlite)?);
            take(block, changes).map_err(|error| self.damaged(&error))?;
        }
        Ok(())
    }

    fn damaged(&self, error: &dyn std::fmt::Display) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), reason: error.to_string() }
    }

    /// Stores a block on top of the head, whose state is `parent`.
    pub(crate) fn append(&self, sealed: &SealedBlock, parent: &State) -> Result<(), StoreError> {
        insert(&self.connection, sealed, parent).map_err(|source| self.sqlite(source))
    }

    /// Removes all blocks after this one.
    pub(crate) fn truncate(&self, head: u64) -> Result<(), StoreError> {
        self.connection
            .execute("DELETE FROM block WHERE number > ?1", [head as i64])
            .map(|_| ())
            .map_err(|source| self.sqlite(source))
    }

    fn sqlite(&self, source: rusqlite::Error) -> StoreError {
        StoreError::Sqlite { path: self.path.clone(), source }
    }
}

fn insert(connection: &Connection, sealed: &SealedBlock, parent: &State) -> rusqlite::Result<()> {
    let block = &sealed.block;
    let changes = alloy::rlp::encode(sealed.state.changes_since(parent));
    connection
        .prepare_cached("INSERT INTO block (number, block, changes) VALUES (?1, ?2, ?3)")?
        .execute(params![block.number() as i64, block.encode(), changes])?;
    Ok(())
}

/// Opens the file for this process alone, makes the tables in a new one, and says its version.
fn prepare(path: &Path) -> rusqlite::Result<(Connection, u32)> {
    let mut connection = Connection::open(path)?;
    // Whoever has the file keeps it: waiting would not help.
    connection.busy_timeout(Duration::ZERO)?;
    // The lock lasts as long as the connection, and ends with the process, however that ends.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Exclusive)?;
    let mut version: u32 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == 0 {
        tx.execute_batch(include_str!("schema.sql"))?;
        version = SCHEMA_VERSION;
        tx.pragma_update(None, "user_version", version)?;
    }
    tx.commit()?;
    Ok((connection, version))
}
