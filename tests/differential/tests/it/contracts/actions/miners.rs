//! What miners do with tasks.

use alloy::primitives::{Address, B256, Bytes};
use assay_bindings::SessionQueue::{
    Answer, Precommit, Task, claimCall, commitCall, declineCall, precommitCall,
};
use assay_protocol::{Call, PartState, TaskState, commitment_of};
use assay_types::{Decline, Dispatch, NodeId, Precommit as SignedPrecommit, Signed, TaskId};

use super::{Gen, Step, derived, proofs};

impl Gen<'_> {
    /// The answer of a node to a task: always the same one, so that it can be opened later.
    pub fn answer(&mut self, (session, task): (u64, B256), node: u32, most: (u32, u32)) -> Answer {
        let class = self.state().nodes.get(&node).map_or(B256::ZERO, |node| node.class);
        let tokens = |most: u32, what: &str| {
            1 + u32::from_be_bytes(derived(task, node, what)[..4].try_into().unwrap()) % most.max(1)
        };
        let mut answer = Answer {
            nodeId: node,
            outputDigest: derived(task, node, "output"),
            promptHash: derived(task, node, "prompt"),
            promptTokens: tokens(most.0, "prompt tokens"),
            outputTokens: tokens(most.1, "output tokens"),
            numericClass: class,
            endReason: 1 + derived(task, node, "end")[0] % 3,
            salt: derived(task, node, "salt"),
            proofSeal: derived(task, node, "seal"),
            signature: Bytes::new(),
        };
        if let Some(width) = self.width_of(session) {
            answer.outputTokens = proofs::tokens(task, node, most.1);
            answer.proofSeal = self.proof_seal(task, node, answer.outputTokens, width);
        }
        if !self.slip() {
            return answer;
        }
        match self.below(6) {
            0 => answer.outputTokens = most.1 + 1,
            1 => answer.promptTokens = 0,
            2 => answer.endReason = 4,
            3 => answer.proofSeal = B256::ZERO,
            4 => answer.numericClass = self.word(),
            _ => answer.salt = self.word(),
        }
        answer
    }

    pub fn operator(&self, node: u32) -> Address {
        self.state().nodes.get(&node).map_or(Address::ZERO, |node| node.operator)
    }

    pub fn commitment_signature(&mut self, task: B256, node: u32, commitment: B256) -> Bytes {
        let deployment = &self.state().network.deployment;
        let signed = SignedPrecommit { taskId: task, nodeId: node, commitment };
        let hash = signed.signing_hash(deployment.chain_id, deployment.queue);
        let by = self.operator(node);
        let by = self.caller(&[by]);
        self.people().sign(by, hash)
    }

    fn commitment(&self, task: B256, answer: &Answer) -> B256 {
        let scope = self.state().network.scope().commit_scope(TaskId(task), NodeId(answer.nodeId));
        commitment_of(&scope, answer)
    }

    /// An answer and who sends it: its operator, or anybody with its signature.
    pub fn signed_answer(
        &mut self,
        (session, task): (u64, B256),
        node: u32,
        most: (u32, u32),
    ) -> (Address, Answer) {
        let mut answer = self.answer((session, task), node, most);
        if self.chance(50) {
            let operator = self.operator(node);
            return (self.caller(&[operator]), answer);
        }
        let commitment = self.commitment(task, &answer);
        answer.signature = self.commitment_signature(task, node, commitment);
        (self.anybody(), answer)
    }

    pub fn signed_precommit(
        &mut self,
        (session, task): (u64, B256),
        node: u32,
        most: (u32, u32),
    ) -> Precommit {
        let answer = self.answer((session, task), node, most);
        let commitment = self.commitment(task, &answer);
        let signature = self.commitment_signature(task, node, commitment);
        Precommit { nodeId: node, commitment, signature }
    }

    /// The task, or sometimes one that is not the stored one.
    fn perhaps_stale(&mut self, mut task: Task) -> Task {
        if self.slip() {
            if self.chance(50) {
                task.tried ^= 0x80;
            } else {
                task.nonce += 1000;
            }
        }
        task
    }
}

fn of(id: B256, task: &Task) -> (u64, B256) {
    (task.sessionId, id)
}

fn most(task: &Task) -> (u32, u32) {
    (task.maxPrompt, task.maxOutput)
}

