//! `ProofOfInference`: how likely an answer is audited, and which answers are.

use alloy::primitives::{B256, U256, aliases::U40};
use assay_bindings::{
    ProofOfInference::{
        AnswerCleared, AnswerExposed, AnswerUnverified, Audit, BookChanged, EpochClosed,
        ProofOfInference_AlreadyExposed, ProofOfInference_EpochClosed, ProofOfInference_EpochOpen,
        ProofOfInference_NotCalibrated, ProofOfInference_StakeTooSmall,
    },
    SessionQueue::{Part, SessionQueue_TokensOutOfBounds},
};
use assay_types::MAX_OUTPUT_LIMIT;

use super::Run;
use crate::{
    audit::{joined, levy_bps},
    money::share_down,
    num::{amount, int, u40, u96, u256},
    odds::{BPS, by_exposure_bps, by_record_bps, roll},
    refusal::{Failure, require},
    state::{AuditState, Exposure, known},
    task::{PartEvent, PartState},
};

/// Value of an answer at most.
const MAX_VALUE: u128 = (1 << 96) - 1;

impl Run<'_> {
    /// Fixes what the proof of an answer depends on, if its session is proven.
    pub(super) fn expose(&mut self, id: B256, node: u32) -> Result<(), Failure> {
        let task = &self.record_of(id)?.task;
        let session = self.state.session(task.sessionId)?;
        if !session.is_proven {
            return Ok(());
        }
        require!(
            task.maxOutput <= MAX_OUTPUT_LIMIT,
            SessionQueue_TokensOutOfBounds { maxPrompt: task.maxPrompt, maxOutput: task.maxOutput }
        );
        let part = known(task.parts.iter().find(|part| part.nodeId == node), "the part of", node)?;
        let (model, asset, fee) = (session.model, session.asset, amount(part.fee));
        require!(
            !self.state.proofs.answers.contains_key(&(id, node)),
            ProofOfInference_AlreadyExposed { taskId: id, nodeId: node }
        );
        let class = self.state.node(node)?.class;
        require!(
            self.state.calibration(model, class, class).is_some(),
            ProofOfInference_NotCalibrated { nodeId: node, numericClass: class }
        );
        let value = self.in_cor(model, asset, fee)?;
        let open = self.state.proofs.open_value(node) + value;
        let odds = self.probability_bps((node, model), value, open);
        require!(
            odds <= U256::from(BPS),
            ProofOfInference_StakeTooSmall {
                nodeId: node,
                value: u256(open),
                stake: u256(self.state.accounts.stake(node)),
            }
        );
        let pool = self.state.pools.get(&(model, false));
        self.emit(AnswerExposed {
            taskId: id,
            nodeId: node,
            value: u96(value),
            committedAt: u40(self.at.time_s),
            slots: pool.map_or(0, |pool| pool.slots()),
            probabilityBps: odds.saturating_to(),
            openValue: u256(open),
        })
    }

    /// A fee in COR, by the model's own floors, rounded up.
    fn in_cor(&self, model: u32, asset: u8, fee: u128) -> Result<u128, Failure> {
        if asset == 0 {
            return Ok(fee);
        }
        let (in_cor, in_asset) = (self.floors(model, 0)?.1, self.floors(model, asset)?.1);
        let value = (u256(fee) * u256(in_cor)).div_ceil(u256(in_asset));
        Ok(value.saturating_to::<u128>().min(MAX_VALUE))
    }

    /// Of the audit of an answer of that value, of a node with so much open, hundredths of a percent.
    fn probability_bps(&self, (node, model): (u32, u32), value: u128, open: u128) -> U256 {
        let config = &self.state.network.proof;
        let at_risk = share_down(self.state.accounts.stake(node), config.slashBps);
        let gain = (open * u128::from(config.gainBps)).div_ceil(u128::from(BPS));
        let passed = self.state.proofs.records.get(&(node, model)).map_or(0, |record| record.0);
        by_exposure_bps(gain, at_risk, config.powerBps)
            .max(U256::from(by_record_bps(passed, value)))
            .max(U256::from(config.minProbabilityBps))
    }

    pub(super) fn close_epoch(&mut self, epoch: U40) -> Result<(), Failure> {
        let ends_at_s = self.epoch_end_s(int(epoch));
        require!(
            self.at.time_s >= ends_at_s,
            ProofOfInference_EpochOpen { epoch, endsAt: u256(ends_at_s) }
        );
        if let Some((round, _)) = self.state.proofs.rounds.get(&int(epoch)) {
            return Err(ProofOfInference_EpochClosed { epoch, round: *round }.into());
        }
        let round = self.next_round();
        self.emit(EpochClosed { epoch, round })
    }

    fn epoch_end_s(&self, epoch: u64) -> u64 {
        (epoch + 1).saturating_mul(int(self.state.network.proof.epochLength))
    }

    /// What each of a task's answers that are to be paid gives for audits, hundredths of a percent of its fee, none if its
    /// session is not proven; `None` while their proofs are not through. Those that are not good fail.
    pub(super) fn prove(&mut self, id: B256) -> Result<Option<Vec<u16>>, Failure> {
        let task = self.record_of(id)?.task.clone();
        if !self.state.session(task.sessionId)?.is_proven {
            return Ok(Some(Vec::new()));
        }
        let answered = |part: &&Part| part.state == PartState::Committed as u8;
        let answers: Vec<&Part> = task.parts.iter().filter(answered).collect();
        let nodes = answers.iter().fold(U256::ZERO, |set, part| joined(set, part.nodeId));
        let (mut ready, mut unpaid, mut levies) = (true, Vec::new(), Vec::new());
        for part in answers {
            let standing = self.state.proofs.answers.get(&(id, part.nodeId));
            let standing = known(standing, "the exposed answer of node", part.nodeId)?;
            let (state, odds) = (standing.state, standing.exposure.probability_bps);
            ready &= match state {
                AuditState::Exposed => self.is_settled_by_draw(id, part, nodes)?,
                state => state == AuditState::Cleared || state >= AuditState::Passed,
            };
            if matches!(state, AuditState::Void | AuditState::Disproved) {
                unpaid.push(part.nodeId);
            } else {
                let audited = (state >= AuditState::Passed).then_some(odds);
                levies.push(levy_bps(&self.state.network.proof, audited));
            }
        }
        if !ready {
            return Ok(None);
        }
        for (place, part) in task.parts.iter().enumerate() {
            if unpaid.contains(&part.nodeId) {
                self.tell_part(id, part.nodeId, place, PartEvent::Disproved)?;
            }
        }
        Ok(Some(levies))
    }

    /// Draws an answer that waits: true if its fate is settled by that, false if it still waits, or is audited now.
    fn is_settled_by_draw(&mut self, id: B256, part: &Part, nodes: U256) -> Result<bool, Failure> {
        let node = part.nodeId;
        let standing = self.state.proofs.answers.get(&(id, node));
        let exposure = known(standing, "the exposed answer of node", node)?.exposure;
        let length_s = int(self.state.network.proof.epochLength).max(1);
        let epoch = exposure.committed_at_s / length_s;
        if self.at.time_s < self.epoch_end_s(epoch) {
            return Ok(false);
        }
        let Some((round, named_at_s)) = self.state.proofs.rounds.get(&epoch).copied() else {
            self.close_epoch(u40(epoch))?;
            return Ok(false);
        };
        let Some(value) = self.value_of(round) else {
            let timeout_s = int(self.state.network.proof.roundTimeout);
            let lost = self.at.time_s > named_at_s + timeout_s || self.is_missed(round);
            if lost {
                self.emit(AnswerCleared { taskId: id, nodeId: node, unaudited: true })?;
            }
            return Ok(lost);
        };
        if roll(value, id, node) >= u64::from(exposure.probability_bps) {
            self.emit(AnswerCleared { taskId: id, nodeId: node, unaudited: false })?;
            return Ok(true);
        }
        let mut audit = self.audit_of(id, part, &exposure, value)?;
        audit.nodes = nodes;
        match self.state.draw_validator(&mut audit, false)? {
            Some(validator) => {
                audit.validator = validator;
                let seal_time = self.state.network.proof.sealTime;
                self.enter(audit, AuditState::Drawn, int(seal_time))?;
                Ok(false)
            }
            None => {
                self.emit(AnswerUnverified { taskId: id, nodeId: node })?;
                Ok(true)
            }
        }
    }

    fn audit_of(
        &self,
        id: B256,
        part: &Part,
        exposure: &Exposure,
        value: B256,
    ) -> Result<Audit, Failure> {
        let session = self.state.session(self.record_of(id)?.task.sessionId)?;
        Ok(Audit {
            taskId: id,
            nodeId: part.nodeId,
            model: session.model,
            asset: session.asset,
            fee: part.fee,
            value: u96(exposure.value),
            client: session.owner,
            committedAt: u40(exposure.committed_at_s),
            slots: exposure.slots,
            probabilityBps: exposure.probability_bps,
            root: part.commitment,
            seed: value,
            ..Audit::default()
        })
    }

    /// Changes what is put aside for audits of a model.
    pub(super) fn book(
        &mut self,
        model: u32,
        asset: u8,
        change: impl FnOnce(u128) -> u128,
    ) -> Result<(), Failure> {
        let before = self.state.proofs.books.get(&(model, asset)).copied().unwrap_or(0);
        self.emit(BookChanged { model, asset, amount: u256(change(before)) })
    }
}
