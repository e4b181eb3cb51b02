//! Taking a task from the head of a session's queue.

use assay_protocol::TaskState;
use assay_types::{Lane, ModelId};

use super::Tools;
use crate::{
    ledger::{Call, LedgerError},
    tasks::ChainTask,
};

/// How a claim ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The task is this node's: its event says the rest.
    Done,
    /// Somebody else was faster, the queue is in another order, or the chain does not answer.
    Later,
    /// Not for this node.
    Never,
}

/// Claims the task, if it is at the head of its queue.
pub(crate) async fn claim(tools: &Tools, queued: &ChainTask) -> Claim {
    match try_claim(tools, queued).await {
        Ok(claim) => claim,
        Err(error) => {
            tracing::warn!(task = %queued.task, %error, "a task cannot be claimed now");
            tools.stats.error(&error);
            Claim::Later
        }
    }
}

async fn try_claim(tools: &Tools, queued: &ChainTask) -> Result<Claim, LedgerError> {
    let (session, task) = (queued.session(), &queued.record.task);
    let (admission, head) = tokio::try_join!(
        tools.ledger.admission(session, Lane(task.lane), task.reservation),
        tools.ledger.queue_head(session),
    )?;
    let wanted: ModelId = tools.engine.info().model_id;
    let ours = |found: &crate::ledger::Admission| {
        found.model_id == wanted && found.nodes.contains(&tools.node)
    };
    if !admission.as_ref().is_some_and(ours) {
        return Ok(Claim::Never);
    }
    if let Err(refusal) = tools.promises.allow(session, task.held.to::<u128>()).await {
        tracing::info!(task = %queued.task, code = refusal.code, message = %refusal.message, "not claimed");
        return Ok(Claim::Later);
    }
    let gone = match tools.answers.queued_before(session, head, task.ticket) {
        Ok(gone) => gone,
        Err(error) => {
            tracing::error!(%error, "the queue cannot be read");
            return Ok(Claim::Later);
        }
    };
    // What stands before it must have ended, all of it.
    let before = task.ticket.checked_sub(head).and_then(|count| usize::try_from(count).ok());
    let ended = gone.iter().all(|gone| gone.record.state == TaskState::Refunded);
    if before != Some(gone.len()) || !ended {
        return Ok(Claim::Later);
    }
    let gone = gone.into_iter().map(|gone| gone.record.task).collect();
    let key = format!("claim:{}:{}:{}", queued.task, task.ticket, tools.clock.now_s());
    match tools.ledger.send(key, Call::Claim(Box::new(task.clone()), tools.node, gone)).await {
        Ok(()) => Ok(Claim::Done),
        Err(error) => {
            // Somebody else was faster: that is no error.
            tracing::debug!(task = %queued.task, %error, "a claim did not get through");
            Ok(Claim::Later)
        }
    }
}
