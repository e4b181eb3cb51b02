//! Content store: client of the Kubo RPC that checks every read, and an embedded Kubo-compatible server.
//!
//! What the network stores is one raw block of at most [`MAX_BLOCK_BYTES`]; the sha-256 digest of its
//! bytes stands on chain and is, with a fixed prefix, its CIDv1. Longer content is a UnixFS file of such
//! blocks ([`put_content`]). Nothing is stored without being pinned. Agents use [`ContentStore`], which
//! [`KuboStore`] implements over the RPC of any Kubo daemon; [`StoreServer`] is such a daemon for a
//! machine that has none: blocks in a folder, no peers.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod address;
mod client;
mod content;
mod disk;
mod error;
mod gateway;
mod rpc;
mod server;

use assay_types::B256;
use async_trait::async_trait;

pub use address::{cid_of, digest_from_cid, digest_of, parse_cid};
pub use assay_types::MAX_BLOCK_BYTES;
pub use bytes::Bytes;
pub use cid::Cid;
pub use client::{CALL_TIMEOUT, KuboStore};
pub use content::{content_cid, get_content, put_content};
pub use error::StoreError;
pub use server::{DEFAULT_LIMIT_BYTES, StoreServer, StoreServerConfig};

/// Where requests and results are kept, by the sha-256 digest of their bytes.
#[async_trait]
pub trait ContentStore: Send + Sync {
    /// Stores and pins one raw block, and gives back its digest, which is computed here.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] above [`MAX_BLOCK_BYTES`]; [`StoreError::CidMismatch`] where the store
    /// names the bytes otherwise; what stands in the way of the call.
    async fn put(&self, bytes: Bytes) -> Result<B256, StoreError>;

    /// The block with this digest. The bytes were hashed and are the ones asked for.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::CidMismatch`] and [`StoreError::TooLarge`] where the
    /// store answers with something else; what stands in the way of the call.
    async fn get(&self, digest: B256) -> Result<Bytes, StoreError>;

    /// Whether the store keeps this block whatever its garbage collection does.
    ///
    /// # Errors
    /// What stands in the way of the call; a block that is not there is `false`.
    async fn is_pinned(&self, digest: B256) -> Result<bool, StoreError>;

    /// Version of the daemon: it is there and it answers.
    ///
    /// # Errors
    /// What stands in the way of the call.
    async fn health(&self) -> Result<String, StoreError>;
}
