//! HTTP/1.1 as far as the measurement needs it: one connection, its messages read as they come.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Largest head that is read.
const MAX_HEAD: usize = 64 << 10;

/// Bytes that came and are not used yet.
#[derive(Default)]
pub struct Incoming(Vec<u8>);

impl Incoming {
    /// The next head and its body, which must say its length; `None` at the end of the connection.
    ///
    /// # Errors
    /// What the connection says, or bytes that are no HTTP.
    pub async fn message(&mut self, stream: &mut TcpStream) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let Some(head) = self.head(stream).await? else { return Ok(None) };
        let length = header(&head, "content-length").unwrap_or("0").trim().parse()?;
        while self.0.len() < length {
            ensure!(self.more(stream).await?, "the connection ended within a body");
        }
        let rest = self.0.split_off(length);
        Ok(Some((head, std::mem::replace(&mut self.0, rest))))
    }

    async fn head(&mut self, stream: &mut TcpStream) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = find(&self.0, b"\r\n\r\n") {
                let rest = self.0.split_off(at + 4);
                return Ok(Some(std::mem::replace(&mut self.0, rest)));
            }
            ensure!(self.0.len() < MAX_HEAD, "a head of more than {MAX_HEAD} bytes");
            if !self.more(stream).await? {
                return Ok(None);
            }
        }
    }

    async fn more(&mut self, stream: &mut TcpStream) -> Result<bool> {
        Ok(stream.read_buf(&mut self.0).await? > 0)
    }
}

/// The value of a header.
fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let lines = std::str::from_utf8(head).ok()?.lines();
    lines
        .filter_map(|line| line.split_once(':'))
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, v)| v)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A connection that asks.
pub struct Connection {
    stream: TcpStream,
    incoming: Incoming,
}

/// A request for one path, ready to be sent.
pub fn post(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer mock\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A request for what is at a path.
pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").into_bytes()
}

impl Connection {
    /// Connects, without Nagle's delay.
    ///
    /// # Errors
    /// If nobody listens.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, incoming: Incoming::default() })
    }

    /// Sends a request and reads its whole answer; the body.
    ///
    /// # Errors
    /// Any answer but 200.
    pub async fn ask(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        self.stream.write_all(request).await?;
        let answer = self.incoming.message(&mut self.stream).await?;
        let (head, body) = answer.context("the connection ended before the answer")?;
        if !head.starts_with(b"HTTP/1.1 200") {
            let status =
                String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
            bail!("{status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    /// Sends a request and tells of each part of its streamed answer, as it comes, until the end.
    ///
    /// # Errors
    /// Any answer but 200, or a connection that ends early.
    pub async fn stream(&mut self, request: &[u8], mut part: impl FnMut(&[u8])) -> Result<()> {
        self.stream.write_all(request).await?;
        let head = self.incoming.head(&mut self.stream).await?.context("no answer")?;
        ensure!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
        loop {
            // Whole lines only: what is counted must not be cut in two.
            if let Some(end) = self.incoming.0.iter().rposition(|byte| *byte == b'\n') {
                let rest = self.incoming.0.split_off(end + 1);
                let lines = std::mem::replace(&mut self.incoming.0, rest);
                part(&lines);
                // The connection is not used again: what ends the body need not be waited for.
                if find(&lines, b"[DONE]").is_some() {
                    return Ok(());
                }
            }
            ensure!(self.incoming.more(&mut self.stream).await?, "the stream ended early");
        }
    }
}
