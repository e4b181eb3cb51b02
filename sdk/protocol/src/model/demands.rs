//! `ProofOfInference`: data that a validator could not fetch, and that the miner publishes.

use assay_bindings::ProofOfInference::{
    Audit, Chunk, DataDemanded, DataPublished, Demand, ProofOfInference_AlreadyDemanded,
    ProofOfInference_ChunkSize, ProofOfInference_DataSize, ProofOfInference_NotParty,
    ProofOfInference_OtherSizes, ProofOfInference_WrongOffset, demandDataCall,
};

use super::{Run, audits::wrong_state, panels::unsealed};
use crate::{
    audit::waive,
    num::{int, u256},
    refusal::{Failure, require},
    state::AuditState,
};

/// Bytes of a published chunk.
const MAX_CHUNK: u32 = 32 * 1024;
/// Bytes of request and result together.
const MAX_DATA: u32 = 2 * 1024 * 1024;

impl Run<'_> {
    pub(super) fn demand_data(&mut self, call: &demandDataCall) -> Result<(), Failure> {
        let (state, until_s) = self.load(&call._0)?;
        let (mut audit, validator) = (call._0.clone(), call._2);
        let (id, node) = (audit.taskId, audit.nodeId);
        match state {
            AuditState::Convened => {
                self.check_parties(&audit, &call._1)?;
                unsealed(&audit, &call._1, validator)?;
            }
            AuditState::Drawn => require!(
                validator == audit.validator,
                ProofOfInference_NotParty { taskId: id, nodeId: node, party: validator }
            ),
            state => return Err(wrong_state(&audit, state)),
        }
        self.check_audit_in_time(&audit, until_s)?;
        self.check_validator(validator)?;
        require!(
            !self.is_demanded(&audit),
            ProofOfInference_AlreadyDemanded { taskId: id, nodeId: node }
        );
        waive(&mut audit, validator);
        self.emit(DataDemanded { taskId: id, nodeId: node, validator })?;
        let open_time = self.state.network.proof.openTime;
        self.enter(audit, AuditState::Demanded, int(open_time))
    }

    /// Whether somebody has demanded the data of an answer.
    pub(super) fn is_demanded(&self, audit: &Audit) -> bool {
        self.state.proofs.demands.contains_key(&(audit.taskId, audit.nodeId))
    }

    pub(super) fn publish_data(&mut self, brought: &Audit, chunk: &Chunk) -> Result<(), Failure> {
        let until_s = self.take(brought, AuditState::Demanded)?;
        let audit = brought.clone();
        self.check_audit_in_time(&audit, until_s)?;
        self.check_validator(audit.nodeId)?;
        let (id, node) = (audit.taskId, audit.nodeId);
        let demand = self.state.proofs.demands.get(&(id, node)).cloned().unwrap_or_default();
        let left = size_left(&demand, chunk)?;
        let (size, limit) = (chunk.data.len() as u64, u64::from(left.min(MAX_CHUNK)));
        require!(
            size != 0 && size <= limit,
            ProofOfInference_ChunkSize { size: u256(size), limit: u256(limit) }
        );
        self.emit(DataPublished {
            taskId: id,
            nodeId: node,
            offset: chunk.offset,
            requestBytes: chunk.requestBytes,
            totalBytes: chunk.totalBytes,
            data: chunk.data.clone(),
        })?;
        if size < u64::from(left) {
            return Ok(());
        }
        let resumes = AuditState::try_from(demand.resumes)?;
        let seal_time = self.state.network.proof.sealTime;
        self.enter(audit, resumes, int(seal_time))
    }
}

/// Bytes that are still to come, this chunk's included. The first one fixes how many there are.
fn size_left(demand: &Demand, chunk: &Chunk) -> Result<u32, Failure> {
    if demand.publishedBytes == 0 {
        require!(
            chunk.requestBytes <= chunk.totalBytes && chunk.totalBytes <= MAX_DATA,
            ProofOfInference_DataSize {
                requestBytes: chunk.requestBytes,
                totalBytes: chunk.totalBytes,
                limit: u256(u64::from(MAX_DATA)),
            }
        );
    } else {
        let fixed = (demand.requestBytes, demand.totalBytes);
        require!(
            (chunk.requestBytes, chunk.totalBytes) == fixed,
            ProofOfInference_OtherSizes { requestBytes: fixed.0, totalBytes: fixed.1 }
        );
    }
    let wanted = demand.publishedBytes;
    require!(chunk.offset == wanted, ProofOfInference_WrongOffset { offset: chunk.offset, wanted });
    Ok(chunk.totalBytes - wanted)
}
