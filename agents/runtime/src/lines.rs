//! Lines of the log on their way to standard error, on a thread of their own: a request must not wait for the disk that
//! its log goes to.

use std::{
    io::{self, Write},
    sync::{
        OnceLock,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

/// Lines that wait; whoever logs more than the disk takes waits for it.
const QUEUE: usize = 4096;
/// Bytes that are written at once.
const BATCH_BYTES: usize = 64 << 10;
/// Time that a line waits for others to be written with it: waking this thread for each one costs those who log more than
/// the line itself. A kill loses so much of the log.
const WRITE_DELAY: Duration = Duration::from_millis(5);
/// Time that the last lines may take.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

enum Entry {
    Line(Vec<u8>),
    /// Answer when everything before is written.
    Flush(SyncSender<()>),
}

static LINES: OnceLock<SyncSender<Entry>> = OnceLock::new();

/// Writes one line, which it is given at once.
pub(crate) struct LineWriter;

impl LineWriter {
    /// Starts the thread, once; lines of a process that cannot start one are written where they are made.
    pub(crate) fn start() {
        let (lines, queue) = sync_channel(QUEUE);
        if LINES.set(lines).is_ok() {
            let started = thread::Builder::new().name("log".into()).spawn(move || write(&queue));
            if let Err(error) = started {
                // Without its receiver the queue takes nothing.
                let _ = writeln!(io::stderr(), "logs are written in place: {error}");
            }
        }
    }
}

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let refused = match LINES.get() {
            Some(lines) => match lines.try_send(Entry::Line(line.to_vec())) {
                Ok(()) => return Ok(line.len()),
                Err(TrySendError::Full(entry)) => lines.send(entry).is_err(),
                Err(TrySendError::Disconnected(_)) => true,
            },
            None => true,
        };
        if refused {
            io::stderr().write_all(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(queue: &Receiver<Entry>) {
    let mut bytes = Vec::with_capacity(BATCH_BYTES);
    while let Ok(entry) = queue.recv() {
        if matches!(entry, Entry::Line(_)) {
            thread::sleep(WRITE_DELAY);
        }
        let mut next = Some(entry);
        let mut flushed = None;
        while let Some(entry) = next {
            match entry {
                Entry::Line(line) => bytes.extend_from_slice(&line),
                Entry::Flush(done) => {
                    flushed = Some(done);
                    break;
                }
            }
            next = if bytes.len() < BATCH_BYTES { queue.try_recv().ok() } else { None };
        }
        // Nobody is left to be told that standard error is gone.
        let _ = io::stderr().write_all(&bytes);
        bytes.clear();
        if let Some(done) = flushed {
            let _ = done.try_send(());
        }
    }
}

/// Waits until what was logged is written; before a process ends.
pub(crate) fn flush() {
    let (done, flushed) = sync_channel(1);
    if LINES.get().is_some_and(|lines| lines.try_send(Entry::Flush(done)).is_ok()) {
        let _ = flushed.recv_timeout(FLUSH_WITHIN);
    }
}
