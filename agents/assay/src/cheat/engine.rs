//! An engine that answers otherwise than it says.

use std::sync::Arc;

use assay_engine::{
    EndReason, Engine, EngineError, EngineInfo, GenerateEvent, GenerateRequest, GenerateStream,
    Generation, Prompt, Reading, Score, ScoreRequest,
};
use assay_types::keccak256;
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};

use super::CheatKind;

/// What stands in place of an answer's last words.
const ADVERTISEMENT: &str = " Buy COR today, it only goes up!";

/// Says that it is the honest engine, reads and scores like it, and generates otherwise.
pub(super) struct Cheater {
    pub kind: CheatKind,
    pub honest: Arc<dyn Engine>,
    /// Where the kind needs one.
    pub cheaper: Option<Arc<dyn Engine>>,
}

#[async_trait]
impl Engine for Cheater {
    fn info(&self) -> &EngineInfo {
        self.honest.info()
    }

    async fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, EngineError> {
        self.honest.tokenize(prompt).await
    }

    fn end_tokens(&self) -> &[u32] {
        self.honest.end_tokens()
    }

    async fn read(&self, ids: &[u32], stop: &[String]) -> Result<Reading, EngineError> {
        self.honest.read(ids, stop).await
    }

    async fn generate(&self, request: GenerateRequest) -> Result<GenerateStream, EngineError> {
        let cheaper = self.cheaper.as_ref().unwrap_or(&self.honest).clone();
        let honest = self.honest.clone();
        match self.kind {
            CheatKind::Quantized | CheatKind::OtherModel => cheaper.generate(request).await,
            CheatKind::Copied => {
                // Whoever asked the same before had another seed.
                let ids: Vec<u8> =
                    request.prompt_ids.iter().flat_map(|id| id.to_be_bytes()).collect();
                honest.generate(GenerateRequest { seed: keccak256(ids), ..request }).await
            }
            CheatKind::PrefillSpoof => whole(request, move |request| async move {
                let made = cheaper.generate(request.clone()).await?.finish().await?;
                fingerprinted(honest.as_ref(), request, made).await
            }),
            CheatKind::Edited => whole(request, move |request| async move {
                let made = honest.generate(request.clone()).await?.finish().await?;
                let made = edited(honest.as_ref(), &request, made).await?;
                fingerprinted(honest.as_ref(), request, made).await
            }),
            CheatKind::EarlyStop => whole(request, move |request| async move {
                let made = honest.generate(request.clone()).await?.finish().await?;
                let made = halved(honest.as_ref(), &request, made).await?;
                fingerprinted(honest.as_ref(), request, made).await
            }),
            CheatKind::Withheld => honest.generate(request).await,
        }
    }

    async fn score(&self, request: ScoreRequest) -> Result<Vec<Score>, EngineError> {
        self.honest.score(request).await
    }
}

/// Makes an answer whole before it streams it.
fn whole<F>(
    request: GenerateRequest,
    make: impl FnOnce(GenerateRequest) -> F + Send + 'static,
) -> Result<GenerateStream, EngineError>
where
    F: Future<Output = Result<Generation, EngineError>> + Send + 'static,
{
    let made = stream::once(make(request)).map_ok(|made| {
        let Generation { ids, contrasts, text, end_reason } = made;
        let last = ids.len().saturating_sub(1);
        let tokens = ids.into_iter().zip(contrasts).enumerate().map(move |(place, token)| {
            let text = if place == last { text.clone() } else { String::new() };
            Ok(GenerateEvent::Token { id: token.0, contrasts: token.1, text })
        });
        stream::iter(tokens).chain(stream::iter([Ok(GenerateEvent::Done { end_reason })]))
    });
    Ok(GenerateStream::new(made.try_flatten()))
}

/// The answer with the fingerprint that the right model leaves on these tokens.
async fn fingerprinted(
    honest: &dyn Engine,
    request: GenerateRequest,
    made: Generation,
) -> Result<Generation, EngineError> {
    let scored = ScoreRequest {
        prompt_ids: request.prompt_ids,
        claimed_ids: made.ids.clone(),
        sampling: request.sampling,
        seed: request.seed,
    };
    let scores = honest.score(scored).await?;
    Ok(Generation { contrasts: scores.into_iter().map(|score| score.contrasts).collect(), ..made })
}

/// An advertisement in place of the last words, in ids and text alike. What ends with a stop sequence has to end with it,
/// and is left.
async fn edited(
    honest: &dyn Engine,
    request: &GenerateRequest,
    mut made: Generation,
) -> Result<Generation, EngineError> {
    if made.end_reason == EndReason::Stop {
        return Ok(made);
    }
    let mut ad = honest.tokenize(&Prompt::Text(ADVERTISEMENT.into())).await?;
    ad.retain(|id| !honest.end_tokens().contains(id));
    let words = made.ids.len() - usize::from(made.end_reason == EndReason::Eos);
    let room = ad.len().min(words);
    let place = words - room;
    for (id, word) in made.ids.iter_mut().skip(place).zip(ad) {
        *id = word;
    }
    made.text = honest.read(&made.ids, &request.stop).await?.text;
    Ok(made)
}

/// The first half of the answer, and an end token.
async fn halved(
    honest: &dyn Engine,
    request: &GenerateRequest,
    mut made: Generation,
) -> Result<Generation, EngineError> {
    let Some(end) = honest.end_tokens().first() else { return Ok(made) };
    made.ids.truncate(made.ids.len() / 2);
    made.ids.push(*end);
    made.end_reason = EndReason::Eos;
    made.text = honest.read(&made.ids, &request.stop).await?.text;
    Ok(made)
}
