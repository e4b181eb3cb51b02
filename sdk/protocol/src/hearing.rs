//! How a panel decides over an answer that its validator found false. Parties are bits: the miner, the accuser, and the
//! members behind them.

use std::collections::BTreeSet;

use alloy::primitives::{Address, B256, U256};
use assay_bindings::ProofOfInference::{Audit, Party};
use assay_proof::{
    CLUSTER_QUORUM, Calibration, Contrasts, FULL_BLOCK, Failing, Member, Opened, Reasons,
    Statistics, Width, cluster, margins_convict, verdict,
};

use crate::{
    audit::Question,
    num::int,
    state::{Gap, State, known},
};

pub(crate) const MINER: usize = 0;
pub(crate) const ACCUSER: usize = 1;
pub(crate) const FIRST_MEMBER: usize = 2;
/// Owners that must have measured a pair of classes before it costs stake.
const ATTESTATIONS: usize = 3;
/// Positions that one word holds: of margins, and of contrasts.
const MARGINS_PER_WORD: usize = 8;
const POSITIONS_PER_WORD: usize = 4;

/// What a hearing comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ruling {
    /// Enough of them had a word.
    pub(crate) decided: bool,
    /// The answer is false.
    pub(crate) guilty: bool,
    /// Who found the answer false.
    pub(crate) failing: u32,
    /// Who is contradicted by a quorum, and who is the quorum.
    pub(crate) losers: u32,
    pub(crate) against: u32,
    /// What it is false for, if not for what was asked.
    pub(crate) instead: Option<Question>,
}

/// Members of a first panel: with the accuser, one more than the quorum.
pub(crate) const MEMBERS: usize = 3;

/// Whether these are the parties of an appeal.
pub fn is_appeal(parties: &[Party]) -> bool {
    parties.len() > FIRST_MEMBER + MEMBERS
}

/// Places of the parties that are in a set.
pub(crate) fn places(set: u32) -> impl Iterator<Item = usize> {
    (0..u32::BITS as usize).filter(move |place| set >> place & 1 == 1)
}

/// Nodes of the parties that are in a set.
pub(crate) fn nodes_in(parties: &[Party], set: u32) -> Vec<u32> {
    places(set).filter_map(|place| parties.get(place)).map(|party| party.nodeId).collect()
}

fn bits(parties: &[Party], from: usize, has: impl Fn(&Party) -> bool) -> u32 {
    let found = parties.iter().enumerate().skip(from).filter(|(_, party)| has(party));
    found.fold(0, |set, (place, _)| set | 1 << place)
}

/// Those that have opened.
pub(crate) fn open_of(parties: &[Party]) -> u32 {
    bits(parties, MINER, |party| party.isOpen)
}

/// Those that have committed and not opened. The miner and the accuser have to where contrasts are compared.
pub(crate) fn missing_of(parties: &[Party], question: Question) -> u32 {
    let first = if question == Question::Weights { MINER } else { FIRST_MEMBER };
    bits(parties, first, |party| party.isSealed && !party.isOpen)
}

/// The contrasts of a leaf, which are the lowest bits of its word; `None` if there is more.
pub(crate) fn contrasts(word: u64, width: Width) -> Option<Contrasts> {
    let bytes = word.to_be_bytes();
    let (more, bytes) = bytes.split_at(bytes.len() - width.bytes());
    let pair = |pair: &[u8]| pair.iter().fold(0_u16, |all, byte| all << 8 | u16::from(*byte));
    let values: Vec<i16> = bytes.chunks(2).map(|bytes| pair(bytes).cast_signed()).collect();
    Contrasts::new(&values).ok().filter(|_| more.iter().all(|byte| *byte == 0))
}

/// What a party keeps of a leaf's contrasts, at the place of its position.
pub(crate) fn keep_contrasts(values: &mut [U256; 4], place: usize, word: u64) {
    if let Some(kept) = values.get_mut(place / POSITIONS_PER_WORD) {
        *kept |= U256::from(word) << (192 - 64 * (place % POSITIONS_PER_WORD));
    }
}

/// The same of its margin.
pub(crate) fn keep_margin(values: &mut [U256; 4], place: usize, margin: u32) {
    if let Some(kept) = values.get_mut(place / MARGINS_PER_WORD) {
        *kept |= U256::from(margin) << (224 - 32 * (place % MARGINS_PER_WORD));
    }
}

fn contrasts_at(party: &Party, place: usize) -> u64 {
    let word = party.values.get(place / POSITIONS_PER_WORD).copied().unwrap_or_default();
    int(word >> (192 - 64 * (place % POSITIONS_PER_WORD)) & U256::from(u64::MAX))
}

fn margin_at(party: &Party, place: usize) -> u32 {
    let word = party.values.get(place / MARGINS_PER_WORD).copied().unwrap_or_default();
    (word >> (224 - 32 * (place % MARGINS_PER_WORD)) & U256::from(u32::MAX)).saturating_to()
}

