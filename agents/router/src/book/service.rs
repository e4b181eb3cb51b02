//! Keeps the book: blocks and notes go to the database, nonces come out of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use assay_types::{B256, Nonce, SessionId, TaskId, TaskRequest};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::sleep,
};

use super::{
    db::{self, Note, TaskRow},
    lanes,
    owed::{self, Unpinned},
    proofs::{self, TaskProof},
    prune,
    state::{Book, Observed, Submitted},
};
use crate::{
    clock::now_ms,
    config::{
        NONCE_WINDOW, NONCES_URGENT, NONCES_WANTED, NOTE_BATCH, NOTE_DELAY, NOTES_BEHIND,
        PIN_BATCH, PRUNE_BATCH,
    },
    journal::{Journal, JournalError},
};

/// What the recorder is given.
#[derive(Debug)]
pub enum Entry {
    /// Write this.
    Note(Note),
    /// Take nonces ahead of use.
    Nonces(SessionId),
    /// Answer when everything before is written.
    Flush(oneshot::Sender<()>),
}

/// Why there is no nonce.
#[derive(Debug, thiserror::Error)]
pub enum NonceError {
    /// The database failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The contract takes no nonce that is so far ahead of those that it has.
    #[error("{NONCE_WINDOW} tasks of this lane are not on chain yet")]
    TooFarAhead,
}

/// A block, or one that is no longer canonical.
#[derive(Clone, Debug)]
pub enum BlockChange {
    /// Take it in.
    Committed(Observed),
    /// Undo it.
    Reverted(Observed),
}

/// Moves the durable cursor in the transaction that stores a block's events; `None` where nothing is durable.
pub type SaveCursor = Box<dyn FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<()> + Send>;

/// The book and its database. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    book: Arc<Mutex<Book>>,
    journal: Journal,
    recorder: mpsc::Sender<Entry>,
    /// Somebody waits for what is written.
    hurry: Arc<Notify>,
}

