//! The engine: prompts to ids, ids to tokens, one loaded model for everyone who shares it.

use std::sync::Arc;

use assay_engine::{
    B256, EndReason, Engine, EngineError, EngineInfo, GenerateEvent, GenerateRequest,
    GenerateStream, Manifest, Message, Prompt, Sampling, TextAssembler,
};
use assay_proof::{Sampler, SamplingError};
use async_trait::async_trait;
use futures::stream;
use mistralrs::{
    Constraint, MistralRs, NormalRequest, Request, RequestMessage, Response, SamplingParams,
    core::Pipeline,
};
use tokio::sync::{
    Mutex,
    mpsc::{self, UnboundedReceiver, unbounded_channel},
};

use crate::{
    load::{self, Loaded, Shape, blocking, guarded},
    source::{LoadOptions, LoadStep},
    tap::{Cancel, Choice, Tap},
};

/// Responses that mistral.rs may send beyond one per token. Its channel must never be full: it waits
/// for room with the whole batch.
const SPARE_RESPONSES: usize = 16;
/// Context of a model that names a larger one; also the bound of the protocol's prompts.
const MAX_CONTEXT: usize = 1 << 20;

type Decode = dyn Fn(&[u32]) -> Result<String, EngineError> + Send + Sync;
type Encode = dyn Fn(&str, bool) -> Result<Vec<u32>, EngineError> + Send + Sync;
type BoxedDecode = Box<Decode>;

