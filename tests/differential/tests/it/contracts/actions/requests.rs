//! Requests, sent by whoever holds the lane or carried by others.

use alloy::primitives::{Address, B256, Bytes, aliases::U96};
use assay_bindings::SessionQueue::{
    Precommit, TaskRequest, cancelCall, submitAndCommitCall, submitAndPrecommitCall, submitCall,
    submitSignedCall,
};
use assay_protocol::{
    Call, TaskState,
    order::order,
    state::{Reservation, Session, SessionState},
};
use assay_types::{Lane, NodeId, Nonce, Signed};

use super::{Gen, Step};

/// Shape of a request.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    /// Anything.
    Any,
    /// One node, pushed.
    Single,
    /// Several nodes.
    Redundant,
}

fn request(g: &mut Gen<'_>, shape: Shape) -> Option<TaskRequest> {
    let id = g.session(|s| matches!(s.state, SessionState::Active | SessionState::Draining))?;
    let session: Session = g.state().sessions.get(&id)?.clone();
    let lane = if session.state == SessionState::Draining && session.lanes.len() > 1 && g.chance(95)
    {
        g.among(1, session.lanes.len() as u64 - 1) as u32
    } else {
        g.below(session.lanes.len() as u64) as u32
    };
    let seed_round = match g.below(40) {
        _ if g.slip() => session.current.seed_round + 1,
        0..4 => session.previous.seed_round,
        4..12 => session.current.seed_round,
        _ => 0,
    };
    let time_s = g.time_s;
    let reservation = session.serves(seed_round, time_s).cloned().unwrap_or_default();
    let nodes = reservation.nodes.len() as u64;
    let redundancy = match shape {
        Shape::Single => 1,
        Shape::Redundant => g.among(2, nodes.min(8)) as u8,
        Shape::Any if g.slip() => g.below(10) as u8,
        Shape::Any if g.chance(60) => 1,
        Shape::Any => g.among(1, nodes.min(8)) as u8,
    };
    let pull = shape == Shape::Any && redundancy == 1 && g.chance(55);
    let named = !pull && g.chance(30);
    let node = if named { g.one(&reservation.nodes).unwrap_or(0) } else { 0 };
    let terms = g.state().tunables.session_terms(session.terms_version).ok()?.clone();
    let ahead_s = if g.slip() { g.below(70) } else { g.among(1, 25) };
    let most = u64::from(terms.maxAttempts);
    let attempts = if g.slip() { most + 1 } else { g.among(1, most) } as u8;
    let found = &session.lanes[lane as usize];
    let nonce = match g.below(10) {
        _ if g.slip() => found.next_nonce + g.among(254, 257),
        _ if g.slip() => found.next_nonce.saturating_sub(1),
        0 => found.next_nonce + g.below(4),
        _ => found.next_nonce,
    };
    let (max_prompt, max_output) = match g.slip() {
        true => (g.below(3) as u32, g.below(3) as u32),
        false => (g.among(1, 2000) as u32, g.among(20, 2000) as u32),
    };
    let has_callback = g.slip() || (lane == 0 && g.chance(40));
    let most = if g.chance(50) { 20 } else { 30_000 };
    let callback_gas = if g.slip() { 500_001 } else { g.among(1, most) as u32 };
    Some(TaskRequest {
        sessionId: id,
        lane: if g.slip() { 77 } else { lane },
        nonce,
        seedRound: seed_round,
        requestDigest: if g.slip() { B256::ZERO } else { g.word() },
        maxPrompt: max_prompt,
        maxOutput: max_output,
        feeCap: if g.slip() { U96::from(5) } else { U96::MAX },
        deadline: time_s + ahead_s,
        nodeId: if g.slip() { 19 } else { node },
        redundancy,
        attempts,
        dispatch: u8::from(pull || g.slip()),
        callbackGas: if has_callback { callback_gas } else { 0 },
    })
}

fn holder(g: &Gen<'_>, request: &TaskRequest) -> Address {
    let session = &g.state().sessions[&request.sessionId];
    session.lane(request.lane).map_or(Address::ZERO, |lane| lane.holder)
}

fn signature(g: &mut Gen<'_>, request: &TaskRequest) -> Bytes {
    let other_chain = u64::from(g.slip());
    let deployment = &g.state().network.deployment;
    let chain = deployment.chain_id + other_chain;
    let signed = assay_types::TaskRequest::from(request.clone());
    let hash = signed.signing_hash(chain, deployment.queue);
    let by = holder(g, request);
    let by = g.caller(&[by]);
    g.people().sign(by, hash)
}

pub fn submit(g: &mut Gen<'_>) -> Option<Step> {
    let request = request(g, Shape::Any)?;
    let holder = holder(g, &request);
    Some((g.caller(&[holder]), Call::from(submitCall { request })))
}

pub fn submit_signed(g: &mut Gen<'_>) -> Option<Step> {
    let request = request(g, Shape::Any)?;
    let signature = signature(g, &request);
    Some((g.anybody(), Call::from(submitSignedCall { request, signature })))
}

/// Nodes that a request will be given to; none if its seed is not known.
fn assigned(g: &Gen<'_>, request: &TaskRequest) -> Vec<u32> {
    let session = &g.state().sessions[&request.sessionId];
    let Some(reservation): Option<&Reservation> = session.serves(request.seedRound, g.time_s)
    else {
        return Vec::new();
    };
    let seed = g.state().rounds.get(&reservation.seed_round).copied().unwrap_or_default();
    let nodes: Vec<NodeId> = reservation.nodes.iter().copied().map(NodeId).collect();
    let named = (request.nodeId != 0).then_some(NodeId(request.nodeId));
    let turn = order(&nodes, named, seed, Lane(request.lane), Nonce(request.nonce));
    let parts = turn.into_iter().take(usize::from(request.redundancy));
    parts.map(|index| reservation.nodes[index]).collect()
}

fn task_id(g: &Gen<'_>, request: &TaskRequest) -> B256 {
    assay_types::TaskRequest::from(request.clone()).task_id(g.state().network.deployment.queue).0
}

pub fn submit_and_commit(g: &mut Gen<'_>) -> Option<Step> {
    let request = request(g, Shape::Single)?;
    let signature = signature(g, &request);
    let id = task_id(g, &request);
    let node = assigned(g, &request).first().copied()?;
    let of = (request.sessionId, id);
    let (caller, answer) = g.signed_answer(of, node, (request.maxPrompt, request.maxOutput));
    Some((caller, Call::from(submitAndCommitCall { request, signature, answer })))
}

pub fn submit_and_precommit(g: &mut Gen<'_>) -> Option<Step> {
    let request = request(g, Shape::Redundant)?;
    let signature = signature(g, &request);
    let id = task_id(g, &request);
    let most = (request.maxPrompt, request.maxOutput);
    let nodes = assigned(g, &request);
    let mut precommits: Vec<Precommit> = Vec::new();
    for node in nodes {
        if g.chance(75) {
            precommits.push(g.signed_precommit((request.sessionId, id), node, most));
        }
    }
    Some((g.anybody(), Call::from(submitAndPrecommitCall { request, signature, precommits })))
}

pub fn cancel(g: &mut Gen<'_>) -> Option<Step> {
    let (_, record) = g.task(|record| record.state == TaskState::Queued)?;
    let lane = g.state().sessions[&record.task.sessionId].lanes[record.task.lane as usize].clone();
    Some((g.caller(&[lane.holder]), Call::from(cancelCall { task: record.task })))
}
