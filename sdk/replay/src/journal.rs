//! How far an audit is, on disk: so that one that was interrupted goes on where it was.
//!
//! `events` holds every event of the protocol so far: folded again, they are the protocol's state. `state-<block>` holds
//! the chain's state after a block. `checkpoint-<block>.json`, which is written last and whole, names both by length and
//! hash, and holds the rest. Nothing of it is trusted: hashes are compared first, then the state's root with the block's
//! header, and the block with the chain. Where the state comes from proofs the header is enough: they are asked for again.
//!
//! Older checkpoints stay, the fewer the older: after a reorganisation the audit goes on from the newest one that the
//! chain still has, and does again a few times as many blocks as were replaced, not all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Take, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use alloy::consensus::Header;
use alloy::primitives::{B256, Bytes, Keccak256, LogData, keccak256};
use alloy::rlp::{Decodable, Encodable};
use assay_bindings::Deployment;
use assay_evm::{AccountChange, State};
use assay_protocol::ProtocolEvent;
use serde::{Deserialize, Serialize};

use crate::audit::Options;
use crate::error::AuditError;
use crate::report::Report;

const CHECKPOINT: &str = "checkpoint-";
const EVENTS: &str = "events";
const STATE: &str = "state-";
/// So much work an audit that is killed does again. Writing down the state of a hundred thousand tasks takes a second.
const SAVE_EVERY: Duration = Duration::from_secs(20);
/// Checkpoints that stay: each has a state of its own on disk. Saved every 20 blocks, the oldest is some hundred
/// thousand blocks old.
const MAX_CHECKPOINTS: usize = 16;
/// Read at once when a file is hashed.
const PIECE_BYTES: usize = 1 << 16;
/// Largest event: one with text in it has some hundred bytes.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// What an audit must know to go on, besides the chain's state and the events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) deployment: Deployment,
    pub(crate) from: u64,
    /// Whether the state comes from proofs: then it is not written down.
    pub(crate) is_distant: bool,
    /// Hash of block 0; zero if the RPC lacks it.
    pub(crate) genesis: B256,
    /// Header of the last block, in RLP.
    pub(crate) header: Bytes,
    pub(crate) hash: B256,
    /// Hashes of the newest blocks, which code can ask for.
    pub(crate) hashes: Vec<(u64, B256)>,
    pub(crate) has_roots: bool,
    pub(crate) tainted: bool,
    pub(crate) ready: bool,
    pub(crate) known_wrong: Vec<String>,
    pub(crate) report: Report,
}

impl Position {
    /// Whether it is one of the audit that is asked for.
    pub(crate) fn is_of(&self, options: &Options) -> bool {
        let Options { deployment, from, to } = options;
        let version = env!("CARGO_PKG_VERSION");
        let same = (&self.deployment, &self.from) == (deployment, from);
        same && self.report.to <= *to && self.report.version == version
    }

    fn header(&self) -> Option<Header> {
        Header::decode(&mut self.header.as_ref()).ok()
    }
}

/// A file as it was when the checkpoint was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Extent {
    bytes: u64,
    hash: B256,
}

/// Where an audit was.
#[derive(Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) position: Position,
    events: Extent,
    state: Extent,
}

/// The same with a hash over it.
#[derive(Serialize, Deserialize)]
struct Sealed<'a> {
    hash: B256,
    #[serde(borrow)]
    checkpoint: &'a serde_json::value::RawValue,
}

/// An event as an audit saw it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) block: u64,
    pub(crate) time_s: u64,
    pub(crate) transaction: B256,
    pub(crate) event: ProtocolEvent,
}

/// What a journal holds.
pub(crate) struct Resumed {
    pub(crate) position: Position,
    pub(crate) header: Header,
    pub(crate) state: State,
    pub(crate) events: Events,
}

/// The events of a journal, one after the other.
pub(crate) type Events = BufReader<Take<File>>;

/// The journal of one audit. A second audit cannot open it meanwhile.
pub(crate) struct Journal {
    folder: PathBuf,
    events: BufWriter<File>,
    bytes: u64,
    hash: Keccak256,
    failed: Option<io::Error>,
    saved: Instant,
    _lock: File,
}

