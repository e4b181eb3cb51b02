//! What can go wrong between an agent and its content store.

use std::{error::Error, io, net::SocketAddr, path::PathBuf, time::Duration};

/// Failure of the content store: what is wrong and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Nobody the daemon can reach has the block.
    #[error(
        "block {cid} was not found; its pin may have been removed, or the IPFS node cannot reach the one that has it"
    )]
    NotFound {
        /// The CID asked for.
        cid: String,
    },
    /// The daemon named or gave something else than what was asked for. Nothing of it is used.
    #[error(
        "the IPFS node answered with {got} where {asked} was asked for; do not trust this node, point --ipfs-url at another"
    )]
    CidMismatch {
        /// The CID computed here.
        asked: String,
        /// The CID of what came back.
        got: String,
    },
    /// The content does not fit in one block.
    #[error("content of at least {bytes} bytes is over the limit of {limit}; make it smaller")]
    TooLarge {
        /// Bytes seen before giving up.
        bytes: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// No answer from the daemon's address.
    #[error(
        "cannot reach {url}: {source}; is the IPFS node running? start one with `assay up`, or point --ipfs-url at a Kubo RPC address"
    )]
    Unreachable {
        /// Address of the RPC.
        url: String,
        /// What the connection said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The daemon did not end its answer in time.
    #[error(
        "{url} did not answer within {after:?}; try again, or look at the load and the peers of the IPFS node"
    )]
    Timeout {
        /// Address of the RPC.
        url: String,
        /// How long was waited.
        after: Duration,
    },
    /// The daemon answered with an error, or with something that is not an answer.
    #[error(
        "the IPFS node refused the call: {message}; check that --ipfs-url is the RPC address (port 5001), not the gateway"
    )]
    Daemon {
        /// The daemon's words.
        message: String,
    },
    /// The text or the CID names no raw sha2-256 block.
    #[error("{cid:?} cannot be used: {reason}; give a CIDv1 like bafkrei…")]
    BadCid {
        /// What was given.
        cid: String,
        /// Why it does not do.
        reason: &'static str,
    },
    /// The CID names a tree of blocks that this network would not have written for any content.
    #[error("the file {cid} cannot be read: {reason}; ask whoever named it for the right CID")]
    BadFile {
        /// Its root.
        cid: String,
        /// Why it does not do.
        reason: &'static str,
    },
    /// The address given for the daemon is none.
    #[error(
        "{url:?} is not the address of a Kubo RPC: {reason}; give one like http://127.0.0.1:5001"
    )]
    BadUrl {
        /// What was given.
        url: String,
        /// Why it does not do.
        reason: &'static str,
    },
    /// The file of a block no longer holds the bytes of its name.
    #[error(
        "the stored block {cid} is damaged (hash mismatch) in {path}; store it again to repair it, and check the disk"
    )]
    Corrupt {
        /// CID that the file is named for.
        cid: String,
        /// The file.
        path: PathBuf,
    },
    /// The folder of the embedded store could not be read or written.
    #[error("content store cannot use {path}: {source}; check the permissions and the free space")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The blocks of the embedded store take all the space that it may use.
    #[error(
        "the content store in {folder} is full: its limit is {limit_bytes} bytes; unpin what is not needed and free it with `repo/gc` of its RPC, or use a Kubo node with --ipfs-url"
    )]
    Full {
        /// The folder.
        folder: PathBuf,
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// Another process serves the same folder.
    #[error(
        "the content store in {folder} is in use by another process; stop that one, or choose another --data folder"
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The embedded store could not listen.
    #[error(
        "cannot listen on {addr}: {source}; stop what uses the port, or choose another with --ipfs"
    )]
    Bind {
        /// Address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl StoreError {
    /// Whether the same call may succeed later with nobody having changed anything. `NotFound` is
    /// among them, since a block takes its time between nodes; callers bound their tries.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotFound { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Daemon { .. } => true,
            Self::CidMismatch { .. }
            | Self::TooLarge { .. }
            | Self::BadCid { .. }
            | Self::BadFile { .. }
            | Self::BadUrl { .. }
            | Self::Corrupt { .. }
            | Self::Io { .. }
            | Self::Full { .. }
            | Self::InUse { .. }
            | Self::Bind { .. } => false,
        }
    }
}
