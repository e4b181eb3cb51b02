//! A line that can be cut: TCP from a port of ours to an address, any number of connections.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Ends with its owner.
pub struct Line {
    address: SocketAddr,
    /// The server holds one receiver, each connection another.
    cut: watch::Sender<u32>,
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
        let server = tokio::spawn(async move {
            loop {
                let Ok((mut near, _)) = listener.accept().await else { continue };
                let mut cuts = cuts.clone();
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(target).await else { return };
                    let _ = (near.set_nodelay(true), far.set_nodelay(true));
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        Ok(()) = cuts.changed() => {}
                    }
                });
            }
        });
        Self { address, cut, server }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection at once, wherever in a message it is; returns how many.
    pub fn cut(&self) -> usize {
        let connections = self.cut.receiver_count() - 1;
        self.cut.send_modify(|count| *count += 1);
        connections
    }
}
