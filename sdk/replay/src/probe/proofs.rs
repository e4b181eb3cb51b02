//! What `ProofOfInference` must store, and `ModelRegistry` of calibrations.

use alloy::primitives::{B256, U256};
use assay_bindings::{ModelRegistry, ProofOfInference};
use assay_protocol::{
    ProtocolEvent, State, audit,
    state::{AuditState, Exposure, Standing},
};

use super::{About, Prober, Touched, seconds};

impl Touched {
    /// What an event of `ProofOfInference` tells of.
    pub(super) fn add_proof(&mut self, event: &ProtocolEvent, state: &State) {
        use ProtocolEvent as E;
        match event {
            E::AnswerExposed(e) => self.proof(e.taskId, e.nodeId, state),
            E::AnswerCleared(e) => self.proof(e.taskId, e.nodeId, state),
            E::AnswerUnverified(e) => self.proof(e.taskId, e.nodeId, state),
            E::AuditMoved(e) => self.proof(e.taskId, e.nodeId, state),
            // A member of an appeal's panel that opens is noted beside the audit.
            E::PanelMoved(e) => self.proof(e.taskId, e.nodeId, state),
            E::DataDemanded(e) => self.proof(e.taskId, e.nodeId, state),
            E::DataPublished(e) => self.proof(e.taskId, e.nodeId, state),
            E::Appealed(e) => self.proof(e.taskId, e.nodeId, state),
            E::AuditCollected(e) => {
                self.proof(e.taskId, e.nodeId, state);
                self.accounts.insert(state.network.deployment.proof);
            }
            E::RecordChanged(e) => _ = self.nodes.insert(e.nodeId),
            E::BookChanged(e) => _ = self.models.insert(e.model),
            E::EpochClosed(e) => _ = self.epochs.insert(e.epoch.to()),
            E::ClassPaused(e) => _ = self.classes.insert(e.numericClass),
            // What the others tell is stored with an audit, of which another event tells, or nowhere.
            _ => {}
        }
    }

    /// The proof of an answer, and what is at stake of its node.
    fn proof(&mut self, id: B256, node: u32, state: &State) {
        self.task(id, state);
        self.nodes.insert(node);
    }
}

