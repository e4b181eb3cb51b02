//! What a block teaches a miner. No IO.

use assay_chain::{ChainEvent, ProtocolEvent};
use assay_types::{Lane, NodeId, Nonce, SessionId, TaskId};

use crate::answers::{ChainTask, Fate};

/// One thing to store.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Lesson {
    /// A task was given to this node.
    Given(ChainTask),
    /// Something became of a task of this node.
    Fate {
        /// The task.
        task: TaskId,
        /// What.
        fate: Fate,
    },
}

/// The lessons of a block for `node`, in the order in which to store them.
pub(crate) fn lessons(event: &ChainEvent, node: NodeId) -> Vec<Lesson> {
    match event {
        ChainEvent::Committed(block) => {
            block.events.iter().filter_map(|event| learn(&event.body, node)).collect()
        }
        // Newest first: a task that was committed and settled in it ends up as answered.
        ChainEvent::Reverted(block) => {
            block.events.iter().rev().filter_map(|event| unlearn(&event.body, node)).collect()
        }
    }
}

fn learn(event: &ProtocolEvent, node: NodeId) -> Option<Lesson> {
    let (task, owner, fate) = match event {
        ProtocolEvent::TaskSubmitted(given) if given.nodeId == node.0 => {
            return Some(Lesson::Given(ChainTask {
                task: TaskId(given.taskId),
                session: SessionId(given.sessionId),
                lane: Lane(given.lane),
                nonce: Nonce(given.nonce),
                request_digest: given.requestDigest,
                max_prompt: given.maxPrompt,
                max_output: given.maxOutput,
                deadline_s: given.deadline,
            }));
        }
        ProtocolEvent::TaskCommitted(event) => {
            let fate = Fate::Committed { settle_at_s: event.settleAt.to::<u64>(), fee: event.fee };
            (event.taskId, event.nodeId, fate)
        }
        ProtocolEvent::TaskSettled(event) => {
            (event.taskId, event.nodeId, Fate::Settled { earned: event.minerShare })
        }
        ProtocolEvent::TaskRefunded(event) => (event.taskId, event.nodeId, Fate::Refunded),
        _ => return None,
    };
    (owner == node.0).then_some(Lesson::Fate { task: TaskId(task), fate })
}

fn unlearn(event: &ProtocolEvent, node: NodeId) -> Option<Lesson> {
    let (task, owner, fate) = match event {
        ProtocolEvent::TaskCommitted(event) => (event.taskId, event.nodeId, Fate::Answered),
        ProtocolEvent::TaskSettled(event) => (event.taskId, event.nodeId, Fate::Unsettled),
        ProtocolEvent::TaskRefunded(event) => (event.taskId, event.nodeId, Fate::Answered),
        _ => return None,
    };
    (owner == node.0).then_some(Lesson::Fate { task: TaskId(task), fate })
}
