//! Blocks and pins in a folder.
//!
//! `blocks/<first byte>/<digest>` holds the bytes, `pins/<first byte>/<digest>` is an empty file, `tmp`
//! holds what is being written, `lock` is held while the folder is served. A block is written beside
//! its place, synced and renamed, so that a file under its name is whole; it is hashed on every read.
//! A call that has returned holds after a power cut: the folders of new names are synced as well.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use assay_types::B256;

use crate::{MAX_BLOCK_BYTES, StoreError, cid_of, digest_of};

/// What a file takes on disk at least, whatever it holds: so small blocks are bounded in number too.
const FILE_UNIT_BYTES: u64 = 4096;
/// Kinds of file, each in 256 folders by the first byte of the digest.
const KINDS: [&str; 2] = ["blocks", "pins"];

/// The folder of one embedded store, locked for this process.
pub(crate) struct Disk {
    folder: PathBuf,
    limit_bytes: u64,
    /// Space that blocks take, those being written included.
    used_bytes: AtomicU64,
    /// Held, by the first byte of a digest, while its block or its pin is changed.
    changing: Vec<Mutex<()>>,
    next_temp: AtomicU64,
    _lock: File,
}

/// Count and bytes of the blocks kept, and the space that they may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    pub(crate) limit_bytes: u64,
}

impl Disk {
    /// Opens the folder, or makes it, and removes what an interrupted write left behind.
    ///
    /// Blocks take at most `limit_bytes` of it; more that are there already stay.
    pub(crate) fn open(folder: &Path, limit_bytes: u64) -> Result<Self, StoreError> {
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
        fs::create_dir_all(&temp).map_err(at(&temp))?;
        for kind in KINDS.map(|kind| folder.join(kind)) {
            for shard in (0..=u8::MAX).map(|byte| kind.join(format!("{byte:02x}"))) {
                fs::create_dir_all(&shard).map_err(at(&shard))?;
            }
            sync_folder(&kind)?;
        }
        sync_folder(folder)?;
        let disk = Self {
            folder: folder.to_owned(),
            limit_bytes,
            used_bytes: AtomicU64::new(0),
            changing: (0..=u8::MAX).map(|_| Mutex::new(())).collect(),
            next_temp: AtomicU64::new(0),
            _lock: lock,
        };
        let mut used = 0;
        disk.walk("blocks", |_, bytes| {
            used += space(bytes);
            true
        })?;
        disk.used_bytes.store(used, Ordering::Relaxed);
        Ok(disk)
    }

    /// Writes one block for good, and pins it in the same step if that is wanted.
    pub(crate) fn put(&self, bytes: &[u8], pin: bool) -> Result<B256, StoreError> {
        if bytes.len() > MAX_BLOCK_BYTES {
            return Err(StoreError::TooLarge { bytes: bytes.len(), limit: MAX_BLOCK_BYTES });
        }
        let digest = digest_of(bytes);
        let _turn = self.turn(digest);
        let path = self.place("blocks", digest);
        if self.get(digest).is_ok() {
            // The process that wrote it may have ended before it synced the name.
            sync_folder(self.shard(&path))?;
        } else {
            // Nothing stands there, or a damaged file, which the good bytes replace.
            let after = space(bytes.len() as u64);
            self.take(space_of(&path), after)?;
            if let Err(error) = self.write(&path, bytes) {
                self.give(after, space_of(&path));
                return Err(error);
            }
        }
        if pin {
            self.write_pin(digest)?;
        }
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

    /// Keeps the block from [`Self::collect`].
    pub(crate) fn pin(&self, digest: B256) -> Result<(), StoreError> {
        let _turn = self.turn(digest);
        open_block(&self.place("blocks", digest), digest)?;
        self.write_pin(digest)
    }

    fn write_pin(&self, digest: B256) -> Result<(), StoreError> {
        let path = self.place("pins", digest);
        if self.is_pinned(digest)? {
            sync_folder(self.shard(&path))
        } else {
            self.write(&path, &[])
        }
    }

    /// Removes the blocks without a pin, and names them.
    pub(crate) fn collect(&self) -> Result<Vec<B256>, StoreError> {
        let mut blocks = Vec::new();
        self.walk("blocks", |digest, _| {
            blocks.push(digest);
            true
        })?;
        let mut removed = Vec::new();
        for digest in blocks {
            let _turn = self.turn(digest);
            if self.is_pinned(digest)? {
                continue;
            }
            let path = self.place("blocks", digest);
            let freed = space_of(&path);
            match fs::remove_file(&path) {
                Ok(()) => {}
                // Another call removes as well.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(at(&path)(error)),
            }
            self.give(freed, 0);
            removed.push(digest);
        }
        Ok(removed)
    }

    /// Takes the pin away; `false` if there was none.
    pub(crate) fn unpin(&self, digest: B256) -> Result<bool, StoreError> {
        let _turn = self.turn(digest);
        let path = self.place("pins", digest);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(at(&path)(error)),
        }
        sync_folder(self.shard(&path))?;
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
        let mut totals = Totals { blocks: 0, bytes: 0, limit_bytes: self.limit_bytes };
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
                let bytes = match entry.metadata() {
                    Ok(file) => file.len(),
                    // It was removed a moment ago.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(at(&entry.path())(error)),
                };
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

    /// Folder that a block or a pin stands in.
    fn shard<'a>(&'a self, path: &'a Path) -> &'a Path {
        path.parent().unwrap_or(&self.folder)
    }

    /// Waits until nobody else changes this block or its pin.
    fn turn(&self, digest: B256) -> Option<MutexGuard<'_, ()>> {
        let lock = self.changing.get(usize::from(digest[0]))?;
        // What it guards is on disk and whole after every step: a panic in between harms nothing.
        Some(lock.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a file of `after` bytes in the place of one of `before`.
    fn take(&self, before: u64, after: u64) -> Result<(), StoreError> {
        let count = |used: u64| {
            let sum = used.saturating_sub(before).saturating_add(after);
            (sum <= self.limit_bytes || after <= before).then_some(sum)
        };
        match self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count) {
            Ok(_) => Ok(()),
            Err(_) => {
                Err(StoreError::Full { folder: self.folder.clone(), limit_bytes: self.limit_bytes })
            }
        }
    }

    /// Counts a file that is gone, with what stands there instead.
    fn give(&self, gone: u64, instead: u64) {
        let _ = self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            Some(used.saturating_sub(gone).saturating_add(instead))
        });
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
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
        sync_folder(self.shard(path))
    }
}

/// What a file of this length takes on disk.
fn space(bytes: u64) -> u64 {
    bytes.max(1).next_multiple_of(FILE_UNIT_BYTES)
}

/// What the file at this place takes; nothing where there is none.
fn space_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| space(file.len()))
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
