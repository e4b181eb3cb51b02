//! `ProofOfInference`: an audit from its draw to what its validator finds.

use alloy::primitives::{Address, B256, U256};
use assay_bindings::ProofOfInference::{
    Answer, Audit, AuditMoved, Findings, Leaf, ProofOfInference_BadBlocks,
    ProofOfInference_BadLeaf, ProofOfInference_BadPosition, ProofOfInference_BadProof,
    ProofOfInference_BadStatistics, ProofOfInference_EmptySeal, ProofOfInference_LeafCount,
    ProofOfInference_NotDemanded, ProofOfInference_NotOperator, ProofOfInference_NotQueue,
    ProofOfInference_RoundNotReady, ProofOfInference_StaleAudit, ProofOfInference_TooEarly,
    ProofOfInference_TooLate, ProofOfInference_WrongOpening, ProofOfInference_WrongRoot,
    ProofOfInference_WrongState, ProofOfInferenceCalls, ProofOpened, RecordChanged, Verdict,
    commitAuditCall, openProofCall,
};
use assay_proof::{
    Calibration, Cusum, Failing, MerkleError, Opened, Reasons, SPOT_POSITIONS, Statistics, Width,
    audit_leaf, blocks, draw_positions, failing_is_possible, leaf, leaves_agree, verdict, verify,
};
use assay_types::{
    AuditSeal, EndReason, NodeId, NumericClass, ProofSeal, TaskId, TokenSeal, commitment,
    position_seed,
};

use super::Run;
use crate::{
    audit::{Question, digest, earn, earners_of, levy_bps, named_positions, nodes_of},
    hearing::contrasts,
    num::{amount, int, u40, u96, u256},
    refusal::{Failure, require},
    rule::Rule,
    state::AuditState,
};

/// Validators that are asked one after the other before an answer stays unverified.
const MAX_VALIDATORS: usize = 3;
/// Above the 16 bits of the levy, in the place of the time of an audit that is over.
const HAS_EARNERS: u64 = 1 << 16;
/// Where a validator's word has its flags.
const FLAGS_BIT: usize = 96;
/// What vouches for a node at most.
const MAX_PASSED: u128 = (1 << 96) - 1;

/// Leaves that somebody opens, and what they have to be those of.
pub(super) struct Opening<'a> {
    pub(super) node: u32,
    pub(super) root: B256,
    pub(super) positions: &'a [u32],
    pub(super) leaves: &'a [Leaf],
    pub(super) nodes: &'a [B256],
    /// Of a validator, whose leaves have margins.
    pub(super) margins: bool,
}

