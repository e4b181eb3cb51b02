//! The client against the embedded store, and against daemons that lie.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod gateway;
mod liar;
mod rpc;
mod store;

use assay_store::{KuboStore, StoreServer, StoreServerConfig};
use tempfile::TempDir;

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
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = StoreServerConfig { listen, folder: folder.path().join("store") };
        let server = StoreServer::start(config).await.unwrap();
        let client = KuboStore::new(&server.url()).unwrap();
        Self { folder, server, client }
    }

    /// File of a block, found by its name.
    fn file(&self, kind: &str, digest: assay_types::B256) -> std::path::PathBuf {
        let name = format!("{digest:x}");
        self.folder.path().join("store").join(kind).join(&name[..2]).join(name)
    }
}
