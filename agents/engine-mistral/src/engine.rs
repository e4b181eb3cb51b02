//! The engine: prompts to ids, ids to tokens, one loaded model for everyone who shares it.

use std::{future::ready, sync::Arc};

use assay_engine::{
    B256, Engine, EngineError, EngineInfo, GenerateRequest, GenerateStream, Manifest, Message,
    Prompt, Sampling, TextAssembler,
};
use assay_proof::{Sampler, SamplingError};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use mistralrs::{
    Constraint, CustomLogitsProcessor, NormalRequest, Request, RequestMessage, Response,
    SamplingParams, core::Pipeline,
};
use tokio::sync::{
    Mutex,
    mpsc::{self, unbounded_channel},
};

use crate::{
    generation::{BoxedDecode, Channels, Run},
    lanes::{LaneGuard, Lanes},
    load::{self, Lane, Loaded, Shape, blocking, guarded},
    source::{LoadOptions, LoadStep},
    tap::{Cancel, Tap},
};

/// Responses that mistral.rs may send beyond one per token. Its channel must never be full: it waits
/// for room with the whole batch.
const SPARE_RESPONSES: usize = 16;
/// Context of a model that names a larger one; also the bound of the protocol's prompts.
const MAX_CONTEXT: usize = 1 << 20;
/// Tokens of a block of mistral.rs's cache (`NormalCache::CACHE_GROW_SIZE`).
const CACHE_BLOCK: usize = 512;

type Decode = dyn Fn(&[u32]) -> Result<String, EngineError> + Send + Sync;
type Encode = dyn Fn(&str, bool) -> Result<Vec<u32>, EngineError> + Send + Sync;

/// A model run by mistral.rs. Share it in an `Arc`: any number of generations may run at once.
pub struct MistralEngine {
    info: EngineInfo,
    manifest: Manifest,
    shared: Arc<Shared>,
    has_template: bool,
    end_tokens: Arc<[u32]>,
    decode: Arc<Decode>,
    encode: Arc<Encode>,
}

impl std::fmt::Debug for MistralEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MistralEngine").field("info", &self.info).finish_non_exhaustive()
    }
}

/// mistral.rs grows its cache in blocks and refuses a block that would go beyond the model's context.
fn usable_context(own: usize) -> u32 {
    let own = own.min(MAX_CONTEXT);
    let whole = if own > CACHE_BLOCK { own - own % CACHE_BLOCK } else { own };
    u32::try_from(whole).unwrap_or(u32::MAX)
}

/// What is read from a loaded pipeline once.
struct Parts {
    shape: Shape,
    decode: Arc<Decode>,
    encode: Arc<Encode>,
}

