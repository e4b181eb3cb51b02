//! An engine without a model: it answers with the last message. For tests of everything around engines.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use assay_proof::{Noise, SAMPLER_VERSION, Sampler, Score, Scorer, Step};
use assay_types::{B256, EndReason, NumericClass, Prompt, Sampling, TokenName};
use async_trait::async_trait;
use futures::stream;

use crate::{
    Engine, EngineError, EngineInfo, GenerateEvent, GenerateRequest, GenerateStream,
    MANIFEST_VERSION, Manifest, ManifestFile, Reading, RowLogprobs, ScoreRequest, TextAssembler,
};

/// Ids below this are bytes; the rest mark the parts of a conversation.
const FIRST_SPECIAL: u32 = 256;
const TEXT: u32 = 256;
const END: u32 = 257;
const SYSTEM: u32 = 258;
const USER: u32 = 259;
const ASSISTANT: u32 = 260;
const VOCABULARY: u32 = 261;
/// Logit of the token to choose, over at most [`SPREAD`] of the others. The noise spans 41, times a
/// temperature of at most 2: no noise can win against it.
const CERTAIN: f32 = 100.0;
/// Largest logit of the other tokens, and with a minus the smallest.
const SPREAD: f32 = 4.0;

/// A failure to inject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// `generate` refuses.
    Refuse,
    /// The stream fails after this many tokens; 0 is before the first.
    AfterTokens(u32),
    /// The stream says nothing more after this many tokens.
    HangAfter(u32),
}

/// How an echo engine behaves.
#[derive(Clone, Debug)]
pub struct EchoOptions {
    /// Name under which it is served.
    pub model: String,
    /// Most tokens (bytes) of prompt and answer.
    pub max_context: u32,
    /// Time that one token takes.
    pub token_delay: Duration,
    /// What goes wrong from the start.
    pub failure: Option<Failure>,
    /// Which weights it pretends to have. Engines that differ here are the same model by name and give
    /// the same answers with other fingerprints, as a cheat's would be.
    pub weights: u8,
}

impl Default for EchoOptions {
    fn default() -> Self {
        Self {
            model: "assay-echo".into(),
            max_context: 4096,
            token_delay: Duration::ZERO,
            failure: None,
            weights: 0,
        }
    }
}

/// Answers each prompt with its last message (or its text), byte by byte, then an end token. One id is
/// one byte. Tokens are chosen by the real sampler from logits that leave no choice; the others' logits
/// follow from the pretended weights and from everything before, so that contrasts and margins behave
/// as a model's.
#[derive(Debug)]
pub struct EchoEngine {
    info: EngineInfo,
    manifest: Manifest,
    token_delay: Duration,
    weights: u8,
    failure: Arc<Mutex<Option<Failure>>>,
}

