//! Request and answer of which a miner was asked to publish them, as the chain has them. No IO.

use std::ops::Range;

use alloy::primitives::B256;
use assay_bindings::ProofOfInference::{Chunk, DataPublished};
use assay_types::{MAX_BLOCK_BYTES, RequestBlock, ResultBlock, sha256};

/// Bytes of one piece: the contract takes no more.
const MAX_CHUNK_BYTES: usize = 32 << 10;

/// The request's block and the answer's behind it, as far as they are published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Published {
    request_bytes: usize,
    total_bytes: usize,
    data: Vec<u8>,
}

/// What everybody reads who looks at the answer. What is not under its digest, or is no such block, is `None`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Blocks {
    pub request: Option<RequestBlock>,
    pub result: Option<ResultBlock>,
    /// Both are what the chain has the digests of.
    pub are_genuine: bool,
}

impl Published {
    /// Bytes that are there.
    pub(crate) fn len(&self) -> usize {
        self.data.len()
    }

    /// The next piece; the contract has checked order and sizes, and a chain that tells otherwise is not followed.
    pub(crate) fn take(&mut self, event: &DataPublished) {
        let (request, total) = (event.requestBytes as usize, event.totalBytes as usize);
        let end = self.data.len().saturating_add(event.data.len());
        let fits = request <= total && total <= 2 * MAX_BLOCK_BYTES && end <= total;
        if fits && event.offset as usize == self.data.len() {
            (self.request_bytes, self.total_bytes) = (request, total);
            self.data.extend_from_slice(&event.data);
        }
    }

    fn part(&self, range: Range<usize>) -> &[u8] {
        self.data.get(range).unwrap_or_default()
    }

    /// The blocks, once everything is there.
    pub(crate) fn blocks(&self, request_digest: B256, output_digest: B256) -> Option<Blocks> {
        if self.total_bytes == 0 || self.data.len() < self.total_bytes {
            return None;
        }
        let request = self.part(0..self.request_bytes);
        let result = self.part(self.request_bytes..self.total_bytes);
        Some(Blocks {
            request: RequestBlock::decode(request).ok(),
            result: ResultBlock::decode(result).ok(),
            are_genuine: sha256(request) == request_digest && sha256(result) == output_digest,
        })
    }

    /// What the miner sends next; `None` if everything is there, or something else than this.
    pub(crate) fn next(&self, request: &[u8], result: &[u8]) -> Option<Chunk> {
        let all = [request, result].concat();
        let rest = all.strip_prefix(self.data.as_slice())?;
        let data = rest.get(..rest.len().min(MAX_CHUNK_BYTES)).filter(|data| !data.is_empty())?;
        Some(Chunk {
            requestBytes: u32::try_from(request.len()).ok()?,
            totalBytes: u32::try_from(all.len()).ok()?,
            offset: u32::try_from(self.data.len()).ok()?,
            data: data.to_vec().into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use assay_types::{BLOCK_VERSION, EndReason, Prompt, Sampling};

    use super::*;

    /// A request of more than two pieces, and an answer.
    fn both() -> (Vec<u8>, Vec<u8>) {
        let request = RequestBlock {
            max_output: 8,
            max_prompt: 8,
            prompt: Prompt::Text("long ".repeat(MAX_CHUNK_BYTES / 2)),
            salt: B256::ZERO,
            sampling: Sampling::default(),
            stop: vec![],
            top_logprobs: None,
            version: BLOCK_VERSION,
        };
        let result = ResultBlock {
            cancellation: None,
            end_reason: EndReason::Eos,
            ids: vec![1, 2],
            salt: B256::ZERO,
            stream_hash: B256::ZERO,
            text: "ab".into(),
            version: BLOCK_VERSION,
        };
        (request.encode().unwrap().0, result.encode().unwrap().0)
    }

    fn event(chunk: Chunk) -> DataPublished {
        let Chunk { requestBytes, totalBytes, offset, data } = chunk;
        DataPublished { requestBytes, totalBytes, offset, data, ..Default::default() }
    }

    #[test]
    fn what_is_published_piece_by_piece_is_what_everybody_reads() {
        let (request, result) = both();
        let (asked, answered) = (sha256(&request), sha256(&result));
        let (mut published, mut pieces) = (Published::default(), 0);
        while let Some(chunk) = published.next(&request, &result) {
            assert!(published.blocks(asked, answered).is_none(), "not yet");
            assert!(chunk.data.len() <= MAX_CHUNK_BYTES);
            let told = event(chunk);
            published.take(&told);
            let length = published.len();
            // Told twice, it counts once.
            published.take(&told);
            assert_eq!(published.len(), length);
            pieces += 1;
        }
        assert_eq!(pieces, 3);
        let blocks = published.blocks(asked, answered).unwrap();
        assert!(blocks.are_genuine && blocks.request.is_some() && blocks.result.is_some());
        // Something else than is committed is nobody's to read.
        assert!(!published.blocks(answered, answered).unwrap().are_genuine);
        assert!(!published.blocks(asked, asked).unwrap().are_genuine);
    }

    #[test]
    fn what_does_not_fit_is_not_taken() {
        let (request, result) = both();
        let first = Published::default().next(&request, &result).unwrap();
        let bad = [
            Chunk { offset: 1, ..first.clone() },
            Chunk { requestBytes: first.totalBytes + 1, ..first.clone() },
            Chunk { totalBytes: u32::MAX, ..first.clone() },
            Chunk { totalBytes: 1, requestBytes: 1, ..first.clone() },
        ];
        for chunk in bad {
            let mut published = Published::default();
            published.take(&event(chunk.clone()));
            assert_eq!(published.len(), 0, "{} of {}", chunk.offset, chunk.totalBytes);
        }
        // Of other blocks than these nothing more is sent.
        let mut published = Published::default();
        published.take(&event(first));
        assert!(published.next(&result, &request).is_none());
    }
}
