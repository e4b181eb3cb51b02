//! Blocks and pins in a folder.
//!
//! `blocks/<first byte>/<digest>` holds the bytes, `pins/<first byte>/<digest>` is an empty file, `tmp`
//! holds what is being written, `lock` is held while the folder is served. A block is written beside
//! its place, synced and renamed, so that a file under its name is whole; it is hashed on every read.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use assay_types::B256;

use crate::{MAX_BLOCK_BYTES, StoreError, cid_of, digest_of};

/// The folder of one embedded store, locked for this process.
pub(crate) struct Disk {
    folder: PathBuf,
    next_temp: AtomicU64,
    _lock: File,
}

/// Count and bytes of the blocks kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
}

impl Disk {
    /// Opens the folder, or makes it, and removes what an interrupted write left behind.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(at(folder))?;
        let lock_path = folder.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse { folder: folder.to_owned() });
            }
            Err(TryLockError::Error(source)) => {
                return Err(StoreError::Io { path: lock_path, source });
            }
        }
        let temp = folder.join("tmp");
        match fs::remove_dir_all(&temp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&temp)(error)),
            _ => {}
        }
        for name in ["tmp", "blocks", "pins"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(at(&path))?;
        }
        sync_folder(folder)?;
        Ok(Self { folder: folder.to_owned(), next_temp: AtomicU64::new(0), _lock: lock })
    }

    /// Writes one block for good: it is there after a power cut that follows this call.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<B256, StoreError> {
        if bytes.len() > MAX_BLOCK_BYTES {
            return Err(StoreError::TooLarge { bytes: bytes.len(), limit: MAX_BLOCK_BYTES });
        }
        let digest = digest_of(bytes);
        // A damaged file is replaced by the good bytes.
        if self.get(digest).is_ok() {
            return Ok(digest);
        }
        self.write(&self.place("blocks", digest), bytes)?;
        Ok(digest)
    }

    /// Reads one block and hashes it.
    pub(crate) fn get(&self, digest: B256) -> Result<Vec<u8>, StoreError> {
        let path = self.place("blocks", digest);
        let file = open_block(&path, digest)?;
        let mut bytes = Vec::new();
        // One byte over the limit is enough to see that the file is not a block.
        file.take(MAX_BLOCK_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(at(&path))?;
        if bytes.len() > MAX_BLOCK_BYTES || digest_of(&bytes) != digest {
            return Err(StoreError::Corrupt { cid: cid_of(digest).to_string(), path });
        }
        Ok(bytes)
    }

    /// Keeps the block from any clean-up.
    pub(crate) fn pin(&self, digest: B256) -> Result<(), StoreError> {
        let block = self.place("blocks", digest);
        open_block(&block, digest)?;
        if self.is_pinned(digest)? {
            return Ok(());
        }
        self.write(&self.place("pins", digest), &[])
    }

    /// Takes the pin away; `false` if there was none.
    pub(crate) fn unpin(&self, digest: B256) -> Result<bool, StoreError> {
        let path = self.place("pins", digest);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(at(&path)(error)),
        }
        match path.parent() {
            Some(shard) => sync_folder(shard)?,
            None => sync_folder(&self.folder)?,
        }
        Ok(true)
    }

    pub(crate) fn is_pinned(&self, digest: B256) -> Result<bool, StoreError> {
        let path = self.place("pins", digest);
        path.try_exists().map_err(at(&path))
    }

    /// Pinned digests in order, at most `limit` of them.
    pub(crate) fn pins(&self, limit: usize) -> Result<Vec<B256>, StoreError> {
        let mut pins = Vec::new();
        self.walk("pins", |digest, _| {
            pins.push(digest);
            pins.len() < limit
        })?;
        pins.sort_unstable();
        Ok(pins)
    }

    pub(crate) fn totals(&self) -> Result<Totals, StoreError> {
        let mut totals = Totals { blocks: 0, bytes: 0 };
        self.walk("blocks", |_, bytes| {
            totals.blocks += 1;
            totals.bytes += bytes;
            true
        })?;
        Ok(totals)
    }

    /// Visits the files of one kind until `visit` says `false`. Files with other names are not ours.
    fn walk(&self, kind: &str, mut visit: impl FnMut(B256, u64) -> bool) -> Result<(), StoreError> {
        let top = self.folder.join(kind);
        for shard in fs::read_dir(&top).map_err(at(&top))? {
            let shard = shard.map_err(at(&top))?.path();
            if !shard.is_dir() {
                continue;
            }
            for entry in fs::read_dir(&shard).map_err(at(&shard))? {
                let entry = entry.map_err(at(&shard))?;
                let Some(digest) =
                    entry.file_name().to_str().and_then(|name| name.parse::<B256>().ok())
                else {
                    continue;
                };
                let bytes = entry.metadata().map_err(at(&entry.path()))?.len();
                if !visit(digest, bytes) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn place(&self, kind: &str, digest: B256) -> PathBuf {
        let name = format!("{digest:x}");
        let shard = name.get(..2).unwrap_or("00").to_owned();
        self.folder.join(kind).join(shard).join(name)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let shard = path.parent().unwrap_or(&self.folder);
        if !shard.is_dir() {
            fs::create_dir_all(shard).map_err(at(shard))?;
            sync_folder(shard.parent().unwrap_or(&self.folder))?;
        }
        let temp = self
            .folder
            .join("tmp")
            .join(self.next_temp.fetch_add(1, Ordering::Relaxed).to_string());
        let written = File::create_new(&temp)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&temp, path));
        if let Err(source) = written {
            // Best effort: what stays is removed when the folder is opened again.
            let _ = fs::remove_file(&temp);
            return Err(StoreError::Io { path: path.to_owned(), source });
        }
        sync_folder(shard)
    }
}

fn open_block(path: &Path, digest: B256) -> Result<File, StoreError> {
    File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StoreError::NotFound { cid: cid_of(digest).to_string() },
        _ => at(path)(error),
    })
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { path, source }
}

/// A new name in a folder lasts only once the folder itself is synced.
#[cfg(unix)]
fn sync_folder(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(at(path))
}

/// Other systems have no such call and no need of it.
#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> Result<(), StoreError> {
    Ok(())
}