/// A model run by mistral.rs. Share it in an `Arc`: any number of generations may run at once.
pub struct MistralEngine {
    info: EngineInfo,
    manifest: Manifest,
    runner: Arc<MistralRs>,
    pipeline: Arc<Mutex<dyn Pipeline>>,
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

impl MistralEngine {
    /// Loads a model and generates a first token with it.
    ///
    /// # Errors
    /// [`EngineError::BadModel`] says which file is wrong and what to do.
    pub async fn load(options: LoadOptions) -> Result<Self, EngineError> {
        let Loaded { runner, pipeline, facts } = load::load(&options).await?;
        let name = options.name.clone().unwrap_or_else(|| options.source.served_name());
        let bad = |reason: &str, remedy: &str| EngineError::BadModel {
            model: name.clone(),
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
        let vocabulary = tokenizer.get_vocab(true).values().max().map_or(0, |id| id + 1);
        let own_context = u32::try_from(metadata.max_seq_len.min(MAX_CONTEXT)).unwrap_or(u32::MAX);
        let max_context = own_context.min(options.max_context.unwrap_or(u32::MAX));

        let decoder = tokenizer.clone();
        let decode: Arc<Decode> = Arc::new(move |ids: &[u32]| {
            decoder.decode(ids, true).map_err(|error| EngineError::Tokenizer(error.to_string()))
        });
        let encode: Arc<Encode> = Arc::new(move |text: &str, special: bool| {
            let encoding = tokenizer.encode_fast(text, special);
            let encoding = encoding.map_err(|error| EngineError::Tokenizer(error.to_string()))?;
            Ok(encoding.get_ids().to_vec())
        });

        let numeric_class = load::numeric_class(options.dtype)?;
        let info = EngineInfo {
            model: name.clone(),
            model_id: Default::default(),
            vocab_size: vocabulary,
            max_context,
            numeric_class,
            engine_version: load::ENGINE_VERSION.into(),
        };
        let has_template = facts.chat_template.is_some();
        let end_tokens: Arc<[u32]> = end_tokens.into();
        let shape = Shape {
            end_tokens: end_tokens.to_vec(),
            max_context,
            vocab_size: vocabulary,
            numeric_class,
        };
        let hashing = options.clone();
        let internal = |text: String| EngineError::Internal(format!("hashing: {text}"));
        let manifest = blocking(move || load::manifest(&facts, shape, &hashing), internal).await?;

        let mut engine =
            Self { info, manifest, runner, pipeline, has_template, end_tokens, decode, encode };
        options.report(LoadStep::WarmingUp);
        engine.warm_up().await.map_err(|error| {
            bad(&format!("it does not generate: {error}"), "check the model's files")
        })?;
        engine.info.model_id =
            engine.manifest.model_id().map_err(|error| EngineError::Internal(error.to_string()))?;
        options.report(LoadStep::Ready);
        Ok(engine)
    }

    /// What the model is, byte for byte; `modelId` is the hash of its bytes.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
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
        let pipeline = self.pipeline.lock().await;
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

    fn submission(
        &self,
        request: &GenerateRequest,
        tap: Tap,
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
            id: self.runner.next_request_id(),
            constraint: Constraint::None,
            suffix: None,
            tools: None,
            tool_choice: None,
            logits_processors: Some(vec![Arc::new(tap)]),
            return_raw_logits: false,
            web_search_options: None,
            model_id: None,
            truncate_sequence: false,
        };
        (Request::Normal(Box::new(request)), responses)
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
        let (choices_in, choices) = unbounded_channel();
        let cancel = Cancel::default();
        let end_token = self.end_tokens.first().copied().unwrap_or_default();
        let tap =
            Tap::new(sampler, request.prompt_ids.len(), end_token, choices_in, cancel.clone());
        let (submission, responses) = self.submission(&request, tap);
        // An engine that has died is started again here, with the weights that are still loaded.
        let sender = guarded(|| self.runner.get_sender(None))?
            .map_err(|error| EngineError::Stopped(error.to_string()))?;
        sender
            .send(submission)
            .await
            .map_err(|_| EngineError::Stopped("it takes no requests".into()))?;
        let run = Run {
            choices,
            responses,
            cancel,
            text: TextAssembler::new(self.decoder(), request.stop),
            end_tokens: self.end_tokens.clone(),
            made: 0,
            max_output: request.max_output,
            ended: None,
            over: false,
        };
        Ok(GenerateStream::new(stream::unfold(run, |mut run| async move {
            run.next().await.map(|event| (event, run))
        })))
    }
}

/// A generation in progress. Dropping it cancels: the tap chooses the end token, and mistral.rs finds
/// its response channel closed.
struct Run {
    choices: UnboundedReceiver<Choice>,
    responses: mpsc::Receiver<Response>,
    cancel: Cancel,
    text: TextAssembler<BoxedDecode>,
    end_tokens: Arc<[u32]>,
    made: u32,
    max_output: u32,
    ended: Option<EndReason>,
    over: bool,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Run {
    async fn next(&mut self) -> Option<Result<GenerateEvent, EngineError>> {
        if self.over {
            return None;
        }
        if let Some(end_reason) = self.ended {
            self.over = true;
            return Some(Ok(GenerateEvent::Done { end_reason }));
        }
        let event = match self.choice().await {
            Ok(id) => self.token(id),
            Err(error) => Err(error),
        };
        if event.is_err() {
            self.over = true;
            self.cancel.cancel();
        }
        Some(event)
    }

    /// The next chosen id. Choices come before the responses that follow from them.
    async fn choice(&mut self) -> Choice {
        loop {
            tokio::select! {
                biased;
                choice = self.choices.recv() => match choice {
                    Some(choice) => return choice,
                    None => return Err(self.last_words().await),
                },
                response = self.responses.recv() => match response {
                    Some(response) => if let Some(error) = failure(response) {
                        // The tap may have chosen in the meantime.
                        return self.choices.try_recv().unwrap_or(Err(error));
                    },
                    None => return self.choices.try_recv().unwrap_or(Err(died())),
                },
            }
        }
    }

    /// Why there are no more choices.
    async fn last_words(&mut self) -> EngineError {
        while let Some(response) = self.responses.recv().await {
            if let Some(error) = failure(response) {
                return error;
            }
        }
        died()
    }

    fn token(&mut self, id: u32) -> Result<GenerateEvent, EngineError> {
        self.made += 1;
        let is_end = self.end_tokens.contains(&id);
        let (mut text, mut stopped) = (String::new(), false);
        if !is_end {
            let piece = self.text.push(id)?;
            (text, stopped) = (piece.text, piece.stopped);
        }
        let over = is_end || self.made >= self.max_output;
        if over && !stopped {
            let rest = self.text.finish()?;
            text.push_str(&rest.text);
            stopped = rest.stopped;
        }
        self.ended = match () {
            () if is_end => Some(EndReason::Eos),
            () if stopped => Some(EndReason::Stop),
            () if over => Some(EndReason::Max),
            () => None,
        };
        if self.ended.is_some() {
            // A stop sequence is ours alone: mistral.rs would go on.
            self.cancel.cancel();
        }
        Ok(GenerateEvent::Token { id, text })
    }
}

fn died() -> EngineError {
    EngineError::Stopped("it died in the middle of a generation".into())
}

fn failure(response: Response) -> Option<EngineError> {
    match response {
        Response::InternalError(error) => Some(EngineError::Internal(error.to_string())),
        Response::ValidationError(error) => Some(EngineError::Internal(error.to_string())),
        Response::CompletionModelError(error, _) | Response::ModelError(error, _) => {
            Some(EngineError::Internal(error))
        }
        _ => None,
    }
}