impl EchoEngine {
    /// An echo engine.
    ///
    /// # Errors
    /// Never with options that a test would write; the manifest's encoding could fail.
    pub fn new(options: EchoOptions) -> Result<Self, EngineError> {
        let internal = |error: &dyn std::error::Error| EngineError::Internal(error.to_string());
        let numeric_class: NumericClass = "echo".parse().map_err(|error| internal(&error))?;
        let engine = format!("assay-echo {}", env!("CARGO_PKG_VERSION"));
        let content = ManifestFile::of("echo".into(), options.model.as_bytes())
            .map_err(|error| internal(&error))?;
        let manifest = Manifest {
            architecture: "echo".into(),
            chat_template_sha256: None,
            end_tokens: vec![END],
            engine: engine.clone(),
            files: vec![content],
            max_context: options.max_context,
            numeric_classes: vec![numeric_class],
            quantisation: "none".into(),
            sampler: SAMPLER_VERSION,
            tokenizer_sha256: B256::ZERO,
            version: MANIFEST_VERSION,
            vocab_size: VOCABULARY,
        };
        let info = EngineInfo {
            model: options.model.clone(),
            model_id: manifest.model_id().map_err(|error| internal(&error))?,
            vocab_size: VOCABULARY,
            max_context: options.max_context,
            numeric_class,
            engine_version: engine,
        };
        let failure = Arc::new(Mutex::new(options.failure));
        let EchoOptions { token_delay, weights, .. } = options;
        Ok(Self { info, manifest, token_delay, weights, failure })
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// From now on new generations fail like this, or no longer.
    pub fn set_failure(&self, failure: Option<Failure>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    fn failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a prompt's answer is: the bytes of its last message, or of its text.
fn answer(prompt: &[u32]) -> Vec<u32> {
    let body = match prompt.split_last() {
        Some((&ASSISTANT, body)) => body,
        _ => prompt,
    };
    body.rsplit(|id| *id >= FIRST_SPECIAL)
        .find(|part| !part.is_empty())
        .unwrap_or_default()
        .to_vec()
}

/// The echo is the same under every penalty.
fn without_penalties(sampling: Sampling) -> Sampling {
    Sampling { frequency_penalty_milli: 0, presence_penalty_milli: 0, ..sampling }
}

fn decode(ids: &[u32]) -> Result<String, EngineError> {
    let bytes: Vec<u8> = ids.iter().filter_map(|id| u8::try_from(*id).ok()).collect();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn name(id: u32) -> Result<TokenName, EngineError> {
    Ok(match u8::try_from(id) {
        Ok(byte) if byte.is_ascii() => TokenName::Text(char::from(byte).into()),
        Ok(byte) => TokenName::Bytes(vec![byte].into()),
        Err(_) => TokenName::Special(format!("<{id}>")),
    })
}

type Decoder = fn(&[u32]) -> Result<String, EngineError>;

/// The rows of logits of one answer.
struct Rows {
    weights: Noise,
    /// Hash (FNV-1a) of all ids so far: one changed token changes every later row.
    context: u64,
    answer: Vec<u32>,
    made: usize,
}

impl Rows {
    fn new(weights: u8, prompt: &[u32]) -> Self {
        let weights = Noise::new(B256::repeat_byte(weights));
        let mut rows =
            Self { weights, context: 0xcbf2_9ce4_8422_2325, answer: answer(prompt), made: 0 };
        prompt.iter().for_each(|id| rows.mix(*id));
        rows
    }

    fn mix(&mut self, id: u32) {
        self.context = (self.context ^ u64::from(id)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    /// The row that the next token is chosen from.
    fn row(&self) -> Vec<f32> {
        let mut noise = self.weights.row(self.context);
        let logit = |id| (noise.word(id) >> 40) as f32 / (1 << 23) as f32 * SPREAD - SPREAD;
        let mut row: Vec<f32> = (0..VOCABULARY).map(logit).collect();
        let wanted = self.answer.get(self.made).copied().unwrap_or(END);
        if let Some(logit) = row.get_mut(wanted as usize) {
            *logit = CERTAIN;
        }
        row
    }

    fn push(&mut self, id: u32) {
        self.mix(id);
        self.made += 1;
    }
}

/// A generation in progress.
struct Run {
    sampler: Sampler,
    text: TextAssembler<Decoder>,
    rows: Rows,
    made: u32,
    max_output: u32,
    top_logprobs: Option<u32>,
    ended: Option<EndReason>,
    over: bool,
    delay: Duration,
    failure: Option<Failure>,
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
        match self.failure {
            Some(Failure::AfterTokens(n)) if n == self.made => {
                self.over = true;
                let what = format!("injected failure after {n} tokens");
                return Some(Err(EngineError::Internal(what)));
            }
            Some(Failure::HangAfter(n)) if n == self.made => std::future::pending().await,
            _ => {}
        }
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        let event = self.token();
        self.over = event.is_err();
        Some(event)
    }

    fn token(&mut self) -> Result<GenerateEvent, EngineError> {
        let row = self.rows.row();
        let Step { id, contrasts } = self.sampler.step(&row)?;
        let logprobs = self.top_logprobs.map(|top| RowLogprobs::new(&row, id, top).named(name));
        self.rows.push(id);
        self.made += 1;
        let mut text = String::new();
        let mut stopped = false;
        if id != END {
            let piece = self.text.push(id)?;
            (text, stopped) = (piece.text, piece.stopped);
        }
        let end = id == END || self.made == self.max_output;
        if end && !stopped {
            let rest = self.text.finish()?;
            text.push_str(&rest.text);
            stopped = rest.stopped;
        }
        self.ended = match () {
            () if stopped => Some(EndReason::Stop),
            () if id == END => Some(EndReason::Eos),
            () if end => Some(EndReason::Max),
            () => None,
        };
        Ok(GenerateEvent::Token { id, contrasts, text, logprobs: logprobs.transpose()? })
    }
}

#[async_trait]
impl Engine for EchoEngine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    async fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, EngineError> {
        let bytes = |text: &str| text.bytes().map(u32::from).collect::<Vec<_>>();
        match prompt {
            Prompt::Text(text) => Ok([vec![TEXT], bytes(text)].concat()),
            Prompt::Messages(messages) => {
                if messages.is_empty() {
                    return Err(EngineError::EmptyPrompt);
                }
                let mut ids = Vec::new();
                for message in messages {
                    ids.push(match message.role.as_str() {
                        "system" => SYSTEM,
                        "user" => USER,
                        "assistant" => ASSISTANT,
                        other => {
                            let role: String = other.chars().take(32).collect();
                            return Err(EngineError::Template(format!("unknown role {role:?}")));
                        }
                    });
                    ids.extend(bytes(&message.content));
                    ids.push(END);
                }
                ids.push(ASSISTANT);
                Ok(ids)
            }
        }
    }

    fn end_tokens(&self) -> &[u32] {
        &self.manifest.end_tokens
    }

    async fn read(&self, ids: &[u32], stop: &[String]) -> Result<Reading, EngineError> {
        if let Some(id) = ids.iter().find(|id| **id >= VOCABULARY) {
            return Err(EngineError::UnknownToken { id: *id, vocab_size: VOCABULARY });
        }
        TextAssembler::new(decode as Decoder, stop.to_vec()).assemble(ids)
    }

    async fn generate(&self, request: GenerateRequest) -> Result<GenerateStream, EngineError> {
        request.check(&self.info)?;
        let failure = self.failure();
        if failure == Some(Failure::Refuse) {
            return Err(EngineError::Stopped("injected failure".into()));
        }
        let run = Run {
            sampler: Sampler::new(without_penalties(request.sampling), request.seed, VOCABULARY)?,
            text: TextAssembler::new(decode as Decoder, request.stop),
            rows: Rows::new(self.weights, &request.prompt_ids),
            made: 0,
            max_output: request.max_output,
            top_logprobs: request.top_logprobs,
            ended: None,
            over: false,
            delay: self.token_delay,
            failure,
        };
        Ok(GenerateStream::new(stream::unfold(run, |mut run| async move {
            run.next().await.map(|event| (event, run))
        })))
    }

    async fn score(&self, request: ScoreRequest) -> Result<Vec<Score>, EngineError> {
        request.check(&self.info)?;
        if self.failure() == Some(Failure::Refuse) {
            return Err(EngineError::Stopped("injected failure".into()));
        }
        let sampling = without_penalties(request.sampling);
        let mut scorer = Scorer::new(sampling, request.seed, VOCABULARY)?;
        let mut rows = Rows::new(self.weights, &request.prompt_ids);
        let mut scores = Vec::with_capacity(request.claimed_ids.len());
        for id in request.claimed_ids {
            scores.push(scorer.score(&rows.row(), id)?);
            rows.push(id);
            if id == END {
                break;
            }
        }
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use assay_types::Message;
    use futures::StreamExt;

    use super::*;

    fn engine(options: EchoOptions) -> EchoEngine {
        EchoEngine::new(options).unwrap()
    }

    async fn request(engine: &EchoEngine, text: &str) -> GenerateRequest {
        let message =
            |role: &str, content: &str| Message { role: role.into(), content: content.into() };
        let prompt = Prompt::Messages(vec![message("system", "Echo."), message("user", text)]);
        GenerateRequest {
            prompt_ids: engine.tokenize(&prompt).await.unwrap(),
            sampling: Sampling::default(),
            seed: B256::repeat_byte(5),
            max_output: 64,
            stop: vec![],
            top_logprobs: None,
        }
    }

    fn claim(request: &GenerateRequest, claimed_ids: &[u32]) -> ScoreRequest {
        ScoreRequest {
            prompt_ids: request.prompt_ids.clone(),
            claimed_ids: claimed_ids.to_vec(),
            sampling: request.sampling,
            seed: request.seed,
        }
    }

    #[tokio::test]
    async fn the_last_message_comes_back() {
        let engine = engine(EchoOptions::default());
        let stream = engine.generate(request(&engine, "Grüße 😀").await).await.unwrap();
        let done = stream.finish().await.unwrap();
        assert_eq!((done.text.as_str(), done.end_reason), ("Grüße 😀", EndReason::Eos));
        assert_eq!(done.ids.last(), Some(&END));
        assert_eq!(engine.read(&done.ids, &[]).await.unwrap().text, done.text);

        let prompt_ids = engine.tokenize(&Prompt::Text("plain".into())).await.unwrap();
        let request = GenerateRequest { prompt_ids, ..request(&engine, "").await };
        assert_eq!(engine.generate(request).await.unwrap().finish().await.unwrap().text, "plain");
    }

    #[tokio::test]
    async fn it_ends_at_a_stop_and_at_max() {
        let engine = engine(EchoOptions::default());
        let base = request(&engine, "one two three").await;
        let stop = GenerateRequest { stop: vec!["two".into()], ..base.clone() };
        let done = engine.generate(stop).await.unwrap().finish().await.unwrap();
        assert_eq!((done.text.as_str(), done.end_reason), ("one ", EndReason::Stop));
        assert_eq!(done.ids.len(), "one two".len());

        // The beginning of a stop sequence that max_output cuts off belongs to the text.
        let max = GenerateRequest { stop: vec!["two".into()], max_output: 6, ..base };
        let done = engine.generate(max).await.unwrap().finish().await.unwrap();
        assert_eq!((done.text.as_str(), done.end_reason), ("one tw", EndReason::Max));
        assert_eq!(engine.read(&done.ids, &[]).await.unwrap().text, "one tw");
    }

    #[tokio::test]
    async fn log_probabilities_come_only_if_they_are_asked_for() {
        let engine = engine(EchoOptions::default());
        let base = request(&engine, "né").await;
        let plain = engine.generate(base.clone()).await.unwrap().finish().await.unwrap();
        assert!(plain.logprobs.is_empty());
        let wanted = GenerateRequest { top_logprobs: Some(3), ..base };
        let done = engine.generate(wanted).await.unwrap().finish().await.unwrap();
        assert_eq!((&done.ids, &done.contrasts), (&plain.ids, &plain.contrasts));
        let mut bytes = Vec::new();
        for (entry, id) in done.logprobs.iter().zip(&done.ids) {
            assert_eq!(entry.check(3), Ok(()));
            assert_eq!(entry.chosen, entry.top[0]);
            assert_eq!(entry.chosen.token, name(*id).unwrap());
            bytes.extend_from_slice(entry.chosen.token.bytes().unwrap_or_default());
        }
        assert_eq!((bytes.as_slice(), done.logprobs.len()), ("né".as_bytes(), 4));
    }

    #[tokio::test]
    async fn impossible_requests_are_refused() {
        let engine = engine(EchoOptions { max_context: 20, ..EchoOptions::default() });
        let base = GenerateRequest { max_output: 2, ..request(&engine, "hi").await };
        let code = |request: GenerateRequest| {
            let error = request.check(engine.info()).unwrap_err();
            assert!(error.is_client_fault() && !error.is_retryable());
            error.code()
        };
        assert!(base.check(engine.info()).is_ok());
        let long = GenerateRequest { max_output: 19, ..base.clone() };
        assert_eq!(code(long), "context_exceeded");
        assert_eq!(code(GenerateRequest { max_output: 0, ..base.clone() }), "zero_output");
        assert_eq!(code(GenerateRequest { prompt_ids: vec![], ..base.clone() }), "empty_prompt");
        assert_eq!(
            code(GenerateRequest { prompt_ids: vec![999], ..base.clone() }),
            "unknown_token"
        );
        let stop = GenerateRequest { stop: vec![String::new()], ..base.clone() };
        assert_eq!(code(stop), "bad_stop_sequences");
        let stop = GenerateRequest { stop: vec!["a".into(); 5], ..base.clone() };
        assert_eq!(code(stop), "bad_stop_sequences");
        let sampling = Sampling { temperature_milli: 9999, ..Sampling::default() };
        assert_eq!(code(GenerateRequest { sampling, ..base.clone() }), "bad_parameter");
        let many = GenerateRequest { top_logprobs: Some(21), ..base.clone() };
        assert_eq!(code(many), "bad_parameter");
        assert!(engine.generate(GenerateRequest { max_output: 0, ..base }).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_injected() {
        let engine = engine(EchoOptions {
            failure: Some(Failure::AfterTokens(2)),
            token_delay: Duration::from_secs(1),
            ..EchoOptions::default()
        });
        let mut stream = engine.generate(request(&engine, "hello").await).await.unwrap();
        assert!(matches!(stream.next().await, Some(Ok(GenerateEvent::Token { .. }))));
        assert!(matches!(stream.next().await, Some(Ok(GenerateEvent::Token { .. }))));
        assert!(stream.next().await.unwrap().unwrap_err().is_retryable());
        assert!(stream.next().await.is_none());

        engine.set_failure(Some(Failure::Refuse));
        assert!(engine.generate(request(&engine, "hello").await).await.is_err());

        engine.set_failure(Some(Failure::HangAfter(1)));
        let mut stream = engine.generate(request(&engine, "hello").await).await.unwrap();
        assert!(stream.next().await.is_some());
        let silence = tokio::time::timeout(Duration::from_secs(3600), stream.next()).await;
        assert!(silence.is_err());

        engine.set_failure(None);
        let stream = engine.generate(request(&engine, "hello").await).await.unwrap();
        assert_eq!(stream.finish().await.unwrap().text, "hello");
    }

    #[tokio::test]
    async fn an_honest_answer_scores_as_it_was_made() {
        let honest = engine(EchoOptions::default());
        for temperature_milli in [0, 1000, 2000] {
            let sampling = Sampling { temperature_milli, ..Sampling::default() };
            let one = GenerateRequest { sampling, ..request(&honest, "all of this").await };
            let made = honest.generate(one.clone()).await.unwrap().finish().await.unwrap();
            assert_eq!(made.text, "all of this");
            let scores = honest.score(claim(&one, &made.ids)).await.unwrap();
            let ours: Vec<_> = scores.iter().map(|score| score.contrasts).collect();
            assert_eq!(ours, made.contrasts);
            assert!(scores.iter().all(|score| score.margin == 0.0), "{scores:?}");
        }
    }

    #[tokio::test]
    async fn other_weights_and_other_tokens_show() {
        let honest = engine(EchoOptions::default());
        let cheat = engine(EchoOptions { weights: 1, ..EchoOptions::default() });
        assert_eq!(honest.info(), cheat.info());
        let one = request(&honest, "the same text").await;
        let made = cheat.generate(one.clone()).await.unwrap().finish().await.unwrap();
        assert_eq!(made.text, "the same text");
        let scores = honest.score(claim(&one, &made.ids)).await.unwrap();
        let far = scores.iter().zip(&made.contrasts).flat_map(|(s, c)| s.contrasts.distances(c));
        assert!(far.filter(|distance| *distance > 50).count() > made.ids.len() * 3);

        let made = honest.generate(one.clone()).await.unwrap().finish().await.unwrap();
        let mut edited = made.ids.clone();
        edited[3] = u32::from(b'!');
        let scores = honest.score(claim(&one, &edited)).await.unwrap();
        assert!(scores[..3].iter().all(|score| score.margin == 0.0));
        assert!(scores[3].margin > 1.0);
        assert_eq!(scores[3].contrasts, made.contrasts[3]);
        assert_ne!(scores[4].contrasts, made.contrasts[4]);
        // Nothing follows an end token.
        let padded = [&made.ids[..], &[65, 66]].concat();
        assert_eq!(honest.score(claim(&one, &padded)).await.unwrap().len(), made.ids.len());
    }

    #[tokio::test]
    async fn impossible_claims_are_refused() {
        let engine = engine(EchoOptions { max_context: 64, ..EchoOptions::default() });
        let one = GenerateRequest { max_output: 4, ..request(&engine, "hi").await };
        let code = |ids: &[u32]| {
            let error = claim(&one, ids).check(engine.info()).unwrap_err();
            assert!(error.is_client_fault());
            error.code()
        };
        assert_eq!(code(&[]), "empty_answer");
        assert_eq!(code(&[VOCABULARY]), "unknown_token");
        assert_eq!(code(&[65; 64]), "context_exceeded");
        assert!(engine.score(claim(&one, &[])).await.is_err());
        assert_eq!(engine.score(claim(&one, &[65, 66])).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn the_manifest_names_the_model() {
        let one = engine(EchoOptions::default());
        assert_eq!(one.info().model_id, one.manifest().model_id().unwrap());
        let other = engine(EchoOptions { model: "other".into(), ..EchoOptions::default() });
        assert_ne!(one.info().model_id, other.info().model_id);
    }
}