impl Journal {
    /// Opens the journal of a folder.
    ///
    /// # Errors
    /// [`AuditError::Busy`] if another audit writes it, [`AuditError::Journal`] if the folder cannot be used.
    pub(crate) fn open(folder: &Path) -> Result<Self, AuditError> {
        let io = |source: io::Error| unusable(folder, source.to_string());
        fs::create_dir_all(folder).map_err(io)?;
        let lock = File::create(folder.join("lock")).map_err(io)?;
        lock.try_lock().map_err(|_| AuditError::Busy { folder: folder.to_owned() })?;
        let options = OpenOptions::new().create(true).append(true).clone();
        let events = options.open(folder.join(EVENTS)).map_err(io)?;
        Ok(Self {
            folder: folder.to_owned(),
            events: BufWriter::new(events),
            bytes: 0,
            hash: Keccak256::new(),
            failed: None,
            saved: Instant::now(),
            _lock: lock,
        })
    }

    /// Blocks of the checkpoints, newest first.
    ///
    /// # Errors
    /// [`AuditError::Journal`].
    pub(crate) fn blocks(&self) -> Result<Vec<u64>, AuditError> {
        checkpoints(&self.folder).map_err(|source| self.damaged(&source.to_string()))
    }

    /// The checkpoint of a block; `None` if another version of this program wrote it.
    ///
    /// # Errors
    /// [`AuditError::Journal`] if it is not what an audit wrote.
    pub(crate) fn checkpoint(&self, block: u64) -> Result<Option<Checkpoint>, AuditError> {
        let text = fs::read(self.folder.join(checkpoint_name(block)))
            .map_err(|source| self.damaged(&source.to_string()))?;
        let sealed: Sealed<'_> = serde_json::from_slice(&text)
            .map_err(|_| self.damaged("a checkpoint does not parse"))?;
        if keccak256(sealed.checkpoint.get()) != sealed.hash {
            return Err(self.damaged("a checkpoint is not what was written"));
        }
        Ok(serde_json::from_str(sealed.checkpoint.get()).ok())
    }

    /// Goes back to a checkpoint, and forgets what came after it.
    ///
    /// # Errors
    /// [`AuditError::Journal`] if its files are not what an audit wrote.
    pub(crate) fn go_back(&mut self, checkpoint: Checkpoint) -> Result<Resumed, AuditError> {
        let (resumed, hash) = read(&self.folder, checkpoint)?;
        let (bytes, block) = (resumed.events.get_ref().limit(), resumed.header.number);
        self.cut(block, bytes).map_err(|source| unusable(&self.folder, source.to_string()))?;
        (self.bytes, self.hash) = (bytes, hash);
        Ok(resumed)
    }

    /// What was written after a checkpoint comes again.
    fn cut(&mut self, block: u64, bytes: u64) -> io::Result<()> {
        for later in checkpoints(&self.folder)?.into_iter().filter(|other| *other > block) {
            fs::remove_file(self.folder.join(checkpoint_name(later)))?;
        }
        self.events.flush()?;
        self.events.get_ref().set_len(bytes)
    }

    /// Forgets everything: the audit begins anew.
    ///
    /// # Errors
    /// [`AuditError::Journal`].
    pub(crate) fn clear(&mut self) -> Result<(), AuditError> {
        self.empty().map_err(|source| unusable(&self.folder, source.to_string()))?;
        (self.bytes, self.hash) = (0, Keccak256::new());
        Ok(())
    }

    /// The error for something that does not fit.
    pub(crate) fn damaged(&self, reason: &str) -> AuditError {
        unusable(&self.folder, reason.to_owned())
    }

    fn empty(&mut self) -> io::Result<()> {
        forget(&self.folder)?;
        prune(&self.folder, &[])?;
        self.events.flush()?;
        self.events.get_ref().set_len(0)
    }

    /// Notes an event. What goes wrong is told by [`Self::save`].
    pub(crate) fn note(&mut self, seen: &Seen) {
        let record = encode(seen);
        self.hash.update(&record);
        self.bytes += record.len() as u64;
        if let Err(error) = self.events.write_all(&record) {
            self.failed.get_or_insert(error);
        }
    }