impl Run<'_> {
    pub(super) fn proof(&mut self, call: &ProofOfInferenceCalls) -> Result<(), Failure> {
        use ProofOfInferenceCalls as C;
        match call {
            C::expose(_) | C::resolve(_) | C::book(_) => {
                Err(ProofOfInference_NotQueue { caller: self.at.caller }.into())
            }
            C::closeEpoch(call) => self.close_epoch(call.epoch),
            C::commitAudit(call) => self.commit_audit(call),
            C::openProof(call) => self.open_proof(call),
            C::reveal(call) => self.reveal_findings(&call.brought, &call.findings),
            C::demandData(call) => self.demand_data(call),
            C::publishData(call) => self.publish_data(&call._0, &call._1),
            C::convene(call) => self.convene(&call.0),
            C::commitPanel(call) => self.commit_panel(call),
            C::testify(call) => self.testify(call),
            C::judge(call) => self.judge(&call._0, &call._1),
            C::appeal(call) => self.appeal(&call._0, &call._1),
            C::reconvene(call) => self.reconvene(&call._0, &call._1),
            C::advanceAudit(call) => self.advance_audit(&call.0),
            C::advancePanel(call) => self.advance_panel(&call._0, &call._1),
            C::collect(call) => self.collect(&call.0),
            _ => Ok(()),
        }
    }

    // ------------------------------------------------------------ reading and writing

    /// The stored audit, which must be the one that was brought, and the end of its time in unix seconds.
    pub(super) fn load(&self, brought: &Audit) -> Result<(AuditState, u64), Failure> {
        let (id, node) = (brought.taskId, brought.nodeId);
        let found = self.state.proofs.answers.get(&(id, node));
        let state = found.map_or(0, |standing| standing.state as u8);
        let audited = found.filter(|standing| standing.state > AuditState::Cleared);
        let stored = audited.and_then(|found| Some((found, found.audit.as_ref()?)));
        let (standing, stored) =
            stored.ok_or(ProofOfInference_WrongState { taskId: id, nodeId: node, state })?;
        require!(
            stored == brought,
            ProofOfInference_StaleAudit {
                taskId: id,
                nodeId: node,
                stored: digest(stored),
                brought: digest(brought),
            }
        );
        Ok((standing.state, standing.until_s))
    }

    pub(super) fn take(&self, brought: &Audit, wanted: AuditState) -> Result<u64, Failure> {
        let (state, until_s) = self.load(brought)?;
        if state != wanted {
            return Err(wrong_state(brought, state));
        }
        Ok(until_s)
    }

    pub(super) fn check_audit_in_time(&self, audit: &Audit, until_s: u64) -> Result<(), Failure> {
        let (id, node) = (audit.taskId, audit.nodeId);
        require!(
            self.at.time_s <= until_s,
            ProofOfInference_TooLate { taskId: id, nodeId: node, until: u40(until_s) }
        );
        Ok(())
    }

    pub(super) fn check_audit_late(&self, audit: &Audit, until_s: u64) -> Result<(), Failure> {
        let (id, node) = (audit.taskId, audit.nodeId);
        require!(
            self.at.time_s > until_s,
            ProofOfInference_TooEarly { taskId: id, nodeId: node, until: u40(until_s) }
        );
        Ok(())
    }

    pub(super) fn check_validator(&self, node: u32) -> Result<(), Failure> {
        let (operator, caller) = (self.state.nodes.get(&node).map(|n| n.operator), self.at.caller);
        require!(
            operator.unwrap_or(Address::ZERO) == caller,
            ProofOfInference_NotOperator { nodeId: node, caller }
        );
        Ok(())
    }

    /// What a validator commits to, by its operator.
    pub(super) fn check_seal(&self, node: u32, seal: B256) -> Result<(), Failure> {
        self.check_validator(node)?;
        require!(!seal.is_zero(), ProofOfInference_EmptySeal {});
        Ok(())
    }

    pub(super) fn round_value(&self, round: u64) -> Result<B256, Failure> {
        Ok(self.value_of(round).ok_or(ProofOfInference_RoundNotReady { round })?)
    }

    /// The audit goes on like this, for so many seconds.
    pub(super) fn enter(
        &mut self,
        audit: Audit,
        state: AuditState,
        seconds: u64,
    ) -> Result<(), Failure> {
        self.tell_audit(audit, state, self.at.time_s + seconds)
    }

    fn tell_audit(&mut self, audit: Audit, state: AuditState, until: u64) -> Result<(), Failure> {
        let (id, node) = (audit.taskId, audit.nodeId);
        let until = u40(until);
        self.emit(AuditMoved { taskId: id, nodeId: node, state: state as u8, until, audit })
    }

    /// The audit is over: what was found counts for or against the node.
    pub(super) fn conclude(&mut self, audit: Audit, outcome: AuditState) -> Result<(), Failure> {
        self.conclude_owing(audit, outcome, 0)
    }

    /// The same; `owed` is `HAS_MEMBERS` if there are members of an appeal's panel to be paid.
    pub(super) fn conclude_owing(
        &mut self,
        audit: Audit,
        outcome: AuditState,
        owed: u64,
    ) -> Result<(), Failure> {
        if outcome == AuditState::Disproved {
            self.set_record(&audit, (0, 0))?;
        }
        let levy_bps = levy_bps(&self.state.network.proof, Some(audit.probabilityBps));
        let earners = if earners_of(&audit).is_empty() { 0 } else { HAS_EARNERS };
        self.tell_audit(audit, outcome, u64::from(levy_bps) | earners | owed)
    }

    /// A true answer vouches for its node, unless its margins over many answers have drifted off; without statistics
    /// what was found this time counts neither for nor against it.
    pub(super) fn vouch(
        &mut self,
        audit: &Audit,
        statistics: Option<&Statistics>,
        limits: &Calibration,
    ) -> Result<(), Failure> {
        let records = &self.state.proofs.records;
        let (passed, drift) =
            records.get(&(audit.nodeId, audit.model)).copied().unwrap_or_default();
        let drift = Cusum(drift);
        let drift = statistics.map_or(drift, |statistics| drift.after(statistics, limits));
        if drift.alarms(limits) {
            return self.set_record(audit, (0, 0));
        }
        self.set_record(audit, ((passed + amount(audit.value)).min(MAX_PASSED), drift.0))
    }

    fn set_record(&mut self, audit: &Audit, (passed, drift): (u128, u32)) -> Result<(), Failure> {
        let (node, model) = (audit.nodeId, audit.model);
        self.emit(RecordChanged { nodeId: node, model, passed: u96(passed), drift })
    }

    /// keccak256 of what a validator commits to.
    pub(super) fn seal_of(
        &self,
        audit: &Audit,
        validator: u32,
        (root, statistics, salt): (B256, U256, B256),
    ) -> B256 {
        let scope = self.state.network.scope();
        let scope = scope.commit_scope(TaskId(audit.taskId), NodeId(validator));
        AuditSeal { miner: NodeId(audit.nodeId), root, statistics, salt }.hash(&scope)
    }

    // ------------------------------------------------------------ from the draw to the reveal

    fn commit_audit(&mut self, call: &commitAuditCall) -> Result<(), Failure> {
        let until_s = self.take(&call.brought, AuditState::Drawn)?;
        let mut audit = call.brought.clone();
        self.check_audit_in_time(&audit, until_s)?;
        self.check_seal(audit.validator, call.sealed_)?;
        audit.validatorRoot = call.sealed_;
        let open_time = self.state.network.proof.openTime;
        self.enter(audit, AuditState::Sealed, int(open_time))
    }

    fn open_proof(&mut self, call: &openProofCall) -> Result<(), Failure> {
        let until_s = self.take(&call.brought, AuditState::Sealed)?;
        let mut audit = call.brought.clone();
        self.check_audit_in_time(&audit, until_s)?;
        let (id, scope) = (TaskId(audit.taskId), self.state.network.scope());
        let of = |node| scope.commit_scope(id, NodeId(node));
        let h1 = tokens_of(&call.answer).hash(&of(call.answer.nodeId));
        let h2 = ProofSeal { root: call.root, salt: call.salt }.hash(&of(audit.nodeId));
        let (expected, given) = (audit.root, commitment(h1, h2));
        require!(
            given == expected,
            ProofOfInference_WrongOpening { nodeId: audit.nodeId, expected, given }
        );
        (audit.root, audit.outputTokens) = (call.root, call.answer.outputTokens);
        audit.round = self.next_round();
        self.emit(ProofOpened {
            taskId: audit.taskId,
            nodeId: audit.nodeId,
            root: call.root,
            proofDigest: call.proofDigest,
        })?;
        let reveal_time = self.state.network.proof.revealTime;
        self.enter(audit, AuditState::Opened, int(reveal_time))
    }

    fn reveal_findings(&mut self, brought: &Audit, found: &Findings) -> Result<(), Failure> {
        let until_s = self.take(brought, AuditState::Opened)?;
        let mut audit = brought.clone();
        self.check_audit_in_time(&audit, until_s)?;
        let validator = audit.validator;
        // Which blocks fail, and where a panel looks, was not committed to: nobody else may say it.
        self.check_validator(validator)?;
        let word = (found.root, found.statistics, found.salt);
        let (expected, given) = (audit.validatorRoot, self.seal_of(&audit, validator, word));
        require!(
            given == expected,
            ProofOfInference_WrongOpening { nodeId: validator, expected, given }
        );
        let unread = found.statistics >> FLAGS_BIT & U256::from(Reasons::IDS.0) != U256::ZERO;
        require!(
            !unread || self.is_demanded(&audit),
            ProofOfInference_NotDemanded { taskId: audit.taskId, nodeId: audit.nodeId }
        );
        let limits = self.state.limits_of(&audit, validator)?;
        let (statistics, reasons) = self.reasons_of(&audit, found, &limits)?;
        (audit.validatorRoot, audit.reasons) = (found.root, reasons.0);
        earn(&mut audit, validator);
        self.emit(Verdict {
            taskId: audit.taskId,
            nodeId: audit.nodeId,
            validator,
            reasons: reasons.0,
            statistics: found.statistics,
            failingBlocks: found.failingBlocks,
        })?;
        match Question::of(reasons) {
            Question::None => {
                self.vouch(&audit, Some(&statistics), &limits)?;
                return self.conclude(audit, AuditState::Passed);
            }
            Question::Weights => audit.named = U256::from(found.worstBlock),
            Question::Sampling => {
                (audit.named, audit.alsoNamed) = (found.named, found.alsoNamed);
                let named = self.named(&audit)?;
                require!(!named.is_empty(), bad_position(0, audit.outputTokens));
            }
            Question::Content => {}
        }
        audit.round = self.next_round();
        let timeout = self.state.network.proof.roundTimeout;
        self.enter(audit, AuditState::Accused, int(timeout))
    }

    /// The positions that an accuser named.
    pub(super) fn named(&self, audit: &Audit) -> Result<Vec<u32>, Failure> {
        let tokens = audit.outputTokens;
        let named = named_positions(audit.named, audit.alsoNamed, tokens);
        named.map_err(|position| bad_position(position, tokens).into())
    }

    /// What a validator's findings come to, once what they stand on is checked.
    fn reasons_of(
        &self,
        audit: &Audit,
        found: &Findings,
        limits: &Calibration,
    ) -> Result<(Statistics, Reasons), Failure> {
        let tokens = audit.outputTokens;
        let statistics = checked(found.statistics, tokens)?;
        let failing = Failing { blocks: found.failingBlocks, worst: found.worstBlock };
        require!(
            failing_is_possible(failing, tokens),
            ProofOfInference_BadBlocks {
                failing: U256::from(failing.blocks),
                worst: U256::from(failing.worst),
                blocks: U256::from(blocks(tokens)),
            }
        );
        let positions = self.spots(audit, (1, tokens), SPOT_POSITIONS)?;
        let ours = Opening {
            node: audit.validator,
            root: found.root,
            positions: &positions,
            leaves: &found.leaves,
            nodes: &found.nodes,
            margins: true,
        };
        let ours = opened(&ours, tokens, limits.width)?;
        // Whose leaves cannot be had has to show them itself before a panel.
        if found.minerLeaves.is_empty() {
            return Ok((statistics, verdict(&statistics, failing, false, limits)));
        }
        let theirs = Opening {
            node: audit.nodeId,
            root: audit.root,
            positions: &positions,
            leaves: &found.minerLeaves,
            nodes: &found.minerNodes,
            margins: false,
        };
        let theirs = opened(&theirs, tokens, limits.width)?;
        let agrees = if positions.len() < SPOT_POSITIONS as usize {
            // So few tell nothing but their ids.
            ours.iter().map(|leaf| leaf.token).eq(theirs.iter().map(|leaf| leaf.token))
        } else {
            leaves_agree(&theirs, &ours, limits.spot_tau)
        };
        Ok((statistics, verdict(&statistics, failing, agrees, limits)))
    }

    /// Positions of a window that the audit's round draws.
    pub(super) fn spots(
        &self,
        audit: &Audit,
        (first, count): (u32, u32),
        wanted: u32,
    ) -> Result<Vec<u32>, Failure> {
        let value = self.round_value(audit.round)?;
        let seed = position_seed(value, TaskId(audit.taskId), NodeId(audit.nodeId));
        Ok(draw_positions(seed, first, count, wanted))
    }

    // ------------------------------------------------------------ when somebody is silent

    fn advance_audit(&mut self, brought: &Audit) -> Result<(), Failure> {
        let (state, until_s) = self.load(brought)?;
        let mut audit = brought.clone();
        let waits = (AuditState::Drawn..=AuditState::Accused).contains(&state);
        if !waits && !matches!(state, AuditState::Demanded | AuditState::Appealed) {
            return Err(wrong_state(&audit, state));
        }
        self.check_audit_late(&audit, until_s)?;
        let late = |rule| (rule, self.at.time_s, until_s);
        match state {
            AuditState::Drawn => self.replace_validator(audit, until_s),
            AuditState::Demanded => self.convict_unpublished(audit, until_s),
            AuditState::Appealed => self.call_off(audit),
            // There was no randomness to draw a panel with.
            AuditState::Accused => self.conclude(audit, AuditState::Void),
            AuditState::Sealed => {
                let evidence = late(Rule::Unopened);
                let (validator, node) = (audit.validator, audit.nodeId);
                earn(&mut audit, validator);
                self.conclude(audit.clone(), AuditState::Disproved)?;
                self.slash_liar(&audit, node, evidence, &[validator])
            }
            _ => {
                let evidence = late(Rule::Withheld);
                self.conclude(audit.clone(), AuditState::Unverified)?;
                // It could not open what needs a round that is not there.
                if self.value_of(audit.round).is_none() {
                    return Ok(());
                }
                self.slash_liar(&audit, audit.validator, evidence, &[])
            }
        }
    }

    /// Another validator for one that was silent.
    fn replace_validator(&mut self, mut audit: Audit, until_s: u64) -> Result<(), Failure> {
        let idle = audit.validator;
        let more = nodes_of(audit.drawn).len() < MAX_VALIDATORS;
        let next = if more { self.state.draw_validator(&mut audit, false)? } else { None };
        audit.validator = next.unwrap_or(0);
        let seal_time = int(self.state.network.proof.sealTime);
        match next {
            Some(_) => self.enter(audit.clone(), AuditState::Drawn, seal_time)?,
            None => self.conclude(audit.clone(), AuditState::Unverified)?,
        }
        self.slash_idle(&audit, idle, until_s)
    }
}