impl Prober<'_> {
    /// The proofs of a task's answers. What was through is forgotten.
    pub(super) fn proofs_of_task(&mut self, id: B256) {
        let (state, at) = (self.state, self.state.network.deployment.proof);
        let Some(entry) = state.tasks.get(&id) else { return };
        let task = &entry.record.task;
        if !state.sessions.get(&task.sessionId).is_some_and(|session| session.is_proven) {
            return;
        }
        for node in task.parts.iter().map(|part| part.nodeId) {
            self.about = About { task: Some(id), node: Some(node), ..About::default() };
            let found = state.proofs.answers.get(&(id, node));
            let call = ProofOfInference::statusOfCall { taskId: id, nodeId: node };
            let what = format!("the proof of task {id} by node {node}");
            self.ask(at, &call, &status(found), what);
            let call = ProofOfInference::exposureOfCall { taskId: id, nodeId: node };
            let waits = found.filter(|standing| standing.state == AuditState::Exposed);
            let expected = exposure(waits.map(|standing| &standing.exposure));
            let what = format!("what is exposed of task {id} by node {node}");
            self.ask(at, &call, &expected, what);
            let call = ProofOfInference::demandOfCall { taskId: id, nodeId: node };
            let expected = state.proofs.demands.get(&(id, node)).cloned().unwrap_or_default();
            let what = format!("what was demanded of task {id} by node {node}");
            self.ask(at, &call, &expected, what);
            let call = ProofOfInference::appealOfCall { taskId: id, nodeId: node };
            let expected = state.proofs.appeals.get(&(id, node)).cloned().unwrap_or_default();
            self.ask(at, &call, &expected, format!("the appeal over task {id} by node {node}"));
        }
    }

    /// What vouches for a node, and what is at stake.
    pub(super) fn proofs_of_node(&mut self, id: u32) {
        let (state, at) = (self.state, self.state.network.deployment.proof);
        self.about = About { node: Some(id), ..About::default() };
        let (open, call) =
            (state.proofs.open_value(id), ProofOfInference::openValueOfCall { nodeId: id });
        self.ask_amount(at, &call, open, format!("what is at stake of node {id}"));
        for ((_, model), (passed, drift)) in state.proofs.records.range((id, 0)..=(id, u32::MAX)) {
            let call = ProofOfInference::recordOfCall { nodeId: id, model: *model };
            let passed = (*passed).try_into().unwrap_or_default();
            let expected = ProofOfInference::recordOfReturn { _0: passed, _1: *drift };
            let what = format!("what vouches for node {id} with model {model}");
            self.ask(at, &call, &expected, what);
        }
    }

    /// Calibrations of a model, and what is put aside for its audits.
    pub(super) fn proofs_of_model(&mut self, index: u32) {
        let (state, to) = (self.state, &self.state.network.deployment);
        let Some(model) = state.models.get(&index) else { return };
        for ((miner, validator), pair) in &model.pairs {
            let (miner, validator) = (*miner, *validator);
            let call = ModelRegistry::calibrationOfCall {
                index,
                minerClass: miner,
                validatorClass: validator,
            };
            self.ask(to.models, &call, &pair.word, format!("a calibration of model {index}"));
            for (time_s, word) in
                [(pair.calibrated_at_s, U256::ZERO), (pair.calibrated_at_s + 1, pair.word)]
            {
                let call = ModelRegistry::calibrationBeforeCall {
                    index,
                    minerClass: miner,
                    validatorClass: validator,
                    time: seconds(time_s),
                };
                let what = format!("a calibration of model {index} before second {time_s}");
                self.ask(to.models, &call, &word, what);
            }
            let call = ModelRegistry::attestedOfCall {
                index,
                minerClass: miner,
                validatorClass: validator,
            };
            let attested = pair.attested.len().try_into().unwrap_or(u8::MAX);
            self.ask(to.models, &call, &attested, format!("who attested it of model {index}"));
        }
        for ((_, asset), sum) in state.proofs.books.range((index, 0)..=(index, u8::MAX)) {
            let call = ProofOfInference::bookOfCall { model: index, asset: *asset };
            let what = format!("what is put aside for audits of model {index} in asset {asset}");
            self.ask_amount(to.proof, &call, *sum, what);
        }
    }

    /// The round that draws the answers of an epoch.
    pub(super) fn epoch(&mut self, epoch: u64) {
        let (state, at) = (self.state, self.state.network.deployment.proof);
        let Some((round, named_at_s)) = state.proofs.rounds.get(&epoch).copied() else { return };
        self.about = About::default();
        let call = ProofOfInference::roundOfCall { epoch: seconds(epoch) };
        let expected = ProofOfInference::roundOfReturn { _0: round, _1: seconds(named_at_s) };
        self.ask(at, &call, &expected, format!("the round that draws epoch {epoch}"));
    }

    /// Until when nobody of a class is slashed by a verdict.
    pub(super) fn class(&mut self, class: B256) {
        let (state, at) = (self.state, self.state.network.deployment.proof);
        let until_s = state.proofs.paused_until_s.get(&class).copied().unwrap_or(0);
        self.about = About::default();
        let call = ProofOfInference::pausedUntilCall { numericClass: class };
        self.ask(at, &call, &seconds(until_s), format!("until when class {class} is paused"));
    }
}

fn status(found: Option<&Standing>) -> ProofOfInference::statusOfReturn {
    let digest = found.and_then(|standing| standing.audit.as_ref()).map(audit::digest);
    ProofOfInference::statusOfReturn {
        state: found.map_or(0, |standing| standing.state as u8),
        until: seconds(found.map_or(0, |standing| standing.until_s)),
        digest: digest.unwrap_or_default(),
    }
}

fn exposure(found: Option<&Exposure>) -> ProofOfInference::exposureOfReturn {
    ProofOfInference::exposureOfReturn {
        _0: found.map(|e| e.value).unwrap_or_default().try_into().unwrap_or_default(),
        _1: seconds(found.map_or(0, |e| e.committed_at_s)),
        _2: found.map_or(0, |e| e.slots),
        _3: found.map_or(0, |e| e.probability_bps),
    }
}
