//! The embedded daemon: its life, its limits, and who may call it.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    serve::Listener,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::JoinHandle,
};
use tower_http::timeout::TimeoutLayer;

use crate::{MAX_BLOCK_BYTES, StoreError, disk::Disk, gateway, rpc};

/// What a multipart form adds to a block: boundaries and headers of its one part.
const MULTIPART_OVERHEAD_BYTES: usize = 64 << 10;
/// Requests worked on at once; more of them wait. Each holds two copies of a block at most, so memory
/// stays under 256 MiB.
const MAX_REQUESTS: usize = 64;
/// Connections held at once; more of them wait in the system's queue. Well below the usual limit of
/// 1,024 open files, of which one process runs other servers too.
const MAX_CONNECTIONS: usize = 256;
/// Longest time for a request, its upload and its wait included: a block is 1 MiB, a slower sender is stuck.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Space that blocks may take where nobody says otherwise: some millions of usual answers, and a part
/// of any disk that an agent runs on.
pub const DEFAULT_LIMIT_BYTES: u64 = 16 << 30;
/// How long a stop waits for the requests in progress.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the embedded store listens and keeps its blocks.
#[derive(Debug, Clone)]
pub struct StoreServerConfig {
    /// Address of the RPC and the gateway; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Folder of the blocks and pins, made if missing. One process at a time.
    pub folder: PathBuf,
    /// Space that blocks may take, in bytes; a small block counts as the 4 KiB it takes on disk.
    pub limit_bytes: u64,
}

/// A running embedded store. Stops when dropped; [`StoreServer::stop`] lets requests end first.
pub struct StoreServer {
    local_addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<io::Result<()>>,
}

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) disk: Arc<Disk>,
    requests: Arc<Semaphore>,
}

impl Shared {
    /// Runs file work where it may block.
    pub(crate) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let disk = Arc::clone(&self.disk);
        tokio::task::spawn_blocking(move || work(&disk)).await.unwrap_or_else(|error| {
            Err(StoreError::Daemon { message: format!("file work ended early: {error}") })
        })
    }
}

impl StoreServer {
    /// Opens the folder, listens, and serves.
    ///
    /// # Errors
    /// [`StoreError::Bind`], [`StoreError::InUse`], [`StoreError::Io`].
    pub async fn start(config: StoreServerConfig) -> Result<Self, StoreError> {
        let StoreServerConfig { listen, folder, limit_bytes } = config;
        let bind = |source| StoreError::Bind { addr: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(bind)?;
        let local_addr = listener.local_addr().map_err(bind)?;
        let opened = folder.clone();
        let disk =
            tokio::task::spawn_blocking(move || Disk::open(&opened, limit_bytes)).await.map_err(
                |error| StoreError::Io { path: folder, source: io::Error::other(error) },
            )??;
        let shared =
            Shared { disk: Arc::new(disk), requests: Arc::new(Semaphore::new(MAX_REQUESTS)) };
        let listener = Bounded { listener, connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)) };
        let (stop, stopped) = oneshot::channel();
        let serve = axum::serve(listener, router(shared)).with_graceful_shutdown(async {
            // A dropped sender means stop as well.
            let _ = stopped.await;
        });
        let task = tokio::spawn(serve.into_future());
        tracing::info!(%local_addr, "content store listens");
        Ok(Self { local_addr, stop: Some(stop), task })
    }

    /// Address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Address for [`crate::KuboStore::new`] on this machine, without a slash at its end.
    pub fn url(&self) -> String {
        let mut addr = self.local_addr;
        if addr.ip().is_unspecified() {
            let loopback = if addr.is_ipv4() { "127.0.0.1" } else { "[::1]" };
            return format!("http://{loopback}:{}", addr.port());
        }
        if let SocketAddr::V6(v6) = &mut addr {
            // A zone has no place in a URL.
            v6.set_scope_id(0);
        }
        format!("http://{addr}")
    }

    /// Takes no more connections, waits some seconds for the requests in progress, and ends.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        match tokio::time::timeout(STOP_TIMEOUT, &mut self.task).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "content store ended with an error"),
            Ok(Err(error)) => tracing::warn!(%error, "content store ended early"),
            Err(_) => tracing::warn!("content store stopped with requests in progress"),
        }
    }
}

impl Drop for StoreServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn router(shared: Shared) -> Router {
    let api = rpc::routes().layer(middleware::from_fn(refuse_browsers));
    Router::new()
        .nest("/api/v0", api)
        .merge(gateway::routes())
        .layer(DefaultBodyLimit::max(MAX_BLOCK_BYTES + MULTIPART_OVERHEAD_BYTES))
        .layer(middleware::from_fn_with_state(shared.clone(), take_turn))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST_TIMEOUT))
        .with_state(shared)
}

/// Lets a bounded number of requests work at once.
async fn take_turn(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    match shared.requests.acquire().await {
        Ok(_turn) => next.run(request).await,
        // The semaphore is never closed; an answer all the same.
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// Refuses calls that a web page makes, as Kubo does where no origin is allowed: a page that its reader
/// opens must not write into, or list, the store of the machine it is opened on.
async fn refuse_browsers(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let from_page = [header::ORIGIN, header::REFERER].iter().any(|name| headers.contains_key(name))
        || headers.contains_key("sec-fetch-site");
    let browser = headers
        .get(header::USER_AGENT)
        .is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla"));
    if from_page || browser {
        return (StatusCode::FORBIDDEN, "403 - Forbidden\n").into_response();
    }
    next.run(request).await
}

/// A listener that holds a bounded number of connections.
struct Bounded {
    listener: TcpListener,
    connections: Arc<Semaphore>,
}

/// A connection and its place among the bounded number of them.
struct Counted {
    stream: TcpStream,
    _place: Option<OwnedSemaphorePermit>,
}

impl Listener for Bounded {
    type Io = Counted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Counted, SocketAddr) {
        // The semaphore is never closed, so there is always a place in the end.
        let place = Arc::clone(&self.connections).acquire_owned().await.ok();
        // Of two traits with this name, the one of axum waits and tries again after an error.
        let (stream, addr) = Listener::accept(&mut self.listener).await;
        // Small answers go out at once; where the system refuses, they only go out later.
        let _ = stream.set_nodelay(true);
        (Counted { stream, _place: place }, addr)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
