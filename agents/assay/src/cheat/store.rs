//! A store of which nobody but the router finds the answers of one miner.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use assay_store::{Bytes, ContentStore, StoreError, cid_of};
use assay_types::{B256, ResultBlock};
use async_trait::async_trait;

/// Answers that are shown to no other miner.
#[derive(Default)]
pub(super) struct Hidden(Mutex<HashSet<B256>>);

impl Hidden {
    fn has(&self, digest: B256) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&digest)
    }

    fn add(&self, digest: B256) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
    }
}

/// The store as a miner sees it.
pub(super) struct Withholding {
    pub honest: Arc<dyn ContentStore>,
    pub hidden: Arc<Hidden>,
    /// Whether it is the miner that withholds its answers: it has them, and gives none of them out.
    pub is_its_own: bool,
}

#[async_trait]
impl ContentStore for Withholding {
    async fn put(&self, bytes: Bytes) -> Result<B256, StoreError> {
        let is_answer = ResultBlock::decode(&bytes).is_ok();
        let digest = self.honest.put(bytes).await?;
        if self.is_its_own && is_answer {
            self.hidden.add(digest);
        }
        Ok(digest)
    }

    async fn get(&self, digest: B256) -> Result<Bytes, StoreError> {
        if !self.hidden.has(digest) {
            return self.honest.get(digest).await;
        }
        Err(match self.is_its_own {
            true => {
                StoreError::Daemon { message: "this miner publishes its answers nowhere".into() }
            }
            false => StoreError::NotFound { cid: cid_of(digest).to_string() },
        })
    }

    async fn is_pinned(&self, digest: B256) -> Result<bool, StoreError> {
        self.honest.is_pinned(digest).await
    }

    async fn health(&self) -> Result<String, StoreError> {
        self.honest.health().await
    }
}

#[cfg(test)]
mod tests {
    use assay_store::{DEFAULT_LIMIT_BYTES, KuboStore, StoreServer, StoreServerConfig};
    use assay_types::{BLOCK_VERSION, EndReason};

    use super::*;

    #[tokio::test]
    async fn answers_are_found_by_the_router_and_by_no_miner() {
        let folder = tempfile::tempdir().unwrap();
        let config = StoreServerConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            folder: folder.path().into(),
            limit_bytes: DEFAULT_LIMIT_BYTES,
        };
        let server = StoreServer::start(config).await.unwrap();
        let router: Arc<dyn ContentStore> = Arc::new(KuboStore::new(&server.url()).unwrap());
        let hidden = Arc::new(Hidden::default());
        let of =
            |is_its_own| Withholding { honest: router.clone(), hidden: hidden.clone(), is_its_own };
        let (own, others) = (of(true), of(false));
        let answer = ResultBlock {
            cancellation: None,
            end_reason: EndReason::Eos,
            ids: vec![1, 2, 3],
            salt: B256::ZERO,
            stream_hash: B256::ZERO,
            text: "abc".into(),
            version: BLOCK_VERSION,
        };
        let (bytes, digest) = answer.encode().unwrap();
        assert_eq!(own.put(Bytes::from(bytes.clone())).await.unwrap(), digest);
        assert_eq!(router.get(digest).await.unwrap(), bytes);
        assert!(matches!(others.get(digest).await, Err(StoreError::NotFound { .. })));
        assert!(own.get(digest).await.unwrap_err().is_retryable(), "as a store that is away");
        // Everything else it shows, and the others show all they have.
        let fingerprint = own.put(Bytes::from(vec![0; 24])).await.unwrap();
        assert_eq!(others.get(fingerprint).await.unwrap(), vec![0; 24]);
        let (bytes, digest) = ResultBlock { text: "abd".into(), ..answer }.encode().unwrap();
        others.put(Bytes::from(bytes.clone())).await.unwrap();
        assert_eq!(own.get(digest).await.unwrap(), bytes);
        server.stop().await;
    }
}
