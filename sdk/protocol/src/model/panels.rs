//! `ProofOfInference`: disputes over an answer that its validator found false.

use alloy::primitives::{U256, keccak256};
use assay_bindings::ProofOfInference::{
    Audit, ClassPaused, Judged, PanelMoved, Party, ProofOfInference_AlreadyOpen,
    ProofOfInference_AlreadySealed, ProofOfInference_NotParty, ProofOfInference_NotSealed,
    ProofOfInference_StaleParties, ProofOfInference_WrongOpening, Testimony, Verdict,
    commitPanelCall, testifyCall,
};
use assay_proof::{CLUSTER_QUORUM, Failing, MAX_OPENED, Reasons, block_window, verdict};

use super::{
    Run,
    audits::{Opening, checked, opened},
};
use crate::{
    audit::{Question, bit_of, parties_digest},
    hearing::{
        FIRST_MEMBER, MINER, Ruling, keep_contrasts, keep_margin, missing_of, nodes_in, open_of,
    },
    num::{int, u40},
    refusal::{Failure, require},
    rule::Rule,
    state::{AuditState, known},
};

/// Members of a panel: with the first validator, one more than the quorum.
const MEMBERS: usize = 3;
/// Owners of one class that fail in one epoch, from which on it is no fraud but a fault of what they run.
const PAUSING_OWNERS: usize = 5;

fn question_of(audit: &Audit) -> Question {
    Question::of(Reasons(audit.reasons))
}

