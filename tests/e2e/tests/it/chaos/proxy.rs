//! A line that can be cut: TCP from a port of ours to an address, any number of connections.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Ends with its owner.
pub struct Line {
    address: SocketAddr,
    cut: watch::Sender<u32>,
    /// Connections that a cut ended.
    pub ended: Arc<AtomicU32>,
    server: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Line {
    /// A line to `target`, which need not listen yet.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, cuts) = watch::channel(0);
        let ended = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&ended);
        let server = tokio::spawn(async move {
            loop {
                let Ok((mut near, _)) = listener.accept().await else { continue };
                let (mut cuts, count) = (cuts.clone(), Arc::clone(&count));
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(target).await else { return };
                    let _ = (near.set_nodelay(true), far.set_nodelay(true));
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        Ok(()) = cuts.changed() => {
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        Self { address, cut, ended, server }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection at once, wherever in a message it is.
    pub fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }
}
