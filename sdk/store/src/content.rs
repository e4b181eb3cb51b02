//! Content over one block: a UnixFS file under the published profile `unixfs-v1-2025` (CIDv1, chunks of
//! 1 MiB as raw leaves, at most 1,024 links a node, balanced), so that any IPFS node reads it by its CID.
//!
//! The length of a file determines the shape of its tree: a reader knows from the root alone how many
//! blocks it will ask for. In the end it builds the tree anew, so that a content has one CID only.
//!
//! Nodes are stored and pinned one by one as leaves are: a daemon finds a block by its hash, whatever
//! the CID says about its kind.

use assay_types::B256;
use bytes::Bytes;
use cid::Cid;

use crate::{
    ContentStore, MAX_BLOCK_BYTES, StoreError,
    address::{DAG_PB, RAW, cid_of_kind, kind_and_digest},
    cid_of, digest_of,
};

/// Shape of all trees of one profile.
#[derive(Clone, Copy)]
struct Profile {
    chunk_bytes: usize,
    max_links: usize,
}

const PROFILE: Profile = Profile { chunk_bytes: MAX_BLOCK_BYTES, max_links: 1024 };

/// A block of a tree as its parent names it.
#[derive(Clone, Copy)]
struct Part {
    digest: B256,
    /// Content below it.
    bytes: u64,
    /// All blocks below it, its own included.
    tree_bytes: u64,
}

/// Address of content of any length: one raw block up to [`MAX_BLOCK_BYTES`], a file above.
pub fn content_cid(bytes: &[u8]) -> Cid {
    plant(PROFILE, bytes, |_| {})
}

/// Stores and pins content of any length under [`content_cid`].
///
/// # Errors
/// As [`ContentStore::put`]; the same call again stores what is missing.
pub async fn put_content(store: &dyn ContentStore, bytes: Bytes) -> Result<Cid, StoreError> {
    put(PROFILE, store, bytes).await
}

/// Content of at most `limit_bytes` by its address; every block of it was hashed.
///
/// # Errors
/// As [`ContentStore::get`]; [`StoreError::TooLarge`] above the limit, before anything but the root is
/// asked for; [`StoreError::BadFile`] for a tree that [`put_content`] does not build.
pub async fn get_content(
    store: &dyn ContentStore,
    cid: &Cid,
    limit_bytes: usize,
) -> Result<Bytes, StoreError> {
    fetch(PROFILE, store, cid, limit_bytes).await
}

async fn put(profile: Profile, store: &dyn ContentStore, bytes: Bytes) -> Result<Cid, StoreError> {
    let mut nodes = Vec::new();
    let cid = plant(profile, &bytes, |node| nodes.push(node));
    for start in (0..bytes.len().max(1)).step_by(profile.chunk_bytes) {
        let end = bytes.len().min(start.saturating_add(profile.chunk_bytes));
        store.put(bytes.slice(start..end)).await?;
    }
    // The root comes last: who finds it finds the whole.
    for node in nodes {
        store.put(node.into()).await?;
    }
    Ok(cid)
}

async fn fetch(
    profile: Profile,
    store: &dyn ContentStore,
    cid: &Cid,
    limit_bytes: usize,
) -> Result<Bytes, StoreError> {
    let bad = |reason| StoreError::BadFile { cid: cid.to_string(), reason };
    let (kind, digest) = kind_and_digest(cid)?;
    let root = store.get(digest).await?;
    let bytes = match kind {
        DAG_PB => node_bytes(&root).ok_or_else(|| bad("its root is not a node of a file"))?,
        _ => root.len(),
    };
    if bytes > limit_bytes {
        return Err(StoreError::TooLarge { bytes, limit: limit_bytes });
    }
    if kind != DAG_PB {
        return Ok(root);
    }
    let mut level = vec![root];
    for height in (0..profile.height(bytes)).rev() {
        // Blocks below each node: all it can hold, but for the last one.
        let width = bytes.div_ceil(profile.capacity(height));
        let mut below = Vec::new();
        for node in level {
            let count = profile.max_links.min(width - below.len());
            for child in children(&node, count).ok_or_else(|| bad("a node has too few links"))? {
                below.push(store.get(child).await?);
            }
        }
        level = below;
    }
    let content = Bytes::from(level.concat());
    if plant(profile, &content, |_| {}) != *cid {
        return Err(bad("it is not how its content is laid out"));
    }
    Ok(content)
}

