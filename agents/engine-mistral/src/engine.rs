//! The engine: prompts to ids, ids to tokens, one loaded model for everyone who shares it.

use std::{future::ready, sync::Arc};

use assay_engine::{
    B256, Engine, EngineError, EngineInfo, GenerateRequest, GenerateStream, Manifest, Message,
    Prompt, Reading, RowLogprobs, Sampling, Score, ScoreRequest, TextAssembler,
};
use assay_proof::{Sampler, SamplingError, Scorer};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use mistralrs::{
    Constraint, CustomLogitsProcessor, MistralRs, NormalRequest, Request, RequestMessage, Response,
    SamplingParams, core::Pipeline,
};
use tokio::sync::{
    Mutex,
    mpsc::{self, unbounded_channel},
};

use crate::{
    generation::{BoxedDecode, Channels, Note, Run},
    lanes::{LaneGuard, Lanes},
    load::{self, Lane, Loaded, Shape, blocking, guarded},
    names::{Entry, Find, Names},
    scoring::Claim,
    source::{LoadOptions, LoadStep},
    tap::{Cancel, Chooser, Tap},
};

/// Responses that mistral.rs may send beyond one per token. Its channel must never be full: it waits
/// for room with the whole batch.
pub(crate) const SPARE_RESPONSES: usize = 16;
/// Context of a model that names a larger one; also the bound of the protocol's prompts.
const MAX_CONTEXT: usize = 1 << 20;
/// Tokens of a block of mistral.rs's cache (`NormalCache::CACHE_GROW_SIZE`).
const CACHE_BLOCK: usize = 512;
/// A text whose last token decodes to a plain text.
const ANCHOR: &str = "a";

pub(crate) type Decode = dyn Fn(&[u32]) -> Result<String, EngineError> + Send + Sync;
type Encode = dyn Fn(&str, bool) -> Result<Vec<u32>, EngineError> + Send + Sync;

