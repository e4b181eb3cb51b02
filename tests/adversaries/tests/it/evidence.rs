//! What validators commit to and open, and what the parties of a dispute open.

use alloy::primitives::U256;
use assay_bindings::ProofOfInference::{self, Findings, Leaf, Party, Testimony};
use assay_proof::{
    Audit, Contrasts, Failing, Finding, MAX_OPENED, Reasons, SPOT_POSITIONS, Score, Width,
    block_window, blocks, compare, draw_positions, verdict,
};
use assay_types::{AuditSeal, B256, CommitScope, NodeId, TaskId, keccak256, position_seed};

use crate::{
    answers::{Submission, Task},
    calibration::CALIBRATION,
    validators::Duty,
};

/// Positions in one word: 32 bits each.
const POSITIONS_IN_WORD: usize = 8;
/// A margin that nobody honest has, in nats.
const INVENTED_MARGIN: f64 = 3.0;

fn is_blind(duty: Duty) -> bool {
    matches!(duty, Duty::CannotRead | Duty::SaysUnread)
}

/// What somebody committed to.
pub struct Sealed {
    pub duty: Duty,
    pub word: B256,
    found: Audit,
    salt: B256,
}

impl Sealed {
    /// What `node` commits to in a panel of `peers`, or before there is one; nothing if it is silent.
    pub fn by(
        duty: Duty,
        node: u32,
        task: &Task,
        submission: &Submission,
        (audit, peers): (&ProofOfInference::Audit, &[Party]),
    ) -> Option<Self> {
        let found = match duty {
            Duty::Silent => return None,
            Duty::Guesses => invented(submission, 0, Reasons::default()),
            Duty::Vouches => vouching(submission),
            Duty::AccusesWithInvented => invented(submission, 4000, Reasons::default()),
            _ => {
                let block = submission.block(task);
                // What is not found is published by now.
                let is_readable = !submission.is_lost() && !is_blind(duty);
                let seal = submission.seal(task);
                task.examined(node, &seal, is_readable.then_some(&block)).audit
            }
        };
        let found = match duty {
            Duty::AccusesTheSampling => with_margins(&found, submission),
            Duty::AccusesTheEnd => with_faults(&found, submission, Reasons::END),
            _ => found,
        };
        let salt = keccak256(node.to_be_bytes());
        let mut sealed = Self { duty, word: B256::ZERO, found, salt };
        sealed.word = match duty {
            Duty::Garbage => keccak256("nothing"),
            Duty::CopiesTheMiner => audit.root,
            Duty::CopiesAPeer => {
                let peer = peers.iter().skip(2).find(|peer| peer.isSealed);
                peer.expect("somebody committed before").root
            }
            _ => sealed.seal(&task.scope, node),
        };
        Some(sealed)
    }

    /// H'.
    fn seal(&self, miners: &CommitScope, node: u32) -> B256 {
        let seal = AuditSeal {
            miner: miners.node,
            root: self.root(),
            statistics: self.statistics(),
            salt: self.salt,
        };
        seal.hash(&CommitScope { node: NodeId(node), ..*miners })
    }

    /// Whether it says that the answer cannot be read.
    pub fn is_unread(&self) -> bool {
        self.found.statistics().faults.contains(Reasons::IDS)
    }

    fn root(&self) -> B256 {
        self.found.tree().unwrap().root()
    }

    fn statistics(&self) -> U256 {
        self.found.statistics().pack().unwrap()
    }

    /// What is opened at the positions that the round's value draws.
    pub fn findings(&self, task: &Task, submission: &Submission, value: B256) -> Findings {
        let tokens = submission.tokens();
        let seed = position_seed(value, task.scope.task, task.scope.node);
        let positions = draw_positions(seed, 1, tokens, SPOT_POSITIONS);
        let record = submission.record();
        // Whoever has no answer, or no proof of it, or one that is not under the root, cannot show the miner's leaves.
        let shows = !submission.is_lost() && submission.publishes_proof && !is_blind(self.duty);
        let failing = self.failing(submission, shows);
        let statistics = self.found.statistics();
        let margins = Reasons::HARD_MARGIN | Reasons::MARGIN_SUM;
        let reasons = verdict(&statistics, failing, true, &CALIBRATION);
        let accuses = reasons.0 & margins.0 != 0;
        let worst = if accuses { self.found.worst_positions(MAX_OPENED) } else { Vec::new() };
        let (first, rest) = worst.split_at(worst.len().min(POSITIONS_IN_WORD));
        let proven = |tree: assay_proof::Tree| tree.prove(&positions).unwrap();
        Findings {
            root: self.root(),
            statistics: self.statistics(),
            salt: self.salt,
            failingBlocks: failing.blocks,
            worstBlock: failing.worst,
            named: packed_positions(first),
            alsoNamed: packed_positions(rest),
            minerLeaves: if shows { miners_leaves(submission, &positions) } else { Vec::new() },
            minerNodes: if shows { proven(record.tree().unwrap()) } else { Vec::new() },
            leaves: self.leaves(&positions),
            nodes: proven(self.found.tree().unwrap()),
        }
    }