impl Run<'_> {
    // ------------------------------------------------------------ the panel

    pub(super) fn convene(&mut self, brought: &Audit) -> Result<(), Failure> {
        let until_s = self.take(brought, AuditState::Accused)?;
        let mut audit = brought.clone();
        self.check_audit_in_time(&audit, until_s)?;
        (audit.seed, audit.tries) = (self.round_value(audit.round)?, 0);
        let sealed = |node, root| Party { nodeId: node, root, isSealed: true, ..Party::default() };
        let mut parties =
            vec![sealed(audit.nodeId, audit.root), sealed(audit.validator, audit.validatorRoot)];
        for member in 0..MEMBERS {
            // One of them runs what the miner runs.
            match self.state.draw_validator(&mut audit, member == 0)? {
                Some(node) => parties.push(Party { nodeId: node, ..Party::default() }),
                None => return self.conclude(audit, AuditState::Void),
            }
        }
        self.keep(&mut audit, parties)?;
        let seal_time = self.state.network.proof.sealTime;
        self.enter(audit, AuditState::Convened, int(seal_time))
    }

    pub(super) fn commit_panel(&mut self, call: &commitPanelCall) -> Result<(), Failure> {
        let until_s = self.take_with(&call._0, &call._1, AuditState::Convened)?;
        let (mut audit, mut parties) = (call._0.clone(), call._1.clone());
        self.check_audit_in_time(&audit, until_s)?;
        let (place, node) = (place_of(&audit, &parties, call._2)?, call._2);
        let party = known(parties.get_mut(place), "the party", node)?;
        require!(!party.isSealed, ProofOfInference_AlreadySealed { party: node });
        self.check_seal(node, call._3)?;
        (party.isSealed, party.root) = (true, call._3);
        let complete = parties.iter().all(|party| party.isSealed);
        self.keep(&mut audit, parties)?;
        if complete {
            return self.hear(audit);
        }
        self.enter(audit, AuditState::Convened, until_s - self.at.time_s)
    }

    pub(super) fn advance_panel(
        &mut self,
        brought: &Audit,
        parties: &[Party],
    ) -> Result<(), Failure> {
        let until_s = self.take_with(brought, parties, AuditState::Convened)?;
        let audit = brought.clone();
        self.check_audit_late(&audit, until_s)?;
        let (members, idle): (Vec<&Party>, Vec<&Party>) =
            parties.iter().skip(FIRST_MEMBER).partition(|party| party.isSealed);
        // With the accuser, as many as a quorum needs.
        if members.len() + 1 < CLUSTER_QUORUM {
            self.conclude(audit.clone(), AuditState::Void)?;
        } else {
            self.hear(audit.clone())?;
        }
        idle.into_iter().try_for_each(|party| self.slash_idle(&audit, party.nodeId, until_s))
    }

    fn hear(&mut self, mut audit: Audit) -> Result<(), Failure> {
        audit.round = self.next_round();
        let reveal_time = self.state.network.proof.revealTime;
        self.enter(audit, AuditState::Hearing, int(reveal_time))
    }

    /// The end of an audit's time; it and its parties must be those that are stored.
    fn take_with(
        &self,
        audit: &Audit,
        parties: &[Party],
        wanted: AuditState,
    ) -> Result<u64, Failure> {
        let until_s = self.take(audit, wanted)?;
        let (stored, brought) = (audit.parties, parties_digest(parties));
        require!(
            stored == brought,
            ProofOfInference_StaleParties {
                taskId: audit.taskId,
                nodeId: audit.nodeId,
                stored,
                brought,
            }
        );
        Ok(until_s)
    }

    fn keep(&mut self, audit: &mut Audit, parties: Vec<Party>) -> Result<(), Failure> {
        audit.parties = parties_digest(&parties);
        self.emit(PanelMoved { taskId: audit.taskId, nodeId: audit.nodeId, parties })
    }

    // ------------------------------------------------------------ the hearing

    pub(super) fn testify(&mut self, call: &testifyCall) -> Result<(), Failure> {
        let until_s = self.take_with(&call._0, &call._1, AuditState::Hearing)?;
        let (mut audit, mut parties) = (call._0.clone(), call._1.clone());
        self.check_audit_in_time(&audit, until_s)?;
        let node = call._2;
        let place = place_of(&audit, &parties, node)?;
        let party = known(parties.get_mut(place), "the party", node)?;
        self.hear_party(&audit, party, place, &call._3)?;
        if place >= FIRST_MEMBER {
            audit.earners |= bit_of(audit.drawn, node);
        }
        self.keep(&mut audit, parties)?;
        self.enter(audit, AuditState::Hearing, until_s - self.at.time_s)
    }

    fn hear_party(
        &mut self,
        audit: &Audit,
        party: &mut Party,
        place: usize,
        testimony: &Testimony,
    ) -> Result<(), Failure> {
        let node = party.nodeId;
        require!(party.isSealed, ProofOfInference_NotSealed { party: node });
        require!(!party.isOpen, ProofOfInference_AlreadyOpen { party: node });
        let question = question_of(audit);
        if place >= FIRST_MEMBER {
            self.open_seal(audit, party, testimony)?;
        } else {
            let weights = question == Question::Weights;
            require!(weights, ProofOfInference_AlreadyOpen { party: node });
        }
        party.isOpen = true;
        if question == Question::Content {
            return Ok(());
        }
        let positions = self.positions_of(audit, question)?;
        let is_miner = place == MINER;
        let limits = self.state.limits_of(audit, if is_miner { audit.validator } else { node })?;
        let opening = Opening {
            node,
            root: party.root,
            positions: &positions,
            leaves: &testimony.leaves,
            nodes: &testimony.nodes,
            margins: !is_miner,
        };
        opened(&opening, audit.outputTokens, limits.width)?;
        keep_leaves(party, testimony, question);
        Ok(())
    }

    /// What a member committed to.
    fn open_seal(
        &mut self,
        audit: &Audit,
        party: &mut Party,
        testimony: &Testimony,
    ) -> Result<(), Failure> {
        let (node, word) = (party.nodeId, testimony.statistics);
        let (expected, given) =
            (party.root, self.seal_of(audit, node, (testimony.root, word, testimony.salt)));
        require!(
            given == expected,
            ProofOfInference_WrongOpening { nodeId: node, expected, given }
        );
        let statistics = checked(word, audit.outputTokens)?;
        (party.root, party.statistics) = (testimony.root, word);
        let limits = self.state.limits_of(audit, node)?;
        let reasons = verdict(&statistics, Failing::default(), true, &limits);
        self.emit(Verdict {
            taskId: audit.taskId,
            nodeId: audit.nodeId,
            validator: node,
            reasons: reasons.0,
            statistics: word,
            failingBlocks: 0,
        })
    }

    /// The positions that are compared: drawn out of the block that the accuser named, or named themselves.
    fn positions_of(&self, audit: &Audit, question: Question) -> Result<Vec<u32>, Failure> {
        if question == Question::Sampling {
            return self.named(audit);
        }
        let tokens = audit.outputTokens;
        // An answer below four tokens has no block.
        let window = block_window(tokens, audit.named.saturating_to()).unwrap_or((1, tokens));
        self.spots(audit, window, MAX_OPENED as u32)
    }

    pub(super) fn judge(&mut self, brought: &Audit, parties: &[Party]) -> Result<(), Failure> {
        let until_s = self.take_with(brought, parties, AuditState::Hearing)?;
        let audit = brought.clone();
        let question = question_of(&audit);
        let missing = missing_of(parties, question);
        if missing != 0 {
            self.check_audit_late(&audit, until_s)?;
        }
        // Nobody could open what needs a round that is not there.
        if question == Question::Weights && self.value_of(audit.round).is_none() {
            return self.conclude(audit, AuditState::Void);
        }
        let hides = missing >> MINER & 1 == 1;
        let ruling = match hides {
            true => Ruling { failing: open_of(parties), ..Ruling::default() },
            false => self.state.rule(&audit, parties)?,
        };
        self.execute(audit.clone(), parties, &ruling, hides.then_some(until_s))?;
        let evidence = (Rule::Withheld, self.at.time_s, until_s);
        for node in nodes_in(parties, missing & !(1 << MINER)) {
            self.slash_liar(&audit, node, evidence, &[])?;
        }
        Ok(())
    }

    /// The consequences for the miner, which had until `hid_until_s` if it shows nothing, and for those whom a quorum
    /// contradicts.
    fn execute(
        &mut self,
        mut audit: Audit,
        parties: &[Party],
        ruling: &Ruling,
        hid_until_s: Option<u64>,
    ) -> Result<(), Failure> {
        let question = ruling.instead.unwrap_or_else(|| question_of(&audit));
        let provers = nodes_in(parties, ruling.failing);
        let quorum = CLUSTER_QUORUM as u64;
        let mut evidence = (rule_of(question), 0, quorum);
        let mut slashed = false;
        if let Some(until_s) = hid_until_s {
            (evidence, slashed) = ((Rule::Unopened, self.at.time_s, until_s), true);
        } else if ruling.guilty {
            evidence.1 = self.state.witnesses(&audit, &provers)? as u64;
            slashed = evidence.1 >= quorum && !ruling.only_unread && !self.pauses(&audit)?;
        }
        let passed = !slashed && ruling.decided && !ruling.guilty;
        if passed {
            let limits = self.state.limits_of(&audit, audit.validator)?;
            self.vouch(&audit, None, &limits)?;
            // It was wrong, and is not paid for that.
            audit.earners &= !bit_of(audit.drawn, audit.validator);
        }
        let losers = nodes_in(parties, ruling.losers);
        for loser in &losers {
            audit.earners &= !bit_of(audit.drawn, *loser);
        }
        self.emit(Judged {
            taskId: audit.taskId,
            nodeId: audit.nodeId,
            question: question as u8,
            failing: U256::from(ruling.failing),
            guilty: slashed || ruling.guilty,
            slashed,
        })?;
        let outcome = match (slashed, passed) {
            (true, _) => AuditState::Disproved,
            (_, true) => AuditState::Passed,
            _ => AuditState::Void,
        };
        self.conclude(audit.clone(), outcome)?;
        if slashed {
            self.slash_liar(&audit, audit.nodeId, evidence, &provers)?;
        }
        let against = nodes_in(parties, ruling.against);
        // A quorum that could cost the miner its stake, or nobody loses any.
        if losers.is_empty() || self.state.witnesses(&audit, &against)? < CLUSTER_QUORUM {
            return Ok(());
        }
        let evidence = (Rule::Contradicted, against.len() as u64, quorum);
        for loser in losers {
            if self.is_held(&audit, loser)? {
                self.slash_liar(&audit, loser, evidence, &against)?;
            }
        }
        Ok(())
    }

    /// Whether a node of the panel, or the accuser, can lose stake by a verdict: not in a pair that too few have measured,
    /// nor while its class is paused.
    fn is_held(&self, audit: &Audit, node: u32) -> Result<bool, Failure> {
        let class = self.state.node(node)?.class;
        let paused_until_s = self.state.proofs.paused_until_s.get(&class).copied().unwrap_or(0);
        Ok(self.at.time_s >= paused_until_s && self.state.is_slashable(audit, class)?)
    }

    /// Whether so many of the miner's class fail, this time included, that it is no fraud. `Judged` counts the failure.
    fn pauses(&mut self, audit: &Audit) -> Result<bool, Failure> {
        let node = self.state.node(audit.nodeId)?;
        let (owner, class) = (node.owner, node.class);
        let epoch = self.state.failure_epoch(self.at.time_s);
        let mut owners = self.state.proofs.failed(class, epoch);
        owners.insert(owner);
        let until_s = (epoch + 2) * self.state.network.clock.epoch_s;
        let paused_until_s = self.state.proofs.paused_until_s.get(&class).copied().unwrap_or(0);
        if owners.len() >= PAUSING_OWNERS && paused_until_s != until_s {
            self.emit(ClassPaused { numericClass: class, until: u40(until_s) })?;
            return Ok(self.at.time_s < until_s);
        }
        Ok(self.at.time_s < paused_until_s)
    }
}

fn rule_of(question: Question) -> Rule {
    match question {
        Question::Weights => Rule::Fingerprint,
        Question::Sampling => Rule::Sampling,
        _ => Rule::Content,
    }
}

fn place_of(audit: &Audit, parties: &[Party], node: u32) -> Result<usize, Failure> {
    let place = parties.iter().position(|party| party.nodeId == node);
    let (id, miner) = (audit.taskId, audit.nodeId);
    Ok(place.ok_or(ProofOfInference_NotParty { taskId: id, nodeId: miner, party: node })?)
}

/// Keeps what a party opened: the ids, and margins or contrasts.
fn keep_leaves(party: &mut Party, testimony: &Testimony, question: Question) {
    let ids: Vec<u8> = testimony.leaves.iter().flat_map(|leaf| leaf.id.to_be_bytes()).collect();
    party.ids = keccak256(ids);
    for (place, leaf) in testimony.leaves.iter().enumerate() {
        match question {
            Question::Sampling => keep_margin(&mut party.values, place, leaf.margin),
            _ => keep_contrasts(&mut party.values, place, leaf.contrasts),
        }
    }
}
