//! The records of one answer: what the miner keeps and publishes, and what a validator finds.
//!
//! # Proof block
//! The miner's contrasts as bytes, in the order of positions: `int16[m]` for each, big-endian, and nothing
//! else. How many there are is known: `n` from H1, `m` from the calibration. 8 bytes a token, or 4. Its
//! leaves with the ids of the result block give the root that H2 sealed.

use assay_types::{B256, MAX_OUTPUT_LIMIT};

use crate::{
    Contrasts, MerkleError, Reasons, Score, Statistics, Tree, Width, WidthError, audit_leaf, leaf,
    margin_units,
};

/// Why a miner's record is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// No tokens, or more than an answer has.
    #[error("a record has 1 to {MAX_OUTPUT_LIMIT} positions, not {0}")]
    Tokens(usize),
    /// Another number of contrasts than of ids.
    #[error("a record of {ids} ids has the contrasts of {contrasts} positions")]
    Lengths {
        /// Ids.
        ids: usize,
        /// Positions with contrasts.
        contrasts: usize,
    },
    /// Positions have different numbers of contrasts.
    #[error("position {0} has another number of contrasts than the first")]
    Widths(usize),
    /// Cut off, too long, or of another width.
    #[error("a proof block of {tokens} tokens has {want} bytes, not {got}")]
    Bytes {
        /// Its bytes.
        got: usize,
        /// What it has to have.
        want: usize,
        /// Tokens of the answer.
        tokens: usize,
    },
    /// Not what was sealed: of another task, or changed since.
    #[error("the proof block gives the root {got}, sealed was {want}")]
    Root {
        /// Root of the block and the ids.
        got: B256,
        /// Root under H2.
        want: B256,
    },
    /// A number of contrasts that no model has.
    #[error(transparent)]
    Width(#[from] WidthError),
    /// Its tree.
    #[error(transparent)]
    Tree(#[from] MerkleError),
}

/// What a miner recorded: its tokens and the contrasts of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    ids: Vec<u32>,
    contrasts: Vec<Contrasts>,
}

impl Record {
    /// A record of these tokens and contrasts.
    ///
    /// # Errors
    /// If there are none or too many, or they do not go together.
    pub fn new(ids: Vec<u32>, contrasts: Vec<Contrasts>) -> Result<Self, RecordError> {
        if ids.is_empty() || ids.len() > MAX_OUTPUT_LIMIT as usize {
            return Err(RecordError::Tokens(ids.len()));
        }
        if ids.len() != contrasts.len() {
            return Err(RecordError::Lengths { ids: ids.len(), contrasts: contrasts.len() });
        }
        let width = contrasts.first().map(Contrasts::width);
        match contrasts.iter().position(|c| Some(c.width()) != width) {
            Some(place) => Err(RecordError::Widths(place + 1)),
            None => Ok(Self { ids, contrasts }),
        }
    }

    /// Reads a proof block beside the ids of the result block.
    ///
    /// # Errors
    /// If it is not exactly as long as it has to be.
    pub fn decode(bytes: &[u8], ids: Vec<u32>, width: Width) -> Result<Self, RecordError> {
        let (tokens, got) = (ids.len(), bytes.len());
        let want = tokens.saturating_mul(width.bytes());
        if got != want {
            return Err(RecordError::Bytes { got, want, tokens });
        }
        let position = |bytes: &[u8]| {
            let value =
                |pair: &[u8]| pair.iter().fold(0_u16, |all, byte| all << 8 | u16::from(*byte));
            let values: Vec<i16> = bytes.chunks(2).map(|pair| value(pair).cast_signed()).collect();
            Contrasts::new(&values)
        };
        let contrasts = bytes.chunks(width.bytes()).map(position).collect::<Result<_, _>>()?;
        Self::new(ids, contrasts)
    }

