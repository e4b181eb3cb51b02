//! The transaction of each push.

use alloy::primitives::aliases::U40;
use alloy::primitives::{Address, B256, Bytes, keccak256};
use alloy::sol_types::SolCall;
use assay_bindings::SessionQueue::Answer;
use assay_bindings::{Deployment, ProofOfInference, RandomBeacon, Session, SessionQueue};
use assay_chain::{Chain, Intent};

use super::state::{Brought, Push};

/// A push with what its call brings.
pub(super) struct Call<'a> {
    pub push: &'a Push,
    pub attempt: u32,
    pub brought: Brought,
    /// Of a round.
    pub proof: Bytes,
}

/// What a call is about, where it goes, and its data.
type Target = (String, Address, Vec<u8>);

/// The transaction; `None` if what it needs is not there any more.
pub(super) fn intent(chain: &Chain, call: Call<'_>) -> Option<Intent> {
    let Call { push, attempt, brought, proof } = call;
    let deployment = &chain.deployment;
    let (subject, to, data) = match push {
        Push::Reveal(round) => {
            let call = RandomBeacon::revealCall { round: *round, proof };
            (round.to_string(), deployment.beacon, call.abi_encode())
        }
        Push::Activate(_)
        | Push::Rotate(..)
        | Push::Expire(_)
        | Push::Finish(_)
        | Push::FinishReclaim(..) => of_session(push, deployment)?,
        Push::Advance(_) | Push::Deliver(_) => of_task(push, brought, deployment)?,
        Push::Draw(_) | Push::Settle(_) => {
            let settle = Intent::settle("", deployment.queue, brought.tasks);
            let key = format!("{}:{}#{attempt}", push.name(), keccak256(&settle.data));
            return Some(Intent { key, ..settle });
        }
        Push::CloseEpoch(_)
        | Push::Convene(..)
        | Push::Judge(..)
        | Push::Reconvene(..)
        | Push::AdvanceAudit(..)
        | Push::AdvancePanel(..)
        | Push::Collect(..) => of_proof(push, brought, deployment)?,
    };
    // What a draw, a task or an audit stands at is part of its data: the same push again is another effect.
    let effect = keccak256(&data);
    Some(Intent::call(format!("{}:{subject}:{effect}#{attempt}", push.name()), to, data))
}

fn of_session(push: &Push, deployment: &Deployment) -> Option<Target> {
    let (subject, data) = match push {
        Push::Activate(id) => {
            (id.to_string(), Session::activateCall { sessionId: *id }.abi_encode())
        }
        Push::Rotate(id, lane) => {
            (id.to_string(), Session::rotateCall { sessionId: *id, lane: *lane }.abi_encode())
        }
        Push::Expire(id) => (id.to_string(), Session::expireCall { sessionId: *id }.abi_encode()),
        Push::Finish(id) => (id.to_string(), Session::finishCall { sessionId: *id }.abi_encode()),
        Push::FinishReclaim(id, lane) => {
            let call = Session::finishReclaimCall { sessionId: *id, lane: *lane };
            (format!("{id}/{lane}"), call.abi_encode())
        }
        _ => return None,
    };
    Some((subject, deployment.sessions, data))
}

fn of_task(push: &Push, brought: Brought, deployment: &Deployment) -> Option<Target> {
    let Brought { mut tasks, answer, .. } = brought;
    let (subject, data) = match push {
        Push::Advance(id) => {
            (id.to_string(), SessionQueue::advanceCall { task: tasks.pop()? }.abi_encode())
        }
        Push::Deliver(id) => {
            let answer = answer.map_or_else(no_answer, |answer| *answer);
            let call = SessionQueue::deliverCall { task: tasks.pop()?, answer };
            (id.to_string(), call.abi_encode())
        }
        _ => return None,
    };
    Some((subject, deployment.queue, data))
}

/// Functions that another contract's code runs have no names for what they take.
fn of_proof(push: &Push, brought: Brought, deployment: &Deployment) -> Option<Target> {
    let Brought { audit, parties, audit_state, .. } = brought;
    let audit = audit.map(|audit| *audit);
    let of = |task: &B256, node: &u32| format!("{task}/{node}/{audit_state}");
    let (subject, data) = match push {
        Push::CloseEpoch(epoch) => {
            let call = ProofOfInference::closeEpochCall { epoch: U40::try_from(*epoch).ok()? };
            (epoch.to_string(), call.abi_encode())
        }
        Push::Convene(task, node) => {
            let call = ProofOfInference::conveneCall(audit?);
            (of(task, node), call.abi_encode())
        }
        Push::Judge(task, node) => {
            let call = ProofOfInference::judgeCall { _0: audit?, _1: parties };
            (of(task, node), call.abi_encode())
        }
        Push::Reconvene(task, node) => {
            let call = ProofOfInference::reconveneCall { _0: audit?, _1: parties };
            (of(task, node), call.abi_encode())
        }
        Push::AdvanceAudit(task, node) => {
            let call = ProofOfInference::advanceAuditCall(audit?);
            (of(task, node), call.abi_encode())
        }
        Push::AdvancePanel(task, node) => {
            let call = ProofOfInference::advancePanelCall { _0: audit?, _1: parties };
            (of(task, node), call.abi_encode())
        }
        Push::Collect(task, node) => {
            let call = ProofOfInference::collectCall(audit?);
            (of(task, node), call.abi_encode())
        }
        _ => return None,
    };
    Some((subject, deployment.proof, data))
}

/// What is told of a task that was refunded.
fn no_answer() -> Answer {
    Answer {
        nodeId: 0,
        outputDigest: B256::ZERO,
        promptHash: B256::ZERO,
        promptTokens: 0,
        outputTokens: 0,
        numericClass: B256::ZERO,
        endReason: 0,
        salt: B256::ZERO,
        proofSeal: B256::ZERO,
        signature: Bytes::new(),
    }
}