    /// Whether it is time to write down the state.
    pub(crate) fn is_due(&self) -> bool {
        self.saved.elapsed() >= SAVE_EVERY
    }

    /// Writes down where the audit is.
    ///
    /// # Errors
    /// [`AuditError::Journal`] if the disk does not take it.
    pub(crate) fn save(&mut self, position: Position, state: &State) -> Result<(), AuditError> {
        let written = self.write(position, state);
        self.saved = Instant::now();
        written.map_err(|source| unusable(&self.folder, source.to_string()))
    }

    fn write(&mut self, position: Position, state: &State) -> io::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.events.flush()?;
        self.events.get_ref().sync_data()?;
        let mut encoded = Vec::new();
        for change in state.changes_since(&State::default()) {
            change.encode(&mut encoded);
        }
        let block = position.report.to;
        let extent = Extent { bytes: encoded.len() as u64, hash: keccak256(&encoded) };
        store(&self.folder.join(state_name(block)), &encoded)?;
        let events = Extent { bytes: self.bytes, hash: self.hash.clone().finalize() };
        let checkpoint = Checkpoint { position, events, state: extent };
        let checkpoint = serde_json::value::to_raw_value(&checkpoint)?;
        let hash = keccak256(checkpoint.get());
        let sealed = serde_json::to_vec(&Sealed { hash, checkpoint: &checkpoint })?;
        store(&self.folder.join(checkpoint_name(block)), &sealed)?;
        prune(&self.folder, &kept(&checkpoints(&self.folder)?))
    }
}

/// Makes the next audit with this folder begin anew.
///
/// # Errors
/// If the folder cannot be written.
pub fn forget(folder: &Path) -> io::Result<()> {
    // Without them nothing else counts.
    let all = if folder.exists() { checkpoints(folder)? } else { Vec::new() };
    all.into_iter().try_for_each(|block| fs::remove_file(folder.join(checkpoint_name(block))))
}

fn checkpoint_name(block: u64) -> String {
    format!("{CHECKPOINT}{block}.json")
}

fn state_name(block: u64) -> String {
    format!("{STATE}{block}")
}

/// Numbers in the names of files, newest first.
fn numbered(folder: &Path, prefix: &str, suffix: &str) -> io::Result<Vec<u64>> {
    let number = |name: std::ffi::OsString| {
        name.to_str()?.strip_prefix(prefix)?.strip_suffix(suffix)?.parse::<u64>().ok()
    };
    let mut numbers = Vec::new();
    for file in fs::read_dir(folder)? {
        numbers.extend(number(file?.file_name()));
    }
    numbers.sort_unstable_by(|one, other| other.cmp(one));
    Ok(numbers)
}

fn checkpoints(folder: &Path) -> io::Result<Vec<u64>> {
    numbered(folder, CHECKPOINT, ".json")
}

/// Which checkpoints stay, of all, newest first: one goes if the next older one is still at most four times as far back
/// as the next newer one.
fn kept(blocks: &[u64]) -> Vec<u64> {
    let Some(newest) = blocks.first() else { return Vec::new() };
    let mut kept: Vec<u64> = Vec::new();
    for (place, block) in blocks.iter().enumerate() {
        let dispensable = match (kept.last(), blocks.get(place + 1)) {
            (Some(newer), Some(older)) => newest - older <= 4 * (newest - newer),
            _ => false,
        };
        if !dispensable {
            kept.push(*block);
        }
    }
    kept.truncate(MAX_CHECKPOINTS);
    kept
}

/// Removes all checkpoints but these, and the states of others.
fn prune(folder: &Path, kept: &[u64]) -> io::Result<()> {
    let over = |blocks: Vec<u64>| blocks.into_iter().filter(|block| !kept.contains(block));
    // A checkpoint goes before its state, so that one that is found has one.
    for block in over(checkpoints(folder)?) {
        fs::remove_file(folder.join(checkpoint_name(block)))?;
    }
    for block in over(numbered(folder, STATE, "")?) {
        fs::remove_file(folder.join(state_name(block)))?;
    }
    Ok(())
}

/// Whole or not at all.
fn store(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(temporary, path)
}

fn unusable(folder: &Path, reason: String) -> AuditError {
    AuditError::Journal { folder: folder.to_owned(), reason }
}