/// The panel's words of what they found; they were checked when they were opened.
fn words_of(parties: &[Party]) -> Vec<(usize, Statistics)> {
    let members = parties.iter().enumerate().skip(FIRST_MEMBER).filter(|(_, party)| party.isOpen);
    let read = |party: &Party| Statistics::unpack(party.statistics).ok();
    members.filter_map(|(place, party)| Some((place, read(party)?))).collect()
}

/// Reasons that each member of the panel that has opened committed to.
fn found_by(parties: &[Party], limits: &Calibration) -> Vec<(usize, Reasons)> {
    let reasons = |word: &Statistics| verdict(word, Failing::default(), true, limits);
    words_of(parties).iter().map(|(place, word)| (*place, reasons(word))).collect()
}

/// The ruling, if more than half of the panel committed to any of `reasons`: that is what the answer is false for then, and
/// who found it has proven it, unless a quorum contradicts it in something else.
fn uphold(parties: &[Party], reasons: u8, limits: &Calibration, ruling: Ruling) -> Option<Ruling> {
    let found = found_by(parties, limits);
    let margins_and_flags = (2..8).map(|bit| reasons & 1_u8 << bit);
    let raised = |flag: &u8| found.iter().filter(|(_, found)| found.0 & flag != 0).count();
    let upheld = margins_and_flags.filter(|flag| 2 * raised(flag) > found.len());
    let upheld = Reasons(upheld.fold(0, |all, flag| all | flag));
    let provers = found.iter().filter(|(_, found)| found.0 & upheld.0 != 0);
    let failing = provers.fold(1_u32 << ACCUSER, |set, (place, _)| set | 1 << place);
    (!upheld.is_empty()).then(|| Ruling {
        decided: true,
        guilty: true,
        failing: failing & !ruling.losers,
        instead: Some(Question::of(upheld)),
        ..ruling
    })
}

impl State {
    /// Who is right, by what was opened.
    pub(crate) fn rule(&self, audit: &Audit, parties: &[Party]) -> Result<Ruling, Gap> {
        let question = Question::of(Reasons(audit.reasons));
        let limits = self.limits_of(audit, audit.validator)?;
        if question == Question::Weights {
            let ruling = self.compare(audit, parties)?;
            if !ruling.decided || ruling.guilty {
                return Ok(ruling);
            }
            // Good weights make neither tokens nor text good.
            let rest = audit.reasons & !(Reasons::FINGERPRINT | Reasons::SPOT).0;
            return Ok(uphold(parties, rest, &limits, ruling).unwrap_or(ruling));
        }
        let open = open_of(parties).count_ones() as usize;
        // With the accuser, as many as a quorum needs.
        if open + 1 < CLUSTER_QUORUM {
            return Ok(Ruling::default());
        }
        if question == Question::Content {
            return Ok(poll(parties, audit.reasons, &limits));
        }
        let positions =
            crate::audit::named_positions(audit.named, audit.alsoNamed, audit.outputTokens)
                .map_err(|position| Gap(format!("position {position} was never named")))?;
        Ok(weigh(parties, positions.len(), audit.reasons, &limits))
    }

    /// Nodes that find an answer false, by what the parties of its dispute opened; none if it is not found false.
    ///
    /// # Errors
    /// If the state does not know the parties.
    pub fn found_false_by(&self, audit: &Audit, parties: &[Party]) -> Result<Vec<u32>, Gap> {
        let ruling = self.rule(audit, parties)?;
        Ok(if ruling.guilty { nodes_in(parties, ruling.failing) } else { Vec::new() })
    }

    /// What the miner and a validator may differ by.
    pub(crate) fn limits_of(&self, audit: &Audit, validator: u32) -> Result<Calibration, Gap> {
        let (miner, other) = (self.node(audit.nodeId)?.class, self.node(validator)?.class);
        let word =
            known(self.calibration(audit.model, miner, other), "the pair of node", validator)?;
        Calibration::unpack(word).map_err(|error| Gap(error.to_string()))
    }

    /// Clusters of those whose contrasts agree: a miner outside of all that win has used other weights.
    fn compare(&self, audit: &Audit, parties: &[Party]) -> Result<Ruling, Gap> {
        let open = open_of(parties);
        let places: Vec<usize> = places(open).collect();
        let positions = audit.outputTokens.min(FULL_BLOCK);
        let width = self.limits_of(audit, audit.validator)?.width;
        let mut members = Vec::new();
        let mut classes = Vec::new();
        for party in places.iter().filter_map(|place| parties.get(*place)) {
            let node = self.node(party.nodeId)?;
            classes.push(node.class);
            members.push(Member {
                owner: node.owner,
                leaves: leaves(parties, party, positions, width),
            });
        }
        let inside = cluster(&members, |one, other| {
            let (one, other) = (classes.get(one)?, classes.get(other)?);
            self.limit(audit, (*one, *other), positions)
        });
        let Some(inside) = inside.map_err(|error| Gap(error.to_string()))? else {
            return Ok(Ruling::default());
        };
        let inside = places.iter().zip(inside).filter(|(_, inside)| *inside);
        let inside = inside.fold(0_u32, |set, (place, _)| set | 1 << place);
        let guilty = inside >> MINER & 1 == 0;
        // The miner is no witness, neither for itself nor against others.
        let against = inside & !(1 << MINER);
        let contradicts = self.owners(&nodes_in(parties, against))?.len() >= CLUSTER_QUORUM;
        let losers = if contradicts { open & !against & !(1 << MINER) } else { 0 };
        let failing = if guilty { inside } else { 0 };
        Ok(Ruling { decided: true, guilty, failing, losers, against, ..Ruling::default() })
    }