async fn parts(
    pipeline: &Mutex<dyn Pipeline>,
    options: &LoadOptions,
    name: &str,
) -> Result<Parts, EngineError> {
    let bad = |reason: &str, remedy: &str| EngineError::BadModel {
        model: name.into(),
        reason: reason.into(),
        remedy: remedy.into(),
    };
    let (tokenizer, metadata) = {
        let guard = pipeline.lock().await;
        (guard.tokenizer(), guard.get_metadata())
    };
    let tokenizer = tokenizer.ok_or_else(|| bad("it has no tokenizer", "use a text model"))?;
    let mut end_tokens = metadata.eos_tok.clone();
    end_tokens.sort_unstable();
    end_tokens.dedup();
    if end_tokens.is_empty() {
        let remedy = "name an eos_token in its tokenizer_config.json";
        return Err(bad("no token ends its answers", remedy));
    }
    let own_context = usable_context(metadata.max_seq_len);
    let shape = Shape {
        end_tokens,
        max_context: own_context.min(options.max_context.unwrap_or(u32::MAX)),
        vocab_size: tokenizer.get_vocab(true).values().max().map_or(0, |id| id + 1),
        numeric_class: load::numeric_class(options.dtype)?,
    };
    let decoder = tokenizer.clone();
    let decode = move |ids: &[u32]| {
        decoder.decode(ids, true).map_err(|error| EngineError::Tokenizer(error.to_string()))
    };
    let encode = move |text: &str, special: bool| {
        let encoding = tokenizer.encode_fast(text, special);
        let encoding = encoding.map_err(|error| EngineError::Tokenizer(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    };
    Ok(Parts { shape, decode: Arc::new(decode), encode: Arc::new(encode) })
}

impl MistralEngine {
    /// Loads a model and generates a first token with it.
    ///
    /// # Errors
    /// [`EngineError::BadModel`] says which file is wrong and what to do.
    pub async fn load(options: LoadOptions) -> Result<Self, EngineError> {
        let Loaded { lanes, facts } = load::load(&options).await?;
        let name = options.name.clone().unwrap_or_else(|| options.source.served_name());
        let first = lanes.first().ok_or_else(|| EngineError::Internal("no lane".into()))?;
        let Parts { shape, decode, encode } = parts(&first.pipeline, &options, &name).await?;
        let info = EngineInfo {
            model: name.clone(),
            // Known once the model has shown how wide its output is.
            model_id: Default::default(),
            vocab_size: shape.vocab_size,
            max_context: shape.max_context,
            numeric_class: shape.numeric_class,
            engine_version: load::ENGINE_VERSION.into(),
        };
        let has_template = facts.chat_template.is_some();
        let end_tokens: Arc<[u32]> = shape.end_tokens.clone().into();
        let hashing = options.clone();
        let internal = |text: String| EngineError::Internal(format!("hashing: {text}"));
        let manifest = blocking(move || load::manifest(&facts, shape, &hashing), internal).await?;
        let free = Lanes::new(lanes.len());
        let shared = Arc::new(Shared { lanes, free, end_tokens: end_tokens.clone() });
        let mut engine = Self { info, manifest, shared, has_template, end_tokens, decode, encode };

        options.report(LoadStep::WarmingUp);
        // Lanes are given out in turn, so each generates once.
        for _ in 0..engine.lanes() {
            engine.warm_up().await.map_err(|error| EngineError::BadModel {
                model: name.clone(),
                reason: format!("it does not generate: {error}"),
                remedy: "check the model's files".into(),
            })?;
        }
        let model_id = engine.manifest.model_id();
        engine.info.model_id = model_id.map_err(|e| EngineError::Internal(e.to_string()))?;
        options.report(LoadStep::Ready);
        Ok(engine)
    }

    /// What the model is, byte for byte; `modelId` is the hash of its bytes.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Generations that run at once; more wait for their turn.
    pub fn lanes(&self) -> usize {
        self.shared.lanes.len()
    }

    /// Ids that end an answer, ascending.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// One token: the weights run, and their output fits the tokenizer. A model whose output is narrower
    /// than its tokenizer serves the tokens that it has.
    async fn warm_up(&mut self) -> Result<(), EngineError> {
        let first = self.end_tokens.first().copied().unwrap_or_default();
        let request = |vocab_size: u32| GenerateRequest {
            prompt_ids: vec![first.min(vocab_size.saturating_sub(1))],
            sampling: Sampling { temperature_milli: 0, ..Sampling::default() },
            seed: B256::ZERO,
            max_output: 1,
            stop: Vec::new(),
        };
        let attempt = self.generate(request(self.info.vocab_size)).await?.finish().await;
        if let Err(EngineError::Sampling(SamplingError::ShortRow { got, .. })) = attempt {
            tracing::warn!(tokenizer = self.info.vocab_size, model = got, "narrow model output");
            self.info.vocab_size = u32::try_from(got).unwrap_or(u32::MAX);
            self.manifest.vocab_size = self.info.vocab_size;
            return self.generate(request(self.info.vocab_size)).await?.finish().await.map(drop);
        }
        attempt.map(drop)
    }

    fn decoder(&self) -> BoxedDecode {
        let decode = self.decode.clone();
        Box::new(move |ids: &[u32]| decode(ids))
    }

    async fn render(&self, messages: &[Message]) -> Result<Vec<u32>, EngineError> {
        if messages.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        if !self.has_template {
            return Err(EngineError::Unsupported {
                what: "a conversation".into(),
                instead: format!("{} has no chat template; send plain text", self.info.model),
            });
        }
        let lane = self.shared.lanes.first();
        let lane = lane.ok_or_else(|| EngineError::Internal("no lane".into()))?;
        let pipeline = lane.pipeline.lock().await;
        // mistral.rs's map types are built by inference: they are not ours to name.
        let messages = messages
            .iter()
            .map(|message| {
                let content = message.content.clone();
                let pairs = [("role", message.role.clone()), ("content", content)];
                pairs.into_iter().map(|(key, text)| (key.to_owned(), Err(text).into())).collect()
            })
            .collect();
        // The template writes the special tokens that it wants; the tokenizer adds none.
        let rendered = guarded(|| {
            let processor = pipeline.get_processor();
            processor.process(&*pipeline, messages, true, false, None, None, Vec::new())
        })?;
        let (ids, _) = rendered.map_err(|error| EngineError::Template(format!("{error:#}")))?;
        Ok(ids)
    }
}

#[async_trait]
impl Engine for MistralEngine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    async fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, EngineError> {
        match prompt {
            Prompt::Messages(messages) => self.render(messages).await,
            Prompt::Text(text) => {
                let (encode, text) = (self.encode.clone(), text.clone());
                blocking(move || encode(&text, true), EngineError::Tokenizer).await
            }
        }
    }

    async fn detokenize(&self, ids: &[u32]) -> Result<String, EngineError> {
        if let Some(id) = ids.iter().find(|id| **id >= self.info.vocab_size) {
            return Err(EngineError::UnknownToken { id: *id, vocab_size: self.info.vocab_size });
        }
        let ids = match ids.split_last() {
            Some((last, rest)) if self.end_tokens.contains(last) => rest,
            _ => ids,
        };
        Ok(TextAssembler::new(self.decoder(), Vec::new()).assemble(ids)?.text)
    }

    async fn generate(&self, request: GenerateRequest) -> Result<GenerateStream, EngineError> {
        request.check(&self.info)?;
        let sampler = Sampler::new(request.sampling, request.seed, self.info.vocab_size)?;
        let text = TextAssembler::new(self.decoder(), request.stop.clone());
        let shared = self.shared.clone();
        // A lane is taken when the stream is first looked at.
        let start = async move {
            let lane = shared.free.take().await?;
            let channels = shared.submit(&request, sampler, lane).await?;
            let end_tokens = shared.end_tokens.clone();
            Ok(Run::new(channels, text, end_tokens, request.max_output))
        };
        Ok(GenerateStream::new(stream::once(start).flat_map(|run| {
            match run {
                Ok(run) => stream::unfold(run, |mut run| async move {
                    run.next().await.map(|event| (event, run))
                })
                .left_stream(),
                Err(error) => stream::once(ready(Err(error))).right_stream(),
            }
        })))
    }
}

/// What running generations need of the engine.
struct Shared {
    lanes: Vec<Lane>,
    free: Arc<Lanes>,
    end_tokens: Arc<[u32]>,
}

impl Shared {
    async fn submit(
        &self,
        request: &GenerateRequest,
        sampler: Sampler,
        lane: LaneGuard,
    ) -> Result<Channels, EngineError> {
        let runner = self.lanes.get(lane.index()).map(|lane| lane.runner.clone());
        let runner =
            runner.ok_or_else(|| EngineError::Internal("a lane that is not there".into()))?;
        let (choices_in, choices) = unbounded_channel();
        let cancel = Cancel::default();
        let end_token = self.end_tokens.first().copied().unwrap_or_default();
        let prompt_tokens = request.prompt_ids.len();
        let tap = Tap::new(sampler, prompt_tokens, end_token, choices_in, cancel.clone());
        let processor = Arc::new(tap.in_lane(lane));
        let (submission, responses) = submission(runner.next_request_id(), request, processor);
        // An engine that has died is started again here, with the weights that are still loaded.
        let sender = guarded(|| runner.get_sender(None))?
            .map_err(|error| EngineError::Stopped(error.to_string()))?;
        sender
            .send(submission)
            .await
            .map_err(|_| EngineError::Stopped("it takes no requests".into()))?;
        Ok(Channels { choices, responses, cancel })
    }
}

fn submission(
    id: usize,
    request: &GenerateRequest,
    processor: Arc<dyn CustomLogitsProcessor>,
) -> (Request, mpsc::Receiver<Response>) {
    let capacity = request.max_output as usize + SPARE_RESPONSES;
    let (response, responses) = mpsc::channel(capacity);
    let request = NormalRequest {
        messages: RequestMessage::CompletionTokens(request.prompt_ids.clone()),
        // The tap leaves one id per row; these settings only pick it.
        sampling_params: SamplingParams {
            temperature: Some(0.0),
            top_k: None,
            max_len: Some(request.max_output as usize),
            ..SamplingParams::deterministic()
        },
        response,
        return_logprobs: false,
        is_streaming: true,
        id,
        constraint: Constraint::None,
        suffix: None,
        tools: None,
        tool_choice: None,
        logits_processors: Some(vec![processor]),
        return_raw_logits: false,
        web_search_options: None,
        model_id: None,
        truncate_sequence: false,
    };
    (Request::Normal(Box::new(request)), responses)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use mistralrs::Tensor;

    use super::*;
    use crate::ModelSource;

    /// A tap in an engine whose thread panics at the third token.
    struct Bomb {
        tap: Tap,
        calls: AtomicU32,
    }

    impl CustomLogitsProcessor for Bomb {
        fn apply(&self, logits: &Tensor, context: &[u32]) -> mistralrs::Result<Tensor> {
            assert!(self.calls.fetch_add(1, Ordering::Relaxed) < 2, "a bug in the engine's thread");
            self.tap.apply(logits, context)
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_death_of_the_engine_is_an_error_and_it_starts_again() {
        let data = std::env::temp_dir().join(format!("assay-engine-death-{}", std::process::id()));
        let options = LoadOptions { lanes: 1, ..LoadOptions::new(ModelSource::Demo, &data) };
        let engine = MistralEngine::load(options).await.unwrap();
        let prompt_ids = engine.tokenize(&Prompt::Text("Hello".into())).await.unwrap();
        let request = GenerateRequest {
            prompt_ids,
            sampling: Sampling { temperature_milli: 2000, ..Sampling::default() },
            seed: B256::ZERO,
            max_output: 900,
            stop: Vec::new(),
        };
        let shared = engine.shared.clone();
        let lane = shared.free.take().await.unwrap();
        let (choices_in, choices) = unbounded_channel();
        let cancel = Cancel::default();
        let sampler = Sampler::new(request.sampling, request.seed, engine.info.vocab_size).unwrap();
        let prompt_tokens = request.prompt_ids.len();
        let tap = Tap::new(sampler, prompt_tokens, 0, choices_in, cancel.clone()).in_lane(lane);
        let bomb = Arc::new(Bomb { tap, calls: AtomicU32::new(0) });
        let (submission, responses) = submission(7, &request, bomb);
        let runner = &shared.lanes[0].runner;
        runner.get_sender(None).unwrap().send(submission).await.unwrap();
        let text = TextAssembler::new(engine.decoder(), Vec::new());
        let channels = Channels { choices, responses, cancel };
        let mut run = Run::new(channels, text, shared.end_tokens.clone(), request.max_output);
        assert!(run.next().await.unwrap().is_ok());
        assert!(run.next().await.unwrap().is_ok());
        let error = run.next().await.unwrap().unwrap_err();
        assert!(matches!(error, EngineError::Stopped(_)) && error.is_retryable(), "{error:?}");
        assert!(run.next().await.is_none());

        let short = GenerateRequest { max_output: 3, ..request };
        let mut tries = 0;
        let done = loop {
            // Between the panic and the end of its thread the engine still takes requests.
            let attempt = match engine.generate(short.clone()).await {
                Ok(stream) => stream.finish().await,
                Err(error) => Err(error),
            };
            match attempt {
                Ok(done) => break done,
                Err(error) => assert!(error.is_retryable() && tries < 100, "{error}"),
            }
            tries += 1;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        assert!(!done.ids.is_empty());
        let _ = std::fs::remove_dir_all(data);
    }
}