    /// [`decode`](Self::decode), and that it is what H2 sealed.
    ///
    /// # Errors
    /// Also if its root is another.
    pub fn open(
        bytes: &[u8],
        ids: Vec<u32>,
        width: Width,
        root: B256,
    ) -> Result<Self, RecordError> {
        let record = Self::decode(bytes, ids, width)?;
        let got = record.tree()?.root();
        if got == root { Ok(record) } else { Err(RecordError::Root { got, want: root }) }
    }

    /// The proof block.
    pub fn encode(&self) -> Vec<u8> {
        self.contrasts.iter().flat_map(|contrasts| contrasts.bytes()).collect()
    }

    /// Its tokens.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Its contrasts, one entry a token.
    pub fn contrasts(&self) -> &[Contrasts] {
        &self.contrasts
    }

    /// The tree over its leaves, whose root H2 seals.
    ///
    /// # Errors
    /// Never of a record that exists.
    pub fn tree(&self) -> Result<Tree, MerkleError> {
        let tokens = self.ids.iter().zip(&self.contrasts);
        Tree::new((1..).zip(tokens).map(|(t, (id, contrasts))| leaf(t, *id, contrasts)).collect())
    }
}

/// What a validator found at one position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The claimed token.
    pub token: u32,
    /// The validator's contrasts.
    pub contrasts: Contrasts,
    /// The token's margin, in 1/65536 nat.
    pub margin: u32,
}

/// What a validator found: at all positions of H1, whether they could be scored or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    findings: Vec<Finding>,
    faults: Reasons,
}

impl Audit {
    /// The audit of an answer of `tokens` tokens with these ids, scores and faults of its own. Positions
    /// that were not scored, because the answer was over before or its ids cannot be, are impossible:
    /// contrasts of 0 and the largest margin, id 0 where there is none.
    pub fn new(tokens: u32, ids: &[u32], scores: &[Score], width: Width, faults: Reasons) -> Self {
        let finding = |place: usize| {
            let score = scores.get(place);
            Finding {
                token: ids.get(place).copied().unwrap_or_default(),
                contrasts: score.map_or(Contrasts::zero(width), |score| score.contrasts),
                margin: score.map_or(u32::MAX, |score| margin_units(score.margin)),
            }
        };
        let tokens = tokens.min(MAX_OUTPUT_LIMIT) as usize;
        Self { findings: (0..tokens).map(finding).collect(), faults }
    }

    /// What was found, position by position.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The validator's fingerprint.
    pub fn contrasts(&self) -> Vec<Contrasts> {
        self.findings.iter().map(|finding| finding.contrasts).collect()
    }

    /// What it commits to beside its root.
    pub fn statistics(&self) -> Statistics {
        let margins: Vec<u32> = self.findings.iter().map(|finding| finding.margin).collect();
        Statistics::new(&margins, self.faults)
    }

    /// The tree over its leaves, whose root H' commits to.
    ///
    /// # Errors
    /// If the answer has no tokens.
    pub fn tree(&self) -> Result<Tree, MerkleError> {
        let hash = |(t, found): (u32, &Finding)| {
            audit_leaf(t, found.token, &found.contrasts, found.margin)
        };
        Tree::new((1..).zip(&self.findings).map(hash).collect())
    }