/// Hashes a file's first bytes; `None` if it has fewer.
fn digest(path: &Path, bytes: u64) -> Option<Keccak256> {
    let mut hash = Keccak256::new();
    let mut file = File::open(path).ok()?.take(bytes);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece).ok()? {
            0 => return (file.limit() == 0).then_some(hash),
            read => hash.update(piece.get(..read)?),
        }
    }
}

fn read(folder: &Path, checkpoint: Checkpoint) -> Result<(Resumed, Keccak256), AuditError> {
    let bad = |reason: &str| unusable(folder, reason.to_owned());
    let Checkpoint { position, events, state } = checkpoint;
    let is_written = |path: &Path, extent: Extent| {
        let hash = digest(path, extent.bytes)?;
        (hash.clone().finalize() == extent.hash).then_some(hash)
    };
    let path = folder.join(state_name(position.report.to));
    let changed = || bad("the state is not what was written");
    is_written(&path, state).ok_or_else(changed)?;
    let changes = fs::read(&path).map_err(|_| changed())?;
    let path = folder.join(EVENTS);
    let changed = || bad("the events are not what was written");
    let hash = is_written(&path, events).ok_or_else(changed)?;
    let events = BufReader::new(File::open(&path).map_err(|_| changed())?.take(events.bytes));
    let mut state = State::default();
    let mut rest = changes.as_slice();
    while !rest.is_empty() {
        let change = AccountChange::decode(&mut rest).map_err(|_| bad("the state is damaged"))?;
        state.apply(change);
    }
    let header = position.header().ok_or_else(|| bad("its header is damaged"))?;
    if header.hash_slow() != position.hash {
        return Err(bad("its header is not that of its block"));
    }
    let is_whole = position.has_roots && !position.tainted && !position.is_distant;
    if is_whole && state.root() != header.state_root {
        return Err(bad("the state is not that of its block"));
    }
    Ok((Resumed { position, header, state, events }, hash))
}

fn encode(seen: &Seen) -> Vec<u8> {
    let log = seen.event.encode();
    let mut record = Vec::with_capacity(64 + 32 * log.topics().len() + log.data.len());
    record.extend(seen.block.to_be_bytes());
    record.extend(seen.time_s.to_be_bytes());
    record.extend(seen.transaction);
    record.push(log.topics().len() as u8);
    log.topics().iter().for_each(|topic| record.extend(topic));
    record.extend((log.data.len() as u32).to_be_bytes());
    record.extend(&log.data);
    record
}

/// The next event of a journal; `None` at its end, or if it is no journal's.
pub(crate) fn next(events: &mut impl Read) -> Option<Seen> {
    fn take<const N: usize>(events: &mut impl Read) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        events.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }
    let block = u64::from_be_bytes(take(events)?);
    let time_s = u64::from_be_bytes(take(events)?);
    let transaction = B256::from(take::<32>(events)?);
    let [count] = take(events)?;
    let topics = (0..count).map(|_| take::<32>(events).map(B256::from)).collect::<Option<_>>()?;
    let length = u32::from_be_bytes(take(events)?) as usize;
    let mut data = vec![0; (length <= MAX_EVENT_BYTES).then_some(length)?];
    events.read_exact(&mut data).ok()?;
    let log = LogData::new_unchecked(topics, data.into());
    let event = ProtocolEvent::from_log(&log).ok()??;
    Some(Seen { block, time_s, transaction, event })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However long it goes on, few stay, and there is one that is at most four times as old as any reorganisation is deep.
    #[test]
    fn few_checkpoints_reach_far_back() {
        let every = 20;
        let mut blocks: Vec<u64> = Vec::new();
        for block in (every..=40_000).step_by(every as usize) {
            blocks.insert(0, block);
            blocks = kept(&blocks);
            assert!(blocks.len() <= MAX_CHECKPOINTS && blocks[0] == block);
            let ages: Vec<u64> = blocks.iter().map(|older| block - older).collect();
            for pair in ages.windows(2) {
                assert!(pair[1] <= 4 * pair[0].max(every), "block {block}: {ages:?}");
            }
            let oldest = ages.last().unwrap();
            assert!(4 * oldest >= block - every, "block {block}: {ages:?}");
        }
    }
}
