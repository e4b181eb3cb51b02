//! What nodes signed, as it stands in the data of calls: commitments of answers.

use alloy::primitives::{Address, B256, Bytes, Signature};
use alloy::sol_types::SolInterface;
use assay_bindings::SessionQueue::{Answer, Precommit, SessionQueueCalls};
use assay_protocol::{QueueScope, State, commitment_of};
use assay_types::{
    Lane, NodeId, Nonce, Precommit as SignedPrecommit, SessionId, Signed, TaskId, task_id,
};

/// Longest data that is looked at: a commit of eight answers has 6 KB. What decoding takes is bounded with it.
const MAX_CALL_BYTES: usize = 32 << 10;
/// Statements of one call that are looked at: a task has at most eight answers.
const MAX_STATEMENTS: usize = 8;
/// Bytes of a signature; the contracts take no other form.
const SIGNATURE_BYTES: usize = 65;

/// A node signed that this is the commitment of its answer to a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) task: B256,
    pub(crate) node: u32,
    pub(crate) commitment: B256,
    pub(crate) signature: Bytes,
}

impl Statement {
    fn of_answer(scope: &QueueScope, task: B256, answer: Answer) -> Self {
        let commitment =
            commitment_of(&scope.commit_scope(TaskId(task), NodeId(answer.nodeId)), &answer);
        Self { task, node: answer.nodeId, commitment, signature: answer.signature }
    }

    fn of_precommit(task: B256, precommit: Precommit) -> Self {
        let Precommit { nodeId, commitment, signature } = precommit;
        Self { task, node: nodeId, commitment, signature }
    }

    /// Who signed it for this chain and queue; `None` if nobody did, or in another form than the contracts take.
    fn signer(&self, scope: &QueueScope) -> Option<Address> {
        let [.., v] = **self.signature else { return None };
        if self.signature.len() != SIGNATURE_BYTES || !matches!(v, 27 | 28) {
            return None;
        }
        let signature = Signature::try_from(self.signature.as_ref()).ok()?;
        let Self { task, node, commitment, .. } = *self;
        SignedPrecommit { taskId: task, nodeId: node, commitment }
            .signer(scope.chain_id, scope.queue, &signature)
            .ok()
    }

    /// Whether the node itself signed it, with a key that answers for it. What was signed for another chain, queue or
    /// task was signed by nobody here.
    pub(crate) fn is_by_its_node(&self, state: &State) -> bool {
        let Some(node) = state.nodes.get(&self.node) else { return false };
        // Until when the key before counts is the contract's to decide, when it is asked.
        self.signer(&state.network.scope())
            .is_some_and(|key| key == node.operator || key == node.previous_operator)
    }
}

/// What a call of the queue says that nodes signed. Nothing of it is checked.
pub(crate) fn statements(scope: &QueueScope, input: &[u8]) -> Vec<Statement> {
    use SessionQueueCalls as C;
    if input.len() > MAX_CALL_BYTES {
        return Vec::new();
    }
    let id =
        |session, lane, nonce| task_id(scope.queue, SessionId(session), Lane(lane), Nonce(nonce)).0;
    let precommits = |task, all: Vec<Precommit>| -> Vec<Statement> {
        all.into_iter().map(|one| Statement::of_precommit(task, one)).collect()
    };
    let mut found = match SessionQueueCalls::abi_decode(input) {
        Ok(C::submitAndCommit(call)) => {
            let request = &call.request;
            let task = id(request.sessionId, request.lane, request.nonce);
            vec![Statement::of_answer(scope, task, call.answer)]
        }
        Ok(C::submitAndPrecommit(call)) => {
            let request = &call.request;
            precommits(id(request.sessionId, request.lane, request.nonce), call.precommits)
        }
        Ok(C::precommit(call)) => precommits(scope.task_id(&call.task).0, call.precommits),
        Ok(C::commit(call)) => {
            let task = scope.task_id(&call.task).0;
            call.answers.into_iter().map(|one| Statement::of_answer(scope, task, one)).collect()
        }
        Ok(C::reportEquivocation(call)) => precommits(call.taskId, vec![call.one, call.other]),
        _ => Vec::new(),
    };
    found.retain(|statement| statement.signature.len() == SIGNATURE_BYTES);
    found.truncate(MAX_STATEMENTS);
    found
}

#[cfg(test)]
mod tests {
    use alloy::sol_types::SolCall;
    use assay_bindings::SessionQueue::{Task, precommitCall, reportEquivocationCall};

    use super::*;

    const SCOPE: QueueScope = QueueScope { chain_id: 1, queue: Address::repeat_byte(7) };

    fn precommit(byte: u8) -> Precommit {
        let signature = vec![byte; SIGNATURE_BYTES].into();
        Precommit { nodeId: 3, commitment: B256::repeat_byte(byte), signature }
    }

    #[test]
    fn calls_say_what_was_signed_for_which_task() {
        let task = Task { sessionId: 4, lane: 5, nonce: 6, ..Task::default() };
        let unsigned = Precommit { signature: Bytes::new(), ..precommit(2) };
        let id = scope_id(&task);
        let call = precommitCall { task, precommits: vec![precommit(1), unsigned] };
        let found = statements(&SCOPE, &call.abi_encode());
        assert_eq!(found, [Statement::of_precommit(id, precommit(1))]);
        let call = reportEquivocationCall { taskId: id, one: precommit(1), other: precommit(2) };
        assert_eq!(statements(&SCOPE, &call.abi_encode()).len(), 2);
    }

    fn scope_id(task: &Task) -> B256 {
        SCOPE.task_id(task).0
    }

    #[test]
    fn what_is_no_call_says_nothing() {
        let many = vec![precommit(1); MAX_STATEMENTS + 1];
        let call = precommitCall { task: Task::default(), precommits: many };
        let input = call.abi_encode();
        assert_eq!(statements(&SCOPE, &input).len(), MAX_STATEMENTS);
        for length in [0, 3, 4, 100, input.len() / 2] {
            assert_eq!(statements(&SCOPE, &input[..length]), [], "{length}");
        }
        assert_eq!(statements(&SCOPE, &[input, vec![0; MAX_CALL_BYTES]].concat()), []);
    }
}