pub(super) fn wrong_state(audit: &Audit, state: AuditState) -> Failure {
    let (id, node) = (audit.taskId, audit.nodeId);
    ProofOfInference_WrongState { taskId: id, nodeId: node, state: state as u8 }.into()
}

fn tokens_of(answer: &Answer) -> TokenSeal {
    TokenSeal {
        output_digest: answer.outputDigest,
        prompt_hash: answer.promptHash,
        prompt_tokens: answer.promptTokens,
        output_tokens: answer.outputTokens,
        class: NumericClass(answer.numericClass),
        // No answer was taken with a reason that is not known.
        end_reason: EndReason::try_from(answer.endReason).unwrap_or(EndReason::Cancelled),
        salt: answer.salt,
    }
}

fn bad_position(position: u32, tokens: u32) -> ProofOfInference_BadPosition {
    ProofOfInference_BadPosition { position: U256::from(position), tokens: U256::from(tokens) }
}

/// The statistics of a word, which must be one that honest arithmetic can give for so many tokens.
pub(super) fn checked(word: U256, tokens: u32) -> Result<Statistics, Failure> {
    let read = Statistics::unpack(word).ok().filter(|read| read.tokens == tokens);
    Ok(read.ok_or(ProofOfInference_BadStatistics { word, tokens: U256::from(tokens) })?)
}

