//! `ProofOfInference`: how a dispute ends, and the appeal against it.

use alloy::primitives::U256;
use assay_bindings::ProofOfInference::{
    Appeal, Appealed, Audit, ClassPaused, Judged, Party, ProofOfInference_NotOwner,
    ProofOfInference_NothingAtStake,
};
use assay_proof::CLUSTER_QUORUM;

use super::{
    Run,
    audits::wrong_state,
    panels::{question_of, summoned},
    penalties::{COR, Evidence},
};
use crate::{
    audit::{Question, bit_of, forfeit, joined, named_by, nodes_of, waiver_of},
    hearing::{ACCUSER, MINER, Ruling, is_appeal, missing_of, nodes_in, open_of},
    money::share_down,
    num::{amount, int, u40, u96},
    refusal::{Failure, require},
    rule::Rule,
    state::{AuditState, HAS_MEMBERS},
};

/// Members of the panel that an appeal goes to.
const APPEAL_MEMBERS: usize = 7;
/// Owners of one class that fail in one epoch, from which on it is no fraud but a fault of what they run.
const PAUSING_OWNERS: usize = 5;

/// What a ruling comes to for the miner.
#[derive(Clone, Copy)]
struct Sentence {
    evidence: Evidence,
    slashed: bool,
}

impl Run<'_> {
    // ------------------------------------------------------------ the judgement

    pub(super) fn judge(&mut self, brought: &Audit, parties: &[Party]) -> Result<(), Failure> {
        let (state, until_s) = self.load(brought)?;
        self.check_parties(brought, parties)?;
        let audit = brought.clone();
        match state {
            AuditState::Condemned => {
                self.check_audit_late(&audit, until_s)?;
                return self.carry_out(audit, parties);
            }
            AuditState::Hearing => {}
            state => return Err(wrong_state(&audit, state)),
        }
        let question = question_of(&audit);
        let missing = missing_of(parties, question);
        if missing != 0 {
            self.check_audit_late(&audit, until_s)?;
        }
        // Nobody could open what needs a round that is not there.
        if question == Question::Weights && self.value_of(audit.round).is_none() {
            return self.call_off(audit);
        }
        if missing >> MINER & 1 == 1 {
            // No matter of opinion: there is no appeal against it.
            let ruling = Ruling { failing: open_of(parties), ..Ruling::default() };
            let evidence = (Rule::Unopened, self.at.time_s, until_s);
            self.execute(audit.clone(), parties, &ruling, Sentence { evidence, slashed: true })?;
        } else {
            self.decide(audit.clone(), parties)?;
        }
        let evidence = (Rule::Withheld, self.at.time_s, until_s);
        for node in nodes_in(parties, missing & !(1 << MINER)) {
            self.slash_liar(&audit, node, evidence, &[])?;
        }
        Ok(())
    }

    /// What a first panel would take stake for waits for an appeal.
    fn decide(&mut self, audit: Audit, parties: &[Party]) -> Result<(), Failure> {
        let ruling = self.state.rule(&audit, parties)?;
        let mut sentence = self.sentence(&audit, parties, &ruling)?;
        if sentence.slashed && !is_appeal(parties) {
            if !self.pauses(&audit)? {
                let appeal_time = self.state.network.proof.appealTime;
                return self.enter(audit, AuditState::Condemned, int(appeal_time));
            }
            sentence.slashed = false;
        }
        self.execute(audit, parties, &ruling, sentence)
    }

    /// Executes what a first panel found.
    fn carry_out(&mut self, audit: Audit, parties: &[Party]) -> Result<(), Failure> {
        let ruling = self.state.rule(&audit, parties)?;
        let sentence = self.sentence(&audit, parties, &ruling)?;
        self.execute(audit, parties, &ruling, sentence)
    }

    fn sentence(
        &self,
        audit: &Audit,
        parties: &[Party],
        ruling: &Ruling,
    ) -> Result<Sentence, Failure> {
        let rule = rule_of(ruling.instead.unwrap_or_else(|| question_of(audit)));
        let witnesses = match ruling.guilty {
            true => self.state.witnesses(audit, &nodes_in(parties, ruling.failing))?,
            false => 0,
        };
        let evidence = (rule, witnesses as u64, CLUSTER_QUORUM as u64);
        Ok(Sentence { evidence, slashed: witnesses >= CLUSTER_QUORUM })
    }

    /// The consequences for the miner, and for those whom a quorum contradicts.
    fn execute(
        &mut self,
        mut audit: Audit,
        parties: &[Party],
        ruling: &Ruling,
        Sentence { evidence, slashed }: Sentence,
    ) -> Result<(), Failure> {
        let outcome = match slashed {
            true => AuditState::Disproved,
            false if ruling.decided && !ruling.guilty => AuditState::Passed,
            false => AuditState::Void,
        };
        if outcome == AuditState::Passed {
            let (limits, accuser) =
                (self.state.limits_of(&audit, audit.validator)?, audit.validator);
            self.vouch(&audit, None, &limits)?;
            // It was wrong, and is not paid for that.
            forfeit(&mut audit, accuser);
        }
        let question = ruling.instead.unwrap_or_else(|| question_of(&audit));
        self.emit(Judged {
            taskId: audit.taskId,
            nodeId: audit.nodeId,
            question: question as u8,
            failing: U256::from(ruling.failing),
            guilty: slashed || ruling.guilty,
            slashed,
        })?;
        let appeal = if is_appeal(parties) { self.appeal_of(&audit) } else { Appeal::default() };
        let mut losers = nodes_in(parties, ruling.losers);
        if outcome == AuditState::Passed && ruling.losers >> ACCUSER & 1 == 1 {
            losers.extend(accusers_beside(&appeal, audit.validator));
        }
        let appeal = self.end_dispute(&mut audit, (outcome, &losers), appeal)?;
        if slashed {
            let provers = nodes_in(parties, ruling.failing);
            self.slash_liar(&audit, audit.nodeId, evidence, &provers)?;
        }
        self.settle_bond(&audit, &appeal, slashed)?;
        self.punish(&audit, &losers, &nodes_in(parties, ruling.against))?;
        if slashed && appeal.dissenter != 0 {
            // The second panel bears the first one out.
            self.punish(&audit, &[appeal.dissenter], &nodes_of(U256::from(appeal.accusers)))?;
        }
        Ok(())
    }

    /// Ends the audit. Who loses is not paid, neither of the first panel nor of an appeal's: the appeal as it is then.
    fn end_dispute(
        &mut self,
        audit: &mut Audit,
        (outcome, losers): (AuditState, &[u32]),
        mut appeal: Appeal,
    ) -> Result<Appeal, Failure> {
        let slashed = outcome == AuditState::Disproved;
        for loser in losers {
            forfeit(audit, *loser);
            appeal.earners &= !bit_of(U256::from(appeal.members), *loser);
        }
        if slashed {
            forfeit(audit, appeal.dissenter);
        }
        // Of an appeal that failed they are paid out of its bond.
        let owed = if slashed || appeal.earners == 0 { 0 } else { HAS_MEMBERS };
        self.conclude_owing(audit.clone(), outcome, owed)?;
        Ok(appeal)
    }

    /// Those whom a quorum contradicts: one that could cost the miner its stake, or nobody loses any.
    fn punish(&mut self, audit: &Audit, losers: &[u32], against: &[u32]) -> Result<(), Failure> {
        if losers.is_empty() || self.state.witnesses(audit, against)? < CLUSTER_QUORUM {
            return Ok(());
        }
        let evidence = (Rule::Contradicted, against.len() as u64, CLUSTER_QUORUM as u64);
        for loser in losers {
            if self.is_held(audit, *loser)? {
                self.slash_liar(audit, *loser, evidence, against)?;
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

    /// Whether so many of the miner's class fail, this time included, that it is no fraud. What is told next counts the
    /// failure.
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

    // ------------------------------------------------------------ the appeal

    fn appeal_of(&self, audit: &Audit) -> Appeal {
        let found = self.state.proofs.appeals.get(&(audit.taskId, audit.nodeId));
        found.cloned().unwrap_or_default()
    }

    pub(super) fn appeal(&mut self, brought: &Audit, parties: &[Party]) -> Result<(), Failure> {
        let until_s = self.take_with(brought, parties, AuditState::Condemned)?;
        let mut audit = brought.clone();
        self.check_audit_in_time(&audit, until_s)?;
        let (node, caller) = (audit.nodeId, self.at.caller);
        let owner = self.state.node(node)?.owner;
        require!(owner == caller, ProofOfInference_NotOwner { nodeId: node, caller });
        let config = &self.state.network.proof;
        let at_stake = share_down(self.state.accounts.stake(node), config.slashBps);
        require!(at_stake != 0, ProofOfInference_NothingAtStake { nodeId: node });
        let (bond, timeout) = (share_down(at_stake, config.appealBps), config.roundTimeout);
        let ruling = self.state.rule(&audit, parties)?;
        let accusers = nodes_in(parties, ruling.failing).into_iter().fold(U256::ZERO, joined);
        // The accuser is heard again.
        let dissenters = nodes_in(parties, ruling.losers & !(1 << ACCUSER));
        audit.round = self.next_round();
        self.emit(Appealed {
            taskId: audit.taskId,
            nodeId: node,
            bond: u96(bond),
            accusers: accusers.saturating_to(),
            dissenter: dissenters.first().copied().unwrap_or(0),
        })?;
        self.enter(audit, AuditState::Appealed, int(timeout))?;
        self.credit(self.state.network.deployment.proof, COR, bond)
    }

    pub(super) fn reconvene(&mut self, brought: &Audit, first: &[Party]) -> Result<(), Failure> {
        let until_s = self.take_with(brought, first, AuditState::Appealed)?;
        let mut audit = brought.clone();
        self.check_audit_in_time(&audit, until_s)?;
        (audit.seed, audit.tries) = (self.round_value(audit.round)?, 0);
        let mut parties = summoned(&audit);
        // An accuser that was silent before the first panel has lost for it, and is not asked again.
        let is_silent =
            |accuser: &Party| question_of(&audit) == Question::Weights && !accuser.isOpen;
        if first.get(ACCUSER).is_some_and(is_silent) {
            parties.iter_mut().skip(ACCUSER).for_each(|accuser| accuser.isSealed = false);
        }
        let mut members = U256::ZERO;
        for place in 0..APPEAL_MEMBERS {
            let Some(found) = self.state.draw_beside(&mut audit, members, place == 0)? else {
                // There is nobody who could know better.
                let bond = self.appeal_of(&audit).bond;
                self.carry_out(audit.clone(), first)?;
                return self.credit(self.state.node(audit.nodeId)?.owner, COR, amount(bond));
            };
            parties.push(Party { nodeId: found, ..Party::default() });
            members = joined(members, found);
        }
        self.keep(&mut audit, parties)?;
        let seal_time = self.state.network.proof.sealTime;
        self.enter(audit, AuditState::Convened, int(seal_time))
    }

    /// The bond of an appeal that failed goes to the members that did their duty, and the client; otherwise back.
    fn settle_bond(&mut self, audit: &Audit, appeal: &Appeal, failed: bool) -> Result<(), Failure> {
        let mut rest = amount(appeal.bond);
        if !failed {
            return self.credit(self.state.node(audit.nodeId)?.owner, COR, rest);
        }
        let earners = named_by(U256::from(appeal.members), appeal.earners);
        let share = rest.checked_div(earners.len() as u128).unwrap_or(0);
        for earner in earners {
            rest -= share;
            self.credit(self.state.node(earner)?.payout, COR, share)?;
        }
        self.credit(audit.client, COR, rest)
    }

    // ------------------------------------------------------------ without an end

    /// Nobody can tell; the bond of an appeal goes back.
    pub(super) fn call_off(&mut self, audit: Audit) -> Result<(), Failure> {
        let appeal = self.appeal_of(&audit);
        self.conclude(audit.clone(), AuditState::Void)?;
        self.settle_bond(&audit, &appeal, false)
    }

    /// Who does not publish what was demanded until `until_s` hides it.
    pub(super) fn convict_unpublished(
        &mut self,
        audit: Audit,
        until_s: u64,
    ) -> Result<(), Failure> {
        let appeal = self.appeal_of(&audit);
        let demanders = match appeal.waived {
            0 => named_by(audit.drawn, waiver_of(&audit)),
            waived => named_by(U256::from(appeal.members), waived),
        };
        self.conclude(audit.clone(), AuditState::Disproved)?;
        let evidence = (Rule::Unopened, self.at.time_s, until_s);
        self.slash_liar(&audit, audit.nodeId, evidence, &demanders)?;
        self.settle_bond(&audit, &appeal, true)
    }
}

/// Those of a first panel who found with the accuser what a second one contradicts.
fn accusers_beside(appeal: &Appeal, accuser: u32) -> Vec<u32> {
    let accusers = nodes_of(U256::from(appeal.accusers));
    match accusers.contains(&accuser) {
        true => accusers.into_iter().filter(|node| *node != accuser).collect(),
        false => Vec::new(),
    }
}

fn rule_of(question: Question) -> Rule {
    match question {
        Question::Weights => Rule::Fingerprint,
        Question::Sampling => Rule::Sampling,
        _ => Rule::Content,
    }
}
