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
        let Generation { ids, contrasts, text, logprobs, end_reason } = made;
        let last = ids.len().saturating_sub(1);
        let mut logprobs = logprobs.into_iter();
        let tokens = ids.into_iter().zip(contrasts).enumerate().map(move |(place, token)| {
            let text = if place == last { text.clone() } else { String::new() };
            let logprobs = logprobs.next();
            Ok(GenerateEvent::Token { id: token.0, contrasts: token.1, text, logprobs })
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
    made.logprobs.truncate(made.ids.len());
    made.end_reason = EndReason::Eos;
    made.text = honest.read(&made.ids, &request.stop).await?.text;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use assay_engine::{Answered, Message, examine};
    use assay_engine_mistral::{LoadOptions, MistralEngine, ModelSource, calibrate::Table};
    use assay_proof::{Reasons, Width, compare, verdict};
    use assay_types::{
        Address, B256, BLOCK_VERSION, CommitScope, NodeId, RequestBlock, ResultBlock, Sampling,
        SeedInput, StreamHash, TaskId, TokenSeal, prompt_hash, seed_g,
    };

    use super::*;

    const BEACON: B256 = B256::repeat_byte(5);
    const QUESTIONS: [&str; 5] = [
        "What is a session?",
        "Explain how Assay works.",
        "hello, who are you?",
        "What does a miner do?",
        "Tell me about the price of a token.",
    ];

    fn request(question: &str) -> RequestBlock {
        RequestBlock {
            max_output: 96,
            max_prompt: 256,
            prompt: Prompt::Messages(vec![Message {
                role: "user".into(),
                content: question.into(),
            }]),
            salt: B256::ZERO,
            sampling: Sampling { temperature_milli: 1000, ..Sampling::default() },
            stop: Vec::new(),
            top_logprobs: None,
            version: BLOCK_VERSION,
        }
    }

    /// What a node with this engine answers, and why a validator with the honest one finds it false.
    async fn audited(engine: &dyn Engine, honest: &MistralEngine, question: &str) -> Reasons {
        let request = request(question);
        let task = TaskId(keccak256(question));
        let scope = CommitScope { chain_id: 31337, queue: Address::ZERO, task, node: NodeId(6) };
        let prompt_ids = engine.tokenize(&request.prompt).await.unwrap();
        let (prompt_tokens, prompt_hash) = (prompt_ids.len() as u32, prompt_hash(&prompt_ids));
        let CommitScope { chain_id, queue, node, .. } = scope;
        let seed = SeedInput { chain_id, queue, task, prompt_hash, node, beacon: BEACON };
        let wanted = GenerateRequest {
            prompt_ids,
            sampling: request.sampling,
            seed: seed_g(&seed),
            max_output: request.max_output,
            stop: request.stop.clone(),
            top_logprobs: None,
        };
        let made = engine.generate(wanted).await.unwrap().finish().await.unwrap();
        assert_eq!(made.ids.len(), made.contrasts.len());
        let result = ResultBlock {
            cancellation: None,
            end_reason: made.end_reason,
            stream_hash: StreamHash::of(task, &made.ids),
            ids: made.ids,
            salt: B256::ZERO,
            text: made.text,
            version: BLOCK_VERSION,
        };
        let seal = TokenSeal {
            output_digest: B256::ZERO,
            prompt_hash,
            prompt_tokens,
            output_tokens: result.ids.len() as u32,
            class: honest.info().numeric_class,
            end_reason: result.end_reason,
            salt: B256::ZERO,
        };
        let answered = Answered {
            scope,
            beacon: BEACON,
            seal: &seal,
            request: &request,
            result: Some(&result),
            cancel_is_signed: false,
        };
        let seen = examine(honest, &answered, Width::Four).await.unwrap();
        assert_eq!(seen.faults, [], "ids, text and end go together");
        let class = honest.info().numeric_class;
        let table = Table::shipped(honest.info().model_id).unwrap();
        let calibration = table.of(class, class).unwrap().calibration;
        let blocks = compare(&made.contrasts, &seen.audit.contrasts()).unwrap();
        verdict(&seen.audit.statistics(), blocks.failing(&calibration), true, &calibration)
    }

    /// Each lie is found by what it leaves, with the thresholds that are part of the program, and by nothing else that would
    /// give away a clumsier one; an honest node is not accused.
    #[tokio::test(flavor = "multi_thread")]
    async fn every_cheat_lies_as_it_says_and_is_found() {
        let data = tempfile::tempdir().unwrap();
        let options = LoadOptions { lanes: 2, ..LoadOptions::new(ModelSource::Demo, data.path()) };
        let honest = Arc::new(MistralEngine::load(options.clone()).await.unwrap());
        for question in QUESTIONS {
            assert!(audited(honest.as_ref(), &honest, question).await.is_empty(), "{question}");
        }
        let (weights, tokens) = (Reasons::FINGERPRINT, Reasons::HARD_MARGIN);
        let cheats = [
            (CheatKind::Quantized, weights),
            (CheatKind::OtherModel, weights),
            (CheatKind::Copied, weights),
            (CheatKind::PrefillSpoof, tokens),
            (CheatKind::Edited, tokens),
            (CheatKind::EarlyStop, tokens),
        ];
        for (kind, wanted) in cheats {
            let engine = crate::cheat::engine(kind, honest.clone(), &options).await.unwrap();
            assert_eq!(engine.info(), honest.info(), "{kind:?} says that it is the model");
            let mut found = 0;
            for question in QUESTIONS {
                let reasons = audited(engine.as_ref(), &honest, question).await;
                found += usize::from(reasons.contains(wanted));
                if wanted == tokens {
                    assert!(!reasons.contains(weights), "{kind:?}: its fingerprint is right");
                }
            }
            assert_eq!(found, QUESTIONS.len(), "{kind:?}");
        }
    }
}
