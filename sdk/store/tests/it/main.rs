//! The client against the embedded store, a real IPFS daemon, and daemons that lie.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod crash;
mod daemon;
mod gateway;
mod liar;
mod rpc;
mod store;

use std::path::PathBuf;

use assay_store::{DEFAULT_LIMIT_BYTES, KuboStore, StoreServer, StoreServerConfig};
use tempfile::TempDir;

/// A free port and the usual limit.
fn config(folder: PathBuf) -> StoreServerConfig {
    let listen = "127.0.0.1:0".parse().unwrap();
    StoreServerConfig { listen, folder, limit_bytes: DEFAULT_LIMIT_BYTES }
}

/// An embedded store on a free port in a folder of its own, and a client of it.
struct Running {
    folder: TempDir,
    server: StoreServer,
    client: KuboStore,
}

impl Running {
    async fn start() -> Self {
        Self::start_in(TempDir::new().unwrap()).await
    }

    async fn start_in(folder: TempDir) -> Self {
        Self::start_with(folder, DEFAULT_LIMIT_BYTES).await
    }

    async fn start_with(folder: TempDir, limit_bytes: u64) -> Self {
        let config = StoreServerConfig { limit_bytes, ..config(folder.path().join("store")) };
        let server = StoreServer::start(config).await.unwrap();
        let client = KuboStore::new(&server.url()).unwrap();
        Self { folder, server, client }
    }

    /// File of a block, found by its name.
    fn file(&self, kind: &str, digest: assay_types::B256) -> PathBuf {
        let name = format!("{digest:x}");
        self.folder.path().join("store").join(kind).join(&name[..2]).join(name)
    }
}
