//! Where a task's frames go: to the router that listens, from the beginning.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use assay_types::{Address, B256, Bytes, TaskId, link::FromMiner};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// The sending side of a connection.
#[derive(Clone, Debug)]
pub(crate) struct LinkRef {
    pub router: Address,
    frames: mpsc::Sender<FromMiner>,
    /// Ends the connection: its router does not read.
    overrun: CancellationToken,
}

impl LinkRef {
    pub(crate) fn new(
        router: Address,
        frames: mpsc::Sender<FromMiner>,
        overrun: CancellationToken,
    ) -> Self {
        Self { router, frames, overrun }
    }

    /// Puts a frame into the connection's buffer; a router that lets it run full is disconnected.
    pub(crate) fn send(&self, frame: FromMiner) -> bool {
        match self.frames.try_send(frame) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::warn!(router = %self.router, "router reads too slowly: disconnecting");
                self.overrun.cancel();
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

/// The frames of one task. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Outlet {
    task: TaskId,
    request_digest: B256,
    inner: Arc<Mutex<Inner>>,
    block_came: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Inner {
    block: Option<Bytes>,
    link: Option<LinkRef>,
    /// Whose task it is, also while its connection is down.
    router: Option<Address>,
    prompt_tokens: Option<u32>,
    ids: Vec<u32>,
    text: String,
    receipt: Option<FromMiner>,
    end: Option<FromMiner>,
}

impl Outlet {
    pub(crate) fn new(task: TaskId, request_digest: B256, link: Option<LinkRef>) -> Self {
        let inner = Arc::new(Mutex::new(Inner {
            router: link.as_ref().map(|link| link.router),
            link,
            ..Inner::default()
        }));
        Self { task, request_digest, inner, block_came: Arc::default() }
    }

    /// sha-256 of the request block.
    pub(crate) fn request_digest(&self) -> B256 {
        self.request_digest
    }

    /// The request block came with an offer; its digest was checked.
    pub(crate) fn give_block(&self, block: Bytes) {
        self.lock().block = Some(block);
        self.block_came.notify_one();
    }

    /// Waits for an offer's request block.
    pub(crate) async fn block(&self) -> Bytes {
        loop {
            if let Some(block) = self.lock().block.clone() {
                return block;
            }
            self.block_came.notified().await;
        }
    }

    /// From now on `link` gets the frames; what there was so far comes first, in one piece.
    pub(crate) fn attach(&self, link: LinkRef) {
        let mut inner = self.lock();
        if let Some(prompt_tokens) = inner.prompt_tokens {
            link.send(FromMiner::Accept { task: self.task, prompt_tokens });
        }
        if !inner.ids.is_empty() {
            let (ids, text) = (inner.ids.clone(), inner.text.clone());
            link.send(FromMiner::Token { task: self.task, seq: 0, ids, text });
        }
        for frame in [&inner.receipt, &inner.end].into_iter().flatten() {
            link.send(frame.clone());
        }
        inner.router = Some(link.router);
        inner.link = Some(link);
    }

    /// Whether this router offered the task, or the same one later.
    pub(crate) fn belongs_to(&self, router: Address) -> bool {
        self.lock().router == Some(router)
    }

    pub(crate) fn accept(&self, prompt_tokens: u32) {
        let mut inner = self.lock();
        inner.prompt_tokens = Some(prompt_tokens);
        inner.send(FromMiner::Accept { task: self.task, prompt_tokens });
    }

    pub(crate) fn token(&self, id: u32, text: String) {
        let mut inner = self.lock();
        let seq = u32::try_from(inner.ids.len()).unwrap_or(u32::MAX);
        inner.ids.push(id);
        inner.text.push_str(&text);
        inner.send(FromMiner::Token { task: self.task, seq, ids: vec![id], text });
    }

    pub(crate) fn receipt(&self, frame: FromMiner) {
        let mut inner = self.lock();
        inner.receipt = Some(frame.clone());
        inner.send(frame);
    }

    /// The last frame: `Done`, `Decline` or `Error`.
    pub(crate) fn end(&self, frame: FromMiner) {
        let mut inner = self.lock();
        if inner.end.is_none() {
            inner.end = Some(frame.clone());
            inner.send(frame);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn send(&mut self, frame: FromMiner) {
        if self.link.as_ref().is_some_and(|link| !link.send(frame)) {
            self.link = None;
        }
    }
}
