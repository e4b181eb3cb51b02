//! The CID that IPFS gives a file, computed without an IPFS node: raw leaves of 256 KiB under a balanced
//! tree of UnixFS nodes with at most 174 links each.

use std::io::Read;

use cid::{Cid, multihash::Multihash};
use sha2::{Digest, Sha256};

use assay_types::B256;

const CHUNK_BYTES: usize = 256 << 10;
const MAX_LINKS: usize = 174;
const SHA2_256: u64 = 0x12;
const RAW: u64 = 0x55;
const DAG_PB: u64 = 0x70;

/// What one pass over a file gives.
pub(crate) struct FileDigest {
    pub bytes: u64,
    pub sha256: B256,
    pub cid: Cid,
}

/// A node of the tree, as its parent sees it.
struct Link {
    cid: Cid,
    /// Bytes of the file below it.
    content: u64,
    /// Bytes of all blocks below it.
    total: u64,
}

fn cid_of(codec: u64, block: &[u8]) -> std::io::Result<Cid> {
    let hash = Multihash::<64>::wrap(SHA2_256, &Sha256::digest(block))
        .map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(Cid::new_v1(codec, hash))
}

pub(crate) fn digest(mut content: impl Read) -> std::io::Result<FileDigest> {
    let mut whole = Sha256::new();
    let mut leaves = Vec::new();
    let mut bytes = 0;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        content.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() && !leaves.is_empty() {
            break;
        }
        whole.update(&chunk);
        let size = chunk.len() as u64;
        bytes += size;
        leaves.push(Link { cid: cid_of(RAW, &chunk)?, content: size, total: size });
        if chunk.len() < CHUNK_BYTES {
            break;
        }
    }
    let sha256 = B256::from(<[u8; 32]>::from(whole.finalize()));
    Ok(FileDigest { bytes, sha256, cid: root(leaves)? })
}

fn root(mut level: Vec<Link>) -> std::io::Result<Cid> {
    while level.len() > 1 {
        level = level.chunks(MAX_LINKS).map(parent).collect::<Result<_, _>>()?;
    }
    level.pop().map(|link| link.cid).ok_or_else(|| std::io::Error::other("a file without a leaf"))
}

/// A dag-pb node: links first, then the UnixFS message.
fn parent(links: &[Link]) -> std::io::Result<Link> {
    let content = links.iter().map(|l| l.content).sum();
    let mut block = Vec::new();
    for link in links {
        let mut message = Vec::new();
        field_bytes(&mut message, 1, &link.cid.to_bytes());
        field_bytes(&mut message, 2, b"");
        field_varint(&mut message, 3, link.total);
        field_bytes(&mut block, 2, &message);
    }
    let mut file = Vec::new();
    const TYPE_FILE: u64 = 2;
    field_varint(&mut file, 1, TYPE_FILE);
    field_varint(&mut file, 3, content);
    links.iter().for_each(|link| field_varint(&mut file, 4, link.content));
    field_bytes(&mut block, 1, &file);
    let total = links.iter().map(|l| l.total).sum::<u64>() + block.len() as u64;
    Ok(Link { cid: cid_of(DAG_PB, &block)?, content, total })
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn field_varint(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn field_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|i| ((i * 31) + (i >> 8)) as u8).collect()
    }

    /// CIDs from the JavaScript implementation (ipfs-unixfs-importer: CIDv1, raw leaves, chunks of
    /// 262,144 bytes, balanced layout of 174 children, a single leaf stands for itself).
    #[test]
    fn cids_are_those_of_ipfs() {
        for (bytes, cid) in [
            (0, "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
            (1, "bafkreidogqfzz75tpkmjzjke425xqcrmpcib2p5tg44hnbirumdbpl5adu"),
            (262_144, "bafkreicyf2rsjlabvogs5vfihpzfegm2q5hjwrohaneftr2crm6gsnlznm"),
            (262_145, "bafybeidgoqoyg4yhalu6oks2gnsjbs74tnoepwkl77plj4i4rd6lhvt424"),
            (524_288, "bafybeig3atojx6ws4ghqmgsfq7dx43alqpgbcmp3ztg465catkpl7nnija"),
            (1_000_003, "bafybeidap6bmmqwsb7qalkavxblejpqjf4nvydsfk4fgadakklo75iwxaq"),
            (45_613_056, "bafybeictnhkryr6nrwjc27yponmmlpktev4dnsvngaji55edlddqcrcwqu"),
            (45_613_057, "bafybeibceeiwyvx3pxrrewxawlbhjvw5ia7lqgj7pt6zjsw56m6vxph5dq"),
        ] {
            let got = digest(content(bytes).as_slice()).unwrap();
            assert_eq!(got.cid.to_string(), cid, "{bytes} bytes");
            assert_eq!(got.bytes, bytes as u64);
        }
    }

    #[test]
    fn one_leaf_has_the_hash_of_the_file() {
        let got = digest(&b"hello"[..]).unwrap();
        assert_eq!(got.cid.hash().digest(), got.sha256.as_slice());
    }
}
