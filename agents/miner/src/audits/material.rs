//! What this node found, in its database: before the chain sees the seal, and until the audit is over.

use alloy::primitives::{B256, U256};
use assay_chain::DatabaseError;
use assay_proof::{Audit, Contrasts, Finding, MARGINS_PER_NAT, Score, Statistics, Width};
use assay_types::{NodeId, TaskId};
use rusqlite::{OptionalExtension, Row, params};

use super::evidence::Sealed;
use crate::answers::{Answers, failure};

/// Bytes of an id, and of a margin.
const WORD: usize = 4;

/// A row that is none: the database was changed by somebody else.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("stored findings cannot be read: restore the database from a backup")]
struct Corrupt;

fn encode(found: &Audit) -> Vec<u8> {
    let leaf = |finding: &Finding| {
        let mut bytes = finding.token.to_be_bytes().to_vec();
        bytes.extend(finding.contrasts.bytes());
        bytes.extend(finding.margin.to_be_bytes());
        bytes
    };
    found.findings().iter().flat_map(leaf).collect()
}

fn decode(statistics: U256, bytes: &[u8]) -> Option<Audit> {
    let statistics = Statistics::unpack(statistics).ok()?;
    let tokens = statistics.tokens as usize;
    let size = bytes.len().checked_div(tokens)?;
    let width = [Width::Two, Width::Four]
        .into_iter()
        .find(|width| width.bytes() + 2 * WORD == size && size * tokens == bytes.len())?;
    let number = |bytes: &[u8]| bytes.iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte));
    let (mut ids, mut scores) = (Vec::with_capacity(tokens), Vec::with_capacity(tokens));
    for leaf in bytes.chunks(size) {
        let (id, rest) = leaf.split_at_checked(WORD)?;
        let (contrasts, margin) = rest.split_at_checked(width.bytes())?;
        let values: Vec<i16> = contrasts.chunks(2).map(|pair| number(pair) as u16 as i16).collect();
        ids.push(number(id));
        // Exact: a double holds every such number.
        let margin = f64::from(number(margin)) / MARGINS_PER_NAT;
        scores.push(Score { margin, contrasts: Contrasts::new(&values).ok()? });
    }
    let found = Audit::new(statistics.tokens, &ids, &scores, width, statistics.faults);
    (found.statistics() == statistics).then_some(found)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Sealed> {
    let (salt, statistics, leaves): (Vec<u8>, Vec<u8>, Vec<u8>) =
        (row.get("salt")?, row.get("statistics")?, row.get("leaves")?);
    let statistics = U256::try_from_be_slice(&statistics).ok_or_else(|| failure(Corrupt))?;
    let found = decode(statistics, &leaves).ok_or_else(|| failure(Corrupt))?;
    Ok(Sealed { found, salt: B256::try_from(salt.as_slice()).map_err(failure)? })
}

impl Answers {
    /// What this node sealed, or is about to.
    pub(crate) fn sealed(
        &self,
        (task, miner): (TaskId, NodeId),
    ) -> Result<Option<Sealed>, DatabaseError> {
        self.database().transaction(|tx| {
            tx.prepare_cached("SELECT * FROM findings WHERE task_id = ? AND miner = ?")?
                .query_row(params![task.0.as_slice(), miner.0], read)
                .optional()
        })
    }

    /// Stores what is about to be sealed, once: what was stored first is what counts, and is returned.
    pub(crate) fn seal(
        &self,
        (task, miner): (TaskId, NodeId),
        sealed: Sealed,
    ) -> Result<Sealed, DatabaseError> {
        self.database().transaction(|tx| {
            let statistics = sealed.found.statistics().pack().map_err(failure)?;
            tx.prepare_cached(
                "INSERT OR IGNORE INTO findings (task_id, miner, salt, statistics, leaves) VALUES (?, ?, ?, ?, ?)",
            )?
            .execute(params![
                task.0.as_slice(),
                miner.0,
                sealed.salt.as_slice(),
                statistics.to_be_bytes::<32>().as_slice(),
                encode(&sealed.found),
            ])?;
            tx.prepare_cached("SELECT * FROM findings WHERE task_id = ? AND miner = ?")?
                .query_row(params![task.0.as_slice(), miner.0], read)
        })
    }
}

#[cfg(test)]
mod tests {
    use assay_chain::Database;
    use assay_proof::Reasons;

    use super::*;
    use crate::MIGRATIONS;

    fn sealed(salt: u8, margin: f64) -> Sealed {
        let score =
            |margin| Score { margin, contrasts: Contrasts::new(&[1, -2, i16::MIN, 3]).unwrap() };
        let scores = [score(0.0), score(margin), score(f64::INFINITY)];
        // The fourth was not scored, the fifth not even claimed.
        let found = Audit::new(5, &[7, 8, u32::MAX, 9], &scores, Width::Four, Reasons::END);
        Sealed { found, salt: B256::repeat_byte(salt) }
    }

    #[test]
    fn the_first_findings_of_an_audit_stand_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("miner.db");
        let key = (TaskId(B256::repeat_byte(1)), NodeId(2));
        let first = sealed(1, 0.123);
        {
            let answers = Answers::new(Database::open(&path, MIGRATIONS).unwrap());
            assert_eq!(answers.sealed(key).unwrap(), None);
            assert_eq!(answers.seal(key, first.clone()).unwrap(), first);
        }
        // Another life finds the same, and no other findings replace them.
        let answers = Answers::new(Database::open(&path, MIGRATIONS).unwrap());
        assert_eq!(answers.seal(key, sealed(2, 0.5)).unwrap(), first);
        assert_eq!(answers.sealed(key).unwrap(), Some(first));
        let changed = answers
            .database()
            .transaction(|tx| tx.execute("UPDATE findings SET salt = zeroblob(32)", []));
        assert!(changed.unwrap_err().to_string().contains("findings are final"));
        assert_eq!(answers.sealed((key.0, NodeId(3))).unwrap(), None);
    }

    #[test]
    fn what_was_changed_by_others_is_not_used() {
        let found = sealed(1, 0.5).found;
        let (word, bytes) = (found.statistics().pack().unwrap(), encode(&found));
        assert_eq!(decode(word, &bytes), Some(found));
        assert_eq!(decode(word, &bytes[1..]), None);
        assert_eq!(decode(word, &[]), None);
        assert_eq!(decode(U256::MAX, &bytes), None);
        let mut other = bytes;
        other[15] ^= 1;
        assert_eq!(decode(word, &other), None);
    }
}