impl Ledger {
    /// Reads the book from the database.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn open(
        journal: Journal,
        me: assay_types::Address,
        recorder: mpsc::Sender<Entry>,
    ) -> Result<Self, JournalError> {
        let read = |tx: &rusqlite::Transaction<'_>| {
            db::fail_pending(tx)?;
            let known = (db::models(tx)?, db::sessions(tx)?);
            Ok((known, lanes::charges(tx)?, lanes::next_on_chain(tx)?))
        };
        let ((models, sessions), charges, nonces) = journal.transaction(read)?;
        let mut book = Book::new(me, models, sessions);
        book.set_charges(charges);
        book.set_next_on_chain(nonces);
        let (book, hurry) = (Arc::new(Mutex::new(book)), Arc::default());
        Ok(Self { book, journal, recorder, hurry })
    }

    /// The book.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a note soon, in order; does not wait.
    pub fn note(&self, note: Note) {
        self.enter(Entry::Note(note));
    }

    fn enter(&self, entry: Entry) {
        if self.recorder.try_send(entry).is_err() {
            metrics::counter!("assay_router_notes_lost_total", "agent" => "router").increment(1);
            tracing::warn!("the database does not keep up: an entry of a task's timeline is lost");
        }
    }

    /// A nonce that no request of this lane ever had.
    ///
    /// # Errors
    /// If the database fails, or the contract would not take one yet.
    pub async fn nonce(&self, session: SessionId) -> Result<Nonce, NonceError> {
        loop {
            let taken = self.book().take_nonce(session);
            if let Some((nonce, left)) = taken {
                match left {
                    NONCES_WANTED => self.enter(Entry::Nonces(session)),
                    NONCES_URGENT => self.hurry.notify_one(),
                    _ => {}
                }
                return Ok(nonce);
            }
            if !self.more_nonces(session).await? {
                return Err(NonceError::TooFarAhead);
            }
        }
    }

    /// Takes nonces from the database for this process; whether there are any.
    async fn more_nonces(&self, session: SessionId) -> Result<bool, JournalError> {
        let on_chain = self.book().next_on_chain(session);
        let taken = move |tx: &rusqlite::Transaction<'_>| lanes::take_nonces(tx, session, on_chain);
        let (start, end) = self.journal.run(taken).await?;
        self.book().give_nonces(session, start, end);
        Ok(start < end)
    }

    /// Lets others have the processor between two entries of a transaction: the system lets a busy thread run for
    /// milliseconds, and an answer would wait so long for its turn. Whoever is behind has no time for it.
    fn give_way(&self) {
        let waiting = self.recorder.max_capacity() - self.recorder.capacity();
        if waiting < NOTES_BEHIND {
            std::thread::yield_now();
        }
    }

    /// Waits until everything that was noted is in the database.
    pub async fn written(&self) {
        let (done, written) = oneshot::channel();
        if self.recorder.send(Entry::Flush(done)).await.is_ok() {
            self.hurry.notify_one();
            // An error means that the recorder stops; what it had is written.
            let _ = written.await;
        }
    }

    /// The task as the database has it, with everything that was noted before.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn task(&self, id: TaskId) -> Result<Option<TaskRow>, JournalError> {
        self.written().await;
        self.journal.run(move |tx| db::task(tx, &id)).await
    }

    /// What the chain told of the proofs of a task's answers.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn proof(&self, id: TaskId) -> Result<Option<TaskProof>, JournalError> {
        self.written().await;
        self.journal.run(move |tx| proofs::of(tx, &id)).await
    }

    /// Takes in a change of the chain; the transactions whose gas is wanted.
    ///
    /// # Errors
    /// If the database fails: the cursor has not moved then.
    pub async fn on_block(
        &self,
        change: BlockChange,
        cursor: SaveCursor,
    ) -> Result<Vec<B256>, JournalError> {
        match change {
            BlockChange::Committed(block) => self.on_committed(block, cursor).await,
            BlockChange::Reverted(block) => {
                tracing::info!(number = block.number, hash = %block.hash, "block reverted");
                let (changed, gone) = self.book().on_reverted(&block);
                let write = move |tx: &rusqlite::Transaction<'_>| {
                    db::save_sessions(tx, &changed, &gone)?;
                    db::revert_block(tx, &block)?;
                    cursor(tx)?;
                    Ok((lanes::charges(tx)?, lanes::next_on_chain(tx)?))
                };
                let (charges, nonces) = self.journal.run(write).await?;
                let mut book = self.book();
                book.set_charges(charges);
                book.set_next_on_chain(nonces);
                Ok(Vec::new())
            }
        }
    }

    async fn on_committed(
        &self,
        block: Observed,
        cursor: SaveCursor,
    ) -> Result<Vec<B256>, JournalError> {
        let (changed, gone, mine) = {
            let mut book = self.book();
            let (changed, gone) = book.on_committed(&block);
            let mine: Vec<TaskId> = block
                .facts
                .iter()
                .filter_map(|(_, fact)| match fact {
                    super::state::Fact::TaskSubmitted(task) if book.is_mine(task) => {
                        Some(task.task)
                    }
                    _ => None,
                })
                .collect();
            (changed, gone, mine)
        };
        let fresh: Vec<SessionId> = changed
            .iter()
            .filter(|s| s.is_mine() && s.reservations.is_empty())
            .map(|s| s.id)
            .collect();
        let at_ms = now_ms();
        let ledger = self.clone();
        let write = move |tx: &rusqlite::Transaction<'_>| {
            db::save_sessions(tx, &changed, &gone)?;
            let is_mine = |task: &Submitted| mine.contains(&task.task);
            let give_way = || ledger.give_way();
            let transactions = db::commit_block(tx, &block, is_mine, at_ms, give_way)?;
            cursor(tx)?;
            Ok(transactions)
        };
        let transactions = self.journal.run(write).await?;
        for session in fresh {
            self.enter(Entry::Nonces(session));
        }
        Ok(transactions)
    }

    /// Writes what it is given until all senders are gone or `stop` says so, several entries in one
    /// transaction. Notes wait a little for others; who waits for an answer does not.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn record(
        self,
        mut entries: mpsc::Receiver<Entry>,
        stop: tokio_util::sync::CancellationToken,
    ) -> Result<(), JournalError> {
        let mut batch = Vec::with_capacity(NOTE_BATCH);
        loop {
            let count = tokio::select! {
                biased;
                count = entries.recv_many(&mut batch, NOTE_BATCH) => count,
                () = stop.cancelled() => 0,
            };
            if count == 0 {
                break;
            }
            let is_urgent = |entry: &Entry| matches!(entry, Entry::Flush(_));
            if batch.len() < NOTE_BATCH && !batch.iter().any(is_urgent) {
                tokio::select! {
                    () = sleep(NOTE_DELAY) => {}
                    () = self.hurry.notified() => {}
                }
            }
            while batch.len() < NOTE_BATCH
                && let Ok(entry) = entries.try_recv()
            {
                batch.push(entry);
            }
            self.write(&mut batch).await?;
        }
        let unused = self.book().unused_nonces();
        let give_back = move |tx: &rusqlite::Transaction<'_>| {
            unused.iter().try_for_each(|(session, first, end)| {
                lanes::return_nonces(tx, *session, *first, *end)
            })
        };
        self.journal.run(give_back).await
    }

    async fn write(&self, batch: &mut Vec<Entry>) -> Result<(), JournalError> {
        let (mut notes, mut waiting, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        for entry in batch.drain(..) {
            match entry {
                Entry::Note(note) => notes.push(note),
                Entry::Flush(done) => waiting.push(done),
                Entry::Nonces(session) => {
                    wanted.push((session, self.book().next_on_chain(session)));
                }
            }
        }
        if !(notes.is_empty() && wanted.is_empty()) {
            let ledger = self.clone();
            let write = move |tx: &rusqlite::Transaction<'_>| {
                db::write_notes(tx, &notes, || ledger.give_way())?;
                let take =
                    |(session, on_chain)| Ok((session, lanes::take_nonces(tx, session, on_chain)?));
                wanted.into_iter().map(take).collect::<rusqlite::Result<Vec<_>>>()
            };
            let taken = self.journal.run(write).await?;
            let mut book = self.book();
            for (session, (start, end)) in taken {
                book.give_nonces(session, start, end);
            }
        }
        for done in waiting {
            let _ = done.send(());
        }
        Ok(())
    }

    /// Transactions whose gas was never asked for.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn without_gas(&self, limit: usize) -> Result<Vec<B256>, JournalError> {
        self.journal.run(move |tx| db::without_gas(tx, limit)).await
    }

    /// Request blocks that wait to be pinned since `before_ms` or longer.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn unpinned(&self, before_ms: u64) -> Result<Vec<Unpinned>, JournalError> {
        self.journal.run(move |tx| owed::unpinned(tx, before_ms, PIN_BATCH)).await
    }

    /// Tasks that a node accepted and that the chain may not have, but still takes at `now_s`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn unsubmitted(
        &self,
        now_s: u64,
    ) -> Result<Vec<(TaskId, TaskRequest)>, JournalError> {
        self.journal.run(move |tx| owed::unsubmitted(tx, now_s)).await
    }

    /// Removes tasks that ended before `before_s`; whether there may be more.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn prune(&self, before_s: u64) -> Result<bool, JournalError> {
        let gone = self.journal.run(move |tx| prune::prune(tx, before_s, PRUNE_BATCH)).await?;
        Ok(gone >= PRUNE_BATCH as usize)
    }
}
