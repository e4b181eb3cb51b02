//! What a validator seals and opens, and what parties of a dispute open. No IO.

use alloy::primitives::U256;
use assay_bindings::ProofOfInference::{Findings, Leaf, Testimony};
use assay_proof::{
    Audit, Calibration, Contrasts, Failing, MAX_OPENED, MerkleError, Reasons, Record,
    SPOT_POSITIONS, StatisticsError, block_window, compare, draw_positions, verdict,
};
use assay_protocol::audit::{Question, named_positions};
use assay_types::{AuditSeal, B256, CommitScope, NodeId, TaskId, position_seed};

/// Positions in one word: 32 bits each.
const POSITIONS_IN_WORD: usize = 8;

/// Reasons that follow from margins.
const MARGINS: Reasons = Reasons(Reasons::HARD_MARGIN.0 | Reasons::MARGIN_SUM.0);

/// What this node sealed, or is about to: what it found, and the salt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub found: Audit,
    pub salt: B256,
}

/// Something does not go together: a defect, or findings of another answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum EvidenceError {
    #[error(transparent)]
    Merkle(#[from] MerkleError),
    #[error(transparent)]
    Statistics(#[from] StatisticsError),
    #[error("block {block} of an answer of {tokens} tokens does not exist")]
    NoBlock { block: U256, tokens: u32 },
    #[error("position {0} cannot be named")]
    BadPosition(u32),
}

impl Sealed {
    /// H'; `scope` is the validator's.
    pub(crate) fn seal(&self, scope: &CommitScope, miner: NodeId) -> Result<B256, EvidenceError> {
        let root = self.found.tree()?.root();
        let statistics = self.found.statistics().pack()?;
        Ok(AuditSeal { miner, root, statistics, salt: self.salt }.hash(scope))
    }

    /// What is opened at the positions that the round's value draws. `record` is what the miner recorded; `None` if it
    /// cannot be had, or is not what it sealed: then it has to show it itself.
    pub(crate) fn open(
        &self,
        (task, miner): (TaskId, NodeId),
        value: B256,
        record: Option<&Record>,
        limits: &Calibration,
    ) -> Result<Findings, EvidenceError> {
        let (tree, statistics) = (self.found.tree()?, self.found.statistics());
        let seed = position_seed(value, task, miner);
        let positions = draw_positions(seed, 1, statistics.tokens, SPOT_POSITIONS);
        let own = self.found.contrasts();
        let compared = record.and_then(|record| compare(record.contrasts(), &own).ok());
        let failing = compared.map_or(Failing::default(), |compared| compared.failing(limits));
        // Where a panel looks, should the margins be what fails.
        let accuses = verdict(&statistics, failing, true, limits).0 & MARGINS.0 != 0;
        let worst = if accuses { self.found.worst_positions(MAX_OPENED) } else { vec![] };
        let (named, also_named) = pack_positions(&worst);
        Ok(Findings {
            root: tree.root(),
            statistics: statistics.pack()?,
            salt: self.salt,
            failingBlocks: failing.blocks,
            worstBlock: failing.worst,
            named,
            alsoNamed: also_named,
            minerLeaves: record.map_or(vec![], |record| leaves_of(record, &positions)),
            minerNodes: match record {
                Some(record) => record.tree()?.prove(&positions)?,
                None => vec![],
            },
            leaves: self.leaves(&positions),
            nodes: tree.prove(&positions)?,
        })
    }

    /// What is opened in a hearing; no leaves where the question needs none.
    pub(crate) fn testimony(&self, positions: &[u32]) -> Result<Testimony, EvidenceError> {
        let tree = self.found.tree()?;
        Ok(Testimony {
            root: tree.root(),
            statistics: self.found.statistics().pack()?,
            salt: self.salt,
            leaves: self.leaves(positions),
            nodes: if positions.is_empty() { vec![] } else { tree.prove(positions)? },
        })
    }

    fn leaves(&self, positions: &[u32]) -> Vec<Leaf> {
        let at = |position: &u32| self.found.findings().get(position.checked_sub(1)? as usize);
        let leaf = |found: &assay_proof::Finding| Leaf {
            id: found.token,
            contrasts: packed(&found.contrasts),
            margin: found.margin,
        };
        positions.iter().filter_map(at).map(leaf).collect()
    }
}

/// What the miner opens in a hearing.
pub(crate) fn own_testimony(
    record: &Record,
    positions: &[u32],
) -> Result<Testimony, EvidenceError> {
    let tree = record.tree()?;
    Ok(Testimony {
        root: tree.root(),
        statistics: U256::ZERO,
        salt: B256::ZERO,
        leaves: leaves_of(record, positions),
        nodes: tree.prove(positions)?,
    })
}

/// Positions that a hearing compares. `value` is the round's, for the weights alone.
pub(crate) fn compared_positions(
    audit: &assay_bindings::ProofOfInference::Audit,
    question: Question,
    value: B256,
) -> Result<Vec<u32>, EvidenceError> {
    match question {
        Question::None | Question::Content => Ok(vec![]),
        Question::Sampling => named_positions(audit.named, audit.alsoNamed, audit.outputTokens)
            .map_err(EvidenceError::BadPosition),
        Question::Weights => {
            let (block, tokens) = (audit.named, audit.outputTokens);
            // An answer that is too short for blocks is looked at whole.
            let window = match u32::try_from(block) {
                Ok(0) => Some(block_window(tokens, 0).unwrap_or((1, tokens))),
                Ok(index) => block_window(tokens, index),
                Err(_) => None,
            };
            let (first, count) = window.ok_or(EvidenceError::NoBlock { block, tokens })?;
            let seed = position_seed(value, TaskId(audit.taskId), NodeId(audit.nodeId));
            Ok(draw_positions(seed, first, count, MAX_OPENED as u32))
        }
    }
}

fn leaves_of(record: &Record, positions: &[u32]) -> Vec<Leaf> {
    let at = |position: &u32| {
        let place = position.checked_sub(1)? as usize;
        Some((record.ids().get(place)?, record.contrasts().get(place)?))
    };
    let leaf = |(id, contrasts): (&u32, &Contrasts)| Leaf {
        id: *id,
        contrasts: packed(contrasts),
        margin: 0,
    };
    positions.iter().filter_map(at).map(leaf).collect()
}

/// int16 each, the first highest.
fn packed(contrasts: &Contrasts) -> u64 {
    contrasts.bytes().fold(0, |word, byte| word << 8 | u64::from(byte))
}

/// 32 bits each, the first highest, zeros behind the last.
fn pack_positions(positions: &[u32]) -> (U256, U256) {
    let word = |positions: &[u32]| {
        let places = positions.iter().chain(std::iter::repeat(&0)).take(POSITIONS_IN_WORD);
        places.fold(U256::ZERO, |word, position| word << 32 | U256::from(*position))
    };
    let (first, rest) = positions.split_at(positions.len().min(POSITIONS_IN_WORD));
    (word(first), word(rest))
}

#[cfg(test)]
mod tests {
    use assay_proof::{MAX_WIDTH, Score, Tree, audit_leaf, leaf, verify};

    use super::*;

    const TASK: TaskId = TaskId(B256::repeat_byte(1));
    const MINER: NodeId = NodeId(7);

    fn contrasts(value: i16) -> Contrasts {
        Contrasts::new(&[value, -value, i16::MIN, i16::MAX]).unwrap()
    }

    /// An answer of so many tokens: what its miner recorded, and what a validator with contrasts that are off by `off`
    /// found.
    fn both(tokens: u32, off: i16) -> (Record, Sealed) {
        let ids: Vec<u32> = (100..100 + tokens).collect();
        let own: Vec<i16> = (0..tokens as i16).collect();
        let record = Record::new(ids.clone(), own.iter().map(|c| contrasts(*c)).collect()).unwrap();
        let scores: Vec<Score> = own
            .iter()
            .map(|c| Score { margin: f64::from(*c) / 65536.0, contrasts: contrasts(*c + off) })
            .collect();
        let found = Audit::new(tokens, &ids, &scores, assay_proof::Width::Four, Reasons::default());
        (record, Sealed { found, salt: B256::repeat_byte(3) })
    }

    fn named(findings: &Findings) -> Vec<u32> {
        named_positions(findings.named, findings.alsoNamed, 100).unwrap()
    }

    fn limits() -> Calibration {
        Calibration {
            tau: 4,
            spot_tau: 8,
            block_limit: 1,
            width: assay_proof::Width::Four,
            hard_margin: 65536,
            margin_bar: 65536,
            thr_base: 65536,
            thr_slope: 0,
            thr_spread: 0,
            drift: 1,
            drift_limit: 1,
        }
    }

    #[test]
    fn what_is_opened_is_under_both_roots() {
        for tokens in [1, 3, 4, 100] {
            let (record, sealed) = both(tokens, 2);
            let opened = sealed.open((TASK, MINER), B256::ZERO, Some(&record), &limits()).unwrap();
            assert_eq!(opened.failingBlocks, 0);
            let seed = position_seed(B256::ZERO, TASK, MINER);
            let positions = draw_positions(seed, 1, tokens, SPOT_POSITIONS);
            let unpacked = |leaf: &Leaf| {
                let values: Vec<i16> =
                    (0..MAX_WIDTH).rev().map(|j| (leaf.contrasts >> (16 * j)) as i16).collect();
                Contrasts::new(&values).unwrap()
            };
            let theirs: Vec<_> = positions
                .iter()
                .zip(&opened.minerLeaves)
                .map(|(t, l)| (*t, leaf(*t, l.id, &unpacked(l))))
                .collect();
            let root = record.tree().unwrap().root();
            verify(root, tokens, &theirs, &opened.minerNodes).unwrap();
            let ours: Vec<_> = positions
                .iter()
                .zip(&opened.leaves)
                .map(|(t, l)| (*t, audit_leaf(*t, l.id, &unpacked(l), l.margin)))
                .collect();
            verify(opened.root, tokens, &ours, &opened.nodes).unwrap();
        }
    }

    #[test]
    fn other_weights_fail_every_block_and_a_hidden_proof_shows_nothing() {
        let (record, sealed) = both(100, 50);
        let opened = sealed.open((TASK, MINER), B256::ZERO, Some(&record), &limits()).unwrap();
        // The saturated ones are as far off as the others.
        assert_eq!((opened.failingBlocks, opened.worstBlock), (3, 0));
        let hidden = sealed.open((TASK, MINER), B256::ZERO, None, &limits()).unwrap();
        assert_eq!((hidden.failingBlocks, hidden.minerLeaves.len()), (0, 0));
        assert_eq!(hidden.leaves, opened.leaves);
        assert!(named(&opened).is_empty());
        let strict = Calibration { hard_margin: 1, ..limits() };
        let accused = sealed.open((TASK, MINER), B256::ZERO, None, &strict).unwrap();
        assert_eq!(named(&accused), (85..=100).collect::<Vec<_>>());
    }

    #[test]
    fn a_hearing_compares_the_block_that_was_named() {
        let (record, sealed) = both(100, 0);
        let audit = assay_bindings::ProofOfInference::Audit {
            taskId: TASK.0,
            nodeId: MINER.0,
            outputTokens: 100,
            named: U256::from(2),
            ..Default::default()
        };
        let positions = compared_positions(&audit, Question::Weights, B256::ZERO).unwrap();
        assert_eq!(positions.len(), MAX_OPENED);
        assert!(positions.iter().all(|t| (65..=100).contains(t)));
        let (own, theirs) =
            (own_testimony(&record, &positions).unwrap(), sealed.testimony(&positions).unwrap());
        assert_eq!(own.leaves[0].id, theirs.leaves[0].id);
        assert_eq!(own.root, record.tree().unwrap().root());
        let missing =
            assay_bindings::ProofOfInference::Audit { named: U256::from(3), ..audit.clone() };
        assert!(compared_positions(&missing, Question::Weights, B256::ZERO).is_err());
        let short = assay_bindings::ProofOfInference::Audit {
            outputTokens: 3,
            named: U256::ZERO,
            ..audit.clone()
        };
        assert_eq!(compared_positions(&short, Question::Weights, B256::ZERO).unwrap(), [1, 2, 3]);
        assert!(compared_positions(&audit, Question::Content, B256::ZERO).unwrap().is_empty());
        assert!(sealed.testimony(&[]).unwrap().nodes.is_empty());
    }

    #[test]
    fn positions_fill_two_words() {
        for count in [0, 1, 8, 9, 16] {
            let positions: Vec<u32> = (1..=count).map(|t| t * 1000).collect();
            let (named, also) = pack_positions(&positions);
            assert_eq!(named_positions(named, also, 16_000), Ok(positions));
        }
        assert_eq!(pack_positions(&[1]).0, U256::from(1) << 224);
    }

    #[test]
    fn a_seal_binds_salt_and_findings() {
        let scope = CommitScope {
            chain_id: 1,
            queue: assay_types::Address::ZERO,
            task: TASK,
            node: NodeId(9),
        };
        let (_, sealed) = both(10, 0);
        let seal = sealed.seal(&scope, MINER).unwrap();
        assert_eq!(seal, sealed.clone().seal(&scope, MINER).unwrap());
        let (_, other) = both(10, 1);
        let salted = Sealed { salt: B256::ZERO, ..sealed };
        assert_ne!(seal, salted.seal(&scope, MINER).unwrap());
        assert_ne!(seal, other.seal(&scope, MINER).unwrap());
        assert!(Tree::new(vec![]).is_err());
    }
}