/// Builds the tree over the content: gives away its nodes, the root last, and names the root.
fn plant(profile: Profile, content: &[u8], mut node: impl FnMut(Vec<u8>)) -> Cid {
    if content.len() <= profile.chunk_bytes {
        return cid_of(digest_of(content));
    }
    let leaf = |bytes: &[u8]| {
        let length = bytes.len() as u64;
        Part { digest: digest_of(bytes), bytes: length, tree_bytes: length }
    };
    let mut level: Vec<Part> = content.chunks(profile.chunk_bytes).map(leaf).collect();
    let mut kind = RAW;
    loop {
        let parents = level.chunks(profile.max_links).map(|children| {
            let encoded = encode(kind, children);
            let sum = |part: fn(&Part) -> u64| children.iter().map(part).sum::<u64>();
            let parent = Part {
                digest: digest_of(&encoded),
                bytes: sum(|part| part.bytes),
                tree_bytes: sum(|part| part.tree_bytes) + encoded.len() as u64,
            };
            node(encoded);
            parent
        });
        level = parents.collect();
        kind = DAG_PB;
        if let [root] = level.as_slice() {
            return cid_of_kind(DAG_PB, root.digest);
        }
    }
}

impl Profile {
    /// Content that a tree of this height holds at most; of height 0 it is a leaf.
    fn capacity(self, height: u32) -> usize {
        self.chunk_bytes.saturating_mul(self.max_links.saturating_pow(height))
    }

    /// Height of the tree over so much content.
    fn height(self, bytes: usize) -> u32 {
        let mut height = 0;
        while self.capacity(height) < bytes {
            height += 1;
        }
        height
    }
}

/// Tags of fields of dag-pb and of UnixFS: number and wire type.
const LINK: u8 = 2 << 3 | 2;
const DATA: u8 = 1 << 3 | 2;
const LINK_HASH: u8 = 1 << 3 | 2;
const LINK_NAME: u8 = 2 << 3 | 2;
const LINK_TREE_BYTES: u8 = 3 << 3;
const FILE_TYPE: u8 = 1 << 3;
const FILE_BYTES: u8 = 3 << 3;
const FILE_BLOCK_BYTES: u8 = 4 << 3;
/// `File` among the types of UnixFS.
const FILE: u64 = 2;

/// One node of a file: dag-pb, links before data as its canonical form wants.
fn encode(kind: u64, children: &[Part]) -> Vec<u8> {
    let mut node = Vec::new();
    let mut file = Vec::new();
    number(&mut file, FILE_TYPE, FILE);
    number(&mut file, FILE_BYTES, children.iter().map(|child| child.bytes).sum());
    for child in children {
        let mut link = Vec::new();
        text(&mut link, LINK_HASH, &cid_of_kind(kind, child.digest).to_bytes());
        text(&mut link, LINK_NAME, &[]);
        number(&mut link, LINK_TREE_BYTES, child.tree_bytes);
        text(&mut node, LINK, &link);
        number(&mut file, FILE_BLOCK_BYTES, child.bytes);
    }
    text(&mut node, DATA, &file);
    node
}

/// Content below a node, as it says.
fn node_bytes(node: &[u8]) -> Option<usize> {
    let mut rest = node;
    while rest.first() == Some(&LINK) {
        field(&mut rest, LINK)?;
    }
    let mut file = field(&mut rest, DATA)?;
    (take_number(&mut file, FILE_TYPE)? == FILE).then_some(())?;
    usize::try_from(take_number(&mut file, FILE_BYTES)?).ok()
}