    /// What classes may differ by, whichever of them the pair names first; `None` if nobody had calibrated them.
    fn limit(&self, audit: &Audit, (one, other): (B256, B256), positions: u32) -> Option<u16> {
        let word = self.calibration_before(audit, (one, other));
        let word = word.or_else(|| self.calibration_before(audit, (other, one)))?;
        Some(Calibration::unpack(word).ok()?.limit(positions))
    }

    fn owners(&self, nodes: &[u32]) -> Result<BTreeSet<Address>, Gap> {
        nodes.iter().map(|node| Ok(self.node(*node)?.owner)).collect()
    }

    /// Different owners whose word against the miner counts, if one of them runs what it runs; else none.
    pub(crate) fn witnesses(&self, audit: &Audit, provers: &[u32]) -> Result<usize, Gap> {
        let miner_class = self.node(audit.nodeId)?.class;
        let mut owners = BTreeSet::new();
        let mut same_class = false;
        for prover in provers {
            let node = self.node(*prover)?;
            if !self.is_slashable(audit, node.class)? {
                continue;
            }
            owners.insert(node.owner);
            same_class |= node.class == miner_class;
        }
        Ok(if same_class { owners.len() } else { 0 })
    }

    /// Whether enough owners have measured what the miner's class and this one differ by.
    pub(crate) fn is_slashable(&self, audit: &Audit, class: B256) -> Result<bool, Gap> {
        let model = known(self.models.get(&audit.model), "model", audit.model)?;
        let pair = model.pairs.get(&(self.node(audit.nodeId)?.class, class));
        Ok(pair.is_some_and(|pair| pair.attested.len() >= ATTESTATIONS))
    }
}

/// What a party opened, as far as it is kept. Parties with the same ids have the same tokens here.
fn leaves(parties: &[Party], party: &Party, positions: u32, width: Width) -> Vec<Opened> {
    let same = parties.iter().position(|other| other.ids == party.ids).unwrap_or_default();
    let at = |place| Opened {
        token: same as u32,
        contrasts: contrasts(contrasts_at(party, place), width).unwrap_or(Contrasts::zero(width)),
    };
    (0..positions as usize).map(at).collect()
}

/// Medians of the panel's margins at the positions that the accuser named, and what else of its reasons the panel upholds.
fn weigh(parties: &[Party], positions: usize, reasons: u8, limits: &Calibration) -> Ruling {
    let open: Vec<usize> = places(open_of(parties)).filter(|at| *at >= FIRST_MEMBER).collect();
    let margins = |members: &[usize]| -> Vec<Vec<u32>> {
        let at = |position| {
            let members = members.iter().filter_map(|place| parties.get(*place));
            members.map(|party| margin_at(party, position)).collect()
        };
        (0..positions).map(at).collect()
    };
    let mut ruling = Ruling { decided: true, ..Ruling::default() };
    for (place, found) in found_by(parties, limits) {
        // One who committed to the same does not contradict the accuser.
        let fails = margins_convict(&margins(&[place]), limits) || found.0 & reasons != 0;
        *(if fails { &mut ruling.failing } else { &mut ruling.against }) |= 1 << place;
    }
    ruling.guilty = margins_convict(&margins(&open), limits);
    let upheld = (!ruling.guilty).then(|| uphold(parties, reasons, limits, ruling)).flatten();
    upheld.unwrap_or_else(|| ruling.blame(open.len()))
}

/// Whether the panel upholds what the accuser says of the answer's content.
fn poll(parties: &[Party], reasons: u8, limits: &Calibration) -> Ruling {
    let mut ruling = Ruling { decided: true, ..Ruling::default() };
    if let Some(upheld) = uphold(parties, reasons, limits, ruling) {
        return upheld;
    }
    let found = found_by(parties, limits);
    for (place, found) in &found {
        let fails = found.0 & reasons != 0;
        *(if fails { &mut ruling.failing } else { &mut ruling.against }) |= 1 << place;
    }
    ruling.blame(found.len())
}

impl Ruling {
    /// The accuser is right with the panel, or, if all of a whole panel are against it, has lied.
    fn blame(mut self, members: usize) -> Self {
        if self.guilty {
            self.failing |= 1 << ACCUSER;
        } else if members >= CLUSTER_QUORUM && self.failing == 0 {
            self.losers = 1 << ACCUSER;
        }
        self
    }
}