/// Nodes with a part of the task in that state.
fn nodes_in(task: &Task, state: PartState) -> Vec<u32> {
    let parts = task.parts.iter().filter(|part| part.state == state as u8);
    parts.map(|part| part.nodeId).collect()
}

pub fn claim(g: &mut Gen<'_>) -> Option<Step> {
    let (_, record) = g.task(|record| record.state == TaskState::Queued)?;
    let session = g.state().sessions[&record.task.sessionId].clone();
    let mut gone = Vec::new();
    for ticket in session.dequeued + 1..record.task.ticket {
        let at = g.state().tasks.values().map(|entry| &entry.record.task);
        let mut at = at.filter(|task| {
            task.sessionId == record.task.sessionId
                && task.ticket == ticket
                && task.dispatch == Dispatch::Pull as u8
        });
        gone.push(at.next()?.clone());
    }
    if g.slip() {
        gone.pop();
    }
    if g.slip() {
        gone = vec![record.task.clone(); 65];
    }
    let time_s = g.time_s;
    let nodes = session.serves(record.task.reservation, time_s).map(|found| found.nodes.clone());
    let mut nodes = nodes.unwrap_or_default();
    if g.wild {
        // Who has claimed the most.
        nodes.sort_by_key(|node| g.state().claims.get(node).copied().unwrap_or(0));
        nodes.drain(..nodes.len().saturating_sub(1));
    }
    let node = g.one(&nodes)?;
    let operator = g.operator(node);
    let task = g.perhaps_stale(record.task);
    Some((g.caller(&[operator]), Call::from(claimCall { task, nodeId: node, gone })))
}

pub fn precommit(g: &mut Gen<'_>) -> Option<Step> {
    let single = if g.slip() { 0 } else { 1 };
    let (id, record) = g.task(|record| {
        record.state == TaskState::Assigned
            && record.task.parts.len() > single
            && !nodes_in(&record.task, PartState::Waiting).is_empty()
    })?;
    let mut nodes = nodes_in(&record.task, PartState::Waiting);
    if g.slip() {
        nodes.extend(nodes.clone());
    }
    let mut precommits = Vec::new();
    for node in &nodes {
        if nodes.len() == 1 || g.chance(70) {
            precommits.push(g.signed_precommit(of(id, &record.task), *node, most(&record.task)));
        }
    }
    let mut caller = g.anybody();
    if let [only] = precommits.as_mut_slice()
        && g.chance(50)
    {
        caller = g.operator(only.nodeId);
        only.signature = Bytes::new();
    }
    let task = g.perhaps_stale(record.task);
    Some((caller, Call::from(precommitCall { task, precommits })))
}

pub fn commit(g: &mut Gen<'_>) -> Option<Step> {
    let (id, record) = g.task(|record| match record.state {
        TaskState::Assigned => record.task.parts.len() == 1,
        TaskState::Precommitted => true,
        _ => false,
    })?;
    let (caller, answers) = if record.state == TaskState::Assigned {
        let node = record.task.parts[0].nodeId;
        let (caller, answer) = g.signed_answer(of(id, &record.task), node, most(&record.task));
        (caller, vec![answer])
    } else {
        let mut answers = Vec::new();
        for node in nodes_in(&record.task, PartState::Precommitted) {
            if g.chance(85) {
                answers.push(g.answer(of(id, &record.task), node, most(&record.task)));
            }
        }
        (g.anybody(), answers)
    };
    let task = g.perhaps_stale(record.task);
    Some((caller, Call::from(commitCall { task, answers })))
}

pub fn decline(g: &mut Gen<'_>) -> Option<Step> {
    let (id, record) = g.task(|record| record.state == TaskState::Assigned)?;
    let waiting = nodes_in(&record.task, PartState::Waiting);
    let node = if g.slip() { g.among(1, 20) as u32 } else { g.one(&waiting)? };
    let operator = g.operator(node);
    let (caller, signature) = if g.chance(50) {
        (g.caller(&[operator]), Bytes::new())
    } else {
        let deployment = &g.state().network.deployment;
        let signed = Decline { taskId: id, nodeId: node };
        let hash = signed.signing_hash(deployment.chain_id, deployment.queue);
        let by = g.caller(&[operator]);
        (g.anybody(), g.people().sign(by, hash))
    };
    let task = g.perhaps_stale(record.task);
    Some((caller, Call::from(declineCall { task, nodeId: node, signature })))
}
