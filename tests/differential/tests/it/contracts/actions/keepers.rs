//! What anybody may do to move things on.

use alloy::primitives::{B256, Bytes};
use assay_bindings::{
    RandomBeacon::revealCall,
    Session::{activateCall, expireCall, finishCall, rotateCall},
    SessionQueue::{
        Answer, Precommit, Task, advanceCall, deliverCall, reportEquivocationCall, settleCall,
    },
};
use assay_protocol::{Call, PartState, TaskState, state::SessionState};

use super::{Gen, Step, proofs};

/// A round that something waits for, or sometimes any.
pub fn reveal(g: &mut Gen<'_>) -> Option<Step> {
    let sessions = g.state().sessions.values().filter(|s| s.state != SessionState::Closed);
    let rounds: Vec<u64> = sessions
        .flat_map(|s| [s.waiting.map(|waiting| waiting.round), Some(s.current.seed_round)])
        .flatten()
        .chain(proofs::rounds(g))
        .filter(|round| *round != 0 && !g.state().rounds.contains_key(round))
        .collect();
    let head = g.world.chain.head().number();
    let round = if g.slip() { g.below(head + 3) } else { g.one(&rounds)? };
    let proof = if g.slip() { Bytes::from(vec![1]) } else { Bytes::new() };
    Some((g.anybody(), Call::Beacon(revealCall { round, proof })))
}

pub fn activate(g: &mut Gen<'_>) -> Option<Step> {
    let id = g.session(|session| session.waiting.is_some())?;
    Some((g.anybody(), Call::from(activateCall { sessionId: id })))
}

pub fn rotate(g: &mut Gen<'_>) -> Option<Step> {
    let id = g.session(|session| session.state == SessionState::Active)?;
    let lanes = g.state().sessions.get(&id).map_or(1, |session| session.lanes.len() as u64);
    let lane = g.below(lanes + 1).min(lanes) as u32;
    Some((g.anybody(), Call::from(rotateCall { sessionId: id, lane })))
}

pub fn expire(g: &mut Gen<'_>) -> Option<Step> {
    let time_s = g.time_s;
    let early = g.slip();
    let id = g.session(|session| {
        session.waiting.is_some_and(|waiting| early || waiting.until_s < time_s)
    })?;
    Some((g.anybody(), Call::from(expireCall { sessionId: id })))
}

pub fn finish(g: &mut Gen<'_>) -> Option<Step> {
    let id = g.session(|session| session.state == SessionState::Draining)?;
    Some((g.anybody(), Call::from(finishCall { sessionId: id })))
}

pub fn advance(g: &mut Gen<'_>) -> Option<Step> {
    let (time_s, early) = (g.time_s, g.slip());
    let (_, record) = g.task(|record| match record.state {
        TaskState::Queued | TaskState::Assigned | TaskState::Precommitted => {
            early || record.until_s < time_s
        }
        TaskState::Refunded => record.task.ticket != 0,
        _ => early,
    })?;
    Some((g.anybody(), Call::from(advanceCall { task: record.task })))
}

pub fn settle(g: &mut Gen<'_>) -> Option<Step> {
    let committed = g.state().tasks.values().map(|entry| &entry.record);
    let committed = committed.filter(|record| record.state == TaskState::Committed);
    let mut tasks: Vec<Task> = committed.map(|record| record.task.clone()).collect();
    if tasks.is_empty() {
        return None;
    }
    match g.below(8) {
        0 => tasks.push(tasks[0].clone()),
        1 => tasks[0].held -= alloy::primitives::aliases::U96::from(1),
        2 => tasks = vec![tasks[0].clone(); 65],
        3 => tasks.extend(g.task(|_| true).map(|(_, record)| record.task)),
        _ => {}
    }
    Some((g.anybody(), Call::from(settleCall { tasks })))
}

pub fn deliver(g: &mut Gen<'_>) -> Option<Step> {
    let early = g.slip();
    let undelivered: Vec<B256> = g
        .state()
        .tasks
        .iter()
        .filter(|(_, entry)| early || (entry.record.task.callbackGas != 0 && !entry.delivered))
        .filter(|(_, entry)| {
            early || matches!(entry.record.state, TaskState::Settled | TaskState::Refunded)
        })
        .map(|(id, _)| *id)
        .collect();
    let id = g.one(&undelivered)?;
    let task = g.state().tasks[&id].record.task.clone();
    let committed = task.parts.iter().filter(|p| p.state == PartState::Committed as u8);
    let node = committed.map(|part| part.nodeId).next().unwrap_or(0);
    let mut answer: Answer = g.answer((task.sessionId, id), node, (task.maxPrompt, task.maxOutput));
    // What was never an answer has no hash in Rust.
    answer.endReason = answer.endReason.min(3);
    if g.slip() {
        answer.nodeId += 1;
    }
    Some((g.anybody(), Call::from(deliverCall { task, answer })))
}

pub fn report_equivocation(g: &mut Gen<'_>) -> Option<Step> {
    let (mut id, record) = g.task(|record| !record.task.parts.is_empty())?;
    let nodes: Vec<u32> = record.task.parts.iter().map(|part| part.nodeId).collect();
    let mut node = g.one(&nodes)?;
    let punished: Vec<_> = g.state().accounts.punished.iter().copied().collect();
    if g.wild
        && g.chance(50)
        && let Some(before) = g.one(&punished)
    {
        (id, node) = before;
    }
    let mut signed = || {
        let commitment = g.word();
        let signature = g.commitment_signature(id, node, commitment);
        Precommit { nodeId: node, commitment, signature }
    };
    let (one, mut other) = (signed(), signed());
    if g.slip() {
        other = one.clone();
    }
    let id = if g.slip() { g.word() } else { id };
    Some((g.anybody(), Call::from(reportEquivocationCall { taskId: id, one, other })))
}
