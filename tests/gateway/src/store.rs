//! A constant content store in the router's process: the nodes hand it their result blocks over a socket, and it
//! answers at once. What a daemon's round trip would add is not measured.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Result, ensure};
use assay_store::{Bytes, ContentStore, StoreError, cid_of};
use assay_types::{B256, TaskId, sha256};
use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::Notify,
};

use crate::chain::ConstantChain;

/// Largest block that a node hands over.
const MAX_BLOCK: u32 = 1 << 20;

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct ConstantStore(Arc<Inner>);

struct Inner {
    chain: ConstantChain,
    blocks: Mutex<HashMap<B256, Bytes>>,
    came: Notify,
}

impl ConstantStore {
    /// A store that tells `chain` of results.
    pub fn new(chain: ConstantChain) -> Self {
        Self(Arc::new(Inner { chain, blocks: Mutex::default(), came: Notify::new() }))
    }

    fn take(&self, digest: &B256) -> Option<Bytes> {
        // The router reads a result once: what was read may go.
        self.0.blocks.lock().unwrap_or_else(PoisonError::into_inner).remove(digest)
    }

    /// Takes blocks from nodes until it is dropped.
    ///
    /// # Errors
    /// If the socket cannot be listened on.
    pub async fn listen(self, socket: UnixListener) -> Result<()> {
        loop {
            let (stream, _) = socket.accept().await?;
            let store = self.clone();
            tokio::spawn(async move {
                // Ends with the node.
                let _ = store.receive(BufReader::new(stream)).await;
            });
        }
    }

    async fn receive(&self, mut stream: BufReader<UnixStream>) -> Result<()> {
        loop {
            let (mut task, mut digest) = ([0; 32], [0; 32]);
            stream.read_exact(&mut task).await?;
            stream.read_exact(&mut digest).await?;
            let length = stream.read_u32().await?;
            ensure!(length <= MAX_BLOCK, "a block of {length} bytes");
            let mut block = vec![0; length as usize];
            stream.read_exact(&mut block).await?;
            let digest = B256::from(digest);
            let mut blocks = self.0.blocks.lock().unwrap_or_else(PoisonError::into_inner);
            blocks.insert(digest, block.into());
            drop(blocks);
            self.0.came.notify_waiters();
            self.0.chain.answered(TaskId(task.into()), digest);
        }
    }
}

/// Hands a block over.
///
/// # Errors
/// If the router is gone.
pub async fn hand_over(
    to: &mut UnixStream,
    task: TaskId,
    digest: B256,
    block: &[u8],
) -> Result<()> {
    let mut message = Vec::with_capacity(68 + block.len());
    message.extend(task.0.as_slice());
    message.extend(digest.as_slice());
    message.extend(u32::try_from(block.len())?.to_be_bytes());
    message.extend(block);
    Ok(to.write_all(&message).await?)
}

/// Connects to a store.
///
/// # Errors
/// If nobody listens.
pub async fn connect(path: &Path) -> Result<UnixStream> {
    Ok(UnixStream::connect(path).await?)
}

#[async_trait]
impl ContentStore for ConstantStore {
    async fn put(&self, bytes: Bytes) -> Result<B256, StoreError> {
        Ok(sha256(&bytes))
    }

    async fn get(&self, digest: B256) -> Result<Bytes, StoreError> {
        loop {
            let mut came = std::pin::pin!(self.0.came.notified());
            came.as_mut().enable();
            if let Some(block) = self.take(&digest) {
                if sha256(&block) != digest {
                    return Err(StoreError::NotFound { cid: cid_of(digest).to_string() });
                }
                return Ok(block);
            }
            // It was sent before the end of the answer, on another socket.
            came.await;
        }
    }

    async fn is_pinned(&self, _digest: B256) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn health(&self) -> Result<String, StoreError> {
        Ok("constant".into())
    }
}
