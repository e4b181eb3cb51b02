//! The contents that the chain names by their digests: fetched, hashed, and compared with what stands beside them.

use std::sync::Arc;

use alloy::primitives::B256;
use anyhow::{Context, Result};
use assay_protocol::ProtocolEvent;
use assay_replay::{Divergence, Report, Rule};
use assay_store::{ContentStore, KuboStore, StoreError, cid_of};
use assay_types::{RequestBlock, ResultBlock};
use futures::{StreamExt, stream};

/// Contents that are fetched side by side: a daemon on this machine is busy with them.
const FETCH_WINDOW: usize = 16;
/// Contents that are followed at most, in one audit: their digests are kept until the replay is done.
const MAX_CONTENTS: usize = 1_000_000;

/// What a content must be.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Request,
    /// Of so many tokens.
    Result(u32),
    Manifest,
}

#[derive(Clone, Copy, Debug)]
struct Named {
    kind: Kind,
    digest: B256,
    block: u64,
    transaction: B256,
    task: Option<B256>,
    node: Option<u32>,
}

/// Contents that the chain named.
pub struct Contents {
    store: Arc<dyn ContentStore>,
    from: u64,
    named: Vec<Named>,
    unfollowed: u64,
}

impl Contents {
    /// Follows what blocks from `from` on name, in the store behind a Kubo RPC.
    pub async fn follow(url: &str, from: u64) -> Result<Self> {
        let store = KuboStore::new(url)?;
        store.health().await.context("contents cannot be followed")?;
        Ok(Self { store: Arc::new(store), from, named: Vec::new(), unfollowed: 0 })
    }

    /// Notes what an event names.
    pub fn event(&mut self, block: u64, transaction: B256, event: &ProtocolEvent) {
        let (kind, digest, task, node) = match event {
            ProtocolEvent::TaskSubmitted(e) => {
                (Kind::Request, e.requestDigest, Some(e.taskId), None)
            }
            ProtocolEvent::TaskCommitted(e) => {
                (Kind::Result(e.outputTokens), e.outputDigest, Some(e.taskId), Some(e.nodeId))
            }
            ProtocolEvent::ModelRegistered(e) => (Kind::Manifest, e.manifestDigest, None, None),
            _ => return,
        };
        if block < self.from {
            return;
        }
        if self.named.len() == MAX_CONTENTS {
            self.unfollowed += 1;
            return;
        }
        self.named.push(Named { kind, digest, block, transaction, task, node });
    }

    /// Fetches all of them. What is another content than the chain says diverges; what cannot be had is noted.
    pub async fn finish(self, report: &mut Report) -> Result<()> {
        let Self { store, named, unfollowed, .. } = self;
        let total = named.len();
        let mut missing = 0_u64;
        let mut fetched = stream::iter(named)
            .map(|named| {
                let store = Arc::clone(&store);
                async move { (named, store.get(named.digest).await) }
            })
            .buffered(FETCH_WINDOW);
        while let Some((named, content)) = fetched.next().await {
            let found = match content {
                Ok(bytes) => mismatch(named.kind, &bytes),
                Err(StoreError::NotFound { .. } | StoreError::Timeout { .. }) => {
                    missing += 1;
                    continue;
                }
                Err(error @ (StoreError::CidMismatch { .. } | StoreError::TooLarge { .. })) => {
                    Some(("the content of its digest".to_owned(), error.to_string()))
                }
                Err(error) => return Err(error).context("contents cannot be fetched"),
            };
            report.checked.contents += 1;
            if let Some(values) = found {
                let what = format!("the content {}", cid_of(named.digest));
                let mut divergence = Divergence::new(Rule::Content, what, values)
                    .in_block(named.block)
                    .in_transaction(named.transaction);
                (divergence.task, divergence.node) = (named.task, named.node);
                report.diverges(divergence);
            }
        }
        if missing + unfollowed > 0 {
            report.note(&format!(
                "of {} contents {missing} could not be had from this store and {unfollowed} were not asked for",
                total as u64 + unfollowed
            ));
        }
        Ok(())
    }
}

/// What is wrong with a content whose hash is right: what it must be, and what it is.
fn mismatch(kind: Kind, bytes: &[u8]) -> Option<(String, String)> {
    match kind {
        Kind::Manifest => None,
        Kind::Request => {
            let error = RequestBlock::decode(bytes).err()?;
            Some(("a request block".to_owned(), error.to_string()))
        }
        Kind::Result(tokens) => match ResultBlock::decode(bytes) {
            Err(error) => Some(("a result block".to_owned(), error.to_string())),
            Ok(result) if result.ids.len() as u64 != u64::from(tokens) => Some((
                format!("{tokens} tokens, which were paid"),
                format!("{} tokens", result.ids.len()),
            )),
            Ok(_) => None,
        },
    }
}
