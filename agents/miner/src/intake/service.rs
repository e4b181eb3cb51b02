//! Stores what blocks teach together with the cursor, and tells the others.

use std::sync::Arc;

use assay_bindings::SessionQueue::Answer;
use assay_chain::{ChainEvent, DatabaseError, save_cursor};
use assay_types::{EndReason, NumericClass, TaskId, TokenSeal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::state::{Earnings, Lesson, lessons};
use crate::{
    answers::Answers,
    audits,
    clock::ChainClock,
    committer::{self, Seen},
    status::Stats,
    tasks::{Change, Scope, Standing, take},
    worker::{self, Outlets},
};

/// The service; its parts come from the wiring.
pub(crate) struct Intake {
    pub scope: Scope,
    pub answers: Answers,
    pub clock: Arc<ChainClock>,
    pub stats: Arc<Stats>,
    pub events: mpsc::Receiver<ChainEvent>,
    pub worker: mpsc::Sender<worker::Input>,
    pub committer: mpsc::UnboundedSender<committer::Input>,
    pub audits: mpsc::UnboundedSender<TaskId>,
    pub outlets: Outlets,
    pub earnings: Earnings,
    /// Number of the newest block when the miner started.
    pub head: u64,
    /// Cancelled when that block is taken in.
    pub caught_up: CancellationToken,
}

impl Intake {
    /// Until `stop`, or until the chain's events end.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), DatabaseError> {
        if self.answers.cursor()? >= self.head {
            self.caught_up.cancel();
        }
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                event = self.events.recv() => event,
            };
            let Some(event) = event else {
                stop.cancelled().await;
                return Ok(());
            };
            self.take(&event).await?;
            if event.block().at.number >= self.head {
                self.caught_up.cancel();
            }
        }
    }

    async fn take(&mut self, event: &ChainEvent) -> Result<(), DatabaseError> {
        let scope = self.scope;
        let (taken, told) = self.answers.database().transaction(|tx| {
            let taken = take(tx, &scope, event)?;
            let told = audits::take(tx, scope.node, event)?;
            save_cursor(tx, event.block())?;
            Ok((taken, told))
        })?;
        if let ChainEvent::Committed(block) = event {
            self.clock.set(block.timestamp);
            audits::lessons(block, scope.node)
                .into_iter()
                .for_each(|lesson| self.tell_audit(lesson));
        }
        if told.pay > 0 {
            self.stats.audit_paid(told.pay);
        }
        for task in told.tasks {
            self.tell_of_audits(task)?;
        }
        for lesson in lessons(&taken, scope.node) {
            self.learn(lesson)?;
        }
        if self.earnings.add(&taken) {
            self.stats.set_earned(self.earnings);
        }
        for change in taken.changes {
            self.tell(change).await?;
        }
        Ok(())
    }

    fn learn(&self, lesson: Lesson) -> Result<(), DatabaseError> {
        match lesson {
            Lesson::Count(what) => self.stats.count(what),
            Lesson::HandedBack(task) => {
                let code = self.answers.dropped(task)?.map(|dropped| dropped.code);
                self.stats.handed_back(code.as_deref().unwrap_or("unknown"));
            }
            Lesson::Answered(task) if !self.answers.is_answered(task)? => {
                tracing::error!(
                    %task,
                    "the chain has an answer of this node that its database does not know: it was restored from a backup \
                     or shared with another miner; the task is not answered again"
                );
                self.stats.count("unknown_answers");
                self.stats.error(format!(
                    "task {task}: the chain has an answer of this node that its database does not know"
                ));
            }
            Lesson::Answered(_) => {}
        }
        Ok(())
    }

    /// An audit has moved: what is to be done about it, and whether the task can be settled now.
    fn tell_of_audits(&self, task: TaskId) -> Result<(), DatabaseError> {
        // Unbounded, but no more than there are events of this node's audits.
        let _ = self.audits.send(task);
        let Some(given) = self.answers.chain_task(task)? else { return Ok(()) };
        if given.standing(self.scope.node) == Standing::Committed {
            let seen = match self.answers.is_being_audited(task)? {
                true => Seen::Audited,
                false => Seen::On(Standing::Committed, given.record.until_s),
            };
            let _ = self.committer.send(committer::Input::Moved { task, seen });
        }
        Ok(())
    }

    fn tell_audit(&self, lesson: audits::Lesson) {
        let audits::Lesson { what, text, slashed, is_bad } = lesson;
        let node = self.scope.node;
        match is_bad {
            true => tracing::warn!(%node, what, "{text}"),
            false => tracing::info!(%node, what, "{text}"),
        }
        self.stats.audit_told(what, text, slashed);
    }

    async fn tell(&self, change: Change) -> Result<(), DatabaseError> {
        let (task, now) = (change.task, change.now);
        let standing = match &now {
            Some(now) => self.answers.standing(now, self.scope.node)?,
            None => Standing::Elsewhere,
        };
        let seen = match &now {
            Some(now) => Seen::On(standing, now.record.until_s),
            None => Seen::Absent,
        };
        if standing == Standing::Opening
            && let Some(outlet) = self.outlets.get(task)
            && let Some(open) = self.answers.open_one(task)?
            && let Some(seal) = seal_of(&open.answer.answer)
        {
            outlet.opening(seal, open.answer.answer.proofSeal);
        }
        // Unbounded, but no more than there are events of this node's tasks and sessions.
        let _ = self.committer.send(committer::Input::Moved { task, seen });
        if self.caught_up.is_cancelled() {
            let now = now.map(Box::new);
            // The worker may have stopped: the task waits in the database.
            let _ = self.worker.send(worker::Input::Chain { task, now, standing }).await;
        }
        Ok(())
    }
}

fn seal_of(answer: &Answer) -> Option<TokenSeal> {
    Some(TokenSeal {
        output_digest: answer.outputDigest,
        prompt_hash: answer.promptHash,
        prompt_tokens: answer.promptTokens,
        output_tokens: answer.outputTokens,
        class: NumericClass(answer.numericClass),
        end_reason: EndReason::try_from(answer.endReason).ok()?,
        salt: answer.salt,
    })
}