    /// The positions with the largest margins, at most `count` of them, ascending: what an accuser names.
    pub fn worst_positions(&self, count: usize) -> Vec<u32> {
        let mut places: Vec<(u32, u32)> =
            (1..).zip(&self.findings).map(|(t, found)| (t, found.margin)).collect();
        places.sort_by_key(|(_, margin)| std::cmp::Reverse(*margin));
        places.truncate(count);
        let mut positions: Vec<u32> = places.into_iter().map(|(t, _)| t).collect();
        positions.sort_unstable();
        positions
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(tokens: u32, width: Width) -> Record {
        let of = |t: u32| {
            let values = [t as i16, -(t as i16), i16::MIN, i16::MAX];
            Contrasts::new(&values[..width.contrasts()]).unwrap()
        };
        Record::new((1..=tokens).collect(), (1..=tokens).map(of).collect()).unwrap()
    }

    #[test]
    fn a_proof_block_takes_eight_or_four_bytes_a_token() {
        for (width, bytes) in [(Width::Four, 8), (Width::Two, 4)] {
            let record = record(100, width);
            let block = record.encode();
            assert_eq!(block.len(), 100 * bytes);
            assert_eq!(Record::decode(&block, record.ids.clone(), width), Ok(record));
        }
        assert_eq!(record(1, Width::Two).encode(), [0, 1, 255, 255]);
    }

    #[test]
    fn blocks_of_another_length_are_refused() {
        let record = record(10, Width::Four);
        let block = record.encode();
        let decode = |bytes: &[u8], width| Record::decode(bytes, record.ids.clone(), width);
        for got in [0, 79, 78, 72] {
            let error = decode(&block[..got], Width::Four).unwrap_err();
            assert_eq!(error, RecordError::Bytes { got, want: 80, tokens: 10 });
        }
        let longer = [block.clone(), vec![0; 8]].concat();
        assert!(matches!(decode(&longer, Width::Four), Err(RecordError::Bytes { got: 88, .. })));
        assert!(matches!(decode(&block, Width::Two), Err(RecordError::Bytes { want: 40, .. })));
        assert_eq!(Record::decode(&[], vec![], Width::Four), Err(RecordError::Tokens(0)));
        let many = vec![0; MAX_OUTPUT_LIMIT as usize + 1];
        let error = Record::decode(&vec![0; many.len() * 4], many, Width::Two).unwrap_err();
        assert_eq!(error, RecordError::Tokens(65_537));
    }

    #[test]
    fn a_block_of_another_task_has_another_root() {
        let record = record(10, Width::Four);
        let (block, root) = (record.encode(), record.tree().unwrap().root());
        let open = |bytes: &[u8], ids: Vec<u32>| Record::open(bytes, ids, Width::Four, root);
        assert_eq!(open(&block, record.ids.clone()), Ok(record.clone()));
        let mut edited = record.ids.clone();
        edited[3] = 99;
        assert!(
            matches!(open(&block, edited), Err(RecordError::Root { want, .. }) if want == root)
        );
        let mut changed = block.clone();
        changed[7] ^= 1;
        assert!(matches!(open(&changed, record.ids), Err(RecordError::Root { .. })));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let (four, two) = (Contrasts::zero(Width::Four), Contrasts::zero(Width::Two));
        let error = Record::new(vec![1, 2], vec![four]).unwrap_err();
        assert_eq!(error, RecordError::Lengths { ids: 2, contrasts: 1 });
        assert_eq!(Record::new(vec![1, 2], vec![four, two]), Err(RecordError::Widths(2)));
    }

    #[test]
    fn positions_that_were_not_scored_are_impossible() {
        let score = Score { margin: 0.25, contrasts: Contrasts::new(&[1, 2]).unwrap() };
        let audit = Audit::new(3, &[7, 8], &[score], Width::Two, Reasons::IDS);
        let margins: Vec<u32> = audit.findings().iter().map(|found| found.margin).collect();
        assert_eq!(margins, [16_384, u32::MAX, u32::MAX]);
        let tokens: Vec<u32> = audit.findings().iter().map(|found| found.token).collect();
        assert_eq!(tokens, [7, 8, 0]);
        assert_eq!((audit.statistics().tokens, audit.statistics().faults), (3, Reasons::IDS));
        assert_eq!(audit.worst_positions(2), [2, 3]);
        assert!(audit.tree().is_ok() && audit.statistics().pack().is_ok());
        assert!(Audit::new(0, &[], &[], Width::Two, Reasons::IDS).tree().is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>, ids in prop::collection::vec(any::<u32>(), 0..40), four: bool) {
            let width = if four { Width::Four } else { Width::Two };
            if let Ok(record) = Record::decode(&bytes, ids, width) {
                prop_assert_eq!(record.encode(), bytes);
            }
        }
    }
}
