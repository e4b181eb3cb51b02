//! Server-sent events, bounded: whoever sends them is not trusted with memory.

use futures::{Stream, StreamExt};

use crate::ClientError;

/// Longest event: a chunk of an answer has some hundred bytes, one with the most log probabilities of a receipt's tokens
/// some hundred thousand.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// The data of events as they come.
pub(crate) struct Events<S> {
    bytes: S,
    buffer: Vec<u8>,
}

impl<S, B> Events<S>
where
    S: Stream<Item = Result<B, reqwest::Error>> + Unpin,
    B: AsRef<[u8]>,
{
    pub(crate) fn new(bytes: S) -> Self {
        Self { bytes, buffer: Vec::new() }
    }

    /// The data of the next event that has any; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                if let Some(data) = line.trim().strip_prefix("data:") {
                    return Ok(Some(data.trim().to_owned()));
                }
            }
            if self.buffer.len() > MAX_EVENT_BYTES {
                return Err(ClientError::Garbled("a line without an end"));
            }
            match self.bytes.next().await {
                Some(Ok(chunk)) => self.buffer.extend_from_slice(chunk.as_ref()),
                Some(Err(error)) => return Err(ClientError::BrokenOff(Some(error))),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    async fn read(chunks: Vec<Vec<u8>>) -> Result<Vec<String>, ClientError> {
        let chunks = chunks.into_iter().map(Ok::<_, reqwest::Error>);
        let mut events = Events::new(stream::iter(chunks));
        let mut all = Vec::new();
        while let Some(data) = events.next().await? {
            all.push(data);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn events_are_read_however_they_are_cut() {
        let text = ": a comment\n\ndata: one é\r\n\nevent: x\ndata: two\n\ndata: [DONE]\n\n";
        for size in 1..text.len() {
            let chunks = text.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
            assert_eq!(read(chunks).await.unwrap(), ["one é", "two", "[DONE]"], "{size}");
        }
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_given_up() {
        let endless = (0..=MAX_EVENT_BYTES / 4096).map(|_| vec![b'x'; 4096]).collect();
        assert!(matches!(read(endless).await, Err(ClientError::Garbled(_))));
    }
}
