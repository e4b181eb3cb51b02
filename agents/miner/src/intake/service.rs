//! Stores what blocks teach together with the cursor, and tells the others.

use std::sync::Arc;

use assay_chain::{ChainEvent, DatabaseError, save_cursor};
use assay_types::NodeId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Lesson, lessons};
use crate::{
    answers::{Answers, Fate, add_waiting, set_fate},
    clock::ChainClock,
    committer,
    status::Stats,
    worker,
};

/// The service; its parts come from the wiring.
pub(crate) struct Intake {
    pub node: NodeId,
    pub answers: Answers,
    pub clock: Arc<ChainClock>,
    pub stats: Arc<Stats>,
    pub events: mpsc::Receiver<ChainEvent>,
    pub worker: mpsc::Sender<worker::Input>,
    pub committer: mpsc::UnboundedSender<committer::Input>,
}

impl Intake {
    /// Until `stop`, or until the chain's events end.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), DatabaseError> {
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
        }
    }

    async fn take(&self, event: &ChainEvent) -> Result<(), DatabaseError> {
        let lessons = lessons(event, self.node);
        let given = self.answers.database().transaction(|tx| {
            let mut given = Vec::new();
            for lesson in &lessons {
                match lesson {
                    Lesson::Given(task) if add_waiting(tx, task)? => given.push(task.clone()),
                    Lesson::Given(_) => {}
                    Lesson::Fate { task, fate } => set_fate(tx, *task, *fate)?,
                }
            }
            save_cursor(tx, event.block())?;
            Ok(given)
        })?;
        if let ChainEvent::Committed(block) = event {
            self.clock.set(block.timestamp);
        }
        let mut paid = false;
        for lesson in lessons {
            let Lesson::Fate { task, fate } = lesson else { continue };
            paid |= matches!(fate, Fate::Settled { .. } | Fate::Unsettled);
            if matches!(fate, Fate::Committed { .. }) {
                self.stats.committed();
            }
            // Unbounded, but no more than there are events of our own tasks.
            let _ = self.committer.send(committer::Input::Fate { task, fate });
        }
        if paid {
            let (earned, settled) = self.answers.earned()?;
            self.stats.set_earned(earned, settled);
        }
        for task in given {
            if self.worker.send(worker::Input::Given(task)).await.is_err() {
                break; // The worker has stopped; the task waits in the database.
            }
        }
        Ok(())
    }
}
