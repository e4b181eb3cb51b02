//! Digest on chain and CID of the same block: one is the other with a fixed prefix.

use assay_types::B256;
use cid::Cid;
use multihash_codetable::{Code, MultihashDigest};

use crate::StoreError;

/// Code of plain bytes in the multicodec table.
pub(crate) const RAW: u64 = 0x55;
/// Code of nodes with links.
pub(crate) const DAG_PB: u64 = 0x70;
/// Code of sha-256 in the multicodec table.
const SHA2_256: u64 = 0x12;
/// A CID in any base of the table, of the 36 bytes used here, is far below this; longer texts are refused unread.
const MAX_CID_CHARS: usize = 512;

/// sha-256 of the bytes: the address of one raw block.
pub fn digest_of(bytes: &[u8]) -> B256 {
    let hash = Code::Sha2_256.digest(bytes);
    let mut digest = B256::ZERO;
    // The digest of sha-256 is 32 bytes by definition of the code.
    digest.0.copy_from_slice(hash.digest());
    digest
}

/// CIDv1 (raw, sha2-256) of the block with this digest.
pub fn cid_of(digest: B256) -> Cid {
    cid_of_kind(RAW, digest)
}

pub(crate) fn cid_of_kind(kind: u64, digest: B256) -> Cid {
    // `wrap` fails above 64 bytes only; a digest has 32.
    let hash =
        cid::multihash::Multihash::<64>::wrap(SHA2_256, digest.as_slice()).unwrap_or_default();
    Cid::new_v1(kind, hash)
}

/// Digest of the block that this CID names.
///
/// # Errors
/// [`StoreError::BadCid`] for anything but CIDv1, raw, sha2-256 of 32 bytes: other CIDs name nothing
/// that stands on chain.
pub fn digest_from_cid(cid: &Cid) -> Result<B256, StoreError> {
    match kind_and_digest(cid)? {
        (RAW, digest) => Ok(digest),
        _ => Err(bad_kind(cid, "it is not a CIDv1 of a raw block under sha2-256")),
    }
}

/// Kind and digest of the block that this CID names: [`RAW`] or [`DAG_PB`].
pub(crate) fn kind_and_digest(cid: &Cid) -> Result<(u64, B256), StoreError> {
    let hash = cid.hash();
    let known = matches!(cid.codec(), RAW | DAG_PB);
    if cid.version() != cid::Version::V1 || !known || hash.code() != SHA2_256 {
        return Err(bad_kind(cid, "it is not a CIDv1 of a raw block or a file under sha2-256"));
    }
    let digest = B256::try_from(hash.digest());
    let digest = digest.map_err(|_| bad_kind(cid, "its sha2-256 digest is not 32 bytes"))?;
    Ok((cid.codec(), digest))
}

fn bad_kind(cid: &Cid, reason: &'static str) -> StoreError {
    StoreError::BadCid { cid: cid.to_string(), reason }
}

/// Reads a CID from text, with or without `/ipfs/` before it.
///
/// # Errors
/// [`StoreError::BadCid`] where the text is no CID.
pub fn parse_cid(text: &str) -> Result<Cid, StoreError> {
    let bare = text.strip_prefix("/ipfs/").unwrap_or(text);
    if bare.len() > MAX_CID_CHARS {
        return Err(StoreError::BadCid {
            cid: bare.chars().take(80).collect(),
            reason: "it is longer than any CID",
        });
    }
    Cid::try_from(bare).map_err(|_| StoreError::BadCid {
        cid: bare.to_owned(),
        reason: "it does not parse as a CID",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_cids() {
        // Computed apart from this code: base32 of 01 55 12 20 and what `sha256sum` prints.
        for (bytes, cid) in [
            (&b"hello world"[..], "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"),
            (&b""[..], "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
        ] {
            let digest = digest_of(bytes);
            assert_eq!(cid_of(digest).to_string(), cid);
            assert_eq!(digest_from_cid(&parse_cid(cid).unwrap()).unwrap(), digest);
            assert_eq!(parse_cid(&format!("/ipfs/{cid}")).unwrap(), cid_of(digest));
        }
    }

    #[test]
    fn known_digest() {
        let want = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9";
        assert_eq!(digest_of(b"hello world"), want.parse::<B256>().unwrap());
    }

    #[test]
    fn other_kinds_of_cid_are_refused() {
        let same_hash = *cid_of(digest_of(b"hello world")).hash();
        let short = cid::multihash::Multihash::<64>::wrap(SHA2_256, &[7; 20]).unwrap();
        let other = cid::multihash::Multihash::<64>::wrap(0x1b, &[7; 32]).unwrap();
        for cid in [
            Cid::new_v0(same_hash).unwrap(),
            Cid::new_v1(0x70, same_hash),
            Cid::new_v1(RAW, short),
            Cid::new_v1(RAW, other),
        ] {
            assert!(matches!(digest_from_cid(&cid), Err(StoreError::BadCid { .. })), "{cid}");
        }
        let long = "b".repeat(100_000);
        for text in ["", "/ipfs/", "hello", "../../etc/passwd", long.as_str()] {
            assert!(matches!(parse_cid(text), Err(StoreError::BadCid { .. })));
        }
    }
}