/// A model run by mistral.rs. Share it in an `Arc`: any number of generations may run at once.
pub struct MistralEngine {
    info: EngineInfo,
    manifest: Manifest,
    pub(crate) shared: Arc<Shared>,
    has_template: bool,
    end_tokens: Arc<[u32]>,
    decode: Arc<Decode>,
    encode: Arc<Encode>,
    names: Arc<Names>,
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
    find: Arc<Find>,
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
    let vocabulary = tokenizer.clone();
    let find = move |id: u32| {
        let spelling = vocabulary.id_to_token(id)?;
        let is_special = vocabulary.get_added_vocabulary().is_special_token(&spelling);
        Some(Entry { spelling, is_special })
    };
    let encode = move |text: &str, special: bool| {
        let encoding = tokenizer.encode_fast(text, special);
        let encoding = encoding.map_err(|error| EngineError::Tokenizer(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    };
    let (decode, encode, find) = (Arc::new(decode), Arc::new(encode), Arc::new(find));
    Ok(Parts { shape, decode, encode, find })
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
        let Parts { shape, decode, encode, find } = parts(&first.pipeline, &options, &name).await?;
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
        let shared = Arc::new(Shared {
            lanes,
            free,
            end_tokens: end_tokens.clone(),
            reading: Mutex::new(()),
            row_width: info.vocab_size as usize,
            score_bytes: options.score_bytes,
        });
        let anchor = encode(ANCHOR, false)?.last().copied();
        let names = Arc::new(Names::new(decode.clone(), find, end_tokens.clone(), anchor));
        let mut engine =
            Self { info, manifest, shared, has_template, end_tokens, decode, encode, names };

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
            top_logprobs: None,
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

    /// Gives `reader` each claimed token with the row of logits that it would have been chosen from, up
    /// to the first end token, and returns the reader's notes. The ids must have been checked.
    pub(crate) async fn read_rows<N: Send + 'static>(
        &self,
        prompt_ids: Vec<u32>,
        mut claimed_ids: Vec<u32>,
        mut reader: impl FnMut(&[f32], u32) -> Result<N, EngineError> + Send + 'static,
    ) -> Result<Vec<N>, EngineError> {
        if let Some(end) = claimed_ids.iter().position(|id| self.end_tokens.contains(id)) {
            claimed_ids.truncate(end + 1);
        }
        let mut claimed = claimed_ids.clone().into_iter();
        let chooser: Chooser<N> = Box::new(move |row| {
            let id =
                claimed.next().ok_or_else(|| EngineError::Internal("a row too many".into()))?;
            Ok((id, reader(row, id)?))
        });
        self.shared.read(Claim { prompt_ids, claimed_ids }, chooser).await
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

    fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    async fn read(&self, ids: &[u32], stop: &[String]) -> Result<Reading, EngineError> {
        if let Some(id) = ids.iter().find(|id| **id >= self.info.vocab_size) {
            return Err(EngineError::UnknownToken { id: *id, vocab_size: self.info.vocab_size });
        }
        let ids = match ids.split_last() {
            Some((last, rest)) if self.end_tokens.contains(last) => rest,
            _ => ids,
        };
        TextAssembler::new(self.decoder(), stop.to_vec()).assemble(ids)
    }

    async fn generate(&self, request: GenerateRequest) -> Result<GenerateStream, EngineError> {
        request.check(&self.info)?;
        let mut sampler = Sampler::new(request.sampling, request.seed, self.info.vocab_size)?;
        let (vocabulary, wish) = (self.info.vocab_size as usize, request.top_logprobs);
        let chooser: Chooser<Note> = Box::new(move |row| {
            let step = sampler.step(row)?;
            // Padding of the model's output is no token.
            let row = row.get(..vocabulary).unwrap_or(row);
            let logprobs = wish.map(|top| RowLogprobs::new(row, step.id, top));
            Ok((step.id, (step.contrasts, logprobs)))
        });
        let text = TextAssembler::new(self.decoder(), request.stop.clone());
        let (shared, names) = (self.shared.clone(), self.names.clone());
        // A lane is taken when the stream is first looked at.
        let start = async move {
            let channels = shared.run(&request.prompt_ids, request.max_output, chooser).await?;
            let end_tokens = shared.end_tokens.clone();
            Ok(Run::new(channels, text, names, end_tokens, request.max_output))
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

    async fn score(&self, request: ScoreRequest) -> Result<Vec<Score>, EngineError> {
        request.check(&self.info)?;
        let mut scorer = Scorer::new(request.sampling, request.seed, self.info.vocab_size)?;
        let reader = move |row: &[f32], id| Ok(scorer.score(row, id)?);
        self.read_rows(request.prompt_ids, request.claimed_ids, reader).await
    }
}

/// What running generations need of the engine.
pub(crate) struct Shared {
    pub lanes: Vec<Lane>,
    pub free: Arc<Lanes>,
    pub end_tokens: Arc<[u32]>,
    /// Held while claimed tokens are scored.
    pub reading: Mutex<()>,
    /// Logits of a row, without padding.
    pub row_width: usize,
    /// [`LoadOptions::score_bytes`].
    pub score_bytes: usize,
}

impl Shared {
    /// Runs the prompt on a free lane; each next token is the chooser's, `max_output` of them at most.
    pub(crate) async fn run<N: Send + 'static>(
        &self,
        prompt_ids: &[u32],
        max_output: u32,
        chooser: Chooser<N>,
    ) -> Result<Channels<N>, EngineError> {
        let lane = self.free.take().await?;
        let runner = self.runner(&lane)?;
        let (choices_in, choices) = unbounded_channel();
        let cancel = Cancel::default();
        let end_token = self.end_tokens.first().copied().unwrap_or_default();
        let tap = Tap::new(chooser, prompt_ids.len(), end_token, choices_in, cancel.clone());
        let (response, responses) = mpsc::channel(max_output as usize + SPARE_RESPONSES);
        let sampling = pick_what_is_left(max_output);
        let work = Work { ids: prompt_ids.to_vec(), sampling, raw: false };
        let tap = Arc::new(tap.in_lane(lane));
        send(&runner, submission(runner.next_request_id(), work, response, tap)).await?;
        Ok(Channels { choices, responses, cancel })
    }

    pub(crate) fn runner(&self, lane: &LaneGuard) -> Result<Arc<MistralRs>, EngineError> {
        let lane = self.lanes.get(lane.index());
        let lane = lane.ok_or_else(|| EngineError::Internal("a lane that is not there".into()))?;
        Ok(lane.runner.clone())
    }
}

/// Hands a request to mistral.rs. An engine that has died is started again here, with the weights that
/// are still loaded.
pub(crate) async fn send(runner: &MistralRs, request: Request) -> Result<(), EngineError> {
    let sender = guarded(|| runner.get_sender(None))?
        .map_err(|error| EngineError::Stopped(error.to_string()))?;
    let refused = |_| EngineError::Stopped("it takes no requests".into());
    sender.send(request).await.map_err(refused)
}

/// What mistral.rs shall do with some ids.
pub(crate) struct Work {
    pub ids: Vec<u32>,
    pub sampling: SamplingParams,
    /// Give out the logits of all positions instead of generating.
    pub raw: bool,
}

/// The tap leaves one id per row; these settings only pick it.
pub(crate) fn pick_what_is_left(max_output: u32) -> SamplingParams {
    SamplingParams {
        temperature: Some(0.0),
        top_k: None,
        max_len: Some(max_output as usize),
        ..SamplingParams::deterministic()
    }
}

pub(crate) fn submission(
    id: usize,
    work: Work,
    response: mpsc::Sender<Response>,
    processor: Arc<dyn CustomLogitsProcessor>,
) -> Request {
    Request::Normal(Box::new(NormalRequest {
        messages: RequestMessage::CompletionTokens(work.ids),
        sampling_params: work.sampling,
        response,
        return_logprobs: false,
        is_streaming: !work.raw,
        id,
        constraint: Constraint::None,
        suffix: None,
        tools: None,
        tool_choice: None,
        logits_processors: Some(vec![processor]),
        return_raw_logits: work.raw,
        web_search_options: None,
        model_id: None,
        truncate_sequence: false,
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use assay_engine::Contrasts;
    use assay_proof::Width;
    use mistralrs::Tensor;

    use super::*;
    use crate::ModelSource;

    /// A tap in an engine whose thread panics at the third token.
    struct Bomb {
        tap: Tap<Note>,
        calls: AtomicU32,
    }

    impl CustomLogitsProcessor for Bomb {
        fn apply(&self, logits: &Tensor, context: &[u32]) -> mistralrs::Result<Tensor> {
            assert!(self.calls.fetch_add(1, Ordering::Relaxed) < 2, "a bug in the engine's thread");
            self.tap.apply(logits, context)
        }
    }

    /// Against the rows of one prefill, and a softmax in the widest floats there are.
    #[tokio::test(flavor = "multi_thread")]
    async fn log_probabilities_are_what_a_prefill_finds() {
        let folder = tempfile::tempdir().unwrap();
        let options =
            LoadOptions { lanes: 1, ..LoadOptions::new(ModelSource::Demo, folder.path()) };
        let engine = MistralEngine::load(options).await.unwrap();
        let prompt_ids = engine.tokenize(&Prompt::Text("A session".into())).await.unwrap();
        let request = GenerateRequest {
            prompt_ids: prompt_ids.clone(),
            sampling: Sampling { frequency_penalty_milli: 500, ..Sampling::default() },
            seed: B256::repeat_byte(3),
            max_output: 64,
            stop: Vec::new(),
            top_logprobs: Some(3),
        };
        let made = engine.generate(request).await.unwrap().finish().await.unwrap();
        let vocabulary = engine.info.vocab_size as usize;
        let reader = move |row: &[f32], id: u32| {
            let row: Vec<f64> = row[..vocabulary].iter().map(|logit| f64::from(*logit)).collect();
            let sum: f64 = row.iter().map(|logit| logit.exp()).sum();
            let logprobs = row.iter().map(|logit| logit - sum.ln());
            let mut sorted: Vec<f64> = logprobs.clone().collect();
            sorted.sort_by(|one, other| other.total_cmp(one));
            Ok([logprobs.collect::<Vec<_>>()[id as usize], sorted[0], sorted[1], sorted[2]])
        };
        let rows = engine.read_rows(prompt_ids, made.ids.clone(), reader).await.unwrap();
        assert_eq!((rows.len(), made.logprobs.len()), (made.ids.len(), made.ids.len()));
        for (row, stated) in rows.iter().zip(&made.logprobs) {
            let stated = [&stated.chosen].into_iter().chain(&stated.top);
            for (found, stated) in row.iter().zip(stated) {
                let stated = stated.logprob_micronats as f64 / 1e6;
                assert!((found - stated).abs() < 1e-3, "{found} {stated}");
            }
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
            top_logprobs: None,
        };
        let shared = engine.shared.clone();
        let lane = shared.free.take().await.unwrap();
        let (choices_in, choices) = unbounded_channel();
        let cancel = Cancel::default();
        let prompt_tokens = request.prompt_ids.len();
        let chooser: Chooser<Note> = Box::new(|_| Ok((5, (Contrasts::zero(Width::Four), None))));
        let tap = Tap::new(chooser, prompt_tokens, 0, choices_in, cancel.clone()).in_lane(lane);
        let bomb = Arc::new(Bomb { tap, calls: AtomicU32::new(0) });
        let (response, responses) = mpsc::channel(1024);
        let sampling = pick_what_is_left(900);
        let work = Work { ids: request.prompt_ids.clone(), sampling, raw: false };
        send(&shared.lanes[0].runner, submission(7, work, response, bomb)).await.unwrap();
        let text = TextAssembler::new(engine.decoder(), Vec::new());
        let channels = Channels { choices, responses, cancel };
        let (names, end_tokens) = (engine.names.clone(), shared.end_tokens.clone());
        let mut run = Run::new(channels, text, names, end_tokens, request.max_output);
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