/// The leaves that somebody opens, if they are those of the root.
pub(super) fn opened(
    opening: &Opening<'_>,
    tokens: u32,
    width: Width,
) -> Result<Vec<Opened>, Failure> {
    let Opening { node, root, positions, leaves, nodes, margins } = *opening;
    let (given, wanted) = (u256(leaves.len() as u64), u256(positions.len() as u64));
    require!(given == wanted, ProofOfInference_LeafCount { leaves: given, wanted });
    let (mut found, mut hashes) = (Vec::new(), Vec::new());
    for (position, given) in positions.iter().zip(leaves) {
        let bad = ProofOfInference_BadLeaf { position: U256::from(*position) };
        let contrasts = contrasts(given.contrasts, width).ok_or(bad)?;
        let hash = match margins {
            true => audit_leaf(*position, given.id, &contrasts, given.margin),
            false => leaf(*position, given.id, &contrasts),
        };
        hashes.push((*position, hash));
        found.push(Opened { token: given.id, contrasts });
    }
    match verify(root, tokens, &hashes, nodes) {
        Ok(()) => Ok(found),
        Err(MerkleError::Root { got, want }) => {
            Err(ProofOfInference_WrongRoot { nodeId: node, expected: want, given: got }.into())
        }
        Err(_) => Err(ProofOfInference_BadProof { nodes: u256(nodes.len() as u64) }.into()),
    }
}
