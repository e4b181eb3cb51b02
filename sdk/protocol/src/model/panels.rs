//! `ProofOfInference`: disputes over an answer that its validator found false.

use alloy::primitives::keccak256;
use assay_bindings::ProofOfInference::{
    Audit, PanelMoved, Party, ProofOfInference_AlreadyOpen, ProofOfInference_AlreadySealed,
    ProofOfInference_NotParty, ProofOfInference_NotSealed, ProofOfInference_StaleParties,
    ProofOfInference_WrongOpening, Testimony, Verdict, commitPanelCall, testifyCall,
};
use assay_proof::{CLUSTER_QUORUM, Failing, MAX_OPENED, Reasons, block_window, verdict};

use super::{
    Run,
    audits::{Opening, checked, opened},
};
use crate::{
    audit::{Question, earn, parties_digest},
    hearing::{FIRST_MEMBER, MEMBERS, MINER, is_appeal, keep_contrasts, keep_margin},
    num::int,
    refusal::{Failure, require},
    state::{AuditState, known},
};

pub(super) fn question_of(audit: &Audit) -> Question {
    Question::of(Reasons(audit.reasons))
}

impl Run<'_> {
    // ------------------------------------------------------------ the panel

    pub(super) fn convene(&mut self, brought: &Audit) -> Result<(), Failure> {
        let until_s = self.take(brought, AuditState::Accused)?;
        let mut audit = brought.clone();
        self.check_audit_in_time(&audit, until_s)?;
        (audit.seed, audit.tries) = (self.round_value(audit.round)?, 0);
        let mut parties = summoned(&audit);
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
        let (place, node) = (unsealed(&audit, &parties, call._2)?, call._2);
        let party = known(parties.get_mut(place), "the party", node)?;
        self.check_seal(node, call._3)?;
        (party.isSealed, party.root) = (true, call._3);
        let complete = parties.iter().skip(FIRST_MEMBER).all(|party| party.isSealed);
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
            self.call_off(audit.clone())?;
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
    pub(super) fn take_with(
        &self,
        audit: &Audit,
        parties: &[Party],
        wanted: AuditState,
    ) -> Result<u64, Failure> {
        let until_s = self.take(audit, wanted)?;
        self.check_parties(audit, parties)?;
        Ok(until_s)
    }

    pub(super) fn check_parties(&self, audit: &Audit, parties: &[Party]) -> Result<(), Failure> {
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
        Ok(())
    }

    pub(super) fn keep(&mut self, audit: &mut Audit, parties: Vec<Party>) -> Result<(), Failure> {
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
        // What an appeal's members earn is stored beside it.
        if place >= FIRST_MEMBER && !is_appeal(&parties) {
            earn(&mut audit, node);
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
}

/// Miner and accuser, who have committed long.
pub(super) fn summoned(audit: &Audit) -> Vec<Party> {
    let sealed = |node, root| Party { nodeId: node, root, isSealed: true, ..Party::default() };
    vec![sealed(audit.nodeId, audit.root), sealed(audit.validator, audit.validatorRoot)]
}

/// The place of a member that has not committed.
pub(super) fn unsealed(audit: &Audit, parties: &[Party], node: u32) -> Result<usize, Failure> {
    let place = place_of(audit, parties, node)?;
    let is_sealed = parties.get(place).is_some_and(|party| party.isSealed);
    require!(place >= FIRST_MEMBER && !is_sealed, ProofOfInference_AlreadySealed { party: node });
    Ok(place)
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