    fn failing(&self, submission: &Submission, shows: bool) -> Failing {
        match self.duty {
            Duty::AccusesWithItsOwn | Duty::AccusesWithInvented => {
                Failing { blocks: blocks(submission.tokens()) as u16, worst: 0 }
            }
            _ if !shows => Failing::default(),
            _ => {
                let comparison = compare(&submission.contrasts, &self.found.contrasts());
                comparison.unwrap().failing(&CALIBRATION)
            }
        }
    }

    pub fn testimony(&self, positions: &[u32]) -> Testimony {
        let tree = self.found.tree().unwrap();
        Testimony {
            root: tree.root(),
            statistics: self.statistics(),
            salt: self.salt,
            leaves: self.leaves(positions),
            nodes: if positions.is_empty() { Vec::new() } else { tree.prove(positions).unwrap() },
        }
    }

    fn leaves(&self, positions: &[u32]) -> Vec<Leaf> {
        let leaf = |found: &Finding| Leaf {
            id: found.token,
            contrasts: packed(&found.contrasts),
            margin: found.margin,
        };
        positions.iter().map(|t| leaf(&self.found.findings()[*t as usize - 1])).collect()
    }
}

/// What the miner opens in a hearing.
pub fn miners(submission: &Submission, positions: &[u32]) -> Testimony {
    Testimony {
        root: submission.proof().root,
        statistics: U256::ZERO,
        salt: B256::ZERO,
        leaves: miners_leaves(submission, positions),
        nodes: submission.tree().prove(positions).unwrap(),
    }
}

fn miners_leaves(submission: &Submission, positions: &[u32]) -> Vec<Leaf> {
    let leaf = |place: usize| Leaf {
        id: submission.ids[place],
        contrasts: packed(&submission.contrasts[place]),
        margin: 0,
    };
    positions.iter().map(|t| leaf(*t as usize - 1)).collect()
}

/// Whether it is asked whose contrasts are the weights'.
pub fn is_of_weights(audit: &ProofOfInference::Audit) -> bool {
    audit.reasons & (Reasons::FINGERPRINT | Reasons::SPOT).0 != 0
}

/// The positions that a hearing compares; none where only flags are counted.
pub fn compared(audit: &ProofOfInference::Audit, value: B256) -> Vec<u32> {
    let reasons = Reasons(audit.reasons);
    if is_of_weights(audit) {
        let (block, tokens) = (audit.named.to::<u32>(), audit.outputTokens);
        let (first, count) = block_window(tokens, block).unwrap_or((1, tokens));
        let seed = position_seed(value, TaskId(audit.taskId), NodeId(audit.nodeId));
        return draw_positions(seed, first, count, MAX_OPENED as u32);
    }
    if Reasons::OF_THE_ANSWER.contains(reasons) {
        return Vec::new();
    }
    let words = [audit.named, audit.alsoNamed];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes::<32>()).collect();
    let position = |four: &[u8]| four.iter().fold(0, |all, byte| all << 8 | u32::from(*byte));
    bytes.chunks(4).map(position).take_while(|position| *position != 0).collect()
}

/// 32 bits each, the first highest.
fn packed_positions(positions: &[u32]) -> U256 {
    let places = positions.iter().chain(std::iter::repeat(&0)).take(POSITIONS_IN_WORD);
    places.fold(U256::ZERO, |word, position| word << 32 | U256::from(*position))
}

/// int16 each, the first highest.
fn packed(contrasts: &Contrasts) -> u64 {
    contrasts.bytes().fold(0, |word, byte| word << 8 | u64::from(byte))
}

fn scored(submission: &Submission, scores: &[Score], faults: Reasons) -> Audit {
    Audit::new(submission.tokens(), &submission.ids, scores, Width::Four, faults)
}

/// Without a look at any model.
fn invented(submission: &Submission, contrast: i16, faults: Reasons) -> Audit {
    let contrasts = Contrasts::new(&[contrast; 4]).unwrap();
    scored(submission, &vec![Score { margin: 0.0, contrasts }; submission.ids.len()], faults)
}

/// The miner's own contrasts, and no margin.
fn vouching(submission: &Submission) -> Audit {
    let score = |contrasts: &Contrasts| Score { margin: 0.0, contrasts: *contrasts };
    let scores: Vec<Score> = submission.contrasts.iter().map(score).collect();
    scored(submission, &scores, Reasons::default())
}

fn with_margins(found: &Audit, submission: &Submission) -> Audit {
    let score = |(place, finding): (usize, &Finding)| Score {
        margin: if place < MAX_OPENED { INVENTED_MARGIN } else { 0.0 },
        contrasts: finding.contrasts,
    };
    let scores: Vec<Score> = found.findings().iter().enumerate().map(score).collect();
    scored(submission, &scores, Reasons::default())
}

fn with_faults(found: &Audit, submission: &Submission, faults: Reasons) -> Audit {
    let score = |finding: &Finding| Score { margin: 0.0, contrasts: finding.contrasts };
    let scores: Vec<Score> = found.findings().iter().map(score).collect();
    scored(submission, &scores, faults)
}
