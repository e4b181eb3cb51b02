//! A store that takes requests and answers, and loses fingerprints.

use std::sync::Arc;

use assay_store::{Bytes, ContentStore, StoreError};
use assay_types::{B256, RequestBlock, ResultBlock};
use async_trait::async_trait;

/// Refuses what is neither a request nor an answer.
pub(super) struct Withholding {
    pub honest: Arc<dyn ContentStore>,
}

#[async_trait]
impl ContentStore for Withholding {
    async fn put(&self, bytes: Bytes) -> Result<B256, StoreError> {
        if RequestBlock::decode(&bytes).is_ok() || ResultBlock::decode(&bytes).is_ok() {
            return self.honest.put(bytes).await;
        }
        Err(StoreError::Daemon { message: "this miner shows its fingerprints to nobody".into() })
    }

    async fn get(&self, digest: B256) -> Result<Bytes, StoreError> {
        self.honest.get(digest).await
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
    async fn answers_are_stored_and_fingerprints_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let config = StoreServerConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            folder: folder.path().into(),
            limit_bytes: DEFAULT_LIMIT_BYTES,
        };
        let server = StoreServer::start(config).await.unwrap();
        let store = Withholding { honest: Arc::new(KuboStore::new(&server.url()).unwrap()) };
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
        assert_eq!(store.put(Bytes::from(bytes.clone())).await.unwrap(), digest);
        assert_eq!(store.get(digest).await.unwrap(), bytes);
        let fingerprint = store.put(Bytes::from(vec![0; 24])).await.unwrap_err();
        assert!(fingerprint.is_retryable(), "as a store that is away: {fingerprint}");
        server.stop().await;
    }
}