/// The first blocks that a node links to.
fn children(node: &[u8], count: usize) -> Option<Vec<B256>> {
    let mut rest = node;
    let mut child = || {
        let mut link = field(&mut rest, LINK)?;
        let cid = Cid::try_from(field(&mut link, LINK_HASH)?).ok()?;
        Some(kind_and_digest(&cid).ok()?.1)
    };
    (0..count).map(|_| child()).collect()
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number(out: &mut Vec<u8>, tag: u8, value: u64) {
    out.push(tag);
    varint(out, value);
}

fn text(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    number(out, tag, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn take_number(rest: &mut &[u8], tag: u8) -> Option<u64> {
    let (first, tail) = rest.split_first()?;
    (*first == tag).then_some(())?;
    *rest = tail;
    let mut value = 0_u64;
    // Ten groups of seven bits hold any number of 64.
    for shift in (0..70).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn field<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let length = usize::try_from(take_number(rest, tag)?).ok()?;
    let (bytes, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use async_trait::async_trait;
    use serde::Deserialize;

    use super::*;

    /// A tree of three levels over 100 bytes.
    const SMALL: Profile = Profile { chunk_bytes: 4, max_links: 3 };

    #[derive(Default)]
    struct Memory {
        blocks: Mutex<HashMap<B256, Bytes>>,
        reads: AtomicUsize,
    }

    #[async_trait]
    impl ContentStore for Memory {
        async fn put(&self, bytes: Bytes) -> Result<B256, StoreError> {
            let digest = digest_of(&bytes);
            self.blocks.lock().unwrap().insert(digest, bytes);
            Ok(digest)
        }

        async fn get(&self, digest: B256) -> Result<Bytes, StoreError> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let block = self.blocks.lock().unwrap().get(&digest).cloned();
            block.ok_or_else(|| StoreError::NotFound { cid: cid_of(digest).to_string() })
        }

        async fn is_pinned(&self, digest: B256) -> Result<bool, StoreError> {
            Ok(self.blocks.lock().unwrap().contains_key(&digest))
        }

        async fn health(&self) -> Result<String, StoreError> {
            Ok("memory".into())
        }
    }

    fn content(bytes: usize) -> Bytes {
        (0..bytes).map(|n| (n % 251) as u8).collect::<Vec<_>>().into()
    }

    #[tokio::test]
    async fn cids_are_those_of_another_implementation() {
        #[derive(Deserialize)]
        struct Vector {
            chunk_bytes: usize,
            max_links: usize,
            bytes: usize,
            cid: String,
        }
        let vectors: Vec<Vector> =
            serde_json::from_str(include_str!("../tests/daemon/cids.json")).unwrap();
        assert!(vectors.len() >= 20);
        for Vector { chunk_bytes, max_links, bytes, cid } in vectors {
            let profile = Profile { chunk_bytes, max_links };
            let store = Memory::default();
            let content = content(bytes);
            let put = put(profile, &store, content.clone()).await.unwrap();
            assert_eq!(put.to_string(), cid, "{bytes} bytes in chunks of {chunk_bytes}");
            assert_eq!(fetch(profile, &store, &put, bytes).await.unwrap(), content);
            if chunk_bytes == PROFILE.chunk_bytes {
                assert_eq!((content_cid(&content), PROFILE.max_links), (put, max_links));
            }
        }
    }

    #[tokio::test]
    async fn every_length_comes_back_and_none_over_the_limit() {
        for bytes in 0..=120 {
            let store = Memory::default();
            let cid = put(SMALL, &store, content(bytes)).await.unwrap();
            assert_eq!(fetch(SMALL, &store, &cid, bytes).await.unwrap(), content(bytes));
            let Some(limit) = bytes.checked_sub(1) else { continue };
            store.reads.store(0, Ordering::Relaxed);
            let over = fetch(SMALL, &store, &cid, limit).await;
            assert!(matches!(over, Err(StoreError::TooLarge { .. })), "{over:?}");
            assert_eq!(store.reads.load(Ordering::Relaxed), 1, "the root alone is read");
        }
    }

    /// Every change of one byte of every node, stored under its own digest: the file is not read as
    /// something else, and not at the price of more blocks than the limit allows.
    #[tokio::test]
    async fn changed_nodes_are_refused() {
        const LIMIT: usize = 200;
        let store = Memory::default();
        put(SMALL, &store, content(100)).await.unwrap();
        let mut nodes = Vec::new();
        plant(SMALL, &content(100), |node| nodes.push(node));
        for node in nodes {
            for at in 0..node.len() {
                for change in [1, 0x40, 0x80, 0xff] {
                    let mut changed = node.clone();
                    changed[at] ^= change;
                    let digest = store.put(changed.into()).await.unwrap();
                    store.reads.store(0, Ordering::Relaxed);
                    let got = fetch(SMALL, &store, &cid_of_kind(DAG_PB, digest), LIMIT).await;
                    assert!(got.is_err(), "byte {at} changed by {change:#x} gives {got:?}");
                    // 50 leaves and the nodes over them.
                    assert!(store.reads.load(Ordering::Relaxed) <= 50 + 17 + 6 + 2 + 1);
                }
            }
        }
    }

    #[tokio::test]
    async fn trees_of_another_shape_are_refused() {
        let store = Memory::default();
        let bytes = content(100);
        // The same content in chunks of another size, under more links a node, or as one node of one leaf.
        for other in [
            Profile { chunk_bytes: 5, max_links: 3 },
            Profile { chunk_bytes: 4, max_links: 4 },
            Profile { chunk_bytes: 50, max_links: 1024 },
        ] {
            let cid = put(other, &store, bytes.clone()).await.unwrap();
            let got = fetch(SMALL, &store, &cid, 1000).await;
            let refused = matches!(got, Err(StoreError::BadFile { .. }));
            assert!(refused && !got.unwrap_err().is_retryable());
        }
        let leaf = Part { digest: digest_of(b"abc"), bytes: 3, tree_bytes: 3 };
        store.put(Bytes::from_static(b"abc")).await.unwrap();
        for node in [encode(RAW, &[leaf]), encode(RAW, &[]), Vec::new(), vec![LINK; 40]] {
            let digest = store.put(node.into()).await.unwrap();
            let got = fetch(SMALL, &store, &cid_of_kind(DAG_PB, digest), 1000).await;
            assert!(matches!(got, Err(StoreError::BadFile { .. })), "{got:?}");
        }
        // Other kinds of CID name no content.
        let hash = *cid_of(digest_of(b"abc")).hash();
        for cid in [Cid::new_v0(hash).unwrap(), Cid::new_v1(0x71, hash)] {
            let got = fetch(SMALL, &store, &cid, 1000).await;
            assert!(matches!(got, Err(StoreError::BadCid { .. })), "{got:?}");
        }
    }

    #[tokio::test]
    async fn a_missing_block_is_named() {
        let store = Memory::default();
        let cid = put(SMALL, &store, content(100)).await.unwrap();
        let leaf = digest_of(&content(100)[40..44]);
        store.blocks.lock().unwrap().remove(&leaf);
        let got = fetch(SMALL, &store, &cid, 100).await;
        assert!(
            matches!(&got, Err(StoreError::NotFound { cid }) if *cid == cid_of(leaf).to_string()),
            "{got:?}"
        );
        // The same put again stores what is missing.
        assert_eq!(put(SMALL, &store, content(100)).await.unwrap(), cid);
        assert_eq!(fetch(SMALL, &store, &cid, 100).await.unwrap(), content(100));
    }
}
